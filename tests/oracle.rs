//! The engine against a slow, obvious evaluator: nested loops over rows, straight from the promises of the design.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, UInt32Array,
};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::datasource::MemTable;
use featurectl::{Extensions, Project, Session, Tiles};
use featurectl_core::asof::micros;
use proptest::prelude::*;

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;

#[derive(Debug, Clone)]
pub(crate) struct Event {
    key: Option<&'static str>,
    pub(crate) time: Option<i64>,
    pub(crate) seq: i64,
    pub(crate) value: Option<f64>,
    pub(crate) flag: bool,
}

/// Times that collide, sit on hops, and sit one microsecond beside them.
fn time() -> impl Strategy<Value = i64> {
    let step = prop_oneof![Just(5 * MINUTE), Just(HOUR), Just(MINUTE), Just(7 * MINUTE + 1)];
    (step, -30i64..60, prop_oneof![8 => Just(0i64), 1 => Just(-1), 1 => Just(1)]).prop_map(|(s, n, d)| s * n + d)
}

/// One key far more often than the others.
fn key() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![8 => Just(Some("a")), 3 => Just(Some("b")), 1 => Just(Some("c")), 1 => Just(None)]
}

pub(crate) fn events() -> impl Strategy<Value = Vec<Event>> {
    let time = prop_oneof![15 => time().prop_map(Some), 1 => Just(None)];
    let value = prop_oneof![6 => (-50i32..50).prop_map(|v| Some(f64::from(v) / 4.0)), 1 => Just(None)];
    let event = (key(), time, value, any::<bool>());
    prop::collection::vec(event, 0..40).prop_map(|rows| {
        let event = |(seq, (key, time, value, flag))| Event { key, time, seq: seq as i64, value, flag };
        rows.into_iter().enumerate().map(event).collect()
    })
}

pub(crate) fn requests() -> impl Strategy<Value = Vec<(Option<&'static str>, Option<i64>)>> {
    prop::collection::vec((key(), prop_oneof![20 => time().prop_map(Some), 1 => Just(None)]), 1..25)
}

/// Windows, and the first instant inside and after each, for T and a function that rounds to the hop of the length.
pub(crate) type Edges = fn(i64, &dyn Fn(i64, i64) -> i64) -> (i64, i64);
const BIN: i64 = 2 * HOUR;
pub(crate) const WINDOWS: [(&str, Edges); 6] = [
    ("RANGE INTERVAL '1 hour' PRECEDING", |t, hop| (hop(t - HOUR, 5 * MINUTE), t)),
    ("RANGE INTERVAL '1 day' PRECEDING", |t, hop| (hop(t - 24 * HOUR, HOUR), t)),
    ("RANGE UNBOUNDED PRECEDING", |t, _| (i64::MIN, t)),
    ("RANGE BETWEEN INTERVAL '3 hours' PRECEDING AND INTERVAL '1 hour' PRECEDING", |t, hop| {
        (hop(t - 3 * HOUR, 5 * MINUTE), hop(t - HOUR, 5 * MINUTE))
    }),
    ("ORDER BY date_bin(INTERVAL '2 hours', t) RANGE CURRENT ROW", |t, _| (t - t.rem_euclid(BIN), t)),
    (
        "ORDER BY date_bin(INTERVAL '2 hours', t) RANGE BETWEEN INTERVAL '4 hours' PRECEDING AND INTERVAL '2 hours' PRECEDING",
        |t, _| (t - t.rem_euclid(BIN) - 4 * HOUR, t - t.rem_euclid(BIN)),
    ),
];
const CALLS: [&str; 29] = [
    "count(*)",
    "count(v)",
    "sum(v)",
    "avg(v)",
    "min(v)",
    "max(v)",
    "stddev(v)",
    "var_pop(v)",
    "first_value(v)",
    "last_value(v)",
    "approx_percentile_cont(v, 0.5)",
    "approx_distinct(v)",
    "sum(v) FILTER (WHERE flag)",
    "count_if(flag)",
    "bool_and(flag)",
    "skewness(v)",
    "kurtosis(v)",
    "covar_pop(v, s)",
    "corr(v, s)",
    "max_by(s, v)",
    "count_distinct(v, 5)",
    "decayed_sum(v, INTERVAL '1 hour')",
    "decayed_avg(v, INTERVAL '1 hour')",
    "decayed_count(v, INTERVAL '1 hour')",
    "bool_or(flag)",
    "min_by(s, v)",
    "covar_samp(v, s)",
    "var(v)",
    "stddev_pop(v)",
];

