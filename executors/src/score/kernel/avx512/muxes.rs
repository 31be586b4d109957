//! Muxes, of 512 rows by one ternary operation.

use std::arch::asm;
use std::arch::x86_64::*;

use super::Lane;
use crate::score::plan::{Mux, Steps};

/// Computes all steps, of `LANES` lanes each.
#[target_feature(enable = "avx512f")]
pub(super) fn all<const LANES: usize>(steps: &Steps, operands: &mut [Lane]) {
    assert!(operands.len() >= steps.operands() * LANES, "lanes of every operand");
    let base: *mut __m512i = operands.as_mut_ptr().cast();
    let places = |mux: &Mux| settled(mux.operands().map(|operand| operand * LANES * size_of::<Lane>()));
    steps.run(|muxes| {
        let Some(first) = muxes.first() else { return false };
        let (mut next, mut last) = (places(first), [_mm512_setzero_si512(); LANES]);
        for number in 1..=muxes.len() {
            let now = next;
            if let Some(mux) = muxes.get(number) {
                next = places(mux);
            }
            // SAFETY: every operand is below `steps.operands()`, for each of which there are lanes; a lane is aligned to 64 bytes.
            unsafe {
                let [to, right, left, condition] = now.map(|place| base.byte_add(place));
                for (lane, last) in last.iter_mut().enumerate() {
                    let (c, r, l) = (*condition.add(lane), *right.add(lane), *left.add(lane));
                    // condition ? right : left
                    *last = _mm512_ternarylogic_epi64::<0xCA>(c, r, l);
                    *to.add(lane) = *last;
                }
            }
        }
        let any = last.iter().fold(_mm512_setzero_si512(), |any, lane| _mm512_or_si512(any, *lane));
        _mm512_test_epi64_mask(any, any) != 0
    });
}

/// Has numbers computed here: where the operands of the next step are shall be known before the many loads of this one are
/// under way. Else the processor waits for it, a sixth of the time.
#[inline(always)]
fn settled([mut a, mut b, mut c, mut d]: [usize; 4]) -> [usize; 4] {
    // SAFETY: nothing is done.
    unsafe {
        asm!("/* {0} {1} {2} {3} */", inout(reg) a, inout(reg) b, inout(reg) c, inout(reg) d, options(nostack, preserves_flags));
    }
    [a, b, c, d]
}
