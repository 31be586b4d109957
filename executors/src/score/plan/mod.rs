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

use std::collections::HashMap;
use std::ops::Range;
use std::sync::OnceLock;

pub(in crate::score) use self::cutoffs::{Buckets, at_most};
use self::program::{Odd, Operand, Program};
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

/// `to = condition ? right : left`, of operands: 16 bits each, from the lowest on in this order. They are one number since
/// compilers else take four fields apart in vector registers, which is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::score) struct Mux(u64);

impl Mux {
    fn new([to, right, left, condition]: [u16; 4]) -> Self {
        Self(u64::from(to) | u64::from(right) << 16 | u64::from(left) << 32 | u64::from(condition) << 48)
    }

    /// To, right, left, condition.
    #[inline(always)]
    pub(in crate::score) fn operands(self) -> [usize; 4] {
        let part = |number: u32| (self.0 >> (16 * number)) as u16 as usize;
        [part(0), part(1), part(2), part(3)]
    }
}

/// The muxes of a plan, none of which names an operand from `operands` on: found once, so that kernels, which run them
/// again and again, need not look at each.
#[derive(Debug)]
pub(in crate::score) struct Muxes {
    all: Vec<Mux>,
    operands: usize,
}

/// Consecutive muxes of a plan.
#[derive(Debug, Clone, Copy)]
pub(in crate::score) struct Steps<'a> {
    muxes: &'a [Mux],
    operands: usize,
}

impl Muxes {
    fn new(all: Vec<Mux>) -> Self {
        let greatest = all.iter().flat_map(|mux| mux.operands()).max();
        Self { all, operands: greatest.map_or(0, |greatest| greatest + 1) }
    }

    /// Those of a tree.
    pub(in crate::score) fn steps(&self, range: Range<usize>) -> Steps<'_> {
        Steps { muxes: &self.all[range], operands: self.operands }
    }
}

impl<'a> Steps<'a> {
    /// In the order in which they are computed.
    pub(in crate::score) fn muxes(&self) -> &'a [Mux] {
        self.muxes
    }

    /// All operands that they name are below this.
    pub(in crate::score) fn operands(&self) -> usize {
        self.operands
    }
}

