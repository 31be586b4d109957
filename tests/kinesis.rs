//! A stream by the command line: rows are put, read as a table, and landed.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::{Value, json};
use server::Server;

use crate::glue::moto::{Moto, Proxy, call_service};

#[path = "../connectors/tests/kinesis/server.rs"]
mod server;

/// kinesis-local with a stream `clicks` of two shards.
pub(crate) fn start() -> Server {
    start_with("clicks:2")
}

/// kinesis-local with streams as `name:shards`, with commas.
fn start_with(streams: &str) -> Server {
    let loopback = concat!(env!("CARGO_MANIFEST_DIR"), "/connectors/tests/kinesis/loopback.js");
    let server = Server::start(loopback, &[("INITIALIZE_STREAMS", streams)]);
    // The stream is made after the port is open.
    std::thread::sleep(Duration::from_secs(1));
    server
}

const SECRET: &str = "c0ffee-the-secret-key";

fn featurectl(folder: &Path, emulator: &Server, args: &[&str]) -> Output {
    command(folder, emulator, args).output().unwrap()
}

fn command(folder: &Path, emulator: &Server, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_featurectl"));
    command.current_dir(folder).args(args);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.env("AWS_ENDPOINT_URL_KINESIS", emulator.endpoint()).env("AWS_REGION", "us-east-1");
    command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", SECRET);
    command
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

/// Glue's schema registry with two versions of a schema `orders`, and other schemas.
struct Registry {
    moto: Moto,
    /// Of one, two and three fields; that of two is the schema `returns`.
    orders: [String; 3],
    json: String,
    protobuf: String,
}

const FIELDS: [&str; 3] = [
    r#"{"name": "id", "type": "long"}"#,
    r#"{"name": "amount", "type": "double", "default": 0.5}"#,
    r#"{"name": "country", "type": "string", "default": "NL"}"#,
];

fn order(fields: &[&str]) -> String {
    format!(r#"{{"type": "record", "name": "Order", "fields": [{}]}}"#, fields.join(", "))
}

impl Registry {
    fn start() -> Self {
        let moto = Moto::start();
        moto.call("CreateRegistry", &json!({ "RegistryName": "shop" }));
        let of = |answer: Value| answer["SchemaVersionId"].as_str().expect("an id").to_string();
        let create = |name: &str, format: &str, text: &str| {
            of(moto.call(
                "CreateSchema",
                &json!({ "RegistryId": { "RegistryName": "shop" }, "SchemaName": name, "DataFormat": format,
                         "Compatibility": "NONE", "SchemaDefinition": text }),
            ))
        };
        let first = create("orders", "AVRO", &order(&FIELDS[..1]));
        let orders = json!({ "RegistryName": "shop", "SchemaName": "orders" });
        let third =
            of(moto.call("RegisterSchemaVersion", &json!({ "SchemaId": orders, "SchemaDefinition": order(&FIELDS) })));
        let second = create("returns", "AVRO", &order(&FIELDS[..2]));
        let json = create("views", "JSON", r#"{"type": "object", "properties": {"page": {"type": "string"}}}"#);
        let protobuf = create("other", "PROTOBUF", "syntax = \"proto3\"; message Other { string name = 1; }");
        Self { orders: [first, second, third], json, protobuf, moto }
    }
}

/// A payload behind Glue's header.
fn framed(id: &str, body: &[u8], is_packed: bool) -> Vec<u8> {
    let id = u128::from_str_radix(&id.replace('-', ""), 16).expect("a UUID").to_be_bytes();
    let mut out = [&[3, if is_packed { 5 } else { 0 }], &id[..]].concat();
    if !is_packed {
        return [out, body.to_vec()].concat();
    }
    let mut packer = ZlibEncoder::new(&mut out, Compression::default());
    packer.write_all(body).expect("it is packed");
    packer.finish().expect("it is packed");
    out
}

/// An order in Avro, with as many fields as the version has.
fn avro(n: u8, fields: usize) -> Vec<u8> {
    // A number's sign is its last bit; below 64 it is one byte.
    let mut out = vec![2 * (n % 64)];
    if fields > 1 {
        out.extend(f64::from(n).to_le_bytes());
    }
    if fields > 2 {
        out.extend([4, b'B', b'E']);
    }
    out
}

fn put(emulator: &Server, stream: &str, payloads: &[Vec<u8>]) {
    let records: Vec<_> = (0..)
        .zip(payloads)
        .map(|(n, p)| json!({ "Data": BASE64_STANDARD.encode(p), "PartitionKey": format!("key-{n}") }))
        .collect();
    let port = emulator.endpoint().rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
    let body = json!({ "StreamName": stream, "Records": records });
    let (status, answer) = call_service(port, "kinesis", "Kinesis_20131202.PutRecords", &body).expect("an answer");
    assert_eq!((status, &answer["FailedRecordCount"]), (200, &0.into()), "{answer}");
}

#[test]
fn messages_that_name_schemas_of_glue_s_registry_are_read_by_them() {
    let folder = tempfile::tempdir().unwrap();
    let (emulator, registry) = (start_with("orders:2,views:1,other:1"), Registry::start());
    let calls = Proxy::start(&registry.moto, |call| call.forward(&call.body));
    let run = |endpoint: &str, verb: &str, sql: &str| {
        std::fs::write(folder.path().join("job.sql"), sql).unwrap();
        let mut command = command(folder.path(), &emulator, &[verb, "job.sql", "-o", "csv"]);
        command.env("AWS_ENDPOINT_URL_GLUE", endpoint).output().unwrap()
    };

    // Three schemas, packed or not, each id many times.
    let payloads: Vec<_> =
        (0..150).map(|n| framed(&registry.orders[n % 3], &avro(n as u8, n % 3 + 1), n % 2 == 1)).collect();
    let deleted = framed(&registry.orders[1], &avro(1, 2), false);
    let bad = [
        deleted,
        framed("00000000-0000-4000-8000-00000000beef", &avro(1, 3), false),
        framed(&registry.json, b"{}", false),
        avro(1, 3),
        framed(&registry.orders[2], &avro(1, 2), true),
    ];
    let good = payloads.len();
    put(&emulator, "orders", &payloads);
    let orders = "CREATE EXTERNAL TABLE orders STORED AS AVRO LOCATION 'kinesis://orders' OPTIONS ('registry' 'glue', \
                  'schema' 'glue://shop/orders', 'dead_letter' 'bad.jsonl', 'max_bad_share' '0.5');";
    let sums = "SELECT count(*) AS n, sum(id) AS ids, sum(amount) AS amounts, count(*) FILTER (WHERE country = 'NL') AS nl \
                FROM orders;";
    let of = |n: usize, fields: usize| if fields > 1 { n as f64 } else { 0.5 };
    let amounts: f64 = (0..good).map(|n| of(n, n % 3 + 1)).sum();
    let ids: usize = (0..good).map(|n| n % 64).sum();
    let read = run(&calls.endpoint, "run", &format!("{orders}{sums}"));
    assert_eq!(text(&read.stdout), format!("n,ids,amounts,nl\n150,{ids},{amounts:?},100\n"), "{}", text(&read.stderr));
    let asked: Vec<_> = calls.calls("GetSchemaVersion");
    assert_eq!(asked.len(), 4, "the newest, and each of three once: {asked:?}");

    // What can't be read, one reason each.
    registry.moto.call("DeleteSchema", &json!({ "SchemaId": { "RegistryName": "shop", "SchemaName": "returns" } }));
    put(&emulator, "orders", &bad);
    let read = run(&calls.endpoint, "run", &format!("{orders}{sums}"));
    assert!(text(&read.stdout).contains("\n100,"), "{}{}", text(&read.stdout), text(&read.stderr));
    let letters = std::fs::read_to_string(folder.path().join("bad.jsonl")).unwrap();
    let reasons: Vec<Value> =
        letters.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["reason"].clone()).collect();
    assert_eq!(reasons.len(), 50 + bad.len(), "{reasons:?}");
    let reasons: BTreeSet<&str> = reasons.iter().filter_map(Value::as_str).collect();
    for part in [
        &format!("schema {} is not in the registry of Glue", registry.orders[1]),
        "schema 00000000-0000-4000-8000-00000000beef is not in the registry of Glue",
        "it is of JSON, the table is STORED AS AVRO",
        "it does not start with the header of Glue's schema registry",
    ] {
        assert!(reasons.iter().any(|r| r.contains(part)), "{part} is not in {reasons:?}");
    }
    assert_eq!(reasons.len(), 5, "and one that is not of its schema: {reasons:?}");

    // JSON and protobuf: the columns are the table's, the schema must be there.
    let stranger = |body: &[u8]| framed("00000000-0000-4000-8000-00000000beef", body, false);
    put(&emulator, "views", &[framed(&registry.json, b"{\"page\": \"a\"}", true), stranger(b"{\"page\": \"b\"}")]);
    put(&emulator, "other", &[framed(&registry.protobuf, b"\0\x0a\x01c", false), stranger(b"\0\x0a\x01d")]);
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/connectors/tests/golden");
    let both = format!(
        "CREATE EXTERNAL TABLE views (page VARCHAR) STORED AS JSON LOCATION 'kinesis://views'
         OPTIONS ('registry' 'glue', 'dead_letter' 'views.jsonl', 'max_bad_share' '0.5');
         CREATE EXTERNAL TABLE other STORED AS PROTOBUF LOCATION 'kinesis://other' OPTIONS ('registry' 'glue',
         'descriptors' '{golden}/shop.desc', 'message' 'shop.Other', 'dead_letter' 'other.jsonl', 'max_bad_share' '0.5');
         SELECT page FROM views UNION ALL SELECT name FROM other ORDER BY 1;"
    );
    let read = run(&calls.endpoint, "run", &both);
    assert_eq!(text(&read.stdout), "page\na\nc\n", "{}", text(&read.stderr));

    // What is wrong with all of it is an error, with what to do.
    let said = |output: Output| text(&output.stdout) + &text(&output.stderr);
    let missing = said(run(&calls.endpoint, "check", &orders.replace("shop/orders", "shop/order")));
    assert!(missing.contains("has no schema glue://shop/order:"), "{missing}");
    let other = said(run(&calls.endpoint, "check", &orders.replace("shop/orders", "shop/views")));
    assert!(other.contains("glue://shop/views: it is of JSON, the table is STORED AS AVRO"), "{other}");
    let none = Proxy::start(&registry.moto, |call| match call.body["SchemaVersionId"].is_string() {
        true => call.refuse("AccessDeniedException"),
        false => call.forward(&call.body),
    });
    let refused = run(&none.endpoint, "run", &format!("{orders}{sums}"));
    assert_eq!(refused.status.code(), Some(1));
    let refused = said(refused);
    assert!(refused.contains("give the role glue:GetSchemaVersion") && refused.contains("schema version"), "{refused}");
    assert!(![missing, other, refused].iter().any(|s| s.contains(SECRET) || s.contains("panicked")));
}
