//! `approx_distinct(x)`: exact up to 256 values, then to about 1.6 %.
//!
//! The partial is the sorted set of 64-bit hashes while it is small, then a HyperLogLog of 4,096 registers (Flajolet
//! et al., 2007) read by Ertl's improved estimator ("New cardinality estimation algorithms for HyperLogLog sketches",
//! arXiv:1702.01284, algorithm 6; standard error 1.04/√4096). A union does not depend on order, and neither does the
//! moment of the change from set to registers, so batch and online agree to the bit.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::DataType;

use super::double_double::Reader;
use super::{Aggregation, Events};
use crate::{Error, Result, ordered};

const PRECISION: u32 = 12;
const REGISTERS: usize = 1 << PRECISION;
const SET_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Distinct;

/// What has been seen.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Seen {
    /// Hashes, ascending.
    Set(Vec<u64>),
    /// The greatest rank by register.
    Registers(Box<[u8; REGISTERS]>),
}

/// FNV-1a, then MurmurHash3's 64-bit finalizer: stable over versions and machines.
fn hash(bytes: &[u8]) -> u64 {
    let mut h = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

fn note(registers: &mut [u8; REGISTERS], hash: u64) {
    let register = (hash >> (64 - PRECISION)) as usize;
    let rank = ((hash << PRECISION) | (1 << (PRECISION - 1))).leading_zeros() as u8 + 1;
    registers[register] = registers[register].max(rank);
}

fn dense(hashes: &[u64]) -> Seen {
    let mut registers = Box::new([0; REGISTERS]);
    hashes.iter().for_each(|h| note(&mut registers, *h));
    Seen::Registers(registers)
}

fn estimate(registers: &[u8; REGISTERS]) -> f64 {
    let q = 64 - PRECISION as usize;
    let m = REGISTERS as f64;
    let mut counts = vec![0.0; q + 2];
    registers.iter().for_each(|r| counts[*r as usize] += 1.0);
    let mut z = m * tau(1.0 - counts[q + 1] / m);
    for k in (1..=q).rev() {
        z = 0.5 * (z + counts[k]);
    }
    z += m * sigma(counts[0] / m);
    m * m / (2.0 * std::f64::consts::LN_2 * z)
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

fn union(left: &[u64], right: &[u64]) -> Vec<u64> {
    let mut all = [left, right].concat();
    all.sort_unstable();
    all.dedup();
    all
}

impl Aggregation for Distinct {
    type Partial = Seen;

    fn return_type(&self) -> DataType {
        DataType::Int64
    }

    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<Seen>>> {
        let values = ordered::encode(&events.args[0])?;
        Ok(values.into_iter().map(|v| v.map(|v| Seen::Set(vec![hash(&v)]))).collect())
    }

    fn merge(&self, into: &mut Seen, other: &Seen) {
        match (&mut *into, other) {
            (Seen::Set(left), Seen::Set(right)) => {
                *left = union(left, right);
                if left.len() > SET_MAX {
                    *into = dense(left);
                }
            }
            (Seen::Registers(left), Seen::Set(right)) => right.iter().for_each(|h| note(left, *h)),
            (Seen::Registers(left), Seen::Registers(right)) => {
                left.iter_mut().zip(right.iter()).for_each(|(l, r)| *l = (*l).max(*r));
            }
            (Seen::Set(left), Seen::Registers(right)) => {
                let mut registers = right.clone();
                left.iter().for_each(|h| note(&mut registers, *h));
                *into = Seen::Registers(registers);
            }
        }
    }

    fn finish(&self, partials: &[Option<Seen>]) -> Result<ArrayRef> {
        let count = |seen: &Seen| match seen {
            Seen::Set(hashes) => hashes.len() as i64,
            Seen::Registers(registers) => estimate(registers).round() as i64,
        };
        Ok(Arc::new(partials.iter().map(|p| p.as_ref().map(count)).collect::<Int64Array>()))
    }

    fn encode(&self, seen: &Seen, out: &mut Vec<u8>) {
        match seen {
            Seen::Set(hashes) => {
                out.push(0);
                hashes.iter().for_each(|h| out.extend(h.to_le_bytes()));
            }
            Seen::Registers(registers) => {
                out.push(1);
                out.extend(&registers[..]);
            }
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<Seen> {
        let mut reader = Reader(bytes);
        if reader.array::<1>()? == [1] {
            let registers = reader.array::<REGISTERS>()?;
            let fits = registers.iter().all(|r| u32::from(*r) <= 64 - PRECISION + 1);
            return if fits {
                Ok(Seen::Registers(Box::new(registers)))
            } else {
                Err(Error::data("a stored HyperLogLog is damaged"))
            };
        }
        let mut hashes = Vec::with_capacity(reader.0.len() / 8);
        while !reader.0.is_empty() {
            hashes.push(reader.u64()?);
        }
        Ok(Seen::Set(hashes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(values: std::ops::Range<u64>) -> Seen {
        let mut all = Seen::Set(vec![]);
        values.for_each(|v| Distinct.merge(&mut all, &Seen::Set(vec![hash(&v.to_be_bytes())])));
        all
    }

    #[test]
    fn the_estimate_is_within_five_percent_from_300_to_a_million() {
        for n in [300, 3_000, 10_000, 30_000, 100_000, 1_000_000u64] {
            let Seen::Registers(registers) = seen(0..n) else { panic!("{n} values are still a set") };
            let got = estimate(&registers);
            assert!((got / n as f64 - 1.0).abs() < 0.05, "{got} is not {n}");
        }
    }

    #[test]
    fn any_merge_order_gives_the_same_partial() {
        let (mut a, mut b) = (seen(0..200), seen(150..400));
        let (first, second) = (a.clone(), b.clone());
        Distinct.merge(&mut a, &second);
        Distinct.merge(&mut b, &first);
        assert_eq!(a, b);
        assert_eq!(a, seen(0..400));
    }
}
