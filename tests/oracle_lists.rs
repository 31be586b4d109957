//! Aggregations that give lists and maps against nested loops; see `oracle.rs`.

use std::collections::BTreeMap;

use arrow::array::Array;
use arrow::util::display::array_value_to_string;
use proptest::prelude::*;

use crate::oracle::{Event, WINDOWS, block, cases, events, joined, requests, session, tables, view_of, window};

const CALLS: [&str; 13] = [
    "first_k(v, 3)",
    "last_k(v, 3)",
    "top_k(v, 3)",
    "bottom_k(v, 3)",
    "array_agg(v, 4)",
    "array_agg_distinct(v, 3)",
    "histogram(v)",
    "top_frequency(v, 2)",
    "bucketed_sum(v, flag)",
    "bucketed_count(v, flag)",
    "bucketed_last_value(v, flag)",
    "vector_sum(make_array(s, 2 * s))",
    "vector_avg(make_array(s, 2 * s))",
];

/// What a call gives over the events of one window, as Arrow prints it; `None` is NULL.
fn naive(call: &str, window: &[&Event]) -> Option<String> {
    let mut ordered: Vec<&&Event> = window.iter().collect();
    ordered.sort_by_key(|e| (e.time, e.seq));
    let values: Vec<f64> = ordered.iter().filter_map(|e| e.value).collect();
    let mut sorted = values.clone();
    sorted.sort_by(f64::total_cmp);
    let list = |values: Vec<f64>| (!values.is_empty()).then(|| format!("{values:?}"));
    let n = ordered.len() as f64;
    let numbers: f64 = ordered.iter().map(|e| e.seq as f64).sum();
    match call.split('(').next()? {
        "first_k" => list(values.into_iter().take(3).collect()),
        "last_k" => list(values.into_iter().rev().take(3).collect()),
        "top_k" => list(sorted.into_iter().rev().take(3).collect()),
        "bottom_k" => list(sorted.into_iter().take(3).collect()),
        "array_agg" => list(values.into_iter().take(4).collect()),
        "array_agg_distinct" => {
            sorted.dedup();
            list(sorted.into_iter().take(3).collect())
        }
        "histogram" => frequencies(&sorted, usize::MAX, false),
        "top_frequency" => frequencies(&sorted, 2, true),
        "bucketed_sum" => buckets(&ordered, |values| format!("{:?}", values.iter().sum::<f64>())),
        "bucketed_count" => buckets(&ordered, |values| values.len().to_string()),
        "bucketed_last_value" => buckets(&ordered, |values| format!("{:?}", values[values.len() - 1])),
        "vector_sum" => (n > 0.0).then(|| format!("[{numbers:?}, {:?}]", 2.0 * numbers)),
        _ => (n > 0.0).then(|| format!("[{:?}, {:?}]", numbers / n, 2.0 * numbers / n)),
    }
}

/// Each value and how often it occurs, by value, or the most frequent first.
fn frequencies(sorted: &[f64], k: usize, by_count: bool) -> Option<String> {
    let mut counts: Vec<(f64, usize)> = Vec::new();
    for value in sorted {
        match counts.last_mut() {
            Some((last, count)) if last == value => *count += 1,
            _ => counts.push((*value, 1)),
        }
    }
    if by_count {
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    }
    let each: Vec<_> = counts.iter().take(k).map(|(v, n)| format!("{{value: {v:?}, count: {n}}}")).collect();
    (!each.is_empty()).then(|| format!("[{}]", each.join(", ")))
}

/// A value for the known values of each flag that has any.
fn buckets(ordered: &[&&Event], value: impl Fn(&[f64]) -> String) -> Option<String> {
    let mut of: BTreeMap<bool, Vec<f64>> = BTreeMap::new();
    for event in ordered {
        of.entry(event.flag).or_default().extend(event.value);
    }
    let known = of.iter().filter(|(_, values)| !values.is_empty());
    let each: Vec<_> = known.map(|(flag, values)| format!("{flag}: {}", value(values))).collect();
    (!each.is_empty()).then(|| format!("{{{}}}", each.join(", ")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(1000), ..ProptestConfig::default() })]

    #[test]
    fn every_list_and_map_over_every_window_is_what_nested_loops_give(
        events in events(), requests in requests(), inclusive: bool, online: bool,
    ) {
        let batches = block(async {
            let session = session();
            tables(&session, &events, &requests);
            let sql = format!("{}; {}", view_of(&CALLS, online), joined(if inclusive { ">=" } else { ">" }, "v"));
            session.sql(&sql).await.unwrap_or_else(|e| panic!("{e}\n{sql}"))
        });
        let rows = batches.iter().flat_map(|b| (0..b.num_rows()).map(move |row| (b, row)));
        for ((batch, row), (key, at)) in rows.zip(&requests) {
            for (w, (frame, edges)) in WINDOWS.iter().enumerate() {
                let inside = window(&events, *key, *at, *edges, inclusive, online);
                for (call, sql) in CALLS.iter().enumerate() {
                    let column = batch.column(1 + w * CALLS.len() + call);
                    let got = column.is_valid(row).then(|| array_value_to_string(column, row).expect("text"));
                    let want = naive(sql, &inside);
                    prop_assert_eq!(got, want, "{} OVER {}, at {:?} of {:?}", sql, frame, at, key);
                }
            }
        }
    }
}
