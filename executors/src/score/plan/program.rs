//! The steps that give the number of a tree's leaf, bit by bit.
//!
//! A subtree has a code: some bits, and a leaf for each value that they can have. Two subtrees become one by a bit that says
//! which of them a row is in, and below it the bits of both, of which each pair takes one step. Where one has more bits
//! than the other, those are taken as they are: of rows in the other they mean nothing. So the bits of a leaf beside a
//! large subtree cost nothing, but a code has several values for one leaf.
//!
//! A tree has long paths, and a bit more for each split of a path would be too many. So subtrees are not joined where they
//! hang, but as `cuts.rs` says.
//!
//! Of a large tree, a block of rows seldom is in all parts. So a large part has a guard: the operand that is true for the rows
//! that are in it is computed before it, and where that is 0 for all of them, the part's steps are skipped. What its bits
//! are then means as little as those of rows in another part.
//!
//! ```text
//!  here = goes on ? reached : 0      guard: is `here` 0 for all rows?  ── yes ──┐
//!  steps of the part, `reached` in it is `here`                                 │
//!  bits joined with those of the other part  ◀──────────────────────────────────┘
//! ```

use std::ops::Range;

use super::cuts::{Cut, Cuts, Paths, Place, Shape};
use super::questions::Questions;
use super::steps::Guard;
use super::{ALL, BITS, LeafOf, NONE, SMALL_LEAVES, Tree, WOVEN};

/// The fewest steps for which a guard pays.
const GUARDED: u32 = 16;
/// A part is seldom empty which more than this share of the rows is in.
const SELDOM: f64 = 0.3;
/// Trees with guards come one after the other. Where there are more cutoffs than these, conditions do not fit the second cache, and
/// to wait for them costs more than guards save: then trees are woven instead.
const GUARDED_CUTOFFS: usize = 4096;

/// The steps of one tree.
#[derive(Debug)]
pub(super) struct Program {
    /// To, right, left, condition.
    pub(super) muxes: Vec<[u16; 4]>,
    /// By where they start; some are in others.
    pub(super) guards: Vec<Guard>,
    /// The operands of the bits of the code, the lowest first.
    pub(super) bits: Vec<u16>,
    pub(super) leaf_of: LeafOf,
    /// The leaf of each code where codes are leaves, else empty.
    pub(super) order: Vec<u16>,
}

/// What makes the programs of trees.
pub(super) struct Programs<'a> {
    questions: &'a Questions,
    cuts: Cuts,
    paths: Paths,
    /// The places of paths whose steps are being made, one path after the other, and for those where parts are cut the operand
    /// that says whether rows come there, once it is computed.
    places: Vec<(Place, Option<u16>)>,
    /// The leaf of each code.
    codes: Vec<u16>,
}

impl<'a> Programs<'a> {
    /// What makes those of trees that have some leaves in all.
    pub(super) fn new(questions: &'a Questions, leaves: usize) -> Self {
        let (cuts, paths, places, codes) = (Cuts::new(leaves), Paths::default(), Vec::new(), Vec::new());
        Self { questions, cuts, paths, places, codes }
    }

    /// Whether trees come one after the other, since some have guards.
    pub(super) fn alone(&self, trees: &[Tree]) -> bool {
        trees.iter().any(|tree| self.guarded(tree))
    }

    /// Whether large parts of a tree have guards.
    fn guarded(&self, tree: &Tree) -> bool {
        tree.leaf_count() > SMALL_LEAVES && self.questions.asked() <= GUARDED_CUTOFFS
    }

    /// The steps of a tree, which is the `number`th of all and of those that are woven the `number % woven`th. `None` for
    /// one whose codes would be too long, or that needs more operands than 16 bits can name.
    pub(super) fn of(&mut self, tree: &Tree, number: usize, woven: usize) -> Option<Program> {
        self.paths.join(tree, &mut self.cuts)?;
        let (shape, width) = self.paths.best(tree, &self.cuts)?;
        let bits = self.questions.behind() + number % WOVEN * BITS;
        let temporary = self.questions.behind() + WOVEN * BITS + number % woven;
        let large = self.guarded(tree);
        self.places.clear();
        self.codes.clear();
        self.paths.places(if tree.splits.is_empty() { !0 } else { 0 }, &mut self.places);
        // Tables have at least 64 codes.
        self.codes.resize((1 << width).max(64), 0);
        let mut steps = Steps {
            tree,
            answers: self.questions.operands(number),
            cuts: &self.cuts,
            paths: &self.paths,
            places: &mut self.places,
            all_rows: tree.covers.first().copied().unwrap_or(0.0),
            temporary: Temporary {
                first: u16::try_from(temporary).ok()?,
                step: woven as u16,
                count: 0,
                free: Vec::new(),
            },
            muxes: Vec::with_capacity(tree.leaf_count() + tree.leaf_count() / 4),
            guards: Vec::new(),
            bits: Vec::new(),
        };
        let codes = 1 << width;
        let whole = Part { shape, places: 0..steps.places.len(), large, out: &mut self.codes[..codes] };
        steps.part(whole, ALL)?;
        steps.keep_bits(bits as u16)?;
        let Steps { muxes, guards, bits, .. } = steps;
        let (leaf_of, order) = numbered(tree, &self.codes, codes);
        Some(Program { muxes, guards, bits, leaf_of, order })
    }
}

