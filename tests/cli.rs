//! The command line, driven as a process.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

pub(crate) fn featurectl(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_featurectl")).args(args).current_dir(folder).output().expect("featurectl runs")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// A project as `init` writes it.
pub(crate) fn project() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let made = featurectl(folder.path(), &["init"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    folder
}

pub(crate) fn fails(folder: &Path, args: &[&str], code: i32, parts: &[&str]) {
    let output = featurectl(folder, args);
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {err}");
    for part in parts {
        assert!(err.contains(part), "{args:?} does not say `{part}`: {err}");
    }
    assert!(!err.contains("panicked"), "{err}");
}

pub(crate) fn job(folder: &Path, sql: &str) {
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

/// Every write above a size fails, as on a full disk: nothing half-written is taken for a result, and the next run ends
/// as if there had been none before.
#[test]
#[cfg(unix)]
fn a_disk_that_takes_no_more_is_a_clear_error_and_the_next_run_is_whole() {
    let folder = project();
    let mut failed = 0;
    for blocks in [1, 8, 24, 64, 200, 600] {
        let limited = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" run job.sql");
        let output = Command::new("bash")
            .args(["-c", &limited, env!("CARGO_BIN_EXE_featurectl")])
            .current_dir(folder.path())
            .output()
            .expect("bash runs");
        let err = text(&output.stderr);
        assert!(!err.contains("panicked"), "at {blocks} blocks: {err}");
        if !output.status.success() {
            failed += 1;
            assert!(matches!(output.status.code(), Some(1 | 2)), "at {blocks} blocks: {:?}", output.status);
            assert!(err.contains("error: ") && err.contains("File too large"), "at {blocks} blocks: {err}");
        }
    }
    assert!(failed >= 3, "only {failed} runs met the limit");
    let whole = featurectl(folder.path(), &["run", "job.sql"]);
    assert!(whole.status.success(), "{}", text(&whole.stderr));
    assert_eq!(crate::kill::outcome(folder.path()), {
        let calm = project();
        assert!(featurectl(calm.path(), &["run", "job.sql"]).status.success());
        crate::kill::outcome(calm.path())
    });
}

/// `/sys` takes no new files from anybody, the superuser included.
#[test]
#[cfg(target_os = "linux")]
fn a_folder_that_cannot_be_written_is_a_clear_error() {
    let folder = project();
    let at = folder.path();
    std::fs::write(at.join("featurectl.toml"), "[profile.default]\nstore = '/sys/featurectl'\n").expect("a file");
    fails(at, &["run", "job.sql", "--set", "out=out"], 1, &["/sys/featurectl"]);
    std::fs::remove_file(at.join("featurectl.toml")).expect("it was there");
    job(at, "COPY (SELECT 1 AS a) TO '/sys/scores' STORED AS PARQUET");
    fails(at, &["run", "test.sql"], 1, &["writing /sys/scores", "test.sql:1"]);
    fails(at, &["-C", "/sys/kernel", "init"], 1, &["writing ./featurectl.toml", "Permission denied"]);
}

#[test]
fn a_csv_header_that_differs_from_the_declared_columns_is_refused() {
    let folder = project();
    let at = folder.path();
    let table = |file: &str, options: &str| {
        job(
            at,
            &format!(
                "CREATE EXTERNAL TABLE p (id BIGINT, amount DOUBLE) STORED AS CSV LOCATION 'data/{file}' {options};\nSELECT * FROM p"
            ),
        );
    };
    let write = |file: &str, rows: &str| std::fs::write(at.join("data").join(file), rows).expect("a file");
    for (header, found) in
        [("amount,id", "`amount, id`"), ("id,amuont", "`id, amuont`"), ("id", "`id`"), ("1,2.5", "`1, 2.5`")]
    {
        write("wrong.csv", &format!("{header}\n1,2.5\n"));
        table("wrong.csv", "");
        fails(at, &["run", "test.sql"], 1, &["wrong.csv: its header is", found, "`id, amount`", "test.sql:1:"]);
    }
    table("wrong.csv", "OPTIONS ('format.has_header' 'false')");
    assert!(featurectl(at, &["run", "test.sql"]).status.success(), "a file without a header");
    write("right.csv", "ID;Amount\n1;2.5\n");
    table("right.csv", "OPTIONS ('format.delimiter' ';')");
    assert!(featurectl(at, &["run", "test.sql"]).status.success());
    write("bad.csv", "id,amount\n1,2.5\n2,much\n");
    table("bad.csv", "");
    fails(at, &["run", "test.sql"], 1, &["test.sql:2", "much", "Float64", "line 2"]);
}

#[test]
fn an_empty_table_trains_nothing_and_says_so() {
    let folder = project();
    let at = folder.path();
    let sql = std::fs::read_to_string(at.join("job.sql")).expect("the job");
    let header = "payment_id,customer,paid_at,amount,fraud\n";
    std::fs::write(at.join("data/payments.csv"), header).expect("a file");
    job(at, &sql);
    fails(at, &["run", "test.sql"], 1, &["training set `fraud_set` is empty"]);
    assert!(!at.join(".featurectl/models/fraud").exists());
}

/// The model of a program of the user's own is trained, stored and used like the built-in one.
#[test]
fn a_script_of_ones_own_trains_a_model_that_scores() {
    std::env::var("FEATURECTL_PYTHON").expect("run ./test, which makes the Python environment");
    let folder = project();
    let at = folder.path();
    let script = "\
import json, os, pathlib, lightgbm, numpy, pyarrow.parquet as parquet\n\
settings = json.loads(os.environ['SM_HPS'])\n\
rows = parquet.read_table(os.environ['SM_CHANNEL_TRAIN'])\n\
column = lambda name: rows[name].to_numpy().astype('float64')\n\
names = settings['features']\n\
matrix = numpy.column_stack([column(name) for name in names])\n\
data = lightgbm.Dataset(matrix, column(settings['label']), feature_name=names)\n\
model = lightgbm.train({'objective': 'binary', 'verbose': -1, 'num_threads': 1}, data, settings['rounds'])\n\
model.save_model(str(pathlib.Path(os.environ['SM_MODEL_DIR']) / 'model.txt'))\n";
    std::fs::write(at.join("train.py"), script).expect("a script");
    let sql = std::fs::read_to_string(at.join("job.sql")).expect("the job");
    job(at, &sql.replace("USING gbdt OPTIONS (rounds 100)", "USING script 'train.py' OPTIONS (rounds 20)"));
    let run = || featurectl(at, &["run", "test.sql", "-o", "json"]);
    let first = run();
    assert!(first.status.success(), "{}", text(&first.stderr));
    let report: serde_json::Value = serde_json::from_slice(&first.stdout).expect("JSON");
    let auc = report["steps"][2]["figures"]["metrics"]["test"]["auc"].as_f64().expect("an AUC");
    assert!(auc > 0.8, "{report}");
    assert_eq!(report["steps"][3]["figures"]["rows"], 4000);
    let again: serde_json::Value = serde_json::from_slice(&run().stdout).expect("JSON");
    assert!(again["steps"].as_array().expect("steps").iter().all(|s| s["unchanged"] == true), "{again}");
    std::fs::write(at.join("train.py"), script.replace("save_model", "no_such_method")).expect("a script");
    let failed = run();
    assert_eq!(failed.status.code(), Some(1), "{}", text(&failed.stderr));
    assert!(text(&failed.stderr).contains("no_such_method"), "{}", text(&failed.stderr));
}

#[test]
fn options_of_a_copy_are_used_or_refused() {
    let folder = project();
    let at = folder.path();
    job(
        at,
        "COPY (SELECT 1 AS a, 2.5 AS b) TO 'out.csv' STORED AS CSV OPTIONS ('format.delimiter' ';', has_header false)",
    );
    let run = featurectl(at, &["run", "test.sql"]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert_eq!(std::fs::read_to_string(at.join("out.csv")).expect("the file"), "1;2.5\n");
    job(at, "COPY (SELECT 1 AS a) TO 'out2.csv' STORED AS CSV OPTIONS ('format.delimitre' ';')");
    fails(at, &["run", "test.sql"], 1, &["OPTIONS of COPY TO 'out2.csv'", "delimitre"]);
    assert!(!at.join("out2.csv").exists());
}

#[test]
fn partitions_of_null_have_a_folder_of_their_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let rows = "SELECT value AS v, CASE WHEN value > 1 THEN DATE '2024-01-02' END AS day FROM generate_series(1, 2) AS t(value)";
    job(at, &format!("COPY ({rows}) TO 'out' STORED AS PARQUET PARTITIONED BY (day)"));
    let run = featurectl(at, &["run", "test.sql"]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let entries = std::fs::read_dir(at.join("out")).expect("a folder");
    let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    assert_eq!(names, ["day=2024-01-02", "day=__HIVE_DEFAULT_PARTITION__"]);
}

#[test]
fn columns_that_hardly_become_smaller_are_not_compressed_unless_it_is_asked_for() {
    use datafusion::parquet::file::reader::{FileReader, SerializedFileReader};
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let codecs = |options: &str| {
        let rows = "SELECT sin(value) AS noise, 1.5 + 0 * value AS same FROM generate_series(1, 20000) AS t(value)";
        job(at, &format!("COPY ({rows}) TO 'out' STORED AS PARQUET {options}"));
        let run = featurectl(at, &["run", "test.sql"]);
        assert!(run.status.success(), "{}", text(&run.stderr));
        let mut files = std::fs::read_dir(at.join("out")).expect("a folder");
        let file = files.next().expect("a file").expect("an entry").path();
        let reader = SerializedFileReader::new(std::fs::File::open(file).expect("a file")).expect("Parquet");
        let columns = reader.metadata().row_group(0).columns();
        columns.iter().map(|c| c.compression().to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(codecs(""), "UNCOMPRESSED SNAPPY");
    assert!(codecs("OPTIONS (compression 'zstd(1)')").matches("ZSTD").count() == 2);
}

#[test]
fn a_table_may_be_made_and_dropped_in_one_job() {
    let folder = project();
    let at = folder.path();
    let table = "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'data/payments.csv'; CREATE VIEW v AS SELECT 1 AS a;\n";
    job(at, &format!("{table}CREATE FEATURE VIEW f ENTITY (customer) EVENT TIME paid_at AS SELECT amount FROM t;"));
    assert!(featurectl(at, &["run", "test.sql"]).status.success());
    assert!(text(&featurectl(at, &["show", "tables"]).stdout).contains("│ v "));
    job(at, &format!("{table}SELECT count(*) AS n FROM t; DROP TABLE t; DROP VIEW v;"));
    let run = featurectl(at, &["run", "test.sql", "-o", "csv"]);
    assert!(text(&run.stdout).contains("4000"), "{}", text(&run.stderr));
    assert!(!text(&featurectl(at, &["show", "tables"]).stdout).contains("│ v "));
    fails(at, &["run", "test.sql", "--set", "x=1"], 0, &["Dropped"]);
    job(at, "DROP TABLE t");
    fails(at, &["run", "test.sql"], 1, &["no table `t`", "IF EXISTS"]);
    job(
        at,
        &format!(
            "{table}CREATE FEATURE VIEW f ENTITY (customer) EVENT TIME paid_at AS SELECT amount FROM t; DROP TABLE f;"
        ),
    );
    fails(at, &["run", "test.sql"], 1, &["`f` is a feature view", "DROP FEATURE VIEW f"]);
}
