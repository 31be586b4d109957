//! Reads LightGBM's text format, versions 2 to 4.
//!
//! The format is lines of `key=value`: a header, a section per tree, notes about the training, and from Python the
//! categories of pandas columns. Numbers are written so that reading them gives the same bits.
//!
//! ```text
//!  tree                                     Tree=0                              end of trees
//!  version=v4                               num_leaves=3                        feature_importances:
//!  num_class=1                              split_feature=1 0                   …
//!  max_feature_idx=1              ──▶       threshold=0.5 2         ──▶         parameters:
//!  objective=binary sigmoid:1               decision_type=10 8                  …
//!  feature_names=a b                        left_child=1 -1          (-1 is leaf 0)
//!  feature_infos=[0:1] [0:9]                right_child=-3 -2                   end of parameters
//!  tree_sizes=412 398                       leaf_value=0.3 -0.2 0.1             pandas_categorical:[["x","y"]]
//! ```
//!
//! `decision_type` holds bits: 1 for a categorical split, 2 for default left, and 0, 4 or 8 for what is missing:
//! nothing, zeros and NaN, or NaN. A negative child `c` is the leaf `!c`. The threshold of a categorical split is the
//! number of a set: the bits of the words of `cat_threshold` between two of `cat_boundaries`. Of `k` trees per
//! iteration, tree `i` adds to output `i % k`.
//!
//! Which iteration was best is not in the file: LightGBM leaves the later trees out when it saves a model that stopped
//! early, unless asked for all, and then a loaded model predicts with all of them, here as there.
//!
//! Nothing is allocated by a count that the file claims, only by values that it holds, so memory stays in proportion to
//! the file. `tree_sizes` gives the bytes of each section: a cut or edited file rarely agrees with it.

use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::str::FromStr;

use featurectl_core::{Error, Result};
use lexical_core::FromLexical;
use memchr::memchr;
use serde_json::Value;

use crate::score::forest::{Forest, LinearLeaf, Missing, Precision, Split, Test, Tree, ZERO};
use crate::score::model::{Body, Link, MODEL_BYTES_MAX, Model};
use crate::score::parts::{most_parts, side_by_side};

/// The keys of the header that matter for scoring.
const HEADER_KEYS: &[&str] = &[
    "version",
    "num_class",
    "num_tree_per_iteration",
    "max_feature_idx",
    "objective",
    "average_output",
    "feature_names",
    "feature_infos",
    "tree_sizes",
];

/// The keys of a tree that matter for scoring.
const TREE_KEYS: &[&str] = &[
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

/// The line that ends the last tree.
const END: &str = "end of trees";

/// The line that follows the last tree in files of LightGBM 2.1, which have no [`END`].
const OLD_END: &str = "feature importances:";

/// The model in `text`, checked whole.
///
/// Errors: [`Data`](featurectl_core::ErrorKind::Data) with the line and tree for damage,
/// [`Invalid`](featurectl_core::ErrorKind::Invalid) for what LightGBM can do and the scorer cannot.
pub(super) fn parse(name: &str, text: &str) -> Result<Model> {
    let piece = |range: Range<usize>, to: &mut String| {
        to.clear();
        text.get(range).map(|piece| to.push_str(piece))
    };
    parse_around(name, text, |lines, sizes, recoding, mut forest| {
        let first = lines.peek().map_or((text.len(), lines.number), |line| (line.start, line.number - 1));
        match read_in_parts(piece, first.0..text.len(), sizes, recoding, &forest) {
            Some((whole, behind, count)) => {
                *lines = Lines::of(text, behind, first.1 + count);
                Ok(whole)
            }
            None => read_trees(lines, 0, sizes, recoding, &mut Known::new(), &mut forest).map(|()| forest),
        }
    })
}

/// The model in a large file, whose trees are read piece by piece. `None` if something is not as it should be, or the file is
/// small or too large: then it is read whole, and [`parse`] says what it is.
pub(super) fn load(name: &str, file: &File) -> Option<Model> {
    let length = file.metadata().ok()?.len();
    if !(2 * PART_BYTES as u64..=MODEL_BYTES_MAX).contains(&length) {
        return None;
    }
    let length = length as usize;
    let piece = |range: Range<usize>, to: &mut String| {
        let mut bytes = std::mem::take(to).into_bytes();
        bytes.resize(range.len(), 0);
        file.read_exact_at(&mut bytes, range.start as u64).ok()?;
        *to = String::from_utf8(bytes).ok()?;
        Some(())
    };
    let (mut around, mut behind) = (String::new(), String::new());
    piece(0..PART_BYTES, &mut around)?;
    let start = around.find("\nTree=0")? + 1;
    around.truncate(start);
    let sizes: Vec<usize> = read_header(&mut Lines::of(&around, 0, 0)).ok()?.list("tree_sizes").ok()?;
    let end = end_of(start, &sizes)?;
    piece(end..length.min(end.checked_add(NOTES_MAX)?), &mut behind)?;
    around.push_str(&behind);
    let read = |_: &mut Lines<'_>, sizes: &[usize], recoding: &Recoding, forest: Forest| {
        let whole = read_in_parts(piece, start..length, sizes, recoding, &forest);
        whole.map(|(whole, ..)| whole).ok_or_else(|| damaged("some tree"))
    };
    (end + behind.len() == length).then(|| parse_around(name, &around, read).ok())?
}

