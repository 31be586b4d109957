//! A stream by the command line: rows are put, read as a table, and landed.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use server::Server;

#[path = "../connectors/tests/kinesis/server.rs"]
mod server;

/// kinesis-local with a stream `clicks` of two shards.
fn start() -> Server {
    let loopback = concat!(env!("CARGO_MANIFEST_DIR"), "/connectors/tests/kinesis/loopback.js");
    let server = Server::start(loopback, &[("INITIALIZE_STREAMS", "clicks:2")]);
    // The stream is made after the port is open.
    std::thread::sleep(Duration::from_secs(1));
    server
}

const SECRET: &str = "c0ffee-the-secret-key";

fn featurectl(folder: &Path, emulator: &Server, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_featurectl"));
    command.current_dir(folder).args(args);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.env("AWS_ENDPOINT_URL_KINESIS", emulator.endpoint()).env("AWS_REGION", "us-east-1");
    command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", SECRET).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn rows_that_are_put_are_read_as_a_table_and_landed_whole() {
    let folder = tempfile::tempdir().unwrap();
    let emulator = start();
    let rows: String = (0..500).map(|n| format!("{{\"user_id\":{},\"amount\":{n}.5}}\n", n % 7)).collect();
    std::fs::write(folder.path().join("clicks.jsonl"), rows).unwrap();
    let put =
        featurectl(folder.path(), &emulator, &["put", "clicks", "clicks.jsonl", "--key", "user_id", "-o", "json"]);
    assert!(put.status.success(), "{}", text(&put.stderr));
    let step: Value = serde_json::from_slice(&put.stdout).unwrap();
    assert_eq!((&step["figures"]["rows"], &step["figures"]["maybe_twice"]), (&500.into(), &0.into()));
    let packed = featurectl(folder.path(), &emulator, &["put", "kinesis://clicks", "clicks.jsonl", "--aggregate"]);
    assert!(text(&packed.stderr).contains("Put `clicks` 500 rows in "), "{}", text(&packed.stderr));

    let job = "CREATE EXTERNAL TABLE clicks (user_id BIGINT, amount DOUBLE) STORED AS JSON LOCATION 'kinesis://clicks';\n\
               COPY (SELECT * FROM clicks) TO 'landed' STORED AS PARQUET;\n\
               SELECT count(*) AS n, sum(amount) AS total, count(DISTINCT user_id) AS users FROM clicks;\n";
    std::fs::write(folder.path().join("read.sql"), job).unwrap();
    let read = featurectl(folder.path(), &emulator, &["run", "read.sql", "-o", "csv"]);
    assert_eq!(text(&read.stdout), "n,total,users\n1000,250000.0,7\n", "{}", text(&read.stderr));
    std::fs::write(
        folder.path().join("landed.sql"),
        "CREATE EXTERNAL TABLE landed STORED AS PARQUET LOCATION 'landed';\n\
         SELECT count(*) AS n, sum(amount) AS total FROM landed;\n",
    )
    .unwrap();
    let landed = featurectl(folder.path(), &emulator, &["run", "landed.sql", "-o", "csv"]);
    assert_eq!(text(&landed.stdout), "n,total\n1000,250000.0\n", "{}", text(&landed.stderr));
}

#[test]
fn what_is_wrong_with_a_stream_is_said_with_the_fix_and_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let emulator = start();
    std::fs::write(folder.path().join("a.jsonl"), "{\"n\":1}\n").unwrap();
    let missing = featurectl(folder.path(), &emulator, &["put", "none", "a.jsonl"]);
    assert_eq!(missing.status.code(), Some(1), "{}", text(&missing.stderr));
    assert!(text(&missing.stderr).contains("none"), "{}", text(&missing.stderr));
    let key = featurectl(folder.path(), &emulator, &["put", "clicks", "a.jsonl", "--key", "m"]);
    assert_eq!(key.status.code(), Some(1), "{}", text(&key.stderr));
    let job =
        "CREATE EXTERNAL TABLE c (n BIGINT) STORED AS JSON LOCATION 'kinesis://clicks' OPTIONS ('form' 'latest');\n";
    std::fs::write(folder.path().join("job.sql"), job).unwrap();
    let option = featurectl(folder.path(), &emulator, &["check", "job.sql"]);
    assert_eq!(option.status.code(), Some(1), "{}", text(&option.stdout));
    let said = text(&option.stdout) + &text(&option.stderr);
    assert!(said.contains("did you mean `from`?"), "{said}");
    for output in [missing, key, option] {
        assert!(!(text(&output.stdout) + &text(&output.stderr)).contains(SECRET));
    }
}
