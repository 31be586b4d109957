//! A session: one engine with a project's stores behind it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider};
use datafusion::common::TableReference;
use datafusion::datasource::empty::EmptyTable;
use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::CreateExternalTable;
use featurectl_aws::{Access, Buckets};
use featurectl_connectors as connectors;
use featurectl_core::aggregate::{AggregateFunction, Functions};
use featurectl_core::asof::{FeatureRelations, Serve};
use featurectl_core::check::{Analyzer, Checked, Known, Outside, has_errors};
use featurectl_core::sql::{ObjectKind, Parsed, parse};
use featurectl_core::{Diagnostic, Error, FeatureService, FeatureView, Result, Source};
use featurectl_executors::cluster::{self, Progress, Role, Status};
use featurectl_executors::score::{Fetch, ModelSet, Output, predict_udf};
use featurectl_executors::{SharedExtensionPlanner, local};
use featurectl_feature_store::{Entry, Folder, OfflineStore, OnlinePlanner, Registry, Tables};
use featurectl_trainer_bridge::HYPERPARAMETERS;
use tokio::sync::watch;

use crate::project::Project;
use crate::run::{Event, RunReport, in_catalog};
use crate::serve::RequestPlan;

/// What a user's own binary adds to the engine.
#[derive(Debug, Default)]
pub struct Extensions {
    /// Scalar functions.
    pub functions: Vec<ScalarUDF>,
    /// Aggregations for feature views.
    pub aggregations: Vec<AggregateFunction>,
}

impl Extensions {
    fn aggregations(&self) -> Functions {
        let mut aggregations = Functions::default();
        self.aggregations.iter().for_each(|a| aggregations.insert(a.clone()));
        aggregations
    }

    /// What the roles of a cluster must know of them. Each role reaches buckets by the configuration of its own machine.
    pub(crate) fn role(&self) -> Role {
        let (buckets, waiting) = (Arc::new(Buckets::new(Access::default())), Arc::new(Buckets::new(Access::default())));
        let (scalar, aggregations) = (self.functions.clone(), self.aggregations());
        Role { scalar, aggregations, fetch: fetch(&buckets, &waiting), stores: buckets }
    }
}

/// A checked job.
#[derive(Debug)]
pub struct Job {
    /// Its text.
    pub source: Source,
    /// The statements that checked, in order.
    pub statements: Vec<(Parsed, Checked)>,
    /// How many statements there are in all.
    pub total: usize,
    /// All problems.
    pub diagnostics: Vec<Diagnostic>,
}

impl Job {
    /// Whether it may run.
    pub fn is_valid(&self) -> bool {
        !has_errors(&self.diagnostics)
    }
}

/// The columns of the last request of a service, and the plan for them.
pub(crate) type ServicePlan = (SchemaRef, Arc<RequestPlan>);

/// One engine with a project's stores behind it.
pub struct Session {
    /// Where plans run: here, or on a cluster.
    pub(crate) ctx: SessionContext,
    /// Where plans run that only the driver has the data of, such as offline tables.
    pub(crate) here: SessionContext,
    /// How far the job is that a cluster works at.
    pub(crate) progress: watch::Receiver<Option<Progress>>,
    pub(crate) project: Project,
    pub(crate) models: Arc<ModelSet>,
    pub(crate) registry: Registry,
    pub(crate) offline: OfflineStore,
    relations: Arc<FeatureRelations>,
    functions: Functions,
    serve: Serve,
    known: Mutex<Known>,
    /// The services that were read.
    pub(crate) plans: Mutex<BTreeMap<String, ServicePlan>>,
    /// One plan at a time is made, over a table with the name of the request.
    pub(crate) planning: tokio::sync::Mutex<()>,
}

impl Session {
    /// A session that computes.
    ///
    /// Errors: [`Data`](featurectl_core::ErrorKind::Data) for a damaged registry.
    pub fn open(project: Project, extensions: &Extensions) -> Result<Self> {
        Self::build(project, extensions, Serve::Offline, vec![], None)
    }

