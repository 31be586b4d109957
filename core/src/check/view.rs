//! `CREATE FEATURE VIEW`: from a SELECT with windows to events and aggregates over them.
//!
//! ```text
//!  SELECT avg(delay) FILTER (WHERE ok) OVER d7 AS delay_7d FROM flights WHERE …
//!            │             │             │
//!            ▼             ▼             ▼
//!  events: entity…, time, [sequence], delay, ok      features: delay_7d = avg over [T − 7 d, T)
//! ```

mod frame;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::new_empty_array;
use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::sqlparser::ast::{
    self, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, NamedWindowExpr, NullTreatment, Select,
    SelectItem, Spanned, WildcardAdditionalOptions, WindowSpec, WindowType,
};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::ExprWithAlias;
use datafusion::sql::sqlparser::tokenizer as ast_tokens;

use super::query::{self, select_of};
use super::{Analyzer, Found, Options};
use crate::aggregate::{AggregateFunction, Arg, Binding};
use crate::asof::FeatureViewTable;
use crate::definition::{AggregateCall, Feature, FeatureSource, FeatureView, Micros, Resolution, interval_micros};
use crate::diagnostic::{Diagnostic, Span, closest};
use crate::ordered;
use crate::sql::CreateFeatureView;

const OPTIONS: &[&str] = &["online", "ttl", "resolution", "retract"];

/// What `WITH (…)` says.
struct ViewOptions {
    online: bool,
    ttl: Option<Micros>,
    resolution: Resolution,
    /// Column that says which rows are taken back.
    retract: Option<(String, Span)>,
}

/// A view while it is put together.
struct Builder<'a> {
    analyzer: &'a Analyzer,
    create: &'a CreateFeatureView,
    /// Schema of FROM and WHERE.
    schema: DFSchema,
    windows: BTreeMap<String, &'a WindowSpec>,
    resolution: Resolution,
    retract: Option<Expr>,
    /// Projection of the events so far.
    columns: Vec<Expr>,
    aggregates: Vec<AggregateCall>,
    features: Vec<Feature>,
    problems: Vec<Diagnostic>,
}

impl Analyzer {
    pub(super) async fn feature_view(&mut self, create: &CreateFeatureView, span: Span) -> Found<Arc<FeatureView>> {
        let mut problems = Vec::new();
        let options = self.view_options(create, &mut problems);
        let mut body = create.query.clone();
        let select = match plain_select(&mut body) {
            Ok(select) => select.clone(),
            Err(what) => {
                let d =
                    Diagnostic::error("view-shape", format!("a feature view has no {what}"), self.place(&create.name));
                problems.push(
                    d.help("its body is SELECT … FROM … [WHERE …] [WINDOW …]; put the rest into a subquery in FROM"),
                );
                return Err(problems);
            }
        };
        let base = match self.base(body, &select, span).await {
            Ok(base) => base,
            Err(more) => {
                problems.extend(more);
                return Err(problems);
            }
        };
        let mut builder = Builder {
            analyzer: self,
            create,
            schema: base.schema().as_ref().clone(),
            windows: BTreeMap::new(),
            resolution: options.resolution,
            retract: None,
            columns: vec![],
            aggregates: vec![],
            features: vec![],
            problems,
        };
        builder.retract(&options);
        builder.read(&select);
        builder.check_options(&options);
        let view = Arc::new(builder.finish(base, &options)?);
        let table = FeatureViewTable::new(Arc::clone(&view), self.serve);
        let registered = self.ctx.register_table(view.name.as_str(), Arc::new(table));
        registered.map_err(|e| vec![query::diagnose(&e, &self.source, span, &[])])?;
        self.known.views.insert(view.name.clone(), Arc::clone(&view));
        Ok(view)
    }

