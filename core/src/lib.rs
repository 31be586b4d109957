//! Definitions, SQL dialect, operators and algebra of featurectl.
//!
//! This crate does no I/O of its own, reads no clock and knows no cloud.

mod error;
mod online;

pub use error::{Error, ErrorKind, Result};
pub use online::{OnlineStore, Position, Tile, TileKey, TileRange};
