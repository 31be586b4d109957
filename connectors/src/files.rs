//! Files and folders of files, of this machine and of buckets.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::csv::reader::Format;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Statistics, internal_err};
use datafusion::datasource::listing::{ListingTable, PartitionedFile};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{CreateExternalTable as DeltaTable, Expr, TableProviderFilterPushDown, TableType};
use datafusion::object_store::path::Path;
use datafusion::object_store::prefix::PrefixStore;
use datafusion::object_store::{self, ObjectMeta, ObjectStore, ObjectStoreExt};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::CreateExternalTable;
use deltalake::DeltaTableError;
use deltalake::delta_datafusion::DeltaTableFactory;
use deltalake::logstore::{StorageConfig, default_logstore};
use featurectl_core::{Error, Result, closest};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

use crate::glue::HiveTable;

/// Makes `STORED AS DELTA` known to a session.
pub fn register_formats(ctx: &SessionContext) {
    ctx.state_ref().write().table_factories_mut().insert("DELTA".into(), Arc::new(DeltaTables));
}

/// Makes Delta tables; those of a bucket are read by the session's own store of it.
#[derive(Debug)]
struct DeltaTables;

#[async_trait]
impl TableProviderFactory for DeltaTables {
    async fn create(&self, session: &dyn Session, table: &DeltaTable) -> DfResult<Arc<dyn TableProvider>> {
        match table.locations.as_slice() {
            [location] if location.contains("://") => {
                let url = Url::parse(location).map_err(|e| Error::invalid(format!("`{location}`: {e}")))?;
                delta_table(session, &url).await
            }
            _ => DeltaTableFactory {}.create(session, table).await,
        }
    }
}

/// The Delta table below a URL of a bucket.
pub(crate) async fn delta_table(session: &dyn Session, url: &Url) -> DfResult<Arc<dyn TableProvider>> {
    let store = session.runtime_env().object_store_registry.get_store(url)?;
    let key = Path::from_url_path(url.path())?;
    let prefixed = Arc::new(PrefixStore::new(Arc::clone(&store), key));
    let mut delta = deltalake::DeltaTable::new(default_logstore(prefixed, store, url, &StorageConfig::default()));
    delta.load().await.map_err(|e| delta_error(e, url.as_str()))?;
    delta.table_provider().await
}

fn delta_error(e: DeltaTableError, location: &str) -> Error {
    match (Error::within(&e), &e) {
        (Some(own), _) => Error::new(own.kind(), own.to_string()),
        (None, DeltaTableError::NotATable(_)) => Error::not_found(format!("no Delta table at {location}")),
        (None, _) => Error::data(format!("Delta table {location}: {e}")),
    }
}

/// The full path of a location that a user wrote relative to `root`, or the URL of a stream or of something in a bucket.
///
/// Errors: [`NotFound`](featurectl_core::ErrorKind::NotFound) if there is no such file or folder,
/// [`Data`](featurectl_core::ErrorKind::Data) if the file is empty, has no footer (Parquet), or has other columns than
/// the table declares (CSV); [`Invalid`](featurectl_core::ErrorKind::Invalid) for a URL of another kind.
pub async fn locate(
    ctx: &SessionContext,
    root: &std::path::Path,
    location: &str,
    table: &CreateExternalTable,
) -> Result<String> {
    match location.split_once("://") {
        None => located(root, location, table),
        Some(("s3", _)) => in_bucket(ctx, location).await,
        Some(("kinesis" | "file", _)) => Ok(location.to_string()),
        Some((scheme, _)) => {
            Err(Error::invalid(format!("`{scheme}://` can't be read: give a path, s3:// or kinesis://")))
        }
    }
}

