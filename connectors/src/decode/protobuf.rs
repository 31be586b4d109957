//! Protobuf.
//!
//! | protobuf | column |
//! |---|---|
//! | scalars | the same; NULL where presence is known (`optional`, `oneof`, proto2) and the field is absent |
//! | enum | its name, or its number if it has none |
//! | message, repeated, map | struct, list, map |
//! | `google.protobuf.Timestamp` | timestamp, microseconds UTC |
//! | `google.protobuf.*Value` | its value or NULL |
//! | a message within itself | its bytes |

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, ListArray, MapArray,
    RecordBatch, RecordBatchOptions, StringArray, StructArray, TimestampMicrosecondArray, UInt32Array, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use featurectl_core::{Error, Result, closest};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

use super::{Decode, Framing, Rows, Schemas};

/// Reads payloads that are one message each.
#[derive(Debug)]
pub struct ProtobufDecoder {
    message: MessageDescriptor,
    columns: Vec<(FieldDescriptor, Type)>,
    framing: Framing,
    /// Those that a payload may name.
    schemas: Option<Arc<Schemas>>,
    schema: SchemaRef,
}

/// Messages of `google.protobuf` that only say whether their one field is there.
const WRAPPERS: [&str; 9] = [
    "DoubleValue",
    "FloatValue",
    "Int64Value",
    "UInt64Value",
    "Int32Value",
    "UInt32Value",
    "BoolValue",
    "StringValue",
    "BytesValue",
];

/// What a field becomes.
#[derive(Debug, Clone)]
enum Type {
    Scalar(Kind),
    Timestamp,
    /// A wrapper of a scalar; its only field.
    Wrapper(FieldDescriptor, Kind),
    Struct(Vec<(FieldDescriptor, Type)>),
    /// The bytes of a message that holds itself.
    Encoded,
    List(Box<Type>),
    Map(Kind, Box<Type>),
}

impl ProtobufDecoder {
    /// A decoder of `message` (its full name) in a set of descriptors, as `protoc --include_imports
    /// --descriptor_set_out` writes it.
    ///
    /// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) if the set is none or has no such message.
    pub fn new(descriptors: &[u8], message: &str, framing: Framing) -> Result<Self> {
        let pool = DescriptorPool::decode(descriptors).map_err(|e| {
            Error::invalid(format!("no set of protobuf descriptors: {e}; write it with --include_imports"))
        })?;
        let message = pool.get_message_by_name(message).ok_or_else(|| {
            let names: Vec<String> = pool.all_messages().map(|m| m.full_name().to_string()).collect();
            let hint = closest(message, names).map_or(String::new(), |n| format!("; did you mean `{n}`?"));
            Error::invalid(format!("the descriptors have no message `{message}`{hint}"))
        })?;
        let columns = fields_of(&message, &mut vec![message.full_name().to_string()]);
        let schema = Arc::new(Schema::new(arrow_fields(&columns)));
        Ok(Self { message, columns, framing, schemas: None, schema })
    }

    /// The same for payloads whose schemas must be among `schemas`.
    pub fn with_schemas(self, schemas: Option<Arc<Schemas>>) -> Self {
        Self { schemas, ..self }
    }

    fn message(&self, payload: &[u8]) -> Result<DynamicMessage> {
        let (id, body) = self.framing.open(payload)?;
        if let (Some(schemas), Some(id)) = (&self.schemas, id) {
            schemas.check(id)?;
        }
        let body = match self.framing {
            Framing::Plain => body.as_ref(),
            Framing::Confluent => self.behind_indexes(&body)?,
            // The message's number within its file. Its order is not published, so it is not compared.
            Framing::Glue => varint(&body)?.1,
        };
        DynamicMessage::decode(self.message.clone(), body).map_err(|e| Error::data(e.to_string()))
    }

