//! Online read: tiles → features at an instant. And its inverse, filling the online store from offline tiles.
//!
//! ```text
//!  request rows ──keys, T──▶ one range of tiles a level ──▶ OnlineStore.read ──▶ merge ──▶ finish ──▶ features
//! ```

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMicrosecondType};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::internal_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions, apply_expression_roots,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PhysicalExpr, PlanProperties,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use featurectl_core::asof::{OnlineNode, to_micros};
use featurectl_core::tile::{Program, feature_window, level_of};
use featurectl_core::{
    Error, FeatureView, Micros, OnlineStore, Position, Result, Tile, TileKey, TileRange, Window, ordered,
};
use futures::StreamExt;

use crate::offline::UNIT_COLUMN;

/// Version of a view's tiles in the online store; the first bytes of every partition.
pub type Generation = [u8; 8];

/// Who writes the pointer.
const WRITER: &str = "batch";
/// The one tile that says which generation of a view is served.
const POINTER: &[u8] = b"pointer\0";

/// What is served of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Whose tiles are read.
    pub generation: Generation,
    /// The version of the offline table that is in the store whole; later ones may be there in part.
    pub version: i64,
    position: Position,
}

/// What is served of `view`.
pub async fn served(store: &dyn OnlineStore, view: &str) -> Result<Option<Served>> {
    let range = TileRange { partition: pointer(view), length: 0, start: 0, end: 1 };
    let found = store.read(&[range], Micros::MIN).await?;
    let Some(tile) = found.into_iter().flatten().next() else { return Ok(None) };
    let damaged = || Error::data(format!("the online store's pointer of `{view}` is damaged"));
    let (generation, version) = tile.partial.split_at_checked(8).ok_or_else(damaged)?;
    Ok(Some(Served {
        generation: generation.try_into().map_err(|_| damaged())?,
        version: i64::from_le_bytes(version.try_into().map_err(|_| damaged())?),
        position: tile.position,
    }))
}

/// Serves `generation` of `view` from now on, which has all of `version` of the offline table, and removes the tiles of
/// the generation before.
pub async fn serve(store: &dyn OnlineStore, view: &str, generation: Generation, version: i64) -> Result<()> {
    let before = served(store, view).await?;
    if before.is_some_and(|s| (s.generation, s.version) == (generation, version)) {
        return Ok(());
    }
    let next = before.map_or(1, |s| u64::from_be_bytes(std::array::from_fn(|i| s.position.0[16 + i])) + 1);
    let key = TileKey { partition: pointer(view), length: 0, start: 0, writer: WRITER.into() };
    let partial = [&generation[..], &version.to_le_bytes()].concat();
    store.put(vec![Tile { key, position: next.into(), last_event: 0, expires_at: None, partial }]).await?;
    match before.filter(|s| s.generation != generation) {
        Some(old) => store.remove(&old.generation).await.map(|_| ()),
        None => Ok(()),
    }
}

/// Takes a view out of the online store.
pub async fn forget(store: &dyn OnlineStore, view: &str) -> Result<usize> {
    let served = served(store, view).await?;
    let mut removed = store.remove(&pointer(view)).await?;
    if let Some(served) = served {
        removed += store.remove(&served.generation).await?;
    }
    Ok(removed)
}

fn pointer(view: &str) -> Vec<u8> {
    [POINTER, view.as_bytes(), &[0]].concat()
}

/// Writes offline tiles (rows of [`tile_schema`](featurectl_core::tile::tile_schema) with their unit of work, in any
/// column order) under `generation`, which is served only after [`serve`]. Each unit is a writer of its own, whose tiles
/// are merged with those of the others when they are read. Returns how many.
pub async fn put_tiles(
    store: &dyn OnlineStore,
    view: &FeatureView,
    generation: Generation,
    batch: &RecordBatch,
) -> Result<usize> {
    let column = |name: &str| {
        batch
            .column_by_name(name)
            .ok_or_else(|| Error::data(format!("the offline tiles of `{}` have no `{name}`", view.name)))
    };
    let keys = view.entity.iter().map(|f| column(f.name()).cloned()).collect::<Result<Vec<_>>>()?;
    let partitions = partitions(generation, &keys, batch.num_rows())?;
    let lengths = column("tile_us")?.as_primitive::<Int64Type>();
    let starts = column("tile_start")?.as_primitive::<TimestampMicrosecondType>();
    let last = to_micros(column("last_event")?)?;
    let events = column("events")?.as_primitive::<Int64Type>();
    let units = arrow::compute::cast(column(UNIT_COLUMN)?, &arrow::datatypes::DataType::Utf8)?;
    let units = units.as_string::<i32>();
    let partial = arrow::compute::cast(column("partial")?, &arrow::datatypes::DataType::Binary)?;
    let partial = partial.as_binary::<i32>();
    let mut tiles = Vec::with_capacity(batch.num_rows());
    for (row, partition) in partitions.into_iter().enumerate() {
        let Some(partition) = partition else { continue };
        let length = lengths.value(row);
        let start = if starts.is_null(row) { Micros::MIN } else { starts.value(row) };
        tiles.push(Tile {
            key: TileKey { partition, length, start, writer: units.value(row).into() },
            position: Position::from(events.value(row) as u64),
            last_event: last.value(row),
            expires_at: expiry(view, start, length, last.value(row)),
            partial: partial.value(row).to_vec(),
        });
    }
    let n = tiles.len();
    store.put(tiles).await?;
    Ok(n)
}

