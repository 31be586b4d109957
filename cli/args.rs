//! The command line as typed.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Parser, Subcommand, ValueEnum};
use featurectl_executors::cluster::{Address, Tls};

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
    #[command(after_help = "\
On a cluster all its machines must see the job's files and the store under the same paths.
Example: featurectl run job.sql --cluster df://scheduler:50050")]
    Run {
        /// The job
        job: PathBuf,
        /// The scheduler of a cluster to run it on [default: `cluster` of the profile, else this machine]
        #[arg(long, value_name = "df://HOST:PORT", value_parser = address)]
        cluster: Option<Address>,
        /// How the cluster is reached [default: `cluster_tls` of the profile]
        #[command(flatten)]
        tls: TlsFiles,
    },
    /// Start the roles of a cluster, or look at one
    #[command(subcommand)]
    Cluster(ClusterVerb),
    /// Remove files that runs which failed left beside results
    #[command(after_help = "\
They are in no version of a table and in no output, so no reader has ever seen them. Nothing may write to the store while
this runs: it holds the store's lock.")]
    Vacuum {
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
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
    /// Score a table, a file or a folder of files with a model, into a folder of Parquet files
    #[command(after_help = "\
Each input file becomes one file of the same name, with the input's columns and rows in their order and a column of
predictions. Files that are done are not done again, so that a run that was killed goes on where it was.

Models: LightGBM (text, JSON), XGBoost (JSON, UBJSON), CatBoost (JSON), ONNX, linear (JSON), or the name of a trained one.
Example: featurectl score model.txt data/flights.parquet --to out/scores")]
    Score {
        /// The file of a model, or the name of one that a job trained
        model: String,
        /// A Parquet, CSV or JSON file, a folder of them, or the name of a table
        input: String,
        /// The folder that the files go to
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// Name of the column of predictions
        #[arg(long = "as", value_name = "NAME", default_value = "prediction")]
        column: String,
        /// What to ask of the model
        #[arg(long, value_enum, default_value_t = Asked::Prediction)]
        give: Asked,
    },
    /// Put the rows of a file into a Kinesis stream, as JSON objects: for replays and tests
    #[command(after_help = "\
AWS is reached by its standard configuration: environment, AWS_PROFILE, SSO, the role of an instance. Running it again puts
the rows again.
Example: featurectl put clicks clicks.parquet --key user_id")]
    Put {
        /// Name or ARN of the stream
        stream: String,
        /// A file of JSON lines, CSV or Parquet
        file: PathBuf,
        /// The column whose value is the partition key: rows of one key stay in order [default: spread over all shards]
        #[arg(long, value_name = "COLUMN")]
        key: Option<String>,
        /// Pack many rows into one record, as the Kinesis Producer Library does
        #[arg(long)]
        aggregate: bool,
        /// The stream's region [default: of the AWS configuration]
        #[arg(long, value_name = "REGION")]
        region: Option<String>,
        /// Address of the service, such as an emulator's [default: AWS's own]
        #[arg(long, value_name = "URL")]
        endpoint: Option<String>,
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

/// What to do with a cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterVerb {
    /// Run the scheduler: it cuts plans into tasks, gives them to executors, and tells drivers how far jobs are
    #[command(after_help = "\
Its port serves gRPC, a REST API (/api/state, /api/executors, /api/jobs) and metrics for Prometheus (/api/metrics), to
anyone who can reach it: bind it to a private address.
Example: featurectl cluster scheduler --bind 10.0.0.5")]
    Scheduler {
        /// The IP address to listen on
        #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
        bind: String,
        /// The port to listen on
        #[arg(long, default_value_t = 50050)]
        port: u16,
        /// TLS
        #[command(flatten)]
        tls: TlsFiles,
    },
    /// Run an executor: it takes tasks until it is told to end (SIGTERM), then finishes those under way
    #[command(after_help = "Example: featurectl cluster executor --scheduler 10.0.0.5:50050 --bind 10.0.0.6")]
    Executor {
        /// The scheduler
        #[arg(long, value_name = "HOST:PORT", value_parser = scheduler)]
        scheduler: Address,
        /// The IP address to listen on
        #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
        bind: String,
        /// The host by which the other roles reach this one [default: the address that it reaches the scheduler from]
        #[arg(long, value_name = "HOST")]
        advertise: Option<String>,
        /// The port that others fetch rows from
        #[arg(long, default_value_t = 50051)]
        port: u16,
        /// The port that the scheduler sends tasks to
        #[arg(long, default_value_t = 50052)]
        grpc_port: u16,
        /// Tasks at once [default: one a core]
        #[arg(long, value_name = "N")]
        threads: Option<usize>,
        /// Memory for the operators of all tasks, MiB [default: 70 % of the machine's]
        #[arg(long, value_name = "N")]
        memory_mb: Option<u64>,
        /// The folder of shuffle and spill files [default: one in the folder of temporary files]
        #[arg(long, value_name = "DIR")]
        work_dir: Option<PathBuf>,
        /// How long tasks may go on after SIGTERM, seconds
        #[arg(long, value_name = "N", default_value_t = 90)]
        drain_seconds: u64,
        /// TLS
        #[command(flatten)]
        tls: TlsFiles,
    },
    /// Run a whole cluster on this machine, to try it: a scheduler and executors as processes of their own
    #[command(after_help = "Example: featurectl cluster up --executors 2 --threads 1")]
    Up {
        /// How many executors
        #[arg(long, value_name = "N", default_value_t = 2)]
        executors: u16,
        /// Tasks that each takes at once [default: the cores, shared out]
        #[arg(long, value_name = "N")]
        threads: Option<usize>,
        /// Memory for the operators of each, MiB [default: 70 % of the machine's, shared out]
        #[arg(long, value_name = "N")]
        memory_mb: Option<u64>,
        /// The scheduler's port; executors take the ones after it
        #[arg(long, default_value_t = 50050)]
        port: u16,
    },
    /// Show a cluster's executors and its jobs of late
    Status {
        /// The scheduler
        #[arg(value_name = "df://HOST:PORT", value_parser = address)]
        cluster: Address,
        /// TLS
        #[command(flatten)]
        tls: TlsFiles,
    },
}

/// TLS between the roles of a cluster: all three files, or none.
#[derive(Debug, Clone, clap::Args)]
pub struct TlsFiles {
    /// Certificates of the authority that signs for the cluster, PEM
    #[arg(long, value_name = "FILE", requires_all = ["tls_cert", "tls_key"])]
    tls_ca: Option<PathBuf>,
    /// This role's own certificate, for the name `featurectl`, PEM
    #[arg(long, value_name = "FILE", requires_all = ["tls_ca", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires_all = ["tls_ca", "tls_cert"])]
    tls_key: Option<PathBuf>,
}

impl TlsFiles {
    /// What is in the files; `None` without them.
    pub(crate) fn read(&self) -> featurectl_core::Result<Option<Arc<Tls>>> {
        match (&self.tls_ca, &self.tls_cert, &self.tls_key) {
            (Some(ca), Some(cert), Some(key)) => Tls::read(ca, cert, key).map(|tls| Some(Arc::new(tls))),
            _ => Ok(None),
        }
    }
}

/// What `score` asks of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Asked {
    /// What the library that trained it predicts: a value, a probability, or one a class.
    Prediction,
    /// The margins that predictions are made of.
    Raw,
    /// The most probable class.
    Class,
    /// The number of the leaf in each tree.
    Leaf,
    /// What each feature contributes to the margin (TreeSHAP), then the expected margin.
    Contributions,
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
    /// One model, by its name or its file: what it is, and how it is scored here.
    Model,
    /// Runs.
    Runs,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
        _ => Err("write NAME=VALUE".into()),
    }
}

fn address(text: &str) -> Result<Address, String> {
    Address::parse(text).map_err(|e| e.to_string())
}

fn scheduler(text: &str) -> Result<Address, String> {
    match text.contains("://") {
        true => address(text),
        false => address(&format!("df://{text}")).map_err(|_| "write HOST:PORT".into()),
    }
}
