//! Features of a service by request, in a session that serves.
//!
//! ```text
//!  first request of a service ──check, plan──▶ plan over an empty request ──┐
//!  every request ──────────────────────────────────────────── its rows ─────┴──▶ features
//! ```

use std::sync::{Arc, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::datasource::MemTable;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::physical_plan::{ExecutionPlan, collect};
use featurectl_core::check::Checked;
use featurectl_core::sql::REQUEST;
use featurectl_core::{Error, Result, Source};

use crate::session::Session;

impl Session {
    /// The rows of `request` with the features of `service`, in a session that serves. `request` has the columns of the
    /// service's request, and can have others.
    ///
    /// Errors: [`NotFound`](featurectl_core::ErrorKind::NotFound) for a view that was not materialized,
    /// [`Invalid`](featurectl_core::ErrorKind::Invalid) if a column is missing.
    pub async fn read_service(&self, service: &str, request: RecordBatch) -> Result<Vec<RecordBatch>> {
        let plan = with_rows(self.service_plan(service, request.schema()).await?, &request)?;
        Ok(collect(plan, self.ctx.task_ctx()).await?)
    }

    /// The plan of a service over an empty request with these columns, which is made once.
    async fn service_plan(&self, name: &str, request: SchemaRef) -> Result<Arc<dyn ExecutionPlan>> {
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

/// A plan whose tables in memory, which are the request, have these rows.
fn with_rows(plan: Arc<dyn ExecutionPlan>, rows: &RecordBatch) -> Result<Arc<dyn ExecutionPlan>> {
    let schema: SchemaRef = rows.schema();
    let fill = |node: Arc<dyn ExecutionPlan>| {
        let source = node.downcast_ref::<DataSourceExec>().map(|s| s.data_source());
        match source.and_then(|s| s.downcast_ref::<MemorySourceConfig>()) {
            Some(empty) if empty.original_schema() == schema => {
                let projection = empty.projection().clone();
                let filled = MemorySourceConfig::try_new_exec(&[vec![rows.clone()]], Arc::clone(&schema), projection)?;
                Ok(Transformed::yes(filled as _))
            }
            _ => Ok(Transformed::no(node)),
        }
    };
    Ok(plan.transform_up(fill).data()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Project;
    use crate::session::Extensions;
    use arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray};

    #[tokio::test]
    async fn a_service_that_is_read_leaves_the_plans_of_others() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("t.csv"), "k,ts,x\n1,1970-01-01T00:00:00,2\n").expect("a file");
        let service = |name| {
            format!(
                "CREATE FEATURE SERVICE {name} (k BIGINT, at TIMESTAMP) AS
                 SELECT r.k, v.x FROM request r ASOF JOIN v MATCH_CONDITION (r.at > v.ts) ON r.k = v.k;"
            )
        };
        let job = "CREATE EXTERNAL TABLE t (k BIGINT, ts TIMESTAMP, x BIGINT) STORED AS CSV LOCATION 't.csv';
            CREATE FEATURE VIEW v ENTITY (k) EVENT TIME ts WITH (online = true) AS SELECT x FROM t;
            MATERIALIZE FEATURE VIEW v;";
        let session = Session::open(Project::at(folder.path()), &Extensions::default()).expect("a session");
        session.sql(&format!("{job}{}{}", service("one"), service("two"))).await.expect("a run");
        drop(session);
        let session =
            Session::open_serving(Project::at(folder.path()), &Extensions::default()).await.expect("it serves");
        let columns: [(&str, ArrayRef); 2] = [
            ("k", Arc::new(Int64Array::from(vec![1]))),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![1_000_000]))),
        ];
        let request = RecordBatch::try_from_iter(columns).expect("a request");
        for name in ["one", "two", "one"] {
            session.read_service(name, request.clone()).await.expect("features");
        }
        let planned = |session: &Session| session.plans.lock().expect("no panic").len();
        assert_eq!(planned(&session), 2);
        session.check(Source::new("text", service("two"))).await;
        assert_eq!(planned(&session), 0, "it may be another service now");
    }
}
