//! Walks through a model file and says where it is damaged.
//!
//! ```text
//!  learner.gradient_booster.model.trees[3].left_children[5]: `x` is not a whole number: save the model again
//! ```

use std::fmt::Display;

use featurectl_core::{Error, Result};
use serde_json::Value;

/// A part of the file, and the way to it.
#[derive(Debug, Clone)]
pub(super) struct Part<'a> {
    place: String,
    value: &'a Value,
}

impl<'a> Part<'a> {
    /// The whole file.
    pub(super) fn root(value: &'a Value) -> Self {
        Self { place: String::new(), value }
    }

    /// The error that this part is damaged.
    pub(super) fn damaged(&self, what: impl Display) -> Error {
        let place = if self.place.is_empty() { "the file" } else { &self.place };
        Error::data(format!("{place}: {what}: save the model again"))
    }

    /// What stands under `key`, if anything does.
    pub(super) fn find(&self, key: &str) -> Option<Self> {
        let dot = if self.place.is_empty() { "" } else { "." };
        self.value.get(key).map(|value| Self { place: format!("{}{dot}{key}", self.place), value })
    }

    /// What stands under `key`.
    pub(super) fn get(&self, key: &str) -> Result<Self> {
        self.find(key).ok_or_else(|| self.damaged(format_args!("`{key}` is missing")))
    }

    /// The values of an array.
    pub(super) fn items(&self) -> Result<&'a [Value]> {
        self.value.as_array().map(Vec::as_slice).ok_or_else(|| self.damaged("it is not an array"))
    }

    /// The values of an array, each with its place.
    pub(super) fn parts(&self) -> Result<impl Iterator<Item = Self>> {
        Ok(self.items()?.iter().enumerate().map(|(i, value)| self.item(i, value)))
    }

    /// A value of this array.
    fn item(&self, index: usize, value: &'a Value) -> Self {
        Self { place: format!("{}[{index}]", self.place), value }
    }

    /// A text.
    pub(super) fn text(&self) -> Result<&'a str> {
        self.value.as_str().ok_or_else(|| self.damaged("it is not a text"))
    }

    /// This part as messages show it: short.
    pub(super) fn shown(&self) -> String {
        shown(self.value)
    }

    /// A whole number from 0, written as text as the parameters are, or as a number.
    pub(super) fn count(&self) -> Result<usize> {
        let count = match self.value {
            Value::String(text) => text.parse().ok(),
            number => number.as_u64().and_then(|n| usize::try_from(n).ok()),
        };
        count.ok_or_else(|| self.damaged(format_args!("{} is not a whole number from 0", shown(self.value))))
    }

    /// An array of whole numbers; what is true counts as 1.
    pub(super) fn wholes(&self) -> Result<Vec<i64>> {
        let whole = |(i, value): (usize, &'a Value)| {
            let number = value.as_i64().or_else(|| value.as_bool().map(i64::from));
            number.ok_or_else(|| self.item(i, value).damaged(format_args!("{} is not a whole number", shown(value))))
        };
        self.items()?.iter().enumerate().map(whole).collect()
    }

    /// An array of 32-bit floats. Null is NaN, which stands where a number has no meaning.
    pub(super) fn floats(&self) -> Result<Vec<f32>> {
        let float = |(i, value): (usize, &'a Value)| match value {
            Value::Null => Ok(f32::NAN),
            Value::Number(number) => Ok(number.as_f64().map_or(f32::NAN, |x| x as f32)),
            _ => Err(self.item(i, value).damaged(format_args!("{} is not a number", shown(value)))),
        };
        self.items()?.iter().enumerate().map(float).collect()
    }
}

/// A value as messages show it: short.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "an array".to_string(),
        Value::Object(_) => "an object".to_string(),
        Value::String(text) if text.len() > 40 => "a long text".to_string(),
        other => format!("`{other}`"),
    }
}
