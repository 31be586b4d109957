//! Operators of this crate as bytes, for the tasks of a cluster.
//!
//! ```text
//!  driver:  AsOfExec, TileExec, SinkExec ──encode──▶ bytes ──▶ scheduler, executors: decode ──▶ the same operator
//! ```
//! A feature view travels as its definition: functions by name with the arguments they were bound to, the query of its
//! events as a schema only, since the operators' inputs travel by themselves. All processes must be of one version, which
//! the bytes begin with.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{DFSchema, ScalarValue, internal_datafusion_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{EmptyRelation, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::generated::datafusion_common::TableParquetOptions;
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf;
use prost::{Message, Oneof};

use crate::aggregate::{Arg, Binding, Functions};
use crate::asof::{AsOfExec, MatchOp};
use crate::definition::{AggregateCall, Feature, FeatureSource, FeatureView, Window};
use crate::sink::SinkExec;
use crate::tile::TileExec;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The bytes of an operator of this crate without its inputs; `None` for any other.
///
/// Errors: DataFusion's, for expressions that can't be encoded.
pub fn encode(
    node: &dyn ExecutionPlan,
    codec: &dyn PhysicalExtensionCodec,
    converter: &dyn PhysicalProtoConverterExtension,
) -> Result<Option<Vec<u8>>> {
    let kind = if let Some(join) = node.downcast_ref::<AsOfExec>() {
        Kind::AsOf(AsOf::of(join, codec, converter)?)
    } else if let Some(tiles) = node.downcast_ref::<TileExec>() {
        Kind::Tiles(View::of(&tiles.view)?)
    } else if let Some(sink) = node.downcast_ref::<SinkExec>() {
        Kind::Sink(Sink::of(sink)?)
    } else {
        return Ok(None);
    };
    Ok(Some(Node { version: VERSION.into(), kind: Some(kind) }.encode_to_vec()))
}

