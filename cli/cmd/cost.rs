//! What a view's tiles cost in the online table, for `plan`.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{ident, lit};
use featurectl_core::tile::{feature_window, level_of, tiles_of};
use featurectl_core::{FeatureView, Result, Tile};
use featurectl_feature_store::Version;
use featurectl_feature_store::dynamodb::{Sample, usage};
use futures::TryStreamExt;

use crate::prices::{Cost, Prices, dollars};
use crate::project::Online;
use crate::run::thousands;
use crate::session::Session;

/// Tiles of each length whose sizes are taken.
const SAMPLE: usize = 5_000;

impl Session {
    /// What the tiles of a view cost, from those that are in the offline store; `None` if it has none yet, or the online
    /// store costs nothing.
    pub(super) async fn cost(&self, view: &FeatureView, version: Option<&Version>) -> Result<Option<Cost>> {
        if !view.online {
            return Ok(None);
        }
        let Online::Table(_, options) = self.project.online()? else { return Ok(None) };
        let prices = Prices::read(self.project.prices.as_deref())?;
        let Some(version) = version.filter(|v| v.rows > 0) else { return Ok(None) };
        let mut samples = Vec::new();
        for (length, total) in self.counts(view).await? {
            let needed = needed(view, length);
            samples.push(Sample { tiles: self.tiles(view, length).await?, total, needed });
        }
        let usage = usage(&samples, version.manifest.units.len() as u64)?;
        let region = self.project.access.region.as_deref();
        prices.cost(region, version.rows, &usage, options.point_in_time_recovery).map(Some)
    }

    /// How many tiles there are of each length.
    async fn counts(&self, view: &FeatureView) -> Result<Vec<(i64, u64)>> {
        let rows = self.here.read_table(self.offline.read(&view.name).await?)?;
        let batches = rows.aggregate(vec![ident("tile_us")], vec![count(lit(1))])?.collect().await?;
        let column = |b: &RecordBatch, i: usize| b.column(i).as_primitive::<Int64Type>().values().to_vec();
        let pairs = batches.iter().flat_map(|b| std::iter::zip(column(b, 0), column(b, 1)));
        Ok(pairs.map(|(length, count)| (length, count as u64)).collect())
    }

    /// Some tiles of a length.
    async fn tiles(&self, view: &FeatureView, length: i64) -> Result<Vec<Tile>> {
        let rows = self.here.read_table(self.offline.read(&view.name).await?)?;
        let rows = rows.filter(ident("tile_us").eq(lit(length)))?.limit(0, Some(SAMPLE))?;
        let batches: Vec<_> = rows.execute_stream().await?.try_collect().await?;
        let tiles = batches.iter().map(|batch| tiles_of(view, &[0; 8], batch)).collect::<Result<Vec<_>>>()?;
        Ok(tiles.concat())
    }
}

/// The most tiles of a length that an entity's features need.
fn needed(view: &FeatureView, length: i64) -> u64 {
    let windows = view.features.iter().map(|f| feature_window(view, f).0).filter(|w| level_of(*w) == length);
    // The tile that a window begins in counts, and the one that it ends in.
    let tiles = windows.filter_map(|w| w.length).map(|w| (w / length) as u64 + 1).max();
    tiles.unwrap_or(1)
}

/// A line for people.
pub(super) fn text(cost: &Cost) -> String {
    let Cost { tiles, measured_tiles, .. } = cost;
    let of = if measured_tiles < tiles {
        format!(", sizes from {} of them", thousands(*measured_tiles))
    } else {
        String::new()
    };
    let recovery = match cost.recovery_dollars_per_month {
        0.0 => String::new(),
        price => format!(" and {} for recovery", dollars(price)),
    };
    format!(
        "{} tiles{of}: {} write units {} (import {}), {} bytes {}{recovery} a month, \
         {} + {} read units for one entity {} a million; prices of {}, {}",
        thousands(*tiles),
        thousands(cost.write_units),
        dollars(cost.write_dollars),
        dollars(cost.import_dollars),
        thousands(cost.stored_bytes),
        dollars(cost.storage_dollars_per_month),
        cost.read_units_per_request,
        cost.read_units_per_entity,
        dollars(cost.million_reads_dollars),
        cost.prices_region,
        cost.prices_date,
    )
}
