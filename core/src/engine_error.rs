//! Errors of the query engine as ours, and ours as the engine's. Apart from [`Error`], which knows no engine, since
//! `fuzz/` is built without one.

use crate::error::{Error, ErrorKind};

impl From<datafusion::error::DataFusionError> for Error {
    fn from(e: datafusion::error::DataFusionError) -> Self {
        use datafusion::error::DataFusionError as Df;
        if let Some(own) = Error::within(&e) {
            return Self::new(own.kind(), own.to_string()).with_source(e);
        }
        let root = e.find_root();
        let kind = match root {
            Df::Plan(_) | Df::SchemaError(..) | Df::SQL(..) | Df::NotImplemented(_) | Df::Configuration(_) => {
                ErrorKind::Invalid
            }
            Df::ParquetError(_) | Df::ArrowError(..) | Df::Execution(_) => ErrorKind::Data,
            Df::ResourcesExhausted(_) => ErrorKind::Invalid,
            Df::ObjectStore(o) if o.to_string().contains("not found") => ErrorKind::NotFound,
            _ => ErrorKind::Internal,
        };
        let message = match root {
            Df::External(inner) => inner.to_string(),
            other => other.strip_backtrace(),
        };
        Self::new(kind, message).with_source(e)
    }
}

impl From<datafusion::object_store::Error> for Error {
    fn from(e: datafusion::object_store::Error) -> Self {
        datafusion::error::DataFusionError::from(e).into()
    }
}

impl From<Error> for datafusion::error::DataFusionError {
    fn from(e: Error) -> Self {
        Self::External(Box::new(e))
    }
}