/// The URL of an object, or of a prefix with `/` at its end.
async fn in_bucket(ctx: &SessionContext, location: &str) -> Result<String> {
    if location.contains(['?', '#']) || location.split_once("://").is_some_and(|(_, rest)| rest.contains('@')) {
        return Err(Error::invalid(
            "a location in a bucket is s3://bucket/key, without anything else: no keys, no options",
        ));
    }
    let url = Url::parse(location).map_err(|e| Error::invalid(format!("`{location}`: {e}")))?;
    if location.contains('*') {
        return Ok(location.to_string());
    }
    let key = Path::from_url_path(url.path()).map_err(|e| Error::invalid(format!("`{location}`: {e}")))?;
    let store = ctx.runtime_env().object_store_registry.get_store(&url)?;
    if !location.ends_with('/') && !key.as_ref().is_empty() {
        match store.head(&key).await {
            Ok(object) if object.size == 0 => return Err(Error::data(format!("{location} is empty"))),
            Ok(_) => return Ok(location.to_string()),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    match store.list(Some(&key)).try_next().await? {
        Some(_) => Ok(format!("{}/", location.trim_end_matches('/'))),
        None => Err(Error::not_found(format!("nothing is at {location}, neither an object nor a prefix"))),
    }
}

fn located(root: &std::path::Path, location: &str, table: &CreateExternalTable) -> Result<String> {
    let path = std::path::absolute(root.join(location))?;
    if !location.contains(['*', '?']) {
        let meta = std::fs::metadata(&path).map_err(|e| missing(&path, &e))?;
        if meta.is_file() && meta.len() == 0 {
            return Err(Error::data(format!("{} is empty", path.display())));
        }
        if meta.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                let file = entry?.path();
                let extension = file.extension().unwrap_or_default();
                if file.is_file() && extension.eq_ignore_ascii_case(&table.file_type) {
                    check_file(&file, table)?;
                }
            }
            return Ok(format!("{}/", path.display()));
        }
        check_file(&path, table)?;
    }
    Ok(path.display().to_string())
}

fn check_file(path: &std::path::Path, table: &CreateExternalTable) -> Result<()> {
    let doing = || format!("opening {}", path.display());
    let file = File::open(path).map_err(|e| Error::from(e).context(doing()))?;
    let checked = match table.file_type.to_lowercase().as_str() {
        "parquet" => check_parquet(file),
        "csv" => check_header(file, table),
        _ => Ok(()),
    };
    checked.map_err(|e| e.context(doing()))
}

/// DataFusion reads declared columns by their place, whatever the header says; a header that says otherwise would
/// give wrong values.
fn check_header(file: File, table: &CreateExternalTable) -> Result<()> {
    let option = |name: &str| {
        let (_, value) = table.options.iter().find(|(k, _)| k.trim_start_matches("format.") == name)?;
        Some(value.to_string().trim_matches('\'').to_lowercase())
    };
    let headerless = option("has_header").is_some_and(|v| v == "false");
    if table.columns.is_empty() || headerless || option("compression").is_some() {
        return Ok(());
    }
    let delimiter = option("delimiter").and_then(|d| d.bytes().next()).unwrap_or(b',');
    let format = Format::default().with_header(true).with_delimiter(delimiter);
    let (header, _) = format.infer_schema(BufReader::new(file), Some(0))?;
    let found: Vec<&str> = header.fields().iter().map(|f| f.name().trim()).collect();
    let declared: Vec<&str> = table.columns.iter().map(|c| c.name.value.as_str()).collect();
    if found.len() == declared.len() && found.iter().zip(&declared).all(|(f, d)| f.eq_ignore_ascii_case(d)) {
        return Ok(());
    }
    Err(Error::data(format!(
        "its header is `{}`, but the table's columns are `{}`: declare them in the order of the file, or leave them out; \
         a file without a header takes OPTIONS ('format.has_header' 'false')",
        found.join(", "),
        declared.join(", ")
    )))
}

/// A Parquet file ends with its footer, the footer's length and `PAR1`. A damaged length must not reach the reader.
fn check_parquet(mut file: File) -> Result<()> {
    let len = file.metadata()?.len();
    let damaged = || Error::data("this is no Parquet file, or it is damaged: its footer is missing");
    if len < 12 {
        return Err(damaged());
    }
    let mut end = [0; 8];
    file.seek(SeekFrom::End(-8))?;
    file.read_exact(&mut end)?;
    let footer = u64::from(u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
    if &end[4..] == b"PAR1" && footer + 12 <= len { Ok(()) } else { Err(damaged()) }
}

fn missing(path: &std::path::Path, e: &std::io::Error) -> Error {
    if e.kind() != std::io::ErrorKind::NotFound {
        return Error::invalid(format!("{}: {e}", path.display()));
    }
    let wanted = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.parent().and_then(|p| std::fs::read_dir(p).ok());
    let names = beside.into_iter().flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    let hint = closest(&wanted, names).map_or(String::new(), |n| format!("; did you mean `{n}`?"));
    Error::not_found(format!("no file or folder {}{hint}", path.display()))
}

/// A file of a table, and what changes when its content may have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SourceFile {
    /// Its path in its object store.
    pub path: String,
    /// Its size in bytes and the time of its last change, and in a bucket the tag of its content.
    pub version: String,
}

