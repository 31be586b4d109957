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
    how: How,
    port: u16,
    scheduler: Child,
    executors: Vec<(Child, u16)>,
    folder: TempDir,
}

/// How its roles are started.
pub(crate) struct How {
    program: PathBuf,
    /// The files of TLS as options.
    pub(crate) tls: Vec<String>,
    /// What goes over connections is kept there: the roles then reach each other at [`TAPS`].
    pub(crate) wire: Option<Wire>,
    /// Variables in the environment of executors.
    pub(crate) environment: Vec<(String, String)>,
}

/// Bytes of both directions, by port.
pub(crate) type Wire = Arc<Mutex<BTreeMap<u16, Vec<u8>>>>;
/// The address where connections are tapped; the roles themselves listen on 127.0.0.1.
const TAPS: &str = "127.0.0.9";

impl Default for How {
    fn default() -> Self {
        Self { program: env!("CARGO_BIN_EXE_featurectl").into(), tls: vec![], wire: None, environment: vec![] }
    }
}

impl Cluster {
    pub(crate) fn start(executors: usize) -> Self {
        Self::of(How::default(), executors)
    }

    /// Its executors have these variables in their environment.
    pub(crate) fn with_environment(executors: usize, environment: &BTreeMap<&str, String>) -> Self {
        let environment = environment.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
        Self::of(How { environment, ..How::default() }, executors)
    }

    pub(crate) fn of(how: How, executors: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        how.tap(port);
        let scheduler = how.scheduler(port);
        let mut cluster = Self { how, port, scheduler, executors: vec![], folder };
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
        let scheduler = format!("{}:{}", self.how.host(), self.port);
        let work = self.work_dir(port);
        let tasks = free_port();
        self.how.tap(port);
        self.how.tap(tasks);
        let (rows, tasks) = (port.to_string(), tasks.to_string());
        let args = ["executor", "--scheduler", &scheduler, "--port", &rows, "--grpc-port", &tasks, "--threads", "1"];
        let more = ["--memory-mb", "512", "--work-dir", work.to_str().expect("UTF-8"), "--advertise", self.how.host()];
        let mut command = Command::new(&self.how.program);
        command.envs(self.how.environment.iter().cloned());
        let log = self.log(port).map(|log| std::fs::File::create(log).expect("a file"));
        self.how.spawn(command, &[&args[..], &more[..]].concat(), log)
    }

    /// Where an executor's log goes, if its environment asks for one.
    fn log(&self, port: u16) -> Option<PathBuf> {
        let wanted = self.how.environment.iter().any(|(name, _)| name == "RUST_LOG");
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
        format!("df://{}:{}", self.how.host(), self.port)
    }

    fn status(&self) -> Option<serde_json::Value> {
        let mut status = Command::new(&self.how.program);
        let status = status.args(["cluster", "status", &self.address(), "-o", "json"]).args(&self.how.tls).output();
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
            self.scheduler = self.how.scheduler(self.port);
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

impl How {
    fn host(&self) -> &'static str {
        if self.wire.is_some() { TAPS } else { "127.0.0.1" }
    }

    fn scheduler(&self, port: u16) -> Child {
        self.spawn(Command::new(&self.program), &["scheduler", "--port", &port.to_string()], None)
    }

    fn spawn(&self, command: Command, args: &[&str], log: Option<std::fs::File>) -> Child {
        let tls = self.tls.iter().map(String::as_str);
        logged(command, &args.iter().copied().chain(tls).collect::<Vec<_>>(), log)
    }

    /// Forwards what comes to a port at [`TAPS`], and keeps all bytes of both directions.
    fn tap(&self, port: u16) {
        let Some(wire) = self.wire.clone() else { return };
        let listener = TcpListener::bind((TAPS, port)).expect("a port");
        wire.lock().expect("no panic").insert(port, vec![]);
        let copy = move |mut from: TcpStream, mut to: TcpStream, wire: Wire| {
            std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(n @ 1..) = from.read(&mut buffer) {
                    wire.lock().expect("no panic").entry(port).or_default().extend(&buffer[..n]);
                    if to.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(std::net::Shutdown::Both);
            })
        };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let (Ok(client2), Ok(server2)) = (client.try_clone(), server.try_clone()) else { continue };
                copy(client, server, Arc::clone(&wire));
                copy(server2, client2, Arc::clone(&wire));
            }
        });
    }
}

