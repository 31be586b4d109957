//! Reads CatBoost's JSON (`save_model('m.json', format='json')`), as versions 0.20 to 1.2 write it.
//!
//! ```text
//!  {"features_info": {"float_features": [{"flat_feature_index": 0, "nan_value_treatment": "AsFalse", …}],
//!                     "categorical_features": [{"flat_feature_index": 1, "values": [hash], …}],
//!                     "cat_features_hash": [{"hash": hash, "value": "UA"}]},
//!   "oblivious_trees": [{"splits": [s0, s1], "leaf_values": [l0, l1, l2, l3]}],          s0 ─┬─ s1 ─┬─ l0
//!   "trees": [{"split": s0, "left": {"value": l0}, "right": {"split": …}}],                  │      └─ l2
//!   "scale_and_bias": [1, [0.5]],                                                            └─ s1 ─┬─ l1
//!   "model_info": {"params": {"loss_function": {"type": "Logloss"}}, …}}                            └─ l3
//! ```
//!
//! A split asks `x > border` in 32-bit floats, and bit `i` of a leaf's number is the answer of split `i`. Oblivious
//! trees, which ask the same of all nodes of a level, become ordinary ones: level by level, and the leaves keep their
//! numbers. Other trees number their leaves from left to right, as CatBoost does once it has read the JSON. NaN is
//! above all borders where the file says `AsTrue` and was trained on NaN, else below them.
//!
//! A categorical split asks whether the hash of a string is a certain one. The categories of such a feature are the
//! strings that its splits ask for, and any other string is none of them. Leaves are summed in 64-bit floats from 0,
//! and `scale_and_bias` is done to the sum.
//!
//! The numbers are those of the trained model, to the last digit. CatBoost's own reader of this format rounds some of
//! them wrongly, so results equal those of the trained model or its binary file, not always those of a model that
//! CatBoost read from JSON.

use std::collections::{HashMap, HashSet};

use featurectl_core::{Error, Result};
use serde_json::Value;

use crate::score::forest::{Forest, Missing, Precision, Split, Test, Tree};
use crate::score::model::{Body, Link, Model};

/// CatBoost trains no deeper trees.
const DEPTH_MAX: usize = 16;

/// Hashes have 32 bits, so more strings of one hash are no accident.
const SAME_HASH_MAX: usize = 8;

/// The model in `value`, checked whole.
///
/// Errors: [`Data`](featurectl_core::ErrorKind::Data) with the tree for damage,
/// [`Invalid`](featurectl_core::ErrorKind::Invalid) for what CatBoost can do and the scorer cannot.
pub(super) fn parse(name: &str, value: &Value) -> Result<Model> {
    let columns = Columns::read(&value["features_info"])?;
    let (scale, bias) = scale_and_bias(value)?;
    let outputs = outputs(value, &bias)?;
    let mut forest = Forest::new(columns.names.len(), vec![0.0; outputs], Precision::F32, Precision::F64);
    forest.scale = scale;
    forest.bias = if bias.iter().all(|bias| *bias == 0.0) { Vec::new() } else { bias };
    for (index, tree) in list(value, "oblivious_trees").iter().enumerate() {
        oblivious(tree, &columns, outputs).and_then(|tree| forest.push(tree)).map_err(|e| in_tree(index, e))?;
    }
    for (index, tree) in list(value, "trees").iter().enumerate() {
        nested(tree, &columns, outputs).and_then(|tree| forest.push(tree)).map_err(|e| in_tree(index, e))?;
    }
    let objective = loss(&value["model_info"]);
    Ok(Model {
        name: name.to_string(),
        format: format(&value["model_info"]),
        link: link(&objective, outputs)?,
        objective,
        features: columns.names,
        categories: columns.categories,
        classes: classes(&value["model_info"]),
        body: Body::Forest(Vec::new(), forest),
    })
}

/// Says in which tree an error is.
fn in_tree(index: usize, error: Error) -> Error {
    error.context(format!("tree {index}"))
}

/// An error about damage at the current place.
fn damaged(what: impl std::fmt::Display) -> Error {
    Error::data(format!("{what}: save the model again"))
}

