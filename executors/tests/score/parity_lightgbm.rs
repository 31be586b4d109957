//! Models that LightGBM trained, against what LightGBM predicts: sums equal to the bit, and damaged files.

use std::fs::File;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{Float64Type, Int16Type};
use featurectl_core::ErrorKind;
use featurectl_executors::score::{Body, Forest, Link, Model, Scorer};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

/// The models, rows and predictions that `generate.py` made.
fn folder() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/score/fixtures/lightgbm");
    if package.exists() { package } else { Path::new(file!()).with_file_name("fixtures/lightgbm") }
}

/// The entries of `cases.json`.
fn cases() -> Vec<Value> {
    let text = std::fs::read(folder().join("cases.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// The columns of a Parquet file whose names start with `prefix`, as 64-bit floats with NaN for NULL, row by row.
fn rows(file: &str, prefix: &str) -> Vec<Vec<f64>> {
    let file = File::open(folder().join(file)).unwrap();
    let mut rows = Vec::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
        let batch = batch.unwrap();
        let fields = batch.schema();
        let columns: Vec<Vec<f64>> = fields
            .fields()
            .iter()
            .zip(batch.columns())
            .filter(|(field, _)| field.name().starts_with(prefix))
            .map(|(_, column)| floats(column))
            .collect();
        rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row]).collect()));
    }
    rows
}

/// A column of floats or leaf numbers.
fn floats(column: &dyn Array) -> Vec<f64> {
    match column.as_primitive_opt::<Float64Type>() {
        Some(floats) => floats.iter().map(|value| value.unwrap_or(f64::NAN)).collect(),
        None => column.as_primitive::<Int16Type>().iter().flatten().map(f64::from).collect(),
    }
}

fn load(case: &Value) -> Model {
    let name = case["name"].as_str().unwrap();
    Model::load(name, &folder().join(case["file"].as_str().unwrap())).unwrap_or_else(|e| panic!("{e}"))
}

fn forest(model: &Model) -> &Forest {
    match &model.body {
        Body::Forest(before, forest) if before.is_empty() => forest,
        body => panic!("no forest: {body:?}"),
    }
}

/// Compares `ours` with LightGBM's columns `prefix`, and panics with the first row for which `same` fails.
fn compare(case: &Value, prefix: &str, ours: impl Fn(&[f64]) -> Vec<f64>, same: impl Fn(f64, f64) -> bool) {
    let name = case["name"].as_str().unwrap();
    let inputs = rows(case["rows"].as_str().unwrap(), "");
    let theirs = rows(&format!("{name}.parquet"), prefix);
    assert_eq!(inputs.len(), theirs.len(), "{name}: rows");
    assert!(inputs.len() >= 1_000, "{name}: {} rows", inputs.len());
    for (row, (input, theirs)) in inputs.iter().zip(&theirs).enumerate() {
        let ours = ours(input);
        assert_eq!(ours.len(), theirs.len(), "{name}, row {row}: {prefix} columns");
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert!(same(*ours, *theirs), "{name}, row {row}: {prefix}{ours:?} instead of {theirs:?}, of {input:?}");
        }
    }
}

