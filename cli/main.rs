//! The `featurectl` command.

mod memory;

use std::process::ExitCode;

fn main() -> ExitCode {
    memory::keep_memory();
    featurectl::App::default().main()
}
