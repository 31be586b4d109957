//! Checking a job: every statement against all before it, every problem with its place, nothing executed.
//!
//! ```text
//!  Parsed ──▶ Analyzer ──┬──▶ Checked: the definition, with types and plans
//!               │        └──▶ diagnostics
//!               └ session catalog: tables, feature views, services, training sets, models so far
//! ```

mod catalog;
mod model;
mod query;
mod service;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::sqlparser::ast::{Expr, Ident, Statement as SqlStatement, Value};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{CopyToSource, CopyToStatement, CreateExternalTable, Statement as DfStatement};

use crate::aggregate::Functions;
use crate::asof::{FeatureRelations, Serve};
use crate::definition::{FeatureService, FeatureView, Micros, Model, TrainingSet};
use crate::diagnostic::{Diagnostic, Severity, Source, Span, closest};
use crate::sql::{self, ObjectKind, Parsed, SqlOption, Statement};

/// A statement that has been checked.
#[derive(Debug, Clone)]
pub enum Checked {
    /// The table is in the session's catalog.
    Table { name: String, locations: Vec<String>, schema: SchemaRef },
    /// The view is in the session's catalog.
    View(Arc<FeatureView>),
    /// The service is known to `service_inputs`.
    Service(Arc<FeatureService>),
    /// A training set.
    TrainingSet(Arc<TrainingSet>),
    /// A model, declared for `predict`.
    Model(Arc<Model>),
    /// Fill the stores with events before `until`, or with all.
    Materialize { view: Arc<FeatureView>, until: Option<Micros> },
    /// Write the rows of `plan`.
    Copy(Copy),
    /// Take a definition and what was made of it away.
    Drop { kind: ObjectKind, name: String, if_exists: bool },
    /// Print the rows of `plan`.
    Query(LogicalPlan),
    /// It was applied to the session.
    Session,
}

/// A checked `COPY`.
#[derive(Debug, Clone)]
pub struct Copy {
    /// The rows.
    pub plan: LogicalPlan,
    /// The statement in one canonical spelling.
    pub sql: String,
    /// Where to, as written.
    pub target: String,
    /// `parquet`, `csv` or `json`.
    pub format: String,
    /// Hive partition columns.
    pub partitioned_by: Vec<String>,
    /// Options of the format.
    pub options: Vec<(String, String)>,
}

/// What the outside world tells the analyzer.
#[async_trait]
pub trait Outside: Send + Sync {
    /// The full URL or path of a location as a user writes it, one of those of `table`.
    ///
    /// Errors: [`NotFound`](crate::ErrorKind::NotFound) if there is nothing there, [`Data`](crate::ErrorKind::Data) if
    /// it is plainly not what `table` says.
    async fn locate(&self, location: &str, table: &CreateExternalTable) -> crate::Result<String>;
    /// Makes tables of a Glue catalog known as `name.database.table`; `options` say which catalog it is.
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid) for the value of an option, which the message names.
    fn add_catalog(&self, name: &str, options: &BTreeMap<String, String>) -> crate::Result<()>;
    /// Makes `name` known to `predict`, with its features; it may not be trained yet.
    fn declare_model(&self, name: &str, features: &[String]);
    /// The features of a model known to `predict`.
    fn model_features(&self, name: &str) -> Option<Vec<String>>;
    /// The hyperparameters of a built-in algorithm; `None` if there is no such algorithm.
    fn hyperparameters(&self, algorithm: &str) -> Option<&'static [&'static str]>;
    /// The names of the built-in algorithms.
    fn algorithms(&self) -> &'static [&'static str];
}

/// What earlier texts of a session defined, beside the tables and services that its catalog holds.
#[derive(Debug, Clone, Default)]
pub struct Known {
    views: BTreeMap<String, Arc<FeatureView>>,
    training_sets: BTreeMap<String, Arc<TrainingSet>>,
}

impl Known {
    /// The feature view called `name`.
    pub fn feature_view(&self, name: &str) -> Option<&Arc<FeatureView>> {
        self.views.get(name)
    }
}

