//! The kernel for processors with AVX2: the portable loops over bits as the compiler vectorises them for it, and what it
//! does not find by hand.

use std::arch::x86_64::*;

use super::portable::{codes_of, is_any, leaves_of, muxes_of};
use super::{Kernel, Lane, Leaves};
use crate::score::plan::{Condition, Cutoffs, LeafOf, Steps};

/// That the processor has the instructions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt")).then_some(Self(()))
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

    fn muxes(self, steps: &Steps, operands: &mut [Lane], lanes: usize) {
        // SAFETY: as above.
        match lanes {
            1 => unsafe { muxes_by_avx2::<1>(steps, operands) },
            2 => unsafe { muxes_by_avx2::<2>(steps, operands) },
            4 => unsafe { muxes_by_avx2::<4>(steps, operands) },
            8 => unsafe { muxes_by_avx2::<8>(steps, operands) },
            _ => muxes_of(steps, operands, lanes),
        }
    }

    fn bytes(self, bits: &[(u16, u8)], operands: &[Lane], lanes: usize, bytes: &mut [u8]) {
        // SAFETY: as above.
        unsafe { bytes_of(bits, operands, lanes, bytes) }
    }

    fn leaves(self, leaf_of: &LeafOf, low: &mut [u8], high: &mut [u8]) -> bool {
        match leaf_of {
            // A code of two bytes costs a look-up of its own, which goes beside that of the value.
            LeafOf::Bytes(_) if !high.is_empty() => return true,
            LeafOf::Bytes(leaf_of) => {
                // SAFETY: as above.
                unsafe {
                    match leaf_of.len() {
                        64 => leaves_by_avx2::<4>(leaf_of, low),
                        128 => leaves_by_avx2::<8>(leaf_of, low),
                        _ => leaves_by_avx2::<16>(leaf_of, low),
                    }
                }
            }
            _ => leaves_of(leaf_of, low, high),
        }
        false
    }

    fn add64(self, leaves: &Leaves<'_, f64>, sums: &mut [f64]) {
        // SAFETY: as above.
        unsafe { add64(leaves, sums) }
    }

    fn add32(self, leaves: &Leaves<'_, f32>, sums: &mut [f32]) {
        // SAFETY: as above.
        unsafe { add32(leaves, sums) }
    }

    const PLACES64: [u8; 64] = PLACES64;
}

const PLACES64: [u8; 64] = {
    let mut places = [0; 64];
    let mut place = 0;
    while place < 64 {
        places[place / 32 * 32 + FOURS64[place % 32 / 4][place % 4]] = place as u8;
        place += 1;
    }
    places
};

/// How often a search may compare with sixteen cutoffs: that tells 65,536 of them apart.
const LEVELS_MAX: usize = 4;

#[target_feature(enable = "avx2,popcnt")]
fn ranks32(cutoffs: &Cutoffs, values: &[f32], ranks: &mut [u16], nan: &mut [u64]) {
    let levels = &cutoffs.sixteens32;
    match levels.len() {
        _ if cutoffs.steps <= STEPS_MAX => match cutoffs.steps {
            1 => ranks32_in_steps::<1>(&cutoffs.levels32, values, ranks),
            2 => ranks32_in_steps::<2>(&cutoffs.levels32, values, ranks),
            3 => ranks32_in_steps::<3>(&cutoffs.levels32, values, ranks),
            4 => ranks32_in_steps::<4>(&cutoffs.levels32, values, ranks),
            5 => ranks32_in_steps::<5>(&cutoffs.levels32, values, ranks),
            6 => ranks32_in_steps::<6>(&cutoffs.levels32, values, ranks),
            _ => ranks32_in_steps::<7>(&cutoffs.levels32, values, ranks),
        },
        2 => ranks32_of::<2>(levels, values, ranks),
        3 => ranks32_of::<3>(levels, values, ranks),
        _ => ranks32_of::<LEVELS_MAX>(levels, values, ranks),
    }
    for (values, nan) in values.as_chunks::<64>().0.iter().zip(nan) {
        *nan = 0;
        for (eighth, values) in values.as_chunks::<8>().0.iter().enumerate() {
            // SAFETY: loads the 8 values.
            let x = unsafe { _mm256_loadu_ps(values.as_ptr()) };
            let unordered = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x)) as u32;
            *nan |= u64::from(unordered) << (8 * eighth);
        }
    }
}

/// A search of no more steps looks cutoffs up by permutations of registers that hold those of a step.
const STEPS_MAX: u32 = 7;

