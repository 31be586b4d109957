//! Parquet files as the end of a plan: every partition writes files of its own and says what it wrote.
//!
//! ```text
//!  partition 0 ──▶ folder/[day=2013-01-01/]part-<prefix>-0-<attempt>-0.parquet ─┐
//!  partition 1 ──▶ …                                                           ├──▶ rows: path, partition, rows, bytes,
//!  …                                                                           ┘    stats ──▶ the driver commits them
//! ```
//! Only what a successful attempt wrote is ever named in a row, so files of failed attempts are in no result: they are
//! what `featurectl vacuum` removes. Files go to the object store that the session has for the folder.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, StructArray, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::json::LineDelimitedWriter;
use arrow::row::{OwnedRow, RowConverter, SortField};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, DFSchemaRef, internal_err, plan_err};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Accumulator, Expr, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
};
use datafusion::object_store::buffered::BufWriter;
use datafusion::object_store::path::Path;
use datafusion::object_store::{ObjectStore, ObjectStoreExt};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use datafusion::parquet::arrow::async_writer::AsyncArrowWriter;
use datafusion::parquet::basic::Compression;
use datafusion::parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use datafusion::parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{Distribution, EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions, apply_expression_roots,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, InputDistributionRequirements, PlanProperties,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use futures::{StreamExt, stream};

use crate::Error;

/// Columns past these get no statistics, as is usual for Delta tables.
const STATISTICS_COLUMNS: usize = 32;
/// What the partition folder of NULL is called, as in Hive.
const NULL_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

/// `options` for columns of `schema`, where they say nothing else: numbers and times get no dictionary, which costs much
/// time and rarely saves room, and integers are written as differences of few bits, if files are not `many`: for that, each
/// column of each open file would have a MiB of work space.
pub fn tuned(mut options: TableParquetOptions, schema: &Schema, many: bool) -> TableParquetOptions {
    for field in schema.fields() {
        let float = field.data_type().is_floating();
        if float || field.data_type().is_integer() || field.data_type().is_temporal() {
            let column = options.column_specific_options.entry(field.name().clone()).or_default();
            column.dictionary_enabled = Some(false);
            column.encoding = (!float && !many).then(|| "delta_binary_packed".into());
        }
    }
    options.global.max_row_group_size = row_group_rows(schema);
    options
}

/// Rows of a row group, which a writer holds in memory up to three times: those of about 16 MiB, but neither so few that
/// readers lose time between groups nor more than is usual.
fn row_group_rows(schema: &Schema) -> usize {
    /// What a value of no fixed width is taken to be.
    const BYTES: usize = 32;
    let bytes: usize = schema.fields().iter().map(|f| f.data_type().primitive_width().unwrap_or(BYTES)).sum();
    ((16 << 20) / bytes.max(1)).clamp(1 << 15, 1 << 20)
}

/// Where the files of a plan go, and how they are written.
#[derive(Debug, Clone)]
pub struct Sink {
    /// The folder: a URL, or an absolute path.
    pub folder: String,
    /// A part of every file's name, which no other run uses.
    pub prefix: String,
    /// Columns that name folders (`day=2013-01-01/`) instead of being in the files.
    pub partition_by: Vec<String>,
    /// Whether all rows go to one file.
    pub single: bool,
    /// How files are written.
    pub options: TableParquetOptions,
}

/// One written file, as the rows of a [`SinkNode`] say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    /// Its path below the folder.
    pub path: String,
    /// Its partition columns and values as a JSON object; NULLs are missing.
    pub partition: String,
    /// Its rows.
    pub rows: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was written, milliseconds since 1970 UTC, as its store says.
    pub written_ms: i64,
    /// Statistics as a JSON object in the form of a Delta log: `numRecords`, `minValues`, `maxValues`, `nullCount`.
    pub stats: String,
}

impl WrittenFile {
    /// The files that the rows of a sink name.
    ///
    /// Errors: [`Internal`](crate::ErrorKind::Internal) if the rows are not those of a sink.
    pub fn from_rows(batches: &[RecordBatch]) -> crate::Result<Vec<Self>> {
        let mut files = Vec::new();
        for batch in batches {
            if batch.schema().fields() != output_schema().fields() {
                return Err(Error::internal("these are not the rows of a sink"));
            }
            let text = |column: usize, row: usize| batch.column(column).as_string::<i32>().value(row).to_string();
            let number = |column: usize, row: usize| {
                batch.column(column).as_primitive::<arrow::datatypes::Int64Type>().value(row) as u64
            };
            files.extend((0..batch.num_rows()).map(|row| Self {
                path: text(0, row),
                partition: text(1, row),
                rows: number(2, row),
                bytes: number(3, row),
                written_ms: number(4, row) as i64,
                stats: text(5, row),
            }));
        }
        Ok(files)
    }
}