    /// FROM and WHERE of the body, with all their columns.
    async fn base(&self, mut body: ast::Query, select: &Select, span: Span) -> Found<LogicalPlan> {
        if let Some(bare) = select_of(&mut body) {
            bare.projection = vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())];
            bare.named_window.clear();
        }
        let span = select.selection.as_ref().and_then(|e| self.source.span(e.span())).unwrap_or(span);
        self.plan(query::statement_of(body), span).await
    }

    fn view_options(&self, create: &CreateFeatureView, problems: &mut Vec<Diagnostic>) -> ViewOptions {
        let options = Options::new(&self.source, &create.options, OPTIONS, problems);
        let online = options.boolean("online", problems).unwrap_or(false);
        let mut duration = |key: &str| {
            let option = options.get(key)?;
            let parsed = duration(&option.value);
            match parsed {
                Ok(micros) => Some(micros),
                Err(why) => {
                    problems.push(
                        Diagnostic::error("bad-option", format!("`{key}`: {why}"), option.span).help("like '90 days'"),
                    );
                    None
                }
            }
        };
        let ttl = duration("ttl");
        let resolution = match options.get("resolution").map(|o| o.value.to_lowercase()) {
            None => Resolution::Auto,
            Some(v) if v == "auto" => Resolution::Auto,
            Some(v) if v == "exact" => Resolution::Exact,
            Some(_) => duration("resolution").map_or(Resolution::Auto, Resolution::Fixed),
        };
        if let (true, Resolution::Exact, Some(option)) = (online, resolution, options.get("resolution")) {
            let d = Diagnostic::error("bad-option", "an online view can't be exact: it is made of tiles", option.span);
            problems.push(d.help("take a `resolution` like '5 minutes', or online = false"));
        }
        // An offline-only view has no tiles, so nothing is rounded unless it is asked for.
        let resolution = if online || options.get("resolution").is_some() { resolution } else { Resolution::Exact };
        let retract = options.get("retract").map(|o| (o.value.clone(), o.span));
        ViewOptions { online, ttl, resolution, retract }
    }
}

fn plain_select(query: &mut ast::Query) -> Result<&mut Select, &'static str> {
    if query.order_by.is_some() {
        return Err("ORDER BY");
    }
    if query.limit_clause.is_some() || query.fetch.is_some() {
        return Err("LIMIT");
    }
    if query.with.is_some() {
        return Err("WITH");
    }
    let select = select_of(query).ok_or("UNION, INTERSECT or EXCEPT")?;
    match &select.group_by {
        ast::GroupByExpr::Expressions(e, _) if e.is_empty() => {}
        _ => return Err("GROUP BY"),
    }
    if select.distinct.is_some() {
        return Err("DISTINCT");
    }
    if select.having.is_some() || select.qualify.is_some() {
        return Err("HAVING or QUALIFY");
    }
    Ok(select)
}

/// A fixed length of time in microseconds.
fn duration(text: &str) -> Result<Micros, String> {
    if text.trim().parse::<f64>().is_ok() {
        return Err(format!("`{text}` has no unit"));
    }
    let interval = parse_interval_month_day_nano(text).map_err(|_| format!("`{text}` is no length of time"))?;
    interval_micros(interval).map_err(|e| e.to_string())
}

impl<'a> Builder<'a> {
    fn read(&mut self, select: &'a Select) {
        self.entity();
        self.time();
        for definition in &select.named_window {
            match &definition.1 {
                NamedWindowExpr::WindowSpec(spec) => drop(self.windows.insert(definition.0.value.clone(), spec)),
                NamedWindowExpr::NamedWindow(name) => {
                    self.problem(
                        "bad-window",
                        format!("window `{}` has no frame of its own", definition.0),
                        name.span,
                        "",
                    );
                }
            }
        }
        let windowed = select.projection.iter().any(|i| item_expr(i).is_some_and(|e| over(e).is_some()));
        for item in &select.projection {
            if windowed { self.aggregate_item(item) } else { self.latest_item(item) }
        }
        if let (false, true) = (windowed, self.retract.is_some()) {
            let name = &self.create.name;
            let help = "leave `retract` out, and let a later row replace an earlier one";
            self.problem("bad-option", "a latest row can't be taken back".into(), name.span, help);
        }
        self.check_names();
    }

    fn entity(&mut self) {
        for name in &self.create.entity {
            if let Some((expr, data_type)) = self.column(name) {
                if let Err(e) = ordered::encode(&new_empty_array(&data_type)) {
                    self.problem("entity-key-type", format!("`{name}` can't be a key: {e}"), name.span, "");
                }
                self.columns.push(expr.alias(&name.value));
            }
        }
    }