/// The model whose trees `read` gives, which are the next in the lines of `text` or were cut out of it.
fn parse_around<'a>(
    name: &str,
    text: &'a str,
    read: impl FnOnce(&mut Lines<'a>, &[usize], &Recoding, Forest) -> Result<Forest>,
) -> Result<Model> {
    let mut lines = Lines::of(text, 0, 0);
    let header = read_header(&mut lines)?;
    let version = version(&header)?;
    let features = feature_names(&header)?;
    let sizes: Vec<usize> = header.list("tree_sizes")?;
    let outputs = outputs(&header, sizes.len(), text.len())?;
    let (objective, link) = objective(&header, outputs)?;
    let recoding = recoding(&header, text, features.len())?;
    let forest = Forest::new(features.len(), vec![0.0; outputs], Precision::F64, Precision::F64);
    let mut forest = read(&mut lines, &sizes, &recoding, forest)?;
    let old = check_end(&mut lines, version, sizes.len())?;
    let average = header.get("average_output").is_some();
    if average {
        forest.divide = (sizes.len() / outputs).max(1) as f64;
    }
    // LightGBM 2.1 trained leaves of predictions there, not of margins.
    let link = if average && old { Link::Identity } else { link };
    Ok(Model {
        name: name.to_string(),
        format: format!("LightGBM text {version}"),
        objective,
        features,
        categories: recoding.texts(),
        classes: Vec::new(),
        body: Body::Forest(Vec::new(), forest),
        link,
    })
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
    /// All of the file.
    text: &'a str,
    /// Where the line after the next starts.
    at: usize,
    /// How many lines were read, the next one included.
    number: usize,
    /// The next line.
    ahead: Option<Line<'a>>,
}

impl<'a> Lines<'a> {
    /// The lines of `text` from the byte `at` on, where `number` lines were before.
    fn of(text: &'a str, at: usize, number: usize) -> Self {
        let mut lines = Self { text, at, number, ahead: None };
        lines.ahead = lines.read();
        lines
    }

    /// The next line, which stays the next.
    fn peek(&self) -> Option<Line<'a>> {
        self.ahead
    }

    /// Reads on to the end of the next line that is not empty.
    fn read(&mut self) -> Option<Line<'a>> {
        while self.at < self.text.len() {
            let start = self.at;
            let rest = &self.text[start..];
            let length = memchr(b'\n', rest.as_bytes()).map_or(rest.len(), |end| end + 1);
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

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let line = self.ahead;
        self.ahead = self.read();
        line
    }
}

/// The known keys of the header or of a tree, with the lines they stand on.
struct Section<'a> {
    /// How messages call it.
    what: String,
    /// The line it starts at.
    number: usize,
    /// The keys that are kept.
    keys: &'static [&'static str],
    /// The line and value of each key, where it is there.
    values: Vec<Option<(usize, &'a str)>>,
}

