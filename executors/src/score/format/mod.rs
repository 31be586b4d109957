//! Readers of model files, each checked whole, so that scoring needs no further checks.
//!
//! ```text
//!  "tree\n…"                        lightgbm.rs        text of LightGBM 2 to 4
//!  {"tree_info": …}                 lightgbm_json.rs   its dump_model
//!  {"learner": …}, or UBJSON        xgboost.rs         XGBoost 1 to 3
//!  {"oblivious_trees" | "trees": …} catboost.rs
//!  {"weights" | "coefficients": …}  linear.rs          our own: linear and logistic
//!  protobuf                         onnx.rs            scikit-learn and others
//! ```
//! Nothing is allocated by a count that a file claims, only by values that it holds, so memory stays in proportion to
//! the file.

mod catboost;
mod lightgbm;
mod lightgbm_json;
mod linear;
mod onnx;
mod ubjson;
mod xgboost;

use std::fs::File;

use featurectl_core::{Error, Result};
use serde_json::Value;

use super::model::Model;

/// The model in `bytes`, by what it looks like.
///
/// Errors: [`Data`](featurectl_core::ErrorKind::Data) for a damaged file,
/// [`Invalid`](featurectl_core::ErrorKind::Invalid) for one that is of no known format, or uses what can't be scored.
pub(super) fn parse(name: &str, bytes: &[u8]) -> Result<Model> {
    match bytes {
        [b't', b'r', b'e', b'e', b'\r' | b'\n', ..] => lightgbm::parse(name, text(bytes)?),
        [b'{', b'L' | b'l' | b'i' | b'U' | b'I' | b'$' | b'#' | b'}', ..] => {
            xgboost::parse(name, &ubjson::parse(bytes)?)
        }
        _ if bytes.trim_ascii_start().first() == Some(&b'{') => json(name, &json_value(bytes)?),
        _ if bytes.starts_with(b"CBM1") || xgboost::is_binary(bytes) => Err(Error::invalid(
            "a binary model can't be read: save it as JSON (XGBoost: `save_model('m.json')`, CatBoost: \
             `save_model('m.json', format='json')`)",
        )),
        [] => Err(Error::data("the file is empty: save the model again")),
        _ => onnx::parse(name, bytes),
    }
}

/// The model in a large file of text, read in parts; `None` if it is no such file or not as it should be, which [`parse`] says.
pub(super) fn load(name: &str, file: &File) -> Option<Model> {
    lightgbm::load(name, file)
}

/// The JSON in `bytes`. XGBoost writes NaN in it, as Python does.
fn json_value(bytes: &[u8]) -> Result<Value> {
    let value = serde_json::from_slice(bytes).or_else(|e| match xgboost::plain_json(bytes) {
        Some(plain) => serde_json::from_slice(&plain),
        None => Err(e),
    });
    value.map_err(|e| Error::data(format!("line {}, column {}: {e}: save the model again", e.line(), e.column())))
}

fn json(name: &str, value: &Value) -> Result<Model> {
    let has = |key| value.get(key).is_some();
    match () {
        () if has("learner") => xgboost::parse(name, value),
        () if has("tree_info") => lightgbm_json::parse(name, value),
        () if has("oblivious_trees") || has("trees") => catboost::parse(name, value),
        () if has("weights") || has("coefficients") => linear::parse(name, value),
        () => Err(Error::invalid(
            "the JSON is no model of LightGBM (`dump_model`), XGBoost (`save_model`), CatBoost (`format='json'`), nor a \
             linear one (`weights`)",
        )),
    }
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes)
        .map_err(|e| Error::data(format!("byte {} is not UTF-8 text: save the model again", e.valid_up_to())))
}
