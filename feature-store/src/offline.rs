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
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema};
use datafusion::catalog::TableProvider;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast};
use datafusion::prelude::SessionContext;
use deltalake::kernel::transaction::CommitProperties;
use deltalake::kernel::{CommitInfo, Transaction};
use deltalake::{DeltaTable, DeltaTableError};
use featurectl_core::sink::{Sink, SinkNode, WrittenFile, tuned};
use featurectl_core::{Error, ErrorKind, Result};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use url::Url;

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

/// Delta tables below a folder.
#[derive(Debug, Clone)]
pub struct OfflineStore {
    root: PathBuf,
}

impl OfflineStore {
    /// The store below `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder of a table.
    pub fn path(&self, table: &str) -> PathBuf {
        self.root.join(table)
    }

    /// The newest version of a table that this store wrote; `None` if there is none.
    ///
    /// Errors: [`Data`](ErrorKind::Data) if the table can't be read or its newest version is not ours.
    pub async fn latest(&self, table: &str) -> Result<Option<Version>> {
        match self.open(table).await? {
            Some(delta) => self.version_of(delta, table).await.map(Some),
            None => Ok(None),
        }
    }

    /// The rows of a table's newest version.
    ///
    /// Errors: [`NotFound`](ErrorKind::NotFound) if there is no such table.
    pub async fn read(&self, table: &str) -> Result<Arc<dyn TableProvider>> {
        let delta = self.open(table).await?.ok_or_else(|| Error::not_found(format!("no offline table `{table}`")))?;
        let provider = delta.table_provider().await;
        provider
            .map(|p| p as _)
            .map_err(|e| Error::from(e).context(format!("offline table {}", self.path(table).display())))
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
        std::fs::create_dir_all(&path).map_err(|e| Error::from(e).context(format!("creating {}", path.display())))?;
        let schema = table_schema(plan.schema().as_arrow()).map_err(|e| delta_error(e, &path))?;
        let manifest_json = serde_json::to_value(&manifest).map_err(|e| Error::internal(e.to_string()))?;
        let properties = CommitProperties::default()
            .with_metadata([(MANIFEST_KEY.to_string(), manifest_json)])
            .with_application_transaction(Transaction::new(MANIFEST_KEY, next));
        let mut delta = match known {
            Some(delta) => delta,
            None => DeltaTable::try_from_url(url(&path)?).await.map_err(|e| delta_error(e, &path))?,
        };
        let sink = Sink {
            folder: format!("{}/", std::path::absolute(&path)?.display()),
            prefix: format!("{}-{next}", manifest.run_id),
            partition_by: partition_by(&schema),
            single: false,
            options: tuned(ctx.state().default_table_options().parquet, &schema, true),
        };
        let rows = SinkNode::plan(with_types(plan, &schema)?, sink)?;
        let rows = ctx.execute_logical_plan(rows).await?.collect().await?;
        commit(&mut delta, &schema, &replace, &WrittenFile::from_rows(&rows)?, properties, &path).await?;
        let version = self.version_of(delta, table).await?;
        Ok(Version { written: true, ..version })
    }

    /// The files of all tables that no version has, with their sizes in bytes: those of writers that failed.
    ///
    /// Errors: those of reading the tables' logs and folders.
    pub async fn orphans(&self) -> Result<Vec<(PathBuf, u64)>> {
        let mut orphans = Vec::new();
        let tables = match std::fs::read_dir(&self.root) {
            Ok(tables) => tables,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(orphans),
            Err(e) => return Err(Error::from(e).context(format!("reading {}", self.root.display()))),
        };
        for table in tables {
            let table = table?.path();
            let mut known = logged_files(&table)?;
            // Old commits may be gone, and what they added be in a checkpoint only.
            if let Some(delta) = self.open(&table.file_name().unwrap_or_default().to_string_lossy()).await? {
                let files = delta.snapshot().map_err(|e| delta_error(e, &table))?.snapshot();
                known.extend(files.log_data().iter().map(|f| table.join(f.path().as_ref())));
            }
            let mut open = vec![table.clone()];
            while let Some(folder) = open.pop() {
                for entry in std::fs::read_dir(&folder)? {
                    let path = entry?.path();
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    if path.is_dir() && name != "_delta_log" {
                        open.push(path);
                    } else if name.contains(".parquet") && !known.contains(&path) {
                        let bytes = std::fs::metadata(&path)?.len();
                        orphans.push((path, bytes));
                    }
                }
            }
        }
        orphans.sort();
        Ok(orphans)
    }

