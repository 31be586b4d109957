//! The kernel for processors with AVX-512 F, BW, DQ, VL, VBMI and GFNI (Ice Lake, Zen 4 and later ones).
//!
//! ```text
//!  ranks        a step of the search is a permutation of registers that hold the cutoffs of the step, 16 values at once
//!  conditions   64 codes are compared by one instruction, which gives 64 bits; many of a plane come out of few of those
//!  muxes        512 rows of a node by one ternary operation
//!  leaves       up to 32 of them are looked up by permutations of the halves of doubles, up to 256 by those of bytes
//! ```
//! What makes this `unsafe` is that pointers are loaded and stored without a check, and that a function may run only
//! where its instructions are: an [`Avx512`] exists only where [`detect`](Avx512::detect) found them.

mod buckets;
mod codes;
mod conditions;
mod muxes;
mod ranks;
mod trees;

use std::arch::x86_64::*;

use super::portable::leaf_bytes_of;
use super::{Kernel, LANES_MAX, Lane, Leaves, place};
use crate::score::plan::{Condition, Cutoffs, LeafOf, Steps, TreePlan, WOVEN};

/// That the processor has the instructions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("gfni");
        found.then_some(Self(()))
    }
}

impl Kernel for Avx512 {
    fn ranks32(self, cutoffs: &Cutoffs, values: &[f32], ranks: &mut [u16], nan: &mut [u64]) {
        // SAFETY: the instructions are there, since `self` is.
        unsafe { ranks::ranks32(cutoffs, values, ranks, nan) }
    }

    fn ranks64(self, cutoffs: &Cutoffs, values: &[f64], ranks: &mut [u16], nan: &mut [u64]) {
        // SAFETY: as above.
        unsafe { ranks::ranks64(cutoffs, values, ranks, nan) }
    }

    fn codes(self, ranks: &[u16], low: u16, missing: &[u64], fill: u8, codes: &mut [u8]) {
        // SAFETY: as above.
        unsafe { codes_of(ranks, low, missing, fill, codes) }
    }

    fn conditions(self, conditions: &[Condition], planes: &[u8], rows: usize, out: &mut [Lane]) {
        // SAFETY: as above.
        unsafe { conditions::all(conditions, planes, rows, out) }
    }

    fn muxes(self, steps: &Steps, operands: &mut [Lane], lanes: usize) {
        // SAFETY: as above.
        match lanes {
            1 => unsafe { muxes::all::<1>(steps, operands) },
            2 => unsafe { muxes::all::<2>(steps, operands) },
            4 => unsafe { muxes::all::<4>(steps, operands) },
            8 => unsafe { muxes::all::<8>(steps, operands) },
            _ => super::portable::muxes_of(steps, operands, lanes),
        }
    }

    fn bytes(self, bits: &[(u16, u8)], operands: &[Lane], lanes: usize, bytes: &mut [u8]) {
        // SAFETY: as above.
        unsafe { bytes_of(bits, operands, lanes, bytes) }
    }

    fn leaves(self, leaf_of: &LeafOf, low: &mut [u8], high: &mut [u8]) -> bool {
        // SAFETY: as above.
        unsafe {
            match leaf_of {
                LeafOf::Bytes(leaf_of) => match leaf_of.len() / 64 {
                    1 => leaves_of::<1>(leaf_of, low, high),
                    2 => leaves_of::<2>(leaf_of, low, high),
                    4 => leaves_of::<4>(leaf_of, low, high),
                    8 => leaves_of::<8>(leaf_of, low, high),
                    16 => leaves_of::<16>(leaf_of, low, high),
                    32 => leaves_of::<32>(leaf_of, low, high),
                    64 => leaves_of::<64>(leaf_of, low, high),
                    _ => leaf_bytes_of(leaf_of, low, high),
                },
                _ => super::portable::leaves_of(leaf_of, low, high),
            }
        }
        false
    }

