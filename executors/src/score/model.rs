//! A trained model: what it computes, the names of its columns and what its result means.
//!
//! ```text
//!  ArrayRef (any number, boolean, known string; NULL) ──▶ f64, NaN ──Body──▶ margins ──Link──▶ predictions
//! ```

use std::fs::File;
use std::io::Read;
use std::path::Path;

use featurectl_core::{Error, ErrorKind, Result};

use super::forest::{Forest, Precision};
use super::{format, network};

/// No larger file is read: 1 GiB holds more than 10 million leaves.
pub(super) const MODEL_BYTES_MAX: u64 = 1 << 30;

/// What the margins stand for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Link {
    /// The value itself.
    Identity,
    /// The probability `1 / (1 + exp(-steepness * margin))`, of each output by itself.
    Sigmoid {
        /// What the margin is multiplied by, 1 in most models.
        steepness: f64,
    },
    /// Probabilities `exp(margin) / Σ exp(margin)`.
    Softmax,
    /// Like [`Softmax`](Self::Softmax), where a margin of 0 gives 0 (ONNX `SOFTMAX_ZERO`).
    SoftmaxZero,
    /// `exp(margin)`.
    Exp,
    /// `sign(margin) * margin²` (LightGBM's `reg_sqrt`).
    SignedSquare,
    /// `log(1 + exp(margin))` (LightGBM's `cross_entropy_lambda`).
    LogOnePlusExp,
    /// 1 if the margin is above 0, else 0 (XGBoost's `binary:hinge`).
    Hinge,
    /// The normal quantile of the margin (ONNX `PROBIT`).
    Probit,
    /// The number of the greatest margin (XGBoost's `multi:softmax`).
    Argmax,
}

/// A weighted sum of the features for each output.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// `weights[output][feature]`.
    pub weights: Vec<Vec<f64>>,
    /// One an output.
    pub bias: Vec<f64>,
    /// Values are rounded to this, and added in it.
    pub precision: Precision,
    /// Whether a missing value counts as 0 (XGBoost's `gblinear`), or makes the result NaN.
    pub missing_is_zero: bool,
}

/// A layer of a network.
#[derive(Debug, Clone, PartialEq)]
pub enum Layer {
    /// `y = x · weights + bias`; `weights` is `inputs × outputs`, row by row.
    Dense {
        /// How many values come in.
        inputs: usize,
        /// `inputs × outputs`.
        weights: Vec<f32>,
        /// One an output.
        bias: Vec<f32>,
    },
    /// `(x - offset) * scale`, each value by its own.
    Scale {
        /// One a value.
        offset: Vec<f32>,
        /// One a value.
        scale: Vec<f32>,
    },
    /// Each row divided by a norm of its own.
    Normalize(Norm),
    /// `max(x, 0)`.
    Relu,
    /// `x` or, below 0, `slope * x`.
    LeakyRelu {
        /// The slope below 0.
        slope: f32,
    },
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// Softmax of each row.
    Softmax,
}

/// By what a row is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// Its greatest absolute value.
    Max,
    /// The sum of its absolute values.
    L1,
    /// The root of the sum of its squares.
    L2,
}

/// What a model computes.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// A sum of trees, after some layers that change the features first (most models: none).
    Forest(Vec<Layer>, Forest),
    /// A weighted sum.
    Linear(Linear),
    /// Layers, one after the other, in 32-bit floats.
    Network(Vec<Layer>),
}

/// A model that can score.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// How jobs call it.
    pub name: String,
    /// Library, format and version, as `LightGBM text v4`.
    pub format: String,
    /// The objective, as the library calls it; empty if the file does not say.
    pub objective: String,
    /// The columns it takes, in order.
    pub features: Vec<String>,
    /// For each feature that was trained on strings, what stands for category 0, 1, …; empty: no feature was.
    pub categories: Vec<Option<Vec<String>>>,
    /// Names of the classes, if it tells classes apart and the file names them.
    pub classes: Vec<String>,
    /// What it computes.
    pub body: Body,
    /// What its margins stand for.
    pub link: Link,
}

impl Model {
    /// Reads and checks a model file of any format that is known; see [`format`].
    ///
    /// Errors: [`NotFound`](ErrorKind::NotFound) without the file, [`Data`](ErrorKind::Data) with the place if it is
    /// damaged, [`Invalid`](ErrorKind::Invalid) if it uses what the scorer does not support.
    pub fn load(name: &str, path: &Path) -> Result<Self> {
        let doing = || format!("loading model `{name}` from `{}`", path.display());
        let load = || {
            let file = File::open(path)?;
            format::load(name, &file).map_or_else(|| Self::from_bytes(name, &read(file)?), Ok)
        };
        load().map_err(|e: Error| e.context(doing()))
    }

    /// Like [`load`](Self::load), from the bytes of the file.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<Self> {
        format::parse(name, bytes)
    }

    /// The margins of one row, one an output, in the obvious way, which every kernel is held to. `row` has one value a
    /// feature, strings as the number of their category; NaN is missing.
    pub fn margins(&self, row: &[f64]) -> Vec<f64> {
        match &self.body {
            Body::Forest(before, forest) if before.is_empty() => forest.margins(row),
            Body::Forest(before, forest) => forest.margins(&network::run(before, row)),
            Body::Linear(linear) => linear.margins(row),
            Body::Network(layers) => network::run(layers, row),
        }
    }

    /// In what the library that trained it makes predictions of margins.
    pub(super) fn precision(&self) -> Precision {
        match &self.body {
            Body::Forest(_, forest) => forest.sum,
            Body::Linear(_) | Body::Network(_) => Precision::F64,
        }
    }

    /// The predictions of one row, in the obvious way; see [`margins`](Self::margins).
    pub fn predictions(&self, row: &[f64]) -> Vec<f64> {
        let mut values = self.margins(row);
        let count = self.link.apply(&mut values, self.precision());
        values.truncate(count);
        values
    }
}

impl Linear {
    /// The weighted sums of one row.
    pub(super) fn margins(&self, row: &[f64]) -> Vec<f64> {
        let known = |x: f64| if self.missing_is_zero && x.is_nan() { 0.0 } else { x };
        let one = |(weights, bias): (&Vec<f64>, &f64)| match self.precision {
            Precision::F64 => weights.iter().zip(row).fold(*bias, |sum, (w, x)| sum + w * known(*x)),
            Precision::F32 => {
                let term = |w: &f64, x: &f64| *w as f32 * known(*x) as f32;
                f64::from(weights.iter().zip(row).fold(*bias as f32, |sum, (w, x)| sum + term(w, x)))
            }
        };
        self.weights.iter().zip(&self.bias).map(one).collect()
    }
}

/// The bytes of a file of bearable size.
fn read(file: File) -> Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let mut bytes = Vec::with_capacity(length.min(MODEL_BYTES_MAX) as usize + 1);
    file.take(MODEL_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MODEL_BYTES_MAX {
        true => Err(Error::new(ErrorKind::Invalid, "the file is larger than 1 GiB: train fewer or smaller trees")),
        false => Ok(bytes),
    }
}
