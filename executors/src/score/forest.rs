//! What every tree model becomes, whatever library trained it.
//!
//! A split asks one question of one feature: is the number of its boundaries `t` with `x <= t` odd? With one boundary
//! that is `x <= t`; the boundaries of a set of categories are the edges of its intervals, so that sets need no
//! mechanism of their own:
//!
//! ```text
//!  x <= 2.5            boundaries 2.5            ─────left─────┤2.5 ────right────
//!  x in {3, 4, 7}      boundaries 3⁻ 5⁻ 7⁻ 8⁻    right ┤3⁻ left ┤5⁻ right ┤7⁻ left ┤8⁻ right      (c⁻: just below c)
//! ```
//!
//! `x < t` is `x <= t⁻`, so all libraries' comparisons come to this without a loss. A missing value goes where the split
//! says, or is read as 0. Leaves are summed tree by tree, in the precision that the library sums in, since another
//! order or precision would round differently.
//!
//! ```text
//!  tree 0          splits  feature  test    missing  left  right       leaves
//!     s0             0        1     <= .5    Left      1     !2        l0  .3
//!    /  \            1        0     <= 2     Zero     !0     !1        l1 -.2
//!   s1   l2                                                            l2  .1
//!  /  \
//! l0  l1           a child is the number of a split or, complemented, of a leaf
//! ```

use featurectl_core::{Error, Result};

/// Values this near to zero are zero where zero is missing. LightGBM holds the bound as a 32-bit float.
pub const ZERO: f64 = 1e-35_f32 as f64;

/// What happens to values that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Missing {
    /// NaN goes left.
    Left,
    /// NaN goes right.
    Right,
    /// Nothing is missing: NaN is read as 0.
    Zero,
    /// NaN and every value within [`ZERO`] of zero go left.
    ZeroLeft,
    /// NaN and every value within [`ZERO`] of zero go right.
    ZeroRight,
}

/// The question of a split; true goes left.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// `x <= t`; `t` may be infinite.
    AtMost(f64),
    /// The number of these ascending boundaries `t` with `x <= t` is odd.
    Within(Box<[f64]>),
}

impl Test {
    /// The answer for a value that is not missing.
    #[inline]
    pub fn holds(&self, x: f64) -> bool {
        match self {
            Self::AtMost(t) => x <= *t,
            Self::Within(edges) => (edges.len() - edges.partition_point(|t| *t < x)) % 2 == 1,
        }
    }

    /// The boundaries, ascending.
    pub fn boundaries(&self) -> &[f64] {
        match self {
            Self::AtMost(t) => std::slice::from_ref(t),
            Self::Within(edges) => edges,
        }
    }

    /// `x` is one of the ascending whole numbers `categories`, once its fraction is cut off. `fractions_below_zero` says
    /// whether (-1, 0) is category 0, as in LightGBM, or no category, as in XGBoost.
    pub fn category_in(categories: &[u32], fractions_below_zero: bool) -> Self {
        let low = |c: u32| match c {
            0 if fractions_below_zero => -1.0,
            0 => 0f64.next_down(),
            c => f64::from(c).next_down(),
        };
        let high = |c: u32| (f64::from(c) + 1.0).next_down();
        let mut edges: Vec<f64> = Vec::new();
        for c in categories {
            // An interval that begins where the last one ends goes on with it.
            if edges.last() == Some(&low(*c)) {
                edges.pop();
            } else {
                edges.push(low(*c));
            }
            edges.push(high(*c));
        }
        Self::Within(edges.into())
    }
}

/// An inner node.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// Which column is asked.
    pub feature: u32,
    /// What is asked.
    pub test: Test,
    /// Where missing values go.
    pub missing: Missing,
    /// Where it goes on if the answer is yes: a split of the same tree, or `!leaf`.
    pub left: i32,
    /// Where it goes on if the answer is no: a split of the same tree, or `!leaf`.
    pub right: i32,
}

