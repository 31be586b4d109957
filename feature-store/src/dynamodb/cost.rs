//! What tiles use of the service, by the sizes that it counts.
//!
//! ```text
//!  item    names and values of its attributes; a number: a byte for two digits, and one
//!  write   a unit for each KB of an item
//!  read    a unit for each 4 KB of what a Query finds, at least one
//!  stored  100 bytes more for each item
//! ```
//! The rules are those of "DynamoDB item sizes and formats" in the service's developer guide.

use std::collections::HashSet;

use featurectl_core::{Result, Tile};

use super::files::push_line;
use super::item::{Item, Value, encode};

/// Bytes of a write unit.
const WRITE_UNIT: u64 = 1024;
/// Bytes of a read unit.
const READ_UNIT: f64 = 4096.0;
/// Bytes that are stored for each item besides its own.
const OVERHEAD: u64 = 100;

/// What all tiles of a view use, estimated from some of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tiles that were looked at.
    pub measured: u64,
    /// Write units of writing each tile once.
    pub write_units: u64,
    /// Bytes that are stored.
    pub stored_bytes: u64,
    /// Bytes of the text of an import.
    pub import_bytes: u64,
    /// Read units of the features of one entity, at most.
    pub read_units: u64,
}

/// Some of the tiles of one length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The tiles.
    pub tiles: Vec<Tile>,
    /// How many there are in all.
    pub total: u64,
    /// The most tiles that an entity's features need of this length.
    pub needed: u64,
}

/// What all tiles use, if those of each length are like its sample. `writers` have written tiles of each entity and start.
///
/// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for a tile whose keys are longer than the service takes.
pub fn usage(samples: &[Sample], writers: u64) -> Result<Usage> {
    let mut usage = Usage::default();
    for Sample { tiles, total, needed } in samples.iter().filter(|s| !s.tiles.is_empty()) {
        let items = tiles.iter().map(|tile| encode(tile, 0)).collect::<Result<Vec<_>>>()?.concat();
        let sizes: Vec<u64> = items.iter().map(size).collect();
        let mut text = String::new();
        items.iter().for_each(|item| push_line(item, &mut text));
        let all = |parts: u64| (parts as f64 * *total as f64 / tiles.len() as f64).ceil() as u64;
        usage.measured += tiles.len() as u64;
        usage.write_units += all(sizes.iter().map(|size| size.div_ceil(WRITE_UNIT)).sum());
        usage.stored_bytes += all(sizes.iter().map(|size| size + OVERHEAD).sum());
        usage.import_bytes += all(text.len() as u64);
        let entities = tiles.iter().map(|t| &t.key.partition).collect::<HashSet<_>>().len();
        let (count, each) = (tiles.len().div_ceil(entities), sizes.iter().sum::<u64>() as f64 / tiles.len() as f64);
        let read = (count as f64).min(needed.saturating_mul(writers.max(1)) as f64) * each;
        usage.read_units += (read / READ_UNIT).ceil().max(1.0) as u64;
    }
    Ok(usage)
}

/// Bytes of an item.
fn size(item: &Item) -> u64 {
    let value = |value| match value {
        Value::Binary(bytes) => bytes.len() as u64,
        Value::Number(n) => number_size(n),
    };
    item.attributes().map(|(name, v)| name.len() as u64 + value(v)).sum()
}

/// Zeros at the end are not stored; a negative number has one byte more.
fn number_size(n: i64) -> u64 {
    let digits = n.unsigned_abs().to_string();
    let significant = digits.trim_end_matches('0').len() as u64;
    significant.div_ceil(2) + 1 + u64::from(n < 0)
}

#[cfg(test)]
mod tests {
    use featurectl_core::TileKey;

    use super::*;

    /// A tile whose item has `size` bytes.
    fn tile(entity: u8, start: i64, size: usize) -> Tile {
        let key = TileKey { partition: vec![9; 20], length: 3_600_000_000, start, writer: "w".into() };
        let mut tile = Tile { key, position: 1.into(), last_event: 12_345, expires_at: None, partial: vec![] };
        tile.key.partition[0] = entity;
        // pk 2 + 21, sk 2 + 17, v 1 + 2, pos 3 + 24, w 1 + 8, ev 2 + 4, p 1.
        tile.partial = vec![0; size - 88];
        tile
    }

    #[test]
    fn an_item_has_the_size_that_the_service_counts() {
        for wanted in [88, 1024, 1025] {
            let items = encode(&tile(0, 0, wanted), 0).expect("an item");
            assert_eq!(items.iter().map(size).collect::<Vec<_>>(), [wanted as u64]);
        }
        assert_eq!([0, 7, 10, 12, 123, -5, 1_704_067_200_000_000].map(number_size), [1, 2, 2, 2, 3, 3, 5]);
    }

    #[test]
    fn a_sample_stands_for_all_tiles_of_its_length() {
        let tiles = vec![tile(1, 0, 1024), tile(1, 1, 1025), tile(2, 0, 500), tile(2, 1, 3000)];
        let none = Sample { tiles: vec![], total: 0, needed: 1 };
        let found = usage(&[Sample { tiles, total: 40, needed: 100 }, none], 1).expect("sizes");
        assert_eq!((found.measured, found.write_units), (4, 10 * (1 + 2 + 1 + 3)));
        assert_eq!(found.stored_bytes, 10 * (1024 + 1025 + 500 + 3000 + 400));
        assert!(found.import_bytes > found.stored_bytes, "binary values are text there");
        assert_eq!(found.read_units, 1, "two tiles of 1,387 bytes each on average");
        let one = |size, total| Sample { tiles: vec![tile(1, 0, size)], total, needed: 1 };
        let found = usage(&[one(1024, 7), one(2048, 1000)], 1).expect("sizes");
        assert_eq!((found.write_units, found.read_units), (7 + 2000, 2), "lengths have their own counts");
    }

    #[test]
    fn a_read_takes_no_more_tiles_than_a_window_has_and_at_least_a_unit_a_length() {
        let tiles: Vec<Tile> = (0..50).map(|start| tile(1, start, 1024)).collect();
        let units = |needed, writers| {
            let lifetime = Sample { tiles: vec![tile(1, 0, 100)], total: 1, needed: 1 };
            let samples = [Sample { tiles: tiles.clone(), total: 50, needed }, lifetime];
            usage(&samples, writers).expect("sizes").read_units
        };
        assert_eq!(units(8, 1), 2 + 1);
        assert_eq!(units(8, 3), 6 + 1, "each of three writers has its own");
        assert_eq!(units(1000, 1), 13 + 1, "there are no more than 50");
        assert_eq!(usage(&[], 0).expect("sizes"), Usage::default());
    }

    #[test]
    fn a_tile_in_parts_counts_all_of_them() {
        let big = usage(&[Sample { tiles: vec![tile(1, 0, 900_000)], total: 1, needed: 1 }], 1).expect("sizes");
        assert_eq!(big.write_units, 381 + 381 + 119 + 1, "two full parts, what is left, and the header");
        assert_eq!(big.read_units, 220);
    }
}