/// Binary search of 16 values at once.
#[target_feature(enable = "avx2,popcnt")]
fn ranks32_in_steps<const S: usize>(levels: &[Lane], values: &[f32], ranks: &mut [u16]) {
    // The first lane of each step.
    const FIRST: [usize; 7] = [0, 1, 2, 3, 4, 5, 7];
    for (values, ranks) in values.as_chunks::<16>().0.iter().zip(ranks.as_chunks_mut::<16>().0) {
        // SAFETY: each loads 8 of the 16 values.
        let x: [__m256; 2] = std::array::from_fn(|i| unsafe { _mm256_loadu_ps(values.as_ptr().add(8 * i)) });
        let mut k = [_mm256_setzero_si256(); 2];
        for step in 0..S {
            for (k, x) in k.iter_mut().zip(&x) {
                let cutoff = look_up32(&levels[FIRST[step]..], (1 << step) / 8, *k);
                let below = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_LT_OQ>(cutoff, *x));
                *k = _mm256_sub_epi32(_mm256_add_epi32(*k, *k), below);
            }
        }
        let both = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(k[0], k[1]));
        // SAFETY: stores the 16 ranks.
        unsafe { _mm256_storeu_si256(ranks.as_mut_ptr().cast(), both) };
    }
}

/// Entry `k` of a table of `eights` times 8 floats, or of fewer than 8.
#[inline(always)]
fn look_up32(table: &[Lane], eights: usize, k: __m256i) -> __m256 {
    // SAFETY: callers have AVX2; each loads half of the 64 bytes of a lane.
    unsafe {
        let entry = |i: usize| {
            let half = _mm256_load_ps(std::ptr::from_ref(&table[i / 2]).cast::<f32>().add(i % 2 * 8));
            _mm256_permutevar8x32_ps(half, k)
        };
        // The upper bit of a number says which is taken.
        let bit3 = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(k));
        let bit4 = _mm256_castsi256_ps(_mm256_slli_epi32::<27>(k));
        let bit5 = _mm256_castsi256_ps(_mm256_slli_epi32::<26>(k));
        let two = |i: usize| _mm256_blendv_ps(entry(i), entry(i + 1), bit3);
        let four = |i: usize| _mm256_blendv_ps(two(i), two(i + 2), bit4);
        match eights {
            0 | 1 => entry(0),
            2 => two(0),
            4 => four(0),
            _ => _mm256_blendv_ps(four(0), four(4), bit5),
        }
    }
}

/// A value is compared with sixteen cutoffs at once: gathers, of which a binary search needs one a step, are slow.
#[target_feature(enable = "avx2,popcnt")]
fn ranks32_of<const LEVELS: usize>(levels: &[Vec<[f32; 16]>], values: &[f32], ranks: &mut [u16]) {
    let levels: [&[[f32; 16]]; LEVELS] = std::array::from_fn(|level| levels[level].as_slice());
    for (value, rank) in values.iter().zip(ranks) {
        let x = _mm256_set1_ps(*value);
        let mut below = 0;
        for level in levels {
            let sixteen = &level[below];
            // SAFETY: loads two times 8 of the 16 cutoffs.
            let (a, b) = unsafe { (_mm256_loadu_ps(sixteen.as_ptr()), _mm256_loadu_ps(sixteen.as_ptr().add(8))) };
            let less = |cutoffs| _mm256_castps_si256(_mm256_cmp_ps::<_CMP_LT_OQ>(cutoffs, x));
            let both = _mm256_packs_epi32(less(a), less(b));
            // Two bits a cutoff.
            below = 16 * below + (_mm256_movemask_epi8(both) as u32).count_ones() as usize / 2;
        }
        *rank = below as u16;
    }
}

/// Vectors that are searched side by side, since a step waits for the one before.
const STREAMS: usize = 4;

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

/// What codes and thresholds are shifted by, since bytes can be compared as signed numbers only.
const SIGN: u8 = 0x80;

#[target_feature(enable = "avx2")]
fn codes_by_avx2(ranks: &[u16], low: u16, missing: &[u64], fill: u8, codes: &mut [u8]) {
    codes_of(ranks, low, missing, fill, codes);
    codes.iter_mut().for_each(|code| *code ^= SIGN);
}

