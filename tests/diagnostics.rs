//! What `check` says, as snapshots: each file of `tests/diagnostics/` is a job, and beside it is what it prints.
//! `UPDATE_EXPECT=1` rewrites the snapshots.

use std::path::Path;
use std::process::Command;

use expect_test::expect_file;

#[test]
fn every_problem_is_reported_with_its_place_and_help() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics");
    let mut jobs: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder of cases")
        .map(|e| e.expect("an entry").path())
        .filter(|p| p.extension().is_some_and(|x| x == "sql"))
        .collect();
    jobs.sort();
    assert!(jobs.len() >= 30, "{} cases", jobs.len());
    for job in jobs {
        let name = job.file_name().expect("a name");
        let output = Command::new(env!("CARGO_BIN_EXE_featurectl"))
            .args(["check".as_ref(), name])
            .current_dir(&folder)
            .output()
            .expect("featurectl runs");
        assert_eq!(output.status.code(), Some(1), "{} has problems", job.display());
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        let text = text.replace(&format!("{}/", folder.display()), "");
        expect_file![job.with_extension("txt")].assert_eq(&text);
    }
}
