//! Models that XGBoost trained, against what XGBoost predicts: sums equal to the bit; models written by hand, and
//! damaged files.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type};
use featurectl_core::ErrorKind;
use featurectl_executors::score::{Body, Forest, Link, Missing, Model, Scorer, Test};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

/// The models, rows and predictions that `generate.py` made.
fn folder() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/score/fixtures/xgboost");
    if package.exists() { package } else { Path::new(file!()).with_file_name("fixtures/xgboost") }
}

/// A model that the library trained, and the rows that it is asked about.
struct Case {
    name: String,
    model: Model,
    rows: Vec<Vec<f64>>,
}

/// All cases of `cases.json`.
fn cases() -> Vec<Case> {
    let text = std::fs::read(folder().join("cases.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&text).unwrap();
    let case = |case: &Value| {
        let name = case["name"].as_str().unwrap().to_string();
        let model = load(case["file"].as_str().unwrap());
        let rows = rows(case["rows"].as_str().unwrap(), &model);
        Case { name, model, rows }
    };
    cases.iter().map(case).collect()
}

fn load(file: &str) -> Model {
    Model::load(file, &folder().join(file)).unwrap_or_else(|e| panic!("{e}"))
}

/// The rows of a file as the model takes them: texts as the numbers of their categories, NULL as NaN.
fn rows(file: &str, model: &Model) -> Vec<Vec<f64>> {
    let mut rows = Vec::new();
    for columns in batches(file, |_| true) {
        let number = |i: usize, column: &dyn Array| match column.data_type() {
            DataType::Utf8 => {
                let names = model.categories[i].as_ref().unwrap();
                let code = |text| names.iter().position(|name| name == text).unwrap() as f64;
                column.as_string::<i32>().iter().map(|text| text.map_or(f64::NAN, code)).collect()
            }
            _ => column.as_primitive::<Float64Type>().iter().map(|x| x.unwrap_or(f64::NAN)).collect::<Vec<_>>(),
        };
        let columns: Vec<_> = columns.iter().enumerate().map(|(i, column)| number(i, column)).collect();
        rows.extend((0..columns[0].len()).map(|row| columns.iter().map(|column| column[row]).collect::<Vec<f64>>()));
    }
    rows
}

/// The columns of a file whose names are `wanted`, batch by batch.
fn batches(file: &str, wanted: impl Fn(&str) -> bool) -> Vec<Vec<arrow::array::ArrayRef>> {
    let file = File::open(folder().join(file)).unwrap();
    let columns = |batch: arrow::array::RecordBatch| {
        let schema = batch.schema();
        let pairs = schema.fields().iter().zip(batch.columns());
        pairs.filter(|(field, _)| wanted(field.name())).map(|(_, column)| column.clone()).collect()
    };
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    reader.map(|batch| columns(batch.unwrap())).collect()
}

/// What the library gave for each row, by the prefix of the columns; `None`: it refuses the row.
fn theirs(case: &Case, prefix: &str) -> Vec<Vec<Option<f64>>> {
    let mut rows = Vec::new();
    for columns in batches(&format!("{}.parquet", case.name), |name| name.starts_with(prefix)) {
        let numbers = |column: &arrow::array::ArrayRef| match column.as_primitive_opt::<Float32Type>() {
            Some(floats) => floats.iter().map(|x| x.map(f64::from)).collect(),
            None => column.as_primitive::<Int32Type>().iter().map(|x| x.map(f64::from)).collect::<Vec<_>>(),
        };
        let columns: Vec<_> = columns.iter().map(numbers).collect();
        let count = columns.first().map_or(0, Vec::len);
        rows.extend((0..count).map(|row| columns.iter().map(|column| column[row]).collect::<Vec<_>>()));
    }
    rows
}

/// Compares `ours` with the library's columns `prefix`, and panics at the first row for which `same` fails.
fn compare(prefix: &str, ours: impl Fn(&Model, &[f64]) -> Vec<f64>, same: impl Fn(Link, f64, f64) -> bool) {
    for case in cases() {
        let (name, theirs) = (&case.name, theirs(&case, prefix));
        assert_eq!(case.rows.len(), theirs.len(), "{name}: rows");
        assert!(theirs.iter().filter(|row| row[0].is_some()).count() > 500, "{name}: too few rows");
        for (number, (row, theirs)) in case.rows.iter().zip(&theirs).enumerate() {
            let ours = ours(&case.model, row);
            assert_eq!(ours.len(), theirs.len(), "{name}, row {number}: {prefix} columns");
            for (ours, theirs) in ours.iter().zip(theirs) {
                let Some(theirs) = theirs else { continue };
                assert!(
                    same(case.model.link, *ours, *theirs),
                    "{name}, row {number}: {ours:?}, not {theirs:?}, of {row:?}"
                );
            }
        }
    }
}

fn same_bits(ours: f64, theirs: f64) -> bool {
    ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan()
}

/// Not more than two 32-bit floats apart, or both as good as 0: XGBoost's sigmoid ends at 3e-39. Its softmax rounds
/// the difference of two margins to 32 bits first, which shows the more, the greater it is.
fn near(link: Link, ours: f64, theirs: f64) -> bool {
    let (a, b) = (ours as f32, theirs as f32);
    let apart = (i64::from(a.to_bits()) - i64::from(b.to_bits())).abs() as f64;
    let allowed = if link == Link::Softmax { 3.0 - theirs.ln() } else { 2.0 };
    same_bits(a.into(), b.into()) || apart <= allowed || (a - b).abs() <= 1e-37
}

fn forest(model: &Model) -> &Forest {
    match &model.body {
        Body::Forest(before, forest) if before.is_empty() => forest,
        body => panic!("no forest: {body:?}"),
    }
}

#[test]
fn margins_are_xgboosts_to_the_bit() {
    compare("raw_", |model, row| model.margins(row), |_, ours, theirs| same_bits(ours, theirs));
}

#[test]
fn predictions_are_xgboosts_to_two_roundings() {
    compare("prediction_", |model, row| model.predictions(row), near);
}

#[test]
fn contributions_are_xgboosts_to_what_32_bits_hold() {
    let mut compared = 0;
    for case in cases() {
        let theirs = theirs(&case, "contribution_");
        if theirs.first().is_none_or(Vec::is_empty) {
            continue;
        }
        let columns: Vec<ArrayRef> = (0..case.rows[0].len())
            .map(|feature| -> ArrayRef {
                Arc::new(Float64Array::from_iter_values(case.rows.iter().map(|row| row[feature])))
            })
            .collect();
        let ours = Scorer::new(case.model).contributions(&columns).unwrap();
        for (row, theirs) in theirs.iter().enumerate().filter(|(_, theirs)| theirs[0].is_some()) {
            let ours = ours.as_list::<i32>().value(row);
            let ours = ours.as_primitive::<Float64Type>().values();
            assert_eq!(ours.len(), theirs.len(), "{}, row {row}", case.name);
            let near = |(a, b): (&f64, &Option<f64>)| b.is_some_and(|b| (a - b).abs() <= 2e-5 * (1.0 + b.abs()));
            assert!(ours.iter().zip(theirs).all(near), "{}, row {row}: {ours:?} instead of {theirs:?}", case.name);
            compared += 1;
        }
    }
    assert!(compared >= 60, "{compared} rows");
}

#[test]
fn leaves_are_numbered_in_the_order_of_the_librarys_nodes() {
    let mut compared = 0;
    for case in cases().iter().filter(|case| matches!(case.model.body, Body::Forest(..))) {
        let (forest, nodes) = (forest(&case.model), theirs(case, "leaf_"));
        for tree in 0..nodes.first().map_or(0, Vec::len) {
            let mut leaf_of = BTreeMap::new();
            for (row, nodes) in case.rows.iter().zip(&nodes) {
                let Some(node) = nodes[tree] else { continue };
                let leaf = forest.trees()[tree].leaf(|f| forest.rounded(row[f as usize]));
                assert_eq!(*leaf_of.entry(node as u32).or_insert(leaf), leaf, "{}, tree {tree}: {row:?}", case.name);
                compared += 1;
            }
            let leaves: Vec<_> = leaf_of.into_values().collect();
            assert!(leaves.is_sorted_by(|a, b| a < b), "{}, tree {tree}: {leaves:?}", case.name);
        }
    }
    assert!(compared > 50_000, "{compared}");
}

#[test]
fn there_are_cases_of_all_versions_and_formats() {
    let formats: Vec<_> = cases().into_iter().map(|case| case.model.format).collect();
    assert!(formats.len() >= 26, "{}", formats.len());
    for version in ["XGBoost v1.0.2", "XGBoost v1.7.6", "XGBoost v2.0.3", "XGBoost v3.2.0"] {
        assert!(formats.iter().any(|format| format == version), "no case of {version}");
    }
}

#[test]
fn names_links_and_categories_are_read() {
    let logistic = load("logistic.json");
    assert_eq!(logistic.features[1], "feature 1 ö");
    assert_eq!((logistic.objective.as_str(), logistic.link), ("binary:logistic", Link::Sigmoid { steepness: 1.0 }));
    assert_eq!(load("squarederror.ubj").features[..2], ["f0", "f1"]);
    assert_eq!(load("softmax_stopped.json").link, Link::Argmax);
    let strings = load("strings.ubj");
    let names: Vec<_> =
        strings.categories.iter().map(|names| names.as_ref().map(|names| names[..3].to_vec())).collect();
    assert_eq!(names, [Some(vec!["q\"0\\".to_string(), "c01".to_string(), "c02".to_string()]), None, None, None]);
    assert_eq!(strings.categories, load("strings_text.json").categories);
}

#[test]
fn training_that_stopped_early_counts_up_to_its_best_iteration() {
    for (file, trees) in [("stopped.ubj", 1), ("v1_stopped_forest.json", 3), ("softmax_stopped.json", 6)] {
        let bytes = std::fs::read(folder().join(file)).unwrap();
        let model = load(file);
        let kept = forest(&model).trees().len();
        assert!(kept > 0 && kept.is_multiple_of(trees), "{file}: {kept}");
        if let Ok(mut value) = serde_json::from_slice::<Value>(&bytes) {
            value["learner"]["attributes"] = json!({});
            let all = forest(&parse(&value).unwrap()).trees().len();
            assert!(all > kept, "{file}: all {all} trees are kept");
        }
    }
}

// ---------------------------------------------------------------------------------------------- models written by hand

/// A model of one feature `x` and these trees.
fn model(trees: &[Value]) -> Value {
    json!({
        "learner": {
            "attributes": {}, "feature_names": ["x"], "feature_types": ["float"],
            "gradient_booster": {"name": "gbtree", "model": {
                "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": trees.len().to_string()},
                "tree_info": vec![0; trees.len()], "trees": trees,
                "iteration_indptr": (0..=trees.len()).collect::<Vec<_>>(),
            }},
            "learner_model_param": {"base_score": "0E0", "num_class": "0", "num_feature": "1", "num_target": "1"},
            "objective": {"name": "reg:squarederror"}
        },
        "version": [2, 1, 0]
    })
}

/// `x < split`: 1, else 2.
fn stump(split: f64) -> Value {
    json!({
        "left_children": [1, -1, -1], "right_children": [2, -1, -1], "split_indices": [0, 0, 0],
        "split_conditions": [split, 1.0, 2.0], "default_left": [1, 0, 0], "tree_param": {"num_nodes": "3"}
    })
}

/// Asks for the categories 1 and 3: 2 if it is one of them, else 1.
fn set() -> Value {
    let mut tree = stump(0.0);
    for (key, value) in [
        ("split_type", json!([1, 0, 0])),
        ("categories", json!([1, 3])),
        ("categories_nodes", json!([0])),
        ("categories_segments", json!([0])),
        ("categories_sizes", json!([2])),
    ] {
        tree[key] = value;
    }
    tree
}

fn parse(value: &Value) -> featurectl_core::Result<Model> {
    Model::from_bytes("m", &serde_json::to_vec(value).unwrap())
}

/// `value` with `new` at the path.
fn with(mut value: Value, path: &str, new: Value) -> Value {
    let place = path.split('.').fold(&mut value, |place, key| match key.parse::<usize>() {
        Ok(index) => &mut place[index],
        Err(_) => &mut place[key],
    });
    *place = new;
    value
}

const TREES: &str = "learner.gradient_booster.model.trees";
const FEATURES: &str = "learner.learner_model_param.num_feature";
const BASE: &str = "learner.learner_model_param.base_score";

#[test]
fn less_than_is_exact_around_every_threshold() {
    let at = |split: f64, x: f64| parse(&model(&[stump(split)])).unwrap().margins(&[x])[0];
    for (split, below, not_below) in [
        (0.0, -1e-45, -0.0),
        (1.5, 1.4999999, 1.5),
        // Rounded to 32 bits, it is the threshold.
        (1.5, 1.4999998, 1.4999999999),
        (-3.4028235e38, f64::NEG_INFINITY, -3.4028235e38),
        (1e39, 3.4e38, f64::INFINITY),
    ] {
        assert_eq!((at(split, below), at(split, not_below)), (1.0, 2.0), "{split}");
    }
    assert_eq!(at(-1e39, f64::NEG_INFINITY), 2.0, "nothing is below minus infinity");
    assert_eq!(at(1.5, f64::NAN), 1.0);
}

#[test]
fn categories_of_the_set_go_right() {
    let model = parse(&model(&[set()])).unwrap();
    let right = [1.0, 1.9, 3.0, 3.5];
    let left = [0.0, -0.0, 2.0, 4.0, -1.0, -1.5, 0.99, 1e9, 1e39, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    assert!(right.iter().all(|x| model.margins(&[*x]) == [2.0]));
    assert!(left.iter().all(|x| model.margins(&[*x]) == [1.0]));
    let split = &forest(&model).trees()[0].splits[0];
    assert_eq!((&split.test, split.missing), (&Test::category_in(&[1, 3], false), Missing::Right));
}

#[test]
fn categories_that_are_numbers_are_asked_for_as_such() {
    let cats = json!({"enc": [{"type": 15, "values": [-30, 0, 10, 20, 21]}]});
    let model = parse(&with(model(&[set()]), "learner.gradient_booster.model.cats", cats)).unwrap();
    assert!(model.categories.is_empty());
    let twos: Vec<_> = (-40..40).filter(|x| model.margins(&[f64::from(*x)]) == [2.0]).collect();
    assert_eq!(twos, [0, 20]);
    assert_eq!(model.margins(&[20.5]), [1.0]);
}

#[test]
fn the_base_score_becomes_a_margin() {
    let margin = |objective: &str, base: &str| {
        let model = with(model(&[]), "learner.objective.name", objective.into());
        parse(&with(model, BASE, base.into())).unwrap().margins(&[0.0])[0] as f32
    };
    assert_eq!(margin("reg:squarederror", "5E-1"), 0.5);
    assert_eq!(margin("binary:logistic", "[2.5E-1]"), -3f32.ln());
    assert_eq!(margin("binary:logistic", "0E0"), -(1.0 / 1e-6f32 - 1.0).ln());
    assert_eq!(margin("binary:logitraw", "2.5E-1"), 0.25);
    assert_eq!(margin("reg:gamma", "[ 4E0 ]"), 4f32.ln());
    assert_eq!(margin("rank:map", "5E-1"), 0.5);
    let three = with(model(&[]), "learner.learner_model_param.num_target", "3".into());
    assert_eq!(parse(&with(three.clone(), BASE, "[1E0,2E0,3E0]".into())).unwrap().margins(&[0.0]), [1.0, 2.0, 3.0]);
    assert_eq!(parse(&with(three, BASE, "7E0".into())).unwrap().margins(&[0.0]), [7.0, 7.0, 7.0]);
}

#[test]
fn the_first_versions_tell_the_size_of_an_iteration_by_the_limit_of_trees() {
    let trees: Vec<_> = (0..6).map(|_| stump(0.0)).collect();
    let mut old = model(&trees);
    old["learner"]["gradient_booster"]["model"].as_object_mut().unwrap().remove("iteration_indptr");
    old["learner"]["gradient_booster"]["model"]["gbtree_model_param"] = json!({"num_trees": "6"});
    let kept = |attributes| {
        let model = parse(&with(old.clone(), "learner.attributes", attributes)).unwrap();
        forest(&model).trees().len()
    };
    assert_eq!(kept(json!({})), 6);
    assert_eq!(kept(json!({"best_iteration": "1"})), 2);
    assert_eq!(kept(json!({"best_iteration": "1", "best_ntree_limit": "4"})), 4);
    assert_eq!(kept(json!({"best_iteration": "18446744073709551615"})), 6);
}

#[test]
fn weights_of_trees_stand_in_the_booster_or_since_3_4_in_the_model() {
    let sum = |path: &str| {
        let weighted = with(model(&[stump(0.0), stump(1.0)]), path, json!([0.1, 3]));
        parse(&weighted).unwrap().margins(&[0.5])[0] as f32
    };
    assert_eq!(sum("learner.gradient_booster.weight_drop"), 2.0 * 0.1f32 + 3.0);
    assert_eq!(sum("learner.gradient_booster.model.weight_drop"), 2.0 * 0.1f32 + 3.0);
}

#[test]
fn nodes_that_no_one_leads_to_are_left_out() {
    let tree = json!({
        "left_children": [4, 0, -1, -1, -1], "right_children": [2, 9, -1, -1, -1],
        "split_indices": [0, 2147483647, 0, 2147483647, 0], "split_conditions": [0.5, 0, 2, 0, 1],
        "default_left": [false, 0, 0, 0, 0], "tree_param": {"num_nodes": "5"}
    });
    let model = parse(&model(&[tree])).unwrap();
    let tree = &forest(&model).trees()[0];
    assert_eq!((&tree.leaves[..], tree.splits[0].left, tree.splits[0].right), (&[2.0, 1.0][..], !1, !0));
    assert_eq!((model.margins(&[0.0]), model.margins(&[f64::NAN])), (vec![1.0], vec![2.0]));
}

// ------------------------------------------------------------------------------------------------------------- refused

/// Expects an error of `kind` that contains `message`.
fn refuse(kind: ErrorKind, bytes: &[u8], message: &str) {
    match Model::from_bytes("m", bytes) {
        Ok(_) => panic!("loaded, instead of: {message}"),
        Err(e) => {
            assert!(e.to_string().contains(message), "`{e}` does not say `{message}`");
            assert_eq!(e.kind(), kind, "{e}");
        }
    }
}

fn refuse_value(kind: ErrorKind, value: &Value, message: &str) {
    refuse(kind, &serde_json::to_vec(value).unwrap(), message);
}

#[test]
fn what_is_not_supported_is_said() {
    let invalid = |path: &str, new: Value, message| {
        refuse_value(ErrorKind::Invalid, &with(model(&[set()]), path, new), message);
    };
    invalid("learner.objective.name", "reg:expectileerror".into(), "`reg:expectileerror` cannot be scored here");
    invalid("learner.gradient_booster.name", "gbforest".into(), "the booster `gbforest` cannot be scored here");
    invalid("learner.learner_model_param.num_class", "70000".into(), "70000 outputs cannot be scored here");
    let cats = |values: Value| json!({"enc": [values]});
    let place = "learner.gradient_booster.model.cats";
    invalid(place, cats(json!({"offsets": [0, 1, 3], "values": [97, -61, -92]})), "letters that are not ASCII");
    invalid(place, cats(json!({"type": 15, "values": [1, 1i64 << 40]})), "whole numbers beyond 16777216");
    let unnamed = with(with(model(&[]), "learner.feature_names", json!([])), FEATURES, "4294967295".into());
    let mut quantiles = with(model(&[]), "learner.objective.name", "reg:quantileerror".into());
    quantiles["learner"]["learner_model_param"]["num_target"] = "2".into();
    assert!(parse(&quantiles).is_ok());
    refuse_value(ErrorKind::Invalid, &with(quantiles, "version", json!([3, 5, 0])), "several quantiles of XGBoost 3.5");
    refuse_value(ErrorKind::Invalid, &unnamed, "4294967295 features without names cannot be scored here");
}

#[test]
fn the_old_binary_format_is_told_apart() {
    refuse(ErrorKind::Invalid, b"binf\x9a\x99\x99>\x03\0\0\0", "save it as JSON");
    let mut first = vec![0u8; 136];
    first.splice(..4, 0.3f32.to_le_bytes());
    first.extend(15u64.to_le_bytes());
    first.extend(b"binary:logistic\x06\0\0\0\0\0\0\0gbtree");
    refuse(ErrorKind::Invalid, &first, "save it as JSON");
}

#[test]
fn damage_is_said_with_its_place() {
    let damaged = |path: &str, new: Value, message: &str| {
        refuse_value(ErrorKind::Data, &with(model(&[stump(0.0), set()]), path, new), message);
    };
    let tree = |path: &str, new: Value, message: &str| damaged(&format!("{TREES}.1.{path}"), new, message);
    damaged(BASE, "zero".into(), "learner.learner_model_param.base_score: `\"zero\"` is no base score");
    damaged(BASE, "[1E0,2E0]".into(), "1 outputs have 2 base scores");
    damaged("learner.feature_names", json!(["x", "y"]), "1 features have 2 names");
    let twice = with(with(model(&[]), "learner.feature_names", json!(["x", "x"])), FEATURES, "2".into());
    refuse_value(ErrorKind::Data, &twice, "the feature `x` is named twice");
    damaged("learner.gradient_booster.model.tree_info", json!([0]), "it has 2 trees, 1 in `tree_info`, but claims 2");
    damaged("learner.gradient_booster.model.tree_info", json!([0, 1]), "it adds to output 1, but there are 1");
    damaged("learner.gradient_booster.weight_drop", json!([1]), "2 trees have 1 weights");
    damaged("learner.attributes", json!({"best_iteration": "x"}), "is not a whole number from 0");
    tree("left_children", json!([1, -1]), "trees[1]: 3 nodes have columns of [2, 3, 3, 3, 3] values");
    tree("left_children", json!([0, -1, -1]), "trees[1]: two ways lead to node 0: it is no tree");
    tree("left_children", json!([2, -1, -1]), "trees[1]: two ways lead to node 2");
    tree("left_children.0", json!(7), "trees[1]: node 0 leads to 7 of 3 nodes");
    tree("left_children.0", json!("one"), "trees[1].left_children[0]: `\"one\"` is not a whole number");
    tree("split_conditions.1", json!(1e300), "the value of leaf 0 is not a finite number");
    tree("split_conditions.2", Value::Null, "the value of leaf 1 is not a finite number");
    tree("split_indices.0", json!(-1), "node 0: no feature -1");
    tree("split_indices.0", json!(1), "split 0 reads feature 1, but there are 1 features");
    tree("categories_nodes", json!([9]), "the categories of node 9: there is no such node");
    tree("categories_sizes", json!([3]), "the categories of node 0: there are fewer than it says");
    tree("categories_segments", json!([1]), "the categories of node 0: they don't follow those of the node before");
    tree("categories", json!([1, 16777216]), "the categories of node 0: one of them is out of range");
    tree("split_type", json!([2, 0, 0]), "node 0 has the `split_type` 2");
    tree("tree_param.size_leaf_vector", "2".into(), "its leaves have 2 values, but the model has 1 outputs");
    let numeric = with(model(&[stump(0.0)]), &format!("{TREES}.0.split_conditions.0"), Value::Null);
    refuse_value(ErrorKind::Data, &numeric, "node 0: its `split_conditions` is not a number");
}

#[test]
fn leaves_can_not_share_more_values_than_there_are() {
    let bytes = std::fs::read(folder().join("vector_leaf_softprob.json")).unwrap();
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    let fewer = with(value, &format!("{TREES}.0.leaf_weights"), json!([1, 2, 3]));
    refuse_value(ErrorKind::Data, &fewer, "have 3 values of 3 outputs");
}

// ------------------------------------------------------------------------------------------------------------- hostile

/// Files that are small and use all that the format has.
const FILES: [&str; 8] = [
    "stumps.json",
    "v2_vector_leaf.json",
    "v2_vector_leaf_binary.ubj",
    "v1_categorical.json",
    "v1_dart.ubj",
    "strings.ubj",
    "linear_softprob.ubj",
    "stopped.ubj",
];

/// Loads it and, if it is a model, scores with it: whatever it says, this returns.
fn survive(bytes: &[u8]) {
    if let Ok(model) = Model::from_bytes("m", bytes)
        && model.features.len() < 100
    {
        for x in [0.0, f64::NAN, 1e300, -3.5] {
            model.predictions(&vec![x; model.features.len()]);
        }
    }
}

#[test]
fn a_cut_file_is_an_error() {
    for file in FILES {
        let bytes = std::fs::read(folder().join(file)).unwrap();
        for end in (0..bytes.len()).step_by(97).chain(bytes.len() - 40..bytes.len()) {
            assert!(Model::from_bytes("m", &bytes[..end]).is_err(), "{file} of {end} bytes");
        }
    }
}

#[test]
fn flipped_bytes_are_survived() {
    let mut random = 1u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) as usize % below
    };
    for file in FILES {
        let bytes = std::fs::read(folder().join(file)).unwrap();
        for _ in 0..300 {
            let mut flipped = bytes.clone();
            for _ in 0..=next(3) {
                flipped[next(bytes.len())] = [0, 0xff, b'9', b'-', b'[', b'#', b'L', next(256) as u8][next(8)];
            }
            survive(&flipped);
        }
    }
}

