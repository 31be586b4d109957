//! `CREATE FEATURE SERVICE` and `CREATE TRAINING SET`.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::common::{DFSchema, plan_err};
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::ExprSchemable;
use datafusion::logical_expr::sqlparser::ast::{
    self, CastKind, Expr, FunctionArg, FunctionArgExpr, GroupByExpr, Ident, Query, SelectItem, Spanned, TableAlias,
    TableFactor, Value,
};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::ExprWithAlias;

use super::query::{self, select_of};
use super::{Analyzer, Found, select_all};
use crate::asof::{SqlProblem, check_request, service_and_table};
use crate::definition::{FeatureService, TrainingSet};
use crate::diagnostic::{Diagnostic, Span, closest};
use crate::lineage::lineage;
use crate::sql::{self, CreateFeatureService, CreateTrainingSet, ObjectKind, REQUEST};

impl Analyzer {
    /// Replaces every `service_inputs('service', table)` by a query: the table's columns, then the service's.
    pub(super) async fn expand_services(&self, statement: &mut DfStatement, span: Span) -> Found<()> {
        let mut inner = statement;
        while let DfStatement::Explain(e) = inner {
            inner = e.statement.as_mut();
        }
        let DfStatement::Statement(tree) = inner else { return Ok(()) };
        while let Some((args, alias)) = sql::find_service_inputs(tree) {
            let expanded = self.service_inputs(&args).await;
            let query =
                expanded.map_err(|e| vec![query::diagnose(&e, &self.source, span, &query::tables(&self.ctx))])?;
            let unnamed = TableAlias { explicit: true, name: Ident::new("service_inputs"), columns: vec![], at: None };
            let alias = Some(alias.unwrap_or(unnamed));
            let derived = TableFactor::Derived { lateral: false, subquery: Box::new(query), alias, sample: None };
            sql::replace_service_inputs(tree, derived);
        }
        Ok(())
    }

