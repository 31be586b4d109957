//! Reads UBJSON, the binary twin of JSON in which XGBoost saves models since version 2.1.
//!
//! Each value begins with a marker; lengths are numbers with a marker of their own, and all numbers are big-endian. An
//! array may say the type of its values (`$`) and how many there are (`#`); then they follow without markers and end
//! without a `]`.
//!
//! ```text
//!  {  L 7 learner  {  L 5 trees  [ $ d # L 3 ▒▒▒▒ ▒▒▒▒ ▒▒▒▒   L 2 id  i 0  }  }
//!     └───key───┘     └──key──┘  └─3 floats─┘ of 4 bytes      └─key─┘ └value
//! ```
//!
//! A number that JSON doesn't have becomes what [`Value`] can hold: NaN is null, and an infinity the greatest number.
//! Arrays grow by the values that are there, whatever their count claims, and one that says its type is first compared
//! with the bytes that are left.

use featurectl_core::{Error, Result};
use serde_json::{Map, Number, Value};

/// No array or object is nested deeper: models come to about 10.
const DEPTH_MAX: usize = 64;

/// The value in `bytes`, which must hold nothing else.
///
/// Errors: [`Data`](featurectl_core::ErrorKind::Data) with the byte at which it stops being UBJSON.
pub(super) fn parse(bytes: &[u8]) -> Result<Value> {
    let mut reader = Reader { bytes, at: 0 };
    let marker = reader.marker()?;
    let value = reader.value(marker, 0)?;
    match reader.at == bytes.len() {
        true => Ok(value),
        false => Err(reader.damaged("the file goes on behind its end")),
    }
}

/// A JSON number, or what stands for one that JSON doesn't have.
fn number(x: f64) -> Value {
    let finite = if x.is_infinite() { f64::MAX.copysign(x) } else { x };
    Number::from_f64(finite).map_or(Value::Null, Value::Number)
}

/// The bytes, and how many of them are read.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// An error at the byte that was read last.
    fn damaged(&self, what: &str) -> Error {
        Error::data(format!("byte {}: {what}: save the model again", self.at.saturating_sub(1)))
    }

    /// The next `count` bytes.
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let left = &self.bytes[self.at..];
        let Some(taken) = left.get(..count) else {
            return Err(self.damaged(&format!("{count} bytes should follow, but there are {}", left.len())));
        };
        self.at += count;
        Ok(taken)
    }

    /// The next `N` bytes.
    fn number<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    /// The next marker; `N` stands for nothing.
    fn marker(&mut self) -> Result<u8> {
        loop {
            match self.number::<1>()? {
                [b'N'] => {}
                [marker] => return Ok(marker),
            }
        }
    }

    /// Whether the next byte is `marker`, which is then read.
    fn skip(&mut self, marker: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&marker);
        self.at += usize::from(found);
        found
    }

    /// What follows `marker`.
    fn value(&mut self, marker: u8, depth: usize) -> Result<Value> {
        Ok(match marker {
            b'Z' => Value::Null,
            b'T' => Value::Bool(true),
            b'F' => Value::Bool(false),
            b'd' => number(f32::from_be_bytes(self.number()?).into()),
            b'D' => number(f64::from_be_bytes(self.number()?)),
            b'S' => Value::String(self.text()?.to_string()),
            b'C' => Value::String(char::from(self.number::<1>()?[0]).to_string()),
            b'[' | b'{' if depth == DEPTH_MAX => return Err(self.damaged("more than 64 levels are nested")),
            b'[' => self.array(depth + 1)?,
            b'{' => self.object(depth + 1)?,
            _ => self.whole(marker)?.into(),
        })
    }

    /// The whole number that follows `marker`.
    fn whole(&mut self, marker: u8) -> Result<i64> {
        Ok(match marker {
            b'i' => i8::from_be_bytes(self.number()?).into(),
            b'U' => u8::from_be_bytes(self.number()?).into(),
            b'I' => i16::from_be_bytes(self.number()?).into(),
            b'l' => i32::from_be_bytes(self.number()?).into(),
            b'L' => i64::from_be_bytes(self.number()?),
            _ => return Err(self.damaged(&format!("`{}` is no marker of a value", marker.escape_ascii()))),
        })
    }

    /// A count or length, with its marker.
    fn count(&mut self) -> Result<usize> {
        let marker = self.marker()?;
        let count = self.whole(marker)?;
        usize::try_from(count).map_err(|_| self.damaged(&format!("the length {count} is below 0")))
    }

    /// A length and as many bytes of text.
    fn text(&mut self) -> Result<&'a str> {
        let length = self.count()?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|_| self.damaged("the text is not UTF-8"))
    }

    /// The type of all values and their count, as far as they are given.
    fn header(&mut self) -> Result<(Option<u8>, Option<usize>)> {
        let kind = if self.skip(b'$') { Some(self.marker()?) } else { None };
        let count = if self.skip(b'#') { Some(self.count()?) } else { None };
        match (kind, count) {
            (Some(_), None) => Err(self.damaged("a type of values should be followed by their count")),
            // They take no bytes, so their number is bounded by nothing.
            (Some(b'Z' | b'T' | b'F'), Some(1..)) => Err(self.damaged("an array of values that take no bytes")),
            header => Ok(header),
        }
    }

    /// What follows `[`.
    fn array(&mut self, depth: usize) -> Result<Value> {
        let (kind, count) = self.header()?;
        if let (Some(kind), Some(count)) = (kind, count)
            && let Some(values) = self.typed(kind, count)?
        {
            return Ok(Value::Array(values));
        }
        let mut values = Vec::new();
        while count.is_none_or(|count| values.len() < count) {
            let marker = match kind {
                Some(kind) => kind,
                None => self.marker()?,
            };
            if count.is_none() && marker == b']' {
                break;
            }
            values.push(self.value(marker, depth)?);
        }
        Ok(Value::Array(values))
    }

    /// `count` numbers of one kind, if it is a kind of numbers.
    fn typed(&mut self, kind: u8, count: usize) -> Result<Option<Vec<Value>>> {
        let size = match kind {
            b'i' | b'U' => 1,
            b'I' => 2,
            b'l' | b'd' => 4,
            b'L' | b'D' => 8,
            _ => return Ok(None),
        };
        let bytes = self.take(count.saturating_mul(size))?;
        Ok(Some(match kind {
            b'i' => bytes.iter().map(|b| i8::from_be_bytes([*b]).into()).collect(),
            b'U' => bytes.iter().map(|b| (*b).into()).collect(),
            b'I' => each(bytes, |b| i16::from_be_bytes(b).into()),
            b'l' => each(bytes, |b| i32::from_be_bytes(b).into()),
            b'L' => each(bytes, |b| i64::from_be_bytes(b).into()),
            b'd' => each(bytes, |b| number(f32::from_be_bytes(b).into())),
            _ => each(bytes, |b| number(f64::from_be_bytes(b))),
        }))
    }

    /// What follows `{`.
    fn object(&mut self, depth: usize) -> Result<Value> {
        let (kind, count) = self.header()?;
        let mut object = Map::new();
        let mut read = 0;
        while count.is_none_or(|count| read < count) {
            while self.skip(b'N') {}
            if count.is_none() && self.skip(b'}') {
                break;
            }
            let key = self.text()?.to_string();
            let marker = match kind {
                Some(kind) => kind,
                None => self.marker()?,
            };
            object.insert(key, self.value(marker, depth)?);
            read += 1;
        }
        Ok(Value::Object(object))
    }
}

