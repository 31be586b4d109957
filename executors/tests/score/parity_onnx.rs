//! ONNX models that were converted from scikit-learn, LightGBM and XGBoost, or written by hand, against onnxruntime's
//! results: trees equal to the bit of 32-bit floats, linear models and networks to 1e-5, since no order of their sums
//! is fixed; and damaged files.

use featurectl_core::ErrorKind;
use featurectl_executors::score::{Body, Layer, Link, Model};

use super::parity_catboost::{Case, cases, damage, folder, refused, same_bits, survives};

fn bytes(case: &str) -> Vec<u8> {
    std::fs::read(folder("onnx").join(format!("{case}.onnx"))).unwrap()
}

fn model(case: &str) -> Model {
    Model::from_bytes(case, &bytes(case)).unwrap_or_else(|e| panic!("{e}"))
}

fn is_forest(case: &Case) -> bool {
    matches!(case.model.body, Body::Forest(..))
}

/// The same 32-bit float, or not more than `ulps` of them apart.
fn near32(ours: f64, theirs: f64, ulps: u32) -> bool {
    let (a, b) = (ours as f32, theirs as f32);
    same_bits(a.into(), b.into()) || a == b || a.signum() == b.signum() && a.to_bits().abs_diff(b.to_bits()) <= ulps
}

#[test]
fn margins_of_trees_are_onnxruntimes_to_the_bit() {
    let mut compared = 0;
    for case in cases("onnx").iter().filter(|case| is_forest(case) && !case.theirs("raw_").is_empty()) {
        // onnxruntime rounds an average before it adds the base value, which here is done at once.
        let exact = if case.name == "modes_average" { 1e-8 } else { 0.0 };
        let near = |ours: f64, theirs: f64| near32(ours, theirs, 0) || (ours - theirs).abs() <= exact;
        compared += case.compare("raw_", |row| case.model.margins(row), near);
    }
    assert!(compared > 20_000);
}

#[test]
fn predictions_of_trees_are_onnxruntimes() {
    for case in cases("onnx").iter().filter(|case| is_forest(case)) {
        // onnxruntime subtracts from 1 in its logistic function, which is only as exact as 1 is.
        let exact = if case.model.link == Link::Identity { 1e-8 } else { f64::from(f32::EPSILON) };
        let near = |ours: f64, theirs: f64| near32(ours, theirs, 2) || (ours - theirs).abs() <= exact;
        case.compare("prediction_", |row| case.model.predictions(row), near);
    }
}

#[test]
fn linear_models_and_networks_are_onnxruntimes_to_1e_5() {
    let near = |ours: f64, theirs: f64| same_bits(ours, theirs) || (ours - theirs).abs() <= 1e-5 * theirs.abs() + 1e-6;
    for case in cases("onnx").iter().filter(|case| !is_forest(case)) {
        if !case.theirs("raw_").is_empty() {
            case.compare("raw_", |row| case.model.margins(row), near);
        }
        case.compare("prediction_", |row| case.model.predictions(row), near);
    }
}

#[test]
fn names_classes_and_outputs_are_read() {
    let named = model("named_columns");
    assert_eq!(named.features, ["delay", "distance", "hour", "wind", "gust", "temperature"]);
    assert_eq!(named.classes, ["0", "1"]);
    let three = model("forest_three");
    assert_eq!(three.features, ["f0", "f1", "f2", "f3", "f4", "f5"]);
    assert_eq!(three.classes, ["high", "low", "middle"]);
    assert_eq!(three.format, "ONNX skl2onnx 1.20.0");
    // Two classes have one score: that of the second.
    let sigmoid = Link::Sigmoid { steepness: 1.0 };
    for case in ["boosting_binary", "lightgbm_binary", "xgboost_binary", "logistic", "scaled_logistic", "mlp_binary"] {
        let model = model(case);
        assert_eq!((model.margins(&[0.5; 6]).len(), model.link), (1, sigmoid), "{case}");
    }
    assert!(
        matches!(&model("scaled_forest").body, Body::Forest(before, _) if matches!(before[..], [Layer::Scale { .. }]))
    );
    assert!(matches!(&model("logistic").body, Body::Linear(_)));
    assert!(matches!(&model("mlp_binary").body, Body::Network(layers) if layers.len() == 5));
}