    /// The path to the message within its file, which must be the one that is read; a lone 0 means the first message.
    fn behind_indexes<'a>(&self, body: &'a [u8]) -> Result<&'a [u8]> {
        let unzigzag = |n: u64| n >> 1;
        let (count, mut rest) = varint(body)?;
        let mut path = Vec::new();
        for _ in 0..unzigzag(count) {
            let (index, behind) = varint(rest)?;
            path.push(unzigzag(index) as usize);
            rest = behind;
        }
        let path = if path.is_empty() { vec![0] } else { path };
        if path == self.path() {
            return Ok(rest);
        }
        Err(Error::data(format!(
            "it is another message of the file, with path {path:?}, than `{}`",
            self.message.full_name()
        )))
    }

    /// The places of the message, and of those around it, among their siblings.
    fn path(&self) -> Vec<usize> {
        let path = self.message.path();
        // Field numbers (4: message of a file, 3: message of a message) alternate with places.
        path.iter().skip(1).step_by(2).filter_map(|i| usize::try_from(*i).ok()).collect()
    }
}

/// A varint and what is behind it.
fn varint(bytes: &[u8]) -> Result<(u64, &[u8])> {
    let mut rest = bytes;
    let value = prost::encoding::decode_varint(&mut rest).map_err(|e| Error::data(format!("its header: {e}")))?;
    Ok((value, rest))
}

/// The fields of a message; `within` are the messages around them.
fn fields_of(message: &MessageDescriptor, within: &mut Vec<String>) -> Vec<(FieldDescriptor, Type)> {
    message.fields().map(|f| (f.clone(), field_type(&f, within))).collect()
}

fn field_type(field: &FieldDescriptor, within: &mut Vec<String>) -> Type {
    if field.is_map()
        && let Kind::Message(entry) = field.kind()
    {
        let value = kind_type(entry.map_entry_value_field().kind(), within);
        return Type::Map(entry.map_entry_key_field().kind(), Box::new(value));
    }
    let one = kind_type(field.kind(), within);
    if field.is_list() { Type::List(Box::new(one)) } else { one }
}

fn kind_type(kind: Kind, within: &mut Vec<String>) -> Type {
    let Kind::Message(message) = kind else { return Type::Scalar(kind) };
    let name = message.full_name().to_string();
    if name == "google.protobuf.Timestamp" {
        return Type::Timestamp;
    }
    if name.strip_prefix("google.protobuf.").is_some_and(|n| WRAPPERS.contains(&n))
        && let Some(field) = message.get_field(1)
    {
        return Type::Wrapper(field.clone(), field.kind());
    }
    if within.contains(&name) {
        return Type::Encoded;
    }
    within.push(name);
    let fields = fields_of(&message, within);
    within.pop();
    Type::Struct(fields)
}

fn arrow_fields(columns: &[(FieldDescriptor, Type)]) -> Fields {
    let field = |(f, t): &(FieldDescriptor, Type)| Field::new(f.name(), arrow_type(t), f.supports_presence());
    columns.iter().map(field).collect()
}

fn arrow_type(t: &Type) -> DataType {
    match t {
        Type::Scalar(kind) | Type::Wrapper(_, kind) => scalar_type(kind),
        Type::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::Struct(fields) => DataType::Struct(arrow_fields(fields)),
        Type::Encoded => DataType::Binary,
        Type::List(item) => DataType::List(Arc::new(Field::new_list_field(arrow_type(item), false))),
        Type::Map(key, value) => DataType::Map(Arc::new(entries_field(key, value)), false),
    }
}

fn entries_field(key: &Kind, value: &Type) -> Field {
    let fields = [Field::new("key", scalar_type(key), false), Field::new("value", arrow_type(value), false)];
    Field::new_struct("entries", Fields::from(fields.to_vec()), false)
}

