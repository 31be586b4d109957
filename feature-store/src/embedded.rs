//! The embedded online store: one file, no server, for one machine and for tests of everything above it.
//!
//! ```text
//!  key    escaped partition ‖ 00 00 ‖ length ‖ start ‖ writer        sorts as (partition, length, start, writer)
//!  value  version ‖ position (24) ‖ last event ‖ expiry ‖ partial
//! ```
//! In the partition a byte 0 is written as `00 FF`, so the two zeros that end it sort before any longer partition;
//! numbers are big-endian with the sign bit flipped. A range of tiles is then one range of keys.

use std::fs::File;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use featurectl_core::{Error, ErrorKind, OnlineStore, Position, Result, Tile, TileKey, TileRange};
use redb::{Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase, ReadableTable, StorageError, TableDefinition};

use crate::keys::{escaped, number, sortable};
use crate::pointer::Tables;

const TILES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("tiles");
/// First byte of every value.
const FORMAT: u8 = 1;
/// Format, position, last event and expiry.
const HEADER: usize = 1 + 24 + 8 + 8;

/// An [`OnlineStore`] in one file. Writes are durable when they return; one process writes at a time.
#[derive(Debug, Clone)]
pub struct EmbeddedStore {
    file: Arc<OpenFile>,
}

enum OpenFile {
    Write(Database, PathBuf),
    Read(ReadOnlyDatabase, PathBuf),
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OpenFile").field(&self.path()).finish()
    }
}

impl EmbeddedStore {
    /// Opens the file for writing; it is made if it is not there.
    ///
    /// Errors: [`Conflict`](ErrorKind::Conflict) if another process has it open, [`Data`](ErrorKind::Data) if it is
    /// damaged, [`Invalid`](ErrorKind::Invalid) if it can't be written.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        if !path.exists() {
            create(&path)?;
        }
        let database = open_tables(&path)?;
        Ok(Self { file: Arc::new(OpenFile::Write(database, path)) })
    }

    /// Opens the file for reading only: several processes can. If its last writer was killed, the file is first
    /// brought back to the last commit; only then must it be writable.
    ///
    /// Errors: as [`open`](Self::open); [`NotFound`](ErrorKind::NotFound) if there is no file.
    pub fn open_read_only(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        if !path.is_file() {
            let text = format!("no online store at {}: run a job with MATERIALIZE FEATURE VIEW first", path.display());
            return Err(Error::not_found(text));
        }
        let database = match ReadOnlyDatabase::open(&path) {
            Err(DatabaseError::RepairAborted) => recover(&path).and_then(|()| ReadOnlyDatabase::open(&path)),
            opened => opened,
        };
        let database = database.map_err(|e| open_error(e, &path))?;
        Ok(Self { file: Arc::new(OpenFile::Read(database, path)) })
    }
}

/// Makes the file under another name and gives it its own when it is whole: redb fills a new file in several steps, and
/// what a process killed between them leaves can't be opened. If another process was first, its file stays.
fn create(path: &Path) -> Result<()> {
    let place = |e| unusable(e, path);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(place)?;
    let new = tempfile::Builder::new().prefix(".online-").make_in(folder, |p| File::create_new(p)).map_err(place)?;
    open_tables(new.path())?.close().map_err(|e| open_error(e, path))?;
    match new.persist_noclobber(path) {
        Err(e) if e.error.kind() != std::io::ErrorKind::AlreadyExists => Err(place(e.error)),
        _ => File::open(folder).and_then(|f| f.sync_all()).map_err(place),
    }
}

/// Opens a file of tiles for writing, or fills it if it is empty.
fn open_tables(path: &Path) -> Result<Database> {
    let database = Database::create(path).map_err(|e| open_error(e, path))?;
    let transaction = database.begin_write().map_err(|e| failed(e, path))?;
    transaction.open_table(TILES).map_err(|e| failed(e, path))?;
    transaction.commit().map_err(|e| failed(e, path))?;
    Ok(database)
}

/// Brings a file whose writer was killed back to its last commit, which redb does only when it may write.
fn recover(path: &Path) -> Result<(), DatabaseError> {
    Database::open(path)?.close()
}

impl OpenFile {
    fn path(&self) -> &Path {
        match self {
            Self::Write(_, path) | Self::Read(_, path) => path,
        }
    }

    fn writable(&self) -> Result<&Database> {
        match self {
            Self::Write(database, _) => Ok(database),
            Self::Read(_, path) => Err(Error::invalid(format!("{} is open for reading only", path.display()))),
        }
    }