fn view(online: bool) -> String {
    view_of(&CALLS, online)
}

/// A view of these calls over all windows.
pub(crate) fn view_of(calls: &[&str], online: bool) -> String {
    let of = |w| calls.iter().enumerate().map(move |(i, call)| format!("{call} OVER w{w} AS f{w}_{i}"));
    let features: Vec<String> = (0..WINDOWS.len()).flat_map(of).collect();
    let windows = WINDOWS.iter().enumerate().map(|(w, (frame, _))| format!("w{w} AS ({frame})")).collect::<Vec<_>>();
    format!(
        "CREATE FEATURE VIEW v ENTITY (k) EVENT TIME t SEQUENCE s WITH (online = {online}) AS SELECT {} FROM events WINDOW {}",
        features.join(", "),
        windows.join(", ")
    )
}

/// What a call gives over the events of one window at T; `None` is NULL.
fn naive(call: usize, window: &[&Event], at: i64) -> Option<f64> {
    let window: Vec<&&Event> = window.iter().filter(|e| call != 12 || e.flag).collect();
    let mut known: Vec<(i64, i64, f64)> =
        window.iter().filter_map(|e| e.value.map(|v| (e.time.unwrap_or_default(), e.seq, v))).collect();
    known.sort_by_key(|(t, s, _)| (*t, *s));
    let values: Vec<f64> = known.iter().map(|(_, _, v)| *v).collect();
    let n = values.len() as f64;
    let some = |v: f64| (!values.is_empty()).then_some(v);
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let mut sorted = values.clone();
    sorted.sort_by(f64::total_cmp);
    match call {
        0 => Some(window.len() as f64),
        1 => Some(n),
        2 | 12 => some(values.iter().sum()),
        3 => some(mean),
        4 => sorted.first().copied(),
        5 => sorted.last().copied(),
        6 => (n > 1.0).then(|| (squares / (n - 1.0)).sqrt()),
        7 => some(squares / n),
        8 => values.first().copied(),
        9 => values.last().copied(),
        13 => Some(window.iter().filter(|e| e.flag).count() as f64),
        14 => (!window.is_empty()).then(|| f64::from(u8::from(window.iter().all(|e| e.flag)))),
        15 | 16 => shape(&values, call == 16),
        17 | 18 => pair(&known, call == 18),
        // Of equal values the latest.
        19 => known.iter().max_by(|a, b| a.2.total_cmp(&b.2)).map(|(_, s, _)| *s as f64),
        20 => {
            sorted.dedup();
            some(sorted.len().min(5) as f64)
        }
        21..=23 => {
            let weight = |t: i64| 0.5f64.powf((at - t) as f64 / HOUR as f64);
            let sum: f64 = known.iter().map(|(t, _, v)| v * weight(*t)).sum();
            let weights: f64 = known.iter().map(|(t, _, _)| weight(*t)).sum();
            if call == 23 { Some(weights) } else { some(if call == 21 { sum } else { sum / weights }) }
        }
        24 => (!window.is_empty()).then(|| f64::from(u8::from(window.iter().any(|e| e.flag)))),
        // Of equal values the earliest.
        25 => known.iter().min_by(|a, b| a.2.total_cmp(&b.2)).map(|(_, s, _)| *s as f64),
        26 => pair(&known, false).filter(|_| n > 1.0).map(|c| c * n / (n - 1.0)),
        27 => (n > 1.0).then(|| squares / (n - 1.0)),
        28 => some((squares / n).sqrt()),
        10 => sorted.get(sorted.len().saturating_sub(1) / 2).copied(),
        _ => {
            sorted.dedup();
            some(sorted.len() as f64)
        }
    }
}

/// Skewness or excess kurtosis of the population, by deviations from the mean.
fn shape(values: &[f64], kurtosis: bool) -> Option<f64> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let moment = |k| values.iter().map(|v| (v - mean).powi(k)).sum::<f64>() / n;
    let varies = values.iter().any(|v| *v != values[0]);
    varies.then(|| if kurtosis { moment(4) / moment(2).powi(2) - 3.0 } else { moment(3) / moment(2).powf(1.5) })
}

