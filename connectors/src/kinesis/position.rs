//! Places in a stream: of one record, of one shard, of all shards.
//!
//! ```text
//!  49590338271490256608559692538361571095921575989136588898      56 digits of a sequence number
//!        │ sequence(…)                    ▲ digits(…)
//!        ▼                                │
//!  Position([u8; 24])   big-endian, so it sorts as the numbers do
//!
//!  shardId-000000000000:4959…8898,shardId-000000000001:end,shardId-000000000002:2026-01-01T00:00:00Z    Positions
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use featurectl_core::{Error, Position, Result};

use super::time::{micros, rfc3339};

/// The [`Position`] of a sequence number, from which [`digits`] gives the same text again.
///
/// Errors: [`Data`](featurectl_core::ErrorKind::Data) if the text is no number, is wider than 192 bits, or would lose
/// its leading zeros.
pub fn sequence(text: &str) -> Result<Position> {
    let wrong = |why: &str| Error::data(format!("`{text}` is not a sequence number: {why}"));
    if text.is_empty() || (text.starts_with('0') && text != "0") {
        return Err(wrong("it is empty or starts with a zero"));
    }
    let mut bytes = [0_u8; 24];
    for c in text.bytes() {
        if !c.is_ascii_digit() {
            return Err(wrong("it has other characters than digits"));
        }
        let mut carry = u16::from(c - b'0');
        for byte in bytes.iter_mut().rev() {
            carry += u16::from(*byte) * 10;
            *byte = (carry & 0xff) as u8;
            carry >>= 8;
        }
        if carry > 0 {
            return Err(wrong("it is wider than 192 bits"));
        }
    }
    Ok(Position(bytes))
}

/// The sequence number at a position, in decimal digits: what the service takes and gives.
pub fn digits(position: Position) -> String {
    let mut bytes = position.0;
    let mut text = Vec::new();
    loop {
        let mut rest = 0_u16;
        for byte in &mut bytes {
            let value = (rest << 8) | u16::from(*byte);
            *byte = (value / 10) as u8;
            rest = value % 10;
        }
        text.push(b'0' + rest as u8);
        if bytes == [0; 24] {
            return text.iter().rev().map(|&d| char::from(d)).collect();
        }
    }
}

/// How far one shard is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardPoint {
    /// Up to and with this record. `sub` is the last one read of an aggregate's records; `None`: all of it.
    After {
        /// The record's sequence number.
        sequence: Position,
        /// Its number within an aggregate, counted from 0.
        sub: Option<u64>,
    },
    /// All that arrived before this instant, microseconds UTC, and nothing that arrived later.
    Time(i64),
    /// The shard is closed and read to its end: its children follow.
    End,
}

impl fmt::Display for ShardPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After { sequence, sub: None } => f.write_str(&digits(*sequence)),
            Self::After { sequence, sub: Some(sub) } => write!(f, "{}.{sub}", digits(*sequence)),
            Self::Time(at) => f.write_str(&rfc3339(*at)),
            Self::End => f.write_str("end"),
        }
    }
}

impl FromStr for ShardPoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "end" {
            return Ok(Self::End);
        }
        if text.contains(['-', ':']) {
            return micros(text).map(Self::Time);
        }
        let (number, sub) = match text.split_once('.') {
            Some((number, sub)) => (number, Some(sub)),
            None => (text, None),
        };
        let sub = sub.map(|s| s.parse::<u64>()).transpose();
        let sub = sub.map_err(|_| Error::invalid(format!("`{text}` has no number behind its point")))?;
        Ok(Self::After { sequence: sequence(number)?, sub })
    }
}

/// How far each shard of a stream is read. A shard that is not named is read wholly if a descendant of it is named,
/// else not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions(pub BTreeMap<String, ShardPoint>);

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (shard, point)) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{shard}:{point}")?;
        }
        Ok(())
    }
}

impl FromStr for Positions {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut all = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (shard, point) = part.split_once(':').ok_or_else(|| {
                Error::invalid(format!("`{part}` is no position: write `<shard id>:<sequence number>`, or `:end`"))
            })?;
            if all.insert(shard.to_string(), point.parse()?).is_some() {
                return Err(Error::invalid(format!("shard `{shard}` is named twice")));
            }
        }
        Ok(Self(all))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_largest_number_of_56_digits_is_kept() {
        let nines = "9".repeat(56);
        assert_eq!(digits(sequence(&nines).unwrap()), nines);
        assert_eq!(sequence("258").unwrap(), Position::from(258));
        assert_eq!(digits(Position::default()), "0");
    }

    #[test]
    fn what_is_no_sequence_number_is_refused() {
        for wrong in ["", "007", "12a", "-1", &"9".repeat(58)] {
            assert!(sequence(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn numbers_and_positions_convert_without_loss_and_sort_alike(a in "[1-9][0-9]{0,55}", b in "[1-9][0-9]{0,55}") {
            let (pa, pb) = (sequence(&a).unwrap(), sequence(&b).unwrap());
            prop_assert_eq!(&digits(pa), &a);
            prop_assert_eq!(pa.cmp(&pb), a.len().cmp(&b.len()).then(a.cmp(&b)));
        }

        #[test]
        fn positions_are_what_their_text_says(
            points in prop::collection::btree_map("shardId-[0-9]{12}", prop_oneof![
                Just(ShardPoint::End),
                ("[1-9][0-9]{55}", prop::option::of(any::<u64>()))
                    .prop_map(|(n, sub)| ShardPoint::After { sequence: sequence(&n).unwrap(), sub }),
                (0_i64..4_000_000_000_000_000).prop_map(ShardPoint::Time),
            ], 0..5)
        ) {
            let positions = Positions(points);
            prop_assert_eq!(positions.to_string().parse::<Positions>().unwrap(), positions);
        }
    }
}
