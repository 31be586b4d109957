//! The aggregation functions by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit};
use datafusion::common::ScalarValue;

use super::bucketed::Bucketed;
use super::decayed::{Decayed, Of};
use super::distinct::Distinct;
use super::frequency::Frequency;
use super::moments::{Pair, Shape, Together, Variance};
use super::order::{Edge, Extreme};
use super::quantile::Percentile;
use super::ranked::{self, By, Ranked};
use super::retractable::Retractable;
use super::sum::{Avg, Count, CountIf, SumFloat, SumInt};
use super::vector::Vector;
use super::{Aggregator, aggregator};
use crate::definition::interval_micros;
use crate::{Error, Result, ordered};

/// One argument of a call, as the binder sees it.
#[derive(Debug, Clone)]
pub struct Arg {
    /// Its type.
    pub data_type: DataType,
    /// Its value, if it is a constant.
    pub literal: Option<ScalarValue>,
}

/// Binds a built-in function, which goes by several names.
type BuiltIn = fn(&'static str, &[Arg]) -> Result<Arc<dyn Aggregator>>;
type Bind = dyn Fn(&[Arg]) -> Result<Arc<dyn Aggregator>> + Send + Sync;

/// An aggregation function: a name, and how to bind it to the types of its arguments.
///
/// ```
/// use featurectl_core::aggregate::{AggregateFunction, Functions};
/// let functions = Functions::default();
/// assert!(functions.get("AVG").is_some());
/// ```
#[derive(Clone)]
pub struct AggregateFunction {
    name: String,
    bind: Arc<Bind>,
}

impl AggregateFunction {
    /// A function called `name` in SQL; `bind` checks the arguments and gives the aggregation.
    pub fn new(
        name: impl Into<String>,
        bind: impl Fn(&[Arg]) -> Result<Arc<dyn Aggregator>> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), bind: Arc::new(bind) }
    }

    /// Its name in SQL.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The aggregation for these arguments.
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid) if their number or types don't fit.
    pub fn bind(&self, args: &[Arg]) -> Result<Arc<dyn Aggregator>> {
        (self.bind)(args)
    }
}

impl fmt::Debug for AggregateFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AggregateFunction").field(&self.name).finish()
    }
}

/// A call's function and the arguments that it was bound to: what binds it again where only bytes arrive.
#[derive(Debug, Clone)]
pub struct Binding {
    /// The function's name.
    pub name: String,
    /// Its arguments, with the constants among them.
    pub args: Vec<Arg>,
    /// Whether its last column says which events are taken back.
    pub retractable: bool,
}

impl Binding {
    /// The aggregation.
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid) if `functions` has none of that name, or it does not take the
    /// arguments or take events back.
    pub fn bind(&self, functions: &Functions) -> Result<Arc<dyn Aggregator>> {
        let name = &self.name;
        let function = functions.get(name).ok_or_else(|| Error::invalid(format!("no aggregation `{name}`")))?;
        let bound = function.bind(&self.args)?;
        if self.retractable { retractable(name, bound) } else { Ok(bound) }
    }
}

/// All aggregation functions of a session, by lower-case name.
#[derive(Debug, Clone)]
pub struct Functions(BTreeMap<String, AggregateFunction>);

impl Functions {
    /// The function called `name`, in any case; `bucketed_` before the name of any function gives it by bucket.
    pub fn get(&self, name: &str) -> Option<AggregateFunction> {
        let name = name.to_lowercase();
        if let Some(function) = self.0.get(&name) {
            return Some(function.clone());
        }
        let inner = self.0.get(name.strip_prefix("bucketed_")?)?.clone();
        Some(AggregateFunction::new(name, move |args| bucketed(&inner, args)))
    }

