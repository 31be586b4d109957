//! Features of a service, read again and again in one session.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, Int64Type, TimestampNanosecondType};
use async_trait::async_trait;
use featurectl::{ErrorKind, Extensions, Project, Session, Source};
use featurectl_core::tile::wanted as wanted_tiles;
use featurectl_core::{Error, FeatureView, OnlineStore, Result, Tile, TileRange};
use featurectl_feature_store::{EmbeddedStore, Generation, OnlineReader, Served, Tables, clear, forget, serve, served};
use futures::future::join_all;
use tokio::sync::Notify;

const MINUTE: i64 = 60_000_000;
/// Where the online store is in a project.
const STORE: &str = ".featurectl/online.redb";

const JOB: &str = "
CREATE EXTERNAL TABLE clicks (user_id BIGINT, ts TIMESTAMP, amount DOUBLE) STORED AS CSV LOCATION 'clicks.csv' OPTIONS ('format.has_header' 'true');
CREATE FEATURE VIEW spent ENTITY (user_id) EVENT TIME ts WITH (online = true) AS
SELECT sum(amount) OVER (RANGE INTERVAL '1 hour' PRECEDING) AS total FROM clicks;
CREATE FEATURE SERVICE plain (user_id BIGINT, at TIMESTAMP) AS
SELECT r.user_id, s.total FROM request r ASOF JOIN spent s MATCH_CONDITION (r.at > s.ts) ON r.user_id = s.user_id;
CREATE FEATURE SERVICE dated (user_id BIGINT, at TIMESTAMP) AS
SELECT r.user_id, s.total, now() AS read_at FROM request r ASOF JOIN spent s MATCH_CONDITION (r.at > s.ts) ON r.user_id = s.user_id;
MATERIALIZE FEATURE VIEW spent;";

/// User `u` spends `u` each minute from 1970-01-01T00:00:30 on, for two hours.
async fn serving(folder: &Path) -> Session {
    let row = |minute: i64, user: i64| {
        let seconds = minute * 60 + 30;
        format!("{user},1970-01-01T{:02}:{:02}:30,{user}\n", seconds / 3600, seconds / 60 % 60)
    };
    let rows: String = (0..120).flat_map(|minute| (1..6).map(move |user| row(minute, user))).collect();
    std::fs::write(folder.join("clicks.csv"), format!("user_id,ts,amount\n{rows}")).expect("a file");
    let session = Session::open(Project::at(folder), &Extensions::default()).expect("a session");
    let job = session.check(Source::new("job", JOB)).await;
    assert!(job.is_valid(), "{:?}", job.diagnostics);
    session.run(&job, &mut |_| ()).await.expect("a run");
    Session::open_serving(Project::at(folder), &Extensions::default()).await.expect("a serving session")
}

fn request(users: &[i64], minute: i64) -> RecordBatch {
    let columns: [(&str, ArrayRef); 3] = [
        ("note", Arc::new(StringArray::from(vec!["not asked for"; users.len()]))),
        ("user_id", Arc::new(Int64Array::from(users.to_vec()))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![minute * MINUTE; users.len()]))),
    ];
    RecordBatch::try_from_iter(columns).expect("a request")
}

async fn totals(session: &Session, users: &[i64], minute: i64) -> Vec<(i64, Option<f64>)> {
    let rows = session.read_service("plain", request(users, minute)).await.expect("features");
    let rows = concat_batches(&rows[0].schema(), &rows).expect("one schema");
    let column = |name| rows.column_by_name(name).expect("a column");
    assert_eq!(column("note").as_string::<i32>().value(0), "not asked for", "the request's columns come back");
    let totals = column("total").as_primitive::<Float64Type>();
    column("user_id").as_primitive::<Int64Type>().values().iter().copied().zip(totals.iter()).collect()
}

/// What `user` spent in the hour before the end of `minute`, of two hours.
fn wanted(user: i64, minute: i64) -> (i64, Option<f64>) {
    (user, (user < 6).then_some((user * minute.min(60)) as f64))
}

