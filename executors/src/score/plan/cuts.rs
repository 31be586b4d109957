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
//!
//! How a path is cut depends only on what the subtrees beside it cost, and not on steps that all ways of a subtree take. So most
//! paths are alike, in one tree as in all, and what was found for one is remembered.

use std::collections::HashMap;

use ahash::RandomState;

use super::{BITS, Tree};

/// How many ways are kept.
const WAYS: usize = 3;
/// Paths of more parts are cut into halves.
const SHORT: usize = 6;
/// Bits of the number of a part of a short path, so that all of them have room in 64.
const PART_BITS: usize = 10;
/// Codes whose look-up takes about as long as a step.
const CODES_A_STEP: usize = 32;
/// More codes for each leaf would not pay.
const CODES_A_LEAF: usize = 64;

/// How many bits the code of a part has, and how many steps it takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Cost {
    pub(super) width: u8,
    pub(super) steps: u32,
}

/// What the ways of a part cost: the shorter the code, the more steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Costs {
    of: [Cost; WAYS],
    count: usize,
}

impl Costs {
    fn all(&self) -> &[Cost] {
        &self.of[..self.count]
    }
}

/// How the parts of a path are joined: below [`WAYS`] one part, in that of its ways, else the number of a [`Cut`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shape(u32);

/// Parts of a path that are joined: the first `count` of them, and others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub(super) first: Shape,
    pub(super) count: u32,
    pub(super) second: Shape,
    /// Whether codes of the first have as many bits as those of the second, or more.
    pub(super) first_is_wider: bool,
    pub(super) cost: Cost,
}

/// The ways to join parts of a path, or those of one part.
#[derive(Debug, Clone, Copy)]
struct Ways {
    /// The shape of the first; those of the others follow it.
    first: Shape,
    /// Without the steps that all ways of some part take.
    costs: Costs,
    /// What a path with these ways is beside another: the number of a part.
    part: Option<u32>,
}

impl Ways {
    fn way(&self, number: u32) -> Shape {
        Shape(self.first.0 + number)
    }
}

/// The number of the part that is a leaf: it has one way, which costs nothing.
const LEAF: u32 = 0;

/// What was found of the paths of trees.
#[derive(Debug)]
pub(super) struct Cuts {
    cuts: Vec<Cut>,
    ways: Vec<Ways>,
    /// The ways of each part; parts that cost the same are one.
    parts: Vec<u32>,
    numbers: HashMap<Costs, u32, RandomState>,
    /// The ways to join a short path, by its [`key`].
    short: HashMap<u64, Option<u32>, RandomState>,
}

impl Cuts {
    /// Those of trees that have some leaves in all. There is room for what is mostly found, since memory that is taken while
    /// they grow has to be cleared.
    pub(super) fn new(leaves: usize) -> Self {
        let mut cuts = Self {
            cuts: Vec::with_capacity(leaves / 4),
            ways: Vec::with_capacity(leaves / 12),
            parts: Vec::new(),
            numbers: HashMap::default(),
            short: HashMap::with_capacity_and_hasher(leaves / 24, RandomState::new()),
        };
        cuts.number(Costs { count: 1, ..Costs::default() });
        cuts
    }

    /// What joins the parts of a shape, if they are several.
    pub(super) fn cut(&self, shape: Shape) -> Option<Cut> {
        self.cuts.get((shape.0 as usize).wrapping_sub(WAYS)).copied()
    }

    /// What a way of a part costs, without the steps that all of them take.
    pub(super) fn cost(&self, part: u32, way: Shape) -> Cost {
        self.costs(self.parts[part as usize]).of[way.0 as usize]
    }

    fn costs(&self, ways: u32) -> &Costs {
        &self.ways[ways as usize].costs
    }

    /// The number of a part that costs this.
    fn number(&mut self, costs: Costs) -> u32 {
        *self.numbers.entry(costs).or_insert_with(|| {
            let part = self.parts.len() as u32;
            self.parts.push(self.ways.len() as u32);
            self.ways.push(Ways { first: Shape(0), costs, part: Some(part) });
            part
        })
    }

    /// What a path with some ways is beside another: the number of a part, and the steps that all ways of the path take.
    fn part(&mut self, ways: u32) -> (u32, u32) {
        let of = &self.ways[ways as usize];
        let steps = of.costs.all().last().map_or(0, |cost| cost.steps);
        if let Some(part) = of.part {
            return (part, steps);
        }
        let mut costs = of.costs;
        costs.of[..costs.count].iter_mut().for_each(|cost| cost.steps -= steps);
        let part = self.number(costs);
        self.ways[ways as usize].part = Some(part);
        (part, steps)
    }

