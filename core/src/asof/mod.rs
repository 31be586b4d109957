//! As-of joins: what was known at an instant.
//!
//! ```text
//!  SQL   l ASOF JOIN r MATCH_CONDITION (l.t > r.t) ON l.k = r.k
//!    │ relation.rs   (r: a table, a subquery, or a feature view)
//!    ▼
//!  AsOfNode (node.rs) ──────────────┐                    OnlineNode (node.rs): the same, from an online store
//!    │ exec.rs: hash by key, group by (key, time)            │ planned by the feature store
//!    ▼                              ▼                        ▼
//!  AsOfJoinExec                AsOfAggregateExec         (online read)
//!  one matching row            windows of events
//!    └───────── sweep.rs ───────────┘   pure: which right rows belong to a left row
//! ```
//! A left row is always kept; without a match the right columns are NULL, and a count is 0.

mod bounds;
mod exec;
mod node;
mod pushdown;
mod reach;
mod relation;
mod sweep;
mod time;

pub(crate) use exec::AsOfExec;
pub use exec::AsOfPlanner;
pub use node::{AsOfNode, MatchOp, OnlineNode};
pub use pushdown::PushFiltersBelowAsOf;
pub(crate) use reach::Watch;
pub use relation::{FeatureRelations, FeatureViewTable, Serve, SqlProblem};
pub(crate) use relation::{check_request, service_and_table};
pub(crate) use sweep::tile_ranges;
pub use time::{micros, to_micros};
