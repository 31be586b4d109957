//! Tables of ours in the catalog, for Athena, Spark and EMR.
//!
//! ```text
//!  Registration ─▶ what the catalog is to say ─┬─ it has no such table ─▶ CreateTable (CreateDatabase first, if that is missing)
//!                                              ├─ it says so ─▶ nothing
//!                                              ├─ it says something else of our table ─▶ UpdateTable
//!                                              └─ its table is not ours ─▶ an error
//! ```
//! Whoever loses a race looks again: each of the calls is refused where another was faster.

use std::collections::{BTreeMap, HashMap};

use arrow::datatypes::SchemaRef;
use featurectl_aws::Access;
use featurectl_core::{Error, ErrorKind, Result};

use super::client::{Changed, Client, Column, Entry, Partition, RACES, Storage, pause};
use super::types::{decoded, to_hive};

/// The parameter of our tables, which has their location.
const OURS: &str = "featurectl.table";

/// A database of the catalog that tables are registered in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    name: String,
}

/// A table as it is to be in the catalog.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Its name, to be turned into one that every reader of the catalog takes.
    pub name: String,
    /// The folder of its files: `s3://bucket/prefix/`.
    pub location: String,
    /// All of its columns, those of partitions too.
    pub schema: SchemaRef,
    /// How its rows are stored.
    pub stored_as: StoredAs,
}

/// How the rows of a registered table are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredAs {
    /// As a Delta table, whose log has its partitions.
    Delta,
    /// As Parquet files, in folders `key=value/` of these keys, of which these are there.
    Parquet { keys: Vec<String>, folders: Vec<String> },
}

impl Database {
    /// The database that `glue://NAME` names.
    ///
    /// Errors: [`Invalid`](ErrorKind::Invalid) for another text, or a name that Athena does not take.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::invalid(format!("`{text}` is no catalog: {why}"));
        let name = text.strip_prefix("glue://").ok_or_else(|| wrong("write glue://DATABASE"))?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || name.len() > 255 || !name.chars().all(plain) {
            return Err(wrong("a database has a name of lower-case letters, digits and `_`"));
        }
        Ok(Self { name: name.into() })
    }

    /// The name that a table has in it: in lower case, with `_` for all but letters and digits.
    pub fn table_name(&self, name: &str) -> String {
        let sign = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
        name.chars().map(sign).collect()
    }

    /// Where a table is, for people: `glue://database/table`.
    pub fn place(&self, name: &str) -> String {
        format!("{self}/{}", self.table_name(name))
    }

    /// Makes the catalog say of a table what `wanted` does; says whether it did not.
    ///
    /// Errors: [`Conflict`](ErrorKind::Conflict) if it has a table of that name that is not this one,
    /// [`Unavailable`](ErrorKind::Unavailable) if the service does not do it now; [`Invalid`](ErrorKind::Invalid) if it
    /// never will.
    pub async fn register(&self, access: &Access, wanted: &Registration) -> Result<bool> {
        let client = Client::new(&access.config().await);
        self.register_by(&client, wanted).await.map_err(|e| e.context(self.place(&wanted.name)))
    }

    async fn register_by(&self, client: &Client, wanted: &Registration) -> Result<bool> {
        let (database, name) = (self.name.as_str(), self.table_name(&wanted.name));
        let table = entry(wanted)?;
        let mut changed = false;
        for race in 0..RACES {
            let done = match client.table(database, &name).await? {
                Some(found) => {
                    owned(&found, &wanted.location)?;
                    match over(&found, &table) {
                        None => Changed::Done,
                        Some(newer) => {
                            changed = true;
                            client.update_table(database, &name, &newer).await?
                        }
                    }
                }
                None => {
                    changed = true;
                    client.create_table(database, &name, &table).await?
                }
            };
            match done {
                Changed::Done => {
                    let partitions = self.register_partitions(client, &name, wanted, &table).await?;
                    return Ok(changed | partitions);
                }
                Changed::Missing => client.create_database(database).await?,
                Changed::Raced => pause(race).await,
            }
        }
        let text = "others change the table all the time: go on when they are done";
        Err(Error::new(ErrorKind::Unavailable, text))
    }

    /// Adds partitions that the table does not have, and corrects those that it has.
    async fn register_partitions(
        &self,
        client: &Client,
        name: &str,
        wanted: &Registration,
        table: &Entry,
    ) -> Result<bool> {
        let StoredAs::Parquet { keys, folders } = &wanted.stored_as else { return Ok(false) };
        if keys.is_empty() {
            return Ok(false);
        }
        let there: HashMap<_, _> =
            client.partitions(&self.name, name, true).await?.into_iter().map(|p| (p.values, p.storage)).collect();
        let (mut new, mut other) = (Vec::new(), Vec::new());
        for folder in folders {
            let values = values(folder, keys)?;
            let location = format!("{}{folder}/", wanted.location);
            let storage = Storage { location, ..table.storage.clone() };
            match there.get(&values) {
                None => new.push(Partition { values, storage }),
                Some(found) if *found != storage => other.push(Partition { values, storage }),
                Some(_) => {}
            }
        }
        client.create_partitions(&self.name, name, &new).await?;
        client.update_partitions(&self.name, name, &other).await?;
        Ok(!new.is_empty() || !other.is_empty())
    }

    /// Takes the table whose files are at `location` out of the catalog, if it is there; one of that name that is not ours
    /// stays.
    pub async fn forget(&self, access: &Access, name: &str, location: &str) -> Result<()> {
        let client = Client::new(&access.config().await);
        let table = self.table_name(name);
        for race in 0..RACES {
            match client.table(&self.name, &table).await? {
                Some(found) if owned(&found, location).is_ok() => {}
                _ => return Ok(()),
            }
            match client.delete_table(&self.name, &table).await? {
                Changed::Done | Changed::Missing => return Ok(()),
                Changed::Raced => pause(race).await,
            }
        }
        let text = format!("others change {} all the time: go on when they are done", self.place(name));
        Err(Error::new(ErrorKind::Unavailable, text))
    }
}

