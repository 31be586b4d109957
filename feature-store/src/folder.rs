//! A folder of this machine or of a bucket. Its files are there whole or not at all.
//!
//! These are the small files of a project: definitions, notes, logs, models. Calls wait for their answer, also those to
//! a bucket, which go through a runtime of their own.

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::object_store::path::Path as Key;
use datafusion::object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, UpdateVersion};
use featurectl_aws::Buckets;
use featurectl_core::{Error, Result};
use futures::{StreamExt, TryStreamExt};
use tokio::runtime::Runtime;
use url::Url;

/// A folder, which need not exist yet.
#[derive(Debug, Clone)]
pub enum Folder {
    /// Of this machine.
    Local(PathBuf),
    /// Of a bucket.
    Bucket(Prefix),
}

/// The keys of a bucket that begin with a prefix.
#[derive(Debug, Clone)]
pub struct Prefix {
    /// `s3://bucket/prefix/`
    url: Url,
    /// For who awaits.
    buckets: Arc<Buckets>,
    /// For who waits: its connections belong to the other runtime.
    waiting: Arc<Buckets>,
}

impl From<PathBuf> for Folder {
    fn from(path: PathBuf) -> Self {
        Self::Local(path)
    }
}

impl From<&Path> for Folder {
    fn from(path: &Path) -> Self {
        Self::Local(path.into())
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::Bucket(prefix) => f.write_str(prefix.url.as_str().trim_end_matches('/')),
        }
    }
}

impl Folder {
    /// The folder that `text` names: a path below `root`, or `s3://bucket/prefix`, which is reached by `buckets`; calls
    /// that wait go by `waiting`, which has the same configuration.
    ///
    /// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for another kind of URL, or one without a bucket.
    pub fn parse(text: &str, root: &Path, buckets: &Arc<Buckets>, waiting: &Arc<Buckets>) -> Result<Self> {
        if !text.contains("://") {
            return Ok(Self::Local(root.join(text)));
        }
        let wrong = |why: &str| Error::invalid(format!("`{text}` is no place to write to: {why}"));
        let url = Url::parse(&format!("{}/", text.trim_end_matches('/'))).map_err(|e| wrong(&e.to_string()))?;
        let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        match (url.scheme(), url.host_str()) {
            ("s3", Some(_)) if plain => {
                let (buckets, waiting) = (Arc::clone(buckets), Arc::clone(waiting));
                Ok(Self::Bucket(Prefix { url, buckets, waiting }))
            }
            ("s3", _) => Err(wrong("write s3://bucket/prefix")),
            _ => Err(wrong("give a path, or s3://bucket/prefix")),
        }
    }

    /// A folder in it; `name` may have several parts.
    pub fn join(&self, name: &str) -> Self {
        match self {
            Self::Local(path) => Self::Local(path.join(name)),
            Self::Bucket(prefix) => {
                let mut url = prefix.url.clone();
                if let Ok(mut parts) = url.path_segments_mut() {
                    parts.pop_if_empty().extend(name.split('/').filter(|p| !p.is_empty())).push("");
                }
                Self::Bucket(Prefix { url, ..prefix.clone() })
            }
        }
    }

