//! The offline store: one Delta table a feature view (its tiles) and a training set (its rows).
//!
//! ```text
//!  plan ──Sink──▶ Parquet files of every task ──one commit──▶ _delta_log/000…N.json
//!                                                   ├ txn  (app id `featurectl`, N): a second writer loses the race
//!                                                   └ commitInfo.featurectl: the manifest
//! ```
//! The log is the manifest: a version is there whole, or not at all, and says what it was made of. A version with the
//! wanted [`Manifest::input_hash`] is not written again. Files that a killed writer left are in no version.

mod commit;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast};
use datafusion::object_store::ObjectStore;
use datafusion::object_store::prefix::PrefixStore;
use datafusion::prelude::SessionContext;
use deltalake::kernel::Transaction;
use deltalake::kernel::engine::arrow_conversion::TryIntoArrow;
use deltalake::kernel::transaction::CommitProperties;
use deltalake::logstore::{StorageConfig, default_logstore};
use deltalake::{DeltaTable, DeltaTableError};
use featurectl_core::sink::{Sink, SinkNode, WrittenFile, tuned};
use featurectl_core::{Error, ErrorKind, Result};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::folder::Folder;
use commit::{commit, partition_by, table_schema};

/// The date by which a table is partitioned.
pub const DATE_COLUMN: &str = "_date";
/// Key of the manifest in a commit.
const MANIFEST_KEY: &str = "featurectl";

/// What a version of a table was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `feature view` or `training set`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Hash of the definition.
    pub definition_hash: String,
    /// Hash of everything the rows depend on: definition, upstream definitions, source versions.
    pub input_hash: String,
    /// Version of each source: a hash of its files, or a table version.
    pub sources: Vec<(String, String)>,
    /// Column names and types.
    pub columns: Vec<(String, String)>,
    /// The run that wrote it.
    pub run_id: String,
    /// A hash that stays the same as long as rows are only added.
    #[serde(default)]
    pub base: String,
    /// The units of work that the rows were made by.
    #[serde(default)]
    pub units: Vec<Unit>,
}

/// Rows that were made from some files of the source, and of nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Value of [`WRITER_COLUMN`](featurectl_core::tile::WRITER_COLUMN) in its rows.
    pub id: String,
    /// Path and version of each file.
    pub files: Vec<(String, String)>,
    /// The table's version that has its rows first.
    pub version: i64,
}

/// Which rows of a table a write takes the place of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replace {
    /// All.
    All,
    /// Those of one unit, if there are any.
    Unit(String),
    /// None: the rows are added.
    Nothing,
}

/// A version of a table.
#[derive(Debug, Clone)]
pub struct Version {
    /// Number of the version.
    pub number: i64,
    /// What it was made of.
    pub manifest: Manifest,
    /// Its rows.
    pub rows: u64,
    /// Whether this call wrote it, or found it.
    pub written: bool,
    /// The table as it is at this version, so that the next write need not read its log again.
    delta: DeltaTable,
}

impl Version {
    /// The table's columns.
    pub fn schema(&self) -> Result<SchemaRef> {
        let snapshot = self.delta.snapshot().map_err(|e| Error::data(e.to_string()).with_source(e))?.snapshot();
        let schema: Schema = snapshot.schema().as_ref().try_into_arrow()?;
        Ok(Arc::new(schema))
    }
}

/// Delta tables below a folder.
#[derive(Debug, Clone)]
pub struct OfflineStore {
    root: Folder,
}

impl OfflineStore {
    /// The store below `root`, which need not exist yet.
    pub fn new(root: impl Into<Folder>) -> Self {
        Self { root: root.into() }
    }

    /// The folder of a table.
    pub fn path(&self, table: &str) -> Folder {
        self.root.join(table)
    }

    /// The newest version of a table that this store wrote; `None` if there is none.
    ///
    /// Errors: [`Data`](ErrorKind::Data) if the table can't be read or its newest version is not ours.
    pub async fn latest(&self, table: &str) -> Result<Option<Version>> {
        match self.open(table).await? {
            Some(delta) => {
                let manifest = self.manifest_of(&delta, table).await?;
                self.version_of(delta, manifest, table).map(Some)
            }
            None => Ok(None),
        }
    }