    fn time(&mut self) {
        if let Some((expr, data_type)) = self.column(&self.create.event_time) {
            let name = &self.create.event_time;
            match data_type {
                DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
                    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
                    let cast = Expr::Cast(datafusion::logical_expr::Cast::new(Box::new(expr), micros));
                    self.columns.push(cast.alias("__time"));
                }
                t => self.problem(
                    "type-mismatch",
                    format!("the event time `{name}` is {t}"),
                    name.span,
                    "it must be a TIMESTAMP or DATE: CAST it in a subquery in FROM",
                ),
            }
        }
        if let Some(name) = &self.create.sequence
            && let Some((expr, _)) = self.column(name)
        {
            self.columns.push(expr.alias("__sequence"));
        }
    }

    fn retract(&mut self, options: &ViewOptions) {
        let Some((name, span)) = &options.retract else { return };
        let before = self.problems.len();
        let found = self.column(&Ident::new(name));
        self.problems[before..].iter_mut().for_each(|d| d.span = *span);
        match found {
            Some((expr, DataType::Boolean)) => self.retract = Some(expr),
            Some((_, t)) => {
                let d = Diagnostic::error("bad-option", format!("`retract` names a BOOLEAN column, not {t}"), *span);
                self.problems.push(d.help("it is true in rows that take an earlier row back"));
            }
            None => {}
        }
    }

    fn column(&mut self, name: &Ident) -> Option<(Expr, DataType)> {
        self.expr(&ast::Expr::Identifier(name.clone()))
    }

    /// Plans an expression over the body's tables; a problem is noted.
    fn expr(&mut self, e: &ast::Expr) -> Option<(Expr, DataType)> {
        let state = self.analyzer.ctx.state();
        let planned = state
            .create_logical_expr_from_sql_expr(ExprWithAlias { expr: e.clone(), alias: None }, &self.schema)
            .and_then(|expr| {
                let data_type = expr.get_type(&self.schema)?;
                Ok((expr, data_type))
            });
        match planned {
            Ok(found) => Some(found),
            Err(error) => {
                let source = &self.analyzer.source;
                let span = source.span(e.span()).unwrap_or_default();
                self.problems.push(query::diagnose(&error, source, span, &[]));
                None
            }
        }
    }

    fn latest_item(&mut self, item: &SelectItem) {
        if let SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) = item {
            self.problem(
                "view-shape",
                "name the features one by one".into(),
                item.span(),
                "`*` would change with the table",
            );
            return;
        }
        let Some((name, e)) = self.named(item) else { return };
        if let Some((expr, data_type)) = self.expr(e) {
            let column = self.event_column(expr);
            let field = Arc::new(Field::new(name, data_type, true));
            self.features.push(Feature { field, source: FeatureSource::Latest { column } });
        }
    }

    fn aggregate_item(&mut self, item: &SelectItem) {
        let Some(e) = item_expr(item) else {
            self.problem("view-shape", "name the features one by one".into(), item.span(), "");
            return;
        };
        let Some((call, window)) = over(e) else {
            let help = "a view is all windowed, or all latest-row; compute from features in the service";
            self.problem("not-windowed", format!("`{e}` is no aggregate OVER a window"), e.span(), help);
            return;
        };
        let name = self.named(item);
        let window = self.window(window, e.span());
        let aggregate = self.aggregate(call);
        if let (Some((name, _)), Some(window), Some(aggregate)) = (name, window, aggregate) {
            let data_type = self.aggregates[aggregate].function.return_type();
            let field = Arc::new(Field::new(name, data_type, true));
            self.features.push(Feature { field, source: FeatureSource::Window { aggregate, window } });
        }
    }

    /// The name a select item gives, and its expression.
    fn named<'i>(&mut self, item: &'i SelectItem) -> Option<(String, &'i ast::Expr)> {
        match item {
            SelectItem::ExprWithAlias { expr, alias } => Some((alias.value.clone(), expr)),
            SelectItem::UnnamedExpr(e @ ast::Expr::Identifier(name)) => Some((name.value.clone(), e)),
            SelectItem::UnnamedExpr(e @ ast::Expr::CompoundIdentifier(parts)) => Some((parts.last()?.value.clone(), e)),
            other => {
                self.problem(
                    "unnamed-feature",
                    format!("the feature `{other}` has no name"),
                    other.span(),
                    "add AS name",
                );
                None
            }
        }
    }

    /// The index of the call among the aggregates, which is shared by windows over the same call.
    fn aggregate(&mut self, call: &Function) -> Option<usize> {
        let function = self.function(call)?;
        let planned = self.arguments(call)?;
        let args: Vec<_> =
            planned.iter().map(|(e, data_type)| Arg { data_type: data_type.clone(), literal: literal(e) }).collect();
        let mut binding = Binding { name: function.name().into(), args, retractable: false };
        let bound = match binding.bind(&self.analyzer.functions) {
            Ok(bound) => bound,
            Err(e) => {
                self.problem("wrong-arguments", e.to_string(), ast_span(call), "");
                return None;
            }
        };
        let filter = call.filter.as_ref().map(|f| self.filter(f));
        let filter = match filter {
            Some(None) => return None,
            Some(Some(expr)) => Some(self.event_column(expr)),
            None => None,
        };
        binding.retractable = self.retract.is_some();
        let function = match binding.retractable.then(|| binding.bind(&self.analyzer.functions)) {
            None => bound,
            Some(Ok(function)) => function,
            Some(Err(e)) => {
                let help = "sums, counts, averages, moments, frequencies and decayed ones can";
                self.problem("not-invertible", e.to_string(), ast_span(call), help);
                return None;
            }
        };
        let sql = Function { over: None, ..call.clone() }.to_string();
        if let Some(known) = self.aggregates.iter().position(|a| a.sql == sql) {
            return Some(known);
        }
        let inputs = planned.into_iter().enumerate().filter(|(i, (e, _))| *i == 0 || literal(e).is_none());
        let inputs: Vec<Expr> = inputs.map(|(_, (e, _))| e).chain(self.retract.clone()).collect();
        let args = inputs.into_iter().map(|e| self.event_column(e)).collect();
        self.aggregates.push(AggregateCall { function, binding, args, filter, sql });
        Some(self.aggregates.len() - 1)
    }

    fn function(&mut self, call: &Function) -> Option<AggregateFunction> {
        let name = call.name.to_string();
        let functions = &self.analyzer.functions;
        if let Some(f) = functions.get(&name) {
            return Some(f);
        }
        let help = match closest(&name, functions.names()) {
            Some(f) => format!("did you mean `{f}`?"),
            None => format!("known: {}", functions.names().collect::<Vec<_>>().join(", ")),
        };
        self.problem("unknown-function", format!("no aggregation `{name}`"), call.name.span(), &help);
        None
    }

    fn arguments(&mut self, call: &Function) -> Option<Vec<(Expr, DataType)>> {
        let FunctionArguments::List(list) = &call.args else { return Some(vec![]) };
        let span = ast_span(call);
        if list.duplicate_treatment == Some(ast::DuplicateTreatment::Distinct) {
            self.problem("unsupported", "DISTINCT can't be merged from tiles".into(), span, "use approx_distinct(x)");
            return None;
        }
        if matches!(call.null_treatment, Some(NullTreatment::RespectNulls)) {
            self.problem("unsupported", "aggregations always ignore NULLs".into(), span, "leave RESPECT NULLS out");
            return None;
        }
        let mut out = Some(Vec::new());
        for arg in &list.args {
            match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => {}
                FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => match (self.expr(e), &mut out) {
                    (Some(found), Some(out)) => out.push(found),
                    _ => out = None,
                },
                other => {
                    self.problem("wrong-arguments", format!("`{other}` is no argument of an aggregation"), span, "");
                    out = None;
                }
            }
        }
        out
    }

    fn filter(&mut self, e: &ast::Expr) -> Option<Expr> {
        match self.expr(e)? {
            (expr, DataType::Boolean) => Some(expr),
            (_, t) => {
                self.problem("type-mismatch", format!("FILTER takes a condition, but `{e}` is {t}"), e.span(), "");
                None
            }
        }
    }

    /// The index of an input among the events' columns, added if it is new.
    fn event_column(&mut self, expr: Expr) -> usize {
        let inputs = self.create.entity.len() + 1 + usize::from(self.create.sequence.is_some());
        let known = self.columns.iter().skip(inputs).position(|c| matches!(c, Expr::Alias(a) if *a.expr == expr));
        known.map(|i| i + inputs).unwrap_or_else(|| {
            // A column of the entity or time that did not plan is missing; the view fails anyway.
            let index = self.columns.len();
            self.columns.push(expr.alias(format!("__input{index}")));
            index
        })
    }

    fn check_names(&mut self) {
        let reserved = self.create.entity.iter().chain([&self.create.event_time]);
        let mut seen: Vec<String> = reserved.map(|i| i.value.clone()).collect();
        for feature in &self.features {
            let name = feature.field.name();
            if seen.contains(name) {
                let (source, whole) = (&self.analyzer.source, self.analyzer.place(&self.create.name));
                let rest = Span { start: whole.end, end: source.text.len() };
                let last = self.create.query.span();
                let span = source.span(last).map_or(rest, |s| Span { start: rest.start, end: s.end });
                let place = query::find_word(source, span, name).unwrap_or(whole);
                let d = Diagnostic::error("duplicate-feature", format!("`{name}` is given twice"), place);
                self.problems
                    .push(d.help("give one of them another name with AS; entity and event time are there anyway"));
            }
            seen.push(name.clone());
        }
    }

    fn check_options(&mut self, options: &ViewOptions) {
        let longest = self.features.iter().filter_map(|f| f.window()?.length).max();
        if let (Some(ttl), Some(longest)) = (options.ttl, longest)
            && ttl < longest
            && let Some(option) = self.create.options.iter().find(|o| o.key.value.eq_ignore_ascii_case("ttl"))
        {
            let d = Diagnostic::error("bad-option", "`ttl` is shorter than the longest window", option.span);
            self.problems.push(d.help("tiles would be forgotten while a window still needs them"));
        }
        for window in self.features.iter().filter_map(Feature::window) {
            if let (Some(length), Some(hop)) = (window.length, window.hop)
                && hop > length
                && length > 0
                && let Some(option) =
                    self.create.options.iter().find(|o| o.key.value.eq_ignore_ascii_case("resolution"))
            {
                let d = Diagnostic::error("bad-option", "`resolution` is longer than a window", option.span);
                self.problems.push(d);
                return;
            }
        }
    }

    fn finish(self, base: LogicalPlan, options: &ViewOptions) -> Found<FeatureView> {
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        let create = self.create;
        let place = self.analyzer.place(&create.name);
        let events = LogicalPlanBuilder::from(base).project(self.columns).and_then(LogicalPlanBuilder::build);
        let events = events.map_err(|e| vec![query::diagnose(&e, &self.analyzer.source, place, &[])])?;
        let entity = events.schema().fields().iter().take(create.entity.len()).map(clear).collect();
        Ok(FeatureView {
            name: create.name.value.clone(),
            entity,
            event_time: create.event_time.value.clone(),
            has_sequence: create.sequence.is_some(),
            online: options.online,
            ttl: options.ttl,
            aggregates: self.aggregates,
            features: self.features,
            events,
            sql: canonical(create),
        })
    }

    fn problem(&mut self, code: &'static str, message: String, span: ast_tokens::Span, help: &str) {
        let help = (!help.is_empty()).then(|| help.to_string());
        let span = self.analyzer.source.span(span).unwrap_or(self.analyzer.place(&self.create.name));
        self.problems.push(Diagnostic { help, ..Diagnostic::error(code, message, span) });
    }
}

