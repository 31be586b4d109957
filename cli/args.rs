//! The command line as typed.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Feature engineering for machine learning: defined once in SQL, computed by one engine everywhere.
#[derive(Debug, Parser)]
#[command(
    name = "featurectl",
    version,
    propagate_version = true,
    after_help = "\
Start here:
  featurectl init my-project     a small project that runs at once
  featurectl check job.sql       every problem of a job, with its place
  featurectl plan job.sql        what a run would read, compute and write
  featurectl run job.sql         do it; running again does only what changed"
)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every verb.
#[derive(Debug, clap::Args)]
pub struct Global {
    /// Work as if started in this folder
    #[arg(short = 'C', global = true, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// How to print results
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// The project's configuration file [default: featurectl.toml of the job's folder or one above]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A profile of the configuration file
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// Fill ${NAME} in a job
    #[arg(long = "set", global = true, value_name = "NAME=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
}

/// How results are printed on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// Comma-separated values with a header.
    Csv,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Write a small project that runs at once
    Init {
        /// The new project's folder
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Report every problem of a job, each with its place; nothing is computed
    Check {
        /// The job
        job: PathBuf,
    },
    /// Show what a run would read, compute and write, and what is new, changed or unchanged
    Plan {
        /// The job
        job: PathBuf,
    },
    /// Run a job: fill the stores, train, score; what has not changed is not done again
    Run {
        /// The job
        job: PathBuf,
    },
    /// Read the features of a service from the online store
    #[command(
        after_help = "Example: featurectl get late_arrival_inputs carrier=UA origin=EWR --at 2014-01-01T09:10:00Z"
    )]
    Get {
        /// The feature service
        service: String,
        /// Columns of the request; the time of a MATCH_CONDITION is that of --at if it is not given
        #[arg(value_name = "COLUMN=VALUE", value_parser = assignment)]
        request: Vec<(String, String)>,
        /// The instant to answer for [default: now]
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
    },
    /// Show what is defined and what was made of it
    Show {
        /// What to list
        #[arg(value_enum)]
        what: Shown,
        /// One of them, with what it is made of and what is made of it
        name: Option<String>,
    },
    /// Print shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// A built-in training program, under SageMaker's container contract
    #[command(hide = true)]
    Train {
        /// The program
        algorithm: String,
    },
}

/// What `show` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shown {
    /// Source tables.
    Tables,
    /// Feature views.
    Views,
    /// Feature services.
    Services,
    /// Training sets.
    TrainingSets,
    /// Models.
    Models,
    /// Runs.
    Runs,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
        _ => Err("write NAME=VALUE".into()),
    }
}
