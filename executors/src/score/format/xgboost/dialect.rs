//! What XGBoost writes although it is not JSON.
//!
//! ```text
//!  "split_conditions":[1.5E-1,NaN,-Infinity]  ──▶  "split_conditions":[1.5E-1,null,-1.7976931348623157e308]
//! ```

/// Names of numbers that JSON doesn't have, and what is read instead: the same as in UBJSON.
const WORDS: [(&[u8], &[u8]); 2] = [(b"NaN", b"null"), (b"Infinity", b"1.7976931348623157e308")];

/// Where the name of the objective begins in XGBoost's old binary format, behind 136 bytes of parameters.
const BINARY_NAME: usize = 144;

/// JSON without the words `NaN` and `Infinity`, which XGBoost writes for thresholds that have no meaning; `None` if
/// there are none.
pub(in super::super) fn plain_json(bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut plain, mut copied, mut at, mut in_text) = (Vec::new(), 0, 0, false);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if in_text => at += 1,
            b'"' => in_text = !in_text,
            b'N' | b'I' if !in_text => {
                if let Some((word, instead)) = WORDS.iter().find(|(word, _)| bytes[at..].starts_with(word)) {
                    plain.extend_from_slice(&bytes[copied..at]);
                    plain.extend_from_slice(instead);
                    at += word.len() - 1;
                    copied = at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    plain.extend_from_slice(&bytes[copied..]);
    (copied > 0).then_some(plain)
}

/// Whether this is XGBoost's old binary format: by its magic, or by the name of the objective, which stands behind its
/// length. The first versions had no magic.
pub(in super::super) fn is_binary(bytes: &[u8]) -> bool {
    let name = || {
        let (length, rest) = bytes.get(BINARY_NAME - 8..)?.split_first_chunk()?;
        rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok().filter(|length| *length < 64)?)
    };
    let is_name = |name: &[u8]| name.contains(&b':') && name.iter().all(|b| b.is_ascii_lowercase() || *b == b':');
    bytes.starts_with(b"binf") || bytes.starts_with(b"bs64") || name().is_some_and(is_name)
}
