//! The kernel for processors with AVX-512 F, BW, DQ and VL.
//!
//! ```text
//!  ranks        a step of the search is a permutation of registers that hold the cutoffs of the step, 16 values at once
//!  conditions   64 codes are compared by one instruction, which gives 64 bits
//!  muxes        512 rows of a node by one ternary operation
//!  leaves       up to 256 of them are looked up by permutations, the halves of a double apart; more are gathered
//! ```
//! What makes this `unsafe` is that pointers are loaded and stored without a check, and that a function may run only
//! where its instructions are: an [`Avx512`] exists only where [`detect`](Avx512::detect) found them.

use std::arch::x86_64::*;

use super::{Kernel, Lane, Leaves};
use crate::score::plan::{Condition, Cutoffs, LEVELS, Steps};

/// That the processor has the instructions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        found.then_some(Self(()))
    }
}

/// The order in which unpacking leaves 16 rows: place p has row `UNPACKED[p]`.
const UNPACKED: [i32; 16] = [0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15];

impl Kernel for Avx512 {
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
        unsafe { codes_of(ranks, low, missing, fill, codes) }
    }

    fn conditions(self, conditions: &[Condition], planes: &[u8], rows: usize, out: &mut [Lane]) {
        // SAFETY: as above.
        unsafe { conditions_of(conditions, planes, rows, out) }
    }

    fn muxes(self, steps: Steps<'_>, operands: &mut [Lane], lanes: usize) {
        // SAFETY: as above.
        match lanes {
            1 => unsafe { muxes_of::<1>(steps, operands) },
            2 => unsafe { muxes_of::<2>(steps, operands) },
            4 => unsafe { muxes_of::<4>(steps, operands) },
            8 => unsafe { muxes_of::<8>(steps, operands) },
            _ => super::portable::muxes_of(steps, operands, lanes),
        }
    }

    fn bytes(self, bits: &[(u16, u8)], operands: &[Lane], lanes: usize, bytes: &mut [u8]) {
        // SAFETY: as above.
        unsafe { bytes_of(bits, operands, lanes, bytes) }
    }

    fn add64(self, leaves: &Leaves<'_, f64>, sums: &mut [f64]) {
        // SAFETY: as above.
        unsafe {
            match leaves.count {
                0..=32 => add64_permuted::<2>(leaves, sums),
                33..=64 => add64_permuted::<4>(leaves, sums),
                65..=128 => add64_permuted::<8>(leaves, sums),
                129..=256 => add64_permuted::<16>(leaves, sums),
                _ => add64_gathered(leaves, sums),
            }
        }
    }

    fn add32(self, leaves: &Leaves<'_, f32>, sums: &mut [f32]) {
        // SAFETY: as above.
        unsafe {
            match leaves.count {
                0..=32 => add32_permuted::<2>(leaves, sums),
                33..=64 => add32_permuted::<4>(leaves, sums),
                65..=128 => add32_permuted::<8>(leaves, sums),
                129..=256 => add32_permuted::<16>(leaves, sums),
                _ => add32_gathered(leaves, sums),
            }
        }
    }

    fn place(row: usize) -> usize {
        const PLACES: [usize; 16] = {
            let mut places = [0; 16];
            let mut place = 0;
            while place < 16 {
                places[UNPACKED[place] as usize] = place;
                place += 1;
            }
            places
        };
        row / 16 * 16 + PLACES[row % 16]
    }
}

#[inline(always)]
fn load(lane: &Lane) -> __m512i {
    // SAFETY: a lane is 64 bytes, any of which are integers.
    unsafe { std::mem::transmute::<Lane, __m512i>(*lane) }
}

