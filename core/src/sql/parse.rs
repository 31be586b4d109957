//! Text → statements, with every statement's problems reported, not only the first one's.

use datafusion::sql::parser::{DFParser, DFParserBuilder, Statement as DfStatement};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, ObjectNamePart, ObjectType, Query, Statement as SqlStatement, UnaryOperator, Value,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Span as SqlSpan, Token, TokenWithSpan, Tokenizer};

use super::{
    Algorithm, CreateExternalCatalog, CreateFeatureService, CreateFeatureView, CreateModel, CreateTrainingSet,
    ObjectKind, Parsed, Split, SqlOption, Statement,
};
use crate::diagnostic::{Diagnostic, Source, Span};

type ParseResult<T> = Result<T, ParserError>;

const DIALECT: GenericDialect = GenericDialect {};

/// Parses every statement of a job; a statement that does not parse gives a diagnostic and is left out.
pub fn parse(source: &Source) -> (Vec<Parsed>, Vec<Diagnostic>) {
    let tokens = match Tokenizer::new(&DIALECT, &source.text).tokenize_with_location() {
        Ok(tokens) => tokens,
        Err(e) => {
            let span = span_at(source, e.location);
            return (vec![], vec![Diagnostic::error("syntax", e.message, span)]);
        }
    };
    let (mut statements, mut problems) = (Vec::new(), Vec::new());
    for tokens in tokens.split(|t| t.token == Token::SemiColon) {
        let mut solid = tokens.iter().filter(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF));
        let Some(first) = solid.next() else { continue };
        let last = solid.next_back().unwrap_or(first);
        let span = source.span(SqlSpan::new(first.span.start, last.span.end)).unwrap_or_default();
        match parse_one(source, tokens.to_vec()) {
            Ok(statement) => statements.push(Parsed { statement, span, sql: source.text[span.start..span.end].into() }),
            Err(e) => problems.push(syntax_error(source, span, &e)),
        }
    }
    (statements, problems)
}

/// Whether `sql` begins like a statement of this dialect that DataFusion does not know.
fn is_keyword_statement(words: &[&str]) -> bool {
    matches!(
        words,
        ["CREATE" | "DROP", "FEATURE" | "TRAINING" | "MODEL", ..]
            | ["MATERIALIZE", ..]
            | ["CREATE", "EXTERNAL", "CATALOG"]
    )
}