    fn add64(self, leaves: &Leaves<'_, f64>, sums: &mut [f64]) {
        // SAFETY: as above.
        unsafe {
            match leaves.count {
                0..=32 => add64_by_halves(leaves, sums),
                33..=64 => add64_by_bytes::<1>(leaves, sums),
                65..=128 => add64_by_bytes::<2>(leaves, sums),
                129..=256 => add64_by_bytes::<4>(leaves, sums),
                _ => add64_one_by_one(leaves, sums),
            }
        }
    }

    fn add32(self, leaves: &Leaves<'_, f32>, sums: &mut [f32]) {
        // SAFETY: as above.
        unsafe {
            match leaves.count {
                0..=64 => add32_by_bytes::<1>(leaves, sums),
                65..=128 => add32_by_bytes::<2>(leaves, sums),
                129..=256 => add32_by_bytes::<4>(leaves, sums),
                _ => add32_one_by_one(leaves, sums),
            }
        }
    }

    const APART: bool = true;

    fn add_trees64(self, trees: &[&TreePlan], apart: &[Lane], operands: &[Lane], lanes: usize, sums: &mut [f64]) {
        // SAFETY: as above.
        unsafe { trees::add64(trees, apart, operands, lanes, sums) }
    }

    fn add_trees32(self, trees: &[&TreePlan], apart: &[Lane], operands: &[Lane], lanes: usize, sums: &mut [f32]) {
        // SAFETY: as above.
        unsafe { trees::add32(trees, apart, operands, lanes, sums) }
    }

    const PLACES64: [u8; 64] = PLACES64;

    const PLACES32: [u8; 64] = PLACES32;
}

/// Of row 16 l + 8 a + 4 b + c, where l, a, b and c are below 4, 2, 2 and 4: as halves of doubles are put together.
const PLACES64: [u8; 64] = {
    let mut places = [0; 64];
    let mut row = 0;
    while row < 64 {
        places[row] = (16 * (row % 4) + 8 * (row / 8 % 2) + 2 * (row / 16) + row / 4 % 2) as u8;
        row += 1;
    }
    places
};

/// Of row 16 l + 4 m + d, all of which are below 4: as the bytes of floats are put together.
const PLACES32: [u8; 64] = {
    let mut places = [0; 64];
    let mut row = 0;
    while row < 64 {
        places[row] = (16 * (row / 4 % 4) + 4 * (row / 16) + row % 4) as u8;
        row += 1;
    }
    places
};

#[inline(always)]
fn load(lane: &Lane) -> __m512i {
    // SAFETY: a lane is 64 bytes, any of which are integers.
    unsafe { std::mem::transmute::<Lane, __m512i>(*lane) }
}

