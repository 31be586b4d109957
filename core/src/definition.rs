//! What a job defines: feature views, services, training sets and models, after they were checked.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, FieldRef, IntervalMonthDayNano, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::sqlparser::ast::Query;

use crate::aggregate::{Aggregator, Binding, Events, Memo};
use crate::sql::Algorithm;
use crate::{Error, Result};

/// Microseconds: of an instant since 1970 UTC, or of a duration.
pub type Micros = i64;

const MINUTE: Micros = 60_000_000;
const HOUR: Micros = 60 * MINUTE;
const DAY: Micros = 24 * HOUR;

/// The microseconds of an interval of fixed length.
pub(crate) fn interval_micros(i: IntervalMonthDayNano) -> Result<Micros> {
    if i.months != 0 {
        return Err(Error::invalid("months and years have no fixed length: say it in days"));
    }
    let micros = i64::from(i.days).checked_mul(DAY).and_then(|d| d.checked_add(i.nanoseconds / 1000));
    match micros {
        Some(m) if m > 0 => Ok(m),
        Some(_) => Err(Error::invalid("a length of time must be positive")),
        None => Err(Error::invalid("it is too long")),
    }
}

/// How far a window reaches back, where it ends, and to what its edges are rounded down.
///
/// ```text
///                      length                offset
///  ──────┼──────────────────────────────┼───────────────┼──▶ time
///      start, to a multiple of hop     end, the same   T        without an offset the end is T itself
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// Length in microseconds; `None` for a lifetime window.
    pub length: Option<Micros>,
    /// How long before T it ends, microseconds; `None`: at T exactly, which is never rounded.
    pub offset: Option<Micros>,
    /// The edges are multiples of this many microseconds; `None`: exact.
    pub hop: Option<Micros>,
}

impl Window {
    /// Everything before T.
    pub const LIFETIME: Self = Self { length: None, offset: None, hop: None };

    /// The first instant inside the window at `at` (exclusive near edge), microseconds UTC.
    pub fn start(&self, at: Micros) -> Micros {
        self.length.map_or(Micros::MIN, |length| self.edge(at, length))
    }

    /// The first instant after the window at `at`, microseconds UTC; never later than `at`.
    pub fn end(&self, at: Micros) -> Micros {
        self.offset.map_or(at, |offset| self.edge(at, offset))
    }

    fn edge(&self, at: Micros, before: Micros) -> Micros {
        let edge = at.saturating_sub(before);
        match self.hop {
            Some(hop) => edge.checked_sub(edge.rem_euclid(hop)).unwrap_or(Micros::MIN),
            None => edge,
        }
    }
}

/// The option `resolution` of a feature view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// By the window's length: under 12 hours 5 minutes, under 12 days 1 hour, else 1 day. The rule is Chronon's.
    Auto,
    /// No rounding; such a view cannot be served online.
    Exact,
    /// This many microseconds for every window.
    Fixed(Micros),
}

impl Resolution {
    /// The hop of a window of `length`.
    pub fn hop(self, length: Micros) -> Option<Micros> {
        match self {
            Self::Exact => None,
            Self::Fixed(hop) => Some(hop),
            Self::Auto if length < 12 * HOUR => Some(5 * MINUTE),
            Self::Auto if length < 12 * DAY => Some(HOUR),
            Self::Auto => Some(DAY),
        }
    }
}

/// One aggregation over a view's events, shared by all of its windows.
#[derive(Debug, Clone)]
pub struct AggregateCall {
    /// The function, bound to its argument types.
    pub function: Arc<dyn Aggregator>,
    /// What binds it again, in another process.
    pub binding: Binding,
    /// Columns of [`FeatureView::events`] that are its arguments.
    pub args: Vec<usize>,
    /// Boolean column of the events: rows where it is not true are left out.
    pub filter: Option<usize>,
    /// The call as SQL, for people.
    pub sql: String,
}

impl AggregateCall {
    /// Calls `f` with this call's part of a view's events: their columns, and their times.
    pub(crate) fn over<T>(
        &self,
        view: &FeatureView,
        events: &[ArrayRef],
        time: &[Micros],
        memo: Option<&Memo>,
        f: impl FnOnce(&Events<'_>) -> Result<T>,
    ) -> Result<T> {
        let args: Vec<_> = self.args.iter().map(|c| Arc::clone(&events[*c])).collect();
        f(&Events {
            args: &args,
            time,
            sequence: view.sequence_column().map(|c| &events[c]),
            filter: self.filter.map(|c| events[c].as_boolean()),
            memo,
        })
    }
}

/// One output column of a feature view.
#[derive(Debug, Clone)]
pub struct Feature {
    /// Its name and type.
    pub field: FieldRef,
    /// Where its value comes from.
    pub source: FeatureSource,
}

/// Where a feature's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureSource {
    /// An aggregate over a window: index into [`FeatureView::aggregates`].
    Window { aggregate: usize, window: Window },
    /// A column of the latest row: index into the columns of [`FeatureView::events`].
    Latest { column: usize },
}

