//! Running a checked job.
//!
//! ```text
//!  Checked ─┬─ definitions ────▶ registry
//!           ├─ MATERIALIZE ────▶ materialize.rs   tiles → offline, online.rs → online
//!           ├─ TRAINING SET ───▶ here             rows → offline
//!           ├─ MODEL ──────────▶ train.rs         split → launch → measure → store
//!           └─ COPY, SELECT ───▶ copy.rs, here
//!                                catalog.rs       tables in Glue, if the profile names a database
//! ```
//! Every step has an *input hash* of all that its result depends on. A result with that hash is left alone, so running
//! again does what is missing, also after a run that was killed: every result appears whole or not at all.

mod catalog;
mod copy;
mod materialize;
mod online;
mod train;

pub(crate) use catalog::in_catalog;
pub(crate) use copy::leftovers;
pub(crate) use train::describe_entry;

use std::time::Instant;

use arrow::array::RecordBatch;
use datafusion::functions::core::expr_fn::arrow_cast;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, ident, lit};
use featurectl_connectors::source_version;
use featurectl_core::check::Checked;
use featurectl_core::sql::{ObjectKind, Parsed};
use featurectl_core::{Error, ErrorKind, FeatureView, Lineage, Result, TrainingSet, lineage};
use featurectl_feature_store::{DATE_COLUMN, Entry, Lock, Manifest, Replace, forget};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::session::{Job, Session};

/// What a run did.
#[derive(Debug, Clone, Serialize, serde::Deserialize)]
pub struct RunReport {
    /// Its id: also in manifests and model signatures.
    pub run_id: String,
    /// The job's file.
    pub job: String,
    /// What was done, in order.
    pub steps: Vec<Step>,
    /// How long it took.
    pub seconds: f64,
}

/// One thing a run did, or found done.
#[derive(Debug, Clone, PartialEq, Serialize, serde::Deserialize)]
pub struct Step {
    /// `Computed`, `Wrote`, `Trained`, `Scored`, `Dropped`.
    pub verb: String,
    /// What: `carrier_delay`.
    pub name: String,
    /// The figures, in words.
    pub detail: String,
    /// Whether it was there already.
    pub unchanged: bool,
    /// How long it took.
    pub seconds: f64,
    /// The figures, as data.
    pub figures: serde_json::Value,
}

