//! The built-in program, and its models in the real LightGBM.

use crate::data::Rows;
use crate::{gbdt, job, script};
use arrow::array::{BooleanArray, StringArray};
use expect_test::{Expect, expect};
use featurectl_core::Result;
use featurectl_trainer_bridge::launch;
use forust_ml::objective::ObjectiveType;
use forust_ml::{GradientBooster, Matrix};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

const CHANNELS: &[&str] = &["train", "validation"];

fn train(base: &Path, hyperparameters: &[(&str, &str)]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(launch(&job(base, CHANNELS, hyperparameters), &gbdt(), &mut |_| {}))
}

/// Writes both channels from seeded rows: 2,000 to train and 800 to validate.
fn channels(base: &Path) -> (Rows, Rows) {
    let (training, validation) = (Rows::generate(1, 2_000, 5), Rows::generate(2, 800, 5));
    training.write(base, "train");
    validation.write(base, "validation");
    (training, validation)
}

const FEATURES: &str = r#"["f0","f1","f2","f3","f4"]"#;
const BINARY: [(&str, &str); 3] = [("objective", "binary"), ("label", "late"), ("features", FEATURES)];

fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&BINARY, more].concat()
}

fn model(base: &Path) -> String {
    fs::read_to_string(base.join("model/model.txt")).unwrap()
}

fn report(base: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(base.join("output/data/metrics.json")).unwrap()).unwrap()
}

#[test]
fn the_same_rows_give_the_same_bytes_and_training_stops_early() {
    let settings = with(&[("subsample", "0.7"), ("seed", "3"), ("early_stopping_rounds", "5")]);
    let [first, second] = [(); 2].map(|()| {
        let dir = tempfile::tempdir().unwrap();
        channels(dir.path());
        train(dir.path(), &settings).unwrap();
        (model(dir.path()), report(dir.path()))
    });
    assert!(first == second, "two runs differ");
    let (model, report) = first;
    let (rounds, best) = (report["rounds"].as_u64().unwrap(), report["best_iteration"].as_u64().unwrap());
    assert_eq!(rounds, best + 5);
    assert!(rounds < 300, "{rounds}");
    assert_eq!(model.matches("Tree=").count() as u64, best);
    assert!(report["validation"]["auc"].as_f64().unwrap() > 0.8, "{report}");
    assert_eq!(report["rows"], serde_json::json!({"train": 2000, "validation": 800}));
    assert_eq!(report["seed"], 3);
}

#[test]
fn another_seed_gives_another_model() {
    let [first, second] = ["1", "2"].map(|seed| {
        let dir = tempfile::tempdir().unwrap();
        channels(dir.path());
        train(dir.path(), &with(&[("subsample", "0.7"), ("seed", seed)])).unwrap();
        model(dir.path())
    });
    assert!(first != second);
}

/// Trains and expects the failure that `output/failure` then holds.
fn check_failure(prepare: impl FnOnce(&Path), hyperparameters: &[(&str, &str)], expected: Expect) {
    let dir = tempfile::tempdir().unwrap();
    channels(dir.path());
    prepare(dir.path());
    let error = train(dir.path(), hyperparameters).unwrap_err().to_string();
    let failure = fs::read_to_string(dir.path().join("output/failure")).unwrap();
    assert!(error.starts_with("training job `late-arrival`: the program ended with exit code 1: "), "{error}");
    assert!(error.contains(&failure), "{error}");
    expected.assert_eq(&failure.replace(&dir.path().display().to_string(), "<base>"));
}