    /// Adds a function, in place of one of the same name.
    pub fn insert(&mut self, function: AggregateFunction) {
        self.0.insert(function.name.to_lowercase(), function);
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl Default for Functions {
    fn default() -> Self {
        let mut all = Self(BTreeMap::new());
        let mut add = |names: &[&'static str], bind: BuiltIn| {
            for &name in names {
                all.insert(AggregateFunction::new(name, move |args| bind(name, args)));
            }
        };
        add(&["count"], |name, args| at_most(name, args, 1).map(|()| aggregator(Count)));
        add(&["sum"], sum);
        add(&["avg", "mean"], |name, args| numeric(name, args).map(|_| aggregator(Avg)));
        add(&["min"], |name, args| Ok(aggregator(Extreme { data_type: scalar(name, args)?, max: false })));
        add(&["max"], |name, args| Ok(aggregator(Extreme { data_type: scalar(name, args)?, max: true })));
        add(&["first_value"], |name, args| Ok(aggregator(Edge { data_type: scalar(name, args)?, last: false })));
        add(&["last_value"], |name, args| Ok(aggregator(Edge { data_type: scalar(name, args)?, last: true })));
        add(&["var", "var_samp", "var_sample", "var_pop", "var_population"], variance);
        add(&["stddev", "stddev_samp", "stddev_pop"], variance);
        add(&["count_if"], |name, args| boolean(name, args).map(|()| aggregator(CountIf)));
        add(&["bool_and", "bool_or"], |name, args| {
            boolean(name, args)?;
            Ok(aggregator(Extreme { data_type: DataType::Boolean, max: name == "bool_or" }))
        });
        add(&["skewness", "kurtosis"], |name, args| {
            numeric(name, args)?;
            Ok(aggregator(Shape { kurtosis: name == "kurtosis" }))
        });
        add(&["covar_pop", "covar_samp", "covar", "corr"], pair);
        add(&["first_k", "last_k", "top_k", "bottom_k", "array_agg", "array_agg_distinct", "count_distinct"], k_best);
        add(&["min_by", "max_by"], best_by);
        add(&["histogram"], |name, args| Ok(aggregator(Frequency { data_type: scalar(name, args)?, k: None })));
        add(&["top_frequency"], |name, args| {
            let (data_type, k) = value_and_k(name, args)?;
            Ok(aggregator(Frequency { data_type, k: Some(k) }))
        });
        add(&["approx_distinct"], |name, args| scalar(name, args).map(|_| aggregator(Distinct)));
        add(&["approx_percentile_cont"], percentile);
        add(&["decayed_sum", "decayed_count", "decayed_avg"], decayed);
        add(&["vector_sum", "vector_avg"], vector);
        all
    }
}

fn bucketed(inner: &AggregateFunction, args: &[Arg]) -> Result<Arc<dyn Aggregator>> {
    let Some((bucket, args)) = args.split_last().filter(|(bucket, _)| bucket.literal.is_none()) else {
        return Err(Error::invalid(format!("`bucketed_{}` takes the column to bucket by last", inner.name())));
    };
    let bucket = scalar("bucketed", std::slice::from_ref(bucket))?;
    Ok(aggregator(Bucketed { inner: inner.bind(args)?, bucket }))
}

/// `function` over events that can be taken back: where its last argument, a condition, is true.
///
/// Errors: [`Invalid`](crate::ErrorKind::Invalid) if events can't be taken back from it.
pub(super) fn retractable(name: &str, function: Arc<dyn Aggregator>) -> Result<Arc<dyn Aggregator>> {
    if function.invertible() {
        return Ok(aggregator(Retractable(function)));
    }
    Err(Error::invalid(format!("`{name}` can't take events back, as its view does with `retract`")))
}

fn at_most(name: &str, args: &[Arg], most: usize) -> Result<()> {
    match args.len() {
        n if n <= most => Ok(()),
        n => Err(Error::invalid(format!("`{name}` takes at most {most} argument{}, not {n}", plural(most)))),
    }
}

fn one<'a>(name: &str, args: &'a [Arg]) -> Result<&'a Arg> {
    match args {
        [arg] => Ok(arg),
        _ => Err(Error::invalid(format!("`{name}` takes 1 argument, not {}", args.len()))),
    }
}

fn numeric<'a>(name: &str, args: &'a [Arg]) -> Result<&'a DataType> {
    let data_type = &one(name, args)?.data_type;
    is_number(data_type).then_some(data_type).ok_or_else(|| not_numeric(name, data_type))
}

fn is_number(t: &DataType) -> bool {
    t.is_numeric() || t.is_null()
}

fn not_numeric(name: &str, t: &DataType) -> Error {
    Error::invalid(format!("`{name}` takes a number, not {t}"))
}

fn scalar(name: &str, args: &[Arg]) -> Result<DataType> {
    let arg = one(name, args)?;
    ordered::encode(&arrow::array::new_empty_array(&arg.data_type)).map_err(|e| e.context(format!("`{name}`")))?;
    Ok(arg.data_type.clone())
}

fn sum(name: &str, args: &[Arg]) -> Result<Arc<dyn Aggregator>> {
    Ok(match numeric(name, args)? {
        t if t.is_signed_integer() => aggregator(SumInt { unsigned: false }),
        t if t.is_unsigned_integer() => aggregator(SumInt { unsigned: true }),
        _ => aggregator(SumFloat),
    })
}

fn variance(name: &str, args: &[Arg]) -> Result<Arc<dyn Aggregator>> {
    numeric(name, args)?;
    let ddof = if name.contains("pop") { 0 } else { 1 };
    Ok(aggregator(Variance { ddof, root: name.starts_with("stddev") }))
}

fn percentile(name: &str, args: &[Arg]) -> Result<Arc<dyn Aggregator>> {
    let [value, q] = args else {
        return Err(Error::invalid(format!("`{name}` takes 2 arguments, (value, percentile), not {}", args.len())));
    };
    if !is_number(&value.data_type) {
        return Err(not_numeric(name, &value.data_type));
    }
    let q = q.literal.as_ref().and_then(|q| q.cast_to(&DataType::Float64).ok());
    match q {
        Some(ScalarValue::Float64(Some(q))) if (0.0..=1.0).contains(&q) => Ok(aggregator(Percentile { q })),
        _ => Err(Error::invalid(format!("the percentile of `{name}` is a constant between 0 and 1"))),
    }
}