/// Calls `change` with every number, and every text that is one, one by one, and `survive`s each outcome.
fn every_number(value: &Value, odd: &[Value]) {
    let mut number = 0;
    loop {
        let mut changed = value.clone();
        let mut left = number;
        let Some(place) = find_number(&mut changed, &mut left) else { break };
        *place = odd[number % odd.len()].clone();
        survive(&serde_json::to_vec(&changed).unwrap());
        number += 1;
    }
    assert!(number > 20);
}

/// The number that `left` others stand before.
fn find_number<'a>(value: &'a mut Value, left: &mut usize) -> Option<&'a mut Value> {
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| find_number(item, left)),
        Value::Object(items) => items.values_mut().find_map(|item| find_number(item, left)),
        Value::Number(_) | Value::String(_) if *left == 0 => Some(value),
        Value::Number(_) | Value::String(_) => {
            *left -= 1;
            None
        }
        _ => None,
    }
}

#[test]
fn odd_numbers_are_survived_everywhere() {
    let odd = [
        json!(-1),
        json!(1e300),
        json!(-1e300),
        json!(2147483647),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(null),
        json!("18446744073709551615"),
        json!("-1"),
        json!("NaN"),
        json!([]),
        json!({}),
        json!(0),
        json!(0.5),
    ];
    let handmade = model(&[stump(0.0), set(), stump(1.0)]);
    for shift in 0..odd.len() {
        let mut odd = odd.to_vec();
        odd.rotate_left(shift);
        every_number(&handmade, &odd);
    }
    for file in ["stumps.json", "v1_linear.json", "v2_vector_leaf.json"] {
        let bytes = std::fs::read(folder().join(file)).unwrap();
        every_number(&serde_json::from_slice(&bytes).unwrap(), &odd);
    }
}

