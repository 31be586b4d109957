//! The Glue catalog: tables of it in SQL, and tables of ours in it.
//!
//! ```text
//!  glue.db.t ──catalog──▶ GetTable ─┬ Delta ───────────▶ the table's log
//!                                   └ files ──table────▶ GetPartitions, lists, a scan
//!  an offline table, a COPY ──register──▶ CreateTable, UpdateTable, BatchCreatePartition
//!  messages of a stream ──schemas──▶ GetSchemaVersion
//! ```

mod catalog;
mod client;
mod format;
mod register;
mod schemas;
mod table;
mod types;

pub use catalog::{add_catalog, register_catalog};
pub use register::{Database, Registration, StoredAs};
pub(crate) use schemas::SchemaRegistry;
pub(crate) use table::HiveTable;
