//! The categories of pandas columns.

use featurectl_core::Result;
use serde_json::Value;

use super::section::Section;
use super::{END, OLD_END, damaged, unsupported};
use crate::score::forest::Test;

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
pub(in crate::score::format) struct Recoding {
    /// One a feature; empty: no feature was numbered.
    features: Vec<Option<Categories>>,
}

impl Recoding {
    /// Gives the lists of categories to the categorical features, which are in the same order.
    pub(in crate::score::format) fn new(lists: &Value, categorical: &[usize], features: usize) -> Result<Self> {
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
    pub(in crate::score::format) fn test(&self, feature: u32, set: &[u32]) -> Result<Test> {
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
    pub(in crate::score::format) fn check_number(&self, feature: u32) -> Result<()> {
        match self.features.get(feature as usize) {
            Some(Some(_)) => {
                let what = format!("a comparison of the categories of feature {feature}");
                Err(unsupported(&what, "train with unordered categories"))
            }
            _ => Ok(()),
        }
    }

    /// The texts of each feature, for [`Model::categories`].
    pub(in crate::score::format) fn texts(&self) -> Vec<Option<Vec<String>>> {
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
pub(super) fn recoding(header: &Section, text: &str, features: usize) -> Result<Recoding> {
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
