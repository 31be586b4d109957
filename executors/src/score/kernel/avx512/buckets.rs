//! Ranks of 32-bit values by [`Buckets`], 64 of them at once.

use std::arch::x86_64::*;

use super::ranks::search32;
use super::{load_bytes, look_up8};
use crate::score::plan::{Buckets, Cutoffs};

/// Values that are asked for while those before them are looked up: processors do not do so across pages.
const AHEAD: usize = 1024;
const UP: i32 = _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC;
const DOWN: i32 = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;

/// Ranks, and which values are NaN.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
pub(super) fn ranks(buckets: &Buckets, cutoffs: &Cutoffs, values: &[f32], ranks: &mut [u16], nan: &mut [u64]) {
    match (buckets.below.len(), buckets.down) {
        (1, false) => by_buckets::<1, UP>(buckets, cutoffs, values, ranks, nan),
        (2, false) => by_buckets::<2, UP>(buckets, cutoffs, values, ranks, nan),
        (_, false) => by_buckets::<{ Buckets::DEPTH_MAX }, UP>(buckets, cutoffs, values, ranks, nan),
        (1, true) => by_buckets::<1, DOWN>(buckets, cutoffs, values, ranks, nan),
        (2, true) => by_buckets::<2, DOWN>(buckets, cutoffs, values, ranks, nan),
        (_, true) => by_buckets::<{ Buckets::DEPTH_MAX }, DOWN>(buckets, cutoffs, values, ranks, nan),
    }
}

/// Buckets have at most `DEPTH` cutoffs.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn by_buckets<const DEPTH: usize, const ROUND: i32>(
    buckets: &Buckets,
    cutoffs: &Cutoffs,
    values: &[f32],
    ranks: &mut [u16],
    nan: &mut [u64],
) {
    let (scale, offset) = (_mm512_set1_ps(buckets.scale), _mm512_set1_ps(buckets.offset));
    let whole = |bytes: &[u8; 256]| -> [__m512i; 4] {
        let parts = bytes.as_chunks::<64>().0;
        std::array::from_fn(|i| load_bytes(&parts[i]))
    };
    let (first, depth) = (whole(&buckets.first), buckets.below.len().min(DEPTH));
    let mut below = [first; DEPTH];
    buckets.below.iter().zip(&mut below).for_each(|(bytes, below)| *below = whole(bytes));
    // Packing puts the words of 16 values in fours: 0-3, 16-19, 4-7, and so on.
    let order = |byte: usize| -> [u8; 64] {
        std::array::from_fn(|row| {
            let (half, row) = (row / 32, row % 32);
            (64 * half + 16 * (row % 16 / 4) + 8 * (row / 16) + 2 * (row % 4) + byte) as u8
        })
    };
    let (low_bytes, high_bytes) = (load_bytes(&order(0)), load_bytes(&order(1)));
    let blocks = values.as_chunks::<64>().0.iter().zip(ranks.as_chunks_mut::<64>().0).zip(nan);
    for ((values, ranks), nan) in blocks {
        // SAFETY: each loads 16 of the 64 values.
        let x: [__m512; 4] = std::array::from_fn(|i| unsafe { _mm512_loadu_ps(values.as_ptr().add(16 * i)) });
        for line in 0..4 {
            _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().wrapping_add(AHEAD + 16 * line).cast());
        }
        let key = |x| {
            let key = _mm512_min_ps(_mm512_fmadd_round_ps::<ROUND>(x, scale, offset), _mm512_set1_ps(65_535.0));
            _mm512_cvt_roundps_epi32::<ROUND>(key)
        };
        let (near, far) = (_mm512_packus_epi32(key(x[0]), key(x[1])), _mm512_packus_epi32(key(x[2]), key(x[3])));
        let low = _mm512_permutex2var_epi8(near, low_bytes, far);
        let bucket = _mm512_permutex2var_epi8(near, high_bytes, far);
        let upper = _mm512_movepi8_mask(bucket);
        let mut rank = look_up8(&first, bucket, upper);
        let mut unclear = 0;
        for below in &below[..depth] {
            let cutoff = look_up8(below, bucket, upper);
            let above = _mm512_cmpgt_epu8_mask(low, cutoff);
            unclear |= _mm512_cmpeq_epi8_mask(low, cutoff);
            rank = _mm512_mask_add_epi8(rank, above, rank, _mm512_set1_epi8(1));
        }
        *nan = 0;
        for (i, x) in x.iter().enumerate() {
            *nan |= u64::from(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(*x, *x)) << (16 * i);
        }
        if unclear & _mm512_cmpneq_epi8_mask(low, _mm512_set1_epi8(Buckets::NO_CUTOFF as i8)) & !*nan != 0 {
            search32(cutoffs, values, ranks, std::slice::from_mut(nan));
            continue;
        }
        let (near, far) = (_mm512_castsi512_si256(rank), _mm512_extracti64x4_epi64::<1>(rank));
        // SAFETY: stores two times 32 ranks.
        unsafe {
            _mm512_storeu_si512(ranks.as_mut_ptr().cast(), _mm512_cvtepu8_epi16(near));
            _mm512_storeu_si512(ranks.as_mut_ptr().add(32).cast(), _mm512_cvtepu8_epi16(far));
        }
    }
}
