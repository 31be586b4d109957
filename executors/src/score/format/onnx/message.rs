//! The parts of ONNX's protobuf messages that scoring needs; decoding skips all other fields.
//!
//! ```text
//!  Model ─ graph ─┬─ node[]         op_type, inputs, outputs and attributes by name
//!                 ├─ initializer[]  constant tensors
//!                 └─ input[], output[]
//! ```
//! Field numbers are those of `onnx.proto3`. No message holds one of its own kind, so decoding can't go deep.

use featurectl_core::{Error, Result};
use prost::Message;

/// Of what type a tensor's values are: the numbers of `TensorProto.DataType`.
pub(super) mod kind {
    pub(in super::super) const FLOAT: i32 = 1;
    pub(in super::super) const UINT8: i32 = 2;
    pub(in super::super) const INT32: i32 = 6;
    pub(in super::super) const INT64: i32 = 7;
    pub(in super::super) const STRING: i32 = 8;
    pub(in super::super) const BOOL: i32 = 9;
    pub(in super::super) const DOUBLE: i32 = 11;
}

/// A file.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelProto {
    /// The library that wrote it.
    #[prost(string, tag = "2")]
    pub(super) producer_name: String,
    /// Its version.
    #[prost(string, tag = "3")]
    pub(super) producer_version: String,
    /// What it computes.
    #[prost(message, optional, tag = "7")]
    pub(super) graph: Option<Graph>,
}

/// What it computes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Graph {
    /// Its operators.
    #[prost(message, repeated, tag = "1")]
    pub(super) node: Vec<Node>,
    /// Its constants.
    #[prost(message, repeated, tag = "5")]
    pub(super) initializer: Vec<Tensor>,
    /// What it takes; in old files also its constants.
    #[prost(message, repeated, tag = "11")]
    pub(super) input: Vec<ValueInfo>,
    /// What it gives.
    #[prost(message, repeated, tag = "12")]
    pub(super) output: Vec<ValueInfo>,
}

/// One operator.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    /// The tensors that it takes; empty where one is left out.
    #[prost(string, repeated, tag = "1")]
    pub(super) input: Vec<String>,
    /// The tensors that it makes.
    #[prost(string, repeated, tag = "2")]
    pub(super) output: Vec<String>,
    /// What it does.
    #[prost(string, tag = "4")]
    pub(super) op_type: String,
    /// Its parameters.
    #[prost(message, repeated, tag = "5")]
    pub(super) attribute: Vec<Attribute>,
}

/// A constant of an operator.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(float, tag = "2")]
    f: f32,
    #[prost(int64, tag = "3")]
    i: i64,
    #[prost(bytes = "vec", tag = "4")]
    s: Vec<u8>,
    #[prost(message, optional, boxed, tag = "5")]
    t: Option<Box<Tensor>>,
    #[prost(float, repeated, tag = "7")]
    floats: Vec<f32>,
    #[prost(int64, repeated, tag = "8")]
    ints: Vec<i64>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    strings: Vec<Vec<u8>>,
}

/// Constant values.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    /// Its shape.
    #[prost(int64, repeated, tag = "1")]
    pub(super) dims: Vec<i64>,
    /// Of what [`kind`] its values are.
    #[prost(int32, tag = "2")]
    pub(super) data_type: i32,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    int64_data: Vec<i64>,
    /// What operators call it.
    #[prost(string, tag = "8")]
    pub(super) name: String,
    /// The values as bytes, or else one of the lists has them.
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
    #[prost(double, repeated, tag = "10")]
    double_data: Vec<f64>,
    /// 0 where the values are here.
    #[prost(int32, tag = "14")]
    data_location: i32,
}

/// Name and shape of an input or output.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueInfo {
    /// What operators call it.
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<Type>,
}

/// A type, as far as it is a tensor's.
#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorType>,
}

/// The type of a tensor.
#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

/// The lengths of a tensor's axes.
#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dim>,
}

/// The length of an axis; 0 where it is open.
#[derive(Clone, PartialEq, Message)]
struct Dim {
    #[prost(int64, tag = "1")]
    value: i64,
}

impl ValueInfo {
    /// Of what type its values are; 0 if it is no tensor.
    pub(super) fn kind(&self) -> i32 {
        self.r#type.as_ref().and_then(|t| t.tensor.as_ref()).map_or(0, |tensor| tensor.kind)
    }

    /// How many values each row has, if the file says so.
    pub(super) fn width(&self) -> Option<usize> {
        let dims = &self.r#type.as_ref()?.tensor.as_ref()?.shape.as_ref()?.dim;
        match dims.as_slice() {
            [_, width] => usize::try_from(width.value).ok().filter(|width| *width > 0),
            _ => None,
        }
    }
}

