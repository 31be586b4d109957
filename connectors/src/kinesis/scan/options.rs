//! What the options of a stream's table mean.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use featurectl_aws::Access;
use featurectl_core::{Error, Result, closest};

use crate::decode::{
    AvroDecoder, CsvDecoder, Decode, FramedDecoder, Framing, JsonDecoder, ProtobufDecoder, SchemaId, Schemas,
};
use crate::glue::SchemaRegistry;

/// All options, for the message that names them.
const OPTIONS: [&str; 15] = [
    "from",
    "to",
    "region",
    "profile",
    "endpoint",
    "dead_letter",
    "max_bad_share",
    "metadata",
    "delimiter",
    "framing",
    "registry",
    "schema",
    "schemas",
    "descriptors",
    "message",
];

/// The options of a table, each taken once.
pub(super) struct Options<'a> {
    given: BTreeMap<String, &'a str>,
    root: &'a Path,
}

impl<'a> Options<'a> {
    pub(super) fn new(options: &'a HashMap<String, String>, root: &'a Path) -> Result<Self> {
        let given: BTreeMap<String, &str> =
            options.iter().map(|(k, v)| (k.trim_start_matches("format.").to_lowercase(), v.as_str())).collect();
        if let Some(unknown) = given.keys().find(|k| !OPTIONS.contains(&k.as_str())) {
            let hint = closest(unknown, OPTIONS).map_or(String::new(), |n| format!("; did you mean `{n}`?"));
            return Err(Error::invalid(format!("a stream has no option `{unknown}`{hint}")));
        }
        Ok(Self { given, root })
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.given.remove(name).map(str::to_string)
    }

    pub(super) fn parsed<T: std::str::FromStr>(&mut self, name: &str) -> Result<Option<T>>
    where
        T::Err: std::fmt::Display,
    {
        let Some(text) = self.given.remove(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|e| Error::invalid(format!("option `{name}`: {e}")))
    }

    pub(super) fn path(&mut self, name: &str) -> Option<PathBuf> {
        self.given.remove(name).map(|p| self.root.join(p))
    }

    /// A path that the format cannot do without.
    fn needed_path(&mut self, name: &str, what: &str) -> Result<PathBuf> {
        self.path(name).ok_or_else(|| Error::invalid(format!("set the option `{name}` to {what}")))
    }

    /// Options that are left mean nothing for the format.
    pub(super) fn finish(self, format: &str) -> Result<()> {
        match self.given.keys().next() {
            Some(left) => Err(Error::invalid(format!("option `{left}` means nothing for {format}: leave it out"))),
            None => Ok(()),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::from(e).context(format!("reading {}", path.display())))
}

fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|e| Error::data(format!("{}: {e}", path.display())))
}

/// The Avro schemas of a folder: `<id>.avsc` each.
fn schemas(folder: &Path) -> Result<BTreeMap<SchemaId, String>> {
    let doing = || format!("reading the schemas in {}", folder.display());
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::from(e).context(doing()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "avsc") {
            let id = path.file_stem().unwrap_or_default().to_string_lossy().parse();
            all.insert(id.map_err(|e: Error| e.context(doing()))?, read_text(&path)?);
        }
    }
    Ok(all)
}

/// What a decoder is made of beside its format's own options.
pub(super) struct Frame {
    framing: Framing,
    pub(super) registry: Option<(SchemaRegistry, Arc<Schemas>)>,
}

impl Frame {
    /// `framing` and `registry`; that is reached by the stream's region and profile, at the address of `access`.
    pub(super) fn new(format: &str, options: &mut Options<'_>, access: &Access) -> Result<Self> {
        let framing = options.parsed::<Framing>("framing")?;
        match (options.text("registry").map(|r| r.to_lowercase()).as_deref(), framing) {
            (None, framing) => Ok(Self { framing: framing.unwrap_or_default(), registry: None }),
            (Some("glue"), None | Some(Framing::Glue)) => {
                let registry = SchemaRegistry::new(access.clone(), format);
                Ok(Self { framing: Framing::Glue, registry: Some((registry, Arc::default())) })
            }
            (Some("glue"), _) => {
                Err(Error::invalid("with `registry` `glue`, records have its header: leave `framing` out"))
            }
            (Some(other), _) => Err(Error::invalid(format!("option `registry`: there is `glue`, not `{other}`"))),
        }
    }

    fn schemas(&self) -> Option<Arc<Schemas>> {
        self.registry.as_ref().map(|(_, schemas)| Arc::clone(schemas))
    }

    /// The Avro schema to read with: of a file, or of the registry.
    async fn avro_reader(&self, options: &mut Options<'_>) -> Result<String> {
        let in_registry = options.given.get("schema").filter(|place| place.starts_with("glue://"));
        match (in_registry, &self.registry) {
            (Some(place), Some((registry, _))) => {
                let text = registry.named(place).await?;
                options.given.remove("schema");
                Ok(text)
            }
            (Some(_), None) => Err(Error::invalid("a `schema` of Glue's registry needs the option `registry` `glue`")),
            (None, _) => read_text(&options.needed_path("schema", "the file of the Avro schema (.avsc) to read with")?),
        }
    }
}

/// The decoder of a format.
pub(super) async fn decoder(
    format: &str,
    declared: &SchemaRef,
    options: &mut Options<'_>,
    frame: &Frame,
) -> Result<Box<dyn Decode>> {
    let empty = declared.fields().is_empty();
    match format {
        "JSON" | "CSV" if empty => {
            Err(Error::invalid(format!("declare the columns: a stream of {format} does not say what it holds")))
        }
        "JSON" => {
            let plain = JsonDecoder::new(declared.clone());
            match frame.framing {
                Framing::Plain => Ok(Box::new(plain)),
                framing => Ok(Box::new(FramedDecoder::new(plain, framing, frame.schemas()))),
            }
        }
        "CSV" if frame.framing != Framing::Plain => {
            Err(Error::invalid("option `framing` means nothing for CSV: leave it out"))
        }
        "CSV" => {
            let delimiter = options.text("delimiter").unwrap_or_else(|| ",".into());
            match delimiter.as_bytes() {
                [byte] => Ok(Box::new(CsvDecoder::new(declared.clone(), *byte))),
                _ => Err(Error::invalid(format!("option `delimiter`: `{delimiter}` is not one ASCII character"))),
            }
        }
        "AVRO" | "PROTOBUF" if !empty => {
            Err(Error::invalid(format!("leave the columns out: those of {format} come from its schema")))
        }
        "AVRO" => {
            let schema = frame.avro_reader(options).await?;
            if let Some(writers) = frame.schemas() {
                return Ok(Box::new(AvroDecoder::over(&schema, writers, frame.framing)?));
            }
            let writers = options.path("schemas").map(|p| schemas(&p)).transpose()?.unwrap_or_default();
            Ok(Box::new(AvroDecoder::new(&schema, &writers, frame.framing)?))
        }
        "PROTOBUF" => {
            let file = options.needed_path("descriptors", "a file that protoc wrote with --descriptor_set_out")?;
            let message = options.text("message");
            let message =
                message.ok_or_else(|| Error::invalid("set the option `message` to the message's full name"))?;
            let plain = ProtobufDecoder::new(&read(&file)?, &message, frame.framing)?;
            Ok(Box::new(plain.with_schemas(frame.schemas())))
        }
        _ => Err(Error::invalid(format!("a stream is STORED AS JSON, CSV, AVRO or PROTOBUF, not {format}"))),
    }
}
