//! The schema registry: what messages of a stream were written by.

use featurectl_aws::Access;
use featurectl_core::{Error, Result};
use tokio::sync::OnceCell;

use super::client::{Client, SchemaVersion, Which};
use crate::decode::SchemaId;

/// Schemas of one format in the registry of an account and region.
#[derive(Debug)]
pub(crate) struct SchemaRegistry {
    access: Access,
    /// `AVRO`, `JSON` or `PROTOBUF`.
    format: String,
    client: OnceCell<Client>,
}

impl SchemaRegistry {
    /// The registry that `access` leads to. Nothing is asked of it yet.
    pub fn new(access: Access, format: &str) -> Self {
        Self { access, format: format.into(), client: OnceCell::new() }
    }

    async fn client(&self) -> &Client {
        self.client.get_or_init(|| async { Client::new(&self.access.config().await) }).await
    }

    /// The text of the schema that `glue://registry/name` means, which is its newest version, or of that of
    /// `glue://registry/name/3`.
    ///
    /// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for a place that is none, or a schema of another format,
    /// [`NotFound`](featurectl_core::ErrorKind::NotFound), and those of the service.
    pub async fn named(&self, place: &str) -> Result<String> {
        let which = which(place)?;
        let client = self.client().await;
        let missing = || {
            let service = client.service();
            Error::not_found(format!(
                "Glue in {service} has no schema {place}: correct its name, the region or the account"
            ))
        };
        let found = client.schema_version(&which).await?.ok_or_else(missing)?;
        self.usable(found).map_err(|why| Error::invalid(format!("{place}: {why}")))
    }

    /// The text of the schema with an id, or why it can't be had, which is so for all messages that name it.
    ///
    /// Errors: those of the service.
    pub async fn version(&self, id: SchemaId) -> Result<std::result::Result<String, String>> {
        let client = self.client().await;
        Ok(match client.schema_version(&Which::Id(id.to_string())).await? {
            Some(found) => self.usable(found).map_err(|why| format!("schema {id}: {why}")),
            None => Err(format!(
                "schema {id} is not in the registry of Glue in {}: it was deleted, or is another account's or region's",
                client.service()
            )),
        })
    }

    fn usable(&self, found: SchemaVersion) -> std::result::Result<String, String> {
        let SchemaVersion { text, format, status } = found;
        if format != self.format {
            return Err(format!("it is of {format}, the table is STORED AS {}", self.format));
        }
        if status != "AVAILABLE" {
            return Err(format!("it is {status} in the registry of Glue"));
        }
        Ok(text)
    }
}

fn which(place: &str) -> Result<Which> {
    let parts: Vec<&str> = place.strip_prefix("glue://").unwrap_or_default().split('/').collect();
    let version = |text: &str| text.parse().ok().filter(|n| *n > 0);
    let named = |registry: &str, name: &str, version| {
        let is_there = !registry.is_empty() && !name.is_empty();
        is_there.then(|| Which::Named { registry: registry.into(), name: name.into(), version })
    };
    let which = match parts.as_slice() {
        [registry, name] => named(registry, name, None),
        [registry, name, number] => version(number).and_then(|n| named(registry, name, Some(n))),
        _ => None,
    };
    which.ok_or_else(|| {
        Error::invalid(format!("`{place}` is no schema: write glue://registry/name, or glue://registry/name/3"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_named_with_its_registry_and_a_version() {
        let named = |version| Which::Named { registry: "r".into(), name: "s".into(), version };
        assert_eq!(which("glue://r/s").expect("a schema"), named(None));
        assert_eq!(which("glue://r/s/12").expect("a schema"), named(Some(12)));
        for place in ["glue://r", "glue://r/", "glue:///s", "glue://r/s/0", "glue://r/s/x", "glue://r/s/1/2", "r/s"] {
            assert!(which(place).is_err(), "{place}");
        }
    }
}
