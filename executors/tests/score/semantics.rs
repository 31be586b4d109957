//! What a model means: splits, missing values, objectives, types.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int64Array, NullArray, StringArray, UInt8Array,
};
use featurectl_core::ErrorKind;
use featurectl_executors::score::{Forest, Missing, Model, Objective, Split, Tree};

use super::{model, model_text, small_text, tree_text};

#[test]
fn a_row_goes_left_up_to_the_threshold_and_sums_one_leaf_per_tree() {
    let model = model("m", &small_text("regression"));
    assert_eq!((model.features.as_slice(), model.forest.trees()), (["a".to_string(), "b".to_string()].as_slice(), 2));
    let a = [0.5, 0.5, 0.6, f64::NAN, f64::NAN];
    let b = [2.0, 2.1, 0.0, f64::NAN, 3.0];
    assert_eq!(model.forest.raw(&[&a, &b]), [1.25, 2.25, 4.25, 1.25, 2.25]);
}

/// The leaf 1 (left) or 2 (right) that each value reaches.
fn sides(missing: Missing, default_left: bool, threshold: f64, values: &[f64]) -> Vec<f64> {
    let split = Split { feature: 0, threshold, missing, default_left, left: -1, right: -2 };
    let mut forest = Forest::new(1);
    forest.push(&Tree { splits: vec![split], leaves: vec![1.0, 2.0] }).unwrap();
    forest.raw(&[values])
}

