//! Single faults, and what becomes of a call.

use std::time::Duration;

use featurectl_core::{ErrorKind, OnlineStore, Result, Tile};
use featurectl_feature_store::DynamoStore;
use featurectl_feature_store::dynamodb::{Limits, Table};
use futures::future::join_all;
use serde_json::json;

use super::emulator::{client, config, endpoint, everything, items, limits, new_store, read, store_at, tile};
use super::proxy::{Call, Fault, Proxy, random};

/// A store in a new table, reached through a proxy.
async fn disturbed(decide: impl Fn(&Call) -> Fault + Send + Sync + 'static) -> (String, Proxy, DynamoStore) {
    let (name, _) = new_store().await;
    let proxy = Proxy::start(&endpoint(), decide).await;
    let store = store_at(&proxy.endpoint, &name).await;
    (name, proxy, store)
}

fn small(count: i64, position: u64) -> Vec<Tile> {
    (0..count).map(|start| tile(start, position, 20)).collect()
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_counted_as_what_it_was() {
    let (name, _proxy, store) = disturbed(|call| match (call.operation.as_str(), call.nth) {
        ("PutItem", 0 | 2 | 4) => Fault::DropAfter,
        _ => Fault::None,
    })
    .await;
    assert_eq!(store.put(vec![tile(0, 5, 10)]).await.expect("a write"), 1, "it stored, and the second attempt did not");
    assert_eq!(store.put(vec![tile(0, 5, 10)]).await.expect("a write"), 0, "another one had stored the same");
    assert_eq!(store.put(vec![tile(0, 4, 10)]).await.expect("a write"), 0);
    assert_eq!((read(&store).await, items(&name).await), (vec![tile(0, 5, 10)], 1));
}

#[tokio::test]
async fn a_time_of_throttling_passes() {
    let (_, proxy, store) = disturbed(|call| match (call.operation.as_str(), call.nth) {
        ("PutItem", 20..100) | ("Query", 0..3) => Fault::Refuse("ProvisionedThroughputExceededException"),
        _ => Fault::None,
    })
    .await;
    assert_eq!(store.put(small(300, 1)).await.expect("it passes"), 300);
    assert_eq!(read(&store).await, small(300, 1));
    assert_eq!(proxy.calls("PutItem"), 380, "nothing is written twice");
}

#[tokio::test]
async fn what_is_throttled_for_too_long_is_given_up() {
    let (name, proxy, store) = disturbed(|call| match call.operation.as_str() {
        "PutItem" | "Query" => Fault::Refuse("ProvisionedThroughputExceededException"),
        "BatchWriteItem" => Fault::Answer(json!({ "UnprocessedItems": call.body["RequestItems"] })),
        _ => Fault::None,
    })
    .await;
    let direct = store_at(&endpoint(), &name).await;
    direct.put(small(3, 1)).await.expect("a write");
    let write = store.put(vec![tile(0, 2, 10)]).await.expect_err("throttled");
    let read = store.read(&[everything()], 0).await.expect_err("throttled");
    let removal = store.remove(b"").await.expect_err("throttled");
    for error in [write, read, removal] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let text = error.to_string();
        assert!(text.contains("after 13 attempts: ") && text.contains(&format!("`{name}` is throttled")), "{text}");
    }
    assert_eq!([proxy.calls("PutItem"), proxy.calls("Query"), proxy.calls("BatchWriteItem")], [13; 3]);
    assert_eq!(super::emulator::read(&direct).await, small(3, 1), "nothing was changed");
}

#[tokio::test]
async fn pages_and_items_left_undone_are_asked_for_again() {
    let (name, proxy, store) = disturbed(|call| match call.operation.as_str() {
        "Query" | "Scan" => Fault::SmallPage,
        "BatchWriteItem" if call.nth % 3 < 2 => Fault::Unprocessed,
        _ => Fault::None,
    })
    .await;
    let tiles = [small(60, 1), vec![tile(60, 1, 1_700_000)]].concat();
    store.put(tiles.clone()).await.expect("a write");
    assert!(read(&store).await == tiles);
    assert!(proxy.calls("Query") > 30, "{} pages", proxy.calls("Query"));
    assert_eq!(store.remove(b"p").await.expect("a removal"), 61);
    assert_eq!(items(&name).await, 0);
}