fn parse_one(source: &Source, tokens: Vec<TokenWithSpan>) -> ParseResult<Statement> {
    let words: Vec<String> = tokens.iter().filter_map(word).take(3).map(|w| w.to_uppercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut df = DFParserBuilder::new(tokens).with_dialect(&DIALECT).build().map_err(parser_error)?;
    let statement = if is_keyword_statement(&words) {
        Own { parser: &mut df.parser, source }.statement(&words)?
    } else {
        classify(parse_df(&mut df)?)?
    };
    match df.parser.peek_token().token {
        Token::EOF => Ok(statement),
        _ => df.parser.expected("end of statement", df.parser.peek_token()),
    }
}

fn parse_df(df: &mut DFParser<'_>) -> ParseResult<DfStatement> {
    df.parse_statement().map_err(parser_error)
}

fn classify(statement: DfStatement) -> ParseResult<Statement> {
    use SqlStatement as S;
    Ok(match statement {
        DfStatement::CreateExternalTable(t) => Statement::ExternalTable(Box::new(t)),
        DfStatement::CopyTo(c) => Statement::Copy(Box::new(c)),
        DfStatement::Explain(_) => Statement::Query(Box::new(statement)),
        DfStatement::Statement(ref s) => match **s {
            S::Query(_) | S::Explain { .. } | S::ExplainTable { .. } | S::ShowTables { .. } | S::ShowColumns { .. } => {
                Statement::Query(Box::new(statement))
            }
            S::ShowVariable { .. } | S::ShowFunctions { .. } => Statement::Query(Box::new(statement)),
            S::Drop { object_type: ObjectType::Table | ObjectType::View, if_exists, ref names, .. } => {
                let name = only_name(names).ok_or(ParserError::ParserError("DROP takes one plain name".into()))?;
                Statement::Drop { kind: ObjectKind::Table, name, if_exists }
            }
            S::CreateView { .. } | S::CreateTable { .. } | S::Set(_) | S::Drop { .. } | S::CreateSchema { .. } => {
                Statement::Session(Box::new(statement))
            }
            _ => return Err(ParserError::ParserError("this statement is not part of a job".into())),
        },
        _ => return Err(ParserError::ParserError("this statement is not part of a job".into())),
    })
}

fn only_name(names: &[ObjectName]) -> Option<Ident> {
    match names {
        [ObjectName(parts)] => match parts.as_slice() {
            [ObjectNamePart::Identifier(name)] => Some(name.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// The parser of the statements that DataFusion does not have.
struct Own<'a, 'p> {
    parser: &'a mut Parser<'p>,
    source: &'a Source,
}

impl Own<'_, '_> {
    fn statement(&mut self, words: &[&str]) -> ParseResult<Statement> {
        self.parser.next_token();
        match words {
            ["MATERIALIZE", ..] => self.materialize(),
            ["DROP", ..] => self.drop(),
            ["CREATE", "FEATURE", "VIEW"] => self.feature_view(),
            ["CREATE", "FEATURE", ..] => self.feature_service(),
            ["CREATE", "TRAINING", ..] => self.training_set(),
            ["CREATE", "EXTERNAL", ..] => self.external_catalog(),
            _ => self.model(),
        }
    }

    fn external_catalog(&mut self) -> ParseResult<Statement> {
        self.words(&["EXTERNAL", "CATALOG"])?;
        let if_not_exists = self.parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
        let name = self.parser.parse_identifier()?;
        self.words(&["STORED", "AS"])?;
        let stored_as = self.parser.parse_identifier()?;
        let options = if self.word("OPTIONS") { self.options()? } else { vec![] };
        Ok(Statement::ExternalCatalog(Box::new(CreateExternalCatalog { name, if_not_exists, stored_as, options })))
    }

    fn feature_view(&mut self) -> ParseResult<Statement> {
        self.words(&["FEATURE", "VIEW"])?;
        let name = self.parser.parse_identifier()?;
        self.words(&["ENTITY"])?;
        let entity = self
            .parser
            .parse_parenthesized_column_list(datafusion::sql::sqlparser::parser::IsOptional::Mandatory, false)?;
        self.words(&["EVENT", "TIME"])?;
        let event_time = self.parser.parse_identifier()?;
        let sequence = if self.word("SEQUENCE") { Some(self.parser.parse_identifier()?) } else { None };
        let options = if self.word("WITH") { self.options()? } else { vec![] };
        let query = self.body()?;
        Ok(Statement::FeatureView(Box::new(CreateFeatureView { name, entity, event_time, sequence, options, query })))
    }

    fn feature_service(&mut self) -> ParseResult<Statement> {
        self.words(&["FEATURE", "SERVICE"])?;
        let name = self.parser.parse_identifier()?;
        self.parser.expect_token(&Token::LParen)?;
        let request = self.parser.parse_comma_separated(Parser::parse_column_def)?;
        self.parser.expect_token(&Token::RParen)?;
        let query = self.body()?;
        Ok(Statement::FeatureService(Box::new(CreateFeatureService { name, request, query })))
    }

    fn training_set(&mut self) -> ParseResult<Statement> {
        self.words(&["TRAINING", "SET"])?;
        let name = self.parser.parse_identifier()?;
        self.words(&["FROM", "SERVICE"])?;
        let service = self.parser.parse_identifier()?;
        let query = self.body()?;
        Ok(Statement::TrainingSet(Box::new(CreateTrainingSet { name, service, query })))
    }

    fn model(&mut self) -> ParseResult<Statement> {
        self.words(&["MODEL"])?;
        let name = self.parser.parse_identifier()?;
        self.words(&["FROM", "TRAINING", "SET"])?;
        let training_set = self.parser.parse_identifier()?;
        self.words(&["LABEL"])?;
        let label = self.parser.parse_identifier()?;
        let split = if self.word("SPLIT") { Some(self.split()?) } else { None };
        self.words(&["USING"])?;
        let algorithm = self.algorithm()?;
        let options = if self.word("OPTIONS") { self.options()? } else { vec![] };
        Ok(Statement::Model(Box::new(CreateModel { name, training_set, label, split, algorithm, options })))
    }

    fn algorithm(&mut self) -> ParseResult<Algorithm> {
        let name = self.parser.parse_identifier()?;
        if !name.value.eq_ignore_ascii_case("script") {
            return Ok(Algorithm::BuiltIn(name));
        }
        let span = self.span(self.parser.peek_token().span);
        Ok(Algorithm::Script { path: self.parser.parse_literal_string()?, span })
    }

    fn split(&mut self) -> ParseResult<Split> {
        self.words(&["BY", "TIME"])?;
        let time = self.parser.parse_identifier()?;
        let start = self.parser.peek_token().span;
        self.parser.expect_token(&Token::LParen)?;
        let mut shares = [0.0; 3];
        for (i, part) in ["TRAIN", "VALIDATION", "TEST"].into_iter().enumerate() {
            if i > 0 {
                self.parser.expect_token(&Token::Comma)?;
            }
            self.words(&[part])?;
            let number = self.parser.next_token();
            shares[i] = match &number.token {
                Token::Number(n, _) => n.parse().map_err(|_| ParserError::ParserError(format!("`{n}` is no share")))?,
                _ => return self.parser.expected("a share like 0.7", number),
            };
        }
        let end = self.parser.expect_token(&Token::RParen)?.span;
        Ok(Split { time, shares, span: self.span(SqlSpan::new(start.start, end.end)) })
    }

    fn materialize(&mut self) -> ParseResult<Statement> {
        self.words(&["FEATURE", "VIEW"])?;
        let view = self.parser.parse_identifier()?;
        let until = if self.word("UNTIL") { Some(Box::new(self.parser.parse_expr()?)) } else { None };
        Ok(Statement::Materialize { view, until })
    }

    fn drop(&mut self) -> ParseResult<Statement> {
        let kind = if self.word("MODEL") {
            ObjectKind::Model
        } else if self.word("TRAINING") {
            self.words(&["SET"])?;
            ObjectKind::TrainingSet
        } else {
            self.words(&["FEATURE"])?;
            if self.word("VIEW") {
                ObjectKind::FeatureView
            } else {
                self.words(&["SERVICE"])?;
                ObjectKind::FeatureService
            }
        };
        let if_exists = self.parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        Ok(Statement::Drop { kind, name: self.parser.parse_identifier()?, if_exists })
    }

    fn body(&mut self) -> ParseResult<Query> {
        self.words(&["AS"])?;
        self.parser.parse_query().map(|q| *q)
    }

    /// `(key [=] value, …)`; a value is a string, a number, a boolean or a word.
    fn options(&mut self) -> ParseResult<Vec<SqlOption>> {
        self.parser.expect_token(&Token::LParen)?;
        let mut options = Vec::new();
        while !self.parser.consume_token(&Token::RParen) {
            if !options.is_empty() {
                self.parser.expect_token(&Token::Comma)?;
            }
            let key = self.parser.parse_identifier()?;
            let _ = self.parser.consume_token(&Token::Eq);
            let start = self.parser.peek_token().span.start;
            let value = self.option_value()?;
            let end = self.parser.get_current_token().span.end;
            options.push(SqlOption { key, value, span: self.span(SqlSpan::new(start, end)) });
        }
        Ok(options)
    }

    fn option_value(&mut self) -> ParseResult<String> {
        let first = self.parser.peek_token();
        match self.parser.parse_expr()? {
            Expr::Value(v) => match v.value {
                Value::SingleQuotedString(s) | Value::DoubleQuotedString(s) => Ok(s),
                other => Ok(other.to_string()),
            },
            Expr::Identifier(Ident { value, .. }) => Ok(value),
            e @ Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, .. } => Ok(e.to_string()),
            _ => self.parser.expected("a string, number, boolean or word", first),
        }
    }

    fn words(&mut self, words: &[&str]) -> ParseResult<()> {
        for word in words {
            if !self.word(word) {
                return self.parser.expected(word, self.parser.peek_token());
            }
        }
        Ok(())
    }

    fn word(&mut self, expected: &str) -> bool {
        let found = word(&self.parser.peek_token()).is_some_and(|w| w.eq_ignore_ascii_case(expected));
        if found {
            self.parser.next_token();
        }
        found
    }

    fn span(&self, span: SqlSpan) -> Span {
        self.source.span(span).unwrap_or_default()
    }
}

fn word(token: &TokenWithSpan) -> Option<String> {
    match &token.token {
        Token::Word(w) if w.quote_style.is_none() => Some(w.value.clone()),
        _ => None,
    }
}

fn parser_error(e: datafusion::error::DataFusionError) -> ParserError {
    match e.find_root() {
        datafusion::error::DataFusionError::SQL(e, _) => (**e).clone(),
        other => ParserError::ParserError(other.strip_backtrace()),
    }
}

/// The parser puts the place into its text: `… at Line: 3, Column: 7`.
fn syntax_error(source: &Source, statement: Span, e: &ParserError) -> Diagnostic {
    let text = match e {
        ParserError::ParserError(m) | ParserError::TokenizerError(m) => m.as_str(),
        ParserError::RecursionLimitExceeded => "the statement is nested too deeply",
    };
    let (message, place) = text.rsplit_once(" at Line: ").unwrap_or((text, ""));
    let mut numbers = place.split(", Column: ").map_while(|n| n.trim().parse::<u64>().ok());
    let span = match (numbers.next(), numbers.next()) {
        (Some(line), Some(column)) => span_at(source, Location { line, column }),
        _ => Span { start: statement.start, end: statement.start + first_word_len(&source.text[statement.start..]) },
    };
    let message = message.strip_prefix("Expected: ").map_or(message.to_string(), |m| format!("expected {m}"));
    Diagnostic::error("syntax", message.replace(", found: EOF", ", found the end of the statement"), span)
}

/// The token that starts at `location`.
fn span_at(source: &Source, location: Location) -> Span {
    let start = source.span(SqlSpan::new(location, location)).unwrap_or_default().start;
    Span { start, end: start + first_word_len(&source.text[start..]).max(1).min(source.text.len() - start) }
}

fn first_word_len(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}