fn same_bits(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

#[test]
fn there_are_cases_of_all_versions_and_formats() {
    let cases = cases();
    assert!(cases.len() >= 26, "{} cases", cases.len());
    for (key, value) in [("library", "4."), ("library", "3."), ("library", "2."), ("file", ".json"), ("file", ".txt")] {
        assert!(cases.iter().any(|case| case[key].as_str().unwrap().contains(value)), "no case of {value}");
    }
}

#[test]
fn margins_are_lightgbms_to_the_bit() {
    for case in cases() {
        let model = load(&case);
        compare(&case, "raw_", |row| model.margins(row), same_bits);
    }
}

#[test]
fn predictions_are_lightgbms_to_1e_15() {
    for case in cases() {
        let model = load(&case);
        let near = |a: f64, b: f64| same_bits(a, b) || (a - b).abs() <= 1e-15 * b.abs();
        compare(&case, "prediction_", |row| model.predictions(row), near);
    }
}

#[test]
fn leaves_are_lightgbms_and_have_its_numbers() {
    for case in cases() {
        let model = load(&case);
        let leaves = |row: &[f64]| {
            forest(&model).trees().iter().map(|tree| tree.leaf(|f| row[f as usize]) as f64).collect::<Vec<f64>>()
        };
        compare(&case, "leaf_", leaves, |a, b| a == b);
    }
}

#[test]
fn a_dump_gives_the_trees_of_the_text() {
    for case in cases() {
        let Some(text) = case["name"].as_str().unwrap().strip_suffix("_json") else { continue };
        let (dump, text) = (load(&case), Model::load(text, &folder().join(format!("{text}.txt"))).unwrap());
        let (few, all) = (forest(&dump), forest(&text));
        assert_eq!(few.trees(), &all.trees()[..few.trees().len()], "{}", case["name"]);
        assert_eq!((&dump.features, &dump.categories), (&text.features, &text.categories), "{}", case["name"]);
        assert_eq!((&dump.objective, dump.link), (&text.objective, text.link), "{}", case["name"]);
    }
}

#[test]
fn names_objectives_and_categories_are_read() {
    let model = |name: &str| Model::load(name, &folder().join(format!("{name}.txt"))).unwrap();
    let names = model("names");
    assert_eq!(names.features, ["with_blank", "größe", "a=b", "Tree", "%", "tree_sizes", "e'nd"]);
    assert_eq!((names.format.as_str(), names.objective.as_str()), ("LightGBM text v4", "regression"));
    assert_eq!(model("binary_sigmoid").link, Link::Sigmoid { steepness: 2.5 });
    assert_eq!((model("custom").objective.as_str(), model("custom").link), ("", Link::Identity));
    assert_eq!(model("v2_2_3_binary").format, "LightGBM text v2");
    let average = model("random_forest");
    assert_eq!(forest(&average).divide, forest(&average).trees().len() as f64);
    // Its leaves are predictions.
    assert_eq!(
        (model("v2_1_2_random_forest").link, model("v2_1_2_binary").link),
        (Link::Identity, Link::Sigmoid { steepness: 1.0 })
    );
    let pandas = model("pandas").categories;
    assert_eq!(pandas[1].as_ref().unwrap(), &["", "north", "south", "we,st", "öst"]);
    assert!(pandas.iter().enumerate().all(|(feature, texts)| texts.is_some() == (feature == 1)));
    assert!(model("category").categories.is_empty());
}

/// Loads bytes and, if they are a model, scores with it. Says whether they are.
fn load_and_score(what: &str, bytes: &[u8]) -> bool {
    let run = || match Model::from_bytes("m", bytes) {
        Ok(model) => {
            for value in [0.0, -1.5, 3.0, 1e300, f64::NAN, f64::INFINITY] {
                model.predictions(&vec![value; model.features.len()]);
            }
            true
        }
        Err(e) => {
            assert!(matches!(e.kind(), ErrorKind::Data | ErrorKind::Invalid), "{what}: {e}");
            false
        }
    };
    catch_unwind(run).unwrap_or_else(|_| panic!("{what}: it panicked"))
}

/// Models with something of everything, each with the bytes behind which a cut is no damage that can be seen.
fn victims() -> Vec<(&'static str, Vec<u8>, usize)> {
    let files = ["binary.txt", "linear.txt", "category.txt", "pandas.txt", "v2_1_2_category.txt"];
    let dumps = ["category_json.json", "linear_json.json", "pandas_json.json", "v2_2_3_binary_json.json"];
    let read = |file: &'static str| {
        let bytes = std::fs::read(folder().join(file)).unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        let end = text.find("\nend of trees").or_else(|| text.find("\nfeature importances:"));
        let end = end.map_or(text.trim_end().len(), |end| end + 1);
        (file, bytes, end)
    };
    files.into_iter().chain(dumps).map(read).collect()
}

#[test]
fn a_cut_file_is_an_error() {
    for (file, bytes, end) in victims() {
        for length in (0..end).step_by(7).chain(end.saturating_sub(40)..end) {
            assert!(
                !load_and_score(&format!("{file} cut at {length}"), &bytes[..length]),
                "{file} cut at {length} loads"
            );
        }
        for length in (end..bytes.len()).step_by(11) {
            load_and_score(&format!("{file} cut at {length}"), &bytes[..length]);
        }
        let parameters = bytes.windows(13).position(|window| window == b"\nparameters:\n");
        if let Some(parameters) = parameters {
            assert!(!load_and_score(file, &bytes[..parameters + 30]), "{file} cut in its parameters loads");
        }
    }
}

/// The numbers in the bytes, as ranges.
fn numbers(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let of_number = |byte: &u8| byte.is_ascii_digit() || b"+-.e".contains(byte);
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes[at..].iter().take_while(|byte| of_number(byte)).count();
        if bytes[at..at + length].iter().any(u8::is_ascii_digit) {
            found.push(at..at + length);
        }
        at += length.max(1);
    }
    found
}

