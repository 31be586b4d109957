//! Trees from the lists of their sections.

use featurectl_core::Result;

use super::numbers::{Known, quick};
use super::recoding::Recoding;
use super::section::Section;
use crate::score::forest::{LinearLeaf, Missing, Split, Test, Tree, ZERO};

/// The keys of a tree that matter for scoring.
pub(super) const TREE_KEYS: &[&str] = &[
    "num_leaves",
    "num_cat",
    "split_feature",
    "threshold",
    "decision_type",
    "left_child",
    "right_child",
    "leaf_value",
    "leaf_count",
    "internal_count",
    "cat_boundaries",
    "cat_threshold",
    "is_linear",
    "leaf_const",
    "num_features",
    "leaf_features",
    "leaf_coeff",
];

/// The tree of a section.
pub(super) fn tree(section: &Section, output: u32, recoding: &Recoding, known: &mut Known) -> Result<Tree> {
    let leaf_count: usize = section.number("num_leaves")?;
    if leaf_count == 0 {
        return Err(section.damaged(section.line("num_leaves"), "it has no leaves"));
    }
    let leaves = section.exactly("leaf_value", leaf_count)?;
    let linear = if section.flag("is_linear")? { linear_leaves(section, leaf_count)? } else { Vec::new() };
    let splits = if leaf_count == 1 { Vec::new() } else { splits(section, leaf_count - 1, recoding, known)? };
    Ok(Tree { output: Some(output), splits, leaves, linear, covers: covers(section, leaf_count)? })
}

/// How many rows came to each split and leaf; nothing if the file does not say.
fn covers(section: &Section, leaf_count: usize) -> Result<Vec<f64>> {
    if leaf_count == 1 || section.get("internal_count").is_none() || section.get("leaf_count").is_none() {
        return Ok(Vec::new());
    }
    // Whole numbers are read faster; few files have others.
    let whole = |text: &[u8]| quick::<u32>(text).map(|(count, length)| (f64::from(count), length));
    let counts = |key, count| section.exactly_by(key, count, whole);
    let mut covers = counts("internal_count", leaf_count - 1)?;
    covers.extend(counts("leaf_count", leaf_count)?);
    Ok(covers)
}

/// The `count` splits of a tree, gathered from a list per property.
fn splits(section: &Section, count: usize, recoding: &Recoding, known: &mut Known) -> Result<Vec<Split>> {
    let features: Vec<u32> = section.exactly("split_feature", count)?;
    let thresholds: Vec<f64> = section.exactly_by("threshold", count, |text| known.number(text))?;
    let decisions: Vec<u8> = section.exactly("decision_type", count)?;
    let left: Vec<i32> = section.exactly("left_child", count)?;
    let right: Vec<i32> = section.exactly("right_child", count)?;
    let mut sets = Sets::read(section)?;
    let mut splits = Vec::with_capacity(count);
    let children = left.into_iter().zip(right);
    for (((feature, threshold), decision), (left, right)) in
        features.into_iter().zip(thresholds).zip(decisions).zip(children)
    {
        let (test, missing) = match decision & 1 != 0 {
            true => {
                let set = sets.take(section, threshold)?;
                let test = recoding.test(feature, &set).map_err(|e| section.place(section.line("threshold"), e))?;
                (test, Missing::Right)
            }
            false => {
                recoding.check_number(feature).map_err(|e| section.place(section.line("split_feature"), e))?;
                (Test::AtMost(boundary(threshold)), missing(section, decision)?)
            }
        };
        splits.push(Split { feature, test, missing, left, right });
    }
    Ok(splits)
}

/// Where missing values go by the bits of a decision: 2 for default left, and two more for what is missing.
fn missing(section: &Section, bits: u8) -> Result<Missing> {
    let damaged = || section.damaged(section.line("decision_type"), &format!("`decision_type` has the value `{bits}`"));
    missing_of(bits >> 2, bits & 2 != 0).ok_or_else(damaged)
}

/// Where values go that are missing, by LightGBM's number of what is missing: nothing, zeros and NaN, or NaN. Where nothing
/// is, NaN is read as 0, whatever the default.
pub(in crate::score::format) fn missing_of(kind: u8, default_left: bool) -> Option<Missing> {
    match (kind, default_left) {
        (0, _) => Some(Missing::Zero),
        (1, true) => Some(Missing::ZeroLeft),
        (1, false) => Some(Missing::ZeroRight),
        (2, true) => Some(Missing::Left),
        (2, false) => Some(Missing::Right),
        _ => None,
    }
}

