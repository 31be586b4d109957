//! `vacuum`: files that failed writers left.

use std::process::ExitCode;

use featurectl_core::Result;
use featurectl_feature_store::{Folder, OfflineStore, Registry};

use super::project;
use crate::args::{Global, Output};
use crate::render;
use crate::run::{leftovers, plural, thousands};

/// Removes them, or with `dry_run` only says which.
pub(super) async fn vacuum(global: &Global, dry_run: bool) -> Result<ExitCode> {
    let project = project(global, None)?;
    let registry = Registry::new(project.store.join("registry"));
    let lock = registry.lock()?;
    let offline = project.store.join("offline");
    let orphans = OfflineStore::new(offline.clone()).orphans().await?;
    let orphans = orphans.into_iter().map(|(name, bytes)| (offline.clone(), name, bytes));
    let files: Vec<(Folder, String, u64)> = orphans.chain(leftovers(&project, &registry)?).collect();
    let bytes: u64 = files.iter().map(|(.., bytes)| bytes).sum();
    for (folder, name, _) in &files {
        if !dry_run {
            lock.check()?;
            folder.remove(name)?;
        }
        if global.output != Output::Json {
            println!("{}", folder.place(name));
        }
    }
    if global.output == Output::Json {
        let paths: Vec<String> = files.iter().map(|(folder, name, _)| folder.place(name)).collect();
        render::json(&serde_json::json!({ "files": paths, "bytes": bytes, "removed": !dry_run }))?;
    } else {
        let verb = if dry_run { "Would remove" } else { "Removed" };
        render::status(verb, &format!("{}, {} bytes", plural(files.len(), "file"), thousands(bytes)));
    }
    Ok(ExitCode::SUCCESS)
}
