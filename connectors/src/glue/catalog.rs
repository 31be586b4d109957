//! `glue.database.table` in SQL, and `name.database.table` of other catalogs: each table is looked up when it is named.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::error::Result as DfResult;
use datafusion::execution::SessionState;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::prelude::SessionContext;
use featurectl_aws::{Access, Buckets};
use featurectl_core::{Error, Result, closest};
use tokio::sync::OnceCell;

use super::client::{Client, Entry};
use super::format::Format;
use super::table::{HiveTable, url};
use crate::files::delta_table;

/// The state of a session, as long as it is there: it holds the catalog, and not the catalog it.
type State = Box<dyn Fn() -> Option<SessionState> + Send + Sync>;

/// Makes `glue.database.table` known to a session: the catalog that `access` leads to. Nothing is asked of the service
/// before such a table is named.
pub fn register_catalog(ctx: &SessionContext, access: &Access) {
    add(ctx, "glue", access.clone(), None, None);
}

/// Makes tables of another catalog known as `name.database.table`. `options`: `region`, `profile` and `endpoint`, which go
/// before those of `access`, and `catalog_id`, the account whose catalog it is. Buckets of its tables are reached as the
/// catalog is.
///
/// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for a value that can't be.
pub fn add_catalog(
    ctx: &SessionContext,
    name: &str,
    options: &BTreeMap<String, String>,
    access: &Access,
) -> Result<()> {
    if let Some((key, _)) = options.iter().find(|(_, value)| value.trim().is_empty()) {
        return Err(Error::invalid(format!("option `{key}` is empty: leave it out")));
    }
    let text = |key: &str| options.get(key).cloned();
    let account = text("catalog_id");
    if let Some(id) = account.as_ref().filter(|id| id.len() != 12 || !id.bytes().all(|b| b.is_ascii_digit())) {
        return Err(Error::invalid(format!("option `catalog_id`: `{id}` is no account, which is 12 digits")));
    }
    let own = Access { region: text("region"), profile: text("profile"), endpoint: text("endpoint") };
    let reached = own.or(access);
    // The address is that of Glue alone.
    let of_buckets = Access { endpoint: access.endpoint.clone(), ..reached.clone() };
    let buckets = (of_buckets != *access).then(|| Buckets::new(of_buckets));
    add(ctx, name, reached, account, buckets);
    Ok(())
}

fn add(ctx: &SessionContext, name: &str, access: Access, account: Option<String>, buckets: Option<Buckets>) {
    let state = ctx.state_weak_ref();
    let lookup = Lookup {
        catalog: name.into(),
        access,
        account,
        buckets,
        session: Box::new(move || Some(state.upgrade()?.read().clone())),
        client: OnceCell::new(),
        known: Mutex::default(),
        looking: tokio::sync::Mutex::default(),
    };
    ctx.register_catalog(name, Arc::new(GlueCatalog(Arc::new(lookup))));
}

#[derive(Debug)]
struct GlueCatalog(Arc<Lookup>);

impl CatalogProvider for GlueCatalog {
    /// Those with a table that was named: to list all of them takes calls, and a catalog can have thousands.
    fn schema_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.known().keys().map(|(database, _)| database.clone()).collect();
        names.dedup();
        names
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
    /// Those that were named.
    fn table_names(&self) -> Vec<String> {
        let known = self.lookup.known();
        known.keys().filter(|(database, _)| *database == self.name).map(|(_, table)| table.clone()).collect()
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        let found = self.lookup.table(&self.name, name).await;
        let place = || format!("table `{}.{}.{name}`", self.lookup.catalog, self.name);
        Ok(Some(found.map_err(|e| e.context(place()))?))
    }

    fn table_exist(&self, _: &str) -> bool {
        false
    }
}

type Known = BTreeMap<(String, String), Arc<dyn TableProvider>>;

/// The tables that were named so far, and how others are found.
struct Lookup {
    /// The catalog's name in SQL.
    catalog: String,
    access: Access,
    account: Option<String>,
    /// Buckets that are reached otherwise than the session reaches them.
    buckets: Option<Buckets>,
    session: State,
    client: OnceCell<Client>,
    /// A table stays what it was when it was first named: a job is checked and run with the same.
    known: Mutex<Known>,
    /// One table is looked up at a time.
    looking: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { catalog, access, account, .. } = self;
        let mut out = f.debug_struct("Lookup");
        out.field("catalog", catalog).field("access", access).field("account", account).finish_non_exhaustive()
    }
}

impl Lookup {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn table(&self, database: &str, name: &str) -> Result<Arc<dyn TableProvider>> {
        let _one = self.looking.lock().await;
        let key = (database.to_string(), name.to_string());
        if let Some(table) = self.known().get(&key) {
            return Ok(Arc::clone(table));
        }
        let connect = async || Client::new(&self.access.config().await).of_account(self.account.as_deref());
        let client = self.client.get_or_init(connect).await;
        let entry = match client.table(database, name).await? {
            Some(entry) => entry,
            None => return Err(missing(client, database, name).await),
        };
        let table = self.open(client, database, name, &entry).await?;
        self.known().insert(key, Arc::clone(&table));
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
            self.reach(&session, location)?;
            return Ok(delta_table(&session, &url(location)?).await?);
        }
        self.reach(&session, &entry.storage.location)?;
        let partitions = match entry.partition_keys.is_empty() {
            true => vec![],
            false => client.partitions(database, name, false).await?,
        };
        Ok(Arc::new(HiveTable::new(&session, entry, format, partitions).await?))
    }

    /// Has the session reach a table's bucket as the catalog is reached.
    fn reach(&self, session: &SessionState, location: &str) -> Result<()> {
        let Some(buckets) = &self.buckets else { return Ok(()) };
        let mut bucket = url(location)?;
        bucket.set_path("");
        let store = buckets.get_store(&bucket)?;
        session.runtime_env().object_store_registry.register_store(&bucket, store);
        Ok(())
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
