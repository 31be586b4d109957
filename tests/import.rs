//! Backfills by import, with moto for S3 and DynamoDB, and a proxy before it that keeps the requests.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::{featurectl, text};
use crate::glue::moto::{Call, Moto, Proxy, call_service};
use crate::shapes;

const JOB: &str = "\
CREATE EXTERNAL TABLE events (customer VARCHAR, shop BIGINT, t TIMESTAMP, amount DOUBLE) STORED AS CSV LOCATION 'events' OPTIONS ('format.has_header' 'true');
CREATE FEATURE VIEW spend ENTITY (customer, shop) EVENT TIME t WITH (online = true) AS
SELECT count(*) OVER d AS n, sum(amount) OVER w AS total, last_value(amount) OVER ever AS latest FROM events
WINDOW d AS (RANGE INTERVAL '7 days' PRECEDING), w AS (RANGE INTERVAL '20 days' PRECEDING), ever AS (RANGE UNBOUNDED PRECEDING);
CREATE FEATURE VIEW newest ENTITY (customer) EVENT TIME t WITH (online = true, ttl = '900 days') AS SELECT amount FROM events;
CREATE FEATURE SERVICE inputs (customer VARCHAR, shop BIGINT, at TIMESTAMP) AS
SELECT s.*, n.amount FROM request r ASOF JOIN spend s MATCH_CONDITION (r.at > s.t) ON r.customer = s.customer AND r.shop = s.shop
ASOF JOIN newest n MATCH_CONDITION (r.at > n.t) ON r.customer = n.customer;
MATERIALIZE FEATURE VIEW spend;
MATERIALIZE FEATURE VIEW newest;
";

/// Names whose order as bytes of a key is not that of their text.
const CUSTOMERS: [&str; 6] = ["b", "aaa", "Ω", "ab", "c-very-long-name", "z"];

/// One moto for all, since each takes seconds to start.
fn moto() -> &'static Moto {
    static MOTO: OnceLock<Moto> = OnceLock::new();
    MOTO.get_or_init(|| {
        let moto = Moto::start();
        http(moto.port(), "PUT /imports HTTP/1.1\r\nContent-Length: 0\r\n");
        moto
    })
}

/// The answer of S3 to a request without a body.
fn http(port: u16, head: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("moto answers");
    let signed = "Authorization: AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
    write!(stream, "{head}Host: 127.0.0.1:{port}\r\nConnection: close\r\n{signed}\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    answer
}

/// A project whose online table is `table`, reached by `proxy`.
struct Project<'a> {
    folder: TempDir,
    proxy: &'a str,
    table: &'static str,
}