    /// The rows of a table's newest version.
    ///
    /// Errors: [`NotFound`](ErrorKind::NotFound) if there is no such table.
    pub async fn read(&self, table: &str) -> Result<Arc<dyn TableProvider>> {
        let delta = self.open(table).await?.ok_or_else(|| Error::not_found(format!("no offline table `{table}`")))?;
        let provider = delta.table_provider().await;
        provider.map(|p| p as _).map_err(|e| Error::from(e).context(format!("offline table {}", self.path(table))))
    }

    /// Makes the rows of `plan`, and those of the table that they do not replace, the newest version of `table` after
    /// `found`, unless that one has the same input already. `plan` has the date column if the table is to be partitioned.
    ///
    /// Errors: [`Conflict`](ErrorKind::Conflict) if another writer was faster; those of the plan.
    pub async fn write(
        &self,
        ctx: &SessionContext,
        table: &str,
        plan: LogicalPlan,
        manifest: Manifest,
        replace: Replace,
        found: Option<Version>,
    ) -> Result<Version> {
        let (next, known) = match found {
            Some(version) if version.manifest.input_hash == manifest.input_hash => return Ok(version),
            Some(version) => (version.number + 1, Some(version.delta)),
            None => (0, None),
        };
        let path = self.path(table);
        if let Some(path) = path.local() {
            std::fs::create_dir_all(path)
                .map_err(|e| Error::from(e).context(format!("creating {}", path.display())))?;
        }
        let schema = table_schema(plan.schema().as_arrow()).map_err(|e| delta_error(e, &path))?;
        let manifest_json = serde_json::to_value(&manifest).map_err(|e| Error::internal(e.to_string()))?;
        let properties = CommitProperties::default()
            .with_metadata([(MANIFEST_KEY.to_string(), manifest_json)])
            .with_application_transaction(Transaction::new(MANIFEST_KEY, next));
        let mut delta = match known {
            Some(delta) => delta,
            None => unread(&path)?,
        };
        let sink = Sink {
            folder: path.location()?,
            prefix: format!("{}-{next}", manifest.run_id),
            partition_by: partition_by(&schema),
            single: false,
            options: tuned(ctx.state().default_table_options().parquet, &schema, true),
        };
        let rows = SinkNode::plan(with_types(plan, &schema)?, sink)?;
        let rows = ctx.execute_logical_plan(rows).await?.collect().await?;
        commit(&mut delta, &schema, &replace, &WrittenFile::from_rows(&rows)?, properties, &path).await?;
        let version = self.version_of(delta, manifest, table)?;
        Ok(Version { written: true, ..version })
    }

    /// The files of all tables that no version has, with their sizes in bytes: those of writers that failed. Their names
    /// begin at the store's folder.
    ///
    /// Errors: those of reading the tables' logs and folders.
    pub async fn orphans(&self) -> Result<Vec<(String, u64)>> {
        let mut orphans = Vec::new();
        for table in self.root.entries()?.folders {
            let folder = self.path(&table);
            let mut known = logged_files(&folder)?;
            // Old commits may be gone, and what they added be in a checkpoint only.
            if let Some(delta) = self.open(&table).await? {
                let files = delta.snapshot().map_err(|e| delta_error(e, &folder))?.snapshot();
                known.extend(files.log_data().iter().map(|f| f.path().to_string()));
            }
            let is_log = |name: &str| name.split('/').any(|part| part == "_delta_log");
            let found = folder.below()?.into_iter();
            let found = found.filter(|(name, _)| name.contains(".parquet") && !is_log(name) && !known.contains(name));
            orphans.extend(found.map(|(name, bytes)| (format!("{table}/{name}"), bytes)));
        }
        orphans.sort();
        Ok(orphans)
    }

    /// Removes a table and all its versions; false if there is none.
    pub fn remove(&self, table: &str) -> Result<bool> {
        self.path(table).remove_all()
    }

