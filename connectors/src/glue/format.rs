//! How the files of a table are to be read, by what the catalog says of its serde.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::config::TableParquetOptions;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use featurectl_core::{Error, Result};

use super::client::Entry;

/// How a table is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Format {
    Delta,
    Parquet,
    Json,
    /// Text with a separator.
    Text(Text),
}

/// Fields of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    pub delimiter: u8,
    /// A sign that never comes, where fields are not quoted.
    pub quote: u8,
    pub escape: Option<u8>,
    pub header: bool,
    /// What stands for NULL, beside nothing.
    pub null: Option<String>,
}

/// Where lines are not quoted.
const NO_QUOTE: u8 = 0;

impl Format {
    /// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for what can't be read, with what to do.
    pub fn of(table: &Entry) -> Result<Self> {
        let parameter = |name: &str| table.parameters.get(name).map(|v| v.to_lowercase()).unwrap_or_default();
        let provider = parameter("spark.sql.sources.provider");
        let kind = parameter("table_type");
        let storage = &table.storage;
        let unread = |what: &str, fix: &str| Err(Error::invalid(format!("{what} can't be read: {fix}")));
        if let Some(link) = &table.link {
            return unread("a link to a table", &format!("read `glue.{link}` itself"));
        }
        if table.kind.contains("VIEW") {
            return unread("a view of Athena or Spark", "read the tables that it is made of, with its query");
        }
        let copy = "write its rows to Parquet or Delta with Athena (CREATE TABLE AS) or Spark";
        match (kind.as_str(), provider.as_str()) {
            ("delta", _) | (_, "delta") => return Ok(Self::Delta),
            ("iceberg", _) | (_, "iceberg") => return unread("an Iceberg table", copy),
            (_, "hudi" | "org.apache.hudi") => return unread("a Hudi table", copy),
            _ => {}
        }
        if storage.input_format.ends_with("SymlinkTextInputFormat") {
            return unread(
                "a table of manifests (SymlinkTextInputFormat)",
                "give `STORED AS DELTA LOCATION` the folder of the Delta table that they are of, or have it crawled as a \
                 native Delta table",
            );
        }
        if storage.input_format.contains(".hudi.") {
            return unread("a Hudi table", copy);
        }
        match storage.serde.rsplit('.').next().unwrap_or_default() {
            "ParquetHiveSerDe" => Ok(Self::Parquet),
            // OpenX's and Hive's.
            "JsonSerDe" => match storage.serde_parameters.keys().find(|k| k.starts_with("mapping.")) {
                Some(key) => {
                    unread(&format!("a JSON table with `{key}`"), "rename the column to what it is in the files")
                }
                None => Ok(Self::Json),
            },
            "LazySimpleSerDe" => Ok(Self::Text(lazy_simple(table)?)),
            "OpenCSVSerde" => Ok(Self::Text(open_csv(table)?)),
            _ => unread(&format!("serde `{}` (of {})", storage.serde, storage.input_format), copy),
        }
    }

    /// DataFusion's reader of such files.
    pub fn reader(&self, compression: FileCompressionType, mut parquet: TableParquetOptions) -> Arc<dyn FileFormat> {
        match self {
            Self::Delta | Self::Parquet => {
                // What Spark and Hive wrote before there were timestamps has a wider range than nanoseconds do.
                parquet.global.coerce_int96 = Some("us".into());
                Arc::new(ParquetFormat::default().with_options(parquet))
            }
            Self::Json => Arc::new(JsonFormat::default().with_file_compression_type(compression)),
            Self::Text(text) => Arc::new(
                CsvFormat::default()
                    .with_has_header(text.header)
                    .with_delimiter(text.delimiter)
                    .with_quote(text.quote)
                    .with_escape(text.escape)
                    .with_truncated_rows(true)
                    .with_file_compression_type(compression),
            ),
        }
    }

    /// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) if files of this format can't have a column of this type.
    pub fn check(&self, column: &str, of: &DataType) -> Result<()> {
        match self {
            Self::Text(_) if of.is_nested() || matches!(of, DataType::Binary) => Err(Error::invalid(format!(
                "column `{column}` of type {of} can't be read from text: write the table as Parquet"
            ))),
            _ => Ok(()),
        }
    }
}

fn lazy_simple(table: &Entry) -> Result<Text> {
    let parameters = &table.storage.serde_parameters;
    let delimiter = parameters.get("field.delim").or(parameters.get("serialization.format"));
    let null = parameters.get("serialization.null.format").cloned().unwrap_or_else(|| "\\N".into());
    Ok(Text {
        delimiter: delimiter.map_or(Ok(1), |d| sign("field.delim", d))?,
        quote: NO_QUOTE,
        escape: parameters.get("escape.delim").map(|e| sign("escape.delim", e)).transpose()?,
        header: header(table)?,
        null: Some(null).filter(|n| !n.is_empty()),
    })
}

fn open_csv(table: &Entry) -> Result<Text> {
    let parameters = &table.storage.serde_parameters;
    let of = |name: &str, default: u8| parameters.get(name).map_or(Ok(default), |v| sign(name, v));
    let (quote, escape) = (of("quoteChar", b'"')?, of("escapeChar", b'\\')?);
    Ok(Text {
        delimiter: of("separatorChar", b',')?,
        quote,
        escape: (escape != quote).then_some(escape),
        header: header(table)?,
        null: None,
    })
}

