//! The laws of the algebra, for every aggregation there is: however the events of a window are split, shuffled, stored
//! and merged, and whichever way the engine takes, the value is the same.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListArray, StringArray, UInt64Array,
};
use arrow::datatypes::{DataType, Float64Type, IntervalMonthDayNano, UInt64Type};
use datafusion::common::ScalarValue;
use proptest::prelude::*;

use super::{Aggregator, Arg, Events, Functions, Memo};

/// The arguments that every built-in function is tried with.
fn calls() -> Vec<(String, Vec<&'static str>)> {
    let plans: &[(&[&str], &[&[&'static str]])] = &[
        (&["count"], &[&[], &["x"], &["word"]]),
        (&["sum", "avg", "mean"], &[&["x"], &["n"]]),
        (&["min", "max", "first_value", "last_value"], &[&["x"], &["n"], &["word"], &["flag"]]),
        (&["var", "var_samp", "var_sample", "var_pop", "var_population"], &[&["x"]]),
        (&["stddev", "stddev_samp", "stddev_pop", "skewness", "kurtosis"], &[&["x"], &["n"]]),
        (&["covar", "covar_pop", "covar_samp", "corr"], &[&["x", "n"]]),
        (&["count_if", "bool_and", "bool_or"], &[&["flag"]]),
        (&["approx_distinct", "histogram"], &[&["n"], &["word"]]),
        (&["approx_percentile_cont"], &[&["x", "half"]]),
        (&["first_k", "last_k", "top_k", "bottom_k", "array_agg"], &[&["x", "k"], &["word", "k"]]),
        (&["array_agg_distinct", "count_distinct", "top_frequency"], &[&["n", "k"], &["word", "k"]]),
        (&["min_by", "max_by"], &[&["word", "x"], &["n", "word"]]),
        (&["decayed_sum", "decayed_avg"], &[&["x", "half_life"], &["n", "half_life"]]),
        (&["decayed_count"], &[&["half_life"], &["word", "half_life"]]),
        (&["vector_sum", "vector_avg"], &[&["vector"]]),
        (&["bucketed_count"], &[&["word"], &["x", "n"]]),
        (&["bucketed_decayed_sum"], &[&["x", "half_life", "word"]]),
        (&["bucketed_avg", "bucketed_last_value", "bucketed_stddev"], &[&["x", "word"], &["n", "n"]]),
    ];
    let each = plans.iter().flat_map(|(names, args)| names.iter().map(move |n| (*n, *args)));
    each.flat_map(|(name, args)| args.iter().map(move |a| (name.to_string(), a.to_vec()))).collect()
}

#[test]
fn every_function_is_tried() {
    let functions = Functions::default();
    let missing: Vec<&str> = functions.names().filter(|n| !calls().iter().any(|(c, _)| c == n)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[derive(Debug, Clone)]
struct Row {
    time: i64,
    x: Option<f64>,
    n: Option<i64>,
    word: Option<&'static str>,
    flag: Option<bool>,
    counts: Option<bool>,
}

fn row() -> impl Strategy<Value = Row> {
    let x = prop_oneof![
        (-40i32..40).prop_map(|i| f64::from(i) / 4.0),
        Just(-0.0),
        -1e6..1e6f64,
        (-1e3..1e3f64).prop_map(|f| f * 1e-6),
    ];
    let word = prop::sample::select(vec!["", "a", "b", "ba", "é"]);
    let rows = (0i64..12, prop::option::weighted(0.8, x), prop::option::weighted(0.8, -5i64..5));
    (
        rows,
        prop::option::weighted(0.8, word),
        prop::option::of(any::<bool>()),
        prop::option::weighted(0.9, prop::bool::weighted(0.8)),
    )
        .prop_map(|((time, x, n), word, flag, counts)| Row { time, x, n, word, flag, counts })
}

struct Columns {
    time: Vec<i64>,
    sequence: ArrayRef,
    filter: BooleanArray,
    x: ArrayRef,
    n: ArrayRef,
    word: ArrayRef,
    flag: ArrayRef,
    vector: ArrayRef,
}

impl Columns {
    /// Rows in order of time; their sequence is their number, without which ties are broken by value.
    fn new(rows: &[Row]) -> Self {
        let mut rows = rows.to_vec();
        rows.sort_by_key(|r| r.time);
        Self {
            time: rows.iter().map(|r| r.time).collect(),
            sequence: Arc::new(Int64Array::from_iter_values((0..rows.len() as i64).map(|i| i * 7 % 13))),
            filter: rows.iter().map(|r| r.counts).collect(),
            x: Arc::new(rows.iter().map(|r| r.x).collect::<Float64Array>()),
            n: Arc::new(rows.iter().map(|r| r.n).collect::<Int64Array>()),
            word: Arc::new(rows.iter().map(|r| r.word).collect::<StringArray>()),
            flag: Arc::new(rows.iter().map(|r| r.flag).collect::<BooleanArray>()),
            vector: Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(
                rows.iter().map(|r| r.flag.map(|_| [r.x, r.n.map(|n| n as f64)])),
            )),
        }
    }

    fn args(&self, names: &[&str]) -> (Vec<ArrayRef>, Vec<Arg>) {
        let constant = |v: ScalarValue| (v.to_array_of_size(self.time.len()).expect("a column"), Some(v));
        let one = |name: &&str| match *name {
            "x" => (Arc::clone(&self.x), None),
            "n" => (Arc::clone(&self.n), None),
            "word" => (Arc::clone(&self.word), None),
            "flag" => (Arc::clone(&self.flag), None),
            "vector" => (Arc::clone(&self.vector), None),
            "half_life" => constant(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, 0, 4_000)))),
            "k" => constant(3i64.into()),
            _ => constant(0.5.into()),
        };
        let both: Vec<_> = names.iter().map(one).collect();
        let args = both.iter().map(|(a, l)| Arg { data_type: a.data_type().clone(), literal: l.clone() }).collect();
        let is_input = |(i, (_, literal)): &(usize, &(ArrayRef, Option<ScalarValue>))| *i == 0 || literal.is_none();
        (both.iter().enumerate().filter(is_input).map(|(_, (a, _))| Arc::clone(a)).collect(), args)
    }
}

/// Equal, floats to 1e-9 of their size, also inside of lists and maps.
fn same(a: &ArrayRef, b: &ArrayRef) -> bool {
    match a.data_type() {
        DataType::Float64 => {}
        DataType::List(_) => {
            let (a, b) = (a.as_list::<i32>(), b.as_list::<i32>());
            return a.offsets() == b.offsets() && a.nulls() == b.nulls() && same(a.values(), b.values());
        }
        DataType::Map(..) => {
            let (a, b) = (a.as_map(), b.as_map());
            let entries = a.keys() == b.keys() && same(a.values(), b.values());
            return a.offsets() == b.offsets() && a.nulls() == b.nulls() && entries;
        }
        _ => return a == b,
    }
    let (a, b) = (a.as_primitive::<Float64Type>(), b.as_primitive::<Float64Type>());
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()) + 1e-9 || (a.is_nan() && b.is_nan()),
            (a, b) => a.is_none() && b.is_none(),
        })
}

