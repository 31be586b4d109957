//! What a chain of operators comes to: layers, at most one ensemble or linear model, and what the result stands for.
//!
//! ```text
//!  Scaler, TreeEnsembleRegressor, Exp     ──▶  before [Scale]       core Forest    link Exp
//!  LinearClassifier (LOGISTIC)            ──▶  before []            core Linear    link Sigmoid
//!  MatMul, Add, Relu, Gemm, Softmax       ──▶  before [Dense, Relu, Dense]         link Softmax
//! ```
//!
//! A sigmoid or softmax at the end is the link; if another operator follows, it becomes a layer after all.

use featurectl_core::{Error, Result};

use super::graph::{Constants, Step};
use super::message::{Node, Tensor, kind};
use super::{damaged, ensemble, is_float};
use crate::score::forest::{Forest, Precision};
use crate::score::model::{Body, Layer, Linear, Link, Norm};

/// What the operators so far compute.
pub(super) struct Built {
    /// How many values a row has after them, if it is known.
    width: Option<usize>,
    /// Whether these are of 64 bits.
    double: bool,
    /// Whether they have been rounded to 32 bits, whatever they are now.
    rounded: bool,
    /// Whether layers may round otherwise than a runtime, which trees would show.
    rough: bool,
    before: Vec<Layer>,
    core: Option<Core>,
    link: Link,
    /// How many values a row has before all operators, if it is known.
    features: Option<usize>,
    /// The names of the classes.
    pub(super) classes: Vec<String>,
}

/// The part of a model that is not layers.
enum Core {
    Forest(Forest),
    Linear(Linear),
}

/// An error about what the scorer does not do.
fn unsupported(what: impl std::fmt::Display, instead: &str) -> Error {
    Error::invalid(format!("{what} cannot be scored here: {instead}"))
}

/// An error about a number of columns that is not to be found.
fn unknown_width() -> Error {
    Error::invalid("how many columns there are is not in the file: export the model with the shape of its input")
}

impl Built {
    /// Nothing yet: rows of `width` values.
    pub(super) fn new(width: Option<usize>, double: bool) -> Self {
        Self {
            width,
            double,
            rounded: !double,
            rough: false,
            before: Vec::new(),
            core: None,
            link: Link::Identity,
            features: width,
            classes: Vec::new(),
        }
    }

    /// Adds an operator.
    pub(super) fn push(&mut self, step: &Step, constants: &Constants) -> Result<()> {
        let node = step.node;
        match node.op_type.as_str() {
            "Identity" | "ZipMap" | "Dropout" => Ok(()),
            "Reshape" | "Flatten" => self.reshape(node),
            "Cast" if is_float(node) => {
                self.double = node.int("to") == Some(i64::from(kind::DOUBLE));
                self.rounded |= !self.double;
                Ok(())
            }
            "Cast" if self.link == Link::Argmax => Ok(()),
            "Cast" => Err(unsupported("a cast to whole numbers or text", "export the model with float inputs")),
            "TreeEnsemble" | "TreeEnsembleRegressor" | "TreeEnsembleClassifier" => self.trees(node),
            "LinearRegressor" | "LinearClassifier" => self.linear(node),
            "Scaler" => self.scaler(node),
            "Normalizer" => self.normalizer(node),
            "MatMul" | "Gemm" => self.dense(step, constants),
            "Add" | "Sub" | "Mul" | "Div" => self.arithmetic(step, constants),
            "Relu" => self.layer(Layer::Relu),
            "LeakyRelu" => self.layer(Layer::LeakyRelu { slope: node.float("alpha").unwrap_or(0.01) }),
            "Tanh" => self.layer(Layer::Tanh),
            "Sigmoid" => self.link(Link::Sigmoid { steepness: 1.0 }),
            "Softmax" => self.softmax(node),
            "Exp" => self.link(Link::Exp),
            "ArgMax" => self.argmax(node),
            other => Err(unsupported(format_args!("the operator `{other}`"), "compute its result in SQL before")),
        }
    }

