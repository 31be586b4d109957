//! A ministack of a test's own on the loopback address: S3 with conditional puts, among others.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// It ends with this value, or with the process: its pipe ends then, and the server with the pipe.
pub struct Ministack {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Ministack {
    /// Starts one; `script` is the path of `until_closed.py`.
    pub fn start(script: &str) -> Self {
        (0..5).find_map(|_| try_start(script)).expect("ministack does not answer")
    }

    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Makes a bucket.
    pub fn make_bucket(&self, name: &str) {
        let answer = self.request(&format!("PUT /{name} HTTP/1.1\r\nContent-Length: 0\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// The answer to a request without a body.
    pub fn request(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it answers");
        let rest = "Host: 127.0.0.1\r\nConnection: close\r\n\r\n";
        stream.write_all(format!("{head}{rest}").as_bytes()).expect("a request");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Ministack {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `None` if it ends at once, as it does where another process was faster with a port, or does not answer.
fn try_start(script: &str) -> Option<Ministack> {
    let venv = std::env::var_os("FEATURECTL_MINISTACK").expect("run ./test, which installs ministack");
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(PathBuf::from(venv).join("bin/python"));
    command.arg(script).current_dir(folder.path()).env("TMPDIR", folder.path());
    command.env("BIND_HOST", "127.0.0.1").env("GATEWAY_PORT", port.to_string());
    command.env("SFTP_ENABLED", "0").env("IOT_MTLS_ENABLED", "0").env("LOG_LEVEL", "ERROR");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = Ministack { child: command.spawn().expect("python starts"), port, _folder: folder };
    for _ in 0..600 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Some(server);
        }
        if server.child.try_wait().expect("its state").is_some() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}
