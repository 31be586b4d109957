//! Reads features from DynamoDB again and again, for `benches/peers/feast.py`.
//!
//! Usage: `online_bench FOLDER PROFILE SERVICE VALUES_JSON AT_US ENTITIES ROUNDS SIZE…`. The service takes `user_id` and
//! `at`. First the features of all entities `0..ENTITIES` go to the file. Then, for each number of entities, each round
//! reads other ones in four ways, in turn: through the session (`service`), through the store without SQL
//! (`store`), and with nothing but the SDK: the same items by BatchGetItem (`get`) and by one Query each, at once (`query`).
//! Prints the microseconds of each read as one line of JSON.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{Float64Type, Int64Type};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use featurectl::{Extensions, FeatureView, Online, Project, Session};
use featurectl_feature_store::dynamodb::{Limits, Table};
use featurectl_feature_store::{DynamoStore, OnlineReader};
use futures::future::try_join_all;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Item = HashMap<String, AttributeValue>;

/// What can be read, and in which ways.
struct Bench {
    session: Session,
    service: String,
    view: Arc<FeatureView>,
    reader: OnlineReader,
    client: Client,
    table: String,
    /// Keys of the item of each entity.
    keys: Vec<Item>,
    at: i64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, profile, service, out, at, entities, rounds, sizes @ ..] = args.as_slice() else {
        return Err("usage: online_bench FOLDER PROFILE SERVICE VALUES_JSON AT_US ENTITIES ROUNDS SIZE…".into());
    };
    let (at, entities, rounds): (_, i64, usize) = (at.parse()?, entities.parse()?, rounds.parse()?);
    let bench = Bench::open(folder, profile, service, at).await?;
    let mut values = BTreeMap::new();
    let all: Vec<i64> = (0..entities).collect();
    for ids in all.chunks(1000) {
        bench.service_values(ids).await?.into_iter().for_each(|(id, row)| drop(values.insert(id.to_string(), row)));
    }
    std::fs::write(out, serde_json::to_vec(&values)?)?;
    let mut took = BTreeMap::new();
    for size in sizes {
        took.insert(size, bench.measure(entities, rounds, size.parse()?).await?);
    }
    println!("{}", serde_json::to_string(&took)?);
    Ok(())
}

impl Bench {
    async fn open(folder: &str, profile: &str, service: &str, at: i64) -> Result<Self> {
        let project = Project::find(Path::new(folder), None, Some(profile))?;
        let Some(Online::Table(table, _)) = project.online.clone() else { return Err("no table of DynamoDB".into()) };
        let access = project.access.clone();
        let store = DynamoStore::open(Table::connect(&table, &access).await, Limits::default()).await?;
        let client = Client::new(&access.config().await);
        let session = Session::open_serving(project, &Extensions::default()).await?;
        let view = session.feature_view("features").ok_or("no view `features`")?;
        let keys = keys(&client, &table).await?;
        let reader = OnlineReader::new(Arc::new(store));
        Ok(Self { session, service: service.into(), view, reader, client, table, keys, at })
    }