#[target_feature(enable = "avx2")]
fn conditions_of(conditions: &[Condition], planes: &[u8], rows: usize, out: &mut [Lane]) {
    for (condition, out) in conditions.iter().zip(out.chunks_exact_mut(rows / 512)) {
        let codes = &planes[condition.plane as usize * rows..][..rows];
        let threshold = _mm256_set1_epi8((condition.threshold ^ SIGN) as i8);
        for (codes, out) in codes.as_chunks::<512>().0.iter().zip(out) {
            for (codes, word) in codes.as_chunks::<64>().0.iter().zip(&mut out.0) {
                // SAFETY: loads two times 32 of the 64 codes.
                let (near, far) = unsafe {
                    let at: *const __m256i = codes.as_ptr().cast();
                    (_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1)))
                };
                let bits = |codes| u64::from(_mm256_movemask_epi8(_mm256_cmpgt_epi8(codes, threshold)) as u32);
                *word = bits(near) | bits(far) << 32;
            }
        }
    }
}

#[target_feature(enable = "avx2")]
fn muxes_by_avx2<const LANES: usize>(steps: &Steps, operands: &mut [Lane]) {
    assert!(operands.len() >= steps.operands() * LANES, "lanes of every operand");
    steps.run(|muxes| {
        let base: *mut __m256i = operands.as_mut_ptr().cast();
        for mux in muxes {
            // SAFETY: every operand is below `steps.operands()`, for each of which there are lanes of two vectors, aligned to 64 bytes.
            unsafe {
                let [to, right, left, condition] = mux.operands().map(|operand| base.add(operand * LANES * 2));
                for half in 0..LANES * 2 {
                    let (c, r, l) = (*condition.add(half), *right.add(half), *left.add(half));
                    *to.add(half) = _mm256_or_si256(_mm256_and_si256(c, r), _mm256_andnot_si256(c, l));
                }
            }
        }
        muxes.last().is_some_and(|mux| is_any(mux, operands, LANES))
    });
}

#[target_feature(enable = "avx2")]
fn bytes_of(bits: &[(u16, u8)], operands: &[Lane], lanes: usize, bytes: &mut [u8]) {
    const NOTHING: Lane = Lane([0; 8]);
    for (lane, bytes) in bytes.as_chunks_mut::<512>().0.iter_mut().enumerate() {
        let mut planes = [&NOTHING; 8];
        for (operand, value) in bits {
            planes[value.trailing_zeros() as usize % 8] = &operands[*operand as usize * lanes + lane];
        }
        for (half, bytes) in bytes.as_chunks_mut::<256>().0.iter_mut().enumerate() {
            // SAFETY: loads half of the 64 bytes of a plane.
            let plane =
                |bit: usize| unsafe { _mm256_load_si256(std::ptr::from_ref(planes[bit]).cast::<__m256i>().add(half)) };
            for (pair, eights) in interleaved(std::array::from_fn(plane)).into_iter().enumerate() {
                let of_rows = transposed(eights);
                let (near, far) = (_mm256_castsi256_si128(of_rows), _mm256_extracti128_si256::<1>(of_rows));
                // SAFETY: a pair is below 8; each stores 16 of the 256 bytes.
                unsafe {
                    _mm_storeu_si128(bytes.as_mut_ptr().add(16 * pair).cast(), near);
                    _mm_storeu_si128(bytes.as_mut_ptr().add(128 + 16 * pair).cast(), far);
                }
            }
        }
    }
}

/// Byte i of each of eight planes beside each other: vector `v` has those of i = 2v and 2v + 1, and in its upper half
/// those of the planes' upper halves.
#[inline]
#[target_feature(enable = "avx2")]
fn interleaved(planes: [__m256i; 8]) -> [__m256i; 8] {
    let low8 = |i: usize| _mm256_unpacklo_epi8(planes[2 * i], planes[2 * i + 1]);
    let high8 = |i: usize| _mm256_unpackhi_epi8(planes[2 * i], planes[2 * i + 1]);
    let fours = |a, b, c, d| {
        let (low, high) = (_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b));
        let (low_of, high_of) = (_mm256_unpacklo_epi16(c, d), _mm256_unpackhi_epi16(c, d));
        [
            _mm256_unpacklo_epi32(low, low_of),
            _mm256_unpackhi_epi32(low, low_of),
            _mm256_unpacklo_epi32(high, high_of),
            _mm256_unpackhi_epi32(high, high_of),
        ]
    };
    let (low, high) = (fours(low8(0), low8(1), low8(2), low8(3)), fours(high8(0), high8(1), high8(2), high8(3)));
    [low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]]
}