/// What a leaf of each code is, of which `count` count; where each has one code, they are numbered by it, in an order that is
/// then given too.
fn numbered(tree: &Tree, codes: &[u16], count: usize) -> (LeafOf, Vec<u16>) {
    match tree.leaf_count() {
        leaves @ ..=256 if leaves == count && tree.linear.is_empty() => (LeafOf::Code, codes[..count].to_vec()),
        ..=256 => (LeafOf::Bytes(codes.iter().map(|leaf| *leaf as u8).collect()), Vec::new()),
        _ => (LeafOf::Words(codes.to_vec()), Vec::new()),
    }
}

/// Operands that hold what is needed for a while.
struct Temporary {
    first: u16,
    /// From one to the next: trees that are woven have their own.
    step: u16,
    /// How many there are.
    count: u16,
    free: Vec<u16>,
}

impl Temporary {
    /// `None` if there are more than 16 bits can name.
    fn allocate(&mut self) -> Option<u16> {
        if let Some(operand) = self.free.pop() {
            return Some(operand);
        }
        let operand = self.end()?;
        self.count += 1;
        Some(operand)
    }

    /// The next one.
    fn end(&self) -> Option<u16> {
        self.count.checked_mul(self.step)?.checked_add(self.first)
    }

    /// An operand that no later step needs.
    fn release(&mut self, operand: u16) {
        if operand >= self.first {
            self.free.push(operand);
        }
    }
}

/// A part of a path, with some shape.
struct Part<'a> {
    shape: Shape,
    places: Range<usize>,
    /// Whether it may take so many steps that a guard pays.
    large: bool,
    /// Where the leaves of its codes go.
    out: &'a mut [u16],
}

/// What makes a program of the paths of a tree.
struct Steps<'a> {
    tree: &'a Tree,
    /// For each split the operand that is true for rows that go right.
    answers: &'a [u16],
    cuts: &'a Cuts,
    paths: &'a Paths,
    places: &'a mut Vec<(Place, Option<u16>)>,
    /// How many rows the training had.
    all_rows: f64,
    temporary: Temporary,
    muxes: Vec<[u16; 4]>,
    guards: Vec<Guard>,
    /// The bits of parts that are not joined yet, one part after the other.
    bits: Vec<u16>,
}