fn scalar_type(kind: &Kind) -> DataType {
    match kind {
        Kind::Double => DataType::Float64,
        Kind::Float => DataType::Float32,
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => DataType::Int32,
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => DataType::Int64,
        Kind::Uint32 | Kind::Fixed32 => DataType::UInt32,
        Kind::Uint64 | Kind::Fixed64 => DataType::UInt64,
        Kind::Bool => DataType::Boolean,
        Kind::String | Kind::Enum(_) => DataType::Utf8,
        Kind::Bytes | Kind::Message(_) => DataType::Binary,
    }
}

impl Decode for ProtobufDecoder {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn decode(&self, payloads: &[&[u8]]) -> Result<Rows> {
        let messages: Vec<DynamicMessage> = payloads.iter().map(|p| self.message(p)).collect::<Result<_>>()?;
        let some: Vec<Option<&DynamicMessage>> = messages.iter().map(Some).collect();
        let columns = columns(&self.columns, &some)?;
        let options = RecordBatchOptions::new().with_row_count(Some(payloads.len()));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        Ok(Rows { batch, counts: vec![1; payloads.len()] })
    }
}

fn columns(fields: &[(FieldDescriptor, Type)], messages: &[Option<&DynamicMessage>]) -> Result<Vec<ArrayRef>> {
    let column = |(field, t): &(FieldDescriptor, Type)| {
        let is_set = |m: &&DynamicMessage| !field.supports_presence() || m.has_field(field);
        let values: Vec<_> = messages.iter().map(|m| m.filter(is_set).map(|m| m.get_field(field))).collect();
        let nullable = field.supports_presence();
        let values: Vec<Option<&Value>> = values.iter().map(|v| v.as_deref()).collect();
        // Rows of a struct that is NULL have no value, but their column may not be NULL there.
        let default = (!nullable).then(|| Value::default_value_for_field(field));
        let values: Vec<Option<&Value>> = values.into_iter().map(|v| v.or(default.as_ref())).collect();
        array(t, &values)
    };
    fields.iter().map(column).collect()
}

/// An array of values of one type.
fn array(t: &Type, values: &[Option<&Value>]) -> Result<ArrayRef> {
    match t {
        Type::Scalar(kind) => Ok(scalars(kind, values)),
        Type::Timestamp => timestamps(values),
        Type::Wrapper(field, kind) => {
            let inner: Vec<_> = messages(values).iter().map(|m| m.map(|m| m.get_field(field))).collect();
            let inner: Vec<Option<&Value>> = inner.iter().map(|v| v.as_deref()).collect();
            Ok(scalars(kind, &inner))
        }
        Type::Struct(fields) => structs(fields, values),
        Type::Encoded => {
            let encoded = messages(values).into_iter().map(|m| m.map(Message::encode_to_vec));
            Ok(Arc::new(BinaryArray::from_iter(encoded)))
        }
        Type::List(item) => lists(item, values),
        Type::Map(key, value) => maps(key, value, values),
    }
}

fn messages<'a>(values: &[Option<&'a Value>]) -> Vec<Option<&'a DynamicMessage>> {
    values.iter().map(|v| v.and_then(Value::as_message)).collect()
}

fn scalars(kind: &Kind, values: &[Option<&Value>]) -> ArrayRef {
    let all = || values.iter();
    match scalar_type(kind) {
        DataType::Float64 => Arc::new(Float64Array::from_iter(all().map(|v| v.and_then(Value::as_f64)))),
        DataType::Float32 => Arc::new(Float32Array::from_iter(all().map(|v| v.and_then(Value::as_f32)))),
        DataType::Int32 => Arc::new(Int32Array::from_iter(all().map(|v| v.and_then(Value::as_i32)))),
        DataType::Int64 => Arc::new(Int64Array::from_iter(all().map(|v| v.and_then(Value::as_i64)))),
        DataType::UInt32 => Arc::new(UInt32Array::from_iter(all().map(|v| v.and_then(Value::as_u32)))),
        DataType::UInt64 => Arc::new(UInt64Array::from_iter(all().map(|v| v.and_then(Value::as_u64)))),
        DataType::Boolean => Arc::new(BooleanArray::from_iter(all().map(|v| v.and_then(Value::as_bool)))),
        DataType::Utf8 => Arc::new(StringArray::from_iter(all().map(|v| v.and_then(|v| text(kind, v))))),
        _ => Arc::new(BinaryArray::from_iter(all().map(|v| v.and_then(Value::as_bytes)))),
    }
}

