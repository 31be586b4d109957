//! Runs a training program as a process of this machine and watches it.
//!
//! ```text
//!            prepare, env                 stdout ──┐
//!  JobSpec ────────────────▶ child, leader of  ────┼──▶ one channel of lines ──▶ on_line, output/logs.txt
//!                            its process group     │                            last 20 of stderr
//!                                 │       stderr ──┘
//!                                 ▼
//!        exit 0 and model/ filled ──▶ Ok        else ──▶ Error: code, output/failure, stderr, what to do
//! ```
//!
//! No process stays behind. Once the child has ended, and when the future is dropped before that, its whole group is
//! stopped: first with SIGTERM, so that a program may save its work, then with SIGKILL. If this process itself is
//! killed, the kernel kills the child.

use crate::contract::{Contract, JobSpec, at, is_empty, user_args};
use featurectl_core::{Error, ErrorKind, Result};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// Names the Python interpreter that runs scripts.
const PYTHON_VARIABLE: &str = "FEATURECTL_PYTHON";

/// The lines of stderr an error repeats.
const STDERR_TAIL_LINES: usize = 20;

/// The bytes of a line without an end that are passed on as a line of their own.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// How long a stopped program may take to save its work before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// How long output is awaited after the child has ended, if a process outside of its group holds it open.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// A training program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// A program and its arguments; it finds the hyperparameters in `input/config` and the environment. Runs in the
    /// job's `code/` folder.
    Command(Vec<OsString>),
    /// A Python script; it also gets the hyperparameters as `--name value`. Runs in its own folder with the
    /// interpreter that `FEATURECTL_PYTHON` names, or else `python3`.
    Script(PathBuf),
}

/// Runs `program` on the job's channels until it ends.
///
/// Each line that the program prints, to stdout or stderr, goes to `on_line` and to `output/logs.txt` as soon as it is
/// complete. The order of lines within each of the two streams is kept.
///
/// Errors if the program cannot be started, ends with a code other than 0, or ends with 0 but leaves `model/` empty.
/// Dropping the future stops the program and everything it started, which may block up to two seconds. Call it from a
/// thread that outlives the program (not inside of `block_in_place`): the kernel counts the death of the thread that
/// started a process as the death of its parent.
pub async fn launch(job: &JobSpec, program: &Program, on_line: &mut (dyn FnMut(&str) + Send)) -> Result<()> {
    let doing = || format!("training job `{}`", job.name);
    run(job, program, on_line).await.map_err(|e| e.context(doing()))
}

/// [`launch`] without the job's name in front of errors.
async fn run(job: &JobSpec, program: &Program, on_line: &mut (dyn FnMut(&str) + Send)) -> Result<()> {
    let contract = Contract::new(absolute(&job.base)?);
    contract.prepare(job)?;
    check_channels(job, &contract)?;
    let mut log = File::create(contract.log_file()).map_err(|e| at(e, "making", &contract.log_file()))?;

    let mut command = command(job, program, &contract)?;
    let called = command.as_std().get_program().to_string_lossy().into_owned();
    let is_script = matches!(program, Program::Script(_));
    let mut group = Group::spawn(&mut command).map_err(|e| cannot_start(&called, is_script, e))?;
    let (sender, mut lines) = mpsc::channel(256);
    for stream in group.outputs() {
        tokio::spawn(send_lines(stream, sender.clone()));
    }
    drop(sender);

    let mut tail = VecDeque::with_capacity(STDERR_TAIL_LINES);
    let mut take = |line: Line| -> Result<()> {
        on_line(&line.text);
        writeln!(log, "{}", line.text).map_err(|e| at(e, "writing", &contract.log_file()))?;
        if line.is_error {
            if tail.len() == STDERR_TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line.text);
        }
        Ok(())
    };
    let status = group.wait(&mut lines, &mut take).await?;
    // What the child has started and left behind must not hold its output open.
    drop(group);
    drain(&mut lines, &mut take).await?;
    judge(status, &contract, &Vec::from(tail))
}

