//! The online store in DynamoDB: how tiles lie in a table, the store over it, and a table filled by import.
//!
//! ```text
//!             ┌─ put ──▶ parts, then a header if it is newer ─┐
//!  DynamoStore┼─ read ─▶ one Query a range, drained           ├─▶ Caller: gate, retries ─▶ Table: the SDK
//!             └─ remove ▶ Scan of keys, batches of deletes    ┘
//!
//!  tiles sorted by key ──▶ Item (key, attributes) ──▶ DynamoDB JSON, gzip ──▶ import-00000.json.gz …
//!                                                                             import.json (for ImportTable)
//! ```
//! `item` knows the layout and no network; `client` asks the service and decides nothing.

mod client;
mod failure;
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
pub use featurectl_aws::Access;
pub use import::{ImportPlan, write_import};
pub use retry::Limits;
pub use store::DynamoStore;
pub use table::TableOptions;
