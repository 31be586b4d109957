//! Puts the rows of a file into a stream.
//!
//! ```text
//!  rows ──▶ [aggregates, one a shard] ──▶ Outbox ──≤ 500 records, ≤ 5 MiB, one a lane──▶ PutRecords
//!                                           ▲                                               │
//!                                           └──────── those that failed, to the front ──────┘
//! ```
//! A lane is what must stay in order: the rows of one key, or the aggregates of one shard. A call holds one record of a
//! lane at most, since a call may take the second and refuse the first.
//!
//! A call that gets no answer may have been carried out. It is made again, so its records may be in the stream twice.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use featurectl_core::{Error, ErrorKind, Result};

use super::aggregate::{Part, hash_key, pack, packed_len_max};
use super::client::{Entry, Kinesis};
use super::plan::Shard;
use super::reader::{list, random};
use super::rows::{Row, rows};
use super::shard::{Failure, Limits, backoff};

/// Records of one call.
const CALL_RECORDS_MAX: usize = 500;

/// Bytes of one call, keys included; more if a single record may be larger.
const CALL_BYTES_MAX: usize = 5 << 20;

/// Bytes of one aggregate. Small enough that a call holds those of many shards.
const AGGREGATE_BYTES_MAX: usize = 256 << 10;

/// Records that wait to be put; among them a call looks for those of different lanes.
const WAITING_MAX: usize = 5_000;

/// Bytes of records that wait to be put.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// Characters of a partition key.
const KEY_CHARS_MAX: usize = 256;

/// How rows are put.
#[derive(Debug, Clone)]
pub struct PutOptions {
    /// The column whose value is the partition key; its rows stay in order. `None`: rows are spread over all shards.
    pub key: Option<String>,
    /// Whether many rows go into one record, as the Kinesis Producer Library packs them.
    pub aggregate: bool,
    /// Most bytes of one record with its key: 1 MiB, unless the stream was set to take up to 10.
    pub record_bytes_max: usize,
    /// First wait after a failure; it doubles with each.
    pub backoff: Duration,
    /// Calls in a row that put nothing after which it is given up.
    pub failures: u32,
}

impl Default for PutOptions {
    fn default() -> Self {
        Self {
            key: None,
            aggregate: false,
            record_bytes_max: 1 << 20,
            backoff: Duration::from_millis(100),
            failures: 20,
        }
    }
}

/// What was put.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PutReport {
    /// Rows of the file.
    pub rows: u64,
    /// Records that hold them.
    pub records: u64,
    /// Bytes of the records.
    pub bytes: u64,
    /// Records that were refused and put again.
    pub retried: u64,
    /// Records of calls without an answer, which may be in the stream twice.
    pub maybe_twice: u64,
}

/// Puts all rows of a file of JSON lines, CSV or Parquet, as JSON objects.
///
/// Errors: [`Invalid`](ErrorKind::Invalid) for a row that is too large or a key that is none,
/// [`Unavailable`](ErrorKind::Unavailable) after too many failures in a row; the message says how many rows were put.
/// Those of the file and of the service.
pub async fn put_file(kinesis: &Kinesis, path: &Path, options: &PutOptions) -> Result<PutReport> {
    let mut producer = Producer::new(kinesis, options).await?;
    let put = producer.put_all(path).await;
    let put_rows = producer.put_rows;
    put.map_err(|e| e.context(format!("putting {}, {put_rows} rows are put", path.display())))?;
    Ok(producer.report)
}

/// A record that waits to be put.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pending {
    /// What must stay in order; `None`: nothing.
    lane: Option<String>,
    entry: Entry,
    rows: u64,
}

impl Pending {
    fn bytes(&self) -> usize {
        self.entry.partition_key.len() + self.entry.data.len()
    }
}

/// Records that wait, in order.
#[derive(Debug, Default)]
struct Outbox {
    waiting: VecDeque<Pending>,
    bytes: usize,
}

