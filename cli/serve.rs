//! Features of a service by request, in a session that serves.
//!
//! ```text
//!  first request of a service ──check, plan──▶ plan over an empty request ──┐
//!  every request ──────────────────────────────────────────── its rows ─────┴──▶ features
//! ```

use std::sync::{Arc, PoisonError};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::datasource::MemTable;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr, collect};
use featurectl_core::check::Checked;
use featurectl_core::sql::REQUEST;
use featurectl_core::{Error, Result, Source};
use featurectl_feature_store::OnlineReadExec;

use crate::session::Session;

impl Session {
    /// The rows of `request` with the features of `service`, in a session that serves. `request` has the columns of the
    /// service's request, and can have others.
    ///
    /// Errors: [`NotFound`](featurectl_core::ErrorKind::NotFound) for a view that was not materialized,
    /// [`Invalid`](featurectl_core::ErrorKind::Invalid) if a column is missing.
    pub async fn read_service(&self, service: &str, request: RecordBatch) -> Result<Vec<RecordBatch>> {
        let plan = self.service_plan(service, request.schema()).await?;
        match plan.as_ref() {
            RequestPlan::Steps(steps) => apply(steps, request).await.map(|rows| vec![rows]),
            RequestPlan::Any(plan) => {
                let plan = with_rows(Arc::clone(plan), &request)?;
                Ok(collect(plan, self.ctx.task_ctx()).await?)
            }
        }
    }

    /// The plan of a service over an empty request with these columns, which is made once.
    async fn service_plan(&self, name: &str, request: SchemaRef) -> Result<Arc<RequestPlan>> {
        let known = self.plans.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some((of, plan)) = known
            && of == request
        {
            return Ok(plan);
        }
        let _planning = self.planning.lock().await;
        let empty = MemTable::try_new(Arc::clone(&request), vec![vec![]])?;
        let _ = self.ctx.deregister_table(REQUEST)?;
        self.ctx.register_table(REQUEST, Arc::new(empty))?;
        let text = format!("SELECT * FROM service_inputs('{name}', {REQUEST})");
        let job = self.check_text(Source::new("sql", text)).await;
        let _ = self.ctx.deregister_table(REQUEST)?;
        let query = match (job.diagnostics.first(), job.statements.into_iter().next()) {
            (None, Some((_, Checked::Query(query)))) => query,
            (Some(problem), _) => return Err(Error::invalid(problem.to_string())),
            (None, _) => return Err(Error::internal("a request of a service is no query")),
        };
        let plan = self.ctx.state().create_physical_plan(&query).await?;
        let plan = Arc::new(match steps(&plan, &request) {
            Some(steps) => RequestPlan::Steps(steps),
            None => RequestPlan::Any(plan),
        });
        if is_lasting(&query)? {
            let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
            plans.insert(name.to_string(), (request, Arc::clone(&plan)));
        }
        Ok(plan)
    }
}

