//! Reads the shards that a [plan](super::plan) names, many at once, and gives their records as they come.
//!
//! ```text
//!  Plan ──ready──▶ one task a shard: ShardReader ⇄ service ──Delivery──┐ bounded
//!    ▲                     │ ended, children                           ├─────────▶ Reader::next, positions()
//!    └─────────────────────┘        … other shards ────────────────────┘
//! ```
//! Within a shard the order is the shard's; a child's records come after those of its parents.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use featurectl_core::{Error, ErrorKind, Result};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::client::Kinesis;
use super::plan::{Ended, From, Plan, Shard, Task, To};
use super::position::{Positions, ShardPoint};
use super::record::{Record, open};
use super::shard::{Command, Event, Failure, Limits, ShardReader, Step, backoff};
use crate::dead_letter::BadRecord;

/// Deliveries that wait for the consumer: with more, a slow consumer would hold up to this many answers in memory.
const WAITING_MAX: usize = 4;

/// Where a read starts and ends. `Default` is all that is in the stream now.
#[derive(Debug, Clone, Default)]
pub struct Range {
    /// [`Whole`](Bound::Whole): with the oldest record.
    pub from: Bound,
    /// [`Whole`](Bound::Whole): with what arrived before the read started.
    pub to: Bound,
}

impl Range {
    /// The same range with the service's time of now where it says so: two reads of it give the same records.
    ///
    /// Errors: those of the service, and [`Invalid`](ErrorKind::Invalid) for a start in the future.
    pub async fn fixed(self, kinesis: &Kinesis, limits: &Limits) -> Result<Self> {
        let (_, now) = list(kinesis, limits).await.map_err(|e| e.context(doing(kinesis)))?;
        let (from, to) = resolve(self, now).map_err(|e| e.context(doing(kinesis)))?;
        let from = match from {
            From::Time(at) => Bound::Time(at),
            From::Positions(p) => Bound::Positions(p),
            From::Horizon => Bound::Whole,
        };
        Ok(Self { from, to: end(&to) })
    }
}

/// One end of a range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Bound {
    /// The oldest record for a start, the newest for an end.
    #[default]
    Whole,
    /// The service's time when the read starts. It is decided once, so that an iterator that must be made again starts
    /// at the same place.
    Latest,
    /// An instant, microseconds UTC.
    Time(i64),
    /// A place in each shard.
    Positions(Positions),
}

impl std::str::FromStr for Bound {
    type Err = Error;

    /// Takes `trim_horizon`, `latest`, a time such as `2026-01-31T12:00:00Z`, or positions such as
    /// `shardId-000000000000:4959…8898,shardId-000000000001:end`.
    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_lowercase().as_str() {
            "trim_horizon" => Ok(Self::Whole),
            "latest" => Ok(Self::Latest),
            lower if lower.starts_with("shardid-") => text.trim().parse().map(Self::Positions),
            _ => super::time::micros(text).map(Self::Time).map_err(|e| {
                let message = format!("{e}; other bounds are `trim_horizon`, `latest`, `shardId-…:<sequence number>`");
                Error::invalid(message)
            }),
        }
    }
}

/// What was read of one shard at once.
#[derive(Debug)]
pub struct Delivery {
    /// The shard.
    pub shard: Arc<str>,
    /// Its next records.
    pub records: Vec<Record>,
    /// Damaged aggregates.
    pub bad: Vec<BadRecord>,
    /// How far the shard is read with them.
    pub point: Option<ShardPoint>,
}

/// A read of a stream. Dropped, it stops.
#[derive(Debug)]
pub struct Reader {
    deliveries: mpsc::Receiver<Delivery>,
    coordinator: Option<JoinHandle<Result<()>>>,
    positions: Positions,
    to: To,
}

