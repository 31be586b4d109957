//! featurectl as a library: tables in memory, a scalar function of one's own, SQL in, `RecordBatch`es out.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Float64Type};
use arrow::util::pretty::pretty_format_batches;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{Volatility, create_udf};
use datafusion::physical_plan::ColumnarValue;
use featurectl::{Extensions, Project, Session};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let celsius = create_udf(
        "celsius",
        vec![DataType::Float64],
        DataType::Float64,
        Volatility::Immutable,
        Arc::new(|args: &[ColumnarValue]| {
            let fahrenheit = ColumnarValue::values_to_arrays(args)?.remove(0);
            let celsius = fahrenheit.as_primitive::<Float64Type>().unary::<_, Float64Type>(|f| (f - 32.0) / 1.8);
            Ok(ColumnarValue::Array(Arc::new(celsius)))
        }),
    );
    let session = Session::open(Project::in_memory(), &Extensions { functions: vec![celsius], ..Default::default() })?;
    let columns: [(&str, ArrayRef); 3] = [
        ("origin", Arc::new(StringArray::from(vec!["EWR", "EWR", "JFK"]))),
        (
            "at",
            arrow::compute::cast(
                &StringArray::from(vec!["2013-01-01T10:00:00", "2013-01-01T11:00:00", "2013-01-01T10:00:00"]),
                &DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None),
            )?,
        ),
        ("temp", Arc::new(Float64Array::from(vec![39.0, 41.0, 37.4]))),
    ];
    let batch = RecordBatch::try_from_iter(columns)?;
    session.context().register_table("weather", Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?))?;
    let rows = session
        .sql(
            "CREATE FEATURE VIEW warmth ENTITY (origin) EVENT TIME at AS
             SELECT avg(celsius(temp)) OVER (RANGE INTERVAL '3 hours' PRECEDING) AS celsius_3h FROM weather;
             SELECT r.origin, w.celsius_3h
             FROM (VALUES ('EWR', TIMESTAMP '2013-01-01 12:00:00'), ('JFK', TIMESTAMP '2013-01-01 12:00:00')) AS r (origin, t)
             ASOF JOIN warmth w MATCH_CONDITION (r.t > w.at) ON r.origin = w.origin ORDER BY origin",
        )
        .await?;
    println!("{}", pretty_format_batches(&rows)?);
    Ok(())
}