    /// The number of the ways to join parts, which may be wanted to say whether rows go on behind them, unless it is known what
    /// comes of that. `None` if all codes are too long.
    fn join(&mut self, parts: &[u32], wanted: bool) -> Option<u32> {
        if let [only] = parts {
            return Some(self.parts[*only as usize]);
        }
        let key = key(parts, wanted);
        if let Some(known) = key.and_then(|key| self.short.get(&key)) {
            return *known;
        }
        let places = match parts.len() {
            ..=SHORT => 1..parts.len(),
            _ => {
                let middle = self.middle(parts);
                middle..middle + 1
            }
        };
        let (mut found, mut joined) = (Found::default(), [(0, 0); SHORT]);
        for (at, joined) in places.clone().zip(&mut joined) {
            *joined = (self.join(&parts[..at], true)?, self.join(&parts[at..], wanted)?);
            found.join(at, self.costs(joined.0), self.costs(joined.1), wanted);
        }
        let ways = self.keep(&found, |at| joined[at - places.start]);
        if let Some(key) = key {
            self.short.insert(key, ways);
        }
        ways
    }

    /// Where parts are cut into halves of like weight.
    fn middle(&self, parts: &[u32]) -> usize {
        let weight = |part: &u32| 1u64 << self.cost(*part, Shape(0)).width;
        let middle = parts.iter().map(weight).sum::<u64>() / 2;
        // The first place where more than half is above, or the one before if that is nearer to the middle.
        let (mut at, mut above) = (0, 0);
        let behind = loop {
            let next = above + weight(&parts[at]);
            if next > middle {
                break next;
            }
            (at, above) = (at + 1, next);
        };
        at + usize::from(at == 0 || at + 1 < parts.len() && behind - middle < middle - above)
    }

    /// The number of the ways that were found. `joined` are the parts of which the first has some number of others. `None` if
    /// all codes are too long.
    fn keep(&mut self, found: &Found, joined: impl Fn(usize) -> (u32, u32)) -> Option<u32> {
        let (first, mut costs, mut fewest) = (Shape((self.cuts.len() + WAYS) as u32), Costs::default(), u32::MAX);
        for width in found.widths.0..=found.widths.1.min(BITS) {
            let number = found.of_width[width];
            let steps = (number >> 32) as u32;
            if steps < fewest && costs.count < WAYS {
                let count = number as u32 >> 8;
                let (first, second) = joined(count as usize);
                let (first, second) = (&self.ways[first as usize], &self.ways[second as usize]);
                let (i, j) = (number as u32 >> 4 & 15, number as u32 & 15);
                let first_is_wider = first.costs.of[i as usize].width >= second.costs.of[j as usize].width;
                let cost = Cost { width: width as u8, steps };
                let (first, second) = (first.way(i), second.way(j));
                self.cuts.push(Cut { first, count, second, first_is_wider, cost });
                costs.of[costs.count] = cost;
                costs.count += 1;
                fewest = steps;
            }
        }
        self.ways.push(Ways { first, costs, part: None });
        (costs.count > 0).then(|| self.ways.len() as u32 - 1)
    }
}

/// The parts of a short path, and whether it is wanted to say if rows go on behind it. `None` for a long one, or for parts of
/// rare costs.
fn key(parts: &[u32], wanted: bool) -> Option<u64> {
    if parts.len() > SHORT {
        return None;
    }
    // A one before them says how many there are.
    let whole = parts.iter().fold(1, |key, part| key << PART_BITS | u64::from(*part));
    parts.iter().all(|part| part >> PART_BITS == 0).then_some(whole << 1 | u64::from(wanted))
}

/// The ways to join two parts that take the fewest steps, by the bits of their codes.
struct Found {
    /// For each width the steps, in the upper half, and below them which parts they join: how many are in the first and the
    /// number of each among its ways. Then the least number is the one to take, without a branch.
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
    /// Adds the joints of each way of a part, which is of `count` others, with each of the one behind it.
    fn join(&mut self, count: usize, first: &Costs, second: &Costs, wanted: bool) {
        for (i, of_first) in first.all().iter().enumerate() {
            for (j, of_second) in second.all().iter().enumerate() {
                // Codes that are too long are all in the last place.
                let width = usize::from(1 + of_first.width.max(of_second.width)).min(BITS + 1);
                let shared = u32::from(of_first.width.min(of_second.width));
                let steps = of_first.steps + of_second.steps + shared + u32::from(wanted);
                let number = u64::from(steps) << 32 | (count << 8 | i << 4 | j) as u64;
                self.of_width[width] = self.of_width[width].min(number);
                self.widths = (self.widths.0.min(width), self.widths.1.max(width));
            }
        }
    }
}

/// The paths of a tree.
#[derive(Debug, Default)]
pub(super) struct Paths {
    /// Leaves below each split.
    sizes: Vec<u32>,
    turns: Vec<Turn>,
    /// For each split that a path begins with, the ways of the path.
    ways: Vec<PathWays>,
    /// Of a path that is being joined.
    parts: Vec<u32>,
}

