//! Every instant as microseconds UTC.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, TimestampMicrosecondArray};
use arrow::compute::{cast, concat, rank};
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

/// Two columns of one type as integers of the same order, for comparing values across them.
///
/// Errors: [`Invalid`](crate::ErrorKind::Invalid) for a type without an order.
pub(super) fn ordinals(left: &ArrayRef, right: &ArrayRef) -> Result<(Int64Array, Int64Array)> {
    use DataType as D;
    match left.data_type() {
        D::Int8 | D::Int16 | D::Int32 | D::Int64 | D::UInt8 | D::UInt16 | D::UInt32 | D::Date32 | D::Date64 => {}
        D::Time32(_) | D::Time64(_) | D::Timestamp(..) | D::Duration(_) => {}
        _ => return ranks(left, right),
    }
    let integers =
        |a: &ArrayRef| Ok::<_, Error>(cast(&cast_date32(a)?, &D::Int64)?.as_primitive::<Int64Type>().clone());
    Ok((integers(left)?, integers(right)?))
}

/// Arrow casts a `Date32` to integers by way of `Int32` only.
fn cast_date32(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Date32 | DataType::Time32(_) => Ok(cast(array, &DataType::Int32)?),
        _ => Ok(Arc::clone(array)),
    }
}

/// Equal values have equal ranks.
fn ranks(left: &ArrayRef, right: &ArrayRef) -> Result<(Int64Array, Int64Array)> {
    let both = concat(&[left.as_ref(), right.as_ref()])?;
    let both = match both.data_type() {
        DataType::Dictionary(_, values) => cast(&both, values)?,
        _ => both,
    };
    let ranks = rank(&both, None)
        .map_err(|e| Error::invalid(format!("a time of type {} can't be compared: {e}", left.data_type())))?;
    let nulls = both.logical_nulls();
    let ranks = Int64Array::new(ranks.into_iter().map(i64::from).collect(), nulls);
    Ok((ranks.slice(0, left.len()), ranks.slice(left.len(), right.len())))
}
