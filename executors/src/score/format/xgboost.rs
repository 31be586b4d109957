//! Reads XGBoost's JSON and UBJSON, versions 1 to 3.
//!
//! ```text
//!  {"learner": {
//!     "learner_model_param": {"base_score": "[5E-1]", "num_class": "0", "num_feature": "2", "num_target": "1"},
//!     "objective":           {"name": "binary:logistic"},
//!     "attributes":          {"best_iteration": "7"},
//!     "feature_names":       ["a", "b"],
//!     "gradient_booster":    {"name": "gbtree", "model": {           "dart": {"gbtree": {"model": …}, "weight_drop": …
//!        "trees":            [{"left_children": …}, …],              "gblinear": {"model": {"weights": …}}
//!        "tree_info":        [0, 0, …],          the output of each tree
//!        "iteration_indptr": [0, 1, …],          the first tree of each iteration
//!        "cats":             {"enc": …}}}},      names of categories, since 3.1
//!   "version": [3, 2, 0]}
//! ```
//!
//! Everything is done in 32-bit floats: a row is rounded to them first, and the leaves are added to the base score in
//! the order of the trees. The base score is a prediction, so that it becomes a margin first where the objective has a
//! link. A file means what the latest versions make of it: the first ones added the base score last, for example.
//!
//! If training stopped early, only the trees up to the best iteration count, as in `XGBModel.predict`;
//! `Booster.predict` takes all unless it is told so.

mod categories;
mod dialect;
mod part;
mod tree;

use std::collections::HashSet;

use featurectl_core::{Error, Result};
use serde_json::Value;

use self::categories::Categories;
pub(super) use self::dialect::{is_binary, plain_json};
use self::part::Part;
use self::tree::Shape;
use crate::score::forest::{Forest, Precision};
use crate::score::model::{Body, Linear, Link, Model};

/// A model gives no more values: a file that claims more could ask for any amount of memory.
const OUTPUTS_MAX: usize = 1 << 16;

/// Features without names are no more, for the same reason.
const UNNAMED_MAX: usize = 1 << 17;

/// A base score that is a probability is at least this far from 0 and 1.
const PROBABILITY_MIN: f32 = 1e-6;

/// The model in `value`, checked whole.
///
/// Errors: [`Data`](featurectl_core::ErrorKind::Data) with the place in the file for damage,
/// [`Invalid`](featurectl_core::ErrorKind::Invalid) for what XGBoost can do and the scorer cannot.
pub(super) fn parse(name: &str, value: &Value) -> Result<Model> {
    let root = Part::root(value);
    let learner = root.get("learner")?;
    let version = root.find("version").map_or(Ok(Vec::new()), |version| version.wholes())?;
    let objective = learner.get("objective")?.get("name")?.text()?;
    let (link, scale) = meaning(objective)?;
    let params = Params::read(&learner, scale)?;
    check_quantiles(objective, params.base.len(), &version)?;
    let booster = learner.get("gradient_booster")?;
    let (body, categories) = match booster.get("name")?.text()? {
        "gbtree" | "dart" => forest(&learner, &booster, &params, &version)?,
        "gblinear" => (Body::Linear(linear(&booster, &params)?), Vec::new()),
        other => {
            return Err(Error::invalid(format!("the booster `{other}` cannot be scored here: train with `gbtree`")));
        }
    };
    let version = version.iter().map(i64::to_string).collect::<Vec<_>>().join(".");
    Ok(Model {
        name: name.to_string(),
        format: if version.is_empty() { "XGBoost".to_string() } else { format!("XGBoost v{version}") },
        objective: objective.to_string(),
        features: params.features,
        categories,
        classes: Vec::new(),
        body,
        link,
    })
}

/// What the base score is, compared with a margin.
#[derive(Debug, Clone, Copy)]
enum Scale {
    /// A margin itself.
    Margin,
    /// A probability.
    Probability,
    /// The exponential of a margin.
    Exponential,
}

impl Scale {
    /// The margin of a base score.
    fn margin(self, score: f32) -> f32 {
        match self {
            Self::Margin => score,
            Self::Probability => -(1.0 / score.clamp(PROBABILITY_MIN, 1.0 - PROBABILITY_MIN) - 1.0).ln(),
            Self::Exponential => score.ln(),
        }
    }
}

