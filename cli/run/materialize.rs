//! `MATERIALIZE FEATURE VIEW`: tiles into the offline store, and from there into the online store.

use std::sync::Arc;

use datafusion::logical_expr::col;
use featurectl_core::tile::TileNode;
use featurectl_core::{FeatureView, Micros, Result, lineage};
use featurectl_feature_store::{Manifest, current_generation, put_tiles, serve_generation};
use futures::StreamExt;

use super::{Run, columns, generation, hash, thousands, view_hash, with_date};

/// Tiles written to the online store in one transaction.
const PUT_ROWS: usize = 32_768;

impl Run<'_> {
    pub(super) async fn materialize(&mut self, view: &Arc<FeatureView>, until: Option<Micros>) -> Result<()> {
        let started = self.begin("Computed", &view.name);
        let session = self.session;
        let found = lineage(&view.events)?;
        let sources = session.source_versions(&found, &self.id).await?;
        let tiles = TileNode::plan(view, until)?;
        let manifest = Manifest {
            kind: "feature view".into(),
            name: view.name.clone(),
            definition_hash: hash([view.sql.as_str()]),
            input_hash: view_hash(view, &found, &sources, until),
            sources,
            columns: columns(tiles.schema().as_arrow()),
            run_id: self.id.clone(),
        };
        let target = generation(&manifest.input_hash);
        let plan = with_date(tiles, Some(col("tile_start")))?;
        let version = session.offline.write(&session.ctx, &view.name, plan, manifest).await?;
        let served = if view.online { self.fill_online(view, target).await? } else { false };
        let detail =
            format!("{} tiles, {} features{}", thousands(version.rows), view.features.len(), online_note(view));
        let figures =
            serde_json::json!({ "tiles": version.rows, "features": view.features.len(), "online": view.online });
        self.done("Computed", &view.name, detail, !version.written && !served, started, figures);
        Ok(())
    }

    /// Copies the offline tiles to the online store, unless they are served already; says whether it did.
    async fn fill_online(&self, view: &FeatureView, target: [u8; 8]) -> Result<bool> {
        let store = self.session.online()?;
        if current_generation(&store, &view.name).await?.is_some_and(|(g, _)| g == target) {
            return Ok(false);
        }
        let provider = self.session.offline.read(&view.name).await?;
        let rows = self.session.ctx.read_table(provider)?;
        let mut stream = rows.execute_stream().await?;
        let (mut held, mut count) = (Vec::new(), 0);
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            count += batch.num_rows();
            held.push(batch);
            if count >= PUT_ROWS {
                self.put(&store, view, target, &mut held).await?;
                count = 0;
            }
        }
        self.put(&store, view, target, &mut held).await?;
        serve_generation(&store, &view.name, target).await?;
        Ok(true)
    }

    async fn put(
        &self,
        store: &featurectl_feature_store::EmbeddedStore,
        view: &FeatureView,
        target: [u8; 8],
        held: &mut Vec<arrow::array::RecordBatch>,
    ) -> Result<()> {
        if let Some(first) = held.first() {
            let batch = arrow::compute::concat_batches(&first.schema(), held.iter())?;
            put_tiles(store, view, target, &batch).await?;
            held.clear();
        }
        Ok(())
    }
}

fn online_note(view: &FeatureView) -> &'static str {
    if view.online { ", online" } else { "" }
}
