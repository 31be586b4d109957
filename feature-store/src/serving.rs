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
use std::time::Instant;

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
use featurectl_core::tile::{Wanted, finish, tiles_of, wanted};
use featurectl_core::{Error, ErrorKind, FeatureView, Micros, OnlineStore, Position, Result, Tile, TileRange};
use futures::{StreamExt, join};

use crate::pointer::{Generation, PATIENCE, Served, Tables, parse, pointer_range};

/// How often a view is read again because its pointer was moved in the meantime.
const READS_MAX: usize = 10;

/// Writes offline tiles (rows of [`tile_schema`](featurectl_core::tile::tile_schema) with their unit of work, in any
/// column order) under `generation`, which is served only after [`serve`](crate::serve). Each unit is a writer of its own, whose tiles
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
    store: Arc<dyn Tables>,
    /// What was served of each view when it was last read.
    known: Mutex<HashMap<String, Known>>,
}

/// What is served of a view, and where its tiles are.
#[derive(Debug, Clone)]
struct Known {
    served: Served,
    /// `None`: where the pointer is.
    tiles: Option<Arc<dyn OnlineStore>>,
}

impl OnlineReader {
    /// A reader that knows nothing yet.
    pub fn new(store: Arc<dyn Tables>) -> Self {
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
            None => self.look(view).await?.0,
        };
        for _ in 0..READS_MAX {
            let Served { generation, writer, .. } = &guess.served;
            let wanted = wanted(view, generation, writer.as_deref(), keys, at)?;
            let began = Instant::now();
            match self.tiles(view, &guess, &wanted, now).await {
                Ok(((served, position), found)) => {
                    let is_guess = served == guess.served;
                    if is_guess && began.elapsed() < PATIENCE {
                        return finish(view, at, &wanted, found);
                    }
                    // The tiles may have been removed while they were read.
                    let (known, last) = self.look(view).await?;
                    if is_guess && last == position {
                        return finish(view, at, &wanted, found);
                    }
                    guess = known;
                }
                // What its tiles lay in may be gone.
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    let (known, _) = self.look(view).await?;
                    if known.served == guess.served {
                        return Err(e);
                    }
                    guess = known;
                }
                Err(e) => return Err(e),
            }
        }
        let text = format!("`{}` was materialized {READS_MAX} times while it was read: read again", view.name);
        Err(Error::new(ErrorKind::Unavailable, text))
    }

    /// What the pointer says, and the tiles of what it was thought to say.
    async fn tiles(
        &self,
        view: &FeatureView,
        guess: &Known,
        wanted: &[Wanted],
        now: Micros,
    ) -> Result<((Served, Position), Vec<Vec<Tile>>)> {
        let pointer = [pointer_range(&view.name)];
        let ranges = wanted.iter().map(|w| w.range.clone());
        let (pointer, found) = match &guess.tiles {
            None => {
                let ranges: Vec<TileRange> = pointer.into_iter().chain(ranges).collect();
                let mut found = self.store.read(&ranges, now).await?;
                (found.remove(0), found)
            }
            Some(tiles) => {
                let ranges: Vec<TileRange> = ranges.collect();
                let (pointer, found) = join!(self.store.read(&pointer, now), tiles.read(&ranges, now));
                (pointer?.remove(0), found?)
            }
        };
        Ok((said(view, &pointer)?, found))
    }

    /// What is served now.
    async fn look(&self, view: &FeatureView) -> Result<(Known, Position)> {
        let pointer = self.store.read(&[pointer_range(&view.name)], Micros::MIN).await?.remove(0);
        let (served, position) = said(view, &pointer)?;
        let tiles = served.table.as_deref().map(|name| self.store.table(name)).transpose()?;
        let known = Known { served, tiles };
        self.with(|all| all.insert(view.name.clone(), known.clone()));
        Ok((known, position))
    }

    fn with<T>(&self, f: impl FnOnce(&mut HashMap<String, Known>) -> T) -> T {
        f(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the pointer of a view says, and its position.
fn said(view: &FeatureView, pointer: &[Tile]) -> Result<(Served, Position)> {
    let said = pointer.first().map(|tile| parse(&view.name, tile)).transpose()?;
    said.flatten().ok_or_else(|| absent(view))
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
    pub fn new(store: Arc<dyn Tables>) -> Self {
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

/// Adds the features of a view to the rows of its input.
#[derive(Debug, Clone)]
pub struct OnlineReadExec {
    reader: Arc<OnlineReader>,
    view: Arc<FeatureView>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    time: Arc<dyn PhysicalExpr>,
    inclusive: bool,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl OnlineReadExec {
    /// The columns of an input, and the features of its rows.
    ///
    /// Errors: those of [`OnlineReader::read`].
    pub async fn read(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let column = |e: &Arc<dyn PhysicalExpr>| Ok::<_, Error>(e.evaluate(batch)?.into_array(batch.num_rows())?);
        let keys = self.keys.iter().map(column).collect::<Result<Vec<_>>>()?;
        let time = to_micros(&column(&self.time)?)?;
        let at: Vec<_> = time.iter().map(|t| t.map(|t| t.saturating_add(i64::from(self.inclusive)))).collect();
        let features = self.reader.read(&self.view, &keys, &at).await?;
        Ok(batch.columns().iter().cloned().chain(features).collect())
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
            async move { Ok(RecordBatch::try_new(exec.schema(), exec.read(&batch?).await?)?) }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }
}