    async fn service(&self, ids: &[i64]) -> Result<Vec<RecordBatch>> {
        let columns: [(&str, ArrayRef); 2] = [
            ("user_id", Arc::new(Int64Array::from(ids.to_vec()))),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![self.at; ids.len()]))),
        ];
        Ok(self.session.read_service(&self.service, RecordBatch::try_from_iter(columns)?).await?)
    }

    /// The features of each entity.
    async fn service_values(&self, ids: &[i64]) -> Result<Vec<(i64, Vec<Option<f64>>)>> {
        let mut rows = Vec::new();
        for batch in self.service(ids).await? {
            let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("no column `{name}`"));
            let ids = column("user_id")?.as_primitive::<Int64Type>();
            let names = self.view.features.iter().map(|f| f.field.name());
            let features = names.map(|n| Ok(column(n)?.as_primitive::<Float64Type>())).collect::<Result<Vec<_>>>()?;
            for row in 0..batch.num_rows() {
                rows.push((ids.value(row), features.iter().map(|f| f.is_valid(row).then(|| f.value(row))).collect()));
            }
        }
        Ok(rows)
    }

    async fn store(&self, ids: &[i64]) -> Result<usize> {
        let keys: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
        let columns = self.reader.read(&self.view, &[keys], &vec![Some(self.at); ids.len()]).await?;
        Ok(columns.first().map_or(0, |column| column.len()))
    }

    /// The items by BatchGetItem, of at most 100.
    async fn get(&self, ids: &[i64]) -> Result<usize> {
        let keys: Vec<_> = ids.iter().map(|id| self.keys[*id as usize].clone()).collect();
        let chunk = |keys: &[Item]| {
            let wanted = KeysAndAttributes::builder().set_keys(Some(keys.to_vec())).consistent_read(true).build();
            let client = &self.client;
            async move {
                let answer = client.batch_get_item().request_items(&self.table, wanted?).send().await?;
                let left = answer.unprocessed_keys().map_or(0, |left| left.len());
                assert_eq!(left, 0, "keys that were not processed");
                Ok::<_, Box<dyn std::error::Error>>(
                    answer.responses.into_iter().flatten().map(|(_, i)| i.len()).sum::<usize>(),
                )
            }
        };
        Ok(try_join_all(keys.chunks(100).map(chunk)).await?.into_iter().sum())
    }

    /// The items by a Query each.
    async fn query(&self, ids: &[i64]) -> Result<usize> {
        let one = |id: &i64| {
            let key = &self.keys[*id as usize];
            let call = self.client.query().table_name(&self.table).consistent_read(true);
            let call = call.key_condition_expression("pk = :pk AND sk BETWEEN :low AND :high");
            let call = call.expression_attribute_values(":pk", key["pk"].clone());
            let call = call.expression_attribute_values(":low", AttributeValue::B(Blob::new([0])));
            let call = call.expression_attribute_values(":high", AttributeValue::B(Blob::new([255; 32])));
            async move { Ok::<_, Box<dyn std::error::Error>>(call.send().await?.items().len()) }
        };
        Ok(try_join_all(ids.iter().map(one)).await?.into_iter().sum())
    }

    async fn measure(&self, entities: i64, rounds: usize, size: usize) -> Result<BTreeMap<&'static str, Vec<f64>>> {
        let mut took: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
        // The first rounds open connections.
        let warm_up = 20;
        for round in 0..rounds + warm_up {
            // A step that has no common divisor with the number of entities comes to all of them.
            let ids: Vec<i64> = (0..size).map(|i| ((round * size + i) as i64 * 7919) % entities).collect();
            let mut keep = |name, began: Instant| {
                if round >= warm_up {
                    took.entry(name).or_default().push(began.elapsed().as_secs_f64() * 1e6);
                }
            };
            // In turn and back, so that no way always comes behind the same one.
            let step = if round % 2 == 0 { 1 } else { 3 };
            for way in (0..4).map(|i| (i * step + round / 2) % 4) {
                let began = Instant::now();
                let (name, count) = match way {
                    0 => ("service", self.service(&ids).await?.iter().map(RecordBatch::num_rows).sum()),
                    1 => ("store", self.store(&ids).await?),
                    2 => ("get", self.get(&ids).await?),
                    _ => ("query", self.query(&ids).await?),
                };
                keep(name, began);
                assert_eq!(count, size, "`{name}` did not find all");
            }
        }
        Ok(took)
    }
}

/// The keys of the item of each entity, by its number: the last eight bytes of a partition key with the sign bit flipped.
async fn keys(client: &Client, table: &str) -> Result<Vec<Item>> {
    let (mut found, mut from) = (BTreeMap::new(), None);
    loop {
        let call = client.scan().table_name(table).projection_expression("pk, sk").set_exclusive_start_key(from);
        let page = call.send().await?;
        for item in page.items.unwrap_or_default() {
            let pk = item["pk"].as_b().map_err(|_| "a key that is not binary")?.as_ref();
            // 01, the generation, the length of the key, the key; the pointer of the view is another.
            if let (21, Some(number)) = (pk.len(), pk.last_chunk::<8>()) {
                found.insert(i64::from_be_bytes(*number) ^ i64::MIN, item);
            }
        }
        from = page.last_evaluated_key;
        if from.is_none() {
            return Ok(found.into_values().collect());
        }
    }
}
