//! `predict('model', feature, …)` in SQL, and its kin: `predict_raw`, `predict_class`, `predict_leaf` and
//! `predict_contributions`.
//!
//! A job may use a model that it trains itself further up. Such a model is *declared* while the job is planned, which
//! is enough to check the call, and *inserted* once it is trained, which is needed to run it. A name that is a path of a
//! model file needs neither: the file is read when the call is planned, and again if it has changed.
//!
//! ```text
//!  CREATE MODEL m …          SELECT predict('m', a, b) FROM t
//!       │ declare(m, [a, b])       │ plan: is `m` known? as many features, all numbers?
//!       ▼                          ▼
//!    ModelSet { m: [a, b], no model ──insert──▶ scorer }
//!                                  │ run: every batch ──▶ Scorer ──▶ Float64, or a list of them for several outputs
//! ```

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::SystemTime;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use featurectl_core::sql::PREDICT_FUNCTIONS;
use featurectl_core::{Error, Result, closest};

use super::model::Model;
use super::scorer::{Scorer, array, check_type};

/// Reads what a URL names, and waits for it.
#[derive(Clone)]
pub struct Fetch(Arc<Read>);

type Read = dyn Fn(&str) -> Result<Vec<u8>> + Send + Sync;

impl Fetch {
    /// One that reads by `read`.
    pub fn new(read: impl Fn(&str) -> Result<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }
}

impl Default for Fetch {
    /// One that knows no URL.
    fn default() -> Self {
        Self::new(|url| Err(Error::invalid(format!("`{url}` can't be read here: give the path of a file"))))
    }
}

impl std::fmt::Debug for Fetch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fetch")
    }
}

/// The models that queries may name, shared by every session of a process.
#[derive(Debug, Default)]
pub struct ModelSet {
    /// Where paths of model files begin.
    root: PathBuf,
    fetch: Fetch,
    entries: RwLock<HashMap<String, Entry>>,
}

/// A model's signature and, once it is trained, the model.
#[derive(Debug)]
struct Entry {
    features: Vec<String>,
    model: Option<Arc<Scorer>>,
    /// The file that it was read from, or that it will be read from when it is first asked for.
    file: Option<Arc<Located>>,
}

/// A model's file, and the model once it was read. Equal if place and version are.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Located {
    /// Its path, or its URL.
    place: String,
    /// Length in bytes, and microseconds since 1970 UTC of its last change, or a hash of what a URL names.
    version: (u64, u64),
    #[serde(skip)]
    model: Arc<Mutex<Option<Arc<Scorer>>>>,
}

impl Located {
    /// The file at `path` as it is now.
    ///
    /// Errors: those of asking for its length and time.
    pub fn at(path: &Path) -> Result<Self> {
        let place = std::path::absolute(path)?.display().to_string();
        Ok(Self { place, version: version(path)?, model: Arc::default() })
    }

    /// What a URL names, as it is now.
    ///
    /// Errors: those of reading it.
    fn at_url(url: &str, fetch: &Fetch) -> Result<Self> {
        Ok(Self { place: url.into(), version: version_of(&(fetch.0)(url)?), model: Arc::default() })
    }

    /// The model, read if that was not done yet.
    ///
    /// Errors: those of [`Model::load`]; [`Conflict`](featurectl_core::ErrorKind::Conflict) if the file has changed.
    fn load(&self, name: &str, fetch: &Fetch) -> Result<Arc<Scorer>> {
        let mut held = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = held.as_ref() {
            return Ok(Arc::clone(model));
        }
        let place = &self.place;
        let doing = |e: Error| e.context(format!("model `{name}`, {place}"));
        let changed = || Error::conflict(format!("{place} of model `{name}` has changed since the query was planned"));
        let model = if place.contains("://") {
            let bytes = (fetch.0)(place).map_err(doing)?;
            let model = (version_of(&bytes) == self.version).then(|| Model::from_bytes(name, &bytes).map_err(doing));
            model.ok_or_else(changed)??
        } else {
            let path = Path::new(place);
            if version(path).map_err(doing)? != self.version {
                return Err(changed());
            }
            Model::load(name, path)?
        };
        let model = Arc::new(Scorer::new(model));
        *held = Some(Arc::clone(&model));
        Ok(model)
    }
}

impl PartialEq for Located {
    fn eq(&self, other: &Self) -> bool {
        (&self.place, self.version) == (&other.place, other.version)
    }
}

impl Eq for Located {}

impl Hash for Located {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.place, self.version).hash(state);
    }
}

