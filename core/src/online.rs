//! The contract of an online store: partial aggregates ("tiles") by entity and time.
//!
//! ```text
//!  partition = view version ‖ entity key        one read = one range of one partition
//!  ┌──────────┬────────────┬──────────┬───────────────────────────────────────┐
//!  │ length   │ start      │ writer   │ position  last_event  expires  partial│
//!  │ 1 hour   │ 12:00      │ batch    │ 7         12:59:30    –        …bytes │
//!  │ 1 hour   │ 13:00      │ shard-3  │ 4711      13:02:11    –        …bytes │
//!  └──────────┴────────────┴──────────┴───────────────────────────────────────┘
//! ```
//! A tile's value is always the *whole* partial of its writer, so writing it again is harmless, and an older one
//! never replaces a newer one. Times are microseconds since 1970 UTC.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::Result;

/// How far a writer had read when it wrote a tile: a fixed-width big-endian number, wide enough for the 56 decimal
/// digits of a Kinesis sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub [u8; 24]);

impl From<u64> for Position {
    fn from(n: u64) -> Self {
        let mut bytes = [0; 24];
        bytes[16..].copy_from_slice(&n.to_be_bytes());
        Self(bytes)
    }
}

impl Position {
    /// Its low 64 bits: the inverse of the conversion from a number.
    pub fn low(self) -> u64 {
        u64::from_be_bytes(std::array::from_fn(|i| self.0[16 + i]))
    }
}

/// What identifies a tile in a store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileKey {
    /// View version and entity key, opaque to the store.
    pub partition: Vec<u8>,
    /// Length of the tile in microseconds; [`i64::MAX`] for the one tile of a lifetime window.
    pub length: i64,
    /// First instant of the tile, microseconds UTC; [`i64::MIN`] for a lifetime tile.
    pub start: i64,
    /// Who folds rows into it: `"batch"`, or a shard. Partials of several writers are merged when read.
    pub writer: String,
}

/// A whole partial aggregate over one tile, as one writer knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// Where it belongs.
    pub key: TileKey,
    /// How far its writer had read.
    pub position: Position,
    /// Event time of the latest row folded in, microseconds UTC.
    pub last_event: i64,
    /// When it may no longer be read, microseconds UTC; `None`: never.
    pub expires_at: Option<i64>,
    /// The encoded partials of the tile's aggregations.
    pub partial: Vec<u8>,
}

/// The tiles of one partition and one length with `start <= tile.start < end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TileRange {
    /// View version and entity key.
    pub partition: Vec<u8>,
    /// Length of the tiles, microseconds.
    pub length: i64,
    /// First tile start wanted, microseconds UTC.
    pub start: i64,
    /// First tile start no longer wanted, microseconds UTC.
    pub end: i64,
    /// Whose tiles alone are wanted; `None`: everybody's. A store need not search for a tile that it can name.
    pub writer: Option<String>,
}

/// A key-value store of tiles. Every implementation passes the same `conformance` suite of `featurectl-feature-store`.
#[async_trait]
pub trait OnlineStore: Debug + Send + Sync {
    /// Stores each tile whose position is newer than that of the stored one; what returned `Ok` survives a crash.
    /// Returns how many were stored: the others were older than, or equal to, what the store has. A call with many
    /// tiles may be applied in parts if it fails; doing it again is harmless.
    async fn put(&self, tiles: Vec<Tile>) -> Result<usize>;

    /// Stores tiles of which the caller knows that the store has none of their keys, or the same, and that nobody else
    /// writes them: nothing needs to be compared, which some stores do faster. What returned `Ok` survives a crash; a call
    /// that fails may be applied in parts, and doing it again is harmless.
    async fn fill(&self, tiles: Vec<Tile>) -> Result<()>;

    /// The tiles of each range, in the order of `(start, writer)`, without those that expired at or before `now`.
    /// The outer length is `ranges.len()`.
    async fn read(&self, ranges: &[TileRange], now: i64) -> Result<Vec<Vec<Tile>>>;

    /// Removes every tile whose partition starts with `prefix` and returns how many there were.
    async fn remove(&self, prefix: &[u8]) -> Result<usize>;
}
