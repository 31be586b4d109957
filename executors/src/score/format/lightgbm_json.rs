//! Reads the JSON of LightGBM's `dump_model`.
//!
//! It holds the same trees as the [text](super::lightgbm), nested, and its numbers have 17 digits too, so that it gives
//! the same bits; only an infinite threshold is written as 1e300.
//!
//! ```text
//!  {"version": "v4", "num_class": 1, "num_tree_per_iteration": 1, "max_feature_idx": 1,
//!   "objective": "binary sigmoid:1", "average_output": false, "feature_names": ["a", "b"],
//!   "feature_infos": {"a": {"min_value": 0, "max_value": 1, "values": []}, …},
//!   "tree_info": [{"tree_index": 0, "tree_structure":
//!     {"split_index": 0, "split_feature": 1, "threshold": 0.5, "decision_type": "<=",
//!      "default_left": true, "missing_type": "NaN",
//!      "left_child": {"leaf_index": 0, "leaf_value": 0.3},                                       s0
//!      "right_child": {"split_index": 1, "threshold": "3||4", "decision_type": "==", …    ──▶   /  \
//!        "left_child": {"leaf_index": 1, …}, "right_child": {"leaf_index": 2, …}}}}],          l0   s1
//!   "pandas_categorical": [["x", "y"]]}                                                            /  \
//! ```
//!
//! Splits and leaves keep their numbers, so that both formats give the same forest. A tree nested deeper than the JSON
//! reader goes (128 levels) is an error there.

use featurectl_core::{Error, Result};
use serde_json::Value;

use super::lightgbm::{
    Recoding, boundary, check_names, check_outputs, check_version, damaged, link, missing_of, shorten, unsupported,
};
use crate::score::forest::{Forest, LinearLeaf, Missing, Precision, Split, Test, Tree};
use crate::score::model::{Body, Link, Model};

/// What is written for infinity.
const INFINITE: f64 = 1e300;

/// The model in `value`, checked whole.
///
/// Errors: [`Data`](featurectl_core::ErrorKind::Data) with the tree for damage,
/// [`Invalid`](featurectl_core::ErrorKind::Invalid) for what LightGBM can do and the scorer cannot.
pub(super) fn parse(name: &str, value: &Value) -> Result<Model> {
    let version = text(value, "version")?;
    check_version(version)?;
    let features = feature_names(value)?;
    let trees = list(value, "tree_info")?;
    let outputs = count(value, "num_tree_per_iteration")?;
    // Each output takes at least the bytes of a tree; without trees, any number above the few of a real model is wrong.
    check_outputs(count(value, "num_class")?, outputs, trees.len(), trees.len().max(1 << 16))?;
    let average = average(value, version)?;
    let (objective, link) = match value.get("objective") {
        Some(_) => link(text(value, "objective")?, outputs)?,
        None => (String::new(), Link::Identity),
    };
    let recoding = recoding(value, &features)?;
    let mut forest = Forest::new(features.len(), vec![0.0; outputs], Precision::F64, Precision::F64);
    let reader = Reader { clipped: version != "v2", recoding: &recoding };
    for (index, info) in trees.iter().enumerate() {
        let output = (index % outputs) as u32;
        let place = |e: Error| e.context(format!("tree {index}"));
        let tree = reader.tree(field(info, "tree_structure").map_err(place)?, output).map_err(place)?;
        forest.push(tree).map_err(|e| place(damaged(&e.to_string())))?;
    }
    if average {
        forest.divide = (trees.len() / outputs).max(1) as f64;
    }
    Ok(Model {
        name: name.to_string(),
        format: format!("LightGBM JSON {version}"),
        objective,
        features,
        categories: recoding.texts(),
        classes: Vec::new(),
        body: Body::Forest(Vec::new(), forest),
        link,
    })
}

/// Whether the trees are averaged. Dumps that do not say so have no objective either, so that a sum could stand for
/// anything.
fn average(value: &Value, version: &str) -> Result<bool> {
    match value.get("average_output") {
        None if version == "v2" => Err(unsupported("a dump of LightGBM before 2.2.3", "save the model as text")),
        _ => flag(value, "average_output"),
    }
}

/// The value of a key that must be there.
fn field<'a>(object: &'a Value, key: &str) -> Result<&'a Value> {
    object.get(key).ok_or_else(|| damaged(&format!("`{key}` is missing")))
}

/// What a key has that is not what it should be.
fn wrong(key: &str, value: &Value) -> Error {
    damaged(&format!("`{key}` has the value `{}`", shorten(&summary(value))))
}

