//! Writes.
//!
//! ```text
//!  tile ──▶ parts, if it is big ──▶ header, if the stored one is older ──┬─ stored ──▶ parts of older writes go
//!                                                                         └─ refused ──▶ its own parts go
//! ```
//! A header is the one item that says what a tile is, so a tile is replaced at once, whatever else is under way. An
//! attempt without an answer is made again; the number of the write in the header tells whether the first was
//! carried out. Where nobody else writes and nothing can be older, headers go in batches, which have no conditions.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use featurectl_core::{Result, Tile, TileKey};
use futures::{StreamExt, TryStreamExt, stream};

use super::client::{Change, Written};
use super::item::{Item, Key, encode, span_of_parts_until};
use super::retry::random;
use super::store::Inner;

/// Parts of one tile that are written at once.
const PARTS_AT_ONCE: usize = 4;

impl Inner {
    /// Stores the tiles that are newer and returns how many.
    pub async fn put(&self, tiles: Vec<Tile>) -> Result<usize> {
        let newest = newest(tiles).into_values();
        let stored = stream::iter(newest).map(|tile| self.put_tile(tile)).buffer_unordered(self.limits.calls.max(1));
        stored.try_fold(0, async |count, stored| Ok(count + usize::from(stored))).await
    }

    /// Stores tiles of which the table has none of their keys, or the same.
    pub async fn fill(&self, tiles: Vec<Tile>) -> Result<()> {
        let (mut headers, mut big) = (Vec::with_capacity(tiles.len()), Vec::new());
        for tile in newest(tiles).into_values() {
            match encode(&tile, random())? {
                items if items.len() > 1 => big.push(tile),
                items => headers.extend(items.into_iter().map(Change::Put)),
            }
        }
        self.change(headers).await?;
        self.put(big).await.map(|_| ())
    }

    /// Returns whether it was stored.
    async fn put_tile(&self, tile: Tile) -> Result<bool> {
        let mut parts = encode(&tile, random())?;
        let Some(header) = parts.pop() else { return Ok(false) };
        if !parts.is_empty() {
            // A read costs far less than the parts of a tile that is refused.
            if let Some(stored) = self.reads.call(|| self.table.get(&header.key)).await?
                && stored.position >= header.position
            {
                return Ok(false);
            }
            let writes = stream::iter(0..parts.len()).map(|i| self.put_part(&parts[i]));
            writes.buffer_unordered(PARTS_AT_ONCE).try_collect::<()>().await?;
        }
        let keys: Vec<Key> = parts.into_iter().map(|part| part.key).collect();
        match self.put_header(&header).await? {
            Outcome::Stored { had_parts } => {
                if had_parts || !keys.is_empty() {
                    self.remove_parts_until(&header, &keys).await?;
                }
                Ok(true)
            }
            Outcome::Refused => {
                self.delete(keys).await?;
                Ok(false)
            }
        }
    }

    async fn put_part(&self, part: &Item) -> Result<()> {
        self.writes.call(|| self.table.put(part)).await
    }

    async fn put_header(&self, header: &Item) -> Result<Outcome> {
        let stored = match self.writes.call(|| self.table.put_newer(header)).await? {
            Written::Stored(old) => {
                return Ok(Outcome::Stored { had_parts: old.is_some_and(|old| old.parts.is_some()) });
            }
            Written::Refused(Some(stored)) => Some(stored),
            Written::Refused(None) => self.reads.call(|| self.table.get(&header.key)).await?,
        };
        match stored.is_some_and(|stored| stored.write == header.write) {
            // An earlier attempt stored it; what it replaced is not known.
            true => Ok(Outcome::Stored { had_parts: true }),
            false => Ok(Outcome::Refused),
        }
    }

    /// Removes the parts of other writes that the stored header makes useless.
    async fn remove_parts_until(&self, header: &Item, own: &[Key]) -> Result<()> {
        let Some(span) = span_of_parts_until(header)? else { return Ok(()) };
        let mut from = None;
        loop {
            let page = self.reads.call(|| self.table.query_keys(&span, from.clone())).await?;
            self.delete(page.found.into_iter().filter(|key| !own.contains(key)).collect()).await?;
            from = page.next;
            if from.is_none() {
                return Ok(());
            }
        }
    }
}

/// What became of a header.
enum Outcome {
    Stored { had_parts: bool },
    Refused,
}

/// The newest tile of each key; of equal ones, the first. They come in no order, which spreads the writes over what
/// DynamoDB has divided the table into.
fn newest(tiles: Vec<Tile>) -> HashMap<TileKey, Tile> {
    let mut newest = HashMap::with_capacity(tiles.len());
    for tile in tiles {
        match newest.entry(tile.key.clone()) {
            Entry::Vacant(place) => drop(place.insert(tile)),
            Entry::Occupied(mut known) => {
                if tile.position > known.get().position {
                    known.insert(tile);
                }
            }
        }
    }
    newest
}
