//! The steps that kernels compute: operands from operands.

use std::ops::Range;

/// `to = condition ? right : left`, of operands: 16 bits each, from the lowest on in this order. They are one number since
/// compilers else take four fields apart in vector registers, which is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::score) struct Mux(u64);

impl Mux {
    pub(super) fn new([to, right, left, condition]: [u16; 4]) -> Self {
        Self(u64::from(to) | u64::from(right) << 16 | u64::from(left) << 32 | u64::from(condition) << 48)
    }

    /// To, right, left, condition.
    #[inline(always)]
    pub(in crate::score) fn operands(self) -> [usize; 4] {
        self.numbers().map(usize::from)
    }

    #[inline(always)]
    pub(super) fn numbers(self) -> [u16; 4] {
        let part = |number: u32| (self.0 >> (16 * number)) as u16;
        [part(0), part(1), part(2), part(3)]
    }
}

/// The muxes of a plan, none of which names an operand from `operands` on: found once, so that kernels, which run them
/// again and again, need not look at each.
#[derive(Debug)]
pub(in crate::score) struct Muxes {
    all: Vec<Mux>,
    operands: usize,
}

/// Steps that are skipped where what the step before them gives is 0 for all rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::score) struct Guard {
    /// Their numbers in the tree.
    pub(in crate::score) steps: Range<usize>,
    /// The number of the first guard behind them.
    pub(in crate::score) next: usize,
}

/// The muxes of a tree, or of several that are woven.
#[derive(Debug, Clone, Copy)]
pub(in crate::score) struct Steps<'a> {
    muxes: &'a [Mux],
    guards: &'a [Guard],
    operands: usize,
}

impl Muxes {
    /// Muxes whose operands get other numbers.
    pub(super) fn new(mut all: Vec<Mux>, renamed: impl Fn(u16) -> u16) -> Self {
        let mut operands = 0;
        for mux in &mut all {
            *mux = Mux::new(mux.numbers().map(&renamed));
            operands = mux.operands().into_iter().fold(operands, |operands, operand| operands.max(operand + 1));
        }
        Self { all, operands }
    }

    /// Those of a tree.
    pub(in crate::score) fn steps<'a>(&'a self, range: Range<usize>, guards: &'a [Guard]) -> Steps<'a> {
        Steps { muxes: &self.all[range], guards, operands: self.operands }
    }
}

impl<'a> Steps<'a> {
    /// Has runs of muxes computed, one after the other, but not what is guarded and where no row is. `compute` says whether
    /// what the last one of a run gives is something but 0.
    #[inline(always)]
    pub(in crate::score) fn run(&self, mut compute: impl FnMut(&'a [Mux]) -> bool) {
        let (mut at, mut guard) = (0, 0);
        while let Some(Guard { steps, next }) = self.guards.get(guard) {
            (at, guard) = match compute(&self.muxes[at..steps.start]) {
                true => (steps.start, guard + 1),
                false => (steps.end, *next),
            };
        }
        compute(&self.muxes[at..]);
    }

    /// All operands that they name are below this.
    pub(in crate::score) fn operands(&self) -> usize {
        self.operands
    }
}
