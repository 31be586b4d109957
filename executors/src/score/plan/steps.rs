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
        let part = |number: u32| (self.0 >> (16 * number)) as u16 as usize;
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

/// Consecutive muxes of a plan.
#[derive(Debug, Clone, Copy)]
pub(in crate::score) struct Steps<'a> {
    muxes: &'a [Mux],
    operands: usize,
}

impl Muxes {
    pub(super) fn new(all: Vec<Mux>) -> Self {
        let greatest = all.iter().flat_map(|mux| mux.operands()).max();
        Self { all, operands: greatest.map_or(0, |greatest| greatest + 1) }
    }

    /// Those of a tree.
    pub(in crate::score) fn steps(&self, range: Range<usize>) -> Steps<'_> {
        Steps { muxes: &self.all[range], operands: self.operands }
    }
}

impl<'a> Steps<'a> {
    /// In the order in which they are computed.
    pub(in crate::score) fn muxes(&self) -> &'a [Mux] {
        self.muxes
    }

    /// All operands that they name are below this.
    pub(in crate::score) fn operands(&self) -> usize {
        self.operands
    }
}
