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
//!     │ leaf number, bit by bit:  bit = condition ? bit of the right child : bit of the left child
//!     ▼
//!  leaf numbers                      3     0     1        ──▶ values of leaves, added tree by tree
//! ```
//! Ranks lose nothing: `x <= t` is `rank(x) <= rank(t)` for every `t` that is a cutoff. The idea of comparing ranks is
//! QuickScorer's (Lucchese et al., SIGIR 2015) and CatBoost's; that of computing leaf numbers by bit is bit-slicing.
//!
//! A code is one byte: a feature with more than 255 cutoffs has several pages of codes. Operands are 16 bits, so a model
//! with more questions than that is cut into several plans, one after the other.

use std::collections::HashMap;
use std::ops::Range;

use super::forest::{Forest, Missing, Split, Test, Tree};
use super::kernel::Lane;

/// Cutoffs that one page of codes tells apart.
pub(super) const PAGE: usize = 255;
/// The operand that is 0 for every row.
const NONE: u16 = 0;
/// The operand that is 1 for every row.
const ALL: u16 = 1;
/// The first operand that is a condition.
pub(super) const CONDITIONS: usize = 2;
/// Steps of a search whose cutoffs are held in registers.
pub(super) const LEVELS: u32 = 8;
/// Bits of the number of a leaf.
const BITS: usize = 16;
/// Trees whose steps are computed in turn. More of them have more temporary operands than the nearest cache holds.
const WOVEN: usize = 2;
/// More ranks than these do not fit.
const CUTOFFS_MAX: usize = u16::MAX as usize - 1;

/// How a page of codes shows values that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Variant {
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
pub(super) struct Plane {
    pub(super) page: u16,
    pub(super) variant: Variant,
    /// Where it is among all planes.
    pub(super) number: u32,
}

/// How the values of a feature become codes.
#[derive(Debug)]
pub(super) struct Cutoffs {
    pub(super) feature: usize,
    /// Ascending, each once, padded with infinity to a power of two.
    pub(super) f64: Vec<f64>,
    /// The same for 32-bit values: each is the greatest that is not above the 64-bit one.
    pub(super) f32: Vec<f32>,
    /// The cutoffs of each of the first [`LEVELS`] steps of the search, each step from a new lane on.
    pub(super) levels32: Vec<Lane>,
    /// The same in 64 bits.
    pub(super) levels64: Vec<Lane>,
    /// The cutoffs in sixteens: all of them at the end, and before them the last of each sixteen of what is behind.
    pub(super) sixteens32: Vec<Vec<[f32; 16]>>,
    /// Steps of the binary search: the padded length is two to the power of this.
    pub(super) steps: u32,
    /// The rank of 0.
    pub(super) zero: u16,
    pub(super) planes: Vec<Plane>,
}

/// `code > threshold`, or its opposite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Condition {
    pub(super) plane: u32,
    pub(super) threshold: u8,
    pub(super) negated: bool,
}

/// A condition that is the exclusive or of others, or its opposite.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Parity {
    pub(super) of: Vec<u16>,
    pub(super) negated: bool,
}

/// `to = condition ? right : left`, of operands: 16 bits each, from the lowest on in this order. They are one number since
/// compilers else take four fields apart in vector registers, which is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mux(u64);

impl Mux {
    fn new([to, right, left, condition]: [u16; 4]) -> Self {
        Self(u64::from(to) | u64::from(right) << 16 | u64::from(left) << 32 | u64::from(condition) << 48)
    }

    /// To, right, left, condition.
    #[inline(always)]
    pub(super) fn operands(self) -> [usize; 4] {
        let part = |number: u32| (self.0 >> (16 * number)) as u16 as usize;
        [part(0), part(1), part(2), part(3)]
    }
}

/// The muxes of a plan, none of which names an operand from `operands` on: found once, so that kernels, which run them
/// again and again, need not look at each.
#[derive(Debug)]
pub(super) struct Muxes {
    all: Vec<Mux>,
    operands: usize,
}

/// Consecutive muxes of a plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps<'a> {
    muxes: &'a [Mux],
    operands: usize,
}