#[test]
fn counts_of_ubjson_are_checked_against_the_file() {
    let data = |bytes: &[u8], message| refuse(ErrorKind::Data, bytes, message);
    let count = |header: &[u8], count: i64| [b"{i\x01a[", header, &count.to_be_bytes()].concat();
    data(&count(b"$d#L", 1 << 40), "bytes should follow, but there are 0");
    data(&count(b"$L#L", i64::MAX), "bytes should follow, but there are 0");
    data(&count(b"#L", i64::MAX), "1 bytes should follow, but there are 0");
    data(&count(b"$[#L", i64::MAX), "1 bytes should follow, but there are 0");
    data(&count(b"$T#L", i64::MAX), "an array of values that take no bytes");
    data(&count(b"#L", -1), "the length -1 is below 0");
    data(&b"{i\x01a[".iter().chain(&[b'['; 100_000]).copied().collect::<Vec<_>>(), "more than 64 levels are nested");
    data(&b"{i\x01a[".iter().chain(b"[#i\x7f".repeat(100_000).iter()).copied().collect::<Vec<_>>(), "more than 64");
    data(b"{i\x01a[$d", "a type of values should be followed by their count");
    data(b"{i\x7fab", "127 bytes should follow, but there are 2");
    data(b"{i\x01aX}", "`X` is no marker of a value");
    data(b"{i\x01aZ}Z", "the file goes on behind its end");
    data(b"{i\x01aZ}", "the file: `learner` is missing");
}