impl Split {
    /// Whether `x` goes left.
    #[inline]
    pub fn goes_left(&self, x: f64) -> bool {
        match self.missing {
            Missing::Left if x.is_nan() => true,
            Missing::Right if x.is_nan() => false,
            Missing::Zero if x.is_nan() => self.test.holds(0.0),
            Missing::ZeroLeft if x.is_nan() || x.abs() <= ZERO => true,
            Missing::ZeroRight if x.is_nan() || x.abs() <= ZERO => false,
            _ => self.test.holds(x),
        }
    }
}

/// A leaf that is a linear function of some features (LightGBM's `linear_tree`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LinearLeaf {
    /// The value where all terms are 0.
    pub constant: f64,
    /// Feature and coefficient. If any of these features is NaN, the leaf's plain value is taken instead.
    pub terms: Vec<(u32, f64)>,
}

/// One tree: split 0 is its root; without splits, leaf 0 is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tree {
    /// The output that its leaves are added to; `None`: each leaf has a value for every output.
    pub output: Option<u32>,
    /// Inner nodes, parents before their children.
    pub splits: Vec<Split>,
    /// What each leaf adds to the sum, one more than there are splits; for a tree of all outputs, as many values for
    /// each leaf as there are outputs, leaf by leaf.
    pub leaves: Vec<f64>,
    /// One a leaf where leaves are linear, else empty.
    pub linear: Vec<LinearLeaf>,
    /// How many training rows, or how much of their weight, came to each split and then to each leaf; empty if the file
    /// does not say.
    pub covers: Vec<f64>,
}

impl Tree {
    /// How many leaves there are.
    pub fn leaf_count(&self) -> usize {
        self.splits.len() + 1
    }

    /// Splits on the longest way to a leaf.
    pub fn depth(&self) -> usize {
        let mut depths = vec![0; self.splits.len()];
        for (number, split) in self.splits.iter().enumerate().rev() {
            // Children come after their parents.
            let of = |child: i32| usize::try_from(child).map_or(0, |split| depths[split]);
            depths[number] = 1 + of(split.left).max(of(split.right));
        }
        depths.first().copied().unwrap_or(0)
    }

    /// The number of the leaf that a row ends in; `value` gives a feature's value.
    #[inline]
    pub fn leaf(&self, value: impl Fn(u32) -> f64) -> usize {
        let mut node = if self.splits.is_empty() { !0 } else { 0 };
        while node >= 0 {
            let split = &self.splits[node as usize];
            node = if split.goes_left(value(split.feature)) { split.left } else { split.right };
        }
        !node as usize
    }

    /// The value of a leaf of a tree of one output; `value` gives a feature's value.
    pub fn leaf_value(&self, leaf: usize, value: impl Fn(u32) -> f64) -> f64 {
        let Some(linear) = self.linear.get(leaf) else { return self.leaves[leaf] };
        if linear.terms.iter().any(|(f, _)| value(*f).is_nan()) {
            return self.leaves[leaf];
        }
        // LightGBM reads such values as 0 before any tree sees them; boundaries allow for it, products cannot.
        let read = |x: f64| if x.abs() <= ZERO { 0.0 } else { x };
        linear.terms.iter().fold(linear.constant, |sum, (f, c)| sum + read(value(*f)) * c)
    }
}

/// In which precision something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 64-bit floats.
    F64,
    /// 32-bit floats: values are rounded to them.
    F32,
}

/// A sum of trees over a fixed number of features, for each of some outputs.
///
/// Every child, feature and output is in range and every walk ends, which [`push`](Forest::push) sees to.
#[derive(Debug, Clone, PartialEq)]
pub struct Forest {
    features: usize,
    /// What each output's sum begins with; its length is the number of outputs.
    base: Vec<f64>,
    /// Values are rounded to this before they are compared.
    pub input: Precision,
    /// Leaves are rounded to this, and added in it.
    pub sum: Precision,
    /// The sum is multiplied by this, and then divided by [`divide`](Self::divide).
    pub scale: f64,
    /// The number of iterations where a model averages its trees, else 1.
    pub divide: f64,
    /// What is added at last, one an output; empty: nothing.
    pub bias: Vec<f64>,
    trees: Vec<Tree>,
}