/// The files of a table, by path; `None` for a table that is not made of files, or of a log over them.
///
/// Errors: those of the object store.
pub async fn source_files(ctx: &SessionContext, table: &dyn TableProvider) -> Result<Option<Vec<SourceFile>>> {
    let any: &dyn std::any::Any = table;
    let state = ctx.state();
    let mut files = Vec::new();
    if let Some(table) = any.downcast_ref::<HiveTable>() {
        files.extend(table.files(&state).await?.into_iter().map(|f| source_file(f, true)));
        files.sort();
        return Ok(Some(files));
    }
    let Some(listing) = any.downcast_ref::<ListingTable>() else { return Ok(None) };
    for url in listing.table_paths() {
        let store = ctx.runtime_env().object_store(url)?;
        let extension = listing.options().file_extension.as_str();
        let mut found = url.list_all_files(&state, store.as_ref(), extension).await?;
        while let Some(f) = found.try_next().await? {
            files.push(source_file(f, url.scheme() != "file"));
        }
    }
    files.sort();
    Ok(Some(files))
}

fn source_file(file: ObjectMeta, in_bucket: bool) -> SourceFile {
    let mut version = format!("{} {}", file.size, file.last_modified.timestamp_micros());
    // A bucket tells the time of a change in seconds.
    if let Some(tag) = file.e_tag.filter(|_| in_bucket) {
        version = format!("{version} {tag}");
    }
    SourceFile { path: file.location.to_string(), version }
}

/// A hash that changes when one of the files may have.
pub fn files_version(files: &[SourceFile]) -> String {
    let mut hash = Sha256::new();
    files.iter().for_each(|f| hash.update(format!("{} {}\n", f.path, f.version)));
    hex(&hash.finalize())
}

/// A hash that changes when the table's rows may have: of the paths, sizes and times of its files, or of a Delta
/// table's version. `None` for a table that is no file, such as one in memory.
///
/// Errors: those of the object store.
pub async fn source_version(ctx: &SessionContext, table: &Arc<dyn TableProvider>) -> Result<Option<String>> {
    if let Some(files) = source_files(ctx, table.as_ref()).await? {
        return Ok(Some(files_version(&files)));
    }
    match table.get_logical_plan() {
        Some(plan) => Ok(Some(hex(&Sha256::digest(plan.display_indent().to_string())))),
        None => Ok(None),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(16).map(|b| format!("{b:02x}")).collect()
}

/// The rows of `table` that are in some of its [files](source_files) only.
pub fn only_files(table: Arc<dyn TableProvider>, files: &[SourceFile]) -> Arc<dyn TableProvider> {
    Arc::new(OnlyFiles { table, paths: files.iter().map(|f| f.path.clone()).collect() })
}

#[derive(Debug)]
struct OnlyFiles {
    table: Arc<dyn TableProvider>,
    paths: HashSet<String>,
}

#[async_trait]
impl TableProvider for OnlyFiles {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        self.table.table_type()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        self.table.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let plan = self.table.scan(state, projection, filters, None).await?;
        let wanted = |file: &PartitionedFile| self.paths.contains(file.object_meta.location.as_ref());
        let chosen = plan.transform_up(|node| {
            let Some(source) = node.downcast_ref::<DataSourceExec>() else { return Ok(Transformed::no(node)) };
            let Some(config) = source.data_source().downcast_ref::<FileScanConfig>() else {
                return internal_err!("a table of files is read from {}", node.name());
            };
            let group = |g: &FileGroup| FileGroup::new(g.iter().filter(|f| wanted(f)).cloned().collect());
            let groups: Vec<_> = config.file_groups.iter().map(group).filter(|g| !g.is_empty()).collect();
            if groups.is_empty() {
                return Ok(Transformed::yes(Arc::new(EmptyExec::new(node.schema())) as _));
            }
            let unknown = Statistics::new_unknown(&self.table.schema());
            let config = FileScanConfigBuilder::from(config.clone()).with_file_groups(groups).with_statistics(unknown);
            Ok(Transformed::yes(DataSourceExec::from_data_source(config.build()) as _))
        })?;
        Ok(chosen.data)
    }
}
