//! Entries of the catalog as the SDK has them.

use aws_sdk_glue::error::BuildError;
use aws_sdk_glue::types::{self as aws, PartitionInput, SerDeInfo, StorageDescriptor, TableInput};
use featurectl_core::{Error, Result};

use super::{Column, Entry, Partition, Storage};

pub(super) fn unbuilt(e: BuildError) -> Error {
    Error::internal(e.to_string())
}

pub(super) fn entry(table: &aws::Table) -> Entry {
    let link = table
        .target_table()
        .map(|t| format!("{}.{}", t.database_name().unwrap_or_default(), t.name().unwrap_or_default()));
    Entry {
        kind: table.table_type().unwrap_or_default().to_string(),
        description: table.description().map(str::to_string),
        owner: table.owner().map(str::to_string),
        partition_keys: table.partition_keys().iter().map(column).collect(),
        parameters: table.parameters().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        storage: table.storage_descriptor().map(storage).unwrap_or_default(),
        version: table.version_id().map(str::to_string),
        link,
    }
}

fn column(column: &aws::Column) -> Column {
    Column {
        name: column.name().to_string(),
        of: column.r#type().unwrap_or_default().to_string(),
        comment: column.comment().map(str::to_string),
    }
}

pub(super) fn storage(storage: &StorageDescriptor) -> Storage {
    let text = |t: Option<&str>| t.unwrap_or_default().to_string();
    let serde = storage.serde_info();
    let parameters = serde.and_then(SerDeInfo::parameters).into_iter().flatten();
    Storage {
        columns: storage.columns().iter().map(column).collect(),
        location: text(storage.location()),
        input_format: text(storage.input_format()),
        output_format: text(storage.output_format()),
        serde: text(serde.and_then(SerDeInfo::serialization_library)),
        serde_parameters: parameters.map(|(k, v)| (k.clone(), v.clone())).collect(),
    }
}

pub(super) fn input(name: &str, table: &Entry) -> Result<TableInput> {
    let keys = table.partition_keys.iter().map(column_input).collect::<Result<_>>()?;
    TableInput::builder()
        .name(name)
        .table_type(&table.kind)
        .set_description(table.description.clone())
        .set_owner(table.owner.clone())
        .set_partition_keys(Some(keys))
        .set_parameters(Some(table.parameters.clone().into_iter().collect()))
        .storage_descriptor(descriptor(&table.storage)?)
        .build()
        .map_err(unbuilt)
}

pub(super) fn partition_input(partition: &Partition) -> Result<PartitionInput> {
    let input = PartitionInput::builder().set_values(Some(partition.values.clone()));
    Ok(input.storage_descriptor(descriptor(&partition.storage)?).build())
}

fn column_input(column: &Column) -> Result<aws::Column> {
    let input = aws::Column::builder().name(&column.name).r#type(&column.of);
    input.set_comment(column.comment.clone()).build().map_err(unbuilt)
}

fn descriptor(storage: &Storage) -> Result<StorageDescriptor> {
    let serde = SerDeInfo::builder()
        .serialization_library(&storage.serde)
        .set_parameters(Some(storage.serde_parameters.clone().into_iter().collect()));
    Ok(StorageDescriptor::builder()
        .set_columns(Some(storage.columns.iter().map(column_input).collect::<Result<_>>()?))
        .location(&storage.location)
        .input_format(&storage.input_format)
        .output_format(&storage.output_format)
        .serde_info(serde.build())
        .build())
}
