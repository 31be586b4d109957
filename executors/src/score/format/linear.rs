//! Reads linear and logistic models, in a JSON format of our own that is easily written by hand or by a script.
//!
//! ```text
//!  {"model": "logistic",                     or "linear"
//!   "features": ["age", "income"],           the columns, in the order of the weights
//!   "weights": [0.03, -1.2],                 or one list an output: [[0.03, -1.2], [0.5, 0.1]]
//!   "bias": -0.7,                            or one an output: [-0.7, 0.2]; without it 0
//!   "classes": ["no", "yes"]}                not needed
//! ```
//!
//! `coefficients` and `intercept` (scikit-learn's words) stand for `weights` and `bias`. Each output is `bias + w0 x0 +
//! w1 x1 + …`, added in this order in 64-bit floats; a missing value makes it missing. A logistic model of one output
//! gives the probability of the second class, one of more outputs the softmax of all.

use std::collections::HashSet;

use featurectl_core::{Error, Result};
use serde_json::Value;

use crate::score::forest::Precision;
use crate::score::model::{Body, Linear, Link, Model};

/// The model in `value`, checked whole.
///
/// Errors: [`Data`](featurectl_core::ErrorKind::Data) with the key if the parts do not fit each other,
/// [`Invalid`](featurectl_core::ErrorKind::Invalid) for another kind of model.
pub(super) fn parse(name: &str, value: &Value) -> Result<Model> {
    let objective = match value.get("model").and_then(Value::as_str) {
        Some(kind @ ("linear" | "logistic")) => kind,
        Some(kind) => {
            return Err(Error::invalid(format!(
                "`model` is `{kind}`, which cannot be scored here: write `linear` or `logistic`"
            )));
        }
        None => return Err(Error::data("`model` is missing: add `\"model\": \"linear\"` or `\"logistic\"`")),
    };
    let features = features(value)?;
    let weights = weights(value, features.len())?;
    let bias = bias(value, weights.len())?;
    let link = match (objective, weights.len()) {
        ("linear", _) => Link::Identity,
        (_, 1) => Link::Sigmoid { steepness: 1.0 },
        _ => Link::Softmax,
    };
    let classes = classes(value, weights.len().max(2))?;
    Ok(Model {
        name: name.to_string(),
        format: "linear JSON".to_string(),
        objective: objective.to_string(),
        features,
        categories: Vec::new(),
        classes,
        body: Body::Linear(Linear { weights, bias, precision: Precision::F64, missing_is_zero: false }),
        link,
    })
}

/// The names of the columns, each given once.
fn features(value: &Value) -> Result<Vec<String>> {
    let list = value.get("features").and_then(Value::as_array);
    let list = list.ok_or_else(|| Error::data("`features` is not a list of names: write one a weight"))?;
    let mut seen = HashSet::new();
    let name = |(index, name): (usize, &Value)| {
        let name = name.as_str().ok_or_else(|| Error::data(format!("`features`: name {index} is not a string")))?;
        match seen.insert(name.to_string()) {
            true => Ok(name.to_string()),
            false => Err(Error::data(format!("`features`: `{name}` is named twice: give each column once"))),
        }
    };
    list.iter().enumerate().map(name).collect()
}

/// The weights of each output, `features` of them.
fn weights(value: &Value, features: usize) -> Result<Vec<Vec<f64>>> {
    let (key, given) = either(value, "weights", "coefficients")?
        .ok_or_else(|| Error::data("`weights` is missing: write one a feature"))?;
    let list = given.as_array().ok_or_else(|| Error::data(format!("`{key}` is not a list")))?;
    let weights = match list.first() {
        Some(Value::Array(_)) => {
            let rows = list.iter().enumerate();
            rows.map(|(output, row)| numbers(&format!("`{key}`, output {output}"), row)).collect::<Result<Vec<_>>>()?
        }
        _ => vec![numbers(&format!("`{key}`"), given)?],
    };
    match weights.iter().position(|row| row.len() != features) {
        None => Ok(weights),
        Some(output) => Err(Error::data(format!(
            "`{key}`, output {output}: {} weights for {features} features: give one a feature",
            weights[output].len()
        ))),
    }
}

/// What each of `outputs` sums begins with; 0 if the file does not say.
fn bias(value: &Value, outputs: usize) -> Result<Vec<f64>> {
    let Some((key, given)) = either(value, "bias", "intercept")? else { return Ok(vec![0.0; outputs]) };
    let bias = match given.as_f64() {
        Some(bias) => vec![bias],
        None => numbers(&format!("`{key}`"), given)?,
    };
    match bias.len() == outputs {
        true => Ok(bias),
        false => Err(Error::data(format!("`{key}`: {} values for {outputs} outputs: give one an output", bias.len()))),
    }
}

/// The names of the classes, if they are given: `count` of them.
fn classes(value: &Value, count: usize) -> Result<Vec<String>> {
    let Some(given) = value.get("classes").filter(|classes| !classes.is_null()) else { return Ok(Vec::new()) };
    let list = given.as_array().ok_or_else(|| Error::data("`classes` is not a list"))?;
    if list.len() != count {
        return Err(Error::data(format!("`classes`: {} names for {count} classes: name each", list.len())));
    }
    let name = |class: &Value| match class {
        Value::String(name) => Ok(name.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(class.to_string()),
        _ => Err(Error::data("`classes`: a name is neither text nor a number")),
    };
    list.iter().map(name).collect()
}

/// The value of one of two keys that mean the same, with the key that was used.
fn either<'a>(value: &'a Value, key: &'static str, other: &'static str) -> Result<Option<(&'static str, &'a Value)>> {
    match (value.get(key), value.get(other)) {
        (Some(_), Some(_)) => Err(Error::data(format!("`{key}` and `{other}` are both given: give one of them"))),
        (Some(given), None) => Ok(Some((key, given))),
        (None, given) => Ok(given.map(|given| (other, given))),
    }
}

/// The numbers of a list; `place` says where it stands.
fn numbers(place: &str, list: &Value) -> Result<Vec<f64>> {
    let list = list.as_array().ok_or_else(|| Error::data(format!("{place}: it is not a list of numbers")))?;
    let number = |(index, number): (usize, &Value)| {
        number.as_f64().ok_or_else(|| Error::data(format!("{place}: value {index} is not a number")))
    };
    list.iter().enumerate().map(number).collect()
}
