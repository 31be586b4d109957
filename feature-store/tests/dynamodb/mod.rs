//! The store in DynamoDB, by the emulator dynalite, and a proxy that disturbs the calls as the service may.

mod conforming;
mod emulator;
mod faults;
mod histories;
mod parts;
mod proxy;
mod server;
mod tables;

use super::process;