fn version(path: &Path) -> Result<(u64, u64)> {
    let meta = std::fs::metadata(path)?;
    let changed = meta.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok((meta.len(), changed.as_micros() as u64))
}

fn version_of(bytes: &[u8]) -> (u64, u64) {
    // The same in every process of one binary.
    let mut hasher = std::hash::DefaultHasher::new();
    bytes.hash(&mut hasher);
    (bytes.len() as u64, hasher.finish())
}

impl ModelSet {
    /// No models yet; names that are paths begin at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), ..Self::default() }
    }

    /// The same, with names that are URLs, which are read by `fetch`.
    pub fn with_fetch(self, fetch: Fetch) -> Self {
        Self { fetch, ..self }
    }

    /// A hash of the model that was read from a URL, if `name` is one.
    pub fn url_version(&self, name: &str) -> Option<String> {
        let (length, hash) = self.read().get(name).filter(|_| name.contains("://"))?.file.as_ref()?.version;
        Some(format!("{length} {hash:016x}"))
    }

    /// The file that a name is the path of, if it is one.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        let path = self.root.join(name);
        (name.contains(['.', '/']) && path.is_file()).then_some(path)
    }

    /// Reads the file that `name` is the path of, unless that is done and it has not changed since.
    ///
    /// Errors: those of [`Model::load`].
    pub fn load(&self, name: &str) -> Result<()> {
        let file = match self.file(name) {
            Some(path) => Arc::new(Located::at(&path)?),
            None if name.contains("://") => Arc::new(Located::at_url(name, &self.fetch)?),
            None => return Ok(()),
        };
        if self.read().get(name).is_some_and(|e| e.file.as_ref() == Some(&file)) {
            return Ok(());
        }
        let model = file.load(name, &self.fetch)?;
        let features = model.model().features.clone();
        self.write().insert(name.to_string(), Entry { features, model: Some(model), file: Some(file) });
        Ok(())
    }

    /// Makes a model known by its file, which is read when the model is first asked for.
    pub fn locate(&self, name: impl Into<String>, file: Arc<Located>) {
        self.write().insert(name.into(), Entry { features: vec![], model: None, file: Some(file) });
    }

    /// The models that have a file, by name.
    pub fn located(&self) -> Vec<(String, Located)> {
        let of = |(name, entry): (&String, &Entry)| Some((name.clone(), entry.file.as_deref()?.clone()));
        let mut files: Vec<_> = self.read().iter().filter_map(of).collect();
        files.sort_by(|(a, _), (b, _)| a.cmp(b));
        files
    }

    /// Reads a trained model and makes it usable under its name, in place of an earlier one.
    ///
    /// Errors: those of [`Model::load`] and [`insert`](Self::insert).
    pub fn insert_file(&self, name: &str, path: &Path) -> Result<()> {
        self.insert_located(name, Located::at(path)?)
    }

    /// Like [`insert_file`](Self::insert_file), of what a URL names.
    ///
    /// Errors: beside those, the ones of reading it.
    pub fn insert_url(&self, name: &str, url: &str) -> Result<()> {
        self.insert_located(name, Located::at_url(url, &self.fetch)?)
    }

    fn insert_located(&self, name: &str, file: Located) -> Result<()> {
        let file = Arc::new(file);
        self.insert(file.load(name, &self.fetch)?)?;
        if let Some(entry) = self.write().get_mut(name) {
            entry.file = Some(file);
        }
        Ok(())
    }

    /// Makes a model known before it is trained. One that is trained on the same features stays as it is; one on other
    /// features has to be trained again.
    pub fn declare(&self, name: impl Into<String>, features: Vec<String>) {
        let name = name.into();
        let mut entries = self.write();
        if entries.get(&name).is_none_or(|known| known.features != features) {
            entries.insert(name, Entry { features, model: None, file: None });
        }
    }

    /// Makes a trained model usable under its own name, in place of an earlier one.
    ///
    /// Errors: [`Conflict`](featurectl_core::ErrorKind::Conflict) if it was declared with other features or in another
    /// order, since queries give them by place.
    pub fn insert(&self, model: Arc<Scorer>) -> Result<()> {
        let mut entries = self.write();
        let of = model.model();
        let features = match entries.get(&of.name) {
            Some(known) if !same_features(&known.features, &of.features) => return Err(conflict(known, of)),
            Some(known) => known.features.clone(),
            None => of.features.clone(),
        };
        entries.insert(of.name.clone(), Entry { features, model: Some(Arc::clone(&model)), file: None });
        Ok(())
    }

    /// The trained model of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Scorer>> {
        self.read().get(name)?.model.clone()
    }

    /// The trained model of this name, read from its file if that was not done yet.
    ///
    /// Errors: those of reading it.
    fn trained(&self, name: &str) -> Result<Option<Arc<Scorer>>> {
        let file = match self.read().get(name) {
            Some(Entry { model: Some(model), .. }) => return Ok(Some(Arc::clone(model))),
            Some(Entry { file: Some(file), .. }) => Arc::clone(file),
            _ => return Ok(None),
        };
        file.load(name, &self.fetch).map(Some)
    }

    /// The features of a model of this name, trained or not, in the order that `predict` takes them.
    pub fn features(&self, name: &str) -> Option<Vec<String>> {
        Some(self.read().get(name)?.features.clone())
    }

    /// All models, trained or not, by name.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.read().keys().cloned().collect();
        names.sort();
        names
    }

    /// The entries, also if a thread died holding them: every change to them is one insertion.
    fn read(&self) -> RwLockReadGuard<'_, HashMap<String, Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Like [`read`](Self::read), to change them.
    fn write(&self) -> RwLockWriteGuard<'_, HashMap<String, Entry>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a trained model has the declared features. LightGBM saves blanks in a name as `_`.