impl<'a> Section<'a> {
    /// Reads lines up to the next tree or the end of trees, keeping `keys`.
    fn read(what: String, number: usize, lines: &mut Lines<'a>, keys: &'static [&'static str]) -> Result<Self> {
        let mut section = Self { what, number, keys, values: vec![None; keys.len()] };
        while let Some(line) = lines.peek().filter(|line| !ends_section(line.text)) {
            lines.next();
            let (key, value) = match line.text.split_once('=') {
                Some(pair) => pair,
                None if line.text == "average_output" => (line.text, ""),
                None => return Err(section.damaged(line.number, "the line is not `key=value`")),
            };
            let Some(known) = keys.iter().position(|k| *k == key) else { continue };
            if section.values[known].replace((line.number, value)).is_some() {
                return Err(section.damaged(line.number, &format!("`{key}` is given twice")));
            }
        }
        Ok(section)
    }

    /// The value of `key` and its line.
    fn get(&self, key: &str) -> Option<(usize, &'a str)> {
        let known = self.keys.iter().position(|k| *k == key)?;
        self.values[known]
    }

    /// The value of a key that must be there, and its line.
    fn require(&self, key: &str) -> Result<(usize, &'a str)> {
        self.get(key).ok_or_else(|| self.damaged(self.number, &format!("`{key}=` is missing")))
    }

    /// The line of a key, or where the section starts.
    fn line(&self, key: &str) -> usize {
        self.get(key).map_or(self.number, |(line, _)| line)
    }

    /// The one number that must be at `key`.
    fn number<T: FromStr>(&self, key: &str) -> Result<T> {
        let (line, value) = self.require(key)?;
        self.value(line, key, value)
    }

    /// Whether the number at `key` is there and not 0.
    fn flag(&self, key: &str) -> Result<bool> {
        Ok(self.get(key).is_some() && self.number::<u32>(key)? != 0)
    }

    /// The numbers that must be at `key`.
    fn list<T: FromStr + FromLexical>(&self, key: &str) -> Result<Vec<T>> {
        let (line, values) = self.require(key)?;
        self.list_of(line, key, values, 0, quick)
    }

    /// The numbers in `values`, about `count` of them, of which `quick` reads most.
    fn list_of<T: FromStr>(
        &self,
        line: usize,
        key: &str,
        values: &str,
        count: usize,
        mut quick: impl FnMut(&[u8]) -> Option<(T, usize)>,
    ) -> Result<Vec<T>> {
        // Each number takes two bytes at least.
        let mut list = Vec::with_capacity(count.min(values.len() / 2 + 1));
        let mut rest = values.as_bytes();
        loop {
            if let Some((number, length)) = quick(rest) {
                list.push(number);
                rest = &rest[length..];
                continue;
            }
            let Some(start) = rest.iter().position(|byte| !byte.is_ascii_whitespace()) else { return Ok(list) };
            rest = &rest[start..];
            let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
            let at = values.len() - rest.len();
            list.push(self.value(line, key, &values[at..at + end])?);
            rest = &rest[end..];
        }
    }

    /// The `count` numbers that must be at `key`.
    fn exactly<T: FromStr + FromLexical>(&self, key: &str, count: usize) -> Result<Vec<T>> {
        self.exactly_by(key, count, quick)
    }

    /// The `count` numbers that must be at `key`, of which `quick` reads most.
    fn exactly_by<T: FromStr>(
        &self,
        key: &str,
        count: usize,
        quick: impl FnMut(&[u8]) -> Option<(T, usize)>,
    ) -> Result<Vec<T>> {
        let (line, values) = self.require(key)?;
        let list = self.list_of(line, key, values, count, quick)?;
        if list.len() != count {
            let what = format!("`{key}` has {} values instead of {count}", list.len());
            return Err(self.damaged(self.line(key), &what));
        }
        Ok(list)
    }

    /// Reads one number.
    fn value<T: FromStr>(&self, line: usize, key: &str, value: &str) -> Result<T> {
        value.parse().map_err(|_| self.damaged(line, &format!("`{key}` has the value `{}`", shorten(value))))
    }

    /// What is wrong, where, and what to do.
    fn damaged(&self, line: usize, what: &str) -> Error {
        damaged(&format!("{}: {what}", self.what)).context(format!("line {line}"))
    }

    /// Adds the place to an error that does not know it.
    fn place(&self, line: usize, e: Error) -> Error {
        e.context(self.what.clone()).context(format!("line {line}"))
    }
}

/// Whether a line belongs to no section before it.
fn ends_section(line: &str) -> bool {
    line.starts_with("Tree=") || line == END || line == OLD_END
}

/// What is wrong, and what to do.
pub(super) fn damaged(what: &str) -> Error {
    Error::data(format!("{what}; the file is damaged: save the model again"))
}

/// What a file asks for that the scorer does not do, and what to do.
pub(super) fn unsupported(what: &str, instead: &str) -> Error {
    Error::invalid(format!("{what} cannot be scored here: {instead}"))
}

/// Enough of a value to recognise it.
pub(super) fn shorten(value: &str) -> String {
    value.chars().take(40).collect()
}

/// The lines before the first tree.
fn read_header<'a>(lines: &mut Lines<'a>) -> Result<Section<'a>> {
    match lines.next() {
        Some(line) if line.text == "tree" => Section::read("header".into(), line.number, lines, HEADER_KEYS),
        _ => Err(Error::data("line 1 is not `tree`: save the model with LightGBM's `save_model`")),
    }
}

