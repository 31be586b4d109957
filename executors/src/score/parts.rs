//! Work in parts, side by side.

use std::ops::Range;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Parts for each processor: some are there to be taken by one while another is late or does something else.
const PARTS: usize = 8;

/// What `f` makes of consecutive parts of `0..count`, of which none is smaller than `least` unless there is only one; see
/// [`side_by_side`].
pub(super) fn in_parts<S, T: Send>(
    count: usize,
    least: usize,
    state: impl Fn() -> S + Sync,
    f: impl Fn(&mut S, Range<usize>) -> T + Sync,
) -> Vec<T> {
    let parts = most_parts().min(count / least.max(1));
    if parts < 2 {
        return vec![f(&mut state(), 0..count)];
    }
    let part = |number: usize| count * number / parts..count * (number + 1) / parts;
    side_by_side((0..parts).map(part), state, f)
}

/// What `f` makes of each part. Every processor takes the next one when it is done with one, and keeps a state between them.
pub(super) fn side_by_side<S, P: Send, T: Send>(
    parts: impl IntoIterator<Item = P, IntoIter: Send>,
    state: impl Fn() -> S + Sync,
    f: impl Fn(&mut S, P) -> T + Sync,
) -> Vec<T> {
    let (parts, made) = (Mutex::new(parts.into_iter().enumerate().fuse()), Mutex::new(Vec::new()));
    let next = || lock(&parts).next();
    let work = || {
        let mut kept = None;
        while let Some((number, part)) = next() {
            let of_part = f(kept.get_or_insert_with(&state), part);
            lock(&made).push((number, of_part));
        }
    };
    match HELPERS.as_ref() {
        Some((helpers, threads)) => {
            send_elsewhere(threads);
            helpers.in_place_scope(|scope| {
                (0..helpers.current_num_threads()).for_each(|_| scope.spawn(|_| work()));
                work();
            });
        }
        None => work(),
    }
    let mut made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
    made.sort_unstable_by_key(|(number, _)| *number);
    made.into_iter().map(|(_, of_part)| of_part).collect()
}

/// A thread less than there are processors.
static HELPERS: LazyLock<Option<(ThreadPool, Vec<Thread>)>> = LazyLock::new(|| {
    let helpers = processors().checked_sub(1).filter(|helpers| *helpers > 0)?;
    let pool = ThreadPoolBuilder::new().num_threads(helpers).build().ok()?;
    let threads = pool.broadcast(|_| this_thread());
    Some((pool, threads))
});

/// The number that the system gave a thread.
#[cfg(target_os = "linux")]
type Thread = rustix::thread::Pid;

#[cfg(target_os = "linux")]
fn this_thread() -> Thread {
    rustix::thread::gettid()
}

/// Has threads wake up on other processors than this thread is on. Linux often puts a thread that wakes up on the processor
/// of the one that wakes it, where it waits for some milliseconds, though another has nothing to do.
#[cfg(target_os = "linux")]
fn send_elsewhere(threads: &[Thread]) {
    use rustix::thread::{sched_getaffinity, sched_getcpu, sched_setaffinity};
    let Ok(mut elsewhere) = sched_getaffinity(None) else { return };
    elsewhere.unset(sched_getcpu());
    for thread in threads {
        // Where that is refused they start later.
        let _ = sched_setaffinity(Some(*thread), &elsewhere);
    }
}

/// Other systems are not told where threads shall run.
#[cfg(not(target_os = "linux"))]
type Thread = ();

#[cfg(not(target_os = "linux"))]
fn this_thread() -> Thread {}

#[cfg(not(target_os = "linux"))]
fn send_elsewhere(_: &[Thread]) {}

/// How many parts are worth it.
pub(super) fn most_parts() -> usize {
    match processors() {
        1 => 1,
        processors => PARTS * processors,
    }
}

/// What other threads may use too; one of them that panicked is no reason not to.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many parts can be worked on at once.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