/// The leaf of each code of a tree, at least 64 of them.
#[derive(Debug)]
pub(in crate::score) enum LeafOf {
    /// Codes are leaves.
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
        let (mut starts, mut all) = (Vec::with_capacity(woven), Vec::new());
        for part in muxes {
            let (muxes, starts_of_part) = part?;
            starts.extend(starts_of_part.iter().map(|start| start + all.len()));
            if all.is_empty() { all = muxes } else { all.extend(muxes) }
        }
        let (mut values, mut values32, mut apart) = (Vec::new(), Vec::new(), 0);
        let mut plans = Vec::with_capacity(programs.len());
        for (number, program) in programs.iter().enumerate() {
            let tree = &of[number];
            let leaf_of = leaf_of(tree, program);
            let order: &[u16] = if matches!(leaf_of, LeafOf::Code) { &program.leaf_of } else { &[] };
            let targets = match forest.sum {
                Precision::F64 => table(tree, order, &mut values, |v| v),
                Precision::F32 => table(tree, order, &mut values32, |v| v as f32),
            };
            let (low, high) = numbering.bits(number, &program.bits)?;
            let start = |woven: usize| starts.get(woven).copied().unwrap_or(all.len());
            let muxes = match number % WOVEN {
                0 => start(number / WOVEN)..start(number / WOVEN + 1),
                _ => 0..0,
            };
            let leaves = tree.leaf_count();
            let small = leaves <= SMALL_LEAVES && high.is_empty() && targets.len() == 1 && tree.linear.is_empty();
            let tree =
                TreePlan { tree: trees.start + number, muxes, low, high, leaf_of, leaves, targets, apart, small };
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

/// What a leaf of each code is; where each has one code, they are numbered by it.
fn leaf_of(tree: &Tree, program: &Program) -> LeafOf {
    let codes = program.leaf_of.iter().chain(std::iter::repeat_n(&0, 64usize.saturating_sub(program.leaf_of.len())));
    match tree.leaf_count() {
        leaves if leaves == program.leaf_of.len() && leaves <= 256 && tree.linear.is_empty() => LeafOf::Code,
        ..=256 => LeafOf::Bytes(codes.map(|leaf| *leaf as u8).collect()),
        _ => LeafOf::Words(codes.copied().collect()),
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

/// All that splits ask.
struct Questions {
    /// The cutoffs of each feature, ascending.
    cutoffs: Vec<Vec<f64>>,
    /// The first place of each feature: each of its cutoffs has a place for each variant.
    first: Vec<u32>,
    /// How many places there are.
    count: usize,
}

impl Questions {
    /// `None` if a feature has more cutoffs than ranks can tell apart.
    fn of(trees: &[Tree], features: usize) -> Option<Self> {
        let mut cutoffs = vec![Vec::new(); features];
        for split in trees.iter().flat_map(|t| &t.splits) {
            // -0 and 0 are one cutoff.
            cutoffs[split.feature as usize].extend(edges(&split.test).iter().map(|t| t + 0.0));
        }
        let sorted = in_parts(features, if trees.len() < PART_TREES { features } else { 1 }, |part| {
            let sorted = |of: &Vec<f64>| {
                let mut of = of.clone();
                of.sort_unstable_by(f64::total_cmp);
                of.dedup();
                of.shrink_to_fit();
                of
            };
            cutoffs[part].iter().map(sorted).collect::<Vec<_>>()
        });
        let cutoffs: Vec<Vec<f64>> = sorted.into_iter().flatten().collect();
        let (mut first, mut count) = (Vec::with_capacity(features), 0);
        for of in &cutoffs {
            first.push(u32::try_from(count).ok()?);
            count += of.len() * VARIANTS;
        }
        let fits = u32::try_from(count).is_ok() && cutoffs.iter().all(|of| of.len() <= CUTOFFS_MAX);
        fits.then_some(Self { cutoffs, first, count })
    }

    /// The place of the condition that is true above an edge.
    fn place(&self, feature: usize, edge: f64, variant: Variant) -> u32 {
        let rank = self.cutoffs[feature].partition_point(|t| *t < edge);
        self.first[feature] + (rank * VARIANTS + variant as usize) as u32
    }

    /// Numbers everything that is used: the conditions of a plane are beside each other.
    fn numbering(&self, used: &[bool], programs: &[Program]) -> Option<(Numbering, Vec<Condition>, Vec<Vec<Plane>>)> {
        let mut of_place = vec![0; self.count];
        let (mut conditions, mut planes, mut number) = (Vec::new(), vec![Vec::new(); self.cutoffs.len()], 0);
        for (feature, cutoffs) in self.cutoffs.iter().enumerate() {
            for page in 0..cutoffs.len().div_ceil(PAGE) {
                for variant in
                    [Variant::NanLow, Variant::NanHigh, Variant::NanZero, Variant::ZeroLow, Variant::ZeroHigh]
                {
                    let before = conditions.len();
                    for rank in page * PAGE..((page + 1) * PAGE).min(cutoffs.len()) {
                        let place = self.first[feature] as usize + rank * VARIANTS + variant as usize;
                        if used[place] {
                            of_place[place] = u16::try_from(conditions.len()).ok()?;
                            conditions.push(Condition { plane: number, threshold: (rank % PAGE) as u8 });
                        }
                    }
                    if conditions.len() > before {
                        planes[feature].push(Plane { page: page as u16, variant, number });
                        number += 1;
                    }
                }
            }
        }
        let mut numbering = Numbering { of_place, conditions: conditions.len(), ..Numbering::default() };
        numbering.number_parities(programs)?;
        numbering.bits = programs.iter().map(|program| program.bits.len()).max().unwrap_or(0);
        let temporary = programs.iter().map(|program| program.temporary).max().unwrap_or(0) * WOVEN;
        numbering.operands = numbering.temporary() + temporary;
        (numbering.operands <= usize::from(u16::MAX)).then_some((numbering, conditions, planes))
    }
}

/// The numbers of operands.
#[derive(Debug, Default)]
struct Numbering {
    /// The number of the condition at each place that is used.
    of_place: Vec<u16>,
    /// How many conditions there are.
    conditions: usize,
    all_parities: Vec<Parity>,
    /// Those of each program.
    parities: Vec<Vec<u16>>,
    /// The most bits of a code.
    bits: usize,
    operands: usize,
}

/// Operands of bits, each with its value in a byte.
type ByteBits = Vec<(u16, u8)>;

impl Numbering {
    /// Numbers parities, each once.
    fn number_parities(&mut self, programs: &[Program]) -> Option<()> {
        let mut known: HashMap<&Odd, u16> = HashMap::new();
        for program in programs {
            let mut numbers = Vec::with_capacity(program.parities.len());
            for odd in &program.parities {
                let next = u16::try_from(known.len()).ok()?;
                let number = *known.entry(odd).or_insert(next);
                if number == next {
                    let of = odd.places.iter().map(|place| self.of_place[*place as usize]).collect();
                    self.all_parities.push(Parity { of, negated: odd.negated });
                }
                numbers.push(number);
            }
            self.parities.push(numbers);
        }
        Some(())
    }

    /// The first operand that is a bit of a code.
    fn first_bit(&self) -> usize {
        CONDITIONS + self.conditions + self.all_parities.len()
    }

    /// The first temporary operand.
    fn temporary(&self) -> usize {
        self.first_bit() + WOVEN * self.bits
    }

    /// The number of an operand of a program.
    fn operand(&self, program: usize, operand: Operand) -> u16 {
        let number = match operand {
            Operand::None => return NONE,
            Operand::All => return ALL,
            Operand::Condition(place) => CONDITIONS + usize::from(self.of_place[place as usize]),
            Operand::Parity(n) => CONDITIONS + self.conditions + usize::from(self.parities[program][n as usize]),
            Operand::Bit(n) => self.first_bit() + program % WOVEN * self.bits + usize::from(n),
            // Trees that are woven have their own.
            Operand::Temporary(n) => self.temporary() + usize::from(n) * WOVEN + program % WOVEN,
        };
        // All are below `operands`.
        number as u16
    }

    /// The bits of the low byte of a code, and those of the high byte.
    fn bits(&self, program: usize, bits: &[Operand]) -> Option<(ByteBits, ByteBits)> {
        let of = |(bit, operand): (usize, &Operand)| (self.operand(program, *operand), 1 << (bit % 8));
        let (low, high) = bits.split_at(bits.len().min(8));
        Some((low.iter().enumerate().map(of).collect(), high.iter().enumerate().map(of).collect()))
    }
}

/// Steps of several trees in turn: each waits for what a step of its own tree just stored, and those of the others can
/// run meanwhile. With where those of each set of trees start.
fn weave(first: usize, programs: &[Program], numbering: &Numbering) -> Option<(Vec<Mux>, Vec<usize>)> {
    let mut muxes = Vec::with_capacity(programs.iter().map(|program| program.muxes.len()).sum());
    let mut starts = Vec::with_capacity(programs.len().div_ceil(WOVEN));
    for (set, woven) in programs.chunks(WOVEN).enumerate() {
        starts.push(muxes.len());
        let longest = woven.iter().map(|program| program.muxes.len()).max().unwrap_or(0);
        for step in 0..longest {
            for (i, program) in woven.iter().enumerate() {
                let number = |operand| numbering.operand(first + set * WOVEN + i, operand);
                muxes.extend(program.muxes.get(step).map(|mux| Mux::new(mux.map(number))));
            }
        }
    }
    Some((muxes, starts))
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
