//! Codes of rows from their bits: a byte of each of eight bits, which is of 8 rows, makes a square of bits, and a square is
//! mirrored by a product with that of one bit in each byte.

use std::arch::x86_64::*;
use std::array::from_fn;

use super::{Lane, doubles, load, load_bytes};

/// Bytes of 8 rows are put where the doubles of 64 rows come out beside each other.
const ORDER: [u8; 64] = {
    let mut order = [0; 64];
    let mut to = 0;
    while to < 64 {
        order[to] = (to % 16 / 2 * 8 + to / 16 * 2 + to % 2) as u8;
        to += 1;
    }
    order
};

/// The codes of 512 rows, of up to eight bits, the lowest first. `bit` gives each: a closure of its own makes this a part of each
/// caller, whatever else there is, where a call for each 512 rows takes a tenth of the time of adding trees.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,gfni")]
pub(super) fn codes<'a>(count: usize, bit: impl Fn(usize) -> &'a Lane, codes: &mut [u8; 512]) {
    match count {
        0 => codes.fill(0),
        1 => of::<1>(from_fn(bit), codes),
        2 => of::<2>(from_fn(bit), codes),
        3 => of::<3>(from_fn(bit), codes),
        4 => of::<4>(from_fn(bit), codes),
        5 => of::<5>(from_fn(bit), codes),
        6 => of::<6>(from_fn(bit), codes),
        7 => of::<7>(from_fn(bit), codes),
        _ => of::<8>(from_fn(bit), codes),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,gfni")]
fn of<const N: usize>(bits: [&Lane; N], codes: &mut [u8; 512]) {
    let order = load_bytes(&ORDER);
    let mut bytes = [_mm512_setzero_si512(); 8];
    for bit in 0..N {
        // The lowest bit is the last.
        bytes[7 - bit] = _mm512_permutexvar_epi8(order, load(bits[bit]));
    }
    let one_each = _mm512_set1_epi64(0x8040_2010_0804_0201_u64 as i64);
    for (codes, square) in codes.as_chunks_mut::<64>().0.iter_mut().zip(doubles(bytes)) {
        let mirrored = _mm512_gf2p8affine_epi64_epi8::<0>(one_each, square);
        // SAFETY: stores the 64 bytes.
        unsafe { _mm512_storeu_si512(codes.as_mut_ptr().cast(), mirrored) };
    }
}
