//! What every fuzz target does with its bytes: load them as a model and, if they are one, score with it.
//!
//! The same function runs on mutated models in each run of the tests (`executors/tests/score/fuzz.rs`).

use featurectl_executors::score::{Body, Model, Scorer, Scratch};

/// Larger models are not compiled, since that would be most of the time.
const BYTES_MAX: usize = 1 << 17;

/// Panics where a model that loads gives no result, or where compiled code gives another one than the obvious walk.
pub fn check(bytes: &[u8]) {
    let Ok(model) = Model::from_bytes("m", bytes) else { return };
    let rows = [-1.0, 0.0, 3.0, 1e30, f64::NAN].map(|value| vec![value; model.features.len()]);
    let margins: Vec<Vec<f64>> = rows.iter().map(|row| model.margins(row)).collect();
    for (row, margins) in rows.iter().zip(&margins) {
        let predictions = model.predictions(row).len();
        assert!(predictions == margins.len() || predictions == 1, "{predictions} predictions of {}", margins.len());
    }
    if bytes.len() > BYTES_MAX || !matches!(model.body, Body::Forest(..)) {
        return;
    }
    let scorer = Scorer::new(model);
    let mut scratch = Scratch::default();
    for (row, expected) in rows.iter().zip(&margins) {
        let found = scorer.margins_of_row(row, &mut scratch);
        let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        assert!(found.iter().zip(expected).all(same), "{found:?} instead of {expected:?}");
    }
}