/// The value of each range by encoded partials: the rows of a range are dealt to three stores, which are merged in any
/// order.
fn by_stores(f: &dyn Aggregator, events: &Events<'_>, ranges: &[Range<usize>], at: &[i64], turn: usize) -> ArrayRef {
    let one = |range: &Range<usize>| {
        let cuts = [range.start, range.start + range.len() / 3, range.start + range.len() / 2, range.end];
        let parts: Vec<Range<usize>> = cuts.windows(2).map(|c| c[0]..c[1]).collect();
        let mut partials = f.fold(events, &parts).expect("partials");
        partials.rotate_left(turn % 3);
        if turn > 2 {
            partials.reverse();
        }
        partials
    };
    let groups: Vec<Vec<Vec<u8>>> = ranges.iter().map(one).collect();
    let groups: Vec<Vec<&[u8]>> = groups.iter().map(|g| g.iter().map(Vec::as_slice).collect()).collect();
    f.merge_finish(&groups, at).expect("values")
}

/// Six events, with a NULL of every kind.
fn few() -> Vec<Row> {
    let row = |time, x, n, word, flag| Row { time, x, n, word, flag, counts: Some(true) };
    vec![
        row(1, Some(1.5), Some(3), Some("b"), Some(true)),
        row(2, Some(-0.25), None, Some("a"), Some(false)),
        row(2, None, Some(-4), None, None),
        row(3, Some(1e6), Some(3), Some("b"), Some(true)),
        row(5, Some(0.1), Some(0), Some(""), Some(false)),
        row(8, Some(1.5), Some(7), Some("é"), None),
    ]
}

/// Stores hold these bytes: a change of a line is a change of a format that is in use, and needs a new version of it.
#[test]
fn partials_keep_their_layout() {
    let columns = Columns::new(&few());
    let mut lines = String::new();
    for (name, args) in calls() {
        let (arrays, bound) = columns.args(&args);
        let f = Functions::default().get(&name).expect("a function").bind(&bound).expect("it fits");
        let events =
            Events { args: &arrays, time: &columns.time, sequence: Some(&columns.sequence), filter: None, memo: None };
        let all = 0..columns.time.len();
        let partial = f.fold(&events, std::slice::from_ref(&all)).expect("a partial").remove(0);
        let value = f.windows(&events, &[std::slice::from_ref(&all)], &[9]).expect("a value").remove(0);
        assert!(same(&value, &f.merge_finish(&[vec![&partial]], &[9]).expect("a value")), "{name}");
        let hex: String = partial.iter().map(|b| format!("{b:02x}")).collect();
        let value = arrow::util::display::array_value_to_string(&value, 0).expect("text");
        lines.push_str(&format!("{name}({}) = {value}\n  {hex}\n", args.join(", ")));
    }
    expect_test::expect_file!["partials.txt"].assert_eq(&lines);
}

