//! Where rows come from: files, object stores, Delta tables, the Glue catalog and Kinesis streams.
//!
//! ```text
//!  LOCATION 'data/x.parquet' ──locate──▶ an existing path ──DataFusion──▶ TableProvider ──source_version──▶ hash
//!  LOCATION 'kinesis://x' ──kinesis──▶ records ──decode──▶ RecordBatch
//!                              └── damaged ──▶ dead_letter ◀──┘ unreadable
//! ```

mod dead_letter;
pub mod decode;
mod files;
pub mod glue;
pub mod kinesis;

pub use dead_letter::{BadRecord, DeadLetters};
pub use files::{SourceFile, files_version, locate, only_files, register_formats, source_files, source_version};