/// What is known about an entity at any instant.
///
/// The events have the entity columns first, then the event time (as microseconds, `TIMESTAMP(6)`), then the sequence
/// if there is one, then the inputs of aggregates and filters, or the columns of the latest row.
#[derive(Clone)]
pub struct FeatureView {
    /// Its name.
    pub name: String,
    /// Key columns.
    pub entity: Vec<FieldRef>,
    /// Name of the event time column.
    pub event_time: String,
    /// Whether events of equal time are ordered by a column of their own (the one after the event time).
    pub has_sequence: bool,
    /// Whether it is kept in the online store.
    pub online: bool,
    /// Latest-row views: age past which a row is no longer known. Windowed views: how long the online store keeps
    /// tiles, never shorter than the longest window.
    pub ttl: Option<Micros>,
    /// The aggregates; empty for a latest-row view.
    pub aggregates: Vec<AggregateCall>,
    /// The output columns.
    pub features: Vec<Feature>,
    /// The query that gives the events.
    pub events: LogicalPlan,
    /// The statement, in one canonical spelling; what a definition's hash is made of.
    pub sql: String,
}

impl FeatureView {
    /// Whether it gives the columns of the latest row instead of windowed aggregates.
    pub fn is_latest(&self) -> bool {
        self.aggregates.is_empty()
    }

    /// The column of the event time in [`Self::events`].
    pub fn time_column(&self) -> usize {
        self.entity.len()
    }

    /// The column of the sequence in [`Self::events`].
    pub fn sequence_column(&self) -> Option<usize> {
        self.has_sequence.then_some(self.entity.len() + 1)
    }

    /// The first column of [`Self::events`] after entity, time and sequence, which are what the events are sorted by.
    pub fn first_input(&self) -> usize {
        self.entity.len() + 1 + usize::from(self.has_sequence)
    }

    /// The distinct windows of its features, in ascending order.
    pub fn windows(&self) -> Vec<Window> {
        let mut windows: Vec<_> = self.features.iter().filter_map(Feature::window).collect();
        windows.sort_unstable();
        windows.dedup();
        windows
    }
}

impl Feature {
    /// The window, if it is a windowed aggregate.
    pub fn window(&self) -> Option<Window> {
        match self.source {
            FeatureSource::Window { window, .. } => Some(window),
            FeatureSource::Latest { .. } => None,
        }
    }
}

impl fmt::Debug for FeatureView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeatureView").field("name", &self.name).field("sql", &self.sql).finish_non_exhaustive()
    }
}

/// The inputs of a model, as a query over a request.
#[derive(Debug, Clone)]
pub struct FeatureService {
    /// Its name.
    pub name: String,
    /// What a request carries.
    pub request: SchemaRef,
    /// The body, over the table `request`.
    pub query: Query,
    /// The columns it gives.
    pub output: SchemaRef,
    /// The feature views it joins.
    pub views: Vec<String>,
    /// The request's columns that say as of when: those of its MATCH_CONDITIONs.
    pub times: Vec<String>,
    /// The statement, in one canonical spelling.
    pub sql: String,
}

/// Labelled requests with the features as they were known at each one's time.
#[derive(Debug, Clone)]
pub struct TrainingSet {
    /// Its name.
    pub name: String,
    /// The service that gives the features.
    pub service: String,
    /// The query that gives its rows.
    pub plan: LogicalPlan,
    /// Its columns: those of the request rows, then the service's.
    pub schema: SchemaRef,
    /// Names of the columns that are features: the service's.
    pub features: Vec<String>,
    /// The statement, in one canonical spelling.
    pub sql: String,
}

/// A model to be trained on a training set.
#[derive(Debug, Clone)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// The training set.
    pub training_set: String,
    /// The label column.
    pub label: String,
    /// The label's type.
    pub label_type: DataType,
    /// Time column and shares of train, validation and test.
    pub split: Option<(String, [f64; 3])>,
    /// Names of the columns it learns from, in order.
    pub features: Vec<String>,
    /// What trains it.
    pub algorithm: Algorithm,
    /// Hyperparameters, in order of the statement.
    pub options: Vec<(String, String)>,
    /// The statement, in one canonical spelling.
    pub sql: String,
}
