//! Writes a forest of decision trees as a LightGBM text model, format version 4.
//!
//! A tree arrives as one list of nodes with the root first; LightGBM keeps splits and leaves in two lists and points
//! to leaf `i` with the number `-(i + 1)`:
//!
//! ```text
//!   Tree.nodes                                      text
//!   0: x[2] <= 0.5 ── yes ─▶ 1      ┌──────────────────────────────────┐
//!            └─────── no ──▶ 2      │ split_feature=2 0                │  splits in depth-first order:
//!   1: leaf -0.3                    │ threshold=0.5 7.0                │  node 0, node 2
//!   2: x[0] <= 7.0 ── yes ─▶ 3  ──▶ │ left_child=-1 -2                 │  leaves in depth-first order:
//!            └─────── no ──▶ 4      │ right_child=1 -3                 │  node 1, node 3, node 4
//!   3: leaf 0.1                     │ leaf_value=-0.3 0.1 0.2          │
//!   4: leaf 0.2                     └──────────────────────────────────┘
//! ```
//!
//! Numbers are written with the fewest digits that read back as the same `f64`, so the model loses nothing.

use std::fmt::{Display, Write};

/// Trees whose values add up to the raw prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct Forest {
    /// What the sum of the trees means.
    pub objective: Objective,
    /// The inputs, in the order in which [`Split::feature`] counts them.
    pub features: Vec<Feature>,
    /// The trees; any start value is part of the first tree's values.
    pub trees: Vec<Tree>,
}

/// What the sum of the trees means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objective {
    /// The log odds of the positive class: `1 / (1 + e^-sum)` is its probability.
    Binary,
    /// The target itself.
    Regression,
}

/// An input of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    /// Its name, without white space: the format separates names by spaces.
    pub name: String,
    /// The smallest and largest value seen in training, if it had any.
    pub range: Option<(f64, f64)>,
}

/// A decision tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Tree {
    /// The nodes, the root first; a lone root is a leaf.
    pub nodes: Vec<Node>,
}

/// A leaf, or an inner node that splits.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The prediction of a row that ends here.
    pub value: f64,
    /// The sum of the loss's second derivatives over the training rows that came here.
    pub weight: f64,
    /// The number of training rows that came here.
    pub count: u64,
    /// The question an inner node asks; a leaf has none.
    pub split: Option<Split>,
}

/// The question `x[feature] <= threshold`?
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// Index into [`Forest::features`].
    pub feature: usize,
    /// The largest value that goes left.
    pub threshold: f64,
    /// Whether a missing value (`NaN`) goes left.
    pub nan_left: bool,
    /// By how much the split reduced the loss.
    pub gain: f64,
    /// Index of the node for "yes" in [`Tree::nodes`].
    pub left: usize,
    /// Index of the node for "no" in [`Tree::nodes`].
    pub right: usize,
}

/// Bit 1 of LightGBM's `decision_type`: a missing value goes left.
const DEFAULT_LEFT: u8 = 1 << 1;
/// Bits 2 and 3 of `decision_type` hold what counts as missing; 2 is `NaN`.
const MISSING_IS_NAN: u8 = 2 << 2;

/// The forest as the text of a LightGBM model file.
///
/// LightGBM 4 loads it with `Booster(model_file=…)`. Every split treats `NaN`, and nothing else, as missing. The text
/// depends on the forest only, so equal forests give equal bytes.
pub fn lightgbm_text(forest: &Forest) -> String {
    let trees: Vec<String> = forest.trees.iter().enumerate().map(|(i, tree)| tree_text(i, tree)).collect();
    let mut text = header(forest, &trees);
    text.push_str(&trees.concat());
    text.push_str("end of trees\n\nfeature_importances:\n");
    text.push_str(&importances(forest));
    let objective = objective_name(forest.objective);
    let _ = write!(text, "\nparameters:\n[boosting: gbdt]\n[objective: {objective}]\nend of parameters\n");
    text.push_str("\npandas_categorical:null\n");
    text
}