impl std::fmt::Display for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "glue://{}", self.name)
    }
}

/// Whether a table of the catalog is ours, with its files at `location`.
fn owned(found: &Entry, location: &str) -> Result<()> {
    match found.parameters.get(OURS) {
        Some(place) if place == location => Ok(()),
        Some(place) => Err(Error::conflict(format!(
            "the table of this name has its files at {place}, not at {location}: name another database, or delete that \
             table in Glue if its files are gone"
        ))),
        None => Err(Error::conflict(format!(
            "there is a table of this name that featurectl did not make (at {}): name another database, or delete or \
             rename that table in Glue",
            if found.storage.location.is_empty() { "no location" } else { &found.storage.location }
        ))),
    }
}

/// What the catalog is to say.
fn entry(wanted: &Registration) -> Result<Entry> {
    let keys: &[String] = match &wanted.stored_as {
        StoredAs::Parquet { keys, .. } => keys,
        StoredAs::Delta => &[],
    };
    let mut columns: Vec<Column> = Vec::new();
    for field in wanted.schema.fields() {
        let name = field.name().to_lowercase();
        if columns.iter().any(|c| c.name == name) {
            return Err(Error::invalid(format!(
                "two columns are `{name}` in Glue, which knows lower case only: rename one of them"
            )));
        }
        let of = to_hive(field.data_type()).map_err(|e| e.context(format!("column `{}`", field.name())))?;
        columns.push(Column { name, of, comment: None });
    }
    // Where rows lie in partitions is in the path, and their columns come last.
    let mut partition_keys = Vec::new();
    for key in keys {
        let at = columns.iter().position(|c| c.name == key.to_lowercase());
        let at = at.ok_or_else(|| Error::internal(format!("no column for the partition key `{key}`")))?;
        partition_keys.push(columns.remove(at));
    }
    let text = |all: &[(&str, &str)]| all.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let location = wanted.location.clone();
    let (mut parameters, storage): (BTreeMap<String, String>, Storage) = match wanted.stored_as {
        // Athena asks for the one or the other of the first two, Spark for the first, and both for `path`. What is said of
        // the files is what Spark says of tables that Hive can't read: they fail there, instead of giving wrong rows.
        StoredAs::Delta => (
            text(&[("spark.sql.sources.provider", "delta"), ("table_type", "DELTA"), ("classification", "delta")]),
            Storage {
                columns,
                input_format: "org.apache.hadoop.mapred.SequenceFileInputFormat".into(),
                output_format: "org.apache.hadoop.hive.ql.io.HiveSequenceFileOutputFormat".into(),
                serde: "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe".into(),
                serde_parameters: text(&[("serialization.format", "1"), ("path", location.trim_end_matches('/'))]),
                location,
            },
        ),
        StoredAs::Parquet { .. } => (
            text(&[("classification", "parquet")]),
            Storage {
                columns,
                input_format: "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat".into(),
                output_format: "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat".into(),
                serde: "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe".into(),
                serde_parameters: text(&[("serialization.format", "1")]),
                location,
            },
        ),
    };
    parameters.insert("EXTERNAL".into(), "TRUE".into());
    parameters.insert(OURS.into(), wanted.location.clone());
    Ok(Entry { kind: "EXTERNAL_TABLE".into(), partition_keys, parameters, storage, ..Entry::default() })
}

