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

use super::cuts::{Part, Parts};
use super::questions::Questions;
use super::steps::Guard;
use super::{LeafOf, Missing, SMALL_LEAVES, Split, Tree, Variant, edges};

/// The fewest steps for which a guard pays.
const GUARDED: u32 = 16;
/// A part is seldom empty which more than this share of the rows is in.
const SELDOM: f64 = 0.3;
/// Trees with guards come one after the other. Where there are more cutoffs than these, conditions do not fit the second cache, and
/// to wait for them costs more than guards save: then trees are woven instead.
const GUARDED_CUTOFFS: usize = 4096;

/// An operand before all of them are numbered: the place of a condition among all that can be asked, or in the upper bits a
/// [`Kind`] and below it a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operand(u32);

/// What an operand is that is no condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// 0 or 1 for every row, by the number.
    Constant,
    /// One of the parities of the program.
    Parity,
    Temporary,
    /// A bit of the code, which is kept when the program is over.
    Bit,
}

impl Operand {
    /// Places of conditions are below this.
    pub(super) const PLACES: u32 = 1 << 31;
    /// Where the kind begins.
    const KIND: u32 = 29;
    /// 0 for every row.
    const NONE: Self = Self::new(Kind::Constant, 0);
    /// 1 for every row.
    const ALL: Self = Self::new(Kind::Constant, 1);

    const fn new(kind: Kind, number: u32) -> Self {
        Self(Self::PLACES | (kind as u32) << Self::KIND | number)
    }

    /// The place of a condition.
    pub(super) fn place(self) -> Option<u32> {
        (self.0 < Self::PLACES).then_some(self.0)
    }

    /// The kind, as a number, and the number of an operand that is no condition.
    pub(super) fn numbered(self) -> (usize, u32) {
        ((self.0 >> Self::KIND) as usize % 4, self.0 % (1 << Self::KIND))
    }

    fn temporary(self) -> Option<usize> {
        let (kind, number) = self.numbered();
        (self.place().is_none() && kind == Kind::Temporary as usize).then_some(number as usize)
    }
}

/// A condition that is true for an odd number of `places`, or with `negated` for an even one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Odd {
    pub(super) places: Vec<u32>,
    pub(super) negated: bool,
}

/// The steps of one tree.
#[derive(Debug, Default)]
pub(super) struct Program {
    /// To, right, left, condition.
    pub(super) muxes: Vec<[Operand; 4]>,
    /// By where they start; some are in others.
    pub(super) guards: Vec<Guard>,
    /// The bits of the code, the lowest first.
    pub(super) bits: Vec<Operand>,
    pub(super) leaf_of: LeafOf,
    /// The leaf of each code where codes are leaves, else empty.
    pub(super) order: Vec<u16>,
    pub(super) parities: Vec<Odd>,
    /// How many temporary operands it keeps at once.
    pub(super) temporary: usize,
    free: Vec<Operand>,
}

impl Program {
    /// `None` for a tree whose codes would be too long.
    pub(super) fn new(tree: &Tree, questions: &Questions, used: &mut [bool]) -> Option<Self> {
        let (parts, root) = Parts::of(tree)?;
        let mut program = Self::default();
        program.muxes.reserve(tree.leaf_count() + tree.leaf_count() / 4);
        let mut steps = Steps {
            parts: &parts,
            questions,
            used,
            guarded: tree.leaf_count() > SMALL_LEAVES && questions.asked() <= GUARDED_CUTOFFS,
            rows: parts.rows(root),
            cuts: vec![None; parts.count()],
            bits: Vec::new(),
            program: &mut program,
        };
        steps.part(root, Operand::ALL)?;
        program.bits = steps.bits;
        program.keep_bits();
        let mut leaf_of = vec![0; 1 << parts.width(root)];
        parts.fill(root, &mut leaf_of);
        (program.leaf_of, program.order) = numbered(tree, leaf_of);
        Some(program)
    }

    /// Names the operands of the bits as such from the last step on that computes them.
    fn keep_bits(&mut self) {
        let mut kept = vec![None; self.temporary];
        for (bit, operand) in self.bits.iter_mut().enumerate() {
            if let Some(number) = operand.temporary() {
                *operand = *kept[number].get_or_insert(Operand::new(Kind::Bit, bit as u32));
            }
        }
        for [to, sources @ ..] in self.muxes.iter_mut().rev() {
            if let Some(number) = to.temporary()
                && let Some(bit) = kept[number].take()
            {
                *to = bit;
            }
            for source in sources {
                if let Some(number) = source.temporary()
                    && let Some(bit) = kept[number]
                {
                    *source = bit;
                }
            }
        }
    }

    /// `None` if there are more than 16 bits can name.
    fn allocate(&mut self) -> Option<Operand> {
        if let Some(operand) = self.free.pop() {
            return Some(operand);
        }
        self.temporary += 1;
        u16::try_from(self.temporary - 1).ok().map(|number| Operand::new(Kind::Temporary, number.into()))
    }

    /// An operand that no later step needs.
    fn release(&mut self, operand: Operand) {
        if operand.temporary().is_some() {
            self.free.push(operand);
        }
    }

    /// `condition ? right : left`, none of which but the condition is needed any more.
    fn mux(&mut self, condition: Operand, right: Operand, left: Operand) -> Option<Operand> {
        if left == right {
            return Some(left);
        }
        self.release(left);
        self.release(right);
        let to = self.allocate()?;
        self.muxes.push([to, right, left, condition]);
        Some(to)
    }
}

