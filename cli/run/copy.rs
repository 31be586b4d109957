//! `COPY … TO`: rows into a file or a folder, whole or not at all.
//!
//! ```text
//!  on this machine: rows ──▶ .scores.part/ ──rename──▶ scores/
//!  in a bucket:     rows ──▶ .scores.part/ ──copy, then remove the files of before──▶ scores/      (one file: put)
//! ```

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use datafusion::config::{ConfigFileType, TableOptions};
use datafusion::dataframe::{DataFrame, DataFrameWriteOptions};
use datafusion::logical_expr::LogicalPlan;
use datafusion::object_store::buffered::BufWriter;
use datafusion::object_store::path::Path as Key;
use datafusion::object_store::{ObjectStore, ObjectStoreExt};
use datafusion::prelude::SessionContext;
use featurectl_core::check::Copy;
use featurectl_core::sink::{Sink, SinkNode, WrittenFile, tuned};
use featurectl_core::{Error, Lineage, Result, lineage};
use featurectl_feature_store::{Folder, Registry};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use url::Url;

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
    pub(crate) target: Target,
    input_hash: String,
    /// Under which name the registry knows what was written.
    note: String,
    /// What was written, if nothing has changed since.
    pub(crate) known: Option<Written>,
}

/// A file, or a folder of files.
pub(crate) struct Target {
    parent: Folder,
    name: String,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.parent.place(&self.name))
    }
}

impl Target {
    /// What `text` of a statement names.
    fn parse(text: &str, project: &Project) -> Result<Self> {
        if !text.contains("://") {
            let path = std::path::absolute(project.root.join(text))?;
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            return Ok(Self { parent: path.parent().unwrap_or(Path::new(".")).into(), name });
        }
        let wrong = || Error::invalid(format!("COPY TO `{text}`: write s3://bucket/key, without anything else"));
        let (parent, name) = text.trim_end_matches('/').rsplit_once('/').ok_or_else(wrong)?;
        if parent.ends_with('/') || name.contains(['?', '#']) {
            return Err(wrong());
        }
        let parent = project.folder(parent).map_err(|e| e.context(format!("COPY TO `{text}`")))?;
        Ok(Self { parent, name: name.into() })
    }

    pub(super) fn folder(&self) -> Folder {
        self.parent.join(&self.name)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where rows are written before they have their place.
    fn staged(&self) -> String {
        format!(".{}.part", self.name)
    }

    /// Its files, by their names from here, with their sizes in bytes.
    fn files(&self) -> Result<Vec<(String, u64)>> {
        match self.parent.size(&self.name)? {
            Some(bytes) => Ok(vec![(String::new(), bytes)]),
            None => self.folder().below(),
        }
    }

    pub(crate) fn exists(&self) -> Result<bool> {
        Ok(!self.files()?.is_empty())
    }

    /// A hash of the names and sizes of all its files.
    fn listing(&self) -> Result<String> {
        let files: Vec<String> = self.files()?.into_iter().map(|(name, bytes)| format!("{name} {bytes}")).collect();
        Ok(hash(files.iter().map(String::as_str)))
    }
}

impl Session {
    /// Where a COPY goes, and whether it is there already.
    pub(crate) async fn output(&self, copy: &Copy, found: &Lineage, run_id: &str) -> Result<Output> {
        let target = Target::parse(&copy.target, &self.project)?;
        let sources = self.source_versions(found, run_id).await?;
        let input_hash = input_hash(&copy.sql, &copy.plan, found, &sources);
        let note = hash([copy.target.as_str()]);
        let known = self.registry.output::<Written>(&note)?;
        let known = match known.filter(|k| k.input_hash == input_hash) {
            Some(known) if target.listing()? == known.files => Some(known),
            _ => None,
        };
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
            let registered = self.session.register_copy(copy, &output.target).await?;
            let detail = format!("{} rows{}", thousands(known.rows), registered.note());
            self.done(verb, &copy.target, detail, !registered.changed, started, figures(known.rows));
            return Ok(());
        }
        let rows = match output.target.parent.local() {
            Some(parent) => self.write(copy, &parent.join(&output.target.name)).await?,
            None => {
                self.put(copy, &output.target).await.map_err(|e| e.context(format!("writing {}", output.target)))?
            }
        };
        let written = Written {
            target: copy.target.clone(),
            input_hash: output.input_hash,
            files: output.target.listing()?,
            rows,
            run_id: self.id.clone(),
        };
        self.session.registry.put_output(&output.note, &written)?;
        let registered = self.session.register_copy(copy, &output.target).await?;
        let rate = rows as f64 / started.elapsed().as_secs_f64().max(1e-9);
        let detail = format!("{} rows at {} rows/s{}", thousands(rows), thousands(rate as u64), registered.note());
        self.done(verb, &copy.target, detail, false, started, figures(rows));
        Ok(())
    }