    async fn service_inputs(&self, args: &[FunctionArg]) -> DfResult<Query> {
        let (name, span, table) = service_and_table(args)?;
        let Some(service) = self.relations.get(&name) else {
            let help = closest(&name, self.relations.names()).map(|s| format!("did you mean `{s}`?"));
            return SqlProblem::error("unknown-service", format!("no feature service `{name}`"), span, help);
        };
        let mut rows = query::statement_of(select_all(table.clone()));
        self.rewrite(&mut rows);
        let rows = query::try_plan(&self.ctx, rows).await?;
        check_request(&service, rows.schema(), span)?;
        let mut query = service.query.clone();
        let Some(alias) = sql::replace_request(&mut query.body, table) else {
            return plan_err!("feature service `{name}` does not begin with FROM request");
        };
        if let Some(select) = select_of(&mut query) {
            let kept = rows.schema().fields().iter().filter(|f| service.output.field_with_name(f.name()).is_err());
            let kept = kept.map(|f| {
                let parts = vec![Ident::with_quote('"', &alias), Ident::with_quote('"', f.name())];
                SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts))
            });
            select.projection = kept.chain(std::mem::take(&mut select.projection)).collect();
        }
        Ok(query)
    }

    pub(super) async fn feature_service(
        &mut self,
        create: &CreateFeatureService,
        span: Span,
    ) -> Found<Arc<FeatureService>> {
        let request = Arc::new(Schema::new(self.request_fields(create)?));
        let mut body = create.query.clone();
        self.check_shape(create, &mut body)?;
        let table = EmptyTable::new(Arc::clone(&request));
        let _ = self.ctx.deregister_table(REQUEST);
        let registered = self.ctx.register_table(REQUEST, Arc::new(table));
        registered.map_err(|e| vec![query::diagnose(&e, &self.source, span, &[])])?;
        let planned = self.plan(query::statement_of(body), span).await;
        let _ = self.ctx.deregister_table(REQUEST);
        let plan = planned?;
        let output = Arc::new(plan.schema().as_arrow().clone());
        let found = lineage(&plan).map_err(|e| vec![Diagnostic::error("invalid-query", e.to_string(), span)])?;
        let views = found.views.into_keys().collect();
        let mut query = create.query.clone();
        let times = match_times(&mut query, &request);
        sql::nest_asof_joins(&mut query);
        let columns: Vec<_> = create.request.iter().map(ToString::to_string).collect();
        let sql = format!("FEATURE SERVICE {} ({}) AS {}", create.name, columns.join(", "), create.query);
        let service =
            Arc::new(FeatureService { name: create.name.value.clone(), request, query, output, views, times, sql });
        self.relations.insert(Arc::clone(&service));
        Ok(service)
    }

    fn request_fields(&self, create: &CreateFeatureService) -> Found<Vec<Field>> {
        let (mut fields, mut problems): (Vec<Field>, Vec<Diagnostic>) = (Vec::new(), Vec::new());
        for column in &create.request {
            let name = &column.name.value;
            if fields.iter().any(|f| f.name() == name) {
                let place = self.place(&column.name);
                problems.push(Diagnostic::error("duplicate-column", format!("two columns are called `{name}`"), place));
            }
            let cast = Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(Expr::Value(Value::Null.into())),
                data_type: column.data_type.clone(),
                array: false,
                format: None,
            };
            let typed = self
                .ctx
                .state()
                .create_logical_expr_from_sql_expr(ExprWithAlias { expr: cast, alias: None }, &DFSchema::empty())
                .and_then(|e| e.get_type(&DFSchema::empty()));
            match typed {
                Ok(data_type) => fields.push(Field::new(name, data_type, true)),
                Err(e) => {
                    let place = self.place(&column.name);
                    let d = query::diagnose(&e, &self.source, place, &[]);
                    problems.push(Diagnostic { code: "unknown-type", ..d });
                }
            }
        }
        if problems.is_empty() { Ok(fields) } else { Err(problems) }
    }

    /// One row in, one row out: a plain select over the request.
    fn check_shape(&self, create: &CreateFeatureService, body: &mut Query) -> Found<()> {
        let place = self.place(&create.name);
        let plain =
            body.with.is_none() && body.order_by.is_none() && body.limit_clause.is_none() && body.fetch.is_none();
        let select_plain = select_of(body).is_some_and(|s| {
            let ungrouped = matches!(&s.group_by, GroupByExpr::Expressions(e, _) if e.is_empty());
            s.distinct.is_none() && ungrouped && s.having.is_none() && s.qualify.is_none() && s.selection.is_none()
        });
        if !plain || !select_plain {
            let d = Diagnostic::error("service-shape", "a feature service gives one row for each request", place);
            return Err(vec![d.help(
                "a plain SELECT … FROM request … ASOF JOIN …: no WHERE, GROUP BY, DISTINCT, ORDER BY or LIMIT",
            )]);
        }
        if sql::replace_request(&mut body.body.clone(), sql::table_factor(vec![Ident::new(REQUEST)].into())).is_none() {
            let d = Diagnostic::error("service-shape", "a feature service begins with FROM request", place);
            return Err(vec![d.help("write FROM request r, then join the views to it")]);
        }
        let joins = select_of(body).map(|s| s.from[0].joins.as_slice()).unwrap_or_default();
        let multiplying = joins.iter().find(|j| {
            !matches!(
                j.join_operator,
                ast::JoinOperator::AsOf { .. } | ast::JoinOperator::LeftOuter(_) | ast::JoinOperator::Left(_)
            )
        });
        match multiplying {
            None => Ok(()),
            Some(join) => {
                let span = self.source.span(join.relation.span()).unwrap_or(place);
                let d = Diagnostic::error("service-shape", "this join can drop or repeat a request", span);
                Err(vec![d.help("use ASOF JOIN or LEFT JOIN")])
            }
        }
    }

    pub(super) async fn training_set(&mut self, create: &CreateTrainingSet, span: Span) -> Found<Arc<TrainingSet>> {
        let Some(service) = self.relations.get(&create.service.value) else {
            let names = self.relations.names();
            let mut problems = self.unknown(ObjectKind::FeatureService, &create.service, names.iter());
            problems
                .extend(self.plan(query::statement_of(create.query.clone()), span).await.err().into_iter().flatten());
            return Err(problems);
        };
        self.plan(query::statement_of(create.query.clone()), span).await?;
        let name = Expr::Value(Value::SingleQuotedString(service.name.clone()).with_span(create.service.span));
        let args = [name, Expr::Subquery(Box::new(create.query.clone()))];
        let factor = TableFactor::Function {
            lateral: false,
            name: vec![Ident::new("service_inputs")].into(),
            args: args.into_iter().map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e))).collect(),
            with_ordinality: false,
            alias: None,
        };
        let plan = self.plan(query::statement_of(select_all(factor)), span).await?;
        let set = Arc::new(TrainingSet {
            name: create.name.value.clone(),
            service: service.name.clone(),
            schema: Arc::new(plan.schema().as_arrow().clone()),
            plan,
            features: service.output.fields().iter().map(|f| f.name().clone()).collect(),
            sql: format!("TRAINING SET {} FROM SERVICE {} AS {}", create.name, create.service, create.query),
        });
        self.known.training_sets.insert(set.name.clone(), Arc::clone(&set));
        Ok(set)
    }
}

/// The request's timestamps that a MATCH_CONDITION of the body names.
fn match_times(query: &mut Query, request: &Schema) -> Vec<String> {
    let joins = select_of(query).and_then(|s| s.from.first()).map(|f| f.joins.as_slice()).unwrap_or_default();
    let conditions: Vec<String> = joins
        .iter()
        .filter_map(|j| match &j.join_operator {
            ast::JoinOperator::AsOf { match_condition, .. } => Some(match_condition.to_string()),
            _ => None,
        })
        .collect();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let named = |name: &str| conditions.iter().any(|c| c.split(|c| !is_word(c)).any(|word| word == name));
    request.fields().iter().map(|f| f.name().clone()).filter(|name| named(name)).collect()
}