impl Muxes {
    fn new(all: Vec<Mux>) -> Self {
        let greatest = all.iter().flat_map(|mux| mux.operands()).max();
        Self { all, operands: greatest.map_or(0, |greatest| greatest + 1) }
    }

    /// Those of a tree.
    pub(super) fn steps(&self, range: Range<usize>) -> Steps<'_> {
        Steps { muxes: &self.all[range], operands: self.operands }
    }
}

impl<'a> Steps<'a> {
    /// In the order in which they are computed.
    pub(super) fn muxes(&self) -> &'a [Mux] {
        self.muxes
    }

    /// All operands that they name are below this.
    pub(super) fn operands(&self) -> usize {
        self.operands
    }
}

/// A tree, or one of several trees that differ in the values of their leaves only.
#[derive(Debug)]
pub(super) struct TreePlan {
    /// Which tree of the forest it is.
    pub(super) tree: usize,
    /// Of trees that are woven, the first has the muxes of all.
    pub(super) muxes: Range<usize>,
    /// The bits of the leaf number's low byte: the operand of each, and its value.
    pub(super) low: Vec<(u16, u8)>,
    /// Those of its high byte.
    pub(super) high: Vec<(u16, u8)>,
    /// Codes of leaves are below this.
    pub(super) leaves: usize,
    /// For each output that it adds to, where its leaves are in the table.
    pub(super) targets: Vec<(u32, usize)>,
    /// The leaf of each code.
    pub(super) leaf_of: Vec<u32>,
}

/// Consecutive trees of a forest, compiled.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) cutoffs: Vec<Cutoffs>,
    pub(super) planes: usize,
    pub(super) conditions: Vec<Condition>,
    pub(super) parities: Vec<Parity>,
    pub(super) muxes: Muxes,
    /// Operands in all: constants, conditions, parities, temporary ones.
    pub(super) operands: usize,
    pub(super) trees: Vec<TreePlan>,
    /// Values of leaves, padded so that a gather of any code stays inside.
    pub(super) values: Vec<f64>,
    /// The same in 32 bits.
    pub(super) values32: Vec<f32>,
}

