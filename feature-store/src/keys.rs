//! Bytes of keys that sort as what they stand for, the same in all online stores.

/// Big-endian bytes that sort as the numbers do.
pub(crate) fn sortable(n: i64) -> [u8; 8] {
    (n ^ i64::MIN).to_be_bytes()
}

/// The inverse of [`sortable`].
pub(crate) fn number(bytes: [u8; 8]) -> i64 {
    i64::from_be_bytes(bytes) ^ i64::MIN
}

/// Bytes in which a byte 0 is written as `00 FF`: ended by `00 00`, they sort before any longer ones.
pub(crate) fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 32);
    for byte in bytes {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xFF);
        }
    }
    out
}
