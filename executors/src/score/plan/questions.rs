//! What splits ask, and the numbers of the operands that answer.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use ahash::RandomState;

use super::{
    CONDITIONS, CUTOFFS_MAX, Condition, Missing, PAGE, PART_TREES, Parity, Plane, Split, Test, Tree, VARIANTS, Variant,
    in_parts, processors,
};

/// All that splits ask, each question once.
#[derive(Debug)]
pub(super) struct Questions {
    /// The cutoffs of each feature, ascending.
    pub(super) cutoffs: Vec<Vec<f64>>,
    /// Those of a plane are beside each other.
    pub(super) conditions: Vec<Condition>,
    pub(super) parities: Vec<Parity>,
    /// Those of each feature.
    pub(super) planes: Vec<Vec<Plane>>,
    /// For each split of each tree the operand that is true for rows that go right.
    operands: Vec<u16>,
    /// Where those of each tree start.
    starts: Vec<usize>,
}

/// Few models have more different conditions.
const CONDITIONS_USUAL: usize = 4096;

/// What is asked of a feature, above an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Question {
    feature: u32,
    variant: Variant,
    edge: u64,
}

impl Hash for Question {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Of two numbers and not three, as it is done for each split of a model.
        state.write_u64(self.edge);
        state.write_u64(u64::from(self.feature) << 8 | self.variant as u64);
    }
}

/// What some trees ask.
#[derive(Debug, Default)]
struct Asked {
    conditions: HashMap<Question, u32, RandomState>,
    parities: HashMap<Odd, u32, RandomState>,
    /// For each split the number of a condition or, complemented, of a parity.
    of_split: Vec<i32>,
}

/// A condition that is true for an odd number of others, or with `negated` for an even one.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Odd {
    of: Vec<u32>,
    negated: bool,
}

impl Asked {
    fn ask(&mut self, split: &Split) {
        let next = self.parities.len() as i32;
        let mut condition = |edge, variant| {
            let next = self.conditions.len() as u32;
            *self.conditions.entry(Question { feature: split.feature, variant, edge: bits(edge) }).or_insert(next)
        };
        let edges = edges(&split.test);
        if let [edge] = edges {
            self.of_split.push(condition(*edge, variant(split.missing, 0, true)) as i32);
            return;
        }
        let odd = edges.len() % 2 == 1;
        let of = edges.iter().enumerate().map(|(n, edge)| condition(*edge, variant(split.missing, n, odd))).collect();
        // Left is an odd number of edges that are not exceeded.
        let number = *self.parities.entry(Odd { of, negated: !odd }).or_insert(next as u32);
        self.of_split.push(!(number as i32));
    }
}

impl Questions {
    /// `None` if a feature has more cutoffs than ranks can tell apart, or if there are more conditions than operands.
    pub(super) fn of(trees: &[Tree], features: usize) -> Option<Self> {
        // As few parts as there may be: most ask the same.
        let least = PART_TREES.max(trees.len().div_ceil(processors()));
        let asked = in_parts(trees.len(), least, || (), |(), part| {
            let mut asked = Asked::default();
            let splits = trees[part.clone()].iter().map(|tree| tree.splits.len()).sum();
            asked.of_split.reserve(splits);
            asked.conditions.reserve(splits.min(CONDITIONS_USUAL));
            trees[part].iter().flat_map(|tree| &tree.splits).for_each(|split| asked.ask(split));
            asked
        });
        let mut cutoffs = vec![Vec::new(); features];
        for Question { feature, edge, .. } in asked.iter().flat_map(|asked| asked.conditions.keys()) {
            cutoffs[*feature as usize].push(f64::from_bits(*edge));
        }
        let (mut first, mut count) = (Vec::with_capacity(features), 0);
        for of in &mut cutoffs {
            of.sort_unstable_by(f64::total_cmp);
            of.dedup();
            first.push(count);
            count += of.len() * VARIANTS;
            if of.len() > CUTOFFS_MAX {
                return None;
            }
        }
        // Each cutoff has a place for each variant.
        let place = |Question { feature, variant, edge }: &Question| {
            let below = |cutoff: &f64| *cutoff < f64::from_bits(*edge);
            let rank = cutoffs[*feature as usize].partition_point(below);
            first[*feature as usize] + rank * VARIANTS + *variant as usize
        };
        let places: Vec<Vec<(usize, u32)>> =
            asked.iter().map(|asked| asked.conditions.iter().map(|(q, number)| (place(q), *number)).collect()).collect();
        let mut used = vec![false; count];
        places.iter().flatten().for_each(|(place, _)| used[*place] = true);
        let (of_place, conditions, planes) = number(&cutoffs, &used)?;
        let mut questions =
            Self { cutoffs, conditions, parities: Vec::new(), planes, operands: Vec::new(), starts: Vec::new() };
        questions.operands.reserve(asked.iter().map(|asked| asked.of_split.len()).sum());
        let mut known = HashMap::new();
        for (asked, places) in asked.into_iter().zip(places) {
            let mut of_number = vec![0; places.len()];
            places.into_iter().for_each(|(place, number)| of_number[number as usize] = of_place[place]);
            let of_parity = questions.add_parities(asked.parities, &of_number, &mut known)?;
            let condition = |number: usize| CONDITIONS as u16 + of_number[number];
            let operand = |number: &i32| match *number < 0 {
                true => of_parity[!*number as usize],
                false => condition(*number as usize),
            };
            questions.operands.extend(asked.of_split.iter().map(operand));
        }
        let mut start = 0;
        for tree in trees {
            questions.starts.push(start);
            start += tree.splits.len();
        }
        Some(questions)
    }