/// The plans of a forest, in the order of its trees; `None` for a tree that must be walked.
pub(super) fn compile(forest: &Forest) -> Vec<(Range<usize>, Option<Plan>)> {
    let mut out = Vec::new();
    let mut open = Vec::new();
    open.push(0..forest.trees().len());
    while let Some(trees) = open.pop() {
        match Builder::new(forest, trees.clone()).build() {
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

/// A condition that is not there yet.
const UNKNOWN: u16 = u16::MAX;
/// Variants and senses of a cutoff.
const SENSES: usize = 10;

struct Builder<'a> {
    forest: &'a Forest,
    trees: Range<usize>,
    /// Cutoffs by feature, ascending, and the planes made of them so far.
    cutoffs: Vec<Vec<f64>>,
    planes: Vec<Vec<Plane>>,
    plane_count: u32,
    conditions: Vec<Condition>,
    /// For each feature the number of the condition of each cutoff, variant and sense, or [`UNKNOWN`].
    known: Vec<Vec<u16>>,
    parities: Vec<Parity>,
    known_parities: HashMap<Parity, u16>,
}

impl<'a> Builder<'a> {
    fn new(forest: &'a Forest, trees: Range<usize>) -> Self {
        let mut cutoffs = vec![Vec::new(); forest.features()];
        for split in forest.trees()[trees.clone()].iter().flat_map(|t| &t.splits) {
            // -0 and 0 are one cutoff.
            cutoffs[split.feature as usize].extend(edges(&split.test).iter().map(|t| t + 0.0));
        }
        for of in &mut cutoffs {
            of.sort_unstable_by(f64::total_cmp);
            of.dedup();
        }
        Self {
            forest,
            trees,
            planes: vec![Vec::new(); cutoffs.len()],
            known: cutoffs.iter().map(|of| vec![UNKNOWN; of.len() * SENSES]).collect(),
            cutoffs,
            plane_count: 0,
            conditions: Vec::new(),
            parities: Vec::new(),
            known_parities: HashMap::new(),
        }
    }

    /// `None`: there is more than operands of 16 bits can name.
    fn build(mut self) -> Option<Plan> {
        if self.cutoffs.iter().any(|c| c.len() > CUTOFFS_MAX) {
            return None;
        }
        // Operands are numbered when all conditions are known; until then parities and temporary ones are marked.
        let (mut trees, mut programs) = (Vec::new(), Vec::new());
        let (mut values, mut values32) = (Vec::new(), Vec::new());
        for number in self.trees.clone() {
            let tree = &self.forest.trees()[number];
            let (program, leaf_of) = self.program(tree, (number - self.trees.start) % WOVEN)?;
            let targets = self.table(tree, &leaf_of, &mut values, &mut values32);
            let (low, high, leaves) = (vec![], vec![], leaf_of.len());
            trees.push(TreePlan { tree: number, muxes: 0..0, low, high, leaves, targets, leaf_of });
            programs.push(program);
        }
        let temporary = programs.iter().map(|program| program.temporary).max().unwrap_or(0) * WOVEN;
        let numbering = Numbering { conditions: self.conditions.len(), parities: self.parities.len() };
        let operands = numbering.operand(Operand::Temporary(u16::try_from(temporary).ok()?))?;
        let mut muxes = Vec::with_capacity(programs.iter().map(|program| program.muxes.len()).sum());
        for (trees, programs) in trees.chunks_mut(WOVEN).zip(programs.chunks(WOVEN)) {
            let first = muxes.len();
            weave(programs, &numbering, &mut muxes)?;
            trees.iter_mut().for_each(|tree| tree.muxes = muxes.len()..muxes.len());
            trees[0].muxes.start = first;
            for (tree, program) in trees.iter_mut().zip(programs) {
                (tree.low, tree.high) = numbering.bits(&program.bits)?;
            }
        }
        Some(Plan {
            trees,
            planes: self.plane_count as usize,
            operands: operands as usize,
            cutoffs: self.finished_cutoffs(),
            conditions: self.conditions,
            parities: self.parities,
            muxes: Muxes::new(muxes),
            values,
            values32,
        })
    }

    /// Puts the values of a tree's leaves into the table, by code; one table an output.
    fn table(&self, tree: &Tree, leaf_of: &[u32], values: &mut Vec<f64>, values32: &mut Vec<f32>) -> Vec<(u32, usize)> {
        let width = tree.leaves.len() / tree.leaf_count();
        let outputs: Vec<u32> = match tree.output {
            Some(output) => vec![output],
            None => (0..width as u32).collect(),
        };
        let padded = padded(leaf_of.len());
        let mut targets = Vec::with_capacity(width);
        for (column, output) in outputs.into_iter().enumerate() {
            targets.push((output, values.len()));
            let of_code = leaf_of.iter().map(|leaf| tree.leaves[*leaf as usize * width + column]);
            let of_code = of_code.chain(std::iter::repeat(0.0)).take(padded);
            values32.extend(of_code.clone().map(|v| v as f32));
            values.extend(of_code);
        }
        targets
    }

    /// The steps that give the bits of a tree's leaf number, and the leaf of each number. Of trees that are woven, each
    /// has a `thread` of its own.
    fn program(&mut self, tree: &Tree, thread: usize) -> Option<(Program, Vec<u32>)> {
        let (codes, larger_first) = codes(tree);
        let mut leaf_of = vec![0; codes.len()];
        codes.iter().enumerate().for_each(|(leaf, code)| leaf_of[*code as usize] = leaf as u32);
        let width = (usize::BITS - (codes.len() - 1).leading_zeros()) as usize;
        if width > BITS {
            return None;
        }
        let mut program = Program { thread, ..Program::default() };
        // Bits of finished subtrees; a subtree's are on top of those of the sibling that was done before.
        let mut done: Vec<Bits> = Vec::new();
        let mut open = vec![(if tree.splits.is_empty() { !0 } else { 0 }, false)];
        while let Some((node, ready)) = open.pop() {
            if node < 0 {
                let code = codes[!node as usize];
                done.push(std::array::from_fn(|bit| Operand::constant(code >> bit & 1 == 1)));
                continue;
            }
            let split = &tree.splits[node as usize];
            let left_first = larger_first[node as usize];
            let (first, second) = if left_first { (split.left, split.right) } else { (split.right, split.left) };
            if !ready {
                open.extend([(node, true), (second, false), (first, false)]);
                continue;
            }
            let (second, first) = (done.pop()?, done.pop()?);
            let (left, right) = if left_first { (first, second) } else { (second, first) };
            done.push(self.choose(split, &left, &right, &mut program)?);
        }
        let bits = done.pop()?.into_iter().enumerate();
        program.bits = bits.filter(|(_, o)| *o != Operand::None).map(|(bit, o)| (o, bit as u8)).collect();
        Some((program, leaf_of))
    }

    /// The bits of a node, from those of its children.
    fn choose(&mut self, split: &Split, left: &Bits, right: &Bits, program: &mut Program) -> Option<Bits> {
        let mut asked: [Option<Operand>; 2] = [None; 2];
        let mut ask = |negated: bool| {
            let known = &mut asked[usize::from(negated)];
            if known.is_none() {
                *known = Some(self.goes_right(split, negated)?);
            }
            *known
        };
        let mut bits = *left;
        for (bit, right) in bits.iter_mut().zip(right) {
            *bit = match (*bit, *right) {
                (l, r) if l == r => l,
                (Operand::None, Operand::All) => ask(false)?,
                (Operand::All, Operand::None) => ask(true)?,
                (left, right) => {
                    let condition = ask(false)?;
                    let to = program.allocate()?;
                    program.muxes.push([to, right, left, condition]);
                    to
                }
            };
        }
        program.release(left.iter().chain(right).filter(|o| matches!(o, Operand::Temporary(_)) && !bits.contains(o)));
        Some(bits)
    }

    /// The operand that is true for rows that go right, or with `negated` left.
    fn goes_right(&mut self, split: &Split, negated: bool) -> Option<Operand> {
        let edges = edges(&split.test);
        if let [edge] = edges {
            return self.condition(split, *edge, variant(split.missing, 0, true), negated).map(Operand::Condition);
        }
        let odd = edges.len() % 2 == 1;
        let mut of = Vec::with_capacity(edges.len());
        for (number, edge) in edges.iter().enumerate() {
            of.push(self.condition(split, *edge, variant(split.missing, number, odd), false)?);
        }
        // Left is an odd number of edges that are not exceeded.
        let parity = Parity { of, negated: negated == odd };
        if let Some(known) = self.known_parities.get(&parity) {
            return Some(Operand::Parity(*known));
        }
        let number = u16::try_from(self.parities.len()).ok()?;
        self.known_parities.insert(parity.clone(), number);
        self.parities.push(parity);
        Some(Operand::Parity(number))
    }

    /// The number of the condition that is true above an edge.
    fn condition(&mut self, split: &Split, edge: f64, variant: Variant, negated: bool) -> Option<u16> {
        let feature = split.feature as usize;
        let rank = self.cutoffs[feature].partition_point(|t| *t < edge);
        let place = rank * SENSES + variant as usize * 2 + usize::from(negated);
        if self.known[feature][place] != UNKNOWN {
            return Some(self.known[feature][place]);
        }
        let (page, threshold) = ((rank / PAGE) as u16, (rank % PAGE) as u8);
        let planes = &mut self.planes[feature];
        let plane = match planes.iter().find(|p| (p.page, p.variant) == (page, variant)) {
            Some(plane) => plane.number,
            None => {
                let number = self.plane_count;
                planes.push(Plane { page, variant, number });
                self.plane_count += 1;
                number
            }
        };
        let number = u16::try_from(self.conditions.len()).ok().filter(|n| *n != UNKNOWN)?;
        self.conditions.push(Condition { plane, threshold, negated });
        self.known[feature][place] = number;
        Some(number)
    }

    /// The cutoffs of the features that are asked at all.
    fn finished_cutoffs(&mut self) -> Vec<Cutoffs> {
        let each = std::mem::take(&mut self.cutoffs).into_iter().zip(std::mem::take(&mut self.planes)).enumerate();
        let used = each.filter(|(_, (_, planes))| !planes.is_empty());
        used.map(|(feature, (cutoffs, planes))| {
            let steps = usize::BITS - cutoffs.len().leading_zeros();
            let zero = cutoffs.partition_point(|t| *t < 0.0) as u16;
            let mut f64 = cutoffs;
            f64.resize(1 << steps, f64::INFINITY);
            let f32: Vec<f32> = f64.iter().map(|t| at_most(*t)).collect();
            let levels32 = levels(&f32, steps, |t| u64::from(t.to_bits()), 2);
            let levels64 = levels(&f64, steps, |t| t.to_bits(), 1);
            let sixteens32 = sixteens(&f32);
            Cutoffs { feature, f64, f32, levels32, levels64, sixteens32, steps, zero, planes }
        })
        .collect()
    }
}

/// The cutoffs that each of the first steps of a binary search compares with, `to_word` of them in a word of 64 bits.
fn levels<T: Copy>(sorted: &[T], steps: u32, bits: impl Fn(T) -> u64, to_word: usize) -> Vec<Lane> {
    let mut lanes = Vec::new();
    for step in 0..steps.min(LEVELS) {
        let wanted = (0..1usize << step).map(|k| bits(sorted[(k << (steps - step)) + (1 << (steps - step - 1)) - 1]));
        let wanted: Vec<u64> = wanted.collect();
        for of_lane in wanted.chunks(8 * to_word) {
            let mut lane = Lane::default();
            for (place, value) in of_lane.iter().enumerate() {
                lane.0[place / to_word] |= value << (place % to_word * 32);
            }
            lanes.push(lane);
        }
    }
    lanes
}

/// What a search that compares with sixteen cutoffs at once goes through, from the first level on. The last cutoff is
/// infinite, and so never below a value.
fn sixteens(sorted: &[f32]) -> Vec<Vec<[f32; 16]>> {
    let chunk = |of: &[f32]| std::array::from_fn(|i| of.get(i).copied().unwrap_or(f32::INFINITY));
    let mut levels = vec![sorted.chunks(16).map(chunk).collect::<Vec<_>>()];
    while levels[0].len() > 1 {
        let last: Vec<f32> = levels[0].iter().map(|sixteen| sixteen[15]).collect();
        levels.insert(0, last.chunks(16).map(chunk).collect());
    }
    levels
}

/// The boundaries of a test. Of a set of nothing, two that cancel each other: what is missing may still go left.
fn edges(test: &Test) -> &[f64] {
    match test.boundaries() {
        [] => &[f64::NEG_INFINITY; 2],
        edges => edges,
    }
}

/// Which variant of the codes the `number`th edge of a split asks. What is missing then goes where it shall: above all
/// edges there is no edge that is not exceeded, and below all of them, or all but the first, an odd number is not.
fn variant(missing: Missing, number: usize, odd: bool) -> Variant {
    let low = odd || number > 0;
    match missing {
        Missing::Left if low => Variant::NanLow,
        Missing::Left | Missing::Right => Variant::NanHigh,
        Missing::Zero => Variant::NanZero,
        Missing::ZeroLeft if low => Variant::ZeroLow,
        Missing::ZeroLeft | Missing::ZeroRight => Variant::ZeroHigh,
    }
}

/// The length of a table of leaves: whole sets of registers, of 64 values and powers of two of them.
pub(super) fn padded(leaves: usize) -> usize {
    if leaves <= 256 { leaves.next_power_of_two().max(64) } else { leaves.next_multiple_of(64) }
}

/// The greatest 32-bit float that is not above `t`: a 32-bit float is at most `t` if it is at most that.
pub(super) fn at_most(t: f64) -> f32 {
    let near = t as f32;
    if f64::from(near) > t { near.next_down() } else { near }
}

/// The code of each leaf, from 0 on in the order of the tree, the larger child of a split first, since codes that begin
/// at a multiple of a power of two share their upper bits; and whether that was the left one.
fn codes(tree: &Tree) -> (Vec<u32>, Vec<bool>) {
    let mut sizes = vec![0u32; tree.splits.len()];
    let size = |sizes: &[u32], child: i32| if child < 0 { 1 } else { sizes[child as usize] };
    // Children come after their parents.
    for (number, split) in tree.splits.iter().enumerate().rev() {
        sizes[number] = size(&sizes, split.left) + size(&sizes, split.right);
    }
    let mut larger_first = vec![true; tree.splits.len()];
    let mut lows = vec![0u32; tree.splits.len()];
    let mut codes = vec![0u32; tree.leaf_count()];
    for (number, split) in tree.splits.iter().enumerate() {
        larger_first[number] = size(&sizes, split.left) >= size(&sizes, split.right);
        let (first, second) = if larger_first[number] { (split.left, split.right) } else { (split.right, split.left) };
        let low = lows[number];
        for (child, low) in [(first, low), (second, low + size(&sizes, first))] {
            if child < 0 { codes[!child as usize] = low } else { lows[child as usize] = low }
        }
    }
    (codes, larger_first)
}

/// An operand before all of them are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operand {
    None,
    All,
    Condition(u16),
    Parity(u16),
    Temporary(u16),
}

impl Operand {
    fn constant(value: bool) -> Self {
        if value { Self::All } else { Self::None }
    }
}

/// The bits of a leaf number; those that a tree has no need of are 0.
type Bits = [Operand; BITS];

/// The steps of one tree.
#[derive(Debug, Default)]
struct Program {
    /// To, right, left, condition.
    muxes: Vec<[Operand; 4]>,
    bits: Vec<(Operand, u8)>,
    /// How many operands it keeps at once.
    temporary: usize,
    free: Vec<u16>,
    /// Which of the trees that are woven it is of.
    thread: usize,
}

impl Program {
    /// `None` if there are more than 16 bits can name.
    fn allocate(&mut self) -> Option<Operand> {
        if let Some(number) = self.free.pop() {
            return Some(Operand::Temporary(number));
        }
        self.temporary += 1;
        u16::try_from((self.temporary - 1) * WOVEN + self.thread).ok().map(Operand::Temporary)
    }

    /// Temporary operands that are not needed any more; those that were last in use are used again first.
    fn release<'a>(&mut self, operands: impl Iterator<Item = &'a Operand>) {
        for operand in operands {
            if let Operand::Temporary(number) = operand
                && !self.free.contains(number)
            {
                self.free.push(*number);
            }
        }
    }
}

