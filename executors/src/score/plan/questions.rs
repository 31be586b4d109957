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
    /// For each split of some trees, and of the next ones, the operand that is true for rows that go right.
    operands: Vec<Vec<u16>>,
    /// Where those of each tree are: in which of them, and from where on.
    starts: Vec<(usize, usize)>,
}

/// Few models have more different conditions.
const CONDITIONS_USUAL: usize = 3500;

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

/// What some trees ask. Conditions and parities are numbered together.
#[derive(Debug, Default)]
struct Asked {
    conditions: HashMap<Question, u16, RandomState>,
    parities: HashMap<Odd, u16, RandomState>,
    of_split: Vec<u16>,
}

/// A condition that is true for an odd number of others, or with `negated` for an even one.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Odd {
    of: Vec<u16>,
    negated: bool,
}

impl Asked {
    fn count(&self) -> usize {
        self.conditions.len() + self.parities.len()
    }

    /// `None` if there are more questions than operands.
    fn ask(&mut self, split: &Split) -> Option<()> {
        let edges = edges(&split.test);
        let number = match edges {
            [edge] => self.condition(split, *edge, 0, true)?,
            _ => {
                // Left is an odd number of edges that are not exceeded.
                let odd = edges.len() % 2 == 1;
                let of = edges.iter().enumerate().map(|(n, edge)| self.condition(split, *edge, n, odd));
                let of = of.collect::<Option<_>>()?;
                let next = u16::try_from(self.count()).ok()?;
                *self.parities.entry(Odd { of, negated: !odd }).or_insert(next)
            }
        };
        self.of_split.push(number);
        Some(())
    }

    /// The number of the condition of the `number`th edge of a split.
    fn condition(&mut self, split: &Split, edge: f64, number: usize, odd: bool) -> Option<u16> {
        let next = u16::try_from(self.count()).ok()?;
        let question =
            Question { feature: split.feature, variant: variant(split.missing, number, odd), edge: bits(edge) };
        Some(*self.conditions.entry(question).or_insert(next))
    }
}

impl Questions {
    /// `None` if a feature has more cutoffs than ranks can tell apart, or if there are more conditions than operands.
    pub(super) fn of(trees: &[Tree], features: usize) -> Option<Self> {
        // As few parts as there may be: most ask the same.
        let least = PART_TREES.max(trees.len().div_ceil(processors()));
        let asked = in_parts(
            trees.len(),
            least,
            || (),
            |(), part| {
                let mut asked = Asked::default();
                let splits = trees[part.clone()].iter().map(|tree| tree.splits.len()).sum();
                asked.of_split.reserve(splits);
                asked.conditions.reserve(splits.min(CONDITIONS_USUAL));
                trees[part.clone()].iter().flat_map(|tree| &tree.splits).try_for_each(|split| asked.ask(split))?;
                Some((part, asked))
            },
        );
        let asked = asked.into_iter().collect::<Option<Vec<_>>>()?;
        let mut cutoffs = vec![Vec::new(); features];
        for Question { feature, edge, .. } in asked.iter().flat_map(|(_, asked)| asked.conditions.keys()) {
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
        let places = |(_, asked): &(_, Asked)| asked.conditions.iter().map(|(q, number)| (place(q), *number)).collect();
        let places: Vec<Vec<(usize, u16)>> = asked.iter().map(places).collect();
        let mut used = vec![false; count];
        places.iter().flatten().for_each(|(place, _)| used[*place] = true);
        let (of_place, conditions, planes) = number(&cutoffs, &first, &used)?;
        let mut questions =
            Self { cutoffs, conditions, parities: Vec::new(), planes, operands: Vec::new(), starts: Vec::new() };
        let mut known = HashMap::new();
        for ((part, asked), places) in asked.into_iter().zip(places) {
            let mut of_number = vec![0; asked.count()];
            for (place, number) in places {
                of_number[usize::from(number)] = CONDITIONS as u16 + of_place[place];
            }
            questions.add_parities(asked.parities, &mut of_number, &mut known)?;
            let mut operands = asked.of_split;
            operands.iter_mut().for_each(|operand| *operand = of_number[usize::from(*operand)]);
            let mut start = 0;
            for tree in &trees[part] {
                questions.starts.push((questions.operands.len(), start));
                start += tree.splits.len();
            }
            questions.operands.push(operands);
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
        let (part, start) = self.starts[tree];
        &self.operands[part][start..]
    }

    /// Finds the operands of parities, of which those that are not `known` are new.
    fn add_parities(
        &mut self,
        parities: HashMap<Odd, u16, RandomState>,
        of_number: &mut [u16],
        known: &mut HashMap<Parity, u16>,
    ) -> Option<()> {
        let mut in_order: Vec<_> = parities.into_iter().collect();
        in_order.sort_unstable_by_key(|(_, number)| *number);
        for (Odd { of, negated }, number) in in_order {
            let condition = |number: u16| of_number[usize::from(number)] - CONDITIONS as u16;
            let parity = Parity { of: of.into_iter().map(condition).collect(), negated };
            let next = u16::try_from(self.behind()).ok()?;
            let operand = *known.entry(parity.clone()).or_insert(next);
            if operand == next {
                self.parities.push(parity);
            }
            of_number[usize::from(number)] = operand;
        }
        Some(())
    }
}

/// The number of the condition at each place that is used, the conditions, and the planes of each feature, whose `first` place is
/// given. `None` if there are more than operands can name.
#[expect(clippy::type_complexity, reason = "three lists, of which each is named where it goes")]
fn number(cutoffs: &[Vec<f64>], first: &[usize], used: &[bool]) -> Option<(Vec<u16>, Vec<Condition>, Vec<Vec<Plane>>)> {
    let mut of_place = vec![0; used.len()];
    let (mut conditions, mut planes, mut number) = (Vec::new(), vec![Vec::new(); cutoffs.len()], 0);
    for (feature, (cutoffs, first)) in cutoffs.iter().zip(first).enumerate() {
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
