//! `MATERIALIZE FEATURE VIEW`: tiles into the offline store, and from there into the online store.
//!
//! ```text
//!  files of the source      units of work           offline table               online store
//!  ┌────┬────┬────┐         ┌─────────┐             rows of unit 1  ─────────▶  tiles of writer 1 ┐
//!  │ d1 │ d2 │ d3 │ ──────▶ │ 1: d1   │ ──commit──▶ rows of unit 2  ─────────▶  tiles of writer 2 ┼─merge at read
//!  └────┴────┴────┘         │ 2: d2 … │             …                           …                 ┘
//!                           └─────────┘
//! ```
//! Each unit is committed by itself, so that a killed backfill goes on where it was; a new file is a new unit, whose
//! partials are merged with the others; of a changed file only its unit is made again. That holds where an event is made
//! from one row of a file; of any other query all is made again. The right half is in `online.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::logical_expr::{col, lit};
use featurectl_connectors::{SourceFile, files_version, only_files, source_files};
use featurectl_core::tile::{TileNode, WRITER_COLUMN, tile_schema};
use featurectl_core::{FeatureView, Lineage, Micros, Result, lineage, over_table, row_wise};
use featurectl_feature_store::{Manifest, Replace, Unit, Version};

use super::{Run, columns, hash, thousands, view_hash, with_column, with_date};

/// The most units of work that new files are dealt to: a commit costs some time, a killed one its work.
const UNITS_MAX: usize = 32;

/// A unit of work that is to be done.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    id: String,
    /// `None`: the whole source.
    files: Option<Vec<SourceFile>>,
    replace: Replace,
}

impl Run<'_> {
    pub(super) async fn materialize(&mut self, view: &Arc<FeatureView>, until: Option<Micros>) -> Result<()> {
        let started = self.begin("Computed", &view.name);
        let session = self.session;
        let found = lineage(&view.events)?;
        let sources = session.source_versions(&found, &self.id).await?;
        let manifest = Manifest {
            kind: "feature view".into(),
            name: view.name.clone(),
            definition_hash: view_hash(view, &found, &[], until),
            input_hash: view_hash(view, &found, &sources, until),
            sources,
            columns: columns(&tile_schema(view)),
            run_id: self.id.clone(),
            base: String::new(),
            units: vec![],
        };
        let version = match session.offline.latest(&view.name).await? {
            Some(version) if version.manifest.input_hash == manifest.input_hash => version,
            latest => self.backfill(view, until, &found, manifest, latest).await?,
        };
        let (served, note) = if view.online { self.fill_online(view, &version).await? } else { (false, String::new()) };
        let registered = session.register_version(&view.name, &version).await?;
        let (tiles, features) = (thousands(version.rows), view.features.len());
        let detail = format!("{tiles} tiles, {features} features{}{}{note}", online_note(view), registered.note());
        let figures =
            serde_json::json!({ "tiles": version.rows, "features": view.features.len(), "online": view.online });
        let unchanged = !version.written && !served && !registered.changed;
        self.done("Computed", &view.name, detail, unchanged, started, figures);
        Ok(())
    }

    /// Makes what is missing of the offline table, unit by unit.
    async fn backfill(
        &mut self,
        view: &Arc<FeatureView>,
        until: Option<Micros>,
        found: &Lineage,
        mut wanted: Manifest,
        mut latest: Option<Version>,
    ) -> Result<Version> {
        let session = self.session;
        let table = row_wise(&view.events).filter(|_| until.is_none() && found.models.is_empty());
        let files = match &table {
            Some(table) => source_files(&session.ctx, table.as_ref()).await?,
            None => None,
        };
        if let (Some(files), [(_, version)]) = (&files, wanted.sources.as_mut_slice()) {
            // The files that are read are those of this listing, also if one has come since the version was taken.
            *version = files_version(files);
            wanted.input_hash = view_hash(view, found, &wanted.sources, until);
        }
        let same = latest.as_ref().filter(|v| v.manifest.definition_hash == wanted.definition_hash);
        let steps = steps(files, same.map_or(&[], |v| v.manifest.units.as_slice()));
        let count = steps.len();
        for (number, step) in steps.into_iter().enumerate() {
            if count > 1 {
                self.begin("Computed", &format!("{} ({} of {count})", view.name, number + 1));
            }
            let plan = match (&table, &step.files) {
                (Some(table), Some(files)) => {
                    let events = over_table(&view.events, &only_files(Arc::clone(table), files))?;
                    TileNode::plan(&Arc::new(FeatureView { events, ..view.as_ref().clone() }), until)?
                }
                _ => TileNode::plan(view, until)?,
            };
            let plan =
                with_column(with_date(plan, Some(col("tile_start")))?, lit(step.id.as_str()).alias(WRITER_COLUMN))?;
            let manifest = after(&wanted, latest.as_ref(), &step, number + 1 == count);
            let written = session.offline.write(&session.ctx, &view.name, plan, manifest, step.replace, latest.take());
            latest = Some(written.await?);
        }
        latest.ok_or_else(|| featurectl_core::Error::internal("a backfill without a unit of work"))
    }
}

