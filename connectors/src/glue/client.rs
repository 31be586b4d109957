//! The calls to the service. Everything that knows the SDK of Glue is in this file and, where values are the one and
//! the other, in `convert.rs` below it.

mod convert;

use std::collections::BTreeMap;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_glue::config::retry::RetryConfig;
use aws_sdk_glue::config::timeout::TimeoutConfig;
use aws_sdk_glue::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_glue::types::{self as aws, DatabaseInput};
use featurectl_aws::told;
use featurectl_core::{Error, ErrorKind, Result};

use convert::{entry, input, partition_input, storage, unbuilt};

/// Attempts of a call that is throttled or disturbed.
const ATTEMPTS: u32 = 8;
/// How often a lost race is run again.
pub(super) const RACES: u32 = 10;
/// Partitions that are made or changed by one call.
const PARTITIONS: usize = 100;

/// The catalog of an account and region.
#[derive(Debug, Clone)]
pub(super) struct Client {
    client: aws_sdk_glue::Client,
    /// The account whose catalog is read, if it is not that of the credentials.
    catalog: Option<String>,
    service: String,
}

/// A table of the catalog.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// `EXTERNAL_TABLE`, `VIRTUAL_VIEW`, …
    pub kind: String,
    pub description: Option<String>,
    pub owner: Option<String>,
    pub partition_keys: Vec<Column>,
    pub parameters: BTreeMap<String, String>,
    pub storage: Storage,
    /// Changes with each update.
    pub version: Option<String>,
    /// The table that it is a link to.
    pub link: Option<String>,
}

/// How rows are stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Storage {
    pub columns: Vec<Column>,
    pub location: String,
    pub input_format: String,
    pub output_format: String,
    pub serde: String,
    pub serde_parameters: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    /// Its type in Hive's words.
    pub of: String,
    pub comment: Option<String>,
}

/// A partition of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Partition {
    /// One a partition key.
    pub values: Vec<String>,
    pub storage: Storage,
}

/// A schema of the registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SchemaVersion {
    /// Its text.
    pub text: String,
    /// `AVRO`, `JSON` or `PROTOBUF`.
    pub format: String,
    /// `AVAILABLE`, if it is to be used.
    pub status: String,
}

/// Which version of a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Which {
    /// That of a UUID.
    Id(String),
    /// One of a schema in a registry; the newest, if none is given.
    Named { registry: String, name: String, version: Option<i64> },
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changed {
    Done,
    /// Another process changed the same thing at that moment.
    Raced,
    /// What was to be changed, or where, is not there.
    Missing,
}