/// Vectors that are searched side by side, since a step waits for the one before.
const STREAMS: usize = 4;

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn ranks32(cutoffs: &Cutoffs, values: &[f32], ranks: &mut [u16], nan: &mut [u64]) {
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn ranks64(cutoffs: &Cutoffs, values: &[f64], ranks: &mut [u16], nan: &mut [u64]) {
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
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

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
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

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn conditions_of(conditions: &[Condition], planes: &[u8], rows: usize, out: &mut [Lane]) {
    for (condition, out) in conditions.iter().zip(out.chunks_exact_mut(rows / 512)) {
        let threshold = _mm512_set1_epi8(condition.threshold as i8);
        let codes = planes[condition.plane as usize * rows..][..rows].as_chunks::<512>().0;
        for (codes, out) in codes.iter().zip(out) {
            for (codes, word) in codes.as_chunks::<64>().0.iter().zip(&mut out.0) {
                // SAFETY: loads the 64 codes.
                let codes = unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) };
                let above = _mm512_cmpgt_epu8_mask(codes, threshold);
                *word = if condition.negated { !above } else { above };
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn muxes_of<const LANES: usize>(steps: Steps<'_>, operands: &mut [Lane]) {
    assert!(operands.len() >= steps.operands() * LANES, "lanes of every operand");
    let base: *mut __m512i = operands.as_mut_ptr().cast();
    for mux in steps.muxes() {
        // SAFETY: every operand is below `steps.operands()`, for each of which there are lanes; a lane is aligned to 64 bytes.
        unsafe {
            let [to, right, left, condition] = mux.operands().map(|operand| base.add(operand * LANES));
            for lane in 0..LANES {
                let (c, r, l) = (*condition.add(lane), *right.add(lane), *left.add(lane));
                // condition ? right : left
                *to.add(lane) = _mm512_ternarylogic_epi64::<0xCA>(c, r, l);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn bytes_of(bits: &[(u16, u8)], operands: &[Lane], lanes: usize, bytes: &mut [u8]) {
    for (lane, bytes) in bytes.as_chunks_mut::<512>().0.iter_mut().enumerate() {
        let mut sums = [_mm512_setzero_si512(); 8];
        for (operand, value) in bits {
            let (words, value) = (&operands[*operand as usize * lanes + lane].0, _mm512_set1_epi8(*value as i8));
            for (sum, word) in sums.iter_mut().zip(words) {
                *sum = _mm512_mask_add_epi8(*sum, *word, *sum, value);
            }
        }
        for (bytes, sum) in bytes.as_chunks_mut::<64>().0.iter_mut().zip(sums) {
            // SAFETY: stores the 64 bytes.
            unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), sum) };
        }
    }
}

/// Up to 16 × `N` leaves.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn add64_permuted<const N: usize>(leaves: &Leaves<'_, f64>, sums: &mut [f64]) {
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    let values = leaves.table.as_chunks::<16>().0;
    let halves = |i: usize, which| {
        // SAFETY: loads the 16 values.
        let (a, b) = unsafe {
            let at = values[i].as_ptr();
            (_mm512_loadu_si512(at.cast()), _mm512_loadu_si512(at.add(8).cast()))
        };
        _mm512_permutex2var_epi32(a, which, b)
    };
    let low: [__m512i; N] = std::array::from_fn(|i| halves(i, even));
    let high: [__m512i; N] = std::array::from_fn(|i| halves(i, odd));
    let codes = leaves.low.as_chunks::<16>().0;
    for (codes, sums) in codes.iter().zip(sums.as_chunks_mut::<16>().0) {
        // SAFETY: loads the 16 codes, and loads and stores the 16 sums.
        unsafe {
            let k = _mm512_cvtepu8_epi32(_mm_loadu_si128(codes.as_ptr().cast()));
            let (l, h) = (look_up(&low, k), look_up(&high, k));
            let near = _mm512_castsi512_pd(_mm512_unpacklo_epi32(l, h));
            let far = _mm512_castsi512_pd(_mm512_unpackhi_epi32(l, h));
            let at = sums.as_mut_ptr();
            _mm512_storeu_pd(at, _mm512_add_pd(_mm512_loadu_pd(at), near));
            _mm512_storeu_pd(at.add(8), _mm512_add_pd(_mm512_loadu_pd(at.add(8)), far));
        }
    }
}

/// The codes of 16 rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn codes16<T>(leaves: &Leaves<'_, T>, row: usize) -> __m512i {
    let load = |bytes: &[u8]| {
        let bytes: &[u8] = &bytes[row..row + 16];
        // SAFETY: loads the 16 bytes.
        _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
    };
    match leaves.high {
        Some(high) => _mm512_or_si512(load(leaves.low), _mm512_slli_epi32::<8>(load(high))),
        None => load(leaves.low),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn add64_gathered(leaves: &Leaves<'_, f64>, sums: &mut [f64]) {
    // SAFETY: 16 integers are a vector.
    let unpacked = unsafe { std::mem::transmute::<[i32; 16], __m512i>(UNPACKED) };
    for (block, sums) in sums.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let codes = _mm512_permutexvar_epi32(unpacked, codes16(leaves, 16 * block));
        // SAFETY: every code is below the number of leaves, which the table has; 16 sums are loaded and stored.
        unsafe {
            let near = _mm512_i32gather_pd::<8>(_mm512_castsi512_si256(codes), leaves.table.as_ptr());
            let far = _mm512_i32gather_pd::<8>(_mm512_extracti64x4_epi64::<1>(codes), leaves.table.as_ptr());
            let at = sums.as_mut_ptr();
            _mm512_storeu_pd(at, _mm512_add_pd(_mm512_loadu_pd(at), near));
            _mm512_storeu_pd(at.add(8), _mm512_add_pd(_mm512_loadu_pd(at.add(8)), far));
        }
    }
}

/// Up to 16 × `N` leaves.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn add32_permuted<const N: usize>(leaves: &Leaves<'_, f32>, sums: &mut [f32]) {
    let values = leaves.table.as_chunks::<16>().0;
    // SAFETY: loads 16 floats, whatever they are.
    let table: [__m512i; N] = std::array::from_fn(|i| unsafe { _mm512_loadu_si512(values[i].as_ptr().cast()) });
    for (block, sums) in sums.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let values = _mm512_castsi512_ps(look_up(&table, codes16(leaves, 16 * block)));
        let at = sums.as_mut_ptr();
        // SAFETY: loads and stores the 16 sums.
        unsafe { _mm512_storeu_ps(at, _mm512_add_ps(_mm512_loadu_ps(at), values)) };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn add32_gathered(leaves: &Leaves<'_, f32>, sums: &mut [f32]) {
    for (block, sums) in sums.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let codes = codes16(leaves, 16 * block);
        let at = sums.as_mut_ptr();
        // SAFETY: every code is below the number of leaves, which the table has; 16 sums are loaded and stored.
        unsafe {
            let values = _mm512_i32gather_ps::<4>(codes, leaves.table.as_ptr());
            _mm512_storeu_ps(at, _mm512_add_ps(_mm512_loadu_ps(at), values));
        }
    }
}