impl Reader {
    /// Starts to read. Needs a tokio runtime.
    ///
    /// Errors: [`NotFound`](ErrorKind::NotFound) for a position in a shard that the stream does not have (any more),
    /// [`Invalid`](ErrorKind::Invalid) for a range that ends before it starts, starts in the future, or ends with the
    /// end of an open shard, and those of the service.
    pub async fn start(kinesis: Kinesis, range: Range, limits: Limits) -> Result<Self> {
        let (shards, now) = list(&kinesis, &limits).await.map_err(|e| e.context(doing(&kinesis)))?;
        let (from, to) = resolve(range, now).map_err(|e| e.context(doing(&kinesis)))?;
        let plan = Plan::new(from, to.clone(), shards).map_err(|e| e.context(doing(&kinesis)))?;
        let positions = plan.positions();
        let (out, deliveries) = mpsc::channel(WAITING_MAX);
        let coordinator = tokio::spawn(async move {
            let read = coordinate(&kinesis, plan, &limits, &out).await;
            read.map_err(|e| e.context(doing(&kinesis)))
        });
        Ok(Self { deliveries, coordinator: Some(coordinator), positions, to })
    }

    /// The next records, `None` at the end of the range. After an error there is nothing more.
    pub async fn next(&mut self) -> Option<Result<Delivery>> {
        let Some(delivery) = self.deliveries.recv().await else {
            // The channel closes at the end of the range as well as when a reader fails or panics.
            let joined = self.coordinator.as_mut()?.await;
            self.coordinator = None;
            return match joined {
                Ok(Ok(())) => None,
                Ok(Err(e)) => Some(Err(e)),
                Err(e) => Some(Err(Error::internal(format!("the stream's reader stopped: {e}")))),
            };
        };
        if let Some(point) = delivery.point {
            self.positions.0.insert(delivery.shard.to_string(), point);
        }
        Some(Ok(delivery))
    }

    /// How far each shard is read with what [`next`](Self::next) gave: a read from here gives the rest.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Where the read ends: what a second one needs to end at the same place.
    pub fn to(&self) -> Bound {
        end(&self.to)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.coordinator.iter().for_each(JoinHandle::abort);
    }
}

fn doing(kinesis: &Kinesis) -> String {
    format!("reading stream `{}`", kinesis.stream())
}

fn end(to: &To) -> Bound {
    match to {
        To::Time(at) => Bound::Time(*at),
        To::Positions(p) => Bound::Positions(p.clone()),
    }
}

/// The range with the service's time in it.
fn resolve(range: Range, now: i64) -> Result<(From, To)> {
    let from = match range.from {
        Bound::Whole => From::Horizon,
        Bound::Latest => From::Time(now),
        Bound::Time(at) if at > now => {
            return Err(Error::invalid("the range starts in the future: start at a time that is past, or at `latest`"));
        }
        Bound::Time(at) => From::Time(at),
        Bound::Positions(p) => From::Positions(p),
    };
    let to = match range.to {
        // The service's time is whole seconds: what arrived in this one belongs to the range.
        Bound::Whole | Bound::Latest => To::Time(now + 1_000_000),
        Bound::Time(at) => To::Time(at),
        Bound::Positions(p) => To::Positions(p),
    };
    Ok((from, to))
}

/// All shards of the stream, and the service's time before they were listed.
pub(super) async fn list(kinesis: &Kinesis, limits: &Limits) -> Result<(Vec<Shard>, i64)> {
    let (mut shards, mut token, mut first) = (Vec::new(), None, None);
    let mut failures = 0;
    loop {
        match kinesis.list_shards(token.clone()).await {
            Ok((page, next, now)) => {
                failures = 0;
                shards.extend(page);
                first = first.or(Some(now));
                token = next;
                if token.is_none() {
                    return Ok((shards, first.unwrap_or(now)));
                }
            }
            // A page's token is good for five minutes: start again.
            Err(Failure::Expired) => (shards, token) = (Vec::new(), None),
            Err(Failure::Fatal(e)) => return Err(e.context("listing the shards")),
            Err(Failure::Throttled(e) | Failure::Transient(e)) => {
                failures += 1;
                if failures > limits.failures {
                    let message = format!("listing the shards: no answer after {failures} attempts: {e}");
                    return Err(Error::new(ErrorKind::Unavailable, message));
                }
                tokio::time::sleep(backoff(limits.backoff, failures, random())).await;
            }
        }
    }
}

