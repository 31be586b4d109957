//! Where plans run: on this machine, and later on a cluster and in streams; and the scorer.
//!
//! ```text
//!  SQL ──core──▶ plan ──local()──▶ DataFusion session ──▶ RecordBatches
//!                                     └─ predict('model', …) ── score
//! ```

mod local;
pub mod score;

pub use local::{LocalOptions, SharedExtensionPlanner, local};
