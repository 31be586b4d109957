//! Runs plans over blocks of rows, by whichever instructions the processor has.
//!
//! ```text
//!  columns ──▶ ranks ──▶ codes (planes) ──▶ conditions (bits) ──▶ for each tree: muxes ──▶ codes, leaves ──▶ sums
//!  f32/f64     u16       u8, 1 byte a row   1 bit a row                          bits      u8 or u16         f64/f32
//! ```
//! A kernel is a set of small loops over one block. The portable one is what the others are held to, bit by bit; all of
//! them are held to [`Forest::margins`].

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use std::ops::Range;

use super::forest::{Forest, Precision, Tree, ZERO};
use super::plan::{
    CONDITIONS, Condition, Cutoffs, LeafOf, PAGE, Parity, Plan, Plane, Steps, TreePlan, Variant, WOVEN,
    padded as padded_table,
};

/// 512 bits: what the widest instructions work on. Everything is padded to it.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
pub(super) struct Lane(pub(super) [u64; 8]);

/// Rows for which one lane has a bit.
pub(super) const LANE_ROWS: usize = 512;

/// The loops over one block. `rows` is the length of the block, a multiple of [`LANE_ROWS`]; slices of rows have it.
trait Kernel: Copy {
    /// The rank of each value, 0 for NaN, and which values are NaN.
    fn ranks32(self, cutoffs: &Cutoffs, values: &[f32], ranks: &mut [u16], nan: &mut [u64]);
    /// Like [`ranks32`](Self::ranks32).
    fn ranks64(self, cutoffs: &Cutoffs, values: &[f64], ranks: &mut [u16], nan: &mut [u64]);
    /// Ranks as codes of a page whose lowest rank is `low`; `fill` where `missing`.
    fn codes(self, ranks: &[u16], low: u16, missing: &[u64], fill: u8, codes: &mut [u8]);
    /// A bit a row for each condition.
    fn conditions(self, conditions: &[Condition], planes: &[u8], rows: usize, out: &mut [Lane]);
    /// Computes operands; each has `lanes` lanes.
    fn muxes(self, steps: Steps<'_>, operands: &mut [Lane], lanes: usize);
    /// Bytes of which each bit is one of `operands`.
    fn bytes(self, bits: &[(u16, u8)], operands: &[Lane], lanes: usize, bytes: &mut [u8]);
    /// Puts the leaf of each code in its place; codes have two bytes if `high` is not empty, leaves if there are more
    /// than 256. May say that it leaves this to what adds them, where leaves have one byte.
    fn leaves(self, leaf_of: &LeafOf, low: &mut [u8], high: &mut [u8]) -> bool;
    /// Adds the leaf of each row to `sums`, which are in the order of [`PLACES64`](Self::PLACES64).
    fn add64(self, leaves: &Leaves<'_, f64>, sums: &mut [f64]);
    /// Like [`add64`](Self::add64), in the order of [`PLACES32`](Self::PLACES32).
    fn add32(self, leaves: &Leaves<'_, f32>, sums: &mut [f32]);
    /// Whether values of leaves are looked up with their bytes apart, and trees are added together.
    const APART: bool = false;
    /// Adds trees one after the other, all of which are [`small`](TreePlan::small) and have the same output, to its sums. Is
    /// asked only where [`APART`](Self::APART).
    fn add_trees64(self, _: &[&TreePlan], _: &[Lane], _operands: &[Lane], _lanes: usize, _sums: &mut [f64]) {
        unreachable!("this kernel adds one tree after the other");
    }
    /// Like [`add_trees64`](Self::add_trees64).
    fn add_trees32(self, _: &[&TreePlan], _: &[Lane], _operands: &[Lane], _lanes: usize, _sums: &mut [f32]) {
        unreachable!("this kernel adds one tree after the other");
    }
    /// Where the sum of each of 64 rows is.
    const PLACES64: [u8; 64] = IN_ORDER;
    /// Where the sum of each of 64 rows is, if it has 32 bits.
    const PLACES32: [u8; 64] = IN_ORDER;
}

/// Each row at its own place.
const IN_ORDER: [u8; 64] = {
    let mut places = [0; 64];
    let mut row = 0;
    while row < 64 {
        places[row] = row as u8;
        row += 1;
    }
    places
};

/// The leaves of a tree, and which of them each row is in.
struct Leaves<'a, T> {
    /// Values, at least 64 of them and a multiple of 64.
    table: &'a [T],
    /// The same as [`Plan::apart`] has them, if the kernel asks for that and there are few.
    apart: &'a [Lane],
    /// There are no more leaves than this.
    count: usize,
    low: &'a [u8],
    /// The upper byte of the number of a leaf, if there are more than 256, or of a code.
    high: Option<&'a [u8]>,
    /// Where the two bytes are a code: the leaf of each.
    leaf_of: Option<&'a [u8]>,
}

impl<T> Leaves<'_, T> {
    /// The leaf of a row.
    #[inline(always)]
    fn leaf(&self, row: usize) -> usize {
        let number = usize::from(self.low[row]) | self.high.map_or(0, |h| usize::from(h[row]) << 8);
        self.leaf_of.map_or(number, |leaf_of| usize::from(leaf_of[number]))
    }
}

/// The values of a feature.
#[derive(Debug, Clone, Copy)]
pub(super) enum Column<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
}

