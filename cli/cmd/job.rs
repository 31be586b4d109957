//! `check`, `plan` and `run`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use featurectl_core::Result;
use featurectl_core::check::Checked;
use featurectl_core::sql::ObjectKind;
use featurectl_core::tile::Program;
use featurectl_core::{FeatureView, Micros, lineage};
use serde::Serialize;

use super::project;
use crate::args::{Global, Output};
use crate::render::{self, Progress};
use crate::run::{Event, hash, input_hash, view_hash};
use crate::session::{Extensions, Job, Session};

pub(super) async fn check(global: &Global, extensions: &Extensions, path: &Path) -> Result<ExitCode> {
    let (_, job) = open(global, extensions, path).await?;
    if global.output == Output::Json {
        render::json(&render::diagnostics_json(&job))?;
    }
    Ok(report(&job, global))
}

/// Prints the problems of a job, or that there are none.
fn report(job: &Job, global: &Global) -> ExitCode {
    if global.output != Output::Json {
        render::diagnostics(job);
    }
    if job.is_valid() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

async fn open(global: &Global, extensions: &Extensions, path: &Path) -> Result<(Session, Job)> {
    let session = Session::open(project(global, Some(path))?, extensions)?;
    let started = Instant::now();
    let job = session.check_file(path, &global.set).await?;
    if job.is_valid() {
        render::status(
            "Checked",
            &format!("{} statements in {}", job.total, render::seconds(started.elapsed().as_secs_f64())),
        );
    }
    Ok((session, job))
}

pub(super) async fn run(global: &Global, extensions: &Extensions, path: &Path) -> Result<ExitCode> {
    let (session, job) = open(global, extensions, path).await?;
    if !job.is_valid() {
        return Ok(report(&job, global));
    }
    render::diagnostics(&job);
    let progress = Progress::new();
    let mut print = |event: Event<'_>| progress.event(&event, global.output);
    let result = tokio::select! {
        result = session.run(&job, &mut print) => result,
        _ = tokio::signal::ctrl_c() => {
            progress.clear();
            return Err(featurectl_core::Error::conflict("stopped: run it again to go on where it stopped"));
        }
    };
    progress.clear();
    let report = result?;
    if global.output == Output::Json {
        render::json(&report)?;
    } else {
        render::status("Finished", &format!("in {}", render::seconds(report.seconds)));
    }
    Ok(ExitCode::SUCCESS)
}

/// One line of a plan.
#[derive(Debug, Serialize)]
struct Planned {
    statement: String,
    status: &'static str,
    reads: Vec<String>,
    writes: String,
}

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
        _ => lines.iter().for_each(print_planned),
    }
    Ok(ExitCode::SUCCESS)
}

fn print_planned(line: &Planned) {
    println!("{:>10}  {}", line.status, line.statement);
    if !line.reads.is_empty() {
        println!("{:>10}    reads   {}", "", line.reads.join(", "));
    }
    if !line.writes.is_empty() {
        println!("{:>10}    writes  {}", "", line.writes);
    }
}

