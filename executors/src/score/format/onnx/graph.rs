//! Finds the chain of operators that leads from a graph's inputs to one of its outputs.
//!
//! ```text
//!  x0 ─┐
//!  x1 ─┴─ Concat ── Scaler ── TreeEnsembleClassifier ─┬─ label ── Cast ── output 0
//!                             └──── the chain ────┘   └─ scores ── ZipMap ── output 1
//! ```
//!
//! Exporters write one such chain for most models. The outputs are tried from the last on, since scores come after
//! labels, and only the first output that is a chain of scores counts. What branches is no chain, with one exception:
//! the two columns `1 - p` and `p` of a binary classifier are taken for `p`, the score of its second class.

use std::collections::HashMap;

use featurectl_core::{Error, Result};

use super::damaged;
use super::message::{Graph, Node, Tensor, ValueInfo};

/// Which values an operator has that do not depend on the row.
pub(super) struct Constants<'a>(HashMap<&'a str, &'a Tensor>);

impl<'a> Constants<'a> {
    /// The initializers and the values of `Constant` operators.
    fn read(graph: &'a Graph) -> Self {
        let given = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor));
        let made = graph.node.iter().filter(|node| node.op_type == "Constant");
        let made = made.filter_map(|node| Some((node.output.first()?.as_str(), node.tensor("value")?)));
        Self(given.chain(made).collect())
    }

    /// The constant of a name.
    pub(super) fn get(&self, name: &str) -> Option<&'a Tensor> {
        self.0.get(name).copied()
    }
}

/// One operator of a chain.
pub(super) struct Step<'a> {
    /// The operator.
    pub(super) node: &'a Node,
    /// Which of its inputs depends on the row.
    pub(super) input: usize,
}

/// Operators, each of which takes what the one before it makes.
pub(super) struct Chain<'a> {
    /// The graph's inputs, side by side.
    pub(super) inputs: Vec<&'a ValueInfo>,
    /// From the inputs to the output.
    pub(super) steps: Vec<Step<'a>>,
    /// Whether the output is `1 - p` and `p` for the `p` that the chain makes.
    pub(super) mirrored: bool,
}

/// A graph, by the names of its tensors.
pub(super) struct Names<'a> {
    /// What does not depend on the row.
    pub(super) constants: Constants<'a>,
    graph: &'a Graph,
    inputs: HashMap<&'a str, &'a ValueInfo>,
    /// The operator that makes a tensor, and as which of its outputs.
    makers: HashMap<&'a str, (&'a Node, usize)>,
}

impl<'a> Names<'a> {
    /// Looks through a graph.
    pub(super) fn read(graph: &'a Graph) -> Result<Self> {
        let constants = Constants::read(graph);
        let inputs = graph.input.iter().filter(|input| constants.get(&input.name).is_none());
        let inputs = inputs.map(|input| (input.name.as_str(), input)).collect();
        let mut makers = HashMap::new();
        for node in graph.node.iter().filter(|node| node.op_type != "Constant") {
            for (place, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                if makers.insert(name.as_str(), (node, place)).is_some() {
                    return Err(damaged(format_args!("two operators make the tensor `{name}`")));
                }
            }
        }
        Ok(Self { constants, graph, inputs, makers })
    }