impl Project<'_> {
    fn new<'a>(table: &'static str, options: &str, proxy: &'a str) -> Project<'a> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("events")).expect("a folder");
        std::fs::write(folder.path().join("job.sql"), JOB).expect("a job");
        let profile = format!(
            "[profile.aws]\nstore = \"there\"\nonline = \"dynamodb://{table}\"\nregion = \"us-east-1\"\n\
             [profile.aws.table]\nimport = \"s3://imports/a team\"\n{options}"
        );
        std::fs::write(folder.path().join("featurectl.toml"), profile).expect("a profile");
        let project = Project { folder, proxy, table };
        (1..4).for_each(|day| project.day(day, 1));
        project
    }

    /// The events of a day; another `edition` has other amounts.
    fn day(&self, day: u32, edition: u32) {
        let mut text = String::from("customer,shop,t,amount\n");
        for i in 0..300u32 {
            let mixed = (i + 1).wrapping_mul(2_654_435_761).wrapping_add(day * 40_503 * edition) >> 7;
            let (customer, shop) = (CUSTOMERS[mixed as usize % 6], i64::from(mixed / 6 % 3) * 300 - 300);
            let (hour, minute, amount) = (mixed % 24, mixed / 24 % 60, f64::from(mixed % 977) / 8.0);
            writeln!(text, "\"{customer}\",{shop},2024-01-{day:02}T{hour:02}:{minute:02}:00,{amount}").expect("text");
        }
        let path = self.folder.path().join(format!("events/{day:02}.csv"));
        std::fs::write(&path, text).expect("a file");
        // An edition that comes back is the same version of the file.
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + u64::from(edition));
        let file = std::fs::File::options().write(true).open(&path).expect("the file");
        file.set_modified(time).expect("its time");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_featurectl"));
        command.current_dir(self.folder.path()).args(["--profile", "aws"]).args(args);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
            command.env_remove(name);
        }
        command.env("HOME", self.folder.path()).env("AWS_ENDPOINT_URL_DYNAMODB", self.proxy);
        command.env("AWS_ENDPOINT_URL_S3", moto().endpoint()).env("AWS_EC2_METADATA_DISABLED", "true");
        command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret");
        command
    }

    fn run(&self) -> Output {
        self.command(&["run", "job.sql", "-o", "json"]).output().expect("featurectl runs")
    }

    /// Runs the job, and says what each step says, and whether it did anything.
    fn runs(&self) -> Vec<(String, bool)> {
        let output = self.run();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let step = |s: &Value| (s["detail"].as_str().expect("text").to_string(), s["unchanged"] == false);
        report["steps"].as_array().expect("steps").iter().map(step).collect()
    }

    /// All features of all entities are those of the embedded store.
    fn is_equal(&self) {
        self.is_equal_for(CUSTOMERS.len());
    }

    fn is_equal_for(&self, customers: usize) {
        let here = featurectl(self.folder.path(), &["run", "job.sql"]);
        assert!(here.status.success(), "{}", text(&here.stderr));
        for (i, customer) in CUSTOMERS.into_iter().enumerate().take(customers) {
            let keys = [format!("customer={customer}"), format!("shop={}", i as i64 % 3 * 300 - 300)];
            let get = ["get", "inputs", &keys[0], &keys[1], "--at", "2024-01-09T00:00:00Z", "-o", "csv"];
            let there = self.command(&get).output().expect("featurectl runs");
            assert!(there.status.success(), "{}", text(&there.stderr));
            let wanted = text(&featurectl(self.folder.path(), &get).stdout);
            assert_eq!(text(&there.stdout), wanted, "{customer}");
            assert!(!wanted.contains(",,"), "it has features: {wanted}");
        }
    }

    /// The tables that imports of this project made.
    fn imported(&self) -> Vec<String> {
        let prefix = format!("{}.", self.table);
        let all = asked("ListTables", &json!({}))["TableNames"].clone();
        let all = all.as_array().expect("names").iter().map(|n| n.as_str().expect("a name").to_string());
        all.filter(|name| name.starts_with(&prefix)).collect()
    }

    /// Leaves its files in the bucket as one does that is killed while it writes them.
    fn has_half_of_its_files(&self) {
        let listed = http(moto().port(), "GET /imports?list-type=2 HTTP/1.1\r\n");
        let keys =
            listed.split("<Key>").skip(1).filter_map(|rest| Some(rest.split_once("</Key>")?.0.replace(' ', "%20")));
        let state = keys.filter(|key| key.contains(self.table)).find(|key| key.ends_with("/import.json"));
        let state = state.expect("the files are whole");
        http(moto().port(), &format!("DELETE /imports/{state} HTTP/1.1\r\n"));
        let other = state.replace("import.json", "data/99999.json.gz");
        http(moto().port(), &format!("PUT /imports/{other} HTTP/1.1\r\nContent-Length: 0\r\n"));
    }

    /// Nothing of its imports is left in the bucket.
    fn has_no_files(&self) {
        let listed = http(moto().port(), "GET /imports?list-type=2 HTTP/1.1\r\n");
        assert!(!listed.contains(&format!("a team/{}.", self.table)), "{listed}");
    }
}

/// What DynamoDB answers.
fn asked(operation: &str, body: &Value) -> Value {
    let target = format!("DynamoDB_20120810.{operation}");
    let (status, answer) = call_service(moto().port(), "dynamodb", &target, body).expect("moto answers");
    assert_eq!(status, 200, "{operation} {body}: {answer}");
    answer
}

