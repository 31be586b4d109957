//! An import read again gives the tiles that were written.

use std::io::Read;
use std::path::Path;

use featurectl_core::{ErrorKind, Position};
use flate2::read::MultiGzDecoder;
use futures::stream;
use serde_json::Value as Json;

use super::super::item::{Key, decode};
use super::*;

fn tile(entity: u8, start: i64, size: usize) -> Tile {
    let key = TileKey { partition: vec![1, entity], length: 10, start, writer: "batch".into() };
    let expires_at = (start % 2 == 0).then_some(start + 1_500_000);
    Tile { key, position: Position([entity; 24]), last_event: -start, expires_at, partial: vec![entity; size] }
}

/// The items of all files, read with nothing of the writer but the layout that is documented.
fn items(folder: &Path) -> Vec<Item> {
    let mut paths: Vec<_> = std::fs::read_dir(folder).expect("a folder").map(|f| f.expect("a file").path()).collect();
    paths.sort();
    assert!(paths.len() > 1, "several files");
    let mut text = String::new();
    for path in paths {
        let file = std::fs::File::open(path).expect("a file");
        MultiGzDecoder::new(file).read_to_string(&mut text).expect("gzip");
    }
    text.lines().map(|line| item(&serde_json::from_str::<Json>(line).expect("JSON")["Item"])).collect()
}

fn item(attributes: &Json) -> Item {
    let bytes = |name: &str| attributes[name]["B"].as_str().map(|b| BASE64.decode(b).expect("base64"));
    let number = |name: &str| attributes[name]["N"].as_str().map(|n| n.parse::<i64>().expect("a number"));
    let item = Item {
        key: Key { pk: bytes("pk").expect("a key"), sk: bytes("sk").expect("a key") },
        format: number("v").expect("the version of the layout"),
        position: bytes("pos").map(|p| Position(p.try_into().expect("24 bytes"))),
        write: bytes("w").map(|w| u64::from_be_bytes(w.try_into().expect("8 bytes"))),
        last_event: number("ev"),
        expires_at: number("ex"),
        parts: number("n").map(|n| n as u32),
        bytes: bytes("p").unwrap_or_default(),
    };
    assert_eq!((item.format, number("ttl")), (1, item.ttl()));
    item
}

async fn written(folder: &Path, tiles: Vec<Result<Tile>>) -> Result<u64> {
    let tiles = stream::iter(tiles.into_iter().map(|tile| tile.map(|tile| vec![tile])));
    write(&Folder::from(folder), tiles, &mut |_| ()).await
}

#[tokio::test]
async fn an_import_holds_each_tile_as_it_was_given_also_big_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let sizes = [0, 1, 100, 900_000];
    let tiles: Vec<Tile> = (0..160).map(|i| tile(i, i.into(), sizes[usize::from(i) % 4])).collect();
    let count = written(folder.path(), tiles.iter().cloned().map(Ok).collect()).await.expect("an import");
    let (mut parts, mut found) = (Vec::new(), Vec::new());
    let items = items(folder.path());
    assert_eq!(items.len() as u64, count);
    for item in items {
        match item.position {
            None => parts.push(item),
            Some(_) => found.push(decode(item, &std::mem::take(&mut parts)).expect("a header").expect("all parts")),
        }
    }
    found.sort_by(|a, b| a.key.cmp(&b.key));
    assert!(found == tiles, "{} of 160 tiles came back", found.len());
}

#[test]
fn tiles_of_one_entity_lie_apart() {
    let tiles: Vec<Tile> = (0..5000).map(|i| tile((i / 100) as u8, i, 1)).collect();
    let (bytes, items) = file(&tiles).expect("a file");
    let mut text = String::new();
    MultiGzDecoder::new(bytes.as_slice()).read_to_string(&mut text).expect("gzip");
    let entities: Vec<Vec<u8>> =
        text.lines().map(|line| item(&serde_json::from_str::<Json>(line).expect("JSON")["Item"]).key.pk).collect();
    let same = entities.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert_eq!((items, entities.len()), (5000, 5000));
    assert!(same < 10, "{same} follow one of the same entity");
}

#[tokio::test]
async fn tiles_out_of_order_or_twice_or_broken_are_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let twice = vec![Ok(tile(1, 0, 1)), Ok(tile(1, 0, 1))];
    let back = vec![Ok(tile(2, 0, 1)), Ok(tile(1, 0, 1))];
    let broken = vec![Ok(tile(1, 0, 1)), Err(Error::data("damaged"))];
    for (tiles, kind) in [(twice, ErrorKind::Invalid), (back, ErrorKind::Invalid), (broken, ErrorKind::Data)] {
        assert_eq!(written(folder.path(), tiles).await.expect_err("no import").kind(), kind);
    }
}