/// A value of every `N` bytes.
fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> Value) -> Vec<Value> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| value(*chunk)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: Value) {
        assert_eq!(parse(bytes).unwrap_or_else(|e| panic!("{e}")), expected);
    }

    #[test]
    fn values_of_all_kinds_are_read() {
        check(b"N[TFZNi\x85U\x85I\xff\x7fN]", json!([true, false, null, -123, 133, -129]));
        check(b"[l\xff\xff\xff\xffL\0\0\0\x01\0\0\0\0]", json!([-1, 4294967296i64]));
        check(b"[d\x3f\xc0\0\0D\xbf\xf8\0\0\0\0\0\0]", json!([1.5, -1.5]));
        check(b"[d\x7f\xc0\0\0d\x7f\x80\0\0d\xff\x80\0\0]", json!([null, f64::MAX, f64::MIN]));
        check("[SU\u{3}öaCx]".as_bytes(), json!(["öa", "x"]));
    }

    #[test]
    fn arrays_and_objects_may_give_their_type_and_count() {
        check(b"[#i\x02i\x01T", json!([1, true]));
        check(b"[$i#i\x02\x01\xff", json!([1, -1]));
        check(b"[$U#U\x02\x01\xff", json!([1, 255]));
        check(b"[$I#I\0\x02\0\x01\xff\xff", json!([1, -1]));
        check(b"[$l#l\0\0\0\x01\0\0\x01\0", json!([256]));
        check(b"[$L#L\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x01\0", json!([256]));
        check(b"[$d#i\x02\x3f\x80\0\0\x7f\xc0\0\0", json!([1.0, null]));
        check(b"[$D#i\x01\x3f\xf8\0\0\0\0\0\0", json!([1.5]));
        check(b"[$S#i\x02i\x01ai\0", json!(["a", ""]));
        check(b"[$[#i\x02]#i\x01Z", json!([[], [null]]));
        check(b"[$T#i\0", json!([]));
        check(b"{#i\x01i\x01ai\x05", json!({"a": 5}));
        check(b"{$i#i\x02i\x01a\x05i\x01b\x06", json!({"a": 5, "b": 6}));
        check(b"{Ni\x01a{}NU\x01b[]N}", json!({"a": {}, "b": []}));
    }
}
