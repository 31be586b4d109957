//! Models in other processes: a plan says where each is, and a process loads it when it is first asked of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use featurectl_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::score::{Fetch, Located, ModelSet};

/// The sets of models that plans have brought, so that tasks of one plan, and plans of one job, share what was loaded.
#[derive(Debug, Default)]
pub(super) struct Models {
    known: Mutex<Known>,
    fetch: Fetch,
}

#[derive(Debug, Default)]
struct Known {
    sets: HashMap<Vec<u8>, Arc<ModelSet>>,
    files: HashMap<Located, Arc<Located>>,
}

/// Sets that are remembered; the next one makes room for itself by forgetting all, which only costs loading again.
const SETS: usize = 64;

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    name: String,
    file: Located,
}

impl Models {
    /// None yet; those at URLs are read by `fetch`.
    pub(super) fn new(fetch: Fetch) -> Self {
        Self { fetch, ..Self::default() }
    }

    /// The models that a call may name, by the paths of their files.
    pub(super) fn encode(models: &ModelSet, buf: &mut Vec<u8>) -> Result<()> {
        let entries: Vec<Entry> = models.located().into_iter().map(|(name, file)| Entry { name, file }).collect();
        serde_json::to_writer(buf, &entries).map_err(|e| Error::internal(format!("models as bytes: {e}")))
    }

    /// The models of [`encode`](Self::encode), none of which is read yet.
    pub(super) fn decode(&self, buf: &[u8]) -> Result<Arc<ModelSet>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = known.sets.get(buf) {
            return Ok(Arc::clone(set));
        }
        let entries: Vec<Entry> =
            serde_json::from_slice(buf).map_err(|e| Error::internal(format!("models of a plan: {e}")))?;
        if known.sets.len() >= SETS {
            *known = Known::default();
        }
        let set = Arc::new(ModelSet::default().with_fetch(self.fetch.clone()));
        for Entry { name, file } in entries {
            let shared = known.files.entry(file.clone()).or_insert_with(|| Arc::new(file));
            set.locate(name, Arc::clone(shared));
        }
        known.sets.insert(buf.to_vec(), Arc::clone(&set));
        Ok(set)
    }
}
