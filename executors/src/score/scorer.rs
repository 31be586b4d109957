//! A model that is ready to score: compiled once, used from any number of threads.
//!
//! ```text
//!  ArrayRef ──▶ Values: f32 or f64, NULL as NaN ──▶ blocks of rows (kernel) or single rows (row.rs) ──▶ margins ──▶ link
//! ```
//! Columns of floats without NULL are read where they are. Integers, booleans and decimals are cast, strings of a feature
//! that was trained on strings become the number of their category.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Float32Array, Float64Array, Int64Array, ListArray, PrimitiveArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type};
use featurectl_core::{Error, Result};

use super::contributions::contributions;
use super::forest::{Forest, Precision, Tree};
use super::kernel::{self, Arena, Column, Instructions};
use super::link::argmax;
use super::model::{Body, Layer, Linear, Link, Model};
use super::network;
use super::plan::{self, Plan};
use super::row::{Rows, Scratch};

/// Fewer rows than these are scored one by one: a block would mostly be padding.
const BLOCK_ROWS_MIN: usize = 48;

/// A compiled model.
#[derive(Debug)]
pub struct Scorer {
    model: Model,
    /// Places of the categories of features that were trained on strings.
    categories: Vec<Option<HashMap<String, usize>>>,
    plans: Vec<(Range<usize>, Option<Plan>)>,
    /// Made when the first row is scored alone.
    rows: OnceLock<Option<Rows>>,
    instructions: Instructions,
    arenas: Mutex<Vec<Arena>>,
}

/// The values of a feature, NULL as NaN.
#[derive(Debug)]
enum Values {
    F32(Float32Array),
    F64(Float64Array),
}

impl Values {
    fn column(&self) -> Column<'_> {
        match self {
            Self::F32(values) => Column::F32(values.values()),
            Self::F64(values) => Column::F64(values.values()),
        }
    }
}

impl Scorer {
    /// Compiles a model for the best instructions of this processor.
    pub fn new(model: Model) -> Self {
        Self::with_instructions(model, Instructions::best())
    }