/// Steps of several trees in turn: each waits for what a step of its own tree just stored, and those of the others can
/// run meanwhile.
fn weave(programs: &[Program], numbering: &Numbering, muxes: &mut Vec<Mux>) -> Option<()> {
    let longest = programs.iter().map(|program| program.muxes.len()).max().unwrap_or(0);
    for step in 0..longest {
        for mux in programs.iter().filter_map(|program| program.muxes.get(step)) {
            muxes.push(numbering.mux(mux)?);
        }
    }
    Some(())
}

/// Operands of bits, each with its value in a byte.
type ByteBits = Vec<(u16, u8)>;

/// Where the kinds of operands begin.
struct Numbering {
    conditions: usize,
    parities: usize,
}

impl Numbering {
    fn operand(&self, operand: Operand) -> Option<u16> {
        let number = match operand {
            Operand::None => return Some(NONE),
            Operand::All => return Some(ALL),
            Operand::Condition(n) => CONDITIONS + n as usize,
            Operand::Parity(n) => CONDITIONS + self.conditions + n as usize,
            Operand::Temporary(n) => CONDITIONS + self.conditions + self.parities + n as usize,
        };
        u16::try_from(number).ok()
    }

    /// Those of the low byte, and those of the high byte.
    fn bits(&self, bits: &[(Operand, u8)]) -> Option<(ByteBits, ByteBits)> {
        let (mut low, mut high) = (Vec::new(), Vec::new());
        for (operand, bit) in bits {
            let of = if *bit < 8 { &mut low } else { &mut high };
            of.push((self.operand(*operand)?, 1 << (bit % 8)));
        }
        Some((low, high))
    }

    fn mux(&self, [to, right, left, condition]: &[Operand; 4]) -> Option<Mux> {
        let operand = |o: &Operand| self.operand(*o);
        Some(Mux::new([operand(to)?, operand(right)?, operand(left)?, operand(condition)?]))
    }
}

impl Cutoffs {
    /// The code of a rank on a page, for a row that is not missing.
    pub(super) fn code(rank: u16, page: u16) -> u8 {
        (rank as usize).saturating_sub(page as usize * PAGE).min(PAGE) as u8
    }
}