/// Covariance or correlation of value and sequence, by deviations from the means.
fn pair(known: &[(i64, i64, f64)], corr: bool) -> Option<f64> {
    let n = known.len() as f64;
    let (x, y): (Vec<f64>, Vec<f64>) = known.iter().map(|(_, s, v)| (*v, *s as f64)).unzip();
    let mean = |x: &[f64]| x.iter().sum::<f64>() / n;
    let (mx, my) = (mean(&x), mean(&y));
    let together =
        |a: &[f64], ma: f64, b: &[f64], mb: f64| a.iter().zip(b).map(|(a, b)| (a - ma) * (b - mb)).sum::<f64>() / n;
    let varies = |x: &[f64]| x.iter().any(|v| *v != x[0]);
    let cov = together(&x, mx, &y, my);
    match corr {
        false => (!known.is_empty()).then_some(cov),
        true => (varies(&x) && varies(&y)).then(|| cov / (together(&x, mx, &x, mx) * together(&y, my, &y, my)).sqrt()),
    }
}

/// [T − w, T) for `>`, and the same a microsecond later for `>=`; online, far edges are rounded down to the hop.
pub(crate) fn window<'a>(
    events: &'a [Event],
    key: Option<&str>,
    at: Option<i64>,
    edges: Edges,
    inclusive: bool,
    online: bool,
) -> Vec<&'a Event> {
    let (Some(key), Some(at)) = (key, at) else { return vec![] };
    let hop = |t: i64, hop: i64| if online { t - t.rem_euclid(hop) } else { t };
    let (start, end) = edges(at + i64::from(inclusive), &hop);
    let inside = |t: i64| start <= t && t < end;
    events.iter().filter(|e| e.key == Some(key) && e.time.is_some_and(inside)).collect()
}

pub(crate) fn tables(session: &Session, events: &[Event], requests: &[(Option<&str>, Option<i64>)]) {
    let column = |f: fn(&Event) -> Option<f64>| Arc::new(events.iter().map(f).collect::<Float64Array>()) as ArrayRef;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("k", Arc::new(events.iter().map(|e| e.key).collect::<StringArray>())),
        ("t", micros(events.iter().map(|e| e.time))),
        ("s", Arc::new(events.iter().map(|e| Some(e.seq)).collect::<Int64Array>())),
        ("v", column(|e| e.value)),
        ("flag", Arc::new(events.iter().map(|e| Some(e.flag)).collect::<BooleanArray>())),
    ];
    register(session, "events", columns);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values(0..requests.len() as i64))),
        ("k", Arc::new(requests.iter().map(|r| r.0).collect::<StringArray>())),
        ("at", micros(requests.iter().map(|r| r.1))),
    ];
    register(session, "requests", columns);
}

fn register(session: &Session, name: &str, columns: Vec<(&str, ArrayRef)>) {
    let columns = columns.into_iter().map(|(n, a)| (n, a, true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).expect("columns of one length");
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).expect("a table");
    session.context().register_table(name, Arc::new(table)).expect("a new name");
}

pub(crate) fn joined(op: &str, right: &str) -> String {
    format!(
        "SELECT r.id, {right}.* FROM requests r \
         ASOF JOIN {right} MATCH_CONDITION (r.at {op} {right}.t) ON r.k = {right}.k ORDER BY id"
    )
}

pub(crate) fn session() -> Session {
    Session::open(Project::in_memory(), &Extensions::default()).expect("a session")
}

async fn query(session: &Session, sql: &str) -> Vec<Vec<Option<f64>>> {
    let batches = session.sql(sql).await.unwrap_or_else(|e| panic!("{e}\n{sql}"));
    let mut rows = Vec::new();
    for batch in &batches {
        let cells: Vec<ArrayRef> =
            batch.columns().iter().map(|c| cast(c, &DataType::Float64).expect("a number")).collect();
        let cell = |c: &ArrayRef, row| c.is_valid(row).then(|| c.as_primitive::<Float64Type>().value(row));
        rows.extend((0..batch.num_rows()).map(|row| cells.iter().map(|c| cell(c, row)).collect::<Vec<_>>()));
    }
    rows
}

fn close(call: usize, got: Option<f64>, want: Option<f64>) -> bool {
    match (got, want) {
        (Some(g), Some(w)) => {
            let relative = if call == 10 { 0.0101 } else { 1e-9 };
            (g - w).abs() <= relative * w.abs() + 1e-12
        }
        (None, None) => true,
        _ => false,
    }
}

pub(crate) fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

