//! Tiles: partial aggregates over fixed stretches of time, from which any window at any instant can be merged.
//!
//! ```text
//!  window of 7 days at T, hop 1 h        [floor(T − 7 d, 1 h), T)
//!      ├──┬──┬──┬──┬ … ┬──┬──┬─┤T         tiles of 1 h; the newest one ends with the last event before T
//!  view ──▶ levels: one a hop, each with the aggregates that have a window of that hop; lifetime windows have one
//!           tile without a start
//! ```
//! A latest-row view is the same with one lifetime tile and one aggregate: the latest row.

mod algebra;
mod exec;
mod latest;
mod read;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};

use crate::aggregate::{Binding, aggregator};
use crate::asof::{micros, tile_ranges};
use crate::definition::{AggregateCall, Feature, FeatureSource, FeatureView, Micros, Window};
use crate::{Error, Result};

pub use algebra::Tiles;
pub(crate) use exec::TileExec;
pub use exec::{TileNode, TilePlanner};
pub use read::{WRITER_COLUMN, Wanted, finish, tiles_of, wanted};

/// The first byte of every encoded tile.
const FORMAT: u8 = 1;

/// All tiles of one length of a view.
#[derive(Debug, Clone)]
pub struct Level {
    /// Length of a tile in microseconds; [`Micros::MAX`] for lifetime.
    pub length: Micros,
    /// Indices into [`Program::aggregates`]: what a tile of this level holds, in order.
    pub aggregates: Vec<usize>,
}

/// A view as its tiles see it.
#[derive(Debug, Clone)]
pub struct Program {
    /// What is aggregated; for a latest-row view the latest row alone.
    pub aggregates: Vec<AggregateCall>,
    /// The levels, by length.
    pub levels: Vec<Level>,
}

impl Program {
    /// The tiles that serve `view`.
    pub fn new(view: &FeatureView) -> Self {
        let aggregates = if view.is_latest() { vec![latest_row(view)] } else { view.aggregates.clone() };
        let mut levels: Vec<Level> = Vec::new();
        for feature in &view.features {
            let (length, aggregate) = match feature.source {
                FeatureSource::Window { aggregate, window } => (level_of(window), aggregate),
                FeatureSource::Latest { .. } => (Micros::MAX, 0),
            };
            match levels.iter_mut().find(|l| l.length == length) {
                Some(level) if level.aggregates.contains(&aggregate) => {}
                Some(level) => level.aggregates.push(aggregate),
                None => levels.push(Level { length, aggregates: vec![aggregate] }),
            }
        }
        levels.sort_by_key(|l| l.length);
        Self { aggregates, levels }
    }

    /// The encoded tiles of events, as rows of [`tile_schema`]. `groups` are the rows of each entity, by time.
    fn build(
        &self,
        view: &FeatureView,
        events: &[ArrayRef],
        times: &[Micros],
        groups: &[Range<usize>],
    ) -> Result<Vec<RecordBatch>> {
        let one = |level: &Level| {
            let tiles_of = |g: &Range<usize>| tile_ranges(&times[g.clone()], level.length, g.start);
            let tiles: Vec<_> = groups.iter().flat_map(tiles_of).collect();
            let ranges: Vec<_> = tiles.iter().map(|(_, r)| r.clone()).collect();
            let mut partials = vec![vec![FORMAT]; tiles.len()];
            for call in level.aggregates.iter().map(|a| &self.aggregates[*a]) {
                let folded = call.over(view, events, times, None, |input| call.function.fold(input, &ranges))?;
                partials.iter_mut().zip(folded).for_each(|(tile, partial)| append(tile, &partial));
            }
            let first = Int64Array::from_iter_values(tiles.iter().map(|(_, r)| r.start as i64));
            let mut columns: Vec<ArrayRef> = Vec::with_capacity(view.entity.len() + 5);
            for key in &events[..view.entity.len()] {
                columns.push(arrow::compute::take(key, &first, None)?);
            }
            let lifetime = level.length == Micros::MAX;
            columns.push(Arc::new(Int64Array::from(vec![level.length; tiles.len()])));
            columns.push(micros(tiles.iter().map(|(start, _)| (!lifetime).then_some(*start))));
            columns.push(micros(tiles.iter().map(|(_, r)| Some(times[r.end - 1]))));
            columns.push(Arc::new(Int64Array::from_iter_values(tiles.iter().map(|(_, r)| r.len() as i64))));
            columns.push(Arc::new(BinaryArray::from_iter_values(partials)));
            Ok(RecordBatch::try_new(tile_schema(view), columns)?)
        };
        self.levels.iter().map(one).collect()
    }

