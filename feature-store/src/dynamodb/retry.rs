//! Calls that are made again until they are answered.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use featurectl_core::Result;

use super::failure::{Again, Failure};
use super::gate::Gate;

/// How much is asked of the service at once, and how patiently.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most calls under way at once, of reads and of writes each. There are fewer after the table was throttled.
    pub calls: usize,
    /// First wait after a failure; it doubles with each, up to 100 times itself.
    pub backoff: Duration,
    /// Failures in a row after which a call is given up.
    pub failures: u32,
}

impl Default for Limits {
    /// 64 calls, and about 15 seconds until a call is given up.
    fn default() -> Self {
        Self { calls: 64, backoff: Duration::from_millis(50), failures: 10 }
    }
}

/// Makes the calls of one kind.
#[derive(Debug)]
pub(super) struct Caller {
    gate: Gate,
    limits: Limits,
}

impl Caller {
    pub fn new(limits: &Limits) -> Self {
        Self { gate: Gate::new(limits.calls), limits: limits.clone() }
    }

    /// Makes a call again until it is answered, or refused for good.
    ///
    /// Errors: [`Unavailable`](featurectl_core::ErrorKind::Unavailable) after too many failures in a row; those of the
    /// call.
    pub async fn call<T, F>(&self, make: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut failures = 0;
        loop {
            let pass = self.gate.enter().await?;
            let failure = match make().await {
                Ok(answer) => {
                    pass.answered();
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            if failure.again == Again::Slower {
                pass.throttled();
            } else {
                drop(pass);
            }
            failures += 1;
            self.wait(failures, failure).await?;
        }
    }

    /// Fewer calls at once, for an answer that says that only a part was carried out.
    pub fn slow_down(&self) {
        self.gate.slow_down();
    }

    /// Waits before the next attempt; its error if there is none.
    pub async fn wait(&self, failures: u32, failure: Failure) -> Result<()> {
        if failure.again == Again::Never {
            return Err(failure.error);
        }
        if failures > self.limits.failures {
            return Err(failure.error.context(format!("after {failures} attempts")));
        }
        tokio::time::sleep(self.pause(failures)).await;
        Ok(())
    }

    /// A wait that doubles with each failure; its random half keeps callers from asking together.
    pub fn pause(&self, failures: u32) -> Duration {
        let longest = self.limits.backoff.mul_f64(f64::from(1_u32 << (failures - 1).min(16)).min(100.0));
        longest.mul_f64(0.5 + 0.5 * (random() as f64 / u64::MAX as f64))
    }
}

/// A number that nobody else has.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
