//! What splits ask, and the numbers that all operands have.

use std::collections::HashMap;
use std::ops::Range;

use ahash::RandomState;

use super::program::{Kind, Odd, Operand, Program};
use super::steps::Mux;
use super::{
    ALL, CONDITIONS, CUTOFFS_MAX, Condition, NONE, PAGE, PART_TREES, Parity, Plane, Tree, VARIANTS, Variant, WOVEN,
    edges, in_parts,
};

/// All that splits ask.
pub(super) struct Questions {
    /// The cutoffs of each feature, ascending.
    pub(super) cutoffs: Vec<Vec<f64>>,
    /// The place of each cutoff among those of its feature.
    ranks: HashMap<(u32, u64), u32, RandomState>,
    /// The first place of each feature: each of its cutoffs has a place for each variant.
    first: Vec<u32>,
    /// How many places there are.
    pub(super) count: usize,
}

impl Questions {
    /// `None` if a feature has more cutoffs than ranks can tell apart.
    pub(super) fn of(trees: &[Tree], features: usize) -> Option<Self> {
        let seed = RandomState::new();
        let asked = in_parts(trees.len(), PART_TREES, |part| {
            let mut asked = HashMap::with_hasher(seed.clone());
            for split in trees[part].iter().flat_map(|t| &t.splits) {
                asked.extend(edges(&split.test).iter().map(|edge| (asked_at(split.feature, *edge), 0)));
            }
            asked
        });
        let mut ranks = asked.into_iter().reduce(|mut all, part| {
            all.extend(part);
            all
        })?;
        let mut cutoffs = vec![Vec::new(); features];
        ranks.keys().for_each(|(feature, edge)| cutoffs[*feature as usize].push(f64::from_bits(*edge)));
        for (feature, of) in cutoffs.iter_mut().enumerate() {
            of.sort_unstable_by(f64::total_cmp);
            for (edge, rank) in of.iter().zip(0..) {
                ranks.insert(asked_at(feature as u32, *edge), rank);
            }
        }
        let (mut first, mut count) = (Vec::with_capacity(features), 0);
        for of in &cutoffs {
            first.push(u32::try_from(count).ok()?);
            count += of.len() * VARIANTS;
        }
        let fits = count < Operand::PLACES as usize && cutoffs.iter().all(|of| of.len() <= CUTOFFS_MAX);
        fits.then_some(Self { cutoffs, ranks, first, count })
    }

    /// How many cutoffs there are.
    pub(super) fn asked(&self) -> usize {
        self.count / VARIANTS
    }

    /// The place of the condition that is true above an edge.
    pub(super) fn place(&self, feature: u32, edge: f64, variant: Variant) -> u32 {
        let rank = self.ranks[&asked_at(feature, edge)];
        self.first[feature as usize] + rank * VARIANTS as u32 + variant as u32
    }

    /// Numbers everything that is used: the conditions of a plane are beside each other.
    pub(super) fn numbering(
        &self,
        used: &[bool],
        programs: &[Program],
    ) -> Option<(Numbering, Vec<Condition>, Vec<Vec<Plane>>)> {
        // One more, for those that are no conditions.
        let mut of_place = vec![0; self.count + 1];
        let (mut conditions, mut planes, mut number) = (Vec::new(), vec![Vec::new(); self.cutoffs.len()], 0);
        for (feature, cutoffs) in self.cutoffs.iter().enumerate() {
            for page in 0..cutoffs.len().div_ceil(PAGE) {
                for variant in
                    [Variant::NanLow, Variant::NanHigh, Variant::NanZero, Variant::ZeroLow, Variant::ZeroHigh]
                {
                    let before = conditions.len();
                    for rank in page * PAGE..((page + 1) * PAGE).min(cutoffs.len()) {
                        let place = self.first[feature] as usize + rank * VARIANTS + variant as usize;
                        if used[place] {
                            of_place[place] = u16::try_from(conditions.len()).ok()?;
                            conditions.push(Condition { plane: number, threshold: (rank % PAGE) as u8 });
                        }
                    }
                    if conditions.len() > before {
                        planes[feature].push(Plane { page: page as u16, variant, number });
                        number += 1;
                    }
                }
            }
        }
        let mut numbering = Numbering { of_place, conditions: conditions.len(), ..Numbering::default() };
        numbering.number_parities(programs)?;
        numbering.bits = programs.iter().map(|program| program.bits.len()).max().unwrap_or(0);
        numbering.alone =
            programs.chunks(WOVEN).map(|set| set.iter().any(|program| !program.guards.is_empty())).collect();
        let temporary =
            programs.iter().enumerate().map(|(number, program)| program.temporary * numbering.woven(number));
        numbering.operands = numbering.temporary() + temporary.max().unwrap_or(0);
        (numbering.operands <= usize::from(u16::MAX)).then_some((numbering, conditions, planes))
    }
}

