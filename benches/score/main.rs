//! Scores a model file over a Parquet file, for `benches/peers/score.py`.
//!
//! Usage: `score_bench MODEL PARQUET OUT_F64 ROUNDS [THREADS] [avx512|avx2|portable] [single]`. After a pass to warm up,
//! prints one line of JSON: nanoseconds a row of each round (with `single`: microseconds a row, over 2,000 rows one by
//! one), and the seconds that loading and compiling the model took: the first time, and the median of three more, as the
//! script times the libraries too. One thread is timed by the processor's time, several by the wall's. Margins are written
//! as little-endian doubles, row by row.

#[path = "../../cli/memory.rs"]
mod memory;

use std::fs::File;
use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::concat_batches;
use arrow::datatypes::Float32Type;
use featurectl_executors::score::{Instructions, Model, Scorer, Scratch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// Rows that are scored in one call, as a query does it.
const BATCH_ROWS: usize = 8192;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    memory::keep_memory();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, rows, out, rounds, rest @ ..] = args.as_slice() else {
        return Err("usage: score_bench MODEL PARQUET OUT_F64 ROUNDS [THREADS] [KERNEL]".into());
    };
    let has = |word: &str| rest.iter().any(|r| r == word);
    let threads: usize = rest.iter().find_map(|t| t.parse().ok()).unwrap_or(1);
    let instructions = match () {
        () if has("avx512") => Instructions::Avx512,
        () if has("avx2") => Instructions::Avx2,
        () if has("portable") => Instructions::Portable,
        () => Instructions::best(),
    };
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(rows)?)?.with_batch_size(1 << 20).build()?;
    let batches = reader.collect::<Result<Vec<_>, _>>()?;
    let table = concat_batches(&batches[0].schema(), &batches)?;
    let load = || -> Result<(Scorer, f64), Box<dyn std::error::Error>> {
        let began = Instant::now();
        let scorer = Scorer::with_instructions(Model::load("m", Path::new(model))?, instructions);
        Ok((scorer, began.elapsed().as_secs_f64()))
    };
    let (mut scorer, first) = load()?;
    let mut loads = [0.0; 3];
    for seconds in &mut loads {
        (scorer, *seconds) = load()?;
    }
    loads.sort_by(f64::total_cmp);
    let load = format!(r#""load_seconds": {}, "first_load_seconds": {first}"#, loads[1]);
    let columns: Vec<ArrayRef> = table.columns()[..scorer.model().features.len()].to_vec();
    let rounds: usize = rounds.parse()?;
    let mut file = BufWriter::new(File::create(out)?);
    if has("single") {
        let (micros, margins) = single(&scorer, &columns, rounds);
        margins.iter().flatten().try_for_each(|m| file.write_all(&m.to_le_bytes()))?;
        println!(r#"{{"us_per_row": {micros:?}, {load}, "kernel": "single"}}"#);
        return Ok(());
    }
    let mut nanos = Vec::new();
    let mut margins = all(&scorer, &columns, threads);
    for _ in 0..rounds {
        let began = if threads == 1 { cpu() } else { wall() };
        margins = all(&scorer, &columns, threads);
        let took = if threads == 1 { cpu() } else { wall() } - began;
        nanos.push(took * 1e9 / table.num_rows() as f64);
    }
    for batch in &margins {
        for row in 0..batch[0].len() {
            batch.iter().try_for_each(|output| file.write_all(&output[row].to_le_bytes()))?;
        }
    }
    println!(r#"{{"ns_per_row": {nanos:?}, {load}, "kernel": "{:?}"}}"#, scorer.instructions());
    Ok(())
}

/// Seconds that this process has run.
fn cpu() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one `timespec`.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Seconds since some moment.
fn wall() -> f64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// The margins of all rows, batch by batch.
fn all(scorer: &Scorer, columns: &[ArrayRef], threads: usize) -> Vec<Vec<Vec<f64>>> {
    let rows = columns[0].len();
    let starts: Vec<usize> = (0..rows).step_by(BATCH_ROWS).collect();
    let of = |start: &usize| {
        let slices: Vec<ArrayRef> = columns.iter().map(|c| c.slice(*start, BATCH_ROWS.min(rows - start))).collect();
        scorer.margins(&slices).expect("numbers")
    };
    let share = starts.len().div_ceil(threads);
    std::thread::scope(|scope| {
        let each: Vec<_> =
            starts.chunks(share).map(|mine| scope.spawn(move || mine.iter().map(of).collect::<Vec<_>>())).collect();
        each.into_iter().flat_map(|t| t.join().expect("a result")).collect()
    })
}

/// Microseconds a row, one row after the other, and the margins of each.
fn single(scorer: &Scorer, columns: &[ArrayRef], rounds: usize) -> (Vec<f64>, Vec<Vec<f64>>) {
    const ROWS: usize = 2_000;
    let step = (columns[0].len() / ROWS).max(1);
    let value = |column: &ArrayRef, row: usize| column.as_primitive::<Float32Type>().value(row);
    let rows: Vec<Vec<f32>> = (0..ROWS).map(|i| columns.iter().map(|c| value(c, i * step)).collect()).collect();
    let (mut scratch, mut wide) = (Scratch::default(), Vec::new());
    let mut score = |row: &Vec<f32>| {
        wide.clear();
        wide.extend(row.iter().map(|x| f64::from(*x)));
        scorer.margins_of_row(&wide, &mut scratch)
    };
    let margins = rows.iter().map(&mut score).collect();
    let round = |_| {
        let began = cpu();
        rows.iter().for_each(|row| drop(black_box(score(row))));
        (cpu() - began) * 1e6 / ROWS as f64
    };
    ((0..rounds).map(round).collect(), margins)
}
