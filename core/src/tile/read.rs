//! From tiles back to features: which tiles an instant needs, and what is made of them. Stores do the reading between.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};

use super::latest::LatestRow;
use super::{Program, feature_window, level_of, parts};
use crate::asof::to_micros;
use crate::definition::{Feature, FeatureSource, FeatureView, Micros, Window};
use crate::online::{Position, Tile, TileKey, TileRange};
use crate::{Error, Result, ordered};

/// The column of offline tiles that says who made them, if there are several writers.
pub const WRITER_COLUMN: &str = "_unit";

/// Rows of [`tile_schema`](super::tile_schema), in any column order, as tiles whose partition begins with `prefix`. Rows
/// without a key are left out.
///
/// Errors: [`Data`](crate::ErrorKind::Data) if a column is missing.
pub fn tiles_of(view: &FeatureView, prefix: &[u8], batch: &RecordBatch) -> Result<Vec<Tile>> {
    let column = |name: &str| {
        batch.column_by_name(name).ok_or_else(|| Error::data(format!("the tiles of `{}` have no `{name}`", view.name)))
    };
    let keys = view.entity.iter().map(|f| column(f.name()).cloned()).collect::<Result<Vec<_>>>()?;
    let partitions = partitions(prefix, &keys, batch.num_rows())?;
    let lengths = column("tile_us")?.as_primitive::<Int64Type>();
    let starts = column("tile_start")?.as_primitive::<TimestampMicrosecondType>();
    let last = to_micros(column("last_event")?)?;
    let events = column("events")?.as_primitive::<Int64Type>();
    let writers = batch.column_by_name(WRITER_COLUMN).map(|w| cast(w, &DataType::Utf8)).transpose()?;
    let partial = cast(column("partial")?, &DataType::Binary)?;
    let partial = partial.as_binary::<i32>();
    let mut tiles = Vec::with_capacity(batch.num_rows());
    for (row, partition) in partitions.into_iter().enumerate() {
        let Some(partition) = partition else { continue };
        let length = lengths.value(row);
        let start = if starts.is_null(row) { Micros::MIN } else { starts.value(row) };
        tiles.push(Tile {
            key: TileKey {
                partition,
                length,
                start,
                writer: writers.as_ref().map_or(String::new(), |w| w.as_string::<i32>().value(row).into()),
            },
            position: Position::from(events.value(row) as u64),
            last_event: last.value(row),
            expires_at: expiry(view, start, length, last.value(row)),
            partial: partial.value(row).to_vec(),
        });
    }
    Ok(tiles)
}

/// A tile is forgotten `ttl` after its end, a latest row `ttl` after its time. A lifetime window never forgets, so
/// neither does its tile.
fn expiry(view: &FeatureView, start: Micros, length: Micros, last: Micros) -> Option<Micros> {
    let end = match (length, view.is_latest()) {
        (Micros::MAX, true) => last,
        (Micros::MAX, false) => return None,
        _ => start.saturating_add(length),
    };
    view.ttl.map(|ttl| end.saturating_add(ttl).saturating_add(1))
}

/// `prefix` and key as bytes, for each row; `None` where a key is NULL.
fn partitions(prefix: &[u8], keys: &[ArrayRef], rows: usize) -> Result<Vec<Option<Vec<u8>>>> {
    let encoded = keys.iter().map(ordered::encode).collect::<Result<Vec<_>>>()?;
    let one = |row: usize| {
        let mut partition = prefix.to_vec();
        for column in &encoded {
            let value = column[row].as_deref()?;
            partition.extend((value.len() as u32).to_be_bytes());
            partition.extend(value);
        }
        Some(partition)
    };
    Ok((0..rows).map(one).collect())
}

/// Tiles that a row needs.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The row of the request.
    pub row: usize,
    /// Index into [`Program::levels`].
    pub level: usize,
    /// Where they are.
    pub range: TileRange,
}

/// The tiles that rows with these keys need at their instants (exclusive, microseconds UTC); of one writer, if it is the
/// only one.
///
/// Errors: [`Invalid`](crate::ErrorKind::Invalid) for keys of a type that is none.
pub fn wanted(
    view: &FeatureView,
    prefix: &[u8],
    writer: Option<&str>,
    keys: &[ArrayRef],
    at: &[Option<Micros>],
) -> Result<Vec<Wanted>> {
    let (reach, mut wanted) = (reach(view), Vec::new());
    for (row, (partition, at)) in partitions(prefix, keys, at.len())?.into_iter().zip(at).enumerate() {
        let (Some(partition), Some(at)) = (partition, at) else { continue };
        wanted.extend(reach.iter().enumerate().map(|(level, (length, longest))| {
            let (partition, start, writer) = (partition.clone(), longest.start(*at), writer.map(String::from));
            Wanted { row, level, range: TileRange { partition, length: *length, start, end: *at, writer } }
        }));
    }
    Ok(wanted)
}

