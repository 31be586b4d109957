//! Tiles that are made unit by unit: new, late, changed and lost files, and backfills that are killed.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::cli::featurectl;
use crate::kill::killed_when;

const JOB: &str = "\
CREATE EXTERNAL TABLE events (customer VARCHAR, t TIMESTAMP, amount DOUBLE, number BIGINT) STORED AS CSV LOCATION 'events' OPTIONS ('format.has_header' 'true');
CREATE FEATURE VIEW spend ENTITY (customer) EVENT TIME t SEQUENCE number WITH (online = true) AS
SELECT count(*) OVER d AS n, sum(amount) OVER d AS total, avg(amount) FILTER (WHERE amount > 20) OVER w AS mean, max(amount) OVER w AS most,
       count(*) OVER ever AS all_n, last_value(amount) OVER ever AS latest, approx_distinct(amount) OVER ever AS kinds
FROM events WHERE amount > 1
WINDOW d AS (RANGE INTERVAL '2 days' PRECEDING), w AS (RANGE INTERVAL '7 days' PRECEDING), ever AS (RANGE UNBOUNDED PRECEDING);
CREATE FEATURE VIEW newest ENTITY (customer) EVENT TIME t SEQUENCE number WITH (online = true) AS SELECT amount FROM events;
CREATE FEATURE SERVICE inputs (customer VARCHAR, at TIMESTAMP) AS
SELECT s.*, n.amount FROM request r ASOF JOIN spend s MATCH_CONDITION (r.at > s.t) ON r.customer = s.customer
ASOF JOIN newest n MATCH_CONDITION (r.at > n.t) ON r.customer = n.customer;
MATERIALIZE FEATURE VIEW spend;
MATERIALIZE FEATURE VIEW newest;
";

/// A project whose source has the given days, each a file.
fn project(days: &[u32]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("events")).expect("a folder");
    std::fs::write(folder.path().join("job.sql"), JOB).expect("a job");
    days.iter().for_each(|d| day(folder.path(), *d, 1));
    folder
}

/// The file of a day; another `edition` has other amounts, and a few events of two days before.
fn day(folder: &Path, day: u32, edition: u32) {
    let mut text = String::from("customer,t,amount,number\n");
    for i in 0..400u32 {
        let mixed = (i + 1).wrapping_mul(2_654_435_761).wrapping_add(day * 40_503 * edition) >> 7;
        let date = if edition > 1 && i % 50 == 0 { day - 2 } else { day };
        let (hour, minute) = (mixed % 24, mixed / 24 % 60);
        let amount = f64::from(mixed % 977) / 8.0;
        writeln!(text, "c{},2024-01-{date:02}T{hour:02}:{minute:02}:00,{amount},{}", mixed % 8, day * 1000 + i)
            .expect("text");
    }
    std::fs::write(folder.join(format!("events/{day:02}.csv")), text).expect("a file");
}

/// Runs the job; says which steps did anything.
fn run(folder: &Path) -> Vec<bool> {
    let output = featurectl(folder, &["run", "job.sql", "-o", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    report["steps"].as_array().expect("steps").iter().map(|s| s["unchanged"] == false).collect()
}

/// What is served to every customer.
fn served(folder: &Path) -> Vec<String> {
    let one = |customer: u32| {
        let key = format!("customer=c{customer}");
        let output = featurectl(folder, &["get", "inputs", &key, "--at", "2024-01-15T00:00:00Z", "-o", "csv"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    (0..8).map(one).collect()
}

/// The commits of a table: how many files each adds and removes.
fn commits(folder: &Path, table: &str) -> Vec<(usize, usize)> {
    let log = folder.join(".featurectl/offline").join(table).join("_delta_log");
    let mut files: Vec<_> = std::fs::read_dir(log).expect("a log").map(|e| e.expect("an entry").path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "json"));
    files.sort();
    let count = |text: &str, action: &str| text.lines().filter(|l| l.starts_with(&format!("{{\"{action}\""))).count();
    let commit = |f: &std::path::PathBuf| {
        let text = std::fs::read_to_string(f).expect("a commit");
        (count(&text, "add"), count(&text, "remove"))
    };
    files.iter().map(commit).collect()
}

#[test]
fn a_new_day_is_added_and_nothing_else_is_made_again() {
    let folder = project(&[5, 6, 7]);
    assert_eq!(run(folder.path()), [true, true]);
    let before = commits(folder.path(), "spend");
    assert_eq!(before.len(), 3, "a commit a unit of work");
    day(folder.path(), 8, 1);
    assert_eq!(run(folder.path()), [true, true]);
    let after = commits(folder.path(), "spend");
    assert_eq!(after.len(), 4);
    assert_eq!(after[3].1, 0, "no file is removed");
    assert_eq!(served(folder.path()), {
        let fresh = project(&[5, 6, 7, 8]);
        run(fresh.path());
        served(fresh.path())
    });
    assert_eq!(run(folder.path()), [false, false], "running again does nothing");
    assert_eq!(commits(folder.path(), "spend"), after);
}

#[test]
fn days_that_come_late_change_or_vanish_end_as_if_they_always_were_so() {
    let folder = project(&[5, 7, 9]);
    run(folder.path());
    let check = |what: &str| {
        run(folder.path());
        let fresh = project(&[]);
        std::fs::remove_dir(fresh.path().join("events")).expect("a folder");
        let copied = Command::new("cp").arg("-r").arg(folder.path().join("events")).arg(fresh.path()).status();
        assert!(copied.expect("cp runs").success());
        run(fresh.path());
        assert_eq!(served(folder.path()), served(fresh.path()), "{what}");
    };
    day(folder.path(), 6, 2);
    check("a day several days late, with events of days before it");
    day(folder.path(), 7, 3);
    check("a file that changed: values that were the maximum are gone");
    std::fs::remove_file(folder.path().join("events/09.csv")).expect("a file");
    check("a file that is gone");
    day(folder.path(), 9, 1);
    day(folder.path(), 5, 4);
    check("a file that came back, and another that changed");
}

#[test]
fn a_killed_backfill_goes_on_where_it_was() {
    let days: Vec<u32> = (3..13).collect();
    let calm = project(&days);
    let started = std::time::Instant::now();
    run(calm.path());
    let unit = started.elapsed() / days.len() as u32;
    let shaken = project(&days);
    let log = shaken.path().join(".featurectl/offline/spend/_delta_log");
    let done = || if log.is_dir() { commits(shaken.path(), "spend").len() } else { 0 };
    let mut partly = 0;
    for attempt in 0..30 {
        // Some time after the next commit, each time at another moment of what follows.
        let (before, mut seen) = (done(), None);
        let killed = killed_when(shaken.path(), || {
            seen = seen.or((done() > before).then(std::time::Instant::now));
            seen.is_some_and(|at| at.elapsed() >= unit.mul_f64(f64::from(attempt * 7 % 10) / 10.0))
        });
        partly += u32::from(killed && (1..days.len()).contains(&done()));
        if !killed {
            break;
        }
    }
    run(shaken.path());
    assert!(partly > 0, "no run was killed amid the backfill");
    assert_eq!(commits(shaken.path(), "spend").len(), days.len(), "each unit of work is committed once");
    assert_eq!(served(shaken.path()), served(calm.path()));
    let before = commits(shaken.path(), "spend");
    assert_eq!(run(shaken.path()), [false, false]);
    assert_eq!(commits(shaken.path(), "spend"), before);
}
