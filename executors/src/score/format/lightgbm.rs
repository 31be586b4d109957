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

mod numbers;
mod recoding;
mod section;
mod tree;

use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::str::FromStr;

use featurectl_core::{Error, Result};

use self::numbers::Known;
pub(super) use self::recoding::Recoding;
use self::recoding::recoding;
use self::section::{Lines, Section};
use self::tree::{TREE_KEYS, tree};
pub(super) use self::tree::{boundary, missing_of};
use crate::score::forest::{Forest, Precision};
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
            None => read_trees(lines, 0, sizes, recoding, &mut Known::new(text.len()), &mut forest).map(|()| forest),
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
    let mut bytes = PIECE_BYTES;
    let start = loop {
        piece(0..bytes, &mut around)?;
        match around.find("\nTree=0") {
            Some(line) => break line + 1,
            None if bytes < length.min(NOTES_MAX) => bytes = length.min(4 * bytes),
            None => return None,
        }
    };
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
/// No longer text is read before or behind the trees of a file that is read in parts.
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
    let read: Option<Vec<_>> = side_by_side(parts, || Known::new(end - range.start), read).into_iter().collect();
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
fn read_tree(
    lines: &mut Lines,
    index: usize,
    size: usize,
    recoding: &Recoding,
    known: &mut Known,
    forest: &mut Forest,
) -> Result<()> {
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
