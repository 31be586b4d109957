//! Reads: one Query a range, and one more for each big tile in it.

use featurectl_core::{Error, ErrorKind, Result, Tile, TileRange};
use futures::{StreamExt, TryStreamExt, stream};

use super::item::{Item, Span, decode, span_of_parts, span_of_tiles};
use super::store::Inner;

/// Big tiles of one range that are read at once.
const BIG_AT_ONCE: usize = 4;
/// How often a big tile is read again because a newer write took its place in the meantime.
const READS_MAX: usize = 10;

impl Inner {
    /// The tiles of each range, without those that expired.
    pub async fn read(&self, ranges: &[TileRange], now: i64) -> Result<Vec<Vec<Tile>>> {
        let reads = stream::iter(0..ranges.len()).map(|i| self.read_range(&ranges[i], now));
        reads.buffered(self.limits.calls.max(1)).try_collect().await
    }

    async fn read_range(&self, range: &TileRange, now: i64) -> Result<Vec<Tile>> {
        if range.start >= range.end {
            return Ok(Vec::new());
        }
        let headers = self.query(&span_of_tiles(range)).await?;
        let tiles = headers.into_iter().filter(|h| h.is_alive(now)).map(|header| self.tile(header, now));
        let tiles: Vec<Option<Tile>> = stream::iter(tiles).buffered(BIG_AT_ONCE).try_collect().await?;
        Ok(tiles.into_iter().flatten().collect())
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
