//! Linear models that scikit-learn trained, in our JSON, against its results: equal to the bit; and damaged files.

use featurectl_core::ErrorKind;
use featurectl_executors::score::{Link, Model};

use super::parity_catboost::{cases, damage, folder, near, refused, replace_numbers, same_bits};

const SMALL: &str = r#"{"model": "logistic", "features": ["a", "b"], "weights": [1, -2.5], "bias": 0.5}"#;

fn model(text: &str) -> Model {
    Model::from_bytes("m", text.as_bytes()).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn margins_are_the_formula_to_the_bit() {
    let cases = cases("linear");
    assert!(cases.len() >= 2);
    for case in cases {
        case.compare("raw_", |row| case.model.margins(row), same_bits);
    }
}

#[test]
fn predictions_are_scikit_learns() {
    for case in cases("linear") {
        case.compare("prediction_", |row| case.model.predictions(row), |ours, theirs| near(ours, theirs, 1e-15));
    }
}

#[test]
fn each_way_to_write_it_is_read() {
    let small = model(SMALL);
    assert_eq!(small.margins(&[3.0, 1.0]), [1.0]);
    assert_eq!(small.link, Link::Sigmoid { steepness: 1.0 });
    assert!(small.margins(&[f64::NAN, 1.0])[0].is_nan());
    let same = model(
        r#"{"model": "logistic", "features": ["a", "b"], "coefficients": [[1, -2.5]], "intercept": [0.5],
            "classes": [false, true]}"#,
    );
    assert_eq!((&same.body, same.classes), (&small.body, vec!["false".to_string(), "true".to_string()]));
    let plain = model(r#"{"model": "linear", "features": ["a"], "weights": [[2], [3]]}"#);
    assert_eq!((plain.margins(&[1.0]), plain.link), (vec![2.0, 3.0], Link::Identity));
    let three = model(r#"{"model": "logistic", "features": ["a"], "weights": [[2], [3], [0]], "bias": [0, 0, 1]}"#);
    assert_eq!(three.link, Link::Softmax);
}

#[test]
fn what_is_wrong_is_named() {
    let wrong = |from: &str, to: &str, message: &str| {
        assert!(SMALL.contains(from));
        refused(SMALL.replace(from, to).as_bytes(), ErrorKind::Data, message);
    };
    wrong("[1, -2.5]", "[1]", "`weights`, output 0: 1 weights for 2 features: give one a feature");
    wrong("[1, -2.5]", "[1, null]", "`weights`: value 1 is not a number");
    wrong("[1, -2.5]", "[[1, 2], 3]", "`weights`, output 1: it is not a list of numbers");
    wrong("[1, -2.5]", "7", "`weights` is not a list");
    wrong("0.5", "[1, 2]", "`bias`: 2 values for 1 outputs: give one an output");
    wrong("0.5", "\"x\"", "`bias`: it is not a list of numbers");
    wrong("\"b\"", "\"a\"", "`features`: `a` is named twice");
    wrong("\"b\"", "7", "`features`: name 1 is not a string");
    wrong("0.5", "0.5, \"classes\": [\"no\"]", "`classes`: 1 names for 2 classes: name each");
    wrong("0.5", "0.5, \"intercept\": 1", "`bias` and `intercept` are both given");
    wrong("\"model\": \"logistic\", ", "", "`model` is missing");
    refused(
        SMALL.replace("logistic", "poisson").as_bytes(),
        ErrorKind::Invalid,
        "`model` is `poisson`, which cannot be",
    );
}

#[test]
fn a_damaged_file_gives_a_model_or_an_error() {
    let text = std::fs::read_to_string(folder("linear").join("logistic_three.json")).unwrap();
    damage(text.as_bytes(), 600, 1000);
    replace_numbers(&text, 100);
    replace_numbers(SMALL, 100);
}
