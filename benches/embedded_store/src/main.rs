//! Why the embedded store is built on redb: the same conditional writes and range reads on redb and on fjall.
//!
//! ```text
//!  load    20 durable writes of 10,000 tiles of 200 bytes: 2,000 entities × 5 new hours each
//!  rewrite the same 20 writes with a newer position
//!  read    200 reads of 100 random ranges of 31 tiles
//! ```
//! Both start from an empty folder in each of five rounds, must give the same tiles, and see the same keys and values.
//! Run it with `cargo run --release` in this folder; it prints medians and their ratio.

use std::error::Error;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use fjall::{KeyspaceCreateOptions, PersistMode, Readable, SingleWriterTxDatabase, SingleWriterTxKeyspace};
use redb::{Builder, ConcurrencyMode, Database, ReadableDatabase, ReadableTable, TableDefinition};

/// The result of a call into one of the engines.
type Result<T> = std::result::Result<T, Box<dyn Error>>;
/// Entity and start, both big-endian.
type Key = [u8; 16];
/// What was read: the first 8 bytes of a value are its position.
type Values = Vec<Vec<u8>>;

const ENTITIES: u64 = 2_000;
const HOURS: u64 = 100;
const HOURS_PER_WRITE: u64 = 5;
const READS: u64 = 200;
const RANGES_PER_READ: u64 = 100;
const TILES_PER_RANGE: u64 = 31;
const ROUNDS: usize = 5;
const TILES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("tiles");

/// The part of an online store that is compared.
trait Engine {
    /// Writes each value whose position is newer than the stored one; durable on return.
    fn put(&self, tiles: &[(Key, Vec<u8>)]) -> Result<usize>;

    /// The values of each range, in order.
    fn read(&self, ranges: &[Range<Key>]) -> Result<Vec<Values>>;
}

/// redb in one of its locking modes.
struct Redb(Database);

impl Redb {
    fn open(folder: &Path, mode: ConcurrencyMode) -> Result<Self> {
        let database = Builder::new().set_concurrency_mode(mode).create(folder.join("online.redb"))?;
        Ok(Self(database))
    }
}

impl Engine for Redb {
    fn put(&self, tiles: &[(Key, Vec<u8>)]) -> Result<usize> {
        let transaction = self.0.begin_write()?;
        let mut stored = 0;
        {
            let mut table = transaction.open_table(TILES)?;
            for (key, value) in tiles {
                let newer = table.get(key.as_slice())?.is_none_or(|known| known.value()[..8] < value[..8]);
                if newer {
                    table.insert(key.as_slice(), value.as_slice())?;
                    stored += 1;
                }
            }
        }
        transaction.commit()?;
        Ok(stored)
    }

    fn read(&self, ranges: &[Range<Key>]) -> Result<Vec<Values>> {
        let table = self.0.begin_read()?.open_table(TILES)?;
        let one = |range: &Range<Key>| -> Result<Values> {
            let found = table.range(range.start.as_slice()..range.end.as_slice())?;
            found.map(|entry| Ok(entry?.1.value().to_vec())).collect()
        };
        ranges.iter().map(one).collect()
    }
}

/// fjall with one writer at a time, which is what a conditional write needs.
struct Fjall(SingleWriterTxDatabase, SingleWriterTxKeyspace);

impl Fjall {
    fn open(folder: &Path) -> Result<Self> {
        let database = SingleWriterTxDatabase::builder(folder.join("online.fjall")).open()?;
        let tiles = database.keyspace("tiles", KeyspaceCreateOptions::default)?;
        Ok(Self(database, tiles))
    }
}

impl Engine for Fjall {
    fn put(&self, tiles: &[(Key, Vec<u8>)]) -> Result<usize> {
        let mut transaction = self.0.write_tx().durability(Some(PersistMode::SyncAll));
        let mut stored = 0;
        for (key, value) in tiles {
            let newer = transaction.get(&self.1, key)?.is_none_or(|known| known[..8] < value[..8]);
            if newer {
                transaction.insert(&self.1, key.as_slice(), value.as_slice());
                stored += 1;
            }
        }
        transaction.commit()?;
        Ok(stored)
    }

    fn read(&self, ranges: &[Range<Key>]) -> Result<Vec<Values>> {
        let snapshot = self.0.read_tx();
        let one = |range: &Range<Key>| -> Result<Values> {
            let found = snapshot.range(&self.1, range.clone());
            found.map(|entry| Ok(entry.value()?.to_vec())).collect()
        };
        ranges.iter().map(one).collect()
    }
}

