//! What the operators promise beside their values: the same result on any number of threads and with little memory.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::util::display::array_value_to_string;
use datafusion::datasource::MemTable;
use featurectl::{Extensions, Project, Session};

const EVENTS: usize = 120_000;
const ASKS: usize = 12_000;
const DAY: i64 = 86_400_000_000;

const JOB: &str = "\
CREATE FEATURE VIEW f ENTITY (k) EVENT TIME t SEQUENCE s AS
SELECT count(*) OVER h AS n, sum(v) OVER h AS total, avg(v) OVER d AS mean, min(v) OVER d AS low, max(v) OVER ever AS high,
       first_value(v) OVER d AS first, last_value(v) OVER ever AS last, stddev(v) OVER d AS sd, sum(s) OVER d AS whole,
       approx_distinct(v) OVER ever AS kinds, count(v) FILTER (WHERE flag) OVER d AS flagged
FROM events WINDOW h AS (RANGE INTERVAL '1 hour' PRECEDING), d AS (RANGE INTERVAL '3 days' PRECEDING),
                   ever AS (RANGE UNBOUNDED PRECEDING);
CREATE FEATURE VIEW l ENTITY (k) EVENT TIME t SEQUENCE s AS SELECT v, flag FROM events;
SELECT a.id, f.*, l.v, l.flag FROM asks a ASOF JOIN f MATCH_CONDITION (a.at > f.t) ON a.k = f.k
ASOF JOIN l MATCH_CONDITION (a.at >= l.t) ON a.k = l.k ORDER BY a.id";

/// Marsaglia's xorshift: the same numbers on every run.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Three of ten events belong to one key; some have no key, no time, no value.
fn register(session: &Session, batches: usize) {
    let mut seeded = Seeded(42);
    let key = |r: &mut Seeded| match r.below(100) {
        0 => None,
        n if n < 30 => Some(7),
        _ => Some(r.below(3_000) as i64),
    };
    let time = |r: &mut Seeded| (r.below(200) > 0).then(|| r.below(20 * DAY as u64 / 60_000_000) as i64 * 60_000_000);
    let rows =
        |n: usize, r: &mut Seeded| (0..n).map(|_| (key(r), time(r), r.below(1000), r.below(10))).collect::<Vec<_>>();
    let events = rows(EVENTS, &mut seeded);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("k", Arc::new(events.iter().map(|e| e.0).collect::<Int64Array>())),
        ("t", Arc::new(events.iter().map(|e| e.1).collect::<TimestampMicrosecondArray>())),
        ("s", Arc::new(Int64Array::from_iter_values(0..EVENTS as i64))),
        ("v", Arc::new(events.iter().map(|e| (e.3 > 0).then_some(e.2 as f64 / 8.0)).collect::<Float64Array>())),
        ("flag", Arc::new(events.iter().map(|e| (e.3 > 1).then_some(e.3 % 2 == 0)).collect::<BooleanArray>())),
    ];
    table(session, "events", columns, batches);
    let asks = rows(ASKS, &mut seeded);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values(0..ASKS as i64))),
        ("k", Arc::new(asks.iter().map(|e| e.0).collect::<Int64Array>())),
        ("at", Arc::new(asks.iter().map(|e| e.1).collect::<TimestampMicrosecondArray>())),
    ];
    table(session, "asks", columns, batches);
}

fn table(session: &Session, name: &str, columns: Vec<(&str, ArrayRef)>, batches: usize) {
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).expect("a batch");
    let size = batch.num_rows().div_ceil(batches);
    let pieces: Vec<Vec<RecordBatch>> =
        (0..batch.num_rows()).step_by(size).map(|at| vec![batch.slice(at, size.min(batch.num_rows() - at))]).collect();
    session
        .context()
        .register_table(name, Arc::new(MemTable::try_new(batch.schema(), pieces).expect("a table")))
        .expect("a new name");
}