/// Lanes where they are.
#[inline(always)]
fn vectors<const N: usize>(lanes: &[Lane; N]) -> &[__m512i; N] {
    // SAFETY: a lane has the size and alignment of a vector, and any bytes are one.
    unsafe { &*std::ptr::from_ref(lanes).cast() }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn codes_of(ranks: &[u16], low: u16, missing: &[u64], fill: u8, codes: &mut [u8]) {
    let (low, fill) = (_mm512_set1_epi16(low as i16), _mm512_set1_epi8(fill as i8));
    let blocks = ranks.as_chunks::<64>().0.iter().zip(codes.as_chunks_mut::<64>().0).zip(missing);
    for ((ranks, codes), missing) in blocks {
        // SAFETY: 2 times 32 ranks are loaded and 64 codes are stored.
        unsafe {
            let near = _mm512_subs_epu16(_mm512_loadu_si512(ranks.as_ptr().cast()), low);
            let far = _mm512_subs_epu16(_mm512_loadu_si512(ranks.as_ptr().add(32).cast()), low);
            let both = _mm512_castsi256_si512(_mm512_cvtusepi16_epi8(near));
            let both = _mm512_inserti64x4::<1>(both, _mm512_cvtusepi16_epi8(far));
            _mm512_storeu_si512(codes.as_mut_ptr().cast(), _mm512_mask_mov_epi8(both, *missing, fill));
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,gfni")]
fn bytes_of(bits: &[(u16, u8)], operands: &[Lane], lanes: usize, bytes: &mut [u8]) {
    for (lane, bytes) in bytes.as_chunks_mut::<512>().0.iter_mut().enumerate() {
        codes::codes(bits.len(), |bit| &operands[usize::from(bits[bit].0) * lanes + lane], bytes);
    }
}

/// The leaves of up to 64 × `N` codes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn leaves_of<const N: usize>(leaf_of: &[u8], low: &mut [u8], high: &[u8]) {
    let table: &[[u8; 64]; N] = leaf_of.as_chunks::<64>().0.try_into().expect("a table of this size");
    for (block, codes) in low.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let part = |number: usize| load_bytes(&table[number]);
        let k = load_bytes(codes);
        let leaves = match N {
            1 => _mm512_permutexvar_epi8(k, part(0)),
            2 => _mm512_permutex2var_epi8(part(0), k, part(1)),
            _ => {
                let upper = _mm512_movepi8_mask(k);
                let mut level = [k; 16];
                for (group, of) in level.iter_mut().enumerate().take(N / 4) {
                    let near = _mm512_permutex2var_epi8(part(4 * group), k, part(4 * group + 1));
                    let far = _mm512_permutex2var_epi8(part(4 * group + 2), k, part(4 * group + 3));
                    *of = _mm512_mask_blend_epi8(upper, near, far);
                }
                let (mut count, mut bit) = (N / 4, 1);
                while count > 1 {
                    count /= 2;
                    let upper = _mm512_test_epi8_mask(load_bytes(&high.as_chunks().0[block]), _mm512_set1_epi8(bit));
                    for i in 0..count {
                        level[i] = _mm512_mask_blend_epi8(upper, level[2 * i], level[2 * i + 1]);
                    }
                    bit *= 2;
                }
                level[0]
            }
        };
        // SAFETY: stores the 64 bytes.
        unsafe { _mm512_storeu_si512(codes.as_mut_ptr().cast(), leaves) };
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn load_bytes(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: loads the 64 bytes.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Up to 32 leaves, by halves.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn add64_by_halves(leaves: &Leaves<'_, f64>, sums: &mut [f64]) {
    let table: &[Lane; 4] = leaves.apart.try_into().expect("a table of this size");
    for (leaves, sums) in leaves.low.as_chunks::<64>().0.iter().zip(sums.as_chunks_mut::<64>().0) {
        add_doubles(sums, halves(*vectors(table), load_bytes(leaves)));
    }
}

/// The doubles of 64 of up to 32 leaves, of which two registers have the lower halves and two the upper ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn halves([a, b, c, d]: [__m512i; 4], leaves: __m512i) -> [__m512i; 8] {
    // No more than the low bits of 32 are looked at.
    let two = |k| {
        let (low, high) = (_mm512_permutex2var_epi32(a, k, b), _mm512_permutex2var_epi32(c, k, d));
        [_mm512_unpacklo_epi32(low, high), _mm512_unpackhi_epi32(low, high)]
    };
    let ([a, b], [c, d]) = (two(leaves), two(_mm512_srli_epi32::<8>(leaves)));
    let ([e, f], [g, h]) = (two(_mm512_srli_epi32::<16>(leaves)), two(_mm512_srli_epi32::<24>(leaves)));
    [a, b, c, d, e, f, g, h]
}

/// Up to 64 × `N` leaves: the bytes of doubles are looked up by a permutation each.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn add64_by_bytes<const N: usize>(leaves: &Leaves<'_, f64>, sums: &mut [f64]) {
    let table: &[[Lane; N]; 8] = leaves.apart.as_chunks().0.try_into().expect("a table of this size");
    let order = mirrored();
    for (leaves, sums) in leaves.low.as_chunks::<64>().0.iter().zip(sums.as_chunks_mut::<64>().0) {
        let k = _mm512_shuffle_epi8(load_bytes(leaves), order);
        let upper = _mm512_movepi8_mask(k);
        add_doubles(sums, doubles(std::array::from_fn(|i| look_up8(vectors(&table[i]), k, upper))));
    }
}

/// Adds doubles to sums of 64 rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn add_doubles(sums: &mut [f64; 64], values: [__m512i; 8]) {
    for (sums, values) in sums.as_chunks_mut::<8>().0.iter_mut().zip(values) {
        // SAFETY: loads and stores the 8 sums.
        unsafe {
            let sum = _mm512_add_pd(_mm512_loadu_pd(sums.as_ptr()), _mm512_castsi512_pd(values));
            _mm512_storeu_pd(sums.as_mut_ptr(), sum);
        }
    }
}

/// Like [`add64_by_bytes`], of floats.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn add32_by_bytes<const N: usize>(leaves: &Leaves<'_, f32>, sums: &mut [f32]) {
    let table: &[[Lane; N]; 4] = leaves.apart.as_chunks().0.try_into().expect("a table of this size");
    for (leaves, sums) in leaves.low.as_chunks::<64>().0.iter().zip(sums.as_chunks_mut::<64>().0) {
        let k = load_bytes(leaves);
        let upper = _mm512_movepi8_mask(k);
        let values = floats(std::array::from_fn(|i| look_up8(vectors(&table[i]), k, upper)));
        for (sums, values) in sums.as_chunks_mut::<16>().0.iter_mut().zip(values) {
            // SAFETY: loads and stores the 16 sums.
            unsafe {
                let sum = _mm512_add_ps(_mm512_loadu_ps(sums.as_ptr()), _mm512_castsi512_ps(values));
                _mm512_storeu_ps(sums.as_mut_ptr(), sum);
            }
        }
    }
}

/// Entry `k` of a table of `N` times 64 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn look_up8<const N: usize>(table: &[__m512i; N], k: __m512i, upper: __mmask64) -> __m512i {
    match N {
        1 => _mm512_permutexvar_epi8(k, table[0]),
        2 => _mm512_permutex2var_epi8(table[0], k, table[1]),
        _ => {
            let (near, far) =
                (_mm512_permutex2var_epi8(table[0], k, table[1]), _mm512_permutex2var_epi8(table[2], k, table[3]));
            _mm512_mask_blend_epi8(upper, near, far)
        }
    }
}