/// The values of a list; CatBoost writes an empty one as `null`.
fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// The number under `key`, for counts and indices.
fn index(value: &Value, key: &str) -> Result<usize> {
    let index = value[key].as_u64().and_then(|index| usize::try_from(index).ok());
    index.ok_or_else(|| damaged(format!("`{key}` is {}, not an index", brief(&value[key]))))
}

/// The number under `key`.
fn number(value: &Value, key: &str) -> Result<f64> {
    value[key].as_f64().ok_or_else(|| damaged(format!("`{key}` is {}, not a number", brief(&value[key]))))
}

/// A value as messages show it.
fn brief(value: &Value) -> String {
    match value {
        Value::Null => "missing".to_string(),
        Value::Array(_) => "a list".to_string(),
        Value::Object(_) => "an object".to_string(),
        Value::String(text) => format!("`{}`", text.chars().take(40).collect::<String>()),
        other => other.to_string(),
    }
}

/// The categories that have a hash.
type ByHash = HashMap<i32, Vec<u32>>;

/// The columns of a model and how its splits find them.
struct Columns {
    /// Their names, in order.
    names: Vec<String>,
    /// What the model calls [`categories`](Model::categories).
    categories: Vec<Option<Vec<String>>>,
    /// Column and the way of missing values, by the number among the numeric features.
    floats: HashMap<usize, (u32, Missing)>,
    /// Column and, by hash, the categories that have it, by the number among the categorical features.
    strings: HashMap<usize, (u32, ByHash)>,
}

impl Columns {
    /// Reads `features_info`.
    fn read(info: &Value) -> Result<Self> {
        for kind in ["text_features", "embedding_features"] {
            if !list(info, kind).is_empty() {
                let kind = kind.replace('_', " ");
                return Err(Error::invalid(format!(
                    "{kind} cannot be scored here: train the model on numbers and categories"
                )));
            }
        }
        let (floats, strings) = (list(info, "float_features"), list(info, "categorical_features"));
        let mut names = vec![None; floats.len() + strings.len()];
        let mut columns = Self {
            names: Vec::new(),
            categories: if strings.is_empty() { Vec::new() } else { vec![None; names.len()] },
            floats: HashMap::new(),
            strings: HashMap::new(),
        };
        for feature in floats {
            let entry = (place(feature, &mut names)?, missing(feature)?);
            if columns.floats.insert(index(feature, "feature_index")?, entry).is_some() {
                return Err(damaged("two numeric features have the same `feature_index`"));
            }
        }
        let known = known_strings(info)?;
        for feature in strings {
            let column = place(feature, &mut names)?;
            let (categories, by_hash) = categories(feature, &known)?;
            columns.categories[column as usize] = Some(categories);
            if columns.strings.insert(index(feature, "feature_index")?, (column, by_hash)).is_some() {
                return Err(damaged("two categorical features have the same `feature_index`"));
            }
        }
        columns.names = unique(names)?;
        Ok(columns)
    }
}

/// Puts the name of a feature to its place among the columns, which is returned.
fn place(feature: &Value, names: &mut [Option<String>]) -> Result<u32> {
    let column = index(feature, "flat_feature_index")?;
    let count = names.len();
    let Some(slot) = names.get_mut(column) else {
        return Err(damaged(format!("`flat_feature_index` is {column}, but there are {count} features")));
    };
    let given = ["feature_name", "feature_id"].iter().filter_map(|key| feature[key].as_str()).find(|n| !n.is_empty());
    if slot.replace(given.map_or_else(|| column.to_string(), str::to_string)).is_some() {
        return Err(damaged(format!("two features have the `flat_feature_index` {column}")));
    }
    u32::try_from(column).map_err(|_| damaged(format!("`flat_feature_index` is {column}")))
}

/// The names, each given once; as many features as names have been [placed](place), so none is left out.
fn unique(names: Vec<Option<String>>) -> Result<Vec<String>> {
    let names: Vec<String> = names.into_iter().flatten().collect();
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        None => Ok(names),
        Some(name) => Err(Error::invalid(format!("the feature `{name}` is named twice: train with a name a column"))),
    }
}

