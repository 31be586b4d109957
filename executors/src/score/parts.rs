//! Work in parts, side by side.

use std::ops::Range;

/// What `f` makes of consecutive parts of `0..count`, of which there are as many as processors, but none is smaller than
/// `least` unless there is only one.
pub(super) fn in_parts<T: Send>(count: usize, least: usize, f: impl Fn(Range<usize>) -> T + Sync) -> Vec<T> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let parts = processors.min(count / least.max(1)).max(1);
    let part = |number: usize| count * number / parts..count * (number + 1) / parts;
    let f = &f;
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..parts).map(|number| scope.spawn(move || f(part(number)))).collect();
        let mut made = vec![f(part(0))];
        made.extend(others.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))));
        made
    })
}
