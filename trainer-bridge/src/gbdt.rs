//! The built-in training program: gradient boosted decision trees.
//!
//! ```text
//! input/data/train ───────▶ Table ─┐            ┌─▶ Forest ─▶ model/model.txt
//! input/data/validation ──▶ Table ─┼─▶ boosting ┤
//! hyperparameters ──────▶ Settings ┘            └─▶ output/data/metrics.json
//! ```
//!
//! Training stops when the validation loss has not improved for `early_stopping_rounds` rounds, and only the trees up
//! to the best round are kept. The same data and settings give the same bytes, on any number of processors.

use crate::contract::{Contract, at};
use crate::lightgbm::{Feature, Forest, Node, Objective, Split, Tree, lightgbm_text};
use crate::metrics;
use crate::table::Table;
use featurectl_core::{Error, Result, closest};
use forust_ml::gradientbooster::GrowPolicy;
use forust_ml::objective::ObjectiveType;
use forust_ml::sampler::SampleMethod;
use forust_ml::{GradientBooster, Matrix};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;

/// The settings a user may change; what is left out keeps its default.
///
/// | name | default | meaning |
/// |---|---|---|
/// | `rounds` | 300 | trees at most |
/// | `learning_rate` | 0.1 | what each tree's prediction is multiplied with |
/// | `max_depth` | 6 | questions on the way to a leaf, at most |
/// | `max_leaves` | no limit | leaves of a tree; if set, the most useful split comes first |
/// | `min_leaf_weight` | 1 | the least sum of second derivatives in a leaf |
/// | `l2` | 1 | the penalty on squared leaf values |
/// | `subsample` | 1 | the share of rows each tree sees |
/// | `seed` | 0 | of the choice of rows |
/// | `early_stopping_rounds` | 20 | rounds without improvement after which to stop; 0 for never |
/// | `nbins` | 256 | values per feature that are tried as thresholds |
pub const HYPERPARAMETERS: &[&str] = &[
    "rounds",
    "learning_rate",
    "max_depth",
    "max_leaves",
    "min_leaf_weight",
    "l2",
    "subsample",
    "seed",
    "early_stopping_rounds",
    "nbins",
];

/// The settings the launcher adds: what to learn from what.
const TASK: &[&str] = &["label", "features", "objective"];

/// What SageMaker adds for its own use begins with this.
const RESERVED_PREFIX: &str = "sagemaker_";

/// The channel the trees learn from.
const TRAIN: &str = "train";
/// The channel that decides when to stop.
const VALIDATION: &str = "validation";

/// Runs the program and returns its exit code: 0, or 1 after writing the reason to `output/failure` and stderr.
///
/// Call it in a process that was started under the [contract](Contract), with the channels `train` and `validation`,
/// and exit with the code it returns.
pub fn gbdt_program() -> i32 {
    let contract = Contract::from_env();
    let result = catch_unwind(AssertUnwindSafe(|| train(&contract)))
        .unwrap_or_else(|_| Err(Error::internal("the trainer panicked: report it with the output above")));
    let Err(error) = result else { return 0 };
    eprintln!("error: {error}");
    if let Err(e) = contract.fail(&error.to_string()) {
        eprintln!("error: {e}");
    }
    1
}

/// Whether every setting is known and within its limits; the first that is not is the error.
///
/// ```
/// use featurectl_trainer_bridge::check_hyperparameters;
/// let typed = [("learning_rat".to_string(), "0.1".to_string())].into();
/// let error = check_hyperparameters(&typed).unwrap_err();
/// assert_eq!(error.to_string(), "no hyperparameter `learning_rat`: did you mean `learning_rate`?");
/// ```
pub fn check_hyperparameters(typed: &BTreeMap<String, String>) -> Result<()> {
    Settings::parse(typed).map(|_| ())
}