/// Writes protobuf by field numbers.
#[derive(Clone, Default)]
struct Proto(Vec<u8>);

impl Proto {
    fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    fn int(self, field: u64, value: i64) -> Self {
        self.varint(field << 3).varint(value as u64)
    }

    fn bytes(self, field: u64, bytes: &[u8]) -> Self {
        let mut proto = self.varint(field << 3 | 2).varint(bytes.len() as u64);
        proto.0.extend(bytes);
        proto
    }

    fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    fn message(self, field: u64, message: &Proto) -> Self {
        self.bytes(field, &message.0)
    }

    fn all(self, parts: &[Proto], field: u64) -> Self {
        parts.iter().fold(self, |proto, part| proto.message(field, part))
    }
}

fn ints(name: &str, values: &[i64]) -> Proto {
    values.iter().fold(Proto::default().text(1, name).int(20, 7), |proto, value| proto.int(8, *value))
}

fn floats(name: &str, values: &[f32]) -> Proto {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Proto::default().text(1, name).int(20, 6).bytes(7, &bytes)
}

fn words(name: &str, values: &[&str]) -> Proto {
    values.iter().fold(Proto::default().text(1, name).int(20, 8), |proto, value| proto.text(9, value))
}

fn word(name: &str, value: &str) -> Proto {
    Proto::default().text(1, name).int(20, 3).text(4, value)
}

fn int(name: &str, value: i64) -> Proto {
    Proto::default().text(1, name).int(20, 2).int(3, value)
}

fn tensor(name: &str, dims: &[i64], kind: i64, raw: &[u8]) -> Proto {
    let dims = dims.iter().fold(Proto::default(), |proto, dim| proto.int(1, *dim));
    dims.int(2, kind).text(8, name).bytes(9, raw)
}

fn float_tensor(name: &str, dims: &[i64], values: &[f32]) -> Proto {
    tensor(name, dims, 1, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
}

fn of_tensor(name: &str, tensor: &Proto) -> Proto {
    Proto::default().text(1, name).int(20, 4).message(5, tensor)
}

fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[Proto]) -> Proto {
    let node = inputs.iter().fold(Proto::default(), |proto, name| proto.text(1, name));
    let node = outputs.iter().fold(node, |proto, name| proto.text(2, name));
    node.text(4, op).all(attributes, 5)
}

/// Name, type and shape of an input.
fn input(name: &str, kind: i64, width: i64) -> Proto {
    let dims = Proto::default().message(1, &Proto::default()).message(1, &Proto::default().int(1, width));
    let tensor = Proto::default().int(1, kind).message(2, &dims);
    Proto::default().text(1, name).message(2, &Proto::default().message(1, &tensor))
}

/// A file: operators from inputs to outputs.
fn file(nodes: &[Proto], inputs: &[Proto], outputs: &[&str], constants: &[Proto]) -> Vec<u8> {
    let outputs: Vec<Proto> = outputs.iter().map(|name| Proto::default().text(1, name)).collect();
    let graph = Proto::default().all(nodes, 1).all(constants, 5).all(inputs, 11).all(&outputs, 12);
    Proto::default().int(1, 9).message(7, &graph).0
}

/// A regressor of one tree: `x0 <= 0.5`, there `x1 < 2`.
fn tree_attributes() -> Vec<Proto> {
    vec![
        ints("nodes_treeids", &[0; 5]),
        ints("nodes_nodeids", &[0, 1, 2, 3, 4]),
        ints("nodes_featureids", &[0, 1, 0, 0, 0]),
        ints("nodes_truenodeids", &[1, 3, 0, 0, 0]),
        ints("nodes_falsenodeids", &[2, 4, 0, 0, 0]),
        words("nodes_modes", &["BRANCH_LEQ", "BRANCH_LT", "LEAF", "LEAF", "LEAF"]),
        floats("nodes_values", &[0.5, 2.0, 0.0, 0.0, 0.0]),
        ints("target_treeids", &[0; 3]),
        ints("target_nodeids", &[2, 3, 4]),
        ints("target_ids", &[0; 3]),
        floats("target_weights", &[4.0, 1.0, 2.0]),
        int("n_targets", 1),
    ]
}

