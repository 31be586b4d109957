//! The crate as its callers see it: jobs launched as processes, and models loaded by the real LightGBM.

mod contract;
mod data;
mod launching;
mod training;

use featurectl_trainer_bridge::{JobSpec, Program};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Set in a process that this binary starts to play a part other than that of the tests.
const ROLE: &str = "TRAINER_BRIDGE_TEST_ROLE";

/// Plays the part that [`ROLE`] names; as a test of the suite it does nothing.
#[test]
fn role() {
    match std::env::var(ROLE).as_deref() {
        Ok("gbdt") => std::process::exit(featurectl_trainer_bridge::gbdt_program()),
        Ok("launcher") => launching::launch_forever(),
        _ => {}
    }
}

/// This binary in another role.
fn role_command(role: &str) -> Vec<OsString> {
    let this = std::env::current_exe().expect("the path of this binary");
    let mut words: Vec<OsString> = vec!["env".into(), format!("{ROLE}={role}").into(), this.into()];
    words.extend(["--exact", "role", "--nocapture"].map(OsString::from));
    words
}

/// The built-in program as a process.
fn gbdt() -> Program {
    Program::Command(role_command("gbdt"))
}

fn job(base: &Path, channels: &[&str], hyperparameters: &[(&str, &str)]) -> JobSpec {
    JobSpec {
        name: "late-arrival".to_string(),
        base: base.to_path_buf(),
        hyperparameters: hyperparameters.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        channels: channels.iter().map(|c| c.to_string()).collect(),
    }
}

/// Writes a script next to the job.
fn script(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("script.py");
    std::fs::write(&path, text).expect("a script");
    path
}
