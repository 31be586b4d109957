//! Work in parts, side by side.

use std::ops::Range;

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

/// What `f` makes of consecutive parts of `0..count`, of which there are as many as processors, but none is smaller than
/// `least` unless there is only one.
pub(super) fn in_parts<T: Send>(count: usize, least: usize, f: impl Fn(Range<usize>) -> T + Sync) -> Vec<T> {
    let parts = processors().min(count / least.max(1)).max(1);
    let part = |number: usize| count * number / parts..count * (number + 1) / parts;
    side_by_side((0..parts).map(part), f)
}

/// What `f` makes of each part, on a thread for each.
pub(super) fn side_by_side<P: Send, T: Send>(parts: impl IntoIterator<Item = P>, f: impl Fn(P) -> T + Sync) -> Vec<T> {
    let parts: Vec<P> = parts.into_iter().collect();
    match parts.len() {
        ..2 => parts.into_iter().map(f).collect(),
        _ => parts.into_par_iter().with_max_len(1).map(&f).collect(),
    }
}

/// How many parts can be worked on at once.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
