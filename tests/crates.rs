//! The arrows between crates: an edge crate knows the core and one outside world, never another edge crate.

use std::process::Command;

const EDGES: [&str; 4] = ["connectors", "feature-store", "executors", "trainer-bridge"];

#[test]
fn no_edge_crate_depends_on_another_and_the_core_on_none() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().unwrap_or_default();
        if name == "featurectl" {
            continue;
        }
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let dependency = dependency["name"].as_str().unwrap_or_default();
            let edge = EDGES.iter().any(|e| dependency == format!("featurectl-{e}"));
            assert!(!edge, "{name} depends on {dependency}: only the root package may");
        }
    }
}
