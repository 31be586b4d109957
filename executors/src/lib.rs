//! Where plans run: on this machine, on a cluster, and later in streams; and the scorer.
//!
//! ```text
//!  SQL ──core──▶ plan ──local()────▶ DataFusion session ──▶ RecordBatches
//!                     ──cluster::session()──▶ the same, whose plans run on executors
//!                                     └─ predict('model', …) ── score
//! ```

pub mod cluster;
mod local;
pub mod score;

pub use local::{LocalOptions, SharedExtensionPlanner, Stores, local};
