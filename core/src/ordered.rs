//! Scalars as bytes that sort like the values.
//!
//! Used where a value must be stored and compared without knowing its type: partials of `min`, `max`, `first_value`
//! and `last_value`, and entity keys. The layout is ours, so stored bytes do not depend on a library's version:
//! integers, dates, times and decimals big-endian with the sign bit flipped; floats in IEEE total order; strings and
//! bytes as they are; booleans one byte. NULL has no bytes.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, NullBufferBuilder,
    StringArray,
};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};

use crate::{Error, Result};

/// The bytes of each value of `array`; `None` for NULL.
///
/// Errors: [`Invalid`](crate::ErrorKind::Invalid) for a nested type.
pub fn encode(array: &ArrayRef) -> Result<Vec<Option<Box<[u8]>>>> {
    let carrier = carrier(array.data_type())?;
    let array = cast(array, &carrier)?;
    Ok(match carrier {
        DataType::Boolean => array.as_boolean().iter().map(|v| v.map(|v| [u8::from(v)].into())).collect(),
        DataType::Int64 => {
            array.as_primitive::<Int64Type>().iter().map(|v| v.map(|v| (v ^ i64::MIN).to_be_bytes().into())).collect()
        }
        DataType::Float64 => {
            array.as_primitive::<Float64Type>().iter().map(|v| v.map(|v| float_bits(v).to_be_bytes().into())).collect()
        }
        DataType::Decimal128(..) => array
            .as_primitive::<Decimal128Type>()
            .iter()
            .map(|v| v.map(|v| (v ^ i128::MIN).to_be_bytes().into()))
            .collect(),
        DataType::Utf8 => array.as_string::<i32>().iter().map(|v| v.map(|v| v.as_bytes().into())).collect(),
        _ => array.as_binary::<i32>().iter().map(|v| v.map(Into::into)).collect(),
    })
}

/// The values of `bytes` as an array of `data_type`; the inverse of [`encode`].
///
/// Errors: [`Data`](crate::ErrorKind::Data) if the bytes are not of that type.
pub fn decode<'a>(data_type: &DataType, bytes: impl Iterator<Item = Option<&'a [u8]>>) -> Result<ArrayRef> {
    let carrier = carrier(data_type)?;
    let array: ArrayRef = match carrier {
        DataType::Boolean => {
            let (values, nulls) = values(bytes, |[b]: [u8; 1]| b != 0)?;
            Arc::new(BooleanArray::new(values.into(), nulls))
        }
        DataType::Int64 => {
            let (values, nulls) = values(bytes, |b| i64::from_be_bytes(b) ^ i64::MIN)?;
            Arc::new(Int64Array::new(values.into(), nulls))
        }
        DataType::Float64 => {
            let (values, nulls) = values(bytes, |b| bits_float(u64::from_be_bytes(b)))?;
            Arc::new(Float64Array::new(values.into(), nulls))
        }
        DataType::Decimal128(precision, scale) => {
            let (values, nulls) = values(bytes, |b| i128::from_be_bytes(b) ^ i128::MIN)?;
            Arc::new(Decimal128Array::new(values.into(), nulls).with_precision_and_scale(precision, scale)?)
        }
        DataType::Utf8 => {
            let text = |b: Option<&'a [u8]>| b.map(std::str::from_utf8).transpose();
            let strings = bytes.map(text).collect::<Result<StringArray, _>>();
            Arc::new(strings.map_err(|e| Error::data(format!("a stored string is not UTF-8: {e}")))?)
        }
        _ => Arc::new(bytes.collect::<BinaryArray>()),
    };
    Ok(cast(&array, data_type)?)
}

/// The type whose bytes stand for all types of its kind.
fn carrier(data_type: &DataType) -> Result<DataType> {
    use DataType as D;
    Ok(match data_type {
        D::Boolean => D::Boolean,
        D::Int8 | D::Int16 | D::Int32 | D::Int64 | D::UInt8 | D::UInt16 | D::UInt32 => D::Int64,
        D::Date32 | D::Date64 | D::Time32(_) | D::Time64(_) | D::Timestamp(..) | D::Duration(_) => D::Int64,
        D::UInt64 => D::Decimal128(20, 0),
        D::Float16 | D::Float32 | D::Float64 => D::Float64,
        D::Decimal32(p, s) | D::Decimal64(p, s) | D::Decimal128(p, s) => D::Decimal128(*p, *s),
        D::Utf8 | D::LargeUtf8 | D::Utf8View => D::Utf8,
        D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_) => D::Binary,
        D::Dictionary(_, values) => carrier(values)?,
        other => return Err(Error::invalid(format!("values of type {other} can't be compared"))),
    })
}

fn values<'a, const N: usize, T: Default>(
    bytes: impl Iterator<Item = Option<&'a [u8]>>,
    read: impl Fn([u8; N]) -> T,
) -> Result<(Vec<T>, Option<NullBuffer>)> {
    let mut values = Vec::with_capacity(bytes.size_hint().0);
    let mut nulls = NullBufferBuilder::new(values.capacity());
    for value in bytes {
        nulls.append(value.is_some());
        values.push(match value.map(<[u8; N]>::try_from) {
            None => T::default(),
            Some(Ok(value)) => read(value),
            Some(Err(_)) => return Err(Error::data("a stored value has the wrong length")),
        });
    }
    Ok((values, nulls.finish()))
}

fn float_bits(v: f64) -> u64 {
    let bits = v.to_bits();
    if bits >> 63 == 1 { !bits } else { bits | (1 << 63) }
}

fn bits_float(bits: u64) -> f64 {
    f64::from_bits(if bits >> 63 == 1 { bits & !(1 << 63) } else { !bits })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check<T: PartialOrd + Copy>(a: T, b: T, array: &ArrayRef) -> Result<(), TestCaseError> {
        let bytes = encode(array).unwrap();
        prop_assert_eq!(a < b, bytes[0] < bytes[1]);
        let back = decode(array.data_type(), bytes.iter().map(|b| b.as_deref())).unwrap();
        prop_assert_eq!(&back, array);
        Ok(())
    }

    proptest! {
        #[test]
        fn integers_sort_and_come_back(a: i64, b: i64) {
            check(a, b, &(Arc::new(Int64Array::from(vec![Some(a), Some(b), None])) as ArrayRef))?;
        }

        #[test]
        fn floats_sort_and_come_back(a in -1e300..1e300f64, b in -1e300..1e300f64) {
            check(a, b, &(Arc::new(Float64Array::from(vec![Some(a), Some(b), None])) as ArrayRef))?;
        }
    }

    #[test]
    fn every_scalar_type_comes_back() {
        use arrow::datatypes::TimeUnit;
        let ints: ArrayRef = Arc::new(Int64Array::from(vec![Some(3), None, Some(7)]));
        for t in [
            DataType::Int8,
            DataType::UInt64,
            DataType::Float32,
            DataType::Date64,
            DataType::Utf8View,
            DataType::Decimal128(12, 2),
            DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
        ] {
            let array = cast(&ints, &t).unwrap();
            let bytes = encode(&array).unwrap();
            assert_eq!(&decode(&t, bytes.iter().map(|b| b.as_deref())).unwrap(), &array, "{t}");
        }
    }
}
