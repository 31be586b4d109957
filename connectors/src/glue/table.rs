//! A table of the catalog that is made of files.
//!
//! ```text
//!  partitions of the catalog ─filters on keys─▶ those that are read ─list─▶ files ─▶ scan ─▶ columns as the catalog has them
//! ```
//! The catalog decides what the table has: a folder that it has no partition for is not read, wherever it is, and a
//! partition can be anywhere in the bucket. Files whose names begin with `_` or `.` are none of the table's, as in Hive.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, ScalarValue, project_schema};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result as DfResult;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::functions::core::expr_fn::nullif;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType, cast, ident, lit};
use datafusion::object_store::path::Path;
use datafusion::object_store::{ObjectMeta, ObjectStore};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::projection::ProjectionExec;
use featurectl_core::{Error, Result};
use futures::{StreamExt, TryStreamExt, stream};
use url::Url;

use super::client::{Entry, Partition};
use super::format::{Format, compression};
use super::types::{named_as_in, to_arrow};

/// Folders that are listed at once.
const LISTINGS: usize = 16;
/// What stands for NULL in the value of a partition.
const NULL_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

/// A table of files.
#[derive(Debug)]
pub(crate) struct HiveTable {
    /// As the catalog has it: columns, then partition keys.
    schema: SchemaRef,
    /// The columns by the names and types that files are read with.
    in_files: SchemaRef,
    keys: Vec<FieldRef>,
    format: Format,
    bucket: String,
    places: Vec<Place>,
}

/// A folder of files, of one partition or of a table without any.
#[derive(Debug, Clone)]
struct Place {
    folder: Path,
    values: Vec<ScalarValue>,
}