/// All rows as text, and the plan with its metrics.
async fn outcome(threads: usize, memory_bytes: Option<usize>, batches: usize) -> (Vec<String>, String) {
    let mut project = Project::in_memory();
    project.options.threads = Some(threads);
    project.options.memory_bytes = memory_bytes;
    let session = Session::open(project, &Extensions::default()).expect("a session");
    register(&session, batches);
    let rows = session.sql(JOB).await.expect("rows");
    let (views, query) = JOB.rsplit_once(';').expect("two statements");
    assert!(!views.is_empty());
    let explained = session.sql(&format!("EXPLAIN ANALYZE {query}")).await.expect("a plan");
    let plan = array_value_to_string(explained[0].column(1), 0).expect("text");
    (rows.iter().flat_map(lines).collect(), plan)
}

fn lines(batch: &RecordBatch) -> Vec<String> {
    let cell =
        |c: &ArrayRef, row| if c.is_null(row) { "NULL".into() } else { array_value_to_string(c, row).expect("text") };
    (0..batch.num_rows())
        .map(|row| batch.columns().iter().map(|c| cell(c, row)).collect::<Vec<_>>().join(" "))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_batches_and_memory_change_no_bit_of_a_result() {
    let (wanted, plan) = outcome(1, None, 1).await;
    assert_eq!(wanted.len(), ASKS);
    assert!(plan.contains("spill_count=0") && plan.contains("output_rows=12.00 K"), "{plan}");
    for (threads, batches) in [(2, 7), (5, 60)] {
        assert!(outcome(threads, None, batches).await.0 == wanted, "{threads} threads, {batches} batches");
    }
    let (spilled, plan) = outcome(2, Some(24 << 20), 60).await;
    assert!(spilled == wanted, "with little memory");
    let spills = |line: &str| line.contains("AsOf") && !line.contains("spill_count=0");
    assert!(plan.lines().any(spills), "it should have spilled: {plan}");
}

/// 100 days of events in order of time, and labels of the last five: rows read, and the features.
async fn scanned(labels: &str, setting: &str) -> (usize, Vec<String>) {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let session = Session::open(Project::at(folder.path()), &Extensions::default()).expect("a session");
    let files = format!(
        "COPY (SELECT value % 50 AS k, to_timestamp_micros(1704067200000000 + value * 86400000) AS t, value AS v FROM range(100000)) TO '{}' STORED AS PARQUET OPTIONS (max_row_group_size 5000);
         COPY (SELECT value % 60 AS k, to_timestamp_micros(1712188800000000 + value * 1020000000) AS at FROM range(400)) TO '{}' STORED AS {labels} OPTIONS ({});
         CREATE EXTERNAL TABLE events STORED AS PARQUET LOCATION '{}';
         CREATE EXTERNAL TABLE labels {} STORED AS {labels} LOCATION '{}' {};
         CREATE FEATURE VIEW f ENTITY (k) EVENT TIME t AS SELECT count(*) OVER w AS n, sum(v) OVER w AS total, max(v) OVER w AS most FROM events WINDOW w AS (RANGE INTERVAL '5 days' PRECEDING)",
        at("events"),
        at("labels"),
        if labels == "CSV" { "'format.has_header' 'true'" } else { "compression 'snappy'" },
        at("events/"),
        if labels == "CSV" { "(k BIGINT, at TIMESTAMP)" } else { "" },
        at("labels/"),
        if labels == "CSV" { "OPTIONS ('format.has_header' 'true')" } else { "" },
    );
    // A text is checked whole before any of it runs.
    let (copies, tables) = files.split_at(files.find("CREATE").expect("tables"));
    session.sql(copies).await.expect("files");
    session.sql(tables).await.expect("tables");
    if !setting.is_empty() {
        session.sql(setting).await.expect("a setting");
    }
    let query =
        "SELECT l.k, l.at, f.* FROM labels l ASOF JOIN f MATCH_CONDITION (l.at > f.t) ON l.k = f.k ORDER BY l.at";
    let rows = session.sql(query).await.expect("rows").iter().flat_map(lines).collect();
    let explained = session.sql(&format!("EXPLAIN ANALYZE {query}")).await.expect("a plan");
    let plan = explained.iter().flat_map(lines).collect::<Vec<_>>().join("\n");
    (rows_read(&plan, "events"), rows)
}

/// The rows that the scan of a table's files gave.
fn rows_read(plan: &str, table: &str) -> usize {
    let scan = plan.lines().rfind(|l| l.contains("DataSourceExec") && l.contains(table)).expect("a scan");
    let read = scan.split("output_rows=").nth(1).expect("its rows").split(',').next().expect("a number");
    match read.strip_suffix('K') {
        Some(thousands) => (thousands.trim().parse::<f64>().expect("a number") * 1000.0) as usize,
        None => read.parse().unwrap_or_else(|_| panic!("{scan}")),
    }
}

#[tokio::test]
async fn events_that_no_label_can_see_are_not_read() {
    let (all, wanted) = scanned("CSV", "SET datafusion.optimizer.enable_join_dynamic_filter_pushdown = false").await;
    let (known, rows) = scanned("PARQUET", "").await;
    assert_eq!(rows, wanted);
    assert_eq!(all, 100_000, "text files say nothing of their times");
    assert!(known < 25_000, "ten of a hundred days are in reach, but {known} rows were read");
    let (found, rows) = scanned("CSV", "").await;
    assert_eq!(rows, wanted);
    assert!(found < 25_000, "the times of the labels are known once they are read, but {found} rows were read");
}

/// A table of 100,000 rows by key, and a few labels of few keys: rows of the table that are read, and the plan.
async fn looked_up(filter: &str) -> (usize, String, Vec<String>) {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let session = Session::open(Project::at(folder.path()), &Extensions::default()).expect("a session");
    let copies = format!(
        "COPY (SELECT value / 100 AS k, to_timestamp_micros(value % 100 * 1000000) AS t, value AS v FROM range(100000)) TO '{}' STORED AS PARQUET OPTIONS (max_row_group_size 5000);
         COPY (SELECT value % 4 * 7 + 500 AS k, to_timestamp_micros(value * 1000000 + 500000) AS at, value AS n FROM range(90)) TO '{}' STORED AS CSV OPTIONS ('format.has_header' 'true')",
        at("rows"),
        at("labels"),
    );
    session.sql(&copies).await.expect("files");
    let tables = format!(
        "CREATE EXTERNAL TABLE rows STORED AS PARQUET LOCATION '{}';
         CREATE EXTERNAL TABLE labels (k BIGINT, at TIMESTAMP, n BIGINT) STORED AS CSV LOCATION '{}' OPTIONS ('format.has_header' 'true')",
        at("rows/"),
        at("labels/"),
    );
    session.sql(&tables).await.expect("tables");
    let query = format!(
        "SELECT l.n, l.k, r.v FROM labels l ASOF JOIN rows r MATCH_CONDITION (l.at >= r.t) ON l.k = r.k {filter} ORDER BY l.n"
    );
    let rows = session.sql(&query).await.expect("rows").iter().flat_map(lines).collect();
    let explained = session.sql(&format!("EXPLAIN ANALYZE {query}")).await.expect("a plan");
    let plan = explained.iter().flat_map(lines).collect::<Vec<_>>().join("\n");
    (rows_read(&plan, "rows"), plan, rows)
}

#[tokio::test]
async fn keys_of_the_left_side_prune_the_right_one() {
    let (read, plan, rows) = looked_up("").await;
    assert_eq!(rows.len(), 90);
    assert_eq!(rows[5], "5 507 50705");
    assert!(read < 30_000, "keys 500 to 521 are in few of the row groups, but {read} rows were read: {plan}");
}

#[tokio::test]
async fn filters_go_below_an_asof_join() {
    let (read, plan, rows) = looked_up("WHERE l.k = 507 AND l.n > 20 AND r.v % 2 = 1").await;
    let wanted: Vec<String> = (21..90).filter(|n| n % 4 == 1).map(|n| format!("{n} 507 {}", 50700 + n)).collect();
    assert_eq!(rows, wanted.into_iter().filter(|r| r.ends_with(['1', '3', '5', '7', '9'])).collect::<Vec<_>>());
    assert!(read < 30_000, "key 507 is in few of the row groups, but {read} rows were read: {plan}");
    let below = plan.split("AsOfJoinExec").nth(1).expect("a join");
    assert!(below.matches("FilterExec: k@0 = 507").count() == 2 && below.contains("n@2 > 20"), "{plan}");
    assert!(!below.contains("% 2 = 1"), "what reads the right side stays above: {plan}");
}
