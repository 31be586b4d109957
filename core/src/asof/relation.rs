//! SQL → logical nodes: the relations DataFusion's own planner does not know.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, RwLock};

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Column, DFSchema, plan_err};
use datafusion::datasource::source_as_provider;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::sqlparser::ast::{
    self, BinaryOperator, FunctionArg, FunctionArgExpr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, Spanned,
    TableAlias, TableFactor, Value,
};
use datafusion::logical_expr::sqlparser::tokenizer::Span as SqlSpan;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{Expr, ExprSchemable, Extension, LogicalPlan, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::node::{AsOfNode, MatchOp, OnlineNode, ViewRef};
use crate::definition::{FeatureService, FeatureView};
use crate::sql;

/// A problem found while planning, with its place in the parser's terms.
#[derive(Debug, Clone)]
pub struct SqlProblem {
    /// A [diagnostic](crate::Diagnostic)'s code.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// Where; empty if unknown.
    pub span: SqlSpan,
    /// How to fix it.
    pub help: Option<String>,
}

impl SqlProblem {
    pub(crate) fn error<T>(code: &'static str, message: String, span: SqlSpan, help: Option<String>) -> Result<T> {
        Err(DataFusionError::External(Box::new(Self { code, message, span, help })))
    }
}

impl fmt::Display for SqlProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SqlProblem {}

/// Where the values of a feature view come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serve {
    /// Computed from the view's events.
    Offline,
    /// Read from the online store.
    Online,
}

/// A feature view in the catalog: it has a schema, but can only be read by an as-of join.
#[derive(Debug)]
pub struct FeatureViewTable {
    /// The view.
    pub view: Arc<FeatureView>,
    /// Where its values come from.
    pub serve: Serve,
    schema: SchemaRef,
}

impl FeatureViewTable {
    /// The table of `view`: entity columns, event time, features.
    pub fn new(view: Arc<FeatureView>, serve: Serve) -> Self {
        let time =
            Field::new(&view.event_time, DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None), true);
        let features = view.features.iter().map(|f| Arc::clone(&f.field));
        let fields: Vec<FieldRef> = view.entity.iter().cloned().chain([Arc::new(time)]).chain(features).collect();
        Self { schema: Arc::new(Schema::new(fields)), view, serve }
    }
}

#[async_trait]
impl TableProvider for FeatureViewTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let name = &self.view.name;
        let time = &self.view.event_time;
        plan_err!(
            "feature view `{name}` has values only as of a time: ASOF JOIN {name} MATCH_CONDITION (t > {name}.{time})"
        )
    }
}

/// The relation planner of `ASOF JOIN`, and the services of a session.
#[derive(Debug, Default)]
pub struct FeatureRelations {
    services: RwLock<HashMap<String, Arc<FeatureService>>>,
}

impl FeatureRelations {
    /// Makes a service known, or replaces it.
    pub fn insert(&self, service: Arc<FeatureService>) {
        self.write().insert(service.name.clone(), service);
    }

    /// Forgets a service.
    pub fn remove(&self, name: &str) {
        self.write().remove(name);
    }

    /// The service called `name`.
    pub fn get(&self, name: &str) -> Option<Arc<FeatureService>> {
        self.services.read().unwrap_or_else(|e| e.into_inner()).get(name).cloned()
    }

