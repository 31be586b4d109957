//! Ranks of values: a step of the search is a permutation of registers that hold the cutoffs of the step.

use std::arch::x86_64::*;

use super::{Lane, buckets, load};
use crate::score::plan::{Cutoffs, LEVELS};

/// Vectors that are searched side by side, since a step waits for the one before.
const STREAMS: usize = 4;

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
pub(super) fn ranks32(cutoffs: &Cutoffs, values: &[f32], ranks: &mut [u16], nan: &mut [u64]) {
    let Some(buckets) = &cutoffs.buckets else { return search32(cutoffs, values, ranks, nan) };
    buckets::ranks(buckets, cutoffs, values, ranks, nan)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
pub(super) fn search32(cutoffs: &Cutoffs, values: &[f32], ranks: &mut [u16], nan: &mut [u64]) {
    match cutoffs.steps {
        1 => ranks32_of::<1>(cutoffs, values, ranks, nan),
        2 => ranks32_of::<2>(cutoffs, values, ranks, nan),
        3 => ranks32_of::<3>(cutoffs, values, ranks, nan),
        4 => ranks32_of::<4>(cutoffs, values, ranks, nan),
        5 => ranks32_of::<5>(cutoffs, values, ranks, nan),
        6 => ranks32_of::<6>(cutoffs, values, ranks, nan),
        7 => ranks32_of::<7>(cutoffs, values, ranks, nan),
        _ => ranks32_of::<8>(cutoffs, values, ranks, nan),
    }
}

/// The first `S` steps in registers, the others by gathering.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn ranks32_of<const S: u32>(cutoffs: &Cutoffs, values: &[f32], ranks: &mut [u16], nan: &mut [u64]) {
    let one = _mm512_set1_epi32(1);
    let blocks = values.as_chunks::<64>().0.iter().zip(ranks.as_chunks_mut::<64>().0).zip(nan);
    for ((values, ranks), nan) in blocks {
        // SAFETY: each loads 16 of the 64 values.
        let x: [__m512; STREAMS] = std::array::from_fn(|i| unsafe { _mm512_loadu_ps(values.as_ptr().add(16 * i)) });
        let mut k = [_mm512_setzero_si512(); STREAMS];
        let tables = &cutoffs.levels32;
        for step in 0..S.min(5) {
            step32::<1>(tables, step as usize, &mut k, &x);
        }
        if S > 5 {
            step32::<2>(tables, 5, &mut k, &x);
        }
        if S > 6 {
            step32::<4>(tables, 7, &mut k, &x);
        }
        if S > 7 {
            step32::<8>(tables, 11, &mut k, &x);
        }
        for step in (0..cutoffs.steps - S).rev() {
            let before = _mm512_set1_epi32((1 << step) - 1);
            for (k, x) in k.iter_mut().zip(&x) {
                // While steps are left, k counts blocks of 2^(step + 1) cutoffs.
                let start = _mm512_sllv_epi32(*k, _mm512_set1_epi32(step as i32 + 1));
                let place = _mm512_add_epi32(start, before);
                // SAFETY: a place is below the padded length, which is 2^steps.
                let cutoff = unsafe { _mm512_i32gather_ps::<4>(place, cutoffs.f32.as_ptr()) };
                let below = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(cutoff, *x);
                let doubled = _mm512_add_epi32(*k, *k);
                *k = _mm512_mask_add_epi32(doubled, below, doubled, one);
            }
        }
        *nan = 0;
        for (i, (k, x)) in k.iter().zip(&x).enumerate() {
            *nan |= u64::from(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(*x, *x)) << (16 * i);
            // SAFETY: each stores 16 of the 64 ranks.
            unsafe { _mm256_storeu_si256(ranks.as_mut_ptr().add(16 * i).cast(), _mm512_cvtepi32_epi16(*k)) };
        }
    }
}

/// One step of the searches: the cutoffs that it compares with are in the `N` lanes from `first` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn step32<const N: usize>(tables: &[Lane], first: usize, k: &mut [__m512i; STREAMS], x: &[__m512; STREAMS]) {
    let table: [__m512i; N] = std::array::from_fn(|i| load(&tables[first + i]));
    for (k, x) in k.iter_mut().zip(x) {
        let below = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_castsi512_ps(look_up(&table, *k)), *x);
        let doubled = _mm512_add_epi32(*k, *k);
        *k = _mm512_mask_add_epi32(doubled, below, doubled, _mm512_set1_epi32(1));
    }
}