/// What the margins and the base score of an objective stand for.
fn meaning(objective: &str) -> Result<(Link, Scale)> {
    Ok(match objective {
        "binary:logistic" | "reg:logistic" => (Link::Sigmoid { steepness: 1.0 }, Scale::Probability),
        "count:poisson" | "reg:gamma" | "reg:tweedie" | "survival:cox" | "survival:aft" => {
            (Link::Exp, Scale::Exponential)
        }
        "multi:softprob" => (Link::Softmax, Scale::Margin),
        "multi:softmax" => (Link::Argmax, Scale::Margin),
        "binary:hinge" => (Link::Hinge, Scale::Margin),
        "binary:logitraw" | "rank:pairwise" | "rank:ndcg" | "rank:map" => (Link::Identity, Scale::Margin),
        "reg:squarederror"
        | "reg:linear"
        | "reg:squaredlogerror"
        | "reg:pseudohubererror"
        | "reg:absoluteerror"
        | "reg:quantileerror" => (Link::Identity, Scale::Margin),
        other => {
            return Err(Error::invalid(format!(
                "the objective `{other}` cannot be scored here: train with another one, as `reg:squarederror`"
            )));
        }
    })
}

/// Refuses several quantiles of a version that sorts its predictions, which no link does.
fn check_quantiles(objective: &str, outputs: usize, version: &[i64]) -> Result<()> {
    match objective == "reg:quantileerror" && outputs > 1 && version >= [3, 5].as_slice() {
        true => Err(Error::invalid(
            "several quantiles of XGBoost 3.5 or later cannot be scored here: train a model for each, or with 3.4",
        )),
        false => Ok(()),
    }
}

/// The parameters that all boosters share.
#[derive(Debug)]
struct Params {
    features: Vec<String>,
    /// The margin that each output begins with.
    base: Vec<f32>,
}

impl Params {
    /// Reads `learner_model_param` and the names of the features.
    fn read(learner: &Part, scale: Scale) -> Result<Self> {
        let params = learner.get("learner_model_param")?;
        let optional = |key| params.find(key).map_or(Ok(0), |part| part.count());
        let outputs = optional("num_class")?.max(optional("num_target")?).max(1);
        if outputs > OUTPUTS_MAX {
            return Err(Error::invalid(format!(
                "{outputs} outputs cannot be scored here: train a model of at most {OUTPUTS_MAX}"
            )));
        }
        let features = features(learner, params.get("num_feature")?.count()?)?;
        let base = base(&params.get("base_score")?, outputs, scale)?;
        Ok(Self { features, base })
    }
}

/// The names of `count` features; without names, they are called as XGBoost calls them.
fn features(learner: &Part, count: usize) -> Result<Vec<String>> {
    let names = match learner.find("feature_names") {
        Some(names) => names.parts()?.map(|name| Ok(name.text()?.to_string())).collect::<Result<Vec<_>>>()?,
        None => Vec::new(),
    };
    match names.len() {
        0 if count > UNNAMED_MAX => Err(Error::invalid(format!(
            "{count} features without names cannot be scored here: name them when you train, or take fewer"
        ))),
        0 => Ok((0..count).map(|i| format!("f{i}")).collect()),
        given if given != count => Err(learner.damaged(format_args!("{count} features have {given} names"))),
        _ => {
            let mut seen = HashSet::new();
            match names.iter().find(|name| !seen.insert(name.as_str())) {
                Some(twice) => Err(learner.damaged(format_args!("the feature `{twice}` is named twice"))),
                None => Ok(names),
            }
        }
    }
}

/// The margin that each output begins with, of a text as `5E-1` or, since 3.1, `[5E-1,2E-1]`; one number is for all.
fn base(part: &Part, outputs: usize, scale: Scale) -> Result<Vec<f32>> {
    let text = part.text()?.trim();
    let list = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let margin = |number: &str| {
        let margin = number.trim().parse().map_or(f32::NAN, |score| scale.margin(score));
        match margin.is_finite() {
            true => Ok(margin),
            false => Err(part.damaged(format_args!("{} is no base score of this objective", part.shown()))),
        }
    };
    let base = list.split(',').map(margin).collect::<Result<Vec<_>>>()?;
    match base.as_slice() {
        [one] => Ok(vec![*one; outputs]),
        all if all.len() == outputs => Ok(base),
        all => Err(part.damaged(format_args!("{outputs} outputs have {} base scores", all.len()))),
    }
}

/// Trees, and names of the categories that they ask for.
type Trees = (Body, Vec<Option<Vec<String>>>);

