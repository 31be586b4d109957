//! How the subtrees along the paths of a tree are joined.
//!
//! A path from the root along the larger children is cut in two, and its parts again. The bit of a cut says whether a row is
//! still on the path there.
//!
//! ```text
//!  path      s0 ── s1 ── s2 ── s3 ── leaf          cuts         ┌── s0 goes on and s1 goes on? ──┐
//!            │     │     │     │                         ┌─ s0 goes on? ─┐          ┌─ s2 goes on? ─┐
//!  beside    a     b     c     d                         a               b          c       ┌─ s3 goes on? ─┐
//!                                                                                           d             leaf
//! ```
//! Long paths are cut into halves of like weight. For short ones all ways are tried: those of fewest steps are kept for each
//! of the shortest codes, and for the whole tree the one is taken that costs least with the look-up of its codes.

use std::ops::Range;

use super::{BITS, Split, Tree};

/// What a tree is made of once its paths are cut.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Leaf(u16),
    /// The subtree beside a split of a path, where rows leave it if they go right, or if they go left.
    Beside {
        split: u32,
        right: bool,
        subtree: u32,
    },
    /// Parts of a path: rows that leave it in the first, and others.
    Cut {
        first: u32,
        second: u32,
    },
}

/// How many bits the code of a part has, and how many steps it takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cost {
    width: u8,
    steps: u32,
}

/// A part with what it costs.
#[derive(Debug)]
struct Costed {
    part: Part,
    cost: Cost,
    goes_on: bool,
}

/// All ways to join the parts of a tree that are worth a look.
pub(super) struct Parts<'a> {
    tree: &'a Tree,
    /// Leaves below each split.
    sizes: Vec<u32>,
    parts: Vec<Costed>,
    /// What the paths that are being cut are made of, each with the weight of its path up to there.
    path: Vec<(Ways, u64)>,
    /// Parts of a short path, from one place of it to another.
    short: [[Ways; SHORT + 1]; SHORT],
}

/// Parts that are the same in other ways, one behind the other: the shorter the code, the more steps.
#[derive(Debug, Clone, Copy, Default)]
struct Ways {
    first: u32,
    end: u32,
}

/// How many ways are kept.
const WAYS: usize = 3;
/// Paths of more parts are cut into halves.
const SHORT: usize = 6;
/// Codes whose look-up takes about as long as a step.
const CODES_A_STEP: usize = 32;

impl<'a> Parts<'a> {
    /// With the part that is the whole tree. `None` for a tree whose codes would be too long.
    pub(super) fn of(tree: &'a Tree) -> Option<(Self, u32)> {
        if tree.leaf_count() > 1 << BITS {
            return None;
        }
        let mut sizes = vec![0u32; tree.splits.len()];
        let size = |sizes: &[u32], child: i32| if child < 0 { 1 } else { sizes[child as usize] };
        // Children come after their parents.
        for (number, split) in tree.splits.iter().enumerate().rev() {
            sizes[number] = size(&sizes, split.left) + size(&sizes, split.right);
        }
        let (parts, short) = (Vec::with_capacity(16 * tree.leaf_count()), [[Ways::default(); SHORT + 1]; SHORT]);
        let mut parts = Self { tree, sizes, parts, path: Vec::new(), short };
        let ways = parts.subtree(if tree.splits.is_empty() { !0 } else { 0 })?;
        let whole = |part: &u32| {
            let Cost { width, steps } = parts.cost(*part);
            steps as usize + (1 << width) / CODES_A_STEP
        };
        let root = ways.all().min_by_key(whole)?;
        // More codes than these would not pay.
        (1usize << parts.width(root) <= 64 * tree.leaf_count()).then_some((parts, root))
    }

    pub(super) fn part(&self, part: u32) -> Part {
        self.parts[part as usize].part
    }

    pub(super) fn width(&self, part: u32) -> usize {
        usize::from(self.cost(part).width)
    }

    /// How many parts there are, of all ways.
    pub(super) fn count(&self) -> usize {
        self.parts.len()
    }

    pub(super) fn steps(&self, part: u32) -> u32 {
        self.cost(part).steps
    }

