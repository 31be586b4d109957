//! Tests of the whole: one binary.

mod cli;
mod crates;
mod diagnostics;
mod kill;
mod oracle;
mod semantics;
