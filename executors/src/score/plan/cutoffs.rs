//! The cutoffs of each feature, as searches go through them.

use super::{Cutoffs, LEVELS, PAGE, Plane};
use crate::score::kernel::Lane;

impl Cutoffs {
    /// Those of a feature, of ascending numbers.
    pub(super) fn new(feature: usize, ascending: &[f64], planes: Vec<Plane>) -> Self {
        let steps = usize::BITS - ascending.len().leading_zeros();
        let zero = ascending.partition_point(|t| *t < 0.0) as u16;
        let mut f64 = ascending.to_vec();
        f64.resize(1 << steps, f64::INFINITY);
        let f32: Vec<f32> = f64.iter().map(|t| at_most(*t)).collect();
        let levels32 = levels(&f32, steps, |t| u64::from(t.to_bits()), 2);
        let levels64 = levels(&f64, steps, |t| t.to_bits(), 1);
        let sixteens32 = sixteens(&f32);
        Self { feature, f64, f32, levels32, levels64, sixteens32, steps, zero, planes }
    }

    /// The code of a rank on a page, for a row that is not missing.
    pub(in crate::score) fn code(rank: u16, page: u16) -> u8 {
        (rank as usize).saturating_sub(page as usize * PAGE).min(PAGE) as u8
    }
}

/// The cutoffs that each of the first steps of a binary search compares with, `to_word` of them in a word of 64 bits.
fn levels<T: Copy>(sorted: &[T], steps: u32, bits: impl Fn(T) -> u64, to_word: usize) -> Vec<Lane> {
    let mut lanes = Vec::new();
    for step in 0..steps.min(LEVELS) {
        let wanted = (0..1usize << step).map(|k| bits(sorted[(k << (steps - step)) + (1 << (steps - step - 1)) - 1]));
        let wanted: Vec<u64> = wanted.collect();
        for of_lane in wanted.chunks(8 * to_word) {
            let mut lane = Lane::default();
            for (place, value) in of_lane.iter().enumerate() {
                lane.0[place / to_word] |= value << (place % to_word * 32);
            }
            lanes.push(lane);
        }
    }
    lanes
}

/// What a search that compares with sixteen cutoffs at once goes through, from the first level on. The last cutoff is
/// infinite, and so never below a value.
fn sixteens(sorted: &[f32]) -> Vec<Vec<[f32; 16]>> {
    let chunk = |of: &[f32]| std::array::from_fn(|i| of.get(i).copied().unwrap_or(f32::INFINITY));
    let mut levels = vec![sorted.chunks(16).map(chunk).collect::<Vec<_>>()];
    while levels[0].len() > 1 {
        let last: Vec<f32> = levels[0].iter().map(|sixteen| sixteen[15]).collect();
        levels.insert(0, last.chunks(16).map(chunk).collect());
    }
    levels
}

/// The greatest 32-bit float that is not above `t`: a 32-bit float is at most `t` if it is at most that.
pub(in crate::score) fn at_most(t: f64) -> f32 {
    let near = t as f32;
    if f64::from(near) > t { near.next_down() } else { near }
}
