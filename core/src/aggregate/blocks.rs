//! The merge of any range of rows, from few merges.
//!
//! ```text
//!  rows    │ · · · · │ · · · · │ · · · · │      a range is what is left of its first block, what it has of its
//!            [──from─┤ ├─────┤ ├up_to]          last one, and the blocks between, which are rows of the next level
//! ```
//! All ranges and all windows share the blocks, and nothing is ever subtracted.

use std::ops::Range;

const BLOCK: usize = 16;

/// Levels of blocks of 16.
pub(super) struct Blocks<T>(Vec<Level<T>>);

/// Rows, or the merged blocks of the level before.
struct Level<T> {
    rows: Vec<T>,
    /// The merge of the block up to and with this row.
    up_to: Vec<T>,
    /// The merge of the block from this row on.
    from: Vec<T>,
}

impl<T: Clone> Blocks<T> {
    /// `merge` is associative and commutative.
    pub(super) fn new(rows: Vec<T>, merge: impl Fn(&mut T, &T)) -> Self {
        let mut levels = vec![Level::new(rows, &merge)];
        while let Some(last) = levels.last().filter(|l| l.rows.len() > BLOCK) {
            let blocks = last.from.iter().step_by(BLOCK).cloned().collect();
            levels.push(Level::new(blocks, &merge));
        }
        Self(levels)
    }

    /// The merge of `empty` and the rows of a range.
    pub(super) fn of(&self, range: &Range<usize>, empty: T, merge: impl Fn(&mut T, &T)) -> T {
        let (mut low, mut high, mut merged) = (range.start, range.end, empty);
        for level in &self.0 {
            if low >= high {
                break;
            }
            if low / BLOCK == (high - 1) / BLOCK {
                level.rows[low..high].iter().for_each(|row| merge(&mut merged, row));
                break;
            }
            merge(&mut merged, &level.from[low]);
            merge(&mut merged, &level.up_to[high - 1]);
            (low, high) = (low / BLOCK + 1, (high - 1) / BLOCK);
        }
        merged
    }
}

impl<T: Clone> Level<T> {
    fn new(rows: Vec<T>, merge: &impl Fn(&mut T, &T)) -> Self {
        let (mut up_to, mut from) = (rows.clone(), rows.clone());
        up_to.chunks_mut(BLOCK).for_each(|block| accumulate(block.iter_mut(), merge));
        from.chunks_mut(BLOCK).for_each(|block| accumulate(block.iter_mut().rev(), merge));
        Self { rows, up_to, from }
    }
}

/// Merges into each row all rows before it.
fn accumulate<'a, T: 'a>(mut rows: impl Iterator<Item = &'a mut T>, merge: &impl Fn(&mut T, &T)) {
    let Some(mut last) = rows.next() else { return };
    for row in rows {
        merge(row, last);
        last = row;
    }
}
