//! What a physical plan must look like to be cut into tasks.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, PartitionMode};
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

/// The name of a leaf that every task would read whole, if there is one. Tasks get a slice of the partitions of files and
/// of rows in memory only.
pub(super) fn unsliceable(plan: &Arc<dyn ExecutionPlan>) -> Option<String> {
    let children = plan.children();
    if !children.is_empty() {
        return children.into_iter().find_map(unsliceable);
    }
    let source = plan.downcast_ref::<DataSourceExec>().map(|s| s.data_source());
    let sliced = source.is_some_and(|s| s.is::<FileScanConfig>() || s.is::<MemorySourceConfig>());
    (!sliced && !plan.is::<EmptyExec>() && !plan.is::<PlaceholderRowExec>()).then(|| plan.name().to_string())
}

/// Joins whose partitions share the rows of the left side, and give those without a match once all are done, have one
/// partition: in different tasks each would give them.
pub(super) fn gathered(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let keeps_left = |t: &JoinType| {
        use JoinType as J;
        matches!(t, J::Left | J::Full | J::LeftSemi | J::LeftAnti | J::LeftMark)
    };
    let done = plan.transform_up(|node| {
        let shared = match (node.downcast_ref::<NestedLoopJoinExec>(), node.downcast_ref::<HashJoinExec>()) {
            (Some(join), _) => keeps_left(join.join_type()),
            (_, Some(join)) => *join.partition_mode() == PartitionMode::CollectLeft && keeps_left(join.join_type()),
            _ => false,
        };
        let children = node.children();
        match children.as_slice() {
            [left, right] if shared && right.output_partitioning().partition_count() > 1 => {
                let right = Arc::new(CoalescePartitionsExec::new(Arc::clone(right))) as _;
                let children = vec![Arc::clone(left), right];
                Ok(Transformed::yes(replace_children_if_necessary(node, children)?))
            }
            _ => Ok(Transformed::no(node)),
        }
    })?;
    Ok(done.data)
}