    /// The names of all services.
    pub fn names(&self) -> Vec<String> {
        self.services.read().unwrap_or_else(|e| e.into_inner()).keys().cloned().collect()
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<String, Arc<FeatureService>>> {
        self.services.write().unwrap_or_else(|e| e.into_inner())
    }
}

impl RelationPlanner for FeatureRelations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let planned = |plan, alias| Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))));
        match relation {
            TableFactor::NestedJoin { table_with_joins, alias }
                if matches!(
                    table_with_joins.joins.as_slice(),
                    [Join { join_operator: JoinOperator::AsOf { .. }, .. }]
                ) =>
            {
                let mut inner = *table_with_joins;
                let Some(join) = inner.joins.pop() else { return plan_err!("an as-of join without a right side") };
                planned(plan_asof(inner.relation, join, context)?, alias)
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

/// The arguments of `service_inputs('service', table)`.
pub(crate) fn service_and_table(args: &[FunctionArg]) -> Result<(String, SqlSpan, TableFactor)> {
    let expr = |a: &FunctionArg| match a {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e.clone()),
        _ => None,
    };
    let args: Vec<_> = args.iter().filter_map(expr).collect();
    if let [ast::Expr::Value(name), table] = args.as_slice()
        && let Value::SingleQuotedString(service) = &name.value
        && let Some(table) = table_argument(table)
    {
        return Ok((service.clone(), name.span, table));
    }
    let usage = "write service_inputs('service', table) or service_inputs('service', (SELECT …))";
    SqlProblem::error(
        "service-inputs",
        "wrong arguments of `service_inputs`".into(),
        SqlSpan::empty(),
        Some(usage.into()),
    )
}

fn table_argument(e: &ast::Expr) -> Option<TableFactor> {
    match e {
        ast::Expr::Identifier(name) => Some(sql::table_factor(vec![name.clone()].into())),
        ast::Expr::CompoundIdentifier(parts) => Some(sql::table_factor(parts.clone().into())),
        ast::Expr::Subquery(query) => Some(TableFactor::Derived {
            lateral: false,
            subquery: query.clone(),
            alias: Some(TableAlias { explicit: true, name: Ident::new(sql::REQUEST), columns: vec![], at: None }),
            sample: None,
        }),
        ast::Expr::Nested(inner) => table_argument(inner),
        _ => None,
    }
}

/// Whether a table has what a service's request needs.
pub(crate) fn check_request(service: &FeatureService, table: &DFSchema, span: SqlSpan) -> Result<()> {
    for field in service.request.fields() {
        let name = field.name();
        let problem = match table.field_with_unqualified_name(name) {
            Err(_) => Some(("missing-request-column", format!("has no column `{name}`"))),
            Ok(found) if coerced_key(found.data_type(), field.data_type()) => None,
            Ok(found) => {
                Some(("request-type", format!("has `{name}` as {}, not {}", found.data_type(), field.data_type())))
            }
        };
        if let Some((code, what)) = problem {
            let (service, data_type) = (&service.name, field.data_type());
            let help = format!("select it as `{name}`: CAST(… AS {data_type}) AS {name}");
            return SqlProblem::error(code, format!("the input of service `{service}` {what}"), span, Some(help));
        }
    }
    Ok(())
}

/// Whether a value of type `from` can stand for one of type `to` without loss.
fn coerced_key(from: &DataType, to: &DataType) -> bool {
    let is_string = |t: &DataType| matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let from = if let DataType::Dictionary(_, values) = from { values } else { from };
    from == to
        || (is_string(from) && is_string(to))
        || (from.is_integer() && to == &DataType::Int64 && from != &DataType::UInt64)
        || (from.is_integer()
            && to.is_integer()
            && from.primitive_width() < to.primitive_width()
            && (from.is_unsigned_integer() || to.is_signed_integer()))
        || (from.is_numeric() && to == &DataType::Float64)
        || (is_time(from) && is_time(to))
}

fn is_time(t: &DataType) -> bool {
    matches!(t, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
}

/// One as-of join while it is planned.
struct Sides {
    left: LogicalPlan,
    right: LogicalPlan,
    both: DFSchema,
}

fn plan_asof(left: TableFactor, join: Join, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let JoinOperator::AsOf { match_condition, constraint } = join.join_operator else {
        return plan_err!("not an as-of join");
    };
    let (left, right) = (context.plan(left)?, context.plan(join.relation)?);
    let both = left.schema().join(right.schema())?;
    let sides = Sides { left, right, both };
    let on = sides.keys(&constraint, context)?;
    let (times, op) = sides.match_condition(&match_condition, context)?;
    let condition_span = match_condition.span();
    match find_view(&sides.right) {
        Some((view, serve)) => sides.view_join(view, serve, on, times, op, condition_span),
        None => sides.table_join(on, times, op, condition_span),
    }
}

impl Sides {
    fn in_left(&self, e: &Expr) -> bool {
        is_within(e, self.left.schema())
    }

    /// Puts the expression over the left side first.
    fn order(&self, a: Expr, b: Expr) -> Option<(Expr, Expr, bool)> {
        match (
            self.in_left(&a) && is_within(&b, self.right.schema()),
            self.in_left(&b) && is_within(&a, self.right.schema()),
        ) {
            (true, _) => Some((a, b, false)),
            (_, true) => Some((b, a, true)),
            _ => None,
        }
    }

    fn keys(
        &self,
        constraint: &JoinConstraint,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Vec<(Expr, Expr, SqlSpan)>> {
        let mut equalities = Vec::new();
        match constraint {
            JoinConstraint::On(condition) => split_and(condition, &mut equalities),
            JoinConstraint::Using(names) => return names.iter().map(|n| self.using(n, context)).collect(),
            JoinConstraint::None => {}
            JoinConstraint::Natural => {
                let help = Some("name the keys: ON l.k = r.k, or USING (k)".to_string());
                return SqlProblem::error("asof-key", "an as-of join can't be NATURAL".into(), SqlSpan::empty(), help);
            }
        }
        equalities.into_iter().map(|e| self.equality(e, context)).collect()
    }

    fn equality(&self, e: &ast::Expr, context: &mut dyn RelationPlannerContext) -> Result<(Expr, Expr, SqlSpan)> {
        if let ast::Expr::BinaryOp { left, op: BinaryOperator::Eq, right } = e {
            let a = context.sql_to_expr(left.as_ref().clone(), &self.both)?;
            let b = context.sql_to_expr(right.as_ref().clone(), &self.both)?;
            if let Some((l, r, _)) = self.order(a, b) {
                return Ok((l, r, e.span()));
            }
        }
        let help = Some("only `left column = right column`, joined by AND; put filters in WHERE".to_string());
        SqlProblem::error("asof-key", format!("`{e}` is no key of an as-of join"), e.span(), help)
    }

    fn using(&self, name: &ObjectName, context: &mut dyn RelationPlannerContext) -> Result<(Expr, Expr, SqlSpan)> {
        let Some(ident) = name.0.last().and_then(|p| p.as_ident()) else {
            return plan_err!("USING takes column names");
        };
        let column = context.normalize_ident(ident.clone());
        let side = |plan: &LogicalPlan| {
            let (qualifier, field) = plan.schema().qualified_field_with_unqualified_name(&column)?;
            Ok::<_, DataFusionError>(Expr::Column(Column::from((qualifier, field))))
        };
        Ok((side(&self.left)?, side(&self.right)?, ident.span))
    }

    fn match_condition(
        &self,
        e: &ast::Expr,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<((Expr, Expr), MatchOp)> {
        let condition = if let ast::Expr::Nested(inner) = e { inner } else { e };
        if let ast::Expr::BinaryOp { left, op, right } = condition
            && let Some(op) = match_op(op)
        {
            let a = context.sql_to_expr(left.as_ref().clone(), &self.both)?;
            let b = context.sql_to_expr(right.as_ref().clone(), &self.both)?;
            if let Some((l, r, flipped)) = self.order(a, b) {
                return Ok(((l, r), if flipped { flip(op) } else { op }));
            }
        }
        let help =
            Some("write MATCH_CONDITION (l.time >= r.time), with one of > >= < <= and a column of each side".into());
        SqlProblem::error("match-condition", format!("`{e}` does not order the two sides by time"), e.span(), help)
    }

    fn table_join(
        self,
        on: Vec<(Expr, Expr, SqlSpan)>,
        times: (Expr, Expr),
        op: MatchOp,
        span: SqlSpan,
    ) -> Result<LogicalPlan> {
        let on = on.into_iter().map(|(l, r, span)| self.same_type(l, r, span)).collect::<Result<_>>()?;
        let times = self.same_type(times.0, times.1, span)?;
        let node = AsOfNode::try_new(self.left, self.right, on, times, op, None)?;
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }

    fn same_type(&self, l: Expr, r: Expr, span: SqlSpan) -> Result<(Expr, Expr)> {
        let (lt, rt) = (l.get_type(self.left.schema())?, r.get_type(self.right.schema())?);
        let Some(common) = comparison_coercion(&lt, &rt) else {
            return SqlProblem::error("type-mismatch", format!("{lt} can't be compared with {rt}"), span, None);
        };
        Ok((l.cast_to(&common, self.left.schema())?, r.cast_to(&common, self.right.schema())?))
    }

    fn view_join(
        self,
        reference: ViewRef,
        serve: Serve,
        on: Vec<(Expr, Expr, SqlSpan)>,
        times: (Expr, Expr),
        op: MatchOp,
        span: SqlSpan,
    ) -> Result<LogicalPlan> {
        let view = Arc::clone(&reference.view);
        self.check_time(&view, &times, op, span)?;
        let keys = self.entity_keys(&view, on, span)?;
        if serve == Serve::Online {
            let node = OnlineNode::try_new(self.left, reference, keys, times.0, op == MatchOp::GtEq)?;
            return Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }));
        }
        let column = |i: usize| Expr::Column(Column::from(view.events.schema().qualified_field(i)));
        let on = keys.into_iter().enumerate().map(|(i, left)| (left, column(i))).collect();
        let times = (times.0, column(view.time_column()));
        let node = AsOfNode::try_new(self.left, view.events.clone(), on, times, op, Some(reference))?;
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }

    fn check_time(&self, view: &FeatureView, times: &(Expr, Expr), op: MatchOp, span: SqlSpan) -> Result<()> {
        let (name, time) = (&view.name, &view.event_time);
        if !matches!(&times.1, Expr::Column(c) if c.name == *time) {
            let help = Some(format!("compare with its event time: … > {name}.{time}"));
            let message = format!("feature view `{name}` is not matched by its event time");
            return SqlProblem::error("match-condition", message, span, help);
        }
        if matches!(op, MatchOp::Lt | MatchOp::LtEq) {
            let help = Some(format!("turn it round: MATCH_CONDITION ({} > {name}.{time})", times.0));
            let message = format!("this lets `{name}` see the future: its events after `{}` would be used", times.0);
            return SqlProblem::error("leak", message, span, help);
        }
        match times.0.get_type(self.left.schema())? {
            t if is_time(&t) => Ok(()),
            t => {
                let message = format!("`{}` is {t}, but the event time of `{name}` is a TIMESTAMP", times.0);
                SqlProblem::error("type-mismatch", message, span, Some("CAST it to TIMESTAMP".into()))
            }
        }
    }

    /// The left expression of each entity column, in the view's order and type.
    fn entity_keys(&self, view: &FeatureView, on: Vec<(Expr, Expr, SqlSpan)>, span: SqlSpan) -> Result<Vec<Expr>> {
        let names: Vec<&str> = view.entity.iter().map(|f| f.name().as_str()).collect();
        let (name, all) = (&view.name, names.join(", "));
        for (_, right, span) in &on {
            if !matches!(right, Expr::Column(c) if names.contains(&c.name.as_str())) {
                let message = format!("`{right}` is no entity column of `{name}`");
                return SqlProblem::error("entity-key", message, *span, Some(format!("its entity is ({all})")));
            }
        }
        let key = |field: &FieldRef| {
            let mut found = on.iter().filter(|(_, r, _)| matches!(r, Expr::Column(c) if c.name == *field.name()));
            let (Some((left, _, span)), None) = (found.next(), found.next()) else {
                let message = format!("feature view `{name}` must be joined on all of its entity ({all}), each once");
                return SqlProblem::error(
                    "entity-key",
                    message,
                    span,
                    Some(format!("add ON … = {name}.{}", field.name())),
                );
            };
            let (have, want) = (left.get_type(self.left.schema())?, field.data_type());
            if !coerced_key(&have, want) {
                let message =
                    format!("`{left}` is {have}, but the entity column `{}` of `{name}` is {want}", field.name());
                return SqlProblem::error("entity-key-type", message, *span, Some(format!("CAST it to {want}")));
            }
            left.clone().cast_to(want, self.left.schema())
        };
        view.entity.iter().map(key).collect()
    }
}

fn is_within(e: &Expr, schema: &DFSchema) -> bool {
    e.column_refs().iter().all(|c| schema.has_column(c)) && !e.column_refs().is_empty()
}

fn split_and<'a>(e: &'a ast::Expr, out: &mut Vec<&'a ast::Expr>) {
    match e {
        ast::Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            split_and(left, out);
            split_and(right, out);
        }
        ast::Expr::Nested(inner) => split_and(inner, out),
        other => out.push(other),
    }
}

