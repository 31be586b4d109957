//! What every [`OnlineStore`] promises, as a test: call [`conformance`] with a store, also one that has other content.
//!
//! It panics at the first broken promise and removes what it wrote.

use featurectl_core::{OnlineStore, Position, Tile, TileKey, TileRange};
use futures::future::join_all;

/// Everything the suite writes is below this partition.
const SPACE: &[u8] = b"conformance\0\xFF";

/// Checks all promises of the contract.
///
/// # Panics
/// If the store breaks one.
pub async fn conformance(store: &dyn OnlineStore) {
    clear(store).await;
    newer_positions_win(store).await;
    positions_are_wide_numbers(store).await;
    the_newest_of_writes_at_once_wins(store).await;
    partitions_and_writers_are_any_bytes(store).await;
    ranges_are_exact(store).await;
    batches_keep_their_order(store).await;
    tiles_of_one_writer_can_be_asked_for(store).await;
    what_is_filled_is_as_if_written(store).await;
    expired_tiles_are_not_read(store).await;
    big_and_many_tiles_are_kept(store).await;
    tiles_beyond_an_item_are_kept(store).await;
    removal_takes_the_prefix_and_nothing_else(store).await;
    removal_takes_many_partitions(store).await;
}

async fn clear(store: &dyn OnlineStore) {
    store.remove(SPACE).await.expect("tiles can be removed");
}

fn partition(name: &[u8]) -> Vec<u8> {
    [SPACE, name].concat()
}

fn tile(name: &[u8], length: i64, start: i64, writer: &str, position: u64) -> Tile {
    Tile {
        key: TileKey { partition: partition(name), length, start, writer: writer.into() },
        position: position.into(),
        last_event: start.saturating_add(1),
        expires_at: None,
        partial: format!("{start} {writer} {position}").into_bytes(),
    }
}

fn range(name: &[u8], length: i64, start: i64, end: i64) -> TileRange {
    TileRange { partition: partition(name), length, start, end, writer: None }
}

async fn put(store: &dyn OnlineStore, tiles: Vec<Tile>) -> usize {
    store.put(tiles).await.expect("tiles can be written")
}

async fn read(store: &dyn OnlineStore, range: TileRange) -> Vec<Tile> {
    store.read(&[range], 0).await.expect("tiles can be read").remove(0)
}

async fn newer_positions_win(store: &dyn OnlineStore) {
    assert_eq!(put(store, vec![]).await, 0, "an empty write");
    assert_eq!(put(store, vec![tile(b"p", 10, 0, "w", 5)]).await, 1, "the first write");
    assert_eq!(put(store, vec![tile(b"p", 10, 0, "w", 5)]).await, 0, "the same position again");
    assert_eq!(put(store, vec![tile(b"p", 10, 0, "w", 4)]).await, 0, "an older position");
    assert_eq!(read(store, range(b"p", 10, 0, 1)).await, [tile(b"p", 10, 0, "w", 5)]);
    assert_eq!(
        put(store, vec![tile(b"p", 10, 0, "w", 6), tile(b"p", 10, 0, "v", 1)]).await,
        2,
        "newer, and another writer"
    );
    assert_eq!(read(store, range(b"p", 10, 0, 1)).await, [tile(b"p", 10, 0, "v", 1), tile(b"p", 10, 0, "w", 6)]);
    clear(store).await;
}

async fn positions_are_wide_numbers(store: &dyn OnlineStore) {
    let mut high = [0; 24];
    high[0] = 1;
    let wide = |n: [u8; 24]| Tile { position: Position(n), ..tile(b"wide", 10, 0, "w", 0) };
    put(store, vec![tile(b"wide", 10, 0, "w", u64::MAX)]).await;
    assert_eq!(put(store, vec![wide(high)]).await, 1, "the first of the 24 bytes weighs most");
    assert_eq!(put(store, vec![tile(b"wide", 10, 0, "w", u64::MAX)]).await, 0, "older by its first byte");
    assert_eq!(put(store, vec![wide([0xFF; 24])]).await, 1, "the last position there is");
    assert_eq!(read(store, range(b"wide", 10, 0, 1)).await, [wide([0xFF; 24])]);
    clear(store).await;
}

