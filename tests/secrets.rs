//! No secret in what is stored or printed: a job with S3, DynamoDB, Glue and Kinesis in it, its plans, its errors, and all
//! that is left of it.

use std::path::Path;
use std::process::Command;

use crate::cli::text;
use crate::cluster::Cluster;
use crate::glue::catalog;
use crate::glue::moto::{Moto, Proxy as JsonProxy};
use crate::kinesis;
use crate::s3::proxy::{Proxy, Refusal};
use crate::s3::{Aws, KEY, SECRET, TOKEN, project_on};

/// What a service says that does not accept a signature: it repeats the request that it should have been for.
const ECHO: &str = "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
                    Access Key and signing method.\n\nThe Canonical String for this request should have been\n'POST\n/\n\n\
                    x-amz-security-token:markedTokenMarkedTokenMarkedToken\n\nhost;x-amz-date;x-amz-security-token'";

/// What was printed or stored, by name.
#[derive(Default)]
struct Seen(Vec<(String, Vec<u8>)>);

impl Seen {
    /// Runs a command with all logs on; whether it succeeds.
    fn run(&mut self, mut command: Command) -> bool {
        let output = command.env("RUST_LOG", "trace").output().expect("featurectl runs");
        let args: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        self.0.push((args.join(" "), [output.stdout.as_slice(), &output.stderr].concat()));
        output.status.success()
    }

    fn last(&self) -> String {
        self.0.last().map_or(String::new(), |(_, bytes)| text(bytes))
    }

    /// All files below a folder.
    fn files(&mut self, folder: &Path) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => self.files(&path),
                false => self.0.push((path.display().to_string(), std::fs::read(&path).expect("a file"))),
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n.contains(name))
    }
}

