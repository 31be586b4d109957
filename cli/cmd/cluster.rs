//! `cluster`: the roles of a cluster, a cluster on one machine, and how a cluster is.

use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use featurectl_core::{Error, Result};
use featurectl_executors::cluster::{self, Address, ExecutorOptions, SchedulerOptions, Status};
use tokio::process::{Child, Command};

use crate::args::{ClusterVerb, Global, Output};
use crate::render;
use crate::session::Extensions;

/// Does what the command line says.
pub(super) async fn cluster(global: &Global, extensions: &Extensions, verb: ClusterVerb) -> Result<ExitCode> {
    match verb {
        ClusterVerb::Scheduler { bind, port, tls } => {
            log_to_stderr();
            let tls = tls.read()?;
            render::status("Listening", &format!("scheduler on {bind}:{port}"));
            cluster::scheduler(SchedulerOptions { bind, port, tls }, &extensions.role()).await?;
        }
        ClusterVerb::Executor {
            scheduler,
            bind,
            advertise,
            port,
            grpc_port,
            threads,
            memory_mb,
            work_dir,
            drain_seconds,
            tls,
        } => {
            log_to_stderr();
            let scheduler = scheduler.with_tls(tls.read()?);
            let work_dir = work_dir.unwrap_or_else(|| default_work_dir(port));
            render::status("Starting", &format!("executor on {bind}:{port} for {scheduler}"));
            let drain = Duration::from_secs(drain_seconds);
            let memory_bytes = memory_mb.map(|m| m << 20);
            let options =
                ExecutorOptions { scheduler, bind, advertise, port, grpc_port, threads, memory_bytes, work_dir, drain };
            if cluster::executor(options, &extensions.role()).await? == cluster::Ended::Left {
                tokio::time::sleep(Duration::from_secs(1)).await;
                return Err(begin_anew());
            }
        }
        ClusterVerb::Up { executors, threads, memory_mb, port } => up(executors, threads, memory_mb, port).await?,
        ClusterVerb::Status { cluster, tls } => print(global, &cluster.with_tls(tls.read()?).status().await?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Replaces this process by a new one with the same arguments. Gives an error if that can't be.
fn begin_anew() -> Error {
    use std::os::unix::process::CommandExt;
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(e) => return e.into(),
    };
    render::status("Starting", "anew: the scheduler was gone, or had given this executor up");
    let e = std::process::Command::new(&program).args(std::env::args_os().skip(1)).exec();
    Error::from(e).context(format!("starting {}", program.display()))
}

fn default_work_dir(port: u16) -> PathBuf {
    std::env::temp_dir().join(format!("featurectl-executor-{port}"))
}

/// Warnings, and what `RUST_LOG` asks for.
fn log_to_stderr() {
    let env = env_logger::Env::default().default_filter_or("warn");
    let _ = env_logger::Builder::from_env(env).format_target(false).try_init();
}

/// Runs a scheduler and executors as processes until one of them or this one ends.
async fn up(executors: u16, threads: Option<usize>, memory_mb: Option<u64>, port: u16) -> Result<()> {
    if executors == 0 {
        return Err(Error::invalid("--executors 0: a cluster needs at least one"));
    }
    let last = u32::from(port) + 2 * u32::from(executors);
    if last > u32::from(u16::MAX) {
        return Err(Error::invalid(format!("--port {port}: {executors} executors would need ports up to {last}")));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.unwrap_or((cores / usize::from(executors)).max(1)).to_string();
    let program = std::env::current_exe()?;
    let role = |args: &[&str]| -> Result<Child> {
        let mut command = Command::new(&program);
        command.arg("cluster").args(args).stdin(Stdio::null()).kill_on_drop(true);
        command.spawn().map_err(|e| Error::from(e).context(format!("starting {}", program.display())))
    };
    let address = Address::parse(&format!("df://127.0.0.1:{port}"))?;
    let mut children = vec![role(&["scheduler", "--port", &port.to_string()])?];
    let memory = memory_mb.map(|m| m.to_string());
    for number in 0..executors {
        let (rows, tasks) = ((port + 1 + 2 * number).to_string(), (port + 2 + 2 * number).to_string());
        let scheduler = format!("127.0.0.1:{port}");
        let mut args = vec!["executor", "--scheduler", &scheduler, "--port", &rows, "--grpc-port", &tasks];
        args.extend(["--threads", &threads]);
        args.extend(memory.iter().flat_map(|m| ["--memory-mb", m]));
        children.push(role(&args)?);
    }
    let ready = async {
        loop {
            match address.status().await {
                Ok(status) if status.executors.len() == usize::from(executors) => break,
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        render::status("Ready", &format!("featurectl run job.sql --cluster {address}"));
        std::future::pending::<()>().await
    };
    let ended = async {
        let waits = children.iter_mut().map(|c| Box::pin(c.wait()));
        let (ended, which, _) = futures::future::select_all(waits).await;
        let name = if which == 0 { "the scheduler".to_string() } else { format!("executor {which}") };
        Error::new(
            featurectl_core::ErrorKind::Unavailable,
            match ended {
                Ok(status) => format!("{name} ended: {status}"),
                Err(e) => format!("{name} ended: {e}"),
            },
        )
    };
    let term = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut term) => drop(term.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        e = ended => Err(e),
        () = ready => Ok(()),
        () = term => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

fn print(global: &Global, status: &Status) -> Result<()> {
    if global.output == Output::Json {
        return render::json(status);
    }
    let now = now_ms();
    let executors = status.executors.iter().map(|e| {
        let silent = e.seen_ms.map_or("-".into(), |ms| render::seconds(now.saturating_sub(ms) as f64 / 1000.0));
        vec![e.id.clone(), e.address.clone(), e.slots.to_string(), silent]
    });
    println!("featurectl {}", status.version);
    let header = ["executor", "address", "tasks at once", "last heard of"];
    render::strings(&header, executors.collect(), global.output);
    let jobs =
        status.jobs.iter().map(|j| vec![j.id.clone(), j.status.clone(), format!("{} of {}", j.stages.0, j.stages.1)]);
    render::strings(&["job", "status", "stages"], jobs.collect(), global.output);
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the edge: how long ago is told of now")]
fn now_ms() -> u64 {
    chrono::Utc::now().timestamp_millis().unsigned_abs()
}