    /// How many cutoffs there are.
    pub(super) fn asked(&self) -> usize {
        self.cutoffs.iter().map(Vec::len).sum()
    }

    /// The first operand that is neither constant nor a condition.
    pub(super) fn behind(&self) -> usize {
        CONDITIONS + self.conditions.len() + self.parities.len()
    }

    /// For each split of a tree the operand that is true for rows that go right.
    pub(super) fn operands(&self, tree: usize) -> &[u16] {
        &self.operands[self.starts[tree]..]
    }

    /// The operands of the parities of some trees, of which those that are not `known` are new.
    fn add_parities(
        &mut self,
        parities: HashMap<Odd, u32, RandomState>,
        of_number: &[u16],
        known: &mut HashMap<Parity, u16>,
    ) -> Option<Vec<u16>> {
        let mut in_order: Vec<_> = parities.into_iter().collect();
        in_order.sort_unstable_by_key(|(_, number)| *number);
        let mut operands = Vec::with_capacity(in_order.len());
        for (Odd { of, negated }, _) in in_order {
            let parity = Parity { of: of.into_iter().map(|number| of_number[number as usize]).collect(), negated };
            let next = u16::try_from(self.behind()).ok()?;
            let operand = *known.entry(parity.clone()).or_insert(next);
            if operand == next {
                self.parities.push(parity);
            }
            operands.push(operand);
        }
        Some(operands)
    }
}

/// The number of the condition at each place that is used, the conditions, and the planes of each feature. `None` if there are
/// more than operands can name.
#[expect(clippy::type_complexity, reason = "three lists, of which each is named where it goes")]
fn number(cutoffs: &[Vec<f64>], used: &[bool]) -> Option<(Vec<u16>, Vec<Condition>, Vec<Vec<Plane>>)> {
    let mut of_place = vec![0; used.len()];
    let (mut conditions, mut planes, mut number, mut first) = (Vec::new(), vec![Vec::new(); cutoffs.len()], 0, 0);
    for (feature, cutoffs) in cutoffs.iter().enumerate() {
        for page in 0..cutoffs.len().div_ceil(PAGE) {
            for variant in [Variant::NanLow, Variant::NanHigh, Variant::NanZero, Variant::ZeroLow, Variant::ZeroHigh] {
                let before = conditions.len();
                for rank in page * PAGE..((page + 1) * PAGE).min(cutoffs.len()) {
                    let place = first + rank * VARIANTS + variant as usize;
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
        first += cutoffs.len() * VARIANTS;
    }
    Some((of_place, conditions, planes))
}

/// The boundaries of a test. Of a set of nothing, two that cancel each other: what is missing may still go left.
fn edges(test: &Test) -> &[f64] {
    match test.boundaries() {
        [] => &[f64::NEG_INFINITY; 2],
        edges => edges,
    }
}

/// An edge as a key: -0 and 0 are one.
fn bits(edge: f64) -> u64 {
    (edge + 0.0).to_bits()
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
