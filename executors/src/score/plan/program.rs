//! The steps that give the number of a tree's leaf, bit by bit.
//!
//! A subtree has a code: some bits, and a leaf for each value that they can have. Two subtrees become one by a bit that says
//! which of them a row is in, and below it the bits of both, of which each pair takes one step. Where one has more bits
//! than the other, those are taken as they are: of rows in the other they mean nothing. So the bits of a leaf beside a
//! large subtree cost nothing, but a code has several values for one leaf.
//!
//! A tree has long paths, and a bit more for each split of a path would be too many. So subtrees are not joined where they
//! hang: a path from the root along the larger children is cut into halves of like weight, again and again, and the bit of a cut
//! says whether a row is still on the path there.
//!
//! ```text
//!  path      s0 ── s1 ── s2 ── s3 ── leaf          cuts         ┌── s0 goes on and s1 goes on? ──┐
//!            │     │     │     │                         ┌─ s0 goes on? ─┐          ┌─ s2 goes on? ─┐
//!  beside    a     b     c     d                         a               b          c       ┌─ s3 goes on? ─┐
//!                                                                                           d             leaf
//! ```

use super::{BITS, Missing, Questions, Split, Tree, Variant, edges};

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

/// What a tree is made of once its paths are cut.
#[derive(Debug, Clone, Copy)]
enum Part {
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

/// The parts of a tree; the last is all of it.
struct Parts<'a> {
    tree: &'a Tree,
    /// Leaves below each split.
    sizes: Vec<u32>,
    /// With the width of each.
    parts: Vec<(Part, usize)>,
    /// Parts of the paths that are being cut, each with the weight of its path up to there.
    path: Vec<(u32, u64)>,
}

impl Program {
    /// `None` for a tree whose codes would be too long.
    pub(super) fn new(tree: &Tree, questions: &Questions, used: &mut [bool]) -> Option<Self> {
        let parts = Parts::of(tree)?;
        let root = parts.parts.len() as u32 - 1;
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

impl<'a> Parts<'a> {
    fn of(tree: &'a Tree) -> Option<Self> {
        if tree.leaf_count() > 1 << BITS {
            return None;
        }
        let mut sizes = vec![0u32; tree.splits.len()];
        let size = |sizes: &[u32], child: i32| if child < 0 { 1 } else { sizes[child as usize] };
        // Children come after their parents.
        for (number, split) in tree.splits.iter().enumerate().rev() {
            sizes[number] = size(&sizes, split.left) + size(&sizes, split.right);
        }
        let mut parts = Self { tree, sizes, parts: Vec::with_capacity(4 * tree.leaf_count()), path: Vec::new() };
        let root = parts.subtree(if tree.splits.is_empty() { !0 } else { 0 })?;
        // More codes than these would not pay.
        (1usize << parts.width(root) <= 64 * tree.leaf_count()).then_some(parts)
    }

    fn width(&self, part: u32) -> usize {
        self.parts[part as usize].1
    }

    fn add(&mut self, part: Part, width: usize) -> Option<u32> {
        self.parts.push((part, width));
        (width <= BITS).then_some(self.parts.len() as u32 - 1)
    }

    /// The part that a node is. A subtree beside a path has at most half of its leaves, so this does not call itself often.
    fn subtree(&mut self, mut node: i32) -> Option<u32> {
        let size = |parts: &Self, child: i32| if child < 0 { 1 } else { parts.sizes[child as usize] };
        let (start, mut weight) = (self.path.len(), 0);
        while node >= 0 {
            let split = &self.tree.splits[node as usize];
            let right = size(self, split.left) >= size(self, split.right);
            let (along, beside) = if right { (split.left, split.right) } else { (split.right, split.left) };
            let subtree = self.subtree(beside)?;
            let width = self.width(subtree);
            let part = self.add(Part::Beside { split: node as u32, right, subtree }, width)?;
            weight += 1 << width;
            self.path.push((part, weight));
            node = along;
        }
        let leaf = self.add(Part::Leaf(!node as u16), 0)?;
        self.path.push((leaf, weight + 1));
        let whole = self.cut(start, self.path.len(), 0);
        self.path.truncate(start);
        whole
    }

    /// The part that `start..end` of the path are, before which it has some weight.
    fn cut(&mut self, start: usize, end: usize, before: u64) -> Option<u32> {
        if end - start == 1 {
            return Some(self.path[start].0);
        }
        let weight = |end: usize| self.path[end - 1].1;
        let middle = before.midpoint(weight(end));
        let above = start + self.path[start..end].partition_point(|(_, weight)| *weight <= middle);
        let nearer_below = above > start && (above + 1 == end || middle - weight(above) <= weight(above + 1) - middle);
        let at = if nearer_below { above } else { above + 1 };
        let between = weight(at);
        let (first, second) = (self.cut(start, at, before)?, self.cut(at, end, between)?);
        self.add(Part::Cut { first, second }, 1 + self.width(first).max(self.width(second)))
    }

    /// Puts the leaf of each code where the code says.
    fn fill(&self, part: u32, out: &mut [u16]) {
        match self.parts[part as usize] {
            (Part::Leaf(leaf), _) => out.fill(leaf),
            (Part::Beside { subtree, .. }, _) => self.fill(subtree, out),
            (Part::Cut { first, second }, width) => {
                let mut done = 1 << width;
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
    fn goes_on(&self, part: u32) -> bool {
        match self.parts[part as usize].0 {
            Part::Leaf(_) => true,
            Part::Beside { right, .. } => !right,
            Part::Cut { second, .. } => self.goes_on(second),
        }
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
        let (first, second) = match self.parts.parts[part as usize].0 {
            Part::Leaf(_) => return Some(([Operand::None; BITS], Operand::None)),
            Part::Beside { split, subtree, .. } => {
                let (bits, _) = self.part(subtree, false)?;
                let split = &self.parts.tree.splits[split as usize];
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
