//! From margins to predictions.

use std::f64::consts::SQRT_2;

use super::forest::Precision;
use super::model::Link;

impl Link {
    /// Makes predictions of the margins of one row, in place; says how many there are. Libraries that sum in 32 bits
    /// also link in them.
    pub fn apply(self, margins: &mut [f64], precision: Precision) -> usize {
        match self {
            _ if precision == Precision::F32 && self.in_f32(margins) => {}
            Self::Identity => {}
            Self::Sigmoid { steepness } => each(margins, |m| 1.0 / (1.0 + (-steepness * m).exp())),
            Self::Softmax => softmax(margins),
            Self::SoftmaxZero => softmax_zero(margins),
            Self::Exp => each(margins, f64::exp),
            Self::SignedSquare => each(margins, |m| m.signum() * m * m),
            Self::LogOnePlusExp => each(margins, |m| m.exp().ln_1p()),
            Self::Hinge => each(margins, |m| f64::from(m > 0.0)),
            Self::Probit => each(margins, |p| SQRT_2 * inverse_erf(2.0 * p - 1.0)),
            Self::Argmax => {
                margins[0] = argmax(margins) as f64;
                return 1;
            }
        }
        margins.len()
    }

    /// The links that XGBoost computes in 32 bits, as it does; false for the others.
    fn in_f32(self, margins: &mut [f64]) -> bool {
        let all = |margins: &mut [f64], f: &dyn Fn(f32) -> f32| each(margins, |m| f64::from(f(m as f32)));
        match self {
            // What keeps `exp` finite, and a sum from 0.
            Self::Sigmoid { steepness: 1.0 } => all(margins, &|m| 1.0 / ((-m).min(88.7).exp() + 1.0 + 1e-16)),
            Self::Exp => all(margins, &f32::exp),
            Self::Softmax => {
                let most = margins.iter().fold(f32::NEG_INFINITY, |most, m| most.max(*m as f32));
                all(margins, &|m| (m - most).exp());
                let sum = margins.iter().sum::<f64>() as f32;
                all(margins, &|m| m / sum);
            }
            _ => return false,
        }
        true
    }
}

fn each(margins: &mut [f64], f: impl Fn(f64) -> f64) {
    margins.iter_mut().for_each(|m| *m = f(*m));
}

fn softmax(margins: &mut [f64]) {
    let most = margins.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    each(margins, |m| (m - most).exp());
    let sum: f64 = margins.iter().sum();
    each(margins, |m| m / sum);
}

/// Margins within 1e-7 of zero stay out of the sum too, as in onnxruntime and ONNX's reference.
fn softmax_zero(margins: &mut [f64]) {
    let most = margins.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    each(margins, |m| if m.abs() <= 1e-7 { 0.0 } else { (m - most).exp() });
    let sum: f64 = margins.iter().sum();
    if sum != 0.0 {
        each(margins, |m| m / sum);
    }
}

/// The first of the greatest.
pub(super) fn argmax(margins: &[f64]) -> usize {
    let mut best = 0;
    for (number, margin) in margins.iter().enumerate().skip(1) {
        if *margin > margins[best] {
            best = number;
        }
    }
    best
}

/// Winitzki's approximation ("A handy approximation for the error function and its inverse", 2008), which is what ONNX
/// runtimes compute for `PROBIT`.
fn inverse_erf(x: f64) -> f64 {
    let sign = if x < 0.0 { -1.0 } else { 1.0 };
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let v = 2.0 / (std::f64::consts::PI * 0.147) + 0.5 * log;
    sign * (-v + (v * v - log / 0.147).sqrt()).sqrt()
}