    /// What all operators come to, and how many columns they take.
    pub(super) fn finish(self) -> Result<(Body, Link, usize)> {
        let body = match self.core {
            Some(Core::Forest(forest)) => Body::Forest(self.before, forest),
            Some(Core::Linear(linear)) => Body::Linear(linear),
            None if self.before.is_empty() => {
                return Err(Error::invalid(
                    "a graph without a model in it cannot be scored here: export the model itself",
                ));
            }
            None => Body::Network(self.before),
        };
        let features = self.features.ok_or_else(unknown_width)?;
        Ok((body, self.link, features))
    }

    /// Notes how many values a row has; an error if it has another number.
    fn expect_width(&mut self, width: usize, what: &str) -> Result<()> {
        match self.width {
            Some(known) if known != width => {
                Err(damaged(format_args!("`{what}` takes {width} values, but there are {known}")))
            }
            _ => {
                self.width = Some(width);
                // Layers without a width of their own keep that of the input.
                self.features.get_or_insert(width);
                Ok(())
            }
        }
    }

    /// How many values a row has, where an operator comes with `count`, or with one for all.
    fn at_least(&mut self, count: usize, what: &str) -> Result<usize> {
        if count > 1 {
            self.expect_width(count, what)?;
        }
        self.width.ok_or_else(unknown_width)
    }

    /// A shape that leaves each row's values in their order.
    fn reshape(&self, node: &Node) -> Result<()> {
        match node.op_type == "Flatten" && !matches!(node.int("axis"), None | Some(1 | -1)) {
            true => Err(unsupported("`Flatten` of another axis", "export the model with one row a row")),
            false => Ok(()),
        }
    }

    /// Adds a layer that keeps the shape.
    fn layer(&mut self, layer: Layer) -> Result<()> {
        self.open()?;
        self.before.push(layer);
        Ok(())
    }

    /// Makes layers of what is at the end, so that others can follow.
    fn open(&mut self) -> Result<()> {
        match self.core.take() {
            Some(Core::Forest(_)) => {
                return Err(unsupported("a graph that goes on behind its trees", "compute what follows in SQL"));
            }
            Some(Core::Linear(linear)) => self.before.push(dense(&linear)),
            None => {}
        }
        match std::mem::replace(&mut self.link, Link::Identity) {
            Link::Identity => Ok(()),
            Link::Sigmoid { .. } => {
                self.before.push(Layer::Sigmoid);
                Ok(())
            }
            Link::Softmax => {
                self.before.push(Layer::Softmax);
                Ok(())
            }
            other => Err(unsupported(format_args!("a graph that goes on behind {other:?}"), "compute the rest in SQL")),
        }
    }

    /// Notes what the result stands for.
    fn link(&mut self, link: Link) -> Result<()> {
        if self.link != Link::Identity && link != Link::Identity {
            self.open()?;
        }
        if link != Link::Identity {
            self.link = link;
        }
        Ok(())
    }

    /// A softmax of each row.
    fn softmax(&mut self, node: &Node) -> Result<()> {
        match node.int("axis") {
            None | Some(1 | -1) => self.link(Link::Softmax),
            Some(axis) => Err(unsupported(format_args!("a softmax of axis {axis}"), "export it with axis 1")),
        }
    }

    /// The number of the greatest score.
    fn argmax(&mut self, node: &Node) -> Result<()> {
        let plain = matches!(node.int("axis"), Some(1 | -1)) && node.int("select_last_index").unwrap_or(0) == 0;
        match self.link {
            // These keep the greatest the greatest.
            Link::Identity | Link::Sigmoid { .. } | Link::Softmax if plain => {
                self.link = Link::Argmax;
                Ok(())
            }
            _ => Err(unsupported("this `ArgMax`", "export the model with its probabilities")),
        }
    }

