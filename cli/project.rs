//! A project: a folder, its stores and its settings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use featurectl_aws::{Access, Buckets};
use featurectl_connectors::glue::Database;
use featurectl_core::{Error, Result, closest};
use featurectl_executors::LocalOptions;
use featurectl_executors::cluster::{Address, Tls};
use featurectl_feature_store::dynamodb::{Import, Limits, Table, TableOptions};
use featurectl_feature_store::{DynamoStore, EmbeddedStore, Folder, Generation, Tables};
use serde::Deserialize;
use tokio::sync::OnceCell;

const FILE: &str = "featurectl.toml";
const PROFILE: &str = "default";
/// The folder of a project that has all that is not named elsewhere.
const WORK: &str = ".featurectl";

/// Where a job's paths start, where its stores are, and how much of the machine it takes.
#[derive(Debug, Clone)]
pub struct Project {
    /// Paths in SQL are relative to this folder.
    pub root: PathBuf,
    /// Folder of the offline store, the models and the registry; and of the online store, if that is nowhere else.
    pub store: Folder,
    /// Where the online store is, if it is not in the folder of the others.
    pub online: Option<Online>,
    /// The folder of a bucket through which backfills are imported into tables of their own; `None`: they are written.
    pub import: Option<Folder>,
    /// The database of Glue that tables are registered in.
    pub catalog: Option<Database>,
    /// A file of what DynamoDB costs, instead of the built-in prices.
    pub prices: Option<PathBuf>,
    /// How AWS is reached.
    pub access: Access,
    /// The online table, once it is used: configuration and credentials are loaded, and connections made, for all views.
    pub(crate) table: Arc<OnceCell<Table>>,
    /// The stores of buckets.
    pub(crate) buckets: Arc<Buckets>,
    /// The same, for calls that wait.
    pub(crate) waiting: Arc<Buckets>,
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

/// Where tiles are read and written by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Online {
    /// A file of this machine.
    File(PathBuf),
    /// A table of DynamoDB, and what it is made with.
    Table(String, TableOptions),
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
    store: Option<String>,
    online: Option<String>,
    catalog: Option<String>,
    region: Option<String>,
    aws_profile: Option<String>,
    endpoint: Option<String>,
    table: Option<OnlineTable>,
    prices: Option<PathBuf>,
    threads: Option<usize>,
    memory_mb: Option<usize>,
    cluster: Option<String>,
    cluster_tls: Option<TlsFiles>,
    #[serde(default)]
    variables: BTreeMap<String, String>,
}

