//! The read of one shard: a state machine that is told what the service answered and says what to do next.
//!
//! ```text
//!               Iterator(at)                    Fetch(iterator)
//!  start ──▶ GetShardIterator ──Event::Iterator──▶ GetRecords ──Event::Batch──▶ records out, then
//!                  ▲                                   │   ▲        next iterator ──┘   │
//!                  └──────── expired (after the last) ─┘   └── throttled: wait, again ──┘──▶ Finish
//! ```
//! It has no clock: each answer carries the service's own time. It ends
//! - at the end of a closed shard,
//! - with a record behind the end of the range,
//! - when an *empty* answer says that the reader is at the tip, at a time when nothing can arrive any more that the range
//!   would hold.
//!
//! An empty answer alone means nothing: the service gives some in the middle of a shard.

use std::time::Duration;

use bytes::Bytes;
use featurectl_core::{Error, ErrorKind, Position, Result};

use super::plan::{Ended, Start, Stop, Task};
use super::position::{ShardPoint, digits};

/// What the service allows, and how patient a read is.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Least time between two reads of a shard, which takes five a second.
    pub interval: Duration,
    /// Bytes a second that a shard gives.
    pub bytes_per_second: u64,
    /// Records asked for at once.
    pub records: i32,
    /// The longest that a record may take from its arrival until it can be read, and the most by which arrival times
    /// may be out of order.
    pub settle: Duration,
    /// First wait after a failure; it doubles with each, up to 100 times itself.
    pub backoff: Duration,
    /// Failures in a row after which the read stops.
    pub failures: u32,
    /// Shards read at once.
    pub shards: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(200),
            bytes_per_second: 2 << 20,
            records: 10_000,
            settle: Duration::from_secs(2),
            backoff: Duration::from_millis(100),
            failures: 20,
            shards: 64,
        }
    }
}

/// A record as the service gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// Its sequence number.
    pub sequence: Position,
    /// When it arrived, by the service's clock, microseconds UTC.
    pub arrival: i64,
    /// Its partition key.
    pub partition_key: String,
    /// Its payload; several records if it is an aggregate.
    pub data: Bytes,
}

/// An answer with records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The records in the shard's order; there may be none.
    pub records: Vec<RawRecord>,
    /// Where to go on; `None` at the end of a closed shard.
    pub next: Option<String>,
    /// At the end of a closed shard: the ids of those that follow, where the service names them.
    pub children: Vec<String>,
    /// How far behind the shard's tip the reader is.
    pub behind_ms: i64,
    /// The service's time when it answered, microseconds UTC, rounded down.
    pub now: i64,
}

/// Why a call had no answer.
#[derive(Debug)]
pub enum Failure {
    /// The iterator is older than five minutes.
    Expired,
    /// Too many calls or bytes: wait, then ask again.
    Throttled(String),
    /// The service or the network is disturbed: ask again.
    Transient(String),
    /// Asking again gives the same.
    Fatal(Error),
}

/// What the service answered.
#[derive(Debug)]
pub enum Event {
    /// An iterator.
    Iterator(String),
    /// Records.
    Batch(Batch),
    /// Neither.
    Failed(Failure),
}

/// Where an iterator starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IteratorAt {
    /// With the oldest record.
    Horizon,
    /// With what arrived at or after this instant, microseconds UTC.
    Time(i64),
    /// With this record.
    At(Position),
    /// After this record.
    After(Position),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Ask for an iterator.
    Iterator(IteratorAt),
    /// Ask for records.
    Fetch(String),
    /// The shard is read.
    Finish(Ended),
}

/// What follows from an answer.
#[derive(Debug)]
pub struct Step {
    /// Records of the range, in order.
    pub records: Vec<RawRecord>,
    /// How far the shard is read with them.
    pub point: Option<ShardPoint>,
    /// Ids of the shards that follow this one.
    pub children: Vec<String>,
    /// How long to wait first.
    pub wait: Duration,
    /// What to do then.
    pub command: Command,
}

impl Step {
    fn only(command: Command, wait: Duration) -> Self {
        Self { records: Vec::new(), point: None, children: Vec::new(), wait, command }
    }
}

