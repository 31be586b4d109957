//! Reads LightGBM's text format, versions 3 and 4.
//!
//! The format is lines of `key=value`: a header, a section per tree, and notes about the training that scoring does not
//! need. Numbers are written so that reading them gives the same bits.
//!
//! ```text
//!  tree                                     Tree=0                              end of trees
//!  version=v4                               num_leaves=3                        feature_importances:
//!  num_class=1                              split_feature=1 0                   …
//!  max_feature_idx=1              ──▶       threshold=0.5 2         ──▶         parameters:
//!  objective=binary sigmoid:1               decision_type=10 8                  …
//!  feature_names=a b                        left_child=1 -1          (-1 is leaf 0)
//!  tree_sizes=412 398                       right_child=-3 -2
//!                                           leaf_value=0.3 -0.2 0.1
//! ```
//!
//! `decision_type` holds bits: 1 for a categorical split, 2 for default left, and 0, 4 or 8 for what is missing:
//! nothing, zeros and NaN, or NaN. A negative child `c` is the leaf `!c`.
//!
//! Nothing is allocated by a count that the file claims, only by values that it holds, so memory stays in proportion to
//! the file. `tree_sizes` gives the bytes of each section: a cut or edited file rarely agrees with it.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use featurectl_core::{Error, Result};

use super::forest::{Forest, Missing, Split, Tree};
use super::model::{Model, Objective};

/// The keys of the header that matter for scoring.
const HEADER_KEYS: [&str; 8] = [
    "version",
    "num_class",
    "num_tree_per_iteration",
    "max_feature_idx",
    "objective",
    "average_output",
    "feature_names",
    "tree_sizes",
];

/// The keys of a tree that matter for scoring.
const TREE_KEYS: [&str; 9] = [
    "num_leaves",
    "num_cat",
    "split_feature",
    "threshold",
    "decision_type",
    "left_child",
    "right_child",
    "leaf_value",
    "is_linear",
];

/// The line that ends the last tree.
const END: &str = "end of trees";

/// The model in `text`, checked whole.
///
/// Errors: [`Data`](featurectl_core::ErrorKind::Data) with the line and tree for damage,
/// [`Invalid`](featurectl_core::ErrorKind::Invalid) for what LightGBM can do and the scorer cannot.
pub(super) fn parse(name: &str, text: &str) -> Result<Model> {
    let mut lines = Lines { text, at: 0, number: 0 };
    let header = read_header(&mut lines)?;
    check_kind(&header)?;
    let features = feature_names(&header)?;
    let objective = objective(&header)?;
    let sizes: Vec<usize> = header.list("tree_sizes")?;
    let mut forest = Forest::new(features.len());
    for (index, size) in sizes.iter().enumerate() {
        read_tree(&mut lines, index, *size, &mut forest)?;
    }
    match lines.next() {
        Some(line) if line.text == END => {}
        Some(line) => return Err(damaged(line.number, &format!("`{END}` should follow {} trees", sizes.len()))),
        None => return Err(damaged(lines.number, &format!("the file stops before `{END}`"))),
    }
    let average = header.get("average_output").is_some();
    Ok(Model { name: name.to_string(), features, objective, forest, average })
}

/// A line and where it stands.
#[derive(Clone, Copy)]
struct Line<'a> {
    /// From 1.
    number: usize,
    /// The byte it starts at.
    start: usize,
    /// Without its line break.
    text: &'a str,
}

/// The lines of a file that are not empty. Empty ones still count, so that messages give the number an editor shows.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    number: usize,
}

impl<'a> Lines<'a> {
    /// The next line, which stays the next.
    fn peek(&self) -> Option<Line<'a>> {
        Lines { ..*self }.next()
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        while self.at < self.text.len() {
            let start = self.at;
            let rest = &self.text[start..];
            let length = rest.find('\n').map_or(rest.len(), |end| end + 1);
            self.at += length;
            self.number += 1;
            let text = rest[..length].trim_end_matches(['\n', '\r']);
            if !text.is_empty() {
                return Some(Line { number: self.number, start, text });
            }
        }
        None
    }
}

/// The known keys of the header or of a tree, with the lines they stand on.
struct Section<'a> {
    /// How messages call it.
    what: String,
    /// The line it starts at.
    number: usize,
    values: HashMap<&'static str, (usize, &'a str)>,
}

