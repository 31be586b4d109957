//! `predict` through a session: values, missing values and what is refused when.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use datafusion::error::Result as DfResult;
use datafusion::prelude::SessionContext;
use featurectl_core::{Error, ErrorKind};
use featurectl_executors::score::{ModelSet, Output, Scorer, predict_udf};

use super::{model, small_text};

fn scorer(name: &str, text: &str) -> Scorer {
    Scorer::new(model(name, text))
}

/// A session with the trained models `m` and `n`, and `soon`, which is only declared.
async fn session() -> (SessionContext, Arc<ModelSet>) {
    let models = Arc::new(ModelSet::default());
    models.insert(Arc::new(scorer("m", &small_text("regression")))).unwrap();
    models.declare("soon", vec!["x".into()]);
    let session = SessionContext::new();
    session.register_udf(predict_udf(models.clone(), Output::Prediction));
    let rows = "(1, 0.5, 2, true, 'u'), (2, 0.6, 2, false, 'v'), (3, NULL, 3, NULL, NULL), (4, 0.1, NULL, true, 'w')";
    run(&session, &format!("CREATE TABLE t AS SELECT * FROM (VALUES {rows}) AS v(id, a, b, flag, word)"))
        .await
        .unwrap();
    (session, models)
}

/// Runs a query.
async fn run(session: &SessionContext, query: &str) -> DfResult<Vec<RecordBatch>> {
    session.sql(query).await?.collect().await
}

/// The first column of a query's rows.
async fn scores(session: &SessionContext, query: &str) -> Vec<f64> {
    let batches = run(session, query).await.unwrap();
    batches.iter().flat_map(|b| b.column(0).as_primitive::<Float64Type>().values().to_vec()).collect()
}

/// The error of a query that must fail before it runs.
async fn refused(session: &SessionContext, query: &str) -> Error {
    Error::from(session.sql(query).await.expect_err(query))
}

#[tokio::test]
async fn columns_of_a_table_are_scored_with_their_nulls_missing() {
    let (session, _) = session().await;
    assert_eq!(scores(&session, "SELECT predict('m', a, b) FROM t ORDER BY id").await, [1.25, 4.25, 2.25, 1.25]);
    assert_eq!(scores(&session, "SELECT predict('m', flag, id) FROM t ORDER BY id").await, [4.25, 1.25, 2.25, 4.25]);
    assert_eq!(scores(&session, "SELECT predict('m', a, NULL) FROM t ORDER BY id").await, [1.25, 4.25, 1.25, 1.25]);
}

#[tokio::test]
async fn constants_and_expressions_are_scored() {
    let (session, _) = session().await;
    assert_eq!(scores(&session, "SELECT predict('m', 0, 5)").await, [2.25]);
    assert_eq!(scores(&session, "SELECT predict('m', 0, 5) FROM t").await, [2.25; 4]);
    assert_eq!(scores(&session, "SELECT predict('m', a + 1, b * 2) FROM t WHERE predict('m', a, b) > 4").await, [4.25]);
}

#[tokio::test]
async fn wrong_calls_are_refused_before_they_run() {
    let (session, _) = session().await;
    for (call, kind, message) in [
        ("predict('mm', a, b)", ErrorKind::NotFound, "no model `mm`: did you mean `m`?"),
        (
            "predict('zzzzzz', a, b)",
            ErrorKind::NotFound,
            "no model `zzzzzz`: declare it with CREATE MODEL, or give the path",
        ),
        ("predict('m', b)", ErrorKind::Invalid, "model `m` takes 2 features, (a, b), not 1: `a` missing"),
        ("predict('m', id)", ErrorKind::Invalid, "model `m` takes 2 features, (a, b), not 1: `b` missing"),
        ("predict('m')", ErrorKind::Invalid, "model `m` takes 2 features, (a, b), not 0: `a`, `b` missing"),
        ("predict('m', id, a, b)", ErrorKind::Invalid, "model `m` takes 2 features, (a, b), not 3: `id` too many"),
        ("predict('m', a, word)", ErrorKind::Invalid, "feature `b` of model `m` is Utf8"),
        ("predict(word, a, b)", ErrorKind::Invalid, "the first argument of `predict` is the model's name as a string"),
        ("predict(1, a, b)", ErrorKind::Invalid, "the first argument of `predict` is the model's name as a string"),
        ("predict()", ErrorKind::Invalid, "the first argument of `predict` is the model's name as a string"),
    ] {
        let e = refused(&session, &format!("SELECT {call} FROM t")).await;
        assert!(e.to_string().contains(message), "{call}: `{e}` does not say `{message}`");
        assert_eq!(e.kind(), kind, "{call}: {e}");
    }
}