/// The version of the format, one of those that are known.
fn version<'a>(header: &Section<'a>) -> Result<&'a str> {
    let (line, version) = header.require("version")?;
    check_version(version).map_err(|e| e.context(format!("line {line}")))?;
    Ok(version)
}

/// Refuses other versions than 2 to 4.
pub(super) fn check_version(version: &str) -> Result<()> {
    match version {
        "v2" | "v3" | "v4" => Ok(()),
        _ => {
            let what = format!("version `{}` of the format", shorten(version));
            Err(unsupported(&what, "save the model with LightGBM 2 to 4"))
        }
    }
}

/// The names of the columns: at least one, none twice.
fn feature_names(header: &Section) -> Result<Vec<String>> {
    let (line, names) = header.require("feature_names")?;
    let names: Vec<String> = names.split(' ').filter(|name| !name.is_empty()).map(String::from).collect();
    check_names(&names, header.number("max_feature_idx")?).map_err(|e| header.place(line, e))?;
    Ok(names)
}

/// Refuses names that are not one for each feature up to `last`, or are there twice.
pub(super) fn check_names(names: &[String], last: i64) -> Result<()> {
    if names.is_empty() || names.len() as i64 - 1 != last {
        return Err(damaged(&format!("{} feature names, but `max_feature_idx` is {last}", names.len())));
    }
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        Some(twice) => Err(damaged(&format!("the feature `{}` is named twice", shorten(twice)))),
        None => Ok(()),
    }
}

/// How many outputs there are, which is how many trees each iteration adds.
fn outputs(header: &Section, trees: usize, bytes: usize) -> Result<usize> {
    let classes: usize = header.number("num_class")?;
    let key = if header.get("num_tree_per_iteration").is_some() { "num_tree_per_iteration" } else { "num_class" };
    let outputs = header.number(key)?;
    check_outputs(classes, outputs, trees, bytes).map_err(|e| header.place(header.line(key), e))?;
    Ok(outputs)
}

/// Refuses counts of outputs that the trees do not bear out. Without trees, the file's size is the only bound.
pub(super) fn check_outputs(classes: usize, outputs: usize, trees: usize, bytes: usize) -> Result<()> {
    if outputs == 0 || outputs != classes {
        return Err(damaged(&format!("{outputs} trees per iteration for {classes} classes")));
    }
    if !trees.is_multiple_of(outputs) || outputs > bytes {
        return Err(damaged(&format!("{trees} trees are no whole number of iterations of {outputs} trees")));
    }
    Ok(())
}

/// The objective and what the sums stand for. A model trained by a function of the user's has no objective.
fn objective(header: &Section, outputs: usize) -> Result<(String, Link)> {
    match header.get("objective") {
        Some((line, text)) => link(text, outputs).map_err(|e| header.place(line, e)),
        None => Ok((String::new(), Link::Identity)),
    }
}

/// The name of an objective, such as `binary sigmoid:1`, and what `outputs` sums stand for.
pub(super) fn link(objective: &str, outputs: usize) -> Result<(String, Link)> {
    let mut words = objective.split_ascii_whitespace();
    let name = words.next().unwrap_or_default();
    let words: Vec<&str> = words.collect();
    let link = match name {
        "regression" | "regression_l1" | "quantile" | "fair" | "mape" if words.contains(&"sqrt") => Link::SignedSquare,
        "regression" | "regression_l1" | "quantile" | "fair" | "mape" | "huber" => Link::Identity,
        "lambdarank" | "rank_xendcg" | "custom" => Link::Identity,
        "poisson" | "gamma" | "tweedie" => Link::Exp,
        "binary" | "multiclassova" => Link::Sigmoid { steepness: steepness(&words)? },
        "multiclass" => Link::Softmax,
        // LightGBM 2 shortened the names of both.
        "cross_entropy" | "xentropy" => Link::Sigmoid { steepness: 1.0 },
        "cross_entropy_lambda" | "xentlambda" => Link::LogOnePlusExp,
        _ => {
            let what = format!("the objective `{}`", shorten(objective));
            return Err(unsupported(&what, "train with one of LightGBM's own, or score with `raw_score` there"));
        }
    };
    let classes = match name {
        "multiclass" | "multiclassova" => option::<usize>(&words, "num_class:")?,
        "custom" => outputs,
        _ => 1,
    };
    match classes == outputs {
        true => Ok((name.to_string(), link)),
        false => Err(damaged(&format!("`{}` has {classes} outputs, but there are {outputs}", shorten(objective)))),
    }
}

/// What a sigmoid multiplies its margin by.
fn steepness(words: &[&str]) -> Result<f64> {
    let sigmoid: f64 = option(words, "sigmoid:")?;
    match sigmoid.is_finite() && sigmoid > 0.0 {
        true => Ok(sigmoid),
        false => Err(damaged("`sigmoid` is not above 0")),
    }
}

