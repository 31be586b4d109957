//! Models of every format with mutations, through what the targets in `fuzz/` run: an error or a model that scores,
//! never a panic, never memory out of proportion to the file.
//!
//! The mutations are the same in each run. `FEATURECTL_FUZZ_CASES` says how many there are of each format.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::Value;

#[path = "../../../fuzz/src/check.rs"]
mod target;

/// Larger models would mostly be copied.
const BYTES_MAX: usize = 16 << 10;
/// A file of no bytes may need this much memory, and each byte more.
const MEMORY: (usize, usize) = (16 << 20, 512);

#[test]
fn mutated_lightgbm_text_gives_a_model_or_an_error() {
    fuzz("lightgbm", ".txt", |random, files| match random.below(4) {
        0 => bytes(random, files),
        _ => {
            let text = random.one_of::<Vec<u8>>(files).clone();
            Some(with_sizes(&numbers(random, &String::from_utf8(text).ok()?)))
        }
    });
}

#[test]
fn mutated_lightgbm_json_gives_a_model_or_an_error() {
    fuzz("lightgbm", "_json.json", json);
}

#[test]
fn mutated_xgboost_json_gives_a_model_or_an_error() {
    fuzz("xgboost", ".json", json);
}

#[test]
fn mutated_xgboost_ubjson_gives_a_model_or_an_error() {
    fuzz("xgboost", ".ubj", bytes);
    fuzz("xgboost", ".json", |random, files| {
        let mut out = Vec::new();
        ubjson(&mutated_value(random, files)?, &mut out);
        Some(out)
    });
}

#[test]
fn mutated_catboost_json_gives_a_model_or_an_error() {
    fuzz("catboost", ".json", json);
}

#[test]
fn mutated_linear_json_gives_a_model_or_an_error() {
    fuzz("linear", ".json", json);
}

#[test]
fn mutated_onnx_gives_a_model_or_an_error() {
    fuzz("onnx", ".onnx", bytes);
}

/// Makes inputs of the fixtures in a folder whose names have an ending, and runs the target with each.
fn fuzz(folder: &str, ending: &str, make: impl Fn(&mut Random, &[Vec<u8>]) -> Option<Vec<u8>>) {
    let cases = std::env::var("FEATURECTL_FUZZ_CASES").map_or(1_000, |n| n.parse().expect("a number of cases"));
    let files = fixtures(folder, ending);
    let mut random = Random(20);
    for case in 0..cases {
        let Some(input) = make(&mut random, &files) else { continue };
        HELD.set((0, 0));
        let outcome = catch_unwind(AssertUnwindSafe(|| target::check(&input)));
        let most = HELD.get().1.max(0) as usize;
        let allowed = MEMORY.0 + MEMORY.1 * input.len();
        if outcome.is_err() || most > allowed {
            let kept = std::env::temp_dir().join(format!("featurectl-fuzz-{folder}-{case}{ending}"));
            std::fs::write(&kept, &input).expect("a file for the input");
            panic!("case {case}, kept as {}: {most} bytes of memory, {allowed} allowed", kept.display());
        }
    }
}

fn fixtures(folder: &str, ending: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/score/fixtures").join(folder);
    let mut paths: Vec<_> = folder.read_dir().expect("fixtures").map(|e| e.expect("an entry").path()).collect();
    paths.retain(|p| p.to_str().is_some_and(|name| name.ends_with(ending) && !name.ends_with("cases.json")));
    paths.sort();
    let mut files: Vec<Vec<u8>> = paths.iter().map(|p| std::fs::read(p).expect("a fixture")).collect();
    files.retain(|bytes| bytes.len() <= BYTES_MAX);
    assert!(!files.is_empty(), "no fixtures {ending} in {}", folder.display());
    files
}

/// SplitMix64 (Steele et al., OOPSLA 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// A number below `end`, or 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// Two places of a sequence in order, mostly near each other.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length);
        let most = if self.below(4) == 0 { length } else { 16 };
        start..(start + self.below(most)).min(length)
    }
}

/// A file with some of its bytes changed, cut, doubled, or put in from another file.
fn bytes(random: &mut Random, files: &[Vec<u8>]) -> Option<Vec<u8>> {
    const WORDS: [u64; 6] = [0, 1, u64::MAX, 0x7FFF_FFFF, 0x7FC0_0000_7FC0_0000, 0x7FF0_0000_0000_0000];
    let mut file = random.one_of(files).clone();
    for _ in 0..=random.below(4) {
        let range = random.range(file.len());
        match random.below(6) {
            0 => drop(file.drain(range)),
            1 => drop(file.splice(range.end..range.end, file[range.clone()].to_vec())),
            2 => {
                let other = random.one_of(files);
                let part = other[random.range(other.len())].to_vec();
                drop(file.splice(range, part));
            }
            3 => {
                let word = random.one_of(&WORDS).to_be_bytes();
                file[range].iter_mut().zip(word).for_each(|(to, byte)| *to = byte);
            }
            _ => {
                let (value, bit) = (random.next() as u8, 1 << random.below(8));
                if let Some(byte) = file.get_mut(range.start) {
                    *byte = if value < 128 { *byte ^ bit } else { value };
                }
            }
        }
    }
    Some(file)
}

/// Numbers that readers get wrong.
const NUMBERS: [&str; 18] = [
    "0",
    "1",
    "-1",
    "2",
    "-2",
    "255",
    "65536",
    "2147483647",
    "-2147483648",
    "4294967296",
    "9223372036854775807",
    "18446744073709551616",
    "-0.0",
    "0.5",
    "1e-320",
    "1e308",
    "nan",
    "-inf",
];

