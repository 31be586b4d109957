//! Kinesis, by the emulator kinesis-local, which reshards and closes shards as the service does, and a proxy that
//! disturbs the calls as the service may.

mod aggregates;
mod blobs;
mod emulator;
mod faults;
mod histories;
mod proxy;
mod putting;
mod reading;
mod server;
mod tables;
