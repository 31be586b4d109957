//! Trees in flat arrays, and the walk from root to leaf.
//!
//! All trees share one array per property of a split, so that a walk touches few cache lines and a vectorised walk can
//! gather from them. A child is the number of a split or, complemented, of a leaf:
//!
//! ```text
//!  tree 0          tree 1        split       0    1  │  2         leaf   0    1    2  │  3    4
//!     s0             s0          feature     1    0  │  2         value  .3  -.2  .1  │ -.5   .4
//!    /  \           /  \         threshold  .5  2.0  │ 7.5                            │
//!   s1   l2        l0  l1        left        1   !0  │ !3         roots  0, 2
//!  /  \                          right      !2   !1  │ !4
//! l0  l1
//! ```
//!
//! Rows are walked in blocks: every tree passes over one block while the block's columns are still in the cache. Each
//! row still adds its leaves in the order of the trees, since another order would round differently.

use featurectl_core::{Error, Result};

/// Rows that all trees pass over before the next rows are taken: 40 columns of them fit in a 128 KiB cache.
const BLOCK_ROWS: usize = 256;

/// Values this near to zero are zero where zero is missing. LightGBM holds the bound as a 32-bit float.
const ZERO: f64 = 1e-35_f32 as f64;

/// Which values of a feature follow the default direction of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// None: a NaN is read as 0.
    None,
    /// NaN and every value within 1e-35 of zero.
    Zero,
    /// NaN only.
    Nan,
}

/// An inner node: rows with `value <= threshold` go left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Split {
    /// Which column is compared.
    pub feature: u32,
    /// The greatest value that goes left; infinite where missing values are split from all others.
    pub threshold: f64,
    /// Which values go the default way instead of being compared.
    pub missing: Missing,
    /// Whether the default way is left.
    pub default_left: bool,
    /// A split of the same tree, or `!leaf`.
    pub left: i32,
    /// A split of the same tree, or `!leaf`.
    pub right: i32,
}

/// One tree: split 0 is its root; without splits, leaf 0 is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tree {
    /// Inner nodes, parents before their children.
    pub splits: Vec<Split>,
    /// What each leaf adds to the sum: one more than there are splits.
    pub leaves: Vec<f64>,
}

/// A sum of trees over a fixed number of features.
///
/// Every child and feature is in range and every walk ends, which [`push`](Forest::push) sees to.
#[derive(Debug, Clone, PartialEq)]
pub struct Forest {
    features: usize,
    roots: Vec<i32>,
    feature: Vec<u32>,
    threshold: Vec<f64>,
    missing: Vec<Missing>,
    default_left: Vec<bool>,
    left: Vec<i32>,
    right: Vec<i32>,
    leaves: Vec<f64>,
}

impl Forest {
    /// A forest without trees, which scores 0 everywhere.
    pub fn new(features: usize) -> Self {
        Self {
            features,
            roots: Vec::new(),
            feature: Vec::new(),
            threshold: Vec::new(),
            missing: Vec::new(),
            default_left: Vec::new(),
            left: Vec::new(),
            right: Vec::new(),
            leaves: Vec::new(),
        }
    }

    /// Adds a tree behind the others.
    ///
    /// Errors: [`Data`](featurectl_core::ErrorKind::Data) for a tree that is not one: a feature or child out of range,
    /// a node with two parents, a cycle, a threshold that is NaN, a leaf that is not finite.
    pub fn push(&mut self, tree: &Tree) -> Result<()> {
        check(tree, self.features)?;
        let splits = offset(self.feature.len(), tree.splits.len())?;
        let leaves = offset(self.leaves.len(), tree.leaves.len())?;
        let place = |child: i32| if child < 0 { child - leaves } else { child + splits };
        self.roots.push(place(if tree.splits.is_empty() { !0 } else { 0 }));
        for split in &tree.splits {
            self.feature.push(split.feature);
            self.threshold.push(split.threshold);
            self.missing.push(split.missing);
            self.default_left.push(split.default_left);
            self.left.push(place(split.left));
            self.right.push(place(split.right));
        }
        self.leaves.extend_from_slice(&tree.leaves);
        Ok(())
    }

    /// How many columns [`raw`](Self::raw) takes.
    pub fn features(&self) -> usize {
        self.features
    }

    /// How many trees are summed.
    pub fn trees(&self) -> usize {
        self.roots.len()
    }

