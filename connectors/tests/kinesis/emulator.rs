//! One emulator a test process, and streams in it.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, Shard, StreamStatus};
use featurectl_connectors::kinesis::{Bound, Delivery, Kinesis, Limits, Range, Reader, Record};
use featurectl_core::Result;

use super::server::Server;

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kinesis/loopback.js"), &[]))
}

/// Address of the emulator.
pub fn endpoint() -> String {
    server().endpoint().to_string()
}

fn config(endpoint: &str) -> aws_config::SdkConfig {
    aws_config::SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new("key", "secret", None, None, "tests")))
        .build()
}

/// A stream of the emulator.
#[derive(Clone)]
pub struct Stream {
    pub name: String,
    pub client: Client,
}

impl Stream {
    /// A new stream.
    pub async fn create(shards: i32) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("stream-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let retries = RetryConfig::standard().with_max_attempts(10).with_initial_backoff(Duration::from_millis(20));
        let config = aws_sdk_kinesis::config::Builder::from(&config(&endpoint())).retry_config(retries).build();
        let client = Client::from_conf(config);
        client.create_stream().stream_name(&name).shard_count(shards).send().await.unwrap();
        let stream = Self { name, client };
        stream.active().await;
        stream
    }

    async fn active(&self) {
        loop {
            let summary = self.client.describe_stream_summary().stream_name(&self.name).send().await.unwrap();
            if summary.stream_description_summary().unwrap().stream_status() == &StreamStatus::Active {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The stream as the product reaches it, directly or through a proxy.
    pub fn at(&self, endpoint: &str) -> Kinesis {
        Kinesis::new(&config(endpoint), &self.name)
    }

    pub fn kinesis(&self) -> Kinesis {
        self.at(&endpoint())
    }

    /// Puts records of (key, data).
    pub async fn put(&self, records: &[(String, Vec<u8>)]) {
        for some in records.chunks(500) {
            let entry = |(key, data): &(String, Vec<u8>)| {
                PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(data.clone())).build().unwrap()
            };
            let call = self.client.put_records().stream_name(&self.name);
            let put = call.set_records(Some(some.iter().map(entry).collect())).send().await.unwrap();
            assert_eq!(put.failed_record_count().unwrap_or(0), 0);
        }
    }

    /// Puts records whose data are their numbers.
    pub async fn put_numbers(&self, numbers: std::ops::Range<u32>) {
        let records: Vec<_> = numbers.map(|n| (format!("key-{}", n % 7), n.to_string().into_bytes())).collect();
        self.put(&records).await;
    }

    /// The shards that take records, by their hash keys.
    pub async fn open_shards(&self) -> Vec<Shard> {
        let mut open: BTreeMap<u128, Shard> = BTreeMap::new();
        let listed = self.client.list_shards().stream_name(&self.name).send().await.unwrap();
        for shard in listed.shards.unwrap_or_default() {
            if shard.sequence_number_range().unwrap().ending_sequence_number().is_none() {
                open.insert(hash_keys(&shard).0, shard);
            }
        }
        open.into_values().collect()
    }

    /// Splits the `i`th open shard in two, if it can be.
    pub async fn split(&self, i: usize) {
        let open = self.open_shards().await;
        let shard = &open[i % open.len()];
        let (start, end) = hash_keys(shard);
        if end - start < 4 {
            return;
        }
        let middle = start + (end - start) / 2;
        let call = self.client.split_shard().stream_name(&self.name).shard_to_split(shard.shard_id());
        call.new_starting_hash_key(middle.to_string()).send().await.unwrap();
        self.active().await;
    }

    /// Merges the `i`th open shard with the one behind it, if there are two.
    pub async fn merge(&self, i: usize) {
        let open = self.open_shards().await;
        if open.len() < 2 {
            return;
        }
        let i = i % (open.len() - 1);
        let call = self.client.merge_shards().stream_name(&self.name).shard_to_merge(open[i].shard_id());
        call.adjacent_shard_to_merge(open[i + 1].shard_id()).send().await.unwrap();
        self.active().await;
    }

    pub async fn delete(&self) {
        self.client.delete_stream().stream_name(&self.name).send().await.unwrap();
    }

    /// All records of a range.
    pub async fn read(&self, range: Range) -> Result<Vec<Record>> {
        let reader = Reader::start(self.kinesis(), range, limits()).await?;
        Ok(rest(reader).await?.into_iter().flat_map(|d| d.records).collect())
    }
}

fn hash_keys(shard: &Shard) -> (u128, u128) {
    let range = shard.hash_key_range().unwrap();
    (range.starting_hash_key().parse().unwrap(), range.ending_hash_key().parse().unwrap())
}

/// Limits for a server that has none of its own.
pub fn limits() -> Limits {
    Limits {
        interval: Duration::from_millis(1),
        settle: Duration::from_millis(100),
        backoff: Duration::from_millis(2),
        ..Limits::default()
    }
}

/// What is left of a read.
pub async fn rest(mut reader: Reader) -> Result<Vec<Delivery>> {
    let mut all = Vec::new();
    while let Some(delivery) = reader.next().await {
        all.push(delivery?);
    }
    Ok(all)
}

/// The numbers that [`Stream::put_numbers`] put, sorted.
pub fn numbers(records: &[Record]) -> Vec<u32> {
    let mut numbers: Vec<u32> = records.iter().map(number).collect();
    numbers.sort_unstable();
    numbers
}

pub fn number(record: &Record) -> u32 {
    std::str::from_utf8(&record.data).unwrap().parse().unwrap()
}

/// All that is in the stream now.
pub fn everything() -> Range {
    Range { from: Bound::Whole, to: Bound::Latest }
}