/// The rest of the output, which is there already unless a process outside of the group keeps it open.
async fn drain(lines: &mut mpsc::Receiver<Line>, take: &mut impl FnMut(Line) -> Result<()>) -> Result<()> {
    let all = async {
        while let Some(line) = lines.recv().await {
            take(line)?;
        }
        Ok(())
    };
    tokio::time::timeout(DRAIN_MAX, all).await.unwrap_or(Ok(()))
}

/// The program runs in another folder, so the base must not depend on this one.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| at(e, "resolving", path))
}

/// A program that finds no data fails late and with a message of its own: better now.
fn check_channels(job: &JobSpec, contract: &Contract) -> Result<()> {
    for channel in &job.channels {
        let dir = contract.channel_dir(channel);
        if is_empty(&dir)? {
            let message = format!("channel `{channel}` has no data: write its Parquet files to `{}`", dir.display());
            return Err(Error::invalid(message));
        }
    }
    Ok(())
}

/// The child's command line, environment and folder.
fn command(job: &JobSpec, program: &Program, contract: &Contract) -> Result<Command> {
    let mut command = match program {
        Program::Command(words) => {
            let (first, rest) =
                words.split_first().ok_or_else(|| Error::invalid("the program has no name: give one"))?;
            let mut command = Command::new(first);
            command.args(rest).current_dir(contract.code_dir());
            command
        }
        Program::Script(script) => python(script, job)?,
    };
    // A launcher that is itself a SageMaker job must not pass its own job on.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SM_")) {
        command.env_remove(name);
    }
    command.envs(contract.env(job)).env("PYTHONUNBUFFERED", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    die_with_parent(&mut command);
    Ok(command)
}

/// The interpreter with the script and its arguments, in the script's folder so that it finds its neighbours.
fn python(script: &Path, job: &JobSpec) -> Result<Command> {
    let script = absolute(script)?;
    if !script.is_file() {
        return Err(Error::not_found(format!("no script `{}`: correct the path", script.display())));
    }
    let mut command = Command::new(std::env::var_os(PYTHON_VARIABLE).unwrap_or_else(|| "python3".into()));
    command.current_dir(script.parent().unwrap_or(Path::new("/")));
    command.arg(&script).args(user_args(&job.hyperparameters));
    Ok(command)
}

/// Lets the kernel kill the child when the thread that starts it ends, so that not even SIGKILL orphans it.
#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: the closure runs in the forked child before `exec`. It allocates nothing, takes no lock and calls only
    // `prctl`, `getppid` and `_exit`, which are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 {
                return Err(std::io::Error::last_os_error());
            }
            // The parent may have died before the line above; then nobody would send the signal.
            if libc::getppid().cast_unsigned() != parent {
                libc::_exit(1);
            }
            Ok(())
        });
    }
}

/// Other systems have no such request.
#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: &mut Command) {}

/// Why there is no child, in terms of what the caller can change.
fn cannot_start(program: &str, is_script: bool, error: std::io::Error) -> Error {
    let fix = match error.kind() {
        std::io::ErrorKind::NotFound if is_script => format!("install it, or name another Python in {PYTHON_VARIABLE}"),
        std::io::ErrorKind::NotFound => "install it or correct its name".to_string(),
        std::io::ErrorKind::PermissionDenied => "make it executable".to_string(),
        _ => "see whether it runs by itself".to_string(),
    };
    let kind = Error::from(std::io::Error::from(error.kind())).kind();
    Error::new(kind, format!("cannot start `{program}` ({error}): {fix}")).with_source(error)
}

/// The child and everything in its process group; dropping it stops them all.
struct Group {
    child: Child,
    /// The group's number, which is the child's process id.
    id: libc::pid_t,
    /// Whether the child ended by itself: then the others in its group have nothing left to save.
    ended: bool,
}

impl Group {
    /// Starts the child, which must have been told to lead a group of its own.
    fn spawn(command: &mut Command) -> std::io::Result<Self> {
        let child = command.spawn()?;
        let id = child.id().and_then(|id| libc::pid_t::try_from(id).ok());
        let id = id.ok_or_else(|| std::io::Error::other("the child ended before it could be watched"))?;
        Ok(Self { child, id, ended: false })
    }

