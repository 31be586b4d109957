//! `score`: each file of a table or folder becomes a file of the same name, with a column of predictions.
//!
//! ```text
//!  input/a.parquet ──batches──▶ scored by several threads, in order ──▶ to/.a.parquet.part ──rename──▶ to/a.parquet
//!  input/d=1/b.parquet                          …                                              to/d=1/b.parquet
//!                                               what is done, of what: registry/output/….json
//! ```
//! A file is there whole or not at all, and is not made again as long as its input, the model and the question are the
//! same. That is also how a killed run goes on. Only a few batches are in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, UNIX_EPOCH};

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::dataframe::DataFrame;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::{CsvReadOptions, JsonReadOptions, ParquetReadOptions, SessionConfig, SessionContext};
use featurectl_connectors::source_files;
use featurectl_core::check::Checked;
use featurectl_core::sql::ObjectKind;
use featurectl_core::{Error, Result, Source, closest};
use featurectl_executors::score::{Output as Asking, Scorer};
use featurectl_feature_store::Registry;
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use super::project;
use crate::args::{Asked, Global, Output};
use crate::render;
use crate::run::{Event, Step, bytes_hash, file_hash, hash, thousands};
use crate::session::{Extensions, MODEL_FILE, Session, model_folder};

/// The verb's arguments.
pub(super) struct Request {
    pub(super) model: String,
    pub(super) input: String,
    pub(super) to: PathBuf,
    pub(super) column: String,
    pub(super) give: Asked,
}

/// What an output file was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Done {
    made_of: String,
    bytes: u64,
    rows: u64,
}

/// An input file, and where it goes below the output folder.
struct Input {
    path: PathBuf,
    relative: PathBuf,
}