    async fn open(&self, table: &str) -> Result<Option<DeltaTable>> {
        let path = self.path(table);
        let log = path.join("_delta_log");
        let is_there = match log.bucket()? {
            None => log.local().is_some_and(Path::is_dir),
            Some((url, store)) => {
                let first = store.list(Some(&key(&url)?)).next().await.transpose();
                first.map_err(|e| crate::folder::store_error(&e).context(format!("offline table {path}")))?.is_some()
            }
        };
        if !is_there {
            return Ok(None);
        }
        let mut delta = unread(&path)?;
        match delta.load().await {
            Ok(()) => Ok(Some(delta)),
            Err(DeltaTableError::NotATable(_)) => Ok(None),
            Err(e) => Err(delta_error(e, &path)),
        }
    }

    /// What the newest version of a table was made of.
    async fn manifest_of(&self, delta: &DeltaTable, table: &str) -> Result<Manifest> {
        let path = self.path(table);
        let info = delta.history(Some(1)).next().await.transpose().map_err(|e| delta_error(e, &path))?;
        let manifest = info.as_ref().and_then(|info| info.info.get(MANIFEST_KEY));
        manifest.and_then(|m| serde_json::from_value(m.clone()).ok()).ok_or_else(|| {
            Error::data(format!("the newest version of {} was not written by featurectl: restore or remove it", path))
        })
    }

    fn version_of(&self, delta: DeltaTable, manifest: Manifest, table: &str) -> Result<Version> {
        let files = delta.snapshot().map_err(|e| delta_error(e, &self.path(table)))?.snapshot();
        let rows = files.log_data().iter().filter_map(|f| f.num_records()).sum::<usize>() as u64;
        Ok(Version { number: delta.version().unwrap_or_default() as i64, manifest, rows, written: false, delta })
    }
}

/// A table whose log is not read. A commit to a bucket is put if there is none of its number.
fn unread(path: &Folder) -> Result<DeltaTable> {
    let fail = |e| delta_error(e, path);
    match path.bucket()? {
        Some((url, store)) => {
            let prefixed = Arc::new(PrefixStore::new(Arc::clone(&store), key(&url)?));
            let log = default_logstore(prefixed, store, &url, &StorageConfig::default());
            Ok(DeltaTable::new(log))
        }
        None => {
            let absolute = std::path::absolute(path.local().unwrap_or(Path::new(".")))?;
            let url = Url::from_directory_path(&absolute)
                .map_err(|()| Error::invalid(format!("{} is no folder that can be a table", absolute.display())))?;
            deltalake::DeltaTableBuilder::from_url(url).and_then(|b| b.build()).map_err(fail)
        }
    }
}

/// The key of a URL in its bucket.
fn key(url: &Url) -> Result<datafusion::object_store::path::Path> {
    datafusion::object_store::path::Path::from_url_path(url.path()).map_err(|e| Error::invalid(format!("{url}: {e}")))
}

fn delta_error(e: DeltaTableError, path: &Folder) -> Error {
    let context = format!("offline table {path}");
    if let Some(own) = Error::within(&e) {
        return Error::new(own.kind(), own.to_string()).context(context);
    }
    let kind = match &e {
        DeltaTableError::Transaction { .. } | DeltaTableError::VersionAlreadyExists(_) => ErrorKind::Conflict,
        DeltaTableError::Arrow { .. } | DeltaTableError::Parquet { .. } => ErrorKind::Data,
        DeltaTableError::NotATable(_) | DeltaTableError::InvalidJsonLog { .. } => ErrorKind::Data,
        _ => ErrorKind::Invalid,
    };
    Error::new(kind, e.to_string()).with_source(e).context(context)
}

/// The files that the commits of a table's log name, from its folder.
fn logged_files(table: &Folder) -> Result<HashSet<String>> {
    let log = table.join("_delta_log");
    let mut files = HashSet::new();
    for name in log.entries()?.files.iter().filter(|n| n.ends_with(".json")) {
        let doing = |e: String| Error::data(format!("{}: {e}", log.place(name)));
        let text = String::from_utf8(log.read(name)?.unwrap_or_default()).map_err(|e| doing(e.to_string()))?;
        for line in text.lines() {
            let action: serde_json::Value = serde_json::from_str(line).map_err(|e| doing(e.to_string()))?;
            let path = ["add", "remove"].iter().find_map(|kind| action.get(kind)?.get("path")?.as_str());
            if let Some(path) = path {
                let path =
                    percent_encoding::percent_decode_str(path).decode_utf8().map_err(|e| doing(e.to_string()))?;
                files.insert(path.into_owned());
            }
        }
    }
    Ok(files)
}

