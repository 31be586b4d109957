use super::*;

fn declared() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
}

fn nothing() -> SchemaRef {
    Arc::new(Schema::empty())
}

fn table(location: &str, format: &str, declared: SchemaRef, options: &[(&str, &str)]) -> Result<StreamTable> {
    let options = options.iter().map(|(k, v)| (format!("format.{k}"), v.to_string())).collect();
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"));
    // Nothing of it waits for a service.
    futures::executor::block_on(StreamTable::new(location, format, &declared, &options, root, &Access::default()))
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_to_write() {
    let (json, kinesis) = ("JSON", "kinesis://clicks");
    for (result, expected) in [
        (table("s3://clicks", json, declared(), &[]), "`s3://clicks` is no stream"),
        (table("kinesis://", json, declared(), &[]), "is no stream"),
        (table(kinesis, "PARQUET", declared(), &[]), "STORED AS JSON, CSV, AVRO or PROTOBUF, not PARQUET"),
        (table(kinesis, json, nothing(), &[]), "declare the columns"),
        (table(kinesis, "avro", declared(), &[]), "leave the columns out"),
        (table(kinesis, "AVRO", nothing(), &[]), "set the option `schema`"),
        (table(kinesis, "AVRO", nothing(), &[("schema", "none.avsc")]), "none.avsc"),
        (table(kinesis, "PROTOBUF", nothing(), &[("descriptors", "shop.desc")]), "set the option `message`"),
        (table(kinesis, json, declared(), &[("form", "latest")]), "no option `form`; did you mean `from`?"),
        (table(kinesis, json, declared(), &[("message", "x")]), "option `message` means nothing for JSON"),
        (table(kinesis, json, declared(), &[("from", "now")]), "option `from`: `now` is no time"),
        (table(kinesis, json, declared(), &[("to", "shardId-1:x")]), "option `to`: `x` is not a sequence number"),
        (table(kinesis, json, declared(), &[("max_bad_share", "2")]), "from 0 to 1"),
        (table(kinesis, "CSV", declared(), &[("delimiter", "ab")]), "`ab` is not one ASCII character"),
        (table(kinesis, "CSV", declared(), &[("framing", "glue")]), "`framing` means nothing for CSV"),
        (table(kinesis, json, declared(), &[("registry", "confluent")]), "there is `glue`, not `confluent`"),
        (table(kinesis, json, declared(), &[("registry", "glue"), ("framing", "plain")]), "leave `framing` out"),
        (table(kinesis, "AVRO", nothing(), &[("schema", "glue://r/s")]), "needs the option `registry`"),
        (
            table(kinesis, "AVRO", nothing(), &[("schema", "glue://r"), ("registry", "glue")]),
            "write glue://registry/name",
        ),
    ] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let taken = Arc::new(Schema::new(vec![Field::new("_shard", DataType::Utf8, true)]));
    let error = table(kinesis, json, taken, &[("metadata", "true")]).unwrap_err();
    assert!(error.to_string().contains("a column `_shard`"), "{error}");
}

#[test]
fn options_say_where_a_range_starts_and_ends() {
    let options = [("from", "2026-01-31T12:00:00Z"), ("to", "shardId-000000000000:123.4,shardId-000000000001:end")];
    let table = table("kinesis://clicks/", "json", declared(), &options).unwrap();
    assert_eq!(table.stream, "clicks");
    assert_eq!(table.range.from, Bound::Time(1_769_860_800_000_000));
    assert_eq!(table.range.to, Bound::Positions(options[1].1.parse().unwrap()));
}

#[test]
fn columns_come_from_the_schema_of_the_format() {
    let options = [("descriptors", "shop.desc"), ("message", "shop.Other"), ("metadata", "true")];
    let table = table("kinesis://clicks", "protobuf", nothing(), &options).unwrap();
    let names: Vec<&String> = table.schema().fields().iter().map(|f| f.name()).collect();
    assert_eq!(names, ["name", "_shard", "_sequence", "_sub_sequence", "_arrival", "_partition_key"]);
}