fn same_features(declared: &[String], trained: &[String]) -> bool {
    let saved = |name: &String| name.replace(char::is_whitespace, "_");
    declared.iter().map(saved).eq(trained.iter().map(saved))
}

/// A model was trained on other features than it was declared with.
fn conflict(declared: &Entry, model: &Model) -> Error {
    Error::conflict(format!(
        "model `{}` is declared with the features ({}), but was trained on ({}): train it again",
        model.name,
        declared.features.join(", "),
        model.features.join(", ")
    ))
}

/// What is asked of a model, in the order of [`PREDICT_FUNCTIONS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Output {
    /// `predict`: what the library that trained the model predicts: a value, a probability, or one a class.
    Prediction,
    /// `predict_raw`: the margins that predictions are made of.
    Margin,
    /// `predict_class`: the most probable class, by its name if the model has names, else its number.
    Class,
    /// `predict_leaf`: the number of the leaf that the row is in, one a tree.
    Leaf,
    /// `predict_contributions`: what each feature contributes to the margin, then the expected margin; see
    /// [`Scorer::contributions`].
    Contributions,
}

impl Output {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Prediction, Self::Margin, Self::Class, Self::Leaf, Self::Contributions];

    /// The function's name.
    pub fn function(self) -> &'static str {
        PREDICT_FUNCTIONS[self as usize]
    }

    /// Type of the result; `None`: of a model that is not trained yet, which has one output.
    fn data_type(self, scorer: Option<&Scorer>) -> DataType {
        let list = |t| DataType::List(Arc::new(Field::new_list_field(t, true)));
        match (self, scorer) {
            (Self::Leaf, _) => list(DataType::Int64),
            (Self::Contributions, _) => list(DataType::Float64),
            (Self::Class, Some(scorer)) if !scorer.model().classes.is_empty() => DataType::Utf8,
            (Self::Class, _) => DataType::Int64,
            (Self::Prediction, Some(scorer)) if scorer.predictions() > 1 => list(DataType::Float64),
            (Self::Margin, Some(scorer)) if scorer.outputs() > 1 => list(DataType::Float64),
            _ => DataType::Float64,
        }
    }

    /// The result for each row; `columns` are the features in order.
    ///
    /// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) as for [`Scorer::predict`], or for leaves of a model
    /// without trees.
    pub fn of(self, scorer: &Scorer, columns: &[ArrayRef]) -> Result<ArrayRef> {
        Ok(match self {
            Self::Prediction => array(scorer.predict(columns)?),
            Self::Margin => array(scorer.margins(columns)?),
            Self::Leaf => scorer.leaves(columns)?,
            Self::Contributions => scorer.contributions(columns)?,
            Self::Class => {
                let classes = scorer.classes(columns)?;
                match scorer.model().classes.as_slice() {
                    [] => Arc::new(Int64Array::from_iter_values(classes.iter().map(|c| *c as i64))),
                    names => Arc::new(classes.iter().map(|c| names.get(*c)).collect::<StringArray>()),
                }
            }
        })
    }
}