fn decayed(name: &str, args: &[Arg]) -> Result<Arc<dyn Aggregator>> {
    let (value, half_life) = match args {
        [half_life] if name == "decayed_count" => (None, half_life),
        [value, half_life] => (Some(value), half_life),
        _ => return Err(Error::invalid(format!("`{name}` takes (value, half-life), not {} arguments", args.len()))),
    };
    let of = match name {
        "decayed_sum" => Of::Sum,
        "decayed_avg" => Of::Avg,
        _ => Of::Count,
    };
    if let Some(value) = value.filter(|v| of != Of::Count && !is_number(&v.data_type)) {
        return Err(not_numeric(name, &value.data_type));
    }
    let interval =
        half_life.literal.as_ref().and_then(|v| v.cast_to(&DataType::Interval(IntervalUnit::MonthDayNano)).ok());
    let Some(ScalarValue::IntervalMonthDayNano(Some(interval))) = interval else {
        return Err(Error::invalid(format!("the half-life of `{name}` is a constant like INTERVAL '7 days'")));
    };
    let half_life = interval_micros(interval).map_err(|e| e.context(format!("the half-life of `{name}`")))?;
    Ok(aggregator(Decayed { of, half_life, has_argument: value.is_some() }))
}

fn vector(name: &str, args: &[Arg]) -> Result<Arc<dyn Aggregator>> {
    use DataType as D;
    match &one(name, args)?.data_type {
        D::List(f) | D::LargeList(f) | D::FixedSizeList(f, _) if is_number(f.data_type()) => {
            Ok(aggregator(Vector { avg: name == "vector_avg" }))
        }
        other => Err(Error::invalid(format!("`{name}` takes a list of numbers, not {other}"))),
    }
}

fn boolean(name: &str, args: &[Arg]) -> Result<()> {
    match &one(name, args)?.data_type {
        DataType::Boolean => Ok(()),
        other => Err(Error::invalid(format!("`{name}` takes a condition, not {other}"))),
    }
}

fn pair(name: &str, args: &[Arg]) -> Result<Arc<dyn Aggregator>> {
    let [x, y] = args else {
        return Err(Error::invalid(format!("`{name}` takes 2 arguments, not {}", args.len())));
    };
    if let Some(arg) = [x, y].into_iter().find(|a| !is_number(&a.data_type)) {
        return Err(not_numeric(name, &arg.data_type));
    }
    not_constant(name, y)?;
    Ok(aggregator(Pair(match name {
        "corr" => Together::Corr,
        "covar_pop" => Together::CovarPop,
        _ => Together::CovarSamp,
    })))
}

/// The most that `first_k` and its like keep: a partial of more would not fit an online store.
const K_MAX: i64 = 10_000;

fn value_and_k(name: &str, args: &[Arg]) -> Result<(DataType, usize)> {
    let [value, k] = args else {
        return Err(Error::invalid(format!("`{name}` takes 2 arguments, (value, k), not {}", args.len())));
    };
    let whole = k.literal.as_ref().filter(|_| k.data_type.is_integer());
    match whole.and_then(|k| k.cast_to(&DataType::Int64).ok()) {
        Some(ScalarValue::Int64(Some(k))) if (1..=K_MAX).contains(&k) => {
            Ok((scalar(name, std::slice::from_ref(value))?, k as usize))
        }
        _ => Err(Error::invalid(format!("k of `{name}` is a constant between 1 and {K_MAX}"))),
    }
}

fn k_best(name: &str, args: &[Arg]) -> Result<Arc<dyn Aggregator>> {
    let (data_type, k) = value_and_k(name, args)?;
    let (by, descending, shape) = match name {
        "first_k" | "array_agg" => (By::Time, false, ranked::Shape::List),
        "last_k" => (By::Time, true, ranked::Shape::List),
        "top_k" => (By::Value, true, ranked::Shape::List),
        "bottom_k" => (By::Value, false, ranked::Shape::List),
        "array_agg_distinct" => (By::DistinctValue, false, ranked::Shape::List),
        _ => (By::DistinctValue, false, ranked::Shape::Count),
    };
    Ok(aggregator(Ranked { data_type, by, descending, k, shape }))
}

/// A constant is a parameter of a function, not a column of its events.
fn not_constant(name: &str, arg: &Arg) -> Result<()> {
    match &arg.literal {
        Some(value) => {
            Err(Error::invalid(format!("the second argument of `{name}` is a column, not the constant {value}")))
        }
        None => Ok(()),
    }
}

fn best_by(name: &str, args: &[Arg]) -> Result<Arc<dyn Aggregator>> {
    let [value, key] = args else {
        return Err(Error::invalid(format!("`{name}` takes 2 arguments, (value, by), not {}", args.len())));
    };
    scalar(name, std::slice::from_ref(key))?;
    not_constant(name, key)?;
    let data_type = scalar(name, std::slice::from_ref(value))?;
    let shape = ranked::Shape::First;
    Ok(aggregator(Ranked { data_type, by: By::Key, descending: name == "max_by", k: 1, shape }))
}

fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}