    /// Like [`open`](Self::open), but plans run on the cluster that the project names, if it names one.
    ///
    /// Errors: beside those of `open`, [`Unavailable`](featurectl_core::ErrorKind::Unavailable) if no scheduler answers,
    /// [`Invalid`](featurectl_core::ErrorKind::Invalid) if it has no executor, or a role is of another version.
    pub async fn connect(project: Project, extensions: &Extensions) -> Result<Self> {
        let status = match &project.cluster {
            Some(address) => Some(address.connect().await?),
            None => None,
        };
        Self::build(project, extensions, Serve::Offline, vec![], status.as_ref())
    }

    /// A session in which feature views are read from the online store; definitions come from the registry.
    ///
    /// Errors: [`NotFound`](featurectl_core::ErrorKind::NotFound) if nothing was materialized.
    pub async fn open_serving(project: Project, extensions: &Extensions) -> Result<Self> {
        let store = project.open_online_to_read().await?;
        let session = Self::build(project, extensions, Serve::Online, vec![Arc::new(OnlinePlanner::new(store))], None)?;
        session.replay().await?;
        Ok(session)
    }

    fn build(
        project: Project,
        extensions: &Extensions,
        serve: Serve,
        planners: Vec<SharedExtensionPlanner>,
        cluster: Option<&Status>,
    ) -> Result<Self> {
        let relations = Arc::new(FeatureRelations::default());
        let stores = || Arc::clone(&project.buckets) as _;
        let here = local(&project.options, stores(), Arc::clone(&relations), planners.clone())?;
        let (told, progress) = watch::channel(None);
        let ctx = match (&project.cluster, cluster) {
            (Some(address), Some(status)) => {
                cluster::session(address, status, &project.options, stores(), Arc::clone(&relations), planners, told)?
            }
            _ => here.clone(),
        };
        connectors::register_formats(&ctx);
        connectors::kinesis::register_streams(&ctx, &project.root, &project.access);
        // Serving reads no source: it takes what the registry knows of the tables.
        if serve == Serve::Offline {
            connectors::glue::register_catalog(&ctx, &project.access);
        }
        let models = ModelSet::new(&project.root).with_fetch(fetch(&project.buckets, &project.waiting));
        let models = Arc::new(models);
        Output::ALL.into_iter().for_each(|output| ctx.register_udf(predict_udf(Arc::clone(&models), output)));
        for function in &extensions.functions {
            ctx.register_udf(function.clone());
        }
        let functions = extensions.aggregations();
        let registry = Registry::new(project.store.join("registry"));
        for entry in registry.list(ObjectKind::Model)? {
            load_model(&models, &project.store, &entry)?;
        }
        let offline = OfflineStore::new(project.store.join("offline"));
        Ok(Self {
            ctx,
            here,
            progress,
            project,
            models,
            registry,
            offline,
            relations,
            functions,
            serve,
            known: Mutex::default(),
            plans: Mutex::default(),
            planning: tokio::sync::Mutex::default(),
        })
    }

    /// Whether plans run on a cluster.
    pub(crate) fn is_remote(&self) -> bool {
        !Arc::ptr_eq(&self.ctx.state_ref(), &self.here.state_ref())
    }

    /// The DataFusion session, to register tables of one's own.
    pub fn context(&self) -> &SessionContext {
        &self.ctx
    }

