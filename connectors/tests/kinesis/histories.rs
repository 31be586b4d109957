//! Whatever is put, split, merged and interrupted, in whatever order: every record is read exactly once.

use std::collections::BTreeMap;
use std::time::Duration;

use featurectl_connectors::kinesis::{Bound, Part, Range, Reader, Record, pack};
use futures::StreamExt;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::emulator::{Stream, everything, limits, numbers};

#[derive(Debug, Clone)]
enum Op {
    Put {
        count: u32,
        aggregated: bool,
    },
    Split(usize),
    Merge(usize),
    Take(usize),
    /// Positions and records are kept, as a consumer does at times.
    Checkpoint,
    /// The reader is gone, and all that was read since the last checkpoint.
    Kill,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1_u32..20, any::<bool>()).prop_map(|(count, aggregated)| Op::Put { count, aggregated }),
        2 => (0_usize..8).prop_map(Op::Split),
        2 => (0_usize..8).prop_map(Op::Merge),
        4 => (1_usize..6).prop_map(Op::Take),
        2 => Just(Op::Checkpoint),
        2 => Just(Op::Kill),
    ]
}

/// A stream, what was put into it, and what was read of it.
struct History {
    stream: Stream,
    next: u32,
    reader: Option<Reader>,
    /// Where the last checkpoint is.
    from: Bound,
    /// Up to it.
    read: Vec<Record>,
    /// Since then.
    taken: Vec<Record>,
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
            Op::Checkpoint => self.checkpoint(),
            Op::Kill => self.kill(),
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
            self.taken.extend(next.expect("the range does not end").unwrap().records);
        }
    }

    fn checkpoint(&mut self) {
        if let Some(reader) = &self.reader {
            // As text, which is how positions are kept.
            self.from = Bound::Positions(reader.positions().to_string().parse().unwrap());
            self.read.append(&mut self.taken);
        }
    }

    fn kill(&mut self) {
        self.reader = None;
        self.taken.clear();
    }

    /// How many were put, what was read with all interruptions, and what one read of the whole stream gives.
    async fn finish(mut self) -> (u32, Vec<Record>, Vec<Record>) {
        self.kill();
        let rest = Range { from: self.from.clone(), to: Bound::Latest };
        let (rest, whole) = tokio::join!(self.stream.read(rest), self.stream.read(everything()));
        self.read.extend(rest.unwrap());
        self.stream.delete().await;
        (self.next, self.read, whole.unwrap())
    }
}

async fn check(ops: Vec<Op>) {
    let stream = Stream::create(1 + (ops.len() % 3) as i32).await;
    let mut history =
        History { stream, next: 0, reader: None, from: Bound::Whole, read: Vec::new(), taken: Vec::new() };
    for op in &ops {
        history.apply(op).await;
    }
    let (put, read, whole) = history.finish().await;
    assert_once_in_order(put, &read, &format!("interrupted: {ops:?}"));
    assert_once_in_order(put, &whole, &format!("at once: {ops:?}"));
}

fn assert_once_in_order(put: u32, read: &[Record], what: &str) {
    assert_eq!(numbers(read), (0..put).collect::<Vec<_>>(), "not exactly once, {what}");
    let mut of_shard: BTreeMap<&str, Vec<(featurectl_core::Position, Option<u64>)>> = BTreeMap::new();
    for record in read {
        of_shard.entry(&record.shard).or_default().push((record.sequence, record.sub));
    }
    for (shard, places) in of_shard {
        assert!(places.is_sorted(), "{shard} is out of order, {what}");
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
