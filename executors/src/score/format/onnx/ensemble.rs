//! Tree operators: `TreeEnsembleRegressor` and `TreeEnsembleClassifier` (versions 1 and 3), and `TreeEnsemble` (5).
//!
//! All are columns of nodes. The old ones list leaves among the nodes, the new one apart:
//!
//! ```text
//!  nodes_treeids       0  0  0             tree_roots          0
//!  nodes_nodeids       0  1  2             nodes_featureids    1
//!  nodes_featureids    1  0  0             nodes_modes         1  (<)
//!  nodes_modes         <  LEAF LEAF        nodes_splits        .5
//!  nodes_values        .5 0  0             nodes_truenodeids   0    nodes_trueleafs   1
//!  nodes_truenodeids   1  0  0             nodes_falsenodeids  1    nodes_falseleafs  1
//!  nodes_falsenodeids  2  0  0             leaf_targetids      0  0
//!  target_nodeids      1  2                leaf_weights        .3 .7
//!  target_ids          0  0
//!  target_weights      .3 .7      (or class_…)
//! ```
//!
//! Leaves are added in the type of the input tensor, tree by tree, and `base_values` to their sum, as onnxruntime does.
//! A leaf may add to several targets. A binary classifier with weights for one class only has one output here, the
//! score of its second class, as in the other formats; runtimes make two columns of it.
//!
//! Where onnxruntime 1.32 strays from the specification, and ONNX's reference from it, the specification is followed: a
//! target that no leaf adds to still has its base value, a class likewise has the score 0 (onnxruntime mirrors the
//! other of two), and members of a set are equal to the value (it takes fractions near 0 and -1 for them). Where there
//! is no telling who is right, as for `LOGISTIC` after a regression to one target, the model is refused.

use std::collections::{HashMap, HashSet};

use featurectl_core::{Error, Result};

use super::damaged;
use super::message::Node as Operator;
use crate::score::forest::{Forest, Missing, Precision, Split, Test, Tree};
use crate::score::model::Link;

/// How many times as many leaf values as the file has may be made of it, where a leaf names few of many outputs.
const SPREAD_MAX: usize = 32;

/// Outputs beyond this are believed only as far as there are leaves for them.
const OUTPUTS_MAX: usize = 65_536;

/// How an operator treats a row: what [`read`] makes of it.
pub(super) struct Ensemble {
    /// The trees.
    pub(super) forest: Forest,
    /// What its sums stand for.
    pub(super) link: Link,
    /// The names of its classes.
    pub(super) classes: Vec<String>,
}

/// What a tree operator computes. `width` is the number of columns, where it is known; `double` says whether they are
/// 64-bit floats.
pub(super) fn read(operator: &Operator, width: Option<usize>, double: bool) -> Result<Ensemble> {
    let raw = match operator.op_type.as_str() {
        "TreeEnsemble" => modern(operator)?,
        "TreeEnsembleClassifier" => classic(operator, "class")?,
        _ => classic(operator, "target")?,
    };
    let classes = labels(operator);
    let target = raw.first_target();
    let mirrored = classes.len() == 2 && target < 2 && raw.leaves.iter().flatten().all(|(other, _)| *other == target);
    let outputs = outputs(operator, &raw, classes.len(), mirrored)?;
    let features = match width {
        Some(width) => width,
        None => raw.nodes.iter().map(|node| node.feature + 1).max().unwrap_or(0),
    };
    let base = base_values(operator, outputs, mirrored, target)?;
    let precision = |double| if double { Precision::F64 } else { Precision::F32 };
    let sum = precision(double || operator.tensor("nodes_values_as_tensor").is_some());
    let mut forest = Forest::new(features, vec![0.0; outputs], precision(double), sum);
    forest.bias = base;
    match aggregate(operator) {
        "SUM" => {}
        "AVERAGE" => forest.divide = raw.roots.len().max(1) as f64,
        other => return Err(unsupported(format_args!("`aggregate_function` `{other}`"), "sum or average the trees")),
    }
    raw.push_trees(&mut forest, mirrored)?;
    let link = match link(operator, mirrored)? {
        link @ (Link::Identity | Link::Probit) => link,
        link if operator.op_type == "TreeEnsembleClassifier" || outputs > 1 => link,
        _ => return Err(unsupported("a `post_transform` of one target", "export with `NONE`")),
    };
    Ok(Ensemble { forest, link, classes })
}

