//! `put`: the rows of a file become records of a stream.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use featurectl_connectors::kinesis::{Access, Kinesis, PutOptions, PutReport, put_file};
use featurectl_core::{Error, Result};
use serde_json::json;

use crate::args::{Global, Output};
use crate::render;
use crate::run::{Event, Step, thousands};

/// The verb's arguments.
pub(super) struct Request {
    pub(super) stream: String,
    pub(super) file: PathBuf,
    pub(super) key: Option<String>,
    pub(super) aggregate: bool,
    pub(super) access: Access,
}

pub(super) async fn put(global: &Global, request: Request) -> Result<ExitCode> {
    let started = Instant::now();
    if !request.file.is_file() {
        return Err(Error::not_found(format!("no file {}", request.file.display())));
    }
    let stream = request.stream.trim_start_matches("kinesis://").trim_end_matches('/');
    let kinesis = Kinesis::connect(stream, &request.access).await;
    let options = PutOptions { key: request.key, aggregate: request.aggregate, ..PutOptions::default() };
    let progress = render::Progress::new();
    progress.event(&Event::Begin { verb: "Putting", name: stream }, global.output);
    let report = put_file(&kinesis, &request.file, &options).await?;
    progress.clear();
    let seconds = started.elapsed().as_secs_f64();
    let step = Step {
        verb: "Put".into(),
        name: stream.into(),
        detail: in_words(&report),
        unchanged: false,
        seconds,
        figures: json!({
            "rows": report.rows, "records": report.records, "bytes": report.bytes, "retried": report.retried,
            "maybe_twice": report.maybe_twice,
        }),
    };
    match global.output {
        Output::Json => render::json(&step)?,
        _ => progress.event(&Event::Done(&step), global.output),
    }
    if report.maybe_twice > 0 {
        let text =
            format!("{} records were put by calls without an answer: they may be there twice", report.maybe_twice);
        render::warning(&text);
    }
    Ok(ExitCode::SUCCESS)
}

fn in_words(report: &PutReport) -> String {
    let (rows, records) = (thousands(report.rows), thousands(report.records));
    format!("{rows} rows in {records} records, {} bytes", thousands(report.bytes))
}
