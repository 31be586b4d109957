//! One Delta transaction over files that are written already.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use deltalake::kernel::engine::arrow_conversion::{TryIntoArrow, TryIntoKernel};
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TableReference};
use deltalake::kernel::{Action, Add, LogicalFileView, MetadataExt, StructType, normalize_for_delta};
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::{DeltaTable, DeltaTableError, TableProperty};
use featurectl_core::sink::WrittenFile;
use featurectl_core::tile::WRITER_COLUMN;
use featurectl_core::{Error, Result};

use super::{DATE_COLUMN, Replace, delta_error};
use crate::folder::Folder;

/// After how many commits the log is summed up in a file, so that opening a table reads few of them.
const CHECKPOINT_INTERVAL: i64 = 10;

/// The types that a table has for columns of `schema`, all of them nullable.
pub(super) fn table_schema(schema: &Schema) -> std::result::Result<SchemaRef, DeltaTableError> {
    let nullable = |f: &Arc<Field>| f.as_ref().clone().with_nullable(true);
    let plain = Schema::new(schema.fields().iter().map(nullable).collect::<Vec<_>>());
    let kernel: StructType = normalize_for_delta(&Arc::new(plain)).try_into_kernel()?;
    Ok(Arc::new((&kernel).try_into_arrow()?))
}

/// The columns that a table of this schema is partitioned by.
pub(super) fn partition_by(schema: &Schema) -> Vec<String> {
    schema.index_of(DATE_COLUMN).is_ok().then(|| DATE_COLUMN.into()).into_iter().collect()
}

/// Adds `files`, takes those away that they replace, and makes `schema` the table's; all in one version.
///
/// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) if rows of other columns are to be added.
pub(super) async fn commit(
    delta: &mut DeltaTable,
    schema: &SchemaRef,
    replace: &Replace,
    files: &[WrittenFile],
    properties: CommitProperties,
    path: &Folder,
) -> Result<()> {
    let fail = |e: DeltaTableError| delta_error(e, path);
    let partition_by = partition_by(schema);
    let kernel: StructType = schema.as_ref().try_into_kernel().map_err(|e| fail(e.into()))?;
    let mut actions: Vec<Action> = Vec::with_capacity(files.len() + 2);
    let old = delta.snapshot().ok().map(|s| s.snapshot().clone());
    if old.as_ref().is_none_or(|s| *s.schema() != kernel) {
        if old.is_some() && *replace != Replace::All {
            return Err(Error::invalid(
                "its columns are not those of the rows to be added: DROP it, or run with the old definition",
            ));
        }
        // What a table of this schema needs is asked of a new one that is never kept.
        let new = DeltaTable::new_in_memory().create().with_columns(kernel.fields().cloned());
        let new = new.with_partition_columns(partition_by.clone());
        let new =
            new.with_configuration_property(TableProperty::CheckpointInterval, Some(CHECKPOINT_INTERVAL.to_string()));
        let new = new.await.map_err(fail)?;
        let new = new.snapshot().map_err(fail)?.snapshot();
        let metadata = match &old {
            Some(old) => {
                new.metadata().clone().with_table_id(old.metadata().id().to_string()).map_err(|e| fail(e.into()))?
            }
            None => new.metadata().clone(),
        };
        actions.extend([Action::Protocol(new.protocol().clone()), Action::Metadata(metadata)]);
    }
    if let Some(old) = &old {
        for file in old.log_data().iter() {
            if replaces(replace, &file)? {
                actions.push(Action::Remove(file.remove_action(true)));
            }
        }
    }
    for file in files.iter().filter(|f| f.rows > 0) {
        actions.push(Action::Add(add(file, &partition_by)?));
    }
    let mode = if *replace == Replace::Nothing { SaveMode::Append } else { SaveMode::Overwrite };
    let predicate = match replace {
        Replace::Unit(id) => Some(format!("{WRITER_COLUMN} = '{id}'")),
        _ => None,
    };
    let partition_by = (!partition_by.is_empty()).then_some(partition_by);
    let operation = DeltaOperation::Write { mode, partition_by, predicate };
    // What a file sums up may go once it is old, and only that.
    let next = old.as_ref().map_or(0, |old| old.version() as i64 + 1);
    let properties = properties.with_cleanup_expired_logs(Some((next + 1) % CHECKPOINT_INTERVAL == 0));
    let done = CommitBuilder::from(properties)
        .with_actions(actions)
        .build(old.as_ref().map(|s| s as &dyn TableReference), delta.log_store(), operation)
        .await
        .map_err(fail)?;
    delta.state = Some(done.snapshot());
    Ok(())
}

fn add(file: &WrittenFile, partition_by: &[String]) -> Result<Add> {
    let damaged = |e: serde_json::Error| Error::internal(format!("a written file's partition: {e}"));
    let mut values: std::collections::HashMap<String, Option<String>> =
        serde_json::from_str(&file.partition).map_err(damaged)?;
    for column in partition_by {
        values.entry(column.clone()).or_default();
    }
    Ok(Add {
        path: file.path.clone(),
        partition_values: values,
        size: file.bytes as i64,
        modification_time: file.written_ms,
        data_change: true,
        stats: Some(file.stats.clone()),
        tags: None,
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
        clustering_provider: None,
    })
}

/// Whether a file's rows are replaced: a file has the rows of one unit, as its statistics say.
fn replaces(replace: &Replace, file: &LogicalFileView) -> Result<bool> {
    let id = match replace {
        Replace::All => return Ok(true),
        Replace::Nothing => return Ok(false),
        Replace::Unit(id) => id.as_str(),
    };
    let stats = file.stats().and_then(|s| serde_json::from_str::<serde_json::Value>(&s).ok()).unwrap_or_default();
    let bound = |of: &str| stats.get(of).and_then(|v| v.get(WRITER_COLUMN)).and_then(|v| v.as_str());
    match (bound("minValues"), bound("maxValues")) {
        (Some(low), Some(high)) if low == high => Ok(low == id),
        (Some(low), Some(high)) if id < low || id > high => Ok(false),
        _ => Err(Error::data(format!(
            "{} does not say which unit of work its rows are of: DROP the feature view and materialize it again",
            file.path()
        ))),
    }
}
