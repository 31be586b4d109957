//! One row at a time: what serving needs, where a block of rows would mostly be padding.
//!
//! ```text
//!  nodes of all trees   { cutoff, left child, which value }         the right child is behind the left one
//!                          ▲ 8 trees walk side by side, without a branch: child = left + (value > cutoff)
//!  a leaf is a node whose left child is itself and whose value is below its cutoff: a walk that is there stays there
//! ```
//! After some steps, the trees that are at a leaf make room for those that are not, since the longest walk is much longer
//! than most. Leaves are then summed in the order of the trees, so that the result is that of the block kernel. Where all
//! values of a row are numbers of 32 bits, so are the nodes: they are half as large then, and compare whole numbers that
//! are in the same order.

use super::forest::{Forest, Missing, Precision, Test, Tree, ZERO};

/// Trees that walk side by side.
const WIDTH: usize = 8;
/// Steps between two looks at which trees are at a leaf.
const STEPS: usize = 3;
/// Bits of a narrow node that say which its left child is; the others say which value it asks.
const LEFT_BITS: u32 = 22;

/// A node of 64-bit values.
#[derive(Debug, Clone, Copy)]
struct Node {
    /// The greatest value that goes left.
    cutoff: f64,
    /// The left child; the right one is behind it.
    left: u32,
    /// The place of the value in the prepared row.
    value: u32,
}

/// Trees laid out for walks side by side.
#[derive(Debug)]
pub(super) struct Rows {
    nodes: Vec<Node>,
    /// The same nodes in 8 bytes, if they fit, from the lowest bits on: the [`key`] of the cutoff, left child, value.
    narrow: Vec<u64>,
    /// The value of the leaf at each node.
    values: Vec<f64>,
    /// The root of each tree.
    roots: Vec<u32>,
    /// The output of each tree.
    outputs: Vec<u32>,
    /// The missing rules that there are: the prepared row has a copy for each.
    rules: Vec<Missing>,
}

/// What a caller keeps from one row to the next.
#[derive(Debug, Default)]
pub struct Scratch {
    wide: Vec<f64>,
    narrow: Vec<u32>,
    leaves: Vec<u32>,
    /// Where walks are that are not over.
    places: Vec<u32>,
    /// Of which trees they are.
    trees: Vec<u32>,
}

impl Rows {
    /// `None` for trees that have sets, several outputs a leaf or linear leaves: they are walked one by one.
    pub(super) fn new(forest: &Forest) -> Option<Self> {
        let mut rules: Vec<Missing> = Vec::new();
        for split in forest.trees().iter().flat_map(|t| &t.splits) {
            if !rules.contains(&split.missing) {
                rules.push(split.missing);
            }
        }
        let nodes = 1 + forest.trees().iter().map(|t| 2 * t.splits.len() + 1).sum::<usize>();
        let mut rows = Self {
            nodes: Vec::with_capacity(nodes),
            narrow: Vec::new(),
            values: Vec::with_capacity(nodes),
            roots: Vec::new(),
            outputs: Vec::new(),
            rules,
        };
        for tree in forest.trees() {
            rows.outputs.push(tree.output.filter(|_| tree.linear.is_empty())?);
            rows.push(tree, forest.features())?;
        }
        let end = rows.reserve(1);
        rows.leaf(end, 0.0);
        rows.make_narrow();
        Some(rows)
    }

    fn reserve(&mut self, count: usize) -> usize {
        let first = self.nodes.len();
        self.nodes.resize(first + count, Node { cutoff: f64::INFINITY, left: 0, value: 0 });
        self.values.resize(first + count, 0.0);
        first
    }

    /// A leaf shows itself the value 0, which is below its cutoff, and so stays.
    fn leaf(&mut self, place: usize, value: f64) {
        self.nodes[place] = Node { cutoff: f64::INFINITY, left: place as u32, value: 0 };
        self.values[place] = value;
    }