fn match_op(op: &BinaryOperator) -> Option<MatchOp> {
    match op {
        BinaryOperator::Gt => Some(MatchOp::Gt),
        BinaryOperator::GtEq => Some(MatchOp::GtEq),
        BinaryOperator::Lt => Some(MatchOp::Lt),
        BinaryOperator::LtEq => Some(MatchOp::LtEq),
        _ => None,
    }
}

fn flip(op: MatchOp) -> MatchOp {
    match op {
        MatchOp::Gt => MatchOp::Lt,
        MatchOp::GtEq => MatchOp::LtEq,
        MatchOp::Lt => MatchOp::Gt,
        MatchOp::LtEq => MatchOp::GtEq,
    }
}

/// The feature view that a plan reads, under the name the query gives it, and where its values come from.
fn find_view(plan: &LogicalPlan) -> Option<(ViewRef, Serve)> {
    match plan {
        LogicalPlan::SubqueryAlias(a) => {
            let (found, serve) = find_view(&a.input)?;
            Some((ViewRef { alias: a.alias.clone(), ..found }, serve))
        }
        LogicalPlan::TableScan(scan) => {
            let provider = source_as_provider(&scan.source).ok()?;
            let table: &FeatureViewTable = (provider.as_ref() as &dyn std::any::Any).downcast_ref()?;
            Some((ViewRef { view: Arc::clone(&table.view), alias: scan.table_name.clone() }, table.serve))
        }
        _ => None,
    }
}
