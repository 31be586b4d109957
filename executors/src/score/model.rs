//! A trained model: a forest, the names of its columns and what its sum means.
//!
//! ```text
//!  ArrayRef (any number or boolean, NULL) ──cast──▶ f64, NaN ──Forest::raw──▶ sum ──Objective──▶ Float64Array
//! ```

use std::fs::File;
use std::io::Read;
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use featurectl_core::{Error, ErrorKind, Result};

use super::forest::Forest;
use super::lightgbm;

/// No larger file is read: 1 GiB holds more than 10 million leaves.
const MODEL_BYTES_MAX: u64 = 1 << 30;

/// What the sum over the trees stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Objective {
    /// A log-odds divided by `sigmoid`; predicted as the probability `1 / (1 + exp(-sigmoid * sum))`.
    Binary {
        /// The steepness the model was trained with, 1 unless chosen.
        sigmoid: f64,
    },
    /// The value itself.
    Regression,
}

impl Objective {
    /// The prediction for a sum of leaves.
    pub fn output(&self, raw: f64) -> f64 {
        match self {
            Self::Binary { sigmoid } => 1.0 / (1.0 + (-sigmoid * raw).exp()),
            Self::Regression => raw,
        }
    }
}

/// A model that can score.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// How jobs call it.
    pub name: String,
    /// The columns it takes, in order.
    pub features: Vec<String>,
    /// What its sum stands for.
    pub objective: Objective,
    /// Its trees.
    pub forest: Forest,
    /// Whether the sum is divided by the number of trees, as random forests do.
    pub average: bool,
}

impl Model {
    /// Reads and checks a model that LightGBM saved as text.
    ///
    /// Errors: [`NotFound`](ErrorKind::NotFound) without the file, [`Data`](ErrorKind::Data) with the line and tree if
    /// it is damaged, [`Invalid`](ErrorKind::Invalid) if it uses what the scorer does not support.
    pub fn load(name: &str, path: &Path) -> Result<Self> {
        let doing = || format!("loading model `{name}` from `{}`", path.display());
        let bytes = read(path).map_err(|e| e.context(doing()))?;
        Self::from_bytes(name, &bytes).map_err(|e| e.context(doing()))
    }

    /// Like [`load`](Self::load), from the bytes of the file.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|e| {
            Error::data(format!("byte {} is not UTF-8 text: save the model again", e.valid_up_to())).with_source(e)
        })?;
        lightgbm::parse(name, text)
    }

    /// One prediction per row; `columns` are the features in order, of one length. NULL is a missing value.
    ///
    /// Errors: [`Invalid`](ErrorKind::Invalid) for a wrong number of columns, columns of different lengths, or one that
    /// is neither a number nor a boolean.
    pub fn predict(&self, columns: &[ArrayRef]) -> Result<Float64Array> {
        self.check_shape(columns)?;
        let columns: Vec<Vec<f64>> =
            self.features.iter().zip(columns).map(|(name, c)| self.to_f64(name, c)).collect::<Result<_>>()?;
        let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let divisor = if self.average { self.forest.trees() as f64 } else { 1.0 };
        let predictions = self.forest.raw(&columns).into_iter().map(|raw| self.objective.output(raw / divisor));
        Ok(Float64Array::from_iter_values(predictions))
    }

    /// Refuses a wrong number of columns and columns of different lengths.
    fn check_shape(&self, columns: &[ArrayRef]) -> Result<()> {
        let (given, taken) = (columns.len(), self.features.len());
        if given != taken {
            let features = self.features.join(", ");
            return Err(Error::invalid(format!(
                "model `{}` takes {taken} features, not {given}: give it ({features}) in this order",
                self.name
            )));
        }
        if columns.windows(2).any(|pair| pair[0].len() != pair[1].len()) {
            return Err(Error::invalid(format!(
                "the features of model `{}` have different numbers of rows",
                self.name
            )));
        }
        Ok(())
    }

    /// The values of one feature, NaN where they are NULL.
    fn to_f64(&self, feature: &str, column: &ArrayRef) -> Result<Vec<f64>> {
        check_type(&self.name, feature, column.data_type())?;
        let column = cast(column, &DataType::Float64)?;
        let column = column.as_primitive::<Float64Type>();
        Ok(match column.null_count() {
            0 => column.values().to_vec(),
            _ => column.iter().map(|value| value.unwrap_or(f64::NAN)).collect(),
        })
    }
}

/// Refuses a feature that is neither a number nor a boolean nor the literal NULL.
pub(super) fn check_type(model: &str, feature: &str, data_type: &DataType) -> Result<()> {
    match data_type {
        DataType::Boolean | DataType::Null => Ok(()),
        t if t.is_numeric() => Ok(()),
        t => Err(Error::invalid(format!(
            "feature `{feature}` of model `{model}` is {t}, not a number or boolean: \
             cast it, as in `CAST({feature} AS DOUBLE)`"
        ))),
    }
}

/// The bytes of a file of bearable size.
fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MODEL_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MODEL_BYTES_MAX {
        true => Err(Error::new(ErrorKind::Invalid, "the file is larger than 1 GiB: train fewer or smaller trees")),
        false => Ok(bytes),
    }
}