#[tokio::test]
async fn every_request_gets_its_own_rows_also_at_the_same_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let session = serving(folder.path()).await;
    for users in [&[3][..], &[5, 1], &[], &[2; 40], &[9, 4]] {
        if users.is_empty() {
            let rows = session.read_service("plain", request(users, 120)).await.expect("no features");
            assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
            continue;
        }
        let wanted: Vec<_> = users.iter().map(|user| wanted(*user, 120)).collect();
        assert_eq!(totals(&session, users, 120).await, wanted);
    }
    let at_once = join_all((0..50).map(|i| {
        let session = &session;
        async move { (i % 5 + 1, totals(session, &[i % 5 + 1, 9], 120).await) }
    }));
    for (user, found) in at_once.await {
        assert_eq!(found, [wanted(user, 120), (9, None)]);
    }
}

#[tokio::test]
async fn requests_of_other_columns_are_planned_anew_and_a_missing_one_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let session = serving(folder.path()).await;
    let whole = request(&[2], 120);
    for columns in [&[0, 1, 2][..], &[2, 1], &[0, 1, 2], &[1, 2, 0]] {
        let request = whole.project(columns).expect("a request");
        let rows = session.read_service("plain", request).await.expect("features");
        let total = rows[0].column_by_name("total").expect("a column");
        assert_eq!(total.as_primitive::<Float64Type>().value(0), 120.0, "{columns:?}");
        let error = session.read_service("plain", whole.project(&[1]).expect("a column")).await.expect_err("no time");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("`at`"), "{error}");
    }
}

#[tokio::test]
async fn the_time_of_a_request_and_a_new_definition_are_not_those_of_an_earlier_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let session = serving(folder.path()).await;
    let mut last = 0;
    for _ in 0..3 {
        let rows = session.read_service("dated", request(&[1], 120)).await.expect("features");
        let now =
            rows[0].column_by_name("read_at").expect("a column").as_primitive::<TimestampNanosecondType>().value(0);
        assert!(now > last, "{now} after {last}");
        last = now;
    }
    assert_eq!(totals(&session, &[1], 120).await, [wanted(1, 120)]);
    let doubled = "CREATE FEATURE SERVICE plain (user_id BIGINT, at TIMESTAMP) AS
        SELECT r.user_id, 2 * s.total AS total FROM request r ASOF JOIN spent s MATCH_CONDITION (r.at > s.ts) ON r.user_id = s.user_id";
    assert!(session.check(Source::new("job", doubled)).await.is_valid());
    assert_eq!(totals(&session, &[1], 120).await, [(1, Some(120.0))]);
}

/// The view of [`JOB`], materialized in `folder`, whose store nobody has open.
async fn spent(folder: &Path) -> Arc<FeatureView> {
    serving(folder).await.feature_view("spent").expect("the view")
}

fn open(folder: &Path, name: &str) -> EmbeddedStore {
    EmbeddedStore::open(folder.join(name)).expect("a store")
}

/// User 2, after two hours.
fn asked() -> ([ArrayRef; 1], [Option<i64>; 1]) {
    ([Arc::new(Int64Array::from(vec![2]))], [Some(120 * MINUTE)])
}

/// What a reader says that the user of [`asked`] spent.
async fn total(reader: &OnlineReader, view: &FeatureView) -> Result<Option<f64>> {
    let (keys, at) = asked();
    let found = reader.read(view, &keys, &at).await?;
    Ok(found[0].as_primitive::<Float64Type>().iter().next().flatten())
}

/// The generation that is served, and the tiles of it that [`asked`] needs.
async fn served_ranges(store: &dyn OnlineStore, view: &FeatureView) -> (Generation, Vec<TileRange>) {
    let generation = served(store, "spent").await.expect("a pointer").expect("it is served").generation;
    let (keys, at) = asked();
    let wanted = wanted_tiles(view, &generation, None, &keys, &at).expect("ranges");
    (generation, wanted.into_iter().map(|w| w.range).collect())
}

/// Another generation, not served yet, with the later half of the tiles in these ranges.
async fn half_of(store: &dyn OnlineStore, ranges: &[TileRange]) -> Served {
    let tiles = store.read(ranges, i64::MIN).await.expect("tiles").concat();
    let generation = *b"the next";
    let moved = tiles[tiles.len() / 2..].iter().cloned().map(|mut tile| {
        tile.key.partition[..8].copy_from_slice(&generation);
        tile
    });
    store.fill(moved.collect()).await.expect("tiles are filled in");
    Served { generation, version: 9, writer: None, table: None }
}

