//! The readers of model files and what scores with them, made of the workspace's files but without the query engine, which
//! would take most of an hour to build as fuzzing wants it.

extern crate self as featurectl_core;
extern crate self as featurectl_executors;

mod check;
#[path = "../../core/src/error.rs"]
mod error;

pub use check::check;
pub use error::{Error, ErrorKind, Result};

#[path = "../../executors/src/score"]
#[allow(dead_code, unused_imports, reason = "what only queries use")]
pub mod score {
    mod contributions;
    mod forest;
    mod format;
    mod kernel;
    mod link;
    mod model;
    mod network;
    mod parts;
    mod plan;
    mod row;
    mod scorer;

    pub use forest::{Forest, LinearLeaf, Missing, Precision, Split, Test, Tree, ZERO};
    pub use kernel::Instructions;
    pub use model::{Body, Layer, Linear, Link, Model, Norm};
    pub use row::Scratch;
    pub use scorer::Scorer;
}