    /// How many of the rows of the training were in a part; 0 if the model does not say.
    pub(super) fn rows(&self, part: u32) -> f64 {
        let of = |place: usize| self.tree.covers.get(place).copied().unwrap_or(0.0);
        match self.part(part) {
            Part::Leaf(leaf) => of(self.tree.splits.len() + usize::from(leaf)),
            Part::Beside { split, right, .. } => {
                let split = self.split(split);
                let child = if right { split.right } else { split.left };
                of(if child < 0 { self.tree.splits.len() + !child as usize } else { child as usize })
            }
            Part::Cut { first, second } => self.rows(first) + self.rows(second),
        }
    }

    pub(super) fn split(&self, split: u32) -> &'a Split {
        &self.tree.splits[split as usize]
    }

    fn cost(&self, part: u32) -> Cost {
        self.parts[part as usize].cost
    }

    fn costed(&self, ways: Ways) -> &[Costed] {
        &self.parts[ways.first as usize..ways.end as usize]
    }

    /// The ways that were added from the part `first` on.
    fn ways(&self, first: usize) -> Ways {
        Ways { first: first as u32, end: self.parts.len() as u32 }
    }

    fn add(&mut self, part: Part, cost: Cost) {
        let goes_on = match part {
            Part::Leaf(_) => true,
            Part::Beside { right, .. } => !right,
            Part::Cut { second, .. } => self.goes_on(second),
        };
        self.parts.push(Costed { part, cost, goes_on });
    }

    fn leaf(&mut self, node: i32) -> Ways {
        self.add(Part::Leaf(!node as u16), Cost { width: 0, steps: 0 });
        self.ways(self.parts.len() - 1)
    }

    /// The part that a node is. A subtree beside a path has at most half of its leaves, so this does not call itself often.
    fn subtree(&mut self, mut node: i32) -> Option<Ways> {
        if node < 0 {
            return Some(self.leaf(node));
        }
        let size = |parts: &Self, child: i32| if child < 0 { 1 } else { parts.sizes[child as usize] };
        let (start, mut weight) = (self.path.len(), 0);
        while node >= 0 {
            let split = &self.tree.splits[node as usize];
            let right = size(self, split.left) >= size(self, split.right);
            let (along, beside) = if right { (split.left, split.right) } else { (split.right, split.left) };
            let subtrees = self.subtree(beside)?;
            let first = self.parts.len();
            for subtree in subtrees.all() {
                self.add(Part::Beside { split: node as u32, right, subtree }, self.cost(subtree));
            }
            weight += 1 << self.width(first as u32);
            self.path.push((self.ways(first), weight));
            node = along;
        }
        let leaf = self.leaf(node);
        self.path.push((leaf, weight + 1));
        let whole = self.cut(start, self.path.len(), 0, false);
        self.path.truncate(start);
        whole
    }

    /// The part that `start..end` of the path are, before which it has some weight. It may be wanted to say whether rows go
    /// on behind it.
    fn cut(&mut self, start: usize, end: usize, before: u64, wanted: bool) -> Option<Ways> {
        if end - start <= SHORT {
            return self.cut_short(start, end, wanted);
        }
        let weight = |end: usize| self.path[end - 1].1;
        let middle = before.midpoint(weight(end));
        let above = start + self.path[start..end].partition_point(|(_, weight)| *weight <= middle);
        let nearer_below = above > start && (above + 1 == end || middle - weight(above) <= weight(above + 1) - middle);
        let at = if nearer_below { above } else { above + 1 };
        let between = weight(at);
        let (first, second) = (self.cut(start, at, before, true)?, self.cut(at, end, between, wanted)?);
        let mut found = Found::default();
        found.join(0, self.costed(first), self.costed(second), wanted);
        found.keep(self, |_, _| (first, second))
    }

    /// Tries all ways.
    fn cut_short(&mut self, start: usize, end: usize, wanted: bool) -> Option<Ways> {
        let count = end - start;
        // Most paths are of one split or none.
        match self.path[start..end] {
            [(only, _)] => return Some(only),
            [(first, _), (second, _)] => {
                let mut found = Found::default();
                found.join(0, self.costed(first), self.costed(second), wanted);
                return found.keep(self, |_, _| (first, second));
            }
            _ => {}
        }
        // Of parts from one place of the path to another; what ends where all does is wanted only if that is.
        for from in 0..count {
            self.short[from][from + 1] = self.path[start + from].0;
        }
        for length in 2..=count {
            for from in 0..=count - length {
                let to = from + length;
                let mut found = Found::default();
                let wanted = wanted || to < count;
                for at in from + 1..to {
                    found.join(at, self.costed(self.short[from][at]), self.costed(self.short[at][to]), wanted);
                }
                self.short[from][to] = found.keep(self, |parts, at| (parts.short[from][at], parts.short[at][to]))?;
            }
        }
        Some(self.short[0][count])
    }

    /// Puts the leaf of each code where the code says.
    pub(super) fn fill(&self, part: u32, out: &mut [u16]) {
        match self.part(part) {
            Part::Leaf(leaf) => out.fill(leaf),
            Part::Beside { subtree, .. } => self.fill(subtree, out),
            Part::Cut { first, second } => {
                let mut done = 1 << self.width(part);
                let (low, high) = out[..done].split_at_mut(done / 2);
                let (low_of, high_of) = if self.goes_on(first) { (first, second) } else { (second, first) };
                self.fill(low_of, low);
                self.fill(high_of, high);
                // The bits above mean nothing here.
                while done < out.len() {
                    out.copy_within(..done, done);
                    done *= 2;
                }
            }
        }
    }

    /// Whether rows go on behind a part of a path where the operand that says it is true.
    pub(super) fn goes_on(&self, part: u32) -> bool {
        self.parts[part as usize].goes_on
    }
}