    /// A tree operator.
    fn trees(&mut self, node: &Node) -> Result<()> {
        if self.core.is_some() || self.link != Link::Identity {
            return Err(unsupported("trees behind another model", "export one model a file"));
        }
        if self.rough {
            return Err(unsupported("trees behind a division or 64-bit scaling", "scale the features in SQL"));
        }
        let ensemble::Ensemble { mut forest, link, classes } = ensemble::read(node, self.width, self.double)?;
        forest.input = if self.rounded { Precision::F32 } else { Precision::F64 };
        self.features.get_or_insert(forest.features());
        self.width = Some(forest.outputs());
        self.core = Some(Core::Forest(forest));
        self.classes = classes;
        self.link(link)
    }

    /// A weighted sum for each target or class. Runtimes compute it in 32-bit floats.
    fn linear(&mut self, node: &Node) -> Result<()> {
        self.open()?;
        let (given, mut bias) = (node.floats("coefficients"), numbers(node.floats("intercepts")));
        self.classes = ensemble::labels(node);
        let rows = match node.op_type.as_str() {
            "LinearClassifier" if bias.is_empty() => self.classes.len(),
            "LinearClassifier" => bias.len(),
            _ => usize::try_from(node.int("targets").unwrap_or(1)).unwrap_or(0),
        };
        if rows == 0 || given.is_empty() || given.len() % rows != 0 || !(bias.is_empty() || bias.len() == rows) {
            let (coefficients, intercepts) = (given.len(), bias.len());
            return Err(damaged(format_args!(
                "`{}` has {coefficients} coefficients and {intercepts} intercepts for {rows} outputs",
                node.op_type
            )));
        }
        if given.iter().any(|w| !w.is_finite()) || bias.iter().any(|b| !b.is_finite()) {
            return Err(damaged("a coefficient is not a finite number"));
        }
        bias.resize(rows, 0.0);
        self.expect_width(given.len() / rows, &node.op_type)?;
        let mut weights: Vec<Vec<f64>> = given.chunks(given.len() / rows).map(numbers).collect();
        let mirrored = self.classes.len() == 2 && second_class(&mut weights, &mut bias);
        self.width = Some(weights.len());
        let linear = Linear { weights, bias, precision: Precision::F32, missing_is_zero: false };
        match self.before.is_empty() {
            true => self.core = Some(Core::Linear(linear)),
            false => self.before.push(dense(&linear)),
        }
        match ensemble::post_transform(node.text("post_transform"), mirrored)? {
            link if link == Link::Identity || node.op_type == "LinearClassifier" => self.link(link),
            // onnxruntime leaves it out.
            _ => Err(unsupported("a `post_transform` of a linear regression", "export with `NONE`")),
        }
    }

    /// `(x - offset) * scale`.
    fn scaler(&mut self, node: &Node) -> Result<()> {
        self.open()?;
        let (offset, scale) = (node.floats("offset"), node.floats("scale"));
        let width = self.at_least(offset.len().max(scale.len()), "Scaler")?;
        // Runtimes compute it in 64 bits if the values have them.
        self.rough |= self.double && !self.rounded;
        (self.double, self.rounded) = (false, true);
        let (offset, scale) = (spread(offset, width, "Scaler")?, spread(scale, width, "Scaler")?);
        self.layer(Layer::Scale { offset, scale })
    }

    /// Each row divided by its norm. The maximum is that of absolute values, as in ONNX's reference and scikit-learn;
    /// onnxruntime takes the sign along.
    fn normalizer(&mut self, node: &Node) -> Result<()> {
        let norm = match node.text("norm") {
            "" | "MAX" => Norm::Max,
            "L1" => Norm::L1,
            "L2" => Norm::L2,
            other => return Err(unsupported(format_args!("the norm `{other}`"), "use `L1` or `L2`")),
        };
        // Probabilities already add up to 1.
        if self.link == Link::Softmax && norm == Norm::L1 {
            return Ok(());
        }
        self.rough |= self.double && !self.rounded;
        (self.double, self.rounded) = (false, true);
        self.layer(Layer::Normalize(norm))
    }

