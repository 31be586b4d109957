//! The Glue catalog: tables of ours in it, and tables of it in SQL. Glue is moto, S3 ministack.

use std::path::Path;
use std::process::Output;

use moto::{Moto, Proxy};
use serde_json::{Value, json};

use crate::cli::text;
use crate::cluster::Cluster;
use crate::s3::proxy::{Fault, Proxy as S3Proxy};
use crate::s3::{Aws, project_on};

#[path = "glue/moto.rs"]
pub(crate) mod moto;

pub(crate) struct Glue {
    pub(crate) aws: Aws,
    pub(crate) moto: Moto,
    /// Where calls go.
    pub(crate) endpoint: String,
}

impl Glue {
    pub(crate) fn start(bucket: &str) -> Self {
        let (aws, moto) = (Aws::start(bucket), Moto::start());
        Self { aws, endpoint: moto.endpoint(), moto }
    }

    pub(crate) fn run(&self, folder: &Path, args: &[&str]) -> Output {
        self.aws.command(folder, args).env("AWS_ENDPOINT_URL_GLUE", &self.endpoint).output().expect("featurectl runs")
    }

    fn ok(&self, folder: &Path, args: &[&str]) -> String {
        let output = self.run(folder, args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn job(&self, folder: &Path, sql: &str) -> Output {
        std::fs::write(folder.join("one.sql"), sql).expect("a job");
        let profile = folder.join("featurectl.toml").is_file();
        self.run(
            folder,
            &[if profile { &["--profile", "aws"][..] } else { &[] }, &["run", "one.sql", "-o", "csv"]].concat(),
        )
    }

    fn rows(&self, folder: &Path, sql: &str) -> String {
        let output = self.job(folder, sql);
        assert!(output.status.success(), "{sql}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn fails(&self, folder: &Path, sql: &str, parts: &[&str]) {
        let output = self.job(folder, sql);
        let said = text(&output.stderr);
        assert!(!output.status.success(), "{sql}: {}", text(&output.stdout));
        for part in parts {
            assert!(said.contains(part), "`{part}` is not in: {said}");
        }
        assert!(!said.contains("panicked"), "{said}");
    }

    fn table(&self, database: &str, name: &str) -> Value {
        self.moto.call("GetTable", &json!({ "DatabaseName": database, "Name": name }))["Table"].clone()
    }

    /// Puts an object.
    fn put(&self, key: &str, body: &[u8]) {
        use std::io::{Read, Write};
        let place = self.aws.s3.endpoint();
        let mut stream = std::net::TcpStream::connect(place.trim_start_matches("http://")).expect("S3");
        let head =
            format!("PUT /{key} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), body].concat()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// Makes a table as another tool does.
    pub(crate) fn make(&self, name: &str, table: Value) {
        let mut input = json!({ "Name": name, "TableType": "EXTERNAL_TABLE", "PartitionKeys": [], "Parameters": {} });
        input.as_object_mut().expect("an object").extend(table.as_object().expect("an object").clone());
        self.moto.call("CreateTable", &json!({ "DatabaseName": "lake", "TableInput": input }));
    }
}

pub(crate) fn catalog(folder: &Path, bucket: &str, more: &str) {
    let text = format!(
        "[profile.aws]\nstore = \"s3://{bucket}/team/features\"\nonline = \"dynamodb://{bucket}\"\n\
         catalog = \"glue://features\"\n{more}\n[profile.aws.variables]\nout = \"s3://{bucket}/out\"\n\
         [profile.default.variables]\nout = \"out\"\n"
    );
    std::fs::write(folder.join("featurectl.toml"), text).expect("a profile");
}

pub(crate) fn storage(location: &str, serde: &str, serde_parameters: Value, columns: &[(&str, &str)]) -> Value {
    let columns: Vec<_> = columns.iter().map(|(n, t)| json!({ "Name": n, "Type": t })).collect();
    let input = if serde.contains("Parquet") {
        "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat"
    } else {
        "org.apache.hadoop.mapred.TextInputFormat"
    };
    json!({
        "Columns": columns, "Location": location, "InputFormat": input, "OutputFormat": "x",
        "SerdeInfo": { "SerializationLibrary": serde, "Parameters": serde_parameters },
    })
}

pub(crate) const PARQUET: &str = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe";

fn is_unchanged(report: &str) -> bool {
    let report: Value = serde_json::from_str(report).expect("JSON");
    report["steps"].as_array().expect("steps").iter().all(|s| s["unchanged"] == true)
}

#[test]
fn what_a_job_commits_is_in_the_catalog_and_another_project_reads_it_by_name() {
    let glue = Glue::start("catalog");
    let folder = project_on(&glue.aws, "catalog");
    catalog(folder.path(), "catalog", "");
    let job = std::fs::read_to_string(folder.path().join("aws.sql")).expect("the job");
    let copies = "COPY (SELECT payment_id, paid_at, amount, customer FROM payments) TO '${out}/By Customer' \
                  STORED AS PARQUET PARTITIONED BY (customer);";
    std::fs::write(folder.path().join("aws.sql"), format!("{job};\n{copies}")).expect("a job");
    let planned = glue.ok(folder.path(), &["--profile", "aws", "plan", "aws.sql"]);
    assert!(planned.contains("online dynamodb://catalog, glue://features/customer_spending"), "{planned}");
    assert!(planned.contains("(parquet), glue://features/by_customer"), "{planned}");
    let ran = glue.run(folder.path(), &["--profile", "aws", "run", "aws.sql"]);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    assert!(text(&ran.stderr).contains("columns, glue://features/fraud_set"), "{}", text(&ran.stderr));

    let table = glue.table("features", "fraud_set");
    assert_eq!(table["TableType"], "EXTERNAL_TABLE");
    let place = "s3://catalog/team/features/offline/fraud_set";
    let parameters = &table["Parameters"];
    assert_eq!(parameters["table_type"], "DELTA");
    assert_eq!(parameters["spark.sql.sources.provider"], "delta");
    assert_eq!(table["StorageDescriptor"]["Location"], format!("{place}/"));
    assert_eq!(table["StorageDescriptor"]["SerdeInfo"]["Parameters"]["path"], place);
    let columns = table["StorageDescriptor"]["Columns"].to_string();
    for column in [
        r#"{"Name":"payment_id","Type":"bigint"}"#,
        r#"{"Name":"paid_at","Type":"timestamp"}"#,
        r#"{"Name":"fraud","Type":"boolean"}"#,
        r#"{"Name":"_date","Type":"date"}"#,
    ] {
        assert!(columns.contains(column), "{column} is not in {columns}");
    }
    let parts = glue.table("features", "by_customer");
    assert_eq!(parts["PartitionKeys"][0]["Name"], "customer");
    assert_eq!(parts["StorageDescriptor"]["Location"], "s3://catalog/out/By Customer/");
    assert_eq!(parts["StorageDescriptor"]["SerdeInfo"]["SerializationLibrary"], PARQUET);

    // Another project, which knows nothing but the catalog.
    let other = tempfile::tempdir().expect("a folder");
    let both = |by_name: &str, by_place: &str| {
        let found = glue.rows(other.path(), by_name);
        let wanted = glue.rows(other.path(), by_place);
        assert!(found.lines().count() > 100, "{found}");
        assert_eq!(found, wanted);
    };
    let delta = |table: &str, order: &str| {
        both(
            &format!("SELECT * FROM glue.features.{table} ORDER BY {order}"),
            &format!(
                "CREATE EXTERNAL TABLE t STORED AS DELTA LOCATION 's3://catalog/team/features/offline/{table}';
                 SELECT * FROM t ORDER BY {order}"
            ),
        );
    };
    delta("fraud_set", "payment_id");
    both(
        "SELECT * FROM glue.features.scores ORDER BY 1",
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 's3://catalog/out/scores'; SELECT * FROM t ORDER BY 1",
    );
    both(
        "SELECT payment_id, amount, customer FROM glue.features.by_customer WHERE customer < 'c2' ORDER BY 1",
        "CREATE EXTERNAL TABLE t STORED AS DELTA LOCATION 's3://catalog/team/features/offline/fraud_set';
         SELECT payment_id, amount, customer FROM t WHERE customer < 'c2' ORDER BY 1",
    );
    let cluster = Cluster::with_environment(1, &glue.aws.environment());
    let sql = "COPY (SELECT customer, count(*) AS n, sum(amount) AS s FROM glue.features.by_customer GROUP BY customer) \
               TO 's3://catalog/n' STORED AS PARQUET;";
    std::fs::write(other.path().join("n.sql"), sql).expect("a job");
    glue.ok(other.path(), &["run", "n.sql", "--cluster", &cluster.address()]);
    assert_eq!(cluster.jobs(), 1);
    let there = "CREATE EXTERNAL TABLE n STORED AS PARQUET LOCATION 's3://catalog/n'; \
                 SELECT customer, n, round(s, 6) AS s FROM n ORDER BY 1";
    let here =
        "SELECT customer, count(*) AS n, round(sum(amount), 6) AS s FROM glue.features.fraud_set GROUP BY 1 ORDER BY 1";
    assert_eq!(glue.rows(other.path(), there), glue.rows(other.path(), here));

    assert!(is_unchanged(&glue.ok(folder.path(), &["--profile", "aws", "run", "aws.sql", "-o", "json"])));
    // A table that somebody deleted comes back.
    glue.moto.call("DeleteTable", &json!({ "DatabaseName": "features", "Name": "fraud_set" }));
    assert!(!is_unchanged(&glue.ok(folder.path(), &["--profile", "aws", "run", "aws.sql", "-o", "json"])));
    assert_eq!(glue.table("features", "fraud_set")["Parameters"]["table_type"], "DELTA");

    let drop = "DROP MODEL fraud; DROP TRAINING SET fraud_set; DROP FEATURE SERVICE fraud_inputs; \
                DROP FEATURE VIEW customer_spending";
    glue.rows(folder.path(), drop);
    let tables = glue.moto.call("GetTables", &json!({ "DatabaseName": "features" })).to_string();
    assert!(!tables.contains("fraud_set") && !tables.contains("customer_spending"), "{tables}");
    glue.fails(other.path(), "SELECT * FROM glue.features.scoress", &["one.sql:1:15", "did you mean `scores`?"]);
}

#[test]
fn partitions_are_registered_in_batches_and_read_page_by_page() {
    let mut glue = Glue::start("batches");
    let folder = tempfile::tempdir().expect("a folder");
    catalog(folder.path(), "batches", "");
    // Pages of 90, which the service has and moto has not; every other batch is carried out and then lost once.
    let proxy = Proxy::start(&glue.moto, |call| match call.operation {
        "GetPartitions" => {
            let from: usize = call.body["NextToken"].as_str().map_or(0, |t| t.parse().expect("a token of ours"));
            let mut body = call.body.clone();
            body.as_object_mut().expect("an object").remove("NextToken");
            let (status, mut answer) = call.forward(&body);
            let all = answer["Partitions"].as_array().cloned().unwrap_or_default();
            answer["Partitions"] = all.iter().skip(from).take(90).cloned().collect::<Vec<_>>().into();
            if from + 90 < all.len() {
                answer["NextToken"] = (from + 90).to_string().into();
            }
            (status, answer)
        }
        "BatchCreatePartition" if call.nth == 6 => call.refuse("ConcurrentModificationException"),
        "BatchCreatePartition" if call.nth < 6 && call.nth % 2 == 0 => {
            call.forward(&call.body);
            (500, json!({ "__type": "InternalServiceException", "Message": "made up by the test" }))
        }
        _ => call.forward(&call.body),
    });
    glue.endpoint = proxy.endpoint.clone();
    let copy = |values: usize| {
        format!(
            "COPY (SELECT value AS id, CASE WHEN value % {values} = 7 THEN NULL ELSE concat('p/', value % {values}) END AS \"Part\"
             FROM range(1000)) TO 's3://batches/parts' STORED AS PARQUET PARTITIONED BY (Part);"
        )
    };
    glue.rows(folder.path(), &copy(250));
    let sizes: Vec<_> = proxy
        .calls("BatchCreatePartition")
        .iter()
        .map(|b| b["PartitionInputList"].as_array().expect("partitions").len())
        .collect();
    assert_eq!(sizes, [100, 100, 100, 100, 50, 50], "each was made again, since its answer was lost");
    let sums = "SELECT count(*) AS n, sum(id) AS s, count(DISTINCT part) AS parts, count(*) FILTER (WHERE part IS NULL) AS nulls
                FROM glue.features.parts";
    assert_eq!(glue.rows(folder.path(), sums), "n,s,parts,nulls\n1000,499500,249,4\n");
    assert!(proxy.calls("GetPartitions").len() >= 4);
    let lists = S3Proxy::start(&glue.aws.s3.endpoint(), |_| None::<Fault>);
    let direct = std::mem::replace(&mut glue.aws.s3_endpoint, lists.endpoint.clone());
    assert_eq!(glue.rows(folder.path(), &format!("{sums} WHERE part = 'p/3'")), "n,s,parts,nulls\n4,1512,1,0\n");
    let listed = lists.seen().iter().filter(|r| r.head.contains("prefix=parts")).count();
    assert!((1..4).contains(&listed), "{listed} folders were listed, of 250");
    glue.aws.s3_endpoint = direct;
    assert_eq!(
        glue.rows(folder.path(), "SELECT id FROM glue.features.parts WHERE part IS NULL AND id > 700 ORDER BY id"),
        "id\n757\n"
    );

    // Nothing is new; then some partitions are, and those that are gone are empty.
    glue.rows(folder.path(), &copy(250));
    assert_eq!(proxy.calls("BatchCreatePartition").len(), 6);
    assert_eq!(proxy.calls("UpdateTable").len(), 0);
    glue.rows(folder.path(), &copy(300));
    let new = proxy.calls("BatchCreatePartition").split_off(6);
    let sizes: Vec<_> = new.iter().map(|b| b["PartitionInputList"].as_array().expect("partitions").len()).collect();
    assert_eq!(sizes, [50, 50], "only new ones, and again after a lost race");
    assert_eq!(glue.rows(folder.path(), sums), "n,s,parts,nulls\n1000,499500,299,4\n");
}

#[test]
fn a_table_is_registered_by_the_next_run_and_another_ones_is_never_touched() {
    let mut glue = Glue::start("refused");
    let folder = tempfile::tempdir().expect("a folder");
    catalog(folder.path(), "refused", "");
    let copy =
        |n: usize| format!("COPY (SELECT value AS id FROM range({n})) TO 's3://refused/out/ids' STORED AS PARQUET;");
    let refused = Proxy::start(&glue.moto, |call| match call.operation {
        "CreateTable" => call.refuse("AccessDeniedException"),
        _ => call.forward(&call.body),
    });
    let direct = std::mem::replace(&mut glue.endpoint, refused.endpoint.clone());
    glue.fails(
        folder.path(),
        &copy(10),
        &["one.sql:1", "s3://refused/out/ids/, whole", "run again to register", "glue:CreateTable", "docs/aws.md"],
    );
    glue.endpoint = direct;
    glue.rows(folder.path(), &copy(10));
    assert_eq!(glue.rows(folder.path(), "SELECT count(*) AS n FROM glue.features.ids"), "n\n10\n");

    // Throttled, overtaken by another who makes the same table, and by one who changes it.
    glue.moto.call("DeleteTable", &json!({ "DatabaseName": "features", "Name": "ids" }));
    let races = Proxy::start(&glue.moto, |call| match (call.operation, call.nth) {
        ("GetTable", 0) => call.refuse("ThrottlingException"),
        ("CreateTable", 0) => {
            let mut body = call.body.clone();
            body["TableInput"]["StorageDescriptor"]["Columns"][0]["Type"] = "int".into();
            body["TableInput"]["Parameters"]["note"] = "theirs".into();
            call.forward(&body);
            call.refuse("AlreadyExistsException")
        }
        ("UpdateTable", 0) => call.refuse("ConcurrentModificationException"),
        _ => call.forward(&call.body),
    });
    glue.endpoint = races.endpoint.clone();
    glue.rows(folder.path(), &copy(10));
    let table = glue.table("features", "ids");
    assert_eq!(table["StorageDescriptor"]["Columns"][0]["Type"], "bigint");
    assert_eq!(table["Parameters"]["note"], "theirs");
    assert_eq!(races.calls("UpdateTable").len(), 2);

    // A table of the same name that is not ours, and one of ours with other files.
    glue.rows(folder.path(), &copy(11));
    glue.fails(
        folder.path(),
        "COPY (SELECT 1 AS id) TO 's3://refused/other/ids' STORED AS PARQUET;",
        &["glue://features/ids", "has its files at s3://refused/out/ids/, not at s3://refused/other/ids/"],
    );
    let theirs = storage("s3://refused/theirs", PARQUET, json!({}), &[("x", "int")]);
    let input = json!({ "Name": "theirs", "StorageDescriptor": theirs, "TableType": "EXTERNAL_TABLE" });
    glue.moto.call("CreateTable", &json!({ "DatabaseName": "features", "TableInput": input }));
    let before = glue.table("features", "theirs");
    glue.fails(
        folder.path(),
        "COPY (SELECT 1 AS id) TO 's3://refused/out/theirs' STORED AS PARQUET;",
        &["featurectl did not make (at s3://refused/theirs)", "name another database"],
    );
    assert_eq!(glue.table("features", "theirs"), before);
    glue.fails(
        folder.path(),
        "COPY (SELECT arrow_cast(1, 'UInt64') AS n) TO 's3://refused/out/unsigned' STORED AS PARQUET;",
        &["column `n`", "CAST it to BIGINT"],
    );

    let toml = |text: &str| std::fs::write(folder.path().join("featurectl.toml"), text).expect("a file");
    toml("[profile.aws]\ncatalog = \"glue://features\"\n");
    glue.fails(folder.path(), "SELECT 1", &["profile `aws`: catalog", "store = \"s3://bucket/prefix\""]);
    toml("[profile.aws]\nstore = \"s3://refused/x\"\ncatalog = \"Features\"\n");
    glue.fails(folder.path(), "SELECT 1", &["profile `aws`: catalog", "glue://DATABASE"]);
}

#[test]
fn tables_of_other_tools_are_read_as_the_catalog_describes_them() {
    let glue = Glue::start("lake");
    let folder = tempfile::tempdir().expect("a folder");
    glue.moto.call("CreateDatabase", &json!({ "DatabaseInput": { "Name": "lake" } }));
    let rows = |sql: &str| glue.rows(folder.path(), sql);
    let columns =
        [("id", "int"), ("name", "string"), ("amount", "decimal(10,2)"), ("at", "timestamp"), ("ok", "boolean")];

    // Text as Hive writes it: nothing is quoted, `\N` is NULL, hidden files are none of the table's.
    glue.put("lake/text/part-0", b"1\x01\"a\x011.50\x012024-01-02 03:04:05\x01true\n2\x01\\N\x01\\N\x01\\N\x01\\N\n");
    glue.put("lake/text/_temporary/part-1", b"no rows\n");
    glue.put("lake/text/.crc", b"no rows\n");
    let lazy = "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe";
    glue.make("text", json!({ "StorageDescriptor": storage("s3://lake/text", lazy, json!({}), &columns) }));
    let found = rows("SELECT id, name, amount, at, ok FROM glue.lake.text ORDER BY id");
    assert_eq!(found, "id,name,amount,at,ok\n1,\"\"\"a\",1.50,2024-01-02T03:04:05,true\n2,,,,\n");
    assert_eq!(rows("SELECT sum(amount) AS s FROM glue.lake.text WHERE name IS NOT NULL AND id < 5"), "s\n1.50\n");

    // CSV with a header, partitions in places of their own, and a folder that the catalog does not have.
    glue.put("lake/csv/day=1/a.csv", b"id;name\n1;\"x;y\"\n");
    glue.put("lake/elsewhere/b.csv", b"id;name\n2;z\n");
    glue.put("lake/csv/day=3/c.csv", b"id;name\n3;not registered\n");
    let csv = "org.apache.hadoop.hive.serde2.OpenCSVSerde";
    let stored = |place: &str| storage(place, csv, json!({ "separatorChar": ";" }), &columns[..2]);
    glue.make(
        "csv",
        json!({ "StorageDescriptor": stored("s3://lake/csv/"), "Parameters": { "skip.header.line.count": "1" },
                "PartitionKeys": [{ "Name": "day", "Type": "int" }] }),
    );
    let partition = |table: &str, value: &str, storage: Value| {
        let input = json!({ "Values": [value], "StorageDescriptor": storage });
        glue.moto
            .call("CreatePartition", &json!({ "DatabaseName": "lake", "TableName": table, "PartitionInput": input }));
    };
    partition("csv", "1", stored("s3://lake/csv/day=1"));
    partition("csv", "2", stored("s3a://lake/elsewhere/"));
    assert_eq!(rows("SELECT day, id, name FROM glue.lake.csv ORDER BY day"), "day,id,name\n1,1,x;y\n2,2,z\n");
    assert_eq!(rows("SELECT name FROM glue.lake.csv c WHERE c.day + 1 = 3"), "name\nz\n");
    assert_eq!(rows("SELECT count(*) AS n FROM glue.lake.csv WHERE day > 5"), "n\n0\n");

    // JSON and Parquet with names in another case than the catalog's, which has none.
    glue.put(
        "lake/json/a.json",
        b"{\"userId\": 7, \"Tags\": [\"a\", \"b\"], \"inner\": {\"X\": 1.5}}\n{\"userId\": 8}\n",
    );
    let nested = [("userid", "bigint"), ("tags", "array<string>"), ("inner", "struct<x:double>")];
    glue.make("json", json!({ "StorageDescriptor": storage("s3://lake/json", "org.openx.data.jsonserde.JsonSerDe", json!({}), &nested) }));
    let found =
        rows("SELECT userid, array_to_string(tags, '+') AS t, \"inner\"['X'] AS x FROM glue.lake.json ORDER BY 1");
    assert_eq!(found, "userid,t,x\n7,a+b,1.5\n8,,\n");
    rows(
        "COPY (SELECT value AS \"userId\", value * 2.0 AS \"Score\" FROM range(10)) TO 's3://lake/cased' STORED AS PARQUET",
    );
    let cased = [("score", "double"), ("userid", "int"), ("added_later", "string")];
    glue.make("cased", json!({ "StorageDescriptor": storage("s3://lake/cased", PARQUET, json!({}), &cased) }));
    let found =
        rows("SELECT sum(userid) AS u, sum(score) AS s, count(added_later) AS a FROM glue.lake.cased WHERE userid > 4");
    assert_eq!(found, "u,s,a\n35,70.0,0\n");

    // A feature view over such a table; its files are the units of its backfill.
    let view = "CREATE FEATURE VIEW spent ENTITY (name) EVENT TIME at AS SELECT sum(id) OVER d AS s FROM glue.lake.text \
                WINDOW d AS (RANGE INTERVAL '1 day' PRECEDING); MATERIALIZE FEATURE VIEW spent;";
    rows(view);
    let again = |what: &str| {
        std::fs::write(folder.path().join("view.sql"), view).expect("a job");
        assert_eq!(
            is_unchanged(&glue.ok(folder.path(), &["run", "view.sql", "-o", "json"])),
            what == "unchanged",
            "{what}"
        );
    };
    again("unchanged");
    glue.put("lake/text/part-1", b"3\x01b\x012\x012024-01-02 04:00:00\x01false\n");
    again("a new file");

    // What can't be read says which table, why, and what to do.
    let fails = |sql: &str, parts: &[&str]| glue.fails(folder.path(), sql, parts);
    let orc = json!({ "Columns": [], "Location": "s3://lake/orc", "InputFormat": "org.apache.hadoop.hive.ql.io.orc.OrcInputFormat",
                      "SerdeInfo": { "SerializationLibrary": "org.apache.hadoop.hive.ql.io.orc.OrcSerde" } });
    glue.make("orc", json!({ "StorageDescriptor": orc }));
    fails(
        "SELECT 1 AS a, o.* FROM glue.lake.orc o",
        &["one.sql:1:25", "table `glue.lake.orc`", "OrcSerde", "write its rows to Parquet"],
    );
    fails("SELECT * FROM glue.lake.texts", &["table `glue.lake.texts`", "no such table in Glue; did you mean `text`?"]);
    fails("SELECT * FROM glue.pond.text", &["there is no database `pond` in Glue"]);
    glue.make(
        "far",
        json!({ "StorageDescriptor": stored("s3://lake/csv/"), "PartitionKeys": [{ "Name": "day", "Type": "int" }] }),
    );
    partition("far", "1", stored("s3://pond/day=1"));
    fails("SELECT * FROM glue.lake.far", &["partition (1)", "bucket `pond`", "UNION ALL"]);
    glue.make(
        "odd",
        json!({ "StorageDescriptor": storage("s3://lake/json", PARQUET, json!({}), &[("x", "uniontype<int>")]) }),
    );
    fails("SELECT * FROM glue.lake.odd", &["column `x`", "`uniontype<int>` can't be read"]);
    glue.make("hdfs", json!({ "StorageDescriptor": storage("hdfs://n/x", PARQUET, json!({}), &[("x", "int")]) }));
    fails("SELECT * FROM glue.lake.hdfs", &["`hdfs://n/x` can't be read: only s3:// can"]);
    glue.make("wrong", json!({ "StorageDescriptor": storage("s3://lake/json", PARQUET, json!({}), &[("x", "int")]) }));
    fails("SELECT * FROM glue.lake.wrong", &["table `glue.lake.wrong`", "s3://lake/json/a.json"]);
}