/// How one shard is being read.
#[derive(Debug)]
pub struct ShardReader {
    task: Task,
    limits: Limits,
    /// The iterator to start with, and again as long as no record was read.
    first: IteratorAt,
    last: Option<Position>,
    command: Command,
    failures: u32,
    stuck: (i64, u32),
}

/// Empty answers after which a reader that comes no nearer to the tip gives up.
const EMPTY_ANSWERS_MAX: u32 = 1_000;

/// The longest wait at the tip for records that may still come.
const TIP_WAIT_US: i64 = 1_000_000;

impl ShardReader {
    /// A reader of `task` that has asked nothing yet.
    pub fn new(task: Task, limits: Limits) -> Self {
        let settle = limits.settle.as_micros() as i64;
        let first = match task.start {
            Start::Horizon => IteratorAt::Horizon,
            Start::Time(at) => IteratorAt::Time(at.saturating_sub(settle)),
            Start::After { sequence, .. } => IteratorAt::At(sequence),
        };
        Self { task, limits, first, last: None, command: Command::Iterator(first), failures: 0, stuck: (i64::MAX, 0) }
    }

    /// What to do next.
    pub fn command(&self) -> Command {
        self.command.clone()
    }

    /// Takes an answer. `jitter` is a random number from 0 to 1.
    ///
    /// Errors: [`Unavailable`](ErrorKind::Unavailable) after too many failures in a row,
    /// [`Data`](ErrorKind::Data) if records after the start are past the retention, and what the service refused.
    pub fn next(&mut self, event: Event, jitter: f64) -> Result<Step> {
        let step = match event {
            Event::Iterator(iterator) => Ok(Step::only(Command::Fetch(iterator), Duration::ZERO)),
            Event::Batch(batch) => self.batch(batch),
            Event::Failed(failure) => self.failed(failure, jitter),
        };
        let step = step.map_err(|e| e.context(format!("reading shard `{}`", self.task.shard)))?;
        self.command = step.command.clone();
        Ok(step)
    }

    fn failed(&mut self, failure: Failure, jitter: f64) -> Result<Step> {
        self.failures += 1;
        let (command, reason) = match failure {
            Failure::Expired => (Command::Iterator(self.resume()), "its iterators expire before they are used".into()),
            Failure::Throttled(e) => (self.command.clone(), format!("the service throttles: {e}; read less at once")),
            Failure::Transient(e) => (self.command.clone(), e),
            Failure::Fatal(e) => return Err(e),
        };
        if self.failures > self.limits.failures {
            let times = self.failures;
            return Err(Error::new(ErrorKind::Unavailable, format!("no answer after {times} attempts: {reason}")));
        }
        let wait = backoff(self.limits.backoff, self.failures, jitter);
        Ok(Step::only(command, wait))
    }

    /// Where an iterator must start so that nothing is left out and nothing is read twice.
    fn resume(&self) -> IteratorAt {
        self.last.map_or(self.first, IteratorAt::After)
    }

    fn batch(&mut self, batch: Batch) -> Result<Step> {
        self.failures = 0;
        self.check_start(&batch.records)?;
        self.check_progress(&batch)?;
        let bytes: usize = batch.records.iter().map(|r| r.data.len()).sum();
        let past = batch.records.iter().any(|r| self.is_past(r));
        let at_tip = batch.records.is_empty() && batch.behind_ms <= 0 && self.nothing_can_come(batch.now);
        let wait = if batch.records.is_empty() { self.tip_wait(&batch) } else { self.pace(bytes) };
        let last = batch.records.iter().map(|r| r.sequence).max();
        let records = self.wanted(batch.records);
        self.last = self.last.max(last);
        let command = match batch.next {
            _ if past => Command::Finish(Ended::Bound),
            // Also if there is no record of the range in it: there may be some in its children.
            None => Command::Finish(Ended::Closed),
            Some(_) if at_tip => Command::Finish(Ended::Bound),
            Some(next) => Command::Fetch(next),
        };
        let point = self.point(&command);
        Ok(Step { records, point, children: batch.children, wait, command })
    }

    /// Reading goes on with the record after which it starts: if that one is gone, others may be too.
    fn check_start(&self, records: &[RawRecord]) -> Result<()> {
        let (Start::After { sequence, .. }, None, Some(first)) = (self.task.start, self.last, records.first()) else {
            return Ok(());
        };
        if first.sequence == sequence {
            return Ok(());
        }
        Err(Error::data(format!(
            "record {} is past the stream's retention, so records after it may be lost; read from a time or from \
             `trim_horizon`, or extend the retention",
            digits(sequence)
        )))
    }

