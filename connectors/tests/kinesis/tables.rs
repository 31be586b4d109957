//! Streams as tables.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt64Type};
use featurectl_connectors::kinesis::{Access, Part, StreamTable, pack};
use featurectl_core::{ErrorKind, Result};
use futures::TryStreamExt;

use super::emulator::{Stream, limits};

fn table(stream: &Stream, options: &[(&str, &str)], root: &Path) -> Arc<StreamTable> {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
    let options: HashMap<String, String> = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let location = format!("kinesis://{}", stream.name);
    // Nothing of it waits for a service.
    let access = Access::default();
    let new = futures::executor::block_on(StreamTable::new(&location, "JSON", &schema, &options, root, &access));
    Arc::new(new.unwrap().with_limits(limits()))
}

async fn rows(stream: &Stream, table: &Arc<StreamTable>) -> Result<RecordBatch> {
    let batches: Vec<RecordBatch> = Arc::clone(table).rows(stream.kinesis()).try_collect().await?;
    Ok(concat_batches(table.schema(), &batches)?)
}

fn numbers(batch: &RecordBatch) -> Vec<i64> {
    let mut numbers: Vec<i64> = batch.column(0).as_primitive::<Int64Type>().iter().flatten().collect();
    numbers.sort_unstable();
    numbers
}

fn object(n: i64) -> (String, Vec<u8>) {
    (format!("key-{n}"), format!("{{\"n\":{n}}}").into_bytes())
}

#[tokio::test]
async fn rows_know_where_they_come_from_and_a_second_scan_gives_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let stream = Stream::create(2).await;
    stream.put(&(0..50).map(object).collect::<Vec<_>>()).await;
    let parts: Vec<Part> = (50..60)
        .map(object)
        .map(|(partition_key, data)| Part { partition_key, explicit_hash_key: None, data: data.into() })
        .collect();
    stream.put(&[("outer".into(), pack(&parts).to_vec())]).await;
    let table = table(&stream, &[("metadata", "true")], folder.path());
    let first = rows(&stream, &table).await.unwrap();
    assert_eq!(numbers(&first), (0..60).collect::<Vec<_>>());
    let (keys, subs) = (first.column(5).as_string::<i32>(), first.column(3).as_primitive::<UInt64Type>());
    for row in 0..60 {
        let n = first.column(0).as_primitive::<Int64Type>().value(row);
        assert_eq!(keys.value(row), format!("key-{n}"));
        assert_eq!(subs.iter().nth(row).unwrap(), (n >= 50).then_some(n as u64 - 50.min(n as u64)));
        assert_eq!(first.column(2).as_string::<i32>().value(row).len(), 56);
    }
    // The end of the range is the time of the first scan, whole seconds of it.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    stream.put(&(60..90).map(object).collect::<Vec<_>>()).await;
    assert_eq!(numbers(&rows(&stream, &table).await.unwrap()), (0..60).collect::<Vec<_>>());
}

#[tokio::test]
async fn records_that_cannot_be_read_are_kept_aside_and_too_many_stop_the_scan() {
    let folder = tempfile::tempdir().unwrap();
    let stream = Stream::create(2).await;
    let mut records: Vec<_> = (0..200).map(object).collect();
    records[70].1 = b"{\"n\":\"seventy\"}".to_vec();
    records[80].1 = b"{".to_vec();
    stream.put(&records).await;
    let letters = folder.path().join("bad/letters.jsonl");

    let with_file =
        |share| table(&stream, &[("dead_letter", "bad/letters.jsonl"), ("max_bad_share", share)], folder.path());
    let read = rows(&stream, &with_file("0.01")).await.unwrap();
    let expected: Vec<i64> = (0..200).filter(|n| ![70, 80].contains(n)).collect();
    assert_eq!(numbers(&read), expected);
    let text = std::fs::read_to_string(&letters).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert!(text.contains("column `n`") && text.contains("eyJuIjoic2V2ZW50eSJ9"), "{text}");

    std::fs::remove_file(&letters).unwrap();
    let error = rows(&stream, &with_file("0.009")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("2 of 200 records"), "{error}");
    assert_eq!(std::fs::read_to_string(&letters).unwrap().lines().count(), 2);

    let error = rows(&stream, &table(&stream, &[], folder.path())).await.unwrap_err();
    assert!(error.to_string().contains("dead_letter"), "{error}");
}