    /// The sum of every tree's leaf for each row. `columns` holds one slice per feature, all of one length; NaN is a
    /// missing value.
    ///
    /// # Panics
    /// If there are not [`features`](Self::features) columns or their lengths differ.
    pub fn raw(&self, columns: &[&[f64]]) -> Vec<f64> {
        assert_eq!(columns.len(), self.features, "one column per feature");
        let rows = columns.first().map_or(0, |c| c.len());
        assert!(columns.iter().all(|c| c.len() == rows), "columns of one length");
        let mut sums = vec![0.0; rows];
        for (block, sums) in sums.chunks_mut(BLOCK_ROWS).enumerate() {
            self.add_block(columns, block * BLOCK_ROWS, sums);
        }
        sums
    }

    /// Adds every tree to the sums of the rows from `start`.
    fn add_block(&self, columns: &[&[f64]], start: usize, sums: &mut [f64]) {
        for &root in &self.roots {
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum += self.leaf(root, columns, start + row);
            }
        }
    }

    /// The value of the leaf that `row` ends in.
    fn leaf(&self, root: i32, columns: &[&[f64]], row: usize) -> f64 {
        let mut node = root;
        while node >= 0 {
            let split = node as usize;
            let value = columns[self.feature[split] as usize][row];
            node = if self.goes_left(split, value) { self.left[split] } else { self.right[split] };
        }
        self.leaves[!node as usize]
    }

    /// LightGBM's decision for a numeric split. Its own interface also reads values within 1e-35 of zero as 0 before a
    /// tree sees them, which differs only for a threshold in that range.
    #[inline]
    fn goes_left(&self, split: usize, value: f64) -> bool {
        let follows_default = match self.missing[split] {
            Missing::None => false,
            Missing::Zero => value.is_nan() || value.abs() <= ZERO,
            Missing::Nan => value.is_nan(),
        };
        if follows_default {
            return self.default_left[split];
        }
        // Only where nothing is missing can a NaN come this far.
        let value = if value.is_nan() { 0.0 } else { value };
        value <= self.threshold[split]
    }
}

/// The number of the first of `more` nodes behind `held` ones, if the last still has a number.
fn offset(held: usize, more: usize) -> Result<i32> {
    match i32::try_from(held + more) {
        Ok(_) => Ok(held as i32),
        Err(_) => Err(Error::data("more than 2,147,483,647 nodes: train fewer or smaller trees")),
    }
}

/// Refuses what is not a tree over `features` columns.
///
/// If each child comes after its parent, no walk returns; if none has two parents either, then the `2n` children are
/// just the `n - 1` splits below the root and the `n + 1` leaves.
fn check(tree: &Tree, features: usize) -> Result<()> {
    let (splits, leaves) = (tree.splits.len(), tree.leaves.len());
    if leaves != splits + 1 {
        return Err(Error::data(format!("{splits} splits have {leaves} leaves instead of {}", splits + 1)));
    }
    if let Some(leaf) = tree.leaves.iter().position(|value| !value.is_finite()) {
        return Err(Error::data(format!("the value of leaf {leaf} is not a finite number")));
    }
    let (mut split_seen, mut leaf_seen) = (vec![false; splits], vec![false; leaves]);
    for (number, split) in tree.splits.iter().enumerate() {
        check_split(number, split, features)?;
        for child in [split.left, split.right] {
            let (seen, index) =
                if child < 0 { (&mut leaf_seen, !child as usize) } else { (&mut split_seen, child as usize) };
            let Some(seen) = seen.get_mut(index) else {
                return Err(Error::data(format!(
                    "split {number} has the child {child}, but there are {splits} splits and {leaves} leaves"
                )));
            };
            if child >= 0 && index <= number {
                return Err(Error::data(format!("split {number} leads back to split {index}: a cycle")));
            }
            if std::mem::replace(seen, true) {
                return Err(Error::data(format!("the child {child} of split {number} has another parent too")));
            }
        }
    }
    Ok(())
}

/// Refuses a split whose own numbers are out of range.
fn check_split(number: usize, split: &Split, features: usize) -> Result<()> {
    if split.feature as usize >= features {
        return Err(Error::data(format!(
            "split {number} reads feature {}, but there are {features} features",
            split.feature
        )));
    }
    if split.threshold.is_nan() {
        return Err(Error::data(format!("the threshold of split {number} is not a number")));
    }
    Ok(())
}
