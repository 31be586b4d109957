//! Several trees of few leaves at once, while the sums of 64 rows stay in registers.
//!
//! ```text
//!  for 512 rows:  bits ──▶ codes of each tree
//!  for 64 of them:  sums ──▶ registers,  for each tree:  codes ──▶ leaves ──▶ values ──▶ added,  registers ──▶ sums
//! ```

use std::arch::x86_64::*;

use super::codes::codes;
use super::{Lane, WOVEN, doubles, floats, halves, load, load_bytes, look_up8, mirrored};
use crate::score::forest::Precision;
use crate::score::plan::{LeafOf, TreePlan};

/// What the leaves of a tree are found by.
#[derive(Clone, Copy)]
struct Found<'a> {
    /// How many bits its codes have, and the lanes of each.
    count: usize,
    bits: [&'a [Lane]; 8],
    leaf_of: &'a [[u8; 64]],
    values: &'a [Lane],
}

/// The codes of 512 rows.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Codes([u8; 512]);

const NOTHING: Lane = Lane([0; 8]);

/// How each tree is found.
fn found<'a>(
    trees: &[&'a TreePlan],
    sum: Precision,
    apart: &'a [Lane],
    operands: &'a [Lane],
    lanes: usize,
) -> [Found<'a>; WOVEN] {
    let none = Found { count: 0, bits: [&[]; 8], leaf_of: &[], values: &[] };
    let of = |tree: &&'a TreePlan| {
        let mut bits = none.bits;
        for (of, (operand, _)) in bits.iter_mut().zip(&tree.low) {
            *of = &operands[usize::from(*operand) * lanes..][..lanes];
        }
        let leaf_of = match &tree.leaf_of {
            LeafOf::Bytes(leaf_of) => leaf_of.as_chunks().0,
            LeafOf::Code | LeafOf::Words(_) => &[],
        };
        Found { count: tree.low.len(), bits, leaf_of, values: &apart[tree.apart..][..tree.lanes_apart(sum)] }
    };
    std::array::from_fn(|i| trees.get(i).map_or(none, of))
}

impl Found<'_> {
    /// The codes of the rows of a lane.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,gfni")]
    fn codes(&self, lane: usize, to: &mut Codes) {
        codes(self.count, |bit| self.bits[bit].get(lane).unwrap_or(&NOTHING), &mut to.0);
    }

    /// The leaves of 64 codes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,gfni")]
    fn leaves(&self, code: __m512i) -> __m512i {
        match self.leaf_of {
            [] => code,
            [only] => _mm512_permutexvar_epi8(code, load_bytes(only)),
            [low, high] => _mm512_permutex2var_epi8(load_bytes(low), code, load_bytes(high)),
            parts => {
                let table: [__m512i; 4] = std::array::from_fn(|i| load_bytes(&parts[i]));
                look_up8(&table, code, _mm512_movepi8_mask(code))
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,gfni")]
pub(super) fn add64(trees: &[&TreePlan], apart: &[Lane], operands: &[Lane], lanes: usize, sums: &mut [f64]) {
    let found = found(trees, Precision::F64, apart, operands, lanes);
    let found = &found[..trees.len()];
    let mut codes = [Codes([0; 512]); WOVEN];
    for (lane, sums) in sums.as_chunks_mut::<512>().0.iter_mut().enumerate() {
        codes.iter_mut().zip(found).for_each(|(codes, tree)| tree.codes(lane, codes));
        for (block, sums) in sums.as_chunks_mut::<64>().0.iter_mut().enumerate() {
            // SAFETY: each loads 8 of the 64 sums.
            let mut sum: [__m512d; 8] = std::array::from_fn(|i| unsafe { _mm512_loadu_pd(sums.as_ptr().add(8 * i)) });
            for (tree, codes) in found.iter().zip(&codes) {
                let k = tree.leaves(load_bytes(&codes.0.as_chunks().0[block]));
                let values = match tree.values {
                    [low, high, low_of, high_of] => halves([load(low), load(high), load(low_of), load(high_of)], k),
                    values => {
                        let k = _mm512_shuffle_epi8(k, mirrored());
                        doubles(std::array::from_fn(|i| _mm512_permutexvar_epi8(k, load(&values[i]))))
                    }
                };
                for (sum, values) in sum.iter_mut().zip(values) {
                    *sum = _mm512_add_pd(*sum, _mm512_castsi512_pd(values));
                }
            }
            for (i, sum) in sum.into_iter().enumerate() {
                // SAFETY: each stores 8 of the 64 sums.
                unsafe { _mm512_storeu_pd(sums.as_mut_ptr().add(8 * i), sum) };
            }
        }
    }
}

/// Like [`add64`], of floats.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,gfni")]
pub(super) fn add32(trees: &[&TreePlan], apart: &[Lane], operands: &[Lane], lanes: usize, sums: &mut [f32]) {
    let found = found(trees, Precision::F32, apart, operands, lanes);
    let found = &found[..trees.len()];
    let mut codes = [Codes([0; 512]); WOVEN];
    for (lane, sums) in sums.as_chunks_mut::<512>().0.iter_mut().enumerate() {
        codes.iter_mut().zip(found).for_each(|(codes, tree)| tree.codes(lane, codes));
        for (block, sums) in sums.as_chunks_mut::<64>().0.iter_mut().enumerate() {
            // SAFETY: each loads 16 of the 64 sums.
            let mut sum: [__m512; 4] = std::array::from_fn(|i| unsafe { _mm512_loadu_ps(sums.as_ptr().add(16 * i)) });
            for (tree, codes) in found.iter().zip(&codes) {
                let k = tree.leaves(load_bytes(&codes.0.as_chunks().0[block]));
                let values = floats(std::array::from_fn(|i| _mm512_permutexvar_epi8(k, load(&tree.values[i]))));
                for (sum, values) in sum.iter_mut().zip(values) {
                    *sum = _mm512_add_ps(*sum, _mm512_castsi512_ps(values));
                }
            }
            for (i, sum) in sum.into_iter().enumerate() {
                // SAFETY: each stores 16 of the 64 sums.
                unsafe { _mm512_storeu_ps(sums.as_mut_ptr().add(16 * i), sum) };
            }
        }
    }
}
