//! The online stores. The embedded one: the contract, several processes, damage, and crashes. DynamoDB: `dynamodb`.

mod bucket;
mod dynamodb;
#[path = "../../aws/tests/process.rs"]
mod process;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use featurectl_core::{ErrorKind, OnlineStore, Tile, TileKey, TileRange};
use featurectl_feature_store::{EmbeddedStore, conformance::conformance};
use redb::{ReadableTable, TableDefinition};

fn tile(batch: u64, i: u64) -> Tile {
    let key =
        TileKey { partition: b"crash".to_vec(), length: 10, start: (batch * 100 + i) as i64 * 10, writer: "w".into() };
    Tile { key, position: 1.into(), last_event: 0, expires_at: None, partial: vec![i as u8; 200] }
}

fn everything() -> TileRange {
    TileRange { partition: b"crash".to_vec(), length: 10, start: i64::MIN, end: i64::MAX, writer: None }
}

#[tokio::test]
async fn the_embedded_store_conforms_also_when_it_has_other_content() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = EmbeddedStore::open(folder.path().join("a/online.redb")).expect("a store");
    conformance(&store).await;
    let neighbour = |name: &[u8]| Tile { key: TileKey { partition: name.to_vec(), ..tile(1, 1).key }, ..tile(1, 1) };
    let others = [neighbour(b"conformance\0"), neighbour(b"conformance\x01"), tile(1, 1)];
    store.put(others.to_vec()).await.expect("a write");
    conformance(&store).await;
    assert_eq!(store.remove(b"").await.expect("a removal"), others.len(), "it leaves others and nothing of its own");
}

#[tokio::test]
async fn what_was_written_is_there_after_opening_again_and_readers_share() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("online.redb");
    let missing = EmbeddedStore::open_read_only(&path).expect_err("there is no file");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let store = EmbeddedStore::open(&path).expect("a store");
    store.put(vec![tile(1, 1)]).await.expect("a write");
    let second = EmbeddedStore::open(&path).expect_err("it is open");
    assert_eq!(second.kind(), ErrorKind::Conflict, "{second}");
    drop(store);
    let readers: Vec<_> = (0..2).map(|_| EmbeddedStore::open_read_only(&path).expect("a reader")).collect();
    for reader in &readers {
        assert_eq!(reader.read(&[everything()], 0).await.expect("a read"), [[tile(1, 1)]]);
        assert_eq!(reader.put(vec![tile(1, 2)]).await.expect_err("read only").kind(), ErrorKind::Invalid);
    }
}

#[test]
fn a_file_that_is_no_store_is_a_clear_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("online.redb");
    std::fs::write(&path, vec![7; 10_000]).expect("a file");
    let error = EmbeddedStore::open(&path).expect_err("it is no store");
    assert_eq!(error.kind(), ErrorKind::Data, "{error}");
    assert!(error.to_string().contains("MATERIALIZE again"), "{error}");
}

#[tokio::test]
async fn a_tile_of_another_format_is_a_clear_error_for_reads_and_writes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("online.redb");
    let store = EmbeddedStore::open(&path).expect("a store");
    store.put(vec![tile(1, 1)]).await.expect("a write");
    drop(store);
    change_formats(&path).expect("a file as a later version writes it");
    let store = EmbeddedStore::open(&path).expect("a store");
    let read = store.read(&[everything()], 0).await.expect_err("an unknown format");
    let write = store.put(vec![tile(1, 1)]).await.expect_err("an unknown format");
    for error in [read, write] {
        assert_eq!(error.kind(), ErrorKind::Data, "{error}");
        assert!(error.to_string().contains("online.redb is no online store, or is damaged"), "{error}");
        assert!(error.to_string().contains("MATERIALIZE again"), "{error}");
    }
}

/// Sets the first byte of every value to a format of the future.
fn change_formats(path: &Path) -> Result<(), redb::Error> {
    let table = TableDefinition::<&[u8], &[u8]>::new("tiles");
    let database = redb::Database::open(path)?;
    let transaction = database.begin_write()?;
    {
        let mut tiles = transaction.open_table(table)?;
        let read = |(key, value): (redb::AccessGuard<&[u8]>, redb::AccessGuard<&[u8]>)| {
            (key.value().to_vec(), [&[2], &value.value()[1..]].concat())
        };
        let changed = tiles.iter()?.map(|entry| entry.map(read)).collect::<Result<Vec<_>, _>>()?;
        for (key, value) in changed {
            tiles.insert(key.as_slice(), value.as_slice())?;
        }
    }
    Ok(transaction.commit()?)
}