    /// Level by level, so that the nodes near the root of a tree are near each other.
    fn push(&mut self, tree: &Tree, features: usize) -> Option<()> {
        let root = self.reserve(1);
        self.roots.push(u32::try_from(root).ok()?);
        let mut open = vec![(if tree.splits.is_empty() { !0 } else { 0 }, root)];
        let mut next = 0;
        while let Some((node, place)) = open.get(next).copied() {
            next += 1;
            if node < 0 {
                self.leaf(place, tree.leaves[!node as usize]);
                continue;
            }
            let split = &tree.splits[node as usize];
            let Test::AtMost(cutoff) = split.test else { return None };
            let left = self.reserve(2);
            let rule = self.rules.iter().position(|r| *r == split.missing)?;
            let value = 1 + rule * features + split.feature as usize;
            let (left_of, value) = (u32::try_from(left).ok()?, u32::try_from(value).ok()?);
            self.nodes[place] = Node { cutoff, left: left_of, value };
            open.extend([(split.left, left), (split.right, left + 1)]);
        }
        (self.nodes.len() <= i32::MAX as usize / 2).then_some(())
    }

    /// Nodes of 8 bytes, unless there are too many nodes or values.
    fn make_narrow(&mut self) {
        let fits = |n: &Node| n.left < 1 << LEFT_BITS && n.value < 1 << (32 - LEFT_BITS);
        if self.nodes.iter().all(fits) {
            let key = |n: &Node| u64::from(key(super::plan::at_most(n.cutoff)));
            let narrow = |n: &Node| key(n) | u64::from(n.left) << 32 | u64::from(n.value) << (32 + LEFT_BITS);
            self.narrow = self.nodes.iter().map(narrow).collect();
        }
    }

    /// The margins of a row, one an output. Panics if it has not one value a feature, since walks look them up unchecked.
    pub(super) fn margins(&self, forest: &Forest, row: &[f64], scratch: &mut Scratch) -> Vec<f64> {
        assert_eq!(row.len(), forest.features(), "values of a row");
        let rounded = |x: &f64| forest.rounded(*x);
        let is_narrow = |x: f64| x.is_nan() || f64::from(x as f32) == x;
        if !self.narrow.is_empty() && row.iter().all(|x| is_narrow(rounded(x))) {
            scratch.narrow.clear();
            scratch.narrow.push(0);
            for rule in &self.rules {
                scratch.narrow.extend(row.iter().map(|x| key(shown(*rule, *x as f32, f64::from(*x as f32)))));
            }
            self.walk_narrow(scratch);
        } else {
            scratch.leaves.clone_from(&self.roots);
            scratch.wide.clear();
            scratch.wide.push(0.0);
            for rule in &self.rules {
                scratch.wide.extend(row.iter().map(|x| shown(*rule, rounded(x), rounded(x))));
            }
            self.walk_wide(&mut scratch.leaves, &scratch.wide);
        }
        let mut sums = forest.base().to_vec();
        let leaves =
            scratch.leaves.iter().zip(&self.outputs).map(|(leaf, output)| (self.values[*leaf as usize], *output));
        match (sums.as_mut_slice(), forest.sum) {
            // One sum stays in a register: through memory, each addition would wait for the store of the one before.
            ([sum], Precision::F64) => *sum = leaves.fold(*sum, |sum, (leaf, _)| sum + leaf),
            ([sum], Precision::F32) => *sum = leaves.fold(*sum as f32, |sum, (leaf, _)| sum + leaf as f32).into(),
            (sums, _) => leaves.for_each(|(leaf, output)| forest.add(&mut sums[output as usize], leaf)),
        }
        sums.iter_mut().enumerate().for_each(|(output, sum)| forest.finish(output, std::slice::from_mut(sum)));
        sums
    }

