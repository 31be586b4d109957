//! What a model of LightGBM means: splits, missing values, categories, linear leaves, objectives.

use featurectl_core::ErrorKind;
use featurectl_executors::score::{Body, Forest, Link, Missing, Model, Test, Tree, ZERO};

use super::{model, model_text, small_text, tree_text};

/// The margins of some rows of `a` and `b`.
fn margins(model: &Model, rows: &[[f64; 2]]) -> Vec<f64> {
    rows.iter().flat_map(|row| model.margins(row)).collect()
}

fn forest(model: &Model) -> &Forest {
    match &model.body {
        Body::Forest(_, forest) => forest,
        body => panic!("no forest: {body:?}"),
    }
}

#[test]
fn a_row_goes_left_up_to_the_threshold_and_sums_one_leaf_per_tree() {
    let model = model("m", &small_text("regression"));
    assert_eq!((model.features.as_slice(), forest(&model).trees().len()), (["a".into(), "b".into()].as_slice(), 2));
    let nan = f64::NAN;
    let rows = [[0.5, 2.0], [0.5, 2.1], [0.6, 0.0], [nan, nan], [nan, 3.0]];
    assert_eq!(margins(&model, &rows), [1.25, 2.25, 4.25, 1.25, 2.25]);
}

/// The leaf 1 (left) or 2 (right) that each value of `a` reaches by a split.
fn sides(bits: u8, threshold: &'static str, values: &[f64]) -> Vec<f64> {
    let text = model_text("regression", &[tree_text(0, &[(0, threshold, bits, -1, -2)], "1 2")]);
    let model = model("m", &text);
    values.iter().flat_map(|value| model.margins(&[*value, 0.0])).collect()
}