impl Outbox {
    fn push(&mut self, pending: Pending) {
        self.bytes += pending.bytes();
        self.waiting.push_back(pending);
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX || self.bytes >= WAITING_BYTES_MAX
    }

    /// Takes the records of one call: the first of each lane, as many as a call may hold.
    fn take_call(&mut self, bytes_max: usize) -> Vec<Pending> {
        let (mut call, mut rest) = (Vec::new(), VecDeque::with_capacity(self.waiting.len()));
        let (mut lanes, mut bytes) = (HashSet::new(), 0);
        for pending in self.waiting.drain(..) {
            let len = pending.bytes();
            let fits = call.len() < CALL_RECORDS_MAX && bytes + len <= bytes_max;
            // A record that must wait holds up its lane.
            let first = pending.lane.as_ref().is_none_or(|lane| lanes.insert(lane.clone()));
            if fits && first {
                bytes += len;
                call.push(pending);
            } else {
                rest.push_back(pending);
            }
        }
        self.waiting = rest;
        self.bytes -= bytes;
        call
    }

    /// Puts records that failed before all others, in their order.
    fn put_back(&mut self, failed: Vec<Pending>) {
        for pending in failed.into_iter().rev() {
            self.bytes += pending.bytes();
            self.waiting.push_front(pending);
        }
    }
}

struct Producer<'a> {
    kinesis: &'a Kinesis,
    options: &'a PutOptions,
    outbox: Outbox,
    /// The stream's shards and the rows that wait for their aggregate; empty without aggregation.
    open: BTreeMap<String, OpenAggregate>,
    report: PutReport,
    put_rows: u64,
    failures: u32,
}

/// The aggregate of one shard that is being filled.
struct OpenAggregate {
    hash_keys: (u128, u128),
    parts: Vec<Part>,
    bytes: usize,
}

impl<'a> Producer<'a> {
    async fn new(kinesis: &'a Kinesis, options: &'a PutOptions) -> Result<Self> {
        let limits = Limits { backoff: options.backoff, failures: options.failures, ..Limits::default() };
        let shards = if options.aggregate { list(kinesis, &limits).await?.0 } else { Vec::new() };
        let aggregate = |s: Shard| (s.id, OpenAggregate { hash_keys: s.hash_keys, parts: Vec::new(), bytes: 0 });
        let open = shards.into_iter().filter(|s| !s.closed).map(aggregate).collect();
        let (outbox, report) = (Outbox::default(), PutReport::default());
        Ok(Self { kinesis, options, outbox, open, report, put_rows: 0, failures: 0 })
    }

    async fn put_all(&mut self, path: &Path) -> Result<()> {
        for some in rows(path, self.options.key.as_deref())? {
            for row in some? {
                self.add(row)?;
                while self.outbox.is_full() {
                    self.call().await?;
                }
            }
        }
        self.close_all();
        while !self.outbox.waiting.is_empty() {
            self.call().await?;
        }
        Ok(())
    }

    fn add(&mut self, row: Row) -> Result<()> {
        self.report.rows += 1;
        let lane = row.key.clone();
        let partition_key = row.key.unwrap_or_else(|| row.number.to_string());
        let chars = partition_key.chars().count();
        if chars == 0 || chars > KEY_CHARS_MAX {
            let message = format!("row {}: its key has {chars} characters, not 1 to {KEY_CHARS_MAX}", row.number);
            return Err(Error::invalid(message));
        }
        let len = partition_key.len() + row.data.len();
        if len > self.options.record_bytes_max {
            let max = self.options.record_bytes_max;
            let message = format!("row {} has {len} bytes; a record holds {max} at most", row.number);
            return Err(Error::invalid(message));
        }
        if self.options.aggregate {
            return self.add_part(Part { partition_key, explicit_hash_key: None, data: row.data });
        }
        let entry = Entry { partition_key, explicit_hash_key: None, data: row.data };
        self.outbox.push(Pending { lane, entry, rows: 1 });
        Ok(())
    }