fn number(random: &mut Random) -> &'static str {
    NUMBERS[random.below(NUMBERS.len())]
}

/// A text in which some numbers are others, or some lines are not there or there twice.
fn numbers(random: &mut Random, text: &str) -> String {
    let mut lines: Vec<String> = text.split('\n').map(String::from).collect();
    for _ in 0..=random.below(3) {
        let at = random.below(lines.len());
        match random.below(12) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[at].clone()),
            _ => {
                let (key, values) = lines[at].split_once('=').unwrap_or((&lines[at], ""));
                let mut values: Vec<&str> = values.split(' ').collect();
                let place = random.below(values.len());
                match random.below(4) {
                    0 => drop(values.remove(place)),
                    1 => values.insert(place, values[place]),
                    _ => values[place] = number(random),
                }
                lines[at] = format!("{key}={}", values.join(" "));
            }
        }
        if lines.is_empty() {
            break;
        }
    }
    lines.join("\n")
}

/// LightGBM's text with the right `tree_sizes`, without which little of it would be looked at.
fn with_sizes(text: &str) -> Vec<u8> {
    let mut starts: Vec<usize> = text.match_indices("\nTree=").map(|(at, _)| at + 1).collect();
    starts.extend(text.find("\nend of trees").or_else(|| text.find("\nfeature importances:")).map(|at| at + 1));
    let sizes: Vec<String> = starts.windows(2).map(|pair| pair[1].saturating_sub(pair[0]).to_string()).collect();
    let line = |line: &str| match line.starts_with("tree_sizes=") {
        true => format!("tree_sizes={}", sizes.join(" ")),
        false => line.to_string(),
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n").into_bytes()
}

/// Bytes that are changed, or most often JSON whose values are.
fn json(random: &mut Random, files: &[Vec<u8>]) -> Option<Vec<u8>> {
    match random.below(4) {
        0 => bytes(random, files),
        _ => serde_json::to_vec(&mutated_value(random, files)?).ok(),
    }
}

fn mutated_value(random: &mut Random, files: &[Vec<u8>]) -> Option<Value> {
    // What Python writes that JSON doesn't have is left out.
    let mut value: Value = serde_json::from_slice(random.one_of::<Vec<u8>>(files)).ok()?;
    for _ in 0..=random.below(3) {
        let other = some_value(random, &mut value.clone()).clone();
        let place = some_value(random, &mut value);
        change(random, place, other);
    }
    Some(value)
}

/// Some value within another; small ones that are deep down as often as large ones.
fn some_value<'a>(random: &mut Random, value: &'a mut Value) -> &'a mut Value {
    let children = match value {
        Value::Array(values) => values.len(),
        Value::Object(fields) => fields.len(),
        _ => 0,
    };
    if children == 0 || random.below(6) == 0 {
        return value;
    }
    let child = random.below(children);
    match value {
        Value::Array(values) => some_value(random, &mut values[child]),
        Value::Object(fields) => some_value(random, fields.values_mut().nth(child).expect("a field")),
        other => other,
    }
}

/// Puts something else in the place of a value.
fn change(random: &mut Random, place: &mut Value, other: Value) {
    match (random.below(3), &mut *place) {
        (0, _) => *place = other,
        (1, Value::Array(values)) if !values.is_empty() => {
            let (range, last) = (random.range(values.len()), values.len() - 1);
            match random.below(3) {
                0 => drop(values.drain(range)),
                1 => values.insert(range.start, other),
                _ => values.swap(range.start, last.min(range.end)),
            }
        }
        (1, Value::Object(fields)) if !fields.is_empty() => {
            let key = fields.keys().nth(random.below(fields.len())).expect("a key").clone();
            match random.below(2) {
                0 => drop(fields.remove(&key)),
                _ => drop(fields.insert(key, other)),
            }
        }
        (_, Value::String(text)) => *text = number(random).to_string(),
        _ => *place = serde_json::from_str(number(random)).unwrap_or(Value::Null),
    }
}

/// A value as UBJSON.
fn ubjson(value: &Value, out: &mut Vec<u8>) {
    let key = |text: &str, out: &mut Vec<u8>| {
        out.push(b'L');
        out.extend((text.len() as i64).to_be_bytes());
        out.extend(text.as_bytes());
    };
    match value {
        Value::Null => out.push(b'Z'),
        Value::Bool(true) => out.push(b'T'),
        Value::Bool(false) => out.push(b'F'),
        Value::String(text) => {
            out.push(b'S');
            key(text, out);
        }
        Value::Number(number) => match number.as_i64() {
            Some(whole) => {
                out.push(b'L');
                out.extend(whole.to_be_bytes());
            }
            None => {
                out.push(b'D');
                out.extend(number.as_f64().unwrap_or(0.0).to_be_bytes());
            }
        },
        Value::Array(values) => {
            out.push(b'[');
            values.iter().for_each(|v| ubjson(v, out));
            out.push(b']');
        }
        Value::Object(fields) => {
            out.push(b'{');
            for (name, value) in fields {
                key(name, out);
                ubjson(value, out);
            }
            out.push(b'}');
        }
    }
}

thread_local! {
    /// Bytes that this thread holds, and the most that it held.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// The system's allocator, which counts.
struct Counted;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

fn count(more: isize) {
    // A thread that ends has no counter any more.
    let _ = HELD.try_with(|held| {
        let now = held.get().0 + more;
        held.set((now, held.get().1.max(now)));
    });
}

// SAFETY: all calls go to the system's allocator as they are.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}