    /// Compiles a model for some instructions; those that the processor lacks are replaced by plain code.
    pub fn with_instructions(model: Model, instructions: Instructions) -> Self {
        let plans = match &model.body {
            Body::Forest(_, forest) => plan::compile(forest),
            Body::Linear(_) | Body::Network(_) => vec![],
        };
        let places = |names: &Option<Vec<String>>| {
            names.as_ref().map(|n| n.iter().enumerate().map(|(place, name)| (name.clone(), place)).collect())
        };
        let categories = model.categories.iter().map(places).collect();
        Self { model, categories, plans, rows: OnceLock::new(), instructions, arenas: Mutex::default() }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What it runs on.
    pub fn instructions(&self) -> Instructions {
        self.instructions
    }

    /// The predictions of each row, output by output. `columns` are the features in order, of one length.
    ///
    /// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for a wrong number of columns, columns of different
    /// lengths, or one that is no number.
    pub fn predict(&self, columns: &[ArrayRef]) -> Result<Vec<Vec<f64>>> {
        let mut margins = self.margins(columns)?;
        if self.model.link == Link::Identity {
            return Ok(margins);
        }
        let mut row = vec![0.0; margins.len()];
        let mut outputs = margins.len();
        for at in 0..margins.first().map_or(0, Vec::len) {
            row.iter_mut().zip(&margins).for_each(|(to, of)| *to = of[at]);
            outputs = self.model.link.apply(&mut row, self.model.precision());
            margins.iter_mut().zip(&row).for_each(|(of, value)| of[at] = *value);
        }
        margins.truncate(outputs);
        Ok(margins)
    }

    /// The margins of each row, output by output; see [`predict`](Self::predict).
    pub fn margins(&self, columns: &[ArrayRef]) -> Result<Vec<Vec<f64>>> {
        let (rows, values) = self.all_values(columns)?;
        let columns: Vec<Column<'_>> = values.iter().map(Values::column).collect();
        Ok(match &self.model.body {
            Body::Forest(before, forest) if before.is_empty() => self.forest(forest, &columns, rows),
            Body::Forest(before, forest) => {
                let made = run_network(before, &columns, rows);
                let columns: Vec<_> = made.iter().map(|c| Column::F32(c)).collect();
                self.forest(forest, &columns, rows)
            }
            Body::Linear(linear) => linear.margins_of(&columns, rows),
            Body::Network(layers) => {
                let made = run_network(layers, &columns, rows);
                made.into_iter().map(|c| c.into_iter().map(f64::from).collect()).collect()
            }
        })
    }

    fn forest(&self, forest: &Forest, columns: &[Column<'_>], rows: usize) -> Vec<Vec<f64>> {
        if rows < BLOCK_ROWS_MIN {
            return self.single_rows(forest, columns, rows);
        }
        let mut arena = self.arenas.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let margins = kernel::margins(self.instructions, forest, &self.plans, columns, rows, &mut arena);
        self.arenas.lock().unwrap_or_else(PoisonError::into_inner).push(arena);
        margins.chunks(rows).map(<[f64]>::to_vec).collect()
    }

    fn single_rows(&self, forest: &Forest, columns: &[Column<'_>], rows: usize) -> Vec<Vec<f64>> {
        let mut margins = vec![Vec::with_capacity(rows); forest.outputs()];
        let mut scratch = Scratch::default();
        for at in 0..rows {
            let row: Vec<f64> = columns.iter().map(|c| c.value(at)).collect();
            let of_row = match self.rows(forest) {
                Some(rows) => rows.margins(forest, &row, &mut scratch),
                None => forest.margins(&row),
            };
            margins.iter_mut().zip(of_row).for_each(|(to, margin)| to.push(margin));
        }
        margins
    }

    /// The margins of one row, one an output; `row` has one value a feature, NaN where missing. `scratch` is kept by
    /// the caller from one row to the next. Panics if the row has another number of values.
    pub fn margins_of_row(&self, row: &[f64], scratch: &mut Scratch) -> Vec<f64> {
        if let Body::Forest(before, forest) = &self.model.body
            && before.is_empty()
            && let Some(rows) = self.rows(forest)
        {
            return rows.margins(forest, row, scratch);
        }
        self.model.margins(row)
    }

    /// What scores rows one by one, if the trees allow it.
    fn rows(&self, forest: &Forest) -> Option<&Rows> {
        self.rows.get_or_init(|| Rows::new(forest)).as_ref()
    }

    /// Made-up rows, to try the model on: values around those that its splits compare with.
    pub fn sample(&self, rows: usize) -> Vec<ArrayRef> {
        let mut of: Vec<Vec<f64>> = vec![vec![0.0]; self.model.features.len()];
        if let Body::Forest(before, forest) = &self.model.body
            && before.is_empty()
        {
            for split in forest.trees().iter().flat_map(|t| &t.splits) {
                of[split.feature as usize].extend(split.test.boundaries());
            }
        }
        // Knuth's multiplicative hash spreads the rows over the values.
        let value = |values: &[f64], row: usize| values[row.wrapping_mul(2_654_435_761) % (1 << 32) % values.len()];
        let column = |(feature, values): (usize, &Vec<f64>)| {
            let column = (0..rows).map(|row| value(values, row.wrapping_mul(31) + feature) as f32);
            Arc::new(Float32Array::from_iter_values(column)) as ArrayRef
        };
        of.iter().enumerate().map(column).collect()
    }

    /// How many margins a row has.
    pub fn outputs(&self) -> usize {
        match &self.model.body {
            Body::Forest(_, forest) => forest.outputs(),
            Body::Linear(linear) => linear.bias.len(),
            Body::Network(layers) => network::outputs(layers, self.model.features.len()),
        }
    }

    /// How many predictions a row has.
    pub fn predictions(&self) -> usize {
        if self.model.link == Link::Argmax { 1 } else { self.outputs() }
    }

    /// The most probable class of each row: of one output, whether its prediction is above a half.
    ///
    /// Errors: as those of [`predict`](Self::predict).
    pub fn classes(&self, columns: &[ArrayRef]) -> Result<Vec<usize>> {
        let predictions = self.predict(columns)?;
        let class = |row: usize| match predictions.as_slice() {
            [number] if self.model.link == Link::Argmax => number[row] as usize,
            [probability] => usize::from(probability[row] > 0.5),
            all => argmax(&all.iter().map(|of| of[row]).collect::<Vec<_>>()),
        };
        Ok((0..predictions.first().map_or(0, Vec::len)).map(class).collect())
    }

    /// The leaf of each row in each tree, as a list a row.
    ///
    /// Errors: those of [`predict`](Self::predict), and [`Invalid`](featurectl_core::ErrorKind::Invalid) for a model
    /// without trees.
    pub fn leaves(&self, columns: &[ArrayRef]) -> Result<ArrayRef> {
        let Body::Forest(before, forest) = &self.model.body else {
            return Err(Error::invalid(format!("model `{}` has no trees, and so no leaves", self.model.name)));
        };
        let leaf_of = |row: &[f64], tree: &Tree| tree.leaf(|f| forest.rounded(row[f as usize])) as i64;
        let mut found = Vec::new();
        let rows = self.each_row(columns, |row| {
            let row = if before.is_empty() { row.to_vec() } else { network::run(before, row) };
            found.extend(forest.trees().iter().map(|tree| leaf_of(&row, tree)));
            Ok(())
        })?;
        Ok(lists(DataType::Int64, Arc::new(Int64Array::from(found)), rows, forest.trees().len()))
    }

    /// What each feature contributes to the margins of each row, as a list a row: for each output one a feature, then the
    /// expected margin.
    ///
    /// Errors: those of [`predict`](Self::predict), and [`Invalid`](featurectl_core::ErrorKind::Invalid) for a model
    /// without trees, or whose file does not say how many rows went where.
    pub fn contributions(&self, columns: &[ArrayRef]) -> Result<ArrayRef> {
        let Body::Forest(before, forest) = &self.model.body else {
            return Err(Error::invalid(format!(
                "model `{}` has no trees: there are no contributions",
                self.model.name
            )));
        };
        if !before.is_empty() {
            return Err(Error::invalid(format!("model `{}` changes its features before its trees", self.model.name)));
        }
        let mut found = Vec::new();
        let rows = self.each_row(columns, |row| {
            found.extend(contributions(forest, row)?);
            Ok(())
        })?;
        let width = (forest.features() + 1) * forest.outputs();
        Ok(lists(DataType::Float64, Arc::new(Float64Array::from(found)), rows, width))
    }

    /// Calls `f` with each row; says how many there are.
    fn each_row(&self, columns: &[ArrayRef], mut f: impl FnMut(&[f64]) -> Result<()>) -> Result<usize> {
        let (rows, values) = self.all_values(columns)?;
        for at in 0..rows {
            f(&values.iter().map(|v| v.column().value(at)).collect::<Vec<_>>())?;
        }
        Ok(rows)
    }

    /// How many rows there are, and the values of all features.
    fn all_values(&self, columns: &[ArrayRef]) -> Result<(usize, Vec<Values>)> {
        let rows = self.check_shape(columns)?;
        let values = columns.iter().enumerate().map(|(feature, c)| self.values(feature, c));
        Ok((rows, values.collect::<Result<_>>()?))
    }

    /// Refuses a wrong number of columns and columns of different lengths.
    fn check_shape(&self, columns: &[ArrayRef]) -> Result<usize> {
        let (given, taken, name) = (columns.len(), self.model.features.len(), &self.model.name);
        if given != taken {
            let features = self.model.features.join(", ");
            return Err(Error::invalid(format!(
                "model `{name}` takes {taken} features, not {given}: give it ({features}) in this order"
            )));
        }
        if columns.windows(2).any(|pair| pair[0].len() != pair[1].len()) {
            return Err(Error::invalid(format!("the features of model `{name}` have different numbers of rows")));
        }
        Ok(columns.first().map_or(0, |c| c.len()))
    }

    /// The values of one feature.
    fn values(&self, feature: usize, column: &ArrayRef) -> Result<Values> {
        self.model.check_type(feature, column.data_type())?;
        if let Some(Some(places)) = self.categories.get(feature)
            && is_text(column.data_type())
        {
            let text = cast(column, &DataType::Utf8)?;
            // Text that was not seen in training is a category in no set.
            let of = |name: &str| places.get(name).map_or(-1.0, |p| *p as f64);
            let place = |name: Option<&str>| name.map_or(f64::NAN, of);
            return Ok(Values::F64(Float64Array::from_iter_values(text.as_string::<i32>().iter().map(place))));
        }
        let narrow = match (&self.model.body, column.data_type()) {
            (_, DataType::Float32 | DataType::Float16) => true,
            // A large integer is rounded once.
            (Body::Forest(_, forest), t) => forest.input == Precision::F32 && t.is_integer(),
            _ => false,
        };
        Ok(match narrow {
            true => Values::F32(known(cast(column, &DataType::Float32)?.as_primitive::<Float32Type>(), f32::NAN)),
            false => Values::F64(known(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>(), f64::NAN)),
        })
    }
}

/// NULL as NaN.
fn known<T: ArrowPrimitiveType>(values: &PrimitiveArray<T>, nan: T::Native) -> PrimitiveArray<T> {
    match values.null_count() {
        0 => values.clone(),
        _ => PrimitiveArray::from_iter_values(values.iter().map(|v| v.unwrap_or(nan))),
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_text(values),
        t => t.is_string(),
    }
}

/// What layers make of columns, which they take in 32 bits.
fn run_network(layers: &[Layer], columns: &[Column<'_>], rows: usize) -> Vec<Vec<f32>> {
    let narrow = |column: &Column<'_>| match column {
        Column::F32(values) => values.to_vec(),
        Column::F64(values) => values.iter().map(|v| *v as f32).collect(),
    };
    let columns: Vec<Vec<f32>> = columns.iter().map(narrow).collect();
    network::run_block(layers, &columns.iter().map(Vec::as_slice).collect::<Vec<_>>(), rows)
}

impl Model {
    /// Refuses a feature that is neither a number nor a boolean, nor text where it was trained on text.
    pub(super) fn check_type(&self, feature: usize, data_type: &DataType) -> Result<()> {
        let text = matches!(self.categories.get(feature), Some(Some(_)));
        check_type(&self.name, &self.features[feature], data_type, text)
    }
}

/// Refuses what is neither a number nor a boolean nor the literal NULL, nor, where that is taken, text.
pub(super) fn check_type(model: &str, feature: &str, data_type: &DataType, text: bool) -> Result<()> {
    match data_type {
        DataType::Boolean | DataType::Null => Ok(()),
        t if t.is_numeric() || text && is_text(t) => Ok(()),
        t => Err(Error::invalid(format!(
            "feature `{feature}` of model `{model}` is {t}, not a number or boolean: \
             cast it, as in `CAST({feature} AS DOUBLE)`"
        ))),
    }
}

impl Linear {
    /// The weighted sums of all rows, feature by feature.
    fn margins_of(&self, columns: &[Column<'_>], rows: usize) -> Vec<Vec<f64>> {
        let mut row = vec![0.0; columns.len()];
        let mut margins = vec![Vec::with_capacity(rows); self.bias.len()];
        for at in 0..rows {
            row.iter_mut().zip(columns).for_each(|(to, column)| *to = column.value(at));
            let of_row = self.margins(&row);
            margins.iter_mut().zip(of_row).for_each(|(to, margin)| to.push(margin));
        }
        margins
    }
}

/// Outputs as SQL gives them: one as numbers, several as a list a row.
pub(super) fn array(mut outputs: Vec<Vec<f64>>) -> ArrayRef {
    if outputs.len() == 1 {
        return Arc::new(Float64Array::from(outputs.swap_remove(0)));
    }
    let rows = outputs.first().map_or(0, Vec::len);
    let flat = (0..rows).flat_map(|row| outputs.iter().map(move |of| of[row])).collect::<Vec<_>>();
    lists(DataType::Float64, Arc::new(Float64Array::from(flat)), rows, outputs.len())
}

/// A list of `width` values for each row.
fn lists(data_type: DataType, values: ArrayRef, rows: usize, width: usize) -> ArrayRef {
    let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(width, rows));
    Arc::new(ListArray::new(Arc::new(Field::new_list_field(data_type, true)), offsets, values, None))
}
