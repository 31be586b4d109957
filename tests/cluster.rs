//! A cluster of processes on this machine: the same results as without one, also when its roles are killed.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use featurectl::{Address, Extensions, Project, Session};
use tempfile::TempDir;

use crate::cli::{fails, featurectl, job, project, text};
use crate::kill::outcome;

/// Waits that a test gives up after.
const PATIENCE: Duration = Duration::from_secs(120);

/// A scheduler and executors, which end with this.
pub(crate) struct Cluster {
    program: PathBuf,
    port: u16,
    scheduler: Child,
    executors: Vec<(Child, u16)>,
    folder: TempDir,
    environment: Vec<(String, String)>,
}

impl Cluster {
    pub(crate) fn start(executors: usize) -> Self {
        Self::of(env!("CARGO_BIN_EXE_featurectl").into(), executors)
    }

    /// Its executors have these variables in their environment.
    pub(crate) fn with_environment(executors: usize, environment: &BTreeMap<&str, String>) -> Self {
        let environment = environment.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
        Self::made(env!("CARGO_BIN_EXE_featurectl").into(), executors, environment)
    }

    fn of(program: PathBuf, executors: usize) -> Self {
        Self::made(program, executors, vec![])
    }

    fn made(program: PathBuf, executors: usize, environment: Vec<(String, String)>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let scheduler = spawn(&program, &["scheduler", "--port", &port.to_string()]);
        let mut cluster = Self { program, port, scheduler, executors: vec![], folder, environment };
        (0..executors).for_each(|_| cluster.add_executor());
        cluster.wait(executors);
        cluster
    }

    fn add_executor(&mut self) {
        let port = free_port();
        let executor = self.executor_at(port);
        self.executors.push((executor, port));
    }

    fn executor_at(&self, port: u16) -> Child {
        let scheduler = format!("127.0.0.1:{}", self.port);
        let work = self.work_dir(port);
        let (rows, tasks) = (port.to_string(), free_port().to_string());
        let args = ["executor", "--scheduler", &scheduler, "--port", &rows, "--grpc-port", &tasks, "--threads", "1"];
        let more = ["--memory-mb", "512", "--work-dir", work.to_str().expect("UTF-8")];
        let mut command = Command::new(&self.program);
        command.envs(self.environment.iter().cloned());
        let Some(log) = self.log(port) else { return role(command, &[&args[..], &more[..]].concat()) };
        command.arg("cluster").args(args).args(more).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(std::fs::File::create(log).expect("a file")).spawn().expect("featurectl runs")
    }

    /// Where an executor's log goes, if its environment asks for one.
    fn log(&self, port: u16) -> Option<PathBuf> {
        let wanted = self.environment.iter().any(|(name, _)| name == "RUST_LOG");
        wanted.then(|| self.folder.path().join(format!("{port}.log")))
    }

    /// The logs of all executors.
    pub(crate) fn logs(&self) -> Vec<u8> {
        let logs = self.executors.iter().filter_map(|(_, port)| self.log(*port));
        logs.flat_map(|log| std::fs::read(log).expect("a log")).collect()
    }

    /// How many jobs it has run of late.
    pub(crate) fn jobs(&self) -> usize {
        self.status().and_then(|s| s["jobs"].as_array().map(Vec::len)).unwrap_or(0)
    }

    fn work_dir(&self, port: u16) -> PathBuf {
        self.folder.path().join(port.to_string())
    }

    /// Sends an executor a signal.
    fn signal(&self, executor: usize, signal: &str) {
        let id = self.executors[executor].0.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill runs").success());
    }

    pub(crate) fn address(&self) -> String {
        format!("df://127.0.0.1:{}", self.port)
    }

    fn status(&self) -> Option<serde_json::Value> {
        let status = Command::new(&self.program).args(["cluster", "status", &self.address(), "-o", "json"]).output();
        serde_json::from_slice(&status.ok()?.stdout).ok()
    }

