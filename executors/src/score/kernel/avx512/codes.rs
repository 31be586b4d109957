//! Codes of rows from their bits: a byte of each of eight bits, which is of 8 rows, makes a square of bits, and a square is
//! mirrored by a product with that of one bit in each byte.

use std::arch::x86_64::*;

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

/// The codes of 512 rows, of up to eight bits, the lowest first.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,gfni")]
pub(super) fn codes(bits: &[&Lane], codes: &mut [u8; 512]) {
    match *bits {
        [] => codes.fill(0),
        [a] => of([a], codes),
        [a, b] => of([a, b], codes),
        [a, b, c] => of([a, b, c], codes),
        [a, b, c, d] => of([a, b, c, d], codes),
        [a, b, c, d, e] => of([a, b, c, d, e], codes),
        [a, b, c, d, e, f] => of([a, b, c, d, e, f], codes),
        [a, b, c, d, e, f, g] => of([a, b, c, d, e, f, g], codes),
        [a, b, c, d, e, f, g, h, ..] => of([a, b, c, d, e, f, g, h], codes),
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
