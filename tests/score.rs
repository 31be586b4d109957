//! `featurectl score` and `show model`, driven as processes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::cli::{fails, featurectl, job, text};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/executors/tests/score/fixtures/lightgbm");

/// A LightGBM model and two folders of rows for it, `rows` times 1,000 of them in each.
fn prepared(rows: usize) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(format!("{FIXTURES}/binary.txt"), folder.path().join("model.txt")).expect("a model");
    let columns: Vec<String> = (0..7).map(|i| format!("f{i} AS \"Column_{i}\"")).collect();
    let columns = columns.join(", ");
    let copy = |day: usize| {
        format!(
            "COPY (SELECT row_number() OVER () AS id, * FROM (SELECT {columns} FROM plain, range({rows}))) \
             TO 'data/day={day}/rows.parquet' STORED AS PARQUET;\n"
        )
    };
    let table = format!("CREATE EXTERNAL TABLE plain STORED AS PARQUET LOCATION '{FIXTURES}/rows_plain.parquet';\n");
    job(folder.path(), &format!("{table}{}{}", copy(1), copy(2)));
    let made = featurectl(folder.path(), &["run", "test.sql"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    folder
}

/// The rows of a query over the input and the output, as CSV.
fn query(folder: &Path, select: &str) -> String {
    let tables = "CREATE EXTERNAL TABLE given STORED AS PARQUET LOCATION 'data';\n\
                  CREATE EXTERNAL TABLE scored STORED AS PARQUET LOCATION 'out';\n";
    std::fs::write(folder.join("query.sql"), format!("{tables}{select};")).expect("a job");
    let output = featurectl(folder, &["run", "query.sql", "-o", "csv"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The ids of a file's rows, in their order.
fn ids(path: &Path) -> Vec<u64> {
    use arrow::array::AsArray;
    let file = std::fs::File::open(path).expect("a file");
    let reader = datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file);
    let batches = reader.and_then(|r| r.build()).expect("Parquet");
    let ids = |batch: arrow::array::RecordBatch| {
        let column = batch.column_by_name("id").expect("ids");
        column.as_primitive::<arrow::datatypes::UInt64Type>().values().to_vec()
    };
    batches.flat_map(|batch| ids(batch.expect("rows"))).collect()
}

#[test]
fn files_are_scored_in_their_order_once() {
    let folder = prepared(20);
    let score = ["score", "model.txt", "data", "--to", "out"];
    let first = featurectl(folder.path(), &score);
    assert!(first.status.success(), "{}", text(&first.stderr));
    assert_eq!(text(&first.stderr).matches("Scored").count(), 2);
    assert!(folder.path().join("out/day=2/rows.parquet").is_file());
    for day in 1..=2 {
        let ids = |root: &str| ids(&folder.path().join(root).join(format!("day={day}/rows.parquet")));
        assert_eq!(ids("data").len(), 20 * 1024);
        assert_eq!(ids("out"), ids("data"), "rows are in their order");
    }
    let columns: Vec<String> = (0..7).map(|i| format!("\"Column_{i}\"")).collect();
    let same = format!("prediction = predict('model.txt', {})", columns.join(", "));
    let counts =
        query(folder.path(), &format!("SELECT count(*) AS n, count(*) FILTER (WHERE {same}) AS same FROM scored"));
    assert_eq!(counts.trim(), "n,same\n40960,40960");
    let again = featurectl(folder.path(), &[&score[..], &["-o", "json"]].concat());
    let steps: serde_json::Value = serde_json::from_slice(&again.stdout).expect("JSON");
    assert!(steps.as_array().expect("steps").iter().all(|s| s["unchanged"] == true), "{steps}");
    let raw = featurectl(folder.path(), &[&score[..], &["--give", "raw", "-o", "json"]].concat());
    let steps: serde_json::Value = serde_json::from_slice(&raw.stdout).expect("JSON");
    assert!(steps.as_array().expect("steps").iter().all(|s| s["unchanged"] == false), "another question: {steps}");
}

#[test]
fn a_killed_run_goes_on_and_neither_loses_nor_repeats_a_row() {
    let folder = prepared(150);
    let score = ["score", "model.txt", "data", "--to", "out"];
    let started = std::time::Instant::now();
    assert!(featurectl(folder.path(), &score).status.success());
    let whole = started.elapsed();
    let mut killed = 0;
    for attempt in 0..30 {
        // From nothing two times of three, so that every stage is hit.
        if attempt % 3 != 2 {
            let _ = std::fs::remove_dir_all(folder.path().join("out"));
        }
        let mut run = Command::new(env!("CARGO_BIN_EXE_featurectl"))
            .args(score)
            .current_dir(folder.path())
            .stderr(Stdio::null())
            .spawn()
            .expect("featurectl runs");
        std::thread::sleep(whole.mul_f64(f64::from(attempt * 7 % 20) / 20.0) + Duration::from_millis(1));
        run.kill().expect("it can be killed");
        killed += u32::from(!run.wait().expect("it ends").success());
    }
    assert!(killed >= 15, "{killed} runs were killed before they ended");
    let last = featurectl(folder.path(), &["score", "model.txt", "data", "--to", "out"]);
    assert!(last.status.success(), "{}", text(&last.stderr));
    let differ = "SELECT count(*) AS differ FROM (SELECT id, \"Column_0\", \"Column_6\" FROM scored) s FULL JOIN \
                  (SELECT id, \"Column_0\" AS a FROM given WHERE day = '1') g ON s.id = g.id WHERE s.id IS NULL OR g.id IS NULL";
    assert_eq!(query(folder.path(), differ).trim(), "differ\n0");
    let rows =
        query(folder.path(), "SELECT count(*) AS n, count(DISTINCT id) AS ids, count(prediction) AS p FROM scored");
    let given = query(folder.path(), "SELECT count(*) AS n, count(DISTINCT id) AS ids, count(id) AS p FROM given");
    assert_eq!(rows, given);
    let parts = std::fs::read_dir(folder.path().join("out/day=1")).expect("a folder").count();
    assert_eq!(parts, 1, "nothing is left of killed runs");
}

#[test]
fn what_is_wrong_is_said_before_anything_is_written() {
    let folder = prepared(1);
    let at = folder.path();
    fails(at, &["score", "no.txt", "data", "--to", "out"], 1, &["no model file and no trained model `no.txt`"]);
    fails(at, &["score", "model.txt", "dat", "--to", "out"], 1, &["no file, folder or table `dat`"]);
    fails(at, &["score", "model.txt", "data", "--to", "out", "--as", "id"], 1, &["there is a column `id` already"]);
    for to in ["data", "data/out", "data/day=1"] {
        fails(at, &["score", "model.txt", "data", "--to", to], 1, &["is where the input is: give another folder"]);
    }
    let file = "data/day=1/rows.parquet";
    fails(at, &["score", "model.txt", file, "--to", "data/day=1"], 1, &["is where the input is"]);
    std::fs::write(at.join("bad.csv"), "Column_0,Column_1,Colum_2\n1,2,3\n").expect("a file");
    let parts = ["bad.csv", "no column `Column_2`", "did you mean `Colum_2`?"];
    fails(at, &["score", "model.txt", "bad.csv", "--to", "out"], 1, &parts);
    std::fs::write(at.join("cut.txt"), &std::fs::read(at.join("model.txt")).expect("it")[..2000]).expect("a file");
    fails(at, &["score", "cut.txt", "data", "--to", "out"], 1, &["cut.txt", "save the model again"]);
    fails(at, &["show", "model", "cut.txt"], 1, &["save the model again"]);
    fails(at, &["show", "model"], 1, &["which model?"]);
    assert!(!at.join("out/day=1").exists());
}

#[test]
fn a_model_is_shown_with_what_it_is_and_how_it_is_scored() {
    let folder = prepared(1);
    let shown = featurectl(folder.path(), &["show", "model", "model.txt"]);
    let out = text(&shown.stdout);
    for part in ["LightGBM", "binary", "trees", "depth", "Column_0, Column_1", "missing", "kernel", "rows per second"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let json = featurectl(folder.path(), &["show", "model", "model.txt", "-o", "json"]);
    let facts: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!((&facts["outputs"], facts["features"].as_array().map(Vec::len)), (&1.into(), Some(7)));
}
