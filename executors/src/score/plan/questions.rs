//! What splits ask, and the numbers that all operands have.

use std::collections::HashMap;

use super::program::{Odd, Operand, Program};
use super::steps::Mux;
use super::{
    ALL, CONDITIONS, CUTOFFS_MAX, Condition, NONE, PAGE, PART_TREES, Parity, Plane, Tree, VARIANTS, Variant, WOVEN,
    edges, in_parts,
};

/// All that splits ask.
pub(super) struct Questions {
    /// The cutoffs of each feature, ascending.
    pub(super) cutoffs: Vec<Vec<f64>>,
    /// The first place of each feature: each of its cutoffs has a place for each variant.
    first: Vec<u32>,
    /// How many places there are.
    pub(super) count: usize,
}

impl Questions {
    /// `None` if a feature has more cutoffs than ranks can tell apart.
    pub(super) fn of(trees: &[Tree], features: usize) -> Option<Self> {
        let mut cutoffs = vec![Vec::new(); features];
        for split in trees.iter().flat_map(|t| &t.splits) {
            // -0 and 0 are one cutoff.
            cutoffs[split.feature as usize].extend(edges(&split.test).iter().map(|t| t + 0.0));
        }
        let sorted = in_parts(features, if trees.len() < PART_TREES { features } else { 1 }, |part| {
            let sorted = |of: &Vec<f64>| {
                let mut of = of.clone();
                of.sort_unstable_by(f64::total_cmp);
                of.dedup();
                of.shrink_to_fit();
                of
            };
            cutoffs[part].iter().map(sorted).collect::<Vec<_>>()
        });
        let cutoffs: Vec<Vec<f64>> = sorted.into_iter().flatten().collect();
        let (mut first, mut count) = (Vec::with_capacity(features), 0);
        for of in &cutoffs {
            first.push(u32::try_from(count).ok()?);
            count += of.len() * VARIANTS;
        }
        let fits = u32::try_from(count).is_ok() && cutoffs.iter().all(|of| of.len() <= CUTOFFS_MAX);
        fits.then_some(Self { cutoffs, first, count })
    }

    /// The place of the condition that is true above an edge.
    pub(super) fn place(&self, feature: usize, edge: f64, variant: Variant) -> u32 {
        let rank = self.cutoffs[feature].partition_point(|t| *t < edge);
        self.first[feature] + (rank * VARIANTS + variant as usize) as u32
    }

    /// Numbers everything that is used: the conditions of a plane are beside each other.
    pub(super) fn numbering(
        &self,
        used: &[bool],
        programs: &[Program],
    ) -> Option<(Numbering, Vec<Condition>, Vec<Vec<Plane>>)> {
        let mut of_place = vec![0; self.count];
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
        let temporary = programs.iter().map(|program| program.temporary).max().unwrap_or(0) * WOVEN;
        numbering.operands = numbering.temporary() + temporary;
        (numbering.operands <= usize::from(u16::MAX)).then_some((numbering, conditions, planes))
    }
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

    /// The number of an operand of a program.
    fn operand(&self, program: usize, operand: Operand) -> u16 {
        let number = match operand {
            Operand::None => return NONE,
            Operand::All => return ALL,
            Operand::Condition(place) => CONDITIONS + usize::from(self.of_place[place as usize]),
            Operand::Parity(n) => CONDITIONS + self.conditions + usize::from(self.parities[program][n as usize]),
            Operand::Bit(n) => self.first_bit() + program % WOVEN * self.bits + usize::from(n),
            // Trees that are woven have their own.
            Operand::Temporary(n) => self.temporary() + usize::from(n) * WOVEN + program % WOVEN,
        };
        // All are below `operands`.
        number as u16
    }

    /// The bits of the low byte of a code, and those of the high byte.
    pub(super) fn bits(&self, program: usize, bits: &[Operand]) -> Option<(ByteBits, ByteBits)> {
        let of = |(bit, operand): (usize, &Operand)| (self.operand(program, *operand), 1 << (bit % 8));
        let (low, high) = bits.split_at(bits.len().min(8));
        Some((low.iter().enumerate().map(of).collect(), high.iter().enumerate().map(of).collect()))
    }
}

/// Steps of several trees in turn: each waits for what a step of its own tree just stored, and those of the others can
/// run meanwhile. With where those of each set of trees start.
pub(super) fn weave(first: usize, programs: &[Program], numbering: &Numbering) -> Option<(Vec<Mux>, Vec<usize>)> {
    let mut muxes = Vec::with_capacity(programs.iter().map(|program| program.muxes.len()).sum());
    let mut starts = Vec::with_capacity(programs.len().div_ceil(WOVEN));
    for (set, woven) in programs.chunks(WOVEN).enumerate() {
        starts.push(muxes.len());
        let longest = woven.iter().map(|program| program.muxes.len()).max().unwrap_or(0);
        for step in 0..longest {
            for (i, program) in woven.iter().enumerate() {
                let number = |operand| numbering.operand(first + set * WOVEN + i, operand);
                muxes.extend(program.muxes.get(step).map(|mux| Mux::new(mux.map(number))));
            }
        }
    }
    Some((muxes, starts))
}