/// Squares of 4 by 4 rows, mirrored: then doubles come out of their bytes as they do out of their halves.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn mirrored() -> __m512i {
    _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15))
}

/// Doubles of which each vector has a byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn doubles(bytes: [__m512i; 8]) -> [__m512i; 8] {
    let mut twos = bytes;
    for pair in twos.as_chunks_mut::<2>().0 {
        *pair = [_mm512_unpacklo_epi8(pair[0], pair[1]), _mm512_unpackhi_epi8(pair[0], pair[1])];
    }
    let fours = |a: usize, b: usize| {
        let low = (_mm512_unpacklo_epi16(twos[a], twos[b]), _mm512_unpackhi_epi16(twos[a], twos[b]));
        let high = (_mm512_unpacklo_epi16(twos[a + 4], twos[b + 4]), _mm512_unpackhi_epi16(twos[a + 4], twos[b + 4]));
        [
            _mm512_unpacklo_epi32(low.0, high.0),
            _mm512_unpackhi_epi32(low.0, high.0),
            _mm512_unpacklo_epi32(low.1, high.1),
            _mm512_unpackhi_epi32(low.1, high.1),
        ]
    };
    let ([a, b, c, d], [e, f, g, h]) = (fours(0, 2), fours(1, 3));
    [a, b, c, d, e, f, g, h]
}

/// Floats of which each vector has a byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn floats([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let low = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
    let high = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
    [
        _mm512_unpacklo_epi16(low.0, low.1),
        _mm512_unpackhi_epi16(low.0, low.1),
        _mm512_unpacklo_epi16(high.0, high.1),
        _mm512_unpackhi_epi16(high.0, high.1),
    ]
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn add64_one_by_one(leaves: &Leaves<'_, f64>, sums: &mut [f64]) {
    for row in 0..sums.len() {
        sums[place(&PLACES64, row)] += leaves.table[leaves.leaf(row)];
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn add32_one_by_one(leaves: &Leaves<'_, f32>, sums: &mut [f32]) {
    for row in 0..sums.len() {
        sums[place(&PLACES32, row)] += leaves.table[leaves.leaf(row)];
    }
}