impl HiveTable {
    /// The table that the catalog describes. One of its files is asked for the names of columns, since the catalog knows no
    /// case.
    ///
    /// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for what can't be read, with what to do; those of the bucket.
    pub(super) async fn new(
        session: &dyn Session,
        table: &Entry,
        format: Format,
        partitions: Vec<Partition>,
    ) -> Result<Self> {
        let (bucket, folder) = place(&table.storage.location)?;
        let field = |(name, of): (&String, &String)| -> Result<FieldRef> {
            let of = to_arrow(of).map_err(|e| e.context(format!("column `{name}`")))?;
            format.check(name, &of)?;
            Ok(Arc::new(Field::new(name, of, true)))
        };
        let columns = table.storage.columns.iter().map(|c| field((&c.name, &c.of))).collect::<Result<Vec<_>>>()?;
        let keys = table.partition_keys.iter().map(|c| field((&c.name, &c.of))).collect::<Result<Vec<_>>>()?;
        let places = if keys.is_empty() {
            vec![Place { folder, values: vec![] }]
        } else {
            if table.parameters.get("projection.enabled").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
                return Err(Error::invalid(
                    "its partitions are projected (`projection.enabled`), so that the catalog does not know them: read it by \
                     CREATE EXTERNAL TABLE … PARTITIONED BY (…) LOCATION 's3://…', if its folders are named key=value",
                ));
            }
            let one = |p: &Partition| partition(p, table, &keys, &bucket);
            partitions.iter().map(one).collect::<Result<_>>()?
        };
        let schema = Arc::new(Schema::new([columns.clone(), keys.clone()].concat()));
        let mut made = Self { schema, in_files: Arc::new(Schema::new(columns)), keys, format, bucket, places };
        made.in_files = made.named_by_a_file(session).await?;
        // Fields of structs keep the names that files have.
        let of_files = |(at, field): (usize, &FieldRef)| match made.in_files.fields().get(at) {
            Some(read) if field.data_type().is_nested() => Field::new(field.name(), read.data_type().clone(), true),
            _ => field.as_ref().clone(),
        };
        made.schema = Arc::new(Schema::new(made.schema.fields().iter().enumerate().map(of_files).collect::<Vec<_>>()));
        Ok(made)
    }

    /// The columns by the names that the first file has for them.
    async fn named_by_a_file(&self, session: &dyn Session) -> Result<SchemaRef> {
        if let Format::Text(text) = &self.format {
            // NULL is known by its text, so that other types are made of texts.
            let texts = |f: &FieldRef| match text.null {
                Some(_) => f.as_ref().clone().with_data_type(DataType::Utf8View),
                None => f.as_ref().clone(),
            };
            return Ok(Arc::new(Schema::new(self.in_files.fields().iter().map(texts).collect::<Vec<_>>())));
        }
        let store = self.store(session)?;
        let mut first = None;
        for place in &self.places {
            first = files_of(&store, place).await?.into_iter().next();
            if first.is_some() {
                break;
            }
        }
        let Some(first) = first else { return Ok(Arc::clone(&self.in_files)) };
        let reader = self.reader(session, &first.location);
        let location = first.location.clone();
        let found = reader.infer_schema(session, &store, &[first]).await;
        let found = found.map_err(|e| Error::from(e).context(format!("s3://{}/{location}", self.bucket)))?;
        let named = |field: &FieldRef| {
            let same = found.fields().iter().find(|f| f.name() == field.name());
            let alike = || found.fields().iter().find(|f| f.name().eq_ignore_ascii_case(field.name()));
            match same.or_else(alike) {
                Some(f) => Field::new(f.name(), named_as_in(field.data_type(), f.data_type()), true),
                None => field.as_ref().clone(),
            }
        };
        Ok(Arc::new(Schema::new(self.in_files.fields().iter().map(named).collect::<Vec<_>>())))
    }

    fn url(&self) -> DfResult<ObjectStoreUrl> {
        ObjectStoreUrl::parse(format!("s3://{}", self.bucket))
    }

    fn store(&self, session: &dyn Session) -> DfResult<Arc<dyn ObjectStore>> {
        session.runtime_env().object_store(self.url()?)
    }

    fn reader(&self, session: &dyn Session, file: &Path) -> Arc<dyn datafusion::datasource::file_format::FileFormat> {
        self.format.reader(compression(file.as_ref()), session.table_options().parquet.clone())
    }

    /// All of its files.
    pub async fn files(&self, session: &dyn Session) -> Result<Vec<ObjectMeta>> {
        let all: Vec<_> = self.places.iter().collect();
        Ok(self.list(session, all).await?.into_iter().map(|f| f.object_meta).collect())
    }

    /// The files of some folders, by path.
    async fn list(&self, session: &dyn Session, places: Vec<&Place>) -> DfResult<Vec<PartitionedFile>> {
        let store = self.store(session)?;
        let places: Vec<Place> = places.into_iter().cloned().collect();
        let listed = places.into_iter().map(|place| partitioned_files(Arc::clone(&store), place));
        let found: Vec<_> = stream::iter(listed).buffer_unordered(LISTINGS).try_collect().await?;
        let mut found = found.concat();
        found.sort_by(|a, b| a.object_meta.location.cmp(&b.object_meta.location));
        Ok(found)
    }

    /// The folders that can have rows of which all filters on partition keys hold.
    fn pruned(&self, session: &dyn Session, filters: &[Expr]) -> DfResult<Vec<&Place>> {
        let filters: Vec<&Expr> = filters.iter().filter(|f| self.is_on_keys(f)).collect();
        if filters.is_empty() || self.places.is_empty() {
            return Ok(self.places.iter().collect());
        }
        let of_key = |n: usize| ScalarValue::iter_to_array(self.places.iter().map(|p| p.values[n].clone()));
        let values = (0..self.keys.len()).map(of_key).collect::<DfResult<Vec<ArrayRef>>>()?;
        let schema = Arc::new(Schema::new(self.keys.clone()));
        let rows = RecordBatch::try_new(Arc::clone(&schema), values)?;
        let schema = DFSchema::try_from(schema)?;
        let mut kept = BooleanArray::from(vec![true; self.places.len()]);
        for filter in filters {
            let unqualified = datafusion::logical_expr::expr_rewriter::strip_outer_reference(filter.clone());
            let unqualified = datafusion::logical_expr::expr_rewriter::unnormalize_col(unqualified);
            let holds =
                session.create_physical_expr(unqualified, &schema)?.evaluate(&rows)?.into_array(rows.num_rows())?;
            kept = arrow::compute::and_kleene(&kept, holds.as_boolean())?;
        }
        Ok(self.places.iter().zip(kept.iter()).filter(|(_, k)| *k == Some(true)).map(|(p, _)| p).collect())
    }

    fn is_on_keys(&self, filter: &Expr) -> bool {
        let columns = filter.column_refs();
        !columns.is_empty()
            && !filter.is_volatile()
            && columns.iter().all(|c| self.keys.iter().any(|k| *k.name() == c.name))
    }

    /// A column of the catalog, made of one of the files.
    fn column(&self, at: usize) -> Expr {
        let field = self.schema.field(at);
        let Some(read) = self.in_files.fields().get(at) else { return ident(field.name()) };
        let value = ident(read.name());
        match &self.format {
            Format::Text(super::format::Text { null: Some(null), .. }) => {
                cast(nullif(value, lit(ScalarValue::Utf8View(Some(null.clone())))), field.data_type().clone())
            }
            _ => value,
        }
    }
}

