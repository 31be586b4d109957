//! Tiles that are bigger than an item.

use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use featurectl_core::{ErrorKind, OnlineStore, Tile};
use serde_json::{Value, json};

use super::emulator::{client, endpoint, everything, items, new_store, read, store_at, tile};
use super::proxy::{Call, Fault, Proxy};

const BIG: usize = 1_000_000;

/// Whether a call is for parts: their partition key begins with 2.
fn is_of_parts(call: &Call) -> bool {
    let key = match call.operation.as_str() {
        "Query" => &call.body["ExpressionAttributeValues"][":pk"]["B"],
        "PutItem" => &call.body["Item"]["pk"]["B"],
        _ => &Value::Null,
    };
    key.as_str().is_some_and(|key| BASE64.decode(key).expect("base64").starts_with(&[2]))
}

#[tokio::test]
async fn parts_of_a_tile_go_with_it() {
    let (name, store) = new_store().await;
    let put = async |tile| store.put(vec![tile]).await.expect("a write");
    for (position, size, count) in [(1, BIG, 4), (2, 2 * BIG, 7), (3, 500_000, 3), (4, 10, 1), (5, BIG, 4)] {
        assert_eq!(put(tile(0, position, size)).await, 1);
        assert_eq!(items(&name).await, count, "position {position}");
        assert_eq!(put(tile(0, position, BIG)).await, 0, "the same position");
        assert_eq!(put(tile(0, position - 1, BIG)).await, 0, "an older one");
        assert!(read(&store).await == [tile(0, position, size)]);
        assert_eq!(items(&name).await, count, "what was refused leaves nothing");
    }
    assert_eq!(store.remove(b"").await.expect("a removal"), 1);
    assert_eq!(items(&name).await, 0);
}

#[tokio::test]
async fn what_a_writer_left_that_ended_in_the_middle_goes_with_the_next_write() {
    let (name, store) = new_store().await;
    let lose_headers = |call: &Call| match call.operation.as_str() {
        "PutItem" if !is_of_parts(call) => Fault::DropBefore,
        _ => Fault::None,
    };
    let proxy = Proxy::start(&endpoint(), lose_headers).await;
    let broken = store_at(&proxy.endpoint, &name).await;
    for _ in 0..2 {
        let error = broken.put(vec![tile(0, 1, BIG)]).await.expect_err("its header is lost");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    assert_eq!((items(&name).await, read(&store).await), (6, vec![]), "parts without a header are no tile");
    assert_eq!(store.put(vec![tile(0, 1, BIG)]).await.expect("the same again"), 1);
    assert_eq!(items(&name).await, 4);
}

#[tokio::test]
async fn an_expired_tile_costs_one_query() {
    let (name, store) = new_store().await;
    store.put(vec![Tile { expires_at: Some(100), ..tile(0, 1, BIG) }]).await.expect("a write");
    let proxy = Proxy::start(&endpoint(), |_| Fault::None).await;
    let store = store_at(&proxy.endpoint, &name).await;
    assert_eq!(store.read(&[everything()], 100).await.expect("a read"), [vec![]]);
    assert_eq!(proxy.calls("Query"), 1);
    assert_eq!(store.read(&[everything()], 99).await.expect("a read")[0].len(), 1);
    assert!(proxy.calls("Query") > 2);
}

#[tokio::test]
async fn a_big_tile_that_is_not_newer_costs_one_read() {
    let (name, store) = new_store().await;
    store.put(vec![tile(0, 5, 10)]).await.expect("a write");
    let proxy = Proxy::start(&endpoint(), |_| Fault::None).await;
    let store = store_at(&proxy.endpoint, &name).await;
    let puts = [store.put(vec![tile(0, 5, BIG)]).await, store.put(vec![tile(0, 4, BIG)]).await];
    assert_eq!(puts.map(|put| put.expect("a write")), [0, 0]);
    assert_eq!((proxy.calls("GetItem"), proxy.calls("PutItem")), (2, 0));
}

#[tokio::test]
async fn a_tile_that_lost_parts_is_an_error_and_never_a_shorter_tile() {
    let (name, store) = new_store().await;
    store.put(vec![tile(0, 1, BIG)]).await.expect("a write");
    let lose_parts = |call: &Call| match call.operation.as_str() {
        "Query" if is_of_parts(call) => Fault::Answer(json!({ "Items": [], "Count": 0, "ScannedCount": 0 })),
        _ => Fault::None,
    };
    let proxy = Proxy::start(&endpoint(), lose_parts).await;
    let error = store_at(&proxy.endpoint, &name).await.read(&[everything()], 0).await.expect_err("no parts");
    assert_eq!(error.kind(), ErrorKind::Data, "{error}");
    assert!(error.to_string().contains("a tile has lost parts"), "{error}");
}

#[tokio::test]
async fn a_tile_that_goes_or_expires_while_it_is_read_is_left_out() {
    let (name, store) = new_store().await;
    store.put(vec![tile(0, 1, BIG)]).await.expect("a write");
    let mut expired = header_of(&name).await;
    expired["w"] = json!({ "B": "AAAAAAAAAAA=" });
    expired["ex"] = json!({ "N": "0" });
    for header in [json!({}), json!({ "Item": expired })] {
        let replace = move |call: &Call| match call.operation.as_str() {
            "Query" if is_of_parts(call) => Fault::Answer(json!({ "Items": [], "Count": 0, "ScannedCount": 0 })),
            "GetItem" => Fault::Answer(header.clone()),
            _ => Fault::None,
        };
        let proxy = Proxy::start(&endpoint(), replace).await;
        let found = store_at(&proxy.endpoint, &name).await.read(&[everything()], 0).await.expect("a read");
        assert_eq!((found, proxy.calls("GetItem")), (vec![vec![]], 1));
    }
}

#[tokio::test]
async fn a_tile_that_is_replaced_all_the_time_is_given_up() {
    let (name, store) = new_store().await;
    store.put(vec![tile(0, 1, BIG)]).await.expect("a write");
    let header = header_of(&name).await;
    let replace = move |call: &Call| match call.operation.as_str() {
        "Query" if is_of_parts(call) => Fault::Answer(json!({ "Items": [], "Count": 0, "ScannedCount": 0 })),
        "GetItem" => {
            let mut newer = header.clone();
            newer["w"] = json!({ "B": format!("AAAAAAAAAA{}=", if call.nth.is_multiple_of(2) { 'A' } else { 'E' }) });
            Fault::Answer(json!({ "Item": newer }))
        }
        _ => Fault::None,
    };
    let proxy = Proxy::start(&endpoint(), replace).await;
    let error = store_at(&proxy.endpoint, &name).await.read(&[everything()], 0).await.expect_err("no end");
    assert_eq!((error.kind(), proxy.calls("GetItem")), (ErrorKind::Unavailable, 10), "{error}");
    assert!(error.to_string().contains("replaced 10 times while it was read"), "{error}");
}

/// The header of the only tile, as it is on the wire.
async fn header_of(table: &str) -> Value {
    let items = client().scan().table_name(table).send().await.expect("a page").items;
    let header = items.unwrap_or_default().into_iter().find(|item| item.contains_key("pos")).expect("a header");
    let typed = |value| match value {
        AttributeValue::B(bytes) => json!({ "B": BASE64.encode(bytes) }),
        AttributeValue::N(n) => json!({ "N": n }),
        other => panic!("{other:?} is not of the layout"),
    };
    header.into_iter().map(|(name, value)| (name, typed(value))).collect()
}
