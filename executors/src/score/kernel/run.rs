//! A call of a kernel: block after block, plan after plan.

use std::ops::Range;

use super::{
    Arena, Column, Kernel, LANE_ROWS, Lane, Leaves, bytes_of, bytes_of_mut, f32_of, f32_of_mut, f64_of, f64_of_mut,
    u16_of_mut,
};
use crate::score::forest::{Forest, Precision, Tree, ZERO};
use crate::score::plan::{
    CONDITIONS, Cutoffs, LeafOf, PAGE, Parity, Plan, Plane, TreePlan, Values, Variant, WOVEN, padded as padded_table,
};

/// The most lanes of an operand.
pub(super) const LANES_MAX: usize = 8;
/// Fewer lanes than these, where there are rows for them, would read the program too often.
const LANES_MIN: usize = 4;
/// Bytes of operands that the second cache of a core is taken to hold.
const OPERAND_BYTES: usize = 7 << 18;

/// All blocks of a call.
pub(super) struct Run<'a, K> {
    pub(super) kernel: K,
    pub(super) forest: &'a Forest,
    pub(super) plans: &'a [(Range<usize>, Option<Plan>)],
    pub(super) columns: &'a [Column<'a>],
    pub(super) rows: usize,
}

impl<K: Kernel> Run<'_, K> {
    pub(super) fn all(&self, arena: &mut Arena) -> Vec<f64> {
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
                self.kernel.muxes(&tree.steps, &mut arena.operands, lanes);
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
            let of = |tree: &&TreePlan| tree.outputs.contains(&(output as u32));
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
        for (number, output) in tree.outputs.clone().enumerate() {
            let apart = if K::APART { &plan.apart()[tree.apart + number * width..][..width] } else { &[] };
            let sums_of = output as usize * rows..(output as usize + 1) * rows;
            let values = number * padded_table(tree.leaves)..(number + 1) * padded_table(tree.leaves);
            let (count, low) = (tree.leaves, bytes_of(low));
            match &tree.values {
                Values::F32(table) => {
                    let leaves = Leaves { table: &table[values], apart, count, low, high, leaf_of };
                    self.kernel.add32(&leaves, &mut f32_of_mut(sums)[sums_of]);
                }
                Values::F64(table) => {
                    let leaves = Leaves { table: &table[values], apart, count, low, high, leaf_of };
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
pub(super) fn place(places: &[u8; 64], row: usize) -> usize {
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