impl Client {
    /// The catalog that `config` leads to. Nothing is asked of it yet.
    pub fn new(config: &SdkConfig) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(5))
            .operation_attempt_timeout(Duration::from_secs(60))
            .build();
        let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS);
        let builder = aws_sdk_glue::config::Builder::from(config).retry_config(retries).timeout_config(timeouts);
        let region = config.region().map_or("no region", |r| r.as_ref());
        let service = config.endpoint_url().unwrap_or(region).to_string();
        Self { client: aws_sdk_glue::Client::from_conf(builder.build()), catalog: None, service }
    }

    /// The same for reading the catalog of `account`, if that is another one's.
    pub fn of_account(self, account: Option<&str>) -> Self {
        let service = account.map_or(self.service.clone(), |a| format!("account {a}, {}", self.service));
        Self { catalog: account.map(str::to_string), service, ..self }
    }

    /// A table; `None` if there is none, or no such database.
    pub async fn table(&self, database: &str, name: &str) -> Result<Option<Entry>> {
        let call = self.client.get_table().set_catalog_id(self.catalog.clone());
        match call.database_name(database).name(name).send().await {
            Ok(found) => found.table.map(|t| entry(&t)).map_or(Ok(None), |e| Ok(Some(e))),
            Err(e) if e.code() == Some("EntityNotFoundException") => Ok(None),
            Err(e) => Err(self.failure(&e, "glue:GetTable", &format!("{database}.{name}"))),
        }
    }

    /// The names of a database's tables; `None` if there is no such database.
    pub async fn table_names(&self, database: &str) -> Result<Option<Vec<String>>> {
        let call = self.client.get_tables().set_catalog_id(self.catalog.clone());
        let mut pages = call.database_name(database).into_paginator().send();
        let mut names = Vec::new();
        while let Some(page) = pages.next().await {
            match page {
                Ok(page) => names.extend(page.table_list().iter().map(|t| t.name().to_string())),
                Err(e) if e.code() == Some("EntityNotFoundException") => return Ok(None),
                Err(e) => return Err(self.failure(&e, "glue:GetTables", database)),
            }
        }
        Ok(Some(names))
    }

    /// A version of a schema in the registry; `None` if there is none.
    pub async fn schema_version(&self, which: &Which) -> Result<Option<SchemaVersion>> {
        let call = self.client.get_schema_version();
        let (call, place) = match which {
            Which::Id(id) => (call.schema_version_id(id), format!("schema version {id}")),
            Which::Named { registry, name, version } => {
                let id = aws::SchemaId::builder().registry_name(registry).schema_name(name).build();
                let number = aws::SchemaVersionNumber::builder();
                let number = number.latest_version(version.is_none()).set_version_number(*version).build();
                (call.schema_id(id).schema_version_number(number), format!("{registry}/{name}"))
            }
        };
        let found = match call.send().await {
            Ok(found) => found,
            Err(e) if e.code() == Some("EntityNotFoundException") => return Ok(None),
            Err(e) => return Err(self.failure(&e, "glue:GetSchemaVersion", &place)),
        };
        Ok(Some(SchemaVersion {
            text: found.schema_definition.unwrap_or_default(),
            format: found.data_format.map_or(String::new(), |f| f.as_str().to_string()),
            status: found.status.map_or(String::new(), |s| s.as_str().to_string()),
        }))
    }

    /// Where it is: a region, or an address.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Makes a database, if there is none.
    pub async fn create_database(&self, name: &str) -> Result<()> {
        let input = DatabaseInput::builder().name(name).description("Tables of featurectl").build().map_err(unbuilt)?;
        match self.client.create_database().database_input(input).send().await {
            Ok(_) => Ok(()),
            Err(e) if e.code() == Some("AlreadyExistsException") => Ok(()),
            Err(e) => Err(self.failure(&e, "glue:CreateDatabase", name)),
        }
    }

    /// Makes a table.
    pub async fn create_table(&self, database: &str, name: &str, table: &Entry) -> Result<Changed> {
        let call = self.client.create_table().database_name(database).table_input(input(name, table)?);
        self.changed(call.send().await, "glue:CreateTable", database, name)
    }

    /// Makes a table what `table` says, if nobody changed it since it had `table`'s version. Versions of before are not
    /// kept: an account can have a certain number of them only.
    pub async fn update_table(&self, database: &str, name: &str, table: &Entry) -> Result<Changed> {
        let call = self.client.update_table().database_name(database).table_input(input(name, table)?);
        let call = call.set_version_id(table.version.clone()).skip_archive(true);
        self.changed(call.send().await, "glue:UpdateTable", database, name)
    }

    /// Takes a table out of the catalog; its rows stay.
    pub async fn delete_table(&self, database: &str, name: &str) -> Result<Changed> {
        let call = self.client.delete_table().database_name(database).name(name);
        self.changed(call.send().await, "glue:DeleteTable", database, name)
    }

    /// All partitions of a table, with their columns if those are asked for.
    pub async fn partitions(&self, database: &str, table: &str, columns: bool) -> Result<Vec<Partition>> {
        let call = self.client.get_partitions().set_catalog_id(self.catalog.clone());
        let call = call.database_name(database).table_name(table);
        let mut pages = call.exclude_column_schema(!columns).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| self.failure(&e, "glue:GetPartitions", &format!("{database}.{table}")))?;
            found.extend(page.partitions().iter().map(|p| Partition {
                values: p.values().to_vec(),
                storage: p.storage_descriptor().map(storage).unwrap_or_default(),
            }));
        }
        Ok(found)
    }

    /// Adds partitions; those that are there stay as they are.
    pub async fn create_partitions(&self, database: &str, table: &str, partitions: &[Partition]) -> Result<()> {
        let place = format!("{database}.{table}");
        for some in partitions.chunks(PARTITIONS) {
            let call = self.client.batch_create_partition().database_name(database).table_name(table);
            let call = call.set_partition_input_list(Some(some.iter().map(partition_input).collect::<Result<_>>()?));
            let answer = unraced(|| call.clone().send()).await;
            let answer = answer.map_err(|e| self.failure(&e, "glue:BatchCreatePartition", &place))?;
            let refused = answer.errors().iter().filter_map(|e| Some((e.partition_values(), e.error_detail()?)));
            // Another process, or an attempt whose answer was lost, added it.
            let refused = refused.filter(|(_, e)| e.error_code() != Some("AlreadyExistsException"));
            self.all_done(&place, refused)?;
        }
        Ok(())
    }

    /// Changes partitions.
    pub async fn update_partitions(&self, database: &str, table: &str, partitions: &[Partition]) -> Result<()> {
        let place = format!("{database}.{table}");
        for some in partitions.chunks(PARTITIONS) {
            let entry = |p: &Partition| {
                let entry = aws::BatchUpdatePartitionRequestEntry::builder();
                let entry = entry.set_partition_value_list(Some(p.values.clone()));
                entry.partition_input(partition_input(p)?).build().map_err(unbuilt)
            };
            let call = self.client.batch_update_partition().database_name(database).table_name(table);
            let call = call.set_entries(Some(some.iter().map(entry).collect::<Result<_>>()?));
            let answer = unraced(|| call.clone().send()).await;
            let answer = answer.map_err(|e| self.failure(&e, "glue:BatchUpdatePartition", &place))?;
            let refused = answer.errors().iter().filter_map(|e| Some((e.partition_value_list(), e.error_detail()?)));
            self.all_done(&place, refused)?;
        }
        Ok(())
    }

    /// Whether each of a batch was done.
    fn all_done<'a>(
        &self,
        place: &str,
        mut refused: impl Iterator<Item = (&'a [String], &'a aws::ErrorDetail)>,
    ) -> Result<()> {
        let Some((values, e)) = refused.next() else { return Ok(()) };
        let (code, message) = (e.error_code().unwrap_or_default(), e.error_message().unwrap_or_default());
        let more = refused.count();
        let kind = match code {
            "InternalServiceException" | "OperationTimeoutException" | "ConcurrentModificationException" => {
                ErrorKind::Unavailable
            }
            _ => ErrorKind::Invalid,
        };
        let text =
            format!("Glue refused partition ({}) of `{place}`, and {more} more: {code}: {message}", values.join(", "));
        Err(Error::new(kind, text))
    }

    fn changed<T, E>(
        &self,
        answer: std::result::Result<T, SdkError<E>>,
        action: &str,
        database: &str,
        name: &str,
    ) -> Result<Changed>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let e = match answer {
            Ok(_) => return Ok(Changed::Done),
            Err(e) => e,
        };
        match e.code() {
            Some("AlreadyExistsException" | "ConcurrentModificationException") => Ok(Changed::Raced),
            // That of a version that is not the newest has no name of its own.
            Some("InvalidInputException") if e.message().is_some_and(|m| m.to_lowercase().contains("version")) => {
                Ok(Changed::Raced)
            }
            Some("EntityNotFoundException") => Ok(Changed::Missing),
            _ => Err(self.failure(&e, action, &format!("{database}.{name}"))),
        }
    }

    /// What a failed call means, and what to do.
    fn failure<E>(&self, e: &SdkError<E>, action: &str, place: &str) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let service = &self.service;
        let code = e.code().unwrap_or_default();
        let status = if let SdkError::ServiceError(e) = e { e.raw().status().as_u16() } else { 0 };
        let told = told(e.code(), e.message(), e);
        let unavailable = |text: String| Error::new(ErrorKind::Unavailable, text);
        match (code, status) {
            ("AccessDeniedException" | "AccessDenied", _) => Error::invalid(format!(
                "not allowed on `{place}` in Glue: give the role {action}, as docs/aws.md lists ({told})"
            )),
            ("ExpiredTokenException" | "ExpiredToken", _) => {
                Error::invalid(format!("the session's token has expired: sign in again with `aws sso login` ({told})"))
            }
            (
                "UnrecognizedClientException"
                | "InvalidSignatureException"
                | "InvalidClientTokenId"
                | "IncompleteSignature"
                | "MissingAuthenticationToken",
                _,
            ) => Error::invalid(format!(
                "the credentials are not accepted: check them, the account, and this machine's clock ({told})"
            )),
            ("EntityNotFoundException", _) => Error::not_found(format!(
                "nothing is called `{place}` in Glue in {service}: correct its name, the region or the account ({told})"
            )),
            ("ResourceNumberLimitExceededException", _) => Error::invalid(format!(
                "Glue has no room for `{place}`: remove tables, versions or partitions, or raise the limit ({told})"
            )),
            ("GlueEncryptionException", _) => Error::invalid(format!(
                "the catalog is encrypted, and its key can't be used: give the role kms:Decrypt and kms:Encrypt ({told})"
            )),
            ("ThrottlingException" | "Throttling" | "RequestLimitExceeded" | "TooManyRequestsException", _)
            | (_, 429) => unavailable(format!("Glue takes no more calls at present: go on later ({place}; {told})")),
            ("OperationTimeoutException" | "ConcurrentModificationException" | "ResourceNotReadyException", _)
            | (_, 500..) => unavailable(format!("Glue is disturbed: go on later ({place}; {told})")),
            (_, 400..) => Error::invalid(format!("Glue refused a call on `{place}`: {told}")),
            _ => unreached(&told, service),
        }
    }
}