/// Where rows go on behind a split: along its path, or beside it, which is right or left.
#[derive(Debug, Clone, Copy, Default)]
struct Turn {
    along: i32,
    beside: i32,
    right: bool,
}

/// The number of the ways of a path, and what it is beside another: the number of a part, and the steps that all its ways take.
#[derive(Debug, Clone, Copy, Default)]
struct PathWays {
    ways: u32,
    part: u32,
    steps: u32,
}

/// What a row comes to that is still on a path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The split, or at the end of the path the leaf.
    pub(super) node: i32,
    /// Where rows go that leave the path here; at its end the leaf.
    pub(super) beside: i32,
    /// Whether they leave it if they go right.
    pub(super) right: bool,
    /// The number of the part that is `beside`.
    pub(super) part: u32,
    /// The steps that all ways take of the parts before.
    pub(super) steps: u32,
}

impl Paths {
    /// Joins the parts of all paths of a tree. `None` if its codes would be too long.
    pub(super) fn join(&mut self, tree: &Tree, cuts: &mut Cuts) -> Option<()> {
        if tree.leaf_count() > 1 << BITS {
            return None;
        }
        // What is there of trees before is not read before it is written.
        if self.sizes.len() < tree.splits.len() {
            self.sizes.resize(tree.splits.len(), 0);
            self.turns.resize(tree.splits.len(), Turn::default());
            self.ways.resize(tree.splits.len(), PathWays::default());
        }
        // Children come after their parents, and what is beside a path before it in this order.
        for (number, split) in tree.splits.iter().enumerate().rev() {
            let (left, right) = (self.size(split.left), self.size(split.right));
            self.sizes[number] = left + right;
            // Without a branch, which could not be predicted.
            let children = [split.left, split.right];
            let beside = usize::from(left >= right);
            let turn = Turn { along: children[1 - beside], beside: children[beside], right: beside == 1 };
            self.turns[number] = turn;
            if turn.beside >= 0 {
                self.join_path(turn.beside, cuts)?;
            }
        }
        if tree.splits.is_empty() { Some(()) } else { self.join_path(0, cuts) }
    }

    /// Joins the parts of the path that begins with a split.
    fn join_path(&mut self, first: i32, cuts: &mut Cuts) -> Option<()> {
        let (mut node, mut steps, mut parts) = (first, 0, std::mem::take(&mut self.parts));
        parts.clear();
        while node >= 0 {
            let Turn { along, beside, .. } = self.turns[node as usize];
            let part = self.part(beside);
            parts.push(part.part);
            steps += part.steps;
            node = along;
        }
        parts.push(LEAF);
        let ways = cuts.join(&parts, false)?;
        let (part, more) = cuts.part(ways);
        self.ways[first as usize] = PathWays { ways, part, steps: steps + more };
        self.parts = parts;
        Some(())
    }

    /// Puts the places of the path that begins with a node behind others.
    pub(super) fn places(&self, mut node: i32, to: &mut Vec<(Place, Option<u16>)>) {
        let mut before = 0;
        while node >= 0 {
            let Turn { along, beside, right } = self.turns[node as usize];
            let PathWays { part, steps, .. } = self.part(beside);
            to.push((Place { node, beside, right, part, steps: before }, None));
            (node, before) = (along, before + steps);
        }
        to.push((Place { node, beside: node, right: false, part: LEAF, steps: before }, None));
    }

    /// How the path that begins with a split is joined in one of its ways.
    pub(super) fn shape(&self, cuts: &Cuts, split: i32, way: Shape) -> Shape {
        cuts.ways[self.ways[split as usize].ways as usize].way(way.0)
    }

    /// How the path from the root is joined, by what the steps and the look-up of the codes cost, and the bits of its codes.
    /// `None` if that does not pay.
    pub(super) fn best(&self, tree: &Tree, cuts: &Cuts) -> Option<(Shape, usize)> {
        let number = if tree.splits.is_empty() { cuts.parts[LEAF as usize] } else { self.ways[0].ways };
        let ways = &cuts.ways[number as usize];
        let whole = |(_, cost): &(u32, &Cost)| cost.steps as usize + (1 << cost.width) / CODES_A_STEP;
        let (way, Cost { width, .. }) = (0..).zip(ways.costs.all()).min_by_key(whole)?;
        (1usize << width <= CODES_A_LEAF * tree.leaf_count()).then_some((ways.way(way), usize::from(*width)))
    }

    fn size(&self, child: i32) -> u32 {
        if child < 0 { 1 } else { self.sizes[child as usize] }
    }

    /// What a node is beside a path.
    fn part(&self, node: i32) -> PathWays {
        if node < 0 { PathWays::default() } else { self.ways[node as usize] }
    }
}
