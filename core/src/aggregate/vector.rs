//! `vector_sum` and `vector_avg`: element by element over lists of numbers, such as embeddings.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type};

use super::double_double::{DoubleDouble, Reader};
use super::ranked::list;
use super::{Aggregation, Events, Inverse};
use crate::{Error, Result};

#[derive(Debug)]
pub(super) struct Vector {
    pub(super) avg: bool,
}

/// Sum and count of each element; `None` once vectors of different lengths have met.
type Elements = Option<Vec<(DoubleDouble, u64)>>;

impl Aggregation for Vector {
    type Partial = Elements;

    fn return_type(&self) -> DataType {
        DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)))
    }

    /// A NULL vector does not count, and neither does a NULL element of another.
    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<Elements>>> {
        let vectors = cast(&events.args[0], &self.return_type())?;
        let vectors = vectors.as_list::<i32>();
        let values = vectors.values().as_primitive::<Float64Type>();
        let one = |row: usize| {
            let (from, to) = (vectors.value_offsets()[row] as usize, vectors.value_offsets()[row + 1] as usize);
            let element = |i| match values.is_valid(i) {
                true => (values.value(i).into(), 1),
                false => (DoubleDouble::default(), 0),
            };
            vectors.is_valid(row).then(|| Some((from..to).map(element).collect()))
        };
        Ok((0..vectors.len()).map(one).collect())
    }

    fn inverse(&self) -> Option<Inverse<Self::Partial>> {
        Some(|p| p.as_ref().map(|e| e.iter().map(|(sum, n)| (sum.neg(), n.wrapping_neg())).collect()))
    }

    fn merge(&self, into: &mut Elements, other: &Elements) {
        match (into.as_mut(), other) {
            (Some(elements), Some(others)) if elements.len() == others.len() => {
                for (element, other) in elements.iter_mut().zip(others) {
                    *element = (element.0.add(other.0), element.1.wrapping_add(other.1));
                }
            }
            _ => *into = None,
        }
    }

    fn finish(&self, partials: &[Option<Elements>]) -> Result<ArrayRef> {
        let uneven = || Error::data("vectors of different lengths can't be added: FILTER those of one length");
        let known = partials.iter().map(|p| p.as_ref().map(|e| e.as_ref().ok_or_else(uneven)).transpose());
        let known = known.collect::<Result<Vec<_>>>()?;
        let value = |(sum, n): &(DoubleDouble, u64)| {
            (*n > 0).then(|| if self.avg { sum.value() / *n as f64 } else { sum.value() })
        };
        let values: Float64Array = known.iter().flatten().flat_map(|e| e.iter().map(value)).collect();
        Ok(list(Arc::new(values), known.iter().map(|e| e.map(Vec::len))))
    }

    /// 1, then of each element its sum (two doubles) and count; or 0 for vectors of different lengths.
    fn encode(&self, partial: &Elements, out: &mut Vec<u8>) {
        out.push(u8::from(partial.is_some()));
        for (sum, n) in partial.iter().flatten() {
            sum.encode(out);
            out.extend(n.to_le_bytes());
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<Elements> {
        let mut reader = Reader(bytes);
        if reader.array::<1>()? == [0] {
            return Ok(None);
        }
        let mut elements = Vec::with_capacity(reader.0.len() / 24);
        while !reader.0.is_empty() {
            elements.push((reader.double_double()?, reader.u64()?));
        }
        Ok(Some(elements))
    }
}
