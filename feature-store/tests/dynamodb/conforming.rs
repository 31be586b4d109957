//! The promises of every online store, kept by this one, also where every tenth call is disturbed.

use std::time::Duration;

use featurectl_feature_store::conformance::conformance;

use super::emulator::{endpoint, items, new_store, store_at};
use super::proxy::{Call, Fault, Proxy, random};

#[tokio::test]
async fn the_store_conforms_and_leaves_nothing() {
    let (name, store) = new_store().await;
    conformance(&store).await;
    assert_eq!(items(&name).await, 0);
}

/// All that the service and the network may do, for about every tenth call.
fn disturbed(seed: u64) -> impl Fn(&Call) -> Fault {
    move |call| {
        let n = random(seed, call);
        match n % 100 {
            0 => Fault::Refuse("ProvisionedThroughputExceededException"),
            1 => Fault::Refuse("ThrottlingException"),
            2 => Fault::Fail("InternalServerError"),
            3 => Fault::DropBefore,
            4 => Fault::DropAfter,
            5 => Fault::Cut,
            6..=14 => Fault::Delay(Duration::from_micros(n / 100 % 5_000)),
            15..=44 if call.operation.starts_with("Batch") => Fault::Unprocessed,
            15..=24 if call.operation == "Query" => Fault::SmallPage,
            _ => Fault::None,
        }
    }
}

#[tokio::test]
async fn the_store_conforms_through_faults_and_leaves_nothing() {
    let (name, _) = new_store().await;
    let proxy = Proxy::start(&endpoint(), disturbed(7)).await;
    conformance(&store_at(&proxy.endpoint, &name).await).await;
    assert_eq!(items(&name).await, 0);
    for operation in ["PutItem", "Query", "Scan", "BatchWriteItem", "BatchGetItem"] {
        assert!(proxy.disturbed(operation) > 0, "{operation} was never disturbed");
    }
}
