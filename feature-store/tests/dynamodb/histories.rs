//! Histories of writes, reads and removals through faults, each step compared with a map in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use featurectl_core::{OnlineStore, Tile, TileKey, TileRange};

use super::emulator::{endpoint, items, new_store, store_at};
use super::proxy::{Call, Fault, Proxy, random};

/// Numbers that follow from a seed (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut n = self.0;
        n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (n ^ (n >> 31)) % end
    }

    fn partition(&mut self) -> Vec<u8> {
        [&b"a"[..], b"ab", b"b", b"a\0"][self.below(4) as usize].to_vec()
    }

    fn writer(&mut self) -> String {
        ["w", "w\0", "v"][self.below(3) as usize].into()
    }

    fn range(&mut self, start: i64, end: i64) -> TileRange {
        let writer = (self.below(2) == 0).then(|| self.writer());
        TileRange { partition: self.partition(), length: 10, start, end, writer }
    }

    fn tile(&mut self) -> Tile {
        let writer = self.writer();
        let key = TileKey { partition: self.partition(), length: 10, start: self.below(4) as i64 * 10 - 20, writer };
        let size = [0, 30, 30, 30, 389_120, 389_121, 800_000][self.below(7) as usize];
        Tile {
            key,
            position: self.below(12).into(),
            last_event: self.below(100) as i64 - 50,
            expires_at: Some(self.below(20) as i64).filter(|at| at % 2 == 0),
            partial: vec![self.below(256) as u8; size],
        }
    }
}

type Model = BTreeMap<TileKey, Tile>;

/// Stores what is newer and returns how many keys that changed.
fn put(model: &mut Model, tiles: &[Tile]) -> usize {
    let before = model.clone();
    for tile in tiles {
        if model.get(&tile.key).is_none_or(|known| known.position < tile.position) {
            model.insert(tile.key.clone(), tile.clone());
        }
    }
    model.iter().filter(|(key, tile)| before.get(key) != Some(tile)).count()
}

fn read(model: &Model, range: &TileRange, now: i64) -> Vec<Tile> {
    let is_wanted = |tile: &&Tile| {
        tile.key.partition == range.partition
            && (range.start..range.end).contains(&tile.key.start)
            && range.writer.as_ref().is_none_or(|w| *w == tile.key.writer)
            && tile.expires_at.is_none_or(|at| at > now)
    };
    model.values().filter(is_wanted).cloned().collect()
}

fn faults(seed: u64) -> impl Fn(&Call) -> Fault {
    move |call| match random(seed, call) % 100 {
        0..=3 => Fault::Refuse("ProvisionedThroughputExceededException"),
        4..=7 => Fault::DropBefore,
        8..=11 => Fault::DropAfter,
        12..=15 => Fault::Cut,
        n @ 16..=40 => Fault::Delay(Duration::from_micros(n * 30)),
        41..=70 if call.operation.starts_with("Batch") => Fault::Unprocessed,
        41..=70 if matches!(call.operation.as_str(), "Query" | "Scan") => Fault::SmallPage,
        _ => Fault::None,
    }
}

#[tokio::test]
async fn a_store_behind_faults_is_a_map_that_keeps_the_newest() {
    for seed in 0..3 {
        let (name, _) = new_store().await;
        let proxy = Proxy::start(&endpoint(), faults(seed)).await;
        let store = store_at(&proxy.endpoint, &name).await;
        let (mut numbers, mut model) = (Numbers(seed), Model::new());
        for step in 0..60 {
            let doing = format!("seed {seed}, step {step}");
            match numbers.below(10) {
                0 => {
                    let mut prefix = numbers.partition();
                    prefix.truncate(numbers.below(3) as usize);
                    let before = model.len();
                    model.retain(|key, _| !key.partition.starts_with(&prefix));
                    assert_eq!(store.remove(&prefix).await.expect(&doing), before - model.len(), "{doing}");
                }
                1..=6 => {
                    let tiles: Vec<Tile> = (0..=numbers.below(6)).map(|_| numbers.tile()).collect();
                    let stored = put(&mut model, &tiles);
                    assert_eq!(store.put(tiles).await.expect(&doing), stored, "{doing}");
                }
                _ => {
                    let start = numbers.below(6) as i64 * 10 - 30;
                    let end = start + [1, numbers.below(50) as i64][numbers.below(2) as usize];
                    let ranges: Vec<TileRange> = (0..3).map(|_| numbers.range(start, end)).collect();
                    let now = numbers.below(20) as i64;
                    let found = store.read(&ranges, now).await.expect(&doing);
                    let wanted: Vec<Vec<Tile>> = ranges.iter().map(|range| read(&model, range, now)).collect();
                    assert!(found == wanted, "{doing}");
                }
            }
        }
        let parts = |tile: &Tile| if tile.partial.len() > 389_120 { tile.partial.len().div_ceil(389_120) } else { 0 };
        let wanted: usize = model.values().map(|tile| 1 + parts(tile)).sum();
        assert_eq!(items(&name).await, wanted, "seed {seed}: no part is left of what was replaced");
    }
}
