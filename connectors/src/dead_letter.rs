//! Records that could not be read: kept in a file with their place and the reason, and too many of them stop the read.
//!
//! ```text
//!  {"stream":"clicks","shard":"shardId-000000000000","sequence":"4959…8898","sub_sequence":3,
//!   "arrival":"2026-01-31T12:00:00.5Z","reason":"column `amount`: …","data":"eyJhIjox"}        one line a record
//! ```

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use featurectl_core::{Error, Position, Result};
use serde::Serialize;

use crate::kinesis::{digits, rfc3339};

/// A record that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// The shard that it was read from.
    pub shard: Arc<str>,
    /// Its sequence number.
    pub sequence: Position,
    /// Its number within an aggregate, counted from 0.
    pub sub: Option<u64>,
    /// When it arrived, microseconds UTC.
    pub arrival: i64,
    /// Why it could not be read.
    pub reason: String,
    /// All its bytes.
    pub data: Bytes,
}

#[derive(Serialize)]
struct Line<'a> {
    stream: &'a str,
    shard: &'a str,
    sequence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_sequence: Option<u64>,
    arrival: String,
    reason: &'a str,
    data: String,
}

/// Records seen before the share of bad ones is judged: one bad record among the first ten is no sign yet.
const JUDGED_FROM: u64 = 1_000;

/// The dead letters of one read.
#[derive(Debug)]
pub struct DeadLetters {
    stream: String,
    share_max: f64,
    seen: u64,
    bad: u64,
    last: Option<String>,
    file: Option<Unfinished>,
}

#[derive(Debug)]
struct Unfinished {
    path: PathBuf,
    file: BufWriter<tempfile::NamedTempFile>,
}

impl DeadLetters {
    /// Dead letters of `stream` in the file `path`, at most `share_max` (0 to 1) of all records. Without a file, the
    /// first one is an error.
    ///
    /// Errors: those of the file system.
    pub fn new(stream: &str, path: Option<&Path>, share_max: f64) -> Result<Self> {
        let file = path.map(Unfinished::beside).transpose()?;
        Ok(Self { stream: stream.to_string(), share_max, seen: 0, bad: 0, last: None, file })
    }

    /// Notes that `read` records were read, and keeps the bad ones, which are not among them.
    ///
    /// Errors: [`Data`](featurectl_core::ErrorKind::Data) if there are too many; what was kept is in the file.
    pub fn note(&mut self, read: u64, bad: &[BadRecord]) -> Result<()> {
        self.seen += read + bad.len() as u64;
        self.bad += bad.len() as u64;
        for record in bad {
            self.last = Some(format!("{}, {}: {}", record.shard, digits(record.sequence), record.reason));
            match &mut self.file {
                Some(file) => file.write(&self.stream, record)?,
                None => {
                    let last = self.last.as_deref().unwrap_or_default();
                    let fix = "set the option `dead_letter` to a file to keep such records aside and go on";
                    return Err(Error::data(format!("a record cannot be read: {last}; {fix}")));
                }
            }
        }
        self.judge(self.seen.max(JUDGED_FROM))
    }

    /// How many were bad.
    pub fn bad(&self) -> u64 {
        self.bad
    }

    /// Puts the file in its place, also if there are too many bad records.
    ///
    /// Errors: [`Data`](featurectl_core::ErrorKind::Data) if there are too many, and those of the file system.
    pub fn finish(mut self) -> Result<u64> {
        let judged = self.judge(self.seen);
        self.keep()?;
        judged.map(|()| self.bad)
    }

    fn judge(&mut self, of: u64) -> Result<()> {
        if self.bad as f64 <= self.share_max * of as f64 {
            return Ok(());
        }
        self.keep()?;
        Err(Error::data(format!(
            "{} of {} records cannot be read, more than the option `max_bad_share` = {} allows; the last: {}",
            self.bad,
            self.seen,
            self.share_max,
            self.last.as_deref().unwrap_or_default()
        )))
    }