    /// Until the scheduler knows this many executors.
    fn wait(&self, executors: usize) {
        let started = Instant::now();
        loop {
            let known = self.status().and_then(|s| s["executors"].as_array().map(Vec::len));
            if known == Some(executors) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{known:?} of {executors} executors");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills the scheduler (0) or an executor, and starts it anew.
    fn kill(&mut self, which: usize) {
        if which == 0 {
            end(&mut self.scheduler);
            self.scheduler = spawn(&self.program, &["scheduler", "--port", &self.port.to_string()]);
        } else {
            let (mut child, port) = self.executors.remove(which - 1);
            end(&mut child);
            let anew = self.executor_at(port);
            self.executors.insert(which - 1, (anew, port));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.executors.iter_mut().for_each(|(e, _)| end(e));
        end(&mut self.scheduler);
    }
}

fn spawn(program: &Path, args: &[&str]) -> Child {
    role(Command::new(program), args)
}

/// Starts a role by a command that ends with the binary.
pub(crate) fn role(mut command: Command, args: &[&str]) -> Child {
    command.arg("cluster").args(args).stdin(Stdio::null()).stdout(Stdio::null());
    let quiet = std::env::var_os("FEATURECTL_TEST_LOGS").is_none();
    command.stderr(if quiet { Stdio::null() } else { Stdio::inherit() });
    command.spawn().expect("featurectl runs")
}

pub(crate) fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn run(folder: &Path, cluster: &str) {
    let done = featurectl(folder, &["run", "job.sql", "--cluster", cluster]);
    assert!(done.status.success(), "{}", text(&done.stderr));
}

#[test]
fn sql_means_on_a_cluster_what_the_files_say() {
    let cluster = Cluster::start(2);
    let address = Address::parse(&cluster.address()).expect("an address");
    crate::semantics::every_file(|mut project: Project| {
        project.cluster = Some(address.clone());
        async move { Session::connect(project, &Extensions::default()).await }
    });
}

#[test]
fn a_job_gives_the_same_on_a_cluster_and_again_nothing_is_done() {
    let cluster = Cluster::start(2);
    let (here, there) = (project(), project());
    assert!(featurectl(here.path(), &["run", "job.sql"]).status.success());
    run(there.path(), &cluster.address());
    assert_eq!(outcome(there.path()), outcome(here.path()));
    let again = featurectl(there.path(), &["run", "job.sql", "--cluster", &cluster.address(), "-o", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&again.stdout).expect("JSON");
    assert!(report["steps"].as_array().expect("steps").iter().all(|s| s["unchanged"] == true), "{report}");
    let jobs = cluster.status().expect("a status")["jobs"].as_array().map(Vec::len);
    assert!(jobs >= Some(3), "tiles, training set and scores ran on the cluster: {jobs:?}");
}

/// Rows that take a cluster a while, of a join and windows over them, into a partitioned table and a training set.
pub(crate) fn larger_project() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let data = "COPY (SELECT value % 977 AS k, to_timestamp_micros(1704067200000000 + value * 43000000) AS t, value % 1000 AS v
                  FROM range(120000)) TO 'events.parquet' STORED AS PARQUET;
                COPY (SELECT value AS id, value * 7 % 1009 AS k, to_timestamp_micros(1704067200000000 + value * 430000000) AS at
                  FROM range(12000)) TO 'asks.parquet' STORED AS PARQUET;";
    std::fs::write(folder.path().join("data.sql"), data).expect("a job");
    let made = featurectl(folder.path(), &["run", "data.sql"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let sql = "CREATE EXTERNAL TABLE events STORED AS PARQUET LOCATION 'events.parquet';
        CREATE EXTERNAL TABLE asks STORED AS PARQUET LOCATION 'asks.parquet';
        CREATE FEATURE VIEW f ENTITY (k) EVENT TIME t WITH (online = true) AS
        SELECT count(*) OVER d AS n, sum(v) OVER d AS total, avg(v) OVER w AS mean, max(v) OVER w AS most,
               approx_distinct(v) OVER w AS kinds, last_value(v) OVER d AS last
        FROM events WINDOW d AS (RANGE INTERVAL '1 day' PRECEDING), w AS (RANGE INTERVAL '20 days' PRECEDING);
        CREATE FEATURE SERVICE s (k BIGINT, at TIMESTAMP) AS
        SELECT f.* FROM request r ASOF JOIN f MATCH_CONDITION (r.at > f.t) ON r.k = f.k;
        MATERIALIZE FEATURE VIEW f;
        CREATE TRAINING SET labels FROM SERVICE s AS SELECT id, k, at, id % 3 = 0 AS label FROM asks;
        COPY (SELECT a.k % 5 AS part, count(*) AS n, sum(f.total) AS total, sum(f.kinds) AS kinds
              FROM asks a ASOF JOIN f MATCH_CONDITION (a.at > f.t) ON a.k = f.k GROUP BY 1)
        TO 'out/parts' STORED AS PARQUET PARTITIONED BY (part);
        COPY (SELECT id, f.n FROM asks a ASOF JOIN f MATCH_CONDITION (a.at > f.t) ON a.k = f.k ORDER BY id)
        TO 'out/one.csv' STORED AS CSV;";
    job(folder.path(), sql);
    std::fs::rename(folder.path().join("test.sql"), folder.path().join("job.sql")).expect("the job");
    folder
}

/// All rows of all results.
pub(crate) fn rows_of(folder: &Path) -> String {
    let look = "CREATE EXTERNAL TABLE tiles STORED AS DELTA LOCATION '.featurectl/offline/f';
        CREATE EXTERNAL TABLE labels STORED AS DELTA LOCATION '.featurectl/offline/labels';
        CREATE EXTERNAL TABLE parts STORED AS PARQUET PARTITIONED BY (part) LOCATION 'out/parts';
        SELECT k, tile_us, tile_start, last_event, events, encode(partial, 'hex') AS partial FROM tiles ORDER BY 1, 2, 3;
        SELECT * FROM labels ORDER BY id; SELECT * FROM parts ORDER BY part;";
    std::fs::write(folder.join("look.sql"), look).expect("a job");
    let rows = featurectl(folder, &["run", "look.sql", "-o", "csv"]);
    assert!(rows.status.success(), "{}", text(&rows.stderr));
    text(&rows.stdout) + &std::fs::read_to_string(folder.join("out/one.csv")).expect("a file")
}

fn orphans(folder: &Path, args: &[&str]) -> usize {
    let done = featurectl(folder, &[&["vacuum", "-o", "json"], args].concat());
    assert!(done.status.success(), "{}", text(&done.stderr));
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
    report["files"].as_array().expect("files").len()
}

pub(crate) fn same(found: &str, wanted: &str, killed: u64) {
    let other = found.lines().zip(wanted.lines()).find(|(f, w)| f != w);
    let (rows, all) = (found.lines().count(), wanted.lines().count());
    assert!(found == wanted, "after {killed} kills: {rows} rows of {all}; the first that differs: {other:?}");
}

/// How often roles are killed; the longer run is `FEATURECTL_CHAOS_KILLS=50 cargo nextest run killed_roles`.
fn kills() -> u64 {
    std::env::var("FEATURECTL_CHAOS_KILLS").ok().and_then(|k| k.parse().ok()).unwrap_or(6)
}

#[test]
fn killed_roles_change_no_row_and_leave_nothing_after_vacuum() {
    let calm = larger_project();
    assert!(featurectl(calm.path(), &["run", "job.sql"]).status.success());
    let wanted = rows_of(calm.path());
    assert!(wanted.lines().count() > 30_000, "{}", wanted.lines().count());

    let mut cluster = Cluster::start(2);
    let shaken = larger_project();
    let mut seeded = 0x9E37_79B9_7F4A_7C15_u64;
    let mut below = |n: u64| {
        seeded ^= seeded << 13;
        seeded ^= seeded >> 7;
        seeded ^= seeded << 17;
        seeded % n
    };
    let mut killed = 0;
    while killed < kills() {
        let _ = std::fs::remove_dir_all(shaken.path().join("out"));
        let _ = std::fs::remove_dir_all(shaken.path().join(".featurectl"));
        let mut driver = driver(shaken.path(), &cluster);
        let started = Instant::now();
        let mut rounds = 0;
        while driver.try_wait().expect("its state").is_none() {
            // Not more often than a job can come to an end between two of them.
            if killed < kills() && rounds < 4 {
                std::thread::sleep(Duration::from_millis(300 + below(2500)));
                if driver.try_wait().expect("its state").is_some() {
                    break;
                }
                cluster.kill(below(3) as usize);
                killed += 1;
                rounds += 1;
            }
            assert!(started.elapsed() < 4 * PATIENCE, "the run hangs");
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut err = String::new();
        let _ = driver.stderr.take().map(|mut e| e.read_to_string(&mut err));
        assert!(driver.wait().expect("it ends").success(), "after {killed} kills: {err}");
        same(&rows_of(shaken.path()), &wanted, killed);
        cluster.wait(2);
    }
    orphans(shaken.path(), &[]);
    assert_eq!(orphans(shaken.path(), &["--dry-run"]), 0);
    same(&rows_of(shaken.path()), &wanted, killed);
}

/// Starts the reference job on a cluster.
fn driver(folder: &Path, cluster: &Cluster) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_featurectl"));
    command.args(["run", "job.sql", "--cluster", &cluster.address()]).current_dir(folder);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("featurectl runs")
}

fn succeeds(mut driver: Child) {
    let mut err = String::new();
    let _ = driver.stderr.take().map(|mut e| e.read_to_string(&mut err));
    assert!(driver.wait().expect("it ends").success(), "{err}");
}

#[test]
fn an_executor_that_stands_still_changes_no_row_and_comes_back() {
    let calm = larger_project();
    assert!(featurectl(calm.path(), &["run", "job.sql"]).status.success());
    let wanted = rows_of(calm.path());
    let cluster = Cluster::start(2);
    // Shorter than the silence after which an executor is lost, and longer.
    for seconds in [4, 20] {
        let shaken = larger_project();
        let driver = driver(shaken.path(), &cluster);
        std::thread::sleep(Duration::from_millis(900));
        cluster.signal(0, "-STOP");
        std::thread::sleep(Duration::from_secs(seconds));
        cluster.signal(0, "-CONT");
        succeeds(driver);
        same(&rows_of(shaken.path()), &wanted, 0);
        cluster.wait(2);
    }
}

#[test]
fn executors_come_back_to_a_scheduler_that_was_away_for_long() {
    let mut cluster = Cluster::start(1);
    end(&mut cluster.scheduler);
    // Five heartbeats without an answer end an executor's process.
    std::thread::sleep(Duration::from_secs(16));
    cluster.scheduler = spawn(&cluster.program, &["scheduler", "--port", &cluster.port.to_string()]);
    cluster.wait(1);
    let folder = project();
    run(folder.path(), &cluster.address());
}

/// A volume of a size that `mount` knows, until it is dropped; `None` if this process may not make one.
struct Volume(PathBuf);

impl Volume {
    fn at(folder: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(folder).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder).stderr(Stdio::null());
        mount.status().is_ok_and(|s| s.success()).then(|| Self(folder.to_path_buf()))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_of_an_executor_is_said_with_its_place() {
    let mut cluster = Cluster::start(0);
    let port = free_port();
    let Some(_volume) = Volume::at(&cluster.work_dir(port), "128k") else {
        eprintln!("skipped: a small volume needs root and `mount`");
        return;
    };
    let executor = cluster.executor_at(port);
    cluster.executors.push((executor, port));
    cluster.wait(1);
    let folder = larger_project();
    let place = format!(":{port}, --work-dir {}", cluster.work_dir(port).display());
    let wanted = ["No space left on device", "on executor ", &place, "give a larger one"];
    fails(folder.path(), &["run", "job.sql", "--cluster", &cluster.address()], 1, &wanted);
}

#[test]
fn vacuum_removes_what_no_version_has_and_nothing_else() {
    let folder = project();
    featurectl(folder.path(), &["run", "job.sql"]);
    let before = outcome(folder.path());
    assert_eq!(orphans(folder.path(), &[]), 0, "a calm run leaves nothing");
    let table = folder.path().join(".featurectl/offline/fraud_set");
    let left = [
        table.join("part-x-0-a-0.parquet"),
        table.join("_date=2024-03-01/part-x-1-b-0.parquet"),
        folder.path().join("out/.scores.part/part-x-0.parquet"),
    ];
    for file in &left {
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        std::fs::write(file, "not even Parquet").expect("a file");
    }
    assert_eq!(orphans(folder.path(), &["--dry-run"]), left.len());
    assert!(left.iter().all(|f| f.is_file()), "only said");
    assert_eq!(orphans(folder.path(), &[]), left.len());
    assert!(left.iter().all(|f| !f.exists()));
    assert_eq!(outcome(folder.path()), before);
}

#[test]
fn what_is_wrong_with_a_cluster_is_said() {
    let folder = project();
    let nobody = format!("df://127.0.0.1:{}", free_port());
    fails(folder.path(), &["run", "job.sql", "--cluster", &nobody], 2, &[&nobody, "does not answer", "is it running"]);
    fails(folder.path(), &["run", "job.sql", "--cluster", "127.0.0.1:1"], 2, &["write df://HOST:50050"]);
    fails(folder.path(), &["cluster", "executor", "--scheduler", "http://x"], 2, &["write df://HOST:50050"]);
    let cluster = Cluster::start(0);
    let wanted = ["has no executor yet", "featurectl cluster executor --scheduler 127.0.0.1"];
    fails(folder.path(), &["run", "job.sql", "--cluster", &cluster.address()], 1, &wanted);
    let web = TcpListener::bind("127.0.0.1:0").expect("a port");
    let foreign = format!("df://{}", web.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in web.incoming().flatten() {
            let mut stream: TcpStream = stream;
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        }
    });
    fails(folder.path(), &["run", "job.sql", "--cluster", &foreign], 1, &["no featurectl scheduler"]);
    std::fs::write(folder.path().join("featurectl.toml"), "[profile.default]\ncluster = \"localhost\"\n")
        .expect("a file");
    fails(folder.path(), &["run", "job.sql"], 1, &["featurectl.toml: profile `default`: cluster", "df://HOST:50050"]);
}

#[test]
fn a_binary_of_ones_own_brings_its_aggregation_to_all_roles() {
    let built = Path::new(env!("CARGO_BIN_EXE_featurectl"));
    let program = built.parent().expect("a folder").join("examples/custom_binary");
    assert!(program.is_file(), "{} is built with the tests", program.display());
    let sql = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/custom_binary.sql");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(&sql, folder.path().join("job.sql")).expect("a job");
    let own = Cluster::of(program.clone(), 1);
    let ask = |address: &str| {
        let args = ["run", "job.sql", "-o", "csv", "--cluster", address];
        Command::new(&program).args(args).current_dir(folder.path()).output().expect("it runs")
    };
    let done = ask(&own.address());
    assert!(text(&done.stdout).contains("a,4.0"), "{}", text(&done.stderr));
    let plain = Cluster::start(1);
    let refused = ask(&plain.address());
    let err = text(&refused.stderr);
    assert!(!refused.status.success() && err.contains("geo_mean") && err.contains("same binary"), "{err}");
}

/// Forwards to `port` and keeps all bytes of both directions.
fn tapped(port: u16) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let own = listener.local_addr().expect("an address").port();
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&bytes);
    let copy = move |mut from: TcpStream, mut to: TcpStream, kept: Arc<Mutex<Vec<u8>>>| {
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                kept.lock().expect("no panic").extend(&buffer[..n]);
                if to.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
        })
    };
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            let (Ok(client2), Ok(server2)) = (client.try_clone(), server.try_clone()) else { continue };
            copy(client, server, Arc::clone(&kept));
            copy(server2, client2, Arc::clone(&kept));
        }
    });
    (own, bytes)
}

