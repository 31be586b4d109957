//! Planning a query with all of its problems, and DataFusion's errors as diagnostics.

use std::ops::ControlFlow;

use datafusion::common::SchemaError;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{
    Expr, Query, Select, SelectItem, SetExpr, Spanned, Statement, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::{Location, Span as SqlSpan};

use crate::asof::SqlProblem;
use crate::diagnostic::{Diagnostic, Source, Span};

/// A statement can hold no more problems than this; more would not help anyone.
const PROBLEMS_MAX: usize = 20;

/// Plans a statement. Where it fails, the broken part is blanked out and it is planned again, so that all problems
/// are found.
pub(super) async fn plan_all(
    ctx: &SessionContext,
    source: &Source,
    statement: DfStatement,
    fallback: Span,
) -> Result<LogicalPlan, Vec<Diagnostic>> {
    let mut problems: Vec<Diagnostic> = Vec::new();
    let mut attempt = statement;
    loop {
        let error = match try_plan(ctx, attempt.clone()).await {
            Ok(plan) if problems.is_empty() => return Ok(plan),
            Ok(_) => return Err(problems),
            Err(error) => error,
        };
        let known = tables(ctx);
        let mut found = diagnose(&error, source, fallback, &known);
        if found.span == fallback
            && let Some(span) = guilty_item(ctx, source, &attempt).await
        {
            found.span = span;
        }
        if problems.contains(&found) || problems.len() >= PROBLEMS_MAX {
            return Err(problems);
        }
        let span = found.span;
        problems.push(found);
        if !blank(&mut attempt, source, span) {
            return Err(problems);
        }
    }
}

/// Plans without looking for more than one problem.
pub(super) async fn try_plan(ctx: &SessionContext, statement: DfStatement) -> DfResult<LogicalPlan> {
    let state = ctx.state();
    let plan = state.statement_to_plan(statement).await?;
    if let LogicalPlan::Ddl(_) | LogicalPlan::Statement(_) | LogicalPlan::Copy(_) = plan {
        return Ok(plan);
    }
    state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {})?;
    Ok(plan)
}

/// A query as a statement.
pub(super) fn statement_of(query: Query) -> DfStatement {
    DfStatement::Statement(Box::new(Statement::Query(Box::new(query))))
}

/// The top-level select of a statement.
pub(super) fn select_of(query: &mut Query) -> Option<&mut Select> {
    match query.body.as_mut() {
        SetExpr::Select(select) => Some(select),
        _ => None,
    }
}

/// The names of all tables and views.
pub(super) fn tables(ctx: &SessionContext) -> Vec<String> {
    let schema = ctx.catalog("datafusion").and_then(|c| c.schema("public"));
    schema.map(|s| s.table_names()).unwrap_or_default()
}

/// Turns DataFusion's error into a diagnostic; `fallback` is the place if the error has none.
pub(super) fn diagnose(error: &DataFusionError, source: &Source, fallback: Span, tables: &[String]) -> Diagnostic {
    let (error, span) = innermost(error, source);
    match error {
        DataFusionError::External(e) => match e.downcast_ref::<SqlProblem>() {
            Some(p) => Diagnostic {
                help: p.help.clone(),
                ..Diagnostic::error(p.code, &p.message, source.span(p.span).or(span).unwrap_or(fallback))
            },
            None => {
                let text = e.to_string();
                // A table of a catalog, if it says first that it is about one.
                let name = || text.split('`').nth(1).filter(|name| name.matches('.').count() == 2);
                let place = || find_word(source, fallback, name()?);
                let span = span.or_else(place).unwrap_or(fallback);
                Diagnostic::error("invalid-query", text, span)
            }
        },
        DataFusionError::SchemaError(e, _) => schema_diagnostic(e, source, span, fallback),
        other => text_diagnostic(&other.strip_backtrace(), source, span.unwrap_or(fallback), tables),
    }
}

/// The error below all wrappers, and the innermost place that a wrapper knows.
fn innermost<'a>(mut error: &'a DataFusionError, source: &Source) -> (&'a DataFusionError, Option<Span>) {
    let mut span = None;
    loop {
        match error {
            DataFusionError::Context(_, inner) => error = inner,
            DataFusionError::Diagnostic(d, inner) => {
                let place = d.span.map(|s| SqlSpan::new(location(s.start), location(s.end)));
                span = place.and_then(|p| source.span(p)).or(span);
                error = inner;
            }
            DataFusionError::Shared(inner) => error = inner,
            DataFusionError::Collection(all) if !all.is_empty() => error = &all[0],
            _ => return (error, span),
        }
    }
}

fn location(l: datafusion::common::Location) -> Location {
    Location { line: l.line, column: l.column }
}

fn schema_diagnostic(e: &SchemaError, source: &Source, span: Option<Span>, fallback: Span) -> Diagnostic {
    match e {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let own = field.spans().first().and_then(|s| source.span(SqlSpan::new(location(s.start), location(s.end))));
            let span = own.or(span).unwrap_or(fallback);
            let of_table: Vec<_> = valid_fields
                .iter()
                .filter(|f| {
                    field.relation.is_none()
                        || f.relation.as_ref().map(|r| r.table()) == field.relation.as_ref().map(|r| r.table())
                })
                .collect();
            let message = match &field.relation {
                Some(table) if of_table.is_empty() => format!("no table or alias `{table}` here"),
                Some(table) => format!("`{table}` has no column `{}`", field.name),
                None => format!("no column `{}`", field.name),
            };
            Diagnostic::error("unknown-column", message, span)
                .label("not a column here")
                .did_you_mean(&field.name, of_table.iter().map(|f| f.name.as_str()))
        }
        SchemaError::AmbiguousReference { field } => {
            let message = format!("`{}` could be a column of several tables", field.name);
            Diagnostic::error("ambiguous-column", message, span.unwrap_or(fallback))
                .help("put the table's name before it")
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            Diagnostic::error("duplicate-column", format!("two columns are called `{name}`"), span.unwrap_or(fallback))
                .help("give one of them another name with AS")
        }
    }
}

