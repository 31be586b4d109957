//! A kinesis-local of a test's own on the loopback address.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// It ends with this value, or with the process: its pipe ends then, and the server with the pipe.
pub struct Server {
    child: Child,
    endpoint: String,
}

impl Server {
    /// Starts one that first runs `loopback`, the path of `loopback.js`, with further settings.
    pub fn start(loopback: &str, settings: &[(&str, &str)]) -> Self {
        (0..5).find_map(|_| try_start(loopback, settings)).expect("kinesis-local does not answer")
    }

    /// Its address.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `None` if it ends at once, as it does where another process was faster with a port, or does not answer.
fn try_start(loopback: &str, settings: &[(&str, &str)]) -> Option<Server> {
    let folder = std::env::var_os("FEATURECTL_KINESIS_LOCAL").expect("run ./test, which installs kinesis-local");
    let folder = PathBuf::from(folder).join("node_modules/kinesis-local");
    let (port, tls_port) = (free_port(), free_port());
    let mut command = Command::new("node");
    command.arg("-r").arg(loopback).arg(folder.join("main.js"));
    command.env("KINESIS_MOCK_CERT_PATH", folder.join("server.json"));
    command.env("KINESIS_MOCK_PLAIN_PORT", port.to_string()).env("KINESIS_MOCK_TLS_PORT", tls_port.to_string());
    command.env("SHARD_LIMIT", "100000").env("LOG_LEVEL", "ERROR");
    for transition in ["CREATE_STREAM", "DELETE_STREAM", "SPLIT_SHARD", "MERGE_SHARDS", "UPDATE_SHARD_COUNT"] {
        command.env(format!("{transition}_DURATION"), "5ms");
    }
    command.envs(settings.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = Server { child: command.spawn().unwrap(), endpoint: format!("http://127.0.0.1:{port}") };
    for _ in 0..600 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Some(server);
        }
        if server.child.try_wait().unwrap().is_some() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}