/// Entry `k` of a table of `N` times 16 words of 32 bits, of which only the low bits that it needs are looked at.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn look_up<const N: usize>(table: &[__m512i; N], k: __m512i) -> __m512i {
    if N == 1 {
        return _mm512_permutexvar_epi32(k, table[0]);
    }
    let mut level = *table;
    let mut count = N / 2;
    for i in 0..count {
        level[i] = _mm512_permutex2var_epi32(table[2 * i], k, table[2 * i + 1]);
    }
    let mut bit = 32;
    while count > 1 {
        count /= 2;
        let upper = _mm512_test_epi32_mask(k, _mm512_set1_epi32(bit));
        for i in 0..count {
            level[i] = _mm512_mask_blend_epi32(upper, level[2 * i], level[2 * i + 1]);
        }
        bit *= 2;
    }
    level[0]
}

/// Like [`ranks32`], 8 values at once.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
pub(super) fn ranks64(cutoffs: &Cutoffs, values: &[f64], ranks: &mut [u16], nan: &mut [u64]) {
    let one = _mm512_set1_epi64(1);
    let held = cutoffs.steps.min(LEVELS);
    let blocks = values.as_chunks::<64>().0.iter().zip(ranks.as_chunks_mut::<64>().0).zip(nan);
    for ((values, ranks), nan) in blocks {
        *nan = 0;
        for (half, (values, ranks)) in values.as_chunks::<32>().0.iter().zip(ranks.as_chunks_mut::<32>().0).enumerate()
        {
            // SAFETY: each loads 8 of the 32 values.
            let x: [__m512d; STREAMS] = std::array::from_fn(|i| unsafe { _mm512_loadu_pd(values.as_ptr().add(8 * i)) });
            let mut k = [_mm512_setzero_si512(); STREAMS];
            let mut first = 0;
            for step in 0..held {
                let count = (1usize << step).div_ceil(8);
                let table = &cutoffs.levels64[first..first + count];
                first += count;
                for (k, x) in k.iter_mut().zip(&x) {
                    let below = _mm512_cmp_pd_mask::<_CMP_LT_OQ>(look_up64(table, *k), *x);
                    let doubled = _mm512_add_epi64(*k, *k);
                    *k = _mm512_mask_add_epi64(doubled, below, doubled, one);
                }
            }
            for step in (0..cutoffs.steps - held).rev() {
                let before = _mm512_set1_epi64((1 << step) - 1);
                for (k, x) in k.iter_mut().zip(&x) {
                    let place = _mm512_add_epi64(_mm512_sllv_epi64(*k, _mm512_set1_epi64(i64::from(step) + 1)), before);
                    // SAFETY: a place is below the padded length, which is 2^steps.
                    let cutoff = unsafe { _mm512_i64gather_pd::<8>(place, cutoffs.f64.as_ptr()) };
                    let below = _mm512_cmp_pd_mask::<_CMP_LT_OQ>(cutoff, *x);
                    let doubled = _mm512_add_epi64(*k, *k);
                    *k = _mm512_mask_add_epi64(doubled, below, doubled, one);
                }
            }
            for (i, (k, x)) in k.iter().zip(&x).enumerate() {
                *nan |= u64::from(_mm512_cmp_pd_mask::<_CMP_UNORD_Q>(*x, *x)) << (32 * half + 8 * i);
                // SAFETY: each stores 8 of the 32 ranks.
                unsafe { _mm_storeu_si128(ranks.as_mut_ptr().add(8 * i).cast(), _mm512_cvtepi64_epi16(*k)) };
            }
        }
    }
}

/// Entry `k` of a table of 1 to 128 doubles.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn look_up64(table: &[Lane], k: __m512i) -> __m512d {
    let load = |i: usize| _mm512_castsi512_pd(load(&table[i]));
    let pair = |i: usize| _mm512_permutex2var_pd(load(i), k, load(i + 1));
    let bit = |b: u32| _mm512_test_epi64_mask(k, _mm512_set1_epi64(1 << b));
    let quarter = |i: usize| _mm512_mask_blend_pd(bit(4), pair(i), pair(i + 2));
    let half = |i: usize| _mm512_mask_blend_pd(bit(5), quarter(i), quarter(i + 4));
    match table.len() {
        1 => _mm512_permutexvar_pd(k, load(0)),
        2 => pair(0),
        4 => quarter(0),
        8 => half(0),
        _ => _mm512_mask_blend_pd(bit(6), half(0), half(8)),
    }
}
