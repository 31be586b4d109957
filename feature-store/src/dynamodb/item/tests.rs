//! The layout: there and back, its order, its limits.

use featurectl_core::ErrorKind;
use proptest::prelude::*;

use super::*;

fn tile(length: i64, start: i64, writer: &str, position: u64, size: usize) -> Tile {
    Tile {
        key: TileKey { partition: b"v1\0ua".to_vec(), length, start, writer: writer.into() },
        position: position.into(),
        last_event: start,
        expires_at: None,
        partial: (0..size).map(|i| (i * 7 % 251) as u8).collect(),
    }
}

fn back(mut items: Vec<Item>) -> Option<Tile> {
    let header = items.pop().expect("a header");
    decode(header, &items).expect("a tile")
}

#[test]
fn tiles_of_any_size_come_back_whole() {
    for (size, items) in [(0, 1), (MAX_INLINE, 1), (MAX_INLINE + 1, 3), (3 * MAX_INLINE, 4), (1_500_000, 5)] {
        let tile = tile(10, -5, "w\0ü", 9, size);
        let encoded = encode(&tile, 7).expect("it fits");
        assert_eq!(encoded.len(), items, "{size} bytes");
        assert_eq!(back(encoded), Some(tile));
    }
}

#[test]
fn a_header_without_all_of_its_own_parts_is_no_tile() {
    let old = encode(&tile(10, 0, "w", 1, 1_000_000), 7).expect("it fits");
    let new = encode(&tile(10, 0, "w", 2, 1_000_000), 7).expect("it fits");
    let header = new.last().expect("a header").clone();
    let mixed = [new[0].clone(), old[1].clone(), new[2].clone()];
    let swapped = [new[1].clone(), new[0].clone(), new[2].clone()];
    for parts in [&new[..2], &new[..0], &old[..3], &mixed, &swapped] {
        assert_eq!(decode(header.clone(), parts).expect("a header"), None);
    }
    assert!(decode(new[0].clone(), &[]).is_err(), "a part is no header");
}

#[test]
fn an_item_is_what_its_attributes_say() {
    let tile = Tile { expires_at: Some(-7), ..tile(10, -5, "w", 9, MAX_INLINE + 1) };
    for item in
        encode(&tile, u64::MAX).expect("it fits").into_iter().chain(encode(&self::tile(1, 1, "", 0, 0), 0).expect("it"))
    {
        let attributes = || item.attributes().map(|(name, value)| (name.to_string(), value));
        assert_eq!(Item::from_attributes(attributes()).expect("an item"), item);
        let others = [("other".to_string(), Value::Number(1))];
        assert_eq!(Item::from_attributes(attributes().chain(others)).expect("an item"), item, "of somebody else");
        let short = attributes()
            .map(|(name, value)| if name == "pos" { (name, Value::Binary(vec![1])) } else { (name, value) });
        assert_eq!(Item::from_attributes(short).is_ok(), item.position.is_none(), "a position of one byte");
    }
}

#[test]
fn an_item_of_another_layout_is_no_tile() {
    for (small, changed) in [(true, 0), (false, 0), (false, 2)] {
        let mut items = encode(&tile(10, 0, "w", 1, if small { 1 } else { 500_000 }), 7).expect("it fits");
        items[changed].format = 2;
        let header = items.pop().expect("a header");
        let error = decode(header, &items).expect_err("another layout");
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.to_string().contains("has the layout 2, and this featurectl reads 1"), "{error}");
    }
}

#[test]
fn spans_hold_what_they_are_for() {
    let is_in = |item: &Item, span: &Span| item.key.pk == span.pk && (&span.low..=&span.high).contains(&&item.key.sk);
    let of = |writer: &str, position, write| encode(&tile(10, 0, writer, position, 800_000), write).expect("it fits");
    let items = of("w", 5, 7);
    let (header, parts) = items.split_last().expect("a header");
    let (own, older) =
        (span_of_parts(header).expect("a span"), span_of_parts_until(header).expect("a span").expect("one"));
    assert!(parts.len() == 3 && parts.iter().all(|part| is_in(part, &own) && is_in(part, &older)));
    for (writer, position, write, removed) in [
        ("w", 5, 6, true),
        ("w", 5, 8, true),
        ("w", 4, 9, true),
        ("w", 6, 0, false),
        ("w\0", 1, 7, false),
        ("v", 1, 7, false),
    ] {
        let other = of(writer, position, write);
        assert!(
            other[..3].iter().all(|part| !is_in(part, &own) && is_in(part, &older) == removed),
            "{writer:?} {position}"
        );
    }
    let long = encode(&tile(10, 0, &"w".repeat(1_000), 1, 1), 7).expect("it fits");
    assert_eq!(span_of_parts_until(&long[0]).expect("a header"), None, "such a tile never has parts");
}

#[test]
fn keys_longer_than_dynamodb_takes_are_refused() {
    let writer = |n| tile(10, 0, &"w".repeat(n), 1, 1);
    assert!(encode(&writer(MAX_SORT_KEY - NUMBERS), 7).is_ok());
    let error = encode(&writer(MAX_SORT_KEY - NUMBERS + 1), 7).expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let long = |n| Tile { key: TileKey { partition: vec![1; n], ..writer(1).key }, ..writer(1) };
    assert!(encode(&long(MAX_PARTITION_KEY - 1), 7).is_ok());
    assert!(encode(&long(MAX_PARTITION_KEY), 7).expect_err("too long").to_string().contains("shorter keys"));
}

#[test]
fn dynamodb_never_deletes_before_the_expiry() {
    let ttl = |at| encode(&Tile { expires_at: at, ..tile(1, 1, "w", 1, 1) }, 7).expect("it fits")[0].ttl();
    let wanted = [None, None, None, Some(1), Some(1), Some(2)];
    assert_eq!([None, Some(-1), Some(0), Some(1), Some(1_000_000), Some(1_000_001)].map(ttl), wanted);
}

proptest! {
    #[test]
    fn sort_keys_sort_as_tiles_do(a in any::<(i64, i64, String)>(), b in any::<(i64, i64, String)>()) {
        let key = |(length, start, writer): &(i64, i64, String)| {
            encode(&tile(*length, *start, writer, 1, 1), 7).map(|items| items[0].key.sk.clone())
        };
        if let (Ok(left), Ok(right)) = (key(&a), key(&b)) {
            prop_assert_eq!(left.cmp(&right), a.cmp(&b));
        }
    }
}