/// The requests that the tables named so got.
fn of_table(proxy: &Proxy, operation: &str, table: &str) -> usize {
    let named = format!("\"{table}\"");
    proxy.calls(operation).iter().filter(|body| body.to_string().contains(&named)).count()
}

#[test]
fn a_backfill_is_imported_and_all_that_comes_later_is_written() {
    let proxy = Proxy::start(moto(), |call| call.forward(&call.body));
    let options = "ttl = true\npoint_in_time_recovery = true\ntags = { team = \"risk\" }\n";
    let project = Project::new("bulk", options, &proxy.endpoint);
    assert!(project.runs().iter().filter(|(_, changed)| *changed).count() == 2);
    project.is_equal();
    project.has_no_files();
    let tables = project.imported();
    assert_eq!((tables.len(), proxy.calls("ImportTable").len()), (2, 2), "{tables:?}");
    assert_eq!(proxy.calls("BatchWriteItem").len(), 0, "no tile was written");
    assert_eq!(of_table(&proxy, "PutItem", "bulk"), proxy.calls("PutItem").len(), "pointers only");
    for table in &tables {
        let described = &asked("DescribeTable", &json!({ "TableName": table }))["Table"];
        assert_eq!(described["BillingModeSummary"]["BillingMode"], "PAY_PER_REQUEST");
        let ttl = asked("DescribeTimeToLive", &json!({ "TableName": table }));
        assert_eq!(ttl["TimeToLiveDescription"]["AttributeName"], "ttl", "{ttl}");
        let backups = asked("DescribeContinuousBackups", &json!({ "TableName": table })).to_string();
        assert!(backups.contains("\"PointInTimeRecoveryStatus\":\"ENABLED\""), "{backups}");
        let tags = asked("ListTagsOfResource", &json!({ "ResourceArn": described["TableArn"] }));
        assert_eq!(tags["Tags"], json!([{ "Key": "team", "Value": "risk" }]));
    }
    assert!(project.runs().iter().all(|(_, changed)| !changed), "a second run does nothing");

    // A new file is a new unit of work, which goes to where the others are.
    project.day(5, 1);
    project.runs();
    project.is_equal();
    assert_eq!((project.imported(), proxy.calls("ImportTable").len()), (tables.clone(), 2));
    assert!(tables.iter().all(|table| of_table(&proxy, "BatchWriteItem", table) > 0));
    assert_eq!(of_table(&proxy, "BatchWriteItem", "bulk"), 0);

    // A changed file makes another generation, whose table takes the place of the one before.
    project.day(2, 2);
    project.runs();
    project.is_equal();
    project.has_no_files();
    let next = project.imported();
    assert!(next.len() == 2 && next.iter().all(|table| !tables.contains(table)), "{tables:?} {next:?}");

    std::fs::write(project.folder.path().join("job.sql"), "DROP FEATURE VIEW spend; DROP FEATURE VIEW newest;")
        .expect("a job");
    project.runs();
    assert_eq!(project.imported(), Vec::<String>::new());
    let requests = proxy.seen.lock().expect("no panic").clone();
    let operations = shapes::check("dynamodb", &requests);
    for operation in [
        "CreateTable",
        "ImportTable",
        "DescribeImport",
        "DescribeTable",
        "UpdateTimeToLive",
        "UpdateContinuousBackups",
        "TagResource",
        "DeleteTable",
        "BatchWriteItem",
        "BatchGetItem",
        "Query",
        "PutItem",
    ] {
        assert!(operations.contains(operation), "{operation} was not called: {operations:?}");
    }
}

