//! The files of an import: gzip files of DynamoDB JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use featurectl_core::{Error, Result, Tile, TileKey};
use flate2::{Compression, write::GzEncoder};
use futures::{Stream, StreamExt};
use std::fmt::Write as _;
use std::io::Write as _;
use tokio::task::JoinSet;

use super::item::{Item, Value, encode};
use crate::folder::Folder;

/// About how many bytes of JSON are in a file: far below what DynamoDB refuses, far above many small files, and small
/// enough to be held.
const FILE_BYTES: usize = 32 << 20;
/// Bytes of an item's JSON besides its partial, about.
const ITEM_BYTES: usize = 256;
/// Files that are written at once.
const FILES_AT_ONCE: usize = 2;
/// How far apart in a file the tiles are that follow each other in order: an import that meets all tiles of one entity
/// at once is slowed down by the one place that they go to.
const APART: usize = 1024;
/// The number of the one write that an import is.
const WRITE: u64 = 0;

/// Writes `tiles` into files of the empty folder `folder` and returns how many items they are; `told` how many tiles
/// there are by now. What is there is whole when this returns.
///
/// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) if tiles are not in the order of their keys or a key comes
/// twice.
pub(super) async fn write(
    folder: &Folder,
    tiles: impl Stream<Item = Result<Vec<Tile>>> + Send,
    told: &mut (dyn FnMut(u64) + Send),
) -> Result<u64> {
    let mut tiles = std::pin::pin!(tiles);
    let (mut held, mut bytes, mut last, mut count, mut items) = (Vec::new(), 0, None::<TileKey>, 0, 0);
    let (mut files, mut begun) = (JoinSet::new(), 0);
    while let Some(more) = tiles.next().await {
        for tile in more? {
            if last.as_ref().is_some_and(|last| *last >= tile.key) {
                return Err(Error::invalid("tiles of an import must come in the order of their keys, each key once"));
            }
            last = Some(tile.key.clone());
            bytes += tile.partial.len() * 4 / 3 + ITEM_BYTES;
            count += 1;
            held.push(tile);
            if bytes >= FILE_BYTES {
                items += free(&mut files, FILES_AT_ONCE - 1).await?;
                write_file(&mut files, folder, &mut begun, std::mem::take(&mut held));
                bytes = 0;
                told(count);
            }
        }
    }
    if !held.is_empty() {
        write_file(&mut files, folder, &mut begun, held);
    }
    items += free(&mut files, 0).await?;
    told(count);
    Ok(items)
}

/// Waits until at most `left` files are being written, and returns how many items are in the others.
async fn free(files: &mut JoinSet<Result<u64>>, left: usize) -> Result<u64> {
    let mut items = 0;
    while files.len() > left {
        if let Some(file) = files.join_next().await {
            items += file.map_err(|e| Error::internal(e.to_string()))??;
        }
    }
    Ok(items)
}

fn write_file(files: &mut JoinSet<Result<u64>>, folder: &Folder, begun: &mut usize, tiles: Vec<Tile>) {
    let (folder, name) = (folder.clone(), format!("{begun:05}.json.gz"));
    *begun += 1;
    files.spawn_blocking(move || {
        let (bytes, items) = file(&tiles)?;
        folder.write(&name, bytes)?;
        Ok(items)
    });
}

/// The bytes of a file, and how many items are in it.
fn file(tiles: &[Tile]) -> Result<(Vec<u8>, u64)> {
    let mut file = GzEncoder::new(Vec::new(), Compression::fast());
    let (mut line, mut items) = (String::new(), 0);
    let order = (0..APART.min(tiles.len())).flat_map(|first| (first..tiles.len()).step_by(APART));
    for tile in order.map(|i| &tiles[i]) {
        for item in encode(tile, WRITE)? {
            line.clear();
            push_line(&item, &mut line);
            file.write_all(line.as_bytes())?;
            items += 1;
        }
    }
    Ok((file.finish()?, items))
}

/// Adds an item as a line of DynamoDB JSON. Nothing in it needs to be escaped.
pub(super) fn push_line(item: &Item, line: &mut String) {
    line.push_str("{\"Item\":{");
    for (i, (name, value)) in item.attributes().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        // Text is always written.
        let _ = match value {
            Value::Number(n) => write!(line, "{comma}\"{name}\":{{\"N\":\"{n}\"}}"),
            Value::Binary(bytes) => {
                let _ = write!(line, "{comma}\"{name}\":{{\"B\":\"");
                BASE64.encode_string(bytes, line);
                write!(line, "\"}}")
            }
        };
    }
    line.push_str("}}\n");
}

#[cfg(test)]
mod tests;
