//! The layout of a tile in DynamoDB, version 1.
//!
//! ```text
//!  pk (binary)      sk (binary)                              attributes
//!  01 ‖ partition   length ‖ start ‖ writer                  v pos w ev [ex ttl] p    a tile that fits one item
//!  01 ‖ partition   length ‖ start ‖ writer                  v pos w ev [ex ttl] n    a tile in n parts
//!  02 ‖ partition   length ‖ start ‖ writer′ ‖ pos ‖ w ‖ number  v [ex ttl] p            a part of it
//! ```
//! Numbers in keys are big-endian with the sign bit flipped, so that bytes sort as the numbers do; a range of tiles
//! is one Query. Parts lie in a partition of their own, where no Query for tiles meets them, and have the position and
//! the number of their write in the key: a reader that holds a header finds the parts of that write or misses some,
//! never a mixture, and a write that comes too late removes its own parts only.
//! `writer′` is the writer with each byte 0 written as `00 FF`, ended by `00 00`.

use featurectl_core::{Error, Position, Result, Tile, TileKey, TileRange};

use crate::keys::{escaped, number, sortable};

/// Version of the layout, in every item.
pub const FORMAT: i64 = 1;
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

/// What names an item of the table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Partition key.
    pub pk: Vec<u8>,
    /// Sort key.
    pub sk: Vec<u8>,
}

impl Key {
    /// Whether it is the key of a tile, not of a part of one.
    pub fn is_tile(&self) -> bool {
        self.pk.first() == Some(&TILES)
    }
}

/// The items of one partition key with `low <= sk <= high`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Partition key.
    pub pk: Vec<u8>,
    /// Least sort key.
    pub low: Vec<u8>,
    /// Greatest sort key.
    pub high: Vec<u8>,
}

/// The value of an attribute, of one of the two types that the layout has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Type B.
    Binary(Vec<u8>),
    /// Type N.
    Number(i64),
}

/// One item of the table, without a client's types, so that an import file and a request hold the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Partition and sort key.
    pub key: Key,
    /// Version of the layout.
    pub format: i64,
    /// Position of the tile's writer; `None` in a part, whose key has it.
    pub position: Option<Position>,
    /// A number that no other write of the tile has; `None` in a part, whose key has it.
    pub write: Option<u64>,
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
    /// The second from which DynamoDB may delete the item: never before it expires. DynamoDB knows none before 1970.
    pub fn ttl(&self) -> Option<i64> {
        let second = self.expires_at?;
        let rounded_up = second.div_euclid(1_000_000) + i64::from(second.rem_euclid(1_000_000) > 0);
        Some(rounded_up).filter(|s| *s > 0)
    }

    /// Whether the tile may still be read at `now`, microseconds UTC.
    pub fn is_alive(&self, now: i64) -> bool {
        self.expires_at.is_none_or(|at| at > now)
    }

    /// Its attributes, the keys among them.
    pub fn attributes(&self) -> impl Iterator<Item = (&'static str, Value)> {
        let binary = |bytes: &[u8]| Some(Value::Binary(bytes.to_vec()));
        let all = [
            ("pk", binary(&self.key.pk)),
            ("sk", binary(&self.key.sk)),
            ("v", Some(Value::Number(self.format))),
            ("pos", self.position.and_then(|p| binary(&p.0))),
            ("w", self.write.and_then(|w| binary(&w.to_be_bytes()))),
            ("ev", self.last_event.map(Value::Number)),
            ("ex", self.expires_at.map(Value::Number)),
            ("ttl", self.ttl().map(Value::Number)),
            ("n", self.parts.map(|n| Value::Number(n.into()))),
            ("p", if self.parts.is_none() { binary(&self.bytes) } else { None }),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }

    /// The item of these attributes. Those that the layout does not have are left out.
    ///
    /// Errors: [`Data`](featurectl_core::ErrorKind::Data) for an item of another layout.
    pub fn from_attributes(attributes: impl IntoIterator<Item = (String, Value)>) -> Result<Self> {
        let key = Key { pk: Vec::new(), sk: Vec::new() };
        let (position, write, last_event, expires_at, parts) = (None, None, None, None, None);
        let mut item = Self { key, format: 0, position, write, last_event, expires_at, parts, bytes: Vec::new() };
        for (name, value) in attributes {
            match (name.as_str(), value) {
                ("pk", Value::Binary(b)) => item.key.pk = b,
                ("sk", Value::Binary(b)) => item.key.sk = b,
                ("v", Value::Number(n)) => item.format = n,
                ("pos", Value::Binary(b)) => item.position = Some(Position(b.try_into().map_err(|_| damaged())?)),
                ("w", Value::Binary(b)) => {
                    item.write = Some(u64::from_be_bytes(b.try_into().map_err(|_| damaged())?));
                }
                ("ev", Value::Number(n)) => item.last_event = Some(n),
                ("ex", Value::Number(n)) => item.expires_at = Some(n),
                ("n", Value::Number(n)) => item.parts = Some(n.try_into().map_err(|_| damaged())?),
                ("p", Value::Binary(b)) => item.bytes = b,
                _ => {}
            }
        }
        match item.format {
            FORMAT => Ok(item),
            other => Err(unknown(other)),
        }
    }
}

