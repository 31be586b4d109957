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
pub(in crate::score) use self::steps::{Mux, Steps};
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
    /// Of trees that are woven, the first has the steps of all.
    pub(in crate::score) steps: Steps,
    /// The bits of the code's low byte: the operand of each, and its value.
    pub(in crate::score) low: Vec<(u16, u8)>,
    /// Those of its high byte.
    pub(in crate::score) high: Vec<(u16, u8)>,
    pub(in crate::score) leaf_of: LeafOf,
    /// How many leaves there are.
    pub(in crate::score) leaves: usize,
    /// Which outputs it adds to.
    pub(in crate::score) outputs: Range<u32>,
    /// For each of them the values of its leaves, as many as [`padded`] says.
    pub(in crate::score) values: Values,
    /// Where the values for its first output are in [`Plan::apart`]; those for the others are behind.
    pub(in crate::score) apart: usize,
    /// Whether it has few leaves, short codes and one output: such trees can be added together.
    pub(in crate::score) small: bool,
}

/// Values of leaves, as they are added.
#[derive(Debug)]
pub(in crate::score) enum Values {
    F64(Vec<f64>),
    F32(Vec<f32>),
}

/// Consecutive trees of a forest, compiled.
#[derive(Debug)]
pub(in crate::score) struct Plan {
    pub(in crate::score) cutoffs: Vec<Cutoffs>,
    pub(in crate::score) planes: usize,
    pub(in crate::score) conditions: Vec<Condition>,
    pub(in crate::score) parities: Vec<Parity>,
    /// Operands in all: constants, conditions, parities, bits of codes, temporary ones.
    pub(in crate::score) operands: usize,
    pub(in crate::score) trees: Vec<TreePlan>,
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
        let leaves = of.iter().map(Tree::leaf_count).sum();
        let programs = || Programs::new(&questions, leaves);
        let made = in_parts(of.len().div_ceil(WOVEN), PART_TREES / WOVEN, programs, |programs, sets| {
            let (first, end) = (sets.start * WOVEN, (sets.end * WOVEN).min(of.len()));
            let sets = (first..end).step_by(WOVEN).zip(of[first..end].chunks(WOVEN));
            let plans = sets.map(|(first, set)| set_of(set, first, programs, forest.sum));
            Some(plans.collect::<Option<Vec<_>>>()?.into_iter().flatten())
        });
        let (mut plans, mut apart) = (Vec::with_capacity(of.len()), 0);
        for part in made {
            plans.extend(part?);
        }
        for plan in &mut plans {
            (plan.tree, plan.apart) = (trees.start + plan.tree, apart);
            apart += plan.outputs.len() * plan.lanes_apart(forest.sum);
        }
        let named = plans.iter().map(|plan| plan.steps.operands()).max().unwrap_or(0);
        let operands = named.max(questions.behind());
        let Questions { cutoffs, conditions, parities, planes, .. } = questions;
        let number_of_planes = planes.iter().map(Vec::len).sum();
        let each = cutoffs.iter().zip(planes).enumerate().filter(|(_, (_, planes))| !planes.is_empty());
        Some(Self {
            cutoffs: each.map(|(feature, (cutoffs, planes))| Cutoffs::new(feature, cutoffs, planes)).collect(),
            planes: number_of_planes,
            conditions,
            parities,
            operands,
            trees: plans,
            sum: forest.sum,
            apart: OnceLock::new(),
        })
    }
}

/// The plans of up to [`WOVEN`] trees, of which the first is the `first`th of all.
fn set_of(trees: &[Tree], first: usize, programs: &mut Programs<'_>, sum: Precision) -> Option<Vec<TreePlan>> {
    let woven = if programs.alone(trees) { 1 } else { WOVEN };
    let mut plans = Vec::with_capacity(trees.len());
    for (number, trees) in trees.chunks(woven).enumerate() {
        let first = first + number * woven;
        let of = |(number, tree)| programs.of(tree, number, woven);
        let mut programs = (first..).zip(trees).map(of).collect::<Option<Vec<_>>>()?;
        // The first has those of all.
        let mut muxes = weave(&mut programs);
        for (number, (tree, program)) in (first..).zip(trees.iter().zip(programs)) {
            plans.push(TreePlan::new(tree, number, std::mem::take(&mut muxes), program, sum));
        }
    }
    Some(plans)
}

/// Steps of several trees in turn: each waits for what a step of its own tree just stored, and those of the others can
/// run meanwhile.
fn weave(programs: &mut [Program]) -> Vec<[u16; 4]> {
    if let [alone] = programs {
        return std::mem::take(&mut alone.muxes);
    }
    let mut muxes = Vec::with_capacity(programs.iter().map(|program| program.muxes.len()).sum());
    for step in 0..programs.iter().map(|program| program.muxes.len()).max().unwrap_or(0) {
        muxes.extend(programs.iter().filter_map(|program| program.muxes.get(step)));
    }
    muxes
}

impl TreePlan {
    /// The plan of the `number`th tree.
    fn new(tree: &Tree, number: usize, muxes: Vec<[u16; 4]>, program: Program, sum: Precision) -> Self {
        let Program { guards, bits, leaf_of, order, .. } = program;
        let bit = |(bit, operand): (usize, &u16)| (*operand, 1 << (bit % 8));
        let (low, high) = bits.split_at(bits.len().min(8));
        let leaves = tree.leaf_count();
        let outputs = tree.output.map_or(0..(tree.leaves.len() / leaves) as u32, |output| output..output + 1);
        Self {
            tree: number,
            steps: Steps::new(&muxes, guards),
            low: low.iter().enumerate().map(bit).collect(),
            high: high.iter().enumerate().map(bit).collect(),
            leaf_of,
            leaves,
            small: leaves <= SMALL_LEAVES && high.is_empty() && outputs.len() == 1 && tree.linear.is_empty(),
            outputs,
            values: match sum {
                Precision::F64 => Values::F64(table(tree, &order, |value| value)),
                Precision::F32 => Values::F32(table(tree, &order, |value| value as f32)),
            },
            apart: 0,
        }
    }
}

/// The values of a tree's leaves in some order, or in their own if that is empty; one table an output.
fn table<T: Copy + Default>(tree: &Tree, order: &[u16], of: impl Fn(f64) -> T) -> Vec<T> {
    let (leaves, width) = (tree.leaf_count(), tree.leaves.len() / tree.leaf_count());
    let mut values = Vec::with_capacity(width * padded(leaves));
    for column in 0..width {
        match order {
            [] if width == 1 => values.extend(tree.leaves.iter().map(|value| of(*value))),
            [] => values.extend(tree.leaves.iter().skip(column).step_by(width).map(|value| of(*value))),
            _ => values.extend(order.iter().map(|leaf| of(tree.leaves[usize::from(*leaf) * width + column]))),
        }
        values.resize((column + 1) * padded(leaves), T::default());
    }
    values
}

/// The length of a table of leaves: whole sets of registers, of 64 values and powers of two of them.
pub(in crate::score) fn padded(leaves: usize) -> usize {
    if leaves <= 256 { leaves.next_power_of_two().max(64) } else { leaves.next_multiple_of(64) }
}
