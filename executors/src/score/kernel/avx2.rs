//! The kernel for processors with AVX2: the portable loops over bits as the compiler vectorises them for it, and what it
//! does not find by hand.

use std::arch::x86_64::*;

use super::portable::{codes_of, muxes_of};
use super::{Kernel, Lane, Leaves};
use crate::score::plan::{Condition, Cutoffs, Mux};

/// That the processor has the instructions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

impl Kernel for Avx2 {
    fn ranks32(self, cutoffs: &Cutoffs, values: &[f32], ranks: &mut [u16], nan: &mut [u64]) {
        // SAFETY: the instructions are there, since `self` is.
        unsafe { ranks32(cutoffs, values, ranks, nan) }
    }

    fn ranks64(self, cutoffs: &Cutoffs, values: &[f64], ranks: &mut [u16], nan: &mut [u64]) {
        // SAFETY: as above.
        unsafe { ranks64(cutoffs, values, ranks, nan) }
    }

    fn codes(self, ranks: &[u16], low: u16, missing: &[u64], fill: u8, codes: &mut [u8]) {
        // SAFETY: as above.
        unsafe { codes_by_avx2(ranks, low, missing, fill, codes) }
    }

    fn conditions(self, conditions: &[Condition], planes: &[u8], rows: usize, out: &mut [Lane]) {
        // SAFETY: as above.
        unsafe { conditions_of(conditions, planes, rows, out) }
    }

    fn muxes(self, muxes: &[Mux], operands: &mut [Lane], lanes: usize) {
        // SAFETY: as above.
        match lanes {
            1 => unsafe { muxes_by_avx2::<1>(muxes, operands) },
            2 => unsafe { muxes_by_avx2::<2>(muxes, operands) },
            4 => unsafe { muxes_by_avx2::<4>(muxes, operands) },
            8 => unsafe { muxes_by_avx2::<8>(muxes, operands) },
            _ => muxes_of(muxes, operands, lanes),
        }
    }

    fn bytes(self, bits: &[(u16, u8)], operands: &[Lane], lanes: usize, bytes: &mut [u8]) {
        // SAFETY: as above.
        unsafe { bytes_of(bits, operands, lanes, bytes) }
    }

    fn add64(self, leaves: &Leaves<'_, f64>, sums: &mut [f64]) {
        // SAFETY: as above.
        unsafe { add64(leaves, sums) }
    }

    fn add32(self, leaves: &Leaves<'_, f32>, sums: &mut [f32]) {
        // SAFETY: as above.
        unsafe { add32(leaves, sums) }
    }
}

/// Vectors that are searched side by side, since a step waits for the one before.
const STREAMS: usize = 4;

#[target_feature(enable = "avx2")]
fn ranks32(cutoffs: &Cutoffs, values: &[f32], ranks: &mut [u16], nan: &mut [u64]) {
    nan.fill(0);
    let blocks = values.as_chunks::<32>().0.iter().zip(ranks.as_chunks_mut::<32>().0).enumerate();
    for (block, (values, ranks)) in blocks {
        // SAFETY: each loads 8 of the 32 values.
        let x: [__m256; STREAMS] = std::array::from_fn(|i| unsafe { _mm256_loadu_ps(values.as_ptr().add(8 * i)) });
        let mut place = [_mm256_setzero_si256(); STREAMS];
        for step in (0..cutoffs.steps).rev() {
            let (width, before) = (_mm256_set1_epi32(1 << step), _mm256_set1_epi32((1 << step) - 1));
            for (place, x) in place.iter_mut().zip(&x) {
                // SAFETY: a place is below the padded length, which is 2^steps.
                let cutoff =
                    unsafe { _mm256_i32gather_ps::<4>(cutoffs.f32.as_ptr(), _mm256_add_epi32(*place, before)) };
                let below = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_LT_OQ>(cutoff, *x));
                *place = _mm256_add_epi32(*place, _mm256_and_si256(below, width));
            }
        }
        for (i, (place, x)) in place.iter().zip(&x).enumerate() {
            let unordered = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_UNORD_Q>(*x, *x)) as u32;
            nan[block / 2] |= u64::from(unordered) << (block % 2 * 32 + 8 * i);
            let packed = _mm256_packus_epi32(*place, *place);
            let packed = _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(packed));
            // SAFETY: each stores 8 of the 32 ranks.
            unsafe { _mm_storeu_si128(ranks.as_mut_ptr().add(8 * i).cast(), packed) };
        }
    }
}