/// An error about what the scorer does not do.
fn unsupported(what: impl std::fmt::Display, instead: &str) -> Error {
    Error::invalid(format!("{what} cannot be scored here: {instead}"))
}

/// Where a branch leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Child {
    /// To a node, by its place among all nodes.
    Node(usize),
    /// To a leaf, by its place among all leaves.
    Leaf(usize),
}

/// An inner node as the file has it, in the terms of a [`Split`].
#[derive(Debug)]
struct RawNode {
    feature: usize,
    test: Test,
    /// Whether the test is of the false branch, since it asks the opposite.
    turned: bool,
    /// Whether NaN goes to the true branch.
    nan_is_true: bool,
    yes: Child,
    no: Child,
}

/// The columns of an operator, checked by themselves.
#[derive(Debug, Default)]
struct Raw {
    nodes: Vec<RawNode>,
    /// Target and weight of each entry of each leaf.
    leaves: Vec<Vec<(usize, f64)>>,
    roots: Vec<Child>,
}

impl Raw {
    /// The target that the first leaf adds to.
    fn first_target(&self) -> usize {
        self.leaves.iter().flatten().next().map_or(0, |(target, _)| *target)
    }

    /// Makes trees of the nodes; `mirrored`: all leaves add to the one output, whichever class they name.
    fn push_trees(mut self, forest: &mut Forest, mirrored: bool) -> Result<()> {
        if mirrored {
            self.leaves.iter_mut().flatten().for_each(|(target, _)| *target = 0);
        }
        let (outputs, mut seen) = (forest.outputs(), vec![false; self.nodes.len()]);
        let (given, mut made) = (self.leaves.iter().map(Vec::len).sum::<usize>() + self.leaves.len(), 0);
        for (number, root) in self.roots.iter().enumerate() {
            let in_tree = |e: Error| e.context(format!("tree {number}"));
            let (splits, leaves) = self.walk(*root, &mut seen).map_err(in_tree)?;
            let output = self.one_output(&leaves, outputs).map_err(in_tree)?;
            made += leaves.len() * if output.is_some() { 1 } else { outputs };
            if made > given.saturating_mul(SPREAD_MAX) {
                return Err(unsupported(
                    format_args!("{outputs} outputs, few of them in each leaf,"),
                    "train a model for fewer targets or classes",
                ));
            }
            let leaves = self.values(&leaves, output, outputs);
            forest.push(Tree { output, splits, leaves, linear: Vec::new(), covers: Vec::new() }).map_err(in_tree)?;
        }
        Ok(())
    }

    /// The splits below a root, parents first, and the leaves in the order that the splits number them in.
    fn walk(&self, root: Child, seen: &mut [bool]) -> Result<(Vec<Split>, Vec<usize>)> {
        let (mut splits, mut leaves): (Vec<Split>, Vec<usize>) = (Vec::new(), Vec::new());
        // What is still to be made, and the split it is the left (true) or right child of.
        let mut open = vec![(root, None::<(usize, bool)>)];
        while let Some((child, parent)) = open.pop() {
            let number = match self.reduced(child) {
                Child::Leaf(leaf) => {
                    leaves.push(leaf);
                    !(leaves.len() as i32 - 1)
                }
                Child::Node(at) => {
                    if seen.get_mut(at).is_none_or(|seen| std::mem::replace(seen, true)) {
                        return Err(damaged(format_args!("two branches lead to node {at}, or a cycle does")));
                    }
                    let (node, number) = (&self.nodes[at], splits.len());
                    let (left, right) = if node.turned { (node.no, node.yes) } else { (node.yes, node.no) };
                    open.push((right, Some((number, false))));
                    open.push((left, Some((number, true))));
                    splits.push(node.split()?);
                    number as i32
                }
            };
            match parent.and_then(|(at, left)| Some((splits.get_mut(at)?, left))) {
                Some((split, true)) => split.left = number,
                Some((split, false)) => split.right = number,
                None => {}
            }
        }
        Ok((splits, leaves))
    }

    /// The leaf itself where both branches of a node lead to it, which is how version 5 writes a tree of one leaf.
    fn reduced(&self, child: Child) -> Child {
        match child {
            Child::Node(at) => match self.nodes.get(at) {
                Some(RawNode { yes: yes @ Child::Leaf(_), no, .. }) if yes == no => *yes,
                _ => child,
            },
            leaf => leaf,
        }
    }

