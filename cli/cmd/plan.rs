//! `plan`: what `run` would read, compute and write, and what of it is new. Nothing is computed.

use std::path::Path;
use std::process::ExitCode;

use datafusion::common::stats::Precision;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use featurectl_core::check::{Checked, Copy};
use featurectl_core::sql::ObjectKind;
use featurectl_core::tile::Program;
use featurectl_core::{FeatureView, Micros, Model, Result, TrainingSet, lineage};
use featurectl_feature_store::Version;
use serde::Serialize;

use super::cost;
use super::job::{open, report};
use crate::args::{Global, Output};
use crate::prices::Cost;
use crate::project::Online;
use crate::render;
use crate::run::{hash, input_hash, plural, thousands, upstream, view_hash};
use crate::session::{Extensions, Session};

/// One line of a plan.
#[derive(Debug, Default, Serialize)]
struct Planned {
    statement: String,
    status: &'static str,
    reads: Vec<String>,
    writes: Option<String>,
    /// Of a view in DynamoDB, if its tiles are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<Cost>,
    /// Why it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_cost: Option<&'static str>,
}

/// What is said of a view that was never materialized.
const NO_TILES: &str = "not known before the first run, which gives the tiles their sizes";

pub(super) async fn plan(global: &Global, extensions: &Extensions, path: &Path) -> Result<ExitCode> {
    let (session, job) = open(global, extensions, path).await?;
    if !job.is_valid() {
        return Ok(report(&job, global));
    }
    let mut lines = Vec::new();
    let mut changed = false;
    for (_, checked) in &job.statements {
        if let Some(line) = session.planned(checked, changed).await? {
            changed |= line.status != "unchanged";
            lines.push(line);
        }
    }
    match global.output {
        Output::Json => render::json(&lines)?,
        _ => lines.iter().for_each(print),
    }
    Ok(ExitCode::SUCCESS)
}

fn print(line: &Planned) {
    println!("{:>10}  {}", line.status, line.statement);
    if !line.reads.is_empty() {
        println!("{:>10}    reads   {}", "", line.reads.join(", "));
    }
    if let Some(writes) = &line.writes {
        println!("{:>10}    writes  {writes}", "");
    }
    if let Some(costs) = line.cost.as_ref().map(cost::text).or(line.no_cost.map(String::from)) {
        println!("{:>10}    costs   {costs}", "");
    }
}

impl Session {
    /// What `run` would do with a statement; `changed`: whether anything before it changes.
    async fn planned(&self, checked: &Checked, changed: bool) -> Result<Option<Planned>> {
        let definition = |kind: ObjectKind, name: &str, what: String, sql: &str, reads| -> Result<Planned> {
            let statement = format!("{} {name}  ({what})", kind.noun());
            Ok(Planned {
                statement,
                status: self.definition_status(kind, name, sql)?,
                reads,
                writes: None,
                ..Planned::default()
            })
        };
        Ok(Some(match checked {
            Checked::Table { name, locations, .. } => self.planned_table(name, locations).await?,
            Checked::View(view) => {
                let (features, windows) = (view.features.len(), view.windows().len());
                let what = format!("{}, {}", plural(features, "feature"), plural(windows, "window"));
                definition(ObjectKind::FeatureView, &view.name, what, &view.sql, upstream(&lineage(&view.events)?))?
            }
            Checked::Service(service) => {
                let reads = service.views.iter().map(|v| format!("feature view {v}")).collect();
                let what = plural(service.output.fields().len(), "column");
                definition(ObjectKind::FeatureService, &service.name, what, &service.sql, reads)?
            }
            Checked::Materialize { view, until } => self.planned_view(view, *until).await?,
            Checked::TrainingSet(set) => self.planned_set(set).await?,
            Checked::Model(model) => self.planned_model(model, changed)?,
            Checked::Copy(copy) => self.planned_copy(copy, changed).await?,
            Checked::Drop { kind, name, .. } => {
                let statement = format!("drop {} {name}", kind.noun());
                Planned { statement, status: "drop", reads: vec![], ..Planned::default() }
            }
            Checked::Query(_) | Checked::Session => return Ok(None),
        }))
    }

