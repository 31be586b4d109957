//! The calls of imports, and of tables that are no longer needed.

use super::*;

/// How far an import is.
#[derive(Debug, Clone, Default)]
pub(in crate::dynamodb) struct ImportState {
    /// `IN_PROGRESS`, `COMPLETED`, `CANCELLING`, `CANCELLED` or `FAILED`.
    pub status: String,
    /// Items that were read.
    pub processed: u64,
    /// Items that are in the table.
    pub imported: u64,
    /// Items that could not be imported.
    pub errors: u64,
    /// What the service says of a failure.
    pub failure: String,
}

impl Table {
    /// Makes the table by an import of gzip files of DynamoDB JSON whose keys begin with `prefix`; returns the import's
    /// ARN. Called again with the same token it gives the same import.
    pub(in crate::dynamodb) async fn import(&self, bucket: &str, prefix: &str, token: &str) -> Result<String, Failure> {
        let source = aws::S3BucketSource::builder().s3_bucket(bucket).s3_key_prefix(prefix).build();
        let (attributes, keys) = schema()?;
        let table = aws::TableCreationParameters::builder()
            .table_name(self.name())
            .set_attribute_definitions(Some(attributes))
            .set_key_schema(Some(keys))
            .billing_mode(aws::BillingMode::PayPerRequest);
        let call = self
            .client
            .import_table()
            .client_token(token)
            .s3_bucket_source(source.map_err(unbuilt)?)
            .input_format(aws::InputFormat::DynamodbJson)
            .input_compression_type(aws::InputCompressionType::Gzip)
            .table_creation_parameters(table.build().map_err(unbuilt)?);
        let answer = call.send().await.map_err(|e| self.failure(&e))?;
        let arn = answer.import_table_description.and_then(|d| d.import_arn);
        Ok(arn.ok_or_else(|| Error::data("the service began an import without an ARN"))?)
    }

    pub(in crate::dynamodb) async fn describe_import(&self, arn: &str) -> Result<ImportState, Failure> {
        let answer = self.client.describe_import().import_arn(arn).send().await.map_err(|e| self.failure(&e))?;
        let import = answer.import_table_description.ok_or_else(|| Error::data("the service describes no import"))?;
        let count = |n: i64| u64::try_from(n).unwrap_or_default();
        let texts = [import.failure_code(), import.failure_message()];
        Ok(ImportState {
            status: import.import_status().map_or("", |s| s.as_str()).to_string(),
            processed: count(import.processed_item_count),
            imported: count(import.imported_item_count),
            errors: count(import.error_count),
            failure: texts.into_iter().flatten().collect::<Vec<_>>().join(": "),
        })
    }

    /// The ARN of the import that made the table with this ARN.
    pub(in crate::dynamodb) async fn import_of(&self, table_arn: &str) -> Result<Option<String>, Failure> {
        let answer = self.client.list_imports().table_arn(table_arn).send().await.map_err(|e| self.failure(&e))?;
        Ok(answer.import_summary_list.unwrap_or_default().into_iter().find_map(|i| i.import_arn))
    }

    pub(in crate::dynamodb) async fn delete(&self) -> Result<(), Failure> {
        self.client.delete_table().table_name(self.name()).send().await.map(|_| ()).map_err(|e| self.failure(&e))
    }
}
