//! What a plan reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::asof::AsOfNode;
use crate::definition::FeatureView;

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
                found.tables.insert(scan.table_name.table().to_string(), source_as_provider(&scan.source)?);
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

fn note_models(e: &Expr, models: &mut BTreeSet<String>) -> Result<TreeNodeRecursion> {
    e.apply(|e| {
        if let Expr::ScalarFunction(f) = e
            && f.name() == "predict"
            && let Some(Expr::Literal(name, _)) = f.args.first()
            && let Some(Some(name)) = name.try_as_str()
        {
            models.insert(name.to_string());
        }
        Ok(TreeNodeRecursion::Continue)
    })
}
