//! `CREATE MODEL`: split, launch, measure, store.
//!
//! ```text
//!  training set ──order by time──▶ train │ validation │ test
//!                     channels as Parquet ──launch──▶ model/ ──score the test part──▶ metrics
//!                                                       └─ rename ─▶ models/<name>/<version>/
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::logical_expr::ident;
use datafusion::parquet::arrow::ArrowWriter;
use featurectl_core::asof::to_micros;
use featurectl_core::sql::{Algorithm, ObjectKind, Parsed};
use featurectl_core::{Error, Model, Result};
use featurectl_executors::score;
use featurectl_feature_store::{Entry, Folder, Version, json as to_json};
use featurectl_trainer_bridge::{self as bridge, Contract, JobSpec, Program};
use serde_json::{Value, json};

use super::{Event, Run, columns, hash};
use crate::session::load_model;

/// Part of a model's version: raise it when the built-in program trains another model from the same input.
const PROGRAM: &str = "gbdt-1";
/// The last file of a model's folder.
const MANIFEST: &str = "manifest.json";
const PARTS: [&str; 3] = ["train", "validation", "test"];

impl Run<'_> {
    pub(super) async fn model(&mut self, model: &Model, order: usize, parsed: &Parsed) -> Result<()> {
        let started = self.begin("Trained", &model.name);
        let session = self.session;
        let set = session.offline.latest(&model.training_set).await?;
        let set =
            set.ok_or_else(|| Error::not_found(format!("training set `{}` has no version", model.training_set)))?;
        let version = version_of(model, &set, &session.project.root)?;
        let folder = session.project.store.join("models").join(&model.name).join(&version);
        let is_whole = || folder.entries().map(|e| e.files.iter().any(|f| f == MANIFEST));
        let known = session.registry.get(ObjectKind::Model, &model.name)?;
        let state = match known.filter(|e| e.state["version"] == json!(version)) {
            Some(entry) if is_whole()? => entry.state,
            _ => self.train(model, &set, &version, &folder).await?,
        };
        let unchanged = state["run_id"] != json!(self.id);
        let columns = model.features.iter().map(|f| (f.clone(), String::new())).collect();
        let upstream = vec![format!("training set {}", model.training_set)];
        let sql = hash([model.sql.as_str()]);
        self.entry(ObjectKind::Model, &model.name, order, parsed, sql, upstream, columns, Some(state.clone()))?;
        self.load(&model.name)?;
        self.done("Trained", &model.name, describe(&state), unchanged, started, state);
        Ok(())
    }

    fn load(&self, name: &str) -> Result<()> {
        let session = self.session;
        let Some(entry) = session.registry.get(ObjectKind::Model, name)? else { return Ok(()) };
        load_model(&session.models, &session.project.store, &entry)
    }

    async fn train(&mut self, model: &Model, set: &Version, version: &str, folder: &Folder) -> Result<Value> {
        let rows = self.rows(model).await?;
        let parts = split(model, &rows)?;
        let base = self.session.project.work().join("jobs").join(format!("{}-{version}", model.name));
        if base.exists() {
            std::fs::remove_dir_all(&base)?;
        }
        let contract = Contract::new(&base);
        let job = JobSpec {
            name: format!("{}-{version}", model.name),
            base: base.clone(),
            hyperparameters: hyperparameters(model),
            channels: PARTS[..2].iter().map(|p| p.to_string()).collect(),
        };
        for (part, rows) in PARTS[..2].iter().zip(&parts) {
            write_channel(&contract.channel_dir(part), model, rows)?;
        }
        let program = self.program(model)?;
        let emit = &mut self.emit;
        bridge::launch(&job, &program, &mut |line| emit(Event::Line(line))).await?;
        let metrics = measure(model, &contract, &parts)?;
        let state = json!({
            "version": version,
            "run_id": self.id,
            "training_set": { "name": model.training_set, "version": set.number, "input_hash": set.manifest.input_hash },
            "metrics": metrics,
        });
        store(model, &contract, &parts[0], &state, folder)?;
        std::fs::remove_dir_all(&base)?;
        Ok(state)
    }

    /// Features, label and split time, in a total order, so that the same rows always train the same model.
    async fn rows(&self, model: &Model) -> Result<RecordBatch> {
        let provider = self.session.offline.read(&model.training_set).await?;
        let time = model.split.as_ref().map(|(time, _)| time.clone());
        let mut names: Vec<String> = time.into_iter().collect();
        for name in model.features.iter().chain([&model.label]) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let sort = names.iter().map(|n| ident(n).sort(true, true)).collect();
        let frame = self.session.here.read_table(provider)?;
        let frame = frame.select(names.iter().map(ident).collect::<Vec<_>>())?.sort(sort)?;
        let schema = Arc::new(frame.schema().as_arrow().clone());
        Ok(concat_batches(&schema, &frame.collect().await?)?)
    }

    fn program(&self, model: &Model) -> Result<Program> {
        Ok(match &model.algorithm {
            Algorithm::Script { path, .. } => Program::Script(script(&self.session.project.root, path)?),
            Algorithm::BuiltIn(name) => {
                let own = std::env::current_exe()?.into_os_string();
                Program::Command(vec![own, "train".into(), name.value.to_lowercase().into()])
            }
        })
    }
}

