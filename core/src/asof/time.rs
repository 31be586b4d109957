//! Every instant as microseconds UTC.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};

use crate::{Error, Result};

/// The instants of a date or timestamp column, as microseconds since 1970 UTC. Nanoseconds are rounded down; a time
/// zone changes nothing, since Arrow stores UTC.
///
/// Errors: [`Invalid`](crate::ErrorKind::Invalid) for another type, [`Data`](crate::ErrorKind::Data) for an instant
/// that microseconds can't hold.
pub fn to_micros(array: &ArrayRef) -> Result<Int64Array> {
    let out_of_range = |e| Error::data(format!("an instant does not fit 64-bit microseconds: {e}"));
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Ok(array.as_primitive::<TimestampMicrosecondType>().reinterpret_cast::<Int64Type>())
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            Ok(array.as_primitive::<TimestampNanosecondType>().unary(|t| t.div_euclid(1_000)))
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            let scale = |t: i64| t.checked_mul(1_000).ok_or(arrow::error::ArrowError::ComputeError(t.to_string()));
            array.as_primitive::<TimestampMillisecondType>().try_unary(scale).map_err(out_of_range)
        }
        DataType::Timestamp(TimeUnit::Second, _) => {
            let scale = |t: i64| t.checked_mul(1_000_000).ok_or(arrow::error::ArrowError::ComputeError(t.to_string()));
            array.as_primitive::<TimestampSecondType>().try_unary(scale).map_err(out_of_range)
        }
        DataType::Date32 | DataType::Date64 => to_micros(&cast(array, &DataType::Timestamp(TimeUnit::Second, None))?),
        other => Err(Error::invalid(format!("a time is a TIMESTAMP or a DATE, not {other}"))),
    }
}

/// The inverse of [`to_micros`]: a `TIMESTAMP(6)` column.
pub fn micros(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<TimestampMicrosecondArray>())
}
