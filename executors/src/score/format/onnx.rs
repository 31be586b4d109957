//! Reads ONNX models whose graph is one chain of operators, as converters write them for tree ensembles, linear models
//! and small networks.
//!
//! ```text
//!  protobuf ──message──▶ graph ──graph──▶ chain of operators ──layers──▶ [layers] + trees or weights + link
//!                                                               │
//!                                                            ensemble (tree operators)
//! ```
//!
//! The inputs are one tensor of all columns, called `f0`, `f1`, …, or one named tensor a column that the graph puts
//! side by side. The outputs are the scores, not the label: as many as the score tensor has columns, except that a
//! classifier of two classes whose first score follows from its second (`1 - p`, or `-s`) has just the second.
//!
//! What branches, calls unknown operators, or works on text is refused. The yardstick is onnxruntime; where it and the
//! specification disagree, the parts say so.

mod ensemble;
mod graph;
mod layers;
mod message;

use std::collections::HashSet;

use featurectl_core::{Error, Result};
use prost::Message;

use crate::score::model::{Body, Model};
use crate::score::network;
use message::{ModelProto, Node, ValueInfo, kind};

/// A file that claims more columns than this, and than it has bytes, is not believed.
const COLUMNS_MAX: usize = 65_536;

/// The model in `bytes`, checked whole.
///
/// Errors: [`Data`](featurectl_core::ErrorKind::Data) for damage,
/// [`Invalid`](featurectl_core::ErrorKind::Invalid) for graphs that are no chain of known operators.
pub(super) fn parse(name: &str, bytes: &[u8]) -> Result<Model> {
    let model = ModelProto::decode(bytes).map_err(|e| {
        Error::data(format!(
            "it looks like no model of a known format, nor is it an ONNX one: {e}: save the model again"
        ))
    })?;
    let graph = model.graph.as_ref().ok_or_else(|| damaged("an ONNX model without a graph"))?;
    let names = graph::Names::read(graph)?;
    let chain = names.chain()?;
    let width = width(&chain.inputs)?;
    believable(width.unwrap_or(0), bytes)?;
    let mut built = layers::Built::new(width, double(&chain.inputs)?);
    for step in &chain.steps {
        built.push(step, &names.constants).map_err(|e| e.context(format!("operator `{}`", step.node.op_type)))?;
    }
    let classes = std::mem::take(&mut built.classes);
    let (body, link, width) = built.finish()?;
    believable(width, bytes)?;
    if chain.mirrored && outputs(&body, width) != 1 {
        return Err(damaged("the first score is made of several others"));
    }
    Ok(Model {
        name: name.to_string(),
        format: format(&model),
        objective: String::new(),
        features: features(&chain.inputs, width)?,
        categories: Vec::new(),
        classes,
        body,
        link,
    })
}

/// An error about damage at the current place.
fn damaged(what: impl std::fmt::Display) -> Error {
    Error::data(format!("{what}: save the model again"))
}

/// Whether an operator casts to floats.
fn is_float(cast: &Node) -> bool {
    cast.int("to").is_some_and(|to| [kind::FLOAT, kind::DOUBLE].iter().any(|float| i64::from(*float) == to))
}

/// How many columns there are; `None` if the file does not say.
fn width(inputs: &[&ValueInfo]) -> Result<Option<usize>> {
    match inputs {
        [input] => Ok(input.width()),
        inputs => match inputs.iter().find(|input| input.width() != Some(1)) {
            None => Ok(Some(inputs.len())),
            Some(input) => Err(Error::invalid(format!(
                "several inputs of which `{}` is not one column cannot be scored here: export one input a column, or \
                 one for all",
                input.name
            ))),
        },
    }
}

/// Whether the inputs are 64-bit floats.
fn double(inputs: &[&ValueInfo]) -> Result<bool> {
    match inputs.iter().find(|input| input.kind() == kind::STRING) {
        Some(input) => Err(Error::invalid(format!(
            "the text input `{}` cannot be scored here: encode it in SQL, and export the model without its encoder",
            input.name
        ))),
        None => Ok(!inputs.is_empty() && inputs.iter().all(|input| input.kind() == kind::DOUBLE)),
    }
}

/// Refuses a number of columns that only a damaged file claims.
fn believable(width: usize, bytes: &[u8]) -> Result<()> {
    match width <= COLUMNS_MAX.max(bytes.len()) {
        true => Ok(()),
        false => Err(damaged(format_args!("it claims {width} columns"))),
    }
}

/// How many values the body gives for each row of `width` columns.
fn outputs(body: &Body, width: usize) -> usize {
    match body {
        Body::Forest(_, forest) => forest.outputs(),
        Body::Linear(linear) => linear.weights.len(),
        Body::Network(layers) => network::outputs(layers, width),
    }
}

/// The names of the columns.
fn features(inputs: &[&ValueInfo], width: usize) -> Result<Vec<String>> {
    match inputs {
        [input] if width == 1 => Ok(vec![input.name.clone()]),
        [_] => Ok((0..width).map(|number| format!("f{number}")).collect()),
        inputs => {
            let names: Vec<String> = inputs.iter().map(|input| input.name.clone()).collect();
            let mut seen = HashSet::new();
            match names.iter().find(|name| !seen.insert(name.as_str())) {
                None => Ok(names),
                Some(name) => Err(Error::invalid(format!(
                    "the input `{name}`, which is two columns, cannot be scored here: export each column once"
                ))),
            }
        }
    }
}

/// Format and the library that wrote it.
fn format(model: &ModelProto) -> String {
    format!("ONNX {} {}", model.producer_name, model.producer_version).trim_end().to_string()
}
