//! The same jobs on S3 and DynamoDB as in folders of this machine: by ministack and dynalite, with the binary.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use dynalite::dynalite;
use ministack::Ministack;
use process::Process;
use proxy::{Fault, Proxy, Refusal};
use tempfile::TempDir;

use crate::cli::{featurectl, project, text};
use crate::cluster::Cluster;

#[path = "../feature-store/tests/dynamodb/server.rs"]
mod dynalite;
#[path = "../aws/tests/ministack.rs"]
mod ministack;
#[path = "../aws/tests/process.rs"]
pub(crate) mod process;
#[path = "../aws/tests/proxy.rs"]
pub(crate) mod proxy;

pub(crate) const KEY: &str = "AKIDMARKEDMARKEDMARK";
pub(crate) const SECRET: &str = "markedSecretMarkedSecretMarkedSecret";
pub(crate) const TOKEN: &str = "markedTokenMarkedTokenMarkedToken";

/// S3 with a bucket of each test, and DynamoDB.
pub(crate) struct Aws {
    pub(crate) s3: &'static Ministack,
    pub(crate) s3_endpoint: String,
    dynamodb: &'static Process,
}

impl Aws {
    pub(crate) fn start(bucket: &str) -> Self {
        static S3: OnceLock<Ministack> = OnceLock::new();
        static DYNAMODB: OnceLock<Process> = OnceLock::new();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/aws/tests/until_closed.py");
        let s3 = S3.get_or_init(|| Ministack::start(script));
        s3.make_bucket(bucket);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/feature-store/tests/dynamodb/until_closed.js");
        let dynamodb = DYNAMODB.get_or_init(|| dynalite(script));
        Self { s3, s3_endpoint: s3.endpoint(), dynamodb }
    }

    /// The environment that a process reaches them by.
    pub(crate) fn environment(&self) -> BTreeMap<&'static str, String> {
        let of = |(name, value): (&'static str, &str)| (name, value.to_string());
        let all = [
            ("AWS_ENDPOINT_URL_S3", self.s3_endpoint.as_str()),
            ("AWS_ENDPOINT_URL_DYNAMODB", &self.dynamodb.endpoint()),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_SESSION_TOKEN", TOKEN),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ];
        all.into_iter().map(of).collect()
    }

    pub(crate) fn command(&self, folder: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_featurectl"));
        command.current_dir(folder).args(args);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
            command.env_remove(name);
        }
        // No profile of this machine.
        command.env("HOME", folder).envs(self.environment());
        command
    }

    fn featurectl(&self, folder: &Path, args: &[&str]) -> Output {
        self.command(folder, args).output().expect("featurectl runs")
    }