#[tokio::test]
async fn a_reader_follows_what_is_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let view = spent(folder.path()).await;
    let store: Arc<dyn Tables> = Arc::new(open(folder.path(), STORE));
    let reader = OnlineReader::new(Arc::clone(&store));
    let total = async || total(&reader, &view).await.expect("features");
    assert_eq!(total().await, Some(120.0));

    let (_, ranges) = served_ranges(store.as_ref(), &view).await;
    let next = half_of(store.as_ref(), &ranges).await;
    assert_eq!(total().await, Some(120.0), "what is not served is not read");
    serve(store.as_ref(), "spent", next.clone()).await.expect("the pointer moves");
    assert_eq!(total().await, Some(60.0), "the half of the tiles that is served now");
    assert_eq!(clear(store.as_ref(), "spent").await.expect("a removal"), Vec::<String>::new());
    assert_eq!(store.read(&ranges, i64::MIN).await.expect("tiles").concat(), [], "what was served is removed");
    let next = Served { version: 10, writer: Some("nobody".into()), ..next };
    serve(store.as_ref(), "spent", next).await.expect("the pointer moves");
    assert_eq!(total().await, None, "the tiles of the only writer count");
    forget(store.as_ref(), "spent").await.expect("it is taken out");
    let error = self::total(&reader, &view).await.expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

/// A store whose reads are of more than one instant: one that is stopped has its first range, and gets the others when
/// it goes on.
#[derive(Debug)]
struct Apart {
    store: EmbeddedStore,
    is_stopped: AtomicBool,
    stopped: Notify,
    goes_on: Notify,
}

#[async_trait]
impl OnlineStore for Apart {
    async fn put(&self, tiles: Vec<Tile>) -> Result<usize> {
        self.store.put(tiles).await
    }

    async fn fill(&self, tiles: Vec<Tile>) -> Result<()> {
        self.store.fill(tiles).await
    }

    async fn read(&self, ranges: &[TileRange], now: i64) -> Result<Vec<Vec<Tile>>> {
        let mut found = self.store.read(&ranges[..1], now).await?;
        if ranges.len() > 1 && self.is_stopped.swap(false, Ordering::SeqCst) {
            self.stopped.notify_one();
            self.goes_on.notified().await;
        }
        found.extend(self.store.read(&ranges[1..], now).await?);
        Ok(found)
    }

    async fn remove(&self, prefix: &[u8]) -> Result<usize> {
        self.store.remove(prefix).await
    }
}

#[async_trait]
impl Tables for Apart {
    fn table(&self, name: &str) -> Result<Arc<dyn OnlineStore>> {
        self.store.table(name)
    }

    async fn delete_table(&self, name: &str) -> Result<bool> {
        self.store.delete_table(name).await
    }

