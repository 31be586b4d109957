//! Records as their producers put them: aggregates are opened.

use std::sync::Arc;

use bytes::Bytes;
use featurectl_core::Position;

use super::aggregate;
use super::plan::{Start, Stop, Task};
use super::shard::RawRecord;
use crate::dead_letter::BadRecord;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The shard that it was read from.
    pub shard: Arc<str>,
    /// The sequence number of what held it.
    pub sequence: Position,
    /// Its number within an aggregate, counted from 0; `None` for a record that was put alone.
    pub sub: Option<u64>,
    /// When it arrived, by the service's clock, microseconds UTC.
    pub arrival: i64,
    /// Its partition key.
    pub partition_key: String,
    /// The hash key that its producer chose; known for records of aggregates only.
    pub explicit_hash_key: Option<String>,
    /// Its payload.
    pub data: Bytes,
}

/// The records of a task in `raw`. Damaged aggregates go to `bad`, whole.
pub fn open(task: &Task, shard: &Arc<str>, raw: Vec<RawRecord>, bad: &mut Vec<BadRecord>) -> Vec<Record> {
    let mut records = Vec::with_capacity(raw.len());
    for r in raw {
        match aggregate::open(&r.data) {
            Ok(None) => records.push(Record {
                shard: shard.clone(),
                sequence: r.sequence,
                sub: None,
                arrival: r.arrival,
                partition_key: r.partition_key,
                explicit_hash_key: None,
                data: r.data,
            }),
            Ok(Some(parts)) => records.extend(wanted_parts(task, shard, &r, parts)),
            Err(e) => bad.push(BadRecord {
                shard: shard.clone(),
                sequence: r.sequence,
                sub: None,
                arrival: r.arrival,
                reason: e.to_string(),
                data: r.data,
            }),
        }
    }
    records
}

/// The parts of an aggregate behind the one that a read starts after, and up to the one it ends with.
fn wanted_parts(
    task: &Task,
    shard: &Arc<str>,
    raw: &RawRecord,
    parts: Vec<aggregate::Part>,
) -> impl Iterator<Item = Record> {
    let first = match task.start {
        Start::After { sequence, sub: Some(sub) } if sequence == raw.sequence => sub.saturating_add(1),
        _ => 0,
    };
    let last = match task.stop {
        Stop::At { sequence, sub: Some(sub) } if sequence == raw.sequence => sub,
        _ => u64::MAX,
    };
    let numbered = (0_u64..).zip(parts).filter(move |(sub, _)| (first..=last).contains(sub));
    let (shard, sequence, arrival) = (shard.clone(), raw.sequence, raw.arrival);
    numbered.map(move |(sub, part)| Record {
        shard: shard.clone(),
        sequence,
        sub: Some(sub),
        arrival,
        partition_key: part.partition_key,
        explicit_hash_key: part.explicit_hash_key,
        data: part.data,
    })
}
