//! Which right rows belong to a left row: pure functions over sorted columns.
//!
//! Both sides are sorted by (key, time), NULLs first. All results index rows of the right side, and their starts and
//! ends never decrease from one left row to the next.

use std::ops::Range;

use arrow::array::{Array, Int64Array};
use arrow::row::Rows;

use super::node::MatchOp;
use crate::definition::{Micros, Window};

/// For each left row, the right rows of the same key whose time is not NULL.
#[derive(Debug)]
pub struct Groups(Vec<Range<usize>>);

impl Groups {
    /// Merges the keys of both sides. A left row without a key (`keyless(row)`) or without a partner gets an empty
    /// range; `timeless(row)` says which right rows have no time.
    pub fn new(left: &Rows, right: &Rows, keyless: impl Fn(usize) -> bool, timeless: impl Fn(usize) -> bool) -> Self {
        let mut groups: Vec<Range<usize>> = Vec::with_capacity(left.num_rows());
        let mut end = 0;
        for row in 0..left.num_rows() {
            if row > 0 && left.row(row) == left.row(row - 1) {
                groups.push(groups[row - 1].clone());
                continue;
            }
            let mut start = end;
            if !keyless(row) {
                while start < right.num_rows() && right.row(start) < left.row(row) {
                    start += 1;
                }
                end = start;
                while end < right.num_rows() && right.row(end) == left.row(row) {
                    end += 1;
                }
            }
            let timed = start + (start..end).take_while(|r| timeless(*r)).count();
            groups.push(timed..end);
        }
        Self(groups)
    }

    /// The right rows inside `window` of each left row: `[start, at)`, or with `inclusive` `(start, at]`, which over
    /// whole microseconds is the same as `[start, at)` one microsecond later. A left row without a time sees nothing.
    pub fn windows(&self, at: &Int64Array, times: &[Micros], window: Window, inclusive: bool) -> Vec<Range<usize>> {
        let mut out: Vec<Range<usize>> = Vec::with_capacity(self.0.len());
        let (mut low, mut high) = (0, 0);
        for (row, group) in self.0.iter().enumerate() {
            (low, high) = (low.max(group.start), high.max(group.start));
            if at.is_valid(row) {
                let near = at.value(row).saturating_add(Micros::from(inclusive));
                let far = window.start(near);
                while high < group.end && times[high] < near {
                    high += 1;
                }
                while low < high && times[low] < far {
                    low += 1;
                }
            }
            out.push(low.min(high)..high);
        }
        out
    }

    /// The matching right row of each left row, if any: the last one that `op` admits for `>` and `>=`, the first one
    /// for `<` and `<=`. `left` and `right` are comparable encodings of the times.
    pub fn matches(&self, left: &Rows, right: &Rows, timed: impl Fn(usize) -> bool, op: MatchOp) -> Vec<Option<usize>> {
        let one = |(row, group): (usize, &Range<usize>)| {
            if !timed(row) || group.is_empty() {
                return None;
            }
            let at = left.row(row);
            let before = |strictly: bool| {
                let (mut low, mut high) = (group.start, group.end);
                while low < high {
                    let middle = low + (high - low) / 2;
                    let is_before = if strictly { right.row(middle) < at } else { right.row(middle) <= at };
                    if is_before { low = middle + 1 } else { high = middle }
                }
                low
            };
            match op {
                MatchOp::Gt => before(true).checked_sub(1).filter(|r| *r >= group.start),
                MatchOp::GtEq => before(false).checked_sub(1).filter(|r| *r >= group.start),
                MatchOp::Lt => Some(before(false)).filter(|r| *r < group.end),
                MatchOp::LtEq => Some(before(true)).filter(|r| *r < group.end),
            }
        };
        self.0.iter().enumerate().map(one).collect()
    }
}

/// Cuts sorted rows into tiles of `length`: a new range starts with each new key (`new_key(row)`) and each new tile.
/// Returns the start of each tile and its rows. A lifetime tile (`length` = [`Micros::MAX`]) starts at
/// [`Micros::MIN`].
pub fn tile_ranges(times: &[Micros], new_key: impl Fn(usize) -> bool, length: Micros) -> Vec<(Micros, Range<usize>)> {
    let start_of = |t: Micros| if length == Micros::MAX { Micros::MIN } else { t - t.rem_euclid(length) };
    let mut tiles: Vec<(Micros, Range<usize>)> = Vec::new();
    for (row, time) in times.iter().enumerate() {
        let start = start_of(*time);
        match tiles.last_mut() {
            Some((last, rows)) if *last == start && !new_key(row) => rows.end = row + 1,
            _ => tiles.push((start, row..row + 1)),
        }
    }
    tiles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_end_at_keys_and_at_multiples_of_the_length() {
        let tiles = tile_ranges(&[-1, 0, 9, 10, 10, 25], |row| row == 4, 10);
        assert_eq!(tiles, [(-10, 0..1), (0, 1..3), (10, 3..4), (10, 4..5), (20, 5..6)]);
        assert_eq!(tile_ranges(&[1, 2], |_| false, Micros::MAX), [(Micros::MIN, 0..2)]);
    }
}
