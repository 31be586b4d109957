//! Tiles as values: slice events, merge, evaluate at T.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{filter_record_batch, is_not_null};

use super::Program;
use super::exec::Evaluation;
use super::read::{finish, tiles_of, wanted};
use crate::definition::{FeatureView, Micros};
use crate::online::{Position, Tile, TileKey, TileRange};
use crate::{Error, Result};

/// The tiles of some events of a view, in memory.
///
/// ```text
///  events ──slice──▶ Tiles ─┐
///  events ──slice──▶ Tiles ─┴─merge──▶ Tiles ──evaluate(keys, T)──▶ features
/// ```
/// A commutative monoid: `slice` of no events is its identity, and `slice(a ∪ b)` is `slice(a)` merged with `slice(b)`,
/// in any order and grouping, for values that do not depend on it (floats: to 1e-9 relative).
#[derive(Debug, Clone)]
pub struct Tiles {
    view: Arc<FeatureView>,
    tiles: BTreeMap<TileKey, Tile>,
}

impl Tiles {
    /// The tiles of `events`, which has the columns of [`FeatureView::events`] in any order of rows. Rows without a key
    /// or a time are in none.
    ///
    /// Errors: those of the view's aggregations, such as [`Data`](crate::ErrorKind::Data).
    pub fn slice(view: &Arc<FeatureView>, events: RecordBatch) -> Result<Self> {
        let mut tiles = BTreeMap::new();
        let timed = is_not_null(events.column(view.time_column()))?;
        let events = filter_record_batch(&events, &timed)?;
        for batch in Evaluation::new(Arc::clone(view), vec![vec![events]], usize::MAX)? {
            tiles.extend(tiles_of(view, &[], &batch?)?.into_iter().map(|t| (t.key.clone(), t)));
        }
        Ok(Self { view: Arc::clone(view), tiles })
    }

    /// How many tiles there are, over all keys and lengths.
    pub fn len(&self) -> usize {
        self.tiles.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tiles.is_empty()
    }

    /// Adds other events' tiles. The events of both must be disjoint, or they count twice.
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid) for tiles of another view.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.view.sql != other.view.sql {
            let names = (&self.view.name, &other.view.name);
            return Err(Error::invalid(format!("tiles of `{}` can't be merged with those of `{}`", names.0, names.1)));
        }
        let program = Program::new(&self.view);
        for (key, tile) in &other.tiles {
            match self.tiles.get_mut(key) {
                Some(known) => *known = merged(&program, known, tile)?,
                None => drop(self.tiles.insert(key.clone(), tile.clone())),
            }
        }
        Ok(())
    }

    /// The features of each key at its instant (exclusive, microseconds UTC; NULL: nothing is known), one array a
    /// feature.
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid) for an instant before an event of a tile that it needs, since a
    /// tile can't be cut.
    pub fn evaluate(&self, keys: &[ArrayRef], at: &[Option<Micros>]) -> Result<Vec<ArrayRef>> {
        let wanted = wanted(&self.view, &[], None, keys, at)?;
        let found = wanted.iter().map(|w| self.range(&w.range)).collect();
        finish(&self.view, at, &wanted, found)
    }

    fn range(&self, range: &TileRange) -> Vec<Tile> {
        let key =
            |start| TileKey { partition: range.partition.clone(), length: range.length, start, writer: String::new() };
        self.tiles.range(key(range.start)..key(range.end)).map(|(_, tile)| tile.clone()).collect()
    }
}

fn merged(program: &Program, one: &Tile, other: &Tile) -> Result<Tile> {
    let level = program.levels.iter().find(|l| l.length == one.key.length);
    let level = level.ok_or_else(|| Error::internal("a tile of no level"))?;
    let parts = (program.partials(level, &one.partial)?, program.partials(level, &other.partial)?);
    let merge = |(aggregate, (a, b)): (&usize, (&[u8], &[u8]))| program.aggregates[*aggregate].function.merge(&[a, b]);
    let partials = level.aggregates.iter().zip(parts.0.into_iter().zip(parts.1)).map(merge);
    Ok(Tile {
        key: one.key.clone(),
        position: Position::from(one.position.low() + other.position.low()),
        last_event: one.last_event.max(other.last_event),
        expires_at: one.expires_at.max(other.expires_at),
        partial: super::encode(partials.collect::<Result<Vec<_>>>()?.iter().map(Vec::as_slice)),
    })
}