/// A part of the events, such as a file, may take back what is in another, so that it has no value of its own.
#[test]
fn what_is_taken_back_may_be_in_another_part() {
    let args = [Arg { data_type: DataType::UInt64, literal: None }];
    let sum = Functions::default().get("sum").expect("a function").bind(&args).expect("it fits");
    let sum = super::functions::retractable("sum", sum).expect("it can take back");
    let arrays: [ArrayRef; 2] =
        [Arc::new(UInt64Array::from(vec![5, 5, 7])), Arc::new(BooleanArray::from(vec![true, false, false]))];
    let events = Events { args: &arrays, time: &[1, 1, 2], sequence: None, filter: None, memo: None };
    let parts = sum.fold(&events, &[0..1, 1..3]).expect("partials");
    let groups = vec![parts.iter().map(Vec::as_slice).collect()];
    let values = sum.merge_finish(&groups, &[3]).expect("a value");
    assert_eq!(values.as_primitive::<UInt64Type>().values(), &[7]);
}

/// `PROPTEST_CASES` if it is set.
fn cases(default: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(400), ..ProptestConfig::default() })]

    #[test]
    fn a_window_has_one_value_however_it_is_made(
        rows in prop::collection::vec(row(), 0..40), edges in prop::collection::vec((0usize..41, 0usize..41), 1..12),
        filtered: bool, sequenced: bool, turn in 0usize..6,
    ) {
        let columns = Columns::new(&rows);
        // Windows whose starts and ends never decrease.
        let cut = |at: usize| at.min(rows.len());
        let (mut starts, mut ends): (Vec<usize>, Vec<usize>) = edges.iter().map(|(a, b)| (cut(*a), cut(*b))).unzip();
        starts.sort_unstable();
        ends.sort_unstable();
        let ranges: Vec<Range<usize>> = starts.into_iter().zip(ends).map(|(a, b)| a.min(b)..b).collect();
        let at: Vec<i64> = (12..12 + ranges.len() as i64).collect();
        let memo = Memo::default();
        for (name, args) in calls() {
            let (arrays, args) = columns.args(&args);
            let f = Functions::default().get(&name).expect("a function").bind(&args).expect("it fits");
            let events = Events {
                args: &arrays,
                time: &columns.time,
                sequence: sequenced.then_some(&columns.sequence),
                filter: filtered.then_some(&columns.filter),
                memo: Some(&memo),
            };
            let direct = f.windows(&events, &[&ranges], &at).expect("values").remove(0);
            prop_assert_eq!(direct.data_type(), &f.return_type());
            let stored = by_stores(f.as_ref(), &events, &ranges, &at, turn);
            prop_assert!(same(&direct, &stored), "{}: {:?} is not {:?} over {:?}", name, direct, stored, ranges);
        }
    }

    #[test]
    fn what_is_taken_back_was_never_there(rows in prop::collection::vec((row(), any::<bool>()), 0..30), turn in 0usize..6) {
        let (kept, gone): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, gone)| !gone);
        let gone: Vec<Row> = gone.into_iter().map(|(row, _)| row).collect();
        let kept: Vec<Row> = kept.into_iter().map(|(row, _)| row).collect();
        let mut all: Vec<(Row, bool)> = kept.iter().chain(&gone).map(|r| (r.clone(), false)).collect();
        all.extend(gone.into_iter().map(|r| (r, true)));
        all.sort_by_key(|(r, _)| r.time);
        let retract: ArrayRef = Arc::new(all.iter().map(|(_, gone)| Some(*gone)).collect::<BooleanArray>());
        let (left, all) = (Columns::new(&kept), Columns::new(&all.into_iter().map(|(r, _)| r).collect::<Vec<_>>()));
        let (mut tried, at) = (0, [12]);
        for (name, args) in calls() {
            let (mut arrays, bound) = all.args(&args);
            let f = Functions::default().get(&name).expect("a function").bind(&bound).expect("it fits");
            let Ok(signed) = super::functions::retractable(&name, Arc::clone(&f)) else { continue };
            tried += 1;
            arrays.push(Arc::clone(&retract));
            let events = |args, time| Events { args, time, sequence: None, filter: None, memo: None };
            let wanted = left.args(&args).0;
            let all_left = 0..left.time.len();
            let all_left = std::slice::from_ref(&all_left);
            let wanted = f.windows(&events(&wanted, &left.time), &[all_left], &at).expect("values").remove(0);
            let (events, range) = (events(&arrays, &all.time), 0..all.time.len());
            let direct = signed.windows(&events, &[std::slice::from_ref(&range)], &at).expect("values").remove(0);
            let stored = by_stores(signed.as_ref(), &events, &[range], &at, turn);
            prop_assert!(same(&direct, &wanted), "{name}: {direct:?} is not {wanted:?}");
            prop_assert!(same(&stored, &wanted), "{name}: {stored:?} is not {wanted:?}");
        }
        prop_assert!(tried > 20, "{tried} functions");
    }
}