fn output_schema() -> SchemaRef {
    let field = |name: &str, data_type| Field::new(name, data_type, false);
    Arc::new(Schema::new(vec![
        field("path", DataType::Utf8),
        field("partition", DataType::Utf8),
        field("rows", DataType::Int64),
        field("bytes", DataType::Int64),
        field("written_ms", DataType::Int64),
        field("stats", DataType::Utf8),
    ]))
}

/// A plan's rows into files; its own rows are one [`WrittenFile`] each.
#[derive(Debug, Clone)]
pub struct SinkNode {
    sink: Arc<Sink>,
    input: LogicalPlan,
    schema: DFSchemaRef,
}

impl SinkNode {
    /// The plan that writes the rows of `input`.
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid) for a partition column that is not there or is the only one.
    pub fn plan(input: LogicalPlan, sink: Sink) -> crate::Result<LogicalPlan> {
        partition_columns(input.schema().as_arrow(), &sink.partition_by)?;
        let schema = Arc::new(DFSchema::try_from(output_schema())?);
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(Self { sink: Arc::new(sink), input, schema }) }))
    }

    fn identity(&self) -> (&str, &str, &LogicalPlan) {
        (&self.sink.folder, &self.sink.prefix, &self.input)
    }
}

/// The places of the partition columns, and of the others.
fn partition_columns(schema: &Schema, names: &[String]) -> crate::Result<(Vec<usize>, Vec<usize>)> {
    let by = names.iter().map(|name| {
        schema.index_of(name).map_err(|_| Error::invalid(format!("PARTITIONED BY `{name}`: there is no such column")))
    });
    let by = by.collect::<crate::Result<Vec<_>>>()?;
    let kept: Vec<_> = (0..schema.fields().len()).filter(|i| !by.contains(i)).collect();
    if kept.is_empty() && !by.is_empty() {
        return Err(Error::invalid("PARTITIONED BY names every column: one must be left for the files"));
    }
    Ok((by, kept))
}

impl PartialEq for SinkNode {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for SinkNode {}

impl PartialOrd for SinkNode {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.identity().partial_cmp(&other.identity())
    }
}

impl Hash for SinkNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl UserDefinedLogicalNodeCore for SinkNode {
    fn name(&self) -> &str {
        "Sink"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sink: {}", self.sink.folder)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        match inputs.pop() {
            Some(input) => Ok(Self { input, ..self.clone() }),
            None => plan_err!("a sink has one input"),
        }
    }

    fn necessary_children_exprs(&self, _: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![(0..self.input.schema().fields().len()).collect()])
    }
}

/// Plans [`SinkNode`]s.
#[derive(Debug, Default)]
pub struct SinkPlanner;

#[async_trait]
impl ExtensionPlanner for SinkPlanner {
    async fn plan_extension(
        &self,
        _: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        physical: &[Arc<dyn ExecutionPlan>],
        _: &dyn Session,
        _: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<SinkNode>() else { return Ok(None) };
        let [input] = physical else { return internal_err!("a sink has one input") };
        Ok(Some(Arc::new(SinkExec::try_new(Arc::clone(&node.sink), Arc::clone(input))?)))
    }
}

/// `SinkExec`: each partition of its input becomes files, and a row a file.
#[derive(Debug)]
pub(crate) struct SinkExec {
    sink: Arc<Sink>,
    input: Arc<dyn ExecutionPlan>,
    /// Places of the partition columns, and of the columns in the files.
    columns: (Vec<usize>, Vec<usize>),
    writer: WriterProperties,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl SinkExec {
    pub(crate) fn try_new(sink: Arc<Sink>, input: Arc<dyn ExecutionPlan>) -> Result<Self> {
        let columns = partition_columns(&input.schema(), &sink.partition_by)?;
        // The writer puts the Arrow schema into the file itself.
        let mut options = sink.options.clone();
        options.global.skip_arrow_metadata = true;
        let writer = WriterPropertiesBuilder::try_from(&options)?.build();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(output_schema()),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(Self { sink, input, columns, writer, properties: Arc::new(properties), metrics })
    }

    pub(crate) fn sink(&self) -> &Sink {
        &self.sink
    }
}

impl DisplayAs for SinkExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SinkExec: folder={}", self.sink.folder)?;
        if !self.sink.partition_by.is_empty() {
            write!(f, ", partition_by=[{}]", self.sink.partition_by.join(", "))?;
        }
        Ok(())
    }
}

