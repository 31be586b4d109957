//! Files put into streams.