/// The operator that [`encode`] made `bytes` of, over `inputs`. `functions` are those of this process.
///
/// Errors: [`Invalid`](crate::ErrorKind::Invalid) if the bytes come from another version, or a function is not known here.
pub fn decode(
    bytes: &[u8],
    inputs: &[Arc<dyn ExecutionPlan>],
    functions: &Functions,
    context: &PhysicalPlanDecodeContext<'_>,
    converter: &dyn PhysicalProtoConverterExtension,
) -> Result<Arc<dyn ExecutionPlan>> {
    let node = Node::decode(bytes).map_err(|e| DataFusionError::External(Box::new(e)))?;
    if node.version != VERSION {
        let of = &node.version;
        return Err(crate::Error::invalid(format!(
            "a task comes from featurectl {of}, but this process is featurectl {VERSION}: install one version for all roles"
        ))
        .into());
    }
    match (node.kind, inputs) {
        (Some(Kind::AsOf(join)), [left, right]) => join.exec(left, right, functions, context, converter),
        (Some(Kind::Tiles(view)), [events]) => Ok(Arc::new(TileExec::new(view.view(functions)?, Arc::clone(events)))),
        (Some(Kind::Sink(sink)), [input]) => sink.exec(input),
        _ => Err(internal_datafusion_err!("an encoded operator without its inputs")),
    }
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(oneof = "Kind", tags = "2, 3, 4")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Kind {
    #[prost(message, tag = "2")]
    AsOf(AsOf),
    #[prost(message, tag = "3")]
    Tiles(View),
    #[prost(message, tag = "4")]
    Sink(Sink),
}

#[derive(Clone, PartialEq, Message)]
struct AsOf {
    #[prost(message, repeated, tag = "1")]
    left_keys: Vec<protobuf::PhysicalExprNode>,
    #[prost(message, repeated, tag = "2")]
    right_keys: Vec<protobuf::PhysicalExprNode>,
    #[prost(message, repeated, tag = "3")]
    times: Vec<protobuf::PhysicalExprNode>,
    #[prost(uint32, tag = "4")]
    op: u32,
    #[prost(message, optional, tag = "5")]
    view: Option<View>,
    #[prost(message, optional, tag = "6")]
    schema: Option<protobuf::Schema>,
}

const OPS: [MatchOp; 4] = [MatchOp::Gt, MatchOp::GtEq, MatchOp::Lt, MatchOp::LtEq];

impl AsOf {
    fn of(
        join: &AsOfExec,
        codec: &dyn PhysicalExtensionCodec,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Self> {
        let all = |exprs: &[Arc<dyn PhysicalExpr>]| {
            exprs.iter().map(|e| converter.physical_expr_to_proto(e, codec)).collect::<Result<Vec<_>>>()
        };
        Ok(Self {
            left_keys: all(&join.left_keys)?,
            right_keys: all(&join.right_keys)?,
            times: all(&[Arc::clone(&join.left_time), Arc::clone(&join.right_time)])?,
            op: OPS.iter().position(|op| *op == join.op).unwrap_or_default() as u32,
            view: join.view.as_deref().map(View::of).transpose()?,
            schema: Some(join.schema.as_ref().try_into()?),
        })
    }

    fn exec(
        self,
        left: &Arc<dyn ExecutionPlan>,
        right: &Arc<dyn ExecutionPlan>,
        functions: &Functions,
        context: &PhysicalPlanDecodeContext<'_>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (left_schema, right_schema) = (left.schema(), right.schema());
        let all = |exprs: &[protobuf::PhysicalExprNode], schema: &Schema| {
            exprs.iter().map(|e| converter.proto_to_physical_expr(e, schema, context)).collect::<Result<Vec<_>>>()
        };
        let [left_time, right_time] = self.times.as_slice() else { return Err(missing("times")) };
        let join = AsOfExec::new(
            [Arc::clone(left), Arc::clone(right)],
            all(&self.left_keys, &left_schema)?,
            all(&self.right_keys, &right_schema)?,
            converter.proto_to_physical_expr(left_time, &left_schema, context)?,
            converter.proto_to_physical_expr(right_time, &right_schema, context)?,
            OPS.get(self.op as usize).copied().ok_or_else(|| missing("comparison"))?,
            self.view.map(|v| v.view(functions)).transpose()?,
            Arc::new(schema(self.schema.as_ref())?),
        );
        Ok(Arc::new(join))
    }
}

#[derive(Clone, PartialEq, Message)]
struct View {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    entity: Option<protobuf::Schema>,
    #[prost(string, tag = "3")]
    event_time: String,
    #[prost(bool, tag = "4")]
    has_sequence: bool,
    #[prost(bool, tag = "5")]
    online: bool,
    #[prost(int64, optional, tag = "6")]
    ttl: Option<i64>,
    #[prost(message, repeated, tag = "7")]
    calls: Vec<Call>,
    #[prost(message, optional, tag = "8")]
    fields: Option<protobuf::Schema>,
    /// One a feature.
    #[prost(message, repeated, tag = "9")]
    sources: Vec<SourceOf>,
    #[prost(message, optional, tag = "10")]
    events: Option<protobuf::Schema>,
    #[prost(string, tag = "11")]
    sql: String,
}

/// An aggregate over a window, or if `window` is missing a column of the latest row.
#[derive(Clone, PartialEq, Message)]
struct SourceOf {
    #[prost(uint32, tag = "1")]
    index: u32,
    #[prost(message, optional, tag = "2")]
    window: Option<WindowOf>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct WindowOf {
    #[prost(int64, optional, tag = "1")]
    length: Option<i64>,
    #[prost(int64, optional, tag = "2")]
    offset: Option<i64>,
    #[prost(int64, optional, tag = "3")]
    hop: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Call {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    args: Vec<ArgOf>,
    #[prost(bool, tag = "3")]
    retractable: bool,
    #[prost(uint32, repeated, tag = "4")]
    columns: Vec<u32>,
    #[prost(uint32, optional, tag = "5")]
    filter: Option<u32>,
    #[prost(string, tag = "6")]
    sql: String,
}

#[derive(Clone, PartialEq, Message)]
struct ArgOf {
    #[prost(message, optional, tag = "1")]
    data_type: Option<protobuf::ArrowType>,
    #[prost(message, optional, tag = "2")]
    literal: Option<protobuf::ScalarValue>,
}

impl View {
    fn of(view: &FeatureView) -> Result<Self> {
        let source = |f: &Feature| match f.source {
            FeatureSource::Latest { column } => SourceOf { index: column as u32, window: None },
            FeatureSource::Window { aggregate, window } => {
                let Window { length, offset, hop } = window;
                SourceOf { index: aggregate as u32, window: Some(WindowOf { length, offset, hop }) }
            }
        };
        let fields: Vec<_> = view.features.iter().map(|f| Arc::clone(&f.field)).collect();
        Ok(Self {
            name: view.name.clone(),
            entity: Some((&Schema::new(view.entity.clone())).try_into()?),
            event_time: view.event_time.clone(),
            has_sequence: view.has_sequence,
            online: view.online,
            ttl: view.ttl,
            calls: view.aggregates.iter().map(Call::of).collect::<Result<_>>()?,
            fields: Some((&Schema::new(fields)).try_into()?),
            sources: view.features.iter().map(source).collect(),
            events: Some(view.events.schema().as_arrow().try_into()?),
            sql: view.sql.clone(),
        })
    }

    fn view(self, functions: &Functions) -> Result<Arc<FeatureView>> {
        let fields = schema(self.fields.as_ref())?;
        let feature = |(field, source): (&Arc<Field>, SourceOf)| {
            let index = source.index as usize;
            let source = match source.window {
                None => FeatureSource::Latest { column: index },
                Some(WindowOf { length, offset, hop }) => {
                    FeatureSource::Window { aggregate: index, window: Window { length, offset, hop } }
                }
            };
            Feature { field: Arc::clone(field), source }
        };
        let events = EmptyRelation {
            produce_one_row: false,
            schema: Arc::new(DFSchema::try_from(schema(self.events.as_ref())?)?),
        };
        Ok(Arc::new(FeatureView {
            entity: schema(self.entity.as_ref())?.fields().to_vec(),
            aggregates: self.calls.into_iter().map(|c| c.call(functions)).collect::<Result<_>>()?,
            features: fields.fields().iter().zip(self.sources).map(feature).collect(),
            name: self.name,
            event_time: self.event_time,
            has_sequence: self.has_sequence,
            online: self.online,
            ttl: self.ttl,
            events: LogicalPlan::EmptyRelation(events),
            sql: self.sql,
        }))
    }
}

impl Call {
    fn of(call: &AggregateCall) -> Result<Self> {
        let arg = |a: &Arg| {
            let literal = a.literal.as_ref().map(TryInto::try_into).transpose()?;
            Ok(ArgOf { data_type: Some((&a.data_type).try_into()?), literal })
        };
        Ok(Self {
            name: call.binding.name.clone(),
            args: call.binding.args.iter().map(arg).collect::<Result<_>>()?,
            retractable: call.binding.retractable,
            columns: call.args.iter().map(|c| *c as u32).collect(),
            filter: call.filter.map(|c| c as u32),
            sql: call.sql.clone(),
        })
    }

    fn call(self, functions: &Functions) -> Result<AggregateCall> {
        let arg = |a: &ArgOf| {
            let literal = a.literal.as_ref().map(ScalarValue::try_from).transpose()?;
            let data_type = DataType::try_from(a.data_type.as_ref().ok_or_else(|| missing("type"))?)?;
            Ok(Arg { data_type, literal })
        };
        let args = self.args.iter().map(arg).collect::<Result<_>>()?;
        let binding = Binding { name: self.name, args, retractable: self.retractable };
        let function = binding.bind(functions).map_err(|e| {
            let name = &binding.name;
            e.context(format!(
                "the aggregation `{name}` of a task: start every role of the cluster with the same binary"
            ))
        })?;
        Ok(AggregateCall {
            function,
            binding,
            args: self.columns.into_iter().map(|c| c as usize).collect(),
            filter: self.filter.map(|c| c as usize),
            sql: self.sql,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
struct Sink {
    #[prost(string, tag = "1")]
    folder: String,
    #[prost(string, tag = "2")]
    prefix: String,
    #[prost(string, repeated, tag = "3")]
    partition_by: Vec<String>,
    #[prost(bool, tag = "4")]
    single: bool,
    #[prost(message, optional, tag = "5")]
    options: Option<TableParquetOptions>,
}

impl Sink {
    fn of(exec: &SinkExec) -> Result<Self> {
        let sink = exec.sink();
        Ok(Self {
            folder: sink.folder.clone(),
            prefix: sink.prefix.clone(),
            partition_by: sink.partition_by.clone(),
            single: sink.single,
            options: Some((&sink.options).try_into()?),
        })
    }

    fn exec(self, input: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let options = self.options.as_ref().ok_or_else(|| missing("options"))?;
        let sink = crate::sink::Sink {
            folder: self.folder,
            prefix: self.prefix,
            partition_by: self.partition_by,
            single: self.single,
            options: options.try_into()?,
        };
        Ok(Arc::new(SinkExec::try_new(Arc::new(sink), Arc::clone(input))?))
    }
}

fn schema(encoded: Option<&protobuf::Schema>) -> Result<Schema> {
    Ok(Schema::try_from(encoded.ok_or_else(|| missing("schema"))?)?)
}

fn missing(what: &str) -> DataFusionError {
    internal_datafusion_err!("an encoded operator has no {what}")
}
