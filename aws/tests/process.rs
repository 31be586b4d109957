//! A server of a test's own on the loopback address.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// It ends with this value, or with the process: its pipe ends then, and the server with the pipe.
pub struct Process {
    child: Child,
    /// Where it listens.
    pub port: u16,
}

impl Process {
    /// Starts what `command` gives for a port, and waits until it answers: it looks `looks` times, every 50 ms, for each of five.
    pub fn start(name: &str, looks: u32, command: impl Fn(u16) -> Command) -> Self {
        (0..5).find_map(|_| Self::try_start(looks, &command)).unwrap_or_else(|| panic!("{name} does not answer"))
    }

    /// `None` if it ends at once, as it does where another process was faster with a port, or does not answer.
    fn try_start(looks: u32, command: impl Fn(u16) -> Command) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
        let mut command = command(port);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Self { child: command.spawn().expect("it starts"), port };
        for _ in 0..looks {
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

    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
