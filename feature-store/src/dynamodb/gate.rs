//! How many calls are under way at once: more while they are answered, half as many when the table is throttled.
//!
//! ```text
//!  window  ┐      ╱│      ╱│        + 1 for each window of answers
//!          │    ╱  │    ╱  │        ÷ 2 for each throttled round
//!          │  ╱    │  ╱    │  ╱
//!          └──────────────────▶     no clock: the answers themselves are the beat
//! ```
//! Additive increase, multiplicative decrease, as TCP does it (Chiu and Jain, 1989): writers that know nothing of each
//! other come to share what the table takes. With a window of one call the waits between attempts slow down further.

use std::sync::{Mutex, PoisonError};

use featurectl_core::{Error, Result};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Share of the most calls at which a window begins.
const FIRST: f64 = 0.25;

/// Lets calls pass.
#[derive(Debug)]
pub(super) struct Gate {
    permits: Semaphore,
    window: Mutex<Window>,
}

impl Gate {
    /// At most `most` calls at once, which is at least one.
    pub fn new(most: usize) -> Self {
        let window = Window::new(most);
        Self { permits: Semaphore::new(window.calls()), window: Mutex::new(window) }
    }

    /// Waits until a call may be made.
    pub async fn enter(&self) -> Result<Pass<'_>> {
        let permit = self.permits.acquire().await.map_err(|e| Error::internal(e.to_string()))?;
        let round = self.with(|w| w.round);
        Ok(Pass { gate: self, permit: Some(permit), round })
    }

    /// Half as many calls, for an answer that says that only a part was carried out.
    pub fn slow_down(&self) {
        let round = self.with(|w| w.round);
        self.shrink(round);
    }

    fn grow(&self) {
        let more = self.with(|w| {
            let more = w.grow();
            let unowed = more.saturating_sub(w.owed);
            w.owed -= more - unowed;
            unowed
        });
        self.permits.add_permits(more);
    }

    fn shrink(&self, round: u64) {
        self.with(|w| {
            let fewer = w.shrink(round);
            // Permits of calls under way are taken when these end.
            w.owed += fewer - self.permits.forget_permits(fewer);
        });
    }

    fn with<T>(&self, f: impl FnOnce(&mut Window) -> T) -> T {
        f(&mut self.window.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A call under way. Dropped, it makes room for another.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    permit: Option<SemaphorePermit<'a>>,
    round: u64,
}

impl Pass<'_> {
    /// The call was answered.
    pub fn answered(self) {
        self.gate.grow();
    }

    /// The call was throttled.
    pub fn throttled(self) {
        self.gate.shrink(self.round);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let is_owed = self.gate.with(|w| {
            let is_owed = w.owed > 0;
            w.owed -= usize::from(is_owed);
            is_owed
        });
        match self.permit.take() {
            Some(permit) if is_owed => permit.forget(),
            permit => drop(permit),
        }
    }
}

/// The number of calls that may be under way, without the calls.
#[derive(Debug)]
struct Window {
    size: f64,
    most: f64,
    /// Number of decreases. Calls of one round that are throttled together count once.
    round: u64,
    /// Permits to be taken back when calls end.
    owed: usize,
}

impl Window {
    fn new(most: usize) -> Self {
        let most = most.max(1) as f64;
        Self { size: (most * FIRST).max(1.0), most, round: 0, owed: 0 }
    }

    fn calls(&self) -> usize {
        self.size as usize
    }

    /// Returns how many calls more.
    fn grow(&mut self) -> usize {
        let before = self.calls();
        self.size = (self.size + 1.0 / self.size).min(self.most);
        self.calls() - before
    }

    /// Returns how many calls fewer, for a call that began in `round`.
    fn shrink(&mut self, round: u64) -> usize {
        if round < self.round {
            return 0;
        }
        let before = self.calls();
        self.size = (self.size / 2.0).max(1.0);
        self.round += 1;
        before - self.calls()
    }
}

#[cfg(test)]
mod tests;