/// Numbers that are the same on every run, by Marsaglia's xorshift.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn key(entity: u64, hour: u64) -> Key {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&entity.to_be_bytes());
    key[8..].copy_from_slice(&hour.to_be_bytes());
    key
}

/// 200 bytes, of which half can be compressed, as in partials of sums and counts.
fn value(seeded: &mut Seeded, position: u64) -> Vec<u8> {
    let mut value = vec![0; 200];
    value[..8].copy_from_slice(&position.to_be_bytes());
    value[8..104].chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&seeded.below(u64::MAX).to_be_bytes()));
    value
}

/// All writes of one pass, each sorted by key.
fn writes(position: u64) -> Vec<Vec<(Key, Vec<u8>)>> {
    let mut seeded = Seeded(7 + position);
    let one = |first: u64| {
        let hours = first..first + HOURS_PER_WRITE;
        let keys = (0..ENTITIES).flat_map(|entity| hours.clone().map(move |hour| key(entity, hour)));
        keys.map(|key| (key, value(&mut seeded, position))).collect()
    };
    (0..HOURS).step_by(HOURS_PER_WRITE as usize).map(one).collect()
}

fn reads() -> Vec<Vec<Range<Key>>> {
    let mut seeded = Seeded(11);
    let mut one = |_| {
        let (entity, hour) = (seeded.below(ENTITIES), seeded.below(HOURS - TILES_PER_RANGE));
        key(entity, hour)..key(entity, hour + TILES_PER_RANGE)
    };
    (0..READS).map(|_| (0..RANGES_PER_READ).map(&mut one).collect()).collect()
}

/// Seconds of loading, rewriting and reading, and a fingerprint of what was read.
fn round(engine: &dyn Engine) -> Result<([f64; 3], u64)> {
    let (load, rewrite, reads) = (writes(1), writes(2), reads());
    let all = ENTITIES * HOURS;
    let pass = |writes: &[Vec<_>]| -> Result<f64> {
        let begun = Instant::now();
        let stored = writes.iter().map(|write| engine.put(write)).sum::<Result<usize>>()?;
        assert_eq!(stored as u64, all, "every write is newer");
        Ok(begun.elapsed().as_secs_f64())
    };
    let (loaded, rewritten) = (pass(&load)?, pass(&rewrite)?);
    assert_eq!(engine.put(&load[0])?, 0, "an older write changes nothing");
    let begun = Instant::now();
    let found = reads.iter().map(|ranges| engine.read(ranges)).collect::<Result<Vec<_>>>()?;
    let read = begun.elapsed().as_secs_f64();
    Ok(([loaded, rewritten, read], fingerprint(&found)))
}

/// FNV-1a of all bytes, after checking that there are as many tiles as asked for.
fn fingerprint(found: &[Vec<Values>]) -> u64 {
    let values: Vec<&Vec<u8>> = found.iter().flatten().flatten().collect();
    assert_eq!(values.len() as u64, READS * RANGES_PER_READ * TILES_PER_RANGE);
    let bytes = values.into_iter().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn median(rounds: &[[f64; 3]], phase: usize) -> f64 {
    let mut seconds: Vec<f64> = rounds.iter().map(|round| round[phase]).collect();
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// Runs the rounds of all engines alternately, so that a slow minute of the machine hits each.
fn main() -> Result<()> {
    let mut times: [Vec<[f64; 3]>; 3] = [vec![], vec![], vec![]];
    let mut prints = Vec::new();
    for _ in 0..ROUNDS {
        for (engine, times) in times.iter_mut().enumerate() {
            let folder = tempfile::tempdir()?;
            let (seconds, print) = match engine {
                0 => round(&Redb::open(folder.path(), ConcurrencyMode::ExclusiveWriter)?)?,
                1 => round(&Redb::open(folder.path(), ConcurrencyMode::SingleWriter)?)?,
                _ => round(&Fjall::open(folder.path())?)?,
            };
            times.push(seconds);
            prints.push(print);
        }
    }
    assert!(prints.iter().all(|print| *print == prints[0]), "the engines must give the same tiles");
    println!("{:<8} {:>9} {:>19} {:>9} {:>13}", "", "redb", "redb with readers", "fjall", "fjall ÷ redb");
    for (phase, name) in ["load", "rewrite", "read"].iter().enumerate() {
        let [redb, shared, fjall] = times.each_ref().map(|rounds| median(rounds, phase));
        println!("{name:<8} {redb:>8.3}s {shared:>18.3}s {fjall:>8.3}s {:>13.2}", fjall / redb);
    }
    Ok(())
}