fn clear(field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(field.name(), field.data_type().clone(), true))
}

fn item_expr(item: &SelectItem) -> Option<&ast::Expr> {
    match item {
        SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. } => Some(e),
        _ => None,
    }
}

fn over(e: &ast::Expr) -> Option<(&Function, &WindowType)> {
    match e {
        ast::Expr::Function(f) => f.over.as_ref().map(|w| (f, w)),
        _ => None,
    }
}

fn ast_span(call: &Function) -> ast_tokens::Span {
    let span = call.span();
    if span == ast_tokens::Span::empty() { call.name.span() } else { span }
}

/// The value of a constant expression, such as `-0.5`.
fn literal(e: &Expr) -> Option<ScalarValue> {
    match e {
        Expr::Literal(value, _) => Some(value.clone()),
        Expr::Negative(inner) => literal(inner)?.arithmetic_negate().ok(),
        Expr::Alias(a) => literal(&a.expr),
        _ => None,
    }
}

fn canonical(create: &CreateFeatureView) -> String {
    let names = |list: &[Ident]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut options: Vec<_> =
        create.options.iter().map(|o| format!("{} = '{}'", o.key.value.to_lowercase(), o.value)).collect();
    options.sort();
    let sequence = create.sequence.as_ref().map_or(String::new(), |s| format!(" SEQUENCE {s}"));
    format!(
        "FEATURE VIEW {} ENTITY ({}) EVENT TIME {}{sequence} WITH ({}) AS {}",
        create.name,
        names(&create.entity),
        create.event_time,
        options.join(", "),
        create.query
    )
}
