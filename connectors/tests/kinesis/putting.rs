//! Files put into streams, and what comes out again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use featurectl_connectors::kinesis::{Kinesis, PutOptions, PutReport, Record, put_file};
use featurectl_core::{ErrorKind, Result};
use serde_json::{Value, json};

use super::emulator::{Stream, endpoint, everything};
use super::proxy::{Fault, Proxy};

fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Rows of 23 keys, numbered.
fn rows(count: u32) -> String {
    (0..count).map(|n| format!("{{\"key\":\"k{}\",\"n\":{n},\"text\":\"{}\"}}\n", n % 23, "x".repeat(40))).collect()
}

async fn put(kinesis: &Kinesis, path: &std::path::Path, options: PutOptions) -> Result<PutReport> {
    let options = PutOptions { backoff: Duration::from_millis(2), failures: 10, ..options };
    put_file(kinesis, path, &options).await
}

fn keyed() -> PutOptions {
    PutOptions { key: Some("key".into()), ..PutOptions::default() }
}

fn objects(records: &[Record]) -> Vec<Value> {
    records.iter().map(|r| serde_json::from_slice(&r.data).unwrap()).collect()
}

/// The numbers of each key, in the order in which they are read.
fn by_key(records: &[Record]) -> BTreeMap<String, Vec<u64>> {
    let mut keys: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (record, object) in records.iter().zip(objects(records)) {
        assert_eq!(object["key"], json!(record.partition_key));
        keys.entry(record.partition_key.clone()).or_default().push(object["n"].as_u64().unwrap());
    }
    keys
}

fn expected(count: u64) -> BTreeMap<String, Vec<u64>> {
    (0..23).map(|k| (format!("k{k}"), (k..count).step_by(23).collect())).collect()
}

#[tokio::test]
async fn rows_are_put_once_and_in_the_order_of_their_key_though_a_part_of_every_call_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "rows.jsonl", &rows(1_000));
    for aggregate in [false, true] {
        let stream = Stream::create(3).await;
        let partial = |operation: &str, n| match (operation, n % 3) {
            ("PutRecords", 0) => Fault::Partial(2),
            ("PutRecords", 1) => Fault::Refuse("ProvisionedThroughputExceededException"),
            _ => Fault::None,
        };
        let proxy = Proxy::start(&endpoint(), partial).await;
        let report = put(&stream.at(&proxy.endpoint), &path, PutOptions { aggregate, ..keyed() }).await.unwrap();
        assert_eq!((report.rows, report.maybe_twice), (1_000, 0), "{report:?}");
        assert!(report.retried > 0, "{report:?}");
        assert_eq!(aggregate, report.records < 10, "{report:?}");
        let records = stream.read(everything()).await.unwrap();
        assert_eq!(by_key(&records), expected(1_000));
        assert_eq!(records.iter().all(|r| r.sub.is_some()), aggregate);
    }
}

#[tokio::test]
async fn a_call_without_an_answer_is_made_again_and_said_to_be_in_doubt() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "rows.jsonl", &rows(100));
    let stream = Stream::create(1).await;
    let lost = |operation: &str, n| if operation == "PutRecords" && n == 0 { Fault::DropAfter } else { Fault::None };
    let proxy = Proxy::start(&endpoint(), lost).await;
    let report = put(&stream.at(&proxy.endpoint), &path, keyed()).await.unwrap();
    assert_eq!((report.rows, report.maybe_twice), (100, 23), "{report:?}");
    let mut keys = by_key(&stream.read(everything()).await.unwrap());
    keys.values_mut().for_each(|numbers| {
        assert!(numbers.is_sorted());
        numbers.dedup();
    });
    assert_eq!(keys, expected(100));
}

#[tokio::test]
async fn a_stream_that_takes_nothing_is_given_up_and_the_error_says_how_far_it_came() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "rows.jsonl", &rows(200));
    let stream = Stream::create(1).await;
    let refuse = |operation: &str, n| match operation {
        "PutRecords" if n > 1 => Fault::Refuse("ProvisionedThroughputExceededException"),
        _ => Fault::None,
    };
    let proxy = Proxy::start(&endpoint(), refuse).await;
    let error = put(&stream.at(&proxy.endpoint), &path, keyed()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("46 rows are put"), "{error}");
}

#[tokio::test]
async fn csv_and_parquet_become_json_objects() {
    let folder = tempfile::tempdir().unwrap();
    let csv = file(&folder, "rows.csv", "key,n,note\na,1,\"x, \"\"y\"\"\"\nb,2,\n");
    let columns = vec![Field::new("key", DataType::Utf8, false), Field::new("n", DataType::Int64, true)];
    let schema = Arc::new(Schema::new(columns));
    let key = Arc::new(StringArray::from_iter_values((0..5_000).map(|n| format!("k{}", n % 23))));
    let numbers = Arc::new(Int64Array::from_iter_values(0..5_000));
    let batch = RecordBatch::try_new(schema.clone(), vec![key, numbers]).unwrap();
    let parquet = folder.path().join("rows.parquet");
    let out = std::fs::File::create(&parquet).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(out, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();

    let stream = Stream::create(2).await;
    put(&stream.kinesis(), &csv, PutOptions::default()).await.unwrap();
    let mut read = objects(&stream.read(everything()).await.unwrap());
    read.sort_by_key(|o| o["n"].as_u64());
    assert_eq!(read, [json!({ "key": "a", "n": 1, "note": "x, \"y\"" }), json!({ "key": "b", "n": 2 })]);

    let stream = Stream::create(2).await;
    put(&stream.kinesis(), &parquet, PutOptions { aggregate: true, ..keyed() }).await.unwrap();
    assert_eq!(by_key(&stream.read(everything()).await.unwrap()), expected(5_000));
}

#[tokio::test]
async fn rows_that_cannot_be_put_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let stream = Stream::create(1).await;
    let kinesis = stream.kinesis();
    for (name, text, expected) in [
        ("a.jsonl", "{\"key\":1}\n\n[2]\n", "line 3: it is no JSON object"),
        ("b.jsonl", "{\"key\":1}\n{\"key\":\n", "line 2: EOF"),
        ("c.jsonl", "{\"key\":1}\n{\"kay\":2}\n", "line 2: its key `key` is missing"),
        ("d.jsonl", "{\"key\":\"\"}\n", "row 1: its key has 0 characters"),
        ("e.csv", "kay\n1\n", "there is no column `key`; did you mean `kay`?"),
        ("f.csv", "key,b\n1,2\n,3\n", "row 2: its key is null"),
        ("g.txt", "", "the name must end with"),
    ] {
        let error = put(&kinesis, &file(&folder, name, text), keyed()).await.unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(name), "{error}");
    }
    let large = file(&folder, "h.jsonl", &format!("{{\"key\":\"{}\"}}\n", "x".repeat(1 << 20)));
    let error = put(&kinesis, &large, PutOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("row 1 has 1048587 bytes"), "{error}");
    let missing = put(&kinesis, &folder.path().join("none.csv"), keyed()).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
}
