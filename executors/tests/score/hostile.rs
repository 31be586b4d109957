//! Damaged and unsupported models: an error that names the place, never a panic or a hang.

use featurectl_core::ErrorKind;
use featurectl_executors::score::Model;
use proptest::prelude::*;

use super::{model_text, small_text, tree_text};

/// Changes the small model and expects an error of `kind` that contains `message`.
fn check(kind: ErrorKind, from: &str, to: &str, message: &str) {
    let text = small_text("binary sigmoid:1");
    assert!(text.contains(from), "`{from}` is not in the model");
    check_text(kind, &text.replacen(from, to, 1), message);
}

/// Expects an error of `kind` that contains `message`.
fn check_text(kind: ErrorKind, text: &str, message: &str) {
    match Model::from_bytes("m", text.as_bytes()) {
        Ok(_) => panic!("loaded, instead of: {message}"),
        Err(e) => {
            assert!(e.to_string().contains(message), "`{e}` does not say `{message}`");
            assert_eq!(e.kind(), kind, "{e}");
        }
    }
}

#[test]
fn a_damaged_header_is_an_error() {
    let damaged = |from, to, message| check(ErrorKind::Data, from, to, message);
    damaged("version=v4\n", "", "header: `version=` is missing");
    damaged("num_class=1", "num_class=x", "line 3: header: `num_class` has the value `x`");
    damaged("max_feature_idx=1", "max_feature_idx=7", "line 8: header: 2 feature names, but `max_feature_idx` is 7");
    damaged("max_feature_idx=1", "max_feature_idx=-9223372036854775808", "`max_feature_idx` is -9223372036854775808");
    damaged("feature_names=a b", "feature_names=a a", "the feature `a` is named twice");
    damaged("sigmoid:1", "sigmoid:-1", "line 7: header: `sigmoid` is not above 0");
    damaged("sigmoid:1", "sigmoid:nan", "line 7: header: `sigmoid` is not above 0");
    damaged("label_index=0", "version=v4", "line 5: header: `version` is given twice");
    damaged("label_index=0", "label_index", "line 5: header: the line is not `key=value`");
    damaged("tree_sizes=", "tree_sizes=1 ", "line 12: tree 0: it takes");
    damaged("\ntree_sizes=", "\ntree_sizez=", "`tree_sizes=` is missing");
    damaged("end of trees", "end of", "tree 1: the line is not `key=value`");
    damaged("num_class=1", "num_class=3", "line 4: header: 1 trees per iteration for 3 classes");
    damaged("num_class=1", "num_class=0", "line 4: header: 1 trees per iteration for 0 classes");
    damaged("binary sigmoid:1", "binary", "line 7: header: the objective has no `sigmoid:`");
    damaged("binary sigmoid:1", "multiclass num_class:3", "has 3 outputs, but there are 1");
    damaged("end of parameters", "", "the file stops before `end of parameters`");
}

#[test]
fn a_damaged_tree_is_an_error() {
    let damaged = |from, to, message| check(ErrorKind::Data, from, to, message);
    damaged("Tree=1", "Tree=2", "`Tree=1` is missing");
    damaged("num_leaves=3", "num_leaves=4", "line 21: tree 0: `leaf_value` has 3 values instead of 4");
    damaged("num_leaves=3", "num_leaves=0", "line 13: tree 0: it has no leaves");
    damaged("num_leaves=3", "num_leaves=99999999999999999999", "`num_leaves` has the value `99999999999999999999`");
    damaged("num_leaves=3", "num_leaves=18446744073709551615", "`leaf_value` has 3 values instead of");
    damaged("threshold=0.5 2", "threshold=0.5 x", "line 17: tree 0: `threshold` has the value `x`");
    damaged("threshold=0.5 2", "threshold=0.5", "line 17: tree 0: `threshold` has 1 values instead of 2");
    damaged("threshold=0.5 2", "threshold=nan 2", "line 12: tree 0: the threshold of split 0 is not a number");
    damaged("leaf_value=1 2 4", "leaf_value=1 inf 4", "the value of leaf 1 is not a finite number");
    damaged("left_child=1 -1", "left_child=0 -1", "split 0 leads back to split 0: a cycle");
    damaged("left_child=1 -1", "left_child=1 0", "split 1 leads back to split 0: a cycle");
    damaged("left_child=1 -1", "left_child=1 2", "split 1 has the child 2, but there are 2 splits and 3 leaves");
    damaged("left_child=1 -1", "left_child=1 -4", "split 1 has the child -4");
    damaged("left_child=1 -1", "left_child=1 -2147483648", "split 1 has the child -2147483648");
    damaged("left_child=1 -1", "left_child=1 -2", "the child -2 of split 1 has another parent too");
    damaged("split_feature=0 1", "split_feature=0 2", "split 1 reads feature 2, but there are 2 features");
    damaged("decision_type=10 0", "decision_type=12 0", "line 18: tree 0: `decision_type` has the value `12`");
    damaged("leaf_value=1 2 4", "leaf_value=1 2 40", "line 12: tree 0: it takes");
    damaged("leaf_value=1 2 4\n", "", "line 12: tree 0: `leaf_value=` is missing");
    damaged("num_cat=0", "num_cat=1", "line 12: tree 0: `cat_boundaries=` is missing");
    damaged("decision_type=10 0", "decision_type=10 1", "line 17: tree 0: a categorical split has the set 2 of 0");
    damaged("is_linear=0", "is_linear=1", "line 12: tree 0: `leaf_const=` is missing");
}

