//! Where features are kept: Delta tables offline, tiles online, and the registry of what is defined.
//!
//! ```text
//!  plan ──▶ OfflineStore (Delta) ──tiles──▶ OnlineStore (embedded, DynamoDB) ──OnlinePlanner──▶ features at T
//!              └────────────────── Registry: definitions, hashes, runs ──────────────────┘
//! ```

pub mod conformance;
pub mod dynamodb;
mod embedded;
mod folder;
mod keys;
mod lease;
mod offline;
mod pointer;
mod registry;
mod serving;

pub use dynamodb::DynamoStore;
pub use embedded::EmbeddedStore;
pub use folder::{Entries, Folder};
pub use offline::{DATE_COLUMN, Manifest, OfflineStore, Replace, Unit, Version};
pub use pointer::{Generation, Served, Tables, clear, forget, serve, served};
pub use registry::{Entry, Lock, Registry, json};
pub use serving::{OnlinePlanner, OnlineReadExec, OnlineReader, put_tiles};
