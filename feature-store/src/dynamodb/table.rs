//! The table itself: made, set up, and looked at before it is used.

use featurectl_core::{Error, ErrorKind, Result};

use super::client::Description;
use super::store::Inner;

/// Looks at a new or changed table until it can be used: about five minutes with the limits as they are by default.
const LOOKS_MAX: u32 = 60;
/// The attribute by which DynamoDB deletes what has expired.
const TTL_ATTRIBUTE: &str = "ttl";

/// What a table is to have besides its keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// Tags, each a key and a value.
    pub tags: Vec<(String, String)>,
    /// Whether DynamoDB deletes tiles some time after they expired. Without it they are not read either, but kept.
    pub ttl: bool,
    /// Whether the table can be restored as of any second of the last 35 days.
    pub point_in_time_recovery: bool,
    /// Whether the table can't be deleted until this is turned off.
    pub deletion_protection: bool,
}

/// Makes the table if it is not there, and sets what it does not have yet.
pub(super) async fn create(inner: &Inner, options: &TableOptions) -> Result<()> {
    let (table, writes) = (&inner.table, &inner.writes);
    let is_new = match describe(inner).await {
        Err(e) if e.kind() == ErrorKind::NotFound => make(inner, options).await?,
        known => known.map(|_| false)?,
    };
    let description = active(inner).await?;
    if !is_new && !options.tags.is_empty() {
        writes.call(|| table.tag(&description.arn, &options.tags)).await?;
    }
    if options.deletion_protection && !description.deletion_protection {
        writes.call(|| table.protect()).await?;
        active(inner).await?;
    }
    if options.ttl {
        set_ttl(inner).await?;
    }
    if options.point_in_time_recovery && !inner.reads.call(|| table.has_recovery()).await? {
        writes.call(|| table.set_recovery()).await?;
    }
    Ok(())
}

/// Makes the table, and returns whether it did: another process may have been faster, or an attempt without an answer.
async fn make(inner: &Inner, options: &TableOptions) -> Result<bool> {
    let create = || inner.table.create(&options.tags, options.deletion_protection);
    match inner.writes.call(create).await {
        Err(e) if e.kind() == ErrorKind::Conflict => Ok(false),
        made => made.map(|()| true),
    }
}

/// Deletes the table, if it is there; false if it is protected from that.
pub(super) async fn delete(inner: &Inner) -> Result<bool> {
    let description = match describe(inner).await {
        Ok(description) => description,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(true),
        Err(e) => return Err(e),
    };
    if description.deletion_protection {
        return Ok(false);
    }
    match inner.writes.call(|| inner.table.delete()).await {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(true),
    }
}

/// Whether the table can be used as it is.
pub(super) async fn check(inner: &Inner) -> Result<()> {
    let description = describe(inner).await?;
    match description.status.as_str() {
        "CREATING" => Err(Error::new(ErrorKind::Unavailable, "the table is being made: try again in a minute")),
        "ACTIVE" | "UPDATING" => Ok(()),
        other => Err(unusable(other)),
    }
}

/// Waits until the table can be used.
async fn active(inner: &Inner) -> Result<Description> {
    for look in 1..=LOOKS_MAX {
        match describe(inner).await {
            Ok(description) => match description.status.as_str() {
                "ACTIVE" => return Ok(description),
                "CREATING" | "UPDATING" => {}
                other => return Err(unusable(other)),
            },
            // The service may not know yet of what it has just begun to make.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        tokio::time::sleep(inner.reads.pause(look)).await;
    }
    Err(Error::new(ErrorKind::Unavailable, "the table is still being made: run the same again in a minute"))
}

pub(super) async fn describe(inner: &Inner) -> Result<Description> {
    let description = inner.reads.call(|| inner.table.describe()).await?;
    match &description.other_keys {
        Some(found) => Err(inner.table.place().keys_are_others(found)),
        None => Ok(description),
    }
}

async fn set_ttl(inner: &Inner) -> Result<()> {
    let table = &inner.table;
    match inner.reads.call(|| table.ttl_attribute()).await? {
        Some(name) if name == TTL_ATTRIBUTE => Ok(()),
        Some(name) => Err(Error::invalid(format!(
            "the table deletes by the attribute `{name}`, not by `{TTL_ATTRIBUTE}`: turn that off, wait an hour, and \
             try again"
        ))),
        None => inner.writes.call(|| table.set_ttl_attribute(TTL_ATTRIBUTE)).await,
    }
}

fn unusable(status: &str) -> Error {
    Error::conflict(format!("the table can't be used, its state is {status}: wait, or name another table"))
}