    /// Removes a table and all its versions; false if there is none.
    pub fn remove(&self, table: &str) -> Result<bool> {
        match std::fs::remove_dir_all(self.path(table)) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::from(e).context(format!("removing {}", self.path(table).display()))),
        }
    }

    async fn open(&self, table: &str) -> Result<Option<DeltaTable>> {
        let path = self.path(table);
        if !path.join("_delta_log").is_dir() {
            return Ok(None);
        }
        match deltalake::open_table(url(&path)?).await {
            Ok(delta) => Ok(Some(delta)),
            Err(DeltaTableError::NotATable(_)) => Ok(None),
            Err(e) => Err(delta_error(e, &path)),
        }
    }

    async fn version_of(&self, delta: DeltaTable, table: &str) -> Result<Version> {
        let path = self.path(table);
        let info = delta.history(Some(1)).next().await.transpose().map_err(|e| delta_error(e, &path))?;
        let manifest = info.as_ref().and_then(manifest_of).ok_or_else(|| {
            Error::data(format!(
                "the newest version of {} was not written by featurectl: restore or remove it",
                path.display()
            ))
        })?;
        let files = delta.snapshot().map_err(|e| delta_error(e, &path))?.snapshot();
        let rows = files.log_data().iter().filter_map(|f| f.num_records()).sum::<usize>() as u64;
        Ok(Version { number: delta.version().unwrap_or_default() as i64, manifest, rows, written: false, delta })
    }
}

fn manifest_of(info: &CommitInfo) -> Option<Manifest> {
    serde_json::from_value(info.info.get(MANIFEST_KEY)?.clone()).ok()
}

fn url(path: &Path) -> Result<Url> {
    let absolute = std::path::absolute(path)?;
    Url::from_directory_path(&absolute)
        .map_err(|()| Error::invalid(format!("{} is no folder that can be a table", absolute.display())))
}

fn delta_error(e: DeltaTableError, path: &Path) -> Error {
    let kind = match &e {
        DeltaTableError::Transaction { .. } | DeltaTableError::VersionAlreadyExists(_) => ErrorKind::Conflict,
        DeltaTableError::Arrow { .. } | DeltaTableError::Parquet { .. } => ErrorKind::Data,
        DeltaTableError::NotATable(_) | DeltaTableError::InvalidJsonLog { .. } => ErrorKind::Data,
        _ => ErrorKind::Invalid,
    };
    Error::new(kind, e.to_string()).with_source(e).context(format!("offline table {}", path.display()))
}

/// The files that the commits of a table's log name.
fn logged_files(table: &Path) -> Result<HashSet<PathBuf>> {
    let log = table.join("_delta_log");
    let mut files = HashSet::new();
    if !log.is_dir() {
        return Ok(files);
    }
    for entry in std::fs::read_dir(&log)? {
        let commit = entry?.path();
        if commit.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let doing = |e: String| Error::data(format!("{}: {e}", commit.display()));
        for line in std::fs::read_to_string(&commit)?.lines() {
            let action: serde_json::Value = serde_json::from_str(line).map_err(|e| doing(e.to_string()))?;
            let path = ["add", "remove"].iter().find_map(|kind| action.get(kind)?.get("path")?.as_str());
            if let Some(path) = path {
                let path =
                    percent_encoding::percent_decode_str(path).decode_utf8().map_err(|e| doing(e.to_string()))?;
                files.insert(table.join(path.as_ref()));
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
        let version = write("1", Replace::Nothing).await;
        assert_eq!((version.number, version.rows), (1, 20));
        deltalake::checkpoints::create_checkpoint(&version.delta, None).await.expect("a checkpoint");
        std::fs::remove_file(folder.path().join("t/_delta_log/00000000000000000000.json")).expect("an old commit");
        assert_eq!(store.orphans().await.expect("orphans"), []);
        let orphan = folder.path().join("t/_date=2024-01-01/part-x.parquet");
        std::fs::create_dir_all(orphan.parent().expect("a folder")).expect("a folder");
        std::fs::write(&orphan, "left").expect("a file");
        assert_eq!(store.orphans().await.expect("orphans"), [(orphan, 4)]);
    }
}
