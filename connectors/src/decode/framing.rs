//! What stands before a payload that a schema registry knows.
//!
//! ```text
//!  plain      │ payload
//!  Confluent  │ 00 │ id, 4 bytes, big-endian │ payload
//!  Glue       │ 03 │ 00, or 05: zlib │ id, 16 bytes of a UUID │ payload
//! ```

use std::borrow::Cow;
use std::fmt;
use std::io::Read;
use std::str::FromStr;

use featurectl_core::{Error, Result};
use flate2::read::ZlibDecoder;

/// Largest payload that is taken out of a compressed one: a record has 10 MiB at most, and JSON packs up to 20 times.
const INFLATED_MAX: u64 = 256 << 20;

/// What stands before each payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Framing {
    /// Nothing.
    #[default]
    Plain,
    /// The header of Confluent's schema registry.
    Confluent,
    /// The header of Glue's schema registry.
    Glue,
}

impl FromStr for Framing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_lowercase().as_str() {
            "plain" => Ok(Self::Plain),
            "confluent" => Ok(Self::Confluent),
            "glue" => Ok(Self::Glue),
            _ => Err(Error::invalid(format!("no framing `{text}`: there are `plain`, `confluent` and `glue`"))),
        }
    }
}

/// A schema's id in its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SchemaId {
    /// Of Confluent's.
    Confluent(u32),
    /// Of Glue's: a schema version's UUID.
    Glue(u128),
}

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Confluent(id) => write!(f, "{id}"),
            Self::Glue(id) => {
                let hex = format!("{id:032x}");
                write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
            }
        }
    }
}

impl FromStr for SchemaId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Confluent(id));
        }
        let hex = text.replace('-', "");
        match u128::from_str_radix(&hex, 16) {
            Ok(id) if hex.len() == 32 => Ok(Self::Glue(id)),
            _ => Err(Error::invalid(format!("`{text}` is no schema id: write a number (Confluent) or a UUID (Glue)"))),
        }
    }
}

impl Framing {
    /// The schema id of a framed payload, if it has one.
    pub fn id(self, framed: &[u8]) -> Option<SchemaId> {
        match self {
            Self::Glue => glue_header(framed).ok().map(|(_, id, _)| SchemaId::Glue(id)),
            _ => self.open(framed).ok()?.0,
        }
    }

    /// The schema id of a framed payload, and the payload without its frame.
    ///
    /// Errors: [`Data`](featurectl_core::ErrorKind::Data) if there is another frame, or a damaged one.
    pub fn open(self, framed: &[u8]) -> Result<(Option<SchemaId>, Cow<'_, [u8]>)> {
        match self {
            Self::Plain => Ok((None, Cow::Borrowed(framed))),
            Self::Confluent => match framed.split_first_chunk::<5>() {
                Some(([0, a, b, c, d], rest)) => {
                    let id = SchemaId::Confluent(u32::from_be_bytes([*a, *b, *c, *d]));
                    Ok((Some(id), Cow::Borrowed(rest)))
                }
                _ => Err(Error::data("it does not start with the header of Confluent's schema registry")),
            },
            Self::Glue => open_glue(framed),
        }
    }
}

fn open_glue(framed: &[u8]) -> Result<(Option<SchemaId>, Cow<'_, [u8]>)> {
    let (is_packed, id, rest) = glue_header(framed)?;
    let body = if is_packed { Cow::Owned(inflate(rest)?) } else { Cow::Borrowed(rest) };
    Ok((Some(SchemaId::Glue(id)), body))
}

/// Whether what follows is compressed, the id, and what follows.
fn glue_header(framed: &[u8]) -> Result<(bool, u128, &[u8])> {
    let wrong = || Error::data("it does not start with the header of Glue's schema registry");
    let ([version, compression], rest) = framed.split_first_chunk::<2>().ok_or_else(wrong)?;
    let (id, rest) = rest.split_first_chunk::<16>().ok_or_else(wrong)?;
    match (version, compression) {
        (3, 0 | 5) => Ok((*compression == 5, u128::from_be_bytes(*id), rest)),
        _ => Err(wrong()),
    }
}

fn inflate(packed: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let read = ZlibDecoder::new(packed).take(INFLATED_MAX).read_to_end(&mut out);
    match read {
        Ok(_) if (out.len() as u64) < INFLATED_MAX => Ok(out),
        Ok(_) => Err(Error::data("it is larger than 256 MiB without compression")),
        Err(e) => Err(Error::data(format!("its compression is damaged: {e}"))),
    }
}