    /// Its path, if it is on this machine.
    pub fn local(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Bucket(_) => None,
        }
    }

    /// Its URL and the store of its bucket, if it is in one.
    pub fn bucket(&self) -> Result<Option<(Url, Arc<dyn ObjectStore>)>> {
        match self {
            Self::Local(_) => Ok(None),
            Self::Bucket(prefix) => Ok(Some((prefix.url.clone(), prefix.buckets.get_store(&prefix.url)?))),
        }
    }

    /// Where its files are, as a plan has it: an absolute path or a URL, with `/` at the end.
    pub fn location(&self) -> Result<String> {
        match self {
            Self::Local(path) => Ok(format!("{}/", std::path::absolute(path)?.display())),
            Self::Bucket(prefix) => Ok(prefix.url.to_string()),
        }
    }

    /// The place of a file in it, for people.
    pub fn place(&self, name: &str) -> String {
        format!("{self}/{name}")
    }

    /// A file's bytes; `None` if there is no such file.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let found = match self {
            Self::Local(path) => match fs::read(path.join(name)) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(e) if is_missing(&e) => Ok(None),
                Err(e) => Err(e.into()),
            },
            Self::Bucket(prefix) => prefix.wait(name, |store, key| async move {
                match store.get(&key).await {
                    Ok(found) => Ok(Some(found.bytes().await?.to_vec())),
                    Err(e) => if_missing(e, None),
                }
            }),
        };
        found.map_err(|e: Error| e.context(format!("reading {}", self.place(name))))
    }

    /// Creates or replaces a file, which is there whole or not at all, also after a power cut.
    pub fn write(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let written = match self {
            Self::Local(path) => write_file(&path.join(name), &bytes),
            Self::Bucket(prefix) => {
                prefix.wait(name, |store, key| async move { store.put(&key, bytes.into()).await.map(|_| ()) })
            }
        };
        written.map_err(|e| e.context(format!("writing {}", self.place(name))))
    }

    /// Removes a file; false if there is none.
    pub fn remove(&self, name: &str) -> Result<bool> {
        let removed = match self {
            Self::Local(path) => match fs::remove_file(path.join(name)) {
                Ok(()) => Ok(true),
                Err(e) if is_missing(&e) => Ok(false),
                Err(e) => Err(e.into()),
            },
            Self::Bucket(prefix) => prefix.wait(name, |store, key| async move {
                match store.head(&key).await {
                    Ok(_) => store.delete(&key).await.map(|()| true),
                    Err(e) => if_missing(e, false),
                }
            }),
        };
        removed.map_err(|e| e.context(format!("removing {}", self.place(name))))
    }

    /// A file's size in bytes; `None` if there is no such file.
    pub fn size(&self, name: &str) -> Result<Option<u64>> {
        let found = match self {
            Self::Local(path) => match fs::metadata(path.join(name)) {
                Ok(meta) => Ok(meta.is_file().then_some(meta.len())),
                Err(e) if is_missing(&e) => Ok(None),
                Err(e) => Err(e.into()),
            },
            Self::Bucket(prefix) => prefix.wait(name, |store, key| async move {
                match store.head(&key).await {
                    Ok(object) => Ok(Some(object.size)),
                    Err(e) => if_missing(e, None),
                }
            }),
        };
        found.map_err(|e: Error| e.context(format!("reading {}", self.place(name))))
    }

    /// The names of the files and the folders directly in it, in order.
    pub fn entries(&self) -> Result<Entries> {
        let found = match self {
            Self::Local(path) => local_entries(path),
            Self::Bucket(prefix) => prefix.wait("", |store, key| async move {
                let found = store.list_with_delimiter(Some(&key)).await?;
                let files = found.objects.iter().filter_map(|o| o.location.filename().map(str::to_string)).collect();
                let folders = found.common_prefixes.iter().filter_map(|p| p.filename().map(str::to_string)).collect();
                Ok(Entries { files, folders })
            }),
        };
        let mut found = found.map_err(|e| e.context(format!("reading {self}")))?;
        found.files.sort();
        found.folders.sort();
        Ok(found)
    }

    /// All files below it: their names from here, and their sizes in bytes, in order.
    pub fn below(&self) -> Result<Vec<(String, u64)>> {
        let found = match self {
            Self::Local(path) => local_below(path),
            Self::Bucket(prefix) => prefix.wait("", |store, key| async move {
                let name = |o: ObjectMeta| {
                    (o.location.as_ref()[key.as_ref().len()..].trim_start_matches('/').to_string(), o.size)
                };
                store.list(Some(&key)).map_ok(name).try_collect().await
            }),
        };
        let mut found: Vec<(String, u64)> = found.map_err(|e| e.context(format!("reading {self}")))?;
        found.sort();
        Ok(found)
    }

    /// Removes all files below it; false if there are none.
    pub fn remove_all(&self) -> Result<bool> {
        let removed = match self {
            Self::Local(path) => match fs::remove_dir_all(path) {
                Ok(()) => Ok(true),
                Err(e) if is_missing(&e) => Ok(false),
                Err(e) => Err(e.into()),
            },
            Self::Bucket(prefix) => prefix.wait("", |store, key| async move {
                let keys = store.list(Some(&key)).map_ok(|o| o.location).boxed();
                let removed: Vec<Key> = store.delete_stream(keys).try_collect().await?;
                Ok(!removed.is_empty())
            }),
        };
        removed.map_err(|e| e.context(format!("removing {self}")))
    }
}