#[async_trait]
impl TableProvider for HiveTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        let held = |f: &&Expr| match self.is_on_keys(f) {
            true => TableProviderFilterPushDown::Exact,
            // The scan of files takes them later, as filters over it.
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(held).collect())
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let files = self.list(session, self.pruned(session, filters)?).await?;
        let wanted = project_schema(&self.schema, projection)?;
        let Some(first) = files.first() else { return Ok(Arc::new(EmptyExec::new(wanted))) };
        let is_text = !matches!(self.format, Format::Parquet);
        let other = files.iter().find(|f| compression(f.path().as_ref()) != compression(first.path().as_ref()));
        if let Some(other) = other.filter(|_| is_text) {
            return Err(Error::invalid(format!(
                "s3://{}/{} is not compressed as {} is: have all files of a table compressed alike",
                self.bucket,
                other.path(),
                first.path()
            ))
            .into());
        }
        let reader = self.reader(session, first.path());
        let columns = TableSchema::builder(Arc::clone(&self.in_files)).with_table_partition_cols(self.keys.clone());
        let source = reader.file_source(columns.build());
        let groups = FileGroup::new(files).split_files(session.config().target_partitions());
        let config = FileScanConfigBuilder::new(self.url()?, source)
            .with_file_groups(groups)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        let scan = reader.create_physical_plan(session, config).await?;
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let columns = projection.unwrap_or(&all);
        if columns.iter().all(|at| self.column(*at) == ident(self.schema.field(*at).name())) {
            return Ok(scan);
        }
        let scanned = DFSchema::try_from(scan.schema())?;
        let named = |at: &usize| {
            let made = session.create_physical_expr(self.column(*at), &scanned)?;
            DfResult::Ok((made, self.schema.field(*at).name().clone()))
        };
        let columns = columns.iter().map(named).collect::<DfResult<Vec<_>>>()?;
        Ok(Arc::new(ProjectionExec::try_new(columns, scan)?))
    }
}

async fn partitioned_files(store: Arc<dyn ObjectStore>, place: Place) -> DfResult<Vec<PartitionedFile>> {
    let of_place = |f| PartitionedFile::new_from_meta(f).with_partition_values(place.values.clone());
    Ok(files_of(&store, &place).await?.into_iter().map(of_place).collect())
}