/// Checks statements one after the other, against a session.
pub struct Analyzer {
    ctx: SessionContext,
    source: Source,
    relations: Arc<FeatureRelations>,
    functions: Functions,
    outside: Arc<dyn Outside>,
    serve: Serve,
    known: Known,
    /// Names given in this job, to find a name that is given twice.
    given: BTreeMap<(ObjectKind, String), Span>,
    /// Definitions that did not check: not worth a second diagnostic where they are used.
    broken: BTreeSet<String>,
    /// Definitions of earlier jobs, which may be dropped.
    registered: BTreeSet<(ObjectKind, String)>,
}

type Found<T> = Result<T, Vec<Diagnostic>>;

impl Analyzer {
    /// An analyzer whose catalog is that of `ctx`, which has `relations` among its relation planners.
    pub fn new(
        ctx: SessionContext,
        source: Source,
        relations: Arc<FeatureRelations>,
        functions: Functions,
        outside: Arc<dyn Outside>,
        serve: Serve,
    ) -> Self {
        Self {
            ctx,
            source,
            relations,
            functions,
            outside,
            serve,
            known: Known::default(),
            given: BTreeMap::new(),
            broken: BTreeSet::new(),
            registered: BTreeSet::new(),
        }
    }

    /// Definitions that earlier jobs left in the registry: they may be dropped.
    pub fn with_registered(mut self, registered: impl IntoIterator<Item = (ObjectKind, String)>) -> Self {
        self.registered.extend(registered);
        self
    }

    /// What earlier texts of the same session defined.
    pub fn with_known(self, known: Known) -> Self {
        Self { known, ..self }
    }

    /// What is defined now, for the next text.
    pub fn into_known(self) -> Known {
        self.known
    }

    /// Checks one statement.
    ///
    /// Errors: all of its problems.
    pub async fn check(&mut self, parsed: &Parsed) -> Found<Checked> {
        let mut result = self.statement(parsed).await;
        if let Err(problems) = &mut result {
            let broken = &self.broken;
            problems.retain(|d| {
                !(d.code == "unknown-table" && broken.iter().any(|b| d.message.contains(&format!("`{b}`"))))
            });
            if let Some(name) = defined_name(&parsed.statement) {
                self.broken.insert(name);
            }
        }
        result
    }

    async fn statement(&mut self, parsed: &Parsed) -> Found<Checked> {
        match &parsed.statement {
            Statement::ExternalTable(t) => self.external_table(t, parsed.span).await,
            Statement::ExternalCatalog(c) => self.external_catalog(c),
            Statement::FeatureView(v) => {
                self.give(ObjectKind::FeatureView, &v.name)?;
                self.feature_view(v, parsed.span).await.map(Checked::View)
            }
            Statement::FeatureService(s) => {
                self.give(ObjectKind::FeatureService, &s.name)?;
                self.feature_service(s, parsed.span).await.map(Checked::Service)
            }
            Statement::TrainingSet(t) => {
                self.give(ObjectKind::TrainingSet, &t.name)?;
                self.training_set(t, parsed.span).await.map(Checked::TrainingSet)
            }
            Statement::Model(m) => {
                self.give(ObjectKind::Model, &m.name)?;
                self.model(m).map(Checked::Model)
            }
            Statement::Materialize { view, until } => self.materialize(view, until.as_deref()),
            Statement::Copy(c) => self.copy(c, parsed.span).await.map(Checked::Copy),
            Statement::Drop { kind, name, if_exists } => self.drop(*kind, name, *if_exists),
            Statement::Query(q) => self.plan(q.as_ref().clone(), parsed.span).await.map(Checked::Query),
            Statement::Session(s) => self.session(s, parsed.span).await,
        }
    }

    /// Applies the dialect's rewrites and plans.
    async fn plan(&self, mut statement: DfStatement, span: Span) -> Found<LogicalPlan> {
        self.expand_services(&mut statement, span).await?;
        self.rewrite(&mut statement);
        query::plan_all(&self.ctx, &self.source, statement, span).await
    }

