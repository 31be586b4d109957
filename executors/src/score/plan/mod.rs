//! What a forest is compiled to: no walk from node to node, but bit operations that all rows of a block share.
//!
//! ```text
//!  values of a feature          x =  0.3   7.1   NaN                    a block of rows
//!     │ rank among the cutoffs that the whole model has of the feature
//!     ▼
//!  codes, one byte a row             2     9     255                    planes: what is missing is a code like any other
//!     │ code > 4 ?  once for each different question of the model
//!     ▼
//!  conditions, one bit a row         0     1     1
//!     │ a code of the leaf, bit by bit:  bit = condition ? bit of one subtree : bit of the other      (program.rs)
//!     ▼
//!  codes of leaves                   6     0     1        ──▶ leaves ──▶ their values, added tree by tree
//! ```
//! Ranks lose nothing: `x <= t` is `rank(x) <= rank(t)` for every `t` that is a cutoff. The idea of comparing ranks is
//! QuickScorer's (Lucchese et al., SIGIR 2015) and CatBoost's; that of computing numbers by bit is bit-slicing.
//!
//! A code is one byte: a feature with more than 255 cutoffs has several pages of codes. Operands are 16 bits, so a model
//! with more questions than that is cut into several plans, one after the other.

mod apart;
mod cutoffs;
mod cuts;
mod program;
mod questions;
mod steps;

use std::ops::Range;
use std::sync::OnceLock;

pub(in crate::score) use self::cutoffs::{Buckets, at_most};
use self::program::{Program, Programs};
use self::questions::Questions;
use self::steps::Muxes;
pub(in crate::score) use self::steps::{Guard, Mux, Steps};
use super::forest::{Forest, Missing, Precision, Split, Test, Tree};
use super::kernel::Lane;
use super::parts::{in_parts, processors};

/// Cutoffs that one page of codes tells apart.
pub(in crate::score) const PAGE: usize = 255;
/// The operand that is 0 for every row.
const NONE: u16 = 0;
/// The operand that is 1 for every row.
const ALL: u16 = 1;
/// The first operand that is a condition.
pub(in crate::score) const CONDITIONS: usize = 2;
/// Steps of a search whose cutoffs are held in registers.
pub(in crate::score) const LEVELS: u32 = 8;
/// The most bits of the code of a leaf.
const BITS: usize = 16;
/// Trees whose steps are computed in turn, and which may then be added together.
pub(in crate::score) const WOVEN: usize = 8;
/// The most leaves of a tree that is added together with others.
const SMALL_LEAVES: usize = 64;
/// More ranks than these do not fit.
const CUTOFFS_MAX: usize = u16::MAX as usize - 1;

/// How a page of codes shows values that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::score) enum Variant {
    /// NaN is 0: below every cutoff.
    NanLow,
    /// NaN is 255: above every cutoff.
    NanHigh,
    /// NaN is what 0 is.
    NanZero,
    /// NaN and zeros are 0.
    ZeroLow,
    /// NaN and zeros are 255.
    ZeroHigh,
}

/// One page of the codes of a feature, in one variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::score) struct Plane {
    pub(in crate::score) page: u16,
    pub(in crate::score) variant: Variant,
    /// Where it is among all planes.
    pub(in crate::score) number: u32,
}

/// How the values of a feature become codes.
#[derive(Debug)]
pub(in crate::score) struct Cutoffs {
    pub(in crate::score) feature: usize,
    /// Ascending, each once, padded with infinity to a power of two.
    pub(in crate::score) f64: Vec<f64>,
    /// The same for 32-bit values: each is the greatest that is not above the 64-bit one.
    pub(in crate::score) f32: Vec<f32>,
    /// The cutoffs of each of the first [`LEVELS`] steps of the search, each step from a new lane on.
    pub(in crate::score) levels32: Vec<Lane>,
    /// The same in 64 bits.
    pub(in crate::score) levels64: Vec<Lane>,
    /// The cutoffs in sixteens: all of them at the end, and before them the last of each sixteen of what is behind.
    pub(in crate::score) sixteens32: Vec<Vec<[f32; 16]>>,
    /// What finds 32-bit values without a search, if there is.
    pub(in crate::score) buckets: Option<Buckets>,
    /// Steps of the binary search: the padded length is two to the power of this.
    pub(in crate::score) steps: u32,
    /// The rank of 0.
    pub(in crate::score) zero: u16,
    pub(in crate::score) planes: Vec<Plane>,
}

