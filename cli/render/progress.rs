//! A run on a terminal: a spinner for what goes on, a line for what is done.

use std::io::IsTerminal;
use std::time::Duration;

use featurectl_executors::cluster;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;

use super::{painted, rows, seconds};
use crate::args::Output;
use crate::run::{Event, Step, plural, thousands};

/// Shows a run; the spinner is gone when it ends, and never there off a terminal.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{prefix:>12} {msg} {elapsed} {spinner}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    pub(crate) fn event(&self, event: &Event<'_>, output: Output) {
        match event {
            Event::Begin { verb, name } => {
                self.0.set_prefix(verb.to_string());
                self.0.set_message(format!("`{name}`"));
            }
            Event::Line(line) => self.0.set_message(line.to_string()),
            Event::Done(step) => self.0.suspend(|| eprintln!("{}", step_line(step))),
            Event::Rows(batches) => self.0.suspend(|| {
                if let Err(e) = rows(batches, output) {
                    super::error(&e);
                }
            }),
        }
    }

    /// Shows how far the cluster is with a job, as long as what is returned is kept.
    pub(crate) fn watch(&self, mut progress: watch::Receiver<Option<cluster::Progress>>) -> Watching {
        let bar = self.0.clone();
        Watching(tokio::spawn(async move {
            while progress.changed().await.is_ok() {
                if let Some(job) = progress.borrow_and_update().as_ref() {
                    bar.set_message(job_line(job));
                }
            }
        }))
    }

    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

/// What watches a job; it ends with this.
pub(crate) struct Watching(tokio::task::JoinHandle<()>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// `stage 2 of 5, 3 of 8 tasks, 1,000 rows read, 1 task failed`.
fn job_line(job: &cluster::Progress) -> String {
    let (done, stages) = job.stages;
    let mut line = format!("stage {} of {stages}, {} of {} tasks", (done + 1).min(stages), job.tasks.0, job.tasks.1);
    line += &format!(", {} rows read", thousands(job.rows));
    if job.failed_tasks > 0 {
        line += &format!(", {} failed", plural(job.failed_tasks, "task"));
    }
    if job.resubmissions > 0 {
        line += &format!(", submitted again {}", plural(job.resubmissions as usize, "time"));
    }
    line
}

/// `    Computed `carrier_delay`  1,234 tiles, 9 features, online   1.1s`.
pub(crate) fn step_line(step: &Step) -> String {
    let (verb, code) = if step.unchanged { ("Unchanged", "2") } else { (step.verb.as_str(), "1;32") };
    format!("{} `{}` {}   {}", painted(&format!("{verb:>12}"), code), step.name, step.detail, seconds(step.seconds))
}