    /// `MatMul` by constant weights, or `Gemm`.
    fn dense(&mut self, step: &Step, constants: &Constants) -> Result<()> {
        self.open()?;
        let node = step.node;
        let constant = |place: usize| node.input.get(place).and_then(|name| constants.get(name));
        let tensor = match (step.input, constant(1)) {
            (0, Some(tensor)) => tensor,
            _ => {
                return Err(unsupported(
                    format_args!("a `{}` of other than rows", node.op_type),
                    "export weights last",
                ));
            }
        };
        let (weights, [inputs, outputs]) = matrix(tensor)?;
        let (mut weights, mut inputs, mut outputs) = (weights, inputs, outputs);
        if node.int("transA").unwrap_or(0) != 0 {
            return Err(unsupported("a `Gemm` of columns", "export the model with one row a row"));
        }
        if node.int("transB").unwrap_or(0) != 0 {
            weights = transposed(&weights, outputs);
            std::mem::swap(&mut inputs, &mut outputs);
        }
        self.expect_width(inputs, &node.op_type)?;
        let alpha = node.float("alpha").unwrap_or(1.0);
        weights.iter_mut().for_each(|w| *w *= alpha);
        let bias = match constant(2) {
            Some(bias) => {
                let beta = node.float("beta").unwrap_or(1.0);
                spread(&floats(bias)?, outputs, "Gemm")?.into_iter().map(|b| b * beta).collect()
            }
            None => vec![0.0; outputs],
        };
        self.width = Some(outputs);
        self.layer(Layer::Dense { inputs, weights, bias })
    }

    /// `Add`, `Sub`, `Mul` or `Div` of a constant.
    fn arithmetic(&mut self, step: &Step, constants: &Constants) -> Result<()> {
        let node = step.node;
        let op = node.op_type.as_str();
        let other = node.input.get(1 - step.input.min(1)).and_then(|name| constants.get(name));
        let given = floats(other.ok_or_else(|| damaged(format_args!("`{op}` has one operand")))?)?;
        let first = step.input == 0;
        let neutral = if matches!(op, "Add" | "Sub") { 0.0 } else { 1.0 };
        // Converters like to multiply by 1.
        if given == [neutral] && (first || matches!(op, "Add" | "Mul")) {
            return Ok(());
        }
        let width = self.at_least(given.len(), op)?;
        let values = spread(&given, width, op)?;
        if let Some(Core::Forest(forest)) = &mut self.core {
            return behind_trees(forest, self.link, op, first, &values);
        }
        self.open()?;
        if let (Some(Layer::Dense { bias, .. }), "Add") = (self.before.last_mut(), op)
            && bias.iter().all(|b| *b == 0.0)
        {
            *bias = values;
            return Ok(());
        }
        let (zeros, ones) = (vec![0.0; width], vec![1.0; width]);
        let (offset, scale) = match (op, first) {
            ("Add", _) => (values.iter().map(|b| -b).collect(), ones),
            ("Sub", true) => (values, ones),
            ("Sub", false) => (values, vec![-1.0; width]),
            ("Mul", _) => (zeros, values),
            ("Div", true) if values.iter().all(|value| *value != 0.0) => {
                self.rough = true;
                (zeros, values.iter().map(|value| 1.0 / value).collect())
            }
            _ => return Err(unsupported("a division by values of the row, or by 0", "compute it in SQL")),
        };
        self.before.push(Layer::Scale { offset, scale });
        Ok(())
    }
}

