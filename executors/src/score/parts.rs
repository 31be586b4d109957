//! Work in parts, side by side.

use std::ops::Range;

/// What `f` makes of consecutive parts of `0..count`, of which there are as many as processors, but none is smaller than
/// `least` unless there is only one.
pub(super) fn in_parts<T: Send>(count: usize, least: usize, f: impl Fn(Range<usize>) -> T + Sync) -> Vec<T> {
    let parts = processors().min(count / least.max(1)).max(1);
    let part = |number: usize| count * number / parts..count * (number + 1) / parts;
    side_by_side((0..parts).map(part), f)
}

/// What `f` makes of each part, on a thread for each.
pub(super) fn side_by_side<P: Send, T: Send>(parts: impl IntoIterator<Item = P>, f: impl Fn(P) -> T + Sync) -> Vec<T> {
    let (mut parts, f) = (parts.into_iter(), &f);
    let first = parts.next();
    std::thread::scope(|scope| {
        let others: Vec<_> = parts.map(|part| scope.spawn(move || f(part))).collect();
        let mut made: Vec<T> = first.map(f).into_iter().collect();
        made.extend(others.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))));
        made
    })
}

/// How many parts can be worked on at once.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
