//! Aggregates of another producer, some damaged: every record in them is read, or is in the dead letters.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use featurectl_connectors::DeadLetters;
use featurectl_connectors::kinesis::{Bound, Positions, Range, Reader, ShardPoint, digits, sequence};
use serde_json::Value;

use super::emulator::{Stream, everything, limits, rest};

fn bytes(value: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap()
}

struct Blob {
    data: Vec<u8>,
    damaged: bool,
    /// Partition key, explicit hash key and data of each record in it.
    parts: Vec<(String, Option<String>, Vec<u8>)>,
}

/// Number within the aggregate, partition key, explicit hash key and data.
type Numbered = (Option<u64>, String, Option<String>, Vec<u8>);

/// 240 aggregates; each third is damaged in another way.
fn blobs() -> Vec<Blob> {
    let golden: Vec<Value> =
        include_str!("../golden/kpl.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let part = |p: &Value| {
        let text = |v: &Value| v.as_str().map(str::to_string);
        (text(&p["key"]).unwrap(), text(&p["hash_key"]), bytes(&p["data"]))
    };
    let blob = |i: usize| {
        let mut data = bytes(&golden[i % golden.len()]["aggregate"]);
        let damaged = i.is_multiple_of(3);
        if damaged {
            // Not in the magic: without it, it would be a plain record.
            let at = 4 + i * 31 % (data.len() - 4);
            if i.is_multiple_of(2) { data.truncate(at) } else { data[at] ^= 0x10 }
        }
        Blob { data, damaged, parts: golden[i % golden.len()]["parts"].as_array().unwrap().iter().map(part).collect() }
    };
    (0..240).map(blob).collect()
}

#[tokio::test]
async fn every_record_of_an_aggregate_is_read_or_in_the_dead_letters() {
    let blobs = blobs();
    let stream = Stream::create(2).await;
    let puts: Vec<_> = blobs.iter().enumerate().map(|(i, b)| (format!("outer-{i}"), b.data.clone())).collect();
    stream.put(&puts).await;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters/bad.jsonl");
    let mut letters = DeadLetters::new(&stream.name, Some(&path), 0.9).unwrap();
    let reader = Reader::start(stream.kinesis(), everything(), limits()).await.unwrap();
    let mut read: BTreeMap<String, Vec<Numbered>> = BTreeMap::new();
    for delivery in rest(reader).await.unwrap() {
        letters.note(delivery.records.len() as u64, &delivery.bad).unwrap();
        for r in delivery.records {
            let part = (r.sub, r.partition_key, r.explicit_hash_key, r.data.to_vec());
            read.entry(digits(r.sequence)).or_default().push(part);
        }
    }
    assert_eq!(letters.finish().unwrap(), 80);

    let mut parts: Vec<_> = read.into_values().collect();
    let numbered = |parts: Vec<(String, Option<String>, Vec<u8>)>| {
        (0..).zip(parts).map(|(sub, (key, hash, data))| (Some(sub), key, hash, data)).collect::<Vec<_>>()
    };
    let (damaged, whole): (Vec<_>, Vec<_>) = blobs.into_iter().partition(|b| b.damaged);
    let mut expected: Vec<_> = whole.into_iter().map(|b| numbered(b.parts)).collect();
    parts.sort();
    expected.sort();
    assert_eq!(parts, expected);

    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut kept: Vec<_> = lines.iter().map(|line| bytes(&line["data"])).collect();
    let mut refused: Vec<_> = damaged.into_iter().map(|b| b.data).collect();
    kept.sort();
    refused.sort();
    assert_eq!(kept, refused);
    for line in lines {
        assert_eq!(line["stream"], stream.name.as_str());
        assert!(line["shard"].as_str().unwrap().starts_with("shardId-"));
        assert!(line["reason"].as_str().unwrap().starts_with("damaged aggregate: "));
        assert_eq!(digits(sequence(line["sequence"].as_str().unwrap()).unwrap()).len(), 56);
    }
}

#[tokio::test]
async fn a_range_may_start_and_end_within_an_aggregate() {
    let stream = Stream::create(1).await;
    let blob = blobs().into_iter().find(|b| !b.damaged && b.parts.len() == 60).unwrap();
    stream.put(&[("outer".into(), blob.data.clone()), ("outer".into(), blob.data)]).await;
    let all = stream.read(everything()).await.unwrap();
    assert_eq!(all.len(), 120);
    let at = |i: usize| {
        let point = ShardPoint::After { sequence: all[i].sequence, sub: all[i].sub };
        Bound::Positions(Positions([(all[i].shard.to_string(), point)].into()))
    };
    for (from, to) in [(9, 79), (0, 1), (59, 60), (20, 119), (5, 5)] {
        let read = stream.read(Range { from: at(from), to: at(to) }).await.unwrap();
        assert_eq!(read, all[from + 1..=to], "{from} to {to}");
    }
}