/// `code > threshold`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::score) struct Condition {
    pub(in crate::score) plane: u32,
    pub(in crate::score) threshold: u8,
}

/// A condition that is the exclusive or of others, or its opposite.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::score) struct Parity {
    pub(in crate::score) of: Vec<u16>,
    pub(in crate::score) negated: bool,
}

/// The leaf of each code of a tree, at least 64 of them.
#[derive(Debug, Default)]
pub(in crate::score) enum LeafOf {
    /// Codes are leaves.
    #[default]
    Code,
    /// Of a tree of up to 256 leaves.
    Bytes(Vec<u8>),
    Words(Vec<u16>),
}

/// A tree.
#[derive(Debug)]
pub(in crate::score) struct TreePlan {
    /// Which tree of the forest it is.
    pub(in crate::score) tree: usize,
    /// Of trees that are woven, the first has the muxes of all.
    pub(in crate::score) muxes: Range<usize>,
    /// Which of its own are skipped for blocks that have no rows there.
    pub(in crate::score) guards: Vec<Guard>,
    /// The bits of the code's low byte: the operand of each, and its value.
    pub(in crate::score) low: Vec<(u16, u8)>,
    /// Those of its high byte.
    pub(in crate::score) high: Vec<(u16, u8)>,
    pub(in crate::score) leaf_of: LeafOf,
    /// How many leaves there are.
    pub(in crate::score) leaves: usize,
    /// For each output that it adds to, where the values of its leaves are in the table.
    pub(in crate::score) targets: Vec<(u32, usize)>,
    /// Where the values for its first target are in [`Plan::apart`]; those for the others are behind.
    pub(in crate::score) apart: usize,
    /// Whether it has few leaves, short codes and one output: such trees can be added together.
    pub(in crate::score) small: bool,
}

/// Consecutive trees of a forest, compiled.
#[derive(Debug)]
pub(in crate::score) struct Plan {
    pub(in crate::score) cutoffs: Vec<Cutoffs>,
    pub(in crate::score) planes: usize,
    pub(in crate::score) conditions: Vec<Condition>,
    pub(in crate::score) parities: Vec<Parity>,
    pub(in crate::score) muxes: Muxes,
    /// Operands in all: constants, conditions, parities, temporary ones.
    pub(in crate::score) operands: usize,
    pub(in crate::score) trees: Vec<TreePlan>,
    /// Values of leaves, if they are added in 64 bits.
    pub(in crate::score) values: Vec<f64>,
    /// The same in 32 bits, if they are added in that.
    pub(in crate::score) values32: Vec<f32>,
    /// How sums are added.
    pub(in crate::score) sum: Precision,
    apart: OnceLock<Vec<Lane>>,
}

/// The plans of a forest, in the order of its trees; `None` for a tree that must be walked.
pub(in crate::score) fn compile(forest: &Forest) -> Vec<(Range<usize>, Option<Plan>)> {
    let mut out = Vec::new();
    let mut open = Vec::new();
    open.push(0..forest.trees().len());
    while let Some(trees) = open.pop() {
        match Plan::new(forest, trees.clone()) {
            Some(plan) => out.push((trees, Some(plan))),
            None if trees.len() > 1 => {
                let middle = trees.start + trees.len() / 2;
                open.extend([middle..trees.end, trees.start..middle]);
            }
            None => out.push((trees, None)),
        }
    }
    out
}

/// Trees whose programs are worth a thread of their own.
const PART_TREES: usize = 32;
/// Variants of a cutoff.
const VARIANTS: usize = Variant::ZeroHigh as usize + 1;

