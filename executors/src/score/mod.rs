//! The scorer: gradient boosted trees over Arrow columns, in this process, bit for bit as LightGBM sums them.
//!
//! A model is read once from LightGBM's text format and checked whole, so that walking it needs no further checks.
//! SQL reaches it as `predict('model', feature, …)`, whose features are given by place, in the order the model names.
//!
//! ```text
//!  model.txt ──lightgbm──▶ Forest (flat arrays of splits and leaves) ─┐
//!                                                                     ▼
//!  predict('m', a, b, c)     a: Int64   1    4  NULL        f64   1.0  4.0  NaN       sum of one leaf per tree
//!     ModelSet gives `m` ──▶ b: Boolean t NULL    f  ─cast─▶      1.0  NaN  0.0  ──▶  -1.25   0.5  2.0  (raw)
//!                            c: Float64 .5   2    3               0.5  2.0  3.0            │ objective
//!                                                                                          ▼
//!                                                                             Float64  0.22  0.62  0.88
//! ```
//!
//! The same `Model` serves a job's `SELECT`, a scoring run and an online request. It never trains and reads no table.

mod forest;
mod lightgbm;
mod model;
mod predict_udf;

pub use forest::{Forest, Missing, Split, Tree};
pub use model::{Model, Objective};
pub use predict_udf::{ModelSet, predict_udf};