impl Column<'_> {
    /// One value.
    pub(super) fn value(&self, row: usize) -> f64 {
        match self {
            Self::F32(values) => f64::from(values[row]),
            Self::F64(values) => values[row],
        }
    }
}

/// A kernel by its instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instructions {
    /// AVX-512 F, BW, DQ, VL, VBMI and GFNI.
    Avx512,
    /// AVX2 and FMA's generation of processors.
    Avx2,
    /// Whatever the compiler makes of plain code; on ARM, NEON.
    Portable,
}

impl Instructions {
    /// The best that this processor has.
    pub fn best() -> Self {
        Self::all().into_iter().next().unwrap_or(Self::Portable)
    }

    /// All that this processor has, the best first.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(avx512::Avx512::detect().map(|_| Self::Avx512));
            all.extend(avx2::Avx2::detect().map(|_| Self::Avx2));
        }
        all.push(Self::Portable);
        all
    }
}

/// What a thread works with; kept between calls.
#[derive(Debug, Default)]
pub(super) struct Arena {
    values: Vec<Lane>,
    ranks: Vec<Lane>,
    missing: Vec<u64>,
    zeros: Vec<u64>,
    planes: Vec<Lane>,
    operands: Vec<Lane>,
    low: Vec<Lane>,
    high: Vec<Lane>,
    sums: Vec<Lane>,
}

/// Lanes as numbers.
macro_rules! view {
    ($name:ident, $type:ty) => {
        fn $name(lanes: &[Lane]) -> &[$type] {
            // SAFETY: a lane is 64 initialised bytes, aligned for every number, and every bit pattern is a number.
            unsafe { std::slice::from_raw_parts(lanes.as_ptr().cast(), lanes.len() * 64 / size_of::<$type>()) }
        }
    };
}
/// Lanes as numbers to be written.
macro_rules! view_mut {
    ($name:ident, $type:ty) => {
        fn $name(lanes: &mut [Lane]) -> &mut [$type] {
            // SAFETY: a lane is 64 initialised bytes, aligned for every number, every bit pattern is a number, and the
            // lanes are borrowed for as long as the numbers are.
            unsafe { std::slice::from_raw_parts_mut(lanes.as_mut_ptr().cast(), lanes.len() * 64 / size_of::<$type>()) }
        }
    };
}
view!(bytes_of, u8);
view!(f32_of, f32);
view!(f64_of, f64);
view_mut!(bytes_of_mut, u8);
view_mut!(u16_of_mut, u16);
view_mut!(f32_of_mut, f32);
view_mut!(f64_of_mut, f64);

/// The margins of `rows` rows of `columns`, one a feature, output by output.
pub(super) fn margins(
    instructions: Instructions,
    forest: &Forest,
    plans: &[(Range<usize>, Option<Plan>)],
    columns: &[Column<'_>],
    rows: usize,
    arena: &mut Arena,
) -> Vec<f64> {
    match instructions {
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 if let Some(kernel) = avx512::Avx512::detect() => {
            Run { kernel, forest, plans, columns, rows }.all(arena)
        }
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 if let Some(kernel) = avx2::Avx2::detect() => {
            Run { kernel, forest, plans, columns, rows }.all(arena)
        }
        _ => Run { kernel: portable::Portable, forest, plans, columns, rows }.all(arena),
    }
}

/// The most lanes of an operand.
const LANES_MAX: usize = 8;
/// Fewer lanes than these, where there are rows for them, would read the program too often.
const LANES_MIN: usize = 4;
/// Bytes of operands that the second cache of a core is taken to hold.
const OPERAND_BYTES: usize = 1 << 20;

/// All blocks of a call.
struct Run<'a, K> {
    kernel: K,
    forest: &'a Forest,
    plans: &'a [(Range<usize>, Option<Plan>)],
    columns: &'a [Column<'a>],
    rows: usize,
}