/// The files of a folder, by path.
async fn files_of(store: &Arc<dyn ObjectStore>, place: &Place) -> DfResult<Vec<ObjectMeta>> {
    let is_hidden = |path: &Path| {
        let parts = path.prefix_match(&place.folder).into_iter().flatten();
        parts.into_iter().any(|p| p.as_ref().starts_with(['_', '.']))
    };
    let found = store.list(Some(&place.folder)).try_collect::<Vec<_>>().await?;
    let mut found: Vec<_> = found.into_iter().filter(|f| f.size > 0 && !is_hidden(&f.location)).collect();
    found.sort_by(|a, b| a.location.cmp(&b.location));
    Ok(found)
}

/// The bucket and the key of a location as the catalog has it, whose signs are those of the key.
pub(super) fn place(location: &str) -> Result<(String, Path)> {
    let wrong = |why: &str| Error::invalid(format!("its location `{location}` can't be read: {why}"));
    let rest = ["s3://", "s3a://", "s3n://"].iter().find_map(|scheme| location.strip_prefix(scheme));
    let rest = rest.ok_or_else(|| wrong("only s3:// can"))?;
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() || bucket.contains(['@', '?', '#']) {
        return Err(wrong("it has no bucket"));
    }
    Ok((bucket.into(), Path::parse(key.trim_end_matches('/')).map_err(|e| wrong(&e.to_string()))?))
}

/// The same as a URL.
pub(super) fn url(location: &str) -> Result<Url> {
    let (bucket, key) = place(location)?;
    let wrong = |e: String| Error::invalid(format!("its location `{location}` can't be read: {e}"));
    let mut url = Url::parse(&format!("s3://{bucket}/")).map_err(|e| wrong(e.to_string()))?;
    let parts: Vec<String> = key.parts().map(|p| p.as_ref().to_string()).collect();
    url.path_segments_mut().map_err(|()| wrong("it is no folder".into()))?.pop_if_empty().extend(parts).push("");
    Ok(url)
}

fn partition(partition: &Partition, table: &Entry, keys: &[FieldRef], bucket: &str) -> Result<Place> {
    let named = || format!("partition ({})", partition.values.join(", "));
    let wrong = |what: String| Error::invalid(format!("{}: {what}", named()));
    let (own, folder) = place(&partition.storage.location).map_err(|e| e.context(named()))?;
    if own != bucket {
        return Err(wrong(format!(
            "it is in bucket `{own}`, the table in `{bucket}`: read it by a CREATE EXTERNAL TABLE of its own, and join both \
             with UNION ALL"
        )));
    }
    let (of, of_table) = (&partition.storage, &table.storage);
    if of.serde != of_table.serde || of.input_format != of_table.input_format {
        return Err(wrong(format!("its serde is `{}`, the table's `{}`: write it anew", of.serde, of_table.serde)));
    }
    if partition.values.len() != keys.len() {
        return Err(wrong(format!("the table has {} partition keys", keys.len())));
    }
    let value = |(text, key): (&String, &FieldRef)| match text.as_str() {
        NULL_PARTITION => Ok(ScalarValue::try_new_null(key.data_type())?),
        text => ScalarValue::try_from_string(text.to_string(), key.data_type()).map_err(|e| {
            wrong(format!("`{text}` is no {} of key `{}` ({})", key.data_type(), key.name(), e.strip_backtrace()))
        }),
    };
    let values = partition.values.iter().zip(keys).map(value).collect::<Result<_>>()?;
    Ok(Place { folder, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_keys_as_they_are() {
        let (bucket, key) = place("s3a://b/t/day=2024 1/x%2Fy/").expect("a place");
        assert_eq!((bucket.as_str(), key.as_ref()), ("b", "t/day=2024 1/x%2Fy"));
        assert_eq!(url("s3n://b/a b/c%2Fd").expect("a URL").as_str(), "s3://b/a%20b/c%252Fd/");
        assert_eq!(url("s3://b").expect("a URL").as_str(), "s3://b/");
        for (location, part) in [("hdfs://n/x", "only s3:// can"), ("", "only s3:// can"), ("s3:///x", "no bucket")] {
            let e = place(location).expect_err("refused");
            assert!(e.to_string().contains(part), "{e}");
        }
    }
}