    /// The output that all these leaves add to, if it is one.
    fn one_output(&self, leaves: &[usize], outputs: usize) -> Result<Option<u32>> {
        let (mut only, mut one) = (None, true);
        for leaf in leaves {
            let (entries, mut seen) = (&self.leaves[*leaf], HashSet::new());
            one &= entries.len() <= 1;
            for (target, _) in entries {
                if *target >= outputs {
                    return Err(damaged(format_args!("a leaf adds to target {target}, but there are {outputs}")));
                }
                if !seen.insert(target) {
                    return Err(unsupported("a leaf that adds to a target twice", "export the model again"));
                }
                one &= *only.get_or_insert(*target) == *target;
            }
        }
        Ok(one.then_some(only.unwrap_or(0) as u32))
    }

    /// What these leaves add, for one output or, leaf by leaf, for all.
    fn values(&self, leaves: &[usize], output: Option<u32>, outputs: usize) -> Vec<f64> {
        let width = if output.is_some() { 1 } else { outputs };
        let mut values = vec![0.0; leaves.len() * width];
        for (leaf, values) in leaves.iter().zip(values.chunks_mut(width)) {
            for (target, weight) in &self.leaves[*leaf] {
                values[if output.is_some() { 0 } else { *target }] = *weight;
            }
        }
        values
    }
}

impl RawNode {
    /// The split, its children still open.
    fn split(&self) -> Result<Split> {
        let feature = u32::try_from(self.feature).map_err(|_| damaged("a node reads a feature out of range"))?;
        let nan_goes_left = self.nan_is_true != self.turned;
        let missing = if nan_goes_left { Missing::Left } else { Missing::Right };
        Ok(Split { feature, test: self.test.clone(), missing, left: 0, right: 0 })
    }
}

/// What a node asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    AtMost,
    Below,
    AtLeast,
    Above,
    Equal,
    NotEqual,
    Member,
}

impl Mode {
    /// The mode of a number of version 5.
    fn from_number(number: f64) -> Option<Self> {
        let all = [Self::AtMost, Self::Below, Self::AtLeast, Self::Above, Self::Equal, Self::NotEqual, Self::Member];
        all.into_iter().zip(0u8..).find(|(_, of)| f64::from(*of) == number).map(|(mode, _)| mode)
    }

    /// The mode of a word of versions 1 and 3; `None` for a leaf or an unknown word.
    fn from_word(word: &[u8]) -> Option<Self> {
        match word {
            b"BRANCH_LEQ" => Some(Self::AtMost),
            b"BRANCH_LT" => Some(Self::Below),
            b"BRANCH_GTE" => Some(Self::AtLeast),
            b"BRANCH_GT" => Some(Self::Above),
            b"BRANCH_EQ" => Some(Self::Equal),
            b"BRANCH_NEQ" => Some(Self::NotEqual),
            _ => None,
        }
    }

    /// The question for a threshold or, where it is a set, its members; and whether it is the opposite one.
    fn test(self, value: f64, members: Vec<f64>) -> (Test, bool) {
        match self {
            Self::AtMost => (Test::AtMost(value), false),
            Self::Above => (Test::AtMost(value), true),
            Self::Below => (below(value), false),
            Self::AtLeast => (below(value), true),
            Self::Equal => (one_of(vec![value]), false),
            Self::NotEqual => (one_of(vec![value]), true),
            Self::Member => (one_of(members), false),
        }
    }
}

/// `x < value`.
fn below(value: f64) -> Test {
    match value == f64::NEG_INFINITY {
        // Nothing is below it.
        true => Test::Within(Box::new([])),
        false => Test::AtMost(value.next_down()),
    }
}

/// `x` is one of some values.
fn one_of(mut values: Vec<f64>) -> Test {
    // Adding 0 makes 0 of -0, which is equal to it and so has the same neighbours.
    values.iter_mut().for_each(|value| *value += 0.0);
    values.sort_by(f64::total_cmp);
    values.dedup();
    let mut edges: Vec<f64> = Vec::new();
    for value in values {
        let low = value.next_down();
        // Neighbours share an edge, which then is none; and below the least value there is none.
        if edges.last() == Some(&low) {
            edges.pop();
        } else if low < value {
            edges.push(low);
        }
        edges.push(value);
    }
    Test::Within(edges.into())
}

