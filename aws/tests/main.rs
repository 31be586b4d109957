//! Buckets by the emulator ministack, and by a proxy that refuses requests as S3 does.

mod ministack;
mod process;
mod proxy;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use datafusion::execution::object_store::ObjectStoreRegistry;
use featurectl_aws::Buckets;
use featurectl_core::{Error, ErrorKind};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{BackoffConfig, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig, UpdateVersion};
use url::Url;

use ministack::Ministack;
use proxy::{Proxy, Refusal, Request};

const SECRET: &str = "theSecretKeyTheSecretKey";
const TOKEN: &str = "theSessionTokenTheSessionToken";

fn emulator() -> &'static Ministack {
    static SERVER: OnceLock<Ministack> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = Ministack::start(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/until_closed.py"));
        server.make_bucket("features");
        server
    })
}

fn config(endpoint: &str) -> SdkConfig {
    let credentials = Credentials::new("AKIDEXAMPLE", SECRET, Some(TOKEN.into()), None, "tests");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

/// A bucket that is asked again at once, three times.
fn bucket_at(endpoint: &str, bucket: &str) -> Arc<dyn ObjectStore> {
    let wait = Duration::from_millis(5);
    let backoff = BackoffConfig { init_backoff: wait, max_backoff: 4 * wait, base: 2.0 };
    let retries = RetryConfig { backoff, max_retries: 3, retry_timeout: Duration::from_secs(60) };
    let url = Url::parse(&format!("s3://{bucket}/x")).expect("a URL");
    Buckets::of(&config(endpoint), retries).get_store(&url).expect("any bucket has a store")
}

fn key(text: &str) -> Path {
    Path::parse(text).expect("a key")
}

#[tokio::test]
async fn objects_are_written_read_listed_and_removed() {
    let store = bucket_at(&emulator().endpoint(), "features");
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    store.put(&key("a/b=1/x y.bin"), bytes.clone().into()).await.expect("a put");
    assert_eq!(store.get_range(&key("a/b=1/x y.bin"), 250..252).await.expect("a range"), vec![250, 0]);
    assert_eq!(store.get(&key("a/b=1/x y.bin")).await.expect("an object").bytes().await.expect("bytes"), bytes);
    let mut upload = object_store::buffered::BufWriter::with_capacity(Arc::clone(&store), key("a/large"), 5 << 20);
    for part in 0..3_u8 {
        upload.put(vec![part; 5 << 20].into()).await.expect("a part");
    }
    tokio::io::AsyncWriteExt::shutdown(&mut upload).await.expect("the upload ends");
    assert_eq!(store.head(&key("a/large")).await.expect("an object").size, 15 << 20);
    let found: Vec<_> =
        store.list(Some(&key("a"))).map_ok(|o| o.location.to_string()).try_collect().await.expect("a list");
    assert_eq!(found, ["a/b=1/x y.bin", "a/large"]);
    store.delete(&key("a/large")).await.expect("a removal");
    let missing = store.get(&key("a/large")).await.expect_err("it is gone");
    assert!(matches!(missing, object_store::Error::NotFound { .. }), "{missing}");
}

#[tokio::test]
async fn of_many_puts_of_one_key_one_is_the_first() {
    let store = bucket_at(&emulator().endpoint(), "features");
    let create = |n: u8| {
        let store = Arc::clone(&store);
        async move { store.put_opts(&key("race"), vec![n].into(), PutMode::Create.into()).await.is_ok() }
    };
    let won: Vec<bool> = futures::future::join_all((0..16).map(create)).await;
    assert_eq!(won.iter().filter(|w| **w).count(), 1, "{won:?}");
    let tag = store.head(&key("race")).await.expect("an object").e_tag;
    let known = PutOptions::from(PutMode::Update(UpdateVersion { e_tag: tag, version: None }));
    store.put_opts(&key("race"), vec![100].into(), known.clone()).await.expect("nobody changed it");
    let late = store.put_opts(&key("race"), vec![101].into(), known).await.expect_err("it was changed");
    assert!(matches!(late, object_store::Error::Precondition { .. }), "{late}");
}

fn own(e: &object_store::Error) -> &Error {
    Error::within(e).unwrap_or_else(|| panic!("not explained: {e}"))
}

/// What each way to use a bucket says when all is refused.
async fn all_errors(store: Arc<dyn ObjectStore>) -> Vec<object_store::Error> {
    let object = key("data/x.parquet");
    vec![
        store.get(&object).await.expect_err("it is refused"),
        store.head(&object).await.expect_err("it is refused"),
        store.put(&object, "x".into()).await.expect_err("it is refused"),
        store.put_multipart(&object).await.expect_err("it is refused"),
        store.list(Some(&key("data"))).try_next().await.expect_err("it is refused"),
        store.list_with_delimiter(Some(&key("data"))).await.expect_err("it is refused"),
        store.delete(&object).await.expect_err("it is refused"),
        store.copy(&object, &key("data/y.parquet")).await.expect_err("it is refused"),
    ]
}

async fn refused(refusal: Refusal, kind: ErrorKind, parts: &[&str]) {
    let proxy = Proxy::start("", move |_: &Request| Some(refusal.clone()));
    for e in all_errors(bucket_at(&proxy.endpoint, "features")).await {
        let text = e.to_string();
        assert_eq!(own(&e).kind(), kind, "{text}");
        for part in parts.iter().chain(&["features"]) {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
        let all = format!("{text} {e:?}");
        for secret in [SECRET, TOKEN, "AKIDEXAMPLE"] {
            assert!(!all.contains(secret), "{secret} is in: {all}");
        }
    }
}

#[tokio::test]
async fn what_s3_refuses_is_said_with_place_and_fix() {
    let invalid = ErrorKind::Invalid;
    refused(Refusal::new(403, "AccessDenied", "Access Denied"), invalid, &["not allowed to", "give the role s3:"])
        .await;
    refused(
        Refusal::new(404, "NoSuchBucket", "The specified bucket does not exist"),
        ErrorKind::NotFound,
        &["no bucket `features`", "correct its name"],
    )
    .await;
    refused(
        Refusal::new(
            403,
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
        ),
        invalid,
        &["this machine's clock is wrong", "chrony"],
    )
    .await;
    let echoed = "<Token-0>theSessionTokenTheSessionToken</Token-0>";
    refused(
        Refusal { more: echoed, ..Refusal::new(400, "ExpiredToken", "The provided token has expired.") },
        invalid,
        &["the session's token has expired", "aws sso login"],
    )
    .await;
    let signed = "<AWSAccessKeyId>AKIDEXAMPLE</AWSAccessKeyId><CanonicalRequest>x-amz-security-token:\
                  theSessionTokenTheSessionToken</CanonicalRequest>";
    refused(
        Refusal {
            more: signed,
            ..Refusal::new(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.")
        },
        invalid,
        &["the credentials are not accepted"],
    )
    .await;
    refused(
        Refusal {
            more: "<Region>us-west-2</Region>",
            ..Refusal::new(
                400,
                "AuthorizationHeaderMalformed",
                "the region 'us-east-1' is wrong; expecting 'us-west-2'",
            )
        },
        invalid,
        &["it is in us-west-2", "set AWS_REGION"],
    )
    .await;
    refused(
        Refusal::new(301, "PermanentRedirect", "The bucket must be addressed using the specified endpoint."),
        invalid,
        &["is not in region us-east-1", "get-bucket-location --bucket features"],
    )
    .await;
    refused(
        Refusal::new(400, "KMS.DisabledException", "the key is disabled"),
        invalid,
        &["S3 refused to", "the key is disabled"],
    )
    .await;
}

#[tokio::test]
async fn throttled_requests_are_made_again_and_then_given_up() {
    let slow = Refusal::new(503, "SlowDown", "Please reduce your request rate.");
    let again = slow.clone();
    let proxy = Proxy::start(&emulator().endpoint(), move |r| (r.nth % 3 != 2).then(|| again.clone()));
    let store = bucket_at(&proxy.endpoint, "features");
    store.put(&key("slow"), "x".into()).await.expect("the third attempt is carried out");
    assert_eq!(store.get(&key("slow")).await.expect("the third again").bytes().await.expect("bytes"), "x");
    assert_eq!(proxy.seen().len(), 6);
    refused(slow, ErrorKind::Unavailable, &["no more requests", "fewer threads"]).await;
    refused(
        Refusal::new(500, "InternalError", "We encountered an internal error."),
        ErrorKind::Unavailable,
        &["disturbed"],
    )
    .await;
}

/// Gives other credentials each time, the first of them for a minute only.
#[derive(Debug, Default)]
struct Rotating(AtomicU32);

impl ProvideCredentials for Rotating {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        let seconds = if number == 0 { 60 } else { 3600 };
        #[expect(clippy::disallowed_methods, reason = "credentials expire by this machine's clock")]
        let until = std::time::SystemTime::now() + Duration::from_secs(seconds);
        let (key, token) = (format!("AKID{number}"), Some(format!("token{number}")));
        future::ProvideCredentials::ready(Ok(Credentials::new(key, SECRET, token, Some(until), "tests")))
    }
}

#[tokio::test]
async fn credentials_are_held_until_shortly_before_they_expire() {
    let proxy = Proxy::start(&emulator().endpoint(), |_| None::<Refusal>);
    let provider = SharedCredentialsProvider::new(Rotating::default());
    let config = config(&proxy.endpoint).into_builder().credentials_provider(provider).build();
    let buckets = Buckets::of(&config, RetryConfig::default());
    let url = Url::parse("s3://features").expect("a URL");
    for _ in 0..4 {
        buckets.get_store(&url).expect("a store").put(&key("held"), "x".into()).await.expect("a put");
    }
    let used = |number: u32| proxy.seen().iter().filter(|r| r.head.contains(&format!("token{number}"))).count();
    assert_eq!([used(0), used(1), used(2)], [1, 3, 0], "a minute is too short to begin a request");
}

#[tokio::test]
async fn nobody_at_the_address_and_no_credentials_are_said() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let store = bucket_at(&format!("http://{unused}"), "features");
    let e = store.get(&key("x")).await.expect_err("nobody is there");
    assert_eq!(own(&e).kind(), ErrorKind::Unavailable);
    assert!(e.to_string().contains("no answer for s3://features/x from http://127.0.0.1"), "{e}");
    let config =
        SdkConfig::builder().behavior_version(BehaviorVersion::latest()).region(Region::new("eu-west-1")).build();
    let buckets = Buckets::of(&config, RetryConfig::default());
    let store = buckets.get_store(&Url::parse("s3://features").expect("a URL")).expect("a store");
    let e = store.get(&key("x")).await.expect_err("there are no credentials");
    assert_eq!(own(&e).kind(), ErrorKind::Invalid);
    assert!(e.to_string().contains("no AWS credentials were found"), "{e}");
    let config = SdkConfig::builder().behavior_version(BehaviorVersion::latest()).build();
    let buckets = Buckets::of(&config, RetryConfig::default());
    let store = buckets.get_store(&Url::parse("s3://features").expect("a URL")).expect("a store");
    let e = store.get(&key("x")).await.expect_err("there is no region");
    assert!(e.to_string().contains("no AWS region is set for s3://features: set AWS_REGION"), "{e}");
}
