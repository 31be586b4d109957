//! The kernel in plain code: what the others are held to, and what processors without their instructions run. The loops
//! over bits are such that compilers turn them into whatever vectors there are.

use super::{Kernel, Lane, Leaves};
use crate::score::plan::{Condition, Cutoffs, LeafOf, Mux, Steps};

#[derive(Debug, Clone, Copy)]
pub(super) struct Portable;

impl Kernel for Portable {
    fn ranks32(self, cutoffs: &Cutoffs, values: &[f32], ranks: &mut [u16], nan: &mut [u64]) {
        search(&cutoffs.f32, cutoffs.steps, values, ranks, nan, |x| x.is_nan());
    }

    fn ranks64(self, cutoffs: &Cutoffs, values: &[f64], ranks: &mut [u16], nan: &mut [u64]) {
        search(&cutoffs.f64, cutoffs.steps, values, ranks, nan, |x| x.is_nan());
    }

    fn codes(self, ranks: &[u16], low: u16, missing: &[u64], fill: u8, codes: &mut [u8]) {
        codes_of(ranks, low, missing, fill, codes);
    }

    fn conditions(self, conditions: &[Condition], planes: &[u8], rows: usize, out: &mut [Lane]) {
        let words = rows / 64;
        for (condition, out) in conditions.iter().zip(out.chunks_mut(words / 8)) {
            let codes = &planes[condition.plane as usize * rows..][..rows];
            for (word, codes) in codes.as_chunks::<64>().0.iter().enumerate() {
                let mut bits = 0;
                for (row, code) in codes.iter().enumerate() {
                    bits |= u64::from(*code > condition.threshold) << row;
                }
                out[word / 8].0[word % 8] = bits;
            }
        }
    }

    fn muxes(self, steps: &Steps, operands: &mut [Lane], lanes: usize) {
        muxes_of(steps, operands, lanes);
    }

    fn bytes(self, bits: &[(u16, u8)], operands: &[Lane], lanes: usize, bytes: &mut [u8]) {
        bytes.fill(0);
        for (operand, value) in bits {
            let words = operands[*operand as usize * lanes..][..lanes].iter().flat_map(|lane| lane.0);
            for (bytes, word) in bytes.as_chunks_mut::<64>().0.iter_mut().zip(words) {
                bytes.iter_mut().enumerate().for_each(|(row, byte)| *byte |= value * (word >> row & 1) as u8);
            }
        }
    }

    fn leaves(self, leaf_of: &LeafOf, low: &mut [u8], high: &mut [u8]) -> bool {
        leaves_of(leaf_of, low, high);
        false
    }

    fn add64(self, leaves: &Leaves<'_, f64>, sums: &mut [f64]) {
        sums.iter_mut().enumerate().for_each(|(row, sum)| *sum += leaves.table[leaves.leaf(row)]);
    }

    fn add32(self, leaves: &Leaves<'_, f32>, sums: &mut [f32]) {
        sums.iter_mut().enumerate().for_each(|(row, sum)| *sum += leaves.table[leaves.leaf(row)]);
    }
}

/// Binary search without branches: the number of cutoffs below each value.
#[inline(always)]
pub(super) fn search<T: PartialOrd + Copy>(
    cutoffs: &[T],
    steps: u32,
    values: &[T],
    ranks: &mut [u16],
    nan: &mut [u64],
    is_nan: impl Fn(T) -> bool,
) {
    nan.fill(0);
    for (row, (value, rank)) in values.iter().zip(ranks).enumerate() {
        let mut place = 0;
        for step in (0..steps).rev() {
            place += usize::from(cutoffs[place + (1 << step) - 1] < *value) << step;
        }
        *rank = place as u16;
        nan[row / 64] |= u64::from(is_nan(*value)) << (row % 64);
    }
}

#[inline(always)]
pub(super) fn codes_of(ranks: &[u16], low: u16, missing: &[u64], fill: u8, codes: &mut [u8]) {
    codes.iter_mut().zip(ranks).for_each(|(code, rank)| *code = rank.saturating_sub(low).min(255) as u8);
    for (word, codes) in missing.iter().zip(codes.chunks_mut(64)).filter(|(word, _)| **word != 0) {
        let rows = (0..64).filter(|row| word >> row & 1 == 1);
        rows.for_each(|row| codes[row] = fill);
    }
}

#[inline(always)]
pub(super) fn muxes_of(steps: &Steps, operands: &mut [Lane], lanes: usize) {
    steps.run(|muxes| {
        for mux in muxes {
            let [to, right, left, condition] = mux.operands();
            for lane in 0..lanes {
                let of = |operand: usize| operands[operand * lanes + lane].0;
                let (c, r, l) = (of(condition), of(right), of(left));
                let to = &mut operands[to * lanes + lane].0;
                for word in 0..8 {
                    to[word] = l[word] ^ (c[word] & (l[word] ^ r[word]));
                }
            }
        }
        muxes.last().is_some_and(|mux| is_any(mux, operands, lanes))
    });
}

/// Whether what a mux gave is not 0 for all rows.
#[inline(always)]
pub(super) fn is_any(mux: &Mux, operands: &[Lane], lanes: usize) -> bool {
    let [to, ..] = mux.operands();
    operands[to * lanes..][..lanes].iter().any(|lane| lane.0 != [0; 8])
}

#[inline(always)]
pub(super) fn leaves_of(leaf_of: &LeafOf, low: &mut [u8], high: &mut [u8]) {
    match leaf_of {
        LeafOf::Code => {}
        LeafOf::Bytes(leaf_of) => leaf_bytes_of(leaf_of, low, high),
        LeafOf::Words(leaf_of) => {
            for (low, high) in low.iter_mut().zip(high) {
                [*low, *high] = leaf_of[usize::from(*low) | usize::from(*high) << 8].to_le_bytes();
            }
        }
    }
}

#[inline(always)]
pub(super) fn leaf_bytes_of(leaf_of: &[u8], low: &mut [u8], high: &[u8]) {
    if high.is_empty() {
        return low.iter_mut().for_each(|code| *code = leaf_of[usize::from(*code)]);
    }
    low.iter_mut().zip(high).for_each(|(low, high)| *low = leaf_of[usize::from(*low) | usize::from(*high) << 8]);
}