/// `PROPTEST_CASES`, if it is set.
pub(crate) fn cases(default: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(1000), ..ProptestConfig::default() })]

    #[test]
    fn every_aggregate_over_every_window_is_what_nested_loops_give(
        events in events(), requests in requests(), inclusive: bool, online: bool,
    ) {
        let rows = block(async {
            let session = session();
            tables(&session, &events, &requests);
            query(&session, &format!("{}; {}", view(online), joined(if inclusive { ">=" } else { ">" }, "v"))).await
        });
        prop_assert_eq!(rows.len(), requests.len());
        for (row, (key, at)) in rows.iter().zip(&requests) {
            for (w, (frame, edges)) in WINDOWS.iter().enumerate() {
                let inside = window(&events, *key, *at, *edges, inclusive, online);
                for (call, sql) in CALLS.iter().enumerate() {
                    let want = naive(call, &inside, at.unwrap_or_default() + i64::from(inclusive));
                    let got = row[1 + w * CALLS.len() + call];
                    prop_assert!(close(call, got, want), "{sql} OVER {frame}: {got:?} is not {want:?}, at {at:?} of {key:?}");
                }
            }
        }
    }

    #[test]
    fn the_latest_row_is_what_nested_loops_give(
        events in events(), requests in requests(), op in prop::sample::select(vec![">", ">=", "<", "<="]), ttl: bool,
    ) {
        let ttl = ttl && op.starts_with('>');
        let rows = block(async {
            let session = session();
            tables(&session, &events, &requests);
            if op.starts_with('>') {
                let with = if ttl { "WITH (ttl = '1 hour')" } else { "" };
                let view = format!("CREATE FEATURE VIEW v ENTITY (k) EVENT TIME t SEQUENCE s {with} AS SELECT s AS seq, v FROM events");
                query(&session, &format!("{view}; {}", joined(op, "v"))).await
            } else {
                let sql = format!("SELECT r.id, e.s, e.v FROM requests r ASOF JOIN events e MATCH_CONDITION (r.at {op} e.t) ON r.k = e.k ORDER BY id");
                query(&session, &sql).await
            }
        });
        for (row, (key, at)) in rows.iter().zip(&requests) {
            let (Some(key), Some(at)) = (key, *at) else {
                prop_assert_eq!(row[1], None);
                continue;
            };
            let fits = |t: i64| match op {
                ">" => t < at && (!ttl || t >= at - HOUR),
                ">=" => t <= at && (!ttl || t > at - HOUR),
                "<" => t > at,
                _ => t >= at,
            };
            let matching = events.iter().filter(|e| e.key == Some(key) && e.time.is_some_and(fits));
            let want = if op.starts_with('>') {
                matching.max_by_key(|e| (e.time, e.seq))
            } else {
                matching.min_by(|a, b| tie(a).partial_cmp(&tie(b)).expect("no NaN"))
            };
            prop_assert_eq!(row[1], want.map(|e| e.seq as f64));
            prop_assert_eq!(row[2], want.and_then(|e| e.value));
        }
    }

    #[test]
    fn no_event_after_t_changes_a_feature_at_t(events in events(), key in key(), at in time(), shift in 1i64..HOUR) {
        let later: Vec<Event> = events
            .iter()
            .map(|e| Event { time: e.time.map(|t| if t >= at { t + shift } else { t }), ..e.clone() })
            .collect();
        let one = |events: &[Event]| block(async {
            let session = session();
            tables(&session, events, &[(key, Some(at))]);
            query(&session, &format!("{}; {}", view(true), joined(">", "v"))).await
        });
        prop_assert_eq!(one(&events), one(&later));
    }
}