#[test]
fn no_credential_of_the_environment_is_on_the_wire() {
    let cluster = Cluster::start(1);
    let (port, bytes) = tapped(cluster.port);
    let folder = project();
    let done = Command::new(env!("CARGO_BIN_EXE_featurectl"))
        .args(["run", "job.sql", "--cluster", &format!("df://127.0.0.1:{port}")])
        .env("AWS_ACCESS_KEY_ID", "AKIAMARKEDMARKEDMARK")
        .env("AWS_SECRET_ACCESS_KEY", "markedSecretMarkedSecret")
        .env("AWS_SESSION_TOKEN", "markedTokenMarkedToken")
        .current_dir(folder.path())
        .output()
        .expect("featurectl runs");
    assert!(done.status.success(), "{}", text(&done.stderr));
    let bytes = bytes.lock().expect("no panic");
    let has = |word: &str| bytes.windows(word.len()).any(|w| w == word.as_bytes());
    assert!(has("parquet"), "plans go this way: {} bytes", bytes.len());
    for secret in ["AKIAMARKED", "markedSecret", "markedToken"] {
        assert!(!has(secret), "{secret} is on the wire");
    }
}

#[test]
fn an_executor_that_is_told_to_end_finishes_its_tasks() {
    let mut cluster = Cluster::start(2);
    let folder = larger_project();
    let driver = driver(folder.path(), &cluster);
    std::thread::sleep(Duration::from_millis(1500));
    cluster.signal(0, "-TERM");
    let (executor, _) = &mut cluster.executors[0];
    let started = Instant::now();
    while executor.try_wait().expect("its state").is_none() {
        assert!(started.elapsed() < PATIENCE, "the executor does not end");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(executor.wait().expect("it ended").success());
    succeeds(driver);
}