/// From the folders of the contract to a model and its report; nothing is written before the training is done.
fn train(contract: &Contract) -> Result<()> {
    let typed = contract.hyperparameters()?;
    let settings = Settings::parse(&typed)?;
    let task = Task::parse(&typed)?;
    let training = read(contract, TRAIN, &task)?;
    let validation = read(contract, VALIDATION, &task)?;

    let booster = boost(&settings, &task, &training, &validation)?;
    let forest = forest(&booster, &task, &training);
    let path = contract.model_dir().join("model.txt");
    fs::write(&path, lightgbm_text(&forest)).map_err(|e| at(e, "writing", &path))?;

    let report = report(&booster, &settings, &task, &training, &validation);
    println!("kept {} trees: validation {}", forest.trees.len(), report["validation"]);
    let path = contract.output_data_dir().join("metrics.json");
    fs::write(&path, format!("{report:#}\n")).map_err(|e| at(e, "writing", &path))
}

/// The validated hyperparameters; [`HYPERPARAMETERS`] says what they mean.
#[derive(Debug, Clone, PartialEq)]
struct Settings {
    rounds: usize,
    learning_rate: f32,
    max_depth: usize,
    max_leaves: Option<usize>,
    min_leaf_weight: f32,
    l2: f32,
    subsample: f32,
    seed: u64,
    early_stopping_rounds: usize,
    nbins: u16,
}

impl Settings {
    /// The defaults, with what was typed in their place.
    fn parse(typed: &BTreeMap<String, String>) -> Result<Self> {
        check_names(typed)?;
        Ok(Self {
            rounds: number(typed, "rounds", 1..=100_000)?.unwrap_or(300),
            learning_rate: number(typed, "learning_rate", 1e-6..=1.0)?.unwrap_or(0.1),
            max_depth: number(typed, "max_depth", 1..=64)?.unwrap_or(6),
            max_leaves: number(typed, "max_leaves", 2..=1_000_000)?,
            min_leaf_weight: number(typed, "min_leaf_weight", 0.0..=1e30)?.unwrap_or(1.0),
            l2: number(typed, "l2", 0.0..=1e30)?.unwrap_or(1.0),
            subsample: number(typed, "subsample", 1e-6..=1.0)?.unwrap_or(1.0),
            seed: number(typed, "seed", 0..=u64::MAX)?.unwrap_or(0),
            early_stopping_rounds: number(typed, "early_stopping_rounds", 0..=100_000)?.unwrap_or(20),
            nbins: number(typed, "nbins", 2..=65_000)?.unwrap_or(256),
        })
    }
}

/// A name that is not known is most likely mistyped, and its default would pass unnoticed.
fn check_names(typed: &BTreeMap<String, String>) -> Result<()> {
    let known = |name: &&String| {
        HYPERPARAMETERS.contains(&name.as_str()) || TASK.contains(&name.as_str()) || name.starts_with(RESERVED_PREFIX)
    };
    let Some(unknown) = typed.keys().find(|name| !known(name)) else { return Ok(()) };
    let hint = match closest(unknown, HYPERPARAMETERS) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("choose from {}", HYPERPARAMETERS.join(", ")),
    };
    Err(Error::invalid(format!("no hyperparameter `{unknown}`: {hint}")))
}

/// The number typed for `name`, if one was.
fn number<T>(typed: &BTreeMap<String, String>, name: &str, allowed: RangeInclusive<T>) -> Result<Option<T>>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    let Some(text) = typed.get(name) else { return Ok(None) };
    match text.trim().parse::<T>() {
        Ok(n) if allowed.contains(&n) => Ok(Some(n)),
        _ => {
            let (low, high) = allowed.into_inner();
            let kind = if std::any::type_name::<T>().starts_with('f') { "number" } else { "whole number" };
            Err(Error::invalid(format!("`{name}` is `{text}`: give a {kind} from {low} to {high}")))
        }
    }
}

/// What to learn from what.
#[derive(Debug, Clone, PartialEq)]
struct Task {
    objective: Objective,
    label: String,
    features: Vec<String>,
}

impl Task {
    /// None of the three has a default.
    fn parse(typed: &BTreeMap<String, String>) -> Result<Self> {
        let text = |name: &str| {
            let value = typed.get(name).filter(|value| !value.is_empty());
            value.ok_or_else(|| Error::invalid(format!("hyperparameter `{name}` is missing: give it a value")))
        };
        let objective = match text("objective")?.as_str() {
            "binary" => Objective::Binary,
            "regression" => Objective::Regression,
            other => return Err(Error::invalid(format!("`objective` is `{other}`: give `binary` or `regression`"))),
        };
        let features: Vec<String> = serde_json::from_str(text("features")?).map_err(|e| {
            Error::invalid(format!("`features` is no JSON list of names ({e}): give one like [\"a\",\"b\"]"))
        })?;
        let label = text("label")?.clone();
        check_features(&features, &label)?;
        Ok(Self { objective, label, features })
    }
}

