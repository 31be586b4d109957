//! One binary for all tests of the crate, so that it links once.

mod score;
mod versions;
