//! A new table by import: a backfill of many keys without a write unit.
//!
//! ```text
//!  tiles in the order of their keys ──▶ data/00000.json.gz  {"Item":{"pk":{"B":"…"},"sk":{"B":"…"},…}}
//!                                       data/00001.json.gz
//!                                       import.json         when all files are there; later with the import's ARN
//!  ImportTable ──▶ DescribeImport until it is done ──▶ ttl, recovery, protection, tags
//! ```
//! DynamoDB imports only into a table that does not exist yet, and of two items with one key it keeps any. So the
//! tiles must come in the order of their keys, and the second of a key is an error. Whoever was killed goes on with what
//! `import.json` says; without it, the files are written anew.

use featurectl_core::{Error, ErrorKind, Result, Tile};
use futures::Stream;
use serde::{Deserialize, Serialize};

use super::client::ImportState;
use super::files;
use super::retry::random;
use super::store::DynamoStore;
use super::table::{self, TableOptions};
use crate::folder::Folder;

/// What says how far an import is.
const STATE: &str = "import.json";

/// Where an import goes to, and through which folder.
#[derive(Debug, Clone)]
pub struct Import {
    /// Name of the table that it makes, which nobody else uses.
    pub table: String,
    /// Folder of a bucket, of this import alone.
    pub folder: Folder,
    /// What the table is to have.
    pub options: TableOptions,
}

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Tiles that are in files.
    Written(u64),
    /// Items that the service has read, of how many. A big tile is several items.
    Imported(u64, u64),
}

/// What is in `import.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    /// Items in the files.
    items: u64,
    /// Two calls with one token are one import.
    token: String,
    /// The import, once it is known to have begun.
    arn: Option<String>,
}

impl DynamoStore {
    /// Makes a table of `tiles` by import, or goes on with an import that was begun. Its files stay: see
    /// [`Import::remove_files`].
    ///
    /// Errors: [`Invalid`](ErrorKind::Invalid) if tiles are not in the order of their keys or a key comes twice, or the
    /// folder is of this machine; [`Data`](ErrorKind::Data) if the service did not import all items. Then nothing of
    /// the import is left, as far as it may be removed, and another call begins anew.
    pub async fn import(
        &self,
        import: &Import,
        tiles: impl Stream<Item = Result<Vec<Tile>>> + Send,
        told: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<()> {
        let store = self.beside(&import.table);
        let state = match import.state()? {
            Some(state) => state,
            None => import.write(tiles, told).await?,
        };
        store.import_files(import, state, told).await.map_err(|e| store.doing("importing into", e))
    }

    async fn import_files(&self, import: &Import, state: State, told: &mut (dyn FnMut(Progress) + Send)) -> Result<()> {
        let arn = match &state.arn {
            Some(arn) => arn.clone(),
            None => self.begin(import, &state.token).await?,
        };
        if state.arn.is_none() {
            import.put_state(&State { arn: Some(arn.clone()), ..state.clone() })?;
        }
        let done = self.wait(&arn, state.items, told).await?;
        if done.status == "COMPLETED" && done.errors == 0 && done.imported == state.items {
            return table::create(&self.inner, &import.options).await;
        }
        let left = match table::delete(&self.inner).await {
            Ok(true) => String::new(),
            _ => format!("; delete the table `{}`, which has a part of them", import.table),
        };
        import.remove_files()?;
        let ImportState { status, processed, imported, errors, failure } = done;
        let why = if failure.is_empty() { "the log group of the import says why" } else { failure.as_str() };
        Err(Error::data(format!(
            "the import ended as {status}: {imported} of {} items are in the table, {processed} were read, {errors} \
             could not be imported ({why}); nothing of it is served, and running again imports anew{left}",
            state.items
        )))
    }

    /// Begins the import, or finds the one that was begun.
    async fn begin(&self, import: &Import, token: &str) -> Result<String> {
        let (table, writes) = (&self.inner.table, &self.inner.writes);
        let (bucket, prefix) = import.source()?;
        match writes.call(|| table.import(&bucket, &prefix, token)).await {
            // The token is forgotten after some hours.
            Err(e) if e.kind() == ErrorKind::Conflict => {
                let description = table::describe(&self.inner).await?;
                let known = self.inner.reads.call(|| table.import_of(&description.arn)).await?;
                known.ok_or_else(|| e.context("a table of this name is there, which no import made: delete it"))
            }
            begun => begun,
        }
    }

    /// Waits until the service is done, one way or the other.
    async fn wait(&self, arn: &str, items: u64, told: &mut (dyn FnMut(Progress) + Send)) -> Result<ImportState> {
        for look in 1.. {
            let state = self.inner.reads.call(|| self.inner.table.describe_import(arn)).await?;
            if !matches!(state.status.as_str(), "IN_PROGRESS" | "CANCELLING") {
                return Ok(state);
            }
            told(Progress::Imported(state.processed, items));
            tokio::time::sleep(self.inner.reads.pause(look)).await;
        }
        Err(Error::internal("an import was looked at too often"))
    }
}

impl Import {
    /// Removes its files; false if there are none.
    pub fn remove_files(&self) -> Result<bool> {
        // What says that they are whole goes first.
        self.folder.remove(STATE)?;
        self.folder.remove_all()
    }

    fn state(&self) -> Result<Option<State>> {
        let Some(bytes) = self.folder.read(STATE)? else { return Ok(None) };
        let damaged = |e| Error::data(format!("{} is damaged: remove it ({e})", self.folder.place(STATE)));
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    fn put_state(&self, state: &State) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(state).map_err(|e| Error::internal(e.to_string()))?;
        self.folder.write(STATE, bytes)
    }

    /// Writes the files, in place of those that a killed run left.
    async fn write(
        &self,
        tiles: impl Stream<Item = Result<Vec<Tile>>> + Send,
        told: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<State> {
        self.source()?;
        self.folder.remove_all()?;
        let items = files::write(&self.folder.join("data"), tiles, &mut |n| told(Progress::Written(n))).await?;
        let token = format!("{:016x}{:016x}", random(), random());
        let state = State { items, token, arn: None };
        self.put_state(&state)?;
        Ok(state)
    }

    /// The bucket, and what the keys of the files begin with.
    fn source(&self) -> Result<(String, String)> {
        let found = self.folder.join("data").bucket()?;
        let found = found.and_then(|(url, _)| {
            let key = percent_encoding::percent_decode_str(url.path()).decode_utf8().ok()?;
            Some((url.host_str()?.to_string(), key.trim_start_matches('/').to_string()))
        });
        found.ok_or_else(|| Error::invalid(format!("an import is read from a bucket, not from {}", self.folder)))
    }
}
