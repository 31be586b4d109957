//! The right to write to a store in a bucket: an object that its holder renews.
//!
//! ```text
//!  take: put if there is none ─┬─▶ held ──every 3 s: put if it is still ours──▶ … ──▶ removed at the end
//!                              └─▶ somebody's: does it change within 15 s? ─┬ yes ▶ Conflict
//!                                                                           └ no ─▶ its holder was killed: take it over
//! ```
//! No clock of another machine is trusted: who waits only sees whether the object changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use datafusion::object_store::path::Path as Key;
use datafusion::object_store::{self, ObjectStore, ObjectStoreExt, UpdateVersion};
use featurectl_core::{Error, Result};
use tokio::task::JoinHandle;

use crate::folder::Prefix;

/// How often the object is renewed.
const BEAT: Duration = Duration::from_secs(3);
/// Without a change for so long, its holder is gone.
const SILENCE: Duration = Duration::from_secs(15);

/// The right to write, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    prefix: Prefix,
    lost: Arc<AtomicBool>,
    renewing: JoinHandle<()>,
}

const NAME: &str = "lock";

impl Lease {
    /// Takes the right to write below `prefix`.
    ///
    /// Errors: [`Conflict`](featurectl_core::ErrorKind::Conflict) if somebody has it; those of the bucket.
    pub(crate) fn take(prefix: &Prefix) -> Result<Self> {
        let holder = holder();
        let text = holder.clone();
        let taken = prefix.wait(NAME, move |store, key| async move { take(store.as_ref(), &key, &text).await })?;
        let known = taken.map_err(|other| {
            let folder = prefix.url().as_str().trim_end_matches('/').trim_end_matches("/registry");
            Error::conflict(format!("another featurectl ({other}) is writing to {folder}: wait for it to end"))
        })?;
        let lost = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&lost);
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        prefix.wait(NAME, move |store, key| async move {
            let renewing = tokio::spawn(async move { renew(store.as_ref(), &key, &holder, known, &flag).await });
            send.send(renewing).ok();
            Ok(())
        })?;
        let renewing = receive.recv().map_err(|_| Error::internal("the lock is not renewed"))?;
        Ok(Self { prefix: prefix.clone(), lost, renewing })
    }

    /// Errors: [`Conflict`](featurectl_core::ErrorKind::Conflict) if the right to write went to somebody else.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.lost.load(Ordering::Acquire) {
            return Ok(());
        }
        let text = "the right to write to the store was lost, since it could not be renewed for 15 s: run it again";
        Err(Error::conflict(text))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
        if !self.lost.load(Ordering::Acquire) {
            // Who comes next waits for it, if it can't be removed.
            let _ = self.prefix.wait(NAME, |store, key| async move { store.delete(&key).await });
        }
    }
}

/// This process, and a number that no other holder has.
fn holder() -> String {
    use std::hash::{BuildHasher, RandomState};
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let (host, id) = (host.trim(), std::process::id());
    format!(
        "process {id} on {} #{:08x}",
        if host.is_empty() { "a machine" } else { host },
        RandomState::new().hash_one(id) >> 32
    )
}

/// What the object is known by, or who holds it.
async fn take(
    store: &dyn ObjectStore,
    key: &Key,
    holder: &str,
) -> object_store::Result<std::result::Result<UpdateVersion, String>> {
    let mut seen: Option<(Option<String>, Instant)> = None;
    loop {
        match Prefix::put_if(store, key, holder.into(), None).await {
            Ok(known) => return Ok(Ok(known)),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
            Err(e) => return Err(e),
        }
        let (tag, other) = match store.get(key).await {
            Ok(found) => (found.meta.e_tag.clone(), String::from_utf8_lossy(&found.bytes().await?).into_owned()),
            // It was given back just now.
            Err(object_store::Error::NotFound { .. }) => continue,
            Err(e) => return Err(e),
        };
        // An answer was lost, and the call made again.
        if other == holder {
            return Ok(Ok(UpdateVersion { e_tag: tag, version: None }));
        }
        let who = other.split(" #").next().unwrap_or_default().to_string();
        match &seen {
            Some((before, _)) if *before != tag => return Ok(Err(who)),
            Some((_, since)) if since.elapsed() > SILENCE => {
                let known = UpdateVersion { e_tag: tag, version: None };
                return match Prefix::put_if(store, key, holder.into(), Some(known)).await {
                    Ok(known) => Ok(Ok(known)),
                    Err(object_store::Error::Precondition { .. }) => Ok(Err(who)),
                    Err(e) => Err(e),
                };
            }
            Some(_) => {}
            None => seen = Some((tag, Instant::now())),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Renews the object until it is somebody else's, or could not be for too long.
async fn renew(store: &dyn ObjectStore, key: &Key, holder: &str, mut known: UpdateVersion, lost: &AtomicBool) {
    let (mut beat, mut last) = (0_u64, Instant::now());
    loop {
        tokio::time::sleep(BEAT).await;
        beat += 1;
        match Prefix::put_if(store, key, format!("{holder} {beat}").into(), Some(known.clone())).await {
            Ok(now) => (known, last) = (now, Instant::now()),
            // It is somebody else's, or an answer was lost.
            Err(object_store::Error::Precondition { .. }) => match own(store, key, holder).await {
                Ok(Some(version)) => known = version,
                Ok(None) => break,
                Err(_) => {}
            },
            Err(object_store::Error::NotFound { .. }) => break,
            Err(_) if last.elapsed() > SILENCE => break,
            Err(_) => {}
        }
    }
    lost.store(true, Ordering::Release);
}

/// What the object is known by, if it is this holder's.
async fn own(store: &dyn ObjectStore, key: &Key, holder: &str) -> object_store::Result<Option<UpdateVersion>> {
    let found = store.get(key).await?;
    let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: None };
    Ok(found.bytes().await?.starts_with(holder.as_bytes()).then_some(version))
}