impl<K: Kernel> Run<'_, K> {
    fn all(&self, arena: &mut Arena) -> Vec<f64> {
        let mut margins = vec![0.0; self.forest.outputs() * self.rows];
        let lanes = self.lanes();
        for start in (0..self.rows).step_by(lanes * LANE_ROWS) {
            let count = (self.rows - start).min(lanes * LANE_ROWS);
            self.block(start, count, lanes, arena);
            self.finish(start, count, lanes, arena, &mut margins);
        }
        margins
    }

    /// Lanes of an operand: as many as there are rows for and fit the cache, since all lanes share the reading of the
    /// program, which is what takes the time of large models.
    fn lanes(&self) -> usize {
        let operands = self.plans.iter().flat_map(|(_, plan)| plan).map(|plan| plan.operands).max().unwrap_or(1);
        let mut lanes = self.rows.div_ceil(LANE_ROWS).next_power_of_two().min(LANES_MAX);
        while lanes > LANES_MIN && operands * lanes * size_of::<Lane>() > OPERAND_BYTES {
            lanes /= 2;
        }
        lanes
    }

    fn block(&self, start: usize, count: usize, lanes: usize, arena: &mut Arena) {
        let (rows, outputs) = (lanes * LANE_ROWS, self.forest.outputs());
        let in_32 = self.forest.sum == Precision::F32;
        arena.sums.resize(outputs * rows / if in_32 { 16 } else { 8 }, Lane::default());
        for (output, base) in self.forest.base().iter().enumerate() {
            let all = output * rows..(output + 1) * rows;
            match in_32 {
                true => f32_of_mut(&mut arena.sums)[all].fill(*base as f32),
                false => f64_of_mut(&mut arena.sums)[all].fill(*base),
            }
        }
        for (trees, plan) in self.plans {
            match plan {
                Some(plan) => self.plan(plan, start, count, lanes, arena),
                None => trees.clone().for_each(|tree| self.walk(tree, start, count, rows, arena)),
            }
        }
    }

    /// Adds the trees of a plan to the sums of a block.
    fn plan(&self, plan: &Plan, start: usize, count: usize, lanes: usize, arena: &mut Arena) {
        let rows = lanes * LANE_ROWS;
        arena.planes.resize(plan.planes * rows / 64, Lane::default());
        arena.operands.resize(plan.operands * lanes, Lane::default());
        arena.low.resize(rows / 64, Lane::default());
        arena.high.resize(rows / 64, Lane::default());
        for cutoffs in &plan.cutoffs {
            self.codes(cutoffs, start, count, rows, arena);
        }
        arena.operands[..lanes].fill(Lane([0; 8]));
        arena.operands[lanes..2 * lanes].fill(Lane([u64::MAX; 8]));
        let conditions = &mut arena.operands[CONDITIONS * lanes..(CONDITIONS + plan.conditions.len()) * lanes];
        self.kernel.conditions(&plan.conditions, bytes_of(&arena.planes), rows, conditions);
        for (number, parity) in plan.parities.iter().enumerate() {
            parity_of(parity, CONDITIONS + plan.conditions.len() + number, lanes, &mut arena.operands);
        }
        for trees in plan.trees.chunks(WOVEN) {
            for tree in trees {
                self.kernel.muxes(plan.muxes.steps(tree.muxes.clone()), &mut arena.operands, lanes);
            }
            match K::APART && trees.iter().all(|tree| tree.small) {
                true => self.add_together(plan, trees, lanes, arena),
                false => trees.iter().for_each(|tree| self.add_alone(plan, tree, start, count, lanes, arena)),
            }
        }
    }

    /// Adds small trees whose codes are computed.
    fn add_together(&self, plan: &Plan, trees: &[TreePlan], lanes: usize, arena: &mut Arena) {
        let Arena { operands, sums, .. } = arena;
        for output in 0..self.forest.outputs() {
            let of = |tree: &&TreePlan| tree.targets.iter().any(|(to, _)| *to as usize == output);
            let trees: Vec<&TreePlan> = trees.iter().filter(of).collect();
            let all = output * lanes * LANE_ROWS..(output + 1) * lanes * LANE_ROWS;
            match self.forest.sum {
                Precision::F32 => {
                    self.kernel.add_trees32(&trees, plan.apart(), operands, lanes, &mut f32_of_mut(sums)[all]);
                }
                Precision::F64 => {
                    self.kernel.add_trees64(&trees, plan.apart(), operands, lanes, &mut f64_of_mut(sums)[all]);
                }
            }
        }
    }

    /// Adds a tree whose code is computed.
    fn add_alone(&self, plan: &Plan, tree: &TreePlan, start: usize, count: usize, lanes: usize, arena: &mut Arena) {
        self.kernel.bytes(&tree.low, &arena.operands, lanes, bytes_of_mut(&mut arena.low));
        let high = if tree.high.is_empty() { &mut [] } else { &mut arena.high[..] };
        if !tree.high.is_empty() {
            self.kernel.bytes(&tree.high, &arena.operands, lanes, bytes_of_mut(high));
        }
        let left = self.kernel.leaves(&tree.leaf_of, bytes_of_mut(&mut arena.low), bytes_of_mut(high));
        self.add(plan, tree, left, start, count, lanes * LANE_ROWS, arena);
    }

    /// The codes of a feature, in all the planes that are asked.
    fn codes(&self, cutoffs: &Cutoffs, start: usize, count: usize, rows: usize, arena: &mut Arena) {
        let Arena { values, ranks, missing, zeros, planes, .. } = arena;
        values.resize(rows / 8, Lane::default());
        ranks.resize(rows / 32, Lane::default());
        missing.resize(rows / 64, 0);
        let ranks = u16_of_mut(ranks);
        let near_zero: &dyn Fn(usize) -> bool = match self.columns[cutoffs.feature] {
            Column::F32(column) => {
                let values = in_place(&column[start..start + count], rows, f32_of_mut(values));
                self.kernel.ranks32(cutoffs, values, ranks, missing);
                &move |row| f64::from(values[row]).abs() <= ZERO
            }
            Column::F64(column) if self.forest.input == Precision::F32 => {
                let values = padded(&column[start..start + count], rows, f32_of_mut(values), |x| x as f32);
                self.kernel.ranks32(cutoffs, values, ranks, missing);
                &move |row| f64::from(values[row]).abs() <= ZERO
            }
            Column::F64(column) => {
                let values = in_place(&column[start..start + count], rows, f64_of_mut(values));
                self.kernel.ranks64(cutoffs, values, ranks, missing);
                &move |row| values[row].abs() <= ZERO
            }
        };
        let with_zeros = |p: &Plane| matches!(p.variant, Variant::ZeroLow | Variant::ZeroHigh);
        if cutoffs.planes.iter().any(with_zeros) {
            zeros.clone_from(missing);
            (0..count).filter(|row| near_zero(*row)).for_each(|row| zeros[row / 64] |= 1 << (row % 64));
        }
        for plane in &cutoffs.planes {
            let missing = if with_zeros(plane) { &*zeros } else { &*missing };
            let fill = match plane.variant {
                Variant::NanLow | Variant::ZeroLow => 0,
                Variant::NanHigh | Variant::ZeroHigh => u8::MAX,
                Variant::NanZero => Cutoffs::code(cutoffs.zero, plane.page),
            };
            let codes = plane.number as usize * rows..(plane.number as usize + 1) * rows;
            let low = plane.page as usize * PAGE;
            self.kernel.codes(ranks, low as u16, missing, fill, &mut bytes_of_mut(planes)[codes]);
        }
    }

    /// Adds the leaves that the rows are in.
    #[allow(clippy::too_many_arguments, reason = "a block has three numbers")]
    fn add(
        &self,
        plan: &Plan,
        tree: &TreePlan,
        codes_left: bool,
        start: usize,
        count: usize,
        rows: usize,
        arena: &mut Arena,
    ) {
        let Arena { low, high, sums, .. } = arena;
        let leaf_of = match &tree.leaf_of {
            LeafOf::Bytes(leaf_of) if codes_left => Some(leaf_of.as_slice()),
            _ => None,
        };
        let high = (tree.leaves > 256 || leaf_of.is_some()).then(|| bytes_of(high));
        let original = &self.forest.trees()[tree.tree];
        if !original.linear.is_empty() {
            let leaves =
                Leaves::<f64> { table: &[], apart: &[], count: tree.leaves, low: bytes_of(low), high, leaf_of };
            return self.add_each(original, start, count, rows, sums, |row| leaves.leaf(row));
        }
        let width = tree.lanes_apart(plan.sum);
        for (number, (output, table)) in tree.targets.iter().enumerate() {
            let apart = if K::APART { &plan.apart()[tree.apart + number * width..][..width] } else { &[] };
            let sums_of = *output as usize * rows..(*output as usize + 1) * rows;
            let values = *table..*table + padded_table(tree.leaves);
            let (count, low) = (tree.leaves, bytes_of(low));
            match self.forest.sum {
                Precision::F32 => {
                    let leaves = Leaves { table: &plan.values32[values], apart, count, low, high, leaf_of };
                    self.kernel.add32(&leaves, &mut f32_of_mut(sums)[sums_of]);
                }
                Precision::F64 => {
                    let leaves = Leaves { table: &plan.values[values], apart, count, low, high, leaf_of };
                    self.kernel.add64(&leaves, &mut f64_of_mut(sums)[sums_of]);
                }
            }
        }
    }

    /// Adds a tree that could not be compiled.
    fn walk(&self, tree: usize, start: usize, count: usize, rows: usize, arena: &mut Arena) {
        let tree = &self.forest.trees()[tree];
        let leaf = |row: usize| tree.leaf(|f| self.forest.rounded(self.columns[f as usize].value(start + row)));
        self.add_each(tree, start, count, rows, &mut arena.sums, leaf);
    }

    /// Adds leaves row by row.
    fn add_each(
        &self,
        tree: &Tree,
        start: usize,
        count: usize,
        rows: usize,
        sums: &mut [Lane],
        leaf: impl Fn(usize) -> usize,
    ) {
        let outputs = tree.output.map_or(0..self.forest.outputs(), |o| o as usize..o as usize + 1);
        let width = outputs.len();
        for row in 0..count {
            let leaf = leaf(row);
            for (column, output) in outputs.clone().enumerate() {
                let value = match tree.linear.is_empty() {
                    true => tree.leaves[leaf * width + column],
                    false => tree.leaf_value(leaf, |f| self.columns[f as usize].value(start + row)),
                };
                match self.forest.sum {
                    Precision::F32 => f32_of_mut(sums)[output * rows + place(&K::PLACES32, row)] += value as f32,
                    Precision::F64 => f64_of_mut(sums)[output * rows + place(&K::PLACES64, row)] += value,
                }
            }
        }
    }

    /// Puts the sums of a block where they belong.
    fn finish(&self, start: usize, count: usize, lanes: usize, arena: &Arena, margins: &mut [f64]) {
        let rows = lanes * LANE_ROWS;
        for output in 0..self.forest.outputs() {
            let out = &mut margins[output * self.rows + start..][..count];
            match self.forest.sum {
                Precision::F32 => {
                    let sums = &f32_of(&arena.sums)[output * rows..][..rows];
                    in_order(&K::PLACES32, sums, out, f64::from);
                }
                Precision::F64 => {
                    let sums = &f64_of(&arena.sums)[output * rows..][..rows];
                    in_order(&K::PLACES64, sums, out, |sum| sum);
                }
            }
            self.forest.finish(output, out);
        }
    }
}

