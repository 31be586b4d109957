//! `check` and `run`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use featurectl_core::Result;
use featurectl_executors::cluster::Address;

use super::project;
use crate::args::{Global, Output, TlsFiles};
use crate::project::Project;
use crate::render::{self, Progress};
use crate::run::Event;
use crate::session::{Extensions, Job, Session};

pub(super) async fn check(global: &Global, extensions: &Extensions, path: &Path) -> Result<ExitCode> {
    let (_, job) = open(global, extensions, path).await?;
    if global.output == Output::Json {
        render::json(&render::diagnostics_json(&job))?;
    }
    Ok(report(&job, global))
}

/// Prints the problems of a job, or that there are none.
pub(super) fn report(job: &Job, global: &Global) -> ExitCode {
    if global.output != Output::Json {
        render::diagnostics(job);
    }
    if job.is_valid() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

pub(super) async fn open(global: &Global, extensions: &Extensions, path: &Path) -> Result<(Session, Job)> {
    checked(global, Session::open(project(global, Some(path))?, extensions)?, path).await
}

async fn checked(global: &Global, session: Session, path: &Path) -> Result<(Session, Job)> {
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

pub(super) async fn run(
    global: &Global,
    extensions: &Extensions,
    path: &Path,
    cluster: Option<Address>,
    tls: &TlsFiles,
) -> Result<ExitCode> {
    let project = project(global, Some(path))?;
    let tls = tls.read()?.or(project.tls.clone());
    let cluster = cluster.or(project.cluster.clone()).map(|c| c.with_tls(tls));
    let project = Project { cluster, ..project };
    let place = project.cluster.as_ref().map(ToString::to_string);
    let session = Session::connect(project, extensions).await?;
    if let Some(place) = place {
        render::status("Connected", &place);
    }
    let (session, job) = checked(global, session, path).await?;
    if !job.is_valid() {
        return Ok(report(&job, global));
    }
    render::diagnostics(&job);
    let progress = Progress::new();
    let _watching = progress.watch(session.progress.clone());
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