/// The columns of version 5.
fn modern(operator: &Operator) -> Result<Raw> {
    let tensor = |name: &str| operator.tensor(name).map_or(Ok(Vec::new()), |tensor| tensor.numbers());
    let (features, modes, splits) =
        (operator.ints("nodes_featureids"), tensor("nodes_modes")?, tensor("nodes_splits")?);
    let tracks = operator.ints("nodes_missing_value_tracks_true");
    let count = features.len();
    same_length("nodes_modes", modes.len(), count)?;
    same_length("nodes_splits", splits.len(), count)?;
    if !tracks.is_empty() {
        same_length("nodes_missing_value_tracks_true", tracks.len(), count)?;
    }
    let leaves = modern_leaves(operator)?;
    let yes = modern_children(operator, "true", count, leaves.len())?;
    let no = modern_children(operator, "false", count, leaves.len())?;
    let sets = tensor("membership_values")?;
    let mut sets = sets.split(|value| value.is_nan());
    let mut nodes = Vec::with_capacity(count);
    for (at, branches) in yes.into_iter().zip(no).enumerate() {
        let mode = Mode::from_number(modes[at])
            .ok_or_else(|| damaged(format_args!("node {at} has the mode {}", modes[at])))?;
        let members = match mode {
            Mode::Member => sets.next().ok_or_else(|| damaged("`membership_values` has too few sets"))?.to_vec(),
            _ => Vec::new(),
        };
        let tracks_true = tracks.get(at).is_some_and(|tracks| *tracks != 0);
        nodes.push(raw_node(mode, features[at], splits[at], members, tracks_true, branches)?);
    }
    let root = |root: &i64| Ok(Child::Node(within(*root, count, "a tree begins at node")?));
    let roots = operator.ints("tree_roots").iter().map(root).collect::<Result<Vec<_>>>()?;
    Ok(Raw { nodes, leaves, roots })
}

/// Where the branches of each of `nodes` nodes of version 5 lead; `branch` is `true` or `false`.
fn modern_children(operator: &Operator, branch: &str, nodes: usize, leaves: usize) -> Result<Vec<Child>> {
    let (ids, are_leaves) = (format!("nodes_{branch}nodeids"), format!("nodes_{branch}leafs"));
    same_length(&ids, operator.ints(&ids).len(), nodes)?;
    same_length(&are_leaves, operator.ints(&are_leaves).len(), nodes)?;
    let child = |(id, is_leaf): (&i64, &i64)| match is_leaf {
        0 => Ok(Child::Node(within(*id, nodes, "a branch leads to node")?)),
        _ => Ok(Child::Leaf(within(*id, leaves, "a branch leads to leaf")?)),
    };
    operator.ints(&ids).iter().zip(operator.ints(&are_leaves)).map(child).collect()
}

/// The leaves of version 5, one entry each.
fn modern_leaves(operator: &Operator) -> Result<Vec<Vec<(usize, f64)>>> {
    let targets = operator.ints("leaf_targetids");
    let weights = operator.tensor("leaf_weights").map_or(Ok(Vec::new()), |tensor| tensor.numbers())?;
    same_length("leaf_weights", weights.len(), targets.len())?;
    let leaf =
        |(target, weight): (&i64, f64)| Ok(vec![(within(*target, OUTPUTS_MAX, "a leaf adds to target")?, weight)]);
    targets.iter().zip(weights).map(leaf).collect()
}

