//! Ranges of streams that are resharded.

use std::time::Duration;

use featurectl_connectors::kinesis::{Bound, Positions, Range, Reader, ShardPoint};
use featurectl_core::ErrorKind;

use super::emulator::{Stream, everything, limits, number, numbers, rest};

#[tokio::test]
async fn all_records_of_a_stream_that_was_split_and_merged_are_read_once_parents_first() {
    let stream = Stream::create(2).await;
    stream.put_numbers(0..100).await;
    stream.split(0).await;
    stream.put_numbers(100..200).await;
    stream.merge(1).await;
    stream.put_numbers(200..300).await;
    stream.merge(0).await;
    stream.put_numbers(300..400).await;
    let records = stream.read(everything()).await.unwrap();
    assert_eq!(numbers(&records), (0..400).collect::<Vec<_>>());
    for key in 0..7 {
        let of_key: Vec<u32> = records.iter().map(number).filter(|n| n % 7 == key).collect();
        assert!(of_key.is_sorted(), "{of_key:?}");
    }
}

#[tokio::test]
async fn a_stream_without_records_ends_at_once() {
    let stream = Stream::create(3).await;
    assert_eq!(stream.read(everything()).await.unwrap(), []);
    stream.split(1).await;
    assert_eq!(stream.read(everything()).await.unwrap(), []);
}

#[tokio::test]
async fn a_range_of_time_holds_exactly_what_arrived_in_it() {
    let stream = Stream::create(2).await;
    for part in 0..4 {
        stream.put_numbers(part * 50..part * 50 + 50).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        if part % 2 == 0 {
            stream.split(part as usize).await;
        }
    }
    let all = stream.read(everything()).await.unwrap();
    let mut arrivals: Vec<i64> = all.iter().map(|r| r.arrival).collect();
    arrivals.sort_unstable();
    for (from, to) in [(0, 199), (20, 120), (60, 61), (100, 199), (150, 150)] {
        let (from, to) = (arrivals[from], arrivals[to]);
        let range = Range { from: Bound::Time(from), to: Bound::Time(to) };
        let wanted: Vec<_> = all.iter().filter(|r| (from..to).contains(&r.arrival)).cloned().collect();
        assert_eq!(numbers(&stream.read(range).await.unwrap()), numbers(&wanted), "{from} to {to}");
    }
}

#[tokio::test]
async fn a_read_goes_on_where_another_stopped_and_ends_where_it_should() {
    let stream = Stream::create(2).await;
    stream.put_numbers(0..60).await;
    let mut first = Reader::start(stream.kinesis(), everything(), limits()).await.unwrap();
    let mut read = Vec::new();
    while let Some(delivery) = first.next().await {
        read.extend(delivery.unwrap().records);
    }
    let middle: Positions = first.positions().to_string().parse().unwrap();
    assert_eq!(numbers(&read), (0..60).collect::<Vec<_>>());

    stream.split(0).await;
    stream.put_numbers(60..160).await;
    let range = Range { from: Bound::Positions(middle.clone()), to: Bound::Latest };
    assert_eq!(numbers(&stream.read(range).await.unwrap()), (60..160).collect::<Vec<_>>());
    let range = Range { from: Bound::Whole, to: Bound::Positions(middle) };
    assert_eq!(numbers(&stream.read(range).await.unwrap()), (0..60).collect::<Vec<_>>());
}

#[tokio::test]
async fn positions_of_single_records_bound_a_range_on_both_sides() {
    let stream = Stream::create(1).await;
    stream.put_numbers(0..50).await;
    let all = stream.read(everything()).await.unwrap();
    let at = |i: usize| {
        let point = ShardPoint::After { sequence: all[i].sequence, sub: None };
        Bound::Positions(Positions([(all[i].shard.to_string(), point)].into()))
    };
    let numbers_of = |range| async { numbers(&stream.read(range).await.unwrap()) };
    let between = Range { from: at(9), to: at(19) };
    assert_eq!(numbers_of(between).await, (10..20).collect::<Vec<_>>());
    assert_eq!(numbers_of(Range { from: at(49), to: Bound::Latest }).await, Vec::<u32>::new());
    assert_eq!(numbers_of(Range { from: Bound::Whole, to: at(0) }).await, [0]);
    stream.split(0).await;
    stream.put_numbers(50..60).await;
    assert_eq!(numbers_of(Range { from: at(44), to: Bound::Latest }).await, (45..60).collect::<Vec<_>>());
    assert_eq!(numbers_of(Range { from: Bound::Whole, to: at(44) }).await, (0..45).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_read_up_to_a_time_to_come_waits_for_it_though_nothing_arrives() {
    let stream = Stream::create(2).await;
    stream.put_numbers(0..10).await;
    let now = stream.read(everything()).await.unwrap().iter().map(|r| r.arrival).max().unwrap();
    let range = Range { from: Bound::Latest, to: Bound::Time(now + 6_000_000) };
    let reader = Reader::start(stream.kinesis(), range, limits()).await.unwrap();
    let late = stream.clone();
    let writer = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        late.put_numbers(10..20).await;
    });
    let read: Vec<_> = rest(reader).await.unwrap().into_iter().flat_map(|d| d.records).collect();
    writer.await.unwrap();
    let newer: Vec<u32> = numbers(&read).into_iter().filter(|n| *n >= 10).collect();
    assert_eq!(newer, (10..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_the_reason() {
    let stream = Stream::create(1).await;
    stream.put_numbers(0..3).await;
    let refused = |range: Range| async { stream.read(range).await.unwrap_err() };
    let positions = |text: &str| Bound::Positions(text.parse().unwrap());

    let unknown = refused(Range { from: positions("shardId-000000000099:123"), to: Bound::Latest }).await;
    assert_eq!(unknown.kind(), ErrorKind::NotFound, "{unknown}");
    let backwards = refused(Range { from: Bound::Time(2_000_000), to: Bound::Time(1_000_000) }).await;
    assert_eq!(backwards.kind(), ErrorKind::Invalid, "{backwards}");
    let future = refused(Range { from: Bound::Time(i64::MAX / 2), to: Bound::Latest }).await;
    assert_eq!(future.kind(), ErrorKind::Invalid, "{future}");
    let open = refused(Range { from: Bound::Whole, to: positions("shardId-000000000000:end") }).await;
    assert_eq!(open.kind(), ErrorKind::Invalid, "{open}");

    let missing = Stream { name: "no-such-stream".into(), ..stream.clone() };
    let missing = missing.read(everything()).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
    assert!(missing.to_string().contains("no-such-stream"), "{missing}");
}
