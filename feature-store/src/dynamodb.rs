//! How tiles lie in a DynamoDB table, and a table filled by import. No request is made here.
//!
//! ```text
//!  tiles sorted by key ──▶ Item (pk, sk, attributes) ──▶ DynamoDB JSON, gzip ──▶ import-00000.json.gz …
//!                                                                                import.json (for ImportTable)
//! ```

mod import;
mod item;

pub use import::{ImportPlan, write_import};
pub use item::{Item, decode, encode};
