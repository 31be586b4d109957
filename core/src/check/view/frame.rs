//! `OVER …`: from a window of SQL to a [`Window`].
//!
//! ```text
//!  RANGE INTERVAL '7 days' PRECEDING                                          [T − 7 d, T)
//!  RANGE BETWEEN INTERVAL '14 days' PRECEDING AND INTERVAL '7 days' PRECEDING [T − 14 d, T − 7 d)
//!  RANGE UNBOUNDED PRECEDING                                                  everything before T
//!  ORDER BY date_bin(INTERVAL '1 day', t) RANGE CURRENT ROW                   the day of T, up to T
//!  ORDER BY date_bin(INTERVAL '1 day', t) RANGE BETWEEN INTERVAL '7 days' PRECEDING AND INTERVAL '1 day' PRECEDING
//!                                                                             the seven whole days before the day of T
//! ```

use datafusion::common::ScalarValue;
use datafusion::logical_expr::sqlparser::ast::{
    self, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Spanned, WindowFrameBound, WindowFrameUnits,
    WindowSpec, WindowType,
};
use datafusion::sql::sqlparser::tokenizer as ast_tokens;

use super::{Builder, literal};
use crate::definition::{Micros, Window, interval_micros};
use crate::diagnostic::closest;

const FORM: &str = "write (RANGE INTERVAL '7 days' PRECEDING) or (RANGE UNBOUNDED PRECEDING)";

impl Builder<'_> {
    pub(super) fn window(&mut self, over: &WindowType, span: ast_tokens::Span) -> Option<Window> {
        let spec = match over {
            WindowType::WindowSpec(spec) => spec,
            WindowType::NamedWindow(name) => match self.windows.get(&name.value) {
                Some(spec) => spec,
                None => {
                    let similar = closest(&name.value, self.windows.keys());
                    let help = similar.map_or(String::new(), |w| format!("did you mean `{w}`?"));
                    self.problem("unknown-window", format!("no window `{name}`"), name.span, &help);
                    return None;
                }
            },
        };
        if let Some(name) = &spec.window_name {
            let message = format!("OVER ({name}) is not OVER {name}");
            self.problem("bad-window", message, name.span, "leave the parentheses out");
            return None;
        }
        let bin = match spec.order_by.as_slice() {
            [] => None,
            [by] => Some(self.bin(&by.expr)),
            _ => Some(None),
        };
        if !spec.partition_by.is_empty() || bin == Some(None) {
            let help =
                "a view is always partitioned by its entity and ordered by its event time: only RANGE … is needed";
            self.problem("bad-window", "PARTITION BY and ORDER BY are given by the view".into(), span, help);
            return None;
        }
        self.frame(spec, bin.flatten(), span)
    }

    /// The length of the bins in `date_bin(INTERVAL '1 day', event time)`.
    fn bin(&mut self, e: &ast::Expr) -> Option<Micros> {
        let ast::Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = e else { return None };
        let arg = |a: &FunctionArg| match a {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e.clone()),
            _ => None,
        };
        let args: Vec<_> = list.args.iter().map(arg).collect::<Option<_>>()?;
        let [length, ast::Expr::Identifier(time)] = args.as_slice() else { return None };
        let binned = name.to_string().eq_ignore_ascii_case("date_bin")
            && time.value.eq_ignore_ascii_case(&self.create.event_time.value);
        if binned { self.length(length, e.span()) } else { None }
    }

    fn frame(&mut self, spec: &WindowSpec, bin: Option<Micros>, span: ast_tokens::Span) -> Option<Window> {
        let Some(frame) = &spec.window_frame else {
            self.problem("bad-window", "a window needs a length".into(), span, FORM);
            return None;
        };
        if frame.units != WindowFrameUnits::Range {
            return self.bad(spec, span);
        }
        let length = match &frame.start_bound {
            WindowFrameBound::Preceding(None) => None,
            WindowFrameBound::Preceding(Some(length)) => Some(self.length(length, span)?),
            WindowFrameBound::CurrentRow if bin.is_some() => Some(0),
            _ => return self.bad(spec, span),
        };
        let end = match &frame.end_bound {
            None | Some(WindowFrameBound::CurrentRow) => None,
            Some(WindowFrameBound::Preceding(Some(end))) if length.is_some() => Some(self.length(end, span)?),
            _ => return self.bad(spec, span),
        };
        let Some(length) = length else { return Some(Window::LIFETIME) };
        let least = end.map_or(0, |end| if bin.is_some() { end } else { end.saturating_add(1) });
        if length < least {
            self.problem("bad-window", format!("the window `{spec}` is empty"), span, "it begins before it ends");
            return None;
        }
        match bin {
            None => Some(Window { length: Some(length), offset: end, hop: self.resolution.hop(length) }),
            Some(bin) if length % bin == 0 && end.unwrap_or(0) % bin == 0 => {
                Some(Window { length: Some(length), offset: end.map(|end| end - bin), hop: Some(bin) })
            }
            Some(_) => {
                let help = "a window over bins begins and ends with a bin";
                self.problem("bad-window", format!("`{spec}` cuts a bin"), span, help);
                None
            }
        }
    }

    fn bad(&mut self, spec: &WindowSpec, span: ast_tokens::Span) -> Option<Window> {
        self.problem("bad-window", format!("a window can't be `{spec}`"), span, FORM);
        None
    }

    fn length(&mut self, e: &ast::Expr, span: ast_tokens::Span) -> Option<Micros> {
        let span = if self.analyzer.source.span(e.span()).is_some() { e.span() } else { span };
        let unitless = match e {
            ast::Expr::Value(_) => true,
            ast::Expr::Interval(i) => {
                i.leading_field.is_none() && i.value.to_string().trim_matches('\'').trim().parse::<f64>().is_ok()
            }
            _ => false,
        };
        if unitless {
            let message = format!("the window length `{e}` has no unit");
            self.problem("window-unit", message, span, "write INTERVAL '7 days'");
            return None;
        }
        let (expr, _) = self.expr(e)?;
        let interval = literal(&expr).and_then(|v| {
            v.cast_to(&arrow::datatypes::DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano)).ok()
        });
        let micros = match interval {
            Some(ScalarValue::IntervalMonthDayNano(Some(i))) => interval_micros(i).map_err(|e| e.to_string()),
            _ => Err("a window length is a constant INTERVAL".into()),
        };
        micros.map_err(|why| self.problem("bad-window", why, span, "")).ok()
    }
}