/// A value as a message shows it: never the whole of a long one.
fn summary(value: &Value) -> String {
    match value {
        Value::Array(_) => "[…]".to_string(),
        Value::Object(_) => "{…}".to_string(),
        Value::String(text) => shorten(text),
        value => value.to_string(),
    }
}

/// The text at a key.
fn text<'a>(object: &'a Value, key: &str) -> Result<&'a str> {
    let value = field(object, key)?;
    value.as_str().ok_or_else(|| wrong(key, value))
}

/// The list at a key.
fn list<'a>(object: &'a Value, key: &str) -> Result<&'a [Value]> {
    let value = field(object, key)?;
    value.as_array().map(Vec::as_slice).ok_or_else(|| wrong(key, value))
}

/// The truth at a key.
fn flag(object: &Value, key: &str) -> Result<bool> {
    let value = field(object, key)?;
    value.as_bool().ok_or_else(|| wrong(key, value))
}

/// The number at a key.
fn number(object: &Value, key: &str) -> Result<f64> {
    let value = field(object, key)?;
    value.as_f64().ok_or_else(|| wrong(key, value))
}

/// The count at a key.
fn count(object: &Value, key: &str) -> Result<usize> {
    let value = field(object, key)?;
    value.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(|| wrong(key, value))
}

/// A number that counts features, splits or leaves.
fn index(object: &Value, key: &str) -> Result<u32> {
    let value = field(object, key)?;
    let index = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= i32::MAX as u32);
    index.ok_or_else(|| wrong(key, value))
}

/// The names of the columns.
fn feature_names(value: &Value) -> Result<Vec<String>> {
    let names: Option<Vec<String>> =
        list(value, "feature_names")?.iter().map(|name| name.as_str().map(String::from)).collect();
    let names = names.ok_or_else(|| damaged("`feature_names` are not all texts"))?;
    let last = field(value, "max_feature_idx")?;
    check_names(&names, last.as_i64().ok_or_else(|| wrong("max_feature_idx", last))?)?;
    Ok(names)
}

/// How pandas columns were numbered. A feature is categorical if its `values` are listed.
fn recoding(value: &Value, features: &[String]) -> Result<Recoding> {
    let listed = |name: &String| {
        let values = value.get("feature_infos").and_then(|infos| infos.get(name)).and_then(|info| info.get("values"));
        values.and_then(Value::as_array).is_some_and(|values| !values.is_empty())
    };
    let categorical: Vec<usize> =
        features.iter().enumerate().filter(|(_, name)| listed(name)).map(|(feature, _)| feature).collect();
    Recoding::new(value.get("pandas_categorical").unwrap_or(&Value::Null), &categorical, features.len())
}

/// Reads trees.
struct Reader<'a> {
    /// Whether infinity is written as [`INFINITE`]. LightGBM 2 trains with that number instead of infinity.
    clipped: bool,
    /// How pandas columns were numbered.
    recoding: &'a Recoding,
}

/// A leaf as it is found.
struct Leaf {
    /// Its plain value.
    value: f64,
    /// Its linear function, in trees that have them.
    linear: Option<LinearLeaf>,
}