#[test]
fn each_number_replaced_gives_a_model_or_an_error() {
    const VALUES: [&str; 10] =
        ["-1", "0", "1", "-7", "4294967296", "99999999999999999999", "1e999", "nan", "2147483647", "0.5"];
    for (file, bytes, end) in victims() {
        for (count, range) in numbers(&bytes[..end]).into_iter().enumerate() {
            let value = VALUES[count % VALUES.len()];
            let mut edited = bytes.clone();
            edited.splice(range.clone(), value.bytes());
            load_and_score(&format!("{file} with {value} at {}", range.start), &edited);
        }
    }
}

/// A generator of numbers (SplitMix64), so that each run sees the same.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

#[test]
fn flipped_bytes_give_a_model_or_an_error() {
    const BYTES: &[u8] = b"0123456789-. =\nTeinf|,[]{}\":\xff";
    let mut random = Random(7);
    for (file, bytes, end) in victims() {
        for round in 0..1_500 {
            let mut edited = bytes.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(end);
                edited[at] =
                    if round % 2 == 0 { BYTES[random.below(BYTES.len())] } else { edited[at] ^ 1 << random.below(8) };
            }
            load_and_score(&format!("{file}, round {round}"), &edited);
        }
    }
}

/// Edits a model and expects an error of `kind` that contains `message`.
fn refused(file: &str, from: &str, to: &str, kind: ErrorKind, message: &str) {
    let text = std::fs::read_to_string(folder().join(file)).unwrap();
    assert!(text.contains(from), "{file}: no `{from}`");
    match Model::from_bytes("m", text.replacen(from, to, 1).as_bytes()) {
        Ok(_) => panic!("{file} with `{to}` loaded, instead of: {message}"),
        Err(e) => {
            assert!(e.to_string().contains(message), "`{e}` does not say `{message}`");
            assert_eq!(e.kind(), kind, "{e}");
        }
    }
}

#[test]
fn what_is_not_supported_is_refused_with_what_to_do() {
    let invalid = |file, from, to, message| refused(file, from, to, ErrorKind::Invalid, message);
    invalid(
        "binary.txt",
        "=v4",
        "=v5",
        "line 2: version `v5` of the format cannot be scored here: save the model with",
    );
    invalid("binary.txt", "binary sigmoid:1", "hinge", "line 7: header: the objective `hinge` cannot be scored here");
    invalid("binary_json.json", "binary sigmoid:1", "hinge", "the objective `hinge` cannot be scored here: train with");
    let dump = "v2_2_3_binary_json.json";
    invalid(dump, "\"average_output\":false,", "", "a dump of LightGBM before 2.2.3 cannot be scored here: save the");
    let lists = "pandas_categorical:[[\"o\", \"p\"], ";
    invalid("pandas.txt", "pandas_categorical:[", lists, "a model of 5 pandas columns with categories, of which 4 are");
    let mixed = "pandas_categorical:[[1, ";
    invalid("pandas.txt", "pandas_categorical:[[", mixed, "`pandas_categorical` 1: a column of mixed categories");
}

#[test]
fn damage_is_named_with_its_place() {
    let damaged = |file, from, to, message| refused(file, from, to, ErrorKind::Data, message);
    damaged("multiclass.txt", "num_class:3", "num_class:4", "line 7: header: `multiclass num_class:4` has 4 outputs");
    damaged("multiclass.txt", "iteration=3", "iteration=2", "line 4: header: 2 trees per iteration for 3 classes");
    damaged("category.txt", "cat_boundaries=0 1", "cat_boundaries=0 9999", "tree 0: `cat_boundaries` do not ascend");
    damaged("linear.txt", "num_features=0 0", "num_features=0 1", "tree 0: `leaf_features` has 0 values instead of 1");
    damaged("binary_json.json", "\"leaf_index\":0,", "\"leaf_index\":1,", "tree 0: there is the leaf 1 instead of 0");
    damaged("binary_json.json", "\"<=\"", "\"<\"", "tree 0: split 0: `decision_type` has the value `<`");
    damaged("binary_json.json", "\"split_feature\":", "\"split_feature\":9", "tree 0: split 0 reads feature 9");
    damaged("binary_json.json", "\"average_output\":false,", "", "`average_output` is missing");
    damaged("category_json.json", "||", "||0||", "`threshold` has the value");
    damaged("pandas.txt", "pandas_categorical:[", "pandas_categorical:{", "`pandas_categorical` is no JSON");
}

/// Two splits that share a set of categories could each ask for its memory.
#[test]
fn a_set_of_categories_belongs_to_one_split() {
    let text = std::fs::read_to_string(folder().join("category_one.txt")).unwrap();
    let tree = text.find("cat_boundaries").unwrap();
    let at = text[..tree].rfind("\nthreshold=").unwrap();
    let line = &text[at + 1..at + 1 + text[at + 1..].find('\n').unwrap()];
    let shared = line.split(' ').map(|value| if value == "1" { "0" } else { value }).collect::<Vec<_>>().join(" ");
    assert_ne!(line, shared);
    refused("category_one.txt", line, &shared, ErrorKind::Data, "two splits have the set 0");
}