/// The columns of a plan as the types of `schema`, of the same names and order.
fn with_types(plan: LogicalPlan, schema: &Schema) -> Result<LogicalPlan> {
    let same = |(found, wanted): (&FieldRef, &FieldRef)| found.data_type() == wanted.data_type();
    if plan.schema().fields().iter().zip(schema.fields()).all(same) {
        return Ok(plan);
    }
    let columns = plan.schema().columns().into_iter().zip(schema.fields());
    let columns: Vec<Expr> =
        columns.map(|(c, f)| cast(Expr::Column(c), f.data_type().clone()).alias(f.name())).collect();
    Ok(LogicalPlanBuilder::from(plan).project(columns)?.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use datafusion::catalog::Session;
    use datafusion::execution::context::QueryPlanner;
    use datafusion::execution::session_state::SessionStateBuilder;
    use datafusion::physical_plan::ExecutionPlan;
    use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
    use featurectl_core::sink::SinkPlanner;
    use std::sync::Arc;

    #[derive(Debug)]
    struct Planner;

    #[async_trait]
    impl QueryPlanner for Planner {
        async fn create_physical_plan(
            &self,
            plan: &LogicalPlan,
            session: &dyn Session,
        ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
            let planners = vec![Arc::new(SinkPlanner) as _];
            DefaultPhysicalPlanner::with_extension_planners(planners).create_physical_plan(plan, session).await
        }
    }

    fn manifest(input: &str) -> Manifest {
        Manifest {
            kind: "training set".into(),
            name: "t".into(),
            definition_hash: String::new(),
            input_hash: input.into(),
            sources: vec![],
            columns: vec![],
            run_id: format!("run{input}"),
            base: String::new(),
            units: vec![],
        }
    }

    #[tokio::test]
    async fn files_that_only_a_checkpoint_names_are_no_orphans() {
        let state = SessionStateBuilder::new().with_default_features().with_query_planner(Arc::new(Planner)).build();
        let ctx = SessionContext::new_with_state(state);
        let folder = tempfile::tempdir().expect("a folder");
        let store = OfflineStore::new(folder.path());
        let rows = "SELECT value AS id, CAST(NULL AS DATE) AS _date FROM range(10)";
        let write = async |input: &str, replace| {
            let plan = ctx.state().create_logical_plan(rows).await.expect("a plan");
            let latest = store.latest("t").await.expect("a table");
            store.write(&ctx, "t", plan, manifest(input), replace, latest).await.expect("a version")
        };
        write("0", Replace::All).await;
        for number in 1..10 {
            let version = write(&number.to_string(), Replace::Nothing).await;
            assert_eq!((version.number, version.rows), (number, 10 * (number as u64 + 1)));
        }
        // Ten commits are summed up, so that the old ones are not needed.
        for number in 0..9 {
            let commit = folder.path().join(format!("t/_delta_log/{number:020}.json"));
            std::fs::remove_file(commit).expect("an old commit");
        }
        let latest = store.latest("t").await.expect("a table").expect("a version");
        assert_eq!((latest.number, latest.rows, latest.manifest.input_hash.as_str()), (9, 100, "9"));
        assert_eq!(store.orphans().await.expect("orphans"), []);
        let orphan = folder.path().join("t/_date=2024-01-01/part-x.parquet");
        std::fs::create_dir_all(orphan.parent().expect("a folder")).expect("a folder");
        std::fs::write(&orphan, "left").expect("a file");
        let name = "t/_date=2024-01-01/part-x.parquet".to_string();
        assert_eq!(store.orphans().await.expect("orphans"), [(name, 4)]);
    }
}
