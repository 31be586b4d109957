//! Which generation of a view is served: one small tile for each view, its pointer.
//!
//! ```text
//!  pointer ─▶ generation ‖ version ‖ writer  00 table  00 retired  00 retired …
//!
//!  serve    new generation filled ──▶ pointer moves; the old one is written down in it as retired
//!  clear    readers are given time ──▶ what is retired is removed ──▶ pointer without it
//! ```
//! A read of tiles and pointer is not one instant in every store. Whoever saw the old pointer may look for its tiles
//! after the pointer has moved: they stay for [`GRACE`], and a read that lasts longer than [`PATIENCE`] looks at the
//! pointer once more. Both are times of one machine each, so no clocks are compared.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use featurectl_core::{Error, Micros, OnlineStore, Position, Result, Tile, TileKey, TileRange};

/// Version of a view's tiles in the online store; the first bytes of every partition.
pub type Generation = [u8; 8];

/// How long a read may last whose pointer is not looked at again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// How long tiles stay that a pointer no longer names.
const GRACE: Duration = Duration::from_secs(2);
/// Who writes the pointer.
const WRITER: &str = "batch";
/// The one tile that says which generation of a view is served.
const POINTER: &[u8] = b"pointer\0";
/// The version of a pointer that serves nothing.
const NOTHING: i64 = i64::MIN;

/// An online store beside which there can be tables that hold one generation each.
#[async_trait]
pub trait Tables: OnlineStore {
    /// The store in another table, of which nothing is asked yet.
    ///
    /// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) if this kind of store has none.
    fn table(&self, name: &str) -> Result<Arc<dyn OnlineStore>>;

    /// Deletes another table; false if it is protected from that. One that is gone counts as deleted.
    async fn delete_table(&self, name: &str) -> Result<bool>;

    /// Whether a read gives all its ranges as they were at one instant.
    fn reads_one_instant(&self) -> bool;
}

/// What is served of a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Whose tiles are read.
    pub generation: Generation,
    /// The version of the offline table that is in the store whole; later ones may be there in part.
    pub version: i64,
    /// The only writer of its tiles, if there is only one.
    pub writer: Option<String>,
    /// The table that its tiles lie in, if it is not that of the pointer.
    pub table: Option<String>,
}

/// What was served and may still be there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Retired {
    generation: Generation,
    table: Option<String>,
}

/// All that a pointer says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Pointer {
    served: Option<Served>,
    retired: Vec<Retired>,
    position: Position,
}

/// What is served of `view`.
pub async fn served(store: &dyn OnlineStore, view: &str) -> Result<Option<Served>> {
    Ok(pointer(store, view).await?.and_then(|p| p.served))
}

/// Serves `next` of `view` from now on. The generation before is retired: [`clear`] removes it.
pub async fn serve(store: &dyn OnlineStore, view: &str, next: Served) -> Result<()> {
    let before = pointer(store, view).await?.unwrap_or_default();
    if before.served.as_ref() == Some(&next) {
        return Ok(());
    }
    replace(store, view, before, Some(next)).await.map(|_| ())
}

/// Removes what was served of `view` and no longer is, once nobody can be reading it. Returns the tables that nothing
/// reads any more, and that are protected from deletion.
pub async fn clear(store: &dyn Tables, view: &str) -> Result<Vec<String>> {
    match pointer(store, view).await? {
        Some(pointer) => clear_retired(store, view, pointer).await,
        None => Ok(vec![]),
    }
}

/// Takes a view out of the online store, but for a pointer that says so: to find it, a store may have to read all it has.
/// Returns as [`clear`] does.
pub async fn forget(store: &dyn Tables, view: &str) -> Result<Vec<String>> {
    let Some(before) = pointer(store, view).await? else { return Ok(vec![]) };
    let pointer = replace(store, view, before, None).await?;
    clear_retired(store, view, pointer).await
}

/// Moves the pointer; what it said before is retired.
async fn replace(store: &dyn OnlineStore, view: &str, before: Pointer, served: Option<Served>) -> Result<Pointer> {
    let is_read = |r: &Retired| served.as_ref().is_some_and(|s| s.generation == r.generation && s.table == r.table);
    let old = before.served.map(|s| Retired { generation: s.generation, table: s.table });
    let retired = before.retired.into_iter().chain(old).filter(|r| !is_read(r)).collect();
    let next = Pointer { retired, position: (before.position.low() + 1).into(), served };
    store.put(vec![next.tile(view)]).await?;
    Ok(next)
}

async fn clear_retired(store: &dyn Tables, view: &str, pointer: Pointer) -> Result<Vec<String>> {
    if pointer.retired.is_empty() {
        return Ok(vec![]);
    }
    if !store.reads_one_instant() {
        tokio::time::sleep(GRACE).await;
    }
    let (mut kept, mut names) = (Vec::new(), Vec::new());
    for retired in pointer.retired {
        match &retired.table {
            Some(table) if !store.delete_table(table).await? => {
                names.push(table.clone());
                kept.push(retired);
            }
            Some(_) => {}
            None => drop(store.remove(&retired.generation).await?),
        }
    }
    let next = Pointer { retired: kept, position: (pointer.position.low() + 1).into(), ..pointer };
    store.put(vec![next.tile(view)]).await?;
    Ok(names)
}