impl Plan {
    /// `None`: there is more than operands of 16 bits can name.
    fn new(forest: &Forest, trees: Range<usize>) -> Option<Self> {
        let of = &forest.trees()[trees.clone()];
        let questions = Questions::of(of, forest.features())?;
        let sets = of.len().div_ceil(WOVEN);
        let programs = || Programs::new(&questions, leaves(of));
        let part = |programs: &mut _, part| Part::new(of, part, programs, forest.sum);
        let parts = in_parts(sets, PART_TREES / WOVEN, programs, part);
        let mut all = Part::default();
        for part in parts {
            all.append(part?);
        }
        let muxes = all.close_up(questions.behind());
        let Part { operands, trees: mut plans, values, values32, .. } = all;
        let mut apart = 0;
        for plan in &mut plans {
            (plan.tree, plan.apart) = (trees.start + plan.tree, apart);
            apart += plan.targets.len() * plan.lanes_apart(forest.sum);
        }
        let Questions { cutoffs, conditions, parities, planes, .. } = questions;
        let number_of_planes = planes.iter().map(Vec::len).sum();
        let each = cutoffs.iter().zip(planes).enumerate().filter(|(_, (_, planes))| !planes.is_empty());
        Some(Self {
            cutoffs: each.map(|(feature, (cutoffs, planes))| Cutoffs::new(feature, cutoffs, planes)).collect(),
            planes: number_of_planes,
            conditions,
            parities,
            muxes,
            operands,
            trees: plans,
            values,
            values32,
            sum: forest.sum,
            apart: OnceLock::new(),
        })
    }
}

/// How many leaves trees have in all.
fn leaves(trees: &[Tree]) -> usize {
    trees.iter().map(Tree::leaf_count).sum()
}

/// Some of the trees of a plan.
#[derive(Default)]
struct Part {
    muxes: Vec<Mux>,
    operands: usize,
    trees: Vec<TreePlan>,
    values: Vec<f64>,
    values32: Vec<f32>,
}

impl Part {
    /// The trees of some sets of [`WOVEN`].
    fn new(trees: &[Tree], sets: Range<usize>, programs: &mut Programs<'_>, sum: Precision) -> Option<Self> {
        let mut part = Self::default();
        // Those of other parts are put behind the first.
        let room = if sets.start == 0 { trees } else { &trees[sets.start * WOVEN..(sets.end * WOVEN).min(trees.len())] };
        part.muxes.reserve(leaves(room) + leaves(room) / 4);
        part.trees.reserve(room.len());
        let values = room.iter().map(|tree| tree.leaves.len() / tree.leaf_count() * padded(tree.leaf_count())).sum();
        match sum {
            Precision::F64 => part.values.reserve(values),
            Precision::F32 => part.values32.reserve(values),
        }
        for first in sets.map(|set| set * WOVEN) {
            let set = &trees[first..(first + WOVEN).min(trees.len())];
            let woven = if programs.alone(set) { 1 } else { WOVEN };
            for (number, trees) in set.chunks(woven).enumerate() {
                let first = first + number * woven;
                let of = |(number, tree)| programs.of(tree, number, woven);
                let programs = (first..).zip(trees).map(of).collect::<Option<Vec<_>>>()?;
                part.add(trees, first, programs, sum);
            }
        }
        part.operands = programs.operands;
        Some(part)
    }

    /// Adds trees that are woven, of which the first is the `first`th of all.
    fn add(&mut self, trees: &[Tree], first: usize, programs: Vec<Program>, sum: Precision) {
        let start = self.muxes.len();
        weave(&programs, &mut self.muxes);
        let behind = self.muxes.len();
        for (number, (tree, program)) in trees.iter().zip(programs).enumerate() {
            let targets = match sum {
                Precision::F64 => table(tree, &program.order, &mut self.values, |v| v),
                Precision::F32 => table(tree, &program.order, &mut self.values32, |v| v as f32),
            };
            let bit = |(bit, operand): (usize, &u16)| (*operand, 1 << (bit % 8));
            let (low, high) = program.bits.split_at(program.bits.len().min(8));
            let leaves = tree.leaf_count();
            self.trees.push(TreePlan {
                tree: first + number,
                muxes: if number == 0 { start..behind } else { behind..behind },
                guards: program.guards,
                low: low.iter().enumerate().map(bit).collect(),
                high: high.iter().enumerate().map(bit).collect(),
                leaf_of: program.leaf_of,
                leaves,
                small: leaves <= SMALL_LEAVES && high.is_empty() && targets.len() == 1 && tree.linear.is_empty(),
                targets,
                apart: 0,
            });
        }
    }

