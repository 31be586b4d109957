//! `vacuum`: files that failed writers left.

use std::path::PathBuf;
use std::process::ExitCode;

use featurectl_core::{Error, Result};
use featurectl_feature_store::{OfflineStore, Registry};

use super::project;
use crate::args::{Global, Output};
use crate::render;
use crate::run::{leftovers, plural, thousands};

/// Removes them, or with `dry_run` only says which.
pub(super) async fn vacuum(global: &Global, dry_run: bool) -> Result<ExitCode> {
    let project = project(global, None)?;
    let registry = Registry::new(project.store.join("registry"));
    let _lock = registry.lock()?;
    let mut files = OfflineStore::new(project.store.join("offline")).orphans().await?;
    files.extend(leftovers(&project)?);
    let bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    for (path, _) in &files {
        if !dry_run {
            std::fs::remove_file(path).map_err(|e| Error::from(e).context(format!("removing {}", path.display())))?;
        }
        if global.output != Output::Json {
            println!("{}", path.display());
        }
    }
    if global.output == Output::Json {
        let paths: Vec<&PathBuf> = files.iter().map(|(path, _)| path).collect();
        render::json(&serde_json::json!({ "files": paths, "bytes": bytes, "removed": !dry_run }))?;
    } else {
        let verb = if dry_run { "Would remove" } else { "Removed" };
        render::status(verb, &format!("{}, {} bytes", plural(files.len(), "file"), thousands(bytes)));
    }
    Ok(ExitCode::SUCCESS)
}