/// Squares of 8 by 8 bits, mirrored: bit j of byte i goes to bit i of byte j (Hacker's Delight, 7-3).
#[inline]
#[target_feature(enable = "avx2")]
fn transposed(mut squares: __m256i) -> __m256i {
    macro_rules! swap {
        ($distance:literal, $mask:literal) => {
            let differ = _mm256_xor_si256(squares, _mm256_srli_epi64::<$distance>(squares));
            let differ = _mm256_and_si256(differ, _mm256_set1_epi64x($mask));
            squares = _mm256_xor_si256(squares, _mm256_xor_si256(differ, _mm256_slli_epi64::<$distance>(differ)));
        };
    }
    swap!(7, 0x00AA_00AA_00AA_00AA);
    swap!(14, 0x0000_CCCC_0000_CCCC);
    swap!(28, 0x0000_0000_F0F0_F0F0);
    squares
}

/// The leaves of up to 16 × `N` codes.
#[target_feature(enable = "avx2")]
fn leaves_by_avx2<const N: usize>(leaf_of: &[u8], low: &mut [u8]) {
    let table: &[[u8; 16]; N] = leaf_of.as_chunks::<16>().0.try_into().expect("a table of this size");
    for codes in low.as_chunks_mut::<32>().0 {
        // SAFETY: loads the 32 codes.
        let k = unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) };
        let place = _mm256_and_si256(k, _mm256_set1_epi8(15));
        let mut level = [k; N];
        for (found, sixteen) in level.iter_mut().zip(table) {
            // SAFETY: loads the 16 leaves.
            let sixteen = unsafe { _mm_loadu_si128(sixteen.as_ptr().cast()) };
            *found = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(sixteen), place);
        }
        // The upper bit of a byte says which is taken.
        let bits = [_mm256_slli_epi16::<3>(k), _mm256_slli_epi16::<2>(k), _mm256_slli_epi16::<1>(k), k];
        let mut count = N;
        for bit in bits {
            count /= 2;
            for i in 0..count {
                level[i] = _mm256_blendv_epi8(level[2 * i], level[2 * i + 1], bit);
            }
        }
        // SAFETY: stores the 32 leaves.
        unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), level[0]) };
    }
}

/// The rows of 32 whose values are added at once, four each: as the bytes of doubles are put together, and in order.
const FOURS64: [[usize; 4]; 8] = fours(2, 16);
const FOURS32: [[usize; 4]; 8] = fours(4, 2);

/// Two rows and two others, from every `step`th row on.
const fn fours(step: usize, others: usize) -> [[usize; 4]; 8] {
    let mut fours = [[0; 4]; 8];
    let mut i = 0;
    while i < 8 {
        fours[i] = [step * i, step * i + 1, step * i + others, step * i + others + 1];
        i += 1;
    }
    fours
}

