//! The online store in a DynamoDB table: what `item` lays out, by the calls of `client`.

use std::sync::Arc;

use async_trait::async_trait;
use featurectl_core::{Error, OnlineStore, Result, Tile, TileRange};

use super::client::Table;
use super::retry::{Caller, Limits};
use super::table::{self, TableOptions};
use crate::pointer::Tables;

/// An [`OnlineStore`] in a table of DynamoDB, for any number of processes at once. Clones share their limits.
///
/// Reads are strongly consistent: a tile whose [`put`](OnlineStore::put) returned is seen by every read that begins
/// after that.
///
/// ```no_run
/// use featurectl_feature_store::DynamoStore;
/// use featurectl_feature_store::dynamodb::{Access, Limits, Table, TableOptions};
///
/// # async fn example() -> featurectl_core::Result<()> {
/// let table = Table::connect("features", &Access::default()).await;
/// let options = TableOptions { ttl: true, ..TableOptions::default() };
/// let store = DynamoStore::create(table, &options, Limits::default()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct DynamoStore {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub table: Table,
    pub limits: Limits,
    /// Throttled writes don't slow down reads, nor the other way round: they have capacities of their own.
    pub reads: Caller,
    pub writes: Caller,
}

impl DynamoStore {
    /// Opens the store in a table that is there.
    ///
    /// Errors: [`NotFound`](featurectl_core::ErrorKind::NotFound) if there is no such table,
    /// [`Invalid`](featurectl_core::ErrorKind::Invalid) if its keys are not those of the layout or the access is
    /// refused, [`Unavailable`](featurectl_core::ErrorKind::Unavailable) if it is being made or nobody answers.
    pub async fn open(table: Table, limits: Limits) -> Result<Self> {
        let store = Self::new(table, limits);
        table::check(&store.inner).await.map_err(|e| store.doing("opening", e))?;
        Ok(store)
    }

    /// Makes the table if it is not there, sets what the options ask for and it does not have yet, waits until it can
    /// be used, and opens the store. Calling it again is harmless; it turns nothing off.
    ///
    /// Errors: as [`open`](Self::open); [`Conflict`](featurectl_core::ErrorKind::Conflict) if the table is being
    /// deleted.
    pub async fn create(table: Table, options: &TableOptions, limits: Limits) -> Result<Self> {
        let store = Self::new(table, limits);
        table::create(&store.inner, options).await.map_err(|e| store.doing("making", e))?;
        Ok(store)
    }

    /// The store in another table of the same service, of which nothing is asked yet.
    pub(super) fn beside(&self, name: &str) -> Self {
        Self::new(self.inner.table.beside(name), self.inner.limits.clone())
    }

    fn new(table: Table, limits: Limits) -> Self {
        let (reads, writes) = (Caller::new(&limits), Caller::new(&limits));
        Self { inner: Arc::new(Inner { table, limits, reads, writes }) }
    }

    pub(super) fn doing(&self, what: &str, e: Error) -> Error {
        e.context(format!("{what} the online table `{}`", self.inner.table.name()))
    }
}

#[async_trait]
impl OnlineStore for DynamoStore {
    async fn put(&self, tiles: Vec<Tile>) -> Result<usize> {
        self.inner.put(tiles).await.map_err(|e| self.doing("writing to", e))
    }

    async fn fill(&self, tiles: Vec<Tile>) -> Result<()> {
        self.inner.fill(tiles).await.map_err(|e| self.doing("writing to", e))
    }

    async fn read(&self, ranges: &[TileRange], now: i64) -> Result<Vec<Vec<Tile>>> {
        self.inner.read(ranges, now).await.map_err(|e| self.doing("reading from", e))
    }

    async fn remove(&self, prefix: &[u8]) -> Result<usize> {
        self.inner.remove(prefix).await.map_err(|e| self.doing("removing from", e))
    }
}

#[async_trait]
impl Tables for DynamoStore {
    fn table(&self, name: &str) -> Result<Arc<dyn OnlineStore>> {
        Ok(Arc::new(self.beside(name)))
    }

    async fn delete_table(&self, name: &str) -> Result<bool> {
        let store = self.beside(name);
        table::delete(&store.inner).await.map_err(|e| store.doing("deleting", e))
    }

    fn reads_one_instant(&self) -> bool {
        false
    }
}