#[test]
fn an_unsupported_model_is_refused_with_what_to_do() {
    let refused = |from: &str, to: &str, message: &str| check(ErrorKind::Invalid, from, to, message);
    for version in ["v1", "v5", ""] {
        refused(
            "version=v4",
            &format!("version={version}"),
            &format!("line 2: version `{version}` of the format cannot be scored here: save the model with"),
        );
    }
    refused("binary sigmoid:1", "hinge", "line 7: header: the objective `hinge` cannot be scored here: train with");
}

#[test]
fn a_model_cut_anywhere_before_its_end_is_an_error() {
    let text = small_text("regression");
    let end = text.find("end of trees").unwrap() + "end of trees".len();
    for length in 0..end {
        let e = Model::from_bytes("m", &text.as_bytes()[..length]).unwrap_err();
        assert!(matches!(e.kind(), ErrorKind::Data | ErrorKind::Invalid), "cut at {length}: {e}");
    }
    assert!(Model::from_bytes("m", &text.as_bytes()[..end]).is_ok());
    for length in text.find("parameters:").unwrap() + 11..text.find("\nend of parameters").unwrap() {
        assert!(Model::from_bytes("m", &text.as_bytes()[..length]).is_err(), "cut at {length}");
    }
}

#[test]
fn bytes_that_are_no_text_are_an_error() {
    let e = Model::from_bytes("m", b"tree\n\xff\xfe").unwrap_err();
    assert_eq!((e.kind(), e.to_string().as_str()), (ErrorKind::Data, "byte 5 is not UTF-8 text: save the model again"));
}

#[test]
fn a_deep_tree_neither_overflows_nor_slows_down() {
    const DEPTH: i32 = 20_000;
    let column = |value: &dyn Fn(i32) -> String| (0..DEPTH).map(value).collect::<Vec<_>>().join(" ");
    let leaves: Vec<String> = (0..=DEPTH).map(|leaf| leaf.to_string()).collect();
    let tree = format!(
        "Tree=0\nnum_leaves={}\nsplit_feature={}\nthreshold={}\ndecision_type={}\nleft_child={}\n\
         right_child={}\nleaf_value={}\n\n",
        DEPTH + 1,
        column(&|_| "0".into()),
        column(&|split| split.to_string()),
        column(&|_| "0".into()),
        column(&|split| (!split).to_string()),
        column(&|split| if split + 1 == DEPTH { !DEPTH } else { split + 1 }.to_string()),
        leaves.join(" "),
    );
    let model = super::model("m", &model_text("regression", &[tree]));
    let margins = [-1.0, 700.5, 1e9].map(|a| model.margins(&[a, 0.0])[0]);
    assert_eq!(margins, [0.0, 701.0, f64::from(DEPTH)]);
}

/// Loads bytes and, if they are a model, scores with it.
fn load_and_score(bytes: &[u8]) {
    let Ok(model) = Model::from_bytes("m", bytes) else { return };
    for value in [-1.0, 0.0, 3.0, f64::NAN] {
        let row = vec![value; model.features.len()];
        assert_eq!(model.predictions(&row).len(), model.margins(&row).len());
    }
}

/// What the format is made of, and one byte that is no text.
const BYTES: &[u8] = b"0123456789-. =\nTeinfx\xff";

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Same length, so that `tree_sizes` does not stop the reader early.
    #[test]
    fn changed_bytes_give_a_model_or_an_error(
        edits in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(BYTES.to_vec())), 1..6),
    ) {
        let mut bytes = hostile_base().into_bytes();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        load_and_score(&bytes);
    }

    #[test]
    fn cut_doubled_and_removed_bytes_give_a_model_or_an_error(
        from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(), double in any::<bool>(),
    ) {
        let mut bytes = hostile_base().into_bytes();
        let (a, b) = (from.index(bytes.len()), to.index(bytes.len()));
        let range = a.min(b)..a.max(b);
        match double {
            true => { let part = bytes[range.clone()].to_vec(); bytes.splice(range.end..range.end, part); }
            false => { bytes.drain(range); }
        }
        load_and_score(&bytes);
        load_and_score(&hostile_base().as_bytes()[..a]);
    }

    #[test]
    fn children_at_random_give_a_model_or_an_error(
        splits in prop::collection::vec((0..3u32, 0..16u8, -7..7i32, -7..7i32), 0..6),
    ) {
        let splits: Vec<_> = splits.into_iter().map(|(f, bits, left, right)| (f, "0.5", bits, left, right)).collect();
        let leaves = vec!["1"; splits.len() + 1].join(" ");
        load_and_score(model_text("regression", &[tree_text(0, &splits, &leaves)]).as_bytes());
    }
}

/// A model with something of everything.
fn hostile_base() -> String {
    let first = tree_text(0, &[(0, "0.5", 10, 1, -3), (1, "2", 4, -1, -2)], "1 2 4");
    let second = tree_text(1, &[(1, "1e-3", 0, 1, 2), (0, "-2", 6, -1, -2), (1, "3", 8, -3, -4)], "0.1 -0.2 0.3 1e300");
    model_text("binary sigmoid:1", &[first, second])
}