async fn pointer(store: &dyn OnlineStore, view: &str) -> Result<Option<Pointer>> {
    let found = store.read(&[pointer_range(view)], Micros::MIN).await?;
    found.into_iter().flatten().next().map(|tile| Pointer::parse(view, &tile)).transpose()
}

fn partition(view: &str) -> Vec<u8> {
    [POINTER, view.as_bytes(), &[0]].concat()
}

/// Where the pointer of a view is.
pub(crate) fn pointer_range(view: &str) -> TileRange {
    TileRange { partition: partition(view), length: 0, start: 0, end: 1, writer: Some(WRITER.into()) }
}

/// What the tile of a pointer serves, and its position: each write of it has another.
pub(crate) fn parse(view: &str, tile: &Tile) -> Result<Option<(Served, Position)>> {
    Pointer::parse(view, tile).map(|p| p.served.map(|served| (served, p.position)))
}

impl Pointer {
    fn parse(view: &str, tile: &Tile) -> Result<Self> {
        let damaged = || Error::data(format!("the online store's pointer of `{view}` is damaged"));
        let (generation, rest) = tile.partial.split_first_chunk().ok_or_else(damaged)?;
        // A pointer of before there were versions has none.
        let (version, text) = match rest {
            [] => (-1, &[][..]),
            _ => rest.split_first_chunk().map(|(v, w)| (i64::from_le_bytes(*v), w)).ok_or_else(damaged)?,
        };
        let mut texts = std::str::from_utf8(text).map_err(|_| damaged())?.split('\0');
        let mut text = || texts.next().filter(|t| !t.is_empty()).map(String::from);
        let (writer, table) = (text(), text());
        let served = (version != NOTHING).then_some(Served { generation: *generation, version, writer, table });
        let retired = texts.map(|t| Retired::parse(t).ok_or_else(damaged)).collect::<Result<_>>()?;
        Ok(Self { served, retired, position: tile.position })
    }

    fn tile(&self, view: &str) -> Tile {
        let key = TileKey { partition: partition(view), length: 0, start: 0, writer: WRITER.into() };
        let served = self.served.as_ref();
        let mut texts = vec![served.and_then(|s| s.writer.clone()).unwrap_or_default()];
        texts.push(served.and_then(|s| s.table.clone()).unwrap_or_default());
        texts.extend(self.retired.iter().map(Retired::text));
        let version = served.map_or(NOTHING, |s| s.version).to_le_bytes();
        let partial = [&served.map_or([0; 8], |s| s.generation)[..], &version, texts.join("\0").as_bytes()].concat();
        Tile { key, position: self.position, last_event: 0, expires_at: None, partial }
    }
}

impl Retired {
    /// `0102030405060708`, and the table behind it.
    fn text(&self) -> String {
        format!("{:016x}{}", u64::from_be_bytes(self.generation), self.table.as_deref().unwrap_or_default())
    }

    fn parse(text: &str) -> Option<Self> {
        let (generation, table) = text.split_at_checked(16)?;
        let generation = u64::from_str_radix(generation, 16).ok()?.to_be_bytes();
        Some(Self { generation, table: Some(table.to_string()).filter(|t| !t.is_empty()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_says_what_was_written_into_it() {
        let served = |writer: Option<&str>, table: Option<&str>| Served {
            generation: *b"\0 gener.",
            version: 7,
            writer: writer.map(String::from),
            table: table.map(String::from),
        };
        let retired = |generation, table: Option<&str>| Retired { generation, table: table.map(String::from) };
        let all = [retired([0; 8], None), retired([0xFF; 8], Some("features.1")), retired(*b"abcdefgh", Some("t"))];
        let cases = [None, Some(served(None, None)), Some(served(Some("w"), None)), Some(served(None, Some("t.1")))];
        for (served, n) in cases.into_iter().flat_map(|s| [(s.clone(), 0), (s, 3)]) {
            let pointer = Pointer { served, retired: all[..n].to_vec(), position: 9.into() };
            assert_eq!(Pointer::parse("v", &pointer.tile("v")).expect("a pointer"), pointer);
        }
        let old = |partial: &[u8]| Tile { partial: partial.to_vec(), ..Pointer::default().tile("v") };
        let parsed = parse("v", &old(b"\0 gener.\x07\0\0\0\0\0\0\0w")).expect("a pointer without a table");
        assert_eq!(parsed.map(|(served, _)| served), Some(served(Some("w"), None)));
        let parsed = parse("v", &old(b"\0 gener.")).expect("a pointer without a version");
        assert_eq!(parsed.map(|(served, _)| served), Some(Served { version: -1, ..served(None, None) }));
        for damaged in [&b"short"[..], b"\0 gener.\x07\0\0", b"\0 gener.\x07\0\0\0\0\0\0\0w\0\0xyz"] {
            assert!(parse("v", &old(damaged)).is_err());
        }
    }
}