/// The boundary that a value meets as it is.
///
/// LightGBM reads values within [`ZERO`] of zero as 0, before any tree sees them. So all of them have to be on the side
/// of 0:
///
/// ```text
///  x read as       x  ──┤-ZERO      0      ZERO├──  x
///  t in [0, ZERO)       └── all of them left ──┘│t moves here
///  t in [-ZERO, 0)  t moves here│└─────── all of them right
/// ```
pub(in crate::score::format) fn boundary(t: f64) -> f64 {
    match t {
        _ if t.abs() > ZERO => t,
        _ if (0.0..ZERO).contains(&t) => ZERO,
        _ if (-ZERO..0.0).contains(&t) => (-ZERO).next_down(),
        _ => t,
    }
}

/// The sets of categories of a tree.
struct Sets {
    /// Set `i` is in the words from boundary `i` to boundary `i + 1`.
    boundaries: Vec<usize>,
    /// Bit `b` of word `w` of a set stands for category `32 w + b`.
    words: Vec<u32>,
    /// Each set belongs to one split. If many could share it, a small file could ask for any amount of memory.
    taken: Vec<bool>,
}

impl Sets {
    /// The sets of a section, none if it has no categorical split.
    fn read(section: &Section) -> Result<Self> {
        if !section.flag("num_cat")? {
            return Ok(Self { boundaries: Vec::new(), words: Vec::new(), taken: Vec::new() });
        }
        let count: usize = section.number("num_cat")?;
        let boundaries: Vec<usize> = section.exactly("cat_boundaries", count.saturating_add(1))?;
        let words: Vec<u32> = section.list("cat_threshold")?;
        if !boundaries.is_sorted() || boundaries.last().is_some_and(|end| *end > words.len()) {
            let what = format!("`cat_boundaries` do not ascend to at most {}", words.len());
            return Err(section.damaged(section.line("cat_boundaries"), &what));
        }
        Ok(Self { taken: vec![false; count], boundaries, words })
    }

    /// The categories of the set that a threshold names, ascending.
    fn take(&mut self, section: &Section, threshold: f64) -> Result<Vec<u32>> {
        let wrong = || {
            let what = format!("a categorical split has the set {threshold} of {}", self.taken.len());
            section.damaged(section.line("threshold"), &what)
        };
        // A cast of NaN or of a number that is too low gives 0.
        let set = threshold as usize;
        if set as f64 != threshold || set >= self.taken.len() {
            return Err(wrong());
        }
        if std::mem::replace(&mut self.taken[set], true) {
            return Err(section.damaged(section.line("threshold"), &format!("two splits have the set {set}")));
        }
        let words = &self.words[self.boundaries[set]..self.boundaries[set + 1]];
        if words.len() > 1 << 26 {
            return Err(section.damaged(section.line("cat_threshold"), "a category is above 2147483647"));
        }
        let bits = |(at, word): (usize, &u32)| {
            let word = *word;
            (0..32).filter(move |bit| word >> bit & 1 != 0).map(move |bit| at as u32 * 32 + bit)
        };
        Ok(words.iter().enumerate().flat_map(bits).collect())
    }
}

/// The linear functions of the leaves of a tree, from lists that hold the terms of one leaf after the other.
fn linear_leaves(section: &Section, count: usize) -> Result<Vec<LinearLeaf>> {
    let constants: Vec<f64> = section.exactly("leaf_const", count)?;
    let lengths: Vec<usize> = section.exactly("num_features", count)?;
    let total = lengths.iter().fold(0usize, |sum, length| sum.saturating_add(*length));
    let features: Vec<u32> = section.exactly("leaf_features", total)?;
    let coefficients: Vec<f64> = section.exactly("leaf_coeff", total)?;
    let mut terms = features.into_iter().zip(coefficients);
    let leaf = |(constant, length)| LinearLeaf { constant, terms: terms.by_ref().take(length).collect() };
    Ok(constants.into_iter().zip(lengths).map(leaf).collect())
}