    /// Walks from the places in `at` to leaves.
    fn walk_wide(&self, at: &mut [u32], row: &[f64]) {
        for place in at {
            loop {
                let node = &self.nodes[*place as usize];
                // NaN is at most nothing, and goes right.
                let next = node.left
                    + u32::from(!matches!(row[node.value as usize].partial_cmp(&node.cutoff), Some(o) if o.is_le()));
                if next == *place {
                    break;
                }
                *place = next;
            }
        }
    }

    /// Walks all trees some steps, then those that are not at a leaf yet some more, and so on.
    fn walk_narrow(&self, scratch: &mut Scratch) {
        let Scratch { narrow: row, leaves, places, trees, .. } = scratch;
        let (row, all) = (row.as_slice(), self.roots.len());
        // Groups are filled up with walks that are at a leaf, of a tree behind the last.
        let (end, whole) = (self.narrow.len() as u32 - 1, all.next_multiple_of(WIDTH));
        leaves.resize(all + 1, end);
        places.clone_from(&self.roots);
        places.resize(whole, end);
        trees.clear();
        trees.extend(0..all as u32);
        trees.resize(whole, all as u32);
        let (leaves, places, trees) = (leaves.as_mut_slice(), places.as_mut_slice(), trees.as_mut_slice());
        let mut count = whole;
        while count > 0 {
            let mut kept = 0;
            for first in (0..count).step_by(WIDTH) {
                // SAFETY: `count` is a multiple of `WIDTH` up to the length of both slices, trees have a place in `leaves`,
                // and what is kept is written at or before the walk that was just read.
                unsafe {
                    let mut at: [u32; WIDTH] = std::array::from_fn(|i| *places.get_unchecked(first + i));
                    for _ in 0..STEPS {
                        at = at.map(|at| self.step(at, row));
                    }
                    for (i, at) in at.into_iter().enumerate() {
                        let tree = *trees.get_unchecked(first + i);
                        *leaves.get_unchecked_mut(tree as usize) = at;
                        *places.get_unchecked_mut(kept) = at;
                        *trees.get_unchecked_mut(kept) = tree;
                        // Leaves alone ask for the value 0.
                        kept += usize::from(*self.narrow.get_unchecked(at as usize) >> (32 + LEFT_BITS) != 0);
                    }
                }
            }
            count = kept.next_multiple_of(WIDTH);
            places[kept..count].fill(end);
            trees[kept..count].fill(all as u32);
        }
    }

    /// A step of a tree; at a leaf it stays there.
    ///
    /// # Safety
    /// `at` is a node, and `row` has all values that nodes ask.
    #[inline(always)]
    unsafe fn step(&self, at: u32, row: &[u32]) -> u32 {
        // SAFETY: the caller's; `push` saw to it that left children are nodes, and so are those behind them.
        unsafe {
            let node = *self.narrow.get_unchecked(at as usize);
            let value = *row.get_unchecked((node >> (32 + LEFT_BITS)) as usize);
            let left = (node >> 32) as u32 & ((1 << LEFT_BITS) - 1);
            left + u32::from(value > node as u32)
        }
    }
}

/// A number in the order of floats. NaN is above all of them, so that it goes right.
fn key(x: f32) -> u32 {
    // -0 is 0.
    let bits = (x + 0.0).to_bits();
    match bits >> 31 {
        _ if x.is_nan() => u32::MAX,
        0 => bits | 1 << 31,
        _ => !bits,
    }
}

/// A value as splits of a missing rule are shown it, so that it goes where the rule says.
#[inline]
fn shown<T: From<f32>>(rule: Missing, value: T, x: f64) -> T {
    match rule {
        Missing::Left if x.is_nan() => f32::NEG_INFINITY.into(),
        Missing::Zero if x.is_nan() => 0.0f32.into(),
        Missing::ZeroLeft if x.is_nan() || x.abs() <= ZERO => f32::NEG_INFINITY.into(),
        // No comparison holds for NaN.
        Missing::ZeroRight if x.abs() <= ZERO => f32::NAN.into(),
        _ => value,
    }
}