impl Forest {
    /// A forest without trees: each output is its `base`.
    pub fn new(features: usize, mut base: Vec<f64>, input: Precision, sum: Precision) -> Self {
        if sum == Precision::F32 {
            base.iter_mut().for_each(|b| *b = f64::from(*b as f32));
        }
        Self { features, base, input, sum, scale: 1.0, divide: 1.0, bias: Vec::new(), trees: Vec::new() }
    }

    /// Adds a tree behind the others.
    ///
    /// Errors: [`Data`](featurectl_core::ErrorKind::Data) for a tree that is not one: a feature, output or child out of
    /// range, a node with two parents, a cycle, boundaries that are NaN or do not ascend, a leaf that is not finite.
    pub fn push(&mut self, tree: Tree) -> Result<()> {
        check(&tree, self.features, self.base.len())?;
        self.trees.push(tree);
        Ok(())
    }

    /// Adds the trees of a forest of as many features and outputs behind the others.
    pub(super) fn append(&mut self, mut other: Self) {
        debug_assert_eq!((self.features, self.base.len()), (other.features, other.base.len()));
        self.trees.append(&mut other.trees);
    }

    /// How many columns it takes.
    pub fn features(&self) -> usize {
        self.features
    }

    /// How many values it gives for each row.
    pub fn outputs(&self) -> usize {
        self.base.len()
    }

    /// What each output's sum begins with.
    pub fn base(&self) -> &[f64] {
        &self.base
    }

    /// The trees, in the order in which they are added.
    pub fn trees(&self) -> &[Tree] {
        &self.trees
    }

    /// A value as the splits see it.
    #[inline]
    pub fn rounded(&self, x: f64) -> f64 {
        match self.input {
            Precision::F64 => x,
            Precision::F32 => f64::from(x as f32),
        }
    }

    /// The margins of one row, one an output: the obvious way, which every kernel is held to. `row` has one value a
    /// feature; NaN is missing.
    pub fn margins(&self, row: &[f64]) -> Vec<f64> {
        let mut sums = self.base.clone();
        for tree in &self.trees {
            let leaf = tree.leaf(|f| self.rounded(row[f as usize]));
            match tree.output {
                Some(output) => {
                    self.add(&mut sums[output as usize], tree.leaf_value(leaf, |f| row[f as usize]));
                }
                None => {
                    let values = &tree.leaves[leaf * sums.len()..];
                    sums.iter_mut().zip(values).for_each(|(sum, value)| self.add(sum, *value));
                }
            }
        }
        sums.iter_mut().enumerate().for_each(|(output, sum)| self.finish(output, std::slice::from_mut(sum)));
        sums
    }

    /// Adds a leaf to a sum.
    #[inline]
    pub fn add(&self, sum: &mut f64, value: f64) {
        *sum = match self.sum {
            Precision::F64 => *sum + value,
            Precision::F32 => f64::from(*sum as f32 + value as f32),
        }
    }

    /// Makes margins of sums of one output.
    pub fn finish(&self, output: usize, sums: &mut [f64]) {
        if self.scale != 1.0 || self.divide != 1.0 {
            sums.iter_mut().for_each(|sum| *sum = *sum * self.scale / self.divide);
        }
        if let Some(bias) = self.bias.get(output) {
            sums.iter_mut().for_each(|sum| *sum += bias);
        }
    }
}