/// The body of `gbtree` and `dart`.
fn forest(learner: &Part, booster: &Part, params: &Params, version: &[i64]) -> Result<Trees> {
    let model = booster.find("gbtree").unwrap_or_else(|| booster.clone()).get("model")?;
    let (trees, info) = (model.get("trees")?, model.get("tree_info")?);
    let (count, outputs) = (trees.items()?.len(), info.wholes()?);
    let claimed = model.get("gbtree_model_param")?.get("num_trees")?.count()?;
    if outputs.len() != count || claimed != count {
        let length = outputs.len();
        return Err(model.damaged(format_args!("it has {count} trees, {length} in `tree_info`, but claims {claimed}")));
    }
    let weights = weights(booster, &model, count)?;
    let Categories { names, values } = Categories::read(&model, params.features.len(), version)?;
    let shape = Shape { outputs: params.base.len(), values };
    let base = params.base.iter().map(|score| f64::from(*score)).collect();
    let mut forest = Forest::new(params.features.len(), base, Precision::F32, Precision::F32);
    let kept = kept(learner, &model, &outputs)?;
    for (number, (part, output)) in trees.parts()?.zip(outputs).enumerate().take(kept) {
        let output = u32::try_from(output).map_err(|_| info.damaged(format_args!("{output} is no output")))?;
        let tree = tree::tree(&part, &shape, output, weights.get(number).copied())?;
        forest.push(tree).map_err(|e| e.context(format!("reading tree {number}")))?;
    }
    Ok((Body::Forest(Vec::new(), forest), names))
}

/// What the leaves of each tree are multiplied by (`dart`); empty: nothing.
fn weights(booster: &Part, model: &Part, trees: usize) -> Result<Vec<f32>> {
    let Some(part) = booster.find("weight_drop").or_else(|| model.find("weight_drop")) else { return Ok(Vec::new()) };
    let weights = part.floats()?;
    match weights.len() {
        0 => Ok(weights),
        length if length == trees => Ok(weights),
        length => Err(part.damaged(format_args!("{trees} trees have {length} weights"))),
    }
}

/// How many trees count: all, or those up to the best iteration if training stopped early.
fn kept(learner: &Part, model: &Part, outputs: &[i64]) -> Result<usize> {
    let Some(attributes) = learner.find("attributes") else { return Ok(outputs.len()) };
    let Some(best) = attributes.find("best_iteration") else { return Ok(outputs.len()) };
    let iterations = best.count()?.saturating_add(1);
    if let Some(starts) = model.find("iteration_indptr") {
        let end = starts.wholes()?.get(iterations).copied();
        let end = end.map_or(Some(outputs.len()), |end| usize::try_from(end).ok().filter(|end| *end <= outputs.len()));
        return end.ok_or_else(|| starts.damaged("an iteration ends behind the last tree"));
    }
    // Before 2.0, each output has as many trees in every iteration; before 1.6, only `best_ntree_limit` tells how many.
    let parallel = model.get("gbtree_model_param")?.find("num_parallel_tree").map_or(Ok(0), |n| n.count())?;
    let limit = match (parallel, attributes.find("best_ntree_limit")) {
        (0, Some(limit)) => limit.count()?,
        (parallel, _) => iterations.saturating_mul(parallel.max(1)),
    };
    let groups = outputs.iter().max().map_or(0, |last| usize::try_from(*last).unwrap_or(0).saturating_add(1));
    Ok(outputs.len().min(limit.saturating_mul(groups)))
}

/// The body of `gblinear`: `weights[feature][output]`, and behind them the bias of each output.
///
/// XGBoost adds the base score of the first output to all.
fn linear(booster: &Part, params: &Params) -> Result<Linear> {
    let part = booster.get("model")?.get("weights")?;
    let all = part.floats()?;
    let (features, outputs) = (params.features.len(), params.base.len());
    let expected = outputs.saturating_mul(features + 1);
    if all.len() != expected || all.iter().any(|weight| !weight.is_finite()) {
        let given = all.len();
        return Err(part.damaged(format_args!("there should be {expected} finite numbers; there are {given}")));
    }
    let first = params.base.first().copied().unwrap_or_default();
    let (weights, bias) = all.split_at(features * outputs);
    let column = |output| weights.iter().skip(output).step_by(outputs).map(|weight| f64::from(*weight)).collect();
    Ok(Linear {
        weights: (0..outputs).map(column).collect(),
        bias: bias.iter().map(|bias| f64::from(bias + first)).collect(),
        precision: Precision::F32,
        missing_is_zero: true,
    })
}
