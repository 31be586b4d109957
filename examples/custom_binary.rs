//! A binary of one's own: all of featurectl's verbs, with one more aggregation.
//!
//! `cargo run --example custom_binary -- run examples/custom_binary.sql`, a job that says `geo_mean(factor) OVER …`.

use std::process::ExitCode;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use featurectl::{AggregateFunction, Aggregation, App, Error, Events, Result, aggregator};

fn main() -> ExitCode {
    let geo_mean = AggregateFunction::new("geo_mean", |_| Ok(aggregator(GeoMean)));
    App::default().with_aggregation(geo_mean).main()
}

/// The geometric mean of positive numbers; the partial is the sum of logarithms and the count.
#[derive(Debug)]
struct GeoMean;

impl Aggregation for GeoMean {
    type Partial = (f64, u64);

    fn return_type(&self) -> DataType {
        DataType::Float64
    }

    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<Self::Partial>>> {
        let values = arrow::compute::cast(&events.args[0], &DataType::Float64)?;
        let values = values.as_primitive::<Float64Type>();
        Ok(values.iter().map(|v| v.filter(|v| *v > 0.0).map(|v| (v.ln(), 1))).collect())
    }

    fn merge(&self, into: &mut Self::Partial, other: &Self::Partial) {
        *into = (into.0 + other.0, into.1 + other.1);
    }

    fn finish(&self, partials: &[Option<Self::Partial>]) -> Result<ArrayRef> {
        let mean = |(logs, n): (f64, u64)| (logs / n as f64).exp();
        Ok(Arc::new(partials.iter().map(|p| p.map(mean)).collect::<Float64Array>()))
    }

    fn encode(&self, partial: &Self::Partial, out: &mut Vec<u8>) {
        out.extend(partial.0.to_le_bytes());
        out.extend(partial.1.to_le_bytes());
    }

    fn decode(&self, bytes: &[u8]) -> Result<Self::Partial> {
        let number = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok());
        match (number(0), number(8)) {
            (Some(logs), Some(n)) => Ok((f64::from_le_bytes(logs), u64::from_le_bytes(n))),
            _ => Err(Error::data("a partial of `geo_mean` has 16 bytes")),
        }
    }
}
