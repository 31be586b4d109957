//! A dynalite of the tests' own on the loopback address.

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
    /// Starts one that first runs `script`, the path of `until_closed.js`.
    pub fn start(script: &str) -> Self {
        (0..5).find_map(|_| try_start(script)).expect("dynalite does not answer")
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

/// `None` if it ends at once, as it does where another process was faster with a port, or does not answer.
fn try_start(script: &str) -> Option<Server> {
    let folder = std::env::var_os("FEATURECTL_DYNALITE").expect("run ./test, which installs dynalite");
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
    let mut command = Command::new("node");
    command.arg("-r").arg(script);
    command.arg(PathBuf::from(folder).join("node_modules/dynalite/cli.js"));
    command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
    for change in ["createTableMs", "updateTableMs", "deleteTableMs"] {
        command.arg(format!("--{change}")).arg("20");
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("node starts");
    let mut server = Server { child, endpoint: format!("http://127.0.0.1:{port}") };
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
