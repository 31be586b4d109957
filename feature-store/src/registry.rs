//! The registry: what is defined, what it was last made of, and which runs there were. One JSON file each.
//!
//! ```text
//!  registry/feature_view/carrier_delay.json     definition, hash, state
//!  registry/run/01j9….json                      what a run did
//! ```
//! A file is replaced as a whole by renaming a new one over it, so a reader sees the old or the new, and a killed
//! writer leaves nothing half-written. One process writes at a time: it holds the [`Lock`].

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use featurectl_core::sql::ObjectKind;
use featurectl_core::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

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
    root: PathBuf,
}

/// The right to write, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Registry {
    /// The registry below `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Takes the right to write, without waiting.
    ///
    /// Errors: [`Conflict`](featurectl_core::ErrorKind::Conflict) if another process has it.
    pub fn lock(&self) -> Result<Lock> {
        let path = self.root.join("lock");
        let opened = fs::create_dir_all(&self.root)
            .and_then(|()| File::options().create(true).truncate(false).write(true).open(&path));
        let file = opened.map_err(|e| Error::from(e).context(format!("opening {}", path.display())))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::conflict(format!(
                "another featurectl is writing to {}: wait for it to end",
                self.root.parent().unwrap_or(&self.root).display()
            ))),
            Err(TryLockError::Error(e)) => Err(Error::from(e).context(format!("locking {}", path.display()))),
        }
    }

    /// The entry of a definition.
    pub fn get(&self, kind: ObjectKind, name: &str) -> Result<Option<Entry>> {
        read(&self.file(kind, name))
    }

    /// All entries of a kind, in the order of their statements.
    pub fn list(&self, kind: ObjectKind) -> Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = read_all(&self.root.join(folder(kind)))?;
        entries.sort_by(|a, b| (a.order, &a.name).cmp(&(b.order, &b.name)));
        Ok(entries)
    }

    /// Creates or replaces an entry.
    pub fn put(&self, kind: ObjectKind, entry: &Entry) -> Result<()> {
        write(&self.file(kind, &entry.name), entry)
    }

    /// Removes an entry; false if there is none.
    pub fn remove(&self, kind: ObjectKind, name: &str) -> Result<bool> {
        match fs::remove_file(self.file(kind, name)) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Keeps what is known of a run, as JSON.
    pub fn put_run(&self, run_id: &str, run: &impl Serialize) -> Result<()> {
        write(&self.root.join("run").join(format!("{run_id}.json")), run)
    }

    /// All runs, the oldest first.
    pub fn runs<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        read_all(&self.root.join("run"))
    }

    fn file(&self, kind: ObjectKind, name: &str) -> PathBuf {
        self.root.join(folder(kind)).join(format!("{name}.json"))
    }
}

fn folder(kind: ObjectKind) -> String {
    kind.noun().replace(' ', "_")
}

/// Writes a file that is there whole or not at all, also after a power cut.
pub fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|e| Error::internal(e.to_string()))?;
    let temporary = path.with_extension("json.tmp");
    let written = (|| {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let mut file = File::create(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    written.map_err(|e| Error::from(e).context(format!("writing {}", path.display())))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::from(e).context(format!("reading {}", path.display()))),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| Error::data(format!("{} is damaged: {e}; remove it and run the job again", path.display())))
}

fn read_all<T: DeserializeOwned>(folder: &Path) -> Result<Vec<T>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(Error::from(e).context(format!("reading {}", folder.display()))),
    };
    let mut paths = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?;
    paths.retain(|p| p.extension().is_some_and(|x| x == "json"));
    paths.sort();
    paths.iter().filter_map(|p| read(p).transpose()).collect()
}