    fn rewrite(&self, statement: &mut DfStatement) {
        match statement {
            DfStatement::Statement(s) => {
                sql::expand_predict(s, |name| self.outside.model_features(name));
                sql::nest_asof_joins(s.as_mut());
            }
            DfStatement::Explain(e) => self.rewrite(&mut e.statement),
            _ => {}
        }
    }

    async fn external_table(&mut self, as_written: &CreateExternalTable, span: Span) -> Found<Checked> {
        let name = as_written.name.to_string();
        let place = query::find_word(&self.source, span, &name).unwrap_or(span);
        if self.ctx.table_exist(name.as_str()).unwrap_or(false) && !as_written.if_not_exists {
            return Err(vec![duplicate(ObjectKind::Table, &name, place)]);
        }
        self.given.insert((ObjectKind::Table, name.clone()), place);
        let mut table = as_written.clone();
        let outcome = async {
            for location in &mut table.locations {
                *location = self.outside.locate(location, as_written).await?;
            }
            let plan = self.ctx.state().statement_to_plan(DfStatement::CreateExternalTable(table.clone())).await?;
            self.ctx.execute_logical_plan(plan).await
        };
        match outcome.await {
            Ok(_) => self.defined(name, table.locations, span).await,
            Err(e) => {
                let mut d = query::diagnose(&e, &self.source, span, &[]);
                let location = as_written.locations.first().map_or("", String::as_str);
                if d.span == span {
                    d.span = self.source.text[span.start..span.end]
                        .find(location)
                        .map_or(place, |i| Span { start: span.start + i, end: span.start + i + location.len() });
                }
                d.code = if d.code == "invalid-query" { "unreadable-table" } else { d.code };
                d.message = format!("table `{name}` can't be read: {}", d.message);
                Err(vec![d])
            }
        }
    }

    fn materialize(&self, view: &Ident, until: Option<&Expr>) -> Found<Checked> {
        let Some(found) = self.known.views.get(&view.value) else {
            return Err(self.unknown(ObjectKind::FeatureView, view, self.known.views.keys()));
        };
        let until = until.map(|e| self.instant(e)).transpose()?;
        Ok(Checked::Materialize { view: Arc::clone(found), until })
    }

    /// A constant instant: `'2013-06-01'` or `TIMESTAMP '2013-06-01 12:00:00'`.
    fn instant(&self, e: &Expr) -> Found<Micros> {
        use datafusion::sql::sqlparser::ast::Spanned;
        let text = match e {
            Expr::Value(v) => match &v.value {
                Value::SingleQuotedString(s) => Some(s.clone()),
                _ => None,
            },
            Expr::TypedString(t) => t.value.value.clone().into_string(),
            _ => None,
        };
        let nanos = text.and_then(|t| arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(&t).ok());
        nanos.map(|n| n.div_euclid(1000)).ok_or_else(|| {
            let span = self.source.span(e.span()).unwrap_or_default();
            vec![
                Diagnostic::error("bad-time", format!("`{e}` is no instant"), span)
                    .help("write '2013-06-01T12:00:00Z'"),
            ]
        })
    }

    async fn copy(&self, copy: &CopyToStatement, span: Span) -> Found<Copy> {
        let query = match &copy.source {
            CopyToSource::Query(q) => q.as_ref().clone(),
            CopyToSource::Relation(name) => select_all(sql::table_factor(name.clone())),
        };
        let from_name = copy.target.rsplit_once('.').map(|(_, ext)| ext.to_string());
        let format = copy.stored_as.clone().or(from_name).unwrap_or_default().to_lowercase();
        if !["parquet", "csv", "json"].contains(&format.as_str()) {
            let place = query::find_word(&self.source, span, "TO").unwrap_or(span);
            let d = Diagnostic::error("unknown-format", format!("`{format}` is no format to write"), place);
            return Err(vec![d.help("add STORED AS PARQUET, CSV or JSON")]);
        }
        let plan = self.plan(query::statement_of(query), span).await?;
        let unknown = copy.partitioned_by.iter().find(|c| plan.schema().field_with_unqualified_name(c).is_err());
        if let Some(column) = unknown {
            let place = query::find_word(&self.source, span, column).unwrap_or(span);
            let names = plan.schema().field_names();
            let d = Diagnostic::error("unknown-column", format!("the query has no column `{column}`"), place);
            return Err(vec![d.did_you_mean(column, names)]);
        }
        Ok(Copy {
            plan,
            sql: copy.to_string(),
            target: copy.target.clone(),
            format,
            partitioned_by: copy.partitioned_by.clone(),
            options: copy
                .options
                .iter()
                .map(|(k, v)| (k.clone(), v.clone().into_string().unwrap_or_else(|| v.to_string())))
                .collect(),
        })
    }

