//! Programs that succeed, fail, hang and are killed.

use crate::{ROLE, job, role_command, script};
use expect_test::expect;
use featurectl_core::Result;
use featurectl_trainer_bridge::{Program, launch};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Launches a script on a base folder; the result and the lines it printed.
async fn run(base: &Path, text: &str, hyperparameters: &[(&str, &str)]) -> (Result<()>, Vec<String>) {
    let program = Program::Script(script(base, text));
    let mut lines = Vec::new();
    let result = launch(&job(base, &[], hyperparameters), &program, &mut |line| lines.push(line.to_string())).await;
    (result, lines)
}

fn relative(text: &str, base: &Path) -> String {
    text.replace(&base.display().to_string(), "<base>")
}

#[tokio::test]
async fn a_script_finds_its_settings_and_leaves_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"
import json, os, pathlib, sys
print(sys.argv[1:])
print(json.loads(os.environ["SM_HPS"]))
base = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
print(json.loads((base / "input/config/hyperparameters.json").read_text()))
print(os.getcwd() == str(pathlib.Path(__file__).parent))
print("a warning", file=sys.stderr)
(pathlib.Path(os.environ["SM_MODEL_DIR"]) / "model.bin").write_text("trained")
"#;
    let (result, lines) = run(dir.path(), text, &[("rounds", "3"), ("name", "x y")]).await;
    result.unwrap();
    assert!(lines.contains(&"a warning".to_string()), "{lines:?}");
    let stdout: Vec<String> = lines.iter().filter(|line| *line != "a warning").cloned().collect();
    expect![[r#"
        ['--name', 'x y', '--rounds', '3']
        {'name': 'x y', 'rounds': 3}
        {'name': 'x y', 'rounds': '3'}
        True"#]]
    .assert_eq(&stdout.join("\n"));
    assert_eq!(fs::read_to_string(dir.path().join("model/model.bin")).unwrap(), "trained");
    assert_eq!(fs::read_to_string(dir.path().join("output/logs.txt")).unwrap().lines().count(), lines.len());
}

#[tokio::test]
async fn an_error_has_the_exit_code_the_failure_the_end_of_stderr_and_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"
import os, pathlib, sys
base = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
(base / "output/failure").write_text("no more patience")
for i in range(30):
    print(f"line {i}", file=sys.stderr)
sys.exit(3)
"#;
    let (result, lines) = run(dir.path(), text, &[]).await;
    assert_eq!(lines.len(), 30);
    let message = relative(&result.unwrap_err().to_string(), dir.path());
    expect![[r#"
        training job `late-arrival`: the program ended with exit code 3: no more patience
        last lines of stderr:
          line 10
          line 11
          line 12
          line 13
          line 14
          line 15
          line 16
          line 17
          line 18
          line 19
          line 20
          line 21
          line 22
          line 23
          line 24
          line 25
          line 26
          line 27
          line 28
          line 29
        hint: correct what the lines above say and run again; all output is in `<base>/output/logs.txt`"#]]
    .assert_eq(&message);
}

#[tokio::test]
async fn a_killed_program_hints_at_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (result, _) = run(dir.path(), "import os\nos.kill(os.getpid(), 9)\n", &[]).await;
    expect![[r#"
        training job `late-arrival`: the program ended with signal 9
        hint: it was killed, most often for want of memory: train on fewer rows or columns, or on a larger machine"#]]
    .assert_eq(&result.unwrap_err().to_string());
}

#[tokio::test]
async fn a_missing_module_hints_at_the_interpreter() {
    let dir = tempfile::tempdir().unwrap();
    let (result, _) = run(dir.path(), "import no_such_module_anywhere\n", &[]).await;
    let message = result.unwrap_err().to_string();
    let hint = message.lines().last().unwrap();
    expect!["hint: install the module for the Python that FEATURECTL_PYTHON names (`python3` if it is not set)"]
        .assert_eq(hint);
}

#[tokio::test]
async fn success_without_a_model_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (result, _) = run(dir.path(), "print('done')\n", &[]).await;
    expect!["training job `late-arrival`: the program ended with exit code 0 but wrote no model: write it to the folder that SM_MODEL_DIR names"].assert_eq(&result.unwrap_err().to_string());
}

#[tokio::test]
async fn a_channel_without_data_is_an_error_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::Command(vec!["false".into()]);
    let error = launch(&job(dir.path(), &["train"], &[]), &program, &mut |_| {}).await.unwrap_err();
    expect![
        "training job `late-arrival`: channel `train` has no data: write its Parquet files to `<base>/input/data/train`"
    ]
    .assert_eq(&relative(&error.to_string(), dir.path()));
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::Command(vec!["no-such-program".into()]);
    let error = launch(&job(dir.path(), &[], &[]), &program, &mut |_| {}).await.unwrap_err();
    expect!["training job `late-arrival`: cannot start `no-such-program` (No such file or directory (os error 2)): install it or correct its name"].assert_eq(&error.to_string());
}

#[tokio::test]
async fn output_that_is_not_text_and_lines_without_end_pass() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"
import os, pathlib, sys
(pathlib.Path(os.environ["SM_MODEL_DIR"]) / "m").write_text("x")
sys.stdout.buffer.write(b"\xff\n" + b"a" * 200000 + b"\r\nlast")
"#;
    let (result, lines) = run(dir.path(), text, &[]).await;
    result.unwrap();
    assert_eq!(lines[0], "\u{fffd}");
    assert_eq!(lines[1..lines.len() - 1].concat().len(), 200_000);
    assert_eq!(lines[lines.len() - 1], "last");
}

