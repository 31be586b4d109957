//! Lines of a file, and those of its header or of a tree by their keys.

use std::str::FromStr;

use featurectl_core::{Error, Result};
use lexical_core::FromLexical;
use memchr::memchr;

use super::numbers::quick;
use super::{END, OLD_END, damaged, shorten};

/// A line and where it stands.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    /// From 1.
    pub(super) number: usize,
    /// The byte it starts at.
    pub(super) start: usize,
    /// Without its line break.
    pub(super) text: &'a str,
}

/// The lines of a file that are not empty. Empty ones still count, so that messages give the number an editor shows.
pub(super) struct Lines<'a> {
    /// All of the file.
    pub(super) text: &'a str,
    /// Where the line after the next starts.
    at: usize,
    /// How many lines were read, the next one included.
    pub(super) number: usize,
    /// The next line.
    ahead: Option<Line<'a>>,
}

impl<'a> Lines<'a> {
    /// The lines of `text` from the byte `at` on, where `number` lines were before.
    pub(super) fn of(text: &'a str, at: usize, number: usize) -> Self {
        let mut lines = Self { text, at, number, ahead: None };
        lines.ahead = lines.read();
        lines
    }

    /// The next line, which stays the next.
    pub(super) fn peek(&self) -> Option<Line<'a>> {
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
pub(super) struct Section<'a> {
    /// How messages call it.
    pub(super) what: String,
    /// The line it starts at.
    pub(super) number: usize,
    /// The keys that are kept.
    keys: &'static [&'static str],
    /// The line and value of each key, where it is there.
    values: Vec<Option<(usize, &'a str)>>,
}

impl<'a> Section<'a> {
    /// Reads lines up to the next tree or the end of trees, keeping `keys`.
    pub(super) fn read(
        what: String,
        number: usize,
        lines: &mut Lines<'a>,
        keys: &'static [&'static str],
    ) -> Result<Self> {
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
    pub(super) fn get(&self, key: &str) -> Option<(usize, &'a str)> {
        let known = self.keys.iter().position(|k| *k == key)?;
        self.values[known]
    }

    /// The value of a key that must be there, and its line.
    pub(super) fn require(&self, key: &str) -> Result<(usize, &'a str)> {
        self.get(key).ok_or_else(|| self.damaged(self.number, &format!("`{key}=` is missing")))
    }

    /// The line of a key, or where the section starts.
    pub(super) fn line(&self, key: &str) -> usize {
        self.get(key).map_or(self.number, |(line, _)| line)
    }

    /// The one number that must be at `key`.
    pub(super) fn number<T: FromStr>(&self, key: &str) -> Result<T> {
        let (line, value) = self.require(key)?;
        self.value(line, key, value)
    }

    /// Whether the number at `key` is there and not 0.
    pub(super) fn flag(&self, key: &str) -> Result<bool> {
        Ok(self.get(key).is_some() && self.number::<u32>(key)? != 0)
    }

    /// The numbers that must be at `key`.
    pub(super) fn list<T: FromStr + FromLexical>(&self, key: &str) -> Result<Vec<T>> {
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
    pub(super) fn exactly<T: FromStr + FromLexical>(&self, key: &str, count: usize) -> Result<Vec<T>> {
        self.exactly_by(key, count, quick)
    }

    /// The `count` numbers that must be at `key`, of which `quick` reads most.
    pub(super) fn exactly_by<T: FromStr>(
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
    pub(super) fn value<T: FromStr>(&self, line: usize, key: &str, value: &str) -> Result<T> {
        value.parse().map_err(|_| self.damaged(line, &format!("`{key}` has the value `{}`", shorten(value))))
    }

    /// What is wrong, where, and what to do.
    pub(super) fn damaged(&self, line: usize, what: &str) -> Error {
        damaged(&format!("{}: {what}", self.what)).context(format!("line {line}"))
    }

    /// Adds the place to an error that does not know it.
    pub(super) fn place(&self, line: usize, e: Error) -> Error {
        e.context(self.what.clone()).context(format!("line {line}"))
    }
}

/// Whether a line belongs to no section before it.
fn ends_section(line: &str) -> bool {
    line.starts_with("Tree=") || line == END || line == OLD_END
}