impl<'a> Section<'a> {
    /// Reads lines up to the next tree or the end of trees, keeping `keys`.
    fn read(what: String, number: usize, lines: &mut Lines<'a>, keys: &[&'static str]) -> Result<Self> {
        let mut section = Self { what, number, values: HashMap::new() };
        while let Some(line) = lines.peek().filter(|line| !line.text.starts_with("Tree=") && line.text != END) {
            lines.next();
            let (key, value) = match line.text.split_once('=') {
                Some(pair) => pair,
                None if line.text == "average_output" => (line.text, ""),
                None => return Err(section.damaged(line.number, "the line is not `key=value`")),
            };
            let Some(known) = keys.iter().find(|k| **k == key) else { continue };
            if section.values.insert(known, (line.number, value)).is_some() {
                return Err(section.damaged(line.number, &format!("`{key}` is given twice")));
            }
        }
        Ok(section)
    }

    /// The value of `key` and its line.
    fn get(&self, key: &str) -> Option<(usize, &'a str)> {
        self.values.get(key).copied()
    }

    /// The value of a key that must be there, and its line.
    fn require(&self, key: &str) -> Result<(usize, &'a str)> {
        self.get(key).ok_or_else(|| self.damaged(self.number, &format!("`{key}=` is missing")))
    }

    /// The one number that must be at `key`.
    fn number<T: FromStr>(&self, key: &str) -> Result<T> {
        let (line, value) = self.require(key)?;
        self.value(line, key, value)
    }

    /// The numbers that must be at `key`.
    fn list<T: FromStr>(&self, key: &str) -> Result<Vec<T>> {
        let (line, values) = self.require(key)?;
        values.split_ascii_whitespace().map(|value| self.value(line, key, value)).collect()
    }

    /// The `count` numbers that must be at `key`.
    fn exactly<T: FromStr>(&self, key: &str, count: usize) -> Result<Vec<T>> {
        let list = self.list(key)?;
        if list.len() != count {
            let line = self.require(key)?.0;
            return Err(self.damaged(line, &format!("`{key}` has {} values instead of {count}", list.len())));
        }
        Ok(list)
    }

    /// Reads one number.
    fn value<T: FromStr>(&self, line: usize, key: &str, value: &str) -> Result<T> {
        value.parse().map_err(|_| self.damaged(line, &format!("`{key}` has the value `{}`", shorten(value))))
    }

    /// What is wrong, where, and what to do.
    fn damaged(&self, line: usize, what: &str) -> Error {
        damaged(line, &format!("{}: {what}", self.what))
    }
}

/// What is wrong with a line, and what to do.
fn damaged(line: usize, what: &str) -> Error {
    Error::data(format!("line {line}: {what}; the file is damaged: save the model again"))
}

/// What a line asks for that the scorer does not do, and what to do.
fn unsupported(line: usize, what: &str, instead: &str) -> Error {
    Error::invalid(format!("line {line}: {what} cannot be scored here: {instead}"))
}

/// Enough of a value to recognise it.
fn shorten(value: &str) -> String {
    value.chars().take(40).collect()
}

/// The lines before the first tree.
fn read_header<'a>(lines: &mut Lines<'a>) -> Result<Section<'a>> {
    match lines.next() {
        Some(line) if line.text == "tree" => Section::read("header".into(), line.number, lines, &HEADER_KEYS),
        _ => Err(Error::data("line 1 is not `tree`: save the model with LightGBM's `save_model`")),
    }
}

/// Refuses other versions and models of several outputs.
fn check_kind(header: &Section) -> Result<()> {
    let (line, version) = header.require("version")?;
    if !["v3", "v4"].contains(&version) {
        let what = format!("version `{}` of the format", shorten(version));
        return Err(unsupported(line, &what, "save the model with LightGBM 3 or 4"));
    }
    for key in ["num_class", "num_tree_per_iteration"] {
        if header.number::<u32>(key)? != 1 {
            let line = header.require(key)?.0;
            return Err(unsupported(line, "a multi-class model", "train one `binary` model per class"));
        }
    }
    Ok(())
}

/// The names of the columns: at least one, none twice.
fn feature_names(header: &Section) -> Result<Vec<String>> {
    let (line, names) = header.require("feature_names")?;
    let names: Vec<String> = names.split(' ').filter(|name| !name.is_empty()).map(String::from).collect();
    let last: i64 = header.number("max_feature_idx")?;
    if names.is_empty() || names.len() as i64 - 1 != last {
        let what = format!("{} feature names, but `max_feature_idx` is {last}", names.len());
        return Err(header.damaged(line, &what));
    }
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        Some(twice) => Err(header.damaged(line, &format!("the feature `{}` is named twice", shorten(twice)))),
        None => Ok(names),
    }
}

