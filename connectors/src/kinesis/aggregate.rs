//! Aggregates: many small records in one, as the Kinesis Producer Library (KPL) packs them.
//!
//! ```text
//!  F3 89 9A C2 │ protobuf: keys [k0, k1, …]  explicit hash keys [h0, …]  records [(0, –, data), (1, 0, data), …] │ MD5
//!  └─ magic ─┘ └──────────────────────────────── MD5 is of this ───────────────────────────────────────────────┘ 16 B
//! ```
//! All records of an aggregate share its sequence number; the sub-sequence number counts them from 0. Each of them is
//! given, whatever shard its own hash key would belong to: an aggregate is stored once, so nobody else will give it.

use bytes::{Bytes, BytesMut};
use featurectl_core::{Error, Result};
use md5::{Digest, Md5};
use prost::Message;

/// The first bytes of an aggregate.
pub const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];

const DIGEST_LEN: usize = 16;

#[derive(Clone, PartialEq, Message)]
struct AggregatedRecord {
    #[prost(string, repeated, tag = "1")]
    partition_keys: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    explicit_hash_keys: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    records: Vec<SubRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct SubRecord {
    #[prost(uint64, optional, tag = "1")]
    partition_key: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    explicit_hash_key: Option<u64>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    data: Option<Bytes>,
}

/// One record of an aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its own partition key.
    pub partition_key: String,
    /// The hash key that its producer chose for it.
    pub explicit_hash_key: Option<String>,
    /// Its payload.
    pub data: Bytes,
}

/// The records of an aggregate, `None` if `data` is none.
///
/// Errors: [`Data`](featurectl_core::ErrorKind::Data) if it is damaged; then none of its records can be trusted.
pub fn open(data: &Bytes) -> Result<Option<Vec<Part>>> {
    if !data.starts_with(&MAGIC) {
        return Ok(None);
    }
    let damaged = |why: &str| Error::data(format!("damaged aggregate: {why}"));
    let Some(end) = data.len().checked_sub(DIGEST_LEN).filter(|end| *end >= MAGIC.len()) else {
        return Err(damaged("it is cut off"));
    };
    let body = data.slice(MAGIC.len()..end);
    if Md5::digest(&body).as_slice() != &data[end..] {
        return Err(damaged("its MD5 is of other bytes"));
    }
    let message = AggregatedRecord::decode(body).map_err(|e| damaged(&e.to_string()))?;
    let parts: Option<Vec<Part>> = message.records.iter().map(|r| part(&message, r)).collect();
    parts.map(Some).ok_or_else(|| damaged("a record has no data, or names a key that is not there"))
}

fn part(of: &AggregatedRecord, record: &SubRecord) -> Option<Part> {
    let key = |i: u64, keys: &[String]| keys.get(usize::try_from(i).ok()?).cloned();
    let explicit_hash_key = match record.explicit_hash_key {
        Some(i) => Some(key(i, &of.explicit_hash_keys)?),
        None => None,
    };
    let partition_key = key(record.partition_key?, &of.partition_keys)?;
    Some(Part { partition_key, explicit_hash_key, data: record.data.clone()? })
}

/// Packs `parts` into one aggregate.
pub fn pack(parts: &[Part]) -> Bytes {
    let mut message = AggregatedRecord::default();
    for part in parts {
        let partition_key = Some(index(&mut message.partition_keys, &part.partition_key));
        let explicit_hash_key = part.explicit_hash_key.as_ref().map(|k| index(&mut message.explicit_hash_keys, k));
        message.records.push(SubRecord { partition_key, explicit_hash_key, data: Some(part.data.clone()) });
    }
    let mut out = BytesMut::from(&MAGIC[..]);
    out.extend_from_slice(&message.encode_to_vec());
    let digest = Md5::digest(&out[MAGIC.len()..]);
    out.extend_from_slice(&digest);
    out.freeze()
}

/// The place of `key` in `keys`, added if it is not the last one: rows of a key mostly follow each other.
fn index(keys: &mut Vec<String>, key: &str) -> u64 {
    if keys.last().is_none_or(|last| last != key) {
        keys.push(key.to_string());
    }
    keys.len() as u64 - 1
}

/// The most bytes that `part` adds to an aggregate.
pub fn packed_len_max(part: &Part) -> usize {
    const LENGTHS_AND_TAGS: usize = 48;
    let hash_key = part.explicit_hash_key.as_ref().map_or(0, String::len);
    part.partition_key.len() + hash_key + part.data.len() + LENGTHS_AND_TAGS
}

/// The hash key by which the service chooses the shard of a partition key.
pub fn hash_key(partition_key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(partition_key.as_bytes()).into())
}

#[cfg(test)]
mod tests;