/// What a leaf of each code is; where each has one code, they are numbered by it, in an order that is then given too.
fn numbered(tree: &Tree, mut codes: Vec<u16>) -> (LeafOf, Vec<u16>) {
    let leaves = tree.leaf_count();
    if leaves == codes.len() && leaves <= 256 && tree.linear.is_empty() {
        return (LeafOf::Code, codes);
    }
    codes.resize(codes.len().max(64), 0);
    match leaves {
        ..=256 => (LeafOf::Bytes(codes.iter().map(|leaf| *leaf as u8).collect()), Vec::new()),
        _ => (LeafOf::Words(codes), Vec::new()),
    }
}

/// What makes a program of parts.
struct Steps<'a> {
    parts: &'a Parts<'a>,
    questions: &'a Questions,
    /// Which conditions are asked at all.
    used: &'a mut [bool],
    /// Whether large parts have guards.
    guarded: bool,
    /// All rows of the training.
    rows: f64,
    /// For each part that is cut, the operand that says whether rows go on behind the first half, once it is computed.
    cuts: Vec<Option<Operand>>,
    /// The bits of parts that are not joined yet, one part after the other.
    bits: Vec<Operand>,
    program: &'a mut Program,
}

impl Steps<'_> {
    /// Puts the bits of a part, which the rows of `reached` are in, behind the others.
    fn part(&mut self, part: u32, reached: Operand) -> Option<()> {
        let (first, second) = match self.parts.part(part) {
            Part::Leaf(_) => return Some(()),
            Part::Beside { subtree, .. } => return self.part(subtree, reached),
            Part::Cut { first, second } => (first, second),
        };
        let pass = match self.cuts[part as usize] {
            Some(pass) => pass,
            None => self.goes_on(first)?,
        };
        let first_is_wider = self.parts.width(first) >= self.parts.width(second);
        let on = self.parts.goes_on(first);
        let start = self.bits.len();
        // The wider one first: fewer temporary operands are then kept meanwhile.
        let (wider, other) = if first_is_wider { (first, second) } else { (second, first) };
        self.half(wider, pass, on != first_is_wider, reached)?;
        let middle = self.bits.len();
        self.half(other, pass, on == first_is_wider, reached)?;
        for bit in 0..self.bits.len() - middle {
            let (wider, other) = (self.bits[start + bit], self.bits[middle + bit]);
            let (right, left) = if on == first_is_wider { (other, wider) } else { (wider, other) };
            self.bits[start + bit] = self.program.mux(pass, right, left)?;
        }
        self.bits.truncate(middle);
        self.bits.push(pass);
        Some(())
    }

    /// One half of a part that is cut: the rows of `reached` are in it for which `pass` is `side`.
    fn half(&mut self, part: u32, pass: Operand, side: bool, reached: Operand) -> Option<()> {
        let seldom = || self.parts.rows(part) <= SELDOM * self.rows;
        if !self.guarded || self.parts.steps(part) < GUARDED || !seldom() {
            return self.part(part, reached);
        }
        let here = self.program.allocate()?;
        let (right, left) = if side { (reached, Operand::NONE) } else { (Operand::NONE, reached) };
        self.program.muxes.push([here, right, left, pass]);
        let number = self.program.guards.len();
        let start = self.program.muxes.len();
        self.program.guards.push(Guard { steps: start..start, next: number });
        self.part(part, here)?;
        self.program.release(here);
        self.program.guards[number] = Guard { steps: start..self.program.muxes.len(), next: self.program.guards.len() };
        Some(())
    }

    /// The operand that says whether rows go on behind a part of a path.
    fn goes_on(&mut self, part: u32) -> Option<Operand> {
        let (first, second) = match self.parts.part(part) {
            Part::Leaf(_) => return Some(Operand::NONE),
            Part::Beside { split, .. } => return Some(self.goes_right(self.parts.split(split))),
            Part::Cut { first, second } => (first, second),
        };
        let pass = self.goes_on(first)?;
        self.cuts[part as usize] = Some(pass);
        let beyond = self.goes_on(second)?;
        // Rows that leave in the first part do not go on.
        let leaves = if self.parts.goes_on(second) { Operand::NONE } else { Operand::ALL };
        let (right, left) = if self.parts.goes_on(first) { (beyond, leaves) } else { (leaves, beyond) };
        self.program.mux(pass, right, left)
    }

    /// The operand that is true for rows that go right.
    fn goes_right(&mut self, split: &Split) -> Operand {
        let edges = edges(&split.test);
        let mut ask = |edge: f64, variant| {
            let place = self.questions.place(split.feature, edge, variant);
            self.used[place as usize] = true;
            place
        };
        if let [edge] = edges {
            return Operand(ask(*edge, variant(split.missing, 0, true)));
        }
        let odd = edges.len() % 2 == 1;
        let places = edges.iter().enumerate().map(|(n, edge)| ask(*edge, variant(split.missing, n, odd))).collect();
        // Left is an odd number of edges that are not exceeded.
        self.program.parities.push(Odd { places, negated: !odd });
        Operand::new(Kind::Parity, self.program.parities.len() as u32 - 1)
    }
}

/// Which variant of the codes the `number`th edge of a split asks. What is missing then goes where it shall: above all
/// edges there is no edge that is not exceeded, and below all of them, or all but the first, an odd number is not.
fn variant(missing: Missing, number: usize, odd: bool) -> Variant {
    let low = odd || number > 0;
    match missing {
        Missing::Left if low => Variant::NanLow,
        Missing::Left | Missing::Right => Variant::NanHigh,
        Missing::Zero => Variant::NanZero,
        Missing::ZeroLeft if low => Variant::ZeroLow,
        Missing::ZeroLeft | Missing::ZeroRight => Variant::ZeroHigh,
    }
}