/// The items of a tile: its parts, if it is too big for one item, then the header, so that a header that can be read
/// has all its parts. `write` is a number that no other write of the tile has.
///
/// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) if the keys are longer than DynamoDB takes.
pub fn encode(tile: &Tile, write: u64) -> Result<Vec<Item>> {
    let big = tile.partial.len() > MAX_INLINE;
    let mut items = if big { parts(tile, write) } else { Vec::new() };
    items.push(Item {
        key: Key {
            pk: partition_key(TILES, &tile.key.partition),
            sk: [sort_key_of_start(tile.key.length, tile.key.start).as_slice(), tile.key.writer.as_bytes()].concat(),
        },
        format: FORMAT,
        position: Some(tile.position),
        write: Some(write),
        last_event: Some(tile.last_event),
        expires_at: tile.expires_at,
        parts: big.then_some(items.len() as u32),
        bytes: if big { Vec::new() } else { tile.partial.clone() },
    });
    items.iter().try_for_each(|item| check_key(&item.key))?;
    Ok(items)
}

/// The tile of a header and of its parts in their order; `None` if some parts are missing, which is so when a newer
/// write replaced the tile after the header was read: read the header again.
///
/// Errors: [`Data`](featurectl_core::ErrorKind::Data) if the header is none, or of another version of the layout.
pub fn decode(header: Item, parts: &[Item]) -> Result<Option<Tile>> {
    if let Some(other) = parts.iter().chain([&header]).find(|item| item.format != FORMAT) {
        return Err(unknown(other.format));
    }
    let (key, position, write) = identity(&header)?;
    let last_event = header.last_event.ok_or_else(damaged)?;
    let own = |(number, part): (usize, &Item)| part.key.sk == part_key(&key, position, write, number as u32);
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

/// Where the tiles of a range lie, which must not be empty.
pub fn span_of_tiles(range: &TileRange) -> Span {
    let low = sort_key_of_start(range.length, range.start).to_vec();
    // No writer begins with FF, which is not UTF-8: this is behind all of the last start and before the next one.
    let high = [sort_key_of_start(range.length, range.end - 1).as_slice(), &[0xFF]].concat();
    Span { pk: partition_key(TILES, &range.partition), low, high }
}

/// The key of the one tile of a range, if there can be only one: of one writer, and of a lifetime or a single start.
pub fn key_of_tile(range: &TileRange) -> Option<Key> {
    let writer = range.writer.as_ref()?;
    let is_single =
        range.length == i64::MAX && range.start == i64::MIN || range.end.checked_sub(range.start) == Some(1);
    is_single.then(|| Key {
        pk: partition_key(TILES, &range.partition),
        sk: [sort_key_of_start(range.length, range.start).as_slice(), writer.as_bytes()].concat(),
    })
}

/// Where the parts of a header lie.
///
/// Errors: [`Data`](featurectl_core::ErrorKind::Data) if the header is none.
pub fn span_of_parts(header: &Item) -> Result<Span> {
    let (key, position, write) = identity(header)?;
    let sk = |number| part_key(&key, position, write, number);
    Ok(Span { pk: partition_key(PARTS, &key.partition), low: sk(0), high: sk(u32::MAX) })
}

/// Where the parts lie of all writes of the header's tile up to its own position. When it is stored, those of no other
/// write than its own are needed any more: what is not newer than it will never be stored. `None` if the tile can have
/// none, as its writer's name is too long.
///
/// Errors: [`Data`](featurectl_core::ErrorKind::Data) if the header is none.
pub fn span_of_parts_until(header: &Item) -> Result<Option<Span>> {
    let (key, position, _) = identity(header)?;
    let low = part_key(&key, Position::default(), 0, 0);
    let high = part_key(&key, position, u64::MAX, u32::MAX);
    let span = Span { pk: partition_key(PARTS, &key.partition), low, high };
    Ok(Some(span).filter(|span| span.high.len() <= MAX_SORT_KEY))
}

/// The partition keys of all items of the partitions that start with `prefix` start with one of these.
pub fn prefixes(prefix: &[u8]) -> [Vec<u8>; 2] {
    [TILES, PARTS].map(|kind| partition_key(kind, prefix))
}

/// Which tile a header is of, and by which write.
fn identity(header: &Item) -> Result<(TileKey, Position, u64)> {
    let (kind, partition) = header.key.pk.split_first().ok_or_else(damaged)?;
    let (length, rest) = header.key.sk.split_first_chunk().ok_or_else(damaged)?;
    let (start, writer) = rest.split_first_chunk().ok_or_else(damaged)?;
    let (Some(position), Some(write), TILES) = (header.position, header.write, *kind) else {
        return Err(damaged());
    };
    let key = TileKey {
        partition: partition.to_vec(),
        length: number(*length),
        start: number(*start),
        writer: String::from_utf8(writer.to_vec()).map_err(|_| damaged())?,
    };
    Ok((key, position, write))
}

/// The least sort key of the tiles of a length that start at `start`.
fn sort_key_of_start(length: i64, start: i64) -> [u8; NUMBERS] {
    let mut key = [0; NUMBERS];
    key[..8].copy_from_slice(&sortable(length));
    key[8..].copy_from_slice(&sortable(start));
    key
}

/// The parts of a tile that is too big for one item.
fn parts(tile: &Tile, write: u64) -> Vec<Item> {
    let part = |(number, bytes): (usize, &[u8])| Item {
        key: Key {
            pk: partition_key(PARTS, &tile.key.partition),
            sk: part_key(&tile.key, tile.position, write, number as u32),
        },
        format: FORMAT,
        position: None,
        write: None,
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
fn part_key(key: &TileKey, position: Position, write: u64, number: u32) -> Vec<u8> {
    let mut bytes = sort_key_of_start(key.length, key.start).to_vec();
    bytes.extend(escaped(key.writer.as_bytes()));
    bytes.extend([0, 0]);
    bytes.extend(position.0);
    bytes.extend(write.to_be_bytes());
    bytes.extend(number.to_be_bytes());
    bytes
}

/// Refuses keys that DynamoDB would refuse, with the fix.
fn check_key(key: &Key) -> Result<()> {
    let (pk, sk) = (key.pk.len(), key.sk.len());
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

fn damaged() -> Error {
    Error::data("an item of the online table is no tile of this version: MATERIALIZE again")
}

fn unknown(format: i64) -> Error {
    let text = format!(
        "an item of the online table has the layout {format}, and this featurectl reads {FORMAT}: \
         use the featurectl that wrote it, or MATERIALIZE into a new table"
    );
    Error::data(text)
}

#[cfg(test)]
mod tests;
