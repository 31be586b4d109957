//! Kinesis streams: bounded reads, and puts.
//!
//! ```text
//!  ListShards ─▶ plan ─▶ shard by shard: GetRecords ─▶ aggregates opened ─▶ Record ─▶ decoder ─▶ RecordBatch
//!               (lineage)  (state machine)                  │                            │
//!                                                           └── damaged ─▶ dead letters ◀┘ not readable
//! ```
//! `plan` and `shard` decide and know no network; `client` asks the service and decides nothing; `reader` and `put` join
//! the two.

mod aggregate;
mod client;
mod plan;
mod position;
mod put;
mod reader;
mod record;
mod rows;
mod scan;
mod shard;
mod table;
mod time;

pub use aggregate::{Part, hash_key, open as open_aggregate, pack};
pub use client::{Entry, Kinesis};
pub use featurectl_aws::Access;
pub use plan::Shard;
pub use position::{Positions, ShardPoint, digits, sequence};
pub use put::{PutOptions, PutReport, put_file};
pub use reader::{Bound, Delivery, Range, Reader};
pub use record::Record;
pub use scan::StreamTable;
pub use shard::Limits;
pub use table::register_streams;
pub use time::{micros, rfc3339};