/// The columns of versions 1 and 3; `kind` is what leaf entries are called by.
fn classic(operator: &Operator, kind: &str) -> Result<Raw> {
    let column = |name: &str| operator.ints(name);
    let (trees, ids, modes) = (column("nodes_treeids"), column("nodes_nodeids"), operator.words("nodes_modes"));
    let (features, values) = (column("nodes_featureids"), operator.reals("nodes_values")?);
    let (yes, no) = (column("nodes_truenodeids"), column("nodes_falsenodeids"));
    let tracks = column("nodes_missing_value_tracks_true");
    let count = ids.len();
    let lengths = [trees.len(), modes.len(), features.len(), values.len(), yes.len(), no.len()];
    let names = ["treeids", "modes", "featureids", "values", "truenodeids", "falsenodeids"];
    for (name, length) in names.into_iter().zip(lengths) {
        same_length(&format!("nodes_{name}"), length, count)?;
    }
    if !tracks.is_empty() {
        same_length("nodes_missing_value_tracks_true", tracks.len(), count)?;
    }
    let places = Places::new(trees, ids, modes)?;
    let mut raw = Raw { leaves: places.leaves(operator, kind)?, ..Raw::default() };
    for at in 0..count {
        let child = places.child(trees[at], ids[at])?;
        if at == 0 || trees[at] != trees[at - 1] {
            raw.roots.push(child);
        }
        if let Child::Node(_) = child {
            let mode = Mode::from_word(&modes[at]).ok_or_else(|| {
                damaged(format_args!("node {} has the mode `{}`", ids[at], String::from_utf8_lossy(&modes[at])))
            })?;
            let tracks_true = tracks.get(at).is_some_and(|tracks| *tracks != 0);
            let branches = (places.child(trees[at], yes[at])?, places.child(trees[at], no[at])?);
            raw.nodes.push(raw_node(mode, features[at], values[at], Vec::new(), tracks_true, branches)?);
        }
    }
    Ok(raw)
}

/// Where the nodes of versions 1 and 3 are, by tree and node number.
struct Places {
    places: HashMap<(i64, i64), Child>,
    leaf_count: usize,
}

impl Places {
    /// Numbers nodes and leaves, each by itself.
    fn new(trees: &[i64], ids: &[i64], modes: &[Vec<u8>]) -> Result<Self> {
        let (mut places, mut node_count, mut leaf_count) = (HashMap::new(), 0, 0);
        for ((tree, id), mode) in trees.iter().zip(ids).zip(modes) {
            let child = if mode == b"LEAF" { Child::Leaf(leaf_count) } else { Child::Node(node_count) };
            match child {
                Child::Leaf(_) => leaf_count += 1,
                Child::Node(_) => node_count += 1,
            }
            if places.insert((*tree, *id), child).is_some() {
                return Err(damaged(format_args!("tree {tree} has two nodes {id}")));
            }
        }
        Ok(Self { places, leaf_count })
    }

    /// The node of this number.
    fn child(&self, tree: i64, id: i64) -> Result<Child> {
        let child = self.places.get(&(tree, id)).copied();
        child.ok_or_else(|| damaged(format_args!("tree {tree} has no node {id}, but a branch or a weight names it")))
    }

    /// The entries of each leaf; those of inner nodes are not used.
    fn leaves(&self, operator: &Operator, kind: &str) -> Result<Vec<Vec<(usize, f64)>>> {
        let column = |what: &str| operator.ints(&format!("{kind}_{what}"));
        let (trees, ids, targets) = (column("treeids"), column("nodeids"), column("ids"));
        let weights = operator.reals(&format!("{kind}_weights"))?;
        for (what, length) in [("treeids", trees.len()), ("nodeids", ids.len()), ("ids", targets.len())] {
            same_length(&format!("{kind}_{what}"), length, weights.len())?;
        }
        let mut leaves = vec![Vec::new(); self.leaf_count];
        for (at, weight) in weights.into_iter().enumerate() {
            let target = within(targets[at], OUTPUTS_MAX.max(targets.len()), "a leaf adds to target")?;
            if let Child::Leaf(leaf) = self.child(trees[at], ids[at])? {
                leaves[leaf].push((target, weight));
            }
        }
        Ok(leaves)
    }
}

/// A node of what the file says about it; `branches` are the true and the false one.
fn raw_node(
    mode: Mode,
    feature: i64,
    value: f64,
    members: Vec<f64>,
    tracks_true: bool,
    branches: (Child, Child),
) -> Result<RawNode> {
    let feature = within(feature, u32::MAX as usize, "a node reads feature")?;
    if value.is_nan() && mode != Mode::Member {
        return Err(damaged("a threshold is not a number"));
    }
    let (test, turned) = mode.test(value, members);
    // NaN is not equal to anything; all other comparisons with it are false.
    let nan_is_true = tracks_true || mode == Mode::NotEqual;
    Ok(RawNode { feature, test, turned, nan_is_true, yes: branches.0, no: branches.1 })
}