/// What is directly in a folder.
#[derive(Debug, Default)]
pub struct Entries {
    /// Names of files.
    pub files: Vec<String>,
    /// Names of folders.
    pub folders: Vec<String>,
}

impl Prefix {
    /// The key of a file.
    fn key(&self, name: &str) -> Result<Key> {
        let folder = Key::from_url_path(self.url.path()).map_err(|e| Error::invalid(format!("{}: {e}", self.url)))?;
        let whole = Key::parse(format!("{folder}/{name}"));
        whole.map_err(|e| Error::invalid(format!("{}{name}: {e}", self.url)))
    }

    /// Does `work` with the key of `name`, and waits for it.
    pub(crate) fn wait<T, F>(
        &self,
        name: &str,
        work: impl FnOnce(Arc<dyn ObjectStore>, Key) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = datafusion::object_store::Result<T>> + Send + 'static,
    {
        let (key, store) = (self.key(name)?, self.waiting.get_store(&self.url)?);
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        runtime()?.spawn(async move { tell.send(work(store, key).await) });
        let done =
            told.recv().map_err(|_| Error::internal(format!("a call to {} ended without an answer", self.url)))?;
        done.map_err(|e| store_error(&e))
    }

    /// Stores an object if its key is free, or has `known` still; returns what it is known by now.
    pub(crate) async fn put_if(
        store: &dyn ObjectStore,
        key: &Key,
        bytes: Vec<u8>,
        known: Option<UpdateVersion>,
    ) -> datafusion::object_store::Result<UpdateVersion> {
        let mode = known.map_or(PutMode::Create, PutMode::Update);
        let put = store.put_opts(key, bytes.into(), PutOptions { mode, ..PutOptions::default() }).await?;
        Ok(UpdateVersion { e_tag: put.e_tag, version: put.version })
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }
}

/// Where calls are made that somebody waits for.
pub(crate) fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let made = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("bucket").enable_all().build()
    });
    made.as_ref().map_err(|e| Error::internal(format!("no thread for calls to a bucket: {e}")))
}

/// What an error of an object store says of itself.
pub(crate) fn store_error(e: &datafusion::object_store::Error) -> Error {
    match Error::within(e) {
        Some(own) => Error::new(own.kind(), own.to_string()),
        None => Error::internal(e.to_string()),
    }
}

fn if_missing<T>(e: datafusion::object_store::Error, or: T) -> datafusion::object_store::Result<T> {
    match e {
        datafusion::object_store::Error::NotFound { .. } => Ok(or),
        e => Err(e),
    }
}

fn is_missing(e: &std::io::Error) -> bool {
    e.kind() == std::io::ErrorKind::NotFound
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(fs::rename(&temporary, path)?)
}

fn local_entries(path: &Path) -> Result<Entries> {
    let mut found = Entries::default();
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if is_missing(&e) => return Ok(found),
        Err(e) => return Err(e.into()),
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() { found.folders.push(name) } else { found.files.push(name) }
    }
    Ok(found)
}

fn local_below(path: &Path) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    let mut open = vec![path.to_path_buf()];
    while let Some(folder) = open.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if is_missing(&e) => continue,
            Err(e) => return Err(e.into()),
        };
        for entry in entries {
            let entry = entry?.path();
            if entry.is_dir() {
                open.push(entry);
            } else {
                let name = entry.strip_prefix(path).unwrap_or(&entry).to_string_lossy().into_owned();
                found.push((name, fs::metadata(&entry)?.len()));
            }
        }
    }
    Ok(found)
}
