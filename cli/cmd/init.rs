//! `init`: a small project that runs at once.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use featurectl_core::{Error, Result};

use crate::render;

const CONFIG: &str = "\
# Settings of this project. `featurectl --profile NAME` chooses another profile.
[profile.default]
store = \".featurectl\"        # offline and online store, models, registry

[profile.default.variables]
out = \"out\"                  # ${out} in a job; --set out=… overrides it
";

const JOB: &str = include_str!("init_job.sql");

pub(super) fn init(folder: &Path) -> Result<ExitCode> {
    let files = [
        ("featurectl.toml", CONFIG.to_string()),
        ("job.sql", JOB.to_string()),
        ("data/payments.csv", payments()),
        (".gitignore", ".featurectl/\nout/\n".to_string()),
    ];
    if let Some((name, _)) = files.iter().find(|(name, _)| folder.join(name).exists()) {
        return Err(Error::invalid(format!(
            "{} is there already: init writes into a new folder",
            folder.join(name).display()
        )));
    }
    for (name, text) in &files {
        let path = folder.join(name);
        let doing = |e: std::io::Error| Error::from(e).context(format!("writing {}", path.display()));
        std::fs::create_dir_all(path.parent().unwrap_or(folder)).map_err(doing)?;
        std::fs::write(&path, text).map_err(doing)?;
        render::status("Created", &path.display().to_string());
    }
    render::note(&format!("next: featurectl run {}", folder.join("job.sql").display()));
    Ok(ExitCode::SUCCESS)
}

/// Card payments of 40 customers over 60 days, made by a seed: fraud comes in bursts of large payments.
fn payments() -> String {
    let mut state: u64 = 42;
    let mut random = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let mut text = String::from("payment_id,customer,paid_at,amount,fraud\n");
    for id in 1..=4000u64 {
        let minute = id * 60 * 24 * 60 / 4000;
        let customer = random(40);
        let burst = (minute / 1440 + customer) % 9 == 0;
        let amount = if burst { 200 + random(800) } else { 5 + random(120) };
        let fraud = burst && random(10) < 7 || random(100) < 2;
        let (day, hour, minute) = (minute / 1440, minute / 60 % 24, minute % 60);
        let (month, day) = if day < 31 { (1, day + 1) } else { (2, day - 30) };
        let (month, day) = if month == 2 && day > 28 { (3, day - 28) } else { (month, day) };
        let _ =
            writeln!(text, "{id},c{customer:02},2024-{month:02}-{day:02}T{hour:02}:{minute:02}:00,{amount}.5,{fraud}");
    }
    text
}
