//! Seeded data, written as Parquet.

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int32Array, RecordBatch};
use parquet::arrow::ArrowWriter;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

/// Numbers that look random and depend on the seed only (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// At least 0 and below 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Rows with a number per feature, `NaN` where it is missing.
pub struct Rows {
    pub names: Vec<String>,
    pub columns: Vec<Vec<f64>>,
    pub target: Vec<f64>,
}

impl Rows {
    /// `width` features (at least 3), of which the first three matter; one value in ten is missing. The first feature
    /// has whole numbers around 0, the second is wide in range, the last is constant where there are more than 3.
    pub fn generate(seed: u64, rows: usize, width: usize) -> Self {
        let mut random = Random(seed);
        let mut columns: Vec<Vec<f64>> =
            (0..width).map(|column| (0..rows).map(|_| value(&mut random, column)).collect()).collect();
        if width > 3 {
            columns[width - 1].fill(7.0);
        }
        let at = |column: usize, row: usize| if columns[column][row].is_nan() { 1.5 } else { columns[column][row] };
        let target = (0..rows)
            .map(|row| at(0, row) + 0.3 * at(1, row).abs().ln_1p() - 2.0 * at(2, row) + 3.0 * random.unit())
            .collect();
        Self { names: (0..width).map(|i| format!("f{i}")).collect(), columns, target }
    }

    /// Column after column.
    pub fn matrix(&self) -> Vec<f64> {
        self.columns.concat()
    }

    pub fn is_positive(&self, row: usize) -> bool {
        self.target[row] > 1.5
    }

    /// The names as the hyperparameter wants them.
    pub fn features(&self) -> String {
        format!("{:?}", self.names)
    }

    /// Writes the channel: the features, `late` (boolean) and `delay` (number). The first feature is an integer column.
    pub fn write(&self, base: &Path, channel: &str) {
        let late: BooleanArray = (0..self.target.len()).map(|row| Some(self.is_positive(row))).collect();
        self.write_with(base, channel, Arc::new(late));
    }

    /// The same with another `late`.
    pub fn write_with(&self, base: &Path, channel: &str, late: ArrayRef) {
        let mut columns: Vec<(&str, ArrayRef)> = Vec::new();
        for (i, (name, values)) in self.names.iter().zip(&self.columns).enumerate() {
            let present = values.iter().map(|x| (!x.is_nan()).then_some(*x));
            let array: ArrayRef = match i {
                0 => Arc::new(present.map(|x| x.map(|x| x as i32)).collect::<Int32Array>()),
                _ => Arc::new(present.collect::<Float64Array>()),
            };
            columns.push((name, array));
        }
        columns.push(("late", late));
        columns.push(("delay", Arc::new(Float64Array::from(self.target.clone()))));
        let dir = base.join("input/data").join(channel);
        fs::create_dir_all(&dir).unwrap();
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap();
        let file = File::create(dir.join("part-0.parquet")).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }
}

fn value(random: &mut Random, column: usize) -> f64 {
    let x = random.unit();
    match (random.unit() < 0.1, column) {
        (true, _) => f64::NAN,
        (_, 0) => (x * 5.0).floor() - 2.0,
        (_, 1) => (x - 0.5) * 1e6,
        _ => x,
    }
}