async fn the_newest_of_writes_at_once_wins(store: &dyn OnlineStore) {
    let at = |position| tile(b"race", 10, 0, "w", position);
    put(store, vec![at(2), at(3), at(1)]).await;
    assert_eq!(read(store, range(b"race", 10, 0, 1)).await, [at(3)], "one tile three times in one write");
    let other = |position| tile(b"race", 10, 0, "other", position);
    join_all([7, 5, 9, 4, 8, 6].map(|n| put(store, vec![at(n), other(10 - n)]))).await;
    assert_eq!(read(store, range(b"race", 10, 0, 1)).await, [other(6), at(9)], "two writers, six writes at once");
    clear(store).await;
}

async fn partitions_and_writers_are_any_bytes(store: &dyn OnlineStore) {
    let all: Vec<u8> = (0..=255).collect();
    let names: [&[u8]; 8] = [&[0], &[0, 0], &[0, 0xFF], &[0, 1], &[0xFF], &[0xFF, 0], &[0xFF; 3], &all];
    let writers = ["a", "a\0", "a-10", "a-2", "b", "ü"];
    let tiles = |name| [-1, 0, 255, 256].map(|start| writers.map(|w| tile(name, 10, start, w, 1))).concat();
    put(store, names.iter().rev().flat_map(|name| tiles(name).into_iter().rev()).collect()).await;
    for name in names {
        let found = read(store, range(name, 10, i64::MIN, i64::MAX)).await;
        assert_eq!(found, tiles(name), "by start, then writer, of the partition {name:?} only");
    }
    assert_eq!(store.remove(&partition(&[0xFF; 2])).await.expect("tiles can be removed"), 24, "of one partition");
    assert_eq!(store.remove(&partition(&[0])).await.expect("tiles can be removed"), 5 * 24, "of five");
    assert_eq!(read(store, range(&[0xFF], 10, 0, 1)).await.len(), 6, "the neighbour is still there");
    clear(store).await;
}

async fn ranges_are_exact(store: &dyn OnlineStore) {
    let starts = [i64::MIN, -20, -10, 0, 10, 20];
    let mut all: Vec<Tile> = starts.iter().map(|s| tile(b"r", 10, *s, "w", 1)).collect();
    all.push(tile(b"r", i64::MAX, i64::MIN, "w", 1));
    all.push(tile(b"r\0", 10, 0, "w", 1));
    all.push(tile(b"r\xFF", 10, 0, "w", 1));
    all.push(tile(b"", 10, 0, "w", 1));
    all.reverse();
    put(store, all).await;
    let found = async |a, b| read(store, range(b"r", 10, a, b)).await.iter().map(|t| t.key.start).collect::<Vec<_>>();
    assert_eq!(found(-10, 10).await, [-10, 0], "the start is in, the end is not, in order");
    assert_eq!(found(-11, 11).await, [-10, 0, 10]);
    assert_eq!(found(i64::MIN, i64::MAX).await, starts, "all of this length and partition, and no others");
    assert_eq!(found(10, 10).await, [0; 0], "an empty range");
    assert_eq!(found(20, 10).await, [0; 0], "a range that ends before it starts");
    let lifetime = read(store, range(b"r", i64::MAX, i64::MIN, 0)).await;
    assert_eq!(lifetime, [tile(b"r", i64::MAX, i64::MIN, "w", 1)], "the tile of a lifetime");
    clear(store).await;
}

async fn batches_keep_their_order(store: &dyn OnlineStore) {
    put(store, (0..9).map(|i| tile(b"b", 10, i * 10, "w", 1)).collect()).await;
    let ranges = [range(b"b", 10, 50, 70), range(b"none", 10, 0, 90), range(b"b", 10, 0, 10), range(b"b", 10, 50, 70)];
    let found = store.read(&ranges, 0).await.expect("tiles can be read");
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [2, 0, 1, 2]);
    let many: Vec<TileRange> = (0..150).map(|i| range(b"b", 10, i % 9 * 10, i % 9 * 10 + 1)).collect();
    let found = store.read(&many, 0).await.expect("more ranges than a remote store takes at once").concat();
    assert_eq!(found, (0..150).map(|i| tile(b"b", 10, i % 9 * 10, "w", 1)).collect::<Vec<_>>());
    assert_eq!(store.read(&[], 0).await.expect("no ranges"), Vec::<Vec<Tile>>::new());
    clear(store).await;
}