impl Reader<'_> {
    /// The tree below `root`, gathered without recursion.
    fn tree(&self, root: &Value, output: u32) -> Result<Tree> {
        let mut splits: Vec<(u32, (Split, Option<f64>))> = Vec::new();
        let mut leaves: Vec<(u32, (Leaf, Option<f64>))> = Vec::new();
        let count = |node: &Value, key| node.get(key).and_then(Value::as_f64);
        let mut ahead = vec![root];
        while let Some(node) = ahead.pop() {
            if node.get("split_index").is_some() {
                let number = index(node, "split_index")?;
                let split = self.split(node).map_err(|e| e.context(format!("split {number}")))?;
                splits.push((number, (split, count(node, "internal_count"))));
                ahead.push(field(node, "right_child")?);
                ahead.push(field(node, "left_child")?);
            } else {
                // The only leaf of a tree has no number.
                let number = if node.get("leaf_index").is_some() { index(node, "leaf_index")? } else { 0 };
                let leaf = leaf(node).map_err(|e| e.context(format!("leaf {number}")))?;
                leaves.push((number, (leaf, count(node, "leaf_count"))));
            }
        }
        let (splits, rows_of_splits): (Vec<_>, Vec<_>) = in_order(splits, "split")?.into_iter().unzip();
        let (leaves, rows_of_leaves): (Vec<_>, Vec<_>) = in_order(leaves, "leaf")?.into_iter().unzip();
        // The only leaf of a tree has no count.
        let covers = rows_of_splits.into_iter().chain(rows_of_leaves).collect::<Option<Vec<f64>>>();
        let covers = covers.filter(|_| !splits.is_empty()).unwrap_or_default();
        let values = leaves.iter().map(|leaf| leaf.value).collect();
        let linear: Vec<LinearLeaf> = leaves.into_iter().filter_map(|leaf| leaf.linear).collect();
        Ok(Tree { output: Some(output), splits, leaves: values, linear, covers })
    }

    /// The split of a node.
    fn split(&self, node: &Value) -> Result<Split> {
        let feature = index(node, "split_feature")?;
        let (test, missing) = match text(node, "decision_type")? {
            "<=" => {
                self.recoding.check_number(feature)?;
                (Test::AtMost(self.threshold(node)?), missing(node)?)
            }
            "==" => (self.recoding.test(feature, &set(text(node, "threshold")?)?)?, Missing::Right),
            _ => return Err(wrong("decision_type", field(node, "decision_type")?)),
        };
        let (left, right) = (child(field(node, "left_child")?)?, child(field(node, "right_child")?)?);
        Ok(Split { feature, test, missing, left, right })
    }

    /// The threshold of a comparison.
    fn threshold(&self, node: &Value) -> Result<f64> {
        let threshold = number(node, "threshold")?;
        match self.clipped && threshold.abs() >= INFINITE {
            true => Ok(f64::INFINITY.copysign(threshold)),
            false => Ok(boundary(threshold)),
        }
    }
}

/// Where missing values go.
fn missing(node: &Value) -> Result<Missing> {
    let default_left = flag(node, "default_left")?;
    let kind = text(node, "missing_type")?;
    let number =
        ["None", "Zero", "NaN"].iter().position(|known| *known == kind).and_then(|n| missing_of(n as u8, default_left));
    number.map_or_else(|| Err(wrong("missing_type", field(node, "missing_type")?)), Ok)
}

/// The number of a child as a split holds it.
fn child(node: &Value) -> Result<i32> {
    match node.get("split_index") {
        Some(_) => Ok(index(node, "split_index")? as i32),
        None => Ok(!(index(node, "leaf_index")? as i32)),
    }
}

/// The categories of a test, as `3||4`. Without any, nothing goes left.
fn set(categories: &str) -> Result<Vec<u32>> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|c| *c <= i32::MAX as u32);
    let set: Option<Vec<u32>> = categories.split("||").filter(|text| !text.is_empty()).map(number).collect();
    let wrong = || damaged(&format!("`threshold` has the value `{}`", shorten(categories)));
    set.filter(|set| set.is_sorted_by(|a, b| a < b)).ok_or_else(wrong)
}

/// The leaf of a node.
fn leaf(node: &Value) -> Result<Leaf> {
    let value = number(node, "leaf_value")?;
    let linear = if node.get("leaf_const").is_some() { Some(linear(node)?) } else { None };
    Ok(Leaf { value, linear })
}

/// The linear function of a leaf.
fn linear(node: &Value) -> Result<LinearLeaf> {
    let (features, coefficients) = (list(node, "leaf_features")?, list(node, "leaf_coeff")?);
    if features.len() != coefficients.len() {
        let (features, coefficients) = (features.len(), coefficients.len());
        return Err(damaged(&format!("`leaf_coeff` has {coefficients} values instead of {features}")));
    }
    let term = |(feature, coefficient): (&Value, &Value)| {
        let number =
            feature.as_u64().and_then(|f| u32::try_from(f).ok()).ok_or_else(|| wrong("leaf_features", feature));
        Ok((number?, coefficient.as_f64().ok_or_else(|| wrong("leaf_coeff", coefficient))?))
    };
    let terms: Result<Vec<(u32, f64)>> = features.iter().zip(coefficients).map(term).collect();
    Ok(LinearLeaf { constant: number(node, "leaf_const")?, terms: terms? })
}

/// The items by their numbers, which must be all from 0.
fn in_order<T>(mut items: Vec<(u32, T)>, what: &str) -> Result<Vec<T>> {
    items.sort_by_key(|(number, _)| *number);
    match items.iter().enumerate().find(|(place, (number, _))| *place != *number as usize) {
        Some((place, (number, _))) => Err(damaged(&format!("there is the {what} {number} instead of {place}"))),
        None => Ok(items.into_iter().map(|(_, item)| item).collect()),
    }
}