    /// The chain to the last output that has one; if none has, the error is about the last output that is no label.
    pub(super) fn chain(&self) -> Result<Chain<'a>> {
        let mut first_error = None;
        for output in self.graph.output.iter().rev() {
            match self.chain_to(&output.name) {
                Ok(Some(chain)) => return Ok(chain),
                Ok(None) => {}
                Err(e) => first_error = first_error.or(Some(e)),
            }
        }
        Err(first_error.unwrap_or_else(|| match self.graph.output.is_empty() {
            true => damaged("the graph has no output"),
            false => Error::invalid("labels alone cannot be scored here: export the model with its probabilities too"),
        }))
    }

    /// The chain to an output; `None` if it is a label.
    fn chain_to(&self, output: &'a str) -> Result<Option<Chain<'a>>> {
        let (mut name, mut steps, mut mirrored) = (output, Vec::new(), false);
        loop {
            if steps.len() > self.graph.node.len() {
                return Err(damaged(format_args!("the operators before `{output}` are a cycle")));
            }
            if let Some(inputs) = self.graph_inputs(name) {
                steps.reverse();
                return Ok(Some(Chain { inputs, steps, mirrored }));
            }
            let (node, place) = self.maker(name)?;
            match node.op_type.as_str() {
                "TreeEnsembleClassifier" | "LinearClassifier" if place == 0 => return Ok(None),
                "ArrayFeatureExtractor" | "LabelEncoder" => return Ok(None),
                "Concat" => match self.mirrored(node) {
                    Some(of) if !mirrored && steps.iter().all(|step: &Step| tail(step.node)) => {
                        mirrored = true;
                        name = of;
                        continue;
                    }
                    _ => return Err(branch(node)),
                },
                _ => {}
            }
            let input = self.row_input(node)?;
            steps.push(Step { node, input });
            name = &node.input[input];
        }
    }

    /// The operator that makes a tensor, and as which of its outputs.
    fn maker(&self, name: &str) -> Result<(&'a Node, usize)> {
        self.makers.get(name).copied().ok_or_else(|| damaged(format_args!("no operator makes the tensor `{name}`")))
    }

    /// The inputs of the graph that a tensor is, or that it has side by side.
    fn graph_inputs(&self, name: &'a str) -> Option<Vec<&'a ValueInfo>> {
        if let Some(input) = self.inputs.get(name) {
            return Some(vec![input]);
        }
        let (node, _) = self.makers.get(name)?;
        match node.op_type.as_str() {
            "Concat" | "FeatureVectorizer" => node.input.iter().map(|input| self.graph_input(input)).collect(),
            _ => None,
        }
    }

    /// The input of the graph that a tensor is, apart from its type.
    fn graph_input(&self, mut name: &'a str) -> Option<&'a ValueInfo> {
        // More operators than there are would be a cycle.
        for _ in 0..=self.graph.node.len().min(16) {
            if let Some(input) = self.inputs.get(name) {
                return Some(input);
            }
            let (node, _) = self.makers.get(name)?;
            match node.op_type.as_str() {
                // Cut fractions are not seen later on, so only casts to floats are looked through.
                "Identity" => {}
                "Cast" if super::is_float(node) => {}
                _ => return None,
            }
            name = node.input.first()?;
        }
        None
    }

    /// The `p` of which an operator makes the columns `1 - p` and `p`.
    fn mirrored(&self, concat: &'a Node) -> Option<&'a str> {
        let [first, second] = concat.input.as_slice() else { return None };
        let (node, _) = self.makers.get(first.as_str())?;
        let one = self.constants.get(node.input.first()?)?.numbers().ok()?;
        let is = node.op_type == "Sub" && one == [1.0] && node.input.get(1)? == second;
        is.then_some(second.as_str())
    }

    /// Which input of an operator depends on the row, where just one may.
    fn row_input(&self, node: &Node) -> Result<usize> {
        let open = |input: &&(usize, &String)| !input.1.is_empty() && self.constants.get(input.1).is_none();
        let inputs: Vec<(usize, &String)> = node.input.iter().enumerate().collect();
        let mut open = inputs.iter().filter(open);
        match (open.next(), open.next()) {
            (Some((place, _)), None) => Ok(*place),
            (None, _) => Err(damaged(format_args!("the operator `{}` takes no row", node.op_type))),
            _ => Err(branch(node)),
        }
    }
}

/// Whether an operator leaves scores as they are.
fn tail(node: &Node) -> bool {
    matches!(node.op_type.as_str(), "Identity" | "Cast" | "ZipMap" | "Reshape" | "Flatten")
}

/// An error about a graph that is no chain.
fn branch(node: &Node) -> Error {
    Error::invalid(format!(
        "a graph that branches, here before `{}`, cannot be scored here: export a model of one step after another, and \
         compute its features in SQL",
        node.op_type
    ))
}
