//! One emulator a test process, and tables in it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use featurectl_core::{OnlineStore, Tile, TileKey, TileRange};
use featurectl_feature_store::DynamoStore;
use featurectl_feature_store::dynamodb::{Limits, Table, TableOptions};

use super::process::Process;
use super::server::dynalite;

/// Address of the emulator.
pub fn endpoint() -> String {
    static SERVER: OnceLock<Process> = OnceLock::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dynamodb/until_closed.js");
    SERVER.get_or_init(|| dynalite(script)).endpoint()
}

/// How the tests reach a service at this address.
pub fn config(endpoint: &str) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new("key", "secret", None, None, "tests")))
        .build()
}

/// The emulator's own client, for what the product does not do.
pub fn client() -> aws_sdk_dynamodb::Client {
    aws_sdk_dynamodb::Client::new(&config(&endpoint()))
}

/// A name that no other table has.
pub fn name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("features-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Limits for a server that has none of its own.
pub fn limits() -> Limits {
    Limits { backoff: Duration::from_millis(2), failures: 12, ..Limits::default() }
}

/// The store in a new table.
pub async fn new_store() -> (String, DynamoStore) {
    let name = name();
    let table = Table::new(&config(&endpoint()), &name);
    let store = DynamoStore::create(table, &TableOptions::default(), limits()).await.expect("a table");
    (name, store)
}

/// The store in a table that is there, reached by another address.
pub async fn store_at(endpoint: &str, name: &str) -> DynamoStore {
    DynamoStore::open(Table::new(&config(endpoint), name), limits()).await.expect("the table is there")
}

/// A tile of `size` bytes, which differ from one position to the next.
pub fn tile(start: i64, position: u64, size: usize) -> Tile {
    Tile {
        key: TileKey { partition: b"p".to_vec(), length: 10, start, writer: "w".into() },
        position: position.into(),
        last_event: start,
        expires_at: None,
        partial: (0..size).map(|i| (i as u64 * 7 + position) as u8).collect(),
    }
}

/// All that [`tile`] makes.
pub fn everything() -> TileRange {
    TileRange { partition: b"p".to_vec(), length: 10, start: i64::MIN, end: i64::MAX, writer: None }
}

/// All tiles, none of them expired.
pub async fn read(store: &DynamoStore) -> Vec<Tile> {
    store.read(&[everything()], i64::MIN).await.expect("tiles can be read").remove(0)
}

/// How many items the table has.
pub async fn items(table: &str) -> usize {
    let mut pages = client().scan().table_name(table).consistent_read(true).into_paginator().send();
    let mut count = 0;
    while let Some(page) = pages.next().await {
        count += page.expect("a page").items().len();
    }
    count
}
