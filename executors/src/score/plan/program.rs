//! The steps that give the number of a tree's leaf, bit by bit.
//!
//! A subtree has a code: some bits, and a leaf for each value that they can have. Two subtrees become one by a bit that says
//! which of them a row is in, and below it the bits of both, of which each pair takes one step. Where one has more bits
//! than the other, those are taken as they are: of rows in the other they mean nothing. So the bits of a leaf beside a
//! large subtree cost nothing, but a code has several values for one leaf.
//!
//! A tree has long paths, and a bit more for each split of a path would be too many. So subtrees are not joined where they
//! hang, but as `cuts.rs` says.

use super::cuts::{Part, Parts};
use super::questions::Questions;
use super::{BITS, Missing, Split, Tree, Variant, edges};

/// An operand before all of them are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operand {
    None,
    All,
    /// The place of a condition among all that can be asked.
    Condition(u32),
    /// One of the parities of the program.
    Parity(u32),
    Temporary(u16),
    /// A bit of the code, which is kept when the program is over.
    Bit(u16),
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
    /// The bits of the code, the lowest first.
    pub(super) bits: Vec<Operand>,
    /// The leaf of each code.
    pub(super) leaf_of: Vec<u16>,
    pub(super) parities: Vec<Odd>,
    /// How many temporary operands it keeps at once.
    pub(super) temporary: usize,
    free: Vec<u16>,
}

/// The bits of a subtree, of which there are as many as it is wide.
type Bits = [Operand; BITS];

impl Program {
    /// `None` for a tree whose codes would be too long.
    pub(super) fn new(tree: &Tree, questions: &Questions, used: &mut [bool]) -> Option<Self> {
        let (parts, root) = Parts::of(tree)?;
        let width = parts.width(root);
        let mut program = Self { leaf_of: vec![0; 1 << width], ..Self::default() };
        let (bits, _) = Steps { parts: &parts, questions, used, program: &mut program }.part(root, false)?;
        program.bits = bits[..width].to_vec();
        program.keep_bits();
        parts.fill(root, &mut program.leaf_of);
        Some(program)
    }

    /// Names the operands of the bits as such from the last step on that computes them.
    fn keep_bits(&mut self) {
        let mut kept = vec![None; self.temporary];
        for (bit, operand) in self.bits.iter_mut().enumerate() {
            if let Operand::Temporary(number) = *operand {
                *operand = *kept[usize::from(number)].get_or_insert(Operand::Bit(bit as u16));
            }
        }
        for [to, sources @ ..] in self.muxes.iter_mut().rev() {
            if let Operand::Temporary(number) = *to
                && let Some(bit) = kept[usize::from(number)].take()
            {
                *to = bit;
            }
            for source in sources {
                if let Operand::Temporary(number) = *source
                    && let Some(bit) = kept[usize::from(number)]
                {
                    *source = bit;
                }
            }
        }
    }

    /// `None` if there are more than 16 bits can name.
    fn allocate(&mut self) -> Option<Operand> {
        if let Some(number) = self.free.pop() {
            return Some(Operand::Temporary(number));
        }
        self.temporary += 1;
        u16::try_from(self.temporary - 1).ok().map(Operand::Temporary)
    }

    /// An operand that no later step needs.
    fn release(&mut self, operand: Operand) {
        if let Operand::Temporary(number) = operand {
            self.free.push(number);
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

/// What makes a program of parts.
struct Steps<'a> {
    parts: &'a Parts<'a>,
    questions: &'a Questions,
    /// Which conditions are asked at all.
    used: &'a mut [bool],
    program: &'a mut Program,
}

impl Steps<'_> {
    /// The bits of a part and, if that is wanted of a part of a path, the operand that says whether rows go on behind it.
    fn part(&mut self, part: u32, wanted: bool) -> Option<(Bits, Operand)> {
        let (first, second) = match self.parts.part(part) {
            Part::Leaf(_) => return Some(([Operand::None; BITS], Operand::None)),
            Part::Beside { split, subtree, .. } => {
                let (bits, _) = self.part(subtree, false)?;
                let split = self.parts.split(split);
                return Some((bits, if wanted { self.goes_right(split) } else { Operand::None }));
            }
            Part::Cut { first, second } => (first, second),
        };
        let (width, width_of_second) = (self.parts.width(first), self.parts.width(second));
        // The wider one first: fewer temporary operands are then kept meanwhile.
        let ((a, pass), (b, beyond)) = match width >= width_of_second {
            true => (self.part(first, true)?, self.part(second, wanted)?),
            false => {
                let second = self.part(second, wanted)?;
                (self.part(first, true)?, second)
            }
        };
        let on = self.parts.goes_on(first);
        let (right, left) = if on { (b, a) } else { (a, b) };
        let mut bits = if width > width_of_second { a } else { b };
        for bit in 0..width.min(width_of_second) {
            bits[bit] = self.program.mux(pass, right[bit], left[bit])?;
        }
        bits[width.max(width_of_second)] = pass;
        if !wanted {
            return Some((bits, Operand::None));
        }
        // Rows that leave in the first part do not go on.
        let leaves = if self.parts.goes_on(second) { Operand::None } else { Operand::All };
        let (right, left) = if on { (beyond, leaves) } else { (leaves, beyond) };
        Some((bits, self.program.mux(pass, right, left)?))
    }

    /// The operand that is true for rows that go right.
    fn goes_right(&mut self, split: &Split) -> Operand {
        let edges = edges(&split.test);
        let mut ask = |edge: f64, variant| {
            let place = self.questions.place(split.feature as usize, edge, variant);
            self.used[place as usize] = true;
            place
        };
        if let [edge] = edges {
            return Operand::Condition(ask(*edge, variant(split.missing, 0, true)));
        }
        let odd = edges.len() % 2 == 1;
        let places = edges.iter().enumerate().map(|(n, edge)| ask(*edge, variant(split.missing, n, odd))).collect();
        // Left is an odd number of edges that are not exceeded.
        self.program.parities.push(Odd { places, negated: !odd });
        Operand::Parity(self.program.parities.len() as u32 - 1)
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
