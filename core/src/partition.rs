//! One partition of an operator's inputs: whole in memory, or where memory is short split by key into files.
//!
//! ```text
//!  inputs ──▶ memory ──────────────────────────────▶ evaluate ──▶ batches
//!                │ the pool gives no more
//!                ▼
//!             16 files an input, by a hash of the key ──one hash after the other──▶ evaluate ──▶ batches
//! ```
//! All rows of a key are in one part, so each part is evaluated by itself (the partitioning of a Grace hash join:
//! Kitsuregawa, Tanaka, Moto-oka, 1983). What does not fit then is the rows of a sixteenth of the keys.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, SpillFile, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::SpillManager;
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, RecordOutput, SpillMetrics, Time,
};
use datafusion::physical_plan::spill::get_record_batch_memory_size;
use futures::{Stream, StreamExt, TryStreamExt, stream};

use crate::asof::Watch;

/// Parts that a partition is split into when memory is short.
const PARTS: usize = 16;
/// Rows that are gathered for a file before they are written.
const WRITE_ROWS: usize = 32_768;
/// Bytes of work space for a row, beside the row itself: its group, time and place, twice.
const WORK_BYTES: usize = 32;

/// The rows of one input.
pub(crate) type Rows = Vec<RecordBatch>;
type Files = Vec<Arc<dyn SpillFile>>;

/// An input, with what its rows are split by.
pub(crate) struct Input {
    pub(crate) stream: SendableRecordBatchStream,
    pub(crate) keys: Vec<Arc<dyn PhysicalExpr>>,
    /// Sees its rows before the next input is read.
    pub(crate) watch: Option<Watch>,
}

/// The values of `exprs` over a batch.
pub(crate) fn columns(exprs: &[Arc<dyn PhysicalExpr>], batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    exprs.iter().map(|e| e.evaluate(batch)?.into_array(batch.num_rows())).collect()
}

/// Gathers the inputs and gives them to `evaluate`, part by part; its batches are cut to the session's batch size.
pub(crate) fn evaluate_by_key<I, E>(
    name: &str,
    partition: usize,
    context: &TaskContext,
    metrics: &ExecutionPlanMetricsSet,
    inputs: Vec<Input>,
    evaluate: E,
) -> impl Stream<Item = Result<RecordBatch>> + Send + use<I, E>
where
    I: Iterator<Item = Result<RecordBatch>> + Send + 'static,
    E: Fn(Vec<Rows>) -> Result<I> + Send + 'static,
{
    let consumer = MemoryConsumer::new(format!("{name}[{partition}]")).with_can_spill(true);
    let reservation = consumer.register(context.memory_pool());
    let spills = SpillMetrics::new(metrics, partition);
    let manager = |input: &Input| SpillManager::new(context.runtime_env(), spills.clone(), input.stream.schema());
    let managers = inputs.iter().map(manager).collect();
    let baseline = BaselineMetrics::new(metrics, partition);
    let size = context.session_config().batch_size().max(1);
    let time = |name| MetricBuilder::new(metrics).subset_time(name, partition);
    let times = [time("gather_time"), time("group_time"), time("evaluate_time")];
    let inputs = Some((inputs, managers));
    let work = Work { parts: None, inputs, current: None, reservation, evaluate, baseline, times };
    stream::try_unfold(work, Work::next)
        .map_ok(move |batch| {
            let rows = batch.num_rows();
            let cut = (0..rows).step_by(size).map(move |at| Ok(batch.slice(at, size.min(rows - at))));
            stream::iter(cut.collect::<Vec<_>>())
        })
        .try_flatten()
}

struct Work<E, I> {
    inputs: Option<(Vec<Input>, Vec<SpillManager>)>,
    parts: Option<VecDeque<Vec<Stored>>>,
    current: Option<I>,
    reservation: MemoryReservation,
    evaluate: E,
    baseline: BaselineMetrics,
    /// Of gathering the inputs, of grouping their rows, and of evaluating the groups.
    times: [Time; 3],
}

impl<I: Iterator<Item = Result<RecordBatch>>, E: Fn(Vec<Rows>) -> Result<I>> Work<E, I> {
    async fn next(mut self) -> Result<Option<(RecordBatch, Self)>> {
        if let Some((inputs, managers)) = self.inputs.take() {
            let _timer = self.times[0].timer();
            self.parts = Some(collect(inputs, managers, &self.reservation).await?);
        }
        loop {
            let timer = (self.baseline.elapsed_compute().timer(), self.times[2].timer());
            if let Some(batch) = self.current.as_mut().and_then(Iterator::next) {
                let batch = batch?.record_output(&self.baseline);
                drop(timer);
                return Ok(Some((batch, self)));
            }
            drop(timer);
            if self.current.take().is_some() {
                self.reservation.free();
            }
            let Some(part) = self.parts.as_mut().and_then(VecDeque::pop_front) else { return Ok(None) };
            let mut rows = Vec::with_capacity(part.len());
            for stored in part {
                rows.push(stored.load(&self.reservation).await?);
            }
            let timer = (self.baseline.elapsed_compute().timer(), self.times[1].timer());
            let batches = (self.evaluate)(rows)?;
            drop(timer);
            self.current = Some(batches);
        }
    }
}

