use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn bytes(value: &Value) -> Bytes {
    BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap().into()
}

/// Aggregates that the producer library of Python made, with what it was given.
fn golden() -> Vec<(Bytes, Vec<Part>)> {
    let part = |p: &Value| Part {
        partition_key: p["key"].as_str().unwrap().to_string(),
        explicit_hash_key: p["hash_key"].as_str().map(str::to_string),
        data: bytes(&p["data"]),
    };
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        (bytes(&line["aggregate"]), line["parts"].as_array().unwrap().iter().map(part).collect())
    };
    include_str!("../../../tests/golden/kpl.jsonl").lines().map(line).collect()
}

#[test]
fn aggregates_of_another_encoder_give_what_it_was_given() {
    let golden = golden();
    assert_eq!(golden.len(), 40);
    for (aggregate, parts) in golden {
        assert_eq!(open(&aggregate).unwrap().unwrap(), parts);
    }
}

#[test]
fn a_changed_bit_is_noticed_wherever_it_is() {
    for (aggregate, _) in golden().into_iter().filter(|(a, _)| a.len() < 200) {
        for at in 0..aggregate.len() {
            let mut damaged = aggregate.to_vec();
            damaged[at] ^= 1 << (at % 8);
            let opened = open(&damaged.into());
            // Without its magic it is a plain record, which is given as it is.
            assert!(if at < 4 { matches!(opened, Ok(None)) } else { opened.is_err() }, "byte {at}");
        }
        for len in 4..aggregate.len() {
            assert!(open(&aggregate.slice(..len)).is_err(), "{len} bytes");
        }
    }
}

#[test]
fn a_key_that_is_not_there_damages_the_whole_aggregate() {
    let sub =
        |key, hash| SubRecord { partition_key: key, explicit_hash_key: hash, data: Some(Bytes::from_static(b"x")) };
    for wrong in
        [sub(Some(1), None), sub(None, None), sub(Some(0), Some(0)), SubRecord { data: None, ..sub(Some(0), None) }]
    {
        let records = vec![sub(Some(0), None), wrong];
        let message = AggregatedRecord { partition_keys: vec!["k".into()], explicit_hash_keys: vec![], records };
        let body = message.encode_to_vec();
        let digest = Md5::digest(&body);
        let framed = [&MAGIC[..], &body, &digest].concat();
        let error = open(&framed.into()).unwrap_err();
        assert!(error.to_string().contains("key that is not there"), "{error}");
    }
}

#[test]
fn an_aggregate_of_nothing_holds_nothing() {
    assert_eq!(open(&pack(&[])).unwrap(), Some(vec![]));
}

#[test]
fn hash_keys_are_md5_as_a_number() {
    assert_eq!(hash_key(""), 0xd41d8cd98f00b204e9800998ecf8427e);
}

proptest! {
    #[test]
    fn what_is_packed_is_opened_and_no_longer_than_foretold(
        parts in prop::collection::vec(("[ab]{1,2}", prop::option::of("[0-9]{1,39}"), any::<Vec<u8>>()), 0..30)
    ) {
        let part = |(partition_key, explicit_hash_key, data): (String, Option<String>, Vec<u8>)| {
            Part { partition_key, explicit_hash_key, data: data.into() }
        };
        let parts: Vec<Part> = parts.into_iter().map(part).collect();
        let packed = pack(&parts);
        prop_assert!(packed.len() <= MAGIC.len() + DIGEST_LEN + parts.iter().map(packed_len_max).sum::<usize>());
        prop_assert_eq!(open(&packed).unwrap().unwrap(), parts);
    }

    #[test]
    fn no_bytes_make_it_panic(body in any::<Vec<u8>>(), signed in any::<bool>()) {
        let mut framed = [&MAGIC[..], &body].concat();
        if signed {
            framed.extend_from_slice(&Md5::digest(&body));
        }
        let _ = open(&framed.into());
    }
}