impl ExecutionPlan for SinkExec {
    fn name(&self) -> &str {
        "SinkExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    /// Rows of one folder come to one task: there are as many files as folders, not as many for each task.
    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        let schema = self.input.schema();
        let column = |i: &usize| Arc::new(Column::new(schema.field(*i).name(), *i)) as Arc<dyn PhysicalExpr>;
        let wanted = match (self.sink.single, self.columns.0.as_slice()) {
            (true, _) => Distribution::SinglePartition,
            (false, []) => Distribution::UnspecifiedDistribution,
            (false, by) => Distribution::KeyPartitioned(by.iter().map(column).collect()),
        };
        InputDistributionRequirements::new(vec![wanted])
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    /// Files have the rows in the order of the input.
    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots(std::iter::empty::<&Arc<dyn PhysicalExpr>>(), f)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) => Ok(Arc::new(Self::try_new(Arc::clone(&self.sink), input)?)),
            None => internal_err!("a sink has one input"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, Arc::clone(&context))?;
        let schema = self.input.schema();
        let field = |i: &usize| Arc::clone(&schema.fields()[*i]);
        let file_schema: Vec<FieldRef> = self.columns.1.iter().map(field).collect();
        let by: Vec<FieldRef> = self.columns.0.iter().map(field).collect();
        let url = ListingTableUrl::parse(&self.sink.folder)?;
        let task = context.task_id().unwrap_or_default();
        let attempt: String = task.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let writers = Writers {
            store: context.runtime_env().object_store(&url)?,
            folder: url.prefix().clone(),
            name: format!("part-{}-{partition}-{attempt}", self.sink.prefix),
            keys: RowConverter::new(by.iter().map(|f| SortField::new(f.data_type().clone())).collect())?,
            by,
            columns: self.columns.clone(),
            schema: Arc::new(Schema::new(file_schema)),
            properties: self.writer.clone(),
            open: vec![],
            known: HashMap::new(),
            memory: MemoryConsumer::new(format!("SinkExec[{partition}]")).register(context.memory_pool()),
        };
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let written = MetricBuilder::new(&self.metrics).counter("rows_written", partition);
        // An empty result is still a result: its first partition, or one that is to have a file, writes one without rows.
        let always = self.sink.single || (partition == 0 && self.sink.partition_by.is_empty());
        let stream = stream::once(async move {
            let files = writers.write(rows, always, &baseline).await?;
            written.add(files.iter().map(|f| f.rows as usize).sum());
            rows_of(&files)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(output_schema(), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

fn rows_of(files: &[WrittenFile]) -> Result<RecordBatch> {
    let text = |f: fn(&WrittenFile) -> &str| Arc::new(StringArray::from_iter_values(files.iter().map(f))) as ArrayRef;
    let number = |f: fn(&WrittenFile) -> i64| Arc::new(Int64Array::from_iter_values(files.iter().map(f))) as ArrayRef;
    let columns = vec![
        text(|f| &f.path),
        text(|f| &f.partition),
        number(|f| f.rows as i64),
        number(|f| f.bytes as i64),
        number(|f| f.written_ms),
        text(|f| &f.stats),
    ];
    Ok(RecordBatch::try_new(output_schema(), columns)?)
}

/// The open files of one partition of the input, one a value of the partition columns.
struct Writers {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    name: String,
    by: Vec<FieldRef>,
    columns: (Vec<usize>, Vec<usize>),
    schema: SchemaRef,
    properties: WriterProperties,
    keys: RowConverter,
    open: Vec<Open>,
    known: HashMap<OwnedRow, usize>,
    memory: MemoryReservation,
}

struct Open {
    path: String,
    partition: String,
    writer: AsyncArrowWriter<BufWriter>,
}

impl Writers {
    async fn write(
        mut self,
        mut rows: SendableRecordBatchStream,
        always: bool,
        baseline: &BaselineMetrics,
    ) -> Result<Vec<WrittenFile>> {
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            let _timer = baseline.elapsed_compute().timer();
            let by = batch.project(&self.columns.0)?;
            let kept = batch.project(&self.columns.1)?;
            if self.open.is_empty() {
                self.properties = uncompressed_where_useless(self.properties.clone(), &kept)?;
            }
            for (file, rows) in self.files_of(&by)? {
                let part = match rows {
                    Some(rows) => take_record_batch(&kept, &UInt32Array::from(rows))?,
                    None => kept.clone(),
                };
                self.open[file].writer.write(&part).await?;
            }
            self.account().await?;
        }
        if always && self.open.is_empty() {
            self.file(&RecordBatch::new_empty(Arc::new(Schema::new(self.by.clone()))))?;
        }
        let mut written = Vec::with_capacity(self.open.len());
        for Open { path, partition, writer } in std::mem::take(&mut self.open) {
            let metadata = writer.close().await?;
            let location = self.location(&path)?;
            let stored = self.store.head(&location).await?;
            let (bytes, written_ms) = (stored.size, stored.last_modified.timestamp_millis());
            let rows = metadata.file_metadata().num_rows() as u64;
            written.push(WrittenFile {
                path,
                partition,
                rows,
                bytes,
                written_ms,
                stats: statistics(&self.schema, &metadata)?,
            });
        }
        Ok(written)
    }

    /// Which rows go to which file; `None`: all.
    fn files_of(&mut self, by: &RecordBatch) -> Result<Vec<(usize, Option<Vec<u32>>)>> {
        if by.num_rows() == 0 {
            return Ok(vec![]);
        }
        if by.num_columns() == 0 {
            if self.open.is_empty() {
                self.file(by)?;
            }
            return Ok(vec![(0, None)]);
        }
        let keys = self.keys.convert_columns(by.columns())?;
        let mut rows: Vec<(usize, Vec<u32>)> = vec![];
        let mut at: HashMap<usize, usize> = HashMap::new();
        let mut last: Option<usize> = None;
        for row in 0..by.num_rows() {
            let slot = match last.filter(|_| row > 0 && keys.row(row) == keys.row(row - 1)) {
                Some(slot) => slot,
                None => {
                    let key = keys.row(row).owned();
                    let file = match self.known.get(&key) {
                        Some(file) => *file,
                        None => {
                            let file = self.file(&by.slice(row, 1))?;
                            self.known.insert(key, file);
                            file
                        }
                    };
                    *at.entry(file).or_insert_with(|| {
                        rows.push((file, vec![]));
                        rows.len() - 1
                    })
                }
            };
            rows[slot].1.push(row as u32);
            last = Some(slot);
        }
        if let [(file, _)] = rows.as_slice() {
            return Ok(vec![(*file, None)]);
        }
        Ok(rows.into_iter().map(|(file, rows)| (file, Some(rows))).collect())
    }

    /// Opens a file for the partition values in the first row of `by`.
    fn file(&mut self, by: &RecordBatch) -> Result<usize> {
        let mut path = String::new();
        for (field, column) in self.by.iter().zip(by.columns()) {
            let text = cast(column, &DataType::Utf8)?;
            let text = text.as_string::<i32>();
            let value = if text.is_empty() || text.is_null(0) { NULL_PARTITION } else { text.value(0) };
            path += &format!("{}={}/", escaped(field.name()), escaped(value));
        }
        path += &format!("{}-{}.parquet", self.name, self.open.len());
        let location = self.location(&path)?;
        let writer = BufWriter::new(Arc::clone(&self.store), location);
        let writer = AsyncArrowWriter::try_new(writer, Arc::clone(&self.schema), Some(self.properties.clone()))?;
        self.open.push(Open { path, partition: partition_json(by)?, writer });
        Ok(self.open.len() - 1)
    }

    /// Where a file is in its store; what may not stand in a name is escaped in `path` already.
    fn location(&self, path: &str) -> Result<Path> {
        let folder = self.folder.as_ref();
        Ok(Path::parse(if folder.is_empty() { path.to_string() } else { format!("{folder}/{path}") })?)
    }

    /// Accounts what the open row groups hold; where the pool gives no more, they are ended.
    async fn account(&mut self) -> Result<()> {
        let held = |open: &[Open]| open.iter().map(|o| o.writer.memory_size()).sum::<usize>();
        if self.memory.try_resize(held(&self.open)).is_ok() {
            return Ok(());
        }
        for open in &mut self.open {
            open.writer.flush().await?;
        }
        self.memory.try_resize(held(&self.open))
    }
}

/// The properties without Snappy for the columns of which it saves little, as the first rows have it: most computed
/// floats hardly become smaller, but take as long to compress as what does.
fn uncompressed_where_useless(properties: WriterProperties, rows: &RecordBatch) -> Result<WriterProperties> {
    /// Fewer rows say nothing.
    const ROWS: usize = 1024;
    /// What may be left of its bytes, at most.
    const LEFT: f64 = 0.8;
    if rows.num_rows() < ROWS {
        return Ok(properties);
    }
    let mut sample = ArrowWriter::try_new(std::io::sink(), rows.schema(), Some(properties.clone()))?;
    sample.write(rows)?;
    let written = sample.close()?;
    let mut lean = properties.into_builder();
    for column in written.row_groups().iter().flat_map(RowGroupMetaData::columns) {
        let left = column.compressed_size() as f64 / column.uncompressed_size() as f64;
        if column.compression() == Compression::SNAPPY && left > LEFT {
            lean = lean.set_column_compression(column.column_path().clone(), Compression::UNCOMPRESSED);
        }
    }
    Ok(lean.build())
}

/// What may not stand in a folder's name, by its percent code.
fn escaped(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:+ ".contains(c) || !c.is_ascii();
    let one = |c: char| if plain(c) { c.to_string() } else { format!("%{:02X}", c as u32) };
    text.chars().map(one).collect()
}

/// The first row as a JSON object of texts.
fn partition_json(by: &RecordBatch) -> Result<String> {
    if by.num_rows() == 0 || by.num_columns() == 0 {
        return Ok("{}".into());
    }
    let columns =
        by.columns().iter().map(|c| cast(&c.slice(0, 1), &DataType::Utf8)).collect::<std::result::Result<_, _>>()?;
    let fields: Vec<_> = by.schema().fields().iter().map(|f| Field::new(f.name(), DataType::Utf8, true)).collect();
    json(&RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// One row as a JSON object; NULLs are missing.
fn json(row: &RecordBatch) -> Result<String> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(row)?;
    writer.finish()?;
    let text = String::from_utf8(writer.into_inner()).unwrap_or_default();
    Ok(text.trim_end().to_string())
}

/// What a file's footer says of its columns, as a Delta log has it. Floats have no bounds, since a footer's leave NaN out.
fn statistics(schema: &SchemaRef, metadata: &ParquetMetaData) -> Result<String> {
    let parquet = metadata.file_metadata().schema_descr();
    let (mut low, mut high, mut nulls): (Named, Named, Named) = Default::default();
    for field in schema.fields().iter().take(STATISTICS_COLUMNS) {
        if field.data_type().is_nested() {
            continue;
        }
        let converter = StatisticsConverter::try_new(field.name(), schema, parquet)?;
        let Some(counts) = converter.row_group_null_counts(metadata.row_groups()).ok() else { continue };
        let known = counts.null_count() == 0;
        if known {
            let sum = counts.iter().flatten().sum::<u64>() as i64;
            nulls.push((
                Arc::new(Field::new(field.name(), DataType::Int64, false)),
                Arc::new(Int64Array::from(vec![sum])),
            ));
        }
        if !known || !bounded(field.data_type()) || !exact(&converter, metadata) {
            continue;
        }
        let (mins, maxes) =
            (converter.row_group_mins(metadata.row_groups())?, converter.row_group_maxes(metadata.row_groups())?);
        // A row group without bounds has NULLs only, or nothing is known of it.
        let of_nulls = |(group, count): (usize, Option<u64>)| {
            mins.is_valid(group) || count == Some(metadata.row_group(group).num_rows() as u64)
        };
        if !counts.iter().enumerate().all(of_nulls) {
            continue;
        }
        let (mut least, mut greatest) =
            (MinAccumulator::try_new(field.data_type())?, MaxAccumulator::try_new(field.data_type())?);
        least.update_batch(&[mins])?;
        greatest.update_batch(&[maxes])?;
        let (least, greatest) = (least.evaluate()?, greatest.evaluate()?);
        if !least.is_null() {
            low.push((Arc::clone(field), least.to_array()?));
            high.push((Arc::clone(field), greatest.to_array()?));
        }
    }
    let rows: ArrayRef = Arc::new(Int64Array::from(vec![metadata.file_metadata().num_rows()]));
    let mut columns: Named = vec![(Arc::new(Field::new("numRecords", DataType::Int64, false)), rows)];
    for (name, part) in [("minValues", low), ("maxValues", high), ("nullCount", nulls)] {
        if !part.is_empty() {
            let part = StructArray::from(part);
            columns.push((Arc::new(Field::new(name, part.data_type().clone(), false)), Arc::new(part)));
        }
    }
    let (fields, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    json(&RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

type Named = Vec<(FieldRef, ArrayRef)>;

fn bounded(data_type: &DataType) -> bool {
    use DataType as D;
    let signed = matches!(data_type, D::Int8 | D::Int16 | D::Int32 | D::Int64);
    signed || matches!(data_type, D::Utf8 | D::Date32 | D::Timestamp(TimeUnit::Microsecond, _))
}

/// Whether no bound was cut short.
fn exact(converter: &StatisticsConverter<'_>, metadata: &ParquetMetaData) -> bool {
    let Some(column) = converter.parquet_column_index() else { return false };
    metadata
        .row_groups()
        .iter()
        .all(|group| group.column(column).statistics().is_none_or(|s| s.min_is_exact() && s.max_is_exact()))
}
