//! `show`: what is defined, what it is made of, and what is made of it.

use std::process::ExitCode;

use featurectl_core::sql::ObjectKind;
use featurectl_core::{Error, Result, closest};
use featurectl_feature_store::{Entry, Registry};
use serde::Serialize;

use super::project;
use crate::args::{Global, Output, Shown};
use crate::render;
use crate::run::{RunReport, describe_entry};
use crate::session::KINDS;

/// A definition with its lineage.
#[derive(Debug, Serialize)]
struct Detail {
    #[serde(flatten)]
    entry: Entry,
    downstream: Vec<String>,
}

pub(super) fn show(global: &Global, what: Shown, name: Option<&str>) -> Result<ExitCode> {
    let registry = Registry::new(project(global, None)?.store.join("registry"));
    let kind = match what {
        Shown::Tables => ObjectKind::Table,
        Shown::Views => ObjectKind::FeatureView,
        Shown::Services => ObjectKind::FeatureService,
        Shown::TrainingSets => ObjectKind::TrainingSet,
        Shown::Models | Shown::Model => ObjectKind::Model,
        Shown::Runs => return runs(global, &registry, name),
    };
    let entries = registry.list(kind)?;
    match name {
        None => list(global, kind, &entries),
        Some(name) => match entries.iter().find(|e| e.name == name) {
            Some(entry) => detail(global, &registry, kind, entry),
            None => {
                let hint = closest(name, entries.iter().map(|e| &e.name))
                    .map_or(String::new(), |n| format!(": did you mean `{n}`?"));
                Err(Error::not_found(format!("no {} `{name}`{hint}", kind.noun())))
            }
        },
    }
}

fn list(global: &Global, kind: ObjectKind, entries: &[Entry]) -> Result<ExitCode> {
    if global.output == Output::Json {
        render::json(&entries)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = entries.iter().map(|e| {
        let note = if kind == ObjectKind::Model { describe_entry(e) } else { e.upstream.join(", ") };
        vec![e.name.clone(), e.columns.len().to_string(), note]
    });
    let last = if kind == ObjectKind::Model { "version" } else { "made of" };
    render::strings(&[kind.noun(), "columns", last], rows.collect(), global.output);
    Ok(ExitCode::SUCCESS)
}

fn detail(global: &Global, registry: &Registry, kind: ObjectKind, entry: &Entry) -> Result<ExitCode> {
    let own = format!("{} {}", kind.noun(), entry.name);
    let mut downstream = Vec::new();
    for kind in KINDS {
        let uses = registry.list(*kind)?.into_iter().filter(|e| e.upstream.contains(&own));
        downstream.extend(uses.map(|e| format!("{} {}", kind.noun(), e.name)));
    }
    let detail = Detail { entry: entry.clone(), downstream };
    if global.output == Output::Json {
        render::json(&detail)?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("{own}");
    println!("  made of  {}", or_none(&detail.entry.upstream));
    println!("  used by  {}", or_none(&detail.downstream));
    println!("  run      {}", detail.entry.run_id);
    if kind == ObjectKind::Model {
        println!("  version  {}", describe_entry(entry));
    }
    println!();
    println!("{}", entry.sql);
    println!();
    let rows = entry.columns.iter().map(|(n, t)| vec![n.clone(), t.clone()]).collect();
    render::strings(&["column", "type"], rows, global.output);
    Ok(ExitCode::SUCCESS)
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

fn runs(global: &Global, registry: &Registry, id: Option<&str>) -> Result<ExitCode> {
    let mut runs: Vec<RunReport> = registry.runs()?;
    if let Some(id) = id {
        runs.retain(|r| r.run_id.starts_with(id));
        if runs.is_empty() {
            return Err(Error::not_found(format!("no run `{id}`")));
        }
    }
    if global.output == Output::Json {
        render::json(&runs)?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |r: &RunReport| {
        let done = r.steps.iter().filter(|s| !s.unchanged).count();
        vec![r.run_id.clone(), r.job.clone(), format!("{done} of {}", r.steps.len()), render::seconds(r.seconds)]
    };
    render::strings(&["run", "job", "steps done", "time"], runs.iter().map(row).collect(), global.output);
    if id.is_some() {
        runs.iter().flat_map(|r| &r.steps).for_each(|s| println!("{}", render::step_line(s)));
    }
    Ok(ExitCode::SUCCESS)
}
