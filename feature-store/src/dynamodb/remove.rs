//! Removal, by a scan.
//!
//! A table has no order of partitions, so whoever looks for those of a prefix reads the whole table: a read unit for
//! 4 KB of it, whatever is removed, and a write unit for each KB that is. A directory of partitions would save that
//! and cost a write for each new partition instead, on the way of every tile to its reader.

use featurectl_core::Result;
use futures::{StreamExt, TryStreamExt, stream};

use super::client::Change;
use super::item::{Key, prefixes};
use super::store::Inner;

/// Shares of the table that are scanned at once.
const SEGMENTS: i32 = 4;

impl Inner {
    /// Removes the tiles of all partitions that start with `prefix` and returns how many.
    pub async fn remove(&self, prefix: &[u8]) -> Result<usize> {
        let segments = (0..SEGMENTS).map(|segment| self.remove_segment(prefix, segment));
        let removed: Vec<(usize, Vec<Key>)> =
            stream::iter(segments).buffer_unordered(SEGMENTS as usize).try_collect().await?;
        // The parts last: as long as a header is there, its tile can be read.
        let (counts, parts): (Vec<usize>, Vec<Vec<Key>>) = removed.into_iter().unzip();
        self.delete(parts.concat()).await?;
        Ok(counts.into_iter().sum())
    }

    /// Removes the headers in a share of the table. Returns how many there were, and the keys of parts.
    async fn remove_segment(&self, prefix: &[u8], segment: i32) -> Result<(usize, Vec<Key>)> {
        let prefixes = prefixes(prefix);
        let (mut count, mut parts, mut from) = (0, Vec::new(), None);
        loop {
            let scan = || self.table.scan_keys(&prefixes, (segment, SEGMENTS), from.clone());
            let page = self.reads.call(scan).await?;
            let (headers, others): (Vec<Key>, Vec<Key>) = page.found.into_iter().partition(Key::is_tile);
            count += headers.len();
            parts.extend(others);
            self.delete(headers).await?;
            from = page.next;
            if from.is_none() {
                return Ok((count, parts));
            }
        }
    }

    /// Deletes items that may be gone already.
    pub async fn delete(&self, keys: Vec<Key>) -> Result<()> {
        self.change(keys.into_iter().map(Change::Delete).collect()).await
    }
}