/// What a run tells while it goes on.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step begins.
    Begin { verb: &'a str, name: &'a str },
    /// A line of a training program.
    Line(&'a str),
    /// A step is done.
    Done(&'a Step),
    /// The rows of a query.
    Rows(&'a [RecordBatch]),
}

pub(super) type OnEvent<'a> = &'a mut (dyn FnMut(Event<'_>) + Send + Sync);

/// A run under way.
pub(super) struct Run<'a> {
    pub(super) session: &'a Session,
    pub(super) id: String,
    steps: Vec<Step>,
    emit: OnEvent<'a>,
}

pub(crate) async fn run(session: &Session, job: &Job, emit: OnEvent<'_>) -> Result<RunReport> {
    if !job.is_valid() {
        return Err(Error::invalid(format!("{} has problems: featurectl check {0}", job.source.name)));
    }
    let started = Instant::now();
    let ephemeral = session.project.ephemeral;
    let stores = |c: &Checked| match c {
        Checked::Query(_) | Checked::Table { .. } | Checked::Session => false,
        Checked::Drop { kind: ObjectKind::Table, .. } => !ephemeral,
        _ => true,
    };
    let defines = |c: &Checked| matches!(c, Checked::View(_) | Checked::Service(_));
    if ephemeral && job.statements.iter().any(|(_, c)| stores(c) && !defines(c)) {
        return Err(Error::invalid("a session in memory keeps nothing: open it with Project::at(folder)"));
    }
    let online = |c: &Checked| matches!(c, Checked::Materialize { view, .. } if view.online);
    if job.statements.iter().any(|(_, c)| online(c)) {
        session.project.online()?;
    }
    let writes = !ephemeral && job.statements.iter().any(|(_, c)| stores(c));
    let lock = writes.then(|| session.registry.lock()).transpose()?;
    let id = uuid::Uuid::now_v7().simple().to_string();
    let mut run = Run { session, id, steps: vec![], emit };
    for (order, (parsed, checked)) in job.statements.iter().enumerate() {
        lock.as_ref().map_or(Ok(()), Lock::check)?;
        let done = run.statement(order, parsed, checked, writes).await;
        let (line, _) = job.source.position(parsed.span.start);
        done.map_err(|e| e.context(format!("{}:{line}", job.source.name)))?;
    }
    let report = RunReport {
        run_id: run.id,
        job: job.source.name.clone(),
        steps: run.steps,
        seconds: started.elapsed().as_secs_f64(),
    };
    if writes {
        session.registry.put_run(&report.run_id, &report)?;
    }
    Ok(report)
}

impl Run<'_> {
    async fn statement(&mut self, order: usize, parsed: &Parsed, checked: &Checked, keep: bool) -> Result<()> {
        let session = self.session;
        match checked {
            Checked::Table { name, schema, .. } if keep => {
                let state = serde_json::to_value(schema.as_ref()).map_err(|e| Error::internal(e.to_string()))?;
                let (sql, columns) = (hash([parsed.sql.as_str()]), columns(schema));
                self.entry(ObjectKind::Table, name, order, parsed, sql, vec![], columns, Some(state))
            }
            Checked::Table { .. } | Checked::Session => Ok(()),
            Checked::Drop { kind: ObjectKind::Table, .. } if !keep => Ok(()),
            Checked::View(_) | Checked::Service(_) if !keep => Ok(()),
            Checked::View(view) => {
                let found = lineage(&view.events)?;
                self.define_catalog_tables(&found, order)?;
                let upstream = upstream(&found);
                let features = view.features.iter().map(|f| (f.field.name().clone(), f.field.data_type().to_string()));
                self.define(ObjectKind::FeatureView, &view.name, order, parsed, &view.sql, upstream, features.collect())
            }
            Checked::Service(service) => {
                let upstream = service.views.iter().map(|v| format!("feature view {v}")).collect();
                let columns = columns(&service.output);
                self.define(ObjectKind::FeatureService, &service.name, order, parsed, &service.sql, upstream, columns)
            }
            Checked::Materialize { view, until } => Box::pin(self.materialize(view, *until)).await,
            Checked::TrainingSet(set) => self.training_set(set, order, parsed).await,
            Checked::Model(model) => self.model(model, order, parsed).await,
            Checked::Copy(copy) => Box::pin(self.copy(copy)).await,
            Checked::Drop { kind, name, if_exists } => self.drop(*kind, name, *if_exists).await,
            Checked::Query(plan) => {
                let rows = session.ctx.execute_logical_plan(plan.clone()).await?.collect().await?;
                (self.emit)(Event::Rows(&rows));
                Ok(())
            }
        }
    }

    /// Registers a definition; what was made of it stays.
    #[expect(clippy::too_many_arguments, reason = "the fields of one record")]
    fn define(
        &mut self,
        kind: ObjectKind,
        name: &str,
        order: usize,
        parsed: &Parsed,
        canonical: &str,
        upstream: Vec<String>,
        columns: Vec<(String, String)>,
    ) -> Result<()> {
        self.entry(kind, name, order, parsed, hash([canonical]), upstream, columns, None)
    }

    /// Registers a definition and `state`, what was made of it; `None` leaves that as it is.
    #[expect(clippy::too_many_arguments, reason = "the fields of one record")]
    fn entry(
        &mut self,
        kind: ObjectKind,
        name: &str,
        order: usize,
        parsed: &Parsed,
        definition_hash: String,
        upstream: Vec<String>,
        columns: Vec<(String, String)>,
        state: Option<serde_json::Value>,
    ) -> Result<()> {
        let known = self.session.registry.get(kind, name)?;
        let run_id = match &known {
            Some(e) if e.definition_hash == definition_hash => e.run_id.clone(),
            _ => self.id.clone(),
        };
        let state = state.or_else(|| known.as_ref().map(|e| e.state.clone())).unwrap_or_default();
        let entry = Entry {
            name: name.into(),
            sql: parsed.sql.clone(),
            definition_hash,
            order,
            upstream,
            run_id,
            columns,
            state,
        };
        if known.as_ref() == Some(&entry) {
            return Ok(());
        }
        self.session.registry.put(kind, &entry)
    }

    async fn training_set(&mut self, set: &TrainingSet, order: usize, parsed: &Parsed) -> Result<()> {
        let started = self.begin("Wrote", &set.name);
        let found = lineage(&set.plan)?;
        let sources = self.session.source_versions(&found, &self.id).await?;
        let plan =
            with_date(set.plan.clone(), set.schema.fields().iter().find(|f| is_timestamp(f)).map(|f| ident(f.name())))?;
        let manifest = Manifest {
            kind: ObjectKind::TrainingSet.noun().into(),
            name: set.name.clone(),
            definition_hash: hash([set.sql.as_str()]),
            input_hash: input_hash(&set.sql, &set.plan, &found, &sources),
            sources,
            columns: columns(&set.schema),
            run_id: self.id.clone(),
            base: String::new(),
            units: vec![],
        };
        let (offline, ctx) = (&self.session.offline, &self.session.ctx);
        let latest = offline.latest(&set.name).await?;
        let version = offline.write(ctx, &set.name, plan, manifest, Replace::All, latest).await?;
        let mut upstream = upstream(&found);
        upstream.push(format!("feature service {}", set.service));
        self.define(ObjectKind::TrainingSet, &set.name, order, parsed, &set.sql, upstream, columns(&set.schema))?;
        let registered = self.session.register_version(&set.name, &version).await?;
        let (rows, width) = (version.rows, set.schema.fields().len());
        let detail = format!("v{}  {} rows, {width} columns{}", version.number, thousands(rows), registered.note());
        let figures = serde_json::json!({ "version": version.number, "rows": rows, "columns": width });
        self.done("Wrote", &set.name, detail, !version.written && !registered.changed, started, figures);
        Ok(())
    }

    async fn drop(&mut self, kind: ObjectKind, name: &str, if_exists: bool) -> Result<()> {
        let started = self.begin("Dropped", name);
        let session = self.session;
        let known = session.registry.get(kind, name)?.is_some();
        let mut kept = vec![];
        match kind {
            ObjectKind::FeatureView => {
                kept = self.forget(name).await?;
                session.unregister(name).await?;
                session.offline.remove(name)?;
                session.forget_catalog_tables(name)?;
            }
            ObjectKind::TrainingSet => {
                session.unregister(name).await?;
                session.offline.remove(name)?;
            }
            ObjectKind::Model => {
                session.project.store.join("models").join(name).remove_all()?;
            }
            ObjectKind::FeatureService | ObjectKind::Table => {}
        }
        session.registry.remove(kind, name)?;
        let detail =
            if known || !if_exists { kind.noun().to_string() } else { format!("{}: there was none", kind.noun()) };
        let detail = format!("{detail}{}", online::note(&kept));
        self.done("Dropped", name, detail, !known, started, serde_json::Value::Null);
        Ok(())
    }

    /// Takes a view out of the online store, if there is one. Returns the tables that are left for the user to delete.
    async fn forget(&self, view: &str) -> Result<Vec<String>> {
        let project = &self.session.project;
        if project.online().is_err() {
            return Ok(vec![]);
        }
        match project.open_online_to_read().await.map(drop) {
            Ok(()) => forget(self.session.online().await?.as_ref(), view).await,
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(vec![]),
            Err(e) => Err(e),
        }
    }

    pub(super) fn begin(&mut self, verb: &str, name: &str) -> Instant {
        (self.emit)(Event::Begin { verb, name });
        Instant::now()
    }

    pub(super) fn done(
        &mut self,
        verb: &str,
        name: &str,
        detail: String,
        unchanged: bool,
        started: Instant,
        figures: serde_json::Value,
    ) {
        let seconds = started.elapsed().as_secs_f64();
        let step = Step { verb: verb.into(), name: name.into(), detail, unchanged, seconds, figures };
        (self.emit)(Event::Done(&step));
        self.steps.push(step);
    }
}

impl Session {
    /// The version of each table that a plan reads; a table without one, such as one in memory, counts as new in
    /// every run.
    pub(crate) async fn source_versions(&self, found: &Lineage, run_id: &str) -> Result<Vec<(String, String)>> {
        let mut versions = Vec::new();
        for (name, table) in &found.tables {
            let version = source_version(&self.ctx, table).await.map_err(|e| e.context(format!("table `{name}`")))?;
            versions.push((name.clone(), version.unwrap_or_else(|| run_id.to_string())));
        }
        for name in &found.models {
            if let Some(version) = self.models.url_version(name) {
                versions.push((format!("model {name}"), version));
                continue;
            }
            if let Some(file) = self.models.file(name) {
                versions.push((format!("model {name}"), file_hash(&file)?));
                continue;
            }
            let entry = self.registry.get(ObjectKind::Model, name)?;
            let version = entry.as_ref().and_then(|e| e.state.get("version")).and_then(|v| v.as_str());
            versions.push((format!("model {name}"), version.unwrap_or("none").to_string()));
        }
        Ok(versions)
    }
}

/// What a result depends on: its definition, the plan with all SQL views spelled out, the feature views' definitions,
/// and the versions of all sources.
pub(crate) fn input_hash(sql: &str, plan: &LogicalPlan, found: &Lineage, sources: &[(String, String)]) -> String {
    let plan = plan.display_indent().to_string();
    let views = found.views.values().map(|v| v.sql.as_str());
    let sources = sources.iter().flat_map(|(name, version)| [name.as_str(), version.as_str()]);
    hash([sql, plan.as_str()].into_iter().chain(views).chain(sources))
}

/// The first 32 hexadecimal digits of the SHA-256 over all parts.
pub(crate) fn hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    digits(hash)
}

/// The hash of a file's bytes.
pub(crate) fn file_hash(path: &std::path::Path) -> Result<String> {
    let mut hash = Sha256::new();
    std::io::copy(&mut std::fs::File::open(path)?, &mut hash)?;
    Ok(digits(hash))
}

/// The hash of these bytes.
pub(crate) fn bytes_hash(bytes: &[u8]) -> String {
    digits(Sha256::new().chain_update(bytes))
}

fn digits(hash: Sha256) -> String {
    hash.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect()
}

/// Adds the partition column: the date of `time`, or NULL.
pub(super) fn with_date(plan: LogicalPlan, time: Option<Expr>) -> Result<LogicalPlan> {
    let date = match time {
        Some(time) => arrow_cast(time, lit("Date32")),
        None => arrow_cast(lit(datafusion::common::ScalarValue::Null), lit("Date32")),
    };
    with_column(plan, date.alias(DATE_COLUMN))
}

/// Adds a column at the end.
pub(super) fn with_column(plan: LogicalPlan, column: Expr) -> Result<LogicalPlan> {
    let all = plan.schema().columns().into_iter().map(Expr::Column);
    let columns: Vec<Expr> = all.chain([column]).collect();
    Ok(LogicalPlanBuilder::from(plan).project(columns)?.build()?)
}

fn is_timestamp(field: &arrow::datatypes::FieldRef) -> bool {
    matches!(field.data_type(), arrow::datatypes::DataType::Timestamp(..))
}

pub(crate) fn upstream(found: &Lineage) -> Vec<String> {
    let tables = found.tables.keys().map(|t| format!("table {t}"));
    let views = found.views.keys().map(|v| format!("feature view {v}"));
    tables.chain(views).chain(found.models.iter().map(|m| format!("model {m}"))).collect()
}

pub(super) fn columns(schema: &arrow::datatypes::Schema) -> Vec<(String, String)> {
    schema.fields().iter().map(|f| (f.name().clone(), f.data_type().to_string())).collect()
}

/// `1 feature`, `2 features`.
pub(crate) fn plural(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// `336776` → `336,776`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// The hash of what a view's tiles are made of.
pub(crate) fn view_hash(
    view: &FeatureView,
    found: &Lineage,
    sources: &[(String, String)],
    until: Option<i64>,
) -> String {
    let until = until.map_or(String::new(), |t| t.to_string());
    hash([input_hash(&view.sql, &view.events, found, sources).as_str(), until.as_str(), "tiles-2"])
}
