//! `predict('model', feature, …)` in SQL.
//!
//! A job may use a model that it trains itself further up. Such a model is *declared* while the job is planned, which
//! is enough to check the call, and *inserted* once it is trained, which is needed to run it.
//!
//! ```text
//!  CREATE MODEL m …          SELECT predict('m', a, b) FROM t
//!       │ declare(m, [a, b])       │ plan: is `m` known? as many features, all numbers?
//!       ▼                          ▼
//!    ModelSet { m: [a, b], no model ──insert──▶ model }
//!                                  │ run: every batch ──▶ Model::predict ──▶ Float64
//! ```

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use featurectl_core::{Error, Result, closest};

use super::model::{Model, check_type};

/// The models that queries may name, shared by every session of a process.
#[derive(Debug, Default)]
pub struct ModelSet(RwLock<HashMap<String, Entry>>);

/// A model's signature and, once it is trained, the model.
#[derive(Debug)]
struct Entry {
    features: Vec<String>,
    model: Option<Arc<Model>>,
}

impl ModelSet {
    /// Makes a model known before it is trained. One that is trained on the same features stays as it is; one on other
    /// features has to be trained again.
    pub fn declare(&self, name: impl Into<String>, features: Vec<String>) {
        let name = name.into();
        let mut entries = self.write();
        if entries.get(&name).is_none_or(|known| known.features != features) {
            entries.insert(name, Entry { features, model: None });
        }
    }

    /// Makes a trained model usable under its own name, in place of an earlier one.
    ///
    /// Errors: [`Conflict`](featurectl_core::ErrorKind::Conflict) if it was declared with other features or in another
    /// order, since queries give them by place.
    pub fn insert(&self, model: Arc<Model>) -> Result<()> {
        let mut entries = self.write();
        let features = match entries.get(&model.name) {
            Some(known) if !same_features(&known.features, &model.features) => return Err(conflict(known, &model)),
            Some(known) => known.features.clone(),
            None => model.features.clone(),
        };
        entries.insert(model.name.clone(), Entry { features, model: Some(model) });
        Ok(())
    }

    /// The trained model of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Model>> {
        self.read().get(name)?.model.clone()
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
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Like [`read`](Self::read), to change them.
    fn write(&self) -> RwLockWriteGuard<'_, HashMap<String, Entry>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
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

/// The function `predict(model, feature, …)`, which finds its models in `models`.
pub fn predict_udf(models: Arc<ModelSet>) -> ScalarUDF {
    // Not immutable: another query may meet a newer model. User-defined only to say what is wrong with `predict()`.
    let signature = Signature::user_defined(Volatility::Stable);
    ScalarUDF::new_from_impl(Predict { models, signature })
}

/// See [`predict_udf`].
#[derive(Debug)]
struct Predict {
    models: Arc<ModelSet>,
    signature: Signature,
}

impl PartialEq for Predict {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.models, &other.models)
    }
}

impl Eq for Predict {}

impl Hash for Predict {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.models).hash(state);
    }
}

impl ScalarUDFImpl for Predict {
    fn name(&self) -> &str {
        "predict"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Float64)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        let name = model_name(args.scalar_arguments.first().copied().flatten())?;
        let features = self.models.features(name).ok_or_else(|| self.unknown(name))?;
        let given = &args.arg_fields[1..];
        if given.len() != features.len() {
            return Err(wrong_count(name, &features, given).into());
        }
        for (feature, field) in features.iter().zip(given) {
            check_type(name, feature, field.data_type())?;
        }
        Ok(Arc::new(Field::new(self.name(), DataType::Float64, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let name = match args.args.first() {
            Some(ColumnarValue::Scalar(name)) => model_name(Some(name))?,
            _ => model_name(None)?,
        };
        let model = self.models.get(name).ok_or_else(|| self.unusable(name))?;
        let features = &args.args[1..];
        let constant = features.iter().all(|f| matches!(f, ColumnarValue::Scalar(_)));
        let predictions = model.predict(&ColumnarValue::values_to_arrays(features)?)?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&predictions, 0)?),
            false => ColumnarValue::Array(Arc::new(predictions)),
        })
    }
}

impl Predict {
    /// No model has this name.
    fn unknown(&self, name: &str) -> Error {
        let hint = match closest(name, self.models.names()) {
            Some(other) => format!("did you mean `{other}`?"),
            None => "declare it with CREATE MODEL".to_string(),
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
