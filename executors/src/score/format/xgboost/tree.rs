//! Makes trees of XGBoost's nodes.
//!
//! A tree is a table of nodes whose numbers may have holes: pruning leaves nodes behind that no one leads to. What is
//! asked of a number is `x < split`; of a category, whether it is one of a set, and then it goes **right**.
//!
//! ```text
//!  node             0     1     2     3     4                    splits        leaves
//!  left_children    1    -1     3    -1    -1                    0: node 0     0: node 1
//!  right_children   2    -1     4    -1    -1           ──▶      1: node 2     1: node 3
//!  split_indices    1     0     0     0     0                                  2: node 4
//!  split_conditions .5    .3    2   -.2    .1   (a leaf's value)
//!  default_left     1     0     0     0     0
//! ```
//!
//! Splits are numbered level by level, so that parents come before their children; leaves in the order of their nodes,
//! so that the leaf of a row is the rank, among all leaves, of the node that the library gives. Where a leaf has values
//! for all outputs, `left_children` is -1 and `right_children` says which of `leaf_weights` are its own; before 3.2,
//! they stand in `base_weights` by the number of the node.

use featurectl_core::Result;

use super::part::Part;
use crate::score::forest::{Missing, Split, Test, Tree};

/// Codes of categories are below this, since the 32-bit floats that they are read from must be exact.
const CATEGORIES_MAX: i64 = 1 << 24;

/// What trees have in common.
#[derive(Debug)]
pub(super) struct Shape {
    /// How many values the model gives.
    pub outputs: usize,
    /// For each feature that was trained on whole numbers as categories, the number that each code stands for.
    pub values: Vec<Option<Vec<i64>>>,
}

/// A tree in `part` for `output`, with every leaf multiplied by `weight`.
pub(super) fn tree(part: &Part, shape: &Shape, output: u32, weight: Option<f32>) -> Result<Tree> {
    let nodes = Nodes::read(part, shape)?;
    let (inner, leaves) = nodes.walk()?;
    let mut child = vec![0; nodes.left.len()];
    for (number, node) in (0..).zip(&inner) {
        child[*node] = number;
    }
    for (number, node) in (0..).zip(&leaves) {
        child[*node] = !number;
    }
    let splits = inner.iter().map(|node| nodes.split(*node, &child)).collect::<Result<_>>()?;
    let width = part.get("tree_param")?.find("size_leaf_vector").map_or(Ok(0), |size| size.count())?;
    let (output, mut values) = match width {
        0 | 1 => (Some(output), nodes.values(&leaves)),
        _ if width != shape.outputs => {
            let outputs = shape.outputs;
            return Err(
                part.damaged(format_args!("its leaves have {width} values, but the model has {outputs} outputs"))
            );
        }
        _ => (None, nodes.vectors(&leaves, width)?),
    };
    if let Some(weight) = weight {
        values.iter_mut().for_each(|value| *value *= weight);
    }
    let values = values.into_iter().map(f64::from).collect();
    Ok(Tree { output, splits, leaves: values, linear: Vec::new(), covers: covers(part, inner.iter().chain(&leaves))? })
}

/// The weight of the rows that came to each of some nodes; nothing if the file does not say.
fn covers<'a>(part: &Part, nodes: impl Iterator<Item = &'a usize>) -> Result<Vec<f64>> {
    let Some(sums) = part.find("sum_hessian") else { return Ok(Vec::new()) };
    let sums = sums.floats()?;
    let of = |node: &usize| sums.get(*node).copied().filter(|s| s.is_finite() && *s >= 0.0).map(f64::from);
    Ok(nodes.map(of).collect::<Option<_>>().unwrap_or_default())
}

/// The table of nodes, a column each.
struct Nodes<'a> {
    part: &'a Part<'a>,
    left: Vec<i64>,
    right: Vec<i64>,
    feature: Vec<i64>,
    condition: Vec<f32>,
    default_left: Vec<i64>,
    /// What is asked of a category; `None`: the split is one of numbers.
    categories: Vec<Option<Test>>,
}

impl<'a> Nodes<'a> {
    /// Reads all columns and sees to it that they are equally long.
    fn read(part: &'a Part<'a>, shape: &Shape) -> Result<Self> {
        let wholes = |key| part.get(key)?.wholes();
        let (left, right) = (wholes("left_children")?, wholes("right_children")?);
        let (feature, default_left) = (wholes("split_indices")?, wholes("default_left")?);
        let condition = part.get("split_conditions")?.floats()?;
        let count = part.get("tree_param")?.get("num_nodes")?.count()?;
        let lengths = [left.len(), right.len(), feature.len(), default_left.len(), condition.len()];
        if count == 0 || lengths.iter().any(|length| *length != count) {
            return Err(part.damaged(format_args!("{count} nodes have columns of {lengths:?} values")));
        }
        let categories = categories(part, &feature, shape)?;
        Ok(Self { part, left, right, feature, condition, default_left, categories })
    }

    /// The inner nodes, parents before their children, and the leaves by their number, of all that the root leads to.
    fn walk(&self) -> Result<(Vec<usize>, Vec<usize>)> {
        let mut seen = vec![false; self.left.len()];
        let (mut order, mut inner, mut leaves, mut at) = (vec![0], Vec::new(), Vec::new(), 0);
        while let Some(&node) = order.get(at) {
            at += 1;
            if std::mem::replace(&mut seen[node], true) {
                return Err(self.part.damaged(format_args!("two ways lead to node {node}: it is no tree")));
            }
            if self.left[node] == -1 {
                leaves.push(node);
                continue;
            }
            inner.push(node);
            for child in [self.left[node], self.right[node]] {
                match usize::try_from(child) {
                    Ok(child) if child < seen.len() => order.push(child),
                    _ => {
                        let count = seen.len();
                        return Err(self.part.damaged(format_args!("node {node} leads to {child} of {count} nodes")));
                    }
                }
            }
        }
        leaves.sort_unstable();
        Ok((inner, leaves))
    }

