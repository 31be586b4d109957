//! What is known of writers' schemas.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{PoisonError, RwLock};

use featurectl_core::{Error, Result};

use super::{Framing, SchemaId};

/// Schemas by their ids, of which more may become known while records are read.
#[derive(Debug, Default)]
pub struct Schemas(RwLock<BTreeMap<SchemaId, Known>>);

/// The text of a schema, or why it can't be had.
pub type Known = std::result::Result<String, String>;

impl Schemas {
    /// These schemas.
    pub fn of(texts: &BTreeMap<SchemaId, String>) -> Self {
        Self(RwLock::new(texts.iter().map(|(id, text)| (*id, Ok(text.clone()))).collect()))
    }

    /// The text of a schema.
    ///
    /// Errors: [`Data`](featurectl_core::ErrorKind::Data) if it is not known, or can't be had.
    pub fn text(&self, id: SchemaId) -> Result<String> {
        self.with(id, String::clone)
    }

    /// Whether a schema can be had.
    ///
    /// Errors: those of [`text`](Self::text).
    pub fn check(&self, id: SchemaId) -> Result<()> {
        self.with(id, |_| ())
    }

    fn with<T>(&self, id: SchemaId, f: impl FnOnce(&String) -> T) -> Result<T> {
        match self.0.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            Some(Ok(text)) => Ok(f(text)),
            Some(Err(why)) => Err(Error::data(why.clone())),
            None => Err(Error::data(format!("schema {id} is not among the known schemas"))),
        }
    }

    /// Notes what is known of a schema.
    pub fn insert(&self, id: SchemaId, known: Known) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(id, known);
    }

    /// The schemas that `payloads` name and of which nothing is known yet.
    pub fn unknown<'a>(&self, framing: Framing, payloads: impl Iterator<Item = &'a [u8]>) -> BTreeSet<SchemaId> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        payloads.filter_map(|p| framing.id(p)).filter(|id| !known.contains_key(id)).collect()
    }
}
