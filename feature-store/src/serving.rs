//! Online read: tiles → features at an instant. And its inverse, filling the online store from offline tiles.
//!
//! ```text
//!  request rows ──keys, T──▶ one range of tiles a level ┬─▶ OnlineStore.read ┬─▶ merge ──▶ finish ──▶ features
//!                                pointer of the view ────┘                    └─▶ moved? again
//! ```
//! A reader remembers which generation of a view is served, reads its tiles and, at once, the pointer again: what it
//! remembered was right, or it reads anew.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
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
use featurectl_core::tile::{finish, tiles_of, wanted};
use featurectl_core::{Error, ErrorKind, FeatureView, Micros, OnlineStore, Position, Result, Tile, TileKey, TileRange};
use futures::StreamExt;

/// Version of a view's tiles in the online store; the first bytes of every partition.
pub type Generation = [u8; 8];

/// Who writes the pointer.
const WRITER: &str = "batch";
/// The one tile that says which generation of a view is served.
const POINTER: &[u8] = b"pointer\0";
/// How often a view is read again because its pointer was moved in the meantime.
const READS_MAX: usize = 10;

/// What is served of a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Whose tiles are read.
    pub generation: Generation,
    /// The version of the offline table that is in the store whole; later ones may be there in part.
    pub version: i64,
    /// The only writer of its tiles, if there is only one.
    pub writer: Option<String>,
    position: Position,
}

/// What is served of `view`.
pub async fn served(store: &dyn OnlineStore, view: &str) -> Result<Option<Served>> {
    let found = store.read(&[pointer_range(view)], Micros::MIN).await?;
    found.into_iter().flatten().next().map(|tile| parse(view, &tile)).transpose()
}

/// What a pointer says: 8 bytes of the generation, 8 of the version, and the name of the only writer.
fn parse(view: &str, tile: &Tile) -> Result<Served> {
    let damaged = || Error::data(format!("the online store's pointer of `{view}` is damaged"));
    let (generation, rest) = tile.partial.split_first_chunk().ok_or_else(damaged)?;
    // A pointer of before there were versions has none.
    let (version, writer) = match rest {
        [] => (-1, &[][..]),
        _ => rest.split_first_chunk().map(|(v, w)| (i64::from_le_bytes(*v), w)).ok_or_else(damaged)?,
    };
    let writer = String::from_utf8(writer.to_vec()).map_err(|_| damaged())?;
    let writer = Some(writer).filter(|w| !w.is_empty());
    Ok(Served { generation: *generation, version, writer, position: tile.position })
}

/// Serves `generation` of `view` from now on, which has all of `version` of the offline table, and removes the tiles of
/// the generation before. `writer`: the only one of its tiles, if there is only one.
pub async fn serve(
    store: &dyn OnlineStore,
    view: &str,
    generation: Generation,
    version: i64,
    writer: Option<&str>,
) -> Result<()> {
    let before = served(store, view).await?;
    if before.as_ref().is_some_and(|s| (s.generation, s.version) == (generation, version)) {
        return Ok(());
    }
    let next = before.as_ref().map_or(1, |s| s.position.low() + 1);
    let key = TileKey { partition: pointer(view), length: 0, start: 0, writer: WRITER.into() };
    let partial = [&generation[..], &version.to_le_bytes(), writer.unwrap_or_default().as_bytes()].concat();
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

fn pointer_range(view: &str) -> TileRange {
    TileRange { partition: pointer(view), length: 0, start: 0, end: 1, writer: Some(WRITER.into()) }
}

/// Writes offline tiles (rows of [`tile_schema`](featurectl_core::tile::tile_schema) with their unit of work, in any
/// column order) under `generation`, which is served only after [`serve`]. Each unit is a writer of its own, whose tiles
/// are merged with those of the others when they are read, and has the same tiles whenever it is written. Returns how many.
pub async fn put_tiles(
    store: &dyn OnlineStore,
    view: &FeatureView,
    generation: Generation,
    batch: &RecordBatch,
) -> Result<usize> {
    let tiles = tiles_of(view, &generation, batch)?;
    let n = tiles.len();
    store.fill(tiles).await?;
    Ok(n)
}

/// Reads features from one store.
#[derive(Debug)]
pub struct OnlineReader {
    store: Arc<dyn OnlineStore>,
    /// What was served of each view when it was last read.
    known: Mutex<HashMap<String, Served>>,
}

impl OnlineReader {
    /// A reader that knows nothing yet.
    pub fn new(store: Arc<dyn OnlineStore>) -> Self {
        Self { store, known: Mutex::default() }
    }

    /// The features of `view` at each row's instant (exclusive, microseconds UTC; NULL: nothing is known).
    ///
    /// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for an instant before the newest event of a tile it would
    /// need, since a tile can't be cut; [`NotFound`](featurectl_core::ErrorKind::NotFound) if the view is not in the store.
    pub async fn read(&self, view: &FeatureView, keys: &[ArrayRef], at: &[Option<Micros>]) -> Result<Vec<ArrayRef>> {
        let now = at.iter().flatten().min().copied().unwrap_or(Micros::MIN);
        let known = self.with(|known| known.get(&view.name).cloned());
        let mut guess = match known {
            Some(known) => known,
            None => served(self.store.as_ref(), &view.name).await?.ok_or_else(|| absent(view))?,
        };
        for _ in 0..READS_MAX {
            let wanted = wanted(view, &guess.generation, guess.writer.as_deref(), keys, at)?;
            let ranges = std::iter::once(pointer_range(&view.name)).chain(wanted.iter().map(|w| w.range.clone()));
            let mut found = self.store.read(&ranges.collect::<Vec<_>>(), now).await?;
            let pointer = found.remove(0).into_iter().next().ok_or_else(|| absent(view))?;
            let served = parse(&view.name, &pointer)?;
            if served == guess {
                self.with(|known| known.insert(view.name.clone(), served));
                return finish(view, at, &wanted, found);
            }
            guess = served;
        }
        let text = format!("`{}` was materialized {READS_MAX} times while it was read: read again", view.name);
        Err(Error::new(ErrorKind::Unavailable, text))
    }

    fn with<T>(&self, f: impl FnOnce(&mut HashMap<String, Served>) -> T) -> T {
        f(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn absent(view: &FeatureView) -> Error {
    let name = &view.name;
    Error::not_found(format!("feature view `{name}` is not in the online store: MATERIALIZE FEATURE VIEW {name}"))
}

/// Plans online reads from one store.
#[derive(Debug)]
pub struct OnlinePlanner(Arc<OnlineReader>);

impl OnlinePlanner {
    /// Plans reads from `store`.
    pub fn new(store: Arc<dyn OnlineStore>) -> Self {
        Self(Arc::new(OnlineReader::new(store)))
    }
}

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
            reader: Arc::clone(&self.0),
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
    reader: Arc<OnlineReader>,
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
        let features = self.reader.read(&self.view, &keys, &at).await?;
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