    fn header<'a>(&self, value: &'a [u8]) -> Result<Header<'a>> {
        decode_header(value).ok_or_else(|| damaged("a tile has an unknown format", self.path()))
    }

    fn put(&self, mut tiles: Vec<Tile>) -> Result<usize> {
        tiles.sort_by(|a, b| a.key.cmp(&b.key));
        let fail = |e: redb::Error| failed(e, self.path());
        let transaction = self.writable()?.begin_write().map_err(|e| fail(e.into()))?;
        let mut stored = 0;
        {
            let mut table = transaction.open_table(TILES).map_err(|e| fail(e.into()))?;
            for tile in tiles {
                let key = encode_key(&tile.key);
                let newer = match table.get(key.as_slice()).map_err(|e| fail(e.into()))? {
                    Some(known) => tile.position > self.header(known.value())?.position,
                    None => true,
                };
                if newer {
                    table.insert(key.as_slice(), encode_value(&tile).as_slice()).map_err(|e| fail(e.into()))?;
                    stored += 1;
                }
            }
        }
        // What is there already was durable before, so that writing it again costs no sync.
        if stored > 0 {
            transaction.commit().map_err(|e| fail(e.into()))?;
        }
        Ok(stored)
    }

    fn read(&self, ranges: &[TileRange], now: i64) -> Result<Vec<Vec<Tile>>> {
        let fail = |e: redb::Error| failed(e, self.path());
        let transaction = match self {
            Self::Write(database, _) => database.begin_read(),
            Self::Read(database, _) => database.begin_read(),
        };
        let transaction = transaction.map_err(|e| fail(e.into()))?;
        let table = transaction.open_table(TILES).map_err(|e| fail(e.into()))?;
        let one = |range: &TileRange| {
            if range.start >= range.end {
                return Ok(vec![]);
            }
            let (low, high) = (bound(range, range.start), bound(range, range.end));
            let mut tiles = Vec::new();
            for entry in table.range(low.as_slice()..high.as_slice()).map_err(|e| fail(e.into()))? {
                let (key, value) = entry.map_err(|e| fail(e.into()))?;
                let header = self.header(value.value())?;
                if header.expires_at.is_none_or(|at| at > now) {
                    let key =
                        decode_key(range, key.value()).ok_or_else(|| damaged("a key can't be read", self.path()))?;
                    if range.writer.as_ref().is_none_or(|w| *w == key.writer) {
                        tiles.push(header.tile(key));
                    }
                }
            }
            Ok(tiles)
        };
        ranges.iter().map(one).collect()
    }

    fn remove(&self, prefix: &[u8]) -> Result<usize> {
        let fail = |e: redb::Error| failed(e, self.path());
        let transaction = self.writable()?.begin_write().map_err(|e| fail(e.into()))?;
        let mut removed = 0;
        {
            let mut table = transaction.open_table(TILES).map_err(|e| fail(e.into()))?;
            let low = escaped(prefix);
            let matching = |key: &[u8]| key.starts_with(&low);
            let range = (Bound::Included(low.as_slice()), Bound::Unbounded::<&[u8]>);
            let mut keys = Vec::new();
            for entry in table.range::<&[u8]>(range).map_err(|e| fail(e.into()))? {
                let (key, _) = entry.map_err(|e| fail(e.into()))?;
                if !matching(key.value()) {
                    break;
                }
                keys.push(key.value().to_vec());
            }
            for key in keys {
                table.remove(key.as_slice()).map_err(|e| fail(e.into()))?;
                removed += 1;
            }
        }
        transaction.commit().map_err(|e| fail(e.into()))?;
        Ok(removed)
    }
}

#[async_trait]
impl OnlineStore for EmbeddedStore {
    async fn put(&self, tiles: Vec<Tile>) -> Result<usize> {
        blocking(Arc::clone(&self.file), move |file| file.put(tiles)).await
    }

    async fn fill(&self, tiles: Vec<Tile>) -> Result<()> {
        self.put(tiles).await.map(|_| ())
    }

    async fn read(&self, ranges: &[TileRange], now: i64) -> Result<Vec<Vec<Tile>>> {
        let ranges = ranges.to_vec();
        blocking(Arc::clone(&self.file), move |file| file.read(&ranges, now)).await
    }

    async fn remove(&self, prefix: &[u8]) -> Result<usize> {
        let prefix = prefix.to_vec();
        blocking(Arc::clone(&self.file), move |file| file.remove(&prefix)).await
    }
}

#[async_trait]
impl Tables for EmbeddedStore {
    fn table(&self, name: &str) -> Result<Arc<dyn OnlineStore>> {
        let path = self.file.path().display();
        Err(Error::invalid(format!("{path} is one file and has no table `{name}`: it was written for another store")))
    }

    async fn delete_table(&self, name: &str) -> Result<bool> {
        self.table(name).map(|_| true)
    }

    fn reads_one_instant(&self) -> bool {
        true
    }
}

