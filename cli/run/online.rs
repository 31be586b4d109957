//! Tiles from the offline store into the online store, written or imported, and then served.
//!
//! ```text
//!  offline table ─┬─ new units ───────────▶ written ────────────────────────────────────┬─▶ pointer ─▶ what it named
//!                 └─ all, sorted by key ──▶ files in S3 ──ImportTable──▶ a table of its own ─┘            before goes
//! ```

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field};
use datafusion::functions::core::expr_fn::arrow_cast;
use datafusion::functions::encoding::expr_fn::encode;
use datafusion::functions::string::expr_fn::octet_length;
use datafusion::logical_expr::{Expr, SortExpr, col, ident, lit};
use datafusion::prelude::DataFrame;
use featurectl_core::tile::{WRITER_COLUMN, tiles_of};
use featurectl_core::{Error, FeatureView, OnlineStore, Result};
use featurectl_feature_store::dynamodb::Progress;
use featurectl_feature_store::{Generation, Served, Version, clear, put_tiles, serve, served};
use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};

use super::{Event, Run, thousands};

/// Tiles written to the online store in one transaction.
const PUT_ROWS: usize = 32_768;

impl Run<'_> {
    /// Serves a version of the offline tiles; says whether it was not served before, and what there is to say of it.
    pub(super) async fn fill_online(&mut self, view: &FeatureView, version: &Version) -> Result<(bool, String)> {
        let store = self.session.online().await?;
        let generation = generation(&version.manifest.base);
        // What an earlier run could not remove. It may be of this generation, with tiles of other files.
        let kept = clear(store.as_ref(), &view.name).await?;
        let before = served(store.as_ref(), &view.name).await?.filter(|s| s.generation == generation);
        if before.as_ref().is_some_and(|s| s.version == version.number) {
            if before.is_some_and(|s| s.table.is_some()) {
                self.remove_import(generation).await?;
            }
            return Ok((false, note(&kept)));
        }
        let table = match &before {
            Some(before) => before.table.clone(),
            None => self.import(view, version, generation, &kept).await?,
        };
        if before.is_some() || table.is_none() {
            let beside = table.as_deref().map(|name| store.table(name)).transpose()?;
            let tiles: &dyn OnlineStore = beside.as_deref().unwrap_or(store.as_ref());
            self.write_units(tiles, view, version, before.as_ref()).await?;
        }
        let writer = match version.manifest.units.as_slice() {
            [unit] => Some(unit.id.clone()),
            _ => None,
        };
        serve(store.as_ref(), &view.name, Served { generation, version: version.number, writer, table }).await?;
        self.remove_import(generation).await?;
        let kept = clear(store.as_ref(), &view.name).await?;
        Ok((true, note(&kept)))
    }

    /// Writes the tiles of the units that are not served yet.
    async fn write_units(
        &self,
        store: &dyn OnlineStore,
        view: &FeatureView,
        version: &Version,
        before: Option<&Served>,
    ) -> Result<()> {
        let generation = generation(&version.manifest.base);
        let new = version.manifest.units.iter().filter(|u| before.is_none_or(|s| u.version > s.version));
        let new: Vec<Expr> = new.map(|u| lit(u.id.as_str())).collect();
        let rows = self.tiles(view).await?.filter(col(WRITER_COLUMN).in_list(new, false))?;
        let mut stream = rows.execute_stream().await?;
        let (mut held, mut count) = (Vec::new(), 0);
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            count += batch.num_rows();
            held.push(batch);
            if count >= PUT_ROWS {
                put(store, view, generation, &mut held).await?;
                count = 0;
            }
        }
        put(store, view, generation, &mut held).await
    }

    /// Makes a table of all tiles by import, if the project asks for that, and returns its name.
    async fn import(
        &mut self,
        view: &FeatureView,
        version: &Version,
        generation: Generation,
        kept: &[String],
    ) -> Result<Option<String>> {
        let Some((store, import)) = self.session.project.import(generation).await?.filter(|_| version.rows > 0) else {
            return Ok(None);
        };
        if kept.contains(&import.table) {
            let text = format!(
                "the table `{}` is there from an earlier run and may have tiles of other files: turn off its deletion \
                 protection, so that it can be made anew",
                import.table
            );
            return Err(Error::conflict(text));
        }
        let rows = self.tiles(view).await?.sort(in_order_of_keys(view))?.execute_stream().await?;
        let tiles = rows.map_err(Error::from).map(|batch| tiles_of(view, &generation, &batch?));
        let mut told = |progress| {
            let (name, rows) = (&view.name, thousands(version.rows));
            let name = match progress {
                Progress::Written(tiles) => format!("{name} (import: {} of {rows} tiles in files)", thousands(tiles)),
                Progress::Imported(items, of) => {
                    format!("{name} (import: {} of {} items)", thousands(items), thousands(of))
                }
            };
            (self.emit)(Event::Begin { verb: "Computed", name: &name });
        };
        store.import(&import, tiles, &mut told).await?;
        Ok(Some(import.table))
    }

    /// Removes the files of an import that is served.
    async fn remove_import(&self, generation: Generation) -> Result<()> {
        match self.session.project.import(generation).await? {
            Some((_, import)) => import.remove_files().map(|_| ()),
            None => Ok(()),
        }
    }

    /// The rows of the offline table.
    async fn tiles(&self, view: &FeatureView) -> Result<DataFrame> {
        Ok(self.session.here.read_table(self.session.offline.read(&view.name).await?)?)
    }
}

/// The order of the keys that tiles have in a store: of each column of the entity its length in bytes, then its bytes;
/// then the length of the tile, its start and its writer.
fn in_order_of_keys(view: &FeatureView) -> Vec<SortExpr> {
    let entity = view.entity.iter().flat_map(|field| {
        let key = ident(field.name());
        length(field, &key).into_iter().chain([key])
    });
    let others = ["tile_us", "tile_start", WRITER_COLUMN].map(ident);
    entity.chain(others).map(|key| key.sort(true, true)).collect()
}

/// The length of a key in bytes, where it can differ.
fn length(field: &Field, key: &Expr) -> Option<Expr> {
    let of = |data_type: &DataType| match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(arrow_cast(key.clone(), lit("Utf8"))),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            Some(encode(arrow_cast(key.clone(), lit("Binary")), lit("hex")))
        }
        _ => None,
    };
    let text = match field.data_type() {
        DataType::Dictionary(_, values) => of(values),
        other => of(other),
    };
    text.map(octet_length)
}

async fn put(
    store: &dyn OnlineStore,
    view: &FeatureView,
    generation: Generation,
    held: &mut Vec<RecordBatch>,
) -> Result<()> {
    if let Some(first) = held.first() {
        let batch = concat_batches(&first.schema(), held.iter())?;
        put_tiles(store, view, generation, &batch).await?;
        held.clear();
    }
    Ok(())
}

/// The generation of the online store is the beginning of a hash.
fn generation(base: &str) -> Generation {
    let digest = Sha256::digest(base);
    std::array::from_fn(|i| digest[i])
}

/// What the user has to do with tables that could not be deleted.
pub(super) fn note(kept: &[String]) -> String {
    match kept {
        [] => String::new(),
        names => format!(", no longer read and protected from deletion: {}", names.join(", ")),
    }
}