#[test]
fn labels_must_be_there_and_of_two_classes() {
    let late = |base: &Path, late: BooleanArray| Rows::generate(1, 100, 5).write_with(base, "train", Arc::new(late));
    let one: BooleanArray = (0..100).map(|_| Some(true)).collect();
    check_failure(
        |base| late(base, one),
        &BINARY,
        expect![
            "reading channel `train`: label `late` is 1 in all 100 rows, so there is nothing to learn: choose rows with both outcomes"
        ],
    );
    let some: BooleanArray = (0..100).map(|i| (i >= 12).then_some(i % 2 == 0)).collect();
    check_failure(
        |base| late(base, some),
        &BINARY,
        expect![
            "reading channel `train`: label `late` is NULL in 12 of 100 rows: keep only rows WHERE late IS NOT NULL"
        ],
    );
    let text = StringArray::from(vec!["yes"; 100]);
    let write = |base: &Path| Rows::generate(1, 100, 5).write_with(base, "train", Arc::new(text));
    check_failure(
        write,
        &BINARY,
        expect![
            "reading channel `train`: reading `<base>/input/data/train/part-0.parquet`: column `late` is Utf8: turn it into a number or leave it out"
        ],
    );
    check_failure(
        |_| {},
        &[("objective", "binary"), ("label", "delay"), ("features", r#"["f0"]"#)],
        expect![
            "reading channel `train`: label `delay` is -0.38341037546386625 in a row, neither 0 nor 1: make it a boolean, or train with objective `regression`"
        ],
    );
}

#[test]
fn settings_are_checked() {
    check_failure(
        |_| {},
        &with(&[("learning_rat", "0.1")]),
        expect!["no hyperparameter `learning_rat`: did you mean `learning_rate`?"],
    );
    check_failure(
        |_| {},
        &with(&[("xyz", "1")]),
        expect![
            "no hyperparameter `xyz`: choose from rounds, learning_rate, max_depth, max_leaves, min_leaf_weight, l2, subsample, seed, early_stopping_rounds, nbins"
        ],
    );
    check_failure(
        |_| {},
        &with(&[("rounds", "many")]),
        expect!["`rounds` is `many`: give a whole number from 1 to 100000"],
    );
    check_failure(
        |_| {},
        &with(&[("subsample", "1.5")]),
        expect!["`subsample` is `1.5`: give a number from 0.000001 to 1"],
    );
    check_failure(
        |_| {},
        &[("objective", "binary"), ("label", "late")],
        expect!["hyperparameter `features` is missing: give it a value"],
    );
    check_failure(
        |_| {},
        &[("objective", "rank"), ("label", "late")],
        expect!["`objective` is `rank`: give `binary` or `regression`"],
    );
    let task = |features| [("objective", "binary"), ("label", "late"), ("features", features)];
    check_failure(
        |_| {},
        &task(r#"["f0","late"]"#),
        expect!["label `late` is also a feature: remove it from `features`"],
    );
    check_failure(
        |_| {},
        &task(r#"["f 0"]"#),
        expect![[
            r#"`f 0` cannot be a feature's name: rename it without spaces and `",:[]{}`, which a LightGBM model cannot hold"#
        ]],
    );
    check_failure(
        |_| {},
        &task(r#"["f0","f11"]"#),
        expect![
            "reading channel `train`: reading `<base>/input/data/train/part-0.parquet`: no column `f11`: did you mean `f1`?"
        ],
    );
    check_failure(
        |_| {},
        &task("f0,f1"),
        expect![[
            r#"`features` is no JSON list of names (expected ident at line 1 column 2): give one like ["a","b"]"#
        ]],
    );
}

#[test]
fn what_is_not_parquet_or_not_finite_is_named() {
    let break_file = |base: &Path| fs::write(base.join("input/data/train/part-1.parquet"), "no").unwrap();
    check_failure(
        break_file,
        &BINARY,
        expect![
            "reading channel `train`: reading `<base>/input/data/train/part-1.parquet`: EOF: Parquet file too small. Size is 2 but need 8: write Parquet files only to a channel"
        ],
    );
    let infinite = |base: &Path| {
        let mut rows = Rows::generate(1, 100, 5);
        rows.columns[2][7] = f64::INFINITY;
        rows.write(base, "train");
    };
    check_failure(
        infinite,
        &BINARY,
        expect!["reading channel `train`: column `f2` is infinite in 1 rows: turn it into NULL or a finite number"],
    );
}

/// Predicts with the real LightGBM: `rows` column after column, `NaN` where missing.
const LIGHTGBM: &str = r#"
import json, sys
import lightgbm, numpy
model, rows = sys.argv[1], json.load(open(sys.argv[2]))
booster = lightgbm.Booster(model_file=model)
x = numpy.array([[numpy.nan if v is None else v for v in c] for c in rows], dtype=numpy.float64).T
json.dump({
    "names": booster.feature_name(),
    "trees": booster.num_trees(),
    "raw": booster.predict(x, raw_score=True).tolist(),
    "response": booster.predict(x).tolist(),
    "contributions": booster.predict(x, pred_contrib=True).sum(axis=1).tolist(),
    "text": booster.model_to_string(),
}, open(sys.argv[3], "w"))
"#;

fn lightgbm(base: &Path, columns: &[Vec<f64>]) -> Value {
    let python = std::env::var_os("FEATURECTL_PYTHON")
        .expect("FEATURECTL_PYTHON names no Python with lightgbm and numpy: run `./test`, which makes one");
    let (rows, result) = (base.join("rows.json"), base.join("result.json"));
    fs::write(&rows, serde_json::to_string(columns).unwrap()).unwrap();
    let model = base.join("model/model.txt");
    let status = Command::new(python).arg(script(base, LIGHTGBM)).args([&model, &rows, &result]).status().unwrap();
    assert!(status.success(), "LightGBM did not load the model");
    serde_json::from_str(&fs::read_to_string(result).unwrap()).unwrap()
}

/// Trains the same model in this process, to have the trainer's own predictions.
fn booster(objective: ObjectiveType, training: &Rows, validation: &Rows) -> GradientBooster {
    let label = |rows: &Rows| -> Vec<f64> {
        match objective {
            ObjectiveType::LogLoss => (0..rows.target.len()).map(|row| f64::from(rows.is_positive(row))).collect(),
            ObjectiveType::SquaredLoss => rows.target.clone(),
        }
    };
    let (y, y_held_out) = (label(training), label(validation));
    let (x, x_held_out) = (training.matrix(), validation.matrix());
    let weights = vec![1.0; y_held_out.len()];
    let mut booster = GradientBooster::default()
        .set_objective_type(objective)
        .set_iterations(300)
        .set_learning_rate(0.1)
        .set_max_depth(6)
        .set_early_stopping_rounds(Some(20))
        .set_tiled_histograms(true)
        .set_parallel(false);
    let held_out = Matrix::new(&x_held_out, y_held_out.len(), validation.names.len());
    let data = Matrix::new(&x, y.len(), training.names.len());
    booster.fit_unweighted(&data, &y, Some(vec![(held_out, &y_held_out, &weights)])).unwrap();
    booster
}

/// Seeded rows, and every threshold of the model with its neighbours, in each column in turn; the rest missing.
fn probes(model: &str) -> Vec<Vec<f64>> {
    let mut columns = Rows::generate(9, 3_000, 5).columns;
    let numbers = |line: &str| line.split(' ').filter_map(|x| x.parse().ok()).collect::<Vec<f64>>();
    let thresholds = model.lines().filter_map(|line| line.strip_prefix("threshold=")).flat_map(numbers);
    let features = model.lines().filter_map(|line| line.strip_prefix("split_feature=")).flat_map(numbers);
    for (threshold, feature) in thresholds.zip(features) {
        for x in [threshold, threshold.next_up(), threshold.next_down()] {
            // LightGBM takes what is closer to zero than 1e-35 for zero.
            let x = if x.abs() <= 1e-35 { 0.0 } else { x };
            for (i, column) in columns.iter_mut().enumerate() {
                column.push(if i == feature as usize { x } else { f64::NAN });
            }
        }
    }
    columns
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn check_close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    println!("{what}: {} rows differ by at most {worst:e}", got.len());
    assert!(worst <= tolerance, "{what} differ by {worst:e}");
}

fn check_lightgbm(objective: ObjectiveType, settings: &[(&str, &str)]) {
    let dir = tempfile::tempdir().unwrap();
    let (training, validation) = channels(dir.path());
    train(dir.path(), settings).unwrap();
    let columns = probes(&model(dir.path()));
    let rows = columns[0].len();
    let is_binary = matches!(objective, ObjectiveType::LogLoss);
    let own = booster(objective, &training, &validation).predict(&Matrix::new(&columns.concat(), rows, 5), false);
    let theirs = lightgbm(dir.path(), &columns);

    assert_eq!(theirs["names"], serde_json::json!(["f0", "f1", "f2", "f3", "f4"]));
    assert_eq!(theirs["trees"], report(dir.path())["best_iteration"]);
    check_close("sums", &numbers(&theirs["raw"]), &own, 1e-12);
    let response = |sum: &f64| if is_binary { 1.0 / (1.0 + (-sum).exp()) } else { *sum };
    let expected: Vec<f64> = own.iter().map(response).collect();
    check_close("responses", &numbers(&theirs["response"]), &expected, 1e-12);
    check_close("contributions", &numbers(&theirs["contributions"]), &own, 1e-9);
}

#[test]
fn lightgbm_predicts_what_the_trainer_does_for_a_class() {
    check_lightgbm(ObjectiveType::LogLoss, &BINARY);
}

#[test]
fn lightgbm_predicts_what_the_trainer_does_for_a_number() {
    let settings = [("objective", "regression"), ("label", "delay"), ("features", FEATURES)];
    check_lightgbm(ObjectiveType::SquaredLoss, &settings);
}

#[test]
fn lightgbm_loads_trees_of_one_leaf() {
    let dir = tempfile::tempdir().unwrap();
    channels(dir.path());
    train(dir.path(), &with(&[("min_leaf_weight", "100000"), ("rounds", "2"), ("early_stopping_rounds", "0")]))
        .unwrap();
    assert!(model(dir.path()).contains("num_leaves=1\n"));
    let theirs = lightgbm(dir.path(), &vec![vec![0.5, f64::NAN]; 5]);
    let log_odds = numbers(&theirs["raw"]);
    assert_eq!(theirs["trees"], 2);
    assert_eq!(log_odds[0], log_odds[1]);
    let base_rate = (0..2_000).filter(|row| Rows::generate(1, 2_000, 5).is_positive(*row)).count() as f64 / 2_000.0;
    check_close("responses", &numbers(&theirs["response"])[..1], &[base_rate], 1e-6);
}

#[test]
fn lightgbm_loads_trees_grown_best_first_from_missing_values_only() {
    let dir = tempfile::tempdir().unwrap();
    for (channel, seed) in [("train", 5), ("validation", 6)] {
        let mut rows = Rows::generate(seed, 500, 5);
        rows.columns[3].fill(f64::NAN);
        rows.columns[4] = (0..500).map(|row| if rows.is_positive(row) { 7.0 } else { f64::NAN }).collect();
        rows.write(dir.path(), channel);
    }
    train(dir.path(), &with(&[("max_leaves", "5"), ("min_leaf_weight", "0")])).unwrap();
    let columns =
        vec![vec![f64::NAN; 2], vec![f64::NAN; 2], vec![f64::NAN; 2], vec![f64::NAN, 0.0], vec![7.0, f64::NAN]];
    let response = numbers(&lightgbm(dir.path(), &columns)["response"]);
    assert!(response[0] > 0.9 && response[1] < 0.1, "{response:?}");
}

/// How long training takes: `cargo test --release -p featurectl-trainer-bridge -- --ignored --nocapture seconds`.
#[test]
#[ignore = "a measurement for release builds"]
fn seconds_for_235_000_rows_of_45_features() {
    let dir = tempfile::tempdir().unwrap();
    let (training, validation) = (Rows::generate(1, 235_000, 45), Rows::generate(2, 50_000, 45));
    training.write(dir.path(), "train");
    validation.write(dir.path(), "validation");
    let features = training.features();
    let settings =
        [("objective", "binary"), ("label", "late"), ("features", features.as_str()), ("early_stopping_rounds", "0")];
    let start = std::time::Instant::now();
    train(dir.path(), &settings).unwrap();
    println!("{:.1} s, {}", start.elapsed().as_secs_f64(), report(dir.path()));
}
