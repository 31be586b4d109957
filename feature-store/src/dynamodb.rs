//! The online store in DynamoDB: how tiles lie in a table, the store over it, and a table filled by import.
//!
//! ```text
//!             ┌─ put ──▶ parts, then a header if it is newer ─┐
//!             ├─ fill ─▶ batches of headers                   │
//!  DynamoStore┼─ read ─▶ one Query a range, drained; tiles    ├─▶ Caller: gate, retries ─▶ Table: the SDK
//!             │          that have a name in batches          │
//!             └─ remove ▶ Scan of keys, batches of deletes    ┘
//!
//!  tiles sorted by key ──▶ Item (key, attributes) ──▶ DynamoDB JSON, gzip ──▶ ImportTable ──▶ a table of its own
//! ```
//! `item` knows the layout and no network; `client` asks the service and decides nothing.

mod batch;
mod client;
mod cost;
mod failure;
mod files;
mod gate;
mod import;
mod item;
mod put;
mod read;
mod remove;
mod retry;
mod store;
mod table;

pub use client::Table;
pub use cost::{Sample, Usage, usage};
pub use featurectl_aws::Access;
pub use import::{Import, Progress};
pub use retry::Limits;
pub use store::DynamoStore;
pub use table::TableOptions;
