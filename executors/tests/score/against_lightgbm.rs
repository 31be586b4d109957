//! The same models and rows, scored here and by LightGBM.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use featurectl_executors::score::Model;

/// What `train_models.py` trains.
const CASES: [&str; 9] = [
    "binary",
    "binary_steep",
    "regression",
    "missing",
    "zero_as_missing",
    "missing_unused",
    "random_forest",
    "random_forest_binary",
    "constant",
];

/// Lets LightGBM train and score into `folder`.
fn train(folder: &Path) {
    let Ok(python) = std::env::var("FEATURECTL_PYTHON") else {
        panic!("FEATURECTL_PYTHON names no Python with lightgbm: run the tests with `./test`");
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/score/train_models.py");
    let output = Command::new(python).arg(script).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The columns of a CSV file without a header.
fn columns(path: &Path) -> Vec<Vec<f64>> {
    let text = std::fs::read_to_string(path).unwrap();
    let rows: Vec<Vec<f64>> =
        text.lines().map(|line| line.split(',').map(|value| value.parse().unwrap()).collect()).collect();
    (0..rows[0].len()).map(|column| rows.iter().map(|row| row[column]).collect()).collect()
}

/// Compares one model's sums bit by bit and its predictions to 1e-15.
fn compare(folder: &Path, case: &str) {
    let model = Model::load(case, &folder.join(format!("{case}.txt"))).unwrap();
    let mut inputs = columns(&folder.join(format!("{case}.csv")));
    let predicted = inputs.pop().unwrap();
    let raw = inputs.pop().unwrap();
    let slices: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
    for (row, (ours, theirs)) in model.forest.raw(&slices).iter().zip(&raw).enumerate() {
        assert_eq!(ours.to_bits(), theirs.to_bits(), "{case}, row {row}: sum {ours} instead of {theirs}");
    }
    let arrays: Vec<ArrayRef> = inputs
        .iter()
        .map(|c| Arc::new(Float64Array::from_iter(c.iter().map(|v| (!v.is_nan()).then_some(*v)))) as _)
        .collect();
    let ours = model.predict(&arrays).unwrap();
    assert_eq!(ours.values().len(), predicted.len());
    for (row, (ours, theirs)) in ours.values().iter().zip(&predicted).enumerate() {
        let error = (ours - theirs).abs();
        assert!(error <= 1e-15 * theirs.abs(), "{case}, row {row}: prediction {ours} instead of {theirs}");
    }
}

#[test]
fn sums_are_equal_to_the_bit_and_probabilities_to_1e_15() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path());
    for case in CASES {
        compare(folder.path(), case);
    }
}

#[test]
fn models_that_are_not_supported_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path());
    for (case, message) in [
        ("categorical", "a categorical split cannot be scored here"),
        ("linear", "a linear tree cannot be scored here"),
        ("multiclass", "a multi-class model cannot be scored here"),
        ("poisson", "the objective `poisson` cannot be scored here"),
    ] {
        let e = Model::load(case, &folder.path().join(format!("{case}.txt"))).unwrap_err();
        assert!(e.to_string().contains(message), "{case}: {e}");
    }
}