/// The function of one [`Output`], which finds its models in `models`.
pub fn predict_udf(models: Arc<ModelSet>, output: Output) -> ScalarUDF {
    // Not immutable: another query may meet a newer model. User-defined only to say what is wrong with `predict()`.
    let signature = Signature::user_defined(Volatility::Stable);
    ScalarUDF::new_from_impl(Predict { models, output, signature })
}

/// See [`predict_udf`].
#[derive(Debug)]
pub(crate) struct Predict {
    models: Arc<ModelSet>,
    output: Output,
    signature: Signature,
}

impl PartialEq for Predict {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.models, &other.models) && self.output == other.output
    }
}

impl Eq for Predict {}

impl Hash for Predict {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.models).hash(state);
        self.output.hash(state);
    }
}

impl ScalarUDFImpl for Predict {
    fn name(&self) -> &str {
        self.output.function()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.output.data_type(None))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        let name = model_name(args.scalar_arguments.first().copied().flatten())?;
        self.models.load(name)?;
        let features = self.models.features(name).ok_or_else(|| self.unknown(name))?;
        let given = &args.arg_fields[1..];
        if given.len() != features.len() {
            return Err(wrong_count(name, &features, given).into());
        }
        let scorer = self.models.get(name);
        for (place, field) in given.iter().enumerate() {
            match &scorer {
                Some(scorer) => scorer.model().check_type(place, field.data_type())?,
                None => check_type(name, &features[place], field.data_type(), false)?,
            }
        }
        Ok(Arc::new(Field::new(self.name(), self.output.data_type(scorer.as_deref()), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let name = match args.args.first() {
            Some(ColumnarValue::Scalar(name)) => model_name(Some(name))?,
            _ => model_name(None)?,
        };
        let scorer = self.models.trained(name)?.ok_or_else(|| self.unusable(name))?;
        let features = &args.args[1..];
        let constant = features.iter().all(|f| matches!(f, ColumnarValue::Scalar(_)));
        let result = self.output.of(&scorer, &ColumnarValue::values_to_arrays(features)?)?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
            false => ColumnarValue::Array(result),
        })
    }
}

impl Predict {
    /// The models that calls may name.
    pub(crate) fn models(&self) -> &ModelSet {
        &self.models
    }

    /// What the function of this name gives, if it is one of these.
    pub(crate) fn output_of(function: &str) -> Option<Output> {
        Output::ALL.into_iter().find(|o| o.function() == function)
    }

    /// No model has this name.
    fn unknown(&self, name: &str) -> Error {
        let hint = match closest(name, self.models.names()) {
            Some(other) => format!("did you mean `{other}`?"),
            None => "declare it with CREATE MODEL, or give the path of a model file".to_string(),
        };
        Error::not_found(format!("no model `{name}`: {hint}"))
    }

    /// There is nothing to run under this name.
    fn unusable(&self, name: &str) -> Error {
        match self.models.features(name) {
            Some(_) => {
                Error::not_found(format!("model `{name}` is not trained yet: run the job that has its CREATE MODEL"))
            }
            None => self.unknown(name),
        }
    }
}

/// The model's name, which must be a string literal for the call to be checked before it runs.
fn model_name(argument: Option<&ScalarValue>) -> Result<&str> {
    argument.and_then(|value| value.try_as_str().flatten()).ok_or_else(|| {
        Error::invalid(
            "the first argument of `predict` is the model's name as a string literal, \
 as in `predict('m', a, b)`",
        )
    })
}

/// The call has too few or too many features. Names tell which, unless the arguments are called otherwise; then places.
fn wrong_count(model: &str, features: &[String], given: &[FieldRef]) -> Error {
    let names: Vec<&str> = features.iter().map(String::as_str).collect();
    let given: Vec<&str> = given.iter().map(|field| field.name().as_str()).collect();
    let problem = match given.len() < names.len() {
        true => format!("{} missing", quote(&surplus(&names, &given))),
        false => format!("{} too many", quote(&surplus(&given, &names))),
    };
    let (taken, signature) = (names.len(), names.join(", "));
    Error::invalid(format!("model `{model}` takes {taken} features, ({signature}), not {}: {problem}", given.len()))
}

/// What `longer` has more than `shorter`.
fn surplus<'a>(longer: &[&'a str], shorter: &[&str]) -> Vec<&'a str> {
    let by_name: Vec<&str> = longer.iter().copied().filter(|name| !shorter.contains(name)).collect();
    match by_name.len() == longer.len() - shorter.len() {
        true => by_name,
        false => longer[shorter.len()..].to_vec(),
    }
}

/// The names as messages show them.
fn quote(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}