/// The number that text begins with, and how long it is with the blank behind it, as most are in lists. `None` for what
/// else there may be: the standard library knows all.
fn quick<T: FromLexical>(text: &[u8]) -> Option<(T, usize)> {
    let (number, length) = lexical_core::parse_partial(text).ok()?;
    // Without a digit, there is none.
    let is_whole = length > 0 && text[length - 1].is_ascii_digit() && text.get(length) == Some(&b' ');
    is_whole.then_some((number, length + 1))
}

/// Numbers by their text. The thresholds of a feature are bounds of its bins, so the same ones come again and again, and to look
/// one up takes a third of the time of reading it.
struct Known {
    /// Texts of up to 24 bytes, each where its hash says, with what they mean.
    numbers: Vec<([u64; 3], f64)>,
}

impl Known {
    /// Bits of a place.
    const BITS: u32 = 13;

    fn new() -> Self {
        // No word ends with 24 bytes that are not zero.
        Self { numbers: vec![([u64::MAX; 3], 0.0); 1 << Self::BITS] }
    }

    /// As [`quick`].
    fn number(&mut self, text: &[u8]) -> Option<(f64, usize)> {
        let Some((word, length)) = word(text) else { return quick(text) };
        let mixed = word[0] ^ word[1].rotate_left(23) ^ word[2].rotate_left(41);
        let place = mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - Self::BITS);
        let (known, number) = &mut self.numbers[place as usize];
        if *known != word {
            let (read, of) = quick(text)?;
            if of != length + 1 {
                return Some((read, of));
            }
            (*known, *number) = (word, read);
        }
        Some((*number, length + 1))
    }
}

/// What stands before the first blank, filled up with zeros, and its length. `None` if that is more than 23 bytes or nothing, or
/// the end is near.
#[inline(always)]
fn word(text: &[u8]) -> Option<([u64; 3], usize)> {
    const EACH: u64 = u64::MAX / 255;
    let (chunks, _) = text.first_chunk::<24>()?.as_chunks::<8>();
    let [a, b, c] = [0, 1, 2].map(|part: usize| u64::from_le_bytes(chunks[part]));
    // The highest bit of each byte that is a blank, and maybe of some behind it.
    let blanks = |part: u64| {
        let other = part ^ (EACH * u64::from(b' '));
        other.wrapping_sub(EACH) & !other & (EACH << 7)
    };
    let (in_a, in_b, in_c) = (blanks(a), blanks(b), blanks(c));
    // The bits of the bytes before the first blank, all if there is none.
    let before = |blanks: u64| ((blanks & blanks.wrapping_neg()) >> 7).wrapping_sub(1);
    let b = if in_a == 0 { b & before(in_b) } else { 0 };
    let c = if in_a | in_b == 0 { c & before(in_c) } else { 0 };
    let (first, blanks) = if in_b == 0 { (16, in_c) } else { (8, in_b) };
    let (first, blanks) = if in_a == 0 { (first, blanks) } else { (0, in_a) };
    let length = first + blanks.trailing_zeros() as usize / 8;
    (blanks != 0 && length > 0).then_some(([a & before(in_a), b, c], length))
}

/// The number behind `key` in an objective.
fn option<T: FromStr>(words: &[&str], key: &str) -> Result<T> {
    let value = words.iter().find_map(|word| word.strip_prefix(key));
    let value = value.ok_or_else(|| damaged(&format!("the objective has no `{key}`")))?;
    let name = key.trim_end_matches(':');
    value.parse().map_err(|_| damaged(&format!("`{name}` has the value `{}`", shorten(value))))
}

/// Bytes of trees that are worth a thread of their own.
const PART_BYTES: usize = 1 << 18;
/// Bytes of trees that are read at once: they stay in a core's own cache.
const PIECE_BYTES: usize = 1 << 16;
/// No longer text is read behind the trees of a file that is read in parts.
const NOTES_MAX: usize = 1 << 24;

/// Where trees of these sizes end, of which the first is at `start`.
fn end_of(start: usize, sizes: &[usize]) -> Option<usize> {
    sizes.iter().try_fold(start, |end, size| end.checked_add(*size))
}