impl Ways {
    fn all(self) -> Range<u32> {
        self.first..self.end
    }
}

/// The ways to join two parts that take the fewest steps, by the bits of their codes.
struct Found {
    /// For each width the steps, in the upper half, and below them which parts they join: where they meet and the number of
    /// each among its ways. Then the least number is the one to take, without a branch.
    of_width: [u64; BITS + 2],
    /// From the shortest codes to the longest.
    widths: (usize, usize),
}

impl Default for Found {
    fn default() -> Self {
        Self { of_width: [u64::MAX; BITS + 2], widths: (BITS, 0) }
    }
}

impl Found {
    /// Adds the joints of each way of a part with each of the one behind it; they meet `at` a place of the path.
    fn join(&mut self, at: usize, first: &[Costed], second: &[Costed], wanted: bool) {
        for (i, Costed { cost: of_first, .. }) in first.iter().enumerate() {
            for (j, Costed { cost: of_second, .. }) in second.iter().enumerate() {
                // Codes that are too long are all in the last place.
                let width = usize::from(1 + of_first.width.max(of_second.width)).min(BITS + 1);
                let shared = u32::from(of_first.width.min(of_second.width));
                let steps = of_first.steps + of_second.steps + shared + u32::from(wanted);
                let number = u64::from(steps) << 32 | (at << 16 | i << 8 | j) as u64;
                self.of_width[width] = self.of_width[width].min(number);
                self.widths = (self.widths.0.min(width), self.widths.1.max(width));
            }
        }
    }

    /// `None` if all codes are too long. `joined` are the parts that meet at a place.
    fn keep<'a>(&self, parts: &mut Parts<'a>, joined: impl Fn(&Parts<'a>, usize) -> (Ways, Ways)) -> Option<Ways> {
        let (start, mut fewest) = (parts.parts.len(), u32::MAX);
        for width in self.widths.0..=self.widths.1.min(BITS) {
            let number = self.of_width[width];
            let steps = (number >> 32) as u32;
            if steps < fewest && parts.parts.len() < start + WAYS {
                let (first, second) = joined(parts, (number >> 16) as u16 as usize);
                let [j, i, ..] = number.to_le_bytes().map(u32::from);
                let part = Part::Cut { first: first.first + i, second: second.first + j };
                parts.add(part, Cost { width: width as u8, steps });
                fewest = steps;
            }
        }
        (parts.parts.len() > start).then(|| parts.ways(start))
    }
}