    fn drop(&mut self, kind: ObjectKind, name: &Ident, if_exists: bool) -> Found<Checked> {
        let key = (kind, name.value.clone());
        let mut here = self.given.remove(&key).is_some();
        if kind == ObjectKind::Table && self.known.views.contains_key(&name.value) {
            let text = format!("`{name}` is a feature view");
            let d = Diagnostic::error("wrong-kind", text, self.place(name));
            return Err(vec![d.help(format!("write DROP FEATURE VIEW {name}"))]);
        }
        match kind {
            ObjectKind::FeatureView => {
                self.known.views.remove(&name.value);
                let _ = self.ctx.deregister_table(name.value.as_str());
            }
            ObjectKind::FeatureService => self.relations.remove(&name.value),
            ObjectKind::TrainingSet => drop(self.known.training_sets.remove(&name.value)),
            ObjectKind::Model => {}
            ObjectKind::Table => here |= matches!(self.ctx.deregister_table(name.value.as_str()), Ok(Some(_))),
        }
        if !here && !if_exists && !self.registered.contains(&key) {
            let known: Vec<String> =
                self.registered.iter().filter(|(k, _)| *k == kind).map(|(_, n)| n.clone()).collect();
            let mut problems = self.unknown(kind, name, known.iter());
            if let [d] = problems.as_mut_slice() {
                d.help.get_or_insert_with(|| format!("write DROP {} IF EXISTS {name}", kind.noun().to_uppercase()));
            }
            return Err(problems);
        }
        Ok(Checked::Drop { kind, name: name.value.clone(), if_exists })
    }

    /// A table or SQL view that is in the catalog now; a later statement may drop it.
    async fn defined(&self, name: String, locations: Vec<String>, span: Span) -> Found<Checked> {
        match self.ctx.table_provider(name.as_str()).await {
            Ok(table) => Ok(Checked::Table { name, locations, schema: table.schema() }),
            Err(e) => Err(vec![query::diagnose(&e, &self.source, span, &[])]),
        }
    }

    async fn session(&self, as_written: &DfStatement, span: Span) -> Found<Checked> {
        let mut statement = as_written.clone();
        if let DfStatement::Statement(s) = &statement
            && let SqlStatement::CreateTable(_) = s.as_ref()
        {
            let d = Diagnostic::error("unsupported", "CREATE TABLE keeps nothing", span);
            return Err(vec![d.help("use CREATE VIEW, or COPY the rows to a file and CREATE EXTERNAL TABLE")]);
        }
        self.expand_services(&mut statement, span).await?;
        self.rewrite(&mut statement);
        let plan = query::try_plan(&self.ctx, statement).await;
        let done = match plan {
            Ok(plan) => self.ctx.execute_logical_plan(plan).await.map(|_| ()),
            Err(e) => Err(e),
        };
        let tables = query::tables(&self.ctx);
        if done.is_ok()
            && let DfStatement::Statement(s) = &as_written
            && let SqlStatement::CreateView(view) = s.as_ref()
        {
            return self.defined(view.name.to_string(), vec![], span).await;
        }
        done.map(|()| Checked::Session).map_err(|e| vec![query::diagnose(&e, &self.source, span, &tables)])
    }

    /// Notes a name; it is a problem if this job has given it before.
    fn give(&mut self, kind: ObjectKind, name: &Ident) -> Found<()> {
        let place = self.place(name);
        let table_like = kind == ObjectKind::FeatureView && self.ctx.table_exist(name.value.as_str()).unwrap_or(false);
        if table_like || self.given.insert((kind, name.value.clone()), place).is_some() {
            return Err(vec![duplicate(kind, &name.value, place)]);
        }
        Ok(())
    }

