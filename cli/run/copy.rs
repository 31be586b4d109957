//! `COPY … TO`: rows into a file or a folder, whole or not at all.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use datafusion::config::{ConfigFileType, TableOptions};
use datafusion::dataframe::{DataFrame, DataFrameWriteOptions};
use datafusion::prelude::SessionContext;
use featurectl_core::check::Copy;
use featurectl_core::sink::{Sink, SinkNode, WrittenFile, tuned};
use featurectl_core::{Error, Lineage, Result, lineage};
use serde::{Deserialize, Serialize};

use super::{Run, hash, input_hash, thousands};
use crate::project::Project;
use crate::session::Session;

/// What is kept of a written output.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Written {
    target: String,
    input_hash: String,
    /// Hash of the names and sizes of its files.
    files: String,
    rows: u64,
    run_id: String,
}

/// Where a COPY goes.
pub(crate) struct Output {
    pub(crate) target: PathBuf,
    input_hash: String,
    /// The file that says what was written.
    note: PathBuf,
    /// What was written, if nothing has changed since.
    pub(crate) known: Option<Written>,
}

impl Session {
    /// Where a COPY goes, and whether it is there already.
    pub(crate) async fn output(&self, copy: &Copy, found: &Lineage, run_id: &str) -> Result<Output> {
        if copy.target.contains("://") {
            return Err(Error::invalid(format!("COPY TO `{}`: only local paths can be written yet", copy.target)));
        }
        let target = std::path::absolute(self.project.root.join(&copy.target))?;
        let sources = self.source_versions(found, run_id).await?;
        let input_hash = input_hash(&copy.sql, &copy.plan, found, &sources);
        let note = self.project.store.join("registry/output").join(format!("{}.json", hash([copy.target.as_str()])));
        let known = std::fs::read(&note).ok().and_then(|b| serde_json::from_slice::<Written>(&b).ok());
        let known = known.filter(|k| k.input_hash == input_hash && listing(&target).is_ok_and(|l| l == k.files));
        Ok(Output { target, input_hash, note, known })
    }
}

impl Run<'_> {
    pub(super) async fn copy(&mut self, copy: &Copy) -> Result<()> {
        let found = lineage(&copy.plan)?;
        let verb = if found.models.is_empty() { "Wrote" } else { "Scored" };
        let started = self.begin(verb, &copy.target);
        let output = self.session.output(copy, &found, &self.id).await?;
        let figures = |rows: u64| serde_json::json!({ "rows": rows });
        if let Some(known) = output.known {
            let detail = format!("{} rows", thousands(known.rows));
            self.done(verb, &copy.target, detail, true, started, figures(known.rows));
            return Ok(());
        }
        let rows = self.write(copy, &output.target).await?;
        let written = Written {
            target: copy.target.clone(),
            input_hash: output.input_hash,
            files: listing(&output.target)?,
            rows,
            run_id: self.id.clone(),
        };
        featurectl_feature_store::write(&output.note, &written)?;
        let rate = rows as f64 / started.elapsed().as_secs_f64().max(1e-9);
        let detail = format!("{} rows at {} rows/s", thousands(rows), thousands(rate as u64));
        self.done(verb, &copy.target, detail, false, started, figures(rows));
        Ok(())
    }

    /// Writes beside the target and then puts it in the target's place; what a killed run left there is removed.
    async fn write(&self, copy: &Copy, target: &Path) -> Result<u64> {
        let name = target.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let parent = target.parent().unwrap_or(Path::new("."));
        let doing = |e: std::io::Error| Error::from(e).context(format!("writing {}", target.display()));
        std::fs::create_dir_all(parent).map_err(doing)?;
        let single = Path::new(&copy.target).extension().is_some() && copy.partitioned_by.is_empty();
        let staged =
            parent.join(format!(".{name}.part{}", if single { format!(".{}", copy.format) } else { String::new() }));
        remove(&staged).map_err(doing)?;
        let ctx = &self.session.ctx;
        let format = format_options(ctx, copy)?;
        let written = if self.session.is_remote() && matches!(format.current_format, Some(ConfigFileType::PARQUET)) {
            write_parts(ctx, copy, &self.id, format, single, &staged).await
        } else {
            let rows = ctx.execute_logical_plan(copy.plan.clone()).await?;
            let options = DataFrameWriteOptions::new();
            let options = options.with_single_file_output(single).with_partition_by(copy.partitioned_by.clone());
            if !single {
                std::fs::create_dir_all(&staged).map_err(doing)?;
            }
            write_as(rows, format, &staged.display().to_string(), options).await
        };
        let written = written.map_err(|e| e.context(format!("writing {}", target.display())));
        let rows = match written {
            Ok(rows) => rows,
            Err(e) => {
                let _ = remove(&staged);
                return Err(e);
            }
        };
        let old = parent.join(format!(".{name}.old"));
        remove(&old).map_err(doing)?;
        if target.exists() {
            std::fs::rename(target, &old).map_err(doing)?;
        }
        std::fs::rename(&staged, target).map_err(doing)?;
        remove(&old).map_err(doing)?;
        Ok(rows)
    }
}

