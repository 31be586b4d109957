//! What a plan reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan};

use crate::asof::AsOfNode;
use crate::definition::FeatureView;
use crate::sql::PREDICT_FUNCTIONS;

/// Everything that a plan's rows depend on.
#[derive(Debug, Default)]
pub struct Lineage {
    /// Tables by name, those of the views' events among them.
    pub tables: BTreeMap<String, Arc<dyn TableProvider>>,
    /// Feature views by name.
    pub views: BTreeMap<String, Arc<FeatureView>>,
    /// Models that `predict` is called with.
    pub models: BTreeSet<String>,
}

/// What `plan` reads, directly or through feature views.
///
/// Errors: DataFusion's, for a plan that is not well-formed.
pub fn lineage(plan: &LogicalPlan) -> crate::Result<Lineage> {
    let mut found = Lineage::default();
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) => {
                found.tables.insert(scan.table_name.to_string(), source_as_provider(&scan.source)?);
            }
            LogicalPlan::Extension(e) => {
                if let Some(view) = e.node.as_any().downcast_ref::<AsOfNode>().and_then(AsOfNode::view) {
                    found.views.insert(view.name.clone(), Arc::clone(view));
                }
            }
            _ => {}
        }
        node.apply_expressions(|e| note_models(e, &mut found.models))
    })?;
    Ok(found)
}

/// The table whose rows `plan` filters and projects one by one; `None` if it does anything else. More rows of such a
/// table only add rows to the plan.
pub fn row_wise(plan: &LogicalPlan) -> Option<Arc<dyn TableProvider>> {
    match plan {
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {}
        LogicalPlan::TableScan(scan) if scan.fetch.is_none() => return source_as_provider(&scan.source).ok(),
        _ => return None,
    }
    let one_by_one = |e: &Expr| !e.is_volatile() && !e.exists(|e| Ok(is_query(e))).unwrap_or(true);
    let [input] = plan.inputs()[..] else { return None };
    row_wise(input).filter(|_| plan.expressions().iter().all(one_by_one))
}

fn is_query(e: &Expr) -> bool {
    matches!(e, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_))
}

/// `plan`, a [row-wise](row_wise) one, over another table with the same columns.
///
/// Errors: DataFusion's, if the columns are not the same.
pub fn over_table(plan: &LogicalPlan, table: &Arc<dyn TableProvider>) -> crate::Result<LogicalPlan> {
    let replaced = plan.clone().transform_up(|node| match node {
        LogicalPlan::TableScan(scan) => {
            let scan = TableScan { source: provider_as_source(Arc::clone(table)), ..scan };
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(replaced.data)
}

fn note_models(e: &Expr, models: &mut BTreeSet<String>) -> Result<TreeNodeRecursion> {
    e.apply(|e| {
        if let Expr::ScalarFunction(f) = e
            && PREDICT_FUNCTIONS.contains(&f.name())
            && let Some(Expr::Literal(name, _)) = f.args.first()
            && let Some(Some(name)) = name.try_as_str()
        {
            models.insert(name.to_string());
        }
        Ok(TreeNodeRecursion::Continue)
    })
}
