//! The steps that kernels compute: operands from operands.

use std::ops::Range;

/// `to = condition ? right : left`, of operands: 16 bits each, from the lowest on in this order. They are one number since
/// compilers else take four fields apart in vector registers, which is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::score) struct Mux(u64);

impl Mux {
    fn new([to, right, left, condition]: [u16; 4]) -> Self {
        Self(u64::from(to) | u64::from(right) << 16 | u64::from(left) << 32 | u64::from(condition) << 48)
    }

    /// To, right, left, condition.
    #[inline(always)]
    pub(in crate::score) fn operands(self) -> [usize; 4] {
        let part = |number: u32| (self.0 >> (16 * number)) as u16 as usize;
        [part(0), part(1), part(2), part(3)]
    }
}

/// Steps that are skipped where what the step before them gives is 0 for all rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Guard {
    /// Their numbers in the tree.
    pub(super) steps: Range<usize>,
    /// The number of the first guard behind them.
    pub(super) next: usize,
}

/// The muxes of a tree, or of several that are woven, and which of them are skipped for blocks that have no rows there.
#[derive(Debug)]
pub(in crate::score) struct Steps {
    muxes: Vec<Mux>,
    /// By where they start; some are in others.
    guards: Vec<Guard>,
    operands: usize,
}

impl Steps {
    /// Of muxes as to, right, left, condition.
    pub(super) fn new(muxes: &[[u16; 4]], guards: Vec<Guard>) -> Self {
        let greatest = muxes.as_flattened().iter().copied().fold(0, u16::max);
        let operands = usize::from(greatest) + 1;
        Self { muxes: muxes.iter().map(|mux| Mux::new(*mux)).collect(), guards, operands }
    }

    /// All operands that they name are below this: found once, so that kernels, which run them again and again, need not look
    /// at each.
    pub(in crate::score) fn operands(&self) -> usize {
        self.operands
    }

    /// Has runs of muxes computed, one after the other, but not what is guarded and where no row is. `compute` says whether
    /// what the last one of a run gives is something but 0.
    #[inline(always)]
    pub(in crate::score) fn run<'a>(&'a self, mut compute: impl FnMut(&'a [Mux]) -> bool) {
        let (mut at, mut guard) = (0, 0);
        while let Some(Guard { steps, next }) = self.guards.get(guard) {
            (at, guard) = match compute(&self.muxes[at..steps.start]) {
                true => (steps.start, guard + 1),
                false => (steps.end, *next),
            };
        }
        compute(&self.muxes[at..]);
    }
}
