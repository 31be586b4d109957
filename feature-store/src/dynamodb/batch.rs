//! Many items in a call, whose order and place in the table don't matter. What the service leaves undone is asked for
//! again; only calls that do nothing count as failures.

use featurectl_core::Result;
use futures::{StreamExt, TryStreamExt, stream};

use super::client::Change;
use super::item::{Item, Key};
use super::store::Inner;

/// Changes of one call, the most that the service takes.
const CHANGES: usize = 25;
/// Items that one call reads, the most that the service gives.
const READS: usize = 100;

impl Inner {
    /// Makes changes of different items.
    pub async fn change(&self, mut changes: Vec<Change>) -> Result<()> {
        let mut batches = Vec::with_capacity(changes.len().div_ceil(CHANGES));
        while !changes.is_empty() {
            batches.push(changes.split_off(changes.len().saturating_sub(CHANGES)));
        }
        let calls = stream::iter(batches).map(|batch| self.change_batch(batch));
        calls.buffer_unordered(self.limits.calls.max(1)).try_collect().await
    }

    async fn change_batch(&self, mut changes: Vec<Change>) -> Result<()> {
        let mut failures = 0;
        while !changes.is_empty() {
            let left = self.writes.call(|| self.table.change(&changes)).await?;
            if !left.is_empty() {
                failures = if left.len() < changes.len() { 1 } else { failures + 1 };
                self.writes.slow_down();
                self.writes.wait(failures, self.table.place().throttled("some items were not processed")).await?;
            }
            changes = left;
        }
        Ok(())
    }

    /// Those of different items that are there, in any order.
    pub async fn get_many(&self, keys: &[Key]) -> Result<Vec<Item>> {
        // As few calls as there must be, at the same time and of the same size.
        let size = keys.len().div_ceil(keys.len().div_ceil(READS).max(1)).max(1);
        let batches: Vec<Vec<Key>> = keys.chunks(size).map(<[Key]>::to_vec).collect();
        let calls = stream::iter(batches).map(|batch| self.get_batch(batch));
        let found: Vec<Vec<Item>> = calls.buffer_unordered(self.limits.calls.max(1)).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn get_batch(&self, mut keys: Vec<Key>) -> Result<Vec<Item>> {
        let (mut items, mut failures) = (Vec::with_capacity(keys.len()), 0);
        while !keys.is_empty() {
            let (found, left) = self.reads.call(|| self.table.get_many(&keys)).await?;
            items.extend(found);
            if !left.is_empty() {
                failures = if left.len() < keys.len() { 1 } else { failures + 1 };
                self.reads.slow_down();
                self.reads.wait(failures, self.table.place().throttled("some keys were not processed")).await?;
            }
            keys = left;
        }
        Ok(items)
    }
}