/// Everything before the first tree. `tree_sizes` are bytes: LightGBM jumps by them.
fn header(forest: &Forest, trees: &[String]) -> String {
    let sigmoid = match forest.objective {
        Objective::Binary => " sigmoid:1",
        Objective::Regression => "",
    };
    let mut text = String::from("tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\n");
    line(&mut text, "max_feature_idx", [forest.features.len().saturating_sub(1)]);
    line(&mut text, "objective", [format!("{}{sigmoid}", objective_name(forest.objective))]);
    line(&mut text, "feature_names", forest.features.iter().map(|f| &f.name));
    line(&mut text, "feature_infos", forest.features.iter().map(feature_info));
    line(&mut text, "tree_sizes", trees.iter().map(String::len));
    text.push('\n');
    text
}

fn objective_name(objective: Objective) -> &'static str {
    match objective {
        Objective::Binary => "binary",
        Objective::Regression => "regression",
    }
}

/// The range of a feature, or `none` for one that never had a value.
fn feature_info(feature: &Feature) -> String {
    match feature.range {
        Some((low, high)) => format!("[{low:?}:{high:?}]"),
        None => "none".to_string(),
    }
}

/// One tree with the blank lines that end it, all of which count as its size.
fn tree_text(index: usize, tree: &Tree) -> String {
    let order = Order::new(tree);
    let splits = || order.splits.iter().filter_map(|&n| tree.nodes[n].split.as_ref());
    let inner = || order.splits.iter().map(|&n| &tree.nodes[n]);
    let leaves = || order.leaves.iter().map(|&n| &tree.nodes[n]);

    let mut text = format!("Tree={index}\n");
    line(&mut text, "num_leaves", [order.leaves.len()]);
    line(&mut text, "num_cat", [0]);
    line(&mut text, "split_feature", splits().map(|s| s.feature));
    line(&mut text, "split_gain", splits().map(|s| number(s.gain)));
    line(&mut text, "threshold", splits().map(|s| number(s.threshold)));
    line(&mut text, "decision_type", splits().map(decision_type));
    line(&mut text, "left_child", splits().map(|s| order.place[s.left]));
    line(&mut text, "right_child", splits().map(|s| order.place[s.right]));
    line(&mut text, "leaf_value", leaves().map(|n| number(n.value)));
    line(&mut text, "leaf_weight", leaves().map(|n| number(n.weight)));
    line(&mut text, "leaf_count", leaves().map(|n| n.count));
    line(&mut text, "internal_value", inner().map(|n| number(n.value)));
    line(&mut text, "internal_weight", inner().map(|n| number(n.weight)));
    line(&mut text, "internal_count", inner().map(|n| n.count));
    line(&mut text, "is_linear", [0]);
    line(&mut text, "shrinkage", [1]);
    text.push_str("\n\n");
    text
}

/// Where each node of a tree goes in LightGBM's two lists.
struct Order {
    /// The splitting nodes, the root first.
    splits: Vec<usize>,
    /// The leaves.
    leaves: Vec<usize>,
    /// Per node, how LightGBM points to it: its position among the splits, or `-(position + 1)` among the leaves.
    place: Vec<i64>,
}

impl Order {
    /// Depth first, left before right.
    fn new(tree: &Tree) -> Self {
        let mut order = Self { splits: Vec::new(), leaves: Vec::new(), place: vec![0; tree.nodes.len()] };
        let mut stack = vec![0];
        while let Some(node) = stack.pop() {
            match &tree.nodes[node].split {
                Some(split) => {
                    order.place[node] = order.splits.len() as i64;
                    order.splits.push(node);
                    stack.extend([split.right, split.left]);
                }
                None => {
                    order.leaves.push(node);
                    order.place[node] = -(order.leaves.len() as i64);
                }
            }
        }
        order
    }
}

fn decision_type(split: &Split) -> u8 {
    MISSING_IS_NAN | if split.nan_left { DEFAULT_LEFT } else { 0 }
}

/// How often each used feature splits, the most used first.
fn importances(forest: &Forest) -> String {
    let mut uses = vec![0u64; forest.features.len()];
    for split in forest.trees.iter().flat_map(|t| &t.nodes).filter_map(|n| n.split.as_ref()) {
        uses[split.feature] += 1;
    }
    let mut used: Vec<(u64, &str)> =
        uses.iter().zip(&forest.features).filter(|(n, _)| **n > 0).map(|(n, f)| (*n, f.name.as_str())).collect();
    used.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    used.iter().map(|(n, name)| format!("{name}={n}\n")).collect()
}

