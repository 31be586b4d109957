//! An import read again gives the tiles that were written.

use std::io::Read;

use featurectl_core::{ErrorKind, Position};
use flate2::read::MultiGzDecoder;

use serde_json::Value;

use super::super::item::{Item, Key, decode};
use super::*;

fn plan() -> ImportPlan {
    ImportPlan { table: "features".into(), bucket: "bucket".into(), prefix: "imports/7".into() }
}

fn tile(entity: u8, start: i64, size: usize) -> Tile {
    let key = TileKey { partition: vec![1, entity], length: 10, start, writer: "batch".into() };
    let expires_at = (start % 2 == 0).then_some(start + 1_500_000);
    Tile { key, position: Position([entity; 24]), last_event: -start, expires_at, partial: vec![entity; size] }
}

/// The items of all files, read with nothing of the writer but the layout that is documented.
fn items(folder: &Path) -> Vec<Item> {
    let mut paths: Vec<_> =
        std::fs::read_dir(folder.join("data")).expect("a folder").map(|f| f.expect("a file").path()).collect();
    paths.sort();
    let mut text = String::new();
    for path in paths {
        MultiGzDecoder::new(File::open(path).expect("a file")).read_to_string(&mut text).expect("gzip");
    }
    text.lines().map(|line| item(&serde_json::from_str::<Value>(line).expect("JSON")["Item"])).collect()
}

fn item(attributes: &Value) -> Item {
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

#[test]
fn an_import_holds_each_tile_as_it_was_given_also_big_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let to = folder.path().join("a/import");
    let sizes = [0, 1, 100, 900_000];
    let tiles: Vec<Tile> = (0..40).map(|i| tile(i, i.into(), sizes[usize::from(i) % 4])).collect();
    assert_eq!(write_import(tiles.iter().cloned().map(Ok), &to, &plan()).expect("an import"), 40);
    let (mut parts, mut found) = (Vec::new(), Vec::new());
    for item in items(&to) {
        match item.position {
            None => parts.push(item),
            Some(_) => found.push(decode(item, &std::mem::take(&mut parts)).expect("a header").expect("all parts")),
        }
    }
    assert!(found == tiles, "{} of 40 tiles came back", found.len());
    let request: Value = serde_json::from_slice(&std::fs::read(to.join("import.json")).expect("it")).expect("JSON");
    assert_eq!(request["S3BucketSource"]["S3KeyPrefix"], "imports/7/data/");
    let again = write_import([], &to, &plan()).expect_err("it is there");
    assert_eq!(again.kind(), ErrorKind::Conflict);
}

#[test]
fn tiles_out_of_order_or_twice_or_broken_leave_no_manifest() {
    let folder = tempfile::tempdir().expect("a folder");
    let twice = vec![Ok(tile(1, 0, 1)), Ok(tile(1, 0, 1))];
    let back = vec![Ok(tile(2, 0, 1)), Ok(tile(1, 0, 1))];
    let broken = vec![Ok(tile(1, 0, 1)), Err(Error::data("damaged"))];
    let cases = [(twice, ErrorKind::Invalid), (back, ErrorKind::Invalid), (broken, ErrorKind::Data)];
    for (i, (tiles, kind)) in cases.into_iter().enumerate() {
        let to = folder.path().join(i.to_string());
        assert_eq!(write_import(tiles, &to, &plan()).expect_err("no import").kind(), kind);
        assert!(!to.join("import.json").exists());
    }
}