#[test]
fn each_kind_of_missing_value_takes_its_way() {
    let beyond = ZERO.next_up();
    let values = [f64::NAN, 0.0, -0.0, ZERO, -ZERO, beyond, -beyond, 1.0, -1.0, f64::INFINITY, f64::NEG_INFINITY];
    let check = |bits, threshold, expected: [i32; 11]| {
        let expected: Vec<f64> = expected.iter().map(|side| f64::from(*side)).collect();
        assert_eq!(sides(bits, threshold, &values), expected, "decision {bits}, threshold {threshold}");
    };
    // The sides of:     NaN  0 -0  z -z >z <-z 1 -1  ∞ -∞
    check(0, "0.5", [1, 1, 1, 1, 1, 1, 1, 2, 1, 2, 1]);
    check(2, "-0.5", [2, 2, 2, 2, 2, 2, 2, 2, 1, 2, 1]);
    check(6, "-0.5", [1, 1, 1, 1, 1, 2, 2, 2, 1, 2, 1]);
    check(4, "0.5", [2, 2, 2, 2, 2, 1, 1, 2, 1, 2, 1]);
    check(10, "-0.5", [1, 2, 2, 2, 2, 2, 2, 2, 1, 2, 1]);
    check(8, "0.5", [2, 1, 1, 1, 1, 1, 1, 2, 1, 2, 1]);
    // LightGBM writes an infinite threshold where missing values are split from all others.
    check(8, "inf", [2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
}

#[test]
fn what_lightgbm_takes_for_zero_is_on_the_side_of_zero() {
    let beyond = ZERO.next_up();
    let values = [0.0, -0.0, 1e-36, -1e-36, ZERO, -ZERO, beyond, -beyond];
    for threshold in ["0", "-0", "1e-36", "5e-324", "1.0000000180025095e-35"] {
        assert_eq!(sides(8, threshold, &values), [1., 1., 1., 1., 1., 1., 2., 1.], "{threshold}");
    }
    for threshold in ["-1e-36", "-5e-324", "-1.0000000180025095e-35"] {
        assert_eq!(sides(8, threshold, &values), [2., 2., 2., 2., 2., 2., 2., 1.], "{threshold}");
    }
}

#[test]
fn the_decision_bits_are_read() {
    for (bits, missing) in [
        (0, Missing::Zero),
        (2, Missing::Zero),
        (4, Missing::ZeroRight),
        (6, Missing::ZeroLeft),
        (8, Missing::Right),
        (10, Missing::Left),
    ] {
        let text = model_text("regression", &[tree_text(0, &[(0, "0.5", bits, -1, -2)], "1 2")]);
        let model = model("m", &text);
        let split = &forest(&model).trees()[0].splits[0];
        assert_eq!((split.missing, &split.test, split.left, split.right), (missing, &Test::AtMost(0.5), !0, !1));
    }
}

/// A model of one tree whose line `is_linear=0` is replaced by other lines.
fn edited(tree: &str, from: &str, to: &str) -> Model {
    assert!(tree.contains(from), "{tree}");
    model("m", &model_text("regression", &[tree.replace(from, to)]))
}

#[test]
fn a_category_of_the_set_goes_left_and_everything_else_right() {
    // Bits 0, 2, 3 of the first word, and bit 1 of the second.
    let tree = tree_text(0, &[(0, "0", 1, -1, -2)], "1 2");
    let model = edited(&tree, "num_cat=0", "num_cat=1\ncat_boundaries=0 2\ncat_threshold=13 2");
    let side = |value: f64| model.margins(&[value, 0.0])[0];
    for inside in [0.0, -0.0, -0.5, 0.7, 1e-36, 2.0, 3.999, 33.0, 33.5] {
        assert_eq!(side(inside), 1.0, "{inside}");
    }
    for outside in [1.0, 1.999, -1.0, 4.0, 32.0, 34.0, 64.0, 4_294_967_296.0, 1e300, f64::INFINITY, f64::NAN] {
        assert_eq!(side(outside), 2.0, "{outside}");
    }
}

#[test]
fn a_linear_leaf_is_a_function_unless_a_value_is_missing() {
    let tree = tree_text(0, &[(0, "0", 8, -1, -2)], "1 2");
    let lines = "is_linear=1\nleaf_const=10 20\nnum_features=0 2\nleaf_features= 0 1  \nleaf_coeff= 3 5  ";
    let model = edited(&tree, "is_linear=0", lines);
    let nan = f64::NAN;
    assert_eq!(margins(&model, &[[-1.0, nan], [1.0, 2.0], [1.0, nan], [nan, 2.0]]), [10.0, 33.0, 2.0, 2.0]);
    let lines = "is_linear=1\nleaf_const=8\nnum_features=0\nleaf_features=\nleaf_coeff=";
    let lone = edited(&tree_text(0, &[], "7"), "is_linear=0", lines);
    assert_eq!(margins(&lone, &[[0.0, 0.0]]), [8.0]);
}

#[test]
fn trees_take_turns_among_the_outputs() {
    let trees: Vec<String> = (0..4).map(|i| tree_text(i, &[], &format!("{}", 1 << i))).collect();
    let text = model_text("multiclassova num_class:2 sigmoid:0.5", &trees);
    let text = text.replace("num_class=1\nnum_tree_per_iteration=1", "num_class=2\nnum_tree_per_iteration=2");
    let model = model("m", &text);
    assert_eq!(model.margins(&[0.0, 0.0]), [5.0, 10.0]);
    let sigmoid = |margin: f64| 1.0 / (1.0 + (-0.5 * margin).exp());
    assert_eq!(model.predictions(&[0.0, 0.0]), [sigmoid(5.0), sigmoid(10.0)]);
}

#[test]
fn an_objective_says_what_the_sum_stands_for() {
    let link = |objective| model("m", &small_text(objective)).link;
    for objective in ["regression", "regression_l1", "huber", "huber sqrt", "fair", "quantile", "mape", "lambdarank"] {
        assert_eq!(link(objective), Link::Identity, "{objective}");
    }
    for objective in ["regression sqrt", "regression_l1 sqrt", "fair sqrt", "quantile sqrt", "mape sqrt"] {
        assert_eq!(link(objective), Link::SignedSquare, "{objective}");
    }
    for objective in ["poisson", "gamma", "tweedie"] {
        assert_eq!(link(objective), Link::Exp, "{objective}");
    }
    assert_eq!(link("binary sigmoid:0.7"), Link::Sigmoid { steepness: 0.7 });
    assert_eq!((link("cross_entropy"), link("xentropy")), (Link::Sigmoid { steepness: 1.0 }, link("binary sigmoid:1")));
    assert_eq!((link("cross_entropy_lambda"), link("xentlambda")), (Link::LogOnePlusExp, Link::LogOnePlusExp));
    let none = small_text("x").replace("objective=x\n", "");
    assert_eq!((model("m", &none).link, model("m", &none).objective), (Link::Identity, String::new()));
}

#[test]
fn a_binary_model_gives_probabilities_and_an_averaging_one_means() {
    let predict = |text: &str| model("m", text).predictions(&[0.0, 0.0]);
    assert_eq!(predict(&small_text("binary sigmoid:0.7")), [1.0 / (1.0 + (-0.7_f64 * 1.25).exp())]);
    let average = small_text("regression").replace("feature_names", "average_output\nfeature_names");
    assert_eq!(predict(&average), [1.25 / 2.0]);
}

#[test]
fn a_tree_without_splits_is_its_leaf() {
    let tree = Tree { output: Some(0), leaves: vec![0.25], ..Tree::default() };
    assert_eq!(forest(&model("m", &small_text("regression"))).trees()[1], tree);
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

#[test]
fn a_large_file_is_read_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.txt");
    let tree = |index| tree_text(index, &[(0, "0.5", 10, 1, -3), (1, "2", 0, -1, -2)], "1 2 4");
    let text = model_text("regression", &(0..30_000).map(tree).collect::<Vec<_>>());
    assert!(text.len() > 2 << 21, "{} bytes", text.len());
    std::fs::write(&path, &text).unwrap();
    let read = Model::load("m", &path).unwrap();
    assert!(read == model("m", &text));
    assert_eq!(forest(&read).trees().len(), 30_000);
    // What is cut off is missed, and named by its line.
    std::fs::write(&path, &text[..text.len() / 2]).unwrap();
    let e = Model::load("m", &path).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Data);
    assert!(e.to_string().contains(": line "), "{e}");
}
