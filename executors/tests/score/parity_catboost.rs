//! Models that CatBoost trained, against what CatBoost predicts: sums equal to the bit; and damaged files. The readers
//! of fixtures and the damage are shared with the tests of linear and ONNX models.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use featurectl_core::ErrorKind;
use featurectl_executors::score::{Body, Forest, Link, Model};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

/// A model that a library trained, and the rows that it is asked about.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) model: Model,
    pub(super) rows: Vec<Vec<f64>>,
    folder: PathBuf,
}

/// The models, rows and predictions that the `generate.py` of a library made.
pub(super) fn folder(library: &str) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/score/fixtures").join(library);
    if package.exists() { package } else { Path::new(file!()).with_file_name("fixtures").join(library) }
}

/// All cases of a library's `cases.json`.
pub(super) fn cases(library: &str) -> Vec<Case> {
    let folder = folder(library);
    let text = std::fs::read(folder.join("cases.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&text).unwrap();
    let case = |case: &Value| {
        let name = case["name"].as_str().unwrap().to_string();
        let file = folder.join(case["file"].as_str().unwrap());
        let model = Model::load(&name, &file).unwrap_or_else(|e| panic!("{e}"));
        let rows = rows(&folder.join(case["rows"].as_str().unwrap()), &model);
        Case { name, model, rows, folder: folder.clone() }
    };
    cases.iter().map(case).collect()
}

/// The rows of a file as the model takes them: its categories as their numbers, all else as it is.
fn rows(file: &Path, model: &Model) -> Vec<Vec<f64>> {
    let columns = columns(file, |_| true);
    assert_eq!(columns.len(), model.features.len(), "{}", file.display());
    let number = |(at, column): (usize, &ArrayRef)| match model.categories.get(at).and_then(Option::as_ref) {
        Some(names) => {
            let texts = cast(column, &DataType::Utf8).unwrap();
            let place = |text: &str| names.iter().position(|name| name == text);
            let code = |text: Option<&str>| text.and_then(place).map_or(f64::NAN, |place| place as f64);
            texts.as_string::<i32>().iter().map(code).collect()
        }
        None => floats(column),
    };
    transposed(columns.iter().enumerate().map(number).collect())
}

/// The columns of a file whose names are `wanted`.
fn columns(file: &Path, wanted: impl Fn(&str) -> bool) -> Vec<ArrayRef> {
    let file = File::open(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().with_batch_size(1 << 20).build().unwrap();
    let batch = reader.map(Result::unwrap).next().unwrap();
    let schema = batch.schema();
    let pairs = schema.fields().iter().zip(batch.columns());
    pairs.filter(|(field, _)| wanted(field.name())).map(|(_, column)| column.clone()).collect()
}

fn floats(column: &ArrayRef) -> Vec<f64> {
    let column = cast(column, &DataType::Float64).unwrap();
    column.as_primitive::<Float64Type>().iter().map(|x| x.unwrap_or(f64::NAN)).collect()
}

fn transposed(columns: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let count = columns.first().map_or(0, Vec::len);
    (0..count).map(|row| columns.iter().map(|column| column[row]).collect()).collect()
}

impl Case {
    /// What the library gave for each row, by the prefix of the columns.
    pub(super) fn theirs(&self, prefix: &str) -> Vec<Vec<f64>> {
        let file = self.folder.join(format!("{}.parquet", self.name));
        transposed(columns(&file, |name| name.starts_with(prefix)).iter().map(floats).collect())
    }

    /// Compares what `ours` makes of each row with the library's columns `prefix`, and panics at the first value that
    /// is not the `same`; gives the number of values.
    pub(super) fn compare(
        &self,
        prefix: &str,
        ours: impl Fn(&[f64]) -> Vec<f64>,
        same: impl Fn(f64, f64) -> bool,
    ) -> usize {
        let (name, theirs) = (&self.name, self.theirs(prefix));
        assert!(theirs.len() >= 1000 && theirs.len() == self.rows.len(), "{name}: {} rows", theirs.len());
        for (number, (row, theirs)) in self.rows.iter().zip(&theirs).enumerate() {
            let ours = ours(row);
            assert_eq!(ours.len(), theirs.len(), "{name}, row {number}: {prefix} columns");
            for (ours, theirs) in ours.iter().zip(theirs) {
                assert!(same(*ours, *theirs), "{name}, row {number}: {prefix} {ours:?}, not {theirs:?}, of {row:?}");
            }
        }
        theirs.len() * theirs[0].len()
    }
}

/// The same bits, or both not a number.
pub(super) fn same_bits(ours: f64, theirs: f64) -> bool {
    ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan()
}

/// No more than `relative` of theirs apart.
pub(super) fn near(ours: f64, theirs: f64, relative: f64) -> bool {
    same_bits(ours, theirs) || (ours - theirs).abs() <= theirs.abs() * relative
}

/// The forest of a model without layers before it.
pub(super) fn forest(model: &Model) -> &Forest {
    match &model.body {
        Body::Forest(before, forest) if before.is_empty() => forest,
        body => panic!("no forest: {body:?}"),
    }
}

/// Loads bytes and, if that works, scores some rows with them; says whether it did. It must do either without a panic.
pub(super) fn survives(bytes: &[u8]) -> bool {
    let Ok(model) = Model::from_bytes("m", bytes) else { return false };
    for value in [0.5, f64::NAN, f64::INFINITY, -1e300] {
        let row = vec![value; model.features.len()];
        assert_eq!(model.predictions(&row).len(), model.predictions(&row).len());
    }
    true
}

/// Random numbers by a seed (an LCG's upper bits).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }
}

/// Cuts a file at many places and flips bytes at many others.
pub(super) fn damage(bytes: &[u8], cuts: usize, flips: usize) {
    let mut random = Random(7);
    for at in (0..cuts).map(|number| number * bytes.len() / cuts) {
        survives(&bytes[..at]);
    }
    for _ in 0..flips {
        let mut damaged = bytes.to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            damaged[at] = random.below(256) as u8;
        }
        survives(&damaged);
    }
}

/// Replaces `count` numbers of a text, chosen over its whole length, by values that no model has.
pub(super) fn replace_numbers(text: &str, count: usize) {
    let is_number = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
    let mut places = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..].find(|c: char| c.is_ascii_digit() || c == '-').map(|start| at + start) {
        let end = text[start..].find(|c| !is_number(c)).map_or(text.len(), |end| start + end);
        places.push(start..end);
        at = end;
    }
    for place in places.iter().step_by((places.len() / count).max(1)) {
        for with in ["-1", "4294967296", "9223372036854775807", "1e308", "-0.5", "NaN", "null", "[]", "\"x\"", "{}"] {
            survives(format!("{}{with}{}", &text[..place.start], &text[place.end..]).as_bytes());
        }
    }
}

