//! SQL semantics as sqllogictest files, in `tests/slt/`. `UPDATE_SLT=1` writes what the engine gives into them, to be
//! read before it is believed.

use std::path::Path;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use featurectl::{Error, Extensions, Project, Session};
use sqllogictest::{
    DBOutput, DefaultColumnType, Runner, default_column_validator, default_normalizer, default_validator,
};

struct Engine(Session);

#[async_trait::async_trait]
impl sqllogictest::AsyncDB for Engine {
    type Error = Error;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Error> {
        let batches = self.0.sql(sql).await?;
        let Some(first) = batches.first() else { return Ok(DBOutput::StatementComplete(0)) };
        let types = vec![DefaultColumnType::Any; first.num_columns()];
        Ok(DBOutput::Rows { types, rows: batches.iter().flat_map(cells).collect() })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "featurectl"
    }
}

fn cells(batch: &RecordBatch) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let formatter = |c| ArrayFormatter::try_new(c, &options).expect("a printable column");
    let columns: Vec<_> = batch.columns().iter().map(|c| formatter(c.as_ref())).collect();
    (0..batch.num_rows()).map(|row| columns.iter().map(|c| c.value(row).to_string()).collect()).collect()
}

#[test]
fn sql_means_what_the_files_say() {
    every_file(async |project| Session::open(project, &Extensions::default()));
}

/// Runs every file in sessions that `open` makes.
pub(crate) fn every_file<F: Future<Output = Result<Session, Error>>>(open: impl Fn(Project) -> F) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).expect("the files").map(|e| e.expect("an entry").path()).collect();
    files.retain(|f| f.extension().is_some_and(|x| x == "slt"));
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let store = tempfile::tempdir().expect("a folder");
        let project = || {
            let mut project = Project::at(&folder);
            project.store = store.path().into();
            project
        };
        let mut runner = Runner::new(|| async { Ok(Engine(open(project()).await?)) });
        if std::env::var_os("UPDATE_SLT").is_some() {
            let rewritten = runtime.block_on(runner.update_test_file(
                &file,
                " ",
                default_validator,
                default_normalizer,
                default_column_validator,
            ));
            rewritten.expect("the file can be rewritten");
            continue;
        }
        let result = runtime.block_on(runner.run_file_async(&file));
        result.unwrap_or_else(|e| panic!("{}", e.display(false)));
    }
}
