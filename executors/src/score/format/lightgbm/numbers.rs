//! Numbers in lists.

use lexical_core::FromLexical;

/// The number that text begins with, and how long it is with the blank behind it, as most are in lists. `None` for what
/// else there may be: the standard library knows all.
pub(super) fn quick<T: FromLexical>(text: &[u8]) -> Option<(T, usize)> {
    let (number, length) = lexical_core::parse_partial(text).ok()?;
    // Without a digit, there is none.
    let is_whole = length > 0 && text[length - 1].is_ascii_digit() && text.get(length) == Some(&b' ');
    is_whole.then_some((number, length + 1))
}

/// Numbers by their text. The thresholds of a feature are bounds of its bins, so the same ones come again and again, and to look
/// one up takes a third of the time of reading it.
pub(super) struct Known {
    /// Texts of up to 23 bytes, each where its hash says, with what they mean.
    numbers: Vec<([u64; 3], f64)>,
}

impl Known {
    /// More places do not fit the second cache.
    const PLACES_MAX: usize = 1 << 13;
    /// A threshold and what belongs to its split take about as many bytes.
    const BYTES_A_THRESHOLD: usize = 128;

    /// For trees of so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        let places = (bytes / Self::BYTES_A_THRESHOLD).clamp(2, Self::PLACES_MAX).next_power_of_two();
        // No word is this long.
        Self { numbers: vec![([u64::MAX; 3], 0.0); places] }
    }

    /// As [`quick`].
    pub(super) fn number(&mut self, text: &[u8]) -> Option<(f64, usize)> {
        let Some((word, length)) = word(text) else { return quick(text) };
        let mixed = word[0] ^ word[1].rotate_left(23) ^ word[2].rotate_left(41);
        let place = mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - self.numbers.len().ilog2());
        let (known, number) = &mut self.numbers[place as usize];
        if *known != word {
            let (read, of) = quick(text)?;
            if of != length + 1 {
                return Some((read, of));
            }
            (*known, *number) = (word, read);
        }
        Some((*number, length + 1))
    }
}

/// What stands before the first blank, filled up with zeros, and its length, which is the last byte too: text may hold zeros.
/// `None` if it is more than 23 bytes or nothing, or the end is near.
#[inline(always)]
fn word(text: &[u8]) -> Option<([u64; 3], usize)> {
    const EACH: u64 = u64::MAX / 255;
    let (chunks, _) = text.first_chunk::<24>()?.as_chunks::<8>();
    let [a, b, c] = [0, 1, 2].map(|part: usize| u64::from_le_bytes(chunks[part]));
    // The highest bit of each byte that is a blank, and maybe of some behind it.
    let blanks = |part: u64| {
        let other = part ^ (EACH * u64::from(b' '));
        other.wrapping_sub(EACH) & !other & (EACH << 7)
    };
    let (in_a, in_b, in_c) = (blanks(a), blanks(b), blanks(c));
    // The bits of the bytes before the first blank, all if there is none.
    let before = |blanks: u64| ((blanks & blanks.wrapping_neg()) >> 7).wrapping_sub(1);
    let b = if in_a == 0 { b & before(in_b) } else { 0 };
    let c = if in_a | in_b == 0 { c & before(in_c) } else { 0 };
    let (first, blanks) = if in_b == 0 { (16, in_c) } else { (8, in_b) };
    let (first, blanks) = if in_a == 0 { (first, blanks) } else { (0, in_a) };
    let length = first + blanks.trailing_zeros() as usize / 8;
    (blanks != 0 && length > 0).then_some(([a & before(in_a), b, c | (length as u64) << 56], length))
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::str::FromStr;

    use proptest::prelude::*;

    use super::*;

    /// What is read fast is what the standard library reads.
    fn is_as_std<T: FromLexical + FromStr + Debug>(text: &str) {
        if let Some((number, length)) = quick::<T>(format!("{text} 1").as_bytes()) {
            let wanted = text.parse::<T>().ok().map(|number| format!("{number:?}"));
            assert_eq!((Some(format!("{number:?}")), length), (wanted, text.len() + 1), "`{text}`");
        }
    }

    fn all_are_as_std(text: &str) {
        is_as_std::<f64>(text);
        is_as_std::<i32>(text);
        is_as_std::<u32>(text);
        is_as_std::<u8>(text);
    }

    #[test]
    fn what_is_no_number_is_not_read_fast() {
        for text in [
            "", "-", "+", ".", "-.", "e5", "1e", "1e+", "1e-", "--1", "0x1", "1_0", "nan", "-inf", "1-", "9e9999", "-0",
        ] {
            all_are_as_std(text);
        }
        assert_eq!(quick::<u8>(b" 1 2"), None);
        assert_eq!(quick::<u8>(b"256 "), None);
        assert_eq!(quick::<f64>(b"0.5\n"), None);
        assert_eq!(quick::<f64>(b"-1e-05 7"), Some((-1e-5, 7)));
    }

    proptest! {
        #[test]
        fn text_is_read_as_the_standard_library_does(text in "[-+.e0-9]{0,12}", bits: u64) {
            all_are_as_std(&text);
            let number = f64::from_bits(bits);
            all_are_as_std(&number.to_string());
            all_are_as_std(&format!("{number:.17e}"));
        }
    }

    /// What is known by its text is what is read without that, the first time and then.
    fn is_as_unknown(known: &mut Known, text: &[u8]) {
        for _ in 0..2 {
            let bits = |read: Option<(f64, usize)>| read.map(|(number, length)| (number.to_bits(), length));
            assert_eq!(bits(known.number(text)), bits(quick(text)), "{:?}", text.escape_ascii().to_string());
        }
    }

    #[test]
    fn a_text_is_not_taken_for_another() {
        let mut known = Known::new(1 << 20);
        let behind = " ".repeat(32);
        for text in [
            "0",
            "-0",
            "1.5",
            "1.50",
            "15",
            "1.5e3",
            "12345678",
            "123456789",
            "1234567890123456",
            "0.1234567890123456",
            "0.12345678901234567890",
            "0.123456789012345678901",
            "0.1234567890123456789012",
            "1e-35",
            "\0",
            "\0\0",
            "1\0",
            "\x001",
            "",
            "nan",
            "1\n2",
            "!",
            "\u{a0}",
        ] {
            is_as_unknown(&mut known, format!("{text}{behind}").as_bytes());
            is_as_unknown(&mut known, format!("{text} 7 {text}{behind}").as_bytes());
            is_as_unknown(&mut known, text.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn known_numbers_are_read_as_others(texts in prop::collection::vec("[-0-9.e\\x00 ]{0,26}", 1..20)) {
            let mut known = Known::new(0);
            for text in texts {
                is_as_unknown(&mut known, text.as_bytes());
                is_as_unknown(&mut known, format!("{text} 1 2 3 4 5 6 7 8 9 10 11 12").as_bytes());
            }
        }
    }
}