    fn reads_one_instant(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_read_that_is_overtaken_by_a_new_generation_misses_no_tile() {
    let folder = tempfile::tempdir().expect("a folder");
    let view = spent(folder.path()).await;
    let store = open(folder.path(), STORE);
    let (is_stopped, stopped, goes_on) = (AtomicBool::new(false), Notify::new(), Notify::new());
    let store = Arc::new(Apart { store, is_stopped, stopped, goes_on });
    let reader = OnlineReader::new(Arc::clone(&store) as _);
    let total = async || total(&reader, &view).await.expect("features");
    assert_eq!(total().await, Some(120.0));
    let (generation, ranges) = served_ranges(store.as_ref(), &view).await;
    let next = half_of(store.as_ref(), &ranges).await;

    // The pointer is read, then moved; the read goes on at once, and then after all was removed that it looks for.
    for (version, is_removed, wanted) in [(9, false, 120.0), (10, true, 60.0)] {
        let next = Served { version, ..next.clone() };
        if is_removed {
            // Back to the first generation, which nobody removed.
            let first = Served { generation, version: 8, writer: None, table: None };
            serve(store.as_ref(), "spent", first).await.expect("the pointer moves");
            assert_eq!(total().await, Some(120.0));
        }
        store.is_stopped.store(true, Ordering::SeqCst);
        let overtake = async {
            store.stopped.notified().await;
            serve(store.as_ref(), "spent", next).await.expect("the pointer moves");
            if is_removed {
                clear(store.as_ref(), "spent").await.expect("a removal");
            }
            store.goes_on.notify_one();
        };
        let (found, ()) = futures::join!(total(), overtake);
        assert_eq!(found, Some(wanted), "removed: {is_removed}");
    }
    store.is_stopped.store(true, Ordering::SeqCst);
    let drop = async {
        store.stopped.notified().await;
        forget(store.as_ref(), "spent").await.expect("it is taken out");
        store.goes_on.notify_one();
    };
    let (found, ()) = futures::join!(self::total(&reader, &view), drop);
    let error = found.expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

/// A store that may be gone, with tables beside it.
#[derive(Debug, Clone)]
struct WithTables {
    store: EmbeddedStore,
    is_gone: Arc<AtomicBool>,
    tables: BTreeMap<&'static str, WithTables>,
}

#[async_trait]
impl OnlineStore for WithTables {
    async fn put(&self, tiles: Vec<Tile>) -> Result<usize> {
        self.store.put(tiles).await
    }

    async fn fill(&self, tiles: Vec<Tile>) -> Result<()> {
        self.store.fill(tiles).await
    }

    async fn read(&self, ranges: &[TileRange], now: i64) -> Result<Vec<Vec<Tile>>> {
        match self.is_gone.load(Ordering::SeqCst) {
            true => Err(Error::not_found("no such table")),
            false => self.store.read(ranges, now).await,
        }
    }

    async fn remove(&self, prefix: &[u8]) -> Result<usize> {
        self.store.remove(prefix).await
    }
}

#[async_trait]
impl Tables for WithTables {
    fn table(&self, name: &str) -> Result<Arc<dyn OnlineStore>> {
        Ok(Arc::new(self.tables[name].clone()))
    }

    async fn delete_table(&self, name: &str) -> Result<bool> {
        self.tables[name].is_gone.store(true, Ordering::SeqCst);
        Ok(true)
    }

    fn reads_one_instant(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_reader_goes_where_the_pointer_says_also_when_a_table_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let view = spent(folder.path()).await;
    let stand = |name, tables| WithTables { store: open(folder.path(), name), is_gone: Arc::default(), tables };
    let table = |name| (name, stand(name, BTreeMap::new()));
    let store = Arc::new(stand(STORE, ["all", "half"].map(table).into()));
    let (generation, ranges) = served_ranges(store.as_ref(), &view).await;
    let tiles = store.read(&ranges, i64::MIN).await.expect("tiles").concat();
    store.tables["all"].fill(tiles.clone()).await.expect("tiles");
    store.tables["half"].fill(tiles[tiles.len() / 2..].to_vec()).await.expect("tiles");
    let (open_all_the_time, late) =
        (OnlineReader::new(Arc::clone(&store) as _), OnlineReader::new(Arc::clone(&store) as _));
    let to = |table: &str, version| Served { generation, version, writer: None, table: Some(table.into()) };
    for (version, table, wanted) in [(8, "all", 120.0), (9, "half", 60.0)] {
        serve(store.as_ref(), "spent", to(table, version)).await.expect("the pointer moves");
        clear(store.as_ref(), "spent").await.expect("a removal");
        assert_eq!(total(&open_all_the_time, &view).await.expect("features"), Some(wanted), "{table}");
        if version == 8 {
            assert_eq!(total(&late, &view).await.expect("features"), Some(wanted));
        }
    }
    assert!(store.tables["all"].is_gone.load(Ordering::SeqCst), "the table before is deleted");
    assert_eq!(
        total(&late, &view).await.expect("features"),
        Some(60.0),
        "its table is gone, and the pointer says where to look"
    );
    store.delete_table("half").await.expect("somebody deletes it");
    assert_eq!(total(&late, &view).await.expect_err("it is gone").kind(), ErrorKind::NotFound);
}
