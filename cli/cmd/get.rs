//! `get`: features of a service, from the online store.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::FieldRef;
use featurectl_core::asof::micros;
use featurectl_core::{Error, FeatureService, Micros, Result, closest};

use super::project;
use crate::args::Global;
use crate::render;
use crate::session::{Extensions, Session};

pub(super) async fn get(
    global: &Global,
    extensions: &Extensions,
    service: &str,
    request: &[(String, String)],
    at: Option<&str>,
) -> Result<ExitCode> {
    let session = Session::open_serving(project(global, None)?, extensions).await?;
    let started = Instant::now();
    let at = at.map_or_else(|| Ok(now()), instant)?;
    let row = request_row(session.service(service)?.as_ref(), request, at)?;
    let rows = session.read_service(service, row).await?;
    render::rows(&rows, global.output)?;
    let count = rows.iter().map(RecordBatch::num_rows).sum::<usize>();
    let plural = if count == 1 { "row" } else { "rows" };
    render::note(&format!("{count} {plural} in {}", render::seconds(started.elapsed().as_secs_f64())));
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::disallowed_methods, reason = "the edge: a request without --at is for now")]
fn now() -> Micros {
    chrono::Utc::now().timestamp_micros()
}

fn instant(text: &str) -> Result<Micros> {
    let nanos = arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(text);
    let nanos = nanos.map_err(|e| Error::invalid(format!("--at {text}: {e}; write 2013-12-31T23:00:00Z")))?;
    Ok(nanos.div_euclid(1000))
}

/// The request as one typed row. A time of a MATCH_CONDITION that is not given is `at`; anything else that is not given is NULL, with
/// a warning.
fn request_row(service: &FeatureService, given: &[(String, String)], at: Micros) -> Result<RecordBatch> {
    let names = || service.request.fields().iter().map(|f| f.name().as_str());
    for (name, _) in given {
        if !names().any(|n| n == name) {
            let hint = closest(name, names())
                .map_or(format!("it has {}", names().collect::<Vec<_>>().join(", ")), |n| {
                    format!("did you mean `{n}`?")
                });
            return Err(Error::invalid(format!("service `{}` has no request column `{name}`: {hint}", service.name)));
        }
    }
    let value = |field: &FieldRef| match given.iter().find(|(name, _)| name == field.name()) {
        Some((_, text)) => parse(field, text),
        None if service.times.contains(field.name()) => cast(field, &micros([Some(at)])),
        None => {
            render::warning(&format!("request column `{}` is not given: NULL", field.name()));
            Ok(new_null_array(field.data_type(), 1))
        }
    };
    let columns = service.request.fields().iter().map(value).collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(Arc::clone(&service.request), columns)?)
}

fn parse(field: &FieldRef, text: &str) -> Result<ArrayRef> {
    let array: ArrayRef = Arc::new(StringArray::from(vec![text]));
    cast(field, &array)
        .map_err(|_| Error::invalid(format!("`{text}` is no {} for `{}`", field.data_type(), field.name())))
}

fn cast(field: &FieldRef, array: &ArrayRef) -> Result<ArrayRef> {
    let strict = CastOptions { safe: false, ..Default::default() };
    Ok(cast_with_options(array, field.data_type(), &strict)?)
}
