//! Instants as text, microseconds UTC.

use arrow::array::timezone::Tz;
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::temporal_conversions::timestamp_us_to_datetime;
use featurectl_core::{Error, Result};

/// The instant that a text such as `2026-01-31`, `2026-01-31 12:00` or `2026-01-31T12:00:00.5+01:00` names; UTC where
/// it names no zone.
pub fn micros(text: &str) -> Result<i64> {
    let wrong = |e: &dyn std::fmt::Display| {
        Error::invalid(format!("`{text}` is no time: {e}; write it as `2026-01-31T12:00:00Z`"))
    };
    let utc: Tz = "+00:00".parse().map_err(|e| wrong(&e))?;
    Ok(string_to_datetime(&utc, text.trim()).map_err(|e| wrong(&e))?.timestamp_micros())
}

/// The text of an instant; [`micros`] gives it back.
pub fn rfc3339(micros: i64) -> String {
    match timestamp_us_to_datetime(micros) {
        Some(at) => at.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string(),
        None => format!("{micros} µs"),
    }
}