/// Does arithmetic to sums of trees; `first`: they are the first operand.
fn behind_trees(forest: &mut Forest, link: Link, op: &str, first: bool, values: &[f32]) -> Result<()> {
    let refuse = || Err(unsupported(format_args!("this `{op}` behind trees"), "compute it in SQL"));
    let values: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
    let Some(factor) = values.first().copied() else { return refuse() };
    let same = values.iter().all(|value| *value == factor);
    forest.bias.resize(values.len(), 0.0);
    let bias = forest.bias.iter_mut().zip(&values);
    match (link, op, first) {
        (Link::Identity, "Add", _) => bias.for_each(|(bias, value)| *bias += value),
        (Link::Identity, "Sub", true) => bias.for_each(|(bias, value)| *bias -= value),
        (Link::Identity, "Sub", false) => {
            bias.for_each(|(bias, value)| *bias = value - *bias);
            forest.scale = -forest.scale;
        }
        (Link::Identity, "Mul", _) if same => {
            bias.for_each(|(bias, value)| *bias *= value);
            forest.scale *= factor;
        }
        (Link::Identity, "Div", true) if same && factor != 0.0 => {
            bias.for_each(|(bias, value)| *bias /= value);
            forest.divide *= factor;
        }
        // c exp(x) is exp(x + ln c).
        (Link::Exp, "Mul", _) if values.iter().all(|value| *value > 0.0) => {
            bias.for_each(|(bias, value)| *bias += value.ln());
        }
        _ => return refuse(),
    }
    Ok(())
}

/// Leaves only the second of two outputs where the first is its negative, as classifiers of two classes have them; true
/// also if there was one output to begin with.
fn second_class(weights: &mut Vec<Vec<f64>>, bias: &mut Vec<f64>) -> bool {
    let negative = match (weights.as_slice(), bias.as_slice()) {
        ([_], [_]) => return true,
        ([w0, w1], [b0, b1]) => *b0 == -b1 && w0.iter().zip(w1).all(|(w0, w1)| *w0 == -w1),
        _ => false,
    };
    if negative {
        weights.remove(0);
        bias.remove(0);
    }
    negative
}

/// A weighted sum as a layer.
fn dense(linear: &Linear) -> Layer {
    let inputs = linear.weights.first().map_or(0, Vec::len);
    let weights = (0..inputs).flat_map(|input| linear.weights.iter().map(move |row| row[input] as f32)).collect();
    Layer::Dense { inputs, weights, bias: linear.bias.iter().map(|b| *b as f32).collect() }
}

/// 32-bit floats as 64-bit ones.
fn numbers(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

/// The values of a constant of 32-bit floats that is the same for every row.
fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    let dims = tensor.dims.as_slice();
    if dims.len() > 1 && dims[..dims.len() - 1].iter().any(|dim| *dim != 1) {
        return Err(unsupported(format_args!("a constant of the shape {dims:?}"), "export one value a column"));
    }
    checked(tensor)
}

/// The values of a tensor of 32-bit floats, all finite.
fn checked(tensor: &Tensor) -> Result<Vec<f32>> {
    if tensor.data_type == kind::DOUBLE {
        return Err(unsupported("arithmetic in 64-bit floats", "export the model with 32-bit inputs"));
    }
    let values: Vec<f32> = tensor.numbers()?.into_iter().map(|value| value as f32).collect();
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(values),
        false => Err(damaged(format_args!("tensor `{}` holds what is not a finite number", tensor.name))),
    }
}

/// The values and the shape of a constant matrix, neither side of it 0.
fn matrix(tensor: &Tensor) -> Result<(Vec<f32>, [usize; 2])> {
    let side = |dim: i64| usize::try_from(dim).ok().filter(|side| *side > 0);
    let shape = match tensor.dims.as_slice() {
        [rows, columns] => side(*rows).zip(side(*columns)),
        _ => None,
    };
    let (rows, columns) = shape.ok_or_else(|| damaged(format_args!("tensor `{}` is no matrix", tensor.name)))?;
    Ok((checked(tensor)?, [rows, columns]))
}

/// A matrix whose rows are the columns of one of `columns` columns.
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    let column = |column: usize| values.iter().skip(column).step_by(columns);
    (0..columns).flat_map(|number| column(number).copied()).collect()
}

/// One value a column, of as many or of one for all.
fn spread(values: &[f32], width: usize, what: &str) -> Result<Vec<f32>> {
    match values {
        [one] => Ok(vec![*one; width]),
        values if values.len() == width && values.iter().all(|value| value.is_finite()) => Ok(values.to_vec()),
        values => Err(damaged(format_args!("`{what}` has {} finite values for {width} columns", values.len()))),
    }
}