/// The ports where one of the words went by, and of how many.
fn ports_with(wire: &Wire, words: &[&str]) -> (usize, usize) {
    let wire = wire.lock().expect("no panic");
    let has = |bytes: &[u8], word: &str| bytes.windows(word.len()).any(|w| w == word.as_bytes());
    (wire.values().filter(|bytes| words.iter().any(|word| has(bytes, word))).count(), wire.len())
}

/// Starts a role by a command that ends with the binary.
pub(crate) fn role(command: Command, args: &[&str]) -> Child {
    logged(command, args, None)
}

fn logged(mut command: Command, args: &[&str], log: Option<std::fs::File>) -> Child {
    command.arg("cluster").args(args).stdin(Stdio::null()).stdout(Stdio::null());
    let quiet = std::env::var_os("FEATURECTL_TEST_LOGS").is_none();
    command.stderr(match log {
        Some(log) => log.into(),
        None if quiet => Stdio::null(),
        None => Stdio::inherit(),
    });
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
    cluster.scheduler = cluster.how.scheduler(cluster.port);
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
            // At once, so that the connection is often gone before the request is sent.
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
            // Closed with bytes that nobody read, it would take the answer back.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut vec![]);
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
    let own = Cluster::of(How { program: program.clone(), ..How::default() }, 1);
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

#[test]
fn a_scheduler_does_not_listen_where_nobody_can_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = featurectl(folder.path(), &["cluster", "scheduler", "--bind", "0.0.0.0"]);
    let err = text(&refused.stderr);
    assert!(!refused.status.success() && err.contains("--bind 0.0.0.0") && err.contains("private"), "{err}");
}

#[test]
fn no_credential_of_the_environment_is_on_the_wire() {
    let wire = Wire::default();
    let cluster = Cluster::of(How { wire: Some(Arc::clone(&wire)), ..How::default() }, 2);
    let folder = larger_project();
    let done = Command::new(env!("CARGO_BIN_EXE_featurectl"))
        .args(["run", "job.sql", "--cluster", &cluster.address()])
        .env("AWS_ACCESS_KEY_ID", "AKIAMARKEDMARKEDMARK")
        .env("AWS_SECRET_ACCESS_KEY", "markedSecretMarkedSecret")
        .env("AWS_SESSION_TOKEN", "markedTokenMarkedToken")
        .current_dir(folder.path())
        .output()
        .expect("featurectl runs");
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(ports_with(&wire, &SAID), (5, 5), "all ports are listened at");
    for secret in ["AKIAMARKED", "markedSecret", "markedToken"] {
        assert_eq!(ports_with(&wire, &[secret]), (0, 5), "{secret} is on the wire");
    }
}

/// What roles say to each other in plans, tasks, and the names of the columns of rows.
const SAID: [&str; 3] = ["asks.parquet", "__time", "written_ms"];

/// Certificates of an authority: `ca.pem`, and `role.pem` with `role.key` signed by it.
fn certificates(folder: &Path) {
    let openssl = |args: &str| {
        let done = Command::new("openssl").args(args.split(' ')).current_dir(folder).output().expect("openssl runs");
        assert!(done.status.success(), "openssl {args}: {}", text(&done.stderr));
    };
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem",
    );
    openssl("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=role -keyout role.key -out role.csr");
    std::fs::write(folder.join("names"), "subjectAltName=DNS:featurectl\n").expect("a file");
    openssl("x509 -req -in role.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out role.pem");
}

fn tls_files(ca: &Path, own: &Path) -> Vec<String> {
    let file = |folder: &Path, name: &str| folder.join(name).display().to_string();
    let files = [("--tls-ca", file(ca, "ca.pem")), ("--tls-cert", file(own, "role.pem"))];
    let files = files.into_iter().chain([("--tls-key", file(own, "role.key"))]);
    files.flat_map(|(option, file)| [option.to_string(), file]).collect()
}

