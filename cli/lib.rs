//! featurectl: feature engineering for machine learning, defined once in SQL and computed by one engine everywhere.
//!
//! ```text
//!  job.sql ──check──▶ definitions ──run──┬─▶ offline store (Delta)     tiles, training sets
//!                                        ├─▶ online store              features by key, as of now
//!                                        ├─▶ model                     trained, measured, signed
//!                                        └─▶ scores                    predict('model', …) over a query
//! ```
//!
//! As a library it is the same engine with your own functions and aggregations in it:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> featurectl::Result<()> {
//! use featurectl::{Extensions, Project, Session};
//!
//! let session = Session::open(Project::in_memory(), &Extensions::default())?;
//! let batches = session.sql("SELECT 1 + 1 AS two").await?;
//! assert_eq!(batches[0].num_rows(), 1);
//! # Ok(()) }
//! ```
//! [`App`] makes a binary of your own with all of featurectl's verbs.

mod app;
mod args;
mod cmd;
mod prices;
mod project;
mod render;
mod run;
mod serve;
mod session;

pub use app::App;
pub use featurectl_aws::Access;
pub use featurectl_core::aggregate::{AggregateFunction, Aggregation, Aggregator, Arg, Events, aggregator};
pub use featurectl_core::tile::Tiles;
pub use featurectl_core::{Diagnostic, Error, ErrorKind, FeatureView, Result, Severity, Source, Span};
pub use featurectl_executors::LocalOptions;
pub use featurectl_executors::cluster::Address;
pub use featurectl_feature_store::Folder;
pub use project::{Online, Project};
pub use run::{Event, RunReport, Step};
pub use session::{Extensions, Job, Session};
