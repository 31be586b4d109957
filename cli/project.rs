//! A project: a folder, its stores and its settings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use featurectl_core::{Error, Result, closest};
use featurectl_executors::LocalOptions;
use featurectl_executors::cluster::{Address, Tls};
use serde::Deserialize;

const FILE: &str = "featurectl.toml";
const PROFILE: &str = "default";

/// Where a job's paths start, where its stores are, and how much of the machine it takes.
#[derive(Debug, Clone)]
pub struct Project {
    /// Paths in SQL are relative to this folder.
    pub root: PathBuf,
    /// Folder of the offline store, the online store, the models and the registry.
    pub store: PathBuf,
    /// Values of `${name}`.
    pub variables: BTreeMap<String, String>,
    /// Threads and memory.
    pub options: LocalOptions,
    /// The cluster that jobs run on; `None`: this machine.
    pub cluster: Option<Address>,
    /// TLS of clusters; `None`: without.
    pub tls: Option<Arc<Tls>>,
    /// Whether nothing may be kept.
    pub(crate) ephemeral: bool,
}

/// `featurectl.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    profile: BTreeMap<String, Profile>,
}

/// `[profile.NAME]`.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    store: Option<PathBuf>,
    threads: Option<usize>,
    memory_mb: Option<usize>,
    cluster: Option<String>,
    cluster_tls: Option<TlsFiles>,
    #[serde(default)]
    variables: BTreeMap<String, String>,
}

/// `cluster_tls` of a profile: PEM files.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsFiles {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

impl Project {
    /// A project for queries only: definitions last as long as the session, and nothing is written.
    pub fn in_memory() -> Self {
        Self { ephemeral: true, ..Self::at(".") }
    }

    /// A project without a configuration file: the store is `.featurectl` in `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let (variables, options) = (BTreeMap::new(), LocalOptions::default());
        Self { store: root.join(".featurectl"), root, variables, options, cluster: None, tls: None, ephemeral: false }
    }

    /// The project of a folder: that of the nearest `featurectl.toml` at or above it, or else the folder itself.
    ///
    /// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for a file that does not parse or a profile that is
    /// not in it.
    pub fn find(folder: &Path, config: Option<&Path>, profile: Option<&str>) -> Result<Self> {
        let folder = std::path::absolute(folder)?;
        let file = match config {
            Some(file) if !file.is_file() => return Err(Error::not_found(format!("no file {}", file.display()))),
            Some(file) => Some(std::path::absolute(file)?),
            None => folder.ancestors().map(|f| f.join(FILE)).find(|f| f.is_file()),
        };
        let Some(file) = file else {
            return match profile {
                Some(p) => Err(Error::not_found(format!(
                    "profile `{p}` needs a {FILE}: there is none at or above {}",
                    folder.display()
                ))),
                None => Ok(Self::at(folder)),
            };
        };
        Self::load(&file, profile)
    }

    fn load(file: &Path, profile: Option<&str>) -> Result<Self> {
        let text =
            std::fs::read_to_string(file).map_err(|e| Error::from(e).context(format!("reading {}", file.display())))?;
        let config: Config = toml::from_str(&text).map_err(|e| Error::invalid(format!("{}: {e}", file.display())))?;
        let name = profile.unwrap_or(PROFILE);
        let chosen = match config.profile.get(name) {
            Some(chosen) => chosen.clone(),
            None if profile.is_none() => Profile::default(),
            None => {
                let hint =
                    closest(name, config.profile.keys()).map_or(String::new(), |p| format!("; did you mean `{p}`?"));
                return Err(Error::not_found(format!("{} has no [profile.{name}]{hint}", file.display())));
            }
        };
        let project = Self::at(file.parent().unwrap_or(Path::new(".")));
        let place = |key: &str| format!("{}: profile `{name}`: {key}", file.display());
        let cluster = chosen.cluster.as_deref().map(Address::parse).transpose();
        let cluster = cluster.map_err(|e| e.context(place("cluster")))?;
        let tls = |t: TlsFiles| {
            let at = |file| project.root.join(file);
            Tls::read(&at(t.ca), &at(t.cert), &at(t.key)).map(Arc::new)
        };
        let tls = chosen.cluster_tls.map(tls).transpose().map_err(|e| e.context(place("cluster_tls")))?;
        Ok(Self {
            cluster: cluster.map(|c| c.with_tls(tls.clone())),
            tls,
            store: chosen.store.map_or(project.store, |s| project.root.join(s)),
            options: LocalOptions { threads: chosen.threads, memory_bytes: chosen.memory_mb.map(|m| m << 20) },
            variables: chosen.variables,
            root: project.root,
            ephemeral: false,
        })
    }
}