#[test]
fn no_secret_is_in_logs_plans_errors_tables_or_the_registry() {
    let (aws, moto, streams) = (Aws::start("secrets"), Moto::start(), kinesis::start());
    let folder = project_on(&aws, "secrets");
    catalog(folder.path(), "secrets", "");
    let command = |args: &[&str]| {
        let mut command = aws.command(folder.path(), args);
        command.env("AWS_ENDPOINT_URL_GLUE", moto.endpoint()).env("AWS_ENDPOINT_URL_KINESIS", streams.endpoint());
        command
    };
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
    let profile = |args: &[&str]| command(&[&["--profile", "aws"], args].concat());
    let mut seen = Seen::default();

    write("clicks.jsonl", "{\"n\": 1}\n{\"n\": 2}\n{\"n\": \"three\"}\n");
    assert!(seen.run(profile(&["put", "clicks", "clicks.jsonl"])));
    let job = std::fs::read_to_string(folder.path().join("aws.sql")).expect("a job");
    let more = "CREATE EXTERNAL CATALOG other STORED AS GLUE OPTIONS (region 'us-east-1');
        CREATE EXTERNAL TABLE clicks (n BIGINT) STORED AS JSON LOCATION 'kinesis://clicks'
        OPTIONS ('dead_letter' 'clicks.bad.jsonl', 'max_bad_share' '0.5');
        COPY (SELECT * FROM clicks) TO '${out}/clicks' STORED AS PARQUET;";
    write("aws.sql", &format!("{};\n{more}", job.trim_end().trim_end_matches(';')));
    assert!(seen.run(profile(&["run", "aws.sql", "-o", "json"])), "{}", seen.last());
    assert!(seen.run(profile(&["plan", "aws.sql"])), "{}", seen.last());
    let get = ["get", "fraud_inputs", "customer=c07", "amount=10", "--at", "2024-03-10T00:00:00Z"];
    assert!(seen.run(profile(&get)), "{}", seen.last());
    for what in ["tables", "views", "services", "training-sets", "models", "runs"] {
        assert!(seen.run(profile(&["show", what, "-o", "json"])));
    }
    let tables = job.split("CREATE FEATURE VIEW").next().unwrap_or_default().to_string() + more;
    let tables = tables.split("COPY").next().unwrap_or_default().to_string();
    let explain = "EXPLAIN VERBOSE SELECT * FROM payments; EXPLAIN VERBOSE SELECT * FROM clicks;
        EXPLAIN VERBOSE SELECT * FROM other.features.fraud_set;";
    write("explain.sql", &(tables + explain));
    assert!(seen.run(profile(&["run", "explain.sql"])), "{}", seen.last());
    assert!(seen.last().contains("physical_plan"), "{}", seen.last());

    // Errors of each service, which repeat what they were sent.
    write("bad.sql", "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://secrets/none';");
    assert!(!seen.run(command(&["check", "bad.sql"])));
    let echo = Refusal {
        more: "<Token-0>markedTokenMarkedTokenMarkedToken</Token-0><AWSAccessKeyId>AKIDMARKEDMARKEDMARK</AWSAccessKeyId>",
        ..Refusal::new(400, "InvalidToken", "The provided token is malformed or otherwise invalid.")
    };
    let bucket = Proxy::start("", move |_| Some(echo.clone()));
    let service = JsonProxy::start(&moto, |_| {
        (400, serde_json::json!({ "__type": "InvalidSignatureException", "message": ECHO, "Message": ECHO }))
    });
    write("glue.sql", "SELECT * FROM glue.features.fraud_set;");
    write(
        "kinesis.sql",
        "CREATE EXTERNAL TABLE t (n BIGINT) STORED AS JSON LOCATION 'kinesis://clicks'; SELECT * FROM t;",
    );
    for (name, endpoint, args) in [
        ("S3", &bucket.endpoint, &["check", "bad.sql"][..]),
        ("GLUE", &service.endpoint, &["check", "glue.sql"][..]),
        ("KINESIS", &service.endpoint, &["run", "kinesis.sql"][..]),
        ("KINESIS", &service.endpoint, &["put", "clicks", "clicks.jsonl"][..]),
        ("DYNAMODB", &service.endpoint, &get[..]),
    ] {
        let mut refused = profile(args);
        refused.env(format!("AWS_ENDPOINT_URL_{name}"), endpoint);
        assert!(!seen.run(refused), "{name}");
        assert!(seen.last().contains("credentials are not accepted"), "{name}: {}", seen.last());
        assert!(!seen.last().contains(KEY), "{name}: {}", seen.last());
    }
    let sent: Vec<_> = bucket.seen();
    assert!(!sent.is_empty() && sent.iter().all(|r| r.head.contains(TOKEN)), "requests carry it");

    // What an executor says.
    let environment = aws.environment().into_iter().chain([("RUST_LOG", "trace".to_string())]).collect();
    let cluster = Cluster::with_environment(1, &environment);
    let copy = "COPY (SELECT count(*) AS n FROM glue.features.scores) TO 's3://secrets/out/n' STORED AS PARQUET;";
    write("copy.sql", copy);
    assert!(seen.run(profile(&["run", "copy.sql", "--cluster", &cluster.address()])), "{}", seen.last());
    let logs = cluster.logs();
    let said = String::from_utf8_lossy(&logs);
    assert!(said.contains("TRACE") && said.contains("DEBUG"), "it says much");
    seen.0.push(("an executor's log".into(), logs));

    // All that was stored: objects, entries of the catalog, files here.
    for key in aws.keys("secrets") {
        let object = aws.s3.request(&format!("GET /secrets/{key} HTTP/1.1\r\n"));
        seen.0.push((key, object.into_bytes()));
    }
    let entries = moto.call("GetTables", &serde_json::json!({ "DatabaseName": "features" })).to_string();
    assert!(entries.contains("fraud_set"), "{entries}");
    seen.0.push(("the catalog".into(), entries.into_bytes()));
    seen.files(folder.path());
    for name in ["_delta_log", "registry/run", "registry/table", "manifest", "signature", "clicks.bad.jsonl"] {
        assert!(seen.has(name), "{name}");
    }
    for (name, bytes) in &seen.0 {
        for secret in [SECRET, TOKEN] {
            let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!found, "{secret} is in {name}");
        }
    }
}
