//! A new table by import: a backfill of many keys without a write unit.
//!
//! ```text
//!  tiles in the order of their keys ──▶ data/00000.json.gz  {"Item":{"pk":{"B":"…"},"sk":{"B":"…"},…}}
//!                                       data/00001.json.gz
//!                                       import.json         the request of ImportTable; written last
//! ```
//! DynamoDB imports only into a table that does not exist yet, and of two items with one key it keeps any. So the
//! tiles must come in the order of their keys, and the second of a key is an error.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use featurectl_core::{Error, Result, Tile, TileKey};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Map, json};

use super::item::{Item, Value, encode};

/// Bytes of JSON in a file before the next is begun: far below what DynamoDB refuses, far above many small files.
const FILE_BYTES: usize = 256 << 20;

/// The number of the one write that an import is.
const WRITE: u64 = 0;

/// Where an import goes to and comes from.
#[derive(Debug, Clone)]
pub struct ImportPlan {
    /// Name of the table that the import makes.
    pub table: String,
    /// Bucket that the folder is uploaded to.
    pub bucket: String,
    /// Key in the bucket that stands for the folder, without a slash at its end.
    pub prefix: String,
}

/// Writes the files of an import of `tiles` into the new folder `folder` and returns how many tiles there are. What
/// lies in a folder without `import.json` is not whole: remove it and write again.
///
/// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) if tiles are not in the order of their keys or a key comes
/// twice; [`Conflict`](featurectl_core::ErrorKind::Conflict) if the folder exists.
pub fn write_import(tiles: impl IntoIterator<Item = Result<Tile>>, folder: &Path, plan: &ImportPlan) -> Result<usize> {
    let doing = |e: std::io::Error| Error::from(e).context(format!("writing the import {}", folder.display()));
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent).map_err(doing)?;
    }
    if folder.exists() {
        let text = format!("the import {} is there already: remove it, or name another folder", folder.display());
        return Err(Error::conflict(text));
    }
    std::fs::create_dir(folder).and_then(|()| std::fs::create_dir(folder.join("data"))).map_err(doing)?;
    let mut files = Files { folder: folder.join("data"), begun: 0, open: None };
    let (mut count, mut last) = (0, None::<TileKey>);
    for tile in tiles {
        let tile = tile?;
        if last.as_ref().is_some_and(|last| *last >= tile.key) {
            return Err(Error::invalid("tiles of an import must come in the order of their keys, each key once"));
        }
        for item in encode(&tile, WRITE)? {
            files.write(&to_line(&item)?).map_err(doing)?;
        }
        count += 1;
        last = Some(tile.key);
    }
    files.finish().map_err(doing)?;
    let manifest = serde_json::to_vec_pretty(&request(plan)).map_err(|e| Error::internal(e.to_string()))?;
    let mut file = File::create_new(folder.join("import.json")).map_err(doing)?;
    file.write_all(&manifest).and_then(|()| file.sync_all()).map_err(doing)?;
    Ok(count)
}

/// The request of `ImportTable`: keys as in the layout, pay per request, the files of `data/` only.
fn request(plan: &ImportPlan) -> serde_json::Value {
    json!({
        "S3BucketSource": { "S3Bucket": plan.bucket, "S3KeyPrefix": format!("{}/data/", plan.prefix) },
        "InputFormat": "DYNAMODB_JSON",
        "InputCompressionType": "GZIP",
        "TableCreationParameters": {
            "TableName": plan.table,
            "AttributeDefinitions": [
                { "AttributeName": "pk", "AttributeType": "B" },
                { "AttributeName": "sk", "AttributeType": "B" },
            ],
            "KeySchema": [
                { "AttributeName": "pk", "KeyType": "HASH" },
                { "AttributeName": "sk", "KeyType": "RANGE" },
            ],
            "BillingMode": "PAY_PER_REQUEST",
        },
    })
}

/// An item as a line of DynamoDB JSON.
pub(super) fn to_line(item: &Item) -> Result<Vec<u8>> {
    let typed = |value| match value {
        Value::Binary(bytes) => json!({ "B": BASE64.encode(bytes) }),
        Value::Number(n) => json!({ "N": n.to_string() }),
    };
    let attributes: Map<_, _> = item.attributes().map(|(name, value)| (name.to_string(), typed(value))).collect();
    let mut line = serde_json::to_vec(&json!({ "Item": attributes })).map_err(|e| Error::internal(e.to_string()))?;
    line.push(b'\n');
    Ok(line)
}

/// The files of an import, one open at a time.
struct Files {
    folder: PathBuf,
    begun: usize,
    open: Option<(GzEncoder<BufWriter<File>>, usize)>,
}

impl Files {
    /// Adds a line, in a new file if the open one is full.
    fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        if self.open.as_ref().is_some_and(|(_, bytes)| bytes + line.len() > FILE_BYTES) {
            self.finish()?;
        }
        if self.open.is_none() {
            let file = File::create_new(self.folder.join(format!("{:05}.json.gz", self.begun)))?;
            self.open = Some((GzEncoder::new(BufWriter::new(file), Compression::fast()), 0));
            self.begun += 1;
        }
        if let Some((file, bytes)) = &mut self.open {
            file.write_all(line)?;
            *bytes += line.len();
        }
        Ok(())
    }

    /// Ends the open file; its bytes are on the disk when this returns.
    fn finish(&mut self) -> std::io::Result<()> {
        let Some((file, _)) = self.open.take() else { return Ok(()) };
        let file = file.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests;