    /// The split of an inner node; `child` gives the new number of each node.
    fn split(&self, node: usize, child: &[i32]) -> Result<Split> {
        let wrong = |what: String| self.part.damaged(format_args!("node {node}: {what}"));
        let feature =
            u32::try_from(self.feature[node]).map_err(|_| wrong(format!("no feature {}", self.feature[node])))?;
        let (less, more) = (child[self.left[node] as usize], child[self.right[node] as usize]);
        let default_left = self.default_left[node] != 0;
        let (test, left, right, missing_left) = match &self.categories[node] {
            Some(test) => (test.clone(), more, less, !default_left),
            None if self.condition[node].is_nan() => {
                return Err(wrong("its `split_conditions` is not a number".into()));
            }
            None => (less_than(self.condition[node]), less, more, default_left),
        };
        let missing = if missing_left { Missing::Left } else { Missing::Right };
        Ok(Split { feature, test, missing, left, right })
    }

    /// The value of each leaf.
    fn values(&self, leaves: &[usize]) -> Vec<f32> {
        leaves.iter().map(|leaf| self.condition[*leaf]).collect()
    }

    /// The values of each leaf, one an output.
    fn vectors(&self, leaves: &[usize], width: usize) -> Result<Vec<f32>> {
        let own = self.part.find("leaf_weights").map(|part| part.floats()).transpose()?.filter(|own| !own.is_empty());
        let weights = match &own {
            Some(own) => own,
            None => &self.part.get("base_weights")?.floats()?,
        };
        // Otherwise leaves that share their values could be far more than the file.
        if weights.len() / width < leaves.len() {
            let count = leaves.len();
            return Err(self
                .part
                .damaged(format_args!("{count} leaves have {} values of {width} outputs", weights.len())));
        }
        let mut values = Vec::with_capacity(leaves.len() * width);
        for leaf in leaves {
            let at = if own.is_some() { usize::try_from(self.right[*leaf]).ok() } else { Some(*leaf) };
            let found = at.and_then(|at| weights.get(at.checked_mul(width)?..)?.get(..width));
            values.extend(found.ok_or_else(|| self.part.damaged(format_args!("the leaf {leaf} has no values")))?);
        }
        Ok(values)
    }
}

/// `x < split`, in 32-bit floats: `x` is at most the number below. Nothing is below minus infinity.
fn less_than(split: f32) -> Test {
    match split == f32::NEG_INFINITY {
        true => Test::Within([].into()),
        false => Test::AtMost(split.next_down().into()),
    }
}

/// For each node that asks for a category, what it asks. The sets follow each other in one array, in the order of
/// their nodes, so that they can't be larger than the file.
fn categories(part: &Part, feature: &[i64], shape: &Shape) -> Result<Vec<Option<Test>>> {
    let mut tests = vec![None; feature.len()];
    let Some(kinds) = part.find("split_type") else { return Ok(tests) };
    let kinds = kinds.wholes()?;
    let wholes = |key| part.get(key)?.wholes();
    let (nodes, starts) = (wholes("categories_nodes")?, wholes("categories_segments")?);
    let (sizes, all) = (wholes("categories_sizes")?, wholes("categories")?);
    if kinds.len() != feature.len() || starts.len() != nodes.len() || sizes.len() != nodes.len() {
        return Err(part.damaged("`split_type` or the columns of categories are not equally long"));
    }
    let mut rest = all.as_slice();
    for ((node, start), size) in nodes.iter().zip(starts).zip(sizes) {
        let wrong = |what: &str| part.damaged(format_args!("the categories of node {node}: {what}"));
        let at = usize::try_from(*node).ok().filter(|at| *at < tests.len());
        let at = at.ok_or_else(|| wrong("there is no such node"))?;
        let set = usize::try_from(size).ok().and_then(|size| rest.split_at_checked(size));
        let (set, after) = set.ok_or_else(|| wrong("there are fewer than it says"))?;
        if start != (all.len() - rest.len()) as i64 || set.is_empty() || tests[at].is_some() {
            return Err(wrong("they don't follow those of the node before"));
        }
        rest = after;
        let values = usize::try_from(feature[at]).ok().and_then(|f| shape.values.get(f)).and_then(Option::as_ref);
        tests[at] = Some(one_of(set, values).ok_or_else(|| wrong("one of them is out of range"))?);
    }
    for (node, kind) in kinds.iter().enumerate() {
        match (kind, &tests[node]) {
            (0, _) => tests[node] = None,
            (1, Some(_)) => {}
            _ => return Err(part.damaged(format_args!("node {node} has the `split_type` {kind}, but no categories"))),
        }
    }
    Ok(tests)
}

/// Whether it is one of these categories: by their codes or, if there are any, the numbers that these stand for.
fn one_of(codes: &[i64], values: Option<&Vec<i64>>) -> Option<Test> {
    let mut set = match values {
        Some(values) => codes.iter().map(|code| values.get(usize::try_from(*code).ok()?).copied()).collect(),
        None => Some(codes.to_vec()),
    }?;
    set.sort_unstable();
    set.dedup();
    if values.is_none() {
        let codes: Option<Vec<u32>> = set.iter().map(|c| u32::try_from(*c).ok()).collect();
        return codes.filter(|_| set.iter().all(|c| *c < CATEGORIES_MAX)).map(|codes| Test::category_in(&codes, false));
    }
    Some(Test::Within(set.iter().flat_map(|v| [(*v as f64).next_down(), *v as f64]).collect()))
}
