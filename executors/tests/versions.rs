//! An executor of another version, by its registration on the wire.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use ballista_core::BALLISTA_PROTOCOL_VERSION;
use ballista_core::serde::protobuf::executor_resource::Resource;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_core::serde::protobuf::{
    ExecutorOperatingSystemSpecification, ExecutorRegistration, ExecutorResource, ExecutorSpecification,
    RegisterExecutorParams,
};
use datafusion::execution::object_store::DefaultObjectStoreRegistry;
use featurectl_core::aggregate::Functions;
use featurectl_executors::cluster::{Address, Role, SchedulerOptions, scheduler};
use featurectl_executors::score::Fetch;

fn listening() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

#[tokio::test]
async fn an_executor_of_another_version_is_refused_by_name() {
    let port = listening().1;
    let options = SchedulerOptions { bind: "127.0.0.1".into(), port, tls: None };
    let role = Role {
        scalar: vec![],
        aggregations: Functions::default(),
        stores: Arc::new(DefaultObjectStoreRegistry::new()),
        fetch: Fetch::default(),
    };
    tokio::spawn(async move { scheduler(options, &role).await });
    let mut client = loop {
        match SchedulerGrpcClient::connect(format!("http://127.0.0.1:{port}")).await {
            Ok(client) => break client,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    // The scheduler tries the port that it would send tasks to.
    let (_tasks, grpc_port) = listening();
    let registration = |id: &str, protocol| ExecutorRegistration {
        id: id.into(),
        host: Some("127.0.0.1".into()),
        port: 1,
        grpc_port: grpc_port.into(),
        specification: Some(ExecutorSpecification {
            resources: vec![ExecutorResource { resource: Some(Resource::Vcores(1)) }],
        }),
        os_info: Some(ExecutorOperatingSystemSpecification::default()),
        ballista_protocol_version: protocol,
    };
    let older = registration("0.0.9-older", BALLISTA_PROTOCOL_VERSION);
    client.register_executor(RegisterExecutorParams { metadata: Some(older) }).await.expect("it is known");
    let address = Address::parse(&format!("df://127.0.0.1:{port}")).expect("an address");
    let refused = address.connect().await.expect_err("another version").to_string();
    for part in ["executor 0.0.9-older", "is featurectl 0.0.9", "install one version for all roles"] {
        assert!(refused.contains(part), "{refused}");
    }
    // One whose Ballista speaks otherwise does not get so far.
    let foreign = registration("0.0.8-foreign", BALLISTA_PROTOCOL_VERSION + 1);
    let refused = client.register_executor(RegisterExecutorParams { metadata: Some(foreign) }).await;
    let refused = refused.expect_err("another protocol");
    assert!(refused.message().contains("protocol version mismatch"), "{refused}");
}