/// Loads bytes and expects an error of `kind` that contains `message`.
pub(super) fn refused(bytes: &[u8], kind: ErrorKind, message: &str) {
    match Model::from_bytes("m", bytes) {
        Ok(_) => panic!("loaded, instead of: {message}"),
        Err(e) => {
            assert!(e.to_string().contains(message), "`{e}` does not say `{message}`");
            assert_eq!(e.kind(), kind, "{e}");
        }
    }
}

fn text(case: &str) -> String {
    std::fs::read_to_string(folder("catboost").join(format!("{case}.json"))).unwrap()
}

#[test]
fn margins_are_catboosts_to_the_bit() {
    let cases = cases("catboost");
    assert!(cases.len() >= 8);
    for case in cases {
        case.compare("raw_", |row| case.model.margins(row), same_bits);
    }
}

#[test]
fn predictions_are_catboosts() {
    for case in cases("catboost") {
        case.compare("prediction_", |row| case.model.predictions(row), |ours, theirs| near(ours, theirs, 1e-15));
    }
}

#[test]
fn leaves_have_the_numbers_that_catboost_gives_them() {
    let mut compared = 0;
    for case in cases("catboost") {
        if case.theirs("leaf_").is_empty() {
            continue;
        }
        let forest = forest(&case.model);
        let leaf = |row: &[f64]| {
            let leaf = |tree: &featurectl_executors::score::Tree| tree.leaf(|f| forest.rounded(row[f as usize]));
            forest.trees().iter().map(|tree| leaf(tree) as f64).collect()
        };
        compared += case.compare("leaf_", leaf, |ours, theirs| ours == theirs);
    }
    assert!(compared > 10_000);
}

#[test]
fn names_classes_and_losses_are_read() {
    let model = |case: &str| Model::from_bytes("m", text(case).as_bytes()).unwrap_or_else(|e| panic!("{e}"));
    let multiclass = model("multiclass");
    assert_eq!(multiclass.classes, ["high", "low", "middle"]);
    assert_eq!((multiclass.objective.as_str(), multiclass.link), ("MultiClass", Link::Softmax));
    assert_eq!(multiclass.format, "CatBoost JSON 1.2.10");
    assert_eq!(multiclass.features, ["0", "1", "2", "3", "4", "5"]);
    let one_hot = model("one_hot");
    assert_eq!(one_hot.features, ["delay", "carrier", "hour", "wind"]);
    assert!(one_hot.categories[0].is_none() && one_hot.categories[3].is_none());
    assert!(one_hot.categories[1].as_ref().unwrap().contains(&"ümläut".to_string()));
    assert!(one_hot.categories[2].as_ref().unwrap().contains(&"3".to_string()));
}