/// Runs `work` where it may block. redb panics on some damaged pages, so that a panic there is damage too.
async fn blocking<T: Send + 'static>(
    file: Arc<OpenFile>,
    work: impl FnOnce(&OpenFile) -> Result<T> + Send + 'static,
) -> Result<T> {
    let path = file.path().to_owned();
    tokio::task::spawn_blocking(move || work(&file)).await.map_err(|e| match e.is_panic() {
        true => damaged("the storage engine stopped at a page of it", &path),
        false => Error::internal(e.to_string()),
    })?
}

fn open_error(e: DatabaseError, path: &Path) -> Error {
    match e {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            Error::conflict(format!("another featurectl has {} open: wait for it to end", path.display()))
        }
        DatabaseError::Storage(StorageError::Io(e)) if is_of_the_place(e.kind()) => unusable(e, path),
        e => damaged(e, path),
    }
}

/// Whether the folder or the disk is at fault, not the file's content.
fn is_of_the_place(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind as Io;
    matches!(
        kind,
        Io::PermissionDenied
            | Io::ReadOnlyFilesystem
            | Io::StorageFull
            | Io::QuotaExceeded
            | Io::FileTooLarge
            | Io::NotFound
            | Io::IsADirectory
            | Io::NotADirectory
    )
}

fn failed(e: impl Into<redb::Error>, path: &Path) -> Error {
    match e.into() {
        redb::Error::Io(e) => Error::from(e).context(format!("online store {}", path.display())),
        redb::Error::PreviousIo => {
            let text = format!("an earlier write to {} failed: make room on its disk and run again", path.display());
            Error::invalid(text)
        }
        redb::Error::TableDoesNotExist(_) => damaged("it has no tiles", path),
        e @ redb::Error::Corrupted(_) => damaged(e, path),
        e => Error::internal(format!("online store {}: {e}", path.display())),
    }
}

fn unusable(e: std::io::Error, path: &Path) -> Error {
    let text = format!("can't open {} ({e}): its folder must be writable, with free space", path.display());
    Error::invalid(text).with_source(e)
}

fn damaged(e: impl std::fmt::Display, path: &Path) -> Error {
    let text = format!("{} is no online store, or is damaged ({e}): remove it and MATERIALIZE again", path.display());
    Error::new(ErrorKind::Data, text)
}

fn head(partition: &[u8], length: i64, start: i64) -> Vec<u8> {
    let mut key = escaped(partition);
    key.extend([0, 0]);
    key.extend(sortable(length));
    key.extend(sortable(start));
    key
}

fn encode_key(key: &TileKey) -> Vec<u8> {
    let mut out = head(&key.partition, key.length, key.start);
    out.extend(key.writer.as_bytes());
    out
}

fn bound(range: &TileRange, start: i64) -> Vec<u8> {
    head(&range.partition, range.length, start)
}

/// The key of a tile that was found in `range`: only its start and writer are news. `None` if it is damaged.
fn decode_key(range: &TileRange, key: &[u8]) -> Option<TileKey> {
    let prefix = escaped(&range.partition).len() + 2 + 8;
    let (start, writer) = key.get(prefix..)?.split_first_chunk()?;
    Some(TileKey {
        partition: range.partition.clone(),
        length: range.length,
        start: number(*start),
        writer: String::from_utf8(writer.to_vec()).ok()?,
    })
}

fn encode_value(tile: &Tile) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + tile.partial.len());
    out.push(FORMAT);
    out.extend(tile.position.0);
    out.extend(tile.last_event.to_le_bytes());
    out.extend(tile.expires_at.unwrap_or(i64::MAX).to_le_bytes());
    out.extend(&tile.partial);
    out
}

/// A value without a copy of its partial, to decide by position or expiry first.
struct Header<'a> {
    position: Position,
    last_event: i64,
    expires_at: Option<i64>,
    partial: &'a [u8],
}

impl Header<'_> {
    fn tile(self, key: TileKey) -> Tile {
        let Self { position, last_event, expires_at, partial } = self;
        Tile { key, position, last_event, expires_at, partial: partial.to_vec() }
    }
}

/// `None` for a value of another format, or a damaged one.
fn decode_header(value: &[u8]) -> Option<Header<'_>> {
    let (format, rest) = value.split_first()?;
    let (position, rest) = rest.split_first_chunk()?;
    let (last_event, rest) = rest.split_first_chunk()?;
    let (expires_at, partial) = rest.split_first_chunk()?;
    let expires_at = i64::from_le_bytes(*expires_at);
    (*format == FORMAT).then_some(Header {
        position: Position(*position),
        last_event: i64::from_le_bytes(*last_event),
        expires_at: (expires_at != i64::MAX).then_some(expires_at),
        partial,
    })
}

#[cfg(test)]
mod tests;