#[test]
fn protected_tables_are_left_and_named() {
    let proxy = Proxy::start(moto(), |call| call.forward(&call.body));
    let project = Project::new("kept", "deletion_protection = true\n", &proxy.endpoint);
    project.runs();
    let tables = project.imported();
    assert_eq!(tables.len(), 2);
    for table in &tables {
        assert_eq!(asked("DescribeTable", &json!({ "TableName": table }))["Table"]["DeletionProtectionEnabled"], true);
    }
    project.day(1, 2);
    for _ in 0..2 {
        let said: String = project.runs().into_iter().map(|(detail, _)| detail).collect();
        assert!(tables.iter().all(|table| said.contains(table)), "{said}");
        assert!(said.contains(", no longer read and protected from deletion: kept."), "{said}");
    }
    project.is_equal();
    assert_eq!(project.imported().len(), 4);
    // What the files said before they say again, and the table of then is not taken for new.
    project.day(1, 1);
    project.runs();
    project.day(1, 2);
    let refused = project.run();
    let said = text(&refused.stderr);
    assert!(!refused.status.success() && said.contains("turn off its deletion protection"), "{said}");
    for table in &project.imported() {
        asked("UpdateTable", &json!({ "TableName": table, "DeletionProtectionEnabled": false }));
    }
    project.runs();
    project.is_equal();
    let requests = proxy.seen.lock().expect("no panic").clone();
    assert!(shapes::check("dynamodb", &requests).contains("UpdateTable"));
}

/// What the service would say of an import that it could not carry out.
fn failed(call: &Call<'_>) -> (u16, Value) {
    let (status, mut answer) = call.forward(&call.body);
    let import = &mut answer["ImportTableDescription"];
    match call.nth {
        0 => {
            import["ImportStatus"] = json!("FAILED");
            import["FailureCode"] = json!("S3AccessDenied");
            import["FailureMessage"] = json!("made up by the test");
            import["ImportedItemCount"] = json!(7);
        }
        _ => {
            import["ImportStatus"] = json!("COMPLETED");
            import["ErrorCount"] = json!(2);
        }
    }
    (status, answer)
}

#[test]
fn an_import_that_fails_is_told_with_its_reason_and_made_anew() {
    let proxy = Proxy::start(moto(), |call| match (call.operation, call.nth) {
        ("DescribeImport", 0 | 1) => failed(call),
        _ => call.forward(&call.body),
    });
    let project = Project::new("failing", "", &proxy.endpoint);
    let wanted = [
        [
            "ended as FAILED: 7 of ",
            "(S3AccessDenied: made up by the test)",
            "importing into the online table `failing.",
        ],
        ["ended as COMPLETED: ", " 2 could not be imported", "running again imports anew"],
    ];
    for parts in wanted {
        let refused = project.run();
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        project.has_no_files();
        let get = ["get", "inputs", "customer=b", "shop=0", "--at", "2024-01-09T00:00:00Z"];
        let got = project.command(&get).output().expect("featurectl runs");
        assert!(text(&got.stderr).contains("is not in the online store"), "nothing of it is served");
    }
    project.runs();
    project.is_equal();
    assert_eq!(proxy.calls("ImportTable").len(), 4);
    let tokens: std::collections::BTreeSet<String> =
        proxy.calls("ImportTable").iter().map(|body| body["ClientToken"].to_string()).collect();
    assert_eq!(tokens.len(), 4, "what failed is not asked for again");
}

/// Where a run is killed: at the first call of an operation, before or after its effect.
const KILLS: [(&str, bool); 7] = [
    ("ImportTable", false),
    ("ImportTable", true),
    ("DescribeImport", false),
    ("UpdateTimeToLive", true),
    ("PutItem", false),
    ("PutItem", true),
    ("DeleteTable", false),
];