async fn collect(
    inputs: Vec<Input>,
    managers: Vec<SpillManager>,
    reservation: &MemoryReservation,
) -> Result<VecDeque<Vec<Stored>>> {
    let by_key = inputs.iter().all(|i| !i.keys.is_empty());
    let mut buffers: Vec<Buffer> = Vec::with_capacity(inputs.len());
    let mut streams = Vec::with_capacity(inputs.len());
    for (input, manager) in inputs.into_iter().zip(managers) {
        buffers.push(Buffer { keys: input.keys, manager, held: vec![], split: None });
        streams.push((input.stream, input.watch));
    }
    for (number, (mut stream, mut watch)) in streams.into_iter().enumerate() {
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            watch.as_mut().map_or(Ok(()), |w| w.observe(&batch))?;
            if buffers[0].split.is_none()
                && let Err(e) = reservation.try_grow(cost(&batch))
            {
                if !by_key {
                    return Err(e);
                }
                buffers.iter_mut().try_for_each(Buffer::spill)?;
                reservation.free();
            }
            buffers[number].push(batch)?;
        }
        if let Some(watch) = watch {
            watch.done().await?;
        }
    }
    let mut parts: Vec<Vec<Stored>> = Vec::new();
    for buffer in buffers {
        for (number, stored) in buffer.finish()?.into_iter().enumerate() {
            if parts.len() == number {
                parts.push(Vec::new());
            }
            parts[number].push(stored);
        }
    }
    Ok(parts.into())
}

fn cost(batch: &RecordBatch) -> usize {
    get_record_batch_memory_size(batch) + batch.num_rows() * WORK_BYTES
}

/// The rows of one input so far.
struct Buffer {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    manager: SpillManager,
    held: Rows,
    /// Once memory was short, the parts, each with the rows that are not written yet.
    split: Option<Vec<(Rows, Files)>>,
}

impl Buffer {
    fn push(&mut self, batch: RecordBatch) -> Result<()> {
        let Some(parts) = &mut self.split else {
            self.held.push(batch);
            return Ok(());
        };
        let mut hashes = vec![0; batch.num_rows()];
        create_hashes(&columns(&self.keys, &batch)?, &RandomState::with_seed(0x5EED), &mut hashes)?;
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); PARTS];
        for (row, hash) in hashes.iter().enumerate() {
            rows[(hash >> 32) as usize % PARTS].push(row as u32);
        }
        for ((held, files), rows) in parts.iter_mut().zip(rows) {
            if !rows.is_empty() {
                held.push(take_record_batch(&batch, &UInt32Array::from(rows))?);
            }
            if held.iter().map(RecordBatch::num_rows).sum::<usize>() >= WRITE_ROWS {
                let whole = concat_batches(&batch.schema(), held.iter())?;
                files.extend(self.manager.spill_record_batch_and_finish(&[whole], "rows by key")?);
                held.clear();
            }
        }
        Ok(())
    }

    fn spill(&mut self) -> Result<()> {
        self.split = Some((0..PARTS).map(|_| (vec![], vec![])).collect());
        std::mem::take(&mut self.held).into_iter().try_for_each(|batch| self.push(batch))
    }

    fn finish(self) -> Result<Vec<Stored>> {
        let Some(parts) = self.split else { return Ok(vec![Stored { held: self.held, files: None }]) };
        let one = |(held, files)| Ok(Stored { held, files: Some((files, self.manager.clone())) });
        parts.into_iter().map(one).collect()
    }
}

/// The rows of one input and one part.
struct Stored {
    held: Rows,
    files: Option<(Files, SpillManager)>,
}

impl Stored {
    async fn load(mut self, reservation: &MemoryReservation) -> Result<Rows> {
        let Some((files, manager)) = self.files else { return Ok(self.held) };
        reservation.try_grow(self.held.iter().map(cost).sum())?;
        for file in files {
            let mut stream = manager.read_spill_as_stream(file, None)?;
            while let Some(batch) = stream.next().await {
                let batch = batch?;
                reservation.try_grow(cost(&batch))?;
                self.held.push(batch);
            }
        }
        Ok(self.held)
    }
}
