//! Whatever is put, split, merged and interrupted, in whatever order: every record is read exactly once.

use std::collections::BTreeMap;
use std::time::Duration;

use featurectl_connectors::kinesis::{Bound, Part, Range, Reader, Record, pack};
use futures::StreamExt;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::emulator::{Stream, limits, number};

#[derive(Debug, Clone)]
enum Op {
    Put { count: u32, aggregated: bool },
    Split(usize),
    Merge(usize),
    Take(usize),
    Interrupt,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1_u32..20, any::<bool>()).prop_map(|(count, aggregated)| Op::Put { count, aggregated }),
        2 => (0_usize..8).prop_map(Op::Split),
        2 => (0_usize..8).prop_map(Op::Merge),
        3 => (1_usize..6).prop_map(Op::Take),
        2 => Just(Op::Interrupt),
    ]
}

/// A stream, what was put into it, and what was read of it.
struct History {
    stream: Stream,
    next: u32,
    reader: Option<Reader>,
    from: Bound,
    read: Vec<Record>,
}

/// Later than any test runs.
const FAR: i64 = 4_000_000_000_000_000;

impl History {
    async fn apply(&mut self, op: &Op) {
        match op {
            Op::Put { count, aggregated } => self.put(*count, *aggregated).await,
            Op::Split(i) => self.stream.split(*i).await,
            Op::Merge(i) => self.stream.merge(*i).await,
            Op::Take(deliveries) => self.take(*deliveries).await,
            Op::Interrupt => self.interrupt(),
        }
    }

    async fn put(&mut self, count: u32, aggregated: bool) {
        let numbers = self.next..self.next + count;
        self.next += count;
        if !aggregated {
            return self.stream.put_numbers(numbers).await;
        }
        let part = |n: u32| Part {
            partition_key: format!("key-{}", n % 7),
            explicit_hash_key: None,
            data: n.to_string().into_bytes().into(),
        };
        let parts: Vec<Part> = numbers.map(part).collect();
        let key = parts[0].partition_key.clone();
        self.stream.put(&[(key, pack(&parts).to_vec())]).await;
    }

    async fn take(&mut self, deliveries: usize) {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => {
                let range = Range { from: self.from.clone(), to: Bound::Time(FAR) };
                none.insert(Reader::start(self.stream.kinesis(), range, limits()).await.unwrap())
            }
        };
        for _ in 0..deliveries {
            let Ok(next) = tokio::time::timeout(Duration::from_millis(20), reader.next()).await else { return };
            self.read.extend(next.expect("the range does not end").unwrap().records);
        }
    }

    fn interrupt(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.from = Bound::Positions(reader.positions().clone());
        }
    }

    async fn finish(mut self) -> (u32, Vec<Record>) {
        self.interrupt();
        let range = Range { from: self.from.clone(), to: Bound::Latest };
        self.read.extend(self.stream.read(range).await.unwrap());
        self.stream.delete().await;
        (self.next, self.read)
    }
}

async fn check(ops: Vec<Op>) {
    let stream = Stream::create(1 + (ops.len() % 3) as i32).await;
    let mut history = History { stream, next: 0, reader: None, from: Bound::Whole, read: Vec::new() };
    for op in &ops {
        history.apply(op).await;
    }
    let (put, read) = history.finish().await;
    let mut numbers: Vec<u32> = read.iter().map(number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..put).collect::<Vec<_>>(), "not exactly once: {ops:?}");
    let mut of_shard: BTreeMap<&str, Vec<(featurectl_core::Position, Option<u64>)>> = BTreeMap::new();
    for record in &read {
        of_shard.entry(&record.shard).or_default().push((record.sequence, record.sub));
    }
    for (shard, places) in of_shard {
        assert!(places.is_sorted(), "{shard} is out of order: {ops:?}");
    }
}

/// `FEATURECTL_HISTORIES` says how many; the seed is fixed, so that a failure comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_the_shards_each_record_is_read_exactly_once() {
    let count = std::env::var("FEATURECTL_HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let histories = prop::collection::vec(op(), 3..16);
    let all: Vec<Vec<Op>> = (0..count).map(|_| histories.new_tree(&mut runner).unwrap().current()).collect();
    futures::stream::iter(all).map(check).buffer_unordered(16).collect::<Vec<()>>().await;
}