    /// Puts the trees of another part behind these.
    fn append(&mut self, mut other: Self) {
        if self.trees.is_empty() {
            *self = other;
            return;
        }
        let (muxes, values) = (self.muxes.len(), self.values.len().max(self.values32.len()));
        for tree in &mut other.trees {
            tree.muxes = tree.muxes.start + muxes..tree.muxes.end + muxes;
            tree.targets.iter_mut().for_each(|(_, at)| *at += values);
        }
        self.muxes.append(&mut other.muxes);
        self.operands = self.operands.max(other.operands);
        self.trees.append(&mut other.trees);
        self.values.append(&mut other.values);
        self.values32.append(&mut other.values32);
    }

    /// Programs leave room for codes of [`BITS`] bits, from the operand `first` on: takes out what none of them needs, and gives
    /// the muxes as they then are.
    fn close_up(&mut self, first: usize) -> Muxes {
        let needed = self.trees.iter().map(|tree| tree.low.len() + tree.high.len()).max().unwrap_or(0);
        let (first, unused) = (first as u16, (BITS - needed) as u16);
        // What is behind the bits of all trees moves as far as what would be those of one more.
        let closer = |operand: u16| operand - (operand.saturating_sub(first) / BITS as u16).min(WOVEN as u16) * unused;
        for (operand, _) in self.trees.iter_mut().flat_map(|tree| tree.low.iter_mut().chain(&mut tree.high)) {
            *operand = closer(*operand);
        }
        self.operands -= WOVEN * usize::from(unused);
        Muxes::new(std::mem::take(&mut self.muxes), closer)
    }
}

/// Steps of several trees in turn: each waits for what a step of its own tree just stored, and those of the others can
/// run meanwhile.
fn weave(programs: &[Program], to: &mut Vec<Mux>) {
    let longest = programs.iter().map(|program| program.muxes.len()).max().unwrap_or(0);
    if let [alone] = programs {
        return to.extend(alone.muxes.iter().map(|mux| Mux::new(*mux)));
    }
    for step in 0..longest {
        to.extend(programs.iter().filter_map(|program| program.muxes.get(step)).map(|mux| Mux::new(*mux)));
    }
}

/// Puts the values of a tree's leaves into the table, in some order; one table an output.
fn table<T: Copy + Default>(
    tree: &Tree,
    order: &[u16],
    values: &mut Vec<T>,
    of: impl Fn(f64) -> T,
) -> Vec<(u32, usize)> {
    let (leaves, width) = (tree.leaf_count(), tree.leaves.len() / tree.leaf_count());
    let outputs = tree.output.map_or(0..width as u32, |output| output..output + 1);
    let mut targets = Vec::with_capacity(width);
    for (column, output) in outputs.enumerate() {
        targets.push((output, values.len()));
        match order {
            [] => values.extend(tree.leaves.iter().skip(column).step_by(width).map(|value| of(*value))),
            _ => values.extend(order.iter().map(|leaf| of(tree.leaves[usize::from(*leaf) * width + column]))),
        }
        values.resize(values.len() - leaves + padded(leaves), T::default());
    }
    targets
}

/// The length of a table of leaves: whole sets of registers, of 64 values and powers of two of them.
pub(in crate::score) fn padded(leaves: usize) -> usize {
    if leaves <= 256 { leaves.next_power_of_two().max(64) } else { leaves.next_multiple_of(64) }
}