#[test]
fn a_place_that_cannot_hold_a_file_is_a_clear_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("a file");
    for path in [folder.path().to_owned(), file.join("online.redb")] {
        let error = EmbeddedStore::open(&path).expect_err("no place for a store");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("its folder must be writable"), "{error}");
    }
}

#[tokio::test]
async fn a_cut_file_is_a_clear_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("online.redb");
    let store = EmbeddedStore::open(&path).expect("a store");
    store.put((0..100).map(|i| tile(1, i)).collect()).await.expect("a write");
    drop(store);
    let whole = std::fs::read(&path).expect("its bytes");
    for cut in [1, 100, 4096, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).expect("a cut file");
        let error = EmbeddedStore::open(&path).expect_err("it is cut");
        assert_eq!(error.kind(), ErrorKind::Data, "cut at {cut}: {error}");
        assert!(error.to_string().contains("online.redb"), "{error}");
    }
}

const CHILD: &str = "FEATURECTL_TEST_CRASH_STORE";

/// Not a test of its own: the process that is killed.
#[tokio::test]
async fn crash_child() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let store = EmbeddedStore::open(std::path::PathBuf::from(path)).expect("a store");
    let first: u64 = std::env::var("FEATURECTL_TEST_FIRST").ok().and_then(|f| f.parse().ok()).unwrap_or_default();
    for batch in first.. {
        store.put((0..100).map(|i| tile(batch, i)).collect()).await.expect("a write");
        println!("acked {batch}");
    }
}

#[tokio::test]
async fn a_store_made_by_many_at_once_is_made_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("online.redb");
    let made = std::thread::scope(|s| {
        let all: Vec<_> = (0..8).map(|_| s.spawn(|| EmbeddedStore::open(&path))).collect();
        all.into_iter().map(|t| t.join().expect("no panic")).collect::<Vec<_>>()
    });
    let (made, refused): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), 1, "one holds it as long as all are alive");
    for e in refused.into_iter().filter_map(Result::err) {
        assert_eq!(e.kind(), ErrorKind::Conflict, "{e}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("its entries").count(), 1, "nothing is left of the others");
}

fn start_child(path: &Path, first: u64) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "crash_child", "--nocapture"])
        .env(CHILD, path)
        .env("FEATURECTL_TEST_FIRST", first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child")
}

#[tokio::test]
async fn a_store_whose_maker_was_killed_is_whole_or_not_there() {
    for kill in 0..20 {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("online.redb");
        let mut child = start_child(&path, 1);
        while std::fs::read_dir(folder.path()).expect("its entries").next().is_none() {
            assert!(child.try_wait().expect("its state").is_none(), "it ended before it made a file");
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_micros(kill * 250));
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
        match EmbeddedStore::open_read_only(&path) {
            Err(e) => assert_eq!(e.kind(), ErrorKind::NotFound, "kill {kill}: {e}"),
            Ok(store) => drop(store.read(&[everything()], 0).await.expect("a whole store can be read")),
        }
        let store = EmbeddedStore::open(&path).expect("a store, made anew or as it was");
        store.put(vec![tile(0, 0)]).await.expect("a write");
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("online.redb");
    let mut acked = 0;
    for kill in 0..22u64 {
        let mut child = start_child(&path, acked + 1);
        let out = BufReader::new(child.stdout.take().expect("its output"));
        let reader = std::thread::spawn(move || {
            let number = |line: String| line.rsplit_once("acked ").and_then(|(_, n)| n.trim().parse::<u64>().ok());
            out.lines().map_while(Result::ok).filter_map(number).last()
        });
        std::thread::sleep(Duration::from_millis(60 + kill * 53 % 170));
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
        acked = reader.join().expect("its lines").unwrap_or(acked);
        let open = |path| if kill % 2 == 0 { EmbeddedStore::open_read_only(path) } else { EmbeddedStore::open(path) };
        let store = match open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound && acked == 0 => continue,
            opened => opened.expect("the store opens after a kill, also for a reader"),
        };
        let range = TileRange {
            partition: b"crash".to_vec(),
            length: 10,
            start: 1000,
            end: (acked as i64 + 1) * 1000,
            writer: None,
        };
        let found = store.read(&[range], 0).await.expect("a read").remove(0);
        let wanted: Vec<Tile> = (1..=acked).flat_map(|batch| (0..100).map(move |i| tile(batch, i))).collect();
        assert!(found == wanted, "{} of {} acknowledged tiles after kill {kill}", found.len(), wanted.len());
    }
    assert!(acked > 20, "only {acked} batches were acknowledged");
}
