//! The scorer: models that other libraries trained, over Arrow columns, in this process, with those libraries' results.
//!
//! ```text
//!  model file ──format/──▶ Model (model.rs): a Forest (forest.rs), a weighted sum, or layers (network.rs); and a link
//!                             │
//!                             ▼ Scorer (scorer.rs)
//!                    plan/: ranks, conditions, bits of leaves' codes ──▶ kernel/: AVX-512, AVX2 or plain code, in blocks
//!                    row.rs: nodes, 8 trees side by side ──▶ one row at a time
//!                             │
//!  predict('m', a, b, c)      ▼ margins ──link.rs──▶ predictions
//!     predict_udf.rs       NULL is a missing value; features are given by place, in the order the model names
//! ```
//!
//! Leaves are added in the order and precision of the library that trained the model, so margins are equal to the bit
//! where it adds doubles, and to a unit in the last place where it adds floats. The scorer never trains and reads no
//! table.

mod contributions;
mod forest;
mod format;
mod kernel;
mod link;
mod model;
mod network;
mod parts;
mod plan;
mod predict_udf;
mod row;
mod scorer;

pub use forest::{Forest, LinearLeaf, Missing, Precision, Split, Test, Tree, ZERO};
pub use kernel::Instructions;
pub use model::{Body, Layer, Linear, Link, Model, Norm};
pub(crate) use predict_udf::Predict;
pub use predict_udf::{Fetch, Located, ModelSet, Output, predict_udf};
pub use row::Scratch;
pub use scorer::Scorer;