/// Adds the leaf of each row: `add` adds those of four.
#[inline]
#[target_feature(enable = "avx2")]
fn add_fours<T>(
    leaves: &Leaves<'_, T>,
    sums: &mut [T],
    fours: &[[usize; 4]; 8],
    add: impl Fn(&mut [T], [*const T; 4]),
) {
    let low = leaves.low.as_chunks::<32>().0.iter();
    let blocks = sums.as_chunks_mut::<32>().0.iter_mut().zip(low);
    let Some(high) = leaves.high else {
        return blocks.for_each(|(sums, low)| add_block(leaves.table, sums, fours, |row| low[row].into(), &add));
    };
    for ((sums, low), high) in blocks.zip(high.as_chunks::<32>().0) {
        let number = |row: usize| usize::from(low[row]) | usize::from(high[row]) << 8;
        match leaves.leaf_of {
            // SAFETY: every code has a leaf.
            Some(leaf_of) => {
                add_block(leaves.table, sums, fours, |row| unsafe { *leaf_of.get_unchecked(number(row)) }.into(), &add);
            }
            None => add_block(leaves.table, sums, fours, number, &add),
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn add_block<T>(
    table: &[T],
    sums: &mut [T; 32],
    fours: &[[usize; 4]; 8],
    leaf: impl Fn(usize) -> usize,
    add: &impl Fn(&mut [T], [*const T; 4]),
) {
    // SAFETY: every leaf is below the number of leaves, which the table has.
    let value = |row: usize| unsafe { table.as_ptr().add(leaf(row)) };
    for (sums, [a, b, c, d]) in sums.as_chunks_mut::<4>().0.iter_mut().zip(fours) {
        // One by one: a call for all of them is not inlined everywhere.
        add(sums, [value(*a), value(*b), value(*c), value(*d)]);
    }
}

#[target_feature(enable = "avx2")]
fn add64(leaves: &Leaves<'_, f64>, sums: &mut [f64]) {
    if leaves.count <= 32 {
        return add64_by_bytes(leaves, sums);
    }
    add_fours(leaves, sums, &FOURS64, |sums, [a, b, c, d]| {
        // SAFETY: the pointers are those of values; 4 sums are loaded and stored.
        unsafe {
            // Loads one by one: gathers are slower.
            let (near, far) = (_mm_loadh_pd(_mm_load_sd(a), b), _mm_loadh_pd(_mm_load_sd(c), d));
            let sum = _mm256_add_pd(_mm256_loadu_pd(sums.as_ptr()), _mm256_set_m128d(far, near));
            _mm256_storeu_pd(sums.as_mut_ptr(), sum);
        }
    });
}

/// Up to 32 leaves: the bytes of doubles are looked up by shuffles.
#[target_feature(enable = "avx2")]
fn add64_by_bytes(leaves: &Leaves<'_, f64>, sums: &mut [f64]) {
    let mut apart = [[0u8; 32]; 8];
    for (leaf, value) in leaves.table[..32].iter().enumerate() {
        value.to_le_bytes().iter().zip(&mut apart).for_each(|(byte, of)| of[leaf] = *byte);
    }
    let tables = apart.map(|of| {
        // SAFETY: loads two times 16 of the 32 bytes.
        let halves = unsafe { [_mm_loadu_si128(of.as_ptr().cast()), _mm_loadu_si128(of.as_ptr().add(16).cast())] };
        halves.map(|half| _mm256_broadcastsi128_si256(half))
    });
    for (leaves, sums) in leaves.low.as_chunks::<32>().0.iter().zip(sums.as_chunks_mut::<32>().0) {
        // SAFETY: loads the 32 leaves.
        let k = unsafe { _mm256_loadu_si256(leaves.as_ptr().cast()) };
        let (place, upper) = (_mm256_and_si256(k, _mm256_set1_epi8(15)), _mm256_slli_epi16::<3>(k));
        let byte = |i: usize| {
            let (near, far) = (_mm256_shuffle_epi8(tables[i][0], place), _mm256_shuffle_epi8(tables[i][1], place));
            _mm256_blendv_epi8(near, far, upper)
        };
        let values = doubles(std::array::from_fn(byte));
        for (sums, values) in sums.as_chunks_mut::<4>().0.iter_mut().zip(values) {
            // SAFETY: loads and stores the 4 sums.
            unsafe {
                let sum = _mm256_add_pd(_mm256_loadu_pd(sums.as_ptr()), _mm256_castsi256_pd(values));
                _mm256_storeu_pd(sums.as_mut_ptr(), sum);
            }
        }
    }
}

/// The bytes of 32 doubles put together: vector j has those of rows 2j and 2j + 1 of each half.
#[inline]
#[target_feature(enable = "avx2")]
fn doubles(bytes: [__m256i; 8]) -> [__m256i; 8] {
    let two = |i: usize| (_mm256_unpacklo_epi8(bytes[i], bytes[i + 1]), _mm256_unpackhi_epi8(bytes[i], bytes[i + 1]));
    let (a, b, c, d) = (two(0), two(2), two(4), two(6));
    let four = |x, y| (_mm256_unpacklo_epi16(x, y), _mm256_unpackhi_epi16(x, y));
    let eight = |x, y| [_mm256_unpacklo_epi32(x, y), _mm256_unpackhi_epi32(x, y)];
    let half = |a, b, c, d| {
        let (near, far) = (four(a, b), four(c, d));
        let ([first, second], [third, fourth]) = (eight(near.0, far.0), eight(near.1, far.1));
        [first, second, third, fourth]
    };
    let ([v0, v1, v2, v3], [v4, v5, v6, v7]) = (half(a.0, b.0, c.0, d.0), half(a.1, b.1, c.1, d.1));
    [v0, v1, v2, v3, v4, v5, v6, v7]
}

#[target_feature(enable = "avx2")]
fn add32(leaves: &Leaves<'_, f32>, sums: &mut [f32]) {
    add_fours(leaves, sums, &FOURS32, |sums, [a, b, c, d]| {
        // SAFETY: the pointers are those of values; 4 sums are loaded and stored.
        unsafe {
            let of_rows = _mm_setr_ps(*a, *b, *c, *d);
            _mm_storeu_ps(sums.as_mut_ptr(), _mm_add_ps(_mm_loadu_ps(sums.as_ptr()), of_rows));
        }
    });
}
