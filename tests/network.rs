//! Faults of the network between the roles of a cluster, each of which has a host of its own: a network namespace. Needs
//! root and `ip`; without them it says so and does nothing. Run by
//! `cargo nextest run --workspace --run-ignored only network`.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cli::{featurectl, text};
use crate::cluster::{end, larger_project, role, rows_of, same};

const HOSTS: [&str; 4] = ["scheduler", "one", "two", "driver"];

/// Hosts on one switch, which is a namespace too. They end with this.
struct Network(String);

impl Network {
    /// `None` if this process may not make one.
    fn new() -> Option<Self> {
        let net = Self(format!("fctl{}", std::process::id()));
        let switch = net.host("switch");
        if !ip(&["netns", "add", &switch]) {
            return None;
        }
        let there = |args: &[&str]| assert!(ip(&[&["-n", &switch], args].concat()), "ip {args:?}");
        there(&["link", "add", "br0", "type", "bridge"]);
        there(&["link", "set", "br0", "up"]);
        for (number, host) in HOSTS.iter().enumerate() {
            let name = net.host(host);
            assert!(ip(&["netns", "add", &name]), "{name}");
            there(&["link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", &name]);
            there(&["link", "set", host, "master", "br0"]);
            there(&["link", "set", host, "up"]);
            for args in [
                vec!["addr", "add", &address(number, "/24"), "dev", "eth0"],
                vec!["link", "set", "eth0", "up"],
                vec!["link", "set", "lo", "up"],
            ] {
                assert!(ip(&[&["-n", &name], args.as_slice()].concat()), "ip {args:?}");
            }
        }
        Some(net)
    }

    fn host(&self, name: &str) -> String {
        format!("{}-{name}", self.0)
    }

    /// A command on a host.
    fn on(&self, host: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host(host), env!("CARGO_BIN_EXE_featurectl")]);
        command
    }

    /// Takes a host's cable out, or puts it in again.
    fn cable(&self, host: &str, there: bool) {
        assert!(ip(&["-n", &self.host("switch"), "link", "set", host, if there { "up" } else { "down" }]));
    }

    /// Makes a host's line slow, with a queue of up to 200 ms, and lossy; false if this machine can't.
    fn disturb(&self, host: &str) -> bool {
        let host = self.host(host);
        let quiet = |mut command: Command| command.stderr(Stdio::null()).status().is_ok_and(|s| s.success());
        let mut slow = Command::new("tc");
        slow.args(["-n", &host, "qdisc", "add", "dev", "eth0", "root", "tbf"]);
        slow.args(["rate", "100mbit", "burst", "128kb", "latency", "200ms"]);
        let mut lossy = Command::new("ip");
        lossy.args(["netns", "exec", &host, "iptables", "-A", "INPUT", "-m", "statistic", "--mode", "random"]);
        lossy.args(["--probability", "0.01", "-j", "DROP"]);
        quiet(slow) && quiet(lossy)
    }

    fn run(&self, folder: &Path) -> Child {
        let _ = std::fs::remove_dir_all(folder.join("out"));
        let _ = std::fs::remove_dir_all(folder.join(".featurectl"));
        let cluster = format!("df://{}:50050", address(0, ""));
        let mut driver = self.on("driver");
        driver.args(["run", "job.sql", "--cluster", &cluster]).current_dir(folder).stderr(Stdio::piped());
        driver.spawn().expect("it runs")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in HOSTS.iter().chain(&["switch"]) {
            ip(&["netns", "del", &self.host(host)]);
        }
    }
}

fn address(number: usize, mask: &str) -> String {
    format!("10.77.0.{}{mask}", number + 1)
}

fn ip(args: &[&str]) -> bool {
    Command::new("ip").args(args).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

#[test]
#[ignore = "takes network namespaces and half a minute: cargo nextest run --workspace --run-ignored only network"]
fn a_network_that_drops_delays_and_parts_changes_no_row() {
    let Some(net) = Network::new() else {
        eprintln!("skipped: network namespaces need root and `ip`");
        return;
    };
    let calm = larger_project();
    assert!(featurectl(calm.path(), &["run", "job.sql"]).status.success());
    let wanted = rows_of(calm.path());

    let scheduler = format!("{}:50050", address(0, ""));
    let mut roles = vec![role(net.on("scheduler"), &["scheduler", "--bind", &address(0, "")])];
    let folder = larger_project();
    for (number, host) in [(1, "one"), (2, "two")] {
        let work = folder.path().join(host);
        let (own, work) = (address(number, ""), work.to_str().expect("UTF-8"));
        let args = ["executor", "--scheduler", &scheduler, "--bind", &own, "--advertise", &own, "--threads", "1"];
        roles.push(role(net.on(host), &[&args[..], &["--memory-mb", "512", "--work-dir", work]].concat()));
    }
    let ready = || {
        let status = net.on("driver").args(["cluster", "status", &format!("df://{scheduler}"), "-o", "json"]).output();
        let status: serde_json::Value = serde_json::from_slice(&status.expect("it runs").stdout).unwrap_or_default();
        status["executors"].as_array().map(Vec::len) == Some(2)
    };
    let wait = |what: &str, done: &mut dyn FnMut() -> bool| {
        let started = Instant::now();
        while !done() {
            assert!(started.elapsed() < Duration::from_secs(240), "{what} takes too long");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait("the start of the cluster", &mut || ready());
    let finish = |mut driver: Child, fault: &str| {
        wait(fault, &mut || driver.try_wait().expect("its state").is_some());
        let done = driver.wait_with_output().expect("it ended");
        assert!(done.status.success(), "{fault}: {}", text(&done.stderr));
        same(&rows_of(folder.path()), &wanted, 0);
        wait(fault, &mut || ready());
    };
    // A cut that is shorter than the silence after which an executor is lost, one that is longer, and the scheduler's.
    for (host, seconds) in [("one", 3), ("two", 16), ("scheduler", 5)] {
        let driver = net.run(folder.path());
        std::thread::sleep(Duration::from_millis(900));
        net.cable(host, false);
        std::thread::sleep(Duration::from_secs(seconds));
        net.cable(host, true);
        finish(driver, &format!("{host} cut off for {seconds} s"));
    }
    if net.disturb("one") && net.disturb("driver") {
        finish(net.run(folder.path()), "delay and loss");
    } else {
        eprintln!("left out: delay and loss need `tc` and `iptables`");
    }
    roles.iter_mut().for_each(end);
}
