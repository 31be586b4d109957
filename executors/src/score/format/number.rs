//! Numbers as text, read fast where they are as most are, each to the last bit.

use std::str::FromStr;

/// A number that lists hold.
pub(super) trait Number: FromStr {
    /// The number that text begins with, and how long it is with the blank behind it. `None` for what is rare, and for what
    /// is no number: [`FromStr`] knows all.
    fn quick(text: &[u8]) -> Option<(Self, usize)>;
}

macro_rules! whole {
    ($($of:ty),*) => {
        $(impl Number for $of {
            fn quick(text: &[u8]) -> Option<(Self, usize)> {
                let (number, length) = whole(text)?;
                Some((Self::try_from(number).ok()?, length))
            }
        })*
    };
}
whole!(u8, u32, i32, usize);

impl Number for f64 {
    fn quick(text: &[u8]) -> Option<(Self, usize)> {
        decimal(text)
    }
}

/// Eight digits, as they are when each is combined with this by exclusive or.
const ZEROS: u64 = u64::from_ne_bytes([b'0'; 8]);

/// The upper bit of each byte that is above 9, up to the first such byte.
fn no_digits(word: u64) -> u64 {
    (word | word.wrapping_add(0x7676_7676_7676_7676)) & 0x8080_8080_8080_8080
}

/// The number of eight digits, of which the first is in the lowest byte: they become numbers of 2, of 4 and of 8 digits.
fn eight(ones: u64) -> u64 {
    let twos = (ones.wrapping_mul(10) + (ones >> 8)) & 0x00FF_00FF_00FF_00FF;
    let fours = (twos.wrapping_mul(100) + (twos >> 16)) & 0x0000_FFFF_0000_FFFF;
    (fours.wrapping_mul(10_000) + (fours >> 32)) & 0xFFFF_FFFF
}

/// Of up to seven digits.
fn whole(text: &[u8]) -> Option<(i64, usize)> {
    let sign = usize::from(text.first() == Some(&b'-'));
    let word = u64::from_le_bytes(*text.get(sign..)?.first_chunk()?) ^ ZEROS;
    let length = no_digits(word).trailing_zeros() as usize / 8;
    if !(1..8).contains(&length) || text[sign + length] != b' ' {
        return None;
    }
    let number = eight(word << (64 - 8 * length)) as i64;
    Some((if sign == 1 { -number } else { number }, sign + length + 1))
}

/// With a point, an exponent, both or neither.
fn decimal(text: &[u8]) -> Option<(f64, usize)> {
    let sign = usize::from(text.first() == Some(&b'-'));
    let (before, mut at) = digits(text, sign, 0)?;
    let (mut number, mut behind) = (before, 0);
    if at == sign {
        return None;
    }
    if text.get(at) == Some(&b'.') {
        let (all, end) = digits(text, at + 1, number)?;
        (number, behind, at) = (all, (end - at - 1) as i64, end);
    }
    if text.get(at) == Some(&b'e') {
        let negative = text.get(at + 1) == Some(&b'-');
        let start = at + 1 + usize::from(negative || text.get(at + 1) == Some(&b'+'));
        let (exponent, end) = digits(text, start, 0)?;
        let exponent = i64::try_from(exponent).ok().filter(|_| end > start && end < start + 4)?;
        behind += if negative { exponent } else { -exponent };
        at = end;
    }
    let power = POWERS.get(usize::try_from(behind).ok()?)?;
    let size = if number == 0 { 0.0 } else { rounded(number, behind as u64, *power) };
    (text.get(at) == Some(&b' ')).then_some((if sign == 1 { -size } else { size }, at + 1))
}

/// The number whose digits come from a place on, behind those of another, and where they end. `None` if it is too large.
fn digits(text: &[u8], mut at: usize, mut number: u64) -> Option<(u64, usize)> {
    while number < 100_000_000_000
        && let Some(word) = text.get(at..)?.first_chunk().map(|word| u64::from_le_bytes(*word) ^ ZEROS)
        && no_digits(word) == 0
    {
        number = number * 100_000_000 + eight(word);
        at += 8;
    }
    while let Some(digit @ b'0'..=b'9') = text.get(at) {
        number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        at += 1;
    }
    Some((number, at))
}

/// Of each power of ten that a number may be divided by, the inverse of its five: 128 bits, the uppermost of which is 1,
/// rounded up.
const POWERS: [u128; 28] = {
    let mut powers = [1 << 127; 28];
    let mut n = 1;
    while n < 28 {
        let five = 5u128.pow(n as u32);
        let (mut inverse, mut rest, mut bits) = (0, 1, five.ilog2() + 1 + 127);
        while bits > 0 {
            (inverse, rest) = (inverse << 1, rest << 1);
            if rest >= five {
                (inverse, rest) = (inverse | 1, rest - five);
            }
            bits -= 1;
        }
        powers[n] = inverse + 1;
        n += 1;
    }
    powers
};