/// Starts a process of its own, prints both ids and hangs; says so in a file when it is asked to stop.
const HANGING: &str = r#"
import os, pathlib, signal, subprocess, sys, time
def stop(*_):
    pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"], "saved").write_text("work")
    sys.exit(1)
signal.signal(signal.SIGTERM, stop)
helper = subprocess.Popen(["sleep", "600"])
print("pids", os.getpid(), helper.pid, flush=True)
time.sleep(600)
"#;

fn pids(line: &str) -> Option<Vec<u32>> {
    line.strip_prefix("pids ")?.split(' ').map(|pid| pid.parse().ok()).collect()
}

/// Whether a process runs; one that has ended and waits to be collected does not.
fn runs(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X']))
}

fn ends(pid: u32) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while runs(pid) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    !runs(pid)
}

#[tokio::test]
async fn dropping_the_future_stops_everything_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::Script(script(dir.path(), HANGING));
    let (found, mut started) = tokio::sync::mpsc::unbounded_channel();
    let job = job(dir.path(), &[], &[]);
    let mut on_line = |line: &str| {
        if let Some(pids) = pids(line) {
            found.send(pids).unwrap();
        }
    };
    let started = tokio::select! {
        result = launch(&job, &program, &mut on_line) => panic!("it should hang: {result:?}"),
        pids = started.recv() => pids.unwrap(),
    };
    assert_eq!(started.len(), 2);
    assert!(started.iter().all(|pid| ends(*pid)), "{started:?}");
    assert_eq!(fs::read_to_string(dir.path().join("saved")).unwrap(), "work");
}

#[tokio::test]
async fn a_program_that_ignores_sigterm_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let deaf = HANGING.replace("signal.SIGTERM, stop", "signal.SIGTERM, signal.SIG_IGN");
    let program = Program::Script(script(dir.path(), &deaf));
    let job = job(dir.path(), &[], &[]);
    let (found, mut started) = tokio::sync::mpsc::unbounded_channel();
    let mut on_line = |line: &str| drop(pids(line).map(|pids| found.send(pids)));
    let started = tokio::select! {
        result = launch(&job, &program, &mut on_line) => panic!("it should hang: {result:?}"),
        pids = started.recv() => pids.unwrap(),
    };
    assert!(started.iter().all(|pid| ends(*pid)), "{started:?}");
    assert!(!dir.path().join("saved").exists());
}

#[tokio::test]
async fn what_a_finished_program_leaves_running_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"
import os, pathlib, subprocess
(pathlib.Path(os.environ["SM_MODEL_DIR"]) / "m").write_text("x")
print("pids", subprocess.Popen(["sleep", "600"]).pid)
"#;
    let (result, lines) = run(dir.path(), text, &[]).await;
    result.unwrap();
    assert!(ends(pids(&lines[0]).unwrap()[0]));
}

/// The part of a launcher that is killed: launches the script in the current folder.
pub fn launch_forever() -> ! {
    let base = PathBuf::from(std::env::var_os("LAUNCH_BASE").expect("a folder"));
    let program = Program::Script(base.join("script.py"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = runtime.block_on(launch(&job(&base, &[], &[]), &program, &mut |line| println!("{line}")));
    panic!("it should hang: {result:?}");
}

#[test]
fn killing_the_launcher_leaves_no_program_behind() {
    let dir = tempfile::tempdir().unwrap();
    script(dir.path(), HANGING);
    let words = role_command("launcher");
    let mut launcher = Command::new(&words[2])
        .args(&words[3..])
        .env(ROLE, "launcher")
        .env("LAUNCH_BASE", dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(launcher.stdout.take().unwrap());
    let started = output.lines().map_while(|line| line.ok()).find_map(|line| pids(&line)).expect("ids");
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    assert!(ends(started[0]));
    // The kernel's promise covers the program alone: end what it started.
    Command::new("kill").arg(started[1].to_string()).status().unwrap();
}