async fn tiles_of_one_writer_can_be_asked_for(store: &dyn OnlineStore) {
    let writers = ["", "w", "w\0", "x"];
    let lifetime = |name: &[u8], writer| tile(name, i64::MAX, i64::MIN, writer, 1);
    let all = [0, 10].into_iter().flat_map(|start| writers.map(|w| tile(b"o", 10, start, w, 1)));
    put(store, all.chain(writers.map(|w| lifetime(b"o", w))).collect()).await;
    let of = |writer: &str, range: TileRange| TileRange { writer: Some(writer.into()), ..range };
    for writer in writers {
        let found = read(store, of(writer, range(b"o", 10, 0, 20))).await;
        assert_eq!(found, [0, 10].map(|start| tile(b"o", 10, start, writer, 1)), "of `{writer:?}`, in order");
        assert_eq!(read(store, of(writer, range(b"o", 10, 10, 11))).await, [tile(b"o", 10, 10, writer, 1)]);
        let found = read(store, of(writer, range(b"o", i64::MAX, i64::MIN, 0))).await;
        assert_eq!(found, [lifetime(b"o", writer)]);
    }
    assert_eq!(read(store, of("other", range(b"o", i64::MAX, i64::MIN, 0))).await, [], "nobody");
    assert_eq!(read(store, of("w", range(b"o", 10, 10, 10))).await, [], "an empty range");
    assert_eq!(read(store, of("w", range(b"o", i64::MAX, i64::MIN, i64::MIN))).await, [], "an empty lifetime");
    let name = |i: u8| [b'o', i];
    put(store, (0..120).map(|i| lifetime(&name(i), "w")).collect()).await;
    let ask = |i: u8| of("w", range(&name(i), i64::MAX, i64::MIN, 0));
    let asked: Vec<TileRange> = (0..250).map(|i| ask(i % 125)).chain([range(b"o", 10, 0, 1)]).collect();
    let found = store.read(&asked, 0).await.expect("more than a remote store gives at once, some twice");
    for (i, tiles) in found[..250].iter().enumerate() {
        let i = i as u8 % 125;
        assert_eq!(*tiles, if i < 120 { vec![lifetime(&name(i), "w")] } else { vec![] }, "entity {i}");
    }
    assert_eq!(found[250].len(), writers.len());
    let gone = Tile { expires_at: Some(100), ..lifetime(b"gone", "w") };
    put(store, vec![gone]).await;
    let ask = [of("w", range(b"gone", i64::MAX, i64::MIN, 0))];
    let count = async |now| store.read(&ask, now).await.expect("tiles can be read")[0].len();
    assert_eq!([count(99).await, count(100).await], [1, 0]);
    clear(store).await;
}

async fn what_is_filled_is_as_if_written(store: &dyn OnlineStore) {
    let big = Tile { partial: vec![7; 900_000], ..tile(b"f", 10, -10, "w", 3) };
    let all: Vec<Tile> = std::iter::once(big).chain((0..700).map(|i| tile(b"f", 10, i * 10, "w", 3))).collect();
    let fill = async |tiles: &[Tile]| store.fill(tiles.to_vec()).await.expect("tiles can be filled in");
    fill(&[]).await;
    fill(&all[..300]).await;
    fill(&all).await;
    assert!(read(store, range(b"f", 10, -10, i64::MAX)).await == all, "all of them, those that were there the same");
    let again = [&all[5..6], &all[5..6]].concat();
    fill(&again).await;
    assert_eq!(put(store, vec![tile(b"f", 10, 0, "w", 2), tile(b"f", 10, 10, "w", 4)]).await, 1, "newer ones win");
    assert_eq!(read(store, range(b"f", 10, 0, 11)).await, [tile(b"f", 10, 0, "w", 3), tile(b"f", 10, 10, "w", 4)]);
    assert_eq!(store.remove(&partition(b"f")).await.expect("tiles can be removed"), 701);
    clear(store).await;
}

async fn expired_tiles_are_not_read(store: &dyn OnlineStore) {
    put(store, vec![Tile { expires_at: Some(100), ..tile(b"t", 10, 0, "w", 1) }]).await;
    let count = async |now| store.read(&[range(b"t", 10, 0, 1)], now).await.expect("tiles can be read")[0].len();
    assert_eq!([count(99).await, count(100).await, count(101).await], [1, 0, 0], "gone from its expiry on");
    put(store, vec![Tile { expires_at: Some(-100), ..tile(b"t", 10, 0, "w", 2) }]).await;
    assert_eq!([count(-101).await, count(-100).await], [1, 0], "before 1970 too");
    put(store, vec![tile(b"t", 10, 0, "w", 3)]).await;
    assert_eq!(count(i64::MAX).await, 1, "never, without an expiry");
    clear(store).await;
}

