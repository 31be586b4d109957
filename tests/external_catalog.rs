//! `CREATE EXTERNAL CATALOG … STORED AS GLUE`: tables of another region and account by a name of their own.

use std::path::Path;
use std::process::Output;

use serde_json::json;

use crate::cli::text;
use crate::glue::moto::Proxy;
use crate::glue::{Glue, PARQUET, storage};

/// Databases and buckets are in us-east-1: for who is elsewhere, they are another region's.
fn elsewhere(glue: &Glue, folder: &Path, args: &[&str], endpoint: &str) -> Output {
    let mut command = glue.aws.command(folder, args);
    command.env("AWS_ENDPOINT_URL_GLUE", endpoint).env("AWS_REGION", "eu-west-1").output().expect("featurectl runs")
}

const CATALOG: &str =
    "CREATE EXTERNAL CATALOG Sales STORED AS GLUE OPTIONS (region 'us-east-1', 'catalog_id' '123456789012');\n";

#[test]
fn a_catalog_of_another_region_and_account_is_read_and_serving_does_not_need_it() {
    let glue = Glue::start("elsewhere");
    let folder = tempfile::tempdir().expect("a folder");
    let at = |endpoint: &str, verb: &str, sql: &str| {
        std::fs::write(folder.path().join("job.sql"), sql).expect("a job");
        elsewhere(&glue, folder.path(), &[verb, "job.sql", "-o", "csv"], endpoint)
    };
    std::fs::write(
        folder.path().join("rows.sql"),
        "COPY (SELECT value % 3 AS k, to_timestamp_micros(1704067200000000 + value * 3600000000) AS t, value AS v \
         FROM range(100)) TO 's3://elsewhere/events' STORED AS PARQUET;
         COPY (SELECT value AS v, value % 5 AS part FROM range(100)) TO 's3://elsewhere/parts' STORED AS PARQUET \
         PARTITIONED BY (part);",
    )
    .expect("a job");
    let wrote = glue.run(folder.path(), &["run", "rows.sql"]);
    assert!(wrote.status.success(), "{}", text(&wrote.stderr));
    glue.moto.call("CreateDatabase", &json!({ "DatabaseInput": { "Name": "lake" } }));
    let events = [("k", "bigint"), ("t", "timestamp"), ("v", "bigint")];
    glue.make("events", json!({ "StorageDescriptor": storage("s3://elsewhere/events/", PARQUET, json!({}), &events) }));
    let parts = |place: &str| storage(place, PARQUET, json!({}), &[("v", "bigint")]);
    let keys = json!([{ "Name": "part", "Type": "bigint" }]);
    glue.make("parts", json!({ "StorageDescriptor": parts("s3://elsewhere/parts/"), "PartitionKeys": keys }));
    for part in 0..3 {
        let place = format!("s3://elsewhere/parts/part={part}/");
        let input = json!({ "Values": [part.to_string()], "StorageDescriptor": parts(&place) });
        glue.moto
            .call("CreatePartition", &json!({ "DatabaseName": "lake", "TableName": "parts", "PartitionInput": input }));
    }

    let calls = Proxy::start(&glue.moto, |call| call.forward(&call.body));
    let sums = "SELECT (SELECT sum(v) FROM sales.lake.events) AS a, (SELECT count(*) FROM sales.lake.parts) AS b;\n";
    let read = at(&calls.endpoint, "run", &format!("{CATALOG}{sums}SHOW TABLES;"));
    let (said, rows) = (text(&read.stderr), text(&read.stdout));
    assert!(rows.contains("a,b\n4950,60\n"), "{rows}{said}");
    assert!(rows.contains("sales,lake,events,") && rows.contains("sales,lake,parts,"), "those that were named: {rows}");
    for operation in ["GetTable", "GetPartitions"] {
        let bodies = calls.calls(operation);
        assert!(!bodies.is_empty() && bodies.iter().all(|b| b["CatalogId"] == "123456789012"), "{bodies:?}");
    }
    // The one that needs no statement is that of the region.
    let own = at(&glue.endpoint, "check", "SELECT * FROM glue.lake.events;");
    assert!(text(&own.stderr).contains("no database `lake`"), "{}", text(&own.stderr));

    for (sql, parts) in [
        ("SELECT * FROM sales.lake.event;", &["job.sql:2:15", "`sales.lake.event`", "did you mean `events`?"][..]),
        ("SELECT * FROM sales.lakes.events;", &["job.sql:2:15", "no database `lakes`"][..]),
        ("CREATE EXTERNAL CATALOG sales STORED AS GLUE;", &["there is a catalog `sales` already"][..]),
        ("CREATE EXTERNAL CATALOG glue STORED AS GLUE;", &["there is a catalog `glue` already"][..]),
    ] {
        let output = at(&glue.endpoint, "check", &format!("{CATALOG}{sql}"));
        let said = text(&output.stderr);
        assert!(!output.status.success() && parts.iter().all(|part| said.contains(part)), "{sql}: {said}");
    }
    let refused = Proxy::start(&glue.moto, |call| call.refuse("AccessDeniedException"));
    let denied = at(&refused.endpoint, "check", &format!("{CATALOG}{sums}"));
    let denied = text(&denied.stderr);
    assert!(denied.contains("`sales.lake.events`") && denied.contains("give the role glue:GetTable"), "{denied}");

    // A view of it is served by a process that can't reach the catalog.
    let view = "CREATE FEATURE VIEW f ENTITY (k) EVENT TIME t WITH (online = true) AS SELECT sum(v) OVER d AS s
        FROM sales.lake.events WINDOW d AS (RANGE INTERVAL '1 day' PRECEDING);
        CREATE FEATURE SERVICE inputs (k BIGINT, at TIMESTAMP) AS SELECT f.s FROM request r
        ASOF JOIN f MATCH_CONDITION (r.at > f.t) ON r.k = f.k;
        MATERIALIZE FEATURE VIEW f;";
    let made = at(&glue.endpoint, "run", &format!("{CATALOG}{view}"));
    assert!(made.status.success(), "{}", text(&made.stderr));
    let get = ["get", "inputs", "k=1", "--at", "2024-01-04T00:00:00Z", "-o", "csv"];
    let served = elsewhere(&glue, folder.path(), &get, &refused.endpoint);
    // Of the hours from 48 on: 49, 52, …, 70.
    assert!(text(&served.stdout).ends_with("476\n"), "{}{}", text(&served.stdout), text(&served.stderr));
    let tables = || text(&elsewhere(&glue, folder.path(), &["show", "tables"], &refused.endpoint).stdout);
    assert!(tables().contains("sales.lake.events"), "{}", tables());
    let dropped = at(&glue.endpoint, "run", "DROP FEATURE SERVICE inputs; DROP FEATURE VIEW f;");
    assert!(dropped.status.success(), "{}", text(&dropped.stderr));
    assert!(!tables().contains("sales.lake.events"), "{}", tables());
}