/// Problems that DataFusion describes in words only.
fn text_diagnostic(text: &str, source: &Source, span: Span, tables: &[String]) -> Diagnostic {
    let first = text.lines().next().unwrap_or_default();
    let first = ["Error during planning: ", "Execution error: ", "This feature is not implemented: "]
        .iter()
        .fold(first, |t, prefix| t.strip_prefix(prefix).unwrap_or(t))
        .trim_end_matches('.');
    let quoted = |t: &str| t.split('\'').nth(1).map(str::to_string);
    if let Some(name) = first.strip_suffix("not found").and_then(quoted).filter(|_| first.starts_with("table")) {
        let name = name.rsplit('.').next().unwrap_or(&name).to_string();
        let span = find_word(source, span, &name).unwrap_or(span);
        return Diagnostic::error("unknown-table", format!("no table or feature view `{name}`"), span)
            .did_you_mean(&name, tables);
    }
    if let Some(name) = first.strip_prefix("Invalid function").and_then(quoted) {
        let span = find_word(source, span, &name).unwrap_or(span);
        let mut d = Diagnostic::error("unknown-function", format!("no function `{name}`"), span);
        d.help = text
            .split("Did you mean '")
            .nth(1)
            .and_then(|t| t.split('\'').next())
            .map(|n| format!("did you mean `{n}`?"));
        return d;
    }
    if let Some(name) =
        first.split("Function ").nth(1).and_then(quoted).filter(|_| text.contains("failed to match any signature"))
    {
        let why = text.split("errors: ").nth(1).and_then(|t| t.split(" (DataType").next()).unwrap_or_default();
        let why = why.strip_prefix("Error during planning: ").unwrap_or(why);
        let d = Diagnostic::error("wrong-arguments", format!("wrong arguments of `{name}`"), span);
        return if why.is_empty() { d } else { d.help(why) };
    }
    if first.contains("require unique expression names") {
        let name = text.split('"').nth(1).unwrap_or_default();
        let name = name.rsplit('.').next().unwrap_or(name);
        return Diagnostic::error("duplicate-column", format!("two columns are called `{name}`"), span)
            .help("give one of them another name with AS");
    }
    let lower = first.to_lowercase();
    let typed = ["coerc", "cannot infer common", "type mismatch", "cannot be cast", "unsupported cast", "data type"];
    let code = if typed.iter().any(|t| lower.contains(t)) { "type-mismatch" } else { "invalid-query" };
    Diagnostic::error(code, first, span)
}

/// Where `word` stands inside `span`, as a whole word in any case.
pub(super) fn find_word(source: &Source, span: Span, word: &str) -> Option<Span> {
    let text = source.text.get(span.start..span.end)?.to_ascii_lowercase();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(&word.to_ascii_lowercase()).find_map(|(i, m)| {
        let before = text[..i].chars().next_back().is_some_and(is_word);
        let after = text[i + m.len()..].chars().next().is_some_and(is_word);
        (!before && !after).then_some(Span { start: span.start + i, end: span.start + i + m.len() })
    })
}

/// The select item that does not plan, for an error without a place.
async fn guilty_item(ctx: &SessionContext, source: &Source, statement: &DfStatement) -> Option<Span> {
    let DfStatement::Statement(s) = statement else { return None };
    let Statement::Query(query) = s.as_ref() else { return None };
    let mut query = query.as_ref().clone();
    let items = select_of(&mut query)?.projection.clone();
    for item in items {
        let span = source.span(item.span());
        select_of(&mut query)?.projection = vec![item];
        if try_plan(ctx, statement_of(query.clone())).await.is_err() {
            return span;
        }
    }
    None
}

/// Takes the part of the statement that holds `span` out of it; false if there is none that can be missed.
fn blank(statement: &mut DfStatement, source: &Source, span: Span) -> bool {
    let DfStatement::Statement(s) = statement else { return false };
    s.visit(&mut Blank { source, span }).is_break()
}

struct Blank<'a> {
    source: &'a Source,
    span: Span,
}

impl Blank<'_> {
    fn holds(&self, node: &impl Spanned) -> bool {
        self.source
            .span(node.span())
            .is_some_and(|s| s.start <= self.span.start && self.span.start < s.end.max(s.start + 1))
    }
}

impl VisitorMut for Blank<'_> {
    type Break = ();

    /// Inner selects first, so that as little as possible is blanked.
    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            if !self.holds(item) {
                continue;
            }
            let null = Expr::Value(Value::Null.into());
            let alias = match item {
                SelectItem::ExprWithAlias { alias, .. } => alias.clone(),
                SelectItem::UnnamedExpr(Expr::Identifier(name)) => name.clone(),
                SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) if !parts.is_empty() => {
                    parts[parts.len() - 1].clone()
                }
                _ => return ControlFlow::Continue(()),
            };
            if matches!(item, SelectItem::ExprWithAlias { expr: Expr::Value(v), .. } if v.value == Value::Null) {
                return ControlFlow::Continue(());
            }
            *item = SelectItem::ExprWithAlias { expr: null, alias };
            return ControlFlow::Break(());
        }
        if select.selection.as_ref().is_some_and(|e| self.holds(e)) {
            select.selection = None;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}
