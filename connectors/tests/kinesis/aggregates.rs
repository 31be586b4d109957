//! Aggregates of other producers, some damaged: every record in them is read, or is in the dead letters.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use featurectl_connectors::DeadLetters;
use featurectl_connectors::kinesis::{Bound, Positions, Range, Reader, ShardPoint, digits, sequence};
use serde_json::Value;

use super::blobs::{Blob, Fate, blobs};
use super::emulator::{Stream, everything, limits, rest};

fn bytes(value: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap()
}

/// Aggregates that the producer library of Python made.
fn golden() -> Vec<Blob> {
    let text = |v: &Value| v.as_str().map(str::to_string);
    let part = |p: &Value| (text(&p["key"]).unwrap(), text(&p["hash_key"]), bytes(&p["data"]));
    let blob = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let parts = line["parts"].as_array().unwrap().iter().map(part).collect();
        Blob { data: bytes(&line["aggregate"]), fate: Fate::Opened, parts }
    };
    include_str!("../golden/kpl.jsonl").lines().map(blob).collect()
}

/// Number within the aggregate, partition key, explicit hash key and data.
type Numbered = (Option<u64>, String, Option<String>, Vec<u8>);

/// What must be read of an aggregate that was put with this key.
fn readable(blob: &Blob, outer: &str) -> Vec<Numbered> {
    match blob.fate {
        Fate::Plain => vec![(None, outer.to_string(), None, blob.data.clone())],
        Fate::Refused(_) => vec![],
        Fate::Opened => {
            let numbered = (0..).zip(blob.parts.iter().cloned());
            numbered.map(|(sub, (key, hash, data))| (Some(sub), key, hash, data)).collect()
        }
    }
}

#[tokio::test]
async fn every_record_of_an_aggregate_is_read_or_in_the_dead_letters() {
    let made = blobs(1, 360);
    let different: BTreeSet<&[u8]> = made.iter().map(|b| b.data.as_slice()).collect();
    assert_eq!(different.len(), 360, "no two are the same");
    let blobs = [golden(), made].concat();
    let count = |fate: fn(&Fate) -> bool| blobs.iter().filter(|b| fate(&b.fate)).count();
    let refused = count(|f| matches!(f, Fate::Refused(_)));
    assert_eq!((count(|f| *f == Fate::Opened), count(|f| *f == Fate::Plain), refused), (220, 20, 160));

    let stream = Stream::create(2).await;
    let outer = |i: usize| format!("outer-{i}");
    let puts: Vec<_> = blobs.iter().enumerate().map(|(i, b)| (outer(i), b.data.clone())).collect();
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
    assert_eq!(letters.finish().unwrap(), refused as u64);

    let mut parts: Vec<_> = read.into_values().collect();
    let expected = blobs.iter().enumerate().map(|(i, blob)| readable(blob, &outer(i)));
    let mut expected: Vec<_> = expected.filter(|parts| !parts.is_empty()).collect();
    parts.sort();
    expected.sort();
    assert!(parts == expected, "{} of {} aggregates and plain records", parts.len(), expected.len());
    assert!(expected.concat().len() > 2_000, "{}", expected.concat().len());

    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut kept: BTreeMap<Vec<u8>, Value> = lines.into_iter().map(|line| (bytes(&line["data"]), line)).collect();
    assert_eq!(kept.len(), refused);
    for blob in &blobs {
        let Fate::Refused(why) = blob.fate else { continue };
        let line = kept.remove(&blob.data).expect("it is in the dead letters");
        assert_eq!(line["stream"], stream.name.as_str());
        assert!(line["shard"].as_str().unwrap().starts_with("shardId-"));
        let reason = line["reason"].as_str().unwrap();
        assert!(reason.starts_with("damaged aggregate: ") && reason.contains(why), "{reason}, not {why}");
        assert_eq!(digits(sequence(line["sequence"].as_str().unwrap()).unwrap()).len(), 56);
    }
}

#[tokio::test]
async fn a_range_may_start_and_end_within_an_aggregate() {
    let stream = Stream::create(1).await;
    let blob = golden().into_iter().find(|b| b.parts.len() == 60).unwrap();
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