/// Where NaN goes. A feature without NaN in training compares it, which is false, that is, left.
fn missing(feature: &Value) -> Result<Missing> {
    match (feature["nan_value_treatment"].as_str(), feature["has_nans"].as_bool()) {
        (Some("AsTrue"), Some(true)) => Ok(Missing::Right),
        (Some("AsIs" | "AsFalse" | "AsTrue"), _) => Ok(Missing::Left),
        _ => Err(damaged(format!("`nan_value_treatment` is {}", brief(&feature["nan_value_treatment"])))),
    }
}

/// All strings that the file names, by hash.
fn known_strings(info: &Value) -> Result<HashMap<i32, Vec<&str>>> {
    let mut known: HashMap<i32, Vec<&str>> = HashMap::new();
    for entry in list(info, "cat_features_hash") {
        let text = entry["value"].as_str().ok_or_else(|| damaged("`cat_features_hash` has no string"))?;
        known.entry(hash(&entry["hash"])?).or_default().push(text);
    }
    Ok(known)
}

/// A hash of 32 bits, which CatBoost writes with or without a sign.
fn hash(value: &Value) -> Result<i32> {
    let hash = value.as_i64().filter(|hash| (i64::from(i32::MIN)..=i64::from(u32::MAX)).contains(hash));
    hash.map(|hash| hash as i32).ok_or_else(|| damaged(format!("the hash of a category is {}", brief(value))))
}

/// The categories that the splits of a feature ask for, and which of them have a hash.
fn categories(feature: &Value, known: &HashMap<i32, Vec<&str>>) -> Result<(Vec<String>, ByHash)> {
    let (mut names, mut by_hash) = (Vec::new(), HashMap::new());
    let given = list(feature, "string_values");
    for (number, value) in list(feature, "values").iter().enumerate() {
        let hash = hash(value)?;
        let texts: Vec<&str> = match (known.get(&hash), given.get(number).and_then(Value::as_str)) {
            (Some(texts), _) => texts.clone(),
            (None, Some(text)) => vec![text],
            (None, None) => continue,
        };
        if by_hash.contains_key(&hash) || texts.len() > SAME_HASH_MAX {
            return Err(damaged(format!("a categorical feature has the hash {hash} too often")));
        }
        by_hash.insert(hash, (names.len() as u32..).take(texts.len()).collect());
        names.extend(texts.into_iter().map(str::to_string));
    }
    Ok((names, by_hash))
}

/// What the sum is multiplied by, and what is added to each output.
fn scale_and_bias(value: &Value) -> Result<(f64, Vec<f64>)> {
    let given = match &value["scale_and_bias"] {
        Value::Null => return Ok((1.0, Vec::new())),
        Value::Array(given) if given.len() == 2 => given,
        other => return Err(damaged(format!("`scale_and_bias` is {}", brief(other)))),
    };
    let wrong = || damaged("`scale_and_bias` holds what is not a number");
    let scale = given[0].as_f64().ok_or_else(wrong)?;
    let bias = match &given[1] {
        Value::Array(bias) => bias.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>().ok_or_else(wrong)?,
        bias => vec![bias.as_f64().ok_or_else(wrong)?],
    };
    Ok((scale, bias))
}

/// How many outputs there are, by the first tree or, without trees, by the bias.
fn outputs(value: &Value, bias: &[f64]) -> Result<usize> {
    let first = match (list(value, "oblivious_trees").first(), list(value, "trees").first()) {
        (Some(_), Some(_)) => return Err(damaged("it has both `oblivious_trees` and `trees`")),
        (Some(tree), None) => {
            let leaves = list(tree, "leaf_values").len();
            leaves >> list(tree, "splits").len().min(DEPTH_MAX)
        }
        (None, Some(tree)) => width(tree),
        (None, None) => bias.len().max(1),
    };
    match (first, bias) {
        (0, _) => Err(damaged("tree 0 has no leaf values")),
        // Old versions wrote one bias for all.
        (_, [] | [0.0]) => Ok(first),
        (_, bias) if bias.len() == first => Ok(first),
        _ => Err(damaged(format!("`scale_and_bias` has {} values for {first} outputs", bias.len()))),
    }
}