    fn place(&self, name: &Ident) -> Span {
        self.source.span(name.span).unwrap_or_default()
    }

    fn unknown<'a>(&self, kind: ObjectKind, name: &Ident, known: impl Iterator<Item = &'a String>) -> Vec<Diagnostic> {
        if self.broken.contains(&name.value) {
            return vec![];
        }
        let noun = kind.noun();
        let d = Diagnostic::error(unknown_code(kind), format!("no {noun} `{}`", name.value), self.place(name));
        vec![d.did_you_mean(&name.value, known)]
    }
}

fn unknown_code(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Table => "unknown-table",
        ObjectKind::FeatureView => "unknown-view",
        ObjectKind::FeatureService => "unknown-service",
        ObjectKind::TrainingSet => "unknown-training-set",
        ObjectKind::Model => "unknown-model",
    }
}

fn duplicate(kind: ObjectKind, name: &str, span: Span) -> Diagnostic {
    Diagnostic::error("duplicate-name", format!("{} `{name}` is defined twice", kind.noun()), span)
        .help("give it another name, or remove one of the two")
}

fn defined_name(statement: &Statement) -> Option<String> {
    Some(match statement {
        Statement::ExternalTable(t) => t.name.to_string(),
        Statement::FeatureView(v) => v.name.value.clone(),
        Statement::FeatureService(s) => s.name.value.clone(),
        Statement::TrainingSet(t) => t.name.value.clone(),
        Statement::Model(m) => m.name.value.clone(),
        _ => return None,
    })
}

/// `SELECT * FROM table`.
fn select_all(table: datafusion::sql::sqlparser::ast::TableFactor) -> datafusion::sql::sqlparser::ast::Query {
    let text = "SELECT * FROM t";
    let dialect = datafusion::sql::sqlparser::dialect::GenericDialect {};
    let parsed = datafusion::sql::sqlparser::parser::Parser::parse_sql(&dialect, text);
    let Some(SqlStatement::Query(mut query)) = parsed.ok().and_then(|mut s| s.pop()) else {
        unreachable!("`{text}` is a query")
    };
    if let Some(select) = query::select_of(&mut query) {
        select.from[0].relation = table;
    }
    *query
}

/// Options by key; unknown and repeated keys are problems.
struct Options<'a>(&'a [SqlOption]);

impl<'a> Options<'a> {
    fn new(source: &Source, options: &'a [SqlOption], known: &[&str], problems: &mut Vec<Diagnostic>) -> Self {
        for (i, option) in options.iter().enumerate() {
            let span = source.span(option.key.span).unwrap_or_default();
            let key = option.key.value.to_lowercase();
            if !known.contains(&key.as_str()) {
                let d = Diagnostic::error("unknown-option", format!("no option `{key}`"), span);
                let all = format!("known options: {}", known.join(", "));
                problems.push(Diagnostic {
                    help: closest(&key, known).map(|k| format!("did you mean `{k}`?")).or(Some(all)),
                    ..d
                });
            } else if options[..i].iter().any(|o| o.key.value.eq_ignore_ascii_case(&key)) {
                problems.push(Diagnostic::error("duplicate-option", format!("option `{key}` is given twice"), span));
            }
        }
        Self(options)
    }

    fn get(&self, key: &str) -> Option<&'a SqlOption> {
        self.0.iter().find(|o| o.key.value.eq_ignore_ascii_case(key))
    }

    fn boolean(&self, key: &str, problems: &mut Vec<Diagnostic>) -> Option<bool> {
        let option = self.get(key)?;
        let value = option.value.to_lowercase().parse().ok();
        if value.is_none() {
            problems.push(Diagnostic::error("bad-option", format!("`{key}` is true or false"), option.span));
        }
        value
    }
}

/// Whether any of the diagnostics is an error.
pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|d| d.severity == Severity::Error)
}