/// What the sum stands for.
fn objective(header: &Section) -> Result<Objective> {
    let (line, text) = header.require("objective")?;
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    match words.as_slice() {
        ["regression"] => Ok(Objective::Regression),
        ["binary", sigmoid] if sigmoid.starts_with("sigmoid:") => {
            let sigmoid: f64 = header.value(line, "sigmoid", &sigmoid["sigmoid:".len()..])?;
            match sigmoid.is_finite() && sigmoid > 0.0 {
                true => Ok(Objective::Binary { sigmoid }),
                false => Err(header.damaged(line, "`sigmoid` is not above 0")),
            }
        }
        _ => {
            let what = format!("the objective `{}`", shorten(text));
            Err(unsupported(line, &what, "train with the objective `binary` or `regression`"))
        }
    }
}

/// Adds the next tree to the forest. It is the `index`th and takes `size` bytes, blank lines included.
fn read_tree(lines: &mut Lines, index: usize, size: usize, forest: &mut Forest) -> Result<()> {
    let line = lines.next().ok_or_else(|| damaged(lines.number, &format!("the file stops before tree {index}")))?;
    if line.text.strip_prefix("Tree=").and_then(|number| number.parse().ok()) != Some(index) {
        return Err(damaged(line.number, &format!("`Tree={index}` is missing")));
    }
    let section = Section::read(format!("tree {index}"), line.number, lines, &TREE_KEYS)?;
    let end = lines.peek().ok_or_else(|| section.damaged(lines.number, &format!("the file stops before `{END}`")))?;
    let tree = tree(&section)?;
    forest.push(&tree).map_err(|e| section.damaged(line.number, &e.to_string()))?;
    if end.start - line.start != size {
        let what = format!("it takes {} bytes, but `tree_sizes` says {size}", end.start - line.start);
        return Err(section.damaged(line.number, &what));
    }
    Ok(())
}

/// The tree of a section.
fn tree(section: &Section) -> Result<Tree> {
    refuse(section, "num_cat", "a categorical split", "train on numbers, such as a count or mean per category")?;
    refuse(section, "is_linear", "a linear tree", "train with `linear_tree=false`")?;
    let leaf_count: usize = section.number("num_leaves")?;
    if leaf_count == 0 {
        return Err(section.damaged(section.require("num_leaves")?.0, "it has no leaves"));
    }
    let leaves = section.exactly("leaf_value", leaf_count)?;
    let splits = if leaf_count == 1 { Vec::new() } else { splits(section, leaf_count - 1)? };
    Ok(Tree { splits, leaves })
}

/// Refuses a tree that has `what`: one in which `key` is there and not 0.
fn refuse(section: &Section, key: &str, what: &str, instead: &str) -> Result<()> {
    match section.get(key) {
        Some((line, _)) if section.number::<u32>(key)? != 0 => {
            Err(unsupported(line, &format!("{}: {what}", section.what), instead))
        }
        _ => Ok(()),
    }
}

/// The `count` splits of a tree, gathered from a list per property.
fn splits(section: &Section, count: usize) -> Result<Vec<Split>> {
    let features: Vec<u32> = section.exactly("split_feature", count)?;
    let thresholds: Vec<f64> = section.exactly("threshold", count)?;
    let decisions: Vec<u8> = section.exactly("decision_type", count)?;
    let left: Vec<i32> = section.exactly("left_child", count)?;
    let right: Vec<i32> = section.exactly("right_child", count)?;
    (0..count)
        .map(|i| {
            let (missing, default_left) = decision(section, decisions[i])?;
            let (feature, threshold) = (features[i], thresholds[i]);
            Ok(Split { feature, threshold, missing, default_left, left: left[i], right: right[i] })
        })
        .collect()
}

/// The bits of a decision: categorical, default left, and two for what is missing.
fn decision(section: &Section, bits: u8) -> Result<(Missing, bool)> {
    let line = section.require("decision_type")?.0;
    if bits & 1 != 0 {
        let what = format!("{}: a categorical split", section.what);
        return Err(unsupported(line, &what, "train on numbers, such as a count or mean per category"));
    }
    let missing = match bits >> 2 {
        0 => Missing::None,
        1 => Missing::Zero,
        2 => Missing::Nan,
        _ => return Err(section.damaged(line, &format!("`decision_type` has the value `{bits}`"))),
    };
    Ok((missing, bits & 2 != 0))
}