#[tokio::test]
async fn a_declared_model_can_be_planned_and_runs_once_it_is_trained() {
    let (session, models) = session().await;
    for query in ["SELECT predict('soon', a) FROM t", "SELECT predict('soon', 1)"] {
        let planned = session.sql(query).await.unwrap();
        let e = Error::from(planned.collect().await.unwrap_err());
        let expected = "model `soon` is not trained yet: run the job that has its CREATE MODEL";
        assert_eq!((e.kind(), e.to_string().contains(expected)), (ErrorKind::NotFound, true), "{e}");
    }
    let planned = session.sql("SELECT predict('soon', a) FROM t").await.unwrap();
    let text = small_text("regression").replace("feature_names=a b", "feature_names=x").replace("idx=1", "idx=0");
    let text = text.replace("split_feature=0 1", "split_feature=0 0");
    models.insert(Arc::new(scorer("soon", &text))).unwrap();
    assert_eq!(planned.collect().await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), 4);
}

#[test]
fn a_model_set_keeps_signatures_and_refuses_a_model_of_another_one() {
    let models = ModelSet::default();
    let trained = Arc::new(scorer("m", &small_text("regression")));
    models.declare("m", vec!["b".into(), "a".into()]);
    let e = models.insert(trained.clone()).unwrap_err();
    let expected = "model `m` is declared with the features (b, a), but was trained on (a, b): train it again";
    assert_eq!((e.kind(), e.to_string().as_str()), (ErrorKind::Conflict, expected));
    let signature = vec!["a".to_string(), "b".to_string()];
    models.declare("m", signature.clone());
    assert!(models.get("m").is_none());
    models.insert(trained).unwrap();
    models.declare("m", signature.clone());
    assert!(models.get("m").is_some(), "declared again as it is");
    models.declare("k", vec!["a".into()]);
    assert_eq!((models.names(), models.features("m")), (vec!["k".into(), "m".into()], Some(signature)));
    models.declare("m", vec!["a".into()]);
    assert!(models.get("m").is_none(), "declared anew");
    assert!(models.features("x").is_none());
}

#[test]
fn functions_over_the_same_models_are_equal() {
    let (one, two) = (Arc::new(ModelSet::default()), Arc::new(ModelSet::default()));
    assert_eq!(predict_udf(one.clone(), Output::Prediction), predict_udf(one.clone(), Output::Prediction));
    assert_ne!(predict_udf(one.clone(), Output::Prediction), predict_udf(one.clone(), Output::Margin));
    assert_ne!(predict_udf(one, Output::Prediction), predict_udf(two, Output::Prediction));
}

#[tokio::test]
async fn a_path_of_a_model_file_is_a_model_and_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let models = Arc::new(ModelSet::new(folder.path()));
    let session = SessionContext::new();
    Output::ALL.into_iter().for_each(|output| session.register_udf(predict_udf(Arc::clone(&models), output)));
    let write = |objective: &str| std::fs::write(folder.path().join("m.txt"), small_text(objective)).unwrap();
    write("regression");
    assert_eq!(scores(&session, "SELECT predict('m.txt', 0, 5)").await, [2.25]);
    write("binary sigmoid:1");
    assert_eq!(scores(&session, "SELECT predict('m.txt', 0, 5)").await, [1.0 / (1.0 + (-2.25f64).exp())]);
    assert_eq!(scores(&session, "SELECT predict_raw('m.txt', 0, 5)").await, [2.25]);
    let rows = run(&session, "SELECT predict_class('m.txt', 0, 5), predict_leaf('m.txt', 0, 5)").await.unwrap();
    let text = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
    assert!(text.contains("| 1") && text.contains("[1, 0]"), "{text}");
    std::fs::write(folder.path().join("m.txt"), "tree\nversion=v4\n").unwrap();
    let e = refused(&session, "SELECT predict('m.txt', 0, 5)").await;
    assert!(e.to_string().contains("loading model `m.txt`"), "{e}");
    let e = refused(&session, "SELECT predict('n.txt', 0, 5)").await;
    assert!(e.to_string().contains("no model `n.txt`"), "{e}");
}