/// What is asked of a feature at an edge. -0 and 0 are one cutoff.
fn asked_at(feature: u32, edge: f64) -> (u32, u64) {
    (feature, (edge + 0.0).to_bits())
}

/// The numbers of operands.
#[derive(Debug, Default)]
pub(super) struct Numbering {
    /// The number of the condition at each place that is used.
    of_place: Vec<u16>,
    /// How many conditions there are.
    conditions: usize,
    pub(super) all_parities: Vec<Parity>,
    /// Those of each program.
    parities: Vec<Vec<u16>>,
    /// The most bits of a code.
    bits: usize,
    /// For each set of trees whether its trees come one after the other, since some have guards.
    alone: Vec<bool>,
    pub(super) operands: usize,
}

/// Operands of bits, each with its value in a byte.
pub(super) type ByteBits = Vec<(u16, u8)>;

impl Numbering {
    /// Numbers parities, each once.
    fn number_parities(&mut self, programs: &[Program]) -> Option<()> {
        let mut known: HashMap<&Odd, u16> = HashMap::new();
        for program in programs {
            let mut numbers = Vec::with_capacity(program.parities.len());
            for odd in &program.parities {
                let next = u16::try_from(known.len()).ok()?;
                let number = *known.entry(odd).or_insert(next);
                if number == next {
                    let of = odd.places.iter().map(|place| self.of_place[*place as usize]).collect();
                    self.all_parities.push(Parity { of, negated: odd.negated });
                }
                numbers.push(number);
            }
            self.parities.push(numbers);
        }
        Some(())
    }

    /// The first operand that is a bit of a code.
    fn first_bit(&self) -> usize {
        CONDITIONS + self.conditions + self.all_parities.len()
    }

    /// The first temporary operand.
    fn temporary(&self) -> usize {
        self.first_bit() + WOVEN * self.bits
    }

    /// How many programs are woven where this one is.
    fn woven(&self, program: usize) -> usize {
        if self.alone[program / WOVEN] { 1 } else { WOVEN }
    }

    /// What numbers the operands of a program.
    fn of_program(&self, program: usize) -> impl Fn(Operand) -> u16 {
        let lane = program % WOVEN;
        let woven = self.woven(program);
        // Of each kind, the number of the first and the step to the next.
        let mut kinds = [(0, 0); 4];
        kinds[Kind::Constant as usize] = (usize::from(NONE), usize::from(ALL - NONE));
        kinds[Kind::Bit as usize] = (self.first_bit() + lane * self.bits, 1);
        // Trees that are woven have their own.
        kinds[Kind::Temporary as usize] = (self.temporary() + lane % woven, woven);
        move |operand| {
            let (kind, n) = operand.numbered();
            let place = operand.place();
            if kind == Kind::Parity as usize && place.is_none() {
                return (CONDITIONS + self.conditions) as u16 + self.parities[program][n as usize];
            }
            // Both are computed, since which of them it is could not be predicted.
            let (first, step) = kinds[kind];
            let condition = self.of_place[place.unwrap_or(0) as usize];
            // All are below `operands`.
            let other = (first + n as usize * step) as u16;
            if place.is_some() { CONDITIONS as u16 + condition } else { other }
        }
    }

    /// The bits of the low byte of a code, and those of the high byte.
    pub(super) fn bits(&self, program: usize, bits: &[Operand]) -> Option<(ByteBits, ByteBits)> {
        let number = self.of_program(program);
        let of = |(bit, operand): (usize, &Operand)| (number(*operand), 1 << (bit % 8));
        let (low, high) = bits.split_at(bits.len().min(8));
        Some((low.iter().enumerate().map(of).collect(), high.iter().enumerate().map(of).collect()))
    }
}

/// Steps of several trees in turn: each waits for what a step of its own tree just stored, and those of the others can
/// run meanwhile. With the steps of each tree: of those that are woven, the first has them all.
pub(super) fn weave(first: usize, programs: &[Program], numbering: &Numbering) -> (Vec<Mux>, Vec<Range<usize>>) {
    let mut muxes = Vec::with_capacity(programs.iter().map(|program| program.muxes.len()).sum());
    let mut ranges = Vec::with_capacity(programs.len());
    for (number, set) in programs.chunks(WOVEN).enumerate() {
        let first = first + number * WOVEN;
        let count = numbering.woven(first);
        for (number, woven) in set.chunks(count).enumerate() {
            let (first, start) = (first + number * count, muxes.len());
            let number: Vec<_> = (0..woven.len()).map(|i| numbering.of_program(first + i)).collect();
            let longest = woven.iter().map(|program| program.muxes.len()).max().unwrap_or(0);
            for step in 0..longest {
                for (program, number) in woven.iter().zip(&number) {
                    muxes.extend(program.muxes.get(step).map(|mux| Mux::new(mux.map(number))));
                }
            }
            let behind = muxes.len();
            ranges.push(start..behind);
            ranges.extend(woven[1..].iter().map(|_| behind..behind));
        }
    }
    (muxes, ranges)
}