/// The session's settings for the format, [tuned], and changed by the statement's `OPTIONS`.
fn format_options(ctx: &SessionContext, copy: &Copy) -> Result<TableOptions> {
    let mut options = ctx.state().default_table_options();
    options.set_config_format(match copy.format.as_str() {
        "csv" => ConfigFileType::CSV,
        "json" => ConfigFileType::JSON,
        _ => ConfigFileType::PARQUET,
    });
    options.parquet = tuned(options.parquet, copy.plan.schema().as_arrow(), !copy.partitioned_by.is_empty());
    for (key, value) in &copy.options {
        let key = if key.starts_with("format.") { key.clone() } else { format!("format.{key}") };
        options
            .alter_with_string_hash_map(&HashMap::from([(key, value.clone())]))
            .map_err(|e| Error::from(e).context(format!("OPTIONS of COPY TO '{}'", copy.target)))?;
    }
    Ok(options)
}

async fn write_as(rows: DataFrame, format: TableOptions, path: &str, options: DataFrameWriteOptions) -> Result<u64> {
    let counts = match format.current_format {
        Some(ConfigFileType::CSV) => rows.write_csv(path, options, Some(format.csv)).await?,
        Some(ConfigFileType::JSON) => rows.write_json(path, options, Some(format.json)).await?,
        _ => rows.write_parquet(path, options, Some(format.parquet)).await?,
    };
    use arrow::array::AsArray;
    let count = |b: &arrow::array::RecordBatch| {
        let counts = b.column(0).as_primitive::<arrow::datatypes::UInt64Type>();
        counts.iter().flatten().sum::<u64>()
    };
    Ok(counts.iter().map(count).sum())
}

/// Writes Parquet files from all tasks of a cluster; what is in `staged` afterwards are the files of successful tasks.
async fn write_parts(
    ctx: &SessionContext,
    copy: &Copy,
    run_id: &str,
    format: TableOptions,
    single: bool,
    staged: &Path,
) -> Result<u64> {
    let parts = staged.with_extension("parts");
    remove(&parts)?;
    std::fs::create_dir_all(&parts)?;
    let sink = Sink {
        folder: format!("{}/", parts.display()),
        prefix: run_id.to_string(),
        partition_by: copy.partitioned_by.clone(),
        single,
        options: format.parquet,
    };
    let plan = SinkNode::plan(copy.plan.clone(), sink)?;
    let files = WrittenFile::from_rows(&ctx.execute_logical_plan(plan).await?.collect().await?)?;
    match (single, files.as_slice()) {
        (true, [file]) => std::fs::rename(parts.join(&file.path), staged)?,
        (true, _) => return Err(Error::internal("one file was asked for")),
        (false, _) => {
            std::fs::create_dir_all(staged)?;
            for file in &files {
                let to = staged.join(&file.path);
                to.parent().map_or(Ok(()), std::fs::create_dir_all)?;
                std::fs::rename(parts.join(&file.path), to)?;
            }
        }
    }
    remove(&parts)?;
    Ok(files.iter().map(|f| f.rows).sum())
}

fn remove(path: &Path) -> std::io::Result<()> {
    let gone = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match gone {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A hash of the names and sizes of all files at `path`.
fn listing(path: &Path) -> Result<String> {
    let one = |(path, bytes): (PathBuf, u64)| format!("{} {bytes}", path.display());
    let mut files: Vec<String> = files_below(path)?.into_iter().map(one).collect();
    files.sort();
    Ok(hash(files.iter().map(String::as_str)))
}

/// The files at `path`, a file or a folder, with their sizes in bytes.
fn files_below(path: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    let mut open = vec![path.to_path_buf()];
    while let Some(at) = open.pop() {
        if at.is_dir() {
            for entry in std::fs::read_dir(&at)? {
                open.push(entry?.path());
            }
        } else {
            let bytes = std::fs::metadata(&at)?.len();
            files.push((at, bytes));
        }
    }
    Ok(files)
}

/// The files, with their sizes in bytes, that killed runs left beside the outputs of earlier ones.
pub(crate) fn leftovers(project: &Project) -> Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    let notes = match std::fs::read_dir(project.store.join("registry/output")) {
        Ok(notes) => notes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        Err(e) => return Err(e.into()),
    };
    for note in notes {
        let Some(written) = std::fs::read(note?.path()).ok().and_then(|b| serde_json::from_slice::<Written>(&b).ok())
        else {
            continue;
        };
        let target = std::path::absolute(project.root.join(&written.target))?;
        let name = target.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        for entry in target.parent().map_or_else(|| Path::new(".").read_dir(), Path::read_dir).into_iter().flatten() {
            let path = entry?.path();
            let found = path.file_name().unwrap_or_default().to_string_lossy();
            if found.starts_with(&format!(".{name}.part")) {
                files.extend(files_below(&path)?);
            }
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}
