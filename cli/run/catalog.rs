//! Tables in the catalog that the profile names: what is committed or copied is registered there. And tables of catalogs
//! that feature views read, which the registry keeps the columns of, so that serving asks no catalog.
//!
//! Registering comes last and is done by every run, also of what is unchanged: a run that could not is made good by the next.

use std::collections::BTreeSet;
use std::sync::Arc;

use featurectl_connectors::glue::{Database, Registration, StoredAs};
use featurectl_core::check::Copy;
use featurectl_core::sql::ObjectKind;
use featurectl_core::{Error, Lineage, Result};
use featurectl_feature_store::{Entry, Folder, Version};

use super::copy::{Target, is_single};
use super::{Run, columns, hash};
use crate::session::Session;

/// What became of a table in the catalog.
#[derive(Debug, Default)]
pub(super) struct Registered {
    /// Whether the catalog did not say so before.
    pub(super) changed: bool,
    place: Option<String>,
}

impl Registered {
    pub(super) fn note(&self) -> String {
        note(self.place.clone())
    }
}

fn note(place: Option<String>) -> String {
    place.map_or(String::new(), |p| format!(", {p}"))
}

/// Catalog, database and name of a table, if it is one of a catalog and not of the session's own.
pub(crate) fn in_catalog(name: &str) -> Option<[&str; 3]> {
    let parts: [&str; 3] = name.split('.').collect::<Vec<_>>().try_into().ok()?;
    (parts[0] != "datafusion").then_some(parts)
}

impl Run<'_> {
    /// Keeps the columns of the tables of catalogs that a view reads, as those of external tables are kept.
    pub(super) fn define_catalog_tables(&self, found: &Lineage, order: usize) -> Result<()> {
        let registry = &self.session.registry;
        for (name, table) in found.tables.iter().filter(|(name, _)| in_catalog(name).is_some()) {
            let (schema, known) = (table.schema(), registry.get(ObjectKind::Table, name)?);
            let state = serde_json::to_value(schema.as_ref()).map_err(|e| Error::internal(e.to_string()))?;
            let definition_hash = hash([state.to_string().as_str()]);
            if known.is_some_and(|e| e.definition_hash == definition_hash) {
                continue;
            }
            let entry = Entry {
                name: name.clone(),
                sql: String::new(),
                definition_hash,
                order,
                upstream: vec![],
                run_id: self.id.clone(),
                columns: columns(&schema),
                state,
            };
            registry.put(ObjectKind::Table, &entry)?;
        }
        Ok(())
    }
}

impl Session {
    /// Forgets the tables of catalogs that the view `name` reads and no other.
    pub(super) fn forget_catalog_tables(&self, name: &str) -> Result<()> {
        let (of_it, others): (Vec<_>, Vec<_>) =
            self.registry.list(ObjectKind::FeatureView)?.into_iter().partition(|view| view.name == name);
        let read: BTreeSet<&String> = others.iter().flat_map(|view| &view.upstream).collect();
        for upstream in of_it.iter().flat_map(|view| &view.upstream).filter(|table| !read.contains(table)) {
            if let Some(table) = upstream.strip_prefix("table ").filter(|table| in_catalog(table).is_some()) {
                self.registry.remove(ObjectKind::Table, table)?;
            }
        }
        Ok(())
    }

    /// Registers a table of the offline store.
    pub(super) async fn register_version(&self, table: &str, version: &Version) -> Result<Registered> {
        let Some(database) = &self.project.catalog else { return Ok(Registered::default()) };
        let (location, schema) = (location(&self.offline.path(table))?, version.schema()?);
        let wanted = Registration { name: table.into(), location, schema, stored_as: StoredAs::Delta };
        self.register(database, &wanted, &format!("version {}", version.number)).await
    }

    /// Registers a folder of Parquet files in a bucket; other outputs are no tables that readers of the catalog know.
    pub(super) async fn register_copy(&self, copy: &Copy, target: &Target) -> Result<Registered> {
        let Some(database) = self.catalog_of(copy, target) else { return Ok(Registered::default()) };
        let files = target.folder().below()?;
        let folders: BTreeSet<&str> = files.iter().filter_map(|(name, _)| Some(name.rsplit_once('/')?.0)).collect();
        let folders = folders.into_iter().map(str::to_string).collect();
        let wanted = Registration {
            name: target.name().into(),
            location: location(&target.folder())?,
            schema: Arc::clone(copy.plan.schema().inner()),
            stored_as: StoredAs::Parquet { keys: copy.partitioned_by.clone(), folders },
        };
        self.register(database, &wanted, "what was copied").await
    }

    async fn register(&self, database: &Database, wanted: &Registration, what: &str) -> Result<Registered> {
        let changed = Box::pin(database.register(&self.project.access, wanted)).await.map_err(|e| {
            e.context(format!(
                "{what} is at {}, whole, but it is not registered in Glue: run again to register it",
                wanted.location
            ))
        })?;
        Ok(Registered { changed, place: Some(database.place(&wanted.name)) })
    }

    /// Takes a table of the offline store out of the catalog.
    pub(super) async fn unregister(&self, table: &str) -> Result<()> {
        let Some(database) = &self.project.catalog else { return Ok(()) };
        Box::pin(database.forget(&self.project.access, table, &location(&self.offline.path(table))?)).await
    }

    /// Where a table of the offline store will be registered, as `plan` says it.
    pub(crate) fn catalog_note(&self, table: &str) -> String {
        note(self.project.catalog.as_ref().map(|d| d.place(table)))
    }

    /// Where a COPY will be registered.
    pub(crate) fn copy_note(&self, copy: &Copy, target: &Target) -> String {
        note(self.catalog_of(copy, target).map(|d| d.place(target.name())))
    }

    fn catalog_of(&self, copy: &Copy, target: &Target) -> Option<&Database> {
        let is_table = copy.format == "parquet" && !is_single(copy) && target.folder().local().is_none();
        self.project.catalog.as_ref().filter(|_| is_table)
    }
}

/// A folder of a bucket by its key as it is, which is how the catalog has it.
fn location(folder: &Folder) -> Result<String> {
    let (url, _) = folder.bucket()?.ok_or_else(|| Error::internal("a table of Glue is in a bucket"))?;
    let key = datafusion::object_store::path::Path::from_url_path(url.path());
    let key = key.map_err(|e| Error::invalid(format!("{url}: {e}")))?;
    Ok(format!("s3://{}/{key}/", url.host_str().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_a_catalog_are_told_from_those_of_the_session() {
        assert_eq!(in_catalog("glue.lake.t"), Some(["glue", "lake", "t"]));
        for own in ["t", "public.t", "datafusion.public.t"] {
            assert_eq!(in_catalog(own), None, "{own}");
        }
    }
}