#[target_feature(enable = "avx2")]
fn ranks64(cutoffs: &Cutoffs, values: &[f64], ranks: &mut [u16], nan: &mut [u64]) {
    nan.fill(0);
    let blocks = values.as_chunks::<16>().0.iter().zip(ranks.as_chunks_mut::<16>().0).enumerate();
    for (block, (values, ranks)) in blocks {
        // SAFETY: each loads 4 of the 16 values.
        let x: [__m256d; STREAMS] = std::array::from_fn(|i| unsafe { _mm256_loadu_pd(values.as_ptr().add(4 * i)) });
        let mut place = [_mm256_setzero_si256(); STREAMS];
        for step in (0..cutoffs.steps).rev() {
            let (width, before) = (_mm256_set1_epi64x(1 << step), _mm256_set1_epi64x((1 << step) - 1));
            for (place, x) in place.iter_mut().zip(&x) {
                // SAFETY: a place is below the padded length, which is 2^steps.
                let cutoff =
                    unsafe { _mm256_i64gather_pd::<8>(cutoffs.f64.as_ptr(), _mm256_add_epi64(*place, before)) };
                let below = _mm256_castpd_si256(_mm256_cmp_pd::<_CMP_LT_OQ>(cutoff, *x));
                *place = _mm256_add_epi64(*place, _mm256_and_si256(below, width));
            }
        }
        for (i, (place, x)) in place.iter().zip(&x).enumerate() {
            let unordered = _mm256_movemask_pd(_mm256_cmp_pd::<_CMP_UNORD_Q>(*x, *x)) as u32;
            nan[block / 4] |= u64::from(unordered) << (block % 4 * 16 + 4 * i);
            // SAFETY: four integers are a vector.
            let places = unsafe { std::mem::transmute::<__m256i, [u64; 4]>(*place) };
            ranks[4 * i..4 * i + 4].iter_mut().zip(places).for_each(|(rank, place)| *rank = place as u16);
        }
    }
}

#[target_feature(enable = "avx2")]
fn codes_by_avx2(ranks: &[u16], low: u16, missing: &[u64], fill: u8, codes: &mut [u8]) {
    codes_of(ranks, low, missing, fill, codes);
}

#[target_feature(enable = "avx2")]
fn conditions_of(conditions: &[Condition], planes: &[u8], rows: usize, out: &mut [Lane]) {
    for (condition, out) in conditions.iter().zip(out.chunks_exact_mut(rows / 512)) {
        let threshold = _mm256_set1_epi8(condition.threshold as i8);
        let flip = if condition.negated { 0 } else { u64::MAX };
        let codes = planes[condition.plane as usize * rows..][..rows].as_chunks::<64>().0;
        for (word, codes) in codes.iter().enumerate() {
            let at_most = |half: usize| {
                // SAFETY: loads 32 of the 64 codes.
                let codes = unsafe { _mm256_loadu_si256(codes.as_ptr().add(32 * half).cast()) };
                let least = _mm256_min_epu8(codes, threshold);
                u64::from(_mm256_movemask_epi8(_mm256_cmpeq_epi8(least, codes)) as u32)
            };
            out[word / 8].0[word % 8] = (at_most(0) | at_most(1) << 32) ^ flip;
        }
    }
}

