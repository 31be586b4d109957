//! The layout of a tile in DynamoDB, version 1.
//!
//! ```text
//!  pk (binary)      sk (binary)                      attributes
//!  01 ‖ partition   length ‖ start ‖ writer          v pos ev [ex ttl] p        a tile that fits one item
//!  01 ‖ partition   length ‖ start ‖ writer          v pos ev [ex ttl] n        a tile in n parts
//!  02 ‖ partition   length ‖ start ‖ writer′ ‖ pos ‖ number     v [ttl] p       a part of it
//! ```
//! Numbers in keys are big-endian with the sign bit flipped, so that bytes sort as the numbers do; a range of tiles
//! is one Query. Parts lie in a partition of their own, where no Query for tiles meets them, and have the position of
//! their tile in the key: a reader that holds a header finds the parts of that write or misses some, never a mixture.
//! `writer′` is the writer with each byte 0 written as `00 FF`, ended by `00 00`.

use featurectl_core::{Error, Position, Result, Tile, TileKey};

use crate::keys::{escaped, number, sortable};

/// Version of the layout, in every item.
const FORMAT: &str = "1";
/// First byte of the partition key of tiles.
const TILES: u8 = 1;
/// First byte of the partition key of the parts of big tiles.
const PARTS: u8 = 2;
/// Bytes of a partial that go into one item; DynamoDB takes 400 KB with keys and names of attributes.
const MAX_INLINE: usize = 380 * 1024;
/// What DynamoDB takes as a partition key.
const MAX_PARTITION_KEY: usize = 2048;
/// What DynamoDB takes as a sort key.
const MAX_SORT_KEY: usize = 1024;
/// Length and start before the writer.
const NUMBERS: usize = 16;

/// One item of the table, without a client's types, so that an import file and a request hold the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Partition key.
    pub pk: Vec<u8>,
    /// Sort key.
    pub sk: Vec<u8>,
    /// Position of the tile's writer; `None` in a part, whose key has it.
    pub position: Option<Position>,
    /// Event time of the latest row, microseconds UTC; `None` in a part.
    pub last_event: Option<i64>,
    /// When the tile may no longer be read, microseconds UTC.
    pub expires_at: Option<i64>,
    /// In how many parts the partial lies; `None` if it is in this item.
    pub parts: Option<u32>,
    /// The partial, or a part of it; empty in the header of a tile in parts.
    pub bytes: Vec<u8>,
}

impl Item {
    /// Version of the layout.
    pub fn format(&self) -> &'static str {
        FORMAT
    }

    /// The second from which DynamoDB may delete the item: never before it expires. DynamoDB knows none before 1970.
    pub fn ttl(&self) -> Option<i64> {
        let second = self.expires_at?;
        let rounded_up = second.div_euclid(1_000_000) + i64::from(second.rem_euclid(1_000_000) > 0);
        Some(rounded_up).filter(|s| *s > 0)
    }
}

/// The items of a tile: its parts, if it is too big for one item, then the header, so that a header that can be read
/// has all its parts.
///
/// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) if the keys are longer than DynamoDB takes.
pub fn encode(tile: &Tile) -> Result<Vec<Item>> {
    let big = tile.partial.len() > MAX_INLINE;
    let mut items = if big { parts(tile) } else { Vec::new() };
    items.push(Item {
        pk: partition_key(TILES, &tile.key.partition),
        sk: [sort_key_of_start(tile.key.length, tile.key.start).as_slice(), tile.key.writer.as_bytes()].concat(),
        position: Some(tile.position),
        last_event: Some(tile.last_event),
        expires_at: tile.expires_at,
        parts: big.then_some(items.len() as u32),
        bytes: if big { Vec::new() } else { tile.partial.clone() },
    });
    items.iter().try_for_each(check_keys)?;
    Ok(items)
}

/// The tile of a header and of its parts in their order; `None` if some parts are missing, which is so when a newer
/// write replaced the tile after the header was read: read the header again.
///
/// Errors: [`Data`](featurectl_core::ErrorKind::Data) if the header is none.
pub fn decode(header: Item, parts: &[Item]) -> Result<Option<Tile>> {
    let damaged = || Error::data("an item of the online table is no tile of this version: MATERIALIZE again");
    let (kind, partition) = header.pk.split_first().ok_or_else(damaged)?;
    let (length, rest) = header.sk.split_first_chunk().ok_or_else(damaged)?;
    let (start, writer) = rest.split_first_chunk().ok_or_else(damaged)?;
    let (Some(position), Some(last_event), TILES) = (header.position, header.last_event, *kind) else {
        return Err(damaged());
    };
    let key = TileKey {
        partition: partition.to_vec(),
        length: number(*length),
        start: number(*start),
        writer: String::from_utf8(writer.to_vec()).map_err(|_| damaged())?,
    };
    let own = |(number, part): (usize, &Item)| part.sk == part_key(&key, position, number as u32);
    let count = header.parts.unwrap_or_default() as usize;
    if parts.len() != count || !parts.iter().enumerate().all(own) {
        return Ok(None);
    }
    let partial = match header.parts {
        Some(_) => parts.iter().flat_map(|p| p.bytes.iter().copied()).collect(),
        None => header.bytes,
    };
    Ok(Some(Tile { key, position, last_event, expires_at: header.expires_at, partial }))
}

/// The least sort key of the tiles of a length that start at `start`.
fn sort_key_of_start(length: i64, start: i64) -> [u8; NUMBERS] {
    let mut key = [0; NUMBERS];
    key[..8].copy_from_slice(&sortable(length));
    key[8..].copy_from_slice(&sortable(start));
    key
}

/// The parts of a tile that is too big for one item.
fn parts(tile: &Tile) -> Vec<Item> {
    let part = |(number, bytes): (usize, &[u8])| Item {
        pk: partition_key(PARTS, &tile.key.partition),
        sk: part_key(&tile.key, tile.position, number as u32),
        position: None,
        last_event: None,
        expires_at: tile.expires_at,
        parts: None,
        bytes: bytes.to_vec(),
    };
    tile.partial.chunks(MAX_INLINE).enumerate().map(part).collect()
}

fn partition_key(kind: u8, partition: &[u8]) -> Vec<u8> {
    [&[kind], partition].concat()
}

/// The sort key of a part; the writer is escaped so that no two writers and positions give the same bytes.
fn part_key(key: &TileKey, position: Position, number: u32) -> Vec<u8> {
    let mut bytes = sort_key_of_start(key.length, key.start).to_vec();
    bytes.extend(escaped(key.writer.as_bytes()));
    bytes.extend([0, 0]);
    bytes.extend(position.0);
    bytes.extend(number.to_be_bytes());
    bytes
}

/// Refuses keys that DynamoDB would refuse, with the fix.
fn check_keys(item: &Item) -> Result<()> {
    let (pk, sk) = (item.pk.len(), item.sk.len());
    if pk > MAX_PARTITION_KEY {
        let text = format!("an entity key of {pk} bytes: DynamoDB takes {MAX_PARTITION_KEY}; use shorter keys");
        return Err(Error::invalid(text));
    }
    if sk > MAX_SORT_KEY {
        let text = format!("a sort key of {sk} bytes: DynamoDB takes {MAX_SORT_KEY}; use a shorter writer name");
        return Err(Error::invalid(text));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