/// A sign as Hive has it: itself, a name such as `\t` or `\u0001`, or the number of one that can't be printed.
fn sign(name: &str, text: &str) -> Result<u8> {
    let code = |digits: &str, radix| u8::from_str_radix(digits, radix).ok();
    let found = match text {
        "\\t" => Some(b'\t'),
        _ if text.starts_with("\\u") => code(&text[2..], 16),
        _ if text.len() > 1 && text.starts_with('\\') => code(&text[1..], 8),
        _ => match text.as_bytes() {
            [digit @ b'1'..=b'8'] => Some(digit - b'0'),
            [one] => Some(*one),
            _ => code(text, 10),
        },
    };
    found.filter(u8::is_ascii).ok_or_else(|| {
        Error::invalid(format!("its `{name}` is `{text}`: only one ASCII sign can be read; write the table as Parquet"))
    })
}

fn header(table: &Entry) -> Result<bool> {
    let name = "skip.header.line.count";
    let of = |from: &BTreeMap<String, String>| from.get(name).cloned();
    match of(&table.parameters).or_else(|| of(&table.storage.serde_parameters)).as_deref().map(str::trim) {
        None | Some("0") => Ok(false),
        Some("1") => Ok(true),
        Some(other) => Err(Error::invalid(format!("its `{name}` is `{other}`: no more than one line can be skipped"))),
    }
}

/// How a file is compressed, as its name says.
pub(super) fn compression(name: &str) -> FileCompressionType {
    match name.rsplit('.').next().unwrap_or_default() {
        "gz" => FileCompressionType::GZIP,
        "bz2" => FileCompressionType::BZIP2,
        "xz" => FileCompressionType::XZ,
        "zst" | "zstd" => FileCompressionType::ZSTD,
        _ => FileCompressionType::UNCOMPRESSED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::glue::client::Storage;

    fn table(input: &str, serde: &str, parameters: &[(&str, &str)], serde_parameters: &[(&str, &str)]) -> Entry {
        let map = |all: &[(&str, &str)]| all.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let storage = Storage {
            input_format: input.into(),
            serde: serde.into(),
            serde_parameters: map(serde_parameters),
            ..Storage::default()
        };
        Entry { parameters: map(parameters), storage, ..Entry::default() }
    }

    #[test]
    fn a_serde_says_how_files_are_read() {
        let of = |serde: &str, all: &[(&str, &str)]| Format::of(&table("", serde, &[], all));
        let lazy = |all: &[(&str, &str)]| match of("org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe", all) {
            Ok(Format::Text(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(lazy(&[]).delimiter, 1);
        for (text, delimiter) in [
            (",", b','),
            ("\t", b'\t'),
            ("\\t", b'\t'),
            ("\\u0001", 1),
            ("\\001", 1),
            ("1", 1),
            ("|", b'|'),
            ("44", b','),
        ] {
            assert_eq!(lazy(&[("field.delim", text)]).delimiter, delimiter, "{text}");
        }
        let e = of("x.LazySimpleSerDe", &[("field.delim", "||")]).expect_err("refused");
        assert!(e.to_string().contains("its `field.delim` is `||`"), "{e}");
        let Ok(Format::Text(csv)) = of("org.apache.hadoop.hive.serde2.OpenCSVSerde", &[("separatorChar", ";")]) else {
            panic!("no text")
        };
        assert_eq!((csv.delimiter, csv.quote, csv.escape, csv.null), (b';', b'"', Some(b'\\'), None));
        assert_eq!(of("org.openx.data.jsonserde.JsonSerDe", &[]).expect("JSON"), Format::Json);
        let delta = table("x.SequenceFileInputFormat", "x.LazySimpleSerDe", &[("table_type", "DELTA")], &[]);
        assert_eq!(Format::of(&delta).expect("Delta"), Format::Delta);
        let delta = table("", "", &[("spark.sql.sources.provider", "delta")], &[]);
        assert_eq!(Format::of(&delta).expect("Delta"), Format::Delta);
    }

    #[test]
    fn what_can_not_be_read_is_said_with_what_to_do() {
        let refused = |entry: &Entry, part: &str| {
            let e = Format::of(entry).expect_err("refused");
            assert!(e.to_string().contains(part), "{e}");
        };
        refused(
            &table("org.apache.hadoop.hive.ql.io.orc.OrcInputFormat", "x.OrcSerde", &[], &[]),
            "serde `x.OrcSerde` (of org",
        );
        refused(&table("", "", &[("table_type", "ICEBERG")], &[]), "an Iceberg table can't be read");
        refused(&table("x.SymlinkTextInputFormat", "x.ParquetHiveSerDe", &[], &[]), "STORED AS DELTA");
        refused(&table("", "x.JsonSerDe", &[], &[("mapping.a", "A")]), "`mapping.a`");
        refused(&table("", "x.LazySimpleSerDe", &[("skip.header.line.count", "2")], &[]), "no more than one line");
        refused(&Entry { kind: "VIRTUAL_VIEW".into(), ..Entry::default() }, "a view of Athena");
        refused(&Entry { link: Some("a.b".into()), ..Entry::default() }, "read `glue.a.b` itself");
    }
}
