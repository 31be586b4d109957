//! The categories that a model was trained on: `cats`, since XGBoost 3.1.
//!
//! ```text
//!  {"enc": [{"offsets": [0, 3, 7], "values": [97, 98, 99, …]},     texts, end to end      0: abc   1: defg
//!           {"type": 15, "values": [-30, 10, 20]},                 whole numbers          0: -30   1: 10   2: 20
//!           {"offsets": [], "values": []}]}                        no categories
//! ```
//!
//! Splits name categories by their codes, 0, 1, … Texts are coded before they are scored. Whole numbers stay what they
//! are: the splits are made to ask for them instead of their codes.

use featurectl_core::{Error, Result};

use super::part::Part;

/// Beyond this, whole numbers are no longer exact in 32-bit floats.
const EXACT_MAX: u64 = 1 << 24;

/// Categories of all features; both empty if there are none.
#[derive(Debug, Default)]
pub(super) struct Categories {
    /// The text of each code, for features that were trained on texts.
    pub names: Vec<Option<Vec<String>>>,
    /// The number of each code, for features that were trained on whole numbers other than the codes themselves.
    pub values: Vec<Option<Vec<i64>>>,
}

impl Categories {
    /// Reads the categories of `features` features.
    pub(super) fn read(model: &Part, features: usize, version: &[i64]) -> Result<Self> {
        let Some(cats) = model.find("cats") else { return Ok(Self::default()) };
        let all = cats.get("enc")?;
        match all.items()?.len() {
            0 => return Ok(Self::default()),
            count if count == features => {}
            count => return Err(all.damaged(format_args!("{features} features have the categories of {count}"))),
        }
        let (mut names, mut values) = (Vec::with_capacity(features), Vec::with_capacity(features));
        for (number, part) in all.parts()?.enumerate() {
            let is_text = part.find("offsets").is_some();
            names.push(if is_text { texts(&part, number, version)? } else { None });
            values.push(if is_text { None } else { wholes(&part, number)? });
        }
        if names.iter().all(Option::is_none) {
            names.clear();
        }
        Ok(Self { names, values })
    }
}

/// The texts of feature `number`, if it has any.
fn texts(part: &Part, number: usize, version: &[i64]) -> Result<Option<Vec<String>>> {
    let (offsets, bytes) = (part.get("offsets")?.wholes()?, part.get("values")?.wholes()?);
    if offsets.len() < 2 {
        return Ok(None);
    }
    // Bytes above 127 are written as negative numbers.
    let bytes: Vec<u8> = bytes.iter().map(|byte| *byte as u8).collect();
    if !bytes.is_ascii() && version < [3, 4].as_slice() {
        return Err(Error::invalid(format!(
            "the categories of feature {number} have letters that are not ASCII, which XGBoost before 3.4 stores cut; \
             the model cannot be scored here: rename them, or train with XGBoost 3.4"
        )));
    }
    let text = |ends: &[i64]| {
        let [from, to] = [ends.first()?, ends.last()?].map(|end| usize::try_from(*end).unwrap_or(usize::MAX));
        Some(std::str::from_utf8(bytes.get(from..to)?).ok()?.to_string())
    };
    let texts = offsets.windows(2).map(text).collect::<Option<Vec<_>>>();
    texts.map(Some).ok_or_else(|| part.damaged("the texts of its categories are cut"))
}

/// The numbers of feature `number`, if it has any and they are not just 0, 1, …
fn wholes(part: &Part, number: usize) -> Result<Option<Vec<i64>>> {
    let kind = part.get("type")?.count()?;
    let mut values = part.get("values")?.wholes()?;
    // UBJSON has no wide types without a sign, so that these wrap around there.
    let wrap = match kind {
        12 => 1 << 16,
        14 => 1 << 32,
        _ => 0,
    };
    values.iter_mut().filter(|value| **value < 0).for_each(|value| *value += wrap);
    if values.iter().any(|value| value.unsigned_abs() > EXACT_MAX) {
        return Err(Error::invalid(format!(
            "the categories of feature {number} are whole numbers beyond {EXACT_MAX} and cannot be scored here: make \
             texts of them"
        )));
    }
    let codes = (0..).zip(&values).all(|(code, value)| code == *value);
    Ok(Some(values).filter(|_| !codes))
}