    /// Adds a row to the aggregate of the shard that its key belongs to. One that is too large for an aggregate goes
    /// alone, behind those before it.
    fn add_part(&mut self, part: Part) -> Result<()> {
        let hash = hash_key(&part.partition_key);
        let takes = |a: &OpenAggregate| (a.hash_keys.0..=a.hash_keys.1).contains(&hash);
        let Some((shard, open)) = self.open.iter_mut().find(|(_, a)| takes(a)) else {
            return Err(Error::data(
                "the stream has no open shard for a key: try again when it is not being resharded",
            ));
        };
        let len = packed_len_max(&part);
        let max = AGGREGATE_BYTES_MAX.min(self.options.record_bytes_max / 2);
        if open.bytes + len > max {
            open.close(shard, &mut self.outbox);
        }
        if len > max {
            let entry = Entry { partition_key: part.partition_key, explicit_hash_key: None, data: part.data };
            self.outbox.push(Pending { lane: Some(shard.clone()), entry, rows: 1 });
            return Ok(());
        }
        open.bytes += len;
        open.parts.push(part);
        Ok(())
    }

    fn close_all(&mut self) {
        for (shard, open) in &mut self.open {
            open.close(shard, &mut self.outbox);
        }
    }

    /// One call, and what its answer means.
    async fn call(&mut self) -> Result<()> {
        let bytes_max = CALL_BYTES_MAX.max(self.options.record_bytes_max);
        let call = self.outbox.take_call(bytes_max);
        let entries: Vec<Entry> = call.iter().map(|p| p.entry.clone()).collect();
        let reason = match self.kinesis.put(&entries).await {
            Ok(answers) => self.answered(call, answers),
            Err(Failure::Fatal(e)) => return Err(e),
            Err(Failure::Throttled(e)) => self.refused(call, e),
            Err(Failure::Expired) => self.refused(call, "the token expired".into()),
            Err(Failure::Transient(e)) => {
                self.report.maybe_twice += call.len() as u64;
                self.refused(call, e)
            }
        };
        let Some(reason) = reason else { return Ok(()) };
        if self.failures > self.options.failures {
            let message = format!("nothing was put in {} calls: {reason}", self.failures);
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        tokio::time::sleep(backoff(self.options.backoff, self.failures, random())).await;
        Ok(())
    }

    /// Why some were not put, if so.
    fn answered(&mut self, call: Vec<Pending>, answers: Vec<Option<String>>) -> Option<String> {
        let (mut failed, mut reason, mut put) = (Vec::new(), None, 0);
        for (pending, answer) in call.into_iter().zip(answers) {
            match answer {
                Some(why) => {
                    reason = Some(why);
                    failed.push(pending);
                }
                None => {
                    put += 1;
                    self.put_rows += pending.rows;
                    self.report.bytes += pending.entry.data.len() as u64;
                }
            }
        }
        self.report.records += put;
        self.report.retried += failed.len() as u64;
        self.failures = if put > 0 { 1 } else { self.failures + 1 };
        self.outbox.put_back(failed);
        if reason.is_none() {
            self.failures = 0;
        }
        reason
    }

    fn refused(&mut self, call: Vec<Pending>, reason: String) -> Option<String> {
        self.failures += 1;
        self.report.retried += call.len() as u64;
        self.outbox.put_back(call);
        Some(reason)
    }
}

impl OpenAggregate {
    /// Moves its rows to the outbox as one record. A single row needs no aggregate.
    fn close(&mut self, shard: &str, outbox: &mut Outbox) {
        let parts = std::mem::take(&mut self.parts);
        self.bytes = 0;
        let Some(first) = parts.first() else { return };
        let single = parts.len() == 1;
        let data: Bytes = if single { first.data.clone() } else { pack(&parts) };
        let explicit_hash_key = (!single).then_some(self.hash_keys.0);
        let entry = Entry { partition_key: first.partition_key.clone(), explicit_hash_key, data };
        outbox.push(Pending { lane: Some(shard.to_string()), entry, rows: parts.len() as u64 });
    }
}

#[cfg(test)]
mod tests;