/// `[profile.NAME.table]`: what the online table has besides its keys.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct OnlineTable {
    tags: BTreeMap<String, String>,
    ttl: bool,
    point_in_time_recovery: bool,
    deletion_protection: bool,
    import: Option<String>,
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
        Self {
            store: root.join(WORK).into(),
            online: None,
            import: None,
            catalog: None,
            prices: None,
            access: Access::default(),
            table: Arc::default(),
            buckets: Arc::new(Buckets::new(Access::default())),
            waiting: Arc::new(Buckets::new(Access::default())),
            root,
            variables: BTreeMap::new(),
            options: LocalOptions::default(),
            cluster: None,
            tls: None,
            ephemeral: false,
        }
    }

    /// The folder that a text names: a path from here, or s3://bucket/prefix.
    pub(crate) fn folder(&self, text: &str) -> Result<Folder> {
        Folder::parse(text, &self.root, &self.buckets, &self.waiting)
    }

    /// A folder of this machine for what is only needed for a while: the store's, or one in the project.
    pub(crate) fn work(&self) -> PathBuf {
        self.store.local().map_or_else(|| self.root.join(WORK), Path::to_path_buf)
    }

    /// Where the online store is.
    ///
    /// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) if the profile's store is in a bucket and it names none.
    pub(crate) fn online(&self) -> Result<Online> {
        match (&self.online, self.store.local()) {
            (Some(online), _) => Ok(online.clone()),
            (None, Some(store)) => Ok(Online::File(store.join("online.redb"))),
            (None, None) => Err(Error::invalid(format!(
                "the store {} has no place for online features: add `online = \"dynamodb://TABLE\"` to the profile in {FILE}",
                self.store
            ))),
        }
    }

    /// The online store, for writing; it is made if it is not there.
    pub(crate) async fn open_online(&self) -> Result<Arc<dyn Tables>> {
        Ok(match self.online()? {
            Online::File(path) => Arc::new(EmbeddedStore::open(path)?),
            Online::Table(name, options) => {
                let table = self.table(&name).await;
                Arc::new(Box::pin(DynamoStore::create(table, &options, Limits::default())).await?)
            }
        })
    }

    /// The online store, for reading.
    ///
    /// Errors: [`NotFound`](featurectl_core::ErrorKind::NotFound) if there is none yet.
    pub(crate) async fn open_online_to_read(&self) -> Result<Arc<dyn Tables>> {
        Ok(match self.online()? {
            Online::File(path) => Arc::new(EmbeddedStore::open_read_only(path)?),
            Online::Table(name, _) => {
                let table = self.table(&name).await;
                Arc::new(Box::pin(DynamoStore::open(table, Limits::default())).await?)
            }
        })
    }

    /// The online table, and how one that is named after it is made by import of `generation`; `None` if backfills are written.
    pub(crate) async fn import(&self, generation: Generation) -> Result<Option<(DynamoStore, Import)>> {
        let (Some(folder), Online::Table(name, options)) = (&self.import, self.online()?) else { return Ok(None) };
        let store = Box::pin(DynamoStore::open(self.table(&name).await, Limits::default())).await?;
        let table = format!("{name}.{:016x}", u64::from_be_bytes(generation));
        let folder = folder.join(&table);
        Ok(Some((store, Import { table, folder, options })))
    }

    async fn table(&self, name: &str) -> Table {
        Box::pin(self.table.get_or_init(|| Table::connect(name, &self.access))).await.clone()
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
        let of = |key: &'static str| move |e: Error| e.context(format!("{}: profile `{name}`: {key}", file.display()));
        let access = Access { region: chosen.region, profile: chosen.aws_profile, endpoint: chosen.endpoint };
        let (buckets, waiting) = (Arc::new(Buckets::new(access.clone())), Arc::new(Buckets::new(access.clone())));
        let store = chosen.store.map(|s| Folder::parse(&s, &project.root, &buckets, &waiting)).transpose();
        let import = chosen.table.as_ref().and_then(|t| t.import.as_deref());
        let import = import.map(|i| Folder::parse(i, &project.root, &buckets, &waiting)).transpose();
        let import = import.map_err(of("table.import"))?;
        if import.as_ref().is_some_and(|folder| folder.local().is_some()) {
            return Err(of("table.import")(Error::invalid("DynamoDB imports from S3 only: write s3://bucket/prefix")));
        }
        let online = chosen.online.map(|o| Online::parse(&o, &project.root, chosen.table.clone())).transpose();
        let online = online.map_err(of("online"))?;
        if chosen.table.is_some() && !matches!(online, Some(Online::Table(..))) {
            return Err(of("table")(Error::invalid("it is for `online = \"dynamodb://TABLE\"`")));
        }
        let store = store.map_err(of("store"))?.unwrap_or(project.store);
        let catalog = chosen.catalog.as_deref().map(Database::parse).transpose().map_err(of("catalog"))?;
        if catalog.is_some() && store.local().is_some() {
            let text = "Glue has tables of S3 only: set `store = \"s3://bucket/prefix\"`, or leave it out";
            return Err(of("catalog")(Error::invalid(text)));
        }
        let cluster = chosen.cluster.as_deref().map(Address::parse).transpose();
        let cluster = cluster.map_err(of("cluster"))?;
        let tls = |t: TlsFiles| {
            let at = |file| project.root.join(file);
            Tls::read(&at(t.ca), &at(t.cert), &at(t.key)).map(Arc::new)
        };
        let tls = chosen.cluster_tls.map(tls).transpose().map_err(of("cluster_tls"))?;
        Ok(Self {
            cluster: cluster.map(|c| c.with_tls(tls.clone())),
            tls,
            store,
            online,
            import,
            catalog,
            prices: chosen.prices.map(|file| project.root.join(file)),
            access,
            table: project.table,
            buckets,
            waiting,
            options: LocalOptions { threads: chosen.threads, memory_bytes: chosen.memory_mb.map(|m| m << 20) },
            variables: chosen.variables,
            root: project.root,
            ephemeral: false,
        })
    }
}

impl Online {
    fn parse(text: &str, root: &Path, table: Option<OnlineTable>) -> Result<Self> {
        let wrong =
            || Error::invalid(format!("`{text}` is no online store: write dynamodb://TABLE, or the path of a file"));
        match text.split_once("://") {
            None if !text.is_empty() => Ok(Self::File(root.join(text))),
            Some(("dynamodb", name)) if !name.is_empty() && !name.contains(['/', '@', '?']) => {
                let OnlineTable { tags, ttl, point_in_time_recovery, deletion_protection, .. } =
                    table.unwrap_or_default();
                let tags = tags.into_iter().collect();
                let options = TableOptions { tags, ttl, point_in_time_recovery, deletion_protection };
                Ok(Self::Table(name.to_string(), options))
            }
            _ => Err(wrong()),
        }
    }
}

impl std::fmt::Display for Online {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Table(name, _) => write!(f, "dynamodb://{name}"),
        }
    }
}
