//! `glue.database.table` in SQL: each table is looked up when it is named.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::error::Result as DfResult;
use datafusion::execution::SessionState;
use datafusion::prelude::SessionContext;
use featurectl_aws::Access;
use featurectl_core::{Error, Result, closest};
use tokio::sync::{Mutex, OnceCell};

use super::client::{Client, Entry};
use super::format::Format;
use super::table::{HiveTable, url};
use crate::files::delta_table;

/// The state of a session, as long as it is there: it holds the catalog, and not the catalog it.
type State = Box<dyn Fn() -> Option<SessionState> + Send + Sync>;

/// Makes `glue.database.table` known to a session. Nothing is asked of the service before such a table is named.
pub fn register_catalog(ctx: &SessionContext, access: &Access) {
    let state = ctx.state_weak_ref();
    let lookup = Lookup {
        access: access.clone(),
        session: Box::new(move || Some(state.upgrade()?.read().clone())),
        client: OnceCell::new(),
        known: Mutex::default(),
    };
    ctx.register_catalog("glue", Arc::new(GlueCatalog(Arc::new(lookup))));
}

#[derive(Debug)]
struct GlueCatalog(Arc<Lookup>);

impl CatalogProvider for GlueCatalog {
    /// Those that are asked for by name are there; to list all of them takes calls.
    fn schema_names(&self) -> Vec<String> {
        vec![]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        Some(Arc::new(Database { name: name.into(), lookup: Arc::clone(&self.0) }))
    }
}

#[derive(Debug)]
struct Database {
    name: String,
    lookup: Arc<Lookup>,
}

#[async_trait]
impl SchemaProvider for Database {
    fn table_names(&self) -> Vec<String> {
        vec![]
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        let found = self.lookup.table(&self.name, name).await;
        Ok(Some(found.map_err(|e| e.context(format!("table `glue.{}.{name}`", self.name)))?))
    }

    fn table_exist(&self, _: &str) -> bool {
        false
    }
}

/// The tables that were named so far, and how others are found.
struct Lookup {
    access: Access,
    session: State,
    client: OnceCell<Client>,
    /// A table stays what it was when it was first named: a job is checked and run with the same.
    known: Mutex<HashMap<(String, String), Arc<dyn TableProvider>>>,
}

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lookup").field("access", &self.access).finish_non_exhaustive()
    }
}

impl Lookup {
    async fn table(&self, database: &str, name: &str) -> Result<Arc<dyn TableProvider>> {
        let mut known = self.known.lock().await;
        let key = (database.to_string(), name.to_string());
        if let Some(table) = known.get(&key) {
            return Ok(Arc::clone(table));
        }
        let client = self.client.get_or_init(|| async { Client::new(&self.access.config().await) }).await;
        let entry = match client.table(database, name).await? {
            Some(entry) => entry,
            None => return Err(missing(client, database, name).await),
        };
        let table = self.open(client, database, name, &entry).await?;
        known.insert(key, Arc::clone(&table));
        Ok(table)
    }

    async fn open(&self, client: &Client, database: &str, name: &str, entry: &Entry) -> Result<Arc<dyn TableProvider>> {
        let gone = || Error::internal("the session has ended");
        let session = (self.session)().ok_or_else(gone)?;
        let format = Format::of(entry)?;
        if format == Format::Delta {
            // Spark says where in the one place, Athena in the other.
            let path = entry.storage.serde_parameters.get("path");
            let location = path.filter(|p| p.starts_with("s3")).unwrap_or(&entry.storage.location);
            return Ok(delta_table(&session, &url(location)?).await?);
        }
        let partitions = match entry.partition_keys.is_empty() {
            true => vec![],
            false => client.partitions(database, name, false).await?,
        };
        Ok(Arc::new(HiveTable::new(&session, entry, format, partitions).await?))
    }
}

/// There is no such table. What its name may have been is said where the service tells it.
async fn missing(client: &Client, database: &str, name: &str) -> Error {
    match client.table_names(database).await {
        Ok(Some(names)) => {
            let hint = closest(name, names.iter()).map_or(String::new(), |n| format!("; did you mean `{n}`?"));
            Error::not_found(format!("there is no such table in Glue{hint}"))
        }
        Ok(None) => Error::not_found(format!(
            "there is no database `{database}` in Glue: correct its name, the region or the account"
        )),
        Err(_) => Error::not_found("there is no such table in Glue"),
    }
}