    /// A table with its rows, if its files tell them, and the bytes of its file.
    async fn planned_table(&self, name: &str, locations: &[String]) -> Result<Planned> {
        let rows = match self.rows(name).await {
            Ok(Precision::Exact(rows)) => format!("  ({} rows)", thousands(rows as u64)),
            _ => String::new(),
        };
        let size = |l: &String| match std::fs::metadata(l) {
            Ok(meta) if meta.is_file() => format!("{l} ({} bytes)", thousands(meta.len())),
            _ => l.clone(),
        };
        let known = self.registry.get(ObjectKind::Table, name)?.is_some();
        Ok(Planned {
            statement: format!("table {name}{rows}"),
            status: if known { "unchanged" } else { "new" },
            reads: locations.iter().map(size).collect(),
            ..Planned::default()
        })
    }

    async fn rows(&self, table: &str) -> Result<Precision<usize>> {
        let scan = self.ctx.table(table).await?.create_physical_plan().await?;
        Ok(StatisticsContext::new().compute(scan.as_ref(), &StatisticsArgs::new())?.num_rows)
    }

    async fn planned_view(&self, view: &FeatureView, until: Option<Micros>) -> Result<Planned> {
        let found = lineage(&view.events)?;
        let sources = self.source_versions(&found, "").await?;
        let version = self.offline.latest(&view.name).await?;
        let (status, had) = status_of(version.as_ref(), &view_hash(view, &found, &sources, until));
        let cost = self.cost(view, version.as_ref()).await?;
        let is_paid = view.online && matches!(self.project.online()?, Online::Table(..));
        let lengths = plural(Program::new(view).levels.len(), "length");
        let had = had.map_or(String::new(), |n| format!(", {} tiles now", thousands(n)));
        let offline = self.offline.path(&view.name);
        let online = if view.online { format!(", online {}", self.project.online()?) } else { String::new() };
        Ok(Planned {
            statement: format!("materialize {}  (tiles of {lengths}{had})", view.name),
            status,
            reads: upstream(&found),
            writes: Some(format!("offline {offline}{online}{}", self.catalog_note(&view.name))),
            no_cost: (is_paid && cost.is_none()).then_some(NO_TILES),
            cost,
        })
    }

    async fn planned_set(&self, set: &TrainingSet) -> Result<Planned> {
        let found = lineage(&set.plan)?;
        let sources = self.source_versions(&found, "").await?;
        let version = self.offline.latest(&set.name).await?;
        let (status, had) = status_of(version.as_ref(), &input_hash(&set.sql, &set.plan, &found, &sources));
        let had = had.map_or(String::new(), |n| format!(", {} rows now", thousands(n)));
        Ok(Planned {
            statement: format!("training set {}  ({}{had})", set.name, plural(set.schema.fields().len(), "column")),
            status,
            reads: upstream(&found),
            writes: Some(format!("offline {}{}", self.offline.path(&set.name), self.catalog_note(&set.name))),
            ..Planned::default()
        })
    }

    fn planned_model(&self, model: &Model, changed: bool) -> Result<Planned> {
        let status = self.definition_status(ObjectKind::Model, &model.name, &model.sql)?;
        let folder = self.project.store.join("models").join(&model.name);
        Ok(Planned {
            statement: format!("model {}  ({})", model.name, plural(model.features.len(), "feature")),
            status: if status == "unchanged" && changed { "changed" } else { status },
            reads: vec![format!("training set {}", model.training_set)],
            writes: Some(format!("model {folder}")),
            ..Planned::default()
        })
    }

    async fn planned_copy(&self, copy: &Copy, changed: bool) -> Result<Planned> {
        let found = lineage(&copy.plan)?;
        let output = self.output(copy, &found, "").await?;
        Ok(Planned {
            statement: format!("copy to {}", copy.target),
            status: match output.known {
                Some(_) if !changed => "unchanged",
                _ if output.target.exists()? => "changed",
                _ => "new",
            },
            reads: upstream(&found),
            writes: Some(format!("{} ({}){}", output.target, copy.format, self.copy_note(copy, &output.target))),
            ..Planned::default()
        })
    }

    fn definition_status(&self, kind: ObjectKind, name: &str, sql: &str) -> Result<&'static str> {
        Ok(match self.registry.get(kind, name)? {
            None => "new",
            Some(entry) if entry.definition_hash != hash([sql]) => "changed",
            Some(_) => "unchanged",
        })
    }
}

/// Whether the newest version of an offline table is the wanted one, and its rows.
fn status_of(version: Option<&Version>, wanted: &str) -> (&'static str, Option<u64>) {
    match version {
        None => ("new", None),
        Some(v) => (if v.manifest.input_hash == wanted { "unchanged" } else { "changed" }, Some(v.rows)),
    }
}
