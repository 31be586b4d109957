//! Tests of the connectors against real servers on the loopback address.

mod kinesis;
