//! The folders, files and environment variables by which a training program and its launcher talk.
//!
//! ```text
//! <base>/                            SAGEMAKER_BASE_DIR, default /opt/ml
//! ├── input/config/
//! │   ├── hyperparameters.json       {"rounds": "300"}: every value is a string
//! │   ├── inputdataconfig.json       the channels and how they arrive
//! │   └── resourceconfig.json        the hosts: here one
//! ├── input/data/<channel>/          SM_CHANNEL_<CHANNEL>: what the program reads
//! ├── code/                          the folder a built-in program runs in
//! ├── model/                         SM_MODEL_DIR: what is kept after success
//! └── output/
//!     ├── data/                      SM_OUTPUT_DATA_DIR: reports
//!     └── failure                    why the program failed, at most 1024 characters
//! ```
//!
//! [`Contract::prepare`] and [`Contract::env`] are the launcher's side, the rest is the program's. The files and
//! variables are those that the SageMaker training toolkit writes; JSON in variables is compact with sorted keys.

use featurectl_core::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where a container finds its folders unless told otherwise.
const DEFAULT_BASE: &str = "/opt/ml";

/// What moves the folders elsewhere.
const BASE_VARIABLE: &str = "SAGEMAKER_BASE_DIR";

/// The only host of a local job, named as SageMaker names the first.
const HOST: &str = "algo-1";

/// How much of a failure SageMaker keeps.
const FAILURE_CHARS_MAX: usize = 1024;

/// A training job: what to run it on and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSpec {
    /// The job's name, for messages and `TRAINING_JOB_NAME`.
    pub name: String,
    /// The folder that stands for `/opt/ml`; one per job.
    pub base: PathBuf,
    /// The program's settings, as typed.
    pub hyperparameters: BTreeMap<String, String>,
    /// The names of the folders under `input/data` that hold the job's data.
    pub channels: Vec<String>,
}

/// The contract's layout under a base folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contract {
    /// The folder that stands for `/opt/ml`.
    pub base: PathBuf,
}

impl Contract {
    /// The layout under `base`; nothing is read or written.
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self { base: base.into() }
    }

    /// The layout a program was started in: under `SAGEMAKER_BASE_DIR`, or `/opt/ml` if that is not set.
    pub fn from_env() -> Self {
        Self::new(std::env::var_os(BASE_VARIABLE).unwrap_or_else(|| DEFAULT_BASE.into()))
    }

    /// The folder of the three JSON files.
    pub fn config_dir(&self) -> PathBuf {
        self.base.join("input/config")
    }

    /// The folder of a channel's data.
    pub fn channel_dir(&self, channel: &str) -> PathBuf {
        self.base.join("input/data").join(channel)
    }

    /// The folder of what is kept after success.
    pub fn model_dir(&self) -> PathBuf {
        self.base.join("model")
    }

    /// The folder of reports.
    pub fn output_data_dir(&self) -> PathBuf {
        self.base.join("output/data")
    }

    /// The file that says why the program failed.
    pub fn failure_file(&self) -> PathBuf {
        self.base.join("output/failure")
    }

    /// The file that keeps everything the program printed.
    pub fn log_file(&self) -> PathBuf {
        self.base.join("output/logs.txt")
    }

    /// The folder of the program's code.
    pub fn code_dir(&self) -> PathBuf {
        self.base.join("code")
    }

    /// Makes the folders, writes the three JSON files and removes an earlier attempt's failure.
    ///
    /// The caller places each channel's files, before or after. Errors if `model/` already holds something, because
    /// the result of this job could then not be told from what was there.
    pub fn prepare(&self, job: &JobSpec) -> Result<()> {
        for channel in &job.channels {
            check_channel_name(channel)?;
            make_dir(&self.channel_dir(channel))?;
        }
        for dir in [self.config_dir(), self.model_dir(), self.output_data_dir(), self.code_dir()] {
            make_dir(&dir)?;
        }
        if !is_empty(&self.model_dir())? {
            return Err(Error::conflict(format!(
                "`{}` already holds a model: remove it or launch into another folder",
                self.model_dir().display()
            )));
        }
        if self.failure_file().exists() {
            fs::remove_file(self.failure_file()).map_err(|e| at(e, "removing", &self.failure_file()))?;
        }
        self.write_config("hyperparameters.json", &json!(job.hyperparameters))?;
        self.write_config("inputdataconfig.json", &input_data_config(job))?;
        self.write_config("resourceconfig.json", &resource_config())
    }

    fn write_config(&self, name: &str, value: &Value) -> Result<()> {
        let path = self.config_dir().join(name);
        fs::write(&path, format!("{value:#}\n")).map_err(|e| at(e, "writing", &path))
    }

    /// The environment variables a program is started with, sorted by name.
    ///
    /// `SM_HPS` and `SM_HP_<NAME>` hold each value as JSON if it reads as JSON and as a string if not, like the
    /// toolkit; `SM_USER_ARGS` holds the values as typed.
    pub fn env(&self, job: &JobSpec) -> Vec<(String, String)> {
        let path = |p: PathBuf| p.to_string_lossy().into_owned();
        let mut env = BTreeMap::from([
            (BASE_VARIABLE.to_string(), path(self.base.clone())),
            ("TRAINING_JOB_NAME".to_string(), job.name.clone()),
            ("SM_MODEL_DIR".to_string(), path(self.model_dir())),
            ("SM_OUTPUT_DATA_DIR".to_string(), path(self.output_data_dir())),
            ("SM_CHANNELS".to_string(), json!(sorted(&job.channels)).to_string()),
            ("SM_HPS".to_string(), Value::Object(decoded(&job.hyperparameters)).to_string()),
            ("SM_HOSTS".to_string(), json!([HOST]).to_string()),
            ("SM_CURRENT_HOST".to_string(), HOST.to_string()),
            ("SM_NUM_CPUS".to_string(), cpus().to_string()),
            ("SM_NUM_GPUS".to_string(), "0".to_string()),
            ("SM_RESOURCE_CONFIG".to_string(), resource_config().to_string()),
            ("SM_INPUT_DATA_CONFIG".to_string(), input_data_config(job).to_string()),
            ("SM_USER_ARGS".to_string(), json!(user_args(&job.hyperparameters)).to_string()),
            ("SM_TRAINING_ENV".to_string(), self.training_env(job).to_string()),
        ]);
        for channel in &job.channels {
            env.insert(format!("SM_CHANNEL_{}", channel.to_uppercase()), path(self.channel_dir(channel)));
        }
        for (name, value) in decoded(&job.hyperparameters) {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            env.insert(format!("SM_HP_{}", name.to_uppercase()), text);
        }
        env.into_iter().collect()
    }

    /// All of it in one object, as `SM_TRAINING_ENV` has it.
    fn training_env(&self, job: &JobSpec) -> Value {
        let channel_dirs: Map<String, Value> =
            job.channels.iter().map(|c| (c.clone(), json!(self.channel_dir(c)))).collect();
        json!({
            "channel_input_dirs": channel_dirs,
            "current_host": HOST,
            "hosts": [HOST],
            "hyperparameters": decoded(&job.hyperparameters),
            "input_config_dir": self.config_dir(),
            "input_data_config": input_data_config(job),
            "input_dir": self.base.join("input"),
            "is_master": true,
            "job_name": job.name,
            "master_hostname": HOST,
            "model_dir": self.model_dir(),
            "num_cpus": cpus(),
            "num_gpus": 0,
            "output_data_dir": self.output_data_dir(),
            "output_dir": self.base.join("output"),
            "resource_config": resource_config(),
        })
    }

    /// The settings the program was started with, as typed; none if there is no file of them.
    pub fn hyperparameters(&self) -> Result<BTreeMap<String, String>> {
        let path = self.config_dir().join("hyperparameters.json");
        if !path.exists() {
            return Ok(BTreeMap::new());
        }
        let text = fs::read_to_string(&path).map_err(|e| at(e, "reading", &path))?;
        serde_json::from_str(&text).map_err(|e| {
            let fix = "write one object whose values are all strings";
            Error::invalid(format!("`{}` is not a hyperparameters file ({e}): {fix}", path.display())).with_source(e)
        })
    }

    /// Says why the program failed, in `output/failure`, cut to 1024 characters.
    ///
    /// The first reason stands: a file that exists is left alone, because later failures tend to be consequences.
    pub fn fail(&self, message: &str) -> Result<()> {
        let path = self.failure_file();
        if path.exists() {
            return Ok(());
        }
        make_dir(&self.base.join("output"))?;
        let kept: String = message.chars().take(FAILURE_CHARS_MAX).collect();
        fs::write(&path, kept).map_err(|e| at(e, "writing", &path))
    }
}