fn script(root: &Path, path: &str) -> Result<PathBuf> {
    let file = std::path::absolute(root.join(path))?;
    if file.is_file() { Ok(file) } else { Err(Error::not_found(format!("no training script {}", file.display()))) }
}

/// A hash of all that the model is made of.
fn version_of(model: &Model, set: &Version, root: &Path) -> Result<String> {
    let program = match &model.algorithm {
        Algorithm::BuiltIn(_) => PROGRAM.to_string(),
        Algorithm::Script { path, .. } => std::fs::read_to_string(script(root, path)?)?,
    };
    Ok(hash([model.sql.as_str(), set.manifest.input_hash.as_str(), program.as_str()])[..12].to_string())
}

fn hyperparameters(model: &Model) -> BTreeMap<String, String> {
    let objective = if model.label_type == DataType::Boolean { "binary" } else { "regression" };
    let mut all: BTreeMap<String, String> = model.options.iter().map(|(k, v)| (k.to_lowercase(), v.clone())).collect();
    all.insert("label".into(), model.label.clone());
    all.insert("features".into(), json!(model.features).to_string());
    all.insert("objective".into(), objective.into());
    all
}

/// Train, validation and test rows.
fn split(model: &Model, rows: &RecordBatch) -> Result<[RecordBatch; 3]> {
    let Some((time, shares)) = &model.split else {
        return Err(Error::invalid(format!("model `{}` has no SPLIT BY TIME", model.name)));
    };
    if rows.num_rows() == 0 {
        return Err(Error::invalid(format!("training set `{}` is empty", model.training_set)));
    }
    let times = to_micros(&column(rows, time)?)?;
    if arrow::array::Array::null_count(&times) > 0 {
        return Err(Error::invalid(format!("`{time}` is NULL in some rows: leave them out of the training set")));
    }
    let parts = bridge::split_by_time(times.values(), *shares)?;
    let part = |wanted: u8| {
        let indices: UInt32Array =
            parts.iter().enumerate().filter(|(_, p)| **p == wanted).map(|(i, _)| Some(i as u32)).collect();
        take_record_batch(rows, &indices)
    };
    Ok([part(0)?, part(1)?, part(2)?])
}

fn column(rows: &RecordBatch, name: &str) -> Result<ArrayRef> {
    rows.column_by_name(name)
        .cloned()
        .ok_or_else(|| Error::internal(format!("no column `{name}` in the training rows")))
}

fn write_channel(folder: &Path, model: &Model, rows: &RecordBatch) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let wanted = model.features.iter().chain([&model.label]);
    let indices = wanted.map(|n| rows.schema().index_of(n)).collect::<Result<Vec<_>, _>>()?;
    let rows = rows.project(&indices)?;
    let parquet = |e: datafusion::parquet::errors::ParquetError| Error::internal(e.to_string());
    let mut writer =
        ArrowWriter::try_new(File::create(folder.join("part-0.parquet"))?, rows.schema(), None).map_err(parquet)?;
    writer.write(&rows).map_err(parquet)?;
    writer.close().map_err(parquet)?;
    Ok(())
}

