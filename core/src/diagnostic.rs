//! What is wrong with a user's SQL, and where.
//!
//! ```text
//!  job.sql as written ──${name} filled──▶ Source.text ──parse/check──▶ Vec<Diagnostic> (byte spans of Source.text)
//!                                                                         │ cli/render
//!                                                                         ▼ file:line:column, underline, help
//! ```

use std::collections::BTreeMap;
use std::fmt;

use datafusion::sql::sqlparser::tokenizer::{Location, Span as SqlSpan};

/// A range of bytes in [`Source::text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Nothing runs until it is fixed.
    Error,
    /// It runs, but the user probably meant something else.
    Warning,
}

/// One problem of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// A stable short name of the kind of problem: `unknown-column`.
    pub code: &'static str,
    /// What is wrong, in one line without a full stop.
    pub message: String,
    /// Where.
    pub span: Span,
    /// What to print below the underlined text; may be empty.
    pub label: String,
    /// How to fix it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn error(code: &'static str, message: impl Into<String>, span: Span) -> Self {
        Self { severity: Severity::Error, code, message: message.into(), span, label: String::new(), help: None }
    }

    /// A warning at `span`.
    pub fn warning(code: &'static str, message: impl Into<String>, span: Span) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message, span) }
    }

    /// Sets the text below the underline.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Sets the help line.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Sets the help line to "did you mean `…`?" if one of `known` is close to `typed`.
    pub fn did_you_mean<S: AsRef<str>>(mut self, typed: &str, known: impl IntoIterator<Item = S>) -> Self {
        if let Some(best) = closest(typed, known) {
            self.help = Some(format!("did you mean `{best}`?"));
        }
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Diagnostic {}

/// The name among `known` that is most like `typed`, if any is like it at all.
pub fn closest<S: AsRef<str>>(typed: &str, known: impl IntoIterator<Item = S>) -> Option<String> {
    let typed = typed.to_lowercase();
    known
        .into_iter()
        .map(|k| (strsim::jaro_winkler(&typed, &k.as_ref().to_lowercase()), k))
        .filter(|(similarity, _)| *similarity > 0.78)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k.as_ref().to_string())
}

/// The text of a job with its `${name}` placeholders filled.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// How the file is called in messages.
    pub name: String,
    /// The text that is parsed.
    pub text: String,
    /// Byte offset of each line's start.
    lines: Vec<usize>,
}

impl Source {
    /// A text without placeholders to fill.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { name: name.into(), text, lines }
    }

    /// Fills every `${name}` of `text` from `values`; the problems are placeholders without a value.
    pub fn fill(name: &str, text: &str, values: &BTreeMap<String, String>) -> (Self, Vec<Diagnostic>) {
        let (mut out, mut rest, mut problems) = (String::with_capacity(text.len()), text, Vec::new());
        while let Some(at) = rest.find("${") {
            let Some(len) = rest[at..].find('}') else { break };
            out.push_str(&rest[..at]);
            let placeholder = &rest[at + 2..at + len];
            match values.get(placeholder) {
                Some(value) => out.push_str(value),
                None => {
                    let span = Span { start: out.len(), end: out.len() + len + 1 };
                    let missing = Diagnostic::error("unset-variable", format!("`{placeholder}` has no value"), span)
                        .help(format!("pass it: --set {placeholder}=VALUE"));
                    problems.push(missing);
                    out.push_str(&rest[at..=at + len]);
                }
            }
            rest = &rest[at + len + 1..];
        }
        out.push_str(rest);
        (Self::new(name, out), problems)
    }

    /// Line and column, both from 1, of a byte offset; the column counts characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|&start| start <= offset).saturating_sub(1);
        let start = self.lines.get(line).copied().unwrap_or(0);
        let column = self.text.get(start..offset.min(self.text.len())).map_or(0, |s| s.chars().count());
        (line + 1, column + 1)
    }

    /// The byte span of a span of the SQL parser, whose ends are both inclusive of one token start; empty if unknown.
    pub fn span(&self, span: SqlSpan) -> Option<Span> {
        (span.start.line > 0).then(|| Span { start: self.offset(span.start), end: self.offset(span.end) })
    }

    fn offset(&self, at: Location) -> usize {
        let Some(&start) = self.lines.get((at.line as usize).saturating_sub(1)) else { return self.text.len() };
        let line = &self.text[start..];
        let chars = (at.column as usize).saturating_sub(1);
        start + line.char_indices().nth(chars).map_or(line.len(), |(i, _)| i)
    }
}
