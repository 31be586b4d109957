//! One partition of an operator's input: how it must be sorted, and how it is taken into memory.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{SortOptions, concat_batches};
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_expr::{LexOrdering, OrderingRequirements, PhysicalExpr, PhysicalSortExpr};
use futures::StreamExt;

/// Ascending by `exprs`, NULLs first: the order in which every operator of this crate sweeps.
pub(crate) fn sorted_by(exprs: impl IntoIterator<Item = Arc<dyn PhysicalExpr>>) -> Option<OrderingRequirements> {
    let options = SortOptions { descending: false, nulls_first: true };
    LexOrdering::new(exprs.into_iter().map(|e| PhysicalSortExpr::new(e, options))).map(OrderingRequirements::from)
}

/// All rows of a partition in one batch, accounted to the memory pool.
pub(crate) async fn collect(
    mut input: SendableRecordBatchStream,
    reservation: &MemoryReservation,
) -> Result<RecordBatch> {
    let schema = input.schema();
    let mut batches = Vec::new();
    while let Some(batch) = input.next().await {
        let batch = batch?;
        reservation.try_grow(batch.get_array_memory_size())?;
        batches.push(batch);
    }
    Ok(concat_batches(&schema, &batches)?)
}
