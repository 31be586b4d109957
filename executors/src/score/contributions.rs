//! What each feature contributes to a margin: Shapley values of trees, exact, by the ways through the tree.
//!
//! ```text
//!  margin of a row = expected margin + Σ contributions          a list a row: one a feature, then the expected margin
//! ```
//! A feature that is not known sends a row both ways, in the share of the training rows that went there; the reader of a
//! model takes these from the file. The algorithm is TreeSHAP with path-dependent expectations (Lundberg, Erion, Lee:
//! "Consistent individualized feature attribution for tree ensembles", 2018, algorithm 2), as LightGBM and XGBoost have it.

use featurectl_core::{Error, Result};

use super::forest::{Forest, Tree};

/// Trees that are deeper are refused: the work grows with the square of the depth.
const DEPTH_MAX: usize = 1024;

/// A feature on the way from the root.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// `None`: the root.
    feature: Option<usize>,
    /// Share of the training rows that go this way.
    zero: f64,
    /// Whether the row goes this way.
    one: f64,
    /// Weight of the sets of features of this size.
    weight: f64,
}

/// The contributions to each output of one row, `features + 1` an output.
///
/// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for trees that have linear leaves, are too deep, or whose file
/// does not say how many rows went where.
pub(super) fn contributions(forest: &Forest, row: &[f64]) -> Result<Vec<f64>> {
    let width = forest.features() + 1;
    let mut all = vec![0.0; width * forest.outputs()];
    for (number, tree) in forest.trees().iter().enumerate() {
        check(number, tree)?;
        let outputs = tree.output.map_or(0..forest.outputs(), |o| o as usize..o as usize + 1);
        for (column, output) in outputs.clone().enumerate() {
            let value = |leaf: usize| tree.leaves[leaf * outputs.len() + column];
            add(tree, value, |split| split_of(forest, tree, split, row), &mut all[output * width..][..width]);
        }
    }
    for (output, of) in all.chunks_mut(width).enumerate() {
        of[width - 1] += forest.base()[output];
        of.iter_mut().for_each(|v| *v = *v * forest.scale / forest.divide);
        of[width - 1] += forest.bias.get(output).copied().unwrap_or(0.0);
    }
    Ok(all)
}

fn check(number: usize, tree: &Tree) -> Result<()> {
    let what = match () {
        () if !tree.linear.is_empty() => "has linear leaves",
        () if tree.depth() > DEPTH_MAX => "is too deep",
        () if tree.covers.is_empty() && !tree.splits.is_empty() => "does not say how many rows went where",
        () => return Ok(()),
    };
    Err(Error::invalid(format!("tree {number} {what}: there are no contributions of it")))
}

fn split_of(forest: &Forest, tree: &Tree, split: usize, row: &[f64]) -> bool {
    let split = &tree.splits[split];
    split.goes_left(forest.rounded(row[split.feature as usize]))
}

/// Adds the contributions of one tree; the last of `to` is the expected value.
fn add(tree: &Tree, value: impl Fn(usize) -> f64, goes_left: impl Fn(usize) -> bool, to: &mut [f64]) {
    let last = to.len() - 1;
    if tree.splits.is_empty() {
        to[last] += value(0);
        return;
    }
    let cover = |node: i32| match usize::try_from(node) {
        Ok(split) => tree.covers[split],
        Err(_) => tree.covers[tree.splits.len() + !node as usize],
    };
    let whole = cover(0);
    to[last] += (0..tree.leaf_count()).map(|leaf| value(leaf) * cover(!(leaf as i32)) / whole).sum::<f64>();
    let mut open: Vec<(i32, Vec<Step>, Step)> =
        vec![(0, vec![], Step { feature: None, zero: 1.0, one: 1.0, weight: 0.0 })];
    while let Some((node, mut path, step)) = open.pop() {
        extend(&mut path, step);
        let Ok(number) = usize::try_from(node) else {
            for (index, step) in path.iter().enumerate().skip(1) {
                let weight = unwound_sum(&path, index);
                if let Some(feature) = step.feature {
                    to[feature] += weight * (step.one - step.zero) * value(!node as usize);
                }
            }
            continue;
        };
        let split = &tree.splits[number];
        let feature = Some(split.feature as usize);
        // A feature that was asked before is asked as a whole.
        let (mut zero, mut one) = (1.0, 1.0);
        if let Some(before) = path.iter().position(|s| s.feature == feature) {
            (zero, one) = (path[before].zero, path[before].one);
            unwind(&mut path, before);
        }
        let left = goes_left(number);
        for (child, taken) in [(split.left, left), (split.right, !left)] {
            let share = if cover(node) > 0.0 { cover(child) / cover(node) } else { 0.5 };
            let step = Step { feature, zero: zero * share, one: if taken { one } else { 0.0 }, weight: 0.0 };
            open.push((child, path.clone(), step));
        }
    }
}

/// Adds a step, and the sets of features that have it.
fn extend(path: &mut Vec<Step>, step: Step) {
    let depth = path.len();
    path.push(Step { weight: if depth == 0 { 1.0 } else { 0.0 }, ..step });
    let whole = (depth + 1) as f64;
    for i in (0..depth).rev() {
        path[i + 1].weight += step.one * path[i].weight * (i + 1) as f64 / whole;
        path[i].weight = step.zero * path[i].weight * (depth - i) as f64 / whole;
    }
}

/// Takes a step back out.
fn unwind(path: &mut Vec<Step>, index: usize) {
    let depth = path.len() - 1;
    let (Step { one, zero, .. }, whole) = (path[index], (depth + 1) as f64);
    let mut next = path[depth].weight;
    for i in (0..depth).rev() {
        if one != 0.0 {
            let before = path[i].weight;
            path[i].weight = next * whole / ((i + 1) as f64 * one);
            next = before - path[i].weight * zero * (depth - i) as f64 / whole;
        } else {
            path[i].weight = path[i].weight * whole / (zero * (depth - i) as f64);
        }
    }
    for i in index..depth {
        let Step { feature, zero, one, .. } = path[i + 1];
        path[i] = Step { feature, zero, one, weight: path[i].weight };
    }
    path.pop();
}

/// The sum of the weights once a step is taken out.
fn unwound_sum(path: &[Step], index: usize) -> f64 {
    let depth = path.len() - 1;
    let (Step { one, zero, .. }, whole) = (path[index], (depth + 1) as f64);
    let (mut next, mut sum) = (path[depth].weight, 0.0);
    for i in (0..depth).rev() {
        let share = (depth - i) as f64 / whole;
        if one != 0.0 {
            let weight = next * whole / ((i + 1) as f64 * one);
            sum += weight;
            next = path[i].weight - weight * zero * share;
        } else if zero != 0.0 {
            sum += path[i].weight / zero / share;
        }
    }
    sum
}