fn text(kind: &Kind, value: &Value) -> Option<String> {
    let Kind::Enum(of) = kind else { return value.as_str().map(str::to_string) };
    let number = value.as_enum_number()?;
    Some(of.get_value(number).map_or_else(|| number.to_string(), |v| v.name().to_string()))
}

fn timestamps(values: &[Option<&Value>]) -> Result<ArrayRef> {
    let part = |m: &DynamicMessage, name: &str| {
        let value = m.get_field_by_name(name);
        value.as_deref().and_then(|v| v.as_i64().or_else(|| v.as_i32().map(i64::from)))
    };
    let micros = |m: &DynamicMessage| {
        let (seconds, nanos) = (part(m, "seconds")?, part(m, "nanos")?);
        seconds.checked_mul(1_000_000)?.checked_add(nanos.div_euclid(1_000))
    };
    let out_of_range = || Error::data("a timestamp is out of range");
    let one = |m: Option<&DynamicMessage>| m.map(|m| micros(m).ok_or_else(out_of_range)).transpose();
    let all: Vec<Option<i64>> = messages(values).into_iter().map(one).collect::<Result<_>>()?;
    Ok(Arc::new(TimestampMicrosecondArray::from(all)))
}

fn structs(fields: &[(FieldDescriptor, Type)], values: &[Option<&Value>]) -> Result<ArrayRef> {
    let messages = messages(values);
    let nulls = NullBuffer::from_iter(messages.iter().map(Option::is_some));
    let columns = columns(fields, &messages)?;
    if fields.is_empty() {
        return Ok(Arc::new(StructArray::new_empty_fields(values.len(), Some(nulls))));
    }
    Ok(Arc::new(StructArray::try_new(arrow_fields(fields), columns, Some(nulls))?))
}

fn lists(item: &Type, values: &[Option<&Value>]) -> Result<ArrayRef> {
    let items = |v: &Option<&Value>| v.and_then(Value::as_list).map(<[Value]>::len).unwrap_or(0);
    let offsets = OffsetBuffer::from_lengths(values.iter().map(items));
    let flat: Vec<Option<&Value>> =
        values.iter().flat_map(|v| v.and_then(Value::as_list)).flatten().map(Some).collect();
    let field = Arc::new(Field::new_list_field(arrow_type(item), false));
    Ok(Arc::new(ListArray::try_new(field, offsets, array(item, &flat)?, None)?))
}

/// Maps with their keys in order: the wire's order means nothing.
fn maps(key: &Kind, value: &Type, values: &[Option<&Value>]) -> Result<ArrayRef> {
    let none = HashMap::new();
    let (mut keys, mut items, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    for map in values.iter().map(|v| v.and_then(Value::as_map).unwrap_or(&none)) {
        let mut entries: Vec<(&MapKey, &Value)> = map.iter().collect();
        entries.sort_by_key(|(k, _)| *k);
        lengths.push(entries.len());
        keys.extend(entries.iter().map(|(k, _)| Value::from((*k).clone())));
        items.extend(entries.iter().map(|(_, v)| Some(*v)));
    }
    let keys: Vec<Option<&Value>> = keys.iter().map(Some).collect();
    let field = entries_field(key, value);
    let DataType::Struct(fields) = field.data_type().clone() else {
        return Err(Error::internal("a map's entries are no struct"));
    };
    let entries = StructArray::try_new(fields, vec![scalars(key, &keys), array(value, &items)?], None)?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(MapArray::try_new(Arc::new(field), offsets, entries, None, false)?))
}
