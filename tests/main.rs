//! Tests of the whole: one binary.

mod backfill;
mod cli;
mod cluster;
mod crates;
mod diagnostics;
mod engine;
mod external_catalog;
mod glue;
mod import;
mod kill;
mod kinesis;
mod network;
mod oracle;
mod oracle_lists;
mod s3;
mod score;
mod secrets;
mod semantics;
mod serving;
mod shapes;