#[test]
fn each_kind_of_missing_value_takes_its_way() {
    let zero = f64::from(1e-35_f32);
    let beyond = zero.next_up();
    let values = [f64::NAN, 0.0, -0.0, zero, -zero, beyond, -beyond, 1.0, -1.0, f64::INFINITY, f64::NEG_INFINITY];
    let check = |missing, default_left, threshold, expected: [i32; 11]| {
        let expected: Vec<f64> = expected.iter().map(|side| f64::from(*side)).collect();
        let found = sides(missing, default_left, threshold, &values);
        assert_eq!(found, expected, "{missing:?}, default left: {default_left}, threshold {threshold}");
    };
    // The sides of:                  NaN  0 -0  z -z >z <-z 1 -1  ∞ -∞
    check(Missing::None, false, 0.5, [1, 1, 1, 1, 1, 1, 1, 2, 1, 2, 1]);
    check(Missing::None, true, -0.5, [2, 2, 2, 2, 2, 2, 2, 2, 1, 2, 1]);
    check(Missing::Zero, true, -0.5, [1, 1, 1, 1, 1, 2, 2, 2, 1, 2, 1]);
    check(Missing::Zero, false, 0.5, [2, 2, 2, 2, 2, 1, 1, 2, 1, 2, 1]);
    check(Missing::Nan, true, -0.5, [1, 2, 2, 2, 2, 2, 2, 2, 1, 2, 1]);
    check(Missing::Nan, false, 0.5, [2, 1, 1, 1, 1, 1, 1, 2, 1, 2, 1]);
    // LightGBM writes an infinite threshold where missing values are split from all others.
    check(Missing::Nan, false, f64::INFINITY, [2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
}

#[test]
fn the_decision_bits_are_read() {
    for (bits, missing, default_left) in
        [(0, Missing::None, false), (2, Missing::None, true), (4, Missing::Zero, false), (10, Missing::Nan, true)]
    {
        let text = model_text("regression", &[tree_text(0, &[(0, "0.5", bits, -1, -2)], "1 2")]);
        let split = Split { feature: 0, threshold: 0.5, missing, default_left, left: -1, right: -2 };
        let mut forest = Forest::new(2);
        forest.push(&Tree { splits: vec![split], leaves: vec![1.0, 2.0] }).unwrap();
        assert_eq!(model("m", &text).forest, forest);
    }
}

#[test]
fn rows_of_many_blocks_keep_their_order() {
    let model = model("m", &small_text("regression"));
    let a: Vec<f64> = (0..1000).map(|row| f64::from(row % 3)).collect();
    let raw = model.forest.raw(&[&a, &vec![9.0; 1000]]);
    assert!(raw.iter().enumerate().all(|(row, raw)| *raw == if row % 3 == 0 { 2.25 } else { 4.25 }));
    assert!(model.forest.raw(&[&[], &[]]).is_empty());
}

#[test]
fn a_binary_model_gives_probabilities_and_an_averaging_one_means() {
    let column = |value| Arc::new(Float64Array::from(vec![value])) as ArrayRef;
    let predict = |text: &str| model("m", text).predict(&[column(0.0), column(0.0)]).unwrap().value(0);
    let binary = small_text("binary sigmoid:0.7");
    assert_eq!(model("m", &binary).objective, Objective::Binary { sigmoid: 0.7 });
    assert_eq!(predict(&binary), 1.0 / (1.0 + (-0.7_f64 * 1.25).exp()));
    let average = small_text("regression").replace("feature_names", "average_output\nfeature_names");
    assert_eq!(predict(&average), 1.25 / 2.0);
}

/// What a regression on `a` alone gives for each value of `column`.
fn predict_column(column: ArrayRef) -> featurectl_core::Result<Vec<f64>> {
    let model = model("m", &small_text("regression"));
    let b = Arc::new(Float64Array::from(vec![0.0; column.len()]));
    Ok(model.predict(&[column, b])?.values().to_vec())
}

#[test]
fn any_number_or_boolean_is_a_feature_and_null_is_missing() {
    let columns: [ArrayRef; 5] = [
        Arc::new(Int64Array::from(vec![Some(0), Some(1), None])),
        Arc::new(UInt8Array::from(vec![Some(0), Some(1), None])),
        Arc::new(Float32Array::from(vec![Some(0.5), Some(0.75), Some(f32::NAN)])),
        Arc::new(Decimal128Array::from(vec![Some(50), Some(51), None]).with_precision_and_scale(10, 2).unwrap()),
        Arc::new(BooleanArray::from(vec![Some(false), Some(true), None])),
    ];
    for column in columns {
        assert_eq!(predict_column(column.clone()).unwrap(), [1.25, 4.25, 1.25], "{column:?}");
    }
    assert_eq!(predict_column(Arc::new(NullArray::new(2))).unwrap(), [1.25, 1.25]);
}

#[test]
fn a_sliced_column_is_read_from_its_offset() {
    let column: ArrayRef = Arc::new(Float64Array::from(vec![None, Some(1.0), Some(0.0), None]));
    assert_eq!(predict_column(column.slice(1, 2)).unwrap(), [4.25, 1.25]);
}

#[test]
fn what_cannot_be_a_feature_is_named() {
    let e = predict_column(Arc::new(StringArray::from(vec!["x"]))).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Invalid);
    assert_eq!(
        e.to_string(),
        "feature `a` of model `m` is Utf8, not a number or boolean: cast it, as in `CAST(a AS DOUBLE)`"
    );
    let model = model("m", &small_text("regression"));
    let (one, two): (ArrayRef, ArrayRef) = (Arc::new(NullArray::new(1)), Arc::new(NullArray::new(2)));
    let e = model.predict(std::slice::from_ref(&one)).unwrap_err();
    assert_eq!(e.to_string(), "model `m` takes 2 features, not 1: give it (a, b) in this order");
    let e = model.predict(&[one, two]).unwrap_err();
    assert_eq!(e.to_string(), "the features of model `m` have different numbers of rows");
}

#[test]
fn a_file_is_loaded_and_a_missing_one_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.txt");
    let e = Model::load("m", &path).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    assert!(e.to_string().starts_with("loading model `m` from `"), "{e}");
    std::fs::write(&path, small_text("regression")).unwrap();
    assert_eq!(Model::load("m", &path).unwrap(), model("m", &small_text("regression")));
}
