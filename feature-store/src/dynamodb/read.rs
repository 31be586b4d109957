//! Reads: one Query a range, and one more for each big tile in it. Tiles that can be named are read in batches.

use std::collections::{HashMap, HashSet};

use featurectl_core::{Error, ErrorKind, Result, Tile, TileRange};
use futures::{StreamExt, TryStreamExt, stream};

use super::item::{Item, Key, Span, decode, key_of_tile, span_of_parts, span_of_tiles};
use super::store::Inner;

/// Big tiles of one range that are read at once.
const BIG_AT_ONCE: usize = 4;
/// How often a big tile is read again because a newer write took its place in the meantime.
const READS_MAX: usize = 10;

impl Inner {
    /// The tiles of each range, without those that expired.
    pub async fn read(&self, ranges: &[TileRange], now: i64) -> Result<Vec<Vec<Tile>>> {
        let is_empty = |r: &TileRange| r.start >= r.end;
        let names: Vec<Option<Key>> = ranges.iter().map(|r| key_of_tile(r).filter(|_| !is_empty(r))).collect();
        // The service refuses a key that comes twice.
        let different: HashSet<&Key> = names.iter().flatten().collect();
        let different: Vec<Key> = different.into_iter().cloned().collect();
        let unnamed = (0..ranges.len()).filter(|i| names[*i].is_none() && !is_empty(&ranges[*i]));
        let search = |i: usize| async move { Ok::<_, Error>((i, self.search(&ranges[i], now).await?)) };
        let searched = stream::iter(unnamed.map(search)).buffer_unordered(self.limits.calls.max(1));
        let (searched, mut named) =
            futures::try_join!(searched.try_collect::<Vec<_>>(), self.read_named(&different, now))?;
        let mut found = vec![Vec::new(); ranges.len()];
        for (i, tiles) in searched {
            found[i] = tiles;
        }
        let is_once = names.iter().flatten().count() == different.len();
        for (tiles, name) in found.iter_mut().zip(&names) {
            let Some(name) = name else { continue };
            tiles.extend(if is_once { named.remove(name) } else { named.get(name).cloned() });
        }
        Ok(found)
    }

    /// The tiles of these headers, without those that expired.
    async fn read_named(&self, keys: &[Key], now: i64) -> Result<HashMap<Key, Tile>> {
        let headers = self.get_many(keys).await?.into_iter().filter(|h| h.is_alive(now));
        let (big, whole): (Vec<Item>, Vec<Item>) = headers.partition(|h| h.parts.is_some());
        let big = big.into_iter().map(|header| async move {
            let key = header.key.clone();
            Ok::<_, Error>((key, self.tile(header, now).await?))
        });
        let mut tiles: Vec<(Key, Option<Tile>)> = stream::iter(big).buffer_unordered(BIG_AT_ONCE).try_collect().await?;
        for header in whole {
            tiles.push((header.key.clone(), decode(header, &[])?));
        }
        Ok(tiles.into_iter().filter_map(|(key, tile)| Some((key, tile?))).collect())
    }

    /// The tiles of a range without a name.
    async fn search(&self, range: &TileRange, now: i64) -> Result<Vec<Tile>> {
        let headers = self.query(&span_of_tiles(range)).await?;
        let tiles = headers.into_iter().filter(|h| h.is_alive(now)).map(|header| self.tile(header, now));
        let tiles: Vec<Option<Tile>> = stream::iter(tiles).buffered(BIG_AT_ONCE).try_collect().await?;
        let is_wanted = |tile: &Tile| range.writer.as_ref().is_none_or(|w| *w == tile.key.writer);
        Ok(tiles.into_iter().flatten().filter(is_wanted).collect())
    }

    /// The tile of a header; `None` if it was removed or has expired since.
    async fn tile(&self, mut header: Item, now: i64) -> Result<Option<Tile>> {
        if header.parts.is_none() {
            return decode(header, &[]);
        }
        for _ in 0..READS_MAX {
            let parts = match header.parts {
                Some(_) => self.query(&span_of_parts(&header)?).await?,
                None => Vec::new(),
            };
            if let Some(tile) = decode(header.clone(), &parts)? {
                return Ok(Some(tile));
            }
            match self.reads.call(|| self.table.get(&header.key)).await? {
                Some(newer) if newer.write == header.write => return Err(incomplete()),
                Some(newer) if newer.is_alive(now) => header = newer,
                _ => return Ok(None),
            }
        }
        let text =
            format!("a tile was replaced {READS_MAX} times while it was read: read again, or write it less often");
        Err(Error::new(ErrorKind::Unavailable, text))
    }

    /// All items of a span.
    async fn query(&self, span: &Span) -> Result<Vec<Item>> {
        let (mut items, mut from) = (Vec::new(), None);
        loop {
            let page = self.reads.call(|| self.table.query(span, from.clone())).await?;
            items.extend(page.found);
            from = page.next;
            if from.is_none() {
                return Ok(items);
            }
        }
    }
}

fn incomplete() -> Error {
    Error::data("a tile has lost parts: remove it and MATERIALIZE again, and let nothing else write to the table")
}
