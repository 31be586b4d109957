//! Where rows come from: files, object stores and Delta tables; later streams and catalogs.
//!
//! ```text
//!  LOCATION 'data/x.parquet' ──locate──▶ an existing path ──DataFusion──▶ TableProvider ──source_version──▶ hash
//! ```

mod files;

pub use files::{locate, register_formats, source_version};