/// Whether a query means the same at any time. What depends on the time of the query, as `now()` does, is worked out when
/// it is planned.
fn is_lasting(query: &LogicalPlan) -> Result<bool> {
    let mut lasting = true;
    query.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if let Expr::ScalarFunction(f) = e {
                    lasting &= f.func.signature().volatility == Volatility::Immutable;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(lasting)
}

/// How the rows of a request become features.
pub(crate) enum RequestPlan {
    /// By these steps, one after the other.
    Steps(Vec<Step>),
    /// By a plan over an empty request.
    Any(Arc<dyn ExecutionPlan>),
}

/// What a node does to rows.
pub(crate) enum Step {
    /// Only these columns stay, in this order.
    Columns(Vec<usize>),
    /// The features of a view are added, and of all columns these stay.
    Read(OnlineReadExec, Vec<usize>, SchemaRef),
    /// These columns are made.
    Project(Vec<Arc<dyn PhysicalExpr>>, SchemaRef),
}

/// The steps of a plan; `None` if a node does something else.
fn steps(plan: &Arc<dyn ExecutionPlan>, request: &SchemaRef) -> Option<Vec<Step>> {
    let children = plan.children();
    let [child] = children.as_slice() else {
        let columns = rows_of(plan, request)?.projection().clone();
        return children.is_empty().then(|| columns.into_iter().map(Step::Columns).collect());
    };
    let mut steps = steps(child, request)?;
    if let Some(read) = plan.downcast_ref::<OnlineReadExec>() {
        steps.push(Step::Read(read.clone(), (0..plan.schema().fields().len()).collect(), plan.schema()));
    } else if let Some(project) = plan.downcast_ref::<ProjectionExec>() {
        let exprs: Vec<_> = project.expr().iter().map(|column| Arc::clone(&column.expr)).collect();
        let places = exprs.iter().map(|e| e.downcast_ref::<Column>().map(Column::index)).collect::<Option<Vec<_>>>();
        match (places, steps.last_mut()) {
            (Some(places), Some(Step::Read(_, kept, schema))) => {
                *kept = places.into_iter().map(|place| kept[place]).collect();
                *schema = plan.schema();
            }
            _ => steps.push(Step::Project(exprs, plan.schema())),
        }
    } else if !plan.is::<CooperativeExec>() && !plan.is::<RepartitionExec>() {
        // These two leave rows as they are.
        return None;
    }
    Some(steps)
}

/// Applies `steps` to the rows of a request.
async fn apply(steps: &[Step], mut rows: RecordBatch) -> Result<RecordBatch> {
    for step in steps {
        rows = match step {
            Step::Columns(columns) => rows.project(columns)?,
            Step::Read(read, kept, schema) => {
                let columns = read.read(&rows).await?;
                let columns = kept.iter().map(|place| Arc::clone(&columns[*place])).collect();
                let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
                RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?
            }
            Step::Project(columns, schema) => {
                let count = rows.num_rows();
                let columns = columns.iter().map(|column| column.evaluate(&rows)?.into_array(count));
                let columns = columns.collect::<Result<_, DataFusionError>>()?;
                let options = RecordBatchOptions::new().with_row_count(Some(count));
                RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?
            }
        };
    }
    Ok(rows)
}

/// The request in a plan, if the node is that.
fn rows_of<'a>(node: &'a Arc<dyn ExecutionPlan>, request: &SchemaRef) -> Option<&'a MemorySourceConfig> {
    let source = node.downcast_ref::<DataSourceExec>().map(|s| s.data_source());
    source.and_then(|s| s.downcast_ref::<MemorySourceConfig>()).filter(|s| s.original_schema() == *request)
}