/// The fewest digits that read back as the same number.
fn number(x: f64) -> String {
    format!("{x:?}")
}

/// Adds the line `key=value value …`.
fn line<T: Display>(text: &mut String, key: &str, values: impl IntoIterator<Item = T>) {
    let _ = write!(text, "{key}=");
    for (i, value) in values.into_iter().enumerate() {
        let _ = write!(text, "{}{value}", if i == 0 { "" } else { " " });
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn leaf(value: f64) -> Node {
        Node { value, weight: 2.5, count: 10, split: None }
    }

    fn split(feature: usize, threshold: f64, nan_left: bool, left: usize, right: usize) -> Node {
        let split = Split { feature, threshold, nan_left, gain: 1.5, left, right };
        Node { value: 0.0, weight: 5.0, count: 20, split: Some(split) }
    }

    fn feature(name: &str, range: Option<(f64, f64)>) -> Feature {
        Feature { name: name.to_string(), range }
    }

    fn forest() -> Forest {
        let two_splits = vec![split(2, 0.5, false, 1, 2), leaf(-0.3), split(0, 7.0, true, 3, 4), leaf(0.1), leaf(1e-9)];
        Forest {
            objective: Objective::Binary,
            features: vec![feature("a", Some((-1.0, 1e300))), feature("b", None), feature("c", Some((0.0, 0.1)))],
            trees: vec![Tree { nodes: two_splits }, Tree { nodes: vec![leaf(0.25)] }],
        }
    }

    #[test]
    fn the_text_of_two_trees() {
        expect![[r#"
            tree
            version=v4
            num_class=1
            num_tree_per_iteration=1
            label_index=0
            max_feature_idx=2
            objective=binary sigmoid:1
            feature_names=a b c
            feature_infos=[-1.0:1e300] none [0.0:0.1]
            tree_sizes=301 229

            Tree=0
            num_leaves=3
            num_cat=0
            split_feature=2 0
            split_gain=1.5 1.5
            threshold=0.5 7.0
            decision_type=8 10
            left_child=-1 -2
            right_child=1 -3
            leaf_value=-0.3 0.1 1e-9
            leaf_weight=2.5 2.5 2.5
            leaf_count=10 10 10
            internal_value=0.0 0.0
            internal_weight=5.0 5.0
            internal_count=20 20
            is_linear=0
            shrinkage=1


            Tree=1
            num_leaves=1
            num_cat=0
            split_feature=
            split_gain=
            threshold=
            decision_type=
            left_child=
            right_child=
            leaf_value=0.25
            leaf_weight=2.5
            leaf_count=10
            internal_value=
            internal_weight=
            internal_count=
            is_linear=0
            shrinkage=1


            end of trees

            feature_importances:
            a=1
            c=1

            parameters:
            [boosting: gbdt]
            [objective: binary]
            end of parameters

            pandas_categorical:null
        "#]]
        .assert_eq(&lightgbm_text(&forest()));
    }

    #[test]
    fn tree_sizes_lead_from_tree_to_tree() {
        let text = lightgbm_text(&forest());
        let sizes = text.lines().find_map(|l| l.strip_prefix("tree_sizes=")).expect("a line of sizes");
        let mut at = text.find("Tree=0").expect("a first tree");
        for (i, size) in sizes.split(' ').enumerate() {
            assert!(text[at..].starts_with(&format!("Tree={i}\n")));
            at += size.parse::<usize>().expect("a size");
        }
        assert!(text[at..].starts_with("end of trees"));
    }

    #[test]
    fn numbers_read_back_as_they_were() {
        for x in [0.1, -0.0, 1e-300, 5e-324, f64::MAX, 1.0f64.next_down(), 0.0f64.next_down()] {
            assert_eq!(number(x).parse::<f64>().map(f64::to_bits), Ok(x.to_bits()));
        }
    }
}
