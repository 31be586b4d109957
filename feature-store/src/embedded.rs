//! The embedded online store: one file, no server, for one machine and for tests of everything above it.
//!
//! ```text
//!  key    escaped partition ‖ 00 00 ‖ length ‖ start ‖ writer        sorts as (partition, length, start, writer)
//!  value  version ‖ position (24) ‖ last event ‖ expiry ‖ partial
//! ```
//! In the partition a byte 0 is written as `00 FF`, so the two zeros that end it sort before any longer partition;
//! numbers are big-endian with the sign bit flipped. A range of tiles is then one range of keys.

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use featurectl_core::{Error, ErrorKind, OnlineStore, Position, Result, Tile, TileKey, TileRange};
use redb::{Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase, ReadableTable, StorageError, TableDefinition};

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
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|e| Error::from(e).context(format!("creating {}", folder.display())))?;
        }
        let database = Database::create(&path).map_err(|e| open_error(e, &path))?;
        let transaction = database.begin_write().map_err(|e| failed(e, &path))?;
        transaction.open_table(TILES).map_err(|e| failed(e, &path))?;
        transaction.commit().map_err(|e| failed(e, &path))?;
        Ok(Self { file: Arc::new(OpenFile::Write(database, path)) })
    }

    /// Opens the file for reading only: several processes can.
    ///
    /// Errors: as [`open`](Self::open); [`NotFound`](ErrorKind::NotFound) if there is no file.
    pub fn open_read_only(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        if !path.is_file() {
            let text = format!("no online store at {}: run a job with MATERIALIZE FEATURE VIEW first", path.display());
            return Err(Error::not_found(text));
        }
        let database = ReadOnlyDatabase::open(&path).map_err(|e| open_error(e, &path))?;
        Ok(Self { file: Arc::new(OpenFile::Read(database, path)) })
    }
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
                    Some(known) => tile.position > decode_value(&tile.key, known.value())?.position,
                    None => true,
                };
                if newer {
                    table.insert(key.as_slice(), encode_value(&tile).as_slice()).map_err(|e| fail(e.into()))?;
                    stored += 1;
                }
            }
        }
        transaction.commit().map_err(|e| fail(e.into()))?;
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
                let tile = decode_value(&decode_key(range, key.value())?, value.value())?;
                if tile.expires_at.is_none_or(|at| at > now) {
                    tiles.push(tile);
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
        let file = Arc::clone(&self.file);
        blocking(move || file.put(tiles)).await
    }

    async fn read(&self, ranges: &[TileRange], now: i64) -> Result<Vec<Vec<Tile>>> {
        let (file, ranges) = (Arc::clone(&self.file), ranges.to_vec());
        blocking(move || file.read(&ranges, now)).await
    }

    async fn remove(&self, prefix: &[u8]) -> Result<usize> {
        let (file, prefix) = (Arc::clone(&self.file), prefix.to_vec());
        blocking(move || file.remove(&prefix)).await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(e.to_string()))?
}

fn open_error(e: DatabaseError, path: &Path) -> Error {
    match e {
        DatabaseError::DatabaseAlreadyOpen => {
            Error::conflict(format!("another featurectl has {} open: wait for it to end", path.display()))
        }
        DatabaseError::Storage(StorageError::Io(e)) if e.kind() != std::io::ErrorKind::InvalidData => {
            Error::from(e).context(format!("opening {}", path.display()))
        }
        e => damaged(e, path),
    }
}

fn failed(e: impl Into<redb::Error>, path: &Path) -> Error {
    match e.into() {
        redb::Error::Io(e) => Error::from(e).context(format!("online store {}", path.display())),
        redb::Error::TableDoesNotExist(_) => damaged("it has no tiles", path),
        e @ redb::Error::Corrupted(_) => damaged(e, path),
        e => Error::internal(format!("online store {}: {e}", path.display())),
    }
}

fn damaged(e: impl std::fmt::Display, path: &Path) -> Error {
    let text = format!("{} is no online store, or is damaged ({e}): remove it and MATERIALIZE again", path.display());
    Error::new(ErrorKind::Data, text)
}

fn escaped(partition: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(partition.len() + 32);
    for byte in partition {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xFF);
        }
    }
    out
}

fn head(partition: &[u8], length: i64, start: i64) -> Vec<u8> {
    let mut key = escaped(partition);
    key.extend([0, 0]);
    key.extend((length ^ i64::MIN).to_be_bytes());
    key.extend((start ^ i64::MIN).to_be_bytes());
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

/// The key of a tile that was found in `range`: only its start and writer are news.
fn decode_key(range: &TileRange, key: &[u8]) -> Result<TileKey> {
    let damaged = || Error::data("a key of the online store is damaged: remove the file and MATERIALIZE again");
    let prefix = escaped(&range.partition).len() + 2 + 8;
    let (start, writer) = key.get(prefix..).and_then(|rest| rest.split_at_checked(8)).ok_or_else(damaged)?;
    Ok(TileKey {
        partition: range.partition.clone(),
        length: range.length,
        start: i64::from_be_bytes(start.try_into().map_err(|_| damaged())?) ^ i64::MIN,
        writer: String::from_utf8(writer.to_vec()).map_err(|_| damaged())?,
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

fn decode_value(key: &TileKey, value: &[u8]) -> Result<Tile> {
    let damaged =
        || Error::data("a tile of the online store has an unknown format: remove the file and MATERIALIZE again");
    if value.len() < HEADER || value[0] != FORMAT {
        return Err(damaged());
    }
    let number = |at: usize| value[at..at + 8].try_into().map(i64::from_le_bytes).map_err(|_| damaged());
    let expires = number(33)?;
    Ok(Tile {
        key: key.clone(),
        position: Position(value[1..25].try_into().map_err(|_| damaged())?),
        last_event: number(25)?,
        expires_at: (expires != i64::MAX).then_some(expires),
        partial: value[HEADER..].to_vec(),
    })
}