pub(super) async fn score(global: &Global, extensions: &Extensions, request: Request) -> Result<ExitCode> {
    let session = Session::open(project(global, None)?, extensions)?;
    let (scorer, version) = session.scorer(&request.model)?;
    let inputs = session.inputs(&request.input).await?;
    if request.to.display().to_string().contains("://") {
        return Err(Error::invalid(
            "--to takes a folder of this machine: COPY … TO 's3://…' in a job writes to a bucket",
        ));
    }
    let to = std::path::absolute(&request.to)?;
    apart(&request, &inputs, &to)?;
    std::fs::create_dir_all(&to).map_err(|e| Error::from(e).context(to.display().to_string()))?;
    let to = to.display().to_string();
    let note = hash(["score", to.as_str()]);
    let done = session.registry.output(&note)?.unwrap_or_default();
    let registry = session.registry.clone();
    let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = session.project.options.threads.unwrap_or_else(cores).max(1);
    let mut job = Scoring { request, scorer, version, threads, registry, note, done };
    let progress = render::Progress::new();
    let mut steps = Vec::new();
    for input in inputs {
        let step = job.step(&input, &mut |event| progress.event(event, global.output)).await;
        let step = step.map_err(|e| e.context(format!("scoring {}", input.path.display())))?;
        progress.event(&Event::Done(&step), global.output);
        steps.push(step);
    }
    progress.clear();
    if global.output == Output::Json {
        render::json(&steps)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses an output folder in which the output would be input, of this run or the next.
fn apart(request: &Request, inputs: &[Input], to: &Path) -> Result<()> {
    let given = std::path::absolute(&request.input)?;
    let over = inputs.iter().any(|i| i.path == to.join(&i.relative));
    if over || given.is_dir() && to.starts_with(&given) {
        let to = request.to.display();
        return Err(Error::invalid(format!("--to {to} is where the input is: give another folder")));
    }
    Ok(())
}

fn asking(asked: Asked) -> Asking {
    match asked {
        Asked::Prediction => Asking::Prediction,
        Asked::Raw => Asking::Margin,
        Asked::Class => Asking::Class,
        Asked::Leaf => Asking::Leaf,
        Asked::Contributions => Asking::Contributions,
    }
}

impl Session {
    /// The model of a file or a name, and a text that changes when it does.
    ///
    /// Errors: [`NotFound`](featurectl_core::ErrorKind::NotFound) if there is neither.
    pub(crate) fn scorer(&self, model: &str) -> Result<(Arc<Scorer>, String)> {
        let path = std::path::absolute(model)?;
        let name = if path.is_file() { path.display().to_string() } else { model.to_string() };
        self.models.load(&name)?;
        let Some(scorer) = self.models.get(&name) else {
            let hint = closest(model, self.models.names()).map_or(String::new(), |m| format!(": did you mean `{m}`?"));
            return Err(Error::not_found(format!("no model file and no trained model `{model}`{hint}")));
        };
        if path.is_file() {
            return Ok((scorer, file_hash(&path)?));
        }
        if let Some(version) = self.models.url_version(&name) {
            return Ok((scorer, version));
        }
        let entry = self.registry.get(ObjectKind::Model, &name)?;
        let bytes = match entry.and_then(|e| model_folder(&self.project.store, &e)) {
            Some(folder) => folder.read(MODEL_FILE)?,
            None => None,
        };
        Ok((scorer, bytes.map_or(String::new(), |b| bytes_hash(&b))))
    }

    /// The files of a path or of a registered table, in order.
    async fn inputs(&self, input: &str) -> Result<Vec<Input>> {
        let in_bucket = |place: &str| {
            let say = "COPY (SELECT *, predict('model', …) AS p FROM t) TO 's3://…' STORED AS PARQUET";
            Error::invalid(format!(
                "{place} is in a bucket, and `score` reads files of this machine: write {say} in a job"
            ))
        };
        if input.contains("://") {
            return Err(in_bucket(input));
        }
        let path = std::path::absolute(input)?;
        if path.is_file() {
            let relative = PathBuf::from(path.file_name().unwrap_or_default()).with_extension("parquet");
            return Ok(vec![Input { path, relative }]);
        }
        if path.is_dir() {
            return below(&path, walk(&path)?);
        }
        let Some(entry) = self.registry.get(ObjectKind::Table, input)? else {
            let names = self.registry.list(ObjectKind::Table)?.into_iter().map(|e| e.name);
            let hint = closest(input, names).map_or(String::new(), |t| format!(": did you mean table `{t}`?"));
            return Err(Error::not_found(format!("no file, folder or table `{input}`{hint}")));
        };
        let job = self.check(Source::new("registry", entry.sql)).await;
        if let Some(problem) = job.diagnostics.first() {
            return Err(Error::invalid(format!("table `{input}`: {problem}")));
        }
        let job = job.statements.first();
        if let Some((_, Checked::Table { locations, .. })) = job
            && let Some(place) = locations.iter().find(|l| l.contains("://"))
        {
            return Err(in_bucket(place));
        }
        let table = self.ctx.table_provider(input).await?;
        let files = source_files(&self.ctx, table.as_ref()).await?;
        let files = files.ok_or_else(|| Error::invalid(format!("`{input}` is no table of files: give a path")))?;
        let paths: Vec<PathBuf> = files.iter().map(|f| Path::new("/").join(&f.path)).collect();
        let folders = || paths.iter().filter_map(|p| p.parent());
        let common = folders()
            .next()
            .and_then(|first| first.ancestors().find(|a| folders().all(|f| f.starts_with(a))).map(Path::to_path_buf));
        below(&common.unwrap_or_default(), paths)
    }
}

fn below(folder: &Path, mut paths: Vec<PathBuf>) -> Result<Vec<Input>> {
    paths.sort();
    if paths.is_empty() {
        return Err(Error::not_found(format!("no .parquet, .csv or .json file in {}", folder.display())));
    }
    let relative = |p: &PathBuf| p.strip_prefix(folder).unwrap_or(p).with_extension("parquet");
    let inputs: Vec<Input> = paths.iter().map(|p| Input { path: p.clone(), relative: relative(p) }).collect();
    match inputs.windows(2).find(|pair| pair[0].relative == pair[1].relative) {
        Some(pair) => Err(Error::invalid(format!(
            "{} and {} would become the same file: score them one by one",
            pair[0].path.display(),
            pair[1].path.display()
        ))),
        None => Ok(inputs),
    }
}

/// The data files below a folder; names that begin with `.` or `_` are none.
fn walk(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut open) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match path.extension().and_then(|e| e.to_str()) {
                _ if name.starts_with(['.', '_']) => {}
                _ if path.is_dir() => open.push(path),
                Some("parquet" | "csv" | "json" | "ndjson" | "jsonl") => files.push(path),
                _ => {}
            }
        }
    }
    Ok(files)
}

/// A text that changes when a file does.
fn of_file(path: &Path) -> Result<String> {
    let meta = std::fs::metadata(path)?;
    let modified = meta.modified()?.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    Ok(format!("{} {} {modified}", path.display(), meta.len()))
}

/// What is the same for all files.
struct Scoring {
    request: Request,
    scorer: Arc<Scorer>,
    /// A text that changes when the model does.
    version: String,
    threads: usize,
    registry: Registry,
    /// Under which name the registry knows what is done.
    note: String,
    done: BTreeMap<String, Done>,
}