    /// The partial of each aggregate of `level` in an encoded tile.
    ///
    /// Errors: [`Data`](crate::ErrorKind::Data) if the bytes are not such a tile.
    pub fn partials<'a>(&self, level: &Level, tile: &'a [u8]) -> Result<Vec<&'a [u8]>> {
        parts(tile, level.aggregates.len())
    }
}

/// The `count` partials of an encoded tile.
fn parts(mut tile: &[u8], count: usize) -> Result<Vec<&[u8]>> {
    let damaged = || Error::data("a stored tile is damaged or of another version: run MATERIALIZE FEATURE VIEW again");
    let mut take = |n: usize| {
        let (head, tail) = tile.split_at_checked(n).ok_or_else(damaged)?;
        tile = tail;
        Ok::<_, Error>(head)
    };
    if take(1)? != [FORMAT] {
        return Err(damaged());
    }
    let part = |_| {
        let len = take(4)?.try_into().map_err(|_| damaged())?;
        take(u32::from_le_bytes(len) as usize)
    };
    (0..count).map(part).collect()
}

/// Partials as the bytes of one tile: the format, then of each its length (4 bytes) and its bytes.
fn encode<'a>(partials: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut tile = vec![FORMAT];
    partials.for_each(|partial| append(&mut tile, partial));
    tile
}

fn append(tile: &mut Vec<u8>, partial: &[u8]) {
    tile.extend((partial.len() as u32).to_le_bytes());
    tile.extend(partial);
}

/// The level that serves a window.
pub fn level_of(window: Window) -> Micros {
    match window.length {
        Some(_) => window.hop.unwrap_or(1),
        None => Micros::MAX,
    }
}

/// The window of a feature, and which aggregate of the [`Program`] gives its value.
pub fn feature_window(view: &FeatureView, feature: &Feature) -> (Window, usize) {
    match feature.source {
        FeatureSource::Window { aggregate, window } => (window, aggregate),
        FeatureSource::Latest { .. } => (Window::LIFETIME, view.aggregates.len()),
    }
}

/// Columns of a view's tiles: entity, `tile_us` (length, microseconds), `tile_start` (NULL for lifetime),
/// `last_event`, `events` (rows folded in) and `partial`.
pub fn tile_schema(view: &FeatureView) -> SchemaRef {
    let time = || DataType::Timestamp(TimeUnit::Microsecond, None);
    let own = [
        Field::new("tile_us", DataType::Int64, false),
        Field::new("tile_start", time(), true),
        Field::new("last_event", time(), false),
        Field::new("events", DataType::Int64, false),
        Field::new("partial", DataType::Binary, false),
    ];
    let fields: Vec<FieldRef> = view.entity.iter().cloned().chain(own.map(Arc::new)).collect();
    Arc::new(Schema::new(fields))
}

fn latest_row(view: &FeatureView) -> AggregateCall {
    let args: Vec<usize> = (view.first_input()..view.events.schema().fields().len()).collect();
    let sql = "the latest row".to_string();
    let binding = Binding { name: sql.clone(), args: vec![], retractable: false };
    AggregateCall { function: aggregator(latest::LatestRow::of(view)), binding, args, filter: None, sql }
}
