//! A dynalite of the tests' own on the loopback address.

use std::path::PathBuf;
use std::process::Command;

use super::process::Process;

/// Starts one that first runs `script`, the path of `until_closed.js`.
pub fn dynalite(script: &str) -> Process {
    let folder = std::env::var_os("FEATURECTL_DYNALITE").expect("run ./test, which installs dynalite");
    Process::start("dynalite", 600, |port| {
        let mut command = Command::new("node");
        command.arg("-r").arg(script);
        command.arg(PathBuf::from(&folder).join("node_modules/dynalite/cli.js"));
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        for change in ["createTableMs", "updateTableMs", "deleteTableMs"] {
            command.arg(format!("--{change}")).arg("20");
        }
        command
    })
}