impl Steps<'_> {
    /// Puts the bits of a part, which the rows of `reached` are in, behind the others, and the leaf of each code where the
    /// code says.
    fn part(&mut self, part: Part<'_>, reached: u16) -> Option<()> {
        let Some(Cut { first, count, second, first_is_wider, cost }) = self.cuts.cut(part.shape) else {
            return self.beside(part, reached);
        };
        let Part { places, large, out, .. } = part;
        let middle = places.start + count as usize;
        let pass = match self.places[middle].1 {
            Some(pass) => pass,
            None => self.goes_on(first, places.start..middle)?,
        };
        let on = self.is_on(middle);
        let (low, high) = out[..1 << cost.width].split_at_mut(1 << (cost.width - 1));
        let (of_first, of_second) = if on { (low, high) } else { (high, low) };
        let start = self.bits.len();
        // The wider one first: fewer temporary operands are then kept meanwhile.
        let first = Part { shape: first, places: places.start..middle, large, out: of_first };
        let second = Part { shape: second, places: middle..places.end, large, out: of_second };
        let (wider, other) = if first_is_wider { (first, second) } else { (second, first) };
        self.half(wider, pass, on != first_is_wider, reached)?;
        let middle = self.bits.len();
        self.half(other, pass, on == first_is_wider, reached)?;
        for bit in 0..self.bits.len() - middle {
            let (wider, other) = (self.bits[start + bit], self.bits[middle + bit]);
            let (right, left) = if on == first_is_wider { (other, wider) } else { (wider, other) };
            self.bits[start + bit] = self.mux(pass, right, left)?;
        }
        self.bits.truncate(middle);
        self.bits.push(pass);
        // The bits above mean nothing here.
        let mut done = 1 << cost.width;
        while done < out.len() {
            out.copy_within(..done, done);
            done *= 2;
        }
        Some(())
    }

    /// What rows come to that leave the path at a place.
    fn beside(&mut self, part: Part<'_>, reached: u16) -> Option<()> {
        let Part { shape: way, places, large, out } = part;
        let node = self.places[places.start].0.beside;
        if node < 0 {
            out.fill(!node as u16);
            return Some(());
        }
        let start = self.places.len();
        self.paths.places(node, self.places);
        let shape = self.paths.shape(self.cuts, node, way);
        self.part(Part { shape, places: start..self.places.len(), large, out }, reached)?;
        self.places.truncate(start);
        Some(())
    }

    /// One half of a part that is cut: the rows of `reached` are in it for which `pass` is `side`.
    fn half(&mut self, mut half: Part<'_>, pass: u16, side: bool, reached: u16) -> Option<()> {
        half.large = half.large && self.steps(half.shape, &half.places) >= GUARDED;
        if !half.large || self.rows(&half.places) > SELDOM * self.all_rows {
            return self.part(half, reached);
        }
        let here = self.temporary.allocate()?;
        let (right, left) = if side { (reached, NONE) } else { (NONE, reached) };
        self.muxes.push([here, right, left, pass]);
        let (number, start) = (self.guards.len(), self.muxes.len());
        self.guards.push(Guard { steps: start..start, next: number });
        self.part(half, here)?;
        self.temporary.release(here);
        self.guards[number] = Guard { steps: start..self.muxes.len(), next: self.guards.len() };
        Some(())
    }

    /// The operand that says whether rows go on behind a part of a path.
    fn goes_on(&mut self, shape: Shape, places: Range<usize>) -> Option<u16> {
        let Some(Cut { first, count, second, .. }) = self.cuts.cut(shape) else {
            let node = self.places[places.start].0.node;
            return Some(if node < 0 { NONE } else { self.answers[node as usize] });
        };
        let middle = places.start + count as usize;
        let pass = self.goes_on(first, places.start..middle)?;
        self.places[middle].1 = Some(pass);
        let beyond = self.goes_on(second, middle..places.end)?;
        // Rows that leave in the first part do not go on.
        let leaves = if self.is_on(places.end) { NONE } else { ALL };
        let (right, left) = if self.is_on(middle) { (beyond, leaves) } else { (leaves, beyond) };
        self.mux(pass, right, left)
    }

    /// Whether rows come to a place from the one before where the operand that says it is true.
    fn is_on(&self, place: usize) -> bool {
        !self.places[place - 1].0.right
    }

    /// How many steps a part takes.
    fn steps(&self, shape: Shape, places: &Range<usize>) -> u32 {
        let (first, last) = (&self.places[places.start].0, &self.places[places.end - 1].0);
        // Those that all ways of its parts take are not in its cost. The leaf at the end of a path takes none.
        let end = if last.node < 0 { last.steps } else { self.places[places.end].0.steps };
        self.cuts.cut(shape).map_or_else(|| self.cuts.cost(first.part, shape), |cut| cut.cost).steps + end - first.steps
    }

    /// How many of the rows of the training were in a part of a path; 0 if the model does not say.
    fn rows(&self, places: &Range<usize>) -> f64 {
        let of = |place: usize| {
            let node = self.places[place].0.node;
            let at = if node < 0 { self.tree.splits.len() + !node as usize } else { node as usize };
            self.tree.covers.get(at).copied().unwrap_or(0.0)
        };
        let ends = self.places[places.end - 1].0.node < 0;
        of(places.start) - if ends { 0.0 } else { of(places.end) }
    }

    /// `condition ? right : left`, none of which but the condition is needed any more.
    fn mux(&mut self, condition: u16, right: u16, left: u16) -> Option<u16> {
        if left == right {
            return Some(left);
        }
        self.temporary.release(left);
        self.temporary.release(right);
        let to = self.temporary.allocate()?;
        self.muxes.push([to, right, left, condition]);
        Some(to)
    }

    /// Names the operands of the bits as such, from `first` on, from the last step on that computes them: they are kept when
    /// the program is over.
    fn keep_bits(&mut self, first: u16) -> Option<()> {
        // For each temporary operand, behind a place for all others, the bit that it is where it is read; 0 for none.
        let mut kept = vec![0; 1 + usize::from(self.temporary.end()? - self.temporary.first)];
        let place = |operand: u16| usize::from((operand + 1).saturating_sub(self.temporary.first));
        for (bit, operand) in (first..).zip(&mut self.bits) {
            let place = place(*operand);
            if place > 0 && kept[place] == 0 {
                kept[place] = bit;
            }
            *operand = renamed(*operand, kept[place]);
        }
        for [to, sources @ ..] in self.muxes.iter_mut().rev() {
            // What it held before this step is no bit.
            let bit = std::mem::take(&mut kept[place(*to)]);
            *to = renamed(*to, bit);
            sources.iter_mut().for_each(|source| *source = renamed(*source, kept[place(*source)]));
        }
        Some(())
    }
}

/// An operand that may be a bit.
fn renamed(operand: u16, bit: u16) -> u16 {
    if bit == 0 { operand } else { bit }
}