/// A tile is forgotten `ttl` after its end, a latest row `ttl` after its time. A lifetime window never forgets, so
/// neither does its tile.
fn expiry(view: &FeatureView, start: Micros, length: Micros, last: Micros) -> Option<Micros> {
    let end = match (length, view.is_latest()) {
        (Micros::MAX, true) => last,
        (Micros::MAX, false) => return None,
        _ => start.saturating_add(length),
    };
    view.ttl.map(|ttl| end.saturating_add(ttl).saturating_add(1))
}

/// Generation and key as bytes, for each row; `None` where a key is NULL.
fn partitions(generation: Generation, keys: &[ArrayRef], rows: usize) -> Result<Vec<Option<Vec<u8>>>> {
    let encoded = keys.iter().map(ordered::encode).collect::<Result<Vec<_>>>()?;
    let one = |row: usize| {
        let mut partition = generation.to_vec();
        for column in &encoded {
            let value = column[row].as_deref()?;
            partition.extend((value.len() as u32).to_be_bytes());
            partition.extend(value);
        }
        Some(partition)
    };
    Ok((0..rows).map(one).collect())
}

/// The features of `view` at each row's instant (exclusive, microseconds UTC; NULL: nothing is known).
///
/// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for an instant before the newest event of a tile it would
/// need, since a tile can't be cut.
pub async fn read_features(
    store: &dyn OnlineStore,
    view: &FeatureView,
    keys: &[ArrayRef],
    at: &[Option<Micros>],
) -> Result<Vec<ArrayRef>> {
    let program = Program::new(view);
    let generation = served(store, &view.name).await?.map(|s| s.generation).ok_or_else(|| {
        Error::not_found(format!(
            "feature view `{0}` is not in the online store: MATERIALIZE FEATURE VIEW {0}",
            view.name
        ))
    })?;
    let partitions = partitions(generation, keys, at.len())?;
    let reach = reach(view);
    let (mut ranges, mut owners) = (Vec::new(), Vec::new());
    for (row, (partition, at)) in partitions.into_iter().zip(at).enumerate() {
        let (Some(partition), Some(at)) = (partition, at) else { continue };
        for (level, (length, longest)) in reach.iter().enumerate() {
            ranges.push(TileRange {
                partition: partition.clone(),
                length: *length,
                start: longest.start(*at),
                end: *at,
            });
            owners.push((row, level));
        }
    }
    let now = at.iter().flatten().min().copied().unwrap_or(Micros::MIN);
    let found = store.read(&ranges, now).await?;
    let mut tiles: Vec<Vec<Vec<Tile>>> = vec![vec![vec![]; reach.len()]; at.len()];
    for ((row, level), found) in owners.into_iter().zip(found) {
        if let (Some(at), Some(late)) = (at[row], found.iter().find(|t| Some(t.last_event) >= at[row])) {
            return Err(too_early(view, at, late.last_event));
        }
        tiles[row][level] = found;
    }
    finish(view, &program, &tiles, at)
}

/// For each level of the view its longest window.
fn reach(view: &FeatureView) -> Vec<(Micros, Window)> {
    let mut reach: Vec<(Micros, Window)> = Vec::new();
    for feature in &view.features {
        let (window, _) = feature_window(view, feature);
        let length = level_of(window);
        match reach.iter_mut().find(|(l, _)| *l == length) {
            Some((_, longest)) if longest.length < window.length => *longest = window,
            Some(_) => {}
            None => reach.push((length, window)),
        }
    }
    reach.sort_unstable_by_key(|(length, _)| *length);
    reach
}

fn too_early(view: &FeatureView, at: Micros, last: Micros) -> Error {
    let show = |t: Micros| chrono::DateTime::from_timestamp_micros(t).map_or(t.to_string(), |t| t.to_rfc3339());
    Error::invalid(format!(
        "the online store knows this key of `{}` up to {}, and can't look back to {}: ask for a later time, or join the view in SQL",
        view.name,
        show(last),
        show(at)
    ))
}

fn finish(
    view: &FeatureView,
    program: &Program,
    tiles: &[Vec<Vec<Tile>>],
    at: &[Option<Micros>],
) -> Result<Vec<ArrayRef>> {
    if view.is_latest() {
        return finish_latest(view, program, tiles, at);
    }
    let instants: Vec<_> = at.iter().map(|t| t.unwrap_or_default()).collect();
    let feature = |feature| {
        let (window, aggregate) = feature_window(view, feature);
        let groups = groups(program, tiles, at, window, aggregate)?;
        program.aggregates[aggregate].function.merge_finish(&groups, &instants)
    };
    view.features.iter().map(feature).collect()
}

