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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    width: usize,
    steps: u32,
}

/// All ways to join the parts of a tree that are worth a look.
pub(super) struct Parts<'a> {
    tree: &'a Tree,
    /// Leaves below each split.
    sizes: Vec<u32>,
    parts: Vec<(Part, Cost)>,
    /// What the paths that are being cut are made of, each with the weight of its path up to there.
    path: Vec<(Ways, u64)>,
}

/// Parts that are the same in other ways: the shorter the code, the more steps.
#[derive(Debug, Clone, Copy, Default)]
struct Ways {
    of: [u32; WAYS],
    count: usize,
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
        let mut parts = Self { tree, sizes, parts: Vec::with_capacity(16 * tree.leaf_count()), path: Vec::new() };
        let ways = parts.subtree(if tree.splits.is_empty() { !0 } else { 0 })?;
        let whole = |part: &u32| {
            let Cost { width, steps } = parts.cost(*part);
            steps as usize + (1 << width) / CODES_A_STEP
        };
        let root = ways.all().iter().copied().min_by_key(whole)?;
        // More codes than these would not pay.
        (1usize << parts.width(root) <= 64 * tree.leaf_count()).then_some((parts, root))
    }

    pub(super) fn part(&self, part: u32) -> Part {
        self.parts[part as usize].0
    }

    pub(super) fn width(&self, part: u32) -> usize {
        self.cost(part).width
    }

    pub(super) fn split(&self, split: u32) -> &'a Split {
        &self.tree.splits[split as usize]
    }

    fn cost(&self, part: u32) -> Cost {
        self.parts[part as usize].1
    }

    fn add(&mut self, ways: &mut Ways, part: Part, cost: Cost) {
        ways.of[ways.count] = self.parts.len() as u32;
        ways.count += 1;
        self.parts.push((part, cost));
    }

    /// The part that a node is. A subtree beside a path has at most half of its leaves, so this does not call itself often.
    fn subtree(&mut self, mut node: i32) -> Option<Ways> {
        let size = |parts: &Self, child: i32| if child < 0 { 1 } else { parts.sizes[child as usize] };
        let (start, mut weight) = (self.path.len(), 0);
        while node >= 0 {
            let split = &self.tree.splits[node as usize];
            let right = size(self, split.left) >= size(self, split.right);
            let (along, beside) = if right { (split.left, split.right) } else { (split.right, split.left) };
            let subtrees = self.subtree(beside)?;
            let mut ways = Ways::default();
            for subtree in subtrees.all() {
                let part = Part::Beside { split: node as u32, right, subtree: *subtree };
                self.add(&mut ways, part, self.cost(*subtree));
            }
            weight += 1 << self.width(ways.of[0]);
            self.path.push((ways, weight));
            node = along;
        }
        let mut leaf = Ways::default();
        self.add(&mut leaf, Part::Leaf(!node as u16), Cost { width: 0, steps: 0 });
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
        found.join(self, first, second, wanted);
        found.keep(self)
    }

    /// Tries all ways.
    fn cut_short(&mut self, start: usize, end: usize, wanted: bool) -> Option<Ways> {
        let count = end - start;
        // Most paths are of one split or none.
        match self.path[start..end] {
            [(only, _)] => return Some(only),
            [(first, _), (second, _)] => {
                let mut found = Found::default();
                found.join(self, first, second, wanted);
                return found.keep(self);
            }
            _ => {}
        }
        // Of parts from one place of the path to another; what ends where all does is wanted only if that is.
        let mut ways = [[Ways::default(); SHORT + 1]; SHORT];
        for from in 0..count {
            ways[from][from + 1] = self.path[start + from].0;
        }
        for length in 2..=count {
            for from in 0..=count - length {
                let to = from + length;
                let mut found = Found::default();
                let wanted = wanted || to < count;
                for (at, behind) in ways.iter().enumerate().take(to).skip(from + 1) {
                    found.join(self, ways[from][at], behind[to], wanted);
                }
                ways[from][to] = found.keep(self)?;
            }
        }
        Some(ways[0][count])
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
        match self.part(part) {
            Part::Leaf(_) => true,
            Part::Beside { right, .. } => !right,
            Part::Cut { second, .. } => self.goes_on(second),
        }
    }
}

impl Ways {
    fn all(&self) -> &[u32] {
        &self.of[..self.count]
    }
}

/// The ways to join two parts that take the fewest steps, by the bits of their codes.
struct Found {
    /// With the steps and the two parts of each; too many steps if there is none.
    of_width: [(u32, u32, u32); BITS + 1],
    /// From the shortest codes to the longest.
    widths: (usize, usize),
}

impl Default for Found {
    fn default() -> Self {
        Self { of_width: [(u32::MAX, 0, 0); BITS + 1], widths: (BITS, 0) }
    }
}

impl Found {
    /// Adds the joints of each way of a part with each of the one behind it.
    fn join(&mut self, parts: &Parts<'_>, first: Ways, second: Ways, wanted: bool) {
        for a in first.all() {
            for b in second.all() {
                let (of_first, of_second) = (parts.cost(*a), parts.cost(*b));
                let width = 1 + of_first.width.max(of_second.width);
                let shared = of_first.width.min(of_second.width) as u32;
                let steps = of_first.steps + of_second.steps + shared + u32::from(wanted);
                if let Some(best) = self.of_width.get_mut(width)
                    && steps < best.0
                {
                    *best = (steps, *a, *b);
                    self.widths = (self.widths.0.min(width), self.widths.1.max(width));
                }
            }
        }
    }

    /// `None` if all codes are too long.
    fn keep(&self, parts: &mut Parts<'_>) -> Option<Ways> {
        let (mut ways, mut fewest) = (Ways::default(), u32::MAX);
        for width in self.widths.0..=self.widths.1 {
            let (steps, first, second) = self.of_width[width];
            if steps < fewest && ways.count < WAYS {
                parts.add(&mut ways, Part::Cut { first, second }, Cost { width, steps });
                fewest = steps;
            }
        }
        (ways.count > 0).then_some(ways)
    }
}