/// For each level of the view its longest window.
fn reach(view: &FeatureView) -> Vec<(Micros, Window)> {
    let mut reach: Vec<(Micros, Window)> = Vec::new();
    for feature in &view.features {
        let (window, _) = feature_window(view, feature);
        let length = level_of(window);
        match reach.iter_mut().find(|(l, _)| *l == length) {
            Some((_, longest)) if longest.length < window.length => *longest = window,
            Some(_) => {}
            None => reach.push((length, window)),
        }
    }
    reach.sort_unstable_by_key(|(length, _)| *length);
    reach
}

fn too_early(view: &FeatureView, at: Micros, last: Micros) -> Error {
    let show = |t: Micros| chrono::DateTime::from_timestamp_micros(t).map_or(t.to_string(), |t| t.to_rfc3339());
    Error::invalid(format!(
        "the tiles of this key of `{}` reach up to {}, and can't look back to {}: ask for a later time, or join the view in SQL",
        view.name,
        show(last),
        show(at)
    ))
}

/// The features of each row at its instant (exclusive, microseconds UTC; NULL: nothing is known), from what was found
/// of what was [`wanted`].
///
/// Errors: [`Invalid`](crate::ErrorKind::Invalid) for an instant before the newest event of a tile that it needs, since
/// a tile can't be cut; [`Data`](crate::ErrorKind::Data) for a damaged tile.
pub fn finish(
    view: &FeatureView,
    at: &[Option<Micros>],
    wanted: &[Wanted],
    found: Vec<Vec<Tile>>,
) -> Result<Vec<ArrayRef>> {
    for (wanted, found) in wanted.iter().zip(&found) {
        if let (Some(at), Some(late)) = (at[wanted.row], found.iter().find(|t| Some(t.last_event) >= at[wanted.row])) {
            return Err(too_early(view, at, late.last_event));
        }
    }
    if view.is_latest() {
        return finish_latest(view, at, wanted, &found);
    }
    let program = &Program::new(view);
    let mut tiles: Vec<Vec<Vec<Tile>>> = vec![vec![vec![]; program.levels.len()]; at.len()];
    for (wanted, found) in wanted.iter().zip(found) {
        tiles[wanted.row][wanted.level] = found;
    }
    let tiles = &tiles;
    let instants: Vec<_> = at.iter().map(|t| t.unwrap_or_default()).collect();
    let feature = |feature| {
        let (window, aggregate) = feature_window(view, feature);
        let groups = groups(program, tiles, at, window, aggregate)?;
        program.aggregates[aggregate].function.merge_finish(&groups, &instants)
    };
    view.features.iter().map(feature).collect()
}

/// The encoded partials of one aggregate inside one window, for each row.
fn groups<'a>(
    program: &Program,
    tiles: &'a [Vec<Vec<Tile>>],
    at: &[Option<Micros>],
    window: Window,
    aggregate: usize,
) -> Result<Vec<Vec<&'a [u8]>>> {
    let wanted = level_of(window);
    let found = program.levels.iter().enumerate().find(|(_, l)| l.length == wanted);
    let Some((index, level)) = found else { return Err(Error::internal("a window without a level")) };
    let Some(part) = level.aggregates.iter().position(|a| *a == aggregate) else {
        return Err(Error::internal("an aggregate without a place in its level"));
    };
    let mut groups = Vec::with_capacity(tiles.len());
    for (row, at) in tiles.iter().zip(at) {
        let (start, end) = at.map_or((0, 0), |at| (window.start(at), window.end(at)));
        let inside = row[index].iter().filter(|t| t.key.start >= start && t.key.start < end);
        groups.push(inside.map(|t| Ok(program.partials(level, &t.partial)?[part])).collect::<Result<_>>()?);
    }
    Ok(groups)
}

/// A latest row is all that a tile has.
fn finish_latest(
    view: &FeatureView,
    at: &[Option<Micros>],
    wanted: &[Wanted],
    found: &[Vec<Tile>],
) -> Result<Vec<ArrayRef>> {
    let mut groups = vec![vec![]; at.len()];
    for (wanted, tiles) in wanted.iter().zip(found) {
        let newest = tiles.iter().map(|t| t.last_event).max();
        let is_expired = match (view.ttl, newest, at[wanted.row]) {
            (Some(ttl), Some(newest), Some(at)) => newest < at.saturating_sub(ttl),
            _ => false,
        };
        if !is_expired {
            let rows = tiles.iter().map(|tile| parts(&tile.partial, 1));
            groups[wanted.row] = rows.collect::<Result<Vec<_>>>()?.concat();
        }
    }
    let columns = LatestRow::of(view).columns(&groups)?;
    let first = view.first_input();
    let column = |f: &Feature| match f.source {
        FeatureSource::Latest { column } => Ok(Arc::clone(&columns[column - first])),
        FeatureSource::Window { .. } => Err(Error::internal("a latest-row view with a window")),
    };
    view.features.iter().map(column).collect()
}
