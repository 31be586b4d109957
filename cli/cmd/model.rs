//! `show model`: what a model is, and how it is scored on this machine.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use featurectl_core::{Error, Result};
use featurectl_executors::score::{Body, Forest, Missing, Scorer};
use serde_json::{Value, json};

use super::project;
use crate::args::{Global, Output};
use crate::render;
use crate::run::thousands;
use crate::session::{Extensions, Session};

/// Rows that are scored to tell how fast it goes, and how long.
const SAMPLE_ROWS: usize = 8192;
const SAMPLE_TIME: Duration = Duration::from_millis(100);

pub(super) fn model(global: &Global, extensions: &Extensions, name: Option<&str>) -> Result<ExitCode> {
    let name = name.ok_or_else(|| Error::invalid("which model? `featurectl show model NAME|FILE`"))?;
    let session = Session::open(project(global, None)?, extensions)?;
    let (scorer, _) = session.scorer(name)?;
    let facts = facts(&scorer)?;
    if global.output == Output::Json {
        render::json(&facts.into_iter().collect::<serde_json::Map<_, _>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = |value: Value| match value {
        Value::String(text) => text,
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        Value::Number(n) if n.is_u64() => thousands(n.as_u64().unwrap_or_default()),
        other => other.to_string(),
    };
    let rows = facts.into_iter().map(|(name, value)| vec![name.replace('_', " "), text(value)]).collect();
    render::strings(&["", "value"], rows, global.output);
    Ok(ExitCode::SUCCESS)
}

/// What there is to know, in the order in which it is shown.
fn facts(scorer: &Scorer) -> Result<Vec<(String, Value)>> {
    let model = scorer.model();
    let mut facts = vec![("format", json!(model.format)), ("objective", json!(model.objective))];
    match &model.body {
        Body::Forest(before, forest) => {
            let leaves: usize = forest.trees().iter().map(|t| t.leaf_count()).sum();
            let deepest = forest.trees().iter().map(|t| t.depth()).max().unwrap_or(0);
            facts.extend([
                ("trees", json!(forest.trees().len())),
                ("leaves", json!(leaves)),
                ("depth", json!(deepest)),
                ("missing", json!(missing(forest))),
            ]);
            if !before.is_empty() {
                facts.push(("steps before the trees", json!(before.len())));
            }
        }
        Body::Linear(_) => facts.push(("kind", json!("weighted sum"))),
        Body::Network(layers) => facts.push(("layers", json!(layers.len()))),
    }
    facts.extend([
        ("outputs", json!(scorer.outputs())),
        ("classes", json!(model.classes)),
        ("features", json!(model.features)),
        ("kernel", json!(format!("{:?}", scorer.instructions()))),
        ("rows per second, one thread", json!(rate(scorer)?)),
    ]);
    let empty = |value: &Value| value.as_str() == Some("") || value.as_array().is_some_and(Vec::is_empty);
    let known = facts.into_iter().filter(|(_, value)| !empty(value));
    Ok(known.map(|(name, value)| (name.to_string(), value)).collect())
}

/// What becomes of missing values, as far as the splits agree.
fn missing(forest: &Forest) -> &'static str {
    let all: std::collections::HashSet<Missing> =
        forest.trees().iter().flat_map(|t| &t.splits).map(|s| s.missing).collect();
    match () {
        () if all.iter().all(|m| matches!(m, Missing::Zero)) => "NULL and NaN are read as 0",
        () if all.iter().any(|m| matches!(m, Missing::ZeroLeft | Missing::ZeroRight)) => {
            "NULL, NaN and, at some splits, 0 are missing: each split has a side for them"
        }
        () => "NULL and NaN are missing: each split has a side for them",
    }
}

/// Scores made-up rows for a moment.
fn rate(scorer: &Scorer) -> Result<u64> {
    let rows = scorer.sample(SAMPLE_ROWS);
    scorer.predict(&rows)?;
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < SAMPLE_TIME {
        scorer.predict(&rows)?;
        count += SAMPLE_ROWS;
    }
    Ok((count as f64 / began.elapsed().as_secs_f64()) as u64)
}
