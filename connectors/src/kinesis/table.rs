//! Streams as tables of DataFusion.
//!
//! ```sql
//! CREATE EXTERNAL TABLE clicks (user_id BIGINT, ts TIMESTAMP, amount DOUBLE)
//! STORED AS JSON LOCATION 'kinesis://clicks' OPTIONS ('from' '2026-01-31', 'to' '2026-02-01');
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::CreateExternalTable;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::SessionContext;
use featurectl_aws::Access;
use featurectl_core::Error;
use futures::{StreamExt, TryStreamExt, stream};

use super::client::Kinesis;
use super::scan::StreamTable;

/// Formats in which a stream may be stored.
const FORMATS: [&str; 4] = ["JSON", "CSV", "AVRO", "PROTOBUF"];

/// Makes `LOCATION 'kinesis://…'` known to a session. Paths in options are relative to `root`; what a table does not say
/// of how to reach the service, `access` does.
pub fn register_streams(ctx: &SessionContext, root: &Path, access: &Access) {
    let state = ctx.state_ref();
    let mut state = state.write();
    let factories = state.table_factories_mut();
    for format in FORMATS {
        let files = factories.get(format).cloned();
        let streams = Streams { root: root.to_path_buf(), access: access.clone(), files };
        factories.insert(format.into(), Arc::new(streams));
    }
}

/// Makes tables of streams; a location that is none goes to who made tables of the format before.
#[derive(Debug)]
struct Streams {
    root: PathBuf,
    access: Access,
    files: Option<Arc<dyn TableProviderFactory>>,
}

#[async_trait]
impl TableProviderFactory for Streams {
    async fn create(&self, state: &dyn Session, cmd: &CreateExternalTable) -> DfResult<Arc<dyn TableProvider>> {
        let is_stream = |l: &String| l.starts_with("kinesis://");
        if !cmd.locations.iter().any(is_stream) {
            let files = self.files.as_ref().ok_or_else(|| {
                Error::invalid(format!(
                    "STORED AS {} is for streams: the location is `kinesis://<name>`",
                    cmd.file_type
                ))
            })?;
            return files.create(state, cmd).await;
        }
        let [location] = cmd.locations.as_slice() else {
            return Err(Error::invalid("a table reads one stream: join several with UNION ALL").into());
        };
        if cmd.unbounded {
            let fix = "leave UNBOUNDED out, and set the options `from` and `to` for a part of it";
            return Err(Error::invalid(format!("a stream cannot be read without end yet: {fix}")).into());
        }
        let declared: SchemaRef = Arc::clone(cmd.schema.inner());
        let (root, access) = (&self.root, &self.access);
        let table = StreamTable::new(location, &cmd.file_type, &declared, &cmd.options, root, access).await?;
        let schema = table.schema().clone();
        let stretch = Stretch { table: Arc::new(table), schema: schema.clone() };
        Ok(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(stretch)])?))
    }
}

/// The rows of a stream's stretch, as the one partition of a table.
#[derive(Debug)]
struct Stretch {
    table: Arc<StreamTable>,
    schema: SchemaRef,
}

impl PartitionStream for Stretch {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let table = Arc::clone(&self.table);
        let rows = stream::once(async move {
            let kinesis = Kinesis::connect(&table.stream, &table.access).await;
            table.rows(kinesis)
        });
        let rows = rows.flatten().map_err(DataFusionError::from);
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}