/// `found` with all that `wanted` says, and what others added to it; `None` if that is what it is.
fn over(found: &Entry, wanted: &Entry) -> Option<Entry> {
    let commented = |columns: &[Column], before: &[Column]| -> Vec<Column> {
        let comment = |c: &Column| before.iter().find(|b| b.name == c.name).and_then(|b| b.comment.clone());
        columns.iter().map(|c| Column { comment: comment(c), ..c.clone() }).collect()
    };
    let mut newer = Entry {
        kind: wanted.kind.clone(),
        partition_keys: commented(&wanted.partition_keys, &found.partition_keys),
        storage: Storage {
            columns: commented(&wanted.storage.columns, &found.storage.columns),
            ..wanted.storage.clone()
        },
        ..found.clone()
    };
    newer.parameters.extend(wanted.parameters.clone());
    (newer != *found).then_some(newer)
}

/// The values of a folder `a=1/b=x%20y`, one a key.
fn values(folder: &str, keys: &[String]) -> Result<Vec<String>> {
    let wrong = || Error::internal(format!("{folder} is no folder of a partition by {}", keys.join(", ")));
    let parts: Vec<_> = folder.split('/').collect();
    if parts.len() != keys.len() {
        return Err(wrong());
    }
    let value = |(part, key): (&&str, &String)| {
        let (name, value) = part.split_once('=')?;
        (decoded(name) == *key).then(|| decoded(value))
    };
    parts.iter().zip(keys).map(|p| value(p).ok_or_else(wrong)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    fn registration(stored_as: StoredAs, columns: &[(&str, DataType)]) -> Registration {
        let fields: Vec<_> = columns.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        Registration { name: "t".into(), location: "s3://b/t/".into(), schema, stored_as }
    }

    #[test]
    fn names_are_those_that_athena_takes() {
        let database = Database::parse("glue://features").expect("a name");
        assert_eq!(database.place("Late Arrivals-2"), "glue://features/late_arrivals_2");
        for text in ["features", "glue://", "glue://Features", "glue://a/b", "glue://a-b", "s3://a"] {
            let e = Database::parse(text).expect_err("refused");
            assert!(e.to_string().contains(&format!("`{text}` is no catalog")), "{e}");
        }
    }

    #[test]
    fn what_others_add_to_a_table_stays_and_what_they_change_comes_back() {
        let keys = StoredAs::Parquet { keys: vec!["Day".into()], folders: vec![] };
        let wanted =
            entry(&registration(keys, &[("Day", DataType::Date32), ("x", DataType::Int64)])).expect("an entry");
        assert_eq!(wanted.partition_keys[0].name, "day");
        assert_eq!(over(&wanted, &wanted), None);
        let mut found = Entry { version: Some("7".into()), description: Some("ours".into()), ..wanted.clone() };
        found.parameters.insert("owner_team".into(), "risk".into());
        found.storage.columns[0].comment = Some("of the payment".into());
        assert_eq!(over(&found, &wanted), None);
        found.storage.columns[0].of = "int".into();
        found.parameters.remove("classification");
        let newer = over(&found, &wanted).expect("a change");
        assert_eq!(newer.storage.columns[0].of, "bigint");
        assert_eq!(newer.storage.columns[0].comment.as_deref(), Some("of the payment"));
        assert_eq!(newer.parameters["owner_team"], "risk");
        assert_eq!((newer.version.as_deref(), newer.description.as_deref()), (Some("7"), Some("ours")));
    }

    #[test]
    fn a_table_is_ours_by_its_location() {
        let ours = entry(&registration(StoredAs::Delta, &[("x", DataType::Int64)])).expect("an entry");
        owned(&ours, "s3://b/t/").expect("ours");
        let e = owned(&ours, "s3://b/other/").expect_err("of another store");
        assert!(e.to_string().contains("has its files at s3://b/t/, not at s3://b/other/"), "{e}");
        let e = owned(&Entry::default(), "s3://b/t/").expect_err("not ours");
        assert!(e.to_string().contains("featurectl did not make (at no location)"), "{e}");
    }

    #[test]
    fn columns_that_glue_can_not_tell_apart_or_has_no_type_for_are_refused() {
        let two = registration(StoredAs::Delta, &[("A", DataType::Int64), ("a", DataType::Int64)]);
        assert!(entry(&two).expect_err("refused").to_string().contains("two columns are `a`"));
        let none = registration(StoredAs::Delta, &[("n", DataType::UInt64)]);
        assert!(entry(&none).expect_err("refused").to_string().contains("column `n`: the type UInt64"));
    }

    #[test]
    fn values_of_folders_are_decoded_in_the_order_of_the_keys() {
        let keys = ["day".to_string(), "place".to_string()];
        let found = values("day=2024-01-01/place=a%2Fb%3D%20c", &keys).expect("values");
        assert_eq!(found, ["2024-01-01", "a/b= c"]);
        assert!(values("place=x/day=2024-01-01", &keys).is_err());
        assert!(values("day=2024-01-01", &keys).is_err());
    }
}
