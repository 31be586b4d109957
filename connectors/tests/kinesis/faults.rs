//! Reads through a proxy that disturbs them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use featurectl_connectors::kinesis::{Bound, Limits, Positions, Range, Reader, Record, ShardPoint};
use featurectl_core::{ErrorKind, Result};

use super::emulator::{Stream, endpoint, everything, limits, numbers, rest};
use super::proxy::{Fault, Proxy};

async fn read_through(stream: &Stream, proxy: &Proxy, range: Range, limits: Limits) -> Result<Vec<Record>> {
    let reader = Reader::start(stream.at(&proxy.endpoint), range, limits).await?;
    Ok(rest(reader).await?.into_iter().flat_map(|d| d.records).collect())
}

async fn resharded() -> Stream {
    let stream = Stream::create(2).await;
    stream.put_numbers(0..100).await;
    stream.split(1).await;
    stream.put_numbers(100..200).await;
    stream.merge(0).await;
    stream.put_numbers(200..300).await;
    stream
}

/// A range that has no wait at its end, and few records an answer.
fn few_at_once() -> Limits {
    Limits { records: 10, ..limits() }
}

#[tokio::test]
async fn every_second_call_refused_or_lost_changes_nothing() {
    let stream = resharded().await;
    for fault in [
        Fault::Refuse("ProvisionedThroughputExceededException"),
        Fault::Refuse("LimitExceededException"),
        Fault::Refuse("InternalFailure"),
        Fault::DropBefore,
        Fault::DropAfter,
    ] {
        let proxy = Proxy::start(&endpoint(), move |_, n| if n.is_multiple_of(2) { fault } else { Fault::None }).await;
        let read = read_through(&stream, &proxy, everything(), few_at_once()).await.unwrap();
        assert_eq!(numbers(&read), (0..300).collect::<Vec<_>>(), "{fault:?}");
    }
}

#[tokio::test]
async fn an_expired_iterator_is_made_again_after_the_last_record_read() {
    let stream = resharded().await;
    let expired = Fault::Refuse("ExpiredIteratorException");
    for every in [2, 3, 5] {
        let decide = move |operation: &str, n| match operation {
            "GetRecords" if n % every == every - 1 => expired,
            _ => Fault::None,
        };
        let proxy = Proxy::start(&endpoint(), decide).await;
        let read = read_through(&stream, &proxy, everything(), few_at_once()).await.unwrap();
        assert_eq!(numbers(&read), (0..300).collect::<Vec<_>>(), "every {every}");
        assert!(proxy.calls("GetShardIterator") > 5, "no iterator was made again");
    }
}

#[tokio::test]
async fn empty_answers_in_the_middle_of_a_shard_are_not_its_end() {
    let stream = resharded().await;
    let decide = |operation: &str, n| if operation == "GetRecords" && n % 4 > 0 { Fault::Empty } else { Fault::None };
    let proxy = Proxy::start(&endpoint(), decide).await;
    let read = read_through(&stream, &proxy, everything(), few_at_once()).await.unwrap();
    assert_eq!(numbers(&read), (0..300).collect::<Vec<_>>());
}

#[tokio::test]
async fn shards_are_listed_page_by_page() {
    let stream = Stream::create(7).await;
    stream.put_numbers(0..100).await;
    let decide = |operation: &str, _| if operation == "ListShards" { Fault::SmallPage } else { Fault::None };
    let proxy = Proxy::start(&endpoint(), decide).await;
    let read = read_through(&stream, &proxy, everything(), limits()).await.unwrap();
    assert_eq!(numbers(&read), (0..100).collect::<Vec<_>>());
    assert_eq!(proxy.calls("ListShards"), 4);
}

#[tokio::test]
async fn a_service_that_never_answers_is_given_up() {
    let stream = Stream::create(1).await;
    stream.put_numbers(0..10).await;
    for (fault, kind) in [
        (Fault::Refuse("ProvisionedThroughputExceededException"), ErrorKind::Unavailable),
        (Fault::Refuse("ExpiredIteratorException"), ErrorKind::Unavailable),
        (Fault::DropAfter, ErrorKind::Unavailable),
        (Fault::Refuse("AccessDeniedException"), ErrorKind::Invalid),
        (Fault::Empty, ErrorKind::Unavailable),
    ] {
        let decide = move |operation: &str, _| if operation == "GetRecords" { fault } else { Fault::None };
        let proxy = Proxy::start(&endpoint(), decide).await;
        let few = Limits { failures: 4, interval: std::time::Duration::ZERO, ..limits() };
        let error = read_through(&stream, &proxy, everything(), few).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{fault:?}: {error}");
        assert!(error.to_string().contains("shardId-000000000000"), "{error}");
    }
}

#[tokio::test]
async fn a_reader_that_fails_midway_has_given_a_place_to_go_on_from() {
    let stream = resharded().await;
    let broken = Arc::new(AtomicBool::new(true));
    let state = broken.clone();
    let decide = move |operation: &str, n| match operation {
        "GetRecords" if n >= 6 && state.load(Ordering::SeqCst) => Fault::Refuse("AccessDeniedException"),
        _ => Fault::None,
    };
    let proxy = Proxy::start(&endpoint(), decide).await;
    let mut reader = Reader::start(stream.at(&proxy.endpoint), everything(), few_at_once()).await.unwrap();
    let mut read = Vec::new();
    let error = loop {
        match reader.next().await.expect("the failure is given") {
            Ok(delivery) => read.extend(delivery.records),
            Err(e) => break e,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(reader.next().await.is_none());
    assert!(!read.is_empty() && read.len() < 300);
    broken.store(false, Ordering::SeqCst);
    let range = Range { from: Bound::Positions(reader.positions().clone()), to: reader.to() };
    read.extend(read_through(&stream, &proxy, range, few_at_once()).await.unwrap());
    assert_eq!(numbers(&read), (0..300).collect::<Vec<_>>());
}

#[tokio::test]
async fn records_lost_to_the_retention_are_an_error_not_a_gap() {
    let stream = Stream::create(1).await;
    stream.put_numbers(0..10).await;
    let all = stream.read(everything()).await.unwrap();
    // A number behind the last digits of a record's stands for one that is gone.
    let mut gone = all[4].sequence;
    gone.0[23] ^= 1;
    let point = ShardPoint::After { sequence: gone, sub: None };
    let from = Bound::Positions(Positions([(all[4].shard.to_string(), point)].into()));
    let error = stream.read(Range { from, to: Bound::Latest }).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Data | ErrorKind::NotFound), "{error}");
    assert!(error.to_string().contains("retention"), "{error}");
}
