//! Which right rows belong to a left row: pure functions over the ascending times of one group.
//!
//! All results index rows of the right side. They never decrease from one left row to the next, so each is found from
//! the one before by galloping (Bentley and Yao: "An almost optimal algorithm for unbounded searching", 1976): near ones
//! cost a comparison or two, far ones a logarithm.

use std::ops::Range;

use super::node::MatchOp;
use crate::definition::{Micros, Window};

/// The right rows inside each window of each left row: `[start, at)`, or with `inclusive` `(start, at]`, which over whole
/// microseconds is the same as `[start, at)` one microsecond later. `at` and `times` ascend; `offset` is added.
pub fn windows(
    at: &[Micros],
    times: &[Micros],
    windows: &[Window],
    inclusive: bool,
    offset: usize,
    out: &mut [Vec<Range<usize>>],
) {
    let near = |at: Micros| at.saturating_add(Micros::from(inclusive));
    // Most windows end at the left row itself.
    let mut before = 0;
    let ends: Vec<usize> = at
        .iter()
        .map(|at| {
            before = gallop(times, before, |t| t < near(*at));
            before
        })
        .collect();
    for (window, out) in windows.iter().zip(out) {
        let (mut low, mut high) = (0, 0);
        out.extend(at.iter().zip(&ends).map(|(at, before)| {
            let (far, end) = (window.start(near(*at)), window.end(near(*at)));
            high = if end == near(*at) { *before } else { gallop(times, high, |t| t < end) };
            low = gallop(times, low, |t| t < far).min(high);
            low + offset..high + offset
        }));
    }
}

/// The matching right row of each left row, if any: the last one that `op` admits for `>` and `>=`, the first one for
/// `<` and `<=`. `at` and `times` ascend; `offset` is added.
pub fn matches(at: &[i64], times: &[i64], op: MatchOp, offset: usize, out: &mut Vec<Option<usize>>) {
    let mut place = 0;
    for at in at {
        let at = *at;
        place = match op {
            MatchOp::Gt | MatchOp::LtEq => gallop(times, place, |t| t < at),
            MatchOp::GtEq | MatchOp::Lt => gallop(times, place, |t| t <= at),
        };
        let hit = match op {
            MatchOp::Gt | MatchOp::GtEq => place.checked_sub(1),
            MatchOp::Lt | MatchOp::LtEq => Some(place).filter(|p| *p < times.len()),
        };
        out.push(hit.map(|h| h + offset));
    }
}

/// The rows of the same time as row `at`; `offset` is added.
pub fn run(times: &[i64], at: usize, offset: usize) -> Range<usize> {
    let time = times[at];
    let before = times[..at].iter().rev().take_while(|t| **t == time).count();
    let after = times[at..].iter().take_while(|t| **t == time).count();
    at - before + offset..at + after + offset
}

/// The first place from `from` on where `before` does not hold; it holds for all earlier ones.
fn gallop(times: &[i64], from: usize, before: impl Fn(i64) -> bool) -> usize {
    /// Among so few times a search of them all, which has no branch that depends on them, is faster.
    const FEW: usize = 256;
    if times.len() <= FEW {
        return times.partition_point(|t| before(*t));
    }
    let mut step = 1;
    let mut low = from;
    while low + step <= times.len() && before(times[low + step - 1]) {
        low += step;
        step *= 2;
    }
    let high = (low + step - 1).min(times.len());
    low + times[low..high].partition_point(|t| before(*t))
}

/// Cuts the ascending times of one group into tiles of `length`. Returns the start of each tile and its rows, `offset`
/// added. A lifetime tile (`length` = [`Micros::MAX`]) starts at [`Micros::MIN`].
pub fn tile_ranges(times: &[Micros], length: Micros, offset: usize) -> Vec<(Micros, Range<usize>)> {
    let start_of = |t: Micros| if length == Micros::MAX { Micros::MIN } else { t - t.rem_euclid(length) };
    let mut tiles: Vec<(Micros, Range<usize>)> = Vec::new();
    for (row, time) in times.iter().enumerate() {
        let (start, row) = (start_of(*time), row + offset);
        match tiles.last_mut() {
            Some((last, rows)) if *last == start => rows.end = row + 1,
            _ => tiles.push((start, row..row + 1)),
        }
    }
    tiles
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tiles_end_at_multiples_of_the_length() {
        let tiles = tile_ranges(&[-1, 0, 9, 10, 10, 25], 10, 5);
        assert_eq!(tiles, [(-10, 5..6), (0, 6..8), (10, 8..10), (20, 10..11)]);
        assert_eq!(tile_ranges(&[1, 2], Micros::MAX, 0), [(Micros::MIN, 0..2)]);
    }

    proptest! {
        #[test]
        fn galloping_finds_what_a_scan_finds(mut times in prop::collection::vec(-50i64..50, 0..80), from in 0usize..90, at in -60i64..60) {
            times.sort_unstable();
            let wanted = times.iter().take_while(|t| **t < at).count();
            let from = from.min(wanted);
            prop_assert_eq!(gallop(&times, from, |t| t < at), wanted);
        }
    }
}
