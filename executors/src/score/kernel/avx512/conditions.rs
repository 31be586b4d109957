//! Conditions: comparisons of codes, 64 at once.
//!
//! Of a plane that has many, the upper and the lower bits of codes are compared apart, for which there are few thresholds:
//!
//! ```text
//!  code > 16 h + l   is   upper > h, or upper > h - 1 and lower > l      which is one step for 512 rows
//! ```

use std::arch::x86_64::*;

use super::{LANES_MAX, Lane, load, load_bytes};
use crate::score::plan::Condition;

/// Lower bits of codes that are compared apart.
const LOWER: u32 = 4;
/// Thresholds of each part of a code.
const THRESHOLDS: usize = 1 << LOWER;

/// A bit a row for each condition.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
pub(super) fn all(conditions: &[Condition], planes: &[u8], rows: usize, mut out: &mut [Lane]) {
    for of_plane in conditions.chunk_by(|a, b| a.plane == b.plane) {
        let here;
        (here, out) = out.split_at_mut(of_plane.len() * rows / 512);
        let codes = planes[of_plane[0].plane as usize * rows..][..rows].as_chunks().0;
        let parts = Parts::of(of_plane);
        if parts.comparisons() + of_plane.len() / 8 < of_plane.len() {
            parts.conditions(of_plane, codes, here);
        } else {
            one_by_one(of_plane, codes, here);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn one_by_one(conditions: &[Condition], codes: &[[u8; 512]], out: &mut [Lane]) {
    for (condition, out) in conditions.iter().zip(out.chunks_exact_mut(codes.len())) {
        for (codes, out) in codes.iter().zip(out) {
            above(&codes_of(codes), condition.threshold, out);
        }
    }
}

/// Which thresholds of the two parts of codes are asked for.
#[derive(Default)]
struct Parts {
    upper: [bool; THRESHOLDS],
    lower: [bool; THRESHOLDS],
}

impl Parts {
    fn of(conditions: &[Condition]) -> Self {
        let mut parts = Self::default();
        for condition in conditions {
            let (upper, lower) = split(condition.threshold);
            parts.upper[upper] = true;
            parts.upper[upper.saturating_sub(1)] = true;
            parts.lower[lower] = true;
        }
        parts
    }

    fn comparisons(&self) -> usize {
        self.upper.iter().chain(&self.lower).filter(|asked| **asked).count()
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
    fn conditions(&self, conditions: &[Condition], codes: &[[u8; 512]], out: &mut [Lane]) {
        let lowest = _mm512_set1_epi8(THRESHOLDS as i8 - 1);
        // What is above -1 is everything; it is the first.
        let mut upper_above = [[Lane([u64::MAX; 8]); LANES_MAX]; THRESHOLDS + 1];
        let mut lower_above = [[Lane([0; 8]); LANES_MAX]; THRESHOLDS];
        for (lane, block) in codes.iter().enumerate() {
            let whole = codes_of(block);
            let lower: [__m512i; 8] = std::array::from_fn(|i| _mm512_and_si512(whole[i], lowest));
            let upper: [__m512i; 8] =
                std::array::from_fn(|i| _mm512_and_si512(_mm512_srli_epi16::<LOWER>(whole[i]), lowest));
            for threshold in 0..THRESHOLDS {
                if self.upper[threshold] {
                    above(&upper, threshold as u8, &mut upper_above[threshold + 1][lane]);
                }
                if self.lower[threshold] {
                    above(&lower, threshold as u8, &mut lower_above[threshold][lane]);
                }
            }
        }
        for (condition, out) in conditions.iter().zip(out.chunks_exact_mut(codes.len())) {
            let (upper, lower) = split(condition.threshold);
            let (over, same, lower) = (&upper_above[upper + 1], &upper_above[upper], &lower_above[lower]);
            for (((out, over), same), lower) in out.iter_mut().zip(over).zip(same).zip(lower) {
                // over | same & lower
                let bits = _mm512_ternarylogic_epi64::<0xF8>(load(over), load(same), load(lower));
                // SAFETY: 64 bytes are a lane.
                *out = unsafe { std::mem::transmute::<__m512i, Lane>(bits) };
            }
        }
    }
}

/// The two parts of a threshold.
fn split(threshold: u8) -> (usize, usize) {
    (usize::from(threshold >> LOWER), usize::from(threshold) % THRESHOLDS)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn codes_of(codes: &[u8; 512]) -> [__m512i; 8] {
    let parts = codes.as_chunks().0;
    std::array::from_fn(|i| load_bytes(&parts[i]))
}

/// Which of 512 codes are above a threshold. Words are stored where they shall be: a lane that was put together elsewhere
/// could not be loaded before all its words are stored.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn above(codes: &[__m512i; 8], threshold: u8, out: &mut Lane) {
    let threshold = _mm512_set1_epi8(threshold as i8);
    for (word, codes) in out.0.iter_mut().zip(codes) {
        *word = _mm512_cmpgt_epu8_mask(*codes, threshold);
    }
}
