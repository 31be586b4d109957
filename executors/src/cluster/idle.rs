//! Whether anybody still works on a job that does not move.
//!
//! An executor tells its scheduler once that a task is done; if that message is lost, the task runs for ever in the
//! scheduler's eyes. Its stages, too, can wait for one that nobody runs any more. So executors are asked themselves. A
//! task may take as long as it wants: an executor that has one of the job keeps it alive.

use std::time::{Duration, Instant};

use featurectl_core::Result;

use super::job::{PATIENCE, Progress};
use super::{Address, api, net};

/// A job that moved less than this ago is not looked at.
const QUIET: Duration = Duration::from_secs(8);
/// A job that nobody worked on in so many looks in a row, a second apart, is lost.
const LOOKS: u32 = 8;

/// What is known of a job's movement.
pub(super) struct Watch {
    last: Progress,
    moved: Instant,
    idle: u32,
}

/// How a job is.
pub(super) enum Life {
    /// Somebody works on it, or will.
    Alive,
    /// Nobody does.
    Idle,
    /// The cluster has had no executor for the given time.
    Alone(Duration),
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { last: Progress::default(), moved: Instant::now(), idle: 0 }
    }

    /// To be asked about once a second.
    pub(super) async fn look(&mut self, address: &Address, now: Progress) -> Result<Life> {
        if now != self.last {
            *self = Self { last: now, ..Self::new() };
        }
        if self.moved.elapsed() < QUIET {
            return Ok(Life::Alive);
        }
        let executors = api::status(address).await?.executors;
        if executors.is_empty() {
            return Ok(Life::Alone(self.moved.elapsed()));
        }
        let told = futures::future::join_all(executors.iter().map(|e| net::tasks_at(&e.address, address.tls()))).await;
        // One that doesn't answer may have a task of it: it is believed for a while, in which its scheduler can see that it
        // is dead. One that only this driver can't reach would not give it any rows either.
        let believed = self.moved.elapsed() < PATIENCE;
        let any = told.iter().any(|jobs| jobs.as_ref().map_or(believed, |jobs| jobs.contains_key(&self.last.job)));
        let others = told.iter().flatten().any(|jobs| !jobs.is_empty());
        let alive = any || (others && self.last.running == 0);
        self.idle = if alive { 0 } else { self.idle + 1 };
        Ok(if self.idle < LOOKS { Life::Alive } else { Life::Idle })
    }
}