/// The command line a script gets: `--name value` per hyperparameter, sorted by name, `-n value` for a single letter.
pub(crate) fn user_args(hyperparameters: &BTreeMap<String, String>) -> Vec<String> {
    let dashes = |name: &str| if name.chars().count() == 1 { "-" } else { "--" };
    hyperparameters.iter().flat_map(|(name, value)| [format!("{}{name}", dashes(name)), value.clone()]).collect()
}

/// Whether a folder holds nothing.
pub(crate) fn is_empty(dir: &Path) -> Result<bool> {
    Ok(fs::read_dir(dir).map_err(|e| at(e, "reading", dir))?.next().is_none())
}

/// An I/O error together with what was done to which path.
pub(crate) fn at(error: std::io::Error, doing: &str, path: &Path) -> Error {
    Error::from(error).context(format!("{doing} `{}`", path.display()))
}

fn make_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| at(e, "making", dir))
}

/// A channel is one folder and one environment variable, so its name must fit both (SageMaker's own rule).
fn check_channel_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(fits) {
        let rule = "use 1 to 64 letters, digits, `.`, `-` or `_`, not starting with `.`";
        return Err(Error::invalid(format!("`{name}` cannot be a channel's name: {rule}")));
    }
    Ok(())
}

fn input_data_config(job: &JobSpec) -> Value {
    let channel = json!({
        "ContentType": "application/x-parquet",
        "RecordWrapperType": "None",
        "S3DistributionType": "FullyReplicated",
        "TrainingInputMode": "File",
    });
    job.channels.iter().map(|name| (name.clone(), channel.clone())).collect::<Map<_, _>>().into()
}

fn resource_config() -> Value {
    json!({
        "current_group_name": "homogeneousCluster",
        "current_host": HOST,
        "current_instance_type": "local",
        "hosts": [HOST],
        "instance_groups": [
            {"hosts": [HOST], "instance_group_name": "homogeneousCluster", "instance_type": "local"}
        ],
        "network_interface_name": "lo",
    })
}

/// The hyperparameters as JSON values: what reads as JSON is JSON, the rest strings.
fn decoded(hyperparameters: &BTreeMap<String, String>) -> Map<String, Value> {
    let value = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
    hyperparameters.iter().map(|(name, text)| (name.clone(), value(text))).collect()
}

fn sorted(names: &[String]) -> Vec<&String> {
    let mut names: Vec<&String> = names.iter().collect();
    names.sort();
    names
}

/// The processors this process may use.
fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