    /// What it prints if it succeeds.
    fn ok(&self, folder: &Path, args: &[&str]) -> String {
        let output = self.featurectl(folder, args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// The rows of a query over tables in the bucket.
    fn rows(&self, folder: &Path, sql: &str) -> String {
        std::fs::write(folder.join("look.sql"), sql).expect("a job");
        self.ok(folder, &["--profile", "aws", "run", "look.sql", "-o", "csv"])
    }

    /// The keys of a bucket.
    pub(crate) fn keys(&self, bucket: &str) -> Vec<String> {
        let answer = self.s3.request(&format!("GET /{bucket}?list-type=2&max-keys=1000 HTTP/1.1\r\n"));
        answer.split("<Key>").skip(1).filter_map(|rest| Some(rest.split_once("</Key>")?.0.to_string())).collect()
    }
}

fn profile(folder: &Path, bucket: &str) {
    let text = format!(
        "[profile.aws]\nstore = \"s3://{bucket}/team/features\"\nonline = \"dynamodb://{bucket}\"\nregion = \"us-east-1\"\n\
         [profile.aws.variables]\nout = \"s3://{bucket}/out\"\n[profile.default.variables]\nout = \"out\"\n\
         [profile.aws.table]\ntags = {{ team = \"risk\" }}\n"
    );
    std::fs::write(folder.join("featurectl.toml"), text).expect("a profile");
}

/// A project as `init` writes it, with its data in the bucket, too, where the job of `aws.sql` reads them.
pub(crate) fn project_on(aws: &Aws, bucket: &str) -> TempDir {
    let folder = project();
    profile(folder.path(), bucket);
    let job = std::fs::read_to_string(folder.path().join("job.sql")).expect("the job");
    let upload = format!(
        "CREATE EXTERNAL TABLE payments STORED AS CSV LOCATION 'data/payments.csv' OPTIONS ('format.has_header' 'true');
         COPY (SELECT * FROM payments ORDER BY payment_id) TO 's3://{bucket}/data/payments.csv' STORED AS CSV;"
    );
    std::fs::write(folder.path().join("upload.sql"), upload).expect("a job");
    aws.ok(folder.path(), &["run", "upload.sql"]);
    std::fs::remove_dir_all(folder.path().join(".featurectl")).expect("a fresh start");
    let there = job.replace("'data/payments.csv'", &format!("'s3://{bucket}/data/payments.csv'"));
    assert_ne!(job, there, "{job}");
    std::fs::write(folder.path().join("aws.sql"), there).expect("a job");
    folder
}

const LOOK: &str = "CREATE EXTERNAL TABLE scores STORED AS PARQUET LOCATION '<out>/scores';
    CREATE EXTERNAL TABLE tiles STORED AS DELTA LOCATION '<store>/offline/customer_spending';
    CREATE EXTERNAL TABLE labels STORED AS DELTA LOCATION '<store>/offline/fraud_set';
    SELECT * FROM scores ORDER BY 1;
    SELECT customer, tile_us, tile_start, last_event, events, encode(partial, 'hex') AS p FROM tiles ORDER BY 1, 2, 3;
    SELECT * FROM labels ORDER BY payment_id;";

fn look(out: &str, store: &str) -> String {
    LOOK.replace("<out>", out).replace("<store>", store)
}

/// The rows of all results of a run in folders.
fn rows_here(folder: &Path) -> String {
    std::fs::write(folder.join("here.sql"), look("out", ".featurectl")).expect("a job");
    let rows = featurectl(folder, &["run", "here.sql", "-o", "csv"]);
    assert!(rows.status.success(), "{}", text(&rows.stderr));
    text(&rows.stdout)
}

const GET: [&str; 7] = ["get", "fraud_inputs", "customer=c07", "amount=10", "--at", "2024-03-10T00:00:00Z", "-o"];

/// What `plan` says that the tiles cost, and that a file of prices can be given.
fn costs(aws: &Aws, folder: &Path) {
    let cost = || {
        let plan = aws.ok(folder, &["--profile", "aws", "plan", "aws.sql", "-o", "json"]);
        let plan: serde_json::Value = serde_json::from_str(&plan).expect("JSON");
        let all: Vec<_> = plan.as_array().expect("lines").iter().filter_map(|line| line.get("cost").cloned()).collect();
        assert_eq!(all.len(), 1, "of the one view alone: {plan}");
        all[0].clone()
    };
    let is = |cost: &serde_json::Value, name: &str| cost[name].as_f64().unwrap_or_else(|| panic!("`{name}` in {cost}"));
    let built_in = cost();
    let tiles = is(&built_in, "tiles");
    assert!(tiles > 1000.0 && is(&built_in, "measured_tiles") <= tiles, "{built_in}");
    assert_eq!(is(&built_in, "write_units"), tiles, "a tile of this view is below one KB");
    assert!((is(&built_in, "write_dollars") - tiles * 0.625e-6).abs() < 1e-12, "{built_in}");
    assert!((100.0..1124.0).contains(&(is(&built_in, "stored_bytes") / tiles)), "{built_in}");
    assert_eq!(built_in["prices_region"], "us-east-1");
    let plan = aws.ok(folder, &["--profile", "aws", "plan", "aws.sql"]);
    assert!(plan.contains(" write units $0.00") && plan.contains("prices of us-east-1, 20"), "{plan}");

    let toml = std::fs::read_to_string(folder.join("featurectl.toml")).expect("the profile");
    let prices = "date = \"2030-01-01\"\nsource = \"a contract\"\n[region.us-east-1]\nmillion_write_units = 1\n\
                  million_read_units = 1\nstorage_gb_month = 1\nrecovery_gb_month = 1\nimport_gb = 1\n";
    std::fs::write(folder.join("prices.toml"), prices).expect("prices");
    let changed = toml.replacen("[profile.aws]\n", "[profile.aws]\nprices = \"prices.toml\"\n", 1);
    std::fs::write(folder.join("featurectl.toml"), changed).expect("the profile");
    let own = cost();
    assert_eq!((own["prices_date"].as_str(), own["prices_source"].as_str()), (Some("2030-01-01"), Some("a contract")));
    assert!((is(&own, "write_dollars") - tiles * 1e-6).abs() < 1e-12, "{own}");
    std::fs::write(folder.join("prices.toml"), "date = 7").expect("no prices");
    let refused = aws.featurectl(folder, &["--profile", "aws", "plan", "aws.sql"]);
    assert!(text(&refused.stderr).contains("prices.toml"), "{}", text(&refused.stderr));
    assert_eq!(refused.status.code(), Some(1));
    std::fs::write(folder.join("featurectl.toml"), toml).expect("the profile");
}

#[test]
fn a_job_with_the_aws_profile_gives_what_it_gives_here() {
    let aws = Aws::start("equal");
    let folder = project_on(&aws, "equal");
    let here = featurectl(folder.path(), &["run", "job.sql"]);
    assert!(here.status.success(), "{}", text(&here.stderr));
    let plan = aws.ok(folder.path(), &["--profile", "aws", "plan", "aws.sql"]);
    assert!(plan.contains("costs   not known before the first run"), "{plan}");
    let there = aws.featurectl(folder.path(), &["--profile", "aws", "run", "aws.sql"]);
    assert!(there.status.success(), "{}", text(&there.stderr));
    costs(&aws, folder.path());
    let wanted = rows_here(folder.path());
    assert!(wanted.lines().count() > 8000, "{}", wanted.lines().count());
    let found = aws.rows(folder.path(), &look("s3://equal/out", "s3://equal/team/features"));
    crate::cluster::same(&found, &wanted, 0);

    let online = |args: &[&str]| {
        let output = aws.featurectl(folder.path(), &[args, &GET[..], &["csv"]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(online(&["--profile", "aws"]), online(&[]));

    let again = aws.ok(folder.path(), &["--profile", "aws", "run", "aws.sql", "-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&again).expect("JSON");
    assert!(report["steps"].as_array().expect("steps").iter().all(|s| s["unchanged"] == true), "{report}");
    let plan = aws.ok(folder.path(), &["--profile", "aws", "plan", "aws.sql"]);
    for part in [
        "unchanged  materialize customer_spending",
        "offline s3://equal/team/features/offline/customer_spending, online dynamodb://equal",
        "model s3://equal/team/features/models/fraud",
        "unchanged  copy to s3://equal/out/scores",
    ] {
        assert!(plan.contains(part), "`{part}` is not in {plan}");
    }
    let shown = aws.ok(folder.path(), &["--profile", "aws", "show", "models"]);
    assert!(shown.contains("fraud") && shown.contains("AUC"), "{shown}");
    let model = aws.ok(folder.path(), &["--profile", "aws", "show", "model", "fraud"]);
    assert!(model.contains("LightGBM"), "{model}");

    assert_eq!(aws.ok(folder.path(), &["--profile", "aws", "vacuum", "-o", "json"]).matches(".parquet").count(), 0);
    let left =
        ["equal/team/features/offline/fraud_set/_date=2024-01-02/part-x.parquet", "equal/out/.scores.part/p.parquet"];
    for file in left {
        aws.s3.request(&format!("PUT /{file} HTTP/1.1\r\nContent-Length: 0\r\n"));
    }
    let vacuum = |args: &[&str]| aws.ok(folder.path(), &[&["--profile", "aws", "vacuum"], args].concat());
    let said = vacuum(&["--dry-run"]);
    assert!(left.iter().all(|f| said.contains(&format!("s3://{f}"))), "{said}");
    assert_eq!(vacuum(&[]), said);
    assert_eq!(vacuum(&["--dry-run"]), "");

    std::fs::write(
        folder.path().join("drop.sql"),
        "DROP MODEL fraud; DROP TRAINING SET fraud_set; DROP FEATURE SERVICE fraud_inputs; DROP FEATURE VIEW customer_spending",
    )
    .expect("a job");
    aws.ok(folder.path(), &["--profile", "aws", "run", "drop.sql"]);
    let keys = aws.keys("equal");
    assert!(!keys.iter().any(|k| k.contains("/models/") || k.contains("/offline/")), "{keys:?}");
    let gone = aws.featurectl(folder.path(), &[&["--profile", "aws"], &GET[..], &["csv"]].concat());
    assert!(text(&gone.stderr).contains("no feature service"), "{}", text(&gone.stderr));
}

#[test]
fn every_format_is_written_to_and_read_from_a_bucket() {
    let aws = Aws::start("formats");
    let folder = tempfile::tempdir().expect("a folder");
    profile(folder.path(), "formats");
    let base = "COPY (SELECT value AS id, value % 3 AS part, value / 2.0 AS x,
                CASE WHEN value % 5 = 0 THEN NULL ELSE 'é ' || value END AS t FROM range(1000)) TO 'base.parquet';";
    std::fs::write(folder.path().join("base.sql"), base).expect("a job");
    aws.ok(folder.path(), &["run", "base.sql"]);
    let table = "CREATE EXTERNAL TABLE base STORED AS PARQUET LOCATION 'base.parquet';\n";
    let rows = "SELECT * FROM base WHERE id < 1000";
    let copies: String = ["parquet", "csv", "json"]
        .iter()
        .map(|f| {
            format!(
                "COPY ({rows}) TO 's3://formats/one.{f}' STORED AS {f};
                 COPY ({rows}) TO 's3://formats/many {f}' STORED AS {f};
                 COPY ({rows}) TO 's3://formats/parts/{f}' STORED AS {f} PARTITIONED BY (part);\n"
            )
        })
        .collect();
    let copies = table.to_string() + &copies;
    std::fs::write(folder.path().join("write.sql"), &copies).expect("a job");
    aws.ok(folder.path(), &["run", "write.sql"]);
    let all = "499500,999,200,249750.0";
    for format in ["parquet", "csv", "json"] {
        for place in [format!("one.{format}"), format!("many {format}"), format!("parts/{format}")] {
            let by = if place.starts_with("parts") { "PARTITIONED BY (part)" } else { "" };
            let options = if format == "csv" { "OPTIONS ('format.has_header' 'true')" } else { "" };
            let found = aws.rows(
                folder.path(),
                &format!(
                    "CREATE EXTERNAL TABLE t STORED AS {format} {by} LOCATION 's3://formats/{place}' {options};
                     SELECT sum(id) AS a, sum(CAST(part AS BIGINT)) AS b, count(*) FILTER (WHERE t IS NULL OR t = '') AS c, sum(x) AS d FROM t;"
                ),
            );
            assert_eq!(found, format!("a,b,c,d\n{all}\n"), "{place}");
        }
    }
    let again = aws.ok(folder.path(), &["run", "write.sql", "-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&again).expect("JSON");
    assert!(report["steps"].as_array().expect("steps").iter().all(|s| s["unchanged"] == true), "{report}");

    // Other rows take the place of those that were there, whole.
    std::fs::write(folder.path().join("write.sql"), copies.replace("id < 1000", "id < 10")).expect("a job");
    aws.ok(folder.path(), &["run", "write.sql"]);
    let found = aws.rows(
        folder.path(),
        "CREATE EXTERNAL TABLE a STORED AS PARQUET LOCATION 's3://formats/many parquet/';
         CREATE EXTERNAL TABLE b STORED AS PARQUET PARTITIONED BY (part) LOCATION 's3://formats/parts/parquet';
         SELECT (SELECT count(*) FROM a) AS a, (SELECT count(*) FROM b WHERE part = '1') AS b;",
    );
    assert_eq!(found, "a,b\n10,3\n");
    assert!(!aws.keys("formats").iter().any(|k| k.contains(".part/")), "{:?}", aws.keys("formats"));
}

#[test]
fn tables_of_a_bucket_are_read_by_the_executors_of_a_cluster_and_written() {
    let aws = Aws::start("cluster");
    let folder = project_on(&aws, "cluster");
    let here = featurectl(folder.path(), &["run", "job.sql"]);
    assert!(here.status.success(), "{}", text(&here.stderr));
    let cluster = Cluster::with_environment(2, &aws.environment());
    aws.ok(folder.path(), &["--profile", "aws", "run", "aws.sql", "--cluster", &cluster.address()]);
    let wanted = rows_here(folder.path());
    let found = aws.rows(folder.path(), &look("s3://cluster/out", "s3://cluster/team/features"));
    crate::cluster::same(&found, &wanted, 0);
    assert!(cluster.jobs() >= 3, "tiles, training set and scores ran on the cluster");
}

#[test]
fn two_runs_do_not_write_to_one_store_at_once_and_a_killed_one_is_followed() {
    let aws = Aws::start("twice");
    let folder = project_on(&aws, "twice");
    let lock = "PUT /twice/team/features/registry/lock HTTP/1.1\r\nContent-Length: ";
    // A holder that is alive: its object changes.
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 10.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                use std::io::{Read, Write};
                let mut stream =
                    std::net::TcpStream::connect(aws.s3.endpoint().trim_start_matches("http://")).expect("S3");
                let body = format!("process 1 on other #0 {n}");
                let head = format!("{lock}{}\r\nHost: x\r\nConnection: close\r\n\r\n{body}", body.len());
                stream.write_all(head.as_bytes()).expect("a request");
                stream.read_to_end(&mut vec![]).expect("an answer");
                std::thread::sleep(std::time::Duration::from_millis(300));
            }
        });
        std::thread::sleep(std::time::Duration::from_millis(500));
        let refused = aws.featurectl(folder.path(), &["--profile", "aws", "run", "aws.sql"]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(
            said.contains("another featurectl (process 1 on other) is writing to s3://twice/team/features"),
            "{said}"
        );
    });
    aws.s3.request("DELETE /twice/team/features/registry/lock HTTP/1.1\r\n");
    // One that is killed leaves its object, which does not change any more.
    let has_lock = || aws.keys("twice").iter().any(|k| k.ends_with("registry/lock"));
    let mut killed =
        aws.command(folder.path(), &["--profile", "aws", "run", "aws.sql"]).spawn().expect("featurectl runs");
    while !has_lock() {
        assert!(killed.try_wait().expect("its state").is_none(), "it ended without a lock");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    std::thread::sleep(std::time::Duration::from_millis(700));
    killed.kill().expect("it can be killed");
    killed.wait().expect("it ends");
    assert!(has_lock(), "it was killed while it ran");
    aws.ok(folder.path(), &["--profile", "aws", "run", "aws.sql"]);
    assert!(featurectl(folder.path(), &["run", "job.sql"]).status.success());
    let found = aws.rows(folder.path(), &look("s3://twice/out", "s3://twice/team/features"));
    crate::cluster::same(&found, &rows_here(folder.path()), 1);
    assert!(!aws.keys("twice").iter().any(|k| k.ends_with("registry/lock")), "it was given back");
}

/// A number for a request that is the same in every run of the test.
fn random(nth: u64) -> u64 {
    let mut n = nth.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    n ^= n >> 29;
    n = n.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    n ^ n >> 32
}

#[test]
fn a_disturbed_s3_changes_no_row() {
    let mut aws = Aws::start("disturbed");
    let folder = project_on(&aws, "disturbed");
    let here = featurectl(folder.path(), &["run", "job.sql"]);
    assert!(here.status.success(), "{}", text(&here.stderr));
    let proxy = Proxy::start(&aws.s3.endpoint(), |r| match random(r.nth) % 100 {
        0..3 => Some(Refusal::new(503, "SlowDown", "Please reduce your request rate.").into()),
        3..5 => Some(Refusal::new(500, "InternalError", "We encountered an internal error. Please try again.").into()),
        5..7 => Some(Fault::DropBefore),
        7..9 => Some(Fault::DropAfter),
        _ => None,
    });
    let straight = std::mem::replace(&mut aws.s3_endpoint, proxy.endpoint.clone());
    let mut runs = 0;
    // An answer that was lost can end a run, whose work the next one finds done.
    loop {
        let done = aws.featurectl(folder.path(), &["--profile", "aws", "run", "aws.sql"]);
        runs += 1;
        if done.status.success() {
            break;
        }
        assert!(done.status.code() == Some(2) && runs < 12, "run {runs}: {}", text(&done.stderr));
    }
    let seen = proxy.seen().len();
    assert!(seen > 300, "{seen} requests in {runs} runs");
    aws.s3_endpoint = straight;
    let wanted = rows_here(folder.path());
    let found = aws.rows(folder.path(), &look("s3://disturbed/out", "s3://disturbed/team/features"));
    crate::cluster::same(&found, &wanted, 0);
    let again = aws.ok(folder.path(), &["--profile", "aws", "run", "aws.sql", "-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&again).expect("JSON");
    assert!(report["steps"].as_array().expect("steps").iter().all(|s| s["unchanged"] == true), "{report}");
}

#[test]
fn what_is_wrong_on_aws_is_said_with_place_and_fix() {
    let mut aws = Aws::start("wrong");
    let folder = tempfile::tempdir().expect("a folder");
    let fails = |aws: &Aws, args: &[&str], code: i32, parts: &[&str]| {
        let output = aws.featurectl(folder.path(), args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "`{part}` is not in: {said}");
        }
        assert!(![SECRET, TOKEN, KEY, "panicked"].iter().any(|s| said.contains(s)), "{said}");
    };
    let check = |aws: &Aws, sql: &str, parts: &[&str]| {
        std::fs::write(folder.path().join("job.sql"), sql).expect("a job");
        fails(aws, &["check", "job.sql"], 1, parts);
    };
    let table = |location: &str| format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{location}';");
    check(
        &aws,
        &table("s3://wrong/none.parquet"),
        &["table `t` can't be read", "nothing is at s3://wrong/none.parquet"],
    );
    check(&aws, &table("s3://nobody/none.parquet"), &["no bucket `nobody`", "correct its name"]);
    check(&aws, &table("gs://wrong/none.parquet"), &["`gs://` can't be read", "s3://"]);
    check(&aws, &table("s3://AKIA:xyz@wrong/x"), &["without anything else"]);
    check(
        &aws,
        "CREATE EXTERNAL TABLE t STORED AS DELTA LOCATION 's3://wrong/none';",
        &["nothing is at s3://wrong/none"],
    );
    let toml = |text: &str| std::fs::write(folder.path().join("featurectl.toml"), text).expect("a file");
    toml("[profile.aws]\nstore = \"s3://wrong/store\"\n");
    let view = "CREATE EXTERNAL TABLE e (k BIGINT, t TIMESTAMP, v BIGINT) STORED AS CSV LOCATION 'e.csv';
        CREATE FEATURE VIEW f ENTITY (k) EVENT TIME t WITH (online = true) AS SELECT sum(v) OVER d AS s FROM e
        WINDOW d AS (RANGE INTERVAL '1 day' PRECEDING); MATERIALIZE FEATURE VIEW f;";
    std::fs::write(folder.path().join("e.csv"), "k,t,v\n1,2024-01-01T00:00:00,1\n").expect("a file");
    std::fs::write(folder.path().join("view.sql"), view).expect("a job");
    fails(
        &aws,
        &["--profile", "aws", "run", "view.sql"],
        1,
        &["no place for online features", "online = \"dynamodb://TABLE\""],
    );
    toml("[profile.aws]\nstore = \"s3://wrong/store\"\nonline = \"dynamo:x\"\n[profile.aws.table]\nttl = true\n");
    fails(&aws, &["--profile", "aws", "run", "view.sql"], 1, &["profile `aws`: table", "dynamodb://TABLE"]);
    toml("[profile.aws]\nstore = \"https://wrong/store\"\n");
    fails(&aws, &["--profile", "aws", "run", "view.sql"], 1, &["profile `aws`: store", "s3://bucket/prefix"]);

    let refusal = Refusal::new(403, "AccessDenied", "Access Denied");
    let proxy = Proxy::start(&aws.s3.endpoint(), move |r| (r.method == "PUT").then(|| refusal.clone()));
    aws.s3_endpoint = proxy.endpoint.clone();
    toml("[profile.aws]\nstore = \"s3://wrong/store\"\nonline = \"dynamodb://wrong\"\n");
    fails(
        &aws,
        &["--profile", "aws", "run", "view.sql"],
        1,
        &["not allowed to write s3://wrong/store/registry/lock", "s3:PutObject"],
    );
    std::fs::write(folder.path().join("copy.sql"), "COPY (SELECT 1 AS a) TO 's3://wrong/x.parquet';").expect("a job");
    fails(&aws, &["run", "copy.sql"], 1, &["not allowed to write s3://wrong/x.parquet", "s3:PutObject"]);

    std::fs::write(folder.path().join("job.sql"), table("s3://wrong/none.parquet")).expect("a job");
    let mut alone = aws.command(folder.path(), &["check", "job.sql"]);
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        alone.env_remove(name);
    }
    let said = text(&alone.output().expect("featurectl runs").stderr);
    assert!(said.contains("no AWS credentials were found") && said.contains("aws sso login"), "{said}");
    let mut nowhere = aws.command(folder.path(), &["check", "job.sql"]);
    let nowhere = nowhere.env_remove("AWS_REGION").env_remove("AWS_ENDPOINT_URL_S3");
    let said = text(&nowhere.output().expect("featurectl runs").stderr);
    assert!(said.contains("no AWS region is set for s3://wrong: set AWS_REGION"), "{said}");
    let mut elsewhere = aws.command(folder.path(), &["check", "job.sql"]);
    let said = text(&elsewhere.env("AWS_REGION", "eu-west-1").output().expect("featurectl runs").stderr);
    assert!(said.contains("bucket `wrong` is not in region eu-west-1") && said.contains("set AWS_REGION"), "{said}");
}