/// A plan whose tables in memory, which are the request, have these rows.
fn with_rows(plan: Arc<dyn ExecutionPlan>, rows: &RecordBatch) -> Result<Arc<dyn ExecutionPlan>> {
    let schema: SchemaRef = rows.schema();
    let fill = |node: Arc<dyn ExecutionPlan>| match rows_of(&node, &schema) {
        Some(empty) => {
            let projection = empty.projection().clone();
            let filled = MemorySourceConfig::try_new_exec(&[vec![rows.clone()]], Arc::clone(&schema), projection)?;
            Ok(Transformed::yes(filled as _))
        }
        None => Ok(Transformed::no(node)),
    };
    Ok(plan.transform_up(fill).data()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Project;
    use crate::session::Extensions;
    use arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray};

    /// A session that serves these services over a view with `x` = 2 of `k` = 1, and 3 of 2.
    async fn serving(folder: &std::path::Path, services: &str) -> Session {
        let rows = "k,ts,x\n1,1970-01-01T00:00:00,2\n2,1970-01-01T00:00:00,3\n";
        std::fs::write(folder.join("t.csv"), rows).expect("a file");
        let job = "CREATE EXTERNAL TABLE t (k BIGINT, ts TIMESTAMP, x BIGINT) STORED AS CSV LOCATION 't.csv';
            CREATE FEATURE VIEW v ENTITY (k) EVENT TIME ts WITH (online = true) AS SELECT x FROM t;
            MATERIALIZE FEATURE VIEW v;";
        let session = Session::open(Project::at(folder), &Extensions::default()).expect("a session");
        session.sql(&format!("{job}{services}")).await.expect("a run");
        drop(session);
        Session::open_serving(Project::at(folder), &Extensions::default()).await.expect("it serves")
    }

    fn request(keys: &[i64]) -> RecordBatch {
        let columns: [(&str, ArrayRef); 2] = [
            ("k", Arc::new(Int64Array::from(keys.to_vec()))),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![1_000_000; keys.len()]))),
        ];
        RecordBatch::try_from_iter(columns).expect("a request")
    }

    #[tokio::test]
    async fn steps_and_plans_give_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let session = serving(
            folder.path(),
            "CREATE FEATURE SERVICE s (k BIGINT, at TIMESTAMP) AS
             SELECT r.at, v.x * r.k + coalesce(w.x, 7) AS y, upper(concat('a', r.k)) AS z, w.* FROM request r
             ASOF JOIN v MATCH_CONDITION (r.at > v.ts) ON r.k = v.k ASOF JOIN v w MATCH_CONDITION (r.at >= w.ts) ON r.k + 1 = w.k;
             CREATE FEATURE SERVICE t (k BIGINT, at TIMESTAMP) AS
             SELECT r.k, v.x, count(*) OVER () AS n FROM request r ASOF JOIN v MATCH_CONDITION (r.at > v.ts) ON r.k = v.k;",
        )
        .await;
        let request = request(&[1, 0, 2, 1]);
        let plan = session.service_plan("s", request.schema()).await.expect("a plan");
        assert!(matches!(plan.as_ref(), RequestPlan::Steps(_)));
        let rows = session.read_service("s", request.clone()).await.expect("features");
        let text = format!("SELECT * FROM service_inputs('s', {REQUEST})");
        let table = MemTable::try_new(request.schema(), vec![vec![request.clone()]]).expect("a table");
        session.ctx.register_table(REQUEST, Arc::new(table)).expect("it is not there");
        let planned = session.sql(&text).await.expect("features");
        let all =
            |batches: &[RecordBatch]| arrow::compute::concat_batches(&batches[0].schema(), batches).expect("rows");
        assert_eq!(all(&rows), all(&planned));
        session.ctx.deregister_table(REQUEST).expect("it is there");
        let plan = session.service_plan("t", request.schema()).await.expect("a plan");
        assert!(matches!(plan.as_ref(), RequestPlan::Any(_)), "what looks at several rows is no step");
        let rows = session.read_service("t", request).await.expect("features");
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 4);
    }

    #[tokio::test]
    async fn a_service_that_is_read_leaves_the_plans_of_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let service = |name| {
            format!(
                "CREATE FEATURE SERVICE {name} (k BIGINT, at TIMESTAMP) AS
                 SELECT r.k, v.x FROM request r ASOF JOIN v MATCH_CONDITION (r.at > v.ts) ON r.k = v.k;"
            )
        };
        let session = serving(folder.path(), &format!("{}{}", service("one"), service("two"))).await;
        let request = request(&[1]);
        for name in ["one", "two", "one"] {
            session.read_service(name, request.clone()).await.expect("features");
        }
        let plan = session.service_plan("one", request.schema()).await.expect("a plan");
        assert!(
            matches!(plan.as_ref(), RequestPlan::Steps(steps) if matches!(steps.last(), Some(Step::Read(..)))),
            "lookups are steps"
        );
        let planned = |session: &Session| session.plans.lock().expect("no panic").len();
        assert_eq!(planned(&session), 2);
        session.check(Source::new("text", service("two"))).await;
        assert_eq!(planned(&session), 0, "it may be another service now");
    }
}