/// Refuses what is not a tree over `features` columns.
///
/// If each child comes after its parent, no walk returns; if none has two parents either, then the `2n` children are
/// just the `n - 1` splits below the root and the `n + 1` leaves.
fn check(tree: &Tree, features: usize, outputs: usize) -> Result<()> {
    let (splits, leaves) = (tree.splits.len(), tree.leaf_count());
    if splits > i32::MAX as usize / 2 {
        return Err(Error::data("more than 1,073,741,823 splits: train smaller trees"));
    }
    let width = match tree.output {
        Some(output) if output as usize >= outputs => {
            return Err(Error::data(format!("it adds to output {output}, but there are {outputs}")));
        }
        Some(_) => 1,
        None => outputs,
    };
    if tree.leaves.len() != leaves * width {
        let given = tree.leaves.len();
        return Err(Error::data(format!("{splits} splits have {given} leaf values instead of {}", leaves * width)));
    }
    // All are looked at, which takes less time than to stop at one.
    if !tree.leaves.iter().fold(true, |finite, value| finite & value.is_finite()) {
        let leaf = tree.leaves.iter().position(|value| !value.is_finite()).unwrap_or(0);
        return Err(Error::data(format!("the value of leaf {} is not a finite number", leaf / width)));
    }
    check_linear(tree, features)?;
    if !tree.covers.is_empty() && tree.covers.len() != splits + leaves {
        return Err(Error::data(format!("{} nodes have {} counts of rows", splits + leaves, tree.covers.len())));
    }
    if tree.covers.iter().fold(false, |wrong, c| wrong | !c.is_finite() | (*c < 0.0)) {
        return Err(Error::data("a count of rows is not a finite number from 0 on"));
    }
    // Whether a node has a parent: splits, then leaves.
    let mut seen = vec![false; splits + leaves];
    for (number, split) in tree.splits.iter().enumerate() {
        check_split(number, split, features)?;
        for child in [split.left, split.right] {
            // Without branches, since which of them a child is could not be predicted.
            let place = if child < 0 { splits + !child as usize } else { child as usize };
            let kind = if child < 0 { splits..splits + leaves } else { number + 1..splits };
            if !kind.contains(&place) || std::mem::replace(&mut seen[place], true) {
                return Err(wrong_child(number, child, splits));
            }
        }
    }
    Ok(())
}

/// What is wrong with a child of a split.
fn wrong_child(number: usize, child: i32, splits: usize) -> Error {
    let leaves = splits + 1;
    Error::data(match usize::try_from(child) {
        Ok(child) if child <= number => format!("split {number} leads back to split {child}: a cycle"),
        Ok(child) if child < splits => format!("the child {child} of split {number} has another parent too"),
        Err(_) if (!child as usize) < leaves => format!("the child {child} of split {number} has another parent too"),
        _ => format!("split {number} has the child {child}, but there are {splits} splits and {leaves} leaves"),
    })
}

/// Refuses linear leaves that are not one a leaf, or read what is not there.
fn check_linear(tree: &Tree, features: usize) -> Result<()> {
    if tree.linear.is_empty() {
        return Ok(());
    }
    if tree.linear.len() != tree.leaf_count() || tree.output.is_none() {
        return Err(Error::data(format!("{} leaves have {} linear ones", tree.leaf_count(), tree.linear.len())));
    }
    for (leaf, linear) in tree.linear.iter().enumerate() {
        if let Some((feature, _)) = linear.terms.iter().find(|(f, _)| *f as usize >= features) {
            return Err(Error::data(format!("leaf {leaf} reads feature {feature}, but there are {features} features")));
        }
        if !linear.constant.is_finite() || linear.terms.iter().any(|(_, c)| !c.is_finite()) {
            return Err(Error::data(format!("a coefficient of leaf {leaf} is not a finite number")));
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
    let edges = match &split.test {
        Test::AtMost(t) if !t.is_nan() => return Ok(()),
        test => test.boundaries(),
    };
    if edges.iter().any(|t| t.is_nan()) {
        return Err(Error::data(format!("the threshold of split {number} is not a number")));
    }
    if !edges.is_sorted_by(|a, b| a < b) {
        return Err(Error::data(format!("the boundaries of split {number} do not ascend")));
    }
    Ok(())
}