#[test]
fn a_run_that_is_killed_in_an_import_goes_on_with_it() {
    let tokens: Arc<Mutex<Imports>> = Arc::default();
    for (number, (operation, has_effect)) in KILLS.into_iter().enumerate() {
        let (reached, at) = sync_channel(1);
        let tokens = Arc::clone(&tokens);
        let is_over = AtomicBool::new(false);
        let proxy = Proxy::start(moto(), move |call| {
            // Not while the table is made that has the pointers.
            let is_of_import = call.operation != "UpdateTimeToLive" || call.body.to_string().contains("killed-3.");
            let stops = call.operation == operation && is_of_import && !is_over.swap(true, Ordering::SeqCst);
            if stops && !has_effect {
                let _ = reached.send(());
                std::thread::sleep(Duration::from_secs(600));
            }
            let answer = once(call, &tokens);
            if stops {
                let _ = reached.send(());
                std::thread::sleep(Duration::from_secs(600));
            }
            answer
        });
        let table = ["killed-0", "killed-1", "killed-2", "killed-3", "killed-4", "killed-5", "killed-6"][number];
        let project = Project::new(table, "ttl = true\n", &proxy.endpoint);
        if operation == "DeleteTable" {
            project.runs();
            project.day(1, 2);
        }
        let mut run = project.command(&["run", "job.sql"]);
        let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("featurectl runs");
        at.recv_timeout(Duration::from_secs(120)).expect("the call is made");
        run.kill().expect("it can be killed");
        run.wait().expect("it ends");
        let imports = proxy.calls("ImportTable").len();
        if number == 0 {
            project.has_half_of_its_files();
        }
        project.runs();
        project.is_equal_for(2);
        project.has_no_files();
        assert_eq!(project.imported().len(), 2, "{operation}");
        let (again, made) =
            (proxy.calls("ImportTable").len() - imports, if operation == "DeleteTable" { 1 } else { 2 });
        let wanted = if operation == "ImportTable" { made } else { 1 };
        assert_eq!(again, wanted, "{operation}, effect: {has_effect}");
        assert!(project.runs().iter().all(|(_, changed)| !changed), "{operation}");
    }
}

/// What was answered to imports, by their tokens.
type Imports = Vec<(String, (u16, Value))>;

/// Two imports with one token are one, as the service has it and moto does not.
fn once(call: &Call<'_>, tokens: &Mutex<Imports>) -> (u16, Value) {
    if call.operation != "ImportTable" {
        return call.forward(&call.body);
    }
    let token = call.body["ClientToken"].to_string();
    let mut tokens = tokens.lock().expect("no panic");
    if let Some((_, answer)) = tokens.iter().find(|(known, _)| *known == token) {
        return answer.clone();
    }
    let answer = call.forward(&call.body);
    tokens.push((token, answer.clone()));
    answer
}

#[test]
fn an_import_whose_token_the_service_has_forgotten_is_found() {
    let arn: Arc<Mutex<Value>> = Arc::default();
    let proxy = Proxy::start(moto(), move |call| match (call.operation, call.nth) {
        ("ImportTable", 0) => {
            *arn.lock().expect("no panic") = call.forward(&call.body).1["ImportTableDescription"]["ImportArn"].clone();
            call.refuse("ResourceInUseException")
        }
        ("ListImports", _) => {
            let table = call.body["TableArn"].clone();
            let known =
                json!({ "ImportArn": *arn.lock().expect("no panic"), "ImportStatus": "COMPLETED", "TableArn": table });
            (200, json!({ "ImportSummaryList": [known] }))
        }
        _ => call.forward(&call.body),
    });
    let project = Project::new("forgotten", "", &proxy.endpoint);
    project.runs();
    project.is_equal();
    assert_eq!(project.imported().len(), 2);
    let requests = proxy.seen.lock().expect("no panic").clone();
    assert!(shapes::check("dynamodb", &requests).contains("ListImports"));
}

#[test]
fn an_import_needs_a_bucket() {
    let project = Project::new("local", "", "http://127.0.0.1:9");
    let file = project.folder.path().join("featurectl.toml");
    let profile = std::fs::read_to_string(&file).expect("the profile");
    std::fs::write(&file, profile.replace("s3://imports/a team", "imports")).expect("the profile");
    let refused = project.run();
    let said = text(&refused.stderr);
    assert!(said.contains("profile `aws`: table.import") && said.contains("write s3://bucket/prefix"), "{said}");
}