    /// A reader that gets nothing and comes no nearer to the tip would never end.
    fn check_progress(&mut self, batch: &Batch) -> Result<()> {
        let nearer = !batch.records.is_empty() || batch.behind_ms < self.stuck.0 || batch.behind_ms <= 0;
        self.stuck = if nearer { (batch.behind_ms, 0) } else { (self.stuck.0, self.stuck.1 + 1) };
        if self.stuck.1 < EMPTY_ANSWERS_MAX {
            return Ok(());
        }
        let (behind, times) = (batch.behind_ms, self.stuck.1);
        let message = format!("{times} answers without a record, and the tip stays {behind} ms away: try again later");
        Err(Error::new(ErrorKind::Unavailable, message))
    }

    /// The records of the range that were not given before.
    fn wanted(&self, records: Vec<RawRecord>) -> Vec<RawRecord> {
        let mut last = self.last;
        let mut out = Vec::with_capacity(records.len());
        for record in records {
            let new = last.is_none_or(|l| record.sequence > l);
            last = last.max(Some(record.sequence));
            if new && self.is_in_range(&record) {
                out.push(record);
            }
        }
        out
    }

    fn is_in_range(&self, record: &RawRecord) -> bool {
        let started = match self.task.start {
            Start::Horizon => true,
            Start::Time(from) => record.arrival >= from,
            Start::After { sequence, sub } => {
                record.sequence > sequence || (record.sequence == sequence && sub.is_some())
            }
        };
        let ended = match self.task.stop {
            Stop::Time(to) => record.arrival >= to,
            Stop::At { sequence, .. } => record.sequence > sequence,
            Stop::End => false,
        };
        started && !ended
    }

    fn is_past(&self, record: &RawRecord) -> bool {
        match self.task.stop {
            Stop::Time(to) => record.arrival >= self.settled(to),
            Stop::At { sequence, .. } => record.sequence >= sequence,
            Stop::End => false,
        }
    }

    fn nothing_can_come(&self, now: i64) -> bool {
        match self.task.stop {
            Stop::Time(to) => now >= self.settled(to),
            // The record was read once, so it is before the tip, or past the retention.
            Stop::At { .. } => true,
            Stop::End => false,
        }
    }

    fn settled(&self, to: i64) -> i64 {
        to.saturating_add(self.limits.settle.as_micros() as i64)
    }

    /// Time until a shard takes the next read and has given back the bytes of this one.
    fn pace(&self, bytes: usize) -> Duration {
        let drained = Duration::from_secs_f64(bytes as f64 / self.limits.bytes_per_second.max(1) as f64);
        self.limits.interval.max(drained)
    }

    /// At the tip there is no hurry before the range's end can be decided.
    fn tip_wait(&self, batch: &Batch) -> Duration {
        let Stop::Time(to) = self.task.stop else { return self.limits.interval };
        if batch.behind_ms > 0 || batch.next.is_none() {
            return self.limits.interval;
        }
        let left = self.settled(to).saturating_sub(batch.now).clamp(0, TIP_WAIT_US);
        self.limits.interval.max(Duration::from_micros(left as u64))
    }

    /// How far the shard is read. Where a time bounds the range, the next one starts with that time.
    fn point(&self, command: &Command) -> Option<ShardPoint> {
        match (command, self.task.stop) {
            (Command::Finish(Ended::Closed), _) => Some(ShardPoint::End),
            (Command::Finish(Ended::Bound), Stop::Time(to)) => Some(ShardPoint::Time(to)),
            (Command::Finish(Ended::Bound), Stop::At { sequence, sub }) => Some(ShardPoint::After { sequence, sub }),
            _ => self.last.map(|sequence| ShardPoint::After { sequence, sub: None }),
        }
    }
}

/// A wait that doubles with each failure, up to 100 times the first; the random part keeps readers from asking together.
pub fn backoff(first: Duration, failures: u32, jitter: f64) -> Duration {
    let longest = first.mul_f64(f64::from(1_u32 << failures.min(16)).min(100.0));
    longest.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests;