    /// The streams to read: stdout and stderr, each with whether it is the latter.
    fn outputs(&mut self) -> Vec<(Box<dyn AsyncRead + Send + Unpin>, bool)> {
        let stdout = self.child.stdout.take().map(|s| (Box::new(s) as Box<dyn AsyncRead + Send + Unpin>, false));
        let stderr = self.child.stderr.take().map(|s| (Box::new(s) as Box<dyn AsyncRead + Send + Unpin>, true));
        stdout.into_iter().chain(stderr).collect()
    }

    /// Passes lines on until the child has ended.
    async fn wait(
        &mut self,
        lines: &mut mpsc::Receiver<Line>,
        take: &mut impl FnMut(Line) -> Result<()>,
    ) -> Result<ExitStatus> {
        loop {
            tokio::select! {
                Some(line) = lines.recv() => take(line)?,
                status = self.child.wait() => {
                    self.ended = true;
                    return status.map_err(|e| Error::from(e).context("waiting for the program"));
                }
            }
        }
    }

    /// Sends a signal to the whole group; false if nothing of it is left.
    fn signal(&self, signal: libc::c_int) -> bool {
        // SAFETY: `kill` reads two integers. The group is this child's: it was made by `process_group(0)`.
        unsafe { libc::kill(-self.id, signal) == 0 }
    }

    /// Whether anything of the group is left, after collecting the child's exit status.
    fn is_alive(&mut self) -> bool {
        let _ = self.child.try_wait();
        self.signal(0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended && self.signal(libc::SIGTERM) {
            let deadline = Instant::now() + STOP_GRACE;
            while self.is_alive() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        self.signal(libc::SIGKILL);
        let _ = self.child.try_wait();
    }
}

/// A line that the program printed, without its end.
struct Line {
    text: String,
    is_error: bool,
}

/// Sends each line of a stream until it ends or nobody listens. What is not UTF-8 is replaced.
async fn send_lines((stream, is_error): (Box<dyn AsyncRead + Send + Unpin>, bool), to: mpsc::Sender<Line>) {
    let mut reader = BufReader::new(stream);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).await {
            Ok(1..) => {}
            _ => return,
        }
        let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_string();
        if to.send(Line { text, is_error }).await.is_err() {
            return;
        }
    }
}

/// Whether the program did what it was started for.
fn judge(status: ExitStatus, contract: &Contract, stderr_tail: &[String]) -> Result<()> {
    if !status.success() {
        return Err(failure(status, contract, stderr_tail));
    }
    if is_empty(&contract.model_dir())? {
        return Err(Error::invalid(
            "the program ended with exit code 0 but wrote no model: write it to the folder that SM_MODEL_DIR names",
        ));
    }
    Ok(())
}

/// How it ended, why by its own account, what it last printed to stderr, and what to do.
fn failure(status: ExitStatus, contract: &Contract, stderr_tail: &[String]) -> Error {
    let mut message = format!("the program ended with {}", ending(status));
    if let Ok(reason) = fs::read_to_string(contract.failure_file()) {
        message.push_str(&format!(": {}", reason.trim_end()));
    }
    if !stderr_tail.is_empty() {
        message.push_str("\nlast lines of stderr:");
        for line in stderr_tail {
            message.push_str(&format!("\n  {line}"));
        }
    }
    message.push_str(&format!("\nhint: {}", advice(status, contract, stderr_tail)));
    Error::new(ErrorKind::Invalid, message)
}

/// An exit code, or the signal that ended the program.
fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_string(),
    }
}

/// What to do next, as far as the ending tells.
fn advice(status: ExitStatus, contract: &Contract, stderr_tail: &[String]) -> String {
    let killed = status.signal() == Some(libc::SIGKILL) || status.code() == Some(128 + libc::SIGKILL);
    let log = contract.log_file();
    if killed {
        "it was killed, most often for want of memory: train on fewer rows or columns, or on a larger machine".into()
    } else if stderr_tail.iter().any(|line| line.contains("ModuleNotFoundError")) {
        format!("install the module for the Python that {PYTHON_VARIABLE} names (`python3` if it is not set)")
    } else {
        format!("correct what the lines above say and run again; all output is in `{}`", log.display())
    }
}