    fn keep(&mut self) -> Result<()> {
        self.file.take().map_or(Ok(()), Unfinished::persist)
    }
}

/// A read that breaks off leaves what it found, too: an error is looked into with the records that were refused.
impl Drop for DeadLetters {
    fn drop(&mut self) {
        if self.bad > 0 {
            let _ = self.keep();
        }
    }
}

impl Unfinished {
    fn beside(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path)?;
        let doing = || format!("writing the dead letters {}", path.display());
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|e| Error::from(e).context(doing()))?;
        let file = tempfile::NamedTempFile::new_in(folder).map_err(|e| Error::from(e).context(doing()))?;
        Ok(Self { file: BufWriter::new(file), path })
    }

    fn write(&mut self, stream: &str, record: &BadRecord) -> Result<()> {
        let line = Line {
            stream,
            shard: &record.shard,
            sequence: digits(record.sequence),
            sub_sequence: record.sub,
            arrival: rfc3339(record.arrival),
            reason: &record.reason,
            data: BASE64_STANDARD.encode(&record.data),
        };
        serde_json::to_writer(&mut self.file, &line).map_err(std::io::Error::from)?;
        Ok(self.file.write_all(b"\n")?)
    }

    fn persist(self) -> Result<()> {
        let file = self.file.into_inner().map_err(|e| Error::from(e.into_error()))?;
        file.as_file().sync_all()?;
        file.persist(&self.path).map_err(|e| Error::from(e.error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use featurectl_core::ErrorKind;

    use super::*;

    fn bad(reason: &str) -> BadRecord {
        BadRecord {
            shard: "shardId-000000000000".into(),
            sequence: Position::from(4711),
            sub: Some(3),
            arrival: 1_767_225_600_500_000,
            reason: reason.into(),
            data: Bytes::from_static(b"\x00\xff{"),
        }
    }

    #[test]
    fn a_bad_record_is_kept_with_its_place_its_reason_and_all_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/letters.jsonl");
        let mut letters = DeadLetters::new("clicks", Some(&path), 0.1).unwrap();
        letters.note(99, &[bad("no \"JSON\"")]).unwrap();
        assert!(!path.exists(), "half a file is visible");
        assert_eq!(letters.finish().unwrap(), 1);
        expect_test::expect![[r#"
            {"stream":"clicks","shard":"shardId-000000000000","sequence":"4711","sub_sequence":3,"arrival":"2026-01-01T00:00:00.500Z","reason":"no \"JSON\"","data":"AP97"}
        "#]]
        .assert_eq(&std::fs::read_to_string(&path).unwrap());
    }

    #[test]
    fn too_many_bad_records_stop_the_read_and_stay_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters.jsonl");
        let mut letters = DeadLetters::new("clicks", Some(&path), 0.01).unwrap();
        letters.note(0, &vec![bad("a"); 10]).unwrap();
        let error = letters.note(500, &[bad("b")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.to_string().contains("11 of 511 records") && error.to_string().contains("4711: b"), "{error}");
        drop(letters);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 11);
    }

    #[test]
    fn few_records_are_judged_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters.jsonl");
        let mut letters = DeadLetters::new("clicks", Some(&path), 0.01).unwrap();
        letters.note(50, &[bad("a")]).unwrap();
        assert_eq!(letters.finish().unwrap_err().kind(), ErrorKind::Data);
        assert!(path.exists());
    }

    #[test]
    fn without_a_file_the_first_bad_record_is_an_error_and_nothing_bad_is_none() {
        let mut letters = DeadLetters::new("clicks", None, 1.0).unwrap();
        letters.note(1_000, &[]).unwrap();
        let error = letters.note(0, &[bad("a")]).unwrap_err().to_string();
        assert!(error.contains("dead_letter"), "{error}");
        assert_eq!(DeadLetters::new("clicks", None, 0.0).unwrap().finish().unwrap(), 0);
    }
}