/// A number from 0 to 1, to keep readers from asking together.
pub(super) fn random() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}

struct Outcome {
    shard: String,
    ended: Ended,
    children: Vec<String>,
}

type Out = mpsc::Sender<Delivery>;

async fn coordinate(kinesis: &Kinesis, mut plan: Plan, limits: &Limits, out: &Out) -> Result<()> {
    let mut running: JoinSet<Result<Option<Outcome>>> = JoinSet::new();
    let mut ready: Vec<Task> = Vec::new();
    loop {
        ready.extend(plan.ready());
        while running.len() < limits.shards.max(1)
            && let Some(task) = ready.pop()
        {
            running.spawn(read_shard(kinesis.clone(), task, limits.clone(), out.clone()));
        }
        let Some(joined) = running.join_next().await else { break };
        let outcome = joined.map_err(|e| Error::internal(format!("a shard's reader stopped: {e}")))??;
        // Without an outcome the consumer is gone.
        let Some(outcome) = outcome else { return Ok(()) };
        if outcome.ended == Ended::Closed {
            find_children(kinesis, &mut plan, &outcome, limits).await?;
        }
        plan.ended(&outcome.shard, outcome.ended);
    }
    if plan.finished() { Ok(()) } else { Err(Error::internal("shards are left whose parents never ended")) }
}

/// A closed shard has at least one child: if it could not be found, its records would be left out silently. All shards
/// are listed again, for a child's other parent may be new as well.
async fn find_children(kinesis: &Kinesis, plan: &mut Plan, of: &Outcome, limits: &Limits) -> Result<()> {
    for attempt in 1..=limits.failures.max(1) {
        if plan.has_child(&of.shard) && of.children.iter().all(|id| plan.knows(id)) {
            return Ok(());
        }
        plan.learn(list(kinesis, limits).await?.0);
        if !plan.has_child(&of.shard) {
            tokio::time::sleep(backoff(limits.backoff, attempt, random())).await;
        }
    }
    let shard = &of.shard;
    Err(Error::new(
        ErrorKind::Unavailable,
        format!("shard `{shard}` is closed, but the service lists none that follows it: read again from its end"),
    ))
}

/// Reads one shard to its end; `None` if nobody takes the records any more.
async fn read_shard(kinesis: Kinesis, task: Task, limits: Limits, out: Out) -> Result<Option<Outcome>> {
    let shard: Arc<str> = task.shard.as_str().into();
    let mut reader = ShardReader::new(task.clone(), limits.clone());
    loop {
        let event = match reader.command() {
            Command::Iterator(at) => kinesis.iterator(&shard, at).await.map(Event::Iterator),
            Command::Fetch(iterator) => kinesis.fetch(iterator, limits.records).await.map(Event::Batch),
            Command::Finish(_) => return Err(Error::internal("a shard's reader goes on behind its end")),
        };
        let step = reader.next(event.unwrap_or_else(Event::Failed), random())?;
        let (ended, children, wait) = (step.command.clone(), step.children.clone(), step.wait);
        if !deliver(&task, &shard, step, &out).await {
            return Ok(None);
        }
        if let Command::Finish(ended) = ended {
            return Ok(Some(Outcome { shard: task.shard, ended, children }));
        }
        sleep(wait).await;
    }
}

async fn sleep(wait: Duration) {
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
}

/// Gives a step's records on, unless there is nothing new. False: nobody takes them any more.
async fn deliver(task: &Task, shard: &Arc<str>, step: Step, out: &Out) -> bool {
    if step.point.is_none() && step.records.is_empty() {
        return !out.is_closed();
    }
    let mut bad = Vec::new();
    let records = open(task, shard, step.records, &mut bad);
    out.send(Delivery { shard: shard.clone(), records, bad, point: step.point }).await.is_ok()
}
