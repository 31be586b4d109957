//! What a scheduler says of itself over HTTP, on the port of its gRPC service.

use featurectl_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::job::Progress;
use super::{Address, VERSION, net};

/// A cluster at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of featurectl that the scheduler is.
    pub version: String,
    /// Its executors.
    pub executors: Vec<ExecutorStatus>,
    /// Its jobs of late, newest first.
    pub jobs: Vec<JobStatus>,
}

/// An executor at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecutorStatus {
    /// Its id.
    pub id: String,
    /// Version of featurectl that it is.
    pub version: String,
    /// Where others reach it.
    pub address: String,
    /// Tasks that it takes at once.
    pub slots: usize,
    /// When it was last heard of, milliseconds since 1970 UTC.
    pub seen_ms: Option<u64>,
}

/// A job at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Its id.
    pub id: String,
    /// `Queued`, `Running`, `Completed` or `Failed`.
    pub status: String,
    /// Stages that are done, and all of them.
    pub stages: (usize, usize),
    /// When it started, milliseconds since 1970 UTC.
    pub started_ms: u64,
}

/// An id that says the version of the process that made it.
pub(super) fn versioned(unique: &str) -> String {
    format!("{VERSION}-{unique}")
}

/// The version in an id.
pub(super) fn version_of(id: &str) -> Option<&str> {
    let (version, _) = id.split_once('-')?;
    version.split('.').all(|part| part.parse::<u32>().is_ok()).then_some(version)
}

async fn get(address: &Address, path: &str) -> Result<Value> {
    let foreign = |why: &dyn std::fmt::Display| {
        Error::invalid(format!("what answers at {address} is no featurectl scheduler ({path}: {why})"))
    };
    let (status, body) = match net::get(&address.place(), address.tls(), path).await {
        Ok(answer) => answer,
        Err(e) => {
            return Err(match net::misfit(&address.place(), address.tls()).await {
                Some(why) => foreign(&why),
                None => Error::new(
                    ErrorKind::Unavailable,
                    format!("the scheduler {address} does not answer ({e}): is it running, and is this its address?"),
                ),
            });
        }
    };
    if status != 200 {
        return Err(foreign(&status));
    }
    serde_json::from_slice(&body).map_err(|e| foreign(&e))
}

pub(super) async fn status(address: &Address) -> Result<Status> {
    let state = get(address, "/api/state").await?;
    let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
    let number = |v: &Value, key: &str| v.get(key).and_then(Value::as_u64).unwrap_or_default();
    let id = text(&state, "scheduler_id");
    let version = version_of(&id).map_or_else(|| format!("unknown ({id})"), String::from);
    let executors = get(address, "/api/executors").await?;
    let executor = |e: &Value| {
        let id = text(e, "id");
        ExecutorStatus {
            version: version_of(&id).map_or_else(|| "unknown".into(), String::from),
            address: format!("{}:{}", text(e, "host"), number(e, "port")),
            slots: e.get("specification").map_or(0, |s| number(s, "vcores").max(number(s, "task_slots"))) as usize,
            seen_ms: e.get("last_seen").and_then(Value::as_u64),
            id,
        }
    };
    let jobs = get(address, "/api/jobs").await?;
    let job = |j: &Value| JobStatus {
        id: text(j, "job_id"),
        status: text(j, "status"),
        stages: (number(j, "completed_stages") as usize, number(j, "num_stages") as usize),
        started_ms: number(j, "start_time"),
    };
    let all = |v: &Value| v.as_array().cloned().unwrap_or_default();
    let mut executors: Vec<_> = all(&executors).iter().map(executor).collect();
    executors.sort_by(|a, b| a.id.cmp(&b.id));
    let mut jobs: Vec<_> = all(&jobs).iter().map(job).collect();
    jobs.sort_by_key(|j| std::cmp::Reverse(j.started_ms));
    Ok(Status { version, executors, jobs })
}

/// An attempt of a task that did not succeed.
pub(super) struct FailedTask {
    /// Whether the task itself failed, rather than its executor or what it was to read being lost.
    pub(super) by_itself: bool,
    pub(super) error: String,
}

/// How far a job is, and the attempts of its tasks that failed.
pub(super) async fn progress(address: &Address, job: &str) -> Result<(Progress, Vec<FailedTask>)> {
    let answer = get(address, &format!("/api/job/{job}/stages")).await?;
    let stages = answer.get("stages").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut failed = Vec::new();
    let done = |s: &Value| s.get("stage_status").and_then(Value::as_str) == Some("Successful");
    let mut progress = Progress { job: job.into(), ..Progress::default() };
    progress.stages = (stages.iter().filter(|s| done(s)).count(), stages.len());
    for stage in &stages {
        progress.rows += stage.get("input_rows").and_then(Value::as_u64).unwrap_or_default();
        for task in stage.get("tasks").and_then(Value::as_array).into_iter().flatten() {
            let status = task.get("status");
            if let Some(failure) = status.and_then(|s| s.get("Failed")) {
                let text = |key: &str| failure.get(key).and_then(Value::as_str).unwrap_or_default();
                failed.push(FailedTask { by_itself: text("reason") == "ExecutionError", error: text("error").into() });
                continue;
            }
            let status = status.and_then(Value::as_str);
            progress.running += usize::from(status == Some("Running"));
            if !done(stage) {
                progress.tasks.1 += 1;
                progress.tasks.0 += usize::from(status == Some("Successful"));
            }
        }
    }
    progress.failed_tasks = failed.len();
    Ok((progress, failed))
}
