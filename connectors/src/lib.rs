//! Where rows come from: files, object stores and Delta tables; later streams and catalogs.
//!
//! ```text
//!  LOCATION 'data/x.parquet' ──locate──▶ an existing path ──DataFusion──▶ TableProvider ──source_version──▶ hash
//! ```

mod files;

pub use files::{SourceFile, files_version, locate, only_files, register_formats, source_files, source_version};