/// Names must be distinct, must not give away the label and must survive the model format.
fn check_features(features: &[String], label: &str) -> Result<()> {
    if features.is_empty() {
        return Err(Error::invalid("`features` is empty: name at least one column"));
    }
    for (i, name) in features.iter().enumerate() {
        if name == label {
            return Err(Error::invalid(format!("label `{label}` is also a feature: remove it from `features`")));
        }
        if features[..i].contains(name) {
            return Err(Error::invalid(format!("feature `{name}` is listed twice: remove one")));
        }
        let breaks = |c: char| c.is_whitespace() || c.is_control() || "\",:[]{}".contains(c);
        if name.is_empty() || name.contains(breaks) {
            let fix = "rename it without spaces and `\",:[]{}`, which a LightGBM model cannot hold";
            return Err(Error::invalid(format!("`{name}` cannot be a feature's name: {fix}")));
        }
    }
    Ok(())
}

/// A channel as numbers, checked as far as the objective demands.
fn read(contract: &Contract, channel: &str, task: &Task) -> Result<Table> {
    let doing = || format!("reading channel `{channel}`");
    let dir = contract.channel_dir(channel);
    if !dir.is_dir() {
        return Err(
            Error::not_found(format!("no folder `{}`: add the channel to the job", dir.display())).context(doing())
        );
    }
    let table = Table::read(&dir, &task.features, &task.label).map_err(|e| e.context(doing()))?;
    if task.objective == Objective::Binary {
        check_classes(&table.labels, &task.label).map_err(|e| e.context(doing()))?;
    }
    println!("read {} rows of {} features from `{channel}`", table.rows, task.features.len());
    Ok(table)
}

/// A binary label has exactly the values 0 and 1, both of them.
fn check_classes(labels: &[f64], label: &str) -> Result<()> {
    if let Some(other) = labels.iter().find(|y| ![0.0, 1.0].contains(*y)) {
        let fix = "make it a boolean, or train with objective `regression`";
        return Err(Error::invalid(format!("label `{label}` is {other} in a row, neither 0 nor 1: {fix}")));
    }
    if labels.windows(2).all(|pair| pair[0] == pair[1]) {
        let fix = "choose rows with both outcomes";
        let (rows, value) = (labels.len(), labels[0]);
        return Err(Error::invalid(format!(
            "label `{label}` is {value} in all {rows} rows, so there is nothing to learn: {fix}"
        )));
    }
    Ok(())
}

/// Trains; the validation loss decides when to stop.
fn boost(settings: &Settings, task: &Task, training: &Table, validation: &Table) -> Result<GradientBooster> {
    let columns = task.features.len();
    let data = Matrix::new(&training.features, training.rows, columns);
    let held_out = Matrix::new(&validation.features, validation.rows, columns);
    let weights = vec![1.0; validation.rows];
    let mut booster = booster(settings, task.objective);
    booster
        .fit_unweighted(&data, &training.labels, Some(vec![(held_out, &validation.labels, &weights)]))
        .map_err(|e| Error::invalid(format!("{e}: change the hyperparameter or the data")))?;
    Ok(booster)
}

/// The untrained model. Threads come from `SM_NUM_CPUS`; their number does not change the result.
fn booster(settings: &Settings, objective: Objective) -> GradientBooster {
    let threads = std::env::var("SM_NUM_CPUS").ok().and_then(|n| n.parse().ok());
    let mut booster = GradientBooster::default()
        .set_objective_type(match objective {
            Objective::Binary => ObjectiveType::LogLoss,
            Objective::Regression => ObjectiveType::SquaredLoss,
        })
        .set_iterations(settings.rounds)
        .set_learning_rate(settings.learning_rate)
        .set_max_depth(settings.max_depth)
        .set_max_leaves(settings.max_leaves.unwrap_or(usize::MAX))
        .set_min_leaf_weight(settings.min_leaf_weight)
        .set_l2(settings.l2)
        .set_seed(settings.seed)
        .set_nbins(settings.nbins)
        .set_early_stopping_rounds((settings.early_stopping_rounds > 0).then_some(settings.early_stopping_rounds))
        .set_tiled_histograms(true)
        .set_num_threads(threads);
    if settings.subsample < 1.0 {
        booster = booster.set_sample_method(SampleMethod::Random).set_subsample(settings.subsample);
    }
    if settings.max_leaves.is_some() {
        booster.grow_policy = GrowPolicy::LossGuide;
    }
    booster
}