/// An index below `count`; `what` says what it is the index of.
fn within(index: i64, count: usize, what: &str) -> Result<usize> {
    let place = usize::try_from(index).ok().filter(|index| *index < count);
    place.ok_or_else(|| damaged(format_args!("{what} {index}, but there are {count}")))
}

/// Refuses a column of another length than the others.
fn same_length(name: &str, length: usize, wanted: usize) -> Result<()> {
    match length == wanted {
        true => Ok(()),
        false => Err(damaged(format_args!("`{name}` has {length} values instead of {wanted}"))),
    }
}

/// The names of the classes; none for a regressor.
pub(super) fn labels(operator: &Operator) -> Vec<String> {
    let words = operator.words("classlabels_strings");
    let numbers = operator.ints("classlabels_int64s").iter().chain(operator.ints("classlabels_ints"));
    let words = words.iter().map(|word| String::from_utf8_lossy(word).into_owned());
    words.chain(numbers.map(i64::to_string)).collect()
}

/// How many outputs there are.
fn outputs(operator: &Operator, raw: &Raw, classes: usize, mirrored: bool) -> Result<usize> {
    match (operator.op_type.as_str(), mirrored, classes) {
        (_, true, _) => Ok(1),
        ("TreeEnsembleClassifier", _, 0) => Err(damaged("a classifier has no class labels")),
        ("TreeEnsembleClassifier", _, classes) => Ok(classes),
        _ => {
            let given = operator.int("n_targets").unwrap_or(1);
            let outputs = within(given, OUTPUTS_MAX.max(raw.leaves.len()) + 1, "`n_targets` is")?;
            if outputs == 0 { Err(damaged("`n_targets` is 0")) } else { Ok(outputs) }
        }
    }
}

/// What is added to each output; empty if nothing is.
fn base_values(operator: &Operator, outputs: usize, mirrored: bool, first_target: usize) -> Result<Vec<f64>> {
    let base = operator.reals("base_values")?;
    if base.iter().any(|base| !base.is_finite()) {
        return Err(damaged("`base_values` holds what is not a finite number"));
    }
    match base.len() {
        0 => Ok(base),
        // Weights for the second class only are two scores to onnxruntime, of which base values go to the first.
        1 if mirrored && first_target == 0 => Ok(base),
        length if length == outputs && !mirrored => Ok(base),
        _ if mirrored => {
            Err(unsupported("`base_values` of one score that are not its own", "export with weights for both classes"))
        }
        length => Err(damaged(format_args!("`base_values` has {length} values for {outputs} outputs"))),
    }
}

/// How trees are put together, in the words of versions 1 and 3.
fn aggregate(operator: &Operator) -> &str {
    if operator.op_type == "TreeEnsemble" {
        let words = ["AVERAGE", "SUM", "MIN", "MAX"];
        let number = usize::try_from(operator.int("aggregate_function").unwrap_or(1)).ok();
        return number.and_then(|number| words.get(number)).copied().unwrap_or("unknown");
    }
    match operator.text("aggregate_function") {
        "" => "SUM",
        word => word,
    }
}

/// What the sums stand for.
fn link(operator: &Operator, mirrored: bool) -> Result<Link> {
    let numbers = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"];
    let word = match operator.op_type.as_str() {
        "TreeEnsemble" => {
            let number = usize::try_from(operator.int("post_transform").unwrap_or(0)).ok();
            number.and_then(|number| numbers.get(number)).copied().unwrap_or("unknown")
        }
        _ => operator.text("post_transform"),
    };
    post_transform(word, mirrored)
}

/// What scores stand for after a `post_transform`; `mirrored`: the scores of two classes are each other's negative, and
/// only the second's is there.
pub(super) fn post_transform(word: &str, mirrored: bool) -> Result<Link> {
    match word {
        "" | "NONE" => Ok(Link::Identity),
        "LOGISTIC" => Ok(Link::Sigmoid { steepness: 1.0 }),
        "SOFTMAX" | "SOFTMAX_ZERO" | "PROBIT" if mirrored => {
            Err(unsupported(format_args!("`{word}` of one score"), "export with `post_transform` `LOGISTIC`"))
        }
        "PROBIT" => Ok(Link::Probit),
        "SOFTMAX" => Ok(Link::Softmax),
        "SOFTMAX_ZERO" => Ok(Link::SoftmaxZero),
        other => Err(unsupported(format_args!("`post_transform` `{other}`"), "export with `NONE`")),
    }
}
