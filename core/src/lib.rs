//! Definitions, SQL dialect, operators and algebra of featurectl.
//!
//! This crate does no I/O of its own, reads no clock and knows no cloud.

pub mod aggregate;
pub mod asof;
pub mod check;
pub mod codec;
mod definition;
mod diagnostic;
mod engine_error;
mod error;
mod grouped;
mod lineage;
mod online;
pub mod ordered;
mod partition;
pub mod sink;
pub mod sql;
pub mod tile;

pub use definition::*;
pub use diagnostic::{Diagnostic, Severity, Source, Span, closest};
pub use error::{Error, ErrorKind, Result};
pub use lineage::{Lineage, lineage, over_table, row_wise};
pub use online::{OnlineStore, Position, Tile, TileKey, TileRange};
