//! Tables that are made, set up, found, or not.

use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableStatus,
};
use featurectl_core::{ErrorKind, OnlineStore, Result};
use featurectl_feature_store::DynamoStore;
use featurectl_feature_store::dynamodb::{Table, TableOptions};
use futures::future::join_all;
use serde_json::{Value, json};

use super::emulator::{client, config, endpoint, limits, name, read, tile};
use super::proxy::{Call, Fault, Proxy};

async fn create(endpoint: &str, name: &str, options: &TableOptions) -> Result<DynamoStore> {
    DynamoStore::create(Table::new(&config(endpoint), name), options, limits()).await
}

async fn open(name: &str) -> Result<DynamoStore> {
    DynamoStore::open(Table::new(&config(&endpoint()), name), limits()).await
}

async fn tags(name: &str) -> Vec<(String, String)> {
    let arn = format!("arn:aws:dynamodb:us-east-1:000000000000:table/{name}");
    let listed = client().list_tags_of_resource().resource_arn(arn).send().await.expect("its tags");
    listed.tags().iter().map(|t| (t.key().to_string(), t.value().to_string())).collect()
}

#[tokio::test]
async fn a_table_is_made_once_and_making_it_again_keeps_what_is_in_it() {
    let (endpoint, name, options) = (endpoint(), name(), TableOptions::default());
    assert_eq!(open(&name).await.expect_err("not yet").kind(), ErrorKind::NotFound);
    let stores = join_all((0..4).map(|_| create(&endpoint, &name, &options))).await;
    for (start, store) in (0..).zip(stores) {
        store.expect("made by one of four").put(vec![tile(start, 1, 10)]).await.expect("a write");
    }
    let store = create(&endpoint, &name, &options).await.expect("it is there");
    assert_eq!(read(&store).await.len(), 4);
    let described = client().describe_table().table_name(&name).send().await.expect("it is there").table;
    let described = described.expect("a description");
    assert_eq!(described.table_status(), Some(&TableStatus::Active));
    let billing = described.billing_mode_summary().and_then(|b| b.billing_mode());
    assert_eq!(billing, Some(&BillingMode::PayPerRequest));
}

#[tokio::test]
async fn a_table_gets_the_tags_that_it_does_not_have() {
    let name = name();
    let tagged = |value: &str| TableOptions { tags: vec![("run".into(), value.into())], ..TableOptions::default() };
    for value in ["1", "2"] {
        create(&endpoint(), &name, &tagged(value)).await.expect("a table");
    }
    assert_eq!(tags(&name).await, [("run".to_string(), "2".to_string())]);
}

#[tokio::test]
async fn answers_lost_while_a_table_is_made_change_nothing() {
    for fault in [Fault::DropAfter, Fault::DropBefore, Fault::Fail("InternalServerError")] {
        let chosen = fault.clone();
        let decide = move |call: &Call| if call.nth == 0 { chosen.clone() } else { Fault::None };
        let proxy = Proxy::start(&endpoint(), decide).await;
        let name = name();
        let options = TableOptions { tags: vec![("a".into(), "b".into())], ..TableOptions::default() };
        let store = create(&proxy.endpoint, &name, &options).await.expect("a table");
        assert_eq!(store.put(vec![tile(0, 1, 10)]).await.expect("a write"), 1, "{fault:?}");
        assert_eq!(proxy.calls("CreateTable"), 2);
    }
}

#[tokio::test]
async fn what_is_asked_for_and_can_not_be_had_is_an_error() {
    let plain = TableOptions::default();
    for (options, operation) in [
        (TableOptions { ttl: true, ..plain.clone() }, "UpdateTimeToLive"),
        (TableOptions { point_in_time_recovery: true, ..plain.clone() }, "DescribeContinuousBackups"),
        (TableOptions { deletion_protection: true, ..plain.clone() }, "UpdateTable"),
    ] {
        let proxy = Proxy::start(&endpoint(), |_| Fault::None).await;
        let error = create(&proxy.endpoint, &name(), &options).await.expect_err("the emulator has it not");
        assert_eq!((error.kind(), proxy.calls(operation)), (ErrorKind::Invalid, 1), "{error}");
        assert!(error.to_string().starts_with("making the online table `features-"), "{error}");
    }
}

