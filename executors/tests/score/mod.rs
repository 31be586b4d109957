//! The scorer: against models written by hand, damaged models, SQL, every kernel, and what the
//! libraries that trained the models predict.

mod fuzz;
mod hostile;
mod kernels;
mod parity_catboost;
mod parity_lightgbm;
mod parity_linear;
mod parity_onnx;
mod parity_xgboost;
mod semantics;
mod sql;

use featurectl_executors::score::Model;

/// A split as (feature, threshold, decision bits, left, right).
type SplitText = (u32, &'static str, u8, i32, i32);

/// A tree section as LightGBM writes it.
fn tree_text(index: usize, splits: &[SplitText], leaves: &str) -> String {
    let column = |value: &dyn Fn(&SplitText) -> String| splits.iter().map(value).collect::<Vec<_>>().join(" ");
    format!(
        "Tree={index}\nnum_leaves={}\nnum_cat=0\nsplit_feature={}\nsplit_gain=\nthreshold={}\ndecision_type={}\n\
         left_child={}\nright_child={}\nleaf_value={leaves}\nis_linear=0\nshrinkage=1\n\n\n",
        splits.len() + 1,
        column(&|s| s.0.to_string()),
        column(&|s| s.1.to_string()),
        column(&|s| s.2.to_string()),
        column(&|s| s.3.to_string()),
        column(&|s| s.4.to_string()),
    )
}

/// A model file of these trees over the features `a` and `b`.
fn model_text(objective: &str, trees: &[String]) -> String {
    let sizes: Vec<String> = trees.iter().map(|tree| tree.len().to_string()).collect();
    format!(
        "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx=1\n\
         objective={objective}\nfeature_names=a b\nfeature_infos=[0:1] [0:1]\ntree_sizes={}\n\n{}end of trees\n\n\
         feature_importances:\na=2\n\nparameters:\n[boosting: gbdt]\nend of parameters\n",
        sizes.join(" "),
        trees.concat()
    )
}

/// `a <= 0.5` (NaN goes left), there `b <= 2` (nothing missing); then a tree of one leaf, 0.25.
fn small_text(objective: &str) -> String {
    let first = tree_text(0, &[(0, "0.5", 10, 1, -3), (1, "2", 0, -1, -2)], "1 2 4");
    model_text(objective, &[first, tree_text(1, &[], "0.25")])
}

/// The model of a text that is right.
fn model(name: &str, text: &str) -> Model {
    match Model::from_bytes(name, text.as_bytes()) {
        Ok(model) => model,
        Err(e) => panic!("{e}\n{text}"),
    }
}