/// The trees at the beginning of `range`, read in parts side by side, since `sizes` says where each starts, with where they end
/// and the number of their lines. `None` if something is not as it should be, or there is too little: then all are read
/// in order, so that a message names the line.
fn read_in_parts(
    piece: impl Fn(Range<usize>, &mut String) -> Option<()> + Sync,
    range: Range<usize>,
    sizes: &[usize],
    recoding: &Recoding,
    empty: &Forest,
) -> Option<(Forest, usize, usize)> {
    let end = end_of(range.start, sizes).filter(|end| *end <= range.end)?;
    let count = most_parts().min((end - range.start) / PART_BYTES);
    if count < 2 {
        return None;
    }
    let mut parts = Vec::new();
    let (mut tree, mut start) = (0, range.start);
    for part in sizes.chunks(sizes.len().div_ceil(count)) {
        parts.push((tree, start, part));
        (tree, start) = (tree + part.len(), start + part.iter().sum::<usize>());
    }
    let read = |known: &mut Known, (mut tree, mut start, mut sizes): (usize, usize, &[usize])| {
        let (mut forest, mut text, mut count) = (empty.clone(), String::with_capacity(PIECE_BYTES + END.len()), 0);
        while !sizes.is_empty() {
            let (mut trees, mut bytes) = (1, sizes[0]);
            while sizes.get(trees).is_some_and(|size| bytes + size <= PIECE_BYTES) {
                bytes += sizes[trees];
                trees += 1;
            }
            piece(start..start + bytes, &mut text)?;
            // What is behind a tree says where it ends.
            text.push_str(END);
            let mut lines = Lines::of(&text, 0, 0);
            read_trees(&mut lines, tree, &sizes[..trees], recoding, known, &mut forest).ok()?;
            count += lines.peek()?.number - 1;
            (tree, start, sizes) = (tree + trees, start + bytes, &sizes[trees..]);
        }
        Some((forest, count))
    };
    let read: Option<Vec<_>> = side_by_side(parts, Known::new, read).into_iter().collect();
    let (mut whole, mut count) = (empty.clone(), 0);
    for (part, lines) in read? {
        whole.append(part);
        count += lines;
    }
    Some((whole, end, count))
}

/// Adds the next trees to the forest, of which the first is the `first`th of all.
fn read_trees(
    lines: &mut Lines<'_>,
    first: usize,
    sizes: &[usize],
    recoding: &Recoding,
    known: &mut Known,
    forest: &mut Forest,
) -> Result<()> {
    sizes.iter().enumerate().try_for_each(|(i, size)| read_tree(lines, first + i, *size, recoding, known, forest))
}

/// Adds the next tree to the forest. It is the `index`th and takes `size` bytes, blank lines included.
fn read_tree(lines: &mut Lines, index: usize, size: usize, recoding: &Recoding, known: &mut Known, forest: &mut Forest) -> Result<()> {
    let Some(line) = lines.next() else { return Err(stopped(lines, &format!("tree {index}"))) };
    if line.text.strip_prefix("Tree=").and_then(|number| number.parse().ok()) != Some(index) {
        return Err(damaged(&format!("`Tree={index}` is missing")).context(format!("line {}", line.number)));
    }
    let section = Section::read(format!("tree {index}"), line.number, lines, TREE_KEYS)?;
    let Some(end) = lines.peek() else { return Err(stopped(lines, &format!("`{END}`"))) };
    let output = (index % forest.outputs()) as u32;
    let tree = tree(&section, output, recoding, known)?;
    forest.push(tree).map_err(|e| section.damaged(line.number, &e.to_string()))?;
    // The blank line before the old end is not the tree's.
    let bytes = end.start - line.start - usize::from(end.text == OLD_END);
    match bytes == size {
        true => Ok(()),
        false => Err(section.damaged(line.number, &format!("it takes {bytes} bytes, but `tree_sizes` says {size}"))),
    }
}

/// The file ends too early.
fn stopped(lines: &Lines, before: &str) -> Error {
    damaged(&format!("the file stops before {before}")).context(format!("line {}", lines.number))
}

/// Refuses a file that does not end its trees where it should, or is cut within the parameters behind them. Says whether
/// it ends as LightGBM 2.1 did.
fn check_end(lines: &mut Lines, version: &str, trees: usize) -> Result<bool> {
    match lines.next() {
        Some(line) if line.text == END => {}
        Some(line) if line.text == OLD_END && version == "v2" => return Ok(true),
        Some(line) => {
            let what = format!("`{END}` should follow {trees} trees");
            return Err(damaged(&what).context(format!("line {}", line.number)));
        }
        None => return Err(stopped(lines, &format!("`{END}`"))),
    }
    let rest = &lines.text[lines.peek().map_or(lines.text.len(), |line| line.start)..];
    let Some(parameters) = rest.find("\nparameters:") else { return Ok(false) };
    match rest[parameters..].contains("\nend of parameters") {
        true => Ok(false),
        false => Err(damaged("the file stops before `end of parameters`")),
    }
}

