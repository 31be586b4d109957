//! Rows on stdout: as a table, as JSON, as CSV.

use arrow::array::{Array, RecordBatch};
use arrow::csv::WriterBuilder;
use arrow::json::WriterBuilder as JsonBuilder;
use arrow::json::writer::JsonArray;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use featurectl_core::Result;

use crate::args::Output;

/// Prints the rows of a query.
pub(crate) fn rows(batches: &[RecordBatch], output: Output) -> Result<()> {
    match output {
        Output::Json => {
            let builder = JsonBuilder::new().with_explicit_nulls(true);
            let mut writer = builder.build::<_, JsonArray>(std::io::stdout().lock());
            writer.write_batches(&batches.iter().collect::<Vec<_>>())?;
            writer.finish()?;
            println!();
        }
        Output::Csv => {
            let mut writer = WriterBuilder::new().with_header(true).build(std::io::stdout().lock());
            batches.iter().try_for_each(|b| writer.write(b))?;
        }
        Output::Table => print!("{}", boxed(&header(batches), &cells(batches)?)),
    }
    Ok(())
}

/// Prints rows of plain text.
pub(crate) fn strings(header: &[&str], rows: Vec<Vec<String>>, output: Output) {
    if output == Output::Csv {
        let quoted = |cells: &[String]| {
            cells.iter().map(|c| format!("\"{}\"", c.replace('"', "\"\""))).collect::<Vec<_>>().join(",")
        };
        println!("{}", header.join(","));
        rows.iter().for_each(|r| println!("{}", quoted(r)));
        return;
    }
    let header: Vec<Vec<String>> = vec![header.iter().map(|h| h.to_string()).collect()];
    print!("{}", boxed(&header, &rows));
}

/// Names, then types.
fn header(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let Some(first) = batches.first() else { return vec![vec![]] };
    let schema = first.schema();
    let names = schema.fields().iter().map(|f| f.name().clone()).collect();
    let types = schema.fields().iter().map(|f| f.data_type().to_string().to_lowercase()).collect();
    vec![names, types]
}

fn cells(batches: &[RecordBatch]) -> Result<Vec<Vec<String>>> {
    let options = FormatOptions::default().with_null("NULL");
    let mut out = Vec::new();
    for batch in batches {
        let columns = batch.columns().iter();
        let formatters =
            columns.map(|c| ArrayFormatter::try_new(c.as_ref(), &options)).collect::<Result<Vec<_>, _>>()?;
        out.extend((0..batch.num_rows()).map(|row| formatters.iter().map(|f| f.value(row).to_string()).collect()));
    }
    debug_assert!(batches.iter().all(|b| b.columns().iter().all(|c| c.len() == b.num_rows())));
    Ok(out)
}

fn boxed(header: &[Vec<String>], rows: &[Vec<String>]) -> String {
    let columns = header.first().map_or(0, Vec::len);
    let width = |i: usize| header.iter().chain(rows).map(|r| r[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let rule = |left: &str, middle: &str, right: &str| {
        let parts: Vec<String> = widths.iter().map(|w| "─".repeat(w + 2)).collect();
        format!("{left}{}{right}\n", parts.join(middle))
    };
    let line = |cells: &Vec<String>| {
        let parts: Vec<String> = cells.iter().zip(&widths).map(|(c, w)| format!(" {c:<w$} ")).collect();
        format!("│{}│\n", parts.join("│"))
    };
    let mut out = rule("┌", "┬", "┐");
    out.extend(header.iter().map(line));
    out.push_str(&rule("├", "┼", "┤"));
    out.extend(rows.iter().map(line));
    out + &rule("└", "┴", "┘")
}
