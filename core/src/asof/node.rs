//! Logical nodes.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::{DFSchema, DFSchemaRef, TableReference, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::definition::FeatureView;

/// The comparison of a MATCH_CONDITION, with the left side's time on its left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Hash)]
pub enum MatchOp {
    /// The latest right row strictly before.
    Gt,
    /// The latest right row at or before.
    GtEq,
    /// The earliest right row strictly after.
    Lt,
    /// The earliest right row at or after.
    LtEq,
}

impl fmt::Display for MatchOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gt => ">",
            Self::GtEq => ">=",
            Self::Lt => "<",
            Self::LtEq => "<=",
        })
    }
}

/// A feature view as a query knows it; equal if name, definition and alias are.
#[derive(Debug, Clone)]
pub(super) struct ViewRef {
    pub(super) view: Arc<FeatureView>,
    pub(super) alias: TableReference,
}

impl ViewRef {
    fn identity(&self) -> (&str, &str, &TableReference) {
        (&self.view.name, &self.view.sql, &self.alias)
    }

    fn fields(&self) -> Vec<(Option<TableReference>, FieldRef)> {
        self.view.features.iter().map(|f| (Some(self.alias.clone()), Arc::clone(&f.field))).collect()
    }
}

impl PartialEq for ViewRef {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for ViewRef {}

impl PartialOrd for ViewRef {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.identity().partial_cmp(&other.identity())
    }
}

impl Hash for ViewRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

/// `left ASOF JOIN right`: every left row with the right columns as they were known at its time.
///
/// The output has the left columns, then those of the right table, or the features of the view.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AsOfNode {
    pub(super) left: LogicalPlan,
    /// The right table, or the view's events.
    pub(super) right: LogicalPlan,
    /// Pairs of left and right keys, of equal type.
    pub(super) on: Vec<(Expr, Expr)>,
    /// Left and right time, of equal type unless `view` is given.
    pub(super) times: (Expr, Expr),
    pub(super) op: MatchOp,
    pub(super) view: Option<ViewRef>,
    schema: DFSchemaRef,
}

impl AsOfNode {
    pub(super) fn try_new(
        left: LogicalPlan,
        right: LogicalPlan,
        on: Vec<(Expr, Expr)>,
        times: (Expr, Expr),
        op: MatchOp,
        view: Option<ViewRef>,
    ) -> Result<Self> {
        let right_fields = match &view {
            Some(view) => view.fields(),
            None => right.schema().iter().map(|(q, f)| (q.cloned(), nullable(f))).collect(),
        };
        let schema = joined(&left, right_fields)?;
        Ok(Self { left, right, on, times, op, view, schema })
    }

    /// The feature view on the right side, if it is one.
    pub fn view(&self) -> Option<&Arc<FeatureView>> {
        self.view.as_ref().map(|v| &v.view)
    }
}

fn nullable(field: &FieldRef) -> FieldRef {
    Arc::new(field.as_ref().clone().with_nullable(true))
}

fn joined(left: &LogicalPlan, right: Vec<(Option<TableReference>, FieldRef)>) -> Result<DFSchemaRef> {
    let fields = left.schema().iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).chain(right).collect();
    Ok(Arc::new(DFSchema::new_with_metadata(fields, left.schema().metadata().clone())?))
}

/// By name of the view or by right plan; only there because the trait asks for an order.
impl PartialOrd for AsOfNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (&self.left, &self.right, &self.on, &self.times, self.op, &self.view).partial_cmp(&(
            &other.left,
            &other.right,
            &other.on,
            &other.times,
            other.op,
            &other.view,
        ))
    }
}

impl UserDefinedLogicalNodeCore for AsOfNode {
    fn name(&self) -> &str {
        "AsOf"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    /// Left keys, right keys, left time, right time.
    fn expressions(&self) -> Vec<Expr> {
        let left = self.on.iter().map(|(l, _)| l.clone());
        let right = self.on.iter().map(|(_, r)| r.clone());
        left.chain(right).chain([self.times.0.clone(), self.times.1.clone()]).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.view {
            Some(v) if v.view.is_latest() => write!(f, "AsOfLatest: {}", v.view.name)?,
            Some(v) => {
                let (a, w) = (v.view.aggregates.len(), v.view.windows().len());
                write!(f, "AsOfAggregate: {}, aggregates={a}, windows={w}", v.view.name)?;
            }
            None => write!(f, "AsOfJoin:")?,
        }
        write!(f, " match=[{} {} {}] on=[", self.times.0, self.op, self.times.1)?;
        for (i, (l, r)) in self.on.iter().enumerate() {
            write!(f, "{}{l} = {r}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("]")
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let (Some(right), Some(left)) = (inputs.pop(), inputs.pop()) else {
            return plan_err!("an as-of join has two inputs");
        };
        let (Some(right_time), Some(left_time)) = (exprs.pop(), exprs.pop()) else {
            return plan_err!("an as-of join has two times");
        };
        let right_keys = exprs.split_off(exprs.len() / 2);
        let on = exprs.into_iter().zip(right_keys).collect();
        Self::try_new(left, right, on, (left_time, right_time), self.op, self.view.clone())
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let left_len = self.left.schema().fields().len();
        let left = output_columns.iter().copied().filter(|i| *i < left_len).collect();
        let right = match self.view {
            Some(_) => (0..self.right.schema().fields().len()).collect(),
            None => output_columns.iter().filter_map(|i| i.checked_sub(left_len)).collect(),
        };
        Some(vec![left, right])
    }
}

/// The features of a view at each left row's time, read from an online store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OnlineNode {
    left: LogicalPlan,
    view: ViewRef,
    keys: Vec<Expr>,
    time: Expr,
    inclusive: bool,
    schema: DFSchemaRef,
}

impl OnlineNode {
    pub(super) fn try_new(
        left: LogicalPlan,
        view: ViewRef,
        keys: Vec<Expr>,
        time: Expr,
        inclusive: bool,
    ) -> Result<Self> {
        let schema = joined(&left, view.fields())?;
        Ok(Self { left, view, keys, time, inclusive, schema })
    }

    /// The view.
    pub fn view(&self) -> &Arc<FeatureView> {
        &self.view.view
    }

    /// The left expressions of the view's entity columns, in their order and type.
    pub fn keys(&self) -> &[Expr] {
        &self.keys
    }

    /// The left expression of T.
    pub fn time(&self) -> &Expr {
        &self.time
    }

    /// Whether an event at T itself is seen.
    pub fn inclusive(&self) -> bool {
        self.inclusive
    }
}

impl PartialOrd for OnlineNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (&self.left, &self.view, &self.keys).partial_cmp(&(&other.left, &other.view, &other.keys))
    }
}

impl UserDefinedLogicalNodeCore for OnlineNode {
    fn name(&self) -> &str {
        "OnlineRead"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.keys.iter().chain([&self.time]).cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OnlineRead: {} at {}", self.view.view.name, self.time)
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let (Some(left), Some(time)) = (inputs.pop(), exprs.pop()) else {
            return plan_err!("an online read has one input and a time");
        };
        Self::try_new(left, self.view.clone(), exprs, time, self.inclusive)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let left_len = self.left.schema().fields().len();
        Some(vec![output_columns.iter().copied().filter(|i| *i < left_len).collect()])
    }
}