/// The tree of a section.
fn tree(section: &Section, output: u32, recoding: &Recoding, known: &mut Known) -> Result<Tree> {
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
    let counts = |key, count| match section.exactly::<u32>(key, count) {
        Ok(counts) => Ok(counts.into_iter().map(f64::from).collect()),
        Err(_) => section.exactly::<f64>(key, count),
    };
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
    for (((feature, threshold), decision), (left, right)) in features.into_iter().zip(thresholds).zip(decisions).zip(children) {
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
pub(super) fn missing_of(kind: u8, default_left: bool) -> Option<Missing> {
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
pub(super) fn boundary(t: f64) -> f64 {
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

/// What the categories of a feature stand for, where it was a categorical column of pandas.
#[derive(Debug, Clone, PartialEq)]
enum Categories {
    /// Texts, which the model knows by their place.
    Texts(Vec<String>),
    /// Numbers: the tests are rewritten to ask for them, so that the column is scored as it is.
    Numbers(Vec<f64>),
}

/// How the categorical columns of a pandas table were numbered for training.
///
/// ```text
///  pandas_categorical:[["x","y"],[10,30]]        feature 1: x is 0, y is 1
///  feature_infos=[0:1] 0:1 [2:7] 0:1       ──▶   feature 3: 10 is 0, 30 is 1; a set {1} becomes x = 30
/// ```
pub(super) struct Recoding {
    /// One a feature; empty: no feature was numbered.
    features: Vec<Option<Categories>>,
}

impl Recoding {
    /// Gives the lists of categories to the categorical features, which are in the same order.
    pub(super) fn new(lists: &Value, categorical: &[usize], features: usize) -> Result<Self> {
        let lists = match lists {
            Value::Null => return Ok(Self { features: Vec::new() }),
            Value::Array(lists) => lists,
            _ => return Err(damaged("`pandas_categorical` is no list")),
        };
        if lists.is_empty() {
            return Ok(Self { features: Vec::new() });
        }
        if lists.len() != categorical.len() {
            let what = format!(
                "a model of {} pandas columns with categories, of which {} are categorical features,",
                lists.len(),
                categorical.len()
            );
            return Err(unsupported(&what, "train with unordered categories, and leave unused columns out"));
        }
        let mut recoding = Self { features: vec![None; features] };
        for (feature, list) in categorical.iter().zip(lists) {
            if let Some(slot) = recoding.features.get_mut(*feature) {
                *slot = Some(categories(list).map_err(|e| e.context(format!("`pandas_categorical` {feature}")))?);
            }
        }
        Ok(recoding)
    }

    /// The test for one of the categories `set` of a feature.
    pub(super) fn test(&self, feature: u32, set: &[u32]) -> Result<Test> {
        match self.features.get(feature as usize) {
            Some(Some(Categories::Numbers(numbers))) => {
                let mut points: Vec<f64> = set.iter().filter_map(|c| numbers.get(*c as usize).copied()).collect();
                points.sort_by(f64::total_cmp);
                Ok(one_of(&points))
            }
            _ => Ok(Test::category_in(set, true)),
        }
    }

    /// Refuses to compare the place of a category, which an ordered column of pandas gives.
    pub(super) fn check_number(&self, feature: u32) -> Result<()> {
        match self.features.get(feature as usize) {
            Some(Some(_)) => {
                let what = format!("a comparison of the categories of feature {feature}");
                Err(unsupported(&what, "train with unordered categories"))
            }
            _ => Ok(()),
        }
    }

    /// The texts of each feature, for [`Model::categories`].
    pub(super) fn texts(&self) -> Vec<Option<Vec<String>>> {
        let texts = |categories: &Option<Categories>| match categories {
            Some(Categories::Texts(texts)) => Some(texts.clone()),
            _ => None,
        };
        let all: Vec<_> = self.features.iter().map(texts).collect();
        if all.iter().any(Option::is_some) { all } else { Vec::new() }
    }
}

/// The categories of one column: all texts, or all numbers that differ.
fn categories(list: &Value) -> Result<Categories> {
    let values = list.as_array().ok_or_else(|| damaged("the categories are no list"))?;
    let text = |value: &Value| value.as_str().map(String::from);
    if let Some(texts) = values.iter().map(text).collect() {
        return Ok(Categories::Texts(texts));
    }
    // Adding 0 makes -0 the 0 that it is equal to.
    let truth = |value: &Value| value.as_bool().map(|b| f64::from(u8::from(b)));
    let number = |value: &Value| value.as_f64().or_else(|| truth(value)).map(|x| x + 0.0);
    let numbers: Option<Vec<f64>> = values.iter().map(number).collect();
    let numbers = numbers.ok_or_else(|| unsupported("a column of mixed categories", "train on texts or on numbers"))?;
    let mut sorted = numbers.clone();
    sorted.sort_by(f64::total_cmp);
    match sorted.is_sorted_by(|a, b| a < b) {
        true => Ok(Categories::Numbers(numbers)),
        false => Err(unsupported("a column of categories that are equal as 64-bit floats", "train on texts")),
    }
}

/// `x` is one of these ascending numbers.
fn one_of(points: &[f64]) -> Test {
    let mut edges: Vec<f64> = Vec::new();
    for point in points {
        // An interval that begins where the last one ends goes on with it.
        if edges.last() == Some(&point.next_down()) {
            edges.pop();
        } else {
            edges.push(point.next_down());
        }
        edges.push(*point);
    }
    Test::Within(edges.into())
}

/// How the columns of the file's pandas table were numbered, which Python's `save_model` writes behind everything else.
fn recoding(header: &Section, text: &str, features: usize) -> Result<Recoding> {
    const KEY: &str = "\npandas_categorical:";
    // What is behind the trees is short, and a search for this from the end does not read through them.
    let notes = &text[text.rfind(END).or_else(|| text.rfind(OLD_END)).unwrap_or(text.len())..];
    let Some(json) = line_after(notes, KEY) else { return Recoding::new(&Value::Null, &[], features) };
    let lists: Value =
        serde_json::from_str(json).map_err(|e| damaged(&format!("`pandas_categorical` is no JSON: {e}")))?;
    let mut categorical: Vec<usize> = Vec::new();
    if let Some((line, infos)) = header.get("feature_infos") {
        let infos: Vec<&str> = infos.split_ascii_whitespace().collect();
        if infos.len() != features {
            return Err(
                header.damaged(line, &format!("`feature_infos` has {} values instead of {features}", infos.len()))
            );
        }
        // A number's is `[least:greatest]`.
        let named = |info: &str| info != "none" && !info.starts_with('[');
        categorical = (0..features).filter(|feature| named(infos[*feature])).collect();
    }
    if lists.as_array().is_some_and(|lists| lists.len() > categorical.len()) {
        categorical = categorical_parameter(notes);
    }
    Recoding::new(&lists, &categorical, features)
}

/// The categorical features by the parameters of the training, where also those are named that were constant.
fn categorical_parameter(notes: &str) -> Vec<usize> {
    let Some(list) = line_after(notes, "\n[categorical_feature: ") else { return Vec::new() };
    let mut features: Vec<usize> =
        list.trim_end_matches(']').split(',').filter_map(|number| number.trim().parse().ok()).collect();
    features.sort_unstable();
    features.dedup();
    features
}

/// The rest of the last line that `key` starts.
fn line_after<'a>(notes: &'a str, key: &str) -> Option<&'a str> {
    let at = notes.rfind(key)?;
    notes[at + key.len()..].lines().next()
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::*;

    /// What is read fast is what the standard library reads.
    fn is_as_std<T: FromLexical + FromStr + Debug>(text: &str) {
        if let Some((number, length)) = quick::<T>(format!("{text} 1").as_bytes()) {
            let wanted = text.parse::<T>().ok().map(|number| format!("{number:?}"));
            assert_eq!((Some(format!("{number:?}")), length), (wanted, text.len() + 1), "`{text}`");
        }
    }

    fn all_are_as_std(text: &str) {
        is_as_std::<f64>(text);
        is_as_std::<i32>(text);
        is_as_std::<u32>(text);
        is_as_std::<u8>(text);
    }

    #[test]
    fn what_is_no_number_is_not_read_fast() {
        for text in [
            "", "-", "+", ".", "-.", "e5", "1e", "1e+", "1e-", "--1", "0x1", "1_0", "nan", "-inf", "1-", "9e9999", "-0",
        ] {
            all_are_as_std(text);
        }
        assert_eq!(quick::<u8>(b" 1 2"), None);
        assert_eq!(quick::<u8>(b"256 "), None);
        assert_eq!(quick::<f64>(b"0.5\n"), None);
        assert_eq!(quick::<f64>(b"-1e-05 7"), Some((-1e-5, 7)));
    }

    proptest! {
        #[test]
        fn text_is_read_as_the_standard_library_does(text in "[-+.e0-9]{0,12}", bits: u64) {
            all_are_as_std(&text);
            let number = f64::from_bits(bits);
            all_are_as_std(&number.to_string());
            all_are_as_std(&format!("{number:.17e}"));
        }
    }
}