/// Where the sum of a row is.
fn place(places: &[u8; 64], row: usize) -> usize {
    row / 64 * 64 + usize::from(places[row % 64])
}

/// Puts sums in the order of the rows.
fn in_order<T: Copy>(places: &[u8; 64], sums: &[T], out: &mut [f64], convert: impl Fn(T) -> f64) {
    for (sums, out) in sums.as_chunks::<64>().0.iter().zip(out.chunks_mut(64)) {
        out.iter_mut().zip(places).for_each(|(out, place)| *out = convert(sums[usize::from(*place)]));
    }
}

/// The values of a block where they are, if it is a whole one.
fn in_place<'a, T: Copy + Default>(column: &'a [T], rows: usize, buffer: &'a mut [T]) -> &'a [T] {
    if column.len() == rows { column } else { padded(column, rows, buffer, |x| x) }
}

/// The values of a block, converted, with zeros behind them.
fn padded<'a, T: Copy, U: Copy + Default>(
    column: &[T],
    rows: usize,
    buffer: &'a mut [U],
    convert: impl Fn(T) -> U,
) -> &'a [U] {
    buffer.iter_mut().zip(column).for_each(|(to, from)| *to = convert(*from));
    buffer[column.len()..rows].fill(U::default());
    &buffer[..rows]
}

/// Computes a condition that is made of others.
fn parity_of(parity: &Parity, to: usize, lanes: usize, operands: &mut [Lane]) {
    for lane in 0..lanes {
        let mut bits = [if parity.negated { u64::MAX } else { 0 }; 8];
        for condition in &parity.of {
            let of = &operands[(CONDITIONS + *condition as usize) * lanes + lane].0;
            bits.iter_mut().zip(of).for_each(|(a, b)| *a ^= b);
        }
        operands[to * lanes + lane] = Lane(bits);
    }
}