#[test]
fn with_tls_only_roles_of_one_authority_speak_and_nobody_can_listen() {
    let (ours, foreign) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    certificates(ours.path());
    certificates(foreign.path());
    let calm = larger_project();
    assert!(featurectl(calm.path(), &["run", "job.sql"]).status.success());
    let wire = Wire::default();
    let tls = tls_files(ours.path(), ours.path());
    let cluster = Cluster::of(How { tls: tls.clone(), wire: Some(Arc::clone(&wire)), ..How::default() }, 2);
    let folder = larger_project();
    // The files of the profile, as paths from its folder.
    for name in ["ca.pem", "role.pem", "role.key"] {
        std::fs::copy(ours.path().join(name), folder.path().join(name)).expect("a file");
    }
    let address = cluster.address();
    let profile = format!(
        "[profile.default]\ncluster = \"{address}\"\ncluster_tls = {{ ca = \"ca.pem\", cert = \"role.pem\", key = \"role.key\" }}\n"
    );
    std::fs::write(folder.path().join("featurectl.toml"), profile).expect("a file");
    let done = featurectl(folder.path(), &["run", "job.sql"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    same(&rows_of(folder.path()), &rows_of(calm.path()), 0);
    assert!(wire.lock().expect("no panic").values().all(|bytes| bytes.len() > 1000), "it went this way");
    assert_eq!(ports_with(&wire, &SAID), (0, 5), "it can be read");

    let driver = |tls: &[String], parts: &[&str]| {
        let mut args = vec!["run", "job.sql", "--cluster", &address];
        args.extend(tls.iter().map(String::as_str));
        fails(calm.path(), &args, if tls.len() == 4 { 2 } else { 1 }, parts);
    };
    let fix = "certificates of one authority";
    driver(&[], &[fix, "--tls-ca"]);
    // One that trusts the cluster but is not of it, and one that does not trust it.
    driver(&tls_files(ours.path(), foreign.path()), &[fix]);
    driver(&tls_files(foreign.path(), foreign.path()), &[fix]);
    driver(&tls[..4], &["--tls-key"]);
    let mixed = [&tls[..4], &["--tls-key".into(), foreign.path().join("role.key").display().to_string()]].concat();
    fails(
        calm.path(),
        &[&["cluster", "status", &address], mixed.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat(),
        1,
        &["role.key", "KeyMismatch"],
    );
    let plain = Cluster::start(0);
    let mut args = vec!["cluster", "status"];
    let address = plain.address();
    args.push(&address);
    args.extend(tls.iter().map(String::as_str));
    fails(calm.path(), &args, 1, &[fix]);
}

/// What the scheduler says over HTTP.
fn api(cluster: &Cluster, path: &str) -> serde_json::Value {
    let mut stream = TcpStream::connect(("127.0.0.1", cluster.port)).expect("a connection");
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    serde_json::from_str(body).expect("JSON")
}

#[test]
fn a_driver_gets_one_row_a_file_of_what_executors_write() {
    let cluster = Cluster::start(2);
    let folder = larger_project();
    run(folder.path(), &cluster.address());
    let jobs = cluster.status().expect("a status")["jobs"].as_array().cloned().expect("jobs");
    let rows = |job: &serde_json::Value| {
        let stages = api(&cluster, &format!("/api/job/{}/stages", job["id"].as_str().expect("an id")));
        let stages = stages["stages"].as_array().cloned().expect("stages");
        let last = stages.iter().max_by_key(|s| s["stage_id"].as_str().and_then(|i| i.parse::<u32>().ok()));
        last.expect("a stage")["output_rows"].as_u64().expect("rows")
    };
    let mut gave: Vec<u64> = jobs.iter().map(rows).collect();
    gave.sort_unstable();
    // CSV is written by the driver, from 12,000 rows; tiles, the training set and Parquet by executors.
    assert_eq!(gave.pop(), Some(12_000), "{gave:?}");
    let mut files = Command::new("find");
    let files = files.args([".featurectl/offline", "out", "-name", "*.parquet"]);
    let files = files.current_dir(folder.path()).output().expect("find runs");
    assert_eq!(gave.iter().sum::<u64>(), text(&files.stdout).lines().count() as u64, "{gave:?}");
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
