//! Muxes, of 512 rows by one ternary operation.

use std::arch::asm;
use std::arch::x86_64::*;

use super::Lane;
use crate::score::plan::{Mux, Steps};

/// Computes all steps, of `LANES` lanes each.
#[target_feature(enable = "avx512f")]
pub(super) fn all<const LANES: usize>(steps: Steps<'_>, operands: &mut [Lane]) {
    assert!(operands.len() >= steps.operands() * LANES, "lanes of every operand");
    let base: *mut __m512i = operands.as_mut_ptr().cast();
    let places = |mux: &Mux| settled(mux.operands().map(|operand| operand * LANES * size_of::<Lane>()));
    let muxes = steps.muxes();
    let Some(first) = muxes.first() else { return };
    let mut next = places(first);
    for number in 1..=muxes.len() {
        let now = next;
        if let Some(mux) = muxes.get(number) {
            next = places(mux);
        }
        // SAFETY: every operand is below `steps.operands()`, for each of which there are lanes; a lane is aligned to 64 bytes.
        unsafe {
            let [to, right, left, condition] = now.map(|place| base.byte_add(place));
            for lane in 0..LANES {
                let (c, r, l) = (*condition.add(lane), *right.add(lane), *left.add(lane));
                // condition ? right : left
                *to.add(lane) = _mm512_ternarylogic_epi64::<0xCA>(c, r, l);
            }
        }
    }
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