/// How many values the leftmost leaf of a nested tree has.
fn width(tree: &Value) -> usize {
    let mut node = tree;
    while let Some(left) = node.get("left") {
        node = left;
    }
    node["value"].as_array().map_or(1, Vec::len)
}

/// A tree whose levels have one split each, as an ordinary tree, level by level.
///
/// ```text
///  level 0         s0  split 0                 the node of level l and path p (bit i: the answer of split i)
///  level 1      s1    s1    splits 1, 2        is split 2ˡ - 1 + p; its children have the paths p and p + 2ˡ,
///  level 2    l0 l2  l1 l3                     and those of the last level are the leaves
/// ```
fn oblivious(tree: &Value, columns: &Columns, outputs: usize) -> Result<Tree> {
    let levels = list(tree, "splits");
    if levels.len() > DEPTH_MAX {
        return Err(damaged(format!("it is {} levels deep, more than {DEPTH_MAX}", levels.len())));
    }
    let leaves = numbers(list(tree, "leaf_values"))?;
    // Checked before the splits are made, so that they are no more than the file's numbers.
    if leaves.len() != outputs << levels.len() {
        let wanted = outputs << levels.len();
        return Err(damaged(format!("{} levels have {} leaf values instead of {wanted}", levels.len(), leaves.len())));
    }
    let mut splits = Vec::with_capacity((1 << levels.len()) - 1);
    for (level, split) in levels.iter().enumerate() {
        let question = question(split, columns).map_err(|e| e.context(format!("split {level}")))?;
        let last = level + 1 == levels.len();
        let child = |path: usize| if last { !(path as i32) } else { ((2 << level) - 1 + path) as i32 };
        splits.extend((0..1 << level).map(|path| question.split(child(path), child(path + (1 << level)))));
    }
    Ok(Tree { output: (outputs == 1).then_some(0), splits, leaves, linear: Vec::new(), covers: Vec::new() })
}

/// The numbers of a list.
fn numbers(values: &[Value]) -> Result<Vec<f64>> {
    let wrong = |value: &Value| damaged(format!("a leaf value is {}", brief(value)));
    values.iter().map(|value| value.as_f64().ok_or_else(|| wrong(value))).collect()
}

/// A tree of nested objects, from left to right.
fn nested(tree: &Value, columns: &Columns, outputs: usize) -> Result<Tree> {
    let mut made = Tree { output: (outputs == 1).then_some(0), ..Tree::default() };
    let mut leaf_count = 0;
    // What is still to be made, and the split it is the left (true) or right child of.
    let mut open = vec![(tree, None::<(usize, bool)>)];
    while let Some((node, parent)) = open.pop() {
        let number = if let Some(split) = node.get("split") {
            let at = made.splits.len();
            let question = question(split, columns).map_err(|e| e.context(format!("split {at}")))?;
            made.splits.push(question.split(0, 0));
            let child = |key| node.get(key).ok_or_else(|| damaged(format!("split {at} has no `{key}`")));
            open.push((child("right")?, Some((at, false))));
            open.push((child("left")?, Some((at, true))));
            at as i32
        } else {
            push_leaf(node, outputs, &mut made.leaves).map_err(|e| e.context(format!("leaf {leaf_count}")))?;
            leaf_count += 1;
            !(leaf_count - 1)
        };
        match parent {
            Some((at, true)) => made.splits[at].left = number,
            Some((at, false)) => made.splits[at].right = number,
            None => {}
        }
    }
    Ok(made)
}

/// Adds the values of a leaf, one an output.
fn push_leaf(node: &Value, outputs: usize, leaves: &mut Vec<f64>) -> Result<()> {
    let before = leaves.len();
    match &node["value"] {
        Value::Array(values) => leaves.extend(numbers(values)?),
        _ => leaves.push(number(node, "value")?),
    }
    match leaves.len() - before {
        given if given == outputs => Ok(()),
        given => Err(damaged(format!("it has {given} values for {outputs} outputs"))),
    }
}

