//! What people see: data on stdout, everything else on stderr.

mod problems;
mod progress;
mod table;

use std::io::IsTerminal;

use featurectl_core::{Error, Result};
use serde::Serialize;

pub(crate) use problems::{diagnostics, diagnostics_json};
pub(crate) use progress::{Progress, step_line};
pub(crate) use table::{rows, strings};

/// Whether stderr takes colours: a terminal, and `NO_COLOR` is not set.
pub(crate) fn coloured() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

fn painted(text: &str, code: &str) -> String {
    if coloured() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
}

/// `     Checked 9 statements in 12ms`.
pub(crate) fn status(verb: &str, text: &str) {
    eprintln!("{} {text}", painted(&format!("{verb:>12}"), "1;32"));
}

/// A line that is no result.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// `warning: …`.
pub(crate) fn warning(text: &str) {
    eprintln!("{}: {text}", painted("warning", "1;33"));
}

/// `error: …`.
pub(crate) fn error(e: &Error) {
    eprintln!("{}: {e}", painted("error", "1;31"));
}

/// One JSON document on stdout.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::internal(e.to_string()))?;
    println!("{text}");
    Ok(())
}

/// A duration in the unit that suits it.
pub(crate) fn seconds(s: f64) -> String {
    if s < 1.0 { format!("{:.0}ms", s * 1000.0) } else { format!("{s:.1}s") }
}
