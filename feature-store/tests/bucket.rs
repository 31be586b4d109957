//! The offline store and the registry in a bucket, by the emulator ministack.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use datafusion::catalog::Session;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::object_store::RetryConfig;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::SessionContext;
use featurectl_aws::Buckets;
use featurectl_core::ErrorKind;
use featurectl_core::sink::SinkPlanner;
use featurectl_core::sql::ObjectKind;
use featurectl_feature_store::{Folder, Manifest, OfflineStore, Registry, Replace};
use ministack::Ministack;

use super::process;

#[path = "../../aws/tests/ministack.rs"]
mod ministack;

fn buckets() -> Arc<Buckets> {
    static SERVER: OnceLock<Ministack> = OnceLock::new();
    let server = SERVER.get_or_init(|| {
        let server = Ministack::start(concat!(env!("CARGO_MANIFEST_DIR"), "/../aws/tests/until_closed.py"));
        server.make_bucket("features");
        server
    });
    let credentials = Credentials::new("key", "secret", None, None, "tests");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(server.endpoint())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build();
    Arc::new(Buckets::of(&config, RetryConfig::default()))
}

fn folder(name: &str) -> Folder {
    Folder::parse(&format!("s3://features/{name}"), Path::new(""), &buckets(), &buckets()).expect("a folder")
}

#[derive(Debug)]
struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        let planners = vec![Arc::new(SinkPlanner) as _];
        DefaultPhysicalPlanner::with_extension_planners(planners).create_physical_plan(plan, session).await
    }
}

fn session() -> SessionContext {
    let runtime = RuntimeEnvBuilder::new().with_object_store_registry(buckets()).build_arc().expect("a runtime");
    let state = SessionStateBuilder::new().with_default_features().with_runtime_env(runtime);
    SessionContext::new_with_state(state.with_query_planner(Arc::new(Planner)).build())
}

fn manifest(input: String) -> Manifest {
    Manifest {
        kind: "training set".into(),
        name: "t".into(),
        definition_hash: String::new(),
        run_id: format!("run{input}"),
        input_hash: input,
        sources: vec![],
        columns: vec![],
        base: String::new(),
        units: vec![],
    }
}

const COMMITS: u64 = 12;

/// Adds rows in [`COMMITS`] versions, each again until nobody was faster; returns how often somebody was.
async fn writer(name: &'static str) -> u64 {
    let (ctx, store) = (session(), OfflineStore::new(folder("offline")));
    let mut lost = 0;
    for number in 0..COMMITS {
        let rows = format!("SELECT '{name}' AS writer, {number} AS number, value AS id FROM range(10)");
        loop {
            let plan = ctx.state().create_logical_plan(&rows).await.expect("a plan");
            let latest = store.latest("t").await.expect("a table");
            let manifest = manifest(format!("{name}-{number}-{lost}"));
            match store.write(&ctx, "t", plan, manifest, Replace::Nothing, latest).await {
                Ok(_) => break,
                Err(e) if e.kind() == ErrorKind::Conflict => lost += 1,
                Err(e) => panic!("{e}"),
            }
        }
    }
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_writers_of_one_table_lose_no_commit() {
    let store = OfflineStore::new(folder("offline"));
    assert!(store.latest("t").await.expect("a bucket").is_none());
    let (one, other) = tokio::join!(tokio::spawn(writer("one")), tokio::spawn(writer("other")));
    let lost = one.expect("it ends") + other.expect("it ends");
    assert!(lost > 0, "the writers never met");
    let ctx = session();
    let table = store.read("t").await.expect("a table");
    ctx.register_table("t", table).expect("a table");
    let counted =
        "SELECT writer, count(*) AS rows, count(DISTINCT number) AS commits FROM t GROUP BY writer ORDER BY writer";
    let found = ctx.sql(counted).await.expect("a plan").collect().await.expect("rows");
    let found = arrow::util::pretty::pretty_format_batches(&found).expect("text").to_string();
    for name in ["one", "other"] {
        let line = found.lines().find(|l| l.contains(&format!(" {name} "))).unwrap_or_else(|| panic!("{found}"));
        let numbers: Vec<u64> = line.split('|').filter_map(|n| n.trim().parse().ok()).collect();
        assert_eq!(numbers, [10 * COMMITS, COMMITS], "{found}");
    }
    let version = store.latest("t").await.expect("a table").expect("a version");
    assert_eq!((version.number as u64 + 1, version.rows), (2 * COMMITS, 20 * COMMITS));
    // Files of the attempts that lost are in no version.
    let orphans = store.orphans().await.expect("orphans");
    assert!(orphans.len() as u64 >= lost, "{lost} attempts lost, {} files are left", orphans.len());
    assert!(store.remove("t").expect("it can be removed") && store.latest("t").await.expect("a bucket").is_none());
}

#[test]
fn a_registry_in_a_bucket_is_like_one_in_a_folder() {
    let root = folder("a b/registry");
    let registry = Registry::new(root.clone());
    assert!(registry.list(ObjectKind::Model).expect("a list").is_empty());
    let lock = registry.lock().expect("nobody has it");
    lock.check().expect("it is held");
    let entry = |name: &str, order| featurectl_feature_store::Entry {
        name: name.into(),
        sql: "SELECT 'é'".into(),
        definition_hash: "h".into(),
        order,
        upstream: vec![],
        run_id: "r".into(),
        columns: vec![],
        state: serde_json::json!({ "version": 7 }),
    };
    for (name, order) in [("b", 1), ("a", 2), ("c", 0)] {
        registry.put(ObjectKind::Model, &entry(name, order)).expect("an entry");
    }
    let names: Vec<_> = registry.list(ObjectKind::Model).expect("a list").into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["c", "b", "a"]);
    assert_eq!(registry.get(ObjectKind::Model, "a").expect("an answer"), Some(entry("a", 2)));
    assert!(registry.remove(ObjectKind::Model, "a").expect("an answer"));
    assert!(!registry.remove(ObjectKind::Model, "a").expect("an answer"));
    assert_eq!(registry.get(ObjectKind::Model, "a").expect("an answer"), None);
    registry.put_run("1", &"first").expect("a run");
    assert_eq!(registry.runs::<String>().expect("runs"), ["first"]);
    drop(lock);
    let keys: Vec<_> = root.below().expect("keys").into_iter().map(|(name, _)| name).collect();
    assert_eq!(keys, ["model/b.json", "model/c.json", "run/1.json"], "the lock was given back");
    root.write("model/b.json", b"{".to_vec()).expect("a file");
    let damaged = registry.list(ObjectKind::Model).expect_err("it is damaged").to_string();
    assert!(damaged.contains("s3://features/a%20b/registry/model/b.json is damaged"), "{damaged}");
    assert!(root.remove_all().expect("they can be removed") && root.below().expect("a list").is_empty());
}
