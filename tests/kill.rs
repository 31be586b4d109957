//! A run that is killed at any moment and started again ends as one that was not killed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::cli::{featurectl, project};

/// How many runs are killed, and how many are started for that: some end before they are.
const KILLS: u64 = 22;
const ATTEMPTS: u64 = 300;

#[test]
fn a_killed_run_started_again_ends_like_one_that_was_not_killed() {
    let calm = project();
    let started = std::time::Instant::now();
    assert!(featurectl(calm.path(), &["run", "job.sql"]).status.success());
    let whole = started.elapsed();
    let wanted = outcome(calm.path());

    let shaken = project();
    let mut killed = 0;
    for attempt in 0..ATTEMPTS {
        if killed == KILLS {
            break;
        }
        // Each round starts from nothing half of the time, so that every stage is hit, also the first ones.
        if attempt % 2 == 0 {
            let _ = std::fs::remove_dir_all(shaken.path().join(".featurectl"));
            let _ = std::fs::remove_dir_all(shaken.path().join("out"));
        }
        let after = whole.mul_f64((attempt * 37 % 24) as f64 / 24.0) + Duration::from_millis(1);
        let started = std::time::Instant::now();
        killed += u64::from(killed_when(shaken.path(), || started.elapsed() >= after));
    }
    assert_eq!(killed, KILLS, "runs that were killed before they ended");
    let last = featurectl(shaken.path(), &["run", "job.sql"]);
    assert!(last.status.success(), "{}", String::from_utf8_lossy(&last.stderr));
    for (number, (got, want)) in outcome(shaken.path()).lines().zip(wanted.lines()).enumerate() {
        assert_eq!(got, want, "line {number} of the outcome");
    }
    assert_eq!(outcome(shaken.path()).lines().count(), wanted.lines().count());
}

/// Starts the job and kills it as soon as `is_time`; false if it ended before.
pub(crate) fn killed_when(folder: &Path, mut is_time: impl FnMut() -> bool) -> bool {
    let mut run = Command::new(env!("CARGO_BIN_EXE_featurectl"))
        .args(["run", "job.sql"])
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("featurectl runs");
    while !is_time() && run.try_wait().expect("it can be asked").is_none() {
        std::thread::sleep(Duration::from_micros(200));
    }
    run.kill().expect("it can be killed");
    !run.wait().expect("it ends").success()
}

/// Scores, training set, model and online values, without run ids and file names.
pub(crate) fn outcome(folder: &Path) -> String {
    let query = "CREATE EXTERNAL TABLE scores STORED AS PARQUET LOCATION 'out/scores';\n\
                 CREATE EXTERNAL TABLE fraud_set STORED AS DELTA LOCATION '.featurectl/offline/fraud_set';\n\
                 SELECT count(*), min(p), max(p), round(sum(p), 6), round(sum(p * payment_id), 3) FROM scores;\n\
                 SELECT count(*), sum(payments_1d), round(sum(avg_7d), 3), max(payment_id) FROM fraud_set;";
    std::fs::write(folder.join("look.sql"), query).expect("a job");
    let tables = featurectl(folder, &["run", "look.sql", "-o", "csv"]);
    assert!(tables.status.success(), "{}", String::from_utf8_lossy(&tables.stderr));
    let mut out = String::from_utf8(tables.stdout).expect("UTF-8");
    let versions = std::fs::read_dir(folder.join(".featurectl/models/fraud")).expect("models");
    let mut models: Vec<_> = versions.map(|e| e.expect("an entry").path().join("model.txt")).collect();
    models.retain(|m| m.is_file());
    assert_eq!(models.len(), 1, "one version of the model");
    out.push_str(&std::fs::read_to_string(&models[0]).expect("the model"));
    for customer in 0..40 {
        let key = format!("customer=c{customer:02}");
        let args = ["get", "fraud_inputs", &key, "amount=1", "--at", "2024-03-05T00:00:00Z", "-o", "csv"];
        let row = featurectl(folder, &args);
        assert!(row.status.success(), "{}", String::from_utf8_lossy(&row.stderr));
        out.push_str(&String::from_utf8(row.stdout).expect("UTF-8"));
    }
    out
}
