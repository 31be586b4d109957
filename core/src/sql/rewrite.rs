//! Rewrites of the syntax tree, done before DataFusion plans it.
//!
//! ```text
//!  a JOIN b ASOF JOIN c …      →  ((a JOIN b) ASOF JOIN c)          one factor an as-of join, for the relation planner
//!  predict('m', *)             →  predict('m', "f1", "f2", …)       the model's features, by name
//!  FROM request r              →  FROM (SELECT …) r                 a service over another table
//! ```

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Join, JoinOperator, Select, SetExpr, Statement,
    TableAlias, TableFactor, TableWithJoins, Value, ValueWithSpan, VisitMut, VisitorMut,
};

use super::{PREDICT_FUNCTIONS, REQUEST};

/// Gives every as-of join a table factor of its own, so that a relation planner sees it.
pub(crate) fn nest_asof_joins<T: VisitMut>(tree: &mut T) {
    let _: ControlFlow<()> = tree.visit(&mut Nest);
}

struct Nest;

impl VisitorMut for Nest {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        select.from.iter_mut().for_each(fold);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::NestedJoin { table_with_joins, .. } = factor
            && !matches!(table_with_joins.joins.as_slice(), [j] if is_asof(j))
        {
            fold(table_with_joins);
        }
        ControlFlow::Continue(())
    }
}

fn fold(from: &mut TableWithJoins) {
    if !from.joins.iter().any(is_asof) {
        return;
    }
    let mut left = TableWithJoins { relation: from.relation.clone(), joins: vec![] };
    for join in std::mem::take(&mut from.joins) {
        let asof = is_asof(&join);
        if asof && !left.joins.is_empty() {
            left = TableWithJoins { relation: nested(left), joins: vec![] };
        }
        left.joins.push(join);
        if asof {
            left = TableWithJoins { relation: nested(left), joins: vec![] };
        }
    }
    *from = left;
}

fn nested(inner: TableWithJoins) -> TableFactor {
    TableFactor::NestedJoin { table_with_joins: Box::new(inner), alias: None }
}

fn is_asof(join: &Join) -> bool {
    matches!(join.join_operator, JoinOperator::AsOf { .. })
}

/// Replaces the `*` of `predict('model', *)` by the model's features; `features` gives them by the model's name.
pub(crate) fn expand_predict(tree: &mut Statement, features: impl Fn(&str) -> Option<Vec<String>>) {
    let _: ControlFlow<()> = tree.visit(&mut ExpandPredict(features));
}

struct ExpandPredict<F>(F);

impl<F: Fn(&str) -> Option<Vec<String>>> VisitorMut for ExpandPredict<F> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Function(f) = expr else { return ControlFlow::Continue(()) };
        let FunctionArguments::List(list) = &mut f.args else { return ControlFlow::Continue(()) };
        if !PREDICT_FUNCTIONS.contains(&f.name.to_string().to_lowercase().as_str()) {
            return ControlFlow::Continue(());
        }
        if let [FunctionArg::Unnamed(FunctionArgExpr::Expr(name)), FunctionArg::Unnamed(FunctionArgExpr::Wildcard)] =
            list.args.as_slice()
            && let Some(features) = string_literal(name).and_then(|name| (self.0)(name))
        {
            list.args.truncate(1);
            list.args.extend(features.into_iter().map(|f| {
                let column = Expr::Identifier(Ident::with_quote('"', f));
                FunctionArg::Unnamed(FunctionArgExpr::Expr(column))
            }));
        }
        ControlFlow::Continue(())
    }
}

fn string_literal(e: &Expr) -> Option<&str> {
    match e {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(s), .. }) => Some(s),
        _ => None,
    }
}

/// Puts `table` in the place of `request` in a service's body; `None` if the body does not begin with `FROM request`.
/// Returns the alias under which the body knows the request.
pub(crate) fn replace_request(body: &mut SetExpr, table: TableFactor) -> Option<String> {
    let SetExpr::Select(select) = body else { return None };
    let [from] = select.from.as_mut_slice() else { return None };
    let mut first = &mut from.relation;
    while let TableFactor::NestedJoin { table_with_joins, .. } = first {
        first = &mut table_with_joins.relation;
    }
    let TableFactor::Table { name, alias, args: None, .. } = first else { return None };
    if !name.to_string().eq_ignore_ascii_case(REQUEST) {
        return None;
    }
    let alias = alias.clone().unwrap_or_else(|| TableAlias {
        explicit: true,
        name: Ident::new(REQUEST),
        columns: vec![],
        at: None,
    });
    let known_as = alias.name.value.clone();
    *first = with_alias(table, alias);
    Some(known_as)
}

fn with_alias(mut table: TableFactor, new: TableAlias) -> TableFactor {
    if let TableFactor::Table { alias, .. } | TableFactor::Derived { alias, .. } = &mut table {
        *alias = Some(new);
    }
    table
}

/// The first `service_inputs(…)` of a tree: its arguments and its alias.
pub(crate) fn find_service_inputs(tree: &mut Statement) -> Option<(Vec<FunctionArg>, Option<TableAlias>)> {
    let mut find = ServiceInputs { replacement: None, found: None };
    let _: ControlFlow<()> = tree.visit(&mut find);
    find.found
}

/// Puts `replacement` in the place of the first `service_inputs(…)` of a tree.
pub(crate) fn replace_service_inputs(tree: &mut Statement, replacement: TableFactor) {
    let _: ControlFlow<()> = tree.visit(&mut ServiceInputs { replacement: Some(replacement), found: None });
}

struct ServiceInputs {
    replacement: Option<TableFactor>,
    found: Option<(Vec<FunctionArg>, Option<TableAlias>)>,
}

impl VisitorMut for ServiceInputs {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let (name, args, alias) = match factor {
            TableFactor::Table { name, args: Some(args), alias, .. } => (name, &args.args, alias),
            TableFactor::Function { name, args, alias, .. } => (name, &*args, alias),
            _ => return ControlFlow::Continue(()),
        };
        if !name.to_string().eq_ignore_ascii_case("service_inputs") {
            return ControlFlow::Continue(());
        }
        match self.replacement.take() {
            Some(replacement) => *factor = replacement,
            None => self.found = Some((args.clone(), alias.clone())),
        }
        ControlFlow::Break(())
    }
}