/// The encoded partials of one aggregate inside one window, for each row.
fn groups<'a>(
    program: &Program,
    tiles: &'a [Vec<Vec<Tile>>],
    at: &[Option<Micros>],
    window: Window,
    aggregate: usize,
) -> Result<Vec<Vec<&'a [u8]>>> {
    let wanted = level_of(window);
    let found = program.levels.iter().enumerate().find(|(_, l)| l.length == wanted);
    let Some((index, level)) = found else { return Err(Error::internal("a window without a level")) };
    let Some(part) = level.aggregates.iter().position(|a| *a == aggregate) else {
        return Err(Error::internal("an aggregate without a place in its level"));
    };
    let mut groups = Vec::with_capacity(tiles.len());
    for (row, at) in tiles.iter().zip(at) {
        let (start, end) = at.map_or((0, 0), |at| (window.start(at), window.end(at)));
        let inside = row[index].iter().filter(|t| t.key.start >= start && t.key.start < end);
        groups.push(inside.map(|t| Ok(program.partials(level, &t.partial)?[part])).collect::<Result<_>>()?);
    }
    Ok(groups)
}

fn finish_latest(
    view: &FeatureView,
    program: &Program,
    tiles: &[Vec<Vec<Tile>>],
    at: &[Option<Micros>],
) -> Result<Vec<ArrayRef>> {
    let alive = |row: &Vec<Vec<Tile>>, at: &Option<Micros>| {
        let newest = row.iter().flatten().map(|t| t.last_event).max();
        match (view.ttl, newest, at) {
            (Some(ttl), Some(newest), Some(at)) => newest >= at.saturating_sub(ttl),
            _ => true,
        }
    };
    let mut groups = groups(program, tiles, at, Window::LIFETIME, 0)?;
    for (group, (row, at)) in groups.iter_mut().zip(tiles.iter().zip(at)) {
        if !alive(row, at) {
            group.clear();
        }
    }
    let rows = program.aggregates[0].function.merge_finish(&groups, &vec![0; groups.len()])?;
    let first = view.first_input();
    let column = |f: &featurectl_core::Feature| match f.source {
        featurectl_core::FeatureSource::Latest { column } => Ok(Arc::clone(rows.as_struct().column(column - first))),
        featurectl_core::FeatureSource::Window { .. } => Err(Error::internal("a latest-row view with a window")),
    };
    view.features.iter().map(column).collect()
}

/// Plans online reads from one store.
#[derive(Debug)]
pub struct OnlinePlanner(pub Arc<dyn OnlineStore>);

#[async_trait]
impl ExtensionPlanner for OnlinePlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        logical: &[&LogicalPlan],
        physical: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
        let Some(online) = node.as_any().downcast_ref::<OnlineNode>() else { return Ok(None) };
        let ([input], [child]) = (logical, physical) else { return internal_err!("an online read has one input") };
        let expr = |e| planner.create_physical_expr(e, input.schema(), session, context);
        let schema: SchemaRef = Arc::new(node.schema().as_arrow().clone());
        Ok(Some(Arc::new(OnlineReadExec {
            store: Arc::clone(&self.0),
            view: Arc::clone(online.view()),
            keys: online.keys().iter().map(expr).collect::<DfResult<_>>()?,
            time: expr(online.time())?,
            inclusive: online.inclusive(),
            properties: Arc::new(properties(child, schema)),
            input: Arc::clone(child),
        })))
    }
}

fn properties(input: &Arc<dyn ExecutionPlan>, schema: SchemaRef) -> PlanProperties {
    let partitioning = input.output_partitioning().clone();
    PlanProperties::new(
        EquivalenceProperties::new(schema),
        partitioning,
        EmissionType::Incremental,
        Boundedness::Bounded,
    )
}

#[derive(Debug, Clone)]
struct OnlineReadExec {
    store: Arc<dyn OnlineStore>,
    view: Arc<FeatureView>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    time: Arc<dyn PhysicalExpr>,
    inclusive: bool,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl OnlineReadExec {
    async fn read(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let column = |e: &Arc<dyn PhysicalExpr>| Ok::<_, Error>(e.evaluate(&batch)?.into_array(batch.num_rows())?);
        let keys = self.keys.iter().map(column).collect::<Result<Vec<_>>>()?;
        let time = to_micros(&column(&self.time)?)?;
        let at: Vec<_> = time.iter().map(|t| t.map(|t| t.saturating_add(i64::from(self.inclusive)))).collect();
        let features = read_features(self.store.as_ref(), &self.view, &keys, &at).await?;
        let columns = batch.columns().iter().cloned().chain(features).collect();
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }
}

impl DisplayAs for OnlineReadExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OnlineReadExec: view={}", self.view.name)
    }
}

impl ExecutionPlan for OnlineReadExec {
    fn name(&self) -> &str {
        "OnlineReadExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        apply_expression_roots(self.keys.iter().chain([&self.time]), f)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let Some(input) = children.pop() else { return internal_err!("an online read has one input") };
        let properties = Arc::new(properties(&input, self.schema()));
        Ok(Arc::new(Self { input, properties, ..self.as_ref().clone() }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let exec = self.clone();
        let stream = input.then(move |batch| {
            let exec = exec.clone();
            async move { Ok(exec.read(batch?).await?) }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }
}
