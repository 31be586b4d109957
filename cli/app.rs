//! The command line as a value: featurectl's verbs with a user's functions in them.

use std::process::ExitCode;

use clap::Parser;
use datafusion::logical_expr::ScalarUDF;
use featurectl_core::ErrorKind;
use featurectl_core::aggregate::AggregateFunction;

use crate::args::Args;
use crate::session::Extensions;
use crate::{cmd, render};

/// A binary with all of featurectl's verbs.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     featurectl::App::default().main()
/// }
/// ```
#[derive(Debug, Default)]
pub struct App {
    extensions: Extensions,
}

impl App {
    /// Adds a scalar function.
    pub fn with_function(mut self, function: ScalarUDF) -> Self {
        self.extensions.functions.push(function);
        self
    }

    /// Adds an aggregation for feature views.
    pub fn with_aggregation(mut self, aggregation: AggregateFunction) -> Self {
        self.extensions.aggregations.push(aggregation);
        self
    }

    /// Reads the command line, does what it says, and returns the exit code: 0 for success, 1 if the user's input is
    /// at fault, 2 for everything else.
    pub fn main(self) -> ExitCode {
        let args = Args::parse();
        let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(8 << 20).build()
        {
            Ok(runtime) => runtime,
            Err(e) => return fail(&e.into()),
        };
        let worker = runtime.spawn(async move { cmd::run(args, &self.extensions).await });
        match runtime.block_on(worker) {
            Ok(Ok(code)) => code,
            Ok(Err(e)) => fail(&e),
            Err(e) => fail(&featurectl_core::Error::internal(format!("featurectl has a defect: {e}"))),
        }
    }
}

fn fail(e: &featurectl_core::Error) -> ExitCode {
    render::error(e);
    match e.kind() {
        ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Data => ExitCode::from(1),
        ErrorKind::Conflict | ErrorKind::Unavailable | ErrorKind::Internal => ExitCode::from(2),
    }
}
