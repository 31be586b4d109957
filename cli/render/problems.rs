//! Diagnostics as people and programs read them.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use featurectl_core::{Diagnostic, Severity};
use serde_json::{Value, json};

use super::coloured;
use crate::session::Job;

/// Prints all problems of a job and how many there are.
pub(crate) fn diagnostics(job: &Job) {
    for d in &job.diagnostics {
        eprintln!("{}\n", text(job, d));
    }
    let errors = job.diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
    if errors > 0 {
        let plural = if errors == 1 { "problem" } else { "problems" };
        let all = if job.total == 1 { "statement" } else { "statements" };
        eprintln!("{}: {errors} {plural} in {} {all}; nothing was written", super::painted("error", "1;31"), job.total);
    }
}

fn text(job: &Job, d: &Diagnostic) -> String {
    let level = if d.severity == Severity::Error { Level::ERROR } else { Level::WARNING };
    let end = d.span.end.max(d.span.start + 1).min(job.source.text.len().max(d.span.start));
    let snippet = Snippet::source(&job.source.text)
        .path(&job.source.name)
        .annotation(AnnotationKind::Primary.span(d.span.start..end).label(&d.label));
    let mut group: Group<'_> = level.primary_title(&d.message).id(d.code).element(snippet);
    if let Some(help) = &d.help {
        group = group.element(Level::HELP.message(help));
    }
    let renderer = if coloured() { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&[group])
}

/// All problems as data.
pub(crate) fn diagnostics_json(job: &Job) -> Value {
    let one = |d: &Diagnostic| {
        let (line, column) = job.source.position(d.span.start);
        let (end_line, end_column) = job.source.position(d.span.end);
        let severity = if d.severity == Severity::Error { "error" } else { "warning" };
        json!({
            "severity": severity, "code": d.code, "message": d.message, "file": job.source.name,
            "line": line, "column": column, "end_line": end_line, "end_column": end_column, "help": d.help,
        })
    };
    json!({ "statements": job.total, "problems": job.diagnostics.iter().map(one).collect::<Vec<_>>() })
}
