//! The registry: what is defined, what it was last made of, and which runs there were. One JSON file each.
//!
//! ```text
//!  registry/feature_view/carrier_delay.json     definition, hash, state
//!  registry/run/01j9….json                      what a run did
//! ```
//! A file is replaced as a whole, so a reader sees the old or the new, and a killed writer leaves nothing half-written.
//! One process writes at a time: it holds the [`Lock`]. All this is the same in a folder of this machine and in a bucket.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use featurectl_core::sql::ObjectKind;
use featurectl_core::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::folder::Folder;
use crate::lease::Lease;

/// A definition and what was made of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The statement as it was written, placeholders filled.
    pub sql: String,
    /// Hash of the definition in its canonical spelling.
    pub definition_hash: String,
    /// Place among the statements of its job, so that definitions can be read back in order.
    pub order: usize,
    /// What it reads: `table flights`, `feature view carrier_delay`.
    pub upstream: Vec<String>,
    /// The run that registered this definition.
    pub run_id: String,
    /// Columns with their types. For a table: those of the files; for a feature view: its features.
    #[serde(default)]
    pub columns: Vec<(String, String)>,
    /// What was made of it: a view's online generation, a model's version and metrics.
    #[serde(default)]
    pub state: serde_json::Value,
}

/// JSON files below a folder.
#[derive(Debug, Clone)]
pub struct Registry {
    root: Folder,
}

/// The right to write, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock(Held);

#[derive(Debug)]
enum Held {
    File(#[expect(dead_code, reason = "it is locked as long as it is open")] File),
    Lease(Lease),
}

impl Lock {
    /// Errors: [`Conflict`](featurectl_core::ErrorKind::Conflict) if the right was lost, which that to a bucket can be.
    pub fn check(&self) -> Result<()> {
        match &self.0 {
            Held::File(_) => Ok(()),
            Held::Lease(lease) => lease.check(),
        }
    }
}

impl Registry {
    /// The registry below `root`, which need not exist yet.
    pub fn new(root: impl Into<Folder>) -> Self {
        Self { root: root.into() }
    }

    /// Takes the right to write. In a bucket this waits up to 15 seconds, to see whether another holder is alive.
    ///
    /// Errors: [`Conflict`](featurectl_core::ErrorKind::Conflict) if another process has it.
    pub fn lock(&self) -> Result<Lock> {
        match &self.root {
            Folder::Local(root) => lock_file(root).map(|file| Lock(Held::File(file))),
            Folder::Bucket(prefix) => Ok(Lock(Held::Lease(Lease::take(prefix)?))),
        }
    }

    /// The entry of a definition.
    pub fn get(&self, kind: ObjectKind, name: &str) -> Result<Option<Entry>> {
        self.read(&file(kind, name))
    }

    /// All entries of a kind, in the order of their statements.
    pub fn list(&self, kind: ObjectKind) -> Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = self.read_all(&folder(kind))?;
        entries.sort_by(|a, b| (a.order, &a.name).cmp(&(b.order, &b.name)));
        Ok(entries)
    }

    /// Creates or replaces an entry.
    pub fn put(&self, kind: ObjectKind, entry: &Entry) -> Result<()> {
        self.write(&file(kind, &entry.name), entry)
    }

    /// Removes an entry; false if there is none.
    pub fn remove(&self, kind: ObjectKind, name: &str) -> Result<bool> {
        self.root.remove(&file(kind, name))
    }

    /// Keeps what is known of a run, as JSON.
    pub fn put_run(&self, run_id: &str, run: &impl Serialize) -> Result<()> {
        self.write(&format!("run/{run_id}.json"), run)
    }

    /// All runs, the oldest first.
    pub fn runs<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        self.read_all("run")
    }

    /// What is kept of an output, under a name that is a hash.
    pub fn output<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        self.read(&format!("output/{name}.json"))
    }

    /// What is kept of all outputs.
    pub fn outputs<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        self.read_all("output")
    }

    /// Keeps what is known of an output, as JSON.
    pub fn put_output(&self, name: &str, output: &impl Serialize) -> Result<()> {
        self.write(&format!("output/{name}.json"), output)
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<()> {
        self.root.write(name, json(value)?)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(bytes) = self.root.read(name)? else { return Ok(None) };
        let place = || self.root.place(name);
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| Error::data(format!("{} is damaged: {e}; remove it and run the job again", place())))
    }

    fn read_all<T: DeserializeOwned>(&self, folder: &str) -> Result<Vec<T>> {
        let names = self.root.join(folder).entries()?.files.into_iter().filter(|n| n.ends_with(".json"));
        names.filter_map(|name| self.read(&format!("{folder}/{name}")).transpose()).collect()
    }
}

fn lock_file(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let opened =
        fs::create_dir_all(root).and_then(|()| File::options().create(true).truncate(false).write(true).open(&path));
    let file = opened.map_err(|e| Error::from(e).context(format!("opening {}", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::conflict(format!(
            "another featurectl is writing to {}: wait for it to end",
            root.parent().unwrap_or(root).display()
        ))),
        Err(TryLockError::Error(e)) => Err(Error::from(e).context(format!("locking {}", path.display()))),
    }
}

fn file(kind: ObjectKind, name: &str) -> String {
    format!("{}/{name}.json", folder(kind))
}

fn folder(kind: ObjectKind) -> String {
    kind.noun().replace(' ', "_")
}

/// A value as the text of a file.
pub fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|e| Error::internal(e.to_string()))
}
