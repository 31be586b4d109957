//! The command line, driven as a process.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

pub(crate) fn featurectl(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_featurectl")).args(args).current_dir(folder).output().expect("featurectl runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// A project as `init` writes it.
pub(crate) fn project() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let made = featurectl(folder.path(), &["init"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    folder
}

fn fails(folder: &Path, args: &[&str], code: i32, parts: &[&str]) {
    let output = featurectl(folder, args);
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {err}");
    for part in parts {
        assert!(err.contains(part), "{args:?} does not say `{part}`: {err}");
    }
    assert!(!err.contains("panicked"), "{err}");
}

fn job(folder: &Path, sql: &str) {
    std::fs::write(folder.join("test.sql"), sql).expect("a job");
}

#[test]
fn a_new_project_runs_and_running_again_does_nothing() {
    let folder = project();
    let first = featurectl(folder.path(), &["run", "job.sql"]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    assert!(text(&first.stderr).contains("AUC"));
    let again = featurectl(folder.path(), &["run", "job.sql", "-o", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&again.stdout).expect("JSON");
    let steps = report["steps"].as_array().expect("steps");
    assert_eq!(steps.len(), 4);
    assert!(steps.iter().all(|s| s["unchanged"] == true), "{report}");
}

#[test]
fn a_changed_definition_is_made_anew_and_nothing_else() {
    let folder = project();
    featurectl(folder.path(), &["run", "job.sql"]);
    let sql = std::fs::read_to_string(folder.path().join("job.sql")).expect("the job");
    std::fs::write(folder.path().join("job.sql"), sql.replace("rounds 100", "rounds 7")).expect("the job");
    let plan = text(&featurectl(folder.path(), &["plan", "job.sql"]).stdout);
    assert!(plan.contains("changed  model fraud"), "{plan}");
    assert!(plan.contains("unchanged  training set fraud_set"), "{plan}");
    let report = featurectl(folder.path(), &["run", "job.sql", "-o", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).expect("JSON");
    let unchanged: Vec<_> = report["steps"].as_array().expect("steps").iter().map(|s| s["unchanged"] == true).collect();
    assert_eq!(unchanged, [true, true, false, false], "view, training set, model, scores");
}

#[test]
fn online_features_are_read_by_key_and_time() {
    let folder = project();
    featurectl(folder.path(), &["run", "job.sql"]);
    let args = ["get", "fraud_inputs", "customer=c07", "amount=10", "--at", "2024-03-10T00:00:00Z", "-o", "json"];
    let output = featurectl(folder.path(), &args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(rows[0]["payments_1d"], 0, "a window decays when nothing happens");
    assert!(rows[0]["last_amount"].is_number(), "{rows}");
    assert_eq!(rows[0]["spent_1d"], serde_json::Value::Null);
    fails(folder.path(), &["get", "fraud_input", "customer=c07"], 1, &["did you mean `fraud_inputs`?"]);
    fails(folder.path(), &["get", "fraud_inputs", "custmer=c07"], 1, &["did you mean `customer`?"]);
    fails(
        folder.path(),
        &["get", "fraud_inputs", "customer=c07", "amount=ten"],
        1,
        &["`ten` is no Float64 for `amount`"],
    );
    fails(
        folder.path(),
        &["get", "fraud_inputs", "customer=c07", "amount=1", "--at", "2024-01-02T00:00:00Z"],
        1,
        &["can't look back", "ask for a later time"],
    );
}

#[test]
fn show_tells_what_is_made_of_what() {
    let folder = project();
    featurectl(folder.path(), &["run", "job.sql"]);
    let view = text(&featurectl(folder.path(), &["show", "views", "customer_spending"]).stdout);
    assert!(view.contains("made of  table payments"), "{view}");
    assert!(view.contains("used by  feature service fraud_inputs, training set fraud_set"), "{view}");
    for what in ["tables", "services", "training-sets", "models", "runs"] {
        let output = featurectl(folder.path(), &["show", what, "-o", "json"]);
        let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(list.as_array().map(Vec::len), Some(1), "{what}");
    }
    fails(folder.path(), &["show", "models", "fruad"], 1, &["did you mean `fraud`?"]);
}

#[test]
fn dropped_things_are_gone() {
    let folder = project();
    featurectl(folder.path(), &["run", "job.sql"]);
    job(
        folder.path(),
        "DROP MODEL fraud; DROP TRAINING SET fraud_set; DROP FEATURE SERVICE fraud_inputs; DROP FEATURE VIEW customer_spending",
    );
    let dropped = featurectl(folder.path(), &["run", "test.sql"]);
    assert!(dropped.status.success(), "{}", text(&dropped.stderr));
    fails(folder.path(), &["get", "fraud_inputs", "customer=c07"], 1, &["no feature service"]);
    assert!(!folder.path().join(".featurectl/offline/fraud_set").exists());
    fails(folder.path(), &["run", "test.sql"], 1, &["unknown-model", "IF EXISTS"]);
}

#[test]
fn bad_input_names_the_place_and_the_fix() {
    let folder = project();
    let at = folder.path();
    fails(at, &["run", "jub.sql"], 1, &["jub.sql does not exist"]);
    fails(at, &["run", "."], 1, &["is a folder"]);
    fails(at, &["run", "job.sql", "--profile", "defalt"], 1, &["did you mean `default`?"]);
    job(at, "CREATE EXTERNAL TABLE p STORED AS CSV LOCATION 'data/payment.csv'");
    fails(at, &["run", "test.sql"], 1, &["test.sql:1:49", "did you mean `payments.csv`?"]);
    std::fs::write(at.join("data/broken.parquet"), b"PAR1 this is no Parquet file PAR1").expect("a file");
    job(at, "CREATE EXTERNAL TABLE p STORED AS PARQUET LOCATION 'data/broken.parquet'");
    fails(at, &["run", "test.sql"], 1, &["table `p` can't be read", "test.sql:1:"]);
    std::fs::write(at.join("data/empty.csv"), b"").expect("a file");
    job(at, "CREATE EXTERNAL TABLE p STORED AS CSV LOCATION 'data/empty.csv'");
    fails(at, &["run", "test.sql"], 1, &["empty.csv is empty"]);
    std::fs::write(at.join("test.sql"), b"SELECT 1;\nSELECT '\xff'").expect("a file");
    fails(at, &["run", "test.sql"], 1, &["test.sql:2: not UTF-8"]);
    job(at, "SELECT '${day}'");
    fails(at, &["run", "test.sql"], 1, &["unset-variable", "--set day=VALUE"]);
    job(at, "SELECT 1 AS a; SELECT TIMESTAMP '2024-01-01' AT TIME ZONE 'Mars/Olympus' AS b");
    fails(at, &["run", "test.sql"], 1, &["Mars/Olympus"]);
    std::fs::write(at.join("featurectl.toml"), "[profile.default]\nstroe = 'x'\n").expect("a file");
    fails(at, &["run", "job.sql"], 1, &["featurectl.toml", "unknown field `stroe`"]);
}

#[test]
fn two_runs_at_once_on_one_store_are_refused() {
    let folder = project();
    let registry = featurectl_feature_store::Registry::new(folder.path().join(".featurectl/registry"));
    let _lock = registry.lock().expect("the lock");
    fails(folder.path(), &["run", "job.sql"], 2, &["another featurectl is writing"]);
}

#[test]
fn a_store_that_cannot_be_made_is_a_clear_error() {
    let folder = project();
    std::fs::write(folder.path().join(".featurectl"), b"a file in the way").expect("a file");
    let output = featurectl(folder.path(), &["run", "job.sql"]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains(".featurectl"), "{}", text(&output.stderr));
}

#[test]
fn results_come_as_table_json_and_csv_on_stdout() {
    let folder = project();
    job(folder.path(), "SELECT 1 AS a, NULL AS b, 'x,y' AS c");
    let print = |output| text(&featurectl(folder.path(), &["run", "test.sql", "-o", output]).stdout);
    assert_eq!(print("csv"), "a,b,c\n1,,\"x,y\"\n");
    assert!(print("json").starts_with("[{\"a\":1,\"b\":null,\"c\":\"x,y\"}]"), "{}", print("json"));
    assert!(print("table").contains("│ 1     │ NULL │ x,y  │"), "{}", print("table"));
}

#[test]
fn completions_and_help_are_there() {
    let folder = tempfile::tempdir().expect("a folder");
    for shell in ["bash", "zsh", "fish"] {
        assert!(text(&featurectl(folder.path(), &["completions", shell]).stdout).contains("featurectl"));
    }
    assert!(text(&featurectl(folder.path(), &["--help"]).stdout).contains("Start here"));
}

#[test]
fn the_tables_are_readable_in_python() {
    let python = std::env::var("FEATURECTL_PYTHON").expect("run ./test, which makes the Python environment");
    let folder = project();
    featurectl(folder.path(), &["run", "job.sql"]);
    let script = "\
import deltalake, duckdb, polars, sys\n\
path = sys.argv[1]\n\
rows = deltalake.DeltaTable(path + '/fraud_set').to_pyarrow_table()\n\
assert rows.num_rows == 4000, rows.num_rows\n\
frame = polars.from_arrow(rows)\n\
assert frame['ratio_7d'].null_count() < 4000\n\
files = [path + '/fraud_set/' + f for f in deltalake.DeltaTable(path + '/fraud_set').files()] if hasattr(deltalake.DeltaTable, 'files') else deltalake.DeltaTable(path + '/fraud_set').file_uris()\n\
total = duckdb.connect().execute('SELECT count(*), sum(amount) FROM read_parquet(' + repr(files) + ')').fetchone()\n\
assert total[0] == 4000 and abs(total[1] - frame['amount'].sum()) < 1e-6, total\n\
print('ok')\n";
    let output = Command::new(python)
        .args(["-c", script])
        .arg(folder.path().join(".featurectl/offline"))
        .output()
        .expect("Python runs");
    assert_eq!(text(&output.stdout).trim(), "ok", "{}", text(&output.stderr));
}