async fn big_and_many_tiles_are_kept(store: &dyn OnlineStore) {
    let big = Tile { partial: (0..300_000u32).map(|i| i as u8).collect(), ..tile(b"big", 10, 0, "w", 1) };
    put(store, vec![big.clone()]).await;
    assert_eq!(read(store, range(b"big", 10, 0, 1)).await, [big]);
    let empty = Tile { partial: vec![], last_event: i64::MIN, ..tile(b"empty", 10, 0, "w", 1) };
    put(store, vec![empty.clone()]).await;
    assert_eq!(read(store, range(b"empty", 10, 0, 1)).await, [empty]);
    let many: Vec<Tile> = (0..10_000).map(|i| tile(b"many", 10, i * 10, "w", 1)).collect();
    assert_eq!(put(store, many.clone()).await, 10_000);
    assert_eq!(put(store, many.clone()).await, 0, "writing the same again changes nothing");
    assert_eq!(read(store, range(b"many", 10, 0, i64::MAX)).await, many);
    clear(store).await;
}

/// Tiles of sizes around and far beyond what a remote store takes as one item, replaced by bigger and smaller ones.
async fn tiles_beyond_an_item_are_kept(store: &dyn OnlineStore) {
    let of = |size: usize, position| Tile {
        partial: (0..size).map(|i| (i as u64 * 7 + position) as u8).collect(),
        ..tile(b"huge", 10, 0, "w", position)
    };
    let sizes = [389_119, 409_600, 1_300_000, 10, 800_000];
    for (position, size) in (1..).zip(sizes) {
        assert_eq!(put(store, vec![of(size, position)]).await, 1, "{size} bytes");
        assert_eq!(put(store, vec![of(1_000_000, position - 1)]).await, 0, "an older one, as big");
        assert!(read(store, range(b"huge", 10, 0, 1)).await == [of(size, position)], "{size} bytes come back");
    }
    let rows: Vec<Tile> = (0..8).map(|i| Tile { key: tile(b"huge", 10, i, "w", 1).key, ..of(300_000, 9) }).collect();
    put(store, rows.clone()).await;
    assert!(read(store, range(b"huge", 10, 0, 8)).await == rows, "a range of more bytes than a page has");
    assert_eq!(store.remove(&partition(b"huge")).await.expect("tiles can be removed"), 8, "a tile counts once");
    clear(store).await;
}

/// More partitions than a page or a batch of a remote store, of which a part goes.
async fn removal_takes_many_partitions(store: &dyn OnlineStore) {
    let name = |group: u8, i: u16| [&[group], i.to_be_bytes().as_slice()].concat();
    let all = |group: u8| (0..1500).map(move |i| tile(&name(group, i), 10, i.into(), "w", 1));
    assert_eq!(put(store, all(1).chain(all(2)).collect()).await, 3000);
    assert_eq!(store.remove(&partition(&[1])).await.expect("tiles can be removed"), 1500);
    let left: Vec<TileRange> = (0..1500).flat_map(|i| [1, 2].map(|g| range(&name(g, i), 10, 0, 1500))).collect();
    let found = store.read(&left, 0).await.expect("tiles can be read");
    assert_eq!(found.concat(), all(2).collect::<Vec<_>>(), "the other group is whole, and of this one nothing is left");
    assert_eq!(put(store, all(1).collect()).await, 1500, "what was removed can be written again");
    assert_eq!(store.remove(&partition(&[])).await.expect("tiles can be removed"), 3000);
    clear(store).await;
}

async fn removal_takes_the_prefix_and_nothing_else(store: &dyn OnlineStore) {
    let names: [&[u8]; 4] = [b"x", b"x\0", b"xy", b"y"];
    put(store, names.iter().map(|n| tile(n, 10, 0, "w", 1)).collect()).await;
    assert_eq!(store.remove(&partition(b"x")).await.expect("tiles can be removed"), 3);
    assert_eq!(store.remove(&partition(b"x")).await.expect("nothing left"), 0);
    assert_eq!(read(store, range(b"y", 10, 0, 1)).await.len(), 1);
    clear(store).await;
}
