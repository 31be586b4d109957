//! The cutoffs of each feature, as searches go through them.

use super::{Cutoffs, LEVELS, PAGE, Plane};
use crate::score::kernel::Lane;

/// A search without steps: a value's key says in which of 256 buckets it is, and there are few cutoffs in each.
///
/// ```text
///  x ──▶ key = ⌈x · scale⌉ + offset ──▶ upper byte: bucket ──▶ rank where it begins      rank = first
///        in 0..65536, never descending   lower byte ──▶ above the lower byte of a cutoff?       + cutoffs below
/// ```
/// Where a value has the key of a cutoff, this does not say which is greater, and the value is searched for.
#[derive(Debug)]
pub(in crate::score) struct Buckets {
    pub(in crate::score) scale: f32,
    pub(in crate::score) offset: f32,
    /// Whether keys are rounded down instead.
    pub(in crate::score) down: bool,
    /// The rank of each bucket's least value.
    pub(in crate::score) first: [u8; 256],
    /// The lower byte of a cutoff of each bucket, [`NO_CUTOFF`](Self::NO_CUTOFF) if it has no more.
    pub(in crate::score) below: Vec<[u8; 256]>,
}

impl Buckets {
    /// No cutoff's key has this lower byte.
    pub(in crate::score) const NO_CUTOFF: u8 = u8::MAX;
    /// Fewer cutoffs are searched in two steps.
    const CUTOFFS_MIN: usize = 4;
    /// More cutoffs in a bucket take longer than a search.
    pub(in crate::score) const DEPTH_MAX: usize = 6;
    /// The key of the least cutoff, and how many keys there are from it to that of the greatest.
    const KEYS: (f64, f64) = (300.0, 64_000.0);

    /// `None` if a search is better: for cutoffs that lie too unevenly, and for more than a byte can number.
    fn new(ascending: &[f32]) -> Option<Self> {
        let (least, greatest) = (*ascending.first()?, *ascending.last()?);
        if !(Self::CUTOFFS_MIN..=PAGE).contains(&ascending.len()) {
            return None;
        }
        // Where values are compared with the next number below a round one, as by `<`, the two shall have different keys.
        let round = |t: f32| t.to_bits().trailing_zeros();
        let votes = ascending.iter().filter(|t| round(t.next_up()) > round(**t)).count();
        let down = 2 * votes > ascending.len();
        let width = f64::from(greatest) - f64::from(least);
        let widest = if width > 0.0 { Self::KEYS.1 / width } else { 1.0 };
        let scale = if down { widest.log2().floor().exp2() } else { widest } as f32;
        let start = Self::KEYS.0 - (f64::from(least) * f64::from(scale)).floor();
        (0..256).find_map(|shift| Self::shifted(ascending, scale, start + f64::from(shift), down))
    }

    /// `None` if a key has no lower byte of its own, or if keys are not exact.
    fn shifted(ascending: &[f32], scale: f32, offset: f64, down: bool) -> Option<Self> {
        let exact = scale.is_normal() && offset.abs() < f64::from(1 << 22);
        let mut buckets =
            Self { scale, offset: offset as f32, down, first: [0; 256], below: vec![[Self::NO_CUTOFF; 256]] };
        let mut depths = [0; 256];
        for (rank, cutoff) in ascending.iter().enumerate() {
            let [bucket, low] = buckets.key(*cutoff).to_be_bytes();
            let depth = &mut depths[usize::from(bucket)];
            if !exact || low == Self::NO_CUTOFF || *depth == Self::DEPTH_MAX {
                return None;
            }
            if *depth == buckets.below.len() {
                buckets.below.push([Self::NO_CUTOFF; 256]);
            }
            buckets.below[*depth][usize::from(bucket)] = low;
            *depth += 1;
            buckets.first[usize::from(bucket) + 1..].fill(rank as u8 + 1);
        }
        Some(buckets)
    }

    /// In 64 bits the product of two numbers of 32 is exact, and so is its sum with a whole number once it is rounded.
    fn key(&self, x: f32) -> u16 {
        let product = f64::from(x) * f64::from(self.scale);
        let rounded = if self.down { product.floor() } else { product.ceil() };
        (rounded + f64::from(self.offset)) as u16
    }
}

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
        let buckets = Buckets::new(&f32[..ascending.len()]);
        Self { feature, f64, f32, levels32, levels64, sixteens32, buckets, steps, zero, planes }
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