/// Without a sequence, of tied rows of a table the smallest by all columns is the first.
fn tie(e: &Event) -> (i64, i64) {
    (e.time.unwrap_or_default(), e.seq)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(40), ..ProptestConfig::default() })]

    #[test]
    fn tiles_of_any_parts_merged_in_any_order_give_what_the_offline_join_gives(
        events in events(), requests in requests(), parts in prop::collection::vec(0usize..4, 40), backward: bool,
    ) {
        let newest = events.iter().filter_map(|e| e.time).max().unwrap_or_default();
        let requests: Vec<_> = requests.iter().map(|(k, t)| (*k, t.map(|t| newest + 1 + t.rem_euclid(60 * HOUR)))).collect();
        let (wanted, view, rows) = block(async {
            let session = session();
            tables(&session, &events, &requests);
            let wanted = query(&session, &format!("{}; {}", view(true), joined(">", "v"))).await;
            let view = session.feature_view("v").expect("it was made");
            let rows = session.context().execute_logical_plan(view.events.clone()).await.expect("a plan").collect().await;
            let rows = rows.expect("events");
            (wanted, Arc::clone(&view), concat_batches(&Arc::new(view.events.schema().as_arrow().clone()), &rows).expect("events"))
        });
        let part = |n: usize| {
            let mine = (0..rows.num_rows() as u32).filter(|row| parts[*row as usize] == n).collect::<Vec<_>>();
            Tiles::slice(&view, take_record_batch(&rows, &UInt32Array::from(mine)).expect("rows")).expect("tiles")
        };
        let mut all: Vec<Tiles> = (0..4).map(part).collect();
        if backward {
            all.reverse();
        }
        let keys: [ArrayRef; 1] = [Arc::new(requests.iter().map(|r| r.0).collect::<StringArray>())];
        let at: Vec<_> = requests.iter().map(|r| r.1).collect();
        let each = |all: &[Tiles]| all.iter().map(|t| t.evaluate(&keys, &at).expect("features")).collect::<Vec<_>>();
        let before = each(&all);
        let mut tiles = all[0].clone();
        all[1..].iter().for_each(|part| tiles.merge(part).expect("the same view"));
        prop_assert_eq!(each(&all), before, "a merge leaves what it merges as it was");
        let found = tiles.evaluate(&keys, &at).expect("features");
        prop_assert_eq!(found.len(), WINDOWS.len() * CALLS.len());
        for (column, values) in found.iter().enumerate() {
            let values = cast(values, &DataType::Float64).expect("a number");
            for (row, wanted) in wanted.iter().enumerate() {
                let got = values.is_valid(row).then(|| values.as_primitive::<Float64Type>().value(row));
                prop_assert!(close(0, got, wanted[1 + column]), "{}: {got:?} is not {:?}", CALLS[column % CALLS.len()], wanted[1 + column]);
            }
        }
    }

    #[test]
    fn the_online_store_gives_what_the_offline_join_gives(events in events(), requests in requests()) {
        let newest = events.iter().filter_map(|e| e.time).max().unwrap_or_default();
        // Serving is for now: no request is older than the newest event.
        let requests: Vec<_> = requests.iter().map(|(k, t)| (*k, t.map(|t| newest + 1 + t.rem_euclid(60 * HOUR)))).collect();
        let folder = tempfile::tempdir().expect("a folder");
        let (offline, online) = block(async {
            let project = Project::at(folder.path());
            let session = Session::open(project.clone(), &Extensions::default()).expect("a session");
            tables(&session, &events, &requests);
            let service = "CREATE FEATURE SERVICE s (id BIGINT, k VARCHAR, at TIMESTAMP) AS \
                SELECT r.id, v.* FROM request r ASOF JOIN v MATCH_CONDITION (r.at > v.t) ON r.k = v.k";
            let batch = session.sql("SELECT * FROM requests").await.expect("rows");
            let sql = format!(
                "CREATE VIEW dummy AS SELECT * FROM events; {}; {service}; MATERIALIZE FEATURE VIEW v; {}",
                view(true).replace("FROM events", "FROM dummy").replace("online = true", "online = true, ttl = '25 hours'"),
                joined(">", "v")
            );
            let offline = query(&session, &sql).await;
            let serving = Session::open_serving(project, &Extensions::default()).await.expect("a serving session");
            let online = serving.read_service("s", batch[0].clone()).await.expect("features");
            let columns: Vec<ArrayRef> = online[0].columns()[2..].iter().map(|c| cast(c, &DataType::Float64).expect("a number")).collect();
            let cell = |c: &ArrayRef, row| c.is_valid(row).then(|| c.as_primitive::<Float64Type>().value(row));
            let online: Vec<Vec<Option<f64>>> =
                (0..online[0].num_rows()).map(|row| columns.iter().map(|c| cell(c, row)).collect()).collect();
            (offline, online)
        });
        for (off, on) in offline.iter().zip(&online) {
            for (i, (a, b)) in off.iter().zip(on).enumerate() {
                prop_assert!(close(0, *b, *a), "column {}: online {:?}, offline {:?}", i, b, a);
            }
        }
    }
}
