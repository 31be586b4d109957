//! All buckets, each made when it is first asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_config::SdkConfig;
use datafusion::error::Result;
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use object_store::{ObjectStore, RetryConfig};
use url::Url;

use crate::access::Access;
use crate::bucket::{Bucket, Chain};

/// The object stores of a session: files of this machine, and any bucket as `s3://bucket/…`, without a statement for
/// it. Nothing is asked of AWS, not even for credentials, before a bucket is used.
///
/// A store that is registered for a bucket takes its place.
#[derive(Debug)]
pub struct Buckets {
    chain: Arc<Chain>,
    known: Mutex<HashMap<String, Arc<Bucket>>>,
    registered: DefaultObjectStoreRegistry,
}

impl Buckets {
    /// Buckets that are reached by `access`.
    pub fn new(access: Access) -> Self {
        Self::over(Chain::new(access))
    }

    /// Buckets that are reached as `config` says, with this patience for failed requests.
    pub fn of(config: &SdkConfig, retries: RetryConfig) -> Self {
        Self::over(Chain::of(config, retries))
    }

    fn over(chain: Chain) -> Self {
        let (known, registered) = (Mutex::default(), DefaultObjectStoreRegistry::new());
        Self { chain: Arc::new(chain), known, registered }
    }

    fn bucket(&self, name: &str) -> Arc<Bucket> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(name.into()).or_insert_with(|| Arc::new(Bucket::new(name, Arc::clone(&self.chain)))))
    }
}

impl ObjectStoreRegistry for Buckets {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.registered.register_store(url, store)
    }

    fn deregister_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        self.registered.deregister_store(url)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        match (self.registered.get_store(url), url.scheme(), url.host_str()) {
            (Err(_), "s3" | "s3a", Some(name)) => Ok(self.bucket(name)),
            (found, ..) => found,
        }
    }
}
