//! Requests against the shapes that AWS publishes.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Checks requests of a service, each an operation and a body, and returns the operations.
pub fn check(service: &str, requests: &[(String, Value)]) -> BTreeSet<String> {
    let (fits, problems) = problems(service, requests);
    assert!(fits, "{problems}");
    requests.iter().map(|(operation, _)| operation.clone()).collect()
}

fn problems(service: &str, requests: &[(String, Value)]) -> (bool, String) {
    let venv = std::env::var_os("FEATURECTL_MOTO").expect("run ./test, which installs moto and with it botocore");
    let mut python = Command::new(PathBuf::from(venv).join("bin/python"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shapes.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python runs");
    let lines: String = requests.iter().map(|(o, body)| format!("{}\n", json!([service, o, body]))).collect();
    python.stdin.take().expect("its input").write_all(lines.as_bytes()).expect("it reads");
    let output = python.wait_with_output().expect("it ends");
    (output.status.success(), String::from_utf8(output.stdout).expect("UTF-8"))
}

#[test]
fn requests_of_another_shape_are_noticed() {
    let keys = json!([{ "AttributeName": "pk", "KeyType": "HASH" }]);
    let types = json!([{ "AttributeName": "pk", "AttributeType": "B" }]);
    let table = |name: &str| json!({ "TableName": name, "KeySchema": keys, "AttributeDefinitions": types });
    let of = |format: &str, table: Value| {
        let source = json!({ "S3Bucket": "bucket", "S3KeyPrefix": "p/" });
        json!({ "S3BucketSource": source, "InputFormat": format, "TableCreationParameters": table })
    };
    let mut more = of("ION", table("features"));
    more["Items"] = json!(3);
    let cases = [
        (of("DYNAMODB_JSON", table("features")), ""),
        (of("JSON", table("features")), "ImportTable.InputFormat is JSON, not one of"),
        (more, "ImportTable has a member Items, which the service does not know"),
        (of("ION", json!({ "TableName": "features", "KeySchema": keys })), "has no AttributeDefinitions"),
        (of("ION", table("")), "TableCreationParameters.TableName has or is 0, not 3 to 255"),
        (of("ION", table("a table")), "TableCreationParameters.TableName is a table, which is not like"),
        (
            of("ION", json!({ "TableName": 3, "KeySchema": keys, "AttributeDefinitions": types })),
            "TableName is no string",
        ),
    ];
    for (body, wanted) in cases {
        let (fits, said) = problems("dynamodb", &[("ImportTable".into(), body.clone())]);
        assert!(fits == wanted.is_empty() && said.contains(wanted), "{body}: {said}");
    }
}