/// Waits longer after each lost race.
pub(super) async fn pause(race: u32) {
    tokio::time::sleep(Duration::from_millis(50 << race.min(5))).await;
}

/// A call that is made again where another process changed the same table at that moment.
async fn unraced<T, E, F>(call: impl Fn() -> F) -> std::result::Result<T, SdkError<E>>
where
    E: ProvideErrorMetadata,
    F: Future<Output = std::result::Result<T, SdkError<E>>>,
{
    for race in 1..RACES {
        match call().await {
            Err(e) if e.code() == Some("ConcurrentModificationException") => pause(race).await,
            done => return done,
        }
    }
    call().await
}

/// A call without an answer.
fn unreached(told: &str, service: &str) -> Error {
    let lower = told.to_lowercase();
    if lower.contains("region") && ["missing", "must be set", "signing"].iter().any(|t| lower.contains(t)) {
        return Error::invalid(format!(
            "no AWS region is set for Glue: set AWS_REGION or `region` in the profile ({told})"
        ));
    }
    if lower.contains("credential") || lower.contains("identity") {
        return Error::invalid(format!(
            "no AWS credentials were found: set AWS_PROFILE or `aws_profile` in the profile, sign in with `aws sso login`, \
             or give this machine a role ({told})"
        ));
    }
    let text = format!("no answer from Glue in {service}: check the network, the region and the endpoint ({told})");
    Error::new(ErrorKind::Unavailable, text)
}
