//! How AWS is reached: one configuration for all services, and buckets of S3 as object stores.
//!
//! ```text
//!  Access ──standard chain──▶ SdkConfig ──▶ clients of Kinesis, DynamoDB, …   (in the crates that use them)
//!     └────▶ Buckets ──s3://bucket──▶ Bucket ──▶ object_store, with credentials of the same chain
//! ```
//! Nothing here is ever part of a plan: every process of a cluster resolves `s3://` by its own configuration.

mod access;
mod bucket;
mod buckets;
mod credentials;
mod failure;
mod told;

pub use access::Access;
pub use buckets::Buckets;
pub use told::told;
