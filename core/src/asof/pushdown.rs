//! Filters above an as-of join, moved below it.
//!
//! ```text
//!  Filter l.k = 7 AND l.x > 0 AND r.v > 1            Filter r.v > 1
//!    AsOf l.k = r.k                          ──▶       AsOf l.k = r.k
//!      l                                                 Filter l.k = 7 AND l.x > 0
//!      r                                                   l
//!                                                        Filter r.k = 7
//!                                                          r
//! ```
//! A left row's result depends on that row and on right rows of its key alone. So what only reads left columns can be
//! asked before the join, and what only reads left keys of the right side as well.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Extension, Filter, LogicalPlan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use std::sync::Arc;

use super::node::AsOfNode;

/// Moves filters below as-of joins.
#[derive(Debug, Default)]
pub struct PushFiltersBelowAsOf;

impl OptimizerRule for PushFiltersBelowAsOf {
    fn name(&self) -> &str {
        "push_filters_below_asof"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = &plan else { return Ok(Transformed::no(plan)) };
        let LogicalPlan::Extension(extension) = filter.input.as_ref() else { return Ok(Transformed::no(plan)) };
        let Some(node) = extension.node.as_any().downcast_ref::<AsOfNode>() else { return Ok(Transformed::no(plan)) };
        let (below, above): (Vec<_>, Vec<_>) = split_conjunction_owned(filter.predicate.clone())
            .into_iter()
            .partition(|e| only_reads(e, node.left.schema()) && !e.is_volatile());
        if below.is_empty() {
            return Ok(Transformed::no(plan));
        }
        let of_keys: Vec<Expr> = below.iter().filter_map(|e| of_right_keys(e, node)).collect();
        let (left, right) = (filtered(node.left.clone(), below)?, filtered(node.right.clone(), of_keys)?);
        let (on, times, view) = (node.on.clone(), node.times.clone(), node.view.clone());
        let node = AsOfNode::try_new(left, right, on, times, node.op, view)?;
        let joined = LogicalPlan::Extension(Extension { node: Arc::new(node) });
        filtered(joined, above).map(Transformed::yes)
    }
}

fn filtered(plan: LogicalPlan, filters: Vec<Expr>) -> Result<LogicalPlan> {
    match conjunction(filters) {
        Some(filter) => Ok(LogicalPlan::Filter(Filter::try_new(filter, Arc::new(plan))?)),
        None => Ok(plan),
    }
}

/// Whether all columns of `expr` are in a schema; an expression without any stays where it is.
fn only_reads(expr: &Expr, schema: &DFSchema) -> bool {
    let columns = expr.column_refs();
    !columns.is_empty() && columns.iter().all(|c| schema.has_column(c)) && !expr.contains_outer()
}

/// The same question of the right side's keys, if it is about keys alone.
fn of_right_keys(expr: &Expr, node: &AsOfNode) -> Option<Expr> {
    let right_of = |left: &Expr| node.on.iter().find(|(l, _)| l == left).map(|(_, right)| right.clone());
    let keys_only = expr.column_refs().iter().all(|c| right_of(&Expr::Column((*c).clone())).is_some());
    let moved = expr.clone().transform_up(|e| {
        Ok(match (&e, right_of(&e)) {
            (Expr::Column(_), Some(right)) => Transformed::yes(right),
            _ => Transformed::no(e),
        })
    });
    moved.ok().filter(|_| keys_only).map(|m| m.data)
}
