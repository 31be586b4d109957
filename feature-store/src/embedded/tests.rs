//! The layout of keys and values: order, ranges and prefixes as the raw fields have them.

use proptest::prelude::*;

use super::*;

/// Partitions made mostly of the bytes that are escaped or end a range, so that prefixes of each other are common.
fn partition() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0), Just(1), Just(0xFE), Just(0xFF), any::<u8>()], 0..6)
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![Just(i64::MIN), Just(i64::MAX), -3..3i64, any::<i64>()]
}

fn tile_key() -> impl Strategy<Value = TileKey> {
    (partition(), number(), number(), "[a-c\0é]{0,3}").prop_map(|(partition, length, start, writer)| TileKey {
        partition,
        length,
        start,
        writer,
    })
}

fn range_of(key: &TileKey, start: i64, end: i64) -> TileRange {
    TileRange { partition: key.partition.clone(), length: key.length, start, end, writer: None }
}

proptest! {
    #[test]
    fn keys_sort_as_partition_length_start_and_writer(a in tile_key(), b in tile_key()) {
        prop_assert_eq!(encode_key(&a).cmp(&encode_key(&b)), a.cmp(&b));
    }

    #[test]
    fn keys_round_trip(key in tile_key()) {
        let range = range_of(&key, key.start, i64::MAX);
        prop_assert_eq!(decode_key(&range, &encode_key(&key)), Some(key));
    }

    #[test]
    fn one_range_of_keys_holds_the_tiles_of_a_range(
        key in tile_key(), other in tile_key(), same: bool, start in number(), end in number(),
    ) {
        let range = range_of(if same { &key } else { &other }, start, end);
        let found = (bound(&range, start)..bound(&range, end)).contains(&encode_key(&key));
        let wanted = key.partition == range.partition && key.length == range.length && (start..end).contains(&key.start);
        prop_assert_eq!(found, wanted);
    }

    #[test]
    fn keys_start_with_the_escaped_prefixes_of_their_partition_only(key in tile_key(), prefix in partition()) {
        let found = encode_key(&key).starts_with(&escaped(&prefix));
        prop_assert_eq!(found, key.partition.starts_with(&prefix));
    }

    #[test]
    fn values_round_trip(
        key in tile_key(), position: [u8; 24], last_event: i64, expires in number(), partial: Vec<u8>,
    ) {
        let expires_at = (expires != i64::MAX).then_some(expires);
        let tile = Tile { key, position: Position(position), last_event, expires_at, partial };
        let read = decode_header(&encode_value(&tile)).map(|header| header.tile(tile.key.clone()));
        prop_assert_eq!(read, Some(tile));
    }

    #[test]
    fn any_bytes_decode_or_are_refused_without_a_panic(bytes: Vec<u8>, key in tile_key()) {
        decode_header(&bytes);
        decode_key(&range_of(&key, 0, 1), &bytes);
    }
}

#[test]
fn a_cut_value_and_one_of_another_format_are_refused() {
    let whole = [&[FORMAT][..], &[0; HEADER - 1]].concat();
    assert!(decode_header(&whole).is_some());
    assert!(decode_header(&whole[1..]).is_none());
    assert!(decode_header(&[&[FORMAT + 1][..], &whole[1..]].concat()).is_none());
}

#[test]
fn a_full_disk_is_for_the_user_to_mend() {
    let full = redb::Error::Io(std::io::ErrorKind::StorageFull.into());
    assert_eq!(failed(full, Path::new("online.redb")).kind(), ErrorKind::Invalid);
    assert_eq!(failed(redb::Error::PreviousIo, Path::new("online.redb")).kind(), ErrorKind::Invalid);
}
