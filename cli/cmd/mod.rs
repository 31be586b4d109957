//! The verbs, one file each.

mod cluster;
mod cost;
mod get;
mod init;
mod job;
mod model;
mod plan;
mod put;
mod score;
mod show;
mod vacuum;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::CommandFactory;
use featurectl_aws::Access;
use featurectl_core::{Error, Result};

use crate::args::{Args, Global, Shown, Verb};
use crate::project::Project;
use crate::session::Extensions;

/// Does what the command line says.
pub(crate) async fn run(args: Args, extensions: &Extensions) -> Result<ExitCode> {
    if let Some(folder) = &args.global.directory {
        std::env::set_current_dir(folder).map_err(|e| Error::from(e).context(format!("-C {}", folder.display())))?;
    }
    let global = &args.global;
    match args.verb {
        Verb::Init { folder } => init::init(&folder),
        Verb::Check { job } => job::check(global, extensions, &job).await,
        Verb::Plan { job } => plan::plan(global, extensions, &job).await,
        Verb::Run { job, cluster, tls } => job::run(global, extensions, &job, cluster, &tls).await,
        Verb::Cluster(verb) => cluster::cluster(global, extensions, verb).await,
        Verb::Vacuum { dry_run } => vacuum::vacuum(global, dry_run).await,
        Verb::Get { service, request, at } => get::get(global, extensions, &service, &request, at.as_deref()).await,
        Verb::Score { model, input, to, column, give } => {
            score::score(global, extensions, score::Request { model, input, to, column, give }).await
        }
        Verb::Put { stream, file, key, aggregate, region, endpoint } => {
            let access = Access { region, profile: None, endpoint }.or(&project(global, None)?.access);
            put::put(global, put::Request { stream, file, key, aggregate, access }).await
        }
        Verb::Show { what: Shown::Model, name } => model::model(global, extensions, name.as_deref()),
        Verb::Show { what, name } => show::show(global, what, name.as_deref()),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "featurectl", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Verb::Train { algorithm } => train(&algorithm),
    }
}

fn train(algorithm: &str) -> Result<ExitCode> {
    match algorithm {
        "gbdt" => Ok(ExitCode::from(featurectl_trainer_bridge::gbdt_program() as u8)),
        other => Err(Error::not_found(format!("no built-in training program `{other}`: there is `gbdt`"))),
    }
}

/// The project of a job's file, or of the current folder.
fn project(global: &Global, job: Option<&Path>) -> Result<Project> {
    let folder = match job {
        Some(job) if !job.is_file() => return Err(missing(job)),
        Some(job) => std::path::absolute(job)?.parent().map_or(PathBuf::from("."), Path::to_path_buf),
        None => PathBuf::from("."),
    };
    Project::find(&folder, global.config.as_deref(), global.profile.as_deref())
}

fn missing(job: &Path) -> Error {
    let what = if job.is_dir() { "is a folder, not a job" } else { "does not exist" };
    Error::not_found(format!("{} {what}: give the path of a .sql file", job.display()))
}