/// A split without its children.
struct Question {
    feature: u32,
    test: Test,
    missing: Missing,
}

impl Question {
    /// The split that leads to these children.
    fn split(&self, left: i32, right: i32) -> Split {
        Split { feature: self.feature, test: self.test.clone(), missing: self.missing, left, right }
    }
}

/// What a split asks.
fn question(split: &Value, columns: &Columns) -> Result<Question> {
    match split["split_type"].as_str() {
        Some("FloatFeature") => {
            let number_of = index(split, "float_feature_index")?;
            let (feature, missing) = columns.floats.get(&number_of).copied().ok_or_else(|| {
                damaged(format!("`float_feature_index` is {number_of}, but no numeric feature has this index"))
            })?;
            // Borders are 32-bit floats, written in decimal.
            let border = number(split, "border")? as f32;
            Ok(Question { feature, test: Test::AtMost(f64::from(border)), missing })
        }
        Some("OneHotFeature") => one_hot(split, columns),
        Some("OnlineCtr") => Err(Error::invalid(
            "statistics of categories (CTRs) cannot be scored here: train with a `one_hot_max_size` above the number \
             of categories, or encode them before",
        )),
        Some(other) => Err(Error::invalid(format!(
            "splits of type `{other}` cannot be scored here: train on numbers and categories"
        ))),
        None => Err(damaged("`split_type` is missing")),
    }
}

/// Whether a string is a certain one, where yes goes right.
fn one_hot(split: &Value, columns: &Columns) -> Result<Question> {
    let number = index(split, "cat_feature_index")?;
    let (feature, by_hash) = columns.strings.get(&number).ok_or_else(|| {
        damaged(format!("`cat_feature_index` is {number}, but no categorical feature has this index"))
    })?;
    let hash = hash(&split["value"])?;
    let same = by_hash.get(&hash).ok_or_else(|| {
        Error::invalid(format!(
            "the category of hash {hash} is not in the file: save the model with \
             `save_model('m.json', format='json', pool=the_training_pool)`"
        ))
    })?;
    // One more boundary, above all others, turns the answer around.
    let mut edges = Test::category_in(same, false).boundaries().to_vec();
    edges.push(f64::INFINITY);
    Ok(Question { feature: *feature, test: Test::Within(edges.into()), missing: Missing::Left })
}

/// The training parameters, which some versions write as text.
fn params(info: &Value) -> Value {
    match &info["params"] {
        Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
        params => params.clone(),
    }
}

/// The loss function's name, without its parameters; empty if the file does not say.
fn loss(info: &Value) -> String {
    params(info)["loss_function"]["type"].as_str().unwrap_or_default().to_string()
}

/// What margins stand for under this loss.
fn link(loss: &str, outputs: usize) -> Result<Link> {
    match loss {
        "Logloss" | "CrossEntropy" | "Focal" | "MultiClassOneVsAll" | "MultiLogloss" | "MultiCrossEntropy" => {
            Ok(Link::Sigmoid { steepness: 1.0 })
        }
        "MultiClass" if outputs > 1 => Ok(Link::Softmax),
        "Poisson" | "Tweedie" => Ok(Link::Exp),
        "RMSEWithUncertainty" => Err(Error::invalid(
            "the loss `RMSEWithUncertainty`, whose two outputs stand for different things, cannot be scored here: \
             train with `RMSE`",
        )),
        _ => Ok(Link::Identity),
    }
}

/// The names of the classes, if there are any.
fn classes(info: &Value) -> Vec<String> {
    let given = match &info["class_params"] {
        Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
        params => params.clone(),
    };
    let name = |class: &Value| class.as_str().map_or_else(|| class.to_string(), str::to_string);
    list(&given, "class_names").iter().map(name).collect()
}

/// Library and version, as far as the file says.
fn format(info: &Value) -> String {
    let text = info["catboost_version_info"].as_str().unwrap_or_default();
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("tags/v"));
    version.map_or_else(|| "CatBoost JSON".to_string(), |version| format!("CatBoost JSON {version}"))
}