/// Answers what the emulator does not know, as the service describes it, and keeps the requests.
fn answering(asked: Arc<Mutex<Vec<(String, Value)>>>, ttl: &'static str) -> impl Fn(&Call) -> Fault {
    move |call| {
        let answer = match call.operation.as_str() {
            "CreateTable" | "DescribeTable" => return Fault::None,
            "DescribeTimeToLive" if ttl.is_empty() => json!({ "TimeToLiveStatus": "DISABLED" }),
            "DescribeTimeToLive" => json!({ "TimeToLiveStatus": "ENABLED", "AttributeName": ttl }),
            _ => json!({}),
        };
        asked.lock().expect("no panic").push((call.operation.clone(), call.body.clone()));
        Fault::Answer(json!({ "TimeToLiveDescription": answer }))
    }
}

#[tokio::test]
async fn options_are_set_where_the_table_does_not_have_them() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let proxy = Proxy::start(&endpoint(), answering(asked.clone(), "")).await;
    let name = name();
    let options = TableOptions { ttl: true, point_in_time_recovery: true, deletion_protection: true, tags: vec![] };
    create(&proxy.endpoint, &name, &options).await.expect("a table");
    let asked = std::mem::take(&mut *asked.lock().expect("no panic"));
    let wanted = [
        ("UpdateTable", json!({ "TableName": name, "DeletionProtectionEnabled": true })),
        ("DescribeTimeToLive", json!({ "TableName": name })),
        (
            "UpdateTimeToLive",
            json!({ "TableName": name, "TimeToLiveSpecification": { "Enabled": true, "AttributeName": "ttl" } }),
        ),
        ("DescribeContinuousBackups", json!({ "TableName": name })),
        (
            "UpdateContinuousBackups",
            json!({
                "TableName": name, "PointInTimeRecoverySpecification": { "PointInTimeRecoveryEnabled": true }
            }),
        ),
    ];
    assert_eq!(asked, wanted.map(|(operation, body)| (operation.to_string(), body)));
}

#[tokio::test]
async fn a_table_that_deletes_already_is_left_or_refused() {
    for (attribute, wanted) in [("ttl", None), ("expires", Some("deletes by the attribute `expires`"))] {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let proxy = Proxy::start(&endpoint(), answering(asked, attribute)).await;
        let options = TableOptions { ttl: true, ..TableOptions::default() };
        let made = create(&proxy.endpoint, &name(), &options).await;
        assert_eq!(proxy.calls("UpdateTimeToLive"), 0);
        assert_eq!(made.is_ok(), wanted.is_none());
        if let (Err(error), Some(wanted)) = (made, wanted) {
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }
}

#[tokio::test]
async fn a_table_of_other_keys_is_refused() {
    let name = name();
    let attribute = |name, kind| AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build();
    let part = |name, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
    client()
        .create_table()
        .table_name(&name)
        .attribute_definitions(attribute("pk", ScalarAttributeType::B).expect("a key"))
        .attribute_definitions(attribute("sk", ScalarAttributeType::S).expect("a key"))
        .key_schema(part("pk", KeyType::Hash).expect("a key"))
        .key_schema(part("sk", KeyType::Range).expect("a key"))
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await
        .expect("a table of somebody's");
    let made = create(&endpoint(), &name, &TableOptions::default()).await.expect_err("other keys");
    let opened = open(&name).await.expect_err("other keys");
    for error in [made, opened] {
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("has not the keys `pk` and `sk`, both binary"), "{error}");
        assert!(error.to_string().contains("(pk HASH B, sk RANGE S)"), "{error}");
    }
}