#[tokio::test]
async fn writers_at_once_leave_the_newest_tile_whole_and_nothing_else() {
    for seed in 0..3 {
        let (name, proxy, _) = disturbed(move |call| match random(seed, call) % 100 {
            0..=4 => Fault::Refuse("ThrottlingException"),
            5..=9 => Fault::DropBefore,
            10..=14 => Fault::DropAfter,
            n @ 15..=60 => Fault::Delay(Duration::from_micros(n * 100)),
            _ => Fault::None,
        })
        .await;
        let sizes = [10, 500_000, 900_000, 20];
        let of = |start: i64, position: u64| tile(start, position, sizes[(position as usize + start as usize) % 4]);
        let write = async |writer: u64| {
            let store = store_at(&proxy.endpoint, &name).await;
            let mut stored = 0;
            for position in (writer..40).step_by(4) {
                stored += store.put((0..2).map(|start| of(start, position)).collect()).await.expect("a write");
            }
            stored
        };
        let watch = async {
            let store = store_at(&proxy.endpoint, &name).await;
            let mut last = [0; 2];
            for _ in 0..20 {
                for found in read(&store).await {
                    let position = found.position.low();
                    assert!(found == of(found.key.start, position), "a mixture of writes");
                    assert!(position >= last[found.key.start as usize], "an older one than before");
                    last[found.key.start as usize] = position;
                }
            }
        };
        let (stored, ()) = futures::join!(join_all((0..4).map(write)), watch);
        assert!(stored.iter().sum::<usize>() >= 2, "{stored:?}");
        let store = store_at(&endpoint(), &name).await;
        assert!(read(&store).await == [of(0, 39), of(1, 39)], "seed {seed}");
        let parts = |size: usize| if size > 380 * 1024 { size.div_ceil(380 * 1024) } else { 0 };
        let wanted: usize = (0..2).map(|start| 1 + parts(of(start, 39).partial.len())).sum();
        assert_eq!(items(&name).await, wanted, "seed {seed}: parts of older writes are gone");
    }
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    for (code, kind, wanted) in [
        ("AccessDeniedException", ErrorKind::Invalid, "actions that docs/dynamodb.md lists"),
        ("ExpiredTokenException", ErrorKind::Invalid, "sign in again"),
        ("UnrecognizedClientException", ErrorKind::Invalid, "credentials are not accepted"),
        ("UnknownOperationException", ErrorKind::Invalid, "does not know this operation"),
        ("ResourceNotFoundException", ErrorKind::NotFound, "create it, or correct its name, the region"),
    ] {
        let (name, proxy, store) = disturbed(move |call| match call.operation.as_str() {
            "DescribeTable" => Fault::None,
            _ => Fault::Refuse(code),
        })
        .await;
        let error = store.put(vec![tile(0, 1, 10)]).await.expect_err(code);
        assert_eq!((error.kind(), proxy.calls("PutItem")), (kind, 1), "{error}");
        let text = error.to_string();
        assert!(text.contains(wanted) && text.starts_with("writing to the online table `"), "{text}");
        assert!(text.contains(&name) && text.contains(code), "{text}");
    }
}

async fn open(config: &aws_config::SdkConfig) -> Result<DynamoStore> {
    let limits = Limits { failures: 2, ..limits() };
    DynamoStore::open(Table::new(config, "features"), limits).await
}

#[tokio::test]
async fn a_service_that_can_not_be_asked_is_a_clear_error() {
    let nobody = config("http://127.0.0.1:9");
    let error = open(&nobody).await.expect_err("nobody is there");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let text = "after 3 attempts: no answer from http://127.0.0.1:9: check the network, the region and the endpoint";
    assert!(error.to_string().contains(text), "{error}");

    let nameless = nobody.to_builder().region(None).build();
    let error = open(&nameless).await.expect_err("no region");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("no AWS region is set"), "{error}");

    let unsigned = aws_config::SdkConfig::builder()
        .behavior_version(aws_config::BehaviorVersion::latest())
        .region(aws_config::Region::new("us-east-1"))
        .endpoint_url(endpoint())
        .build();
    let error = open(&unsigned).await.expect_err("no credentials");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("no AWS credentials were found"), "{error}");
}

#[tokio::test]
async fn a_tile_of_another_layout_is_a_clear_error_for_reads_and_writes() {
    let (name, proxy, store) = disturbed(|_| Fault::None).await;
    let direct = store_at(&endpoint(), &name).await;
    store.put(small(1, 1)).await.expect("a write");
    let stored = client().scan().table_name(&name).send().await.expect("a page").items.unwrap_or_default();
    let mut item = stored.into_iter().next().expect("the tile");
    item.insert("v".into(), aws_sdk_dynamodb::types::AttributeValue::N("2".into()));
    client().put_item().table_name(&name).set_item(Some(item.clone())).send().await.expect("as a later version writes");
    for store in [&store, &direct] {
        let read = store.read(&[everything()], 0).await.expect_err("unknown");
        let write = store.put(small(1, 9)).await.expect_err("unknown");
        let big = store.put(vec![tile(0, 9, 500_000)]).await.expect_err("unknown");
        for error in [read, write, big] {
            assert_eq!(error.kind(), ErrorKind::Data, "{error}");
            assert!(error.to_string().contains("has the layout 2, and this featurectl reads 1"), "{error}");
        }
    }
    assert_eq!(items(&name).await, 1, "and nothing was written beside it");
    assert_eq!(proxy.calls("BatchWriteItem"), 0);
    assert_eq!(store.remove(b"p").await.expect("a removal"), 1, "it can be removed");
}
