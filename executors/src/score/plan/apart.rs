//! Values of leaves with their bytes apart, as permutations of registers look them up.

use super::{Lane, Plan, Precision, TreePlan, Values, padded};

/// Up to 32 doubles are looked up by halves, which takes fewer permutations than by bytes.
const HALVES_MAX: usize = 32;
/// More are not looked up in registers.
const LEAVES_MAX: usize = 256;

impl Plan {
    /// The values of all trees with their bytes apart, made when a kernel first asks for them.
    pub(in crate::score) fn apart(&self) -> &[Lane] {
        self.apart.get_or_init(|| {
            let mut lanes = Vec::new();
            for tree in &self.trees {
                let each = lanes_of_piece(tree.leaves, self.sum);
                let count = if each == 0 { 0 } else { tree.leaves };
                for start in (0..tree.outputs.len()).map(|number| number * padded(tree.leaves)) {
                    match &tree.values {
                        Values::F64(values) => {
                            let piece = if tree.leaves <= HALVES_MAX { 4 } else { 1 };
                            pieces(values[start..][..count].iter().map(|v| v.to_bits()), 8, piece, each, &mut lanes);
                        }
                        Values::F32(values) => {
                            pieces(values[start..][..count].iter().map(|v| v.to_bits().into()), 4, 1, each, &mut lanes);
                        }
                    }
                }
            }
            lanes
        })
    }
}

impl TreePlan {
    /// How many lanes of [`Plan::apart`] each of its outputs has: 2 with the lower and 2 with the upper halves of up to 32
    /// doubles, or 1, 2 or 4 with each byte; none if there are too many leaves.
    pub(in crate::score) fn lanes_apart(&self, sum: Precision) -> usize {
        let pieces = match sum {
            Precision::F64 if self.leaves <= HALVES_MAX => 2,
            Precision::F64 => 8,
            Precision::F32 => 4,
        };
        pieces * lanes_of_piece(self.leaves, sum)
    }
}

/// Lanes of one piece of the values.
fn lanes_of_piece(leaves: usize, sum: Precision) -> usize {
    match sum {
        _ if leaves > LEAVES_MAX => 0,
        Precision::F64 if leaves <= HALVES_MAX => 2,
        _ => padded(leaves) / 64,
    }
}

/// Of values of `width` bytes, the first `piece` bytes of each in `each` lanes, then the next of each, and so on.
fn pieces(values: impl Iterator<Item = u64>, width: usize, piece: usize, each: usize, lanes: &mut Vec<Lane>) {
    let start = lanes.len();
    lanes.resize(start + each * width / piece, Lane::default());
    for (number, value) in values.enumerate() {
        let at = number * piece;
        for part in 0..width / piece {
            let bits = value >> (8 * piece * part) & (u64::MAX >> (64 - 8 * piece));
            lanes[start + part * each + at / 64].0[at % 64 / 8] |= bits << (8 * (at % 8));
        }
    }
}