#[target_feature(enable = "avx2")]
fn muxes_by_avx2<const LANES: usize>(muxes: &[Mux], operands: &mut [Lane]) {
    let most = muxes.iter().map(|m| m.to.max(m.right).max(m.left).max(m.condition)).max().unwrap_or(0);
    assert!(operands.len() >= (most as usize + 1) * LANES || muxes.is_empty(), "operands of every mux");
    let base: *mut __m256i = operands.as_mut_ptr().cast();
    for mux in muxes {
        // SAFETY: no operand is above `most`, up to which there are lanes of two vectors, aligned to 64 bytes.
        unsafe {
            let of = |operand: u16| base.add(operand as usize * LANES * 2);
            let (to, right, left, condition) = (of(mux.to), of(mux.right), of(mux.left), of(mux.condition));
            for half in 0..LANES * 2 {
                let (c, r, l) = (*condition.add(half), *right.add(half), *left.add(half));
                *to.add(half) = _mm256_xor_si256(l, _mm256_and_si256(c, _mm256_xor_si256(l, r)));
            }
        }
    }
}

#[target_feature(enable = "avx2")]
fn bytes_of(bits: &[(u16, u8)], operands: &[Lane], lanes: usize, bytes: &mut [u8]) {
    // Byte i of a vector takes byte i / 8 of four, and of that bit i % 8.
    let spread = _mm256_setr_epi8(
        0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3,
    );
    let of_row = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    for (lane, bytes) in bytes.as_chunks_mut::<512>().0.iter_mut().enumerate() {
        for (quarter, bytes) in bytes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let mut sum = _mm256_setzero_si256();
            for (operand, value) in bits {
                let word = operands[*operand as usize * lanes + lane].0[quarter / 2];
                let word = _mm256_set1_epi32((word >> (quarter % 2 * 32)) as i32);
                let set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(word, spread), of_row), of_row);
                sum = _mm256_or_si256(sum, _mm256_and_si256(set, _mm256_set1_epi8(*value as i8)));
            }
            // SAFETY: stores the 32 bytes.
            unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), sum) };
        }
    }
}

/// The codes of 8 rows.
#[inline]
#[target_feature(enable = "avx2")]
fn codes8<T>(leaves: &Leaves<'_, T>, row: usize) -> __m256i {
    let load = |bytes: &[u8]| {
        let bytes: &[u8] = &bytes[row..row + 8];
        // SAFETY: loads the 8 bytes.
        _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(bytes.as_ptr().cast()) })
    };
    match leaves.high {
        Some(high) => _mm256_or_si256(load(leaves.low), _mm256_slli_epi32::<8>(load(high))),
        None => load(leaves.low),
    }
}

#[target_feature(enable = "avx2")]
fn add64(leaves: &Leaves<'_, f64>, sums: &mut [f64]) {
    for (block, sums) in sums.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let codes = codes8(leaves, 8 * block);
        let at = sums.as_mut_ptr();
        // SAFETY: every code is below the number of leaves, which the table has; 8 sums are loaded and stored.
        unsafe {
            let near = _mm256_i32gather_pd::<8>(leaves.table.as_ptr(), _mm256_castsi256_si128(codes));
            let far = _mm256_i32gather_pd::<8>(leaves.table.as_ptr(), _mm256_extracti128_si256::<1>(codes));
            _mm256_storeu_pd(at, _mm256_add_pd(_mm256_loadu_pd(at), near));
            _mm256_storeu_pd(at.add(4), _mm256_add_pd(_mm256_loadu_pd(at.add(4)), far));
        }
    }
}

#[target_feature(enable = "avx2")]
fn add32(leaves: &Leaves<'_, f32>, sums: &mut [f32]) {
    for (block, sums) in sums.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let codes = codes8(leaves, 8 * block);
        let at = sums.as_mut_ptr();
        // SAFETY: every code is below the number of leaves, which the table has; 8 sums are loaded and stored.
        unsafe {
            let values = _mm256_i32gather_ps::<4>(leaves.table.as_ptr(), codes);
            _mm256_storeu_ps(at, _mm256_add_ps(_mm256_loadu_ps(at), values));
        }
    }
}