/// What there is to do for the table to be made of `files`, when it is made of `known`.
fn steps(files: Option<Vec<SourceFile>>, known: &[Unit]) -> Vec<Step> {
    let Some(files) = files else {
        return vec![Step { id: "all".into(), files: None, replace: Replace::All }];
    };
    let mut left: BTreeMap<String, SourceFile> = files.iter().map(|f| (f.path.clone(), f.clone())).collect();
    let mut steps = Vec::new();
    let mut kept = 0;
    for unit in known {
        let now: Vec<_> = unit.files.iter().filter_map(|(path, _)| left.remove(path)).collect();
        kept += now.len();
        if !now.iter().map(|f| (&f.path, &f.version)).eq(unit.files.iter().map(|(p, v)| (p, v))) {
            steps.push(Step { id: unit.id.clone(), files: Some(now), replace: Replace::Unit(unit.id.clone()) });
        }
    }
    // Nothing of it is left, so that all is made anew.
    let anew = kept == 0;
    if anew {
        steps.clear();
    }
    let new: Vec<_> = left.into_values().collect();
    for files in new.chunks(new.len().div_ceil(UNITS_MAX).max(1)) {
        let replace = if anew && steps.is_empty() { Replace::All } else { Replace::Nothing };
        let id = hash(files.iter().map(|f| f.path.as_str()));
        steps.push(Step { id, files: Some(files.to_vec()), replace });
    }
    match steps.is_empty() {
        // What has changed is not a file.
        true if !known.is_empty() && !files.is_empty() => self::steps(Some(files), &[]),
        true => vec![Step { id: "none".into(), files: Some(vec![]), replace: Replace::All }],
        false => steps,
    }
}

/// The manifest of the table once a step is done.
fn after(wanted: &Manifest, before: Option<&Version>, step: &Step, last: bool) -> Manifest {
    let input_hash =
        if last { wanted.input_hash.clone() } else { hash([wanted.input_hash.as_str(), step.id.as_str()]) };
    let files = step.files.iter().flatten().map(|f| (f.path.clone(), f.version.clone())).collect();
    let unit = Unit { id: step.id.clone(), files, version: before.map_or(0, |v| v.number + 1) };
    let kept = before.filter(|_| step.replace != Replace::All).map(|v| v.manifest.clone());
    let base = kept.as_ref().filter(|_| step.replace == Replace::Nothing).map(|m| m.base.clone());
    let mut units: Vec<_> = kept.into_iter().flat_map(|m| m.units).filter(|u| u.id != step.id).collect();
    // A unit whose files are all gone has no rows.
    if step.files.as_ref().is_none_or(|f| !f.is_empty()) {
        units.push(unit);
    }
    Manifest { base: base.unwrap_or_else(|| input_hash.clone()), input_hash, units, ..wanted.clone() }
}

fn online_note(view: &FeatureView) -> &'static str {
    if view.online { ", online" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, version: &str) -> SourceFile {
        SourceFile { path: path.into(), version: version.into() }
    }

    fn unit(id: &str, files: &[(&str, &str)]) -> Unit {
        let files = files.iter().map(|(p, v)| (p.to_string(), v.to_string())).collect();
        Unit { id: id.into(), files, version: 0 }
    }

    #[test]
    fn only_what_is_missing_or_changed_is_done() {
        let known = [unit("1", &[("a", "1"), ("b", "1")]), unit("2", &[("c", "1")])];
        let all = [file("a", "1"), file("b", "1"), file("c", "1")];
        let later = |more: &[SourceFile]| steps(Some([&all[..], more].concat()), &known);
        let [new] = later(&[file("d", "1")]).try_into().expect("one step");
        assert_eq!((new.files, new.replace), (Some(vec![file("d", "1")]), Replace::Nothing));
        let changed = steps(Some(vec![file("a", "1"), file("b", "2"), file("c", "1")]), &known);
        let files = Some(vec![file("a", "1"), file("b", "2")]);
        assert_eq!(changed, [Step { id: "1".into(), files, replace: Replace::Unit("1".into()) }]);
        let gone = steps(Some(all[..2].to_vec()), &known);
        assert_eq!(gone, [Step { id: "2".into(), files: Some(vec![]), replace: Replace::Unit("2".into()) }]);
        let moved = steps(Some(vec![file("x", "1")]), &known);
        assert_eq!(moved.iter().map(|s| &s.replace).collect::<Vec<_>>(), [&Replace::All]);
        let other = later(&[]);
        assert_eq!(other[0].replace, Replace::All, "what changed is not a file: all is made again");
        assert_eq!(other.iter().map(|s| s.files.as_ref().map_or(0, Vec::len)).sum::<usize>(), 3);
    }

    #[test]
    fn many_files_are_few_units_and_none_is_one() {
        let many: Vec<_> = (0..1000).map(|i| file(&format!("{i:04}"), "1")).collect();
        let found = steps(Some(many.clone()), &[]);
        assert!(found.len() <= UNITS_MAX);
        assert_eq!(found.iter().flat_map(|s| s.files.clone().expect("files")).collect::<Vec<_>>(), many);
        assert!(found[1..].iter().all(|s| s.replace == Replace::Nothing) && found[0].replace == Replace::All);
        assert_eq!(steps(Some(vec![]), &[]).len(), 1);
        assert_eq!(steps(None, &[unit("1", &[])]).len(), 1);
    }
}
