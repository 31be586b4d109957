//! A ministack of a test's own on the loopback address: S3 with conditional puts, among others.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use super::process::Process;

/// One that ends with this value.
pub struct Ministack {
    process: Process,
    _folder: tempfile::TempDir,
}

impl Ministack {
    /// Starts one; `script` is the path of `until_closed.py`.
    pub fn start(script: &str) -> Self {
        let venv = std::env::var_os("FEATURECTL_MINISTACK").expect("run ./test, which installs ministack");
        let folder = tempfile::tempdir().expect("a folder");
        let process = Process::start("ministack", 600, |port| {
            let mut command = Command::new(PathBuf::from(&venv).join("bin/python"));
            command.arg(script).current_dir(folder.path()).env("TMPDIR", folder.path());
            command.env("BIND_HOST", "127.0.0.1").env("GATEWAY_PORT", port.to_string());
            command.env("SFTP_ENABLED", "0").env("IOT_MTLS_ENABLED", "0").env("LOG_LEVEL", "ERROR");
            command
        });
        Self { process, _folder: folder }
    }

    /// Its address.
    pub fn endpoint(&self) -> String {
        self.process.endpoint()
    }

    /// Makes a bucket.
    pub fn make_bucket(&self, name: &str) {
        let answer = self.request(&format!("PUT /{name} HTTP/1.1\r\nContent-Length: 0\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// The answer to a request without a body.
    pub fn request(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.process.port)).expect("it answers");
        let rest = "Host: 127.0.0.1\r\nConnection: close\r\n\r\n";
        stream.write_all(format!("{head}{rest}").as_bytes()).expect("a request");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }
}
