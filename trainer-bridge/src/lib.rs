//! Launches training programs under SageMaker's container contract, without Docker, and contains one such program.
//!
//! A program that trains under the contract finds its data in folders, its settings in JSON files and environment
//! variables, and leaves its model in a folder. So the same program runs unchanged here and on SageMaker:
//!
//! ```text
//!   JobSpec                       base folder                              the program
//!  ┌──────────────────┐          ┌─────────────────────────────────┐      ┌──────────────────────┐
//!  │ name             │ prepare  │ input/config/*.json             │ read │ python3 script.py    │
//!  │ hyperparameters  ├─────────▶│ input/data/train/*.parquet      ├─────▶│        or            │
//!  │ channels         │          │ input/data/validation/*.parquet │      │ the built-in gbdt    │
//!  └──────────────────┘          │                                 │ write│                      │
//!          ▲                     │ model/model.txt                 │◀─────┤                      │
//!          │ Error: exit code,   │ output/data/metrics.json        │      └──────────┬───────────┘
//!          │ failure, stderr,    │ output/failure, output/logs.txt │                 │ stdout, stderr
//!          │ what to do          └─────────────────────────────────┘                 ▼ line by line
//!          └──────────────────────────────── launch ◀─────────────────────────── on_line
//! ```
//!
//! [`launch`] starts the program and watches it; [`gbdt_program`] is the built-in program, whose model is a
//! [LightGBM text file](lightgbm_text), so nothing of this crate is needed to load it. The [metrics](auc) and the
//! [split by time](split_by_time) are pure functions that any other trainer can use as well.
//!
//! This crate never talks to a cloud and never writes outside the job's base folder.
//!
//! ```
//! use featurectl_trainer_bridge::{auc, split_by_time};
//! let parts = split_by_time(&[40, 10, 30, 20], [0.5, 0.25, 0.25])?;
//! assert_eq!(parts, [2, 0, 1, 0]);
//! assert_eq!(auc(&[true, false], &[0.9, 0.2]), Some(1.0));
//! # Ok::<(), featurectl_core::Error>(())
//! ```

mod contract;
mod gbdt;
mod lightgbm;
mod local;
mod metrics;
mod split;
mod table;

pub use contract::{Contract, JobSpec};
pub use gbdt::{HYPERPARAMETERS, check_hyperparameters, gbdt_program};
pub use lightgbm::{Feature, Forest, Node, Objective, Split, Tree, lightgbm_text};
pub use local::{Program, launch};
pub use metrics::{accuracy, auc, base_rate, log_loss, mae, rmse};
pub use split::split_by_time;
