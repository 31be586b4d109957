//! The SQL dialect: DataFusion's, plus the statements that define features.

mod parse;
mod rewrite;

use datafusion::logical_expr::sqlparser::ast::{ColumnDef, Expr, Ident, ObjectName, Query, TableFactor};
use datafusion::sql::parser::{CopyToStatement, CreateExternalTable, Statement as DfStatement};

pub use parse::parse;
pub(crate) use rewrite::{
    expand_predict, find_service_inputs, nest_asof_joins, replace_request, replace_service_inputs,
};

use crate::Span;

/// One statement of a job.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// What it says.
    pub statement: Statement,
    /// From its first to its last token.
    pub span: Span,
    /// Its text, as written.
    pub sql: String,
}

/// The statements of a job.
#[derive(Debug, Clone)]
pub enum Statement {
    /// `CREATE EXTERNAL TABLE`.
    ExternalTable(Box<CreateExternalTable>),
    /// `CREATE EXTERNAL CATALOG`.
    ExternalCatalog(Box<CreateExternalCatalog>),
    /// `CREATE FEATURE VIEW`.
    FeatureView(Box<CreateFeatureView>),
    /// `CREATE FEATURE SERVICE`.
    FeatureService(Box<CreateFeatureService>),
    /// `CREATE TRAINING SET`.
    TrainingSet(Box<CreateTrainingSet>),
    /// `CREATE MODEL`.
    Model(Box<CreateModel>),
    /// `MATERIALIZE FEATURE VIEW name [UNTIL time]`.
    Materialize { view: Ident, until: Option<Box<Expr>> },
    /// `COPY (query) TO 'path'`.
    Copy(Box<CopyToStatement>),
    /// `DROP FEATURE VIEW | FEATURE SERVICE | TRAINING SET | MODEL [IF EXISTS] name`.
    Drop { kind: ObjectKind, name: Ident, if_exists: bool },
    /// `SELECT`, `EXPLAIN`, `SHOW`, `DESCRIBE`: prints rows.
    Query(Box<DfStatement>),
    /// `CREATE VIEW`, `CREATE TABLE AS`, `SET`, `DROP TABLE` and the like: changes the session only.
    Session(Box<DfStatement>),
}

/// The things a job defines and a registry keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// An external table.
    Table,
    /// A feature view.
    FeatureView,
    /// A feature service.
    FeatureService,
    /// A training set.
    TrainingSet,
    /// A model.
    Model,
}

impl ObjectKind {
    /// As a user says it: `feature view`.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::FeatureView => "feature view",
            Self::FeatureService => "feature service",
            Self::TrainingSet => "training set",
            Self::Model => "model",
        }
    }
}

/// `CREATE EXTERNAL CATALOG [IF NOT EXISTS] name STORED AS GLUE [OPTIONS (…)]`.
#[derive(Debug, Clone)]
pub struct CreateExternalCatalog {
    /// What its tables are named with.
    pub name: Ident,
    /// Whether a catalog of that name is left as it is.
    pub if_not_exists: bool,
    /// What keeps it: `GLUE`.
    pub stored_as: Ident,
    /// Where it is.
    pub options: Vec<SqlOption>,
}

/// `CREATE FEATURE VIEW name ENTITY (…) EVENT TIME t [SEQUENCE s] [WITH (…)] AS query`.
#[derive(Debug, Clone)]
pub struct CreateFeatureView {
    /// Its name.
    pub name: Ident,
    /// Key columns of the body's tables.
    pub entity: Vec<Ident>,
    /// Event time column of the body's tables.
    pub event_time: Ident,
    /// Column that orders events of equal time.
    pub sequence: Option<Ident>,
    /// `WITH (key = value, …)`.
    pub options: Vec<SqlOption>,
    /// The body.
    pub query: Query,
}

/// `CREATE FEATURE SERVICE name (request columns) AS query`.
#[derive(Debug, Clone)]
pub struct CreateFeatureService {
    /// Its name.
    pub name: Ident,
    /// What a request carries.
    pub request: Vec<ColumnDef>,
    /// The body, over the table `request`.
    pub query: Query,
}

/// `CREATE TRAINING SET name FROM SERVICE service AS query`.
#[derive(Debug, Clone)]
pub struct CreateTrainingSet {
    /// Its name.
    pub name: Ident,
    /// The service that gives the features.
    pub service: Ident,
    /// The labelled requests, one row each.
    pub query: Query,
}

/// `CREATE MODEL name FROM TRAINING SET set LABEL column [SPLIT BY TIME column (…)] USING … [OPTIONS (…)]`.
#[derive(Debug, Clone)]
pub struct CreateModel {
    /// Its name.
    pub name: Ident,
    /// The training set.
    pub training_set: Ident,
    /// The label column.
    pub label: Ident,
    /// Time column and shares of train, validation and test.
    pub split: Option<Split>,
    /// What trains it.
    pub algorithm: Algorithm,
    /// Hyperparameters.
    pub options: Vec<SqlOption>,
}

/// `SPLIT BY TIME column (train a, validation b, test c)`.
#[derive(Debug, Clone)]
pub struct Split {
    /// The time column of the training set.
    pub time: Ident,
    /// Shares of the rows: train, validation, test; they add up to 1.
    pub shares: [f64; 3],
    /// Where the shares stand.
    pub span: Span,
}

/// What trains a model.
#[derive(Debug, Clone)]
pub enum Algorithm {
    /// A built-in program: `USING gbdt`.
    BuiltIn(Ident),
    /// A user's own program: `USING script 'train.py'`.
    Script { path: String, span: Span },
}

/// One `key = value` or `key value` of an option list.
#[derive(Debug, Clone)]
pub struct SqlOption {
    /// The key.
    pub key: Ident,
    /// The value without quotes.
    pub value: String,
    /// Where the value stands.
    pub span: Span,
}

/// The functions that ask a model, whose name is their first argument. The scorer has them in this order.
pub const PREDICT_FUNCTIONS: [&str; 5] =
    ["predict", "predict_raw", "predict_class", "predict_leaf", "predict_contributions"];

/// The factor `FROM request` of a service's body.
pub const REQUEST: &str = "request";

/// A `TableFactor` that reads the named table.
pub(crate) fn table_factor(name: ObjectName) -> TableFactor {
    TableFactor::Table {
        name,
        alias: None,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    }
}