    /// The feature view called `name`, once a text with it was checked: for [`Tiles`](crate::Tiles) of its events.
    pub fn feature_view(&self, name: &str) -> Option<Arc<FeatureView>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).feature_view(name).cloned()
    }

    /// Checks a job; its tables, views and services are in the session afterwards.
    pub async fn check(&self, source: Source) -> Job {
        // A text may define a service or a view anew.
        self.plans.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.check_text(source).await
    }

    /// Like [`check`](Self::check), of a text that defines nothing: plans of services stay.
    pub(crate) async fn check_text(&self, source: Source) -> Job {
        let (parsed, mut diagnostics) = parse(&source);
        let total = parsed.len() + diagnostics.len();
        let mut analyzer = self.analyzer(source.clone());
        let mut statements = Vec::with_capacity(parsed.len());
        for statement in parsed {
            match analyzer.check(&statement).await {
                Ok(checked) => statements.push((statement, checked)),
                Err(problems) => diagnostics.extend(problems),
            }
        }
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = analyzer.into_known();
        diagnostics.sort_by_key(|d| d.span);
        Job { source, statements, total, diagnostics }
    }

    /// Reads a job's file, fills its placeholders, and checks it.
    ///
    /// Errors: those of reading the file; problems of the job are in its diagnostics.
    pub async fn check_file(&self, path: &Path, set: &[(String, String)]) -> Result<Job> {
        let bytes = std::fs::read(path).map_err(|e| Error::from(e).context(format!("reading {}", path.display())))?;
        let text = String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            let line = e.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
            Error::invalid(format!("{}:{line}: not UTF-8 text (byte {at}): save the file as UTF-8", path.display()))
        })?;
        let mut values: BTreeMap<String, String> = self.project.variables.clone();
        values.extend(set.iter().cloned());
        let (source, unset) = Source::fill(&path.display().to_string(), &text, &values);
        if !unset.is_empty() {
            return Ok(Job { source, statements: vec![], total: unset.len(), diagnostics: unset });
        }
        Ok(self.check(source).await)
    }

    /// Runs a checked job.
    ///
    /// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) if the job has problems;
    /// [`Conflict`](featurectl_core::ErrorKind::Conflict) if another process writes to the same store.
    pub async fn run(&self, job: &Job, on_event: &mut (dyn FnMut(Event<'_>) + Send + Sync)) -> Result<RunReport> {
        crate::run::run(self, job, on_event).await
    }

    /// Runs SQL text and returns the rows of its last query.
    ///
    /// Errors: the first problem of the text, or what its run gives.
    pub async fn sql(&self, text: &str) -> Result<Vec<RecordBatch>> {
        let job = self.check(Source::new("sql", text)).await;
        if let Some(problem) = job.diagnostics.first() {
            let (line, column) = job.source.position(problem.span.start);
            return Err(Error::invalid(format!("{line}:{column}: {problem}")));
        }
        let mut rows = Vec::new();
        let mut keep = |event: Event<'_>| {
            if let Event::Rows(batches) = event {
                rows = batches.to_vec();
            }
        };
        self.run(&job, &mut keep).await?;
        Ok(rows)
    }

    fn analyzer(&self, source: Source) -> Analyzer {
        let (models, ctx) = (Arc::clone(&self.models), self.ctx.clone());
        let outside = World { models, ctx, root: self.project.root.clone(), access: self.project.access.clone() };
        let registered = KINDS.iter().flat_map(|kind| {
            let entries = self.registry.list(*kind).unwrap_or_default();
            entries.into_iter().map(|e| (*kind, e.name))
        });
        Analyzer::new(
            self.ctx.clone(),
            source,
            Arc::clone(&self.relations),
            self.functions.clone(),
            Arc::new(outside),
            self.serve,
        )
        .with_registered(registered.collect::<Vec<_>>())
        .with_known(self.known.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Reads the registered definitions back. Tables come without their rows: serving never reads a source.
    async fn replay(&self) -> Result<()> {
        for table in self.registry.list(ObjectKind::Table)? {
            let schema: Schema = serde_json::from_value(table.state.clone()).map_err(|e| {
                Error::data(format!("the registered columns of table `{}` are damaged: {e}", table.name))
            })?;
            self.register_empty(&table.name, schema)?;
        }
        let views = self.registry.list(ObjectKind::FeatureView)?;
        let services = self.registry.list(ObjectKind::FeatureService)?;
        let text: Vec<String> = views.into_iter().chain(services).map(|e| e.sql).collect();
        let job = self.check(Source::new("registry", text.join(";\n"))).await;
        match job.diagnostics.first() {
            None => Ok(()),
            Some(d) => Err(Error::data(format!("a registered definition is no longer valid: {d}; run the job again"))),
        }
    }

    /// A table without rows, which may be one of a catalog.
    fn register_empty(&self, name: &str, schema: Schema) -> Result<()> {
        let table = Arc::new(EmptyTable::new(Arc::new(schema)));
        let Some([catalog, database, name]) = in_catalog(name) else {
            self.ctx.register_table(name, table)?;
            return Ok(());
        };
        let tables = self.ctx.catalog(catalog).unwrap_or_else(|| {
            let made: Arc<dyn CatalogProvider> = Arc::new(MemoryCatalogProvider::new());
            self.ctx.register_catalog(catalog, Arc::clone(&made));
            made
        });
        if tables.schema(database).is_none() {
            tables.register_schema(database, Arc::new(MemorySchemaProvider::new()))?;
        }
        self.ctx.register_table(TableReference::full(catalog, database, name), table)?;
        Ok(())
    }

    /// The service called `name`.
    ///
    /// Errors: [`NotFound`](featurectl_core::ErrorKind::NotFound), with a similar name.
    pub(crate) fn service(&self, name: &str) -> Result<Arc<FeatureService>> {
        self.relations.get(name).ok_or_else(|| {
            let hint = featurectl_core::closest(name, self.relations.names());
            let hint = hint.map_or("run the job that defines it first".into(), |n| format!("did you mean `{n}`?"));
            Error::not_found(format!("no feature service `{name}`: {hint}"))
        })
    }

    /// The online store, open for writing.
    pub(crate) async fn online(&self) -> Result<Arc<dyn Tables>> {
        self.project.open_online().await
    }
}

/// The kinds of objects a registry keeps.
pub(crate) const KINDS: &[ObjectKind] = &[
    ObjectKind::Table,
    ObjectKind::FeatureView,
    ObjectKind::FeatureService,
    ObjectKind::TrainingSet,
    ObjectKind::Model,
];

/// The folder of a registered model's version.
pub(crate) fn model_folder(store: &Folder, entry: &Entry) -> Option<Folder> {
    let version = entry.state.get("version")?.as_str()?;
    Some(store.join("models").join(&entry.name).join(version))
}

/// The name of a model's file in its folder.
pub(crate) const MODEL_FILE: &str = "model.txt";

/// Makes a registered model usable, if it has a file that can be scored.
pub(crate) fn load_model(models: &ModelSet, store: &Folder, entry: &Entry) -> Result<()> {
    let Some(folder) = model_folder(store, entry) else { return Ok(()) };
    match folder.local() {
        Some(path) if path.join(MODEL_FILE).is_file() => models.insert_file(&entry.name, &path.join(MODEL_FILE)),
        None if folder.entries()?.files.iter().any(|f| f == MODEL_FILE) => {
            models.insert_url(&entry.name, &folder.place(MODEL_FILE))
        }
        _ => Ok(()),
    }
}

/// Reads models in buckets.
fn fetch(buckets: &Arc<Buckets>, waiting: &Arc<Buckets>) -> Fetch {
    let (buckets, waiting) = (Arc::clone(buckets), Arc::clone(waiting));
    Fetch::new(move |url| {
        let wrong = || Error::invalid(format!("`{url}` is no model: give the path of a file, or s3://bucket/key"));
        let (folder, name) = url.rsplit_once('/').filter(|_| url.starts_with("s3://")).ok_or_else(wrong)?;
        let found = Folder::parse(folder, Path::new(""), &buckets, &waiting)?.read(name)?;
        found.ok_or_else(|| Error::not_found(format!("no object {url}")))
    })
}

/// What the analyzer asks of the outside.
struct World {
    models: Arc<ModelSet>,
    ctx: SessionContext,
    root: PathBuf,
    access: Access,
}

#[async_trait]
impl Outside for World {
    async fn locate(&self, location: &str, table: &CreateExternalTable) -> Result<String> {
        connectors::locate(&self.ctx, &self.root, location, table).await
    }

    fn add_catalog(&self, name: &str, options: &BTreeMap<String, String>) -> Result<()> {
        connectors::glue::add_catalog(&self.ctx, name, options, &self.access)
    }

    fn declare_model(&self, name: &str, features: &[String]) {
        self.models.declare(name, features.to_vec());
    }

    fn model_features(&self, name: &str) -> Option<Vec<String>> {
        // What is wrong with a file is said where the call is planned.
        match self.models.load(name) {
            Ok(()) => self.models.features(name),
            Err(_) => Some(vec![]),
        }
    }

    fn hyperparameters(&self, algorithm: &str) -> Option<&'static [&'static str]> {
        (algorithm == "gbdt").then_some(HYPERPARAMETERS)
    }

    fn algorithms(&self) -> &'static [&'static str] {
        &["gbdt"]
    }
}