impl Session {
    /// What `run` would do with a statement; nothing is computed. `changed`: whether anything before it changes.
    async fn planned(&self, checked: &Checked, changed: bool) -> Result<Option<Planned>> {
        let offline = |name: &str| self.offline.path(name).display().to_string();
        Ok(Some(match checked {
            Checked::Table { name, locations } => Planned {
                statement: format!("table {name}"),
                status: self.definition_status(ObjectKind::Table, name, None)?,
                reads: self.sizes(locations),
                writes: String::new(),
            },
            Checked::View(view) => Planned {
                statement: format!(
                    "feature view {}  ({} features, {} windows)",
                    view.name,
                    view.features.len(),
                    view.windows().len()
                ),
                status: self.definition_status(ObjectKind::FeatureView, &view.name, Some(&view.sql))?,
                reads: tables(&view.events)?,
                writes: String::new(),
            },
            Checked::Service(service) => Planned {
                statement: format!("feature service {}  ({} columns)", service.name, service.output.fields().len()),
                status: self.definition_status(ObjectKind::FeatureService, &service.name, Some(&service.sql))?,
                reads: vec![],
                writes: String::new(),
            },
            Checked::Materialize { view, until } => self.planned_view(view, *until).await?,
            Checked::TrainingSet(set) => {
                let found = lineage(&set.plan)?;
                let sources = self.source_versions(&found, "").await?;
                let wanted = input_hash(&set.sql, &set.plan, &found, &sources);
                Planned {
                    statement: format!("training set {}  ({} columns)", set.name, set.schema.fields().len()),
                    status: self.version_status(&set.name, &wanted).await?,
                    reads: crate::run::upstream(&found),
                    writes: format!("offline {}", offline(&set.name)),
                }
            }
            Checked::Model(model) => {
                let status = self.definition_status(ObjectKind::Model, &model.name, Some(&model.sql))?;
                Planned {
                    statement: format!("model {}  ({} features)", model.name, model.features.len()),
                    status: if status == "unchanged" && changed { "changed" } else { status },
                    reads: vec![format!("training set {}", model.training_set)],
                    writes: format!("model {}", self.project.store.join("models").join(&model.name).display()),
                }
            }
            Checked::Copy(copy) => Planned {
                statement: format!("copy to {}", copy.target),
                status: if self.project.root.join(&copy.target).exists() && !changed { "unchanged" } else { "new" },
                reads: crate::run::upstream(&lineage(&copy.plan)?),
                writes: format!("{} ({})", self.project.root.join(&copy.target).display(), copy.format),
            },
            Checked::Drop { kind, name, .. } => Planned {
                statement: format!("drop {} {name}", kind.noun()),
                status: "drop",
                reads: vec![],
                writes: String::new(),
            },
            Checked::Query(_) | Checked::Session => return Ok(None),
        }))
    }

    async fn planned_view(&self, view: &FeatureView, until: Option<Micros>) -> Result<Planned> {
        let found = lineage(&view.events)?;
        let sources = self.source_versions(&found, "").await?;
        let levels = Program::new(view).levels.len();
        let online = if view.online {
            format!(", online {}", self.project.store.join("online.redb").display())
        } else {
            String::new()
        };
        Ok(Planned {
            statement: format!(
                "materialize {}  (tiles of {levels} length{})",
                view.name,
                if levels == 1 { "" } else { "s" }
            ),
            status: self.version_status(&view.name, &view_hash(view, &found, &sources, until)).await?,
            reads: crate::run::upstream(&found),
            writes: format!("offline {}{online}", self.offline.path(&view.name).display()),
        })
    }

    fn definition_status(&self, kind: ObjectKind, name: &str, sql: Option<&str>) -> Result<&'static str> {
        Ok(match (self.registry.get(kind, name)?, sql) {
            (None, _) => "new",
            (Some(entry), Some(sql)) if entry.definition_hash != hash([sql]) => "changed",
            _ => "unchanged",
        })
    }

    async fn version_status(&self, table: &str, wanted: &str) -> Result<&'static str> {
        Ok(match self.offline.latest(table).await? {
            None => "new",
            Some(version) if version.manifest.input_hash == wanted => "unchanged",
            Some(_) => "changed",
        })
    }

    fn sizes(&self, locations: &[String]) -> Vec<String> {
        let size = |l: &String| match std::fs::metadata(l) {
            Ok(meta) if meta.is_file() => format!("{l} ({} bytes)", crate::run::thousands(meta.len())),
            _ => l.clone(),
        };
        locations.iter().map(size).collect()
    }
}

fn tables(plan: &datafusion::logical_expr::LogicalPlan) -> Result<Vec<String>> {
    Ok(crate::run::upstream(&lineage(plan)?))
}
