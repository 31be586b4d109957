use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::pretty::pretty_format_batches;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn check(decoder: &dyn Decode, payloads: &[&[u8]], expected: Expect) {
    let decoded = super::decode(decoder, payloads).unwrap();
    let table = pretty_format_batches(&[decoded.batch]).unwrap();
    let bad: String = decoded.bad.iter().map(|(i, reason)| format!("\nbad {i}: {reason}")).collect();
    expected.assert_eq(&format!("{table}\nfrom {:?}{bad}", decoded.origins));
}

fn table() -> Arc<Schema> {
    let at = DataType::Timestamp(TimeUnit::Microsecond, None);
    let tags = DataType::new_list(DataType::Int32, true);
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("amount", DataType::Float64, true),
        Field::new("at", at, true),
        Field::new("tags", tags, true),
    ]))
}

fn flat() -> Arc<Schema> {
    Arc::new(Schema::new(table().fields()[..4].to_vec()))
}

#[test]
fn json_objects_become_rows_and_bad_ones_do_not_spoil_their_neighbours() {
    check(
        &JsonDecoder::new(table()),
        &[
            br#"{"id":1,"name":"a","amount":1.5,"at":"2026-01-31T12:00:00.000001Z","tags":[1,2],"other":{"x":[1]}}"#,
            br#"{"id":"#,
            br#"2}"#,
            br#"{"id":1.5}"#,
            br#"{"id":9007199254740993}"#,
            b"{\"id\":3}\n{\"id\":4}\n",
            br#"{"id":5}{"id":6} {"id":7}"#,
            br#"{"id":"x"}"#,
            br#"{"id":8} tail"#,
            b"",
            b" \n",
            b"[1]",
            b"12",
            b"\xff\xfe",
            br#"{"tags":[1.5]}"#,
            br#"{"at":"yesterday"}"#,
            br#"{"id":true}"#,
            br#"{"id":99999999999999999999}"#,
            br#"{"name":null}"#,
        ],
        expect![[r#"
            +------------------+------+--------+----------------------------+--------+
            | id               | name | amount | at                         | tags   |
            +------------------+------+--------+----------------------------+--------+
            | 1                | a    | 1.5    | 2026-01-31T12:00:00.000001 | [1, 2] |
            | 9007199254740993 |      |        |                            |        |
            | 3                |      |        |                            |        |
            | 4                |      |        |                            |        |
            | 5                |      |        |                            |        |
            | 6                |      |        |                            |        |
            | 7                |      |        |                            |        |
            |                  |      |        |                            |        |
            +------------------+------+--------+----------------------------+--------+
            from [0, 4, 5, 5, 6, 6, 6, 18]
            bad 1: it is not a whole JSON object
            bad 2: Json error: Encountered unexpected '}' whilst parsing value
            bad 3: column `id`: Cast error: Cannot cast string '1.5' to value of Int64 type
            bad 7: column `id`: Cast error: Cannot cast string 'x' to value of Int64 type
            bad 8: Json error: Encountered unexpected 'a' whilst parsing literal
            bad 9: it holds no row, or not a whole number of them
            bad 10: it holds no row, or not a whole number of them
            bad 11: Json error: expected { got [1]
            bad 12: it is not a whole JSON object
            bad 13: Json error: Encountered unexpected 'ÿ' whilst parsing value
            bad 14: column `tags`: Cast error: Cannot cast string '1.5' to value of Int32 type
            bad 15: Json error: whilst decoding field 'at': failed to parse "yesterday" as Timestamp(µs): Parser error: Error parsing timestamp from 'yesterday': timestamp must contain at least 10 characters
            bad 16: column `id`: Cast error: Cannot cast string 'true' to value of Int64 type
            bad 17: column `id`: Cast error: Cannot cast string '99999999999999999999' to value of Int64 type"#]],
    );
}

#[test]
fn csv_lines_become_rows_and_bad_ones_do_not_spoil_their_neighbours() {
    check(
        &CsvDecoder::new(flat(), b','),
        &[
            b"1,a,1.5,2026-01-31T12:00:00",
            b"2,\"b, \"\"quoted\"\"\nsecond line\",,\n",
            b"3,\"open quote,1,",
            b"4,d,4,\n5,e,5,\n",
            b"6,too,many,,fields",
            b"7,few",
            b"x,f,1,",
            b"8,5\" disk,8,",
            b"",
            b"\n",
            b"9,\xff,1,",
            b"10,last,10,\r\n",
            b"1.5,int,1,",
        ],
        expect![[r#"
            +----+-------------+--------+---------------------+
            | id | name        | amount | at                  |
            +----+-------------+--------+---------------------+
            | 1  | a           | 1.5    | 2026-01-31T12:00:00 |
            | 2  | b, "quoted" |        |                     |
            |    | second line |        |                     |
            | 4  | d           | 4.0    |                     |
            | 5  | e           | 5.0    |                     |
            | 8  | 5" disk     | 8.0    |                     |
            | 10 | last        | 10.0   |                     |
            +----+-------------+--------+---------------------+
            from [0, 1, 3, 3, 7, 11]
            bad 2: it ends within quotes
            bad 4: Csv error: incorrect number of fields for line 1, expected 4 got 5
            bad 5: Csv error: incorrect number of fields for line 1, expected 4 got 2
            bad 6: Parser error: Error while parsing value 'x' as type 'Int64' for column 0 at line 0.
            bad 8: it holds no row, or not a whole number of them
            bad 9: it holds no row, or not a whole number of them
            bad 10: Csv error: Encountered invalid UTF-8 data for line 1 and field 2
            bad 12: Parser error: Error while parsing value '1.5' as type 'Int64' for column 0 at line 0."#]],
    );
}

fn golden(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn payloads(list: &Value) -> Vec<Vec<u8>> {
    let list = list.as_array().unwrap().iter();
    list.map(|p| BASE64_STANDARD.decode(p.as_str().unwrap()).unwrap()).collect()
}

fn avro_golden() -> Vec<Value> {
    golden(include_str!("../../tests/golden/avro.jsonl"))
}

fn avro(framing: Framing, ids: &[(&str, &str)]) -> AvroDecoder {
    let schemas = avro_golden()[0]["schemas"].clone();
    let text = |name: &str| schemas[name].to_string();
    let writers: BTreeMap<SchemaId, String> = ids.iter().map(|(id, name)| (id.parse().unwrap(), text(name))).collect();
    AvroDecoder::new(&text("reader"), &writers, framing).unwrap()
}

#[test]
fn plain_avro_is_read_with_its_schema() {
    let good = payloads(&avro_golden()[1]["plain"]);
    let tail = [good[0].as_slice(), &[0]].concat();
    let all: Vec<&[u8]> = vec![&good[0], &good[0][..5], &tail, b"", &good[1], &[0xff; 30]];
    check(
        &avro(Framing::Plain, &[]),
        &all,
        expect![[r#"
        +---------------+---------+-------+-----------------------------+---------+
        | id            | carrier | delay | at                          | stops   |
        +---------------+---------+-------+-----------------------------+---------+
        | 1099511627776 | UA      | -1.25 | 2026-01-01T00:00:00.000001Z | [1, -2] |
        | -7            |         | 3e300 | 1970-01-01T00:00:00Z        | []      |
        +---------------+---------+-------+-----------------------------+---------+
        from [0, 4]
        bad 1: Parser error: bad varint
        bad 2: it is not exactly one Avro record of the schema
        bad 3: it is not exactly one Avro record of the schema
        bad 5: Parser error: bad varint"#]],
    );
}

#[test]
fn avro_of_several_schemas_is_resolved_to_one() {
    let golden = avro_golden();
    let mut all = payloads(&golden[2]["confluent"]);
    all.insert(1, vec![0, 0, 0, 0, 8, 1]);
    all.insert(0, vec![1, 2]);
    let all: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    check(
        &avro(Framing::Confluent, &[("260", "new"), ("9", "old")]),
        &all,
        expect![[r#"
        +---------------+---------+-------+-----------------------------+---------+
        | id            | carrier | delay | at                          | stops   |
        +---------------+---------+-------+-----------------------------+---------+
        | 1099511627776 | UA      | -1.25 | 2026-01-01T00:00:00.000001Z | [1, -2] |
        | -7            |         | 3e300 | 1970-01-01T00:00:00Z        | []      |
        | 5             |         | 0.5   | 1970-01-02T00:00:00Z        | []      |
        +---------------+---------+-------+-----------------------------+---------+
        from [1, 3, 4]
        bad 0: it does not start with the header of Confluent's schema registry
        bad 2: schema 8 is not among the known schemas"#]],
    );

    let id = golden[0]["glue"].as_str().unwrap();
    let mut all = payloads(&golden[3]["glue"]);
    all.insert(1, all[1][..30].to_vec());
    let all: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    check(
        &avro(Framing::Glue, &[(id, "new")]),
        &all,
        expect![[r#"
        +---------------+---------+-------+-----------------------------+---------+
        | id            | carrier | delay | at                          | stops   |
        +---------------+---------+-------+-----------------------------+---------+
        | 1099511627776 | UA      | -1.25 | 2026-01-01T00:00:00.000001Z | [1, -2] |
        | -7            |         | 3e300 | 1970-01-01T00:00:00Z        | []      |
        +---------------+---------+-------+-----------------------------+---------+
        from [0, 2]
        bad 1: its compression is damaged: incomplete deflate stream"#]],
    );
}

#[test]
fn avro_schemas_that_are_none_or_do_not_fit_are_refused() {
    let none = AvroDecoder::new("{}", &BTreeMap::new(), Framing::Plain).unwrap_err();
    assert_eq!(none.kind(), featurectl_core::ErrorKind::Invalid);
    let writers = [(SchemaId::Confluent(1), r#"{"type":"record","name":"Trip","fields":[]}"#.to_string())].into();
    let unfit = AvroDecoder::new(&avro_golden()[0]["schemas"]["reader"].to_string(), &writers, Framing::Confluent);
    assert!(unfit.unwrap_err().to_string().contains("schema 1"));
}

fn orders(framing: Framing) -> ProtobufDecoder {
    ProtobufDecoder::new(include_bytes!("../../tests/golden/shop.desc"), "shop.Order", framing).unwrap()
}

fn order_payloads() -> Vec<Vec<u8>> {
    payloads(&Value::Array(golden(include_str!("../../tests/golden/protobuf.jsonl"))))
}

#[test]
fn protobuf_messages_become_rows() {
    let all = order_payloads();
    let mut all: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    all.insert(1, &all[0][..14]);
    all.insert(1, &[0xff; 12]);
    check(
        &orders(Framing::Plain),
        &all,
        expect![[r#"
        +----+-------+---------+--------------------------------------------------+---------------+----------------------------+------+------+-----------+--------+-------+---------------------+-------------+
        | id | total | state   | items                                            | tags          | at                         | note | raw  | other     | parent | cash  | card                | ratings     |
        +----+-------+---------+--------------------------------------------------+---------------+----------------------------+------+------+-----------+--------+-------+---------------------+-------------+
        | -3 | 0.0   | PAID    | [{sku: x, count: 4000000000}, {sku: , count: 0}] | {a: 7, b: -5} | 2026-01-01T00:00:00.123456 |      | 00ff | {name: o} | 0809   | false |                     | [1.5, -2.0] |
        | 0  |       | UNKNOWN | []                                               | {}            |                            |      |      |           |        |       |                     | []          |
        | 0  |       | 77      | []                                               | {}            |                            |      |      |           |        |       | 9223372036854775808 | []          |
        +----+-------+---------+--------------------------------------------------+---------------+----------------------------+------+------+-----------+--------+-------+---------------------+-------------+
        from [0, 3, 4]
        bad 1: failed to decode Protobuf message: invalid varint
        bad 2: failed to decode Protobuf message: buffer underflow"#]],
    );
}

#[test]
fn protobuf_behind_a_registrys_header_must_be_the_message_that_is_read() {
    // The path of `Order`, the second message of its file, is [1]; in zigzag: 1 index, 2.
    let confluent = |path: &[u8]| [&[0, 0, 0, 0, 5], path, &order_payloads()[2][..]].concat();
    let all = [confluent(&[2, 2]), confluent(&[0]), confluent(&[2, 0]), confluent(&[4, 2, 0])];
    let all: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    let decoded = super::decode(&orders(Framing::Confluent), &all).unwrap();
    assert_eq!(decoded.origins, [0]);
    assert_eq!(decoded.bad.len(), 3);
    assert!(decoded.bad[0].1.contains("shop.Order"), "{}", decoded.bad[0].1);
}

#[test]
fn messages_that_are_not_there_are_named() {
    let descriptors = include_bytes!("../../tests/golden/shop.desc");
    let error = ProtobufDecoder::new(descriptors, "shop.Ordre", Framing::Plain).unwrap_err().to_string();
    assert!(error.contains("did you mean `shop.Order`?"), "{error}");
    assert!(ProtobufDecoder::new(b"\x0a\xff", "shop.Order", Framing::Plain).is_err());
}

#[test]
fn schema_ids_are_numbers_or_uuids() {
    for text in ["260", "6f1c7e2c-9d0a-4b43-9b10-0123456789ab"] {
        assert_eq!(text.parse::<SchemaId>().unwrap().to_string(), text);
    }
    assert!("6f1c".parse::<SchemaId>().is_err());
}

fn decoders() -> Vec<Box<dyn Decode>> {
    vec![
        Box::new(JsonDecoder::new(table())),
        Box::new(CsvDecoder::new(flat(), b',')),
        Box::new(avro(Framing::Plain, &[])),
        Box::new(avro(Framing::Confluent, &[("260", "new"), ("9", "old")])),
        Box::new(orders(Framing::Plain)),
        Box::new(orders(Framing::Glue)),
    ]
}

/// Payloads of all formats, whole and damaged.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let mut whole = order_payloads();
    whole.extend(payloads(&avro_golden()[1]["plain"]));
    whole.extend(payloads(&avro_golden()[2]["confluent"]));
    whole.extend([
        br#"{"id":1,"name":"a\"b","tags":[1]}"#.to_vec(),
        b"1,\"a\nb\",2.5,2026-01-01".to_vec(),
        b"2,b,,\n".to_vec(),
    ]);
    let whole = prop::sample::select(whole);
    prop_oneof![
        3 => whole.clone(),
        3 => (whole, any::<prop::sample::Index>(), any::<u8>(), any::<bool>()).prop_map(|(mut p, at, byte, cut)| {
            let at = at.index(p.len() + 1);
            if cut { p.truncate(at) } else if at < p.len() { p[at] = byte }
            p
        }),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A payload gives the same rows, or the same refusal, among others as alone.
    #[test]
    fn no_payload_changes_what_another_gives(payloads in prop::collection::vec(payload(), 1..12)) {
        let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        for decoder in decoders() {
            let together = super::decode(decoder.as_ref(), &payloads).unwrap();
            let mut row = 0;
            for (i, payload) in payloads.iter().enumerate() {
                let alone = super::decode(decoder.as_ref(), &[payload]).unwrap();
                let rows = alone.batch.num_rows();
                prop_assert_eq!(&together.batch.slice(row, rows), &alone.batch);
                prop_assert!(together.origins[row..row + rows].iter().all(|o| *o as usize == i));
                prop_assert_eq!(together.bad.iter().any(|(b, _)| *b == i), rows == 0);
                row += rows;
            }
            prop_assert_eq!(row, together.batch.num_rows());
            prop_assert!(together.batch.columns().iter().all(|c| c.len() == row));
        }
    }
}