    /// Writes beside the target and then puts it in the target's place; what a killed run left there is removed.
    async fn write(&self, copy: &Copy, target: &Path) -> Result<u64> {
        let name = target.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let parent = target.parent().unwrap_or(Path::new("."));
        let doing = |e: std::io::Error| Error::from(e).context(format!("writing {}", target.display()));
        std::fs::create_dir_all(parent).map_err(doing)?;
        let single = is_single(copy);
        let staged =
            parent.join(format!(".{name}.part{}", if single { format!(".{}", copy.format) } else { String::new() }));
        remove(&staged).map_err(doing)?;
        let ctx = &self.session.ctx;
        let format = format_options(ctx, copy)?;
        // DataFusion's own writer puts NULL dates into the folder of 1970-01-01. But it writes what comes in one stream
        // by several tasks.
        let one_stream = matches!(copy.plan, LogicalPlan::Sort(_) | LogicalPlan::Limit(_));
        let own = self.session.is_remote() || !copy.partitioned_by.is_empty() || !(single || one_stream);
        let written = if own && matches!(format.current_format, Some(ConfigFileType::PARQUET)) {
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

    /// Writes to a bucket. A file appears whole when it is put; the files of a folder are written beside it first, then
    /// copied in, and those of before removed.
    async fn put(&self, copy: &Copy, target: &Target) -> Result<u64> {
        let ctx = &self.session.ctx;
        let format = format_options(ctx, copy)?;
        let options = DataFrameWriteOptions::new().with_partition_by(copy.partitioned_by.clone());
        if is_single(copy) {
            let rows = ctx.execute_logical_plan(copy.plan.clone()).await?;
            return write_as(rows, format, &target.to_string(), options.with_single_file_output(true)).await;
        }
        let staged = target.parent.join(&target.staged());
        staged.remove_all()?;
        let written = if matches!(format.current_format, Some(ConfigFileType::PARQUET)) {
            write_files(ctx, copy, &self.id, format, false, staged.location()?).await
        } else {
            let rows = ctx.execute_logical_plan(copy.plan.clone()).await?;
            write_as(rows, format, &staged.location()?, options.with_single_file_output(false)).await.map(|n| (n, None))
        };
        let (rows, files) = match written {
            Ok(written) => written,
            Err(e) => {
                let _ = staged.remove_all();
                return Err(e);
            }
        };
        // Files of attempts that failed are among those that are there.
        let files = match files {
            Some(files) => files.into_iter().map(|f| (f.path, f.bytes)).collect(),
            None => staged.below()?,
        };
        let before = target.folder();
        let old = before.below()?;
        move_in(&staged, &before, &files).await?;
        for (name, _) in old.iter().filter(|(name, _)| !files.iter().any(|(new, _)| new == name)) {
            before.remove(name)?;
        }
        staged.remove_all()?;
        Ok(rows)
    }
}

/// Whether a COPY writes one file.
pub(super) fn is_single(copy: &Copy) -> bool {
    Path::new(&copy.target).extension().is_some() && copy.partitioned_by.is_empty()
}

/// The largest object that a bucket copies by itself, in bytes.
const COPY_BYTES_MAX: u64 = 5 << 30;
/// Copies at once.
const COPIES: usize = 16;

/// Copies files from one folder of a bucket into another.
async fn move_in(from: &Folder, to: &Folder, files: &[(String, u64)]) -> Result<()> {
    let (Some((source, store)), Some((target, _))) = (from.bucket()?, to.bucket()?) else {
        return Err(Error::internal("these folders are not in a bucket"));
    };
    let key = |url: &Url, name: &str| {
        let folder = Key::from_url_path(url.path()).map_err(|e| Error::invalid(format!("{url}: {e}")))?;
        Key::parse(format!("{folder}/{name}")).map_err(|e| Error::invalid(format!("{url}{name}: {e}")))
    };
    let copy = |(name, bytes): &(String, u64)| {
        let copied = copy_object(Arc::clone(&store), key(&source, name)?, key(&target, name)?, *bytes);
        Ok(copied.boxed())
    };
    let copies = files.iter().map(copy).collect::<Result<Vec<_>>>()?;
    stream::iter(copies).buffer_unordered(COPIES).try_collect::<()>().await
}

async fn copy_object(store: Arc<dyn ObjectStore>, from: Key, to: Key, bytes: u64) -> Result<()> {
    if bytes <= COPY_BYTES_MAX {
        return Ok(store.copy(&from, &to).await?);
    }
    let mut rest = store.get(&from).await?.into_stream();
    let mut writer = BufWriter::new(store, to);
    while let Some(part) = rest.try_next().await? {
        writer.put(part).await?;
    }
    Ok(writer.shutdown().await?)
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

/// Writes Parquet files, every task its own, and says which: only those of successful tasks.
async fn write_files(
    ctx: &SessionContext,
    copy: &Copy,
    run_id: &str,
    format: TableOptions,
    single: bool,
    folder: String,
) -> Result<(u64, Option<Vec<WrittenFile>>)> {
    let (prefix, partition_by) = (run_id.to_string(), copy.partitioned_by.clone());
    let sink = Sink { folder, prefix, partition_by, single, options: format.parquet };
    let plan = SinkNode::plan(copy.plan.clone(), sink)?;
    let files = WrittenFile::from_rows(&ctx.execute_logical_plan(plan).await?.collect().await?)?;
    Ok((files.iter().map(|f| f.rows).sum(), Some(files)))
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
    let (rows, files) = write_files(ctx, copy, run_id, format, single, format!("{}/", parts.display())).await?;
    let files = files.unwrap_or_default();
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
    Ok(rows)
}

fn remove(path: &Path) -> std::io::Result<()> {
    let gone = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match gone {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The files that killed runs left beside the outputs of earlier ones: their folder, name, and size in bytes.
pub(crate) fn leftovers(project: &Project, registry: &Registry) -> Result<Vec<(Folder, String, u64)>> {
    let mut files = Vec::new();
    // Other verbs keep notes of another form.
    let notes = registry.outputs::<serde_json::Value>()?.into_iter();
    for written in notes.filter_map(|note| serde_json::from_value::<Written>(note).ok()) {
        let target = Target::parse(&written.target, project)?;
        let (parent, staged) = (&target.parent, target.staged());
        let found = parent.entries()?;
        for name in found.files.into_iter().filter(|n| n.starts_with(&staged)) {
            let bytes = parent.size(&name)?.unwrap_or_default();
            files.push((parent.clone(), name, bytes));
        }
        for folder in found.folders.into_iter().filter(|n| n.starts_with(&staged)) {
            let below = parent.join(&folder).below()?.into_iter();
            files.extend(below.map(|(name, bytes)| (parent.clone(), format!("{folder}/{name}"), bytes)));
        }
    }
    files.sort_by_key(|(folder, name, _)| folder.place(name));
    files.dedup_by_key(|(folder, name, _)| folder.place(name));
    Ok(files)
}