#[test]
fn contributions_are_lightgbms_to_1e_9() {
    let mut compared = 0;
    for case in cases().iter().filter(|case| case["file"].as_str().is_some_and(|file| file.ends_with(".txt"))) {
        let name = case["name"].as_str().unwrap();
        let theirs = rows(&format!("{name}.parquet"), "contribution_");
        if theirs[0].is_empty() {
            continue;
        }
        let inputs = rows(case["rows"].as_str().unwrap(), "");
        let scorer = Scorer::new(load(case));
        let column = |feature: usize| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(inputs.iter().map(|row| row[feature])))
        };
        let columns: Vec<ArrayRef> = (0..inputs[0].len()).map(column).collect();
        let ours = scorer.contributions(&columns).unwrap();
        for (row, theirs) in theirs.iter().enumerate().filter(|(_, theirs)| !theirs[0].is_nan()) {
            let ours = ours.as_list::<i32>().value(row);
            let ours = ours.as_primitive::<Float64Type>().values();
            assert_eq!(ours.len(), theirs.len(), "{name}, row {row}");
            for (a, b) in ours.iter().zip(theirs) {
                assert!((a - b).abs() <= 1e-9 * b.abs() + 1e-12, "{name}, row {row}: {ours:?} instead of {theirs:?}");
            }
            compared += 1;
        }
    }
    assert!(compared >= 150, "{compared} rows");
}

/// A model of a few trees again and again, so that its file is read in parts, and how many trees those few are.
fn repeated(text: &str, bytes: usize) -> (String, usize) {
    let (start, end) = (text.find("Tree=0").unwrap(), text.find("end of trees").unwrap());
    let trees: Vec<&str> = text[start..end].split_inclusive("\n\n\n").collect();
    let renumbered = |n: usize| {
        let tree = trees[n % trees.len()];
        format!("Tree={n}{}", &tree[tree.find('\n').unwrap()..])
    };
    let copies: Vec<String> = (0..bytes.div_ceil(end - start) * trees.len()).map(renumbered).collect();
    let sizes: Vec<String> = copies.iter().map(|tree| tree.len().to_string()).collect();
    let header = text[..start].lines().map(|line| match line.starts_with("tree_sizes=") {
        true => format!("tree_sizes={}\n", sizes.join(" ")),
        false => format!("{line}\n"),
    });
    (format!("{}{}{}", header.collect::<String>(), copies.concat(), &text[end..]), trees.len())
}

#[test]
fn a_large_file_is_read_in_parts_as_a_small_one_is() {
    let text = std::fs::read_to_string(folder().join("binary.txt")).unwrap();
    let small = Model::from_bytes("m", text.as_bytes()).unwrap();
    let (large, few) = repeated(&text, 3 << 20);
    let path = tempfile::tempdir().unwrap();
    let path = path.path().join("large.txt");
    std::fs::write(&path, &large).unwrap();
    let model = Model::load("m", &path).unwrap();
    assert_eq!(model, Model::from_bytes("m", large.as_bytes()).unwrap());
    assert!(forest(&model).trees().len() >= 100 * few);
    for (n, tree) in forest(&model).trees().iter().enumerate() {
        assert_eq!(tree, &forest(&small).trees()[n % few], "tree {n}");
    }
    let middle = large.len() / 2 + large[large.len() / 2..].find("leaf_value=").unwrap();
    let line = large[..middle].matches('\n').count() + 1;
    let end = large.find("end of trees").unwrap();
    let last = large[..end].matches('\n').count() + 1;
    for (damaged, what) in [
        (large.replacen("leaf_value=", "leaf_worth=", 1), "line ".to_string()),
        (format!("{}leaf_value=x{}", &large[..middle], &large[middle + 12..]), format!("line {line}: ")),
        (large.replace("end of trees", "end of woods"), format!("line {last}: ")),
        (large[..end - 100].to_string(), "line ".to_string()),
        (large.replace("\nend of parameters", ""), "`end of parameters`".to_string()),
    ] {
        std::fs::write(&path, &damaged).unwrap();
        let loaded = Model::load("m", &path).unwrap_err();
        let read = Model::from_bytes("m", damaged.as_bytes()).unwrap_err();
        assert_eq!(loaded.kind(), read.kind());
        assert!(loaded.to_string().contains(&read.to_string()), "{loaded} is not {read}");
        assert!(read.to_string().contains(&what), "{read} has no `{what}`");
    }
}