/// The trees that are kept: up to the best round, or all if nothing stopped the training.
fn kept_trees(booster: &GradientBooster) -> usize {
    booster.prediction_iteration.unwrap_or(booster.trees.len())
}

/// The trained model in neutral form, with the start value as part of the first tree.
fn forest(booster: &GradientBooster, task: &Task, training: &Table) -> Forest {
    let feature = |(i, name): (usize, &String)| Feature { name: name.clone(), range: training.range(i) };
    let trees = booster.trees[..kept_trees(booster)].iter().enumerate();
    let start = |i| if i == 0 { booster.base_score } else { 0.0 };
    Forest {
        objective: task.objective,
        features: task.features.iter().enumerate().map(feature).collect(),
        trees: trees.map(|(i, tree)| neutral(tree, start(i), training.rows)).collect(),
    }
}

/// One tree, with `start` added to every value.
///
/// The trainer keeps no row counts, so they are estimated from the share of the root's weight, as LightGBM itself
/// does; they only matter to explanations of a prediction.
fn neutral(tree: &forust_ml::tree::Tree, start: f64, rows: usize) -> Tree {
    let root_weight = tree.nodes.first().map_or(0.0, |root| f64::from(root.hessian_sum));
    let rows_per_weight = if root_weight > 0.0 { rows as f64 / root_weight } else { 0.0 };
    let node = |node: &forust_ml::tree::Tree, i: usize| {
        let node = &node.nodes[i];
        let weight = f64::from(node.hessian_sum);
        // `start + value` in this order is what the trainer computes, to the last bit.
        let value = start + f64::from(node.weight_value);
        let split = (!node.is_leaf).then(|| Split {
            feature: node.split_feature,
            // The trainer sends `x < v` left; LightGBM `x <= t`.
            threshold: node.split_value.next_down(),
            nan_left: node.missing_node == node.left_child,
            gain: f64::from(node.split_gain),
            left: node.left_child,
            right: node.right_child,
        });
        Node { value, weight, count: (weight * rows_per_weight).round().max(1.0) as u64, split }
    };
    Tree { nodes: (0..tree.nodes.len()).map(|i| node(tree, i)).collect() }
}

/// What `metrics.json` holds.
fn report(booster: &GradientBooster, settings: &Settings, task: &Task, training: &Table, validation: &Table) -> Value {
    let data = Matrix::new(&validation.features, validation.rows, task.features.len());
    let sums = booster.predict(&data, true);
    json!({
        "rounds": booster.trees.len(),
        "best_iteration": kept_trees(booster),
        "validation": validation_metrics(task.objective, &validation.labels, &sums),
        "seed": settings.seed,
        "rows": { TRAIN: training.rows, VALIDATION: validation.rows },
    })
}

/// How good the kept trees are on rows they have not learned from, by the metrics of the objective.
fn validation_metrics(objective: Objective, labels: &[f64], sums: &[f64]) -> Value {
    match objective {
        Objective::Regression => json!({"rmse": metrics::rmse(labels, sums), "mae": metrics::mae(labels, sums)}),
        Objective::Binary => {
            let labels: Vec<bool> = labels.iter().map(|y| *y == 1.0).collect();
            let probabilities: Vec<f64> = sums.iter().map(|sum| 1.0 / (1.0 + (-sum).exp())).collect();
            json!({
                "auc": metrics::auc(&labels, &probabilities),
                "log_loss": metrics::log_loss(&labels, &probabilities),
                "accuracy": metrics::accuracy(&labels, &probabilities),
                "base_rate": metrics::base_rate(&labels),
            })
        }
    }
}