impl Node {
    /// The attribute of a name.
    fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attribute.iter().find(|a| a.name == name)
    }

    /// A whole number, if it is given.
    pub(super) fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name).map(|a| a.i)
    }

    /// A number, if it is given.
    pub(super) fn float(&self, name: &str) -> Option<f32> {
        self.attribute(name).map(|a| a.f)
    }

    /// A word, empty if it is not given.
    pub(super) fn text(&self, name: &str) -> &str {
        self.attribute(name).and_then(|a| std::str::from_utf8(&a.s).ok()).unwrap_or_default()
    }

    /// Whole numbers, empty if they are not given.
    pub(super) fn ints(&self, name: &str) -> &[i64] {
        self.attribute(name).map_or(&[], |a| &a.ints)
    }

    /// Numbers, empty if they are not given.
    pub(super) fn floats(&self, name: &str) -> &[f32] {
        self.attribute(name).map_or(&[], |a| &a.floats)
    }

    /// Words, empty if they are not given.
    pub(super) fn words(&self, name: &str) -> &[Vec<u8>] {
        self.attribute(name).map_or(&[], |a| &a.strings)
    }

    /// A tensor, if it is given.
    pub(super) fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.attribute(name).and_then(|a| a.t.as_deref())
    }

    /// The numbers of an attribute that may be a list or, as `<name>_as_tensor`, a tensor of 64-bit floats.
    pub(super) fn reals(&self, name: &str) -> Result<Vec<f64>> {
        match self.tensor(&format!("{name}_as_tensor")) {
            Some(tensor) => tensor.numbers(),
            None => Ok(self.floats(name).iter().map(|x| f64::from(*x)).collect()),
        }
    }
}

impl Tensor {
    /// The values, row by row.
    ///
    /// Errors: [`Data`](featurectl_core::ErrorKind::Data) if there are not as many as the shape says,
    /// [`Invalid`](featurectl_core::ErrorKind::Invalid) if they are of a rare type or in another file.
    pub(super) fn numbers(&self) -> Result<Vec<f64>> {
        if self.data_location != 0 {
            return Err(Error::invalid(
                "tensors in files of their own cannot be scored here: save the model as one file",
            ));
        }
        let numbers = match self.raw_data.is_empty() {
            true => self.typed(),
            false => self.raw(),
        }?;
        let wanted = self.dims.iter().try_fold(1usize, |n, dim| n.checked_mul(usize::try_from(*dim).ok()?));
        match wanted == Some(numbers.len()) {
            true => Ok(numbers),
            false => Err(Error::data(format!(
                "tensor `{}` has {} values for the shape {:?}: save the model again",
                self.name,
                numbers.len(),
                self.dims.iter().take(8).collect::<Vec<_>>()
            ))),
        }
    }

    /// The values of the field for their type.
    fn typed(&self) -> Result<Vec<f64>> {
        match self.data_type {
            kind::FLOAT => Ok(self.float_data.iter().map(|x| f64::from(*x)).collect()),
            kind::DOUBLE => Ok(self.double_data.clone()),
            kind::INT64 => Ok(self.int64_data.iter().map(|x| *x as f64).collect()),
            kind::INT32 | kind::UINT8 | kind::BOOL => Ok(self.int32_data.iter().map(|x| f64::from(*x)).collect()),
            _ => Err(self.rare()),
        }
    }

    /// The values of little-endian bytes.
    fn raw(&self) -> Result<Vec<f64>> {
        match self.data_type {
            kind::FLOAT => self.chunks(|b| f64::from(f32::from_le_bytes(b))),
            kind::DOUBLE => self.chunks(f64::from_le_bytes),
            kind::INT64 => self.chunks(|b| i64::from_le_bytes(b) as f64),
            kind::INT32 => self.chunks(|b| f64::from(i32::from_le_bytes(b))),
            kind::UINT8 | kind::BOOL => Ok(self.raw_data.iter().map(|b| f64::from(*b)).collect()),
            _ => Err(self.rare()),
        }
    }

    /// The values of `N` bytes each.
    fn chunks<const N: usize>(&self, number: impl Fn([u8; N]) -> f64) -> Result<Vec<f64>> {
        let (chunks, rest) = self.raw_data.as_chunks::<N>();
        match rest.is_empty() {
            true => Ok(chunks.iter().map(|chunk| number(*chunk)).collect()),
            false => Err(Error::data(format!("tensor `{}` ends within a value: save the model again", self.name))),
        }
    }

    /// An error about a type that is not read.
    fn rare(&self) -> Error {
        Error::invalid(format!(
            "tensor `{}` is of the type {}, which cannot be scored here: export with 32-bit floats",
            self.name, self.data_type
        ))
    }
}