impl Scoring {
    /// Scores one file, unless that is done.
    async fn step(&mut self, input: &Input, emit: &mut (dyn FnMut(&Event<'_>) + Send)) -> Result<Step> {
        let name = input.relative.display().to_string();
        emit(&Event::Begin { verb: "Scoring", name: &name });
        let started = Instant::now();
        let question = [self.request.column.as_str(), asking(self.request.give).function()];
        let made_of = hash([self.version.as_str(), &of_file(&input.path)?].into_iter().chain(question));
        let target = self.request.to.join(&input.relative);
        let bytes = || std::fs::metadata(&target).map_or(0, |m| m.len());
        let known = self.done.get(&name).filter(|d| d.made_of == made_of && d.bytes == bytes()).map(|d| d.rows);
        let rows = match known {
            Some(rows) => rows,
            None => {
                let rows = self.file(input, &target, emit).await?;
                self.done.insert(name.clone(), Done { made_of, bytes: bytes(), rows });
                self.registry.put_output(&self.note, &self.done)?;
                rows
            }
        };
        let seconds = started.elapsed().as_secs_f64();
        let rate = match known {
            Some(_) => String::new(),
            None => format!(" at {} rows/s", thousands((rows as f64 / seconds.max(1e-9)) as u64)),
        };
        let detail = format!("{} rows{rate} → {}", thousands(rows), target.display());
        let figures = serde_json::json!({ "rows": rows });
        Ok(Step { verb: "Scored".into(), name, detail, unchanged: known.is_some(), seconds, figures })
    }

    /// Scores one file; the rows are written in their order.
    async fn file(&self, input: &Input, target: &Path, emit: &mut (dyn FnMut(&Event<'_>) + Send)) -> Result<u64> {
        let rows = read(&input.path).await?;
        let given: SchemaRef = Arc::new(rows.schema().as_arrow().clone());
        let places = self.places(&given)?;
        let stream = rows.execute_stream().await?.map(|batch| {
            let (scorer, places, asked) = (Arc::clone(&self.scorer), places.clone(), asking(self.request.give));
            let column = self.request.column.clone();
            async move {
                let batch = batch?;
                let scored =
                    tokio::task::spawn_blocking(move || scored(&batch, &scorer, &places, asked, &column)).await;
                scored.map_err(|e| Error::internal(e.to_string()))?
            }
        });
        let mut stream = std::pin::pin!(stream.buffered(self.threads));
        let folder = target.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let part = folder.join(format!(".{}.part", target.file_name().unwrap_or_default().to_string_lossy()));
        let parquet = |e: datafusion::parquet::errors::ParquetError| Error::data(e.to_string());
        let (mut writer, mut count) = (None, 0);
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            count += batch.num_rows() as u64;
            let writer = match &mut writer {
                Some(writer) => writer,
                none => none.insert(ArrowWriter::try_new(File::create(&part)?, batch.schema(), None).map_err(parquet)?),
            };
            writer.write(&batch).map_err(parquet)?;
            emit(&Event::Line(&format!("`{}`  {} rows", input.relative.display(), thousands(count))));
        }
        let writer = match writer {
            Some(writer) => writer,
            // A file without rows still has columns.
            None => {
                let empty = RecordBatch::new_empty(given);
                let empty = scored(&empty, &self.scorer, &places, asking(self.request.give), &self.request.column)?;
                ArrowWriter::try_new(File::create(&part)?, empty.schema(), None).map_err(parquet)?
            }
        };
        writer.close().map_err(parquet)?;
        std::fs::rename(&part, target)?;
        Ok(count)
    }

    /// Where each feature of the model is among the columns of a file.
    fn places(&self, schema: &Schema) -> Result<Vec<usize>> {
        let (model, column) = (self.scorer.model(), &self.request.column);
        if schema.fields().iter().any(|f| f.name() == column) {
            return Err(Error::invalid(format!("there is a column `{column}` already: choose another name with --as")));
        }
        let names = || schema.fields().iter().map(|f| f.name());
        let place = |feature: &String| {
            // LightGBM saves blanks in a name as `_`.
            let saved = |name: &String| name == feature || &name.replace(char::is_whitespace, "_") == feature;
            names().position(saved).ok_or_else(|| {
                let hint = closest(feature, names()).map_or(String::new(), |n| format!(": did you mean `{n}`?"));
                Error::invalid(format!("no column `{feature}`, which model `{}` takes{hint}", model.name))
            })
        };
        model.features.iter().map(place).collect()
    }
}

/// The rows with their predictions.
fn scored(batch: &RecordBatch, scorer: &Scorer, places: &[usize], asked: Asking, column: &str) -> Result<RecordBatch> {
    let features: Vec<_> = places.iter().map(|place| Arc::clone(batch.column(*place))).collect();
    let result = asked.of(scorer, &features)?;
    let field = Arc::new(Field::new(column, result.data_type().clone(), true));
    let fields: Vec<_> = batch.schema().fields().iter().cloned().chain([field]).collect();
    let columns = batch.columns().iter().cloned().chain([result]).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The rows of a file, in their order.
async fn read(path: &Path) -> Result<DataFrame> {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let name = path.display().to_string();
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    Ok(match extension {
        "csv" => ctx.read_csv(name, CsvReadOptions::new()).await?,
        "json" | "ndjson" | "jsonl" => {
            ctx.read_json(name, JsonReadOptions::default().file_extension(&format!(".{extension}"))).await?
        }
        "parquet" => ctx.read_parquet(name, ParquetReadOptions::default()).await?,
        _ => return Err(Error::invalid("its name ends neither in .parquet nor in .csv or .json")),
    })
}
