//! Work in parts, side by side.

use std::ops::Range;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Parts for each processor: some are there to be taken by one while another is late or does something else.
const PARTS: usize = 4;

/// What `f` makes of consecutive parts of `0..count`, of which none is smaller than `least` unless there is only one.
pub(super) fn in_parts<T: Send>(count: usize, least: usize, f: impl Fn(Range<usize>) -> T + Sync) -> Vec<T> {
    let parts = most_parts().min(count / least.max(1)).max(1);
    let part = |number: usize| count * number / parts..count * (number + 1) / parts;
    side_by_side((0..parts).map(part), f)
}

/// What `f` makes of each part, of which every processor takes the next one when it is done with one.
pub(super) fn side_by_side<P: Send, T: Send>(
    parts: impl IntoIterator<Item = P, IntoIter: Send>,
    f: impl Fn(P) -> T + Sync,
) -> Vec<T> {
    let (parts, made) = (Mutex::new(parts.into_iter().enumerate().fuse()), Mutex::new(Vec::new()));
    let next = || lock(&parts).next();
    let work = || {
        while let Some((number, part)) = next() {
            let of_part = f(part);
            lock(&made).push((number, of_part));
        }
    };
    match HELPERS.as_ref() {
        Some(helpers) => helpers.in_place_scope(|scope| {
            (0..helpers.current_num_threads()).for_each(|_| scope.spawn(|_| work()));
            work();
        }),
        None => work(),
    }
    let mut made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
    made.sort_unstable_by_key(|(number, _)| *number);
    made.into_iter().map(|(_, of_part)| of_part).collect()
}

/// A thread less than there are processors: each then finds the processor free that it was on before. Of more of them, or of new
/// ones for each step of the work, some would wait for milliseconds while a processor has nothing to do.
static HELPERS: LazyLock<Option<ThreadPool>> = LazyLock::new(|| match processors() - 1 {
    0 => None,
    helpers => ThreadPoolBuilder::new().num_threads(helpers).build().ok(),
});

/// How many parts are worth it.
pub(super) fn most_parts() -> usize {
    match processors() {
        1 => 1,
        processors => PARTS * processors,
    }
}

/// What other threads may use too; one of them that panicked is no reason not to.
pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many parts can be worked on at once.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