/// Scores the validation and test parts; a model that this scorer can't read brings its own `metrics.json`.
fn measure(model: &Model, contract: &Contract, parts: &[RecordBatch; 3]) -> Result<Value> {
    let own = std::fs::read(contract.output_data_dir().join("metrics.json")).ok();
    let own: Value = own.and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or(Value::Null);
    let file = contract.model_dir().join("model.txt");
    if !file.is_file() {
        return Ok(json!({ "program": own }));
    }
    let scorer = score::Scorer::new(score::Model::load(&model.name, &file)?);
    let mut metrics = json!({ "program": own });
    for (name, rows) in PARTS.iter().zip(parts).skip(1) {
        let features = scorer.model().features.iter().map(|f| column(rows, f)).collect::<Result<Vec<_>>>()?;
        // Of several outputs there are no figures; the program may bring its own.
        if let [scores] = scorer.predict(&features)?.as_slice() {
            metrics[*name] = figures(model, &column(rows, &model.label)?, scores)?;
        }
    }
    Ok(metrics)
}

fn figures(model: &Model, label: &ArrayRef, scores: &[f64]) -> Result<Value> {
    if model.label_type == DataType::Boolean {
        let labels: &BooleanArray = label.as_boolean();
        let labels: Vec<bool> = labels.iter().map(|l| l.unwrap_or(false)).collect();
        let base = bridge::base_rate(&labels).map(|p| p.max(1.0 - p));
        return Ok(json!({
            "rows": labels.len(),
            "auc": bridge::auc(&labels, scores),
            "log_loss": bridge::log_loss(&labels, scores),
            "accuracy": bridge::accuracy(&labels, scores),
            "base_accuracy": base,
        }));
    }
    let truths = cast(label, &DataType::Float64)?;
    let truths = truths.as_primitive::<Float64Type>().values();
    Ok(json!({ "rows": truths.len(), "rmse": bridge::rmse(truths, scores), "mae": bridge::mae(truths, scores) }))
}

/// Puts the model's files into their folder, all at once; in a bucket the manifest is last, and a model counts with it only.
fn store(model: &Model, contract: &Contract, rows: &RecordBatch, state: &Value, folder: &Folder) -> Result<()> {
    let types: BTreeMap<String, String> = columns(&rows.schema()).into_iter().collect();
    let features: Vec<Value> = model.features.iter().map(|f| json!({ "name": f, "type": types.get(f) })).collect();
    let signature = json!({ "features": features, "label": model.label, "label_type": model.label_type.to_string() });
    let (staged, target) = match folder.local() {
        Some(path) => (Folder::from(path.with_extension("part")), Some(path)),
        None => (folder.clone(), None),
    };
    staged.remove_all()?;
    for entry in std::fs::read_dir(contract.model_dir())? {
        let entry = entry?;
        staged.write(&entry.file_name().to_string_lossy(), std::fs::read(entry.path())?)?;
    }
    staged.write("signature.json", to_json(&signature)?)?;
    staged.write(MANIFEST, to_json(state)?)?;
    if let (Some(staged), Some(target)) = (staged.local(), target) {
        folder.remove_all()?;
        std::fs::rename(staged, target)?;
    }
    Ok(())
}

fn describe(state: &Value) -> String {
    let version = state["version"].as_str().unwrap_or_default();
    let test = &state["metrics"]["test"];
    let figure = |name: &str| test[name].as_f64().map_or("–".to_string(), |v| format!("{v:.4}"));
    if test["auc"].is_number() {
        let percent = |name: &str| test[name].as_f64().map_or("–".to_string(), |v| format!("{:.1} %", 100.0 * v));
        return format!(
            "{version}  test: AUC {}, log loss {}, accuracy {} against {} by the more frequent answer",
            figure("auc"),
            figure("log_loss"),
            percent("accuracy"),
            percent("base_accuracy")
        );
    }
    if test["rmse"].is_number() {
        return format!("{version}  test: RMSE {}, MAE {}", figure("rmse"), figure("mae"));
    }
    version.to_string()
}

/// The metrics of a registered model, in words.
pub(crate) fn describe_entry(entry: &Entry) -> String {
    describe(&entry.state)
}