fn tree_file(attributes: &[Proto]) -> Vec<u8> {
    file(&[node("TreeEnsembleRegressor", &["X"], &["Y"], attributes)], &[input("X", 1, 2)], &["Y"], &[])
}

/// The tree, in which one attribute is another or comes on top.
fn tree_with(name: &str, attribute: Proto) -> Vec<u8> {
    let other = |proto: &Proto| !proto.0.windows(name.len()).any(|window| window == name.as_bytes());
    let mut attributes: Vec<Proto> = tree_attributes().into_iter().filter(other).collect();
    attributes.push(attribute);
    tree_file(&attributes)
}

fn parsed(bytes: &[u8]) -> Model {
    Model::from_bytes("m", bytes).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn a_tree_by_hand_goes_where_it_should() {
    let model = parsed(&tree_file(&tree_attributes()));
    let at = |x0: f64, x1: f64| model.margins(&[x0, x1])[0];
    assert_eq!([at(0.5, 1.9), at(0.5, 2.0), at(0.6, 0.0), at(f64::NAN, 0.0)], [1.0, 2.0, 4.0, 4.0]);
    // 64-bit values are rounded first.
    assert_eq!([at(0.5 + 1e-12, 2.0 - 1e-12), at(0.5, f64::NEG_INFINITY)], [2.0, 1.0]);
}

#[test]
fn a_damaged_tree_is_an_error() {
    let damaged = |name: &str, attribute: Proto, message: &str| {
        refused(&tree_with(name, attribute), ErrorKind::Data, message);
    };
    damaged("nodes_truenodeids", ints("nodes_truenodeids", &[0, 3, 0, 0, 0]), "tree 0: two branches lead to node 0");
    damaged(
        "nodes_truenodeids",
        ints("nodes_truenodeids", &[1, 0, 0, 0, 0]),
        "two branches lead to node 0, or a cycle",
    );
    damaged("nodes_truenodeids", ints("nodes_truenodeids", &[9, 3, 0, 0, 0]), "tree 0 has no node 9");
    damaged("nodes_truenodeids", ints("nodes_truenodeids", &[1, 3]), "`nodes_truenodeids` has 2 values instead of 5");
    damaged("nodes_nodeids", ints("nodes_nodeids", &[0, 1, 2, 3, 3]), "tree 0 has two nodes 3");
    damaged(
        "nodes_featureids",
        ints("nodes_featureids", &[0, 2, 0, 0, 0]),
        "reads feature 2, but there are 2 features",
    );
    damaged("nodes_featureids", ints("nodes_featureids", &[0, -1, 0, 0, 0]), "a node reads feature -1");
    damaged("nodes_values", floats("nodes_values", &[f32::NAN, 2.0, 0.0, 0.0, 0.0]), "a threshold is not a number");
    damaged("target_weights", floats("target_weights", &[f32::INFINITY, 0.0, 0.0]), "leaf 2 is not a finite number");
    damaged("target_ids", ints("target_ids", &[0, 0, 3]), "a leaf adds to target 3, but there are 1");
    damaged("n_targets", int("n_targets", 0), "`n_targets` is 0");
    damaged("n_targets", int("n_targets", 1 << 40), "`n_targets` is 1099511627776");
    damaged("base_values", floats("base_values", &[1.0, 2.0]), "`base_values` has 2 values for 1 outputs");
    let modes = ["BRANCH_LEQ", "BRANCH_ODD", "LEAF", "LEAF", "LEAF"];
    damaged("nodes_modes", words("nodes_modes", &modes), "node 1 has the mode `BRANCH_ODD`: save the model again");
}

#[test]
fn what_is_not_supported_is_refused_with_what_to_do() {
    let unsupported = |bytes: &[u8], message: &str| refused(bytes, ErrorKind::Invalid, message);
    unsupported(&bytes("refused_isolation"), "cannot be scored here: ");
    let tree = |name: &str, value: &str| tree_with(name, word(name, value));
    unsupported(&tree("aggregate_function", "MIN"), "`aggregate_function` `MIN` cannot be scored here: sum or average");
    unsupported(&tree("post_transform", "LOGISTIC"), "a `post_transform` of one target cannot be scored here");
    unsupported(&tree_with("target_nodeids", ints("target_nodeids", &[2, 2, 4])), "a leaf that adds to a target twice");
    let x = || vec![input("X", 1, 2)];
    let one = |op: &str, attributes: &[Proto]| file(&[node(op, &["X"], &["Y"], attributes)], &x(), &["Y"], &[]);
    unsupported(
        &one("Scan", &[]),
        "operator `Scan`: the operator `Scan` cannot be scored here: compute its result in SQL",
    );
    unsupported(&one("Cast", &[int("to", 7)]), "a cast to whole numbers or text cannot be scored here");
    unsupported(&one("Identity", &[]), "a graph without a model in it");
    unsupported(
        &one("ArrayFeatureExtractor", &[]),
        "labels alone cannot be scored here: export the model with its prob",
    );
    let matmul = |kind: i64, raw: &[u8]| {
        let weights = tensor("W", &[2, 1], kind, raw);
        file(&[node("MatMul", &["X", "W"], &["Y"], &[])], &x(), &["Y"], &[weights])
    };
    assert_eq!(parsed(&matmul(1, &[0; 8])).margins(&[1.0, 2.0]), [0.0]);
    unsupported(
        &matmul(11, &[0; 16]),
        "arithmetic in 64-bit floats cannot be scored here: export the model with 32-bit",
    );
    unsupported(&matmul(10, &[0; 4]), "tensor `W` is of the type 10, which cannot be scored here");
    let text = file(&[node("Identity", &["X"], &["Y"], &[])], &[input("X", 8, 2)], &["Y"], &[]);
    unsupported(&text, "the text input `X` cannot be scored here: encode it in SQL");
    let twice = file(&[node("Add", &["X", "X"], &["Y"], &[])], &x(), &["Y"], &[]);
    unsupported(&twice, "a graph that branches, here before `Add`, cannot be scored here");
    let trees = node("TreeEnsembleRegressor", &["X"], &["T"], &tree_attributes());
    let behind = file(&[trees, node("Relu", &["T"], &["Y"], &[])], &x(), &["Y"], &[]);
    unsupported(&behind, "operator `Relu`: a graph that goes on behind its trees cannot be scored here");
}

#[test]
fn a_damaged_graph_is_an_error() {
    let damaged = |bytes: &[u8], message: &str| refused(bytes, ErrorKind::Data, message);
    let x = || vec![input("X", 1, 2)];
    damaged(b"\x00\x01\x02", "it looks like no model of a known format");
    damaged(&Proto::default().int(1, 9).0, "an ONNX model without a graph");
    damaged(&file(&[], &x(), &[], &[]), "the graph has no output");
    damaged(&file(&[], &x(), &["Y"], &[]), "no operator makes the tensor `Y`");
    let cycle = [node("Relu", &["B"], &["A"], &[]), node("Relu", &["A"], &["B"], &[])];
    damaged(&file(&cycle, &x(), &["A"], &[]), "the operators before `A` are a cycle");
    let one = float_tensor("one", &[], &[1.0]);
    let mirror = [node("Sub", &["one", "P"], &["N"], &[]), node("Concat", &["N", "P"], &["P"], &[])];
    refused(&file(&mirror, &x(), &["P"], &[one]), ErrorKind::Invalid, "a graph that branches, here before `Concat`");
    damaged(&file(&vec![node("Relu", &["X"], &["A"], &[]); 2], &x(), &["A"], &[]), "two operators make the tensor `A`");
    let matmul = |dims: &[i64]| {
        let weights = float_tensor("W", dims, &[1.0; 6]);
        file(&[node("MatMul", &["X", "W"], &["Y"], &[])], &x(), &["Y"], &[weights])
    };
    damaged(&matmul(&[3, 2]), "`MatMul` takes 3 values, but there are 2");
    damaged(&matmul(&[2, 9]), "tensor `W` has 6 values for the shape [2, 9]");
    damaged(&matmul(&[i64::MAX, i64::MAX]), "tensor `W` has 6 values for the shape");
    damaged(&matmul(&[6]), "tensor `W` is no matrix");
    damaged(&matmul(&[0, 2]), "tensor `W` is no matrix");
    let wide = file(&[node("Relu", &["X"], &["Y"], &[])], &[input("X", 1, 1 << 40)], &["Y"], &[]);
    damaged(&wide, "it claims 1099511627776 columns");
    // Groups within groups, which nobody writes any more.
    damaged(&[0x1b].repeat(1_000_000), "it looks like no model of a known format");
}

/// The members of a set are equal to the value, also where runtimes go wrong: at 0 and below, and next to each other.
#[test]
fn sets_hold_their_members_and_no_other_value() {
    let set: Vec<f32> = vec![-1.0, -0.0, 2.0, 2f32.next_up(), f32::INFINITY, f32::NAN];
    let numbers = |name: &str, values: &[f32]| of_tensor(name, &float_tensor("", &[values.len() as i64], values));
    let ensemble = node(
        "TreeEnsemble",
        &["X"],
        &["Y"],
        &[
            ints("tree_roots", &[0]),
            ints("nodes_featureids", &[1]),
            of_tensor("nodes_modes", &tensor("", &[1], 2, &[6])),
            numbers("nodes_splits", &[0.0]),
            ints("nodes_truenodeids", &[0]),
            ints("nodes_trueleafs", &[1]),
            ints("nodes_falsenodeids", &[1]),
            ints("nodes_falseleafs", &[1]),
            ints("leaf_targetids", &[0, 0]),
            numbers("leaf_weights", &[1.0, 0.0]),
            numbers("membership_values", &set),
        ],
    );
    let model = parsed(&file(&[ensemble], &[input("X", 1, 2)], &["Y"], &[]));
    let holds = |x: f32| model.margins(&[0.0, x.into()])[0] == 1.0;
    for member in &set[..5] {
        assert!(holds(*member) && holds(*member + 0.0), "{member}");
    }
    for other in [f32::NAN, -0.5, 1e-45, -1e-45, 0.5, 2f32.next_down(), 2f32.next_up().next_up(), f32::MAX, -2.0] {
        assert!(!holds(other), "{other}");
    }
    assert!(!holds(f32::NEG_INFINITY));
}

#[test]
fn a_damaged_file_gives_a_model_or_an_error() {
    for case in ["forest_three", "sets", "modes_average", "mlp_three", "scaled_logistic", "named_columns"] {
        damage(&bytes(case), 150, 400);
    }
    let tree = tree_file(&tree_attributes());
    damage(&tree, tree.len(), 3000);
}

#[test]
fn each_number_replaced_gives_a_model_or_an_error() {
    let column = ["nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids"];
    let leaves = ["target_treeids", "target_nodeids", "target_ids"];
    for (name, count) in column.iter().map(|name| (name, 5)).chain(leaves.iter().map(|name| (name, 3))) {
        for at in 0..count {
            for value in [-1, 1, 4, 5, 1 << 31, 1 << 32, i64::MAX, i64::MIN] {
                let mut values = vec![0; count];
                values[at] = value;
                survives(&tree_with(name, ints(name, &values)));
            }
        }
    }
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0, 1e-45] {
        survives(&tree_with("nodes_values", floats("nodes_values", &[value; 5])));
        survives(&tree_with("target_weights", floats("target_weights", &[value; 3])));
        survives(&tree_with("base_values", floats("base_values", &[value])));
    }
    for outputs in [-1, 0, 2, 70_000, i64::MAX] {
        survives(&tree_with("n_targets", int("n_targets", outputs)));
    }
}