#[test]
fn all_splits_of_an_oblivious_level_are_alike() {
    for case in ["rmse", "logloss_nan_max", "deep", "one_hot"] {
        let model = Model::from_bytes("m", text(case).as_bytes()).unwrap_or_else(|e| panic!("{e}"));
        for tree in forest(&model).trees() {
            let levels = tree.leaf_count().trailing_zeros();
            assert_eq!(tree.leaf_count(), 1 << levels);
            for level in 0..levels {
                let first = (1 << level) - 1;
                let same = &tree.splits[first..2 * first + 1];
                assert!(
                    same.iter()
                        .all(|s| (s.feature, &s.test, s.missing) == (same[0].feature, &same[0].test, same[0].missing))
                );
            }
        }
    }
}

#[test]
fn a_damaged_file_gives_a_model_or_an_error() {
    for case in ["multiclass", "lossguide", "one_hot"] {
        let text = text(case);
        // What the model is used for stands before what it was trained with, which scoring hardly reads.
        let used = text.find("\"model_info\"").unwrap();
        damage(text.as_bytes(), 150, 300);
        replace_numbers(&text[..used], 150);
        replace_numbers(&format!("{}\"x\":0}}", &text[..used]), 150);
    }
}

/// A model of one tree, given as JSON, over the feature `a`.
fn small(tree: &str) -> String {
    format!(
        r#"{{"features_info":{{"float_features":[{{"feature_id":"a","feature_index":0,"flat_feature_index":0,
        "has_nans":true,"nan_value_treatment":"AsFalse","borders":[0.5]}}]}},{tree},"scale_and_bias":[1,[0]]}}"#
    )
}

const SPLIT: &str = r#"{"split_type":"FloatFeature","float_feature_index":0,"border":0.5}"#;

#[test]
fn damage_is_named_with_its_place() {
    let damaged = |tree: &str, message: &str| refused(small(tree).as_bytes(), ErrorKind::Data, message);
    let oblivious =
        |splits: &str, leaves: &str| format!(r#""oblivious_trees":[{{"leaf_values":{leaves},"splits":{splits}}}]"#);
    assert!(survives(small(&oblivious(&format!("[{SPLIT}]"), "[1,2]")).as_bytes()));
    assert!(survives(small(&oblivious("null", "[1]")).as_bytes()));
    damaged(&oblivious(&format!("[{SPLIT}]"), "[1,2,3]"), "tree 0: 1 levels have 3 leaf values instead of 2");
    damaged(&oblivious(&format!("[{SPLIT}]"), "[1,null]"), "tree 0: a leaf value is missing");
    damaged(&oblivious(&format!("[{SPLIT}]"), "[]"), "tree 0 has no leaf values");
    damaged(&oblivious("[{}]", "[1,2]"), "tree 0: split 0: `split_type` is missing: save the model again");
    damaged(&oblivious(&format!("[{}]", SPLIT.replace(":0,", ":7,")), "[1,2]"), "no numeric feature has this index");
    let deep = format!("[{}]", vec![SPLIT; 40].join(","));
    damaged(&oblivious(&deep, &format!("[{}1]", "1,".repeat(65_535))), "it is 40 levels deep, more than 16");
    let nested = |tree: &str| format!(r#""trees":[{tree}]"#);
    damaged(&nested(&format!(r#"{{"split":{SPLIT},"left":{{"value":1}}}}"#)), "tree 0: split 0 has no `right`");
    damaged(
        &nested(&format!(r#"{{"split":{SPLIT},"left":{{"value":1}},"right":{{}}}}"#)),
        "leaf 1: `value` is missing",
    );
    refused(
        small(&oblivious("null", "[1]")).replace(r#""flat_feature_index":0"#, r#""flat_feature_index":1"#).as_bytes(),
        ErrorKind::Data,
        "`flat_feature_index` is 1, but there are 1 features",
    );
    let bottomless = format!("{}1{}", r#"{"trees":[{"left":"#.repeat(100_000), "}]}".repeat(100_000));
    refused(bottomless.as_bytes(), ErrorKind::Data, "recursion limit");
}

#[test]
fn what_is_not_supported_is_refused_with_what_to_do() {
    let unsupported = |text: &str, message: &str| refused(text.as_bytes(), ErrorKind::Invalid, message);
    unsupported(&text("refused_ctr"), "(CTRs) cannot be scored here: train with a `one_hot_max_size`");
    let tree = r#""oblivious_trees":[{"leaf_values":[1],"splits":[]}]"#;
    let text_features = small(tree).replace(r#"{"float_features""#, r#"{"text_features":[{}],"float_features""#);
    unsupported(&text_features, "text features cannot be scored here: train the model on numbers and categories");
    let uncertain = small(tree).replace(
        r#""scale_and_bias""#,
        r#""model_info":{"params":{"loss_function":{"type":"RMSEWithUncertainty"}}},"scale_and_bias""#,
    );
    unsupported(&uncertain, "train with `RMSE`");
    let nameless = text("one_hot").replace("cat_features_hash", "cat_features_hush");
    unsupported(&nameless, "is not in the file: save the model with `save_model('m.json', format='json', pool=");
}