/// `number / 10^n`, rounded to the nearest double, of two to the even one. The number is not 0.
///
/// A product with 64 bits of the power, or 128 if those do not tell, is near enough that its first 55 bits say how to round;
/// that this is so for all numbers is shown by Lemire, "Number Parsing at a Gigabyte per Second" (2021).
fn rounded(number: u64, n: u64, power: u128) -> f64 {
    const BELOW: u64 = (1 << 9) - 1;
    let zeros = u64::from(number.leading_zeros());
    let number = u128::from(number << zeros);
    let product = number * (power >> 64);
    let (mut high, mut low) = ((product >> 64) as u64, product as u64);
    if high & BELOW == BELOW {
        let more = ((number * u128::from(power as u64)) >> 64) as u64;
        let carry;
        (low, carry) = low.overflowing_add(more);
        high += u64::from(carry);
    }
    let upper = high >> 63;
    let mut mantissa = high >> (upper + 9);
    // The binary exponent of 10^-n is this, rounded down.
    let exponent = 1023 + 63 - zeros + upper - (n * 217_706).div_ceil(1 << 16);
    if low <= 1 && n <= 4 && mantissa & 3 == 1 && mantissa << (upper + 9) == high {
        // Just between two: down to the even one.
        mantissa -= 1;
    }
    mantissa = (mantissa + (mantissa & 1)) >> 1;
    // Rounded up to the next power of two, the mantissa adds 1 to the exponent by itself.
    f64::from_bits(((exponent - 1) << 52) + mantissa)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_read_as_std_does(text: &str) {
        let behind = format!("{text} 1");
        if let Some((number, length)) = f64::quick(behind.as_bytes()) {
            let expected: f64 = text.parse().expect("what is read fast is a number");
            assert_eq!(number.to_bits(), expected.to_bits(), "{text}");
            assert_eq!(length, text.len() + 1, "{text}");
        }
        if let Some((number, length)) = i32::quick(behind.as_bytes()) {
            assert_eq!(text.parse(), Ok(number), "{text}");
            assert_eq!(length, text.len() + 1, "{text}");
        }
    }

    #[test]
    fn most_numbers_are_read_fast() {
        for text in ["0.1", "-0.0012345678901234567", "12.5", "1e-05", "-1.0000000180025095e-35", "7", "0", "-3.25"] {
            assert!(f64::quick(format!("{text} ").as_bytes()).is_some() || text.ends_with("e-35"), "{text}");
            is_read_as_std_does(text);
        }
        for text in [
            "",
            "-",
            ".",
            "-.5",
            "e5",
            "1e",
            "1e+",
            "0x1",
            "nan",
            "inf",
            "+1",
            "1_0",
            "99999999999999999999",
            "1e-9999",
        ] {
            is_read_as_std_does(text);
            assert_eq!(f64::quick(format!("{text} ").as_bytes()), None, "{text}");
        }
        assert_eq!(i32::quick(b"-0 12345 "), Some((0, 3)));
        assert_eq!(f64::quick(b"0.5\n"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn every_double_comes_back(bits in any::<u64>(), small in -1e3..1e3f64) {
            let any = f64::from_bits(bits);
            for number in [any, small, small.powi(7), f64::from_bits(small.to_bits() & !0xFFFF_FFFF)] {
                is_read_as_std_does(&format!("{number:.17}"));
                is_read_as_std_does(&format!("{number:e}"));
                is_read_as_std_does(&format!("{number:.16e}"));
                is_read_as_std_does(&number.to_string());
            }
        }

        #[test]
        fn decimals_are_rounded_to_the_nearest(digits in any::<u64>(), shift in 0u32..63, n in 0u32..30) {
            is_read_as_std_does(&format!("{}e-{n}", digits >> shift));
            // Exactly between two doubles.
            let odd = (digits >> 10 | 1 << 53) | 1;
            is_read_as_std_does(&format!("{odd}"));
            is_read_as_std_does(&format!("{}.{}", odd >> 3, ["125", "25", "375", "5", "625", "75", "875", "0"][(odd & 7) as usize]));
        }

        #[test]
        fn whole_numbers_come_back(number in any::<i32>(), shift in 0u32..32) {
            is_read_as_std_does(&(number >> shift).to_string());
        }
    }
}
