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
mod run;

use std::ops::Range;

use self::run::{LANES_MAX, Run, place};
use super::forest::Forest;
use super::plan::{Condition, Cutoffs, LeafOf, Plan, Steps, TreePlan};

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
    fn muxes(self, steps: &Steps, operands: &mut [Lane], lanes: usize);
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
