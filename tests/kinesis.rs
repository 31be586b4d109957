//! A stream by the command line: rows are put, read as a table, and landed.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

/// kinesis-local with a stream `clicks` of two shards. It ends when its pipe does.
struct Emulator {
    child: Child,
    endpoint: String,
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start() -> Emulator {
    let folder = std::env::var_os("FEATURECTL_KINESIS_LOCAL").expect("run ./test, which installs kinesis-local");
    let folder = PathBuf::from(folder).join("node_modules/kinesis-local");
    let (port, tls_port) = (free_port(), free_port());
    let mut command = Command::new("node");
    command.arg("-r").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/connectors/tests/kinesis/loopback.js"));
    command.arg(folder.join("main.js"));
    command.env("KINESIS_MOCK_CERT_PATH", folder.join("server.json"));
    command.env("KINESIS_MOCK_PLAIN_PORT", port.to_string()).env("KINESIS_MOCK_TLS_PORT", tls_port.to_string());
    command.env("INITIALIZE_STREAMS", "clicks:2").env("CREATE_STREAM_DURATION", "5ms").env("LOG_LEVEL", "ERROR");
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let emulator = Emulator { child, endpoint: format!("http://127.0.0.1:{port}") };
    let mut tries = (0..600).map(|_| std::thread::sleep(Duration::from_millis(50)));
    assert!(tries.any(|()| TcpStream::connect(("127.0.0.1", port)).is_ok()), "kinesis-local does not answer");
    // The stream is made after the port is open.
    std::thread::sleep(Duration::from_secs(1));
    emulator
}

const SECRET: &str = "c0ffee-the-secret-key";

fn featurectl(folder: &Path, emulator: &Emulator, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_featurectl"));
    command.current_dir(folder).args(args);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.env("AWS_ENDPOINT_URL_KINESIS", &emulator.endpoint).env("AWS_REGION", "us-east-1");
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
