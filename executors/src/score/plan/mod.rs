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
use self::program::Program;
use self::questions::{Questions, weave};
use self::steps::Muxes;
pub(in crate::score) use self::steps::{Guard, Mux, Steps};
use super::forest::{Forest, Missing, Precision, Split, Test, Tree};
use super::kernel::Lane;
use super::parts::in_parts;

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
        let made = in_parts(of.len(), PART_TREES, |part| {
            let mut used = vec![false; questions.count];
            let programs = of[part].iter().map(|tree| Program::new(tree, &questions, &mut used));
            Some((programs.collect::<Option<Vec<_>>>()?, used))
        });
        let (mut programs, mut used) = (Vec::with_capacity(of.len()), vec![false; questions.count]);
        for part in made {
            let (of_part, used_of_part) = part?;
            programs.extend(of_part);
            used.iter_mut().zip(used_of_part).for_each(|(used, more)| *used |= more);
        }
        let (numbering, conditions, planes) = questions.numbering(&used, &programs)?;
        let woven = programs.len().div_ceil(WOVEN);
        let muxes = in_parts(woven, PART_TREES, |part| {
            let programs = &programs[part.start * WOVEN..(part.end * WOVEN).min(programs.len())];
            weave(part.start * WOVEN, programs, &numbering)
        });
        let (mut steps, mut all) = (Vec::with_capacity(programs.len()), Vec::new());
        for (muxes, of_part) in muxes {
            steps.extend(of_part.into_iter().map(|steps| steps.start + all.len()..steps.end + all.len()));
            if all.is_empty() { all = muxes } else { all.extend(muxes) }
        }
        let (mut values, mut values32, mut apart) = (Vec::new(), Vec::new(), 0);
        let mut plans = Vec::with_capacity(programs.len());
        for (number, (program, muxes)) in programs.into_iter().zip(steps).enumerate() {
            let tree = &of[number];
            let order = &program.order;
            let targets = match forest.sum {
                Precision::F64 => table(tree, order, &mut values, |v| v),
                Precision::F32 => table(tree, order, &mut values32, |v| v as f32),
            };
            let (low, high) = numbering.bits(number, &program.bits)?;
            let leaves = tree.leaf_count();
            let small = leaves <= SMALL_LEAVES && high.is_empty() && targets.len() == 1 && tree.linear.is_empty();
            let (tree, guards, leaf_of) = (trees.start + number, program.guards, program.leaf_of);
            let tree = TreePlan { tree, muxes, guards, low, high, leaf_of, leaves, targets, apart, small };
            apart += tree.targets.len() * tree.lanes_apart(forest.sum);
            plans.push(tree);
        }
        let each = questions.cutoffs.iter().zip(&planes).enumerate().filter(|(_, (_, planes))| !planes.is_empty());
        Some(Self {
            cutoffs: each.map(|(feature, (cutoffs, planes))| Cutoffs::new(feature, cutoffs, planes.clone())).collect(),
            planes: planes.iter().map(Vec::len).sum(),
            conditions,
            parities: numbering.all_parities,
            muxes: Muxes::new(all),
            operands: numbering.operands,
            trees: plans,
            values,
            values32,
            sum: forest.sum,
            apart: OnceLock::new(),
        })
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
        let leaf = |number: usize| order.get(number).map_or(number, |leaf| usize::from(*leaf));
        values.extend((0..leaves).map(|number| of(tree.leaves[leaf(number) * width + column])));
        values.resize(values.len() - leaves + padded(leaves), T::default());
    }
    targets
}

/// The boundaries of a test. Of a set of nothing, two that cancel each other: what is missing may still go left.
fn edges(test: &Test) -> &[f64] {
    match test.boundaries() {
        [] => &[f64::NEG_INFINITY; 2],
        edges => edges,
    }
}

/// The length of a table of leaves: whole sets of registers, of 64 values and powers of two of them.
pub(in crate::score) fn padded(leaves: usize) -> usize {
    if leaves <= 256 { leaves.next_power_of_two().max(64) } else { leaves.next_multiple_of(64) }
}
