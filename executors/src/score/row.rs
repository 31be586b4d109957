//! One row at a time: what serving needs, where a block of rows would mostly be padding.
//!
//! ```text
//!  nodes of all trees   { cutoff, left child, which value }         the right child is behind the left one
//!                          ▲ 16 trees walk side by side, 4 times: a step of all of them by a few gathers
//!  a leaf is a node whose cutoff is infinite and whose left child is itself: a walk that is there stays there
//! ```
//! After some steps, the trees that are at a leaf make room for those that are not, since the longest walk is much longer
//! than most. Leaves are then summed in the order of the trees, so that the result is that of the block kernel. Where all
//! values of a row are numbers of 32 bits, so are the nodes: they are half as large then.

use std::ops::Range;

use super::forest::{Forest, Missing, Precision, Test, Tree, ZERO};

/// Trees that walk side by side.
const WIDTH: usize = 16;
/// Groups of them that do, since a step waits for its gathers.
const GROUPS: usize = 4;
/// Steps between two looks at which trees are at a leaf.
#[cfg(target_arch = "x86_64")]
const STEPS: usize = 3;
/// Bits of a narrow node that say which its left child is; the others say which value it asks.
const LEFT_BITS: u32 = 22;

/// A node of 64-bit values.
#[derive(Debug, Clone, Copy)]
struct Node {
    /// The greatest value that goes left.
    cutoff: f64,
    /// The left child; the right one is behind it.
    left: u32,
    /// The place of the value in the prepared row.
    value: u32,
}

/// Trees laid out for walks side by side.
#[derive(Debug)]
pub(super) struct Rows {
    nodes: Vec<Node>,
    /// The same nodes in 8 bytes, if they fit: the cutoff, then `value << LEFT_BITS | left`.
    narrow: Vec<[u32; 2]>,
    /// The value of the leaf at each node.
    values: Vec<f64>,
    /// The roots, trees of like depth beside each other, up to a multiple of [`WIDTH`].
    roots: Vec<u32>,
    /// For each tree its place among the roots, and its output.
    places: Vec<(usize, u32)>,
    /// The missing rules that there are: the prepared row has a copy for each.
    rules: Vec<Missing>,
}

/// What a caller keeps from one row to the next.
#[derive(Debug, Default)]
pub struct Scratch {
    wide: Vec<f64>,
    narrow: Vec<f32>,
    leaves: Vec<u32>,
    walks: Walks,
}

impl Rows {
    /// `None` for trees that have sets, several outputs a leaf or linear leaves: they are walked one by one.
    pub(super) fn new(forest: &Forest) -> Option<Self> {
        let mut rules: Vec<Missing> = Vec::new();
        for split in forest.trees().iter().flat_map(|t| &t.splits) {
            if !rules.contains(&split.missing) {
                rules.push(split.missing);
            }
        }
        let nodes = 1 + forest.trees().iter().map(|t| 2 * t.splits.len() + 1).sum::<usize>();
        let mut rows = Self {
            nodes: Vec::with_capacity(nodes),
            narrow: Vec::new(),
            values: Vec::with_capacity(nodes),
            roots: Vec::new(),
            places: vec![(0, 0); forest.trees().len()],
            rules,
        };
        let mut by_depth: Vec<usize> = (0..forest.trees().len()).collect();
        by_depth.sort_by_cached_key(|t| forest.trees()[*t].depth());
        for number in by_depth {
            let tree = &forest.trees()[number];
            rows.places[number] = (rows.roots.len(), tree.output.filter(|_| tree.linear.is_empty())?);
            rows.push(tree, forest.features())?;
        }
        let end = rows.reserve(1);
        rows.leaf(end, 0.0);
        while !rows.roots.len().is_multiple_of(WIDTH) {
            rows.roots.push(end as u32);
        }
        rows.make_narrow();
        Some(rows)
    }

    fn reserve(&mut self, count: usize) -> usize {
        let first = self.nodes.len();
        self.nodes.resize(first + count, Node { cutoff: f64::INFINITY, left: 0, value: 0 });
        self.values.resize(first + count, 0.0);
        first
    }

    /// A leaf shows itself the value 0, which is below its cutoff, and so stays.
    fn leaf(&mut self, place: usize, value: f64) {
        self.nodes[place] = Node { cutoff: f64::INFINITY, left: place as u32, value: 0 };
        self.values[place] = value;
    }

    /// Level by level, so that the nodes near the root of a tree are near each other.
    fn push(&mut self, tree: &Tree, features: usize) -> Option<()> {
        let root = self.reserve(1);
        self.roots.push(u32::try_from(root).ok()?);
        let mut open = vec![(if tree.splits.is_empty() { !0 } else { 0 }, root)];
        let mut next = 0;
        while let Some((node, place)) = open.get(next).copied() {
            next += 1;
            if node < 0 {
                self.leaf(place, tree.leaves[!node as usize]);
                continue;
            }
            let split = &tree.splits[node as usize];
            let Test::AtMost(cutoff) = split.test else { return None };
            let left = self.reserve(2);
            let rule = self.rules.iter().position(|r| *r == split.missing)?;
            let value = 1 + rule * features + split.feature as usize;
            let (left_of, value) = (u32::try_from(left).ok()?, u32::try_from(value).ok()?);
            self.nodes[place] = Node { cutoff, left: left_of, value };
            open.extend([(split.left, left), (split.right, left + 1)]);
        }
        (self.nodes.len() <= i32::MAX as usize / 2).then_some(())
    }

    /// Nodes of 8 bytes, unless there are too many nodes or values.
    fn make_narrow(&mut self) {
        let fits = |n: &Node| n.left < 1 << LEFT_BITS && n.value < 1 << (32 - LEFT_BITS);
        if self.nodes.iter().all(fits) {
            let narrow = |n: &Node| [super::plan::at_most(n.cutoff).to_bits(), n.value << LEFT_BITS | n.left];
            self.narrow = self.nodes.iter().map(narrow).collect();
        }
    }

    /// The margins of a row, one an output. Panics if it has not one value a feature, since walks look them up unchecked.
    pub(super) fn margins(&self, forest: &Forest, row: &[f64], scratch: &mut Scratch) -> Vec<f64> {
        assert_eq!(row.len(), forest.features(), "values of a row");
        scratch.leaves.clone_from(&self.roots);
        let rounded = |x: &f64| forest.rounded(*x);
        let is_narrow = |x: f64| x.is_nan() || f64::from(x as f32) == x;
        if !self.narrow.is_empty() && row.iter().all(|x| is_narrow(rounded(x))) {
            scratch.narrow.clear();
            scratch.narrow.push(0.0);
            for rule in &self.rules {
                scratch.narrow.extend(row.iter().map(|x| shown(*rule, *x as f32, f64::from(*x as f32))));
            }
            self.walk_narrow(&mut scratch.leaves, &scratch.narrow, &mut scratch.walks);
        } else {
            scratch.wide.clear();
            scratch.wide.push(0.0);
            for rule in &self.rules {
                scratch.wide.extend(row.iter().map(|x| shown(*rule, rounded(x), rounded(x))));
            }
            self.walk_wide(&mut scratch.leaves, &scratch.wide);
        }
        let mut sums = forest.base().to_vec();
        let leaves = self.places.iter().map(|(place, output)| (self.values[scratch.leaves[*place] as usize], *output));
        match (sums.as_mut_slice(), forest.sum) {
            // One sum stays in a register: through memory, each addition would wait for the store of the one before.
            ([sum], Precision::F64) => *sum = leaves.fold(*sum, |sum, (leaf, _)| sum + leaf),
            ([sum], Precision::F32) => *sum = leaves.fold(*sum as f32, |sum, (leaf, _)| sum + leaf as f32).into(),
            (sums, _) => leaves.for_each(|(leaf, output)| forest.add(&mut sums[output as usize], leaf)),
        }
        sums.iter_mut().enumerate().for_each(|(output, sum)| forest.finish(output, std::slice::from_mut(sum)));
        sums
    }

    /// Walks from the places in `at` to leaves.
    fn walk_wide(&self, at: &mut [u32], row: &[f64]) {
        for place in at {
            loop {
                let node = &self.nodes[*place as usize];
                // NaN is at most nothing, and goes right.
                let next = node.left
                    + u32::from(!matches!(row[node.value as usize].partial_cmp(&node.cutoff), Some(o) if o.is_le()));
                if next == *place {
                    break;
                }
                *place = next;
            }
        }
    }

    fn walk_narrow(&self, at: &mut [u32], row: &[f32], walks: &mut Walks) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("popcnt") {
            // SAFETY: the instructions are there.
            return unsafe { self.walk_avx512(at, row, walks) };
        }
        for place in at {
            loop {
                let [cutoff, link] = self.narrow[*place as usize];
                let (x, left) = (row[(link >> LEFT_BITS) as usize], link & ((1 << LEFT_BITS) - 1));
                let next = left + u32::from(!matches!(x.partial_cmp(&f32::from_bits(cutoff)), Some(o) if o.is_le()));
                if next == *place {
                    break;
                }
                *place = next;
            }
        }
    }

    /// Walks all trees some steps, then those that are not at a leaf yet some more, and so on: a tree's longest walk is
    /// much longer than most.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,popcnt")]
    fn walk_avx512(&self, leaves: &mut [u32], row: &[f32], walks: &mut Walks) {
        let mut count = walks.begin(leaves);
        while count > 0 {
            let mut kept = 0;
            for first in (0..count).step_by(WIDTH * GROUPS) {
                let some = first..count.min(first + WIDTH * GROUPS);
                kept += match some.len().div_ceil(WIDTH) {
                    1 => self.walk_some::<1>(some, kept, leaves, row, walks),
                    2 => self.walk_some::<2>(some, kept, leaves, row, walks),
                    3 => self.walk_some::<3>(some, kept, leaves, row, walks),
                    _ => self.walk_some::<GROUPS>(some, kept, leaves, row, walks),
                };
            }
            count = kept;
        }
    }

    /// Walks `some` of the trees, up to `N` times 16, some steps. Those that are at a leaf then go to `leaves`, the others
    /// behind the first `kept` walks; says how many.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f,popcnt")]
    fn walk_some<const N: usize>(
        &self,
        some: Range<usize>,
        kept: usize,
        leaves: &mut [u32],
        row: &[f32],
        walks: &mut Walks,
    ) -> usize {
        use std::arch::x86_64::*;
        let (places, trees) = (walks.places.as_mut_ptr(), walks.trees.as_mut_ptr());
        let mut end = kept;
        // SAFETY: `begin` made whole groups of places of nodes and of numbers of `leaves`, and `margins` the row. What is kept is written at or
        // before the group that was just read.
        unsafe {
            let load = |i| _mm512_loadu_si512(places.add(some.start + WIDTH * i).cast());
            let mut at: [__m512i; N] = std::array::from_fn(load);
            for _ in 1..STEPS {
                at = at.map(|at| self.step_avx512(at, row));
            }
            let next = at.map(|at| self.step_avx512(at, row));
            for i in 0..N {
                let begin = some.start + WIDTH * i;
                let there = ((1u32 << (some.end - begin).min(WIDTH)) - 1) as u16;
                let moved = _mm512_mask_cmpneq_epi32_mask(there, at[i], next[i]);
                let numbers = _mm512_loadu_si512(trees.add(begin).cast());
                if moved != there {
                    _mm512_mask_i32scatter_epi32::<4>(leaves.as_mut_ptr().cast(), there & !moved, numbers, next[i]);
                }
                _mm512_storeu_si512(places.add(end).cast(), _mm512_maskz_compress_epi32(moved, next[i]));
                _mm512_storeu_si512(trees.add(end).cast(), _mm512_maskz_compress_epi32(moved, numbers));
                end += moved.count_ones() as usize;
            }
        }
        end - kept
    }

    /// A step of 16 trees; one that is at a leaf stays there.
    ///
    /// # Safety
    /// All places are those of nodes, and `row` has all values that nodes ask.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn step_avx512(&self, at: std::arch::x86_64::__m512i, row: &[f32]) -> std::arch::x86_64::__m512i {
        use std::arch::x86_64::*;
        let nodes: *const i64 = self.narrow.as_ptr().cast();
        let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
        // SAFETY: the caller's, which `push` sees to: left children are nodes, and so are those behind them.
        unsafe {
            let near = _mm512_i32gather_epi64::<8>(_mm512_castsi512_si256(at), nodes);
            let far = _mm512_i32gather_epi64::<8>(_mm512_extracti64x4_epi64::<1>(at), nodes);
            let cutoff = _mm512_castsi512_ps(_mm512_permutex2var_epi32(near, even, far));
            let link = _mm512_permutex2var_epi32(near, odd, far);
            let x = _mm512_i32gather_ps::<4>(_mm512_srli_epi32::<LEFT_BITS>(link), row.as_ptr());
            let left = _mm512_and_si512(link, _mm512_set1_epi32((1 << LEFT_BITS) - 1));
            let right = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(x, cutoff);
            _mm512_mask_add_epi32(left, right, left, _mm512_set1_epi32(1))
        }
    }
}

/// Trees whose walks are not over, and where they are.
#[derive(Debug, Default)]
struct Walks {
    places: Vec<u32>,
    trees: Vec<u32>,
}

impl Walks {
    /// All trees at their roots, with nodes behind them up to a whole set of groups. Says how many there are.
    #[cfg(target_arch = "x86_64")]
    fn begin(&mut self, roots: &[u32]) -> usize {
        let whole = roots.len().next_multiple_of(WIDTH * GROUPS);
        self.places.clear();
        self.places.extend_from_slice(roots);
        self.places.resize(whole, 0);
        self.trees.clear();
        self.trees.extend(0..whole as u32);
        roots.len()
    }
}

/// A value as splits of a missing rule are shown it, so that it goes where the rule says.
#[inline]
fn shown<T: From<f32>>(rule: Missing, value: T, x: f64) -> T {
    match rule {
        Missing::Left if x.is_nan() => f32::NEG_INFINITY.into(),
        Missing::Zero if x.is_nan() => 0.0f32.into(),
        Missing::ZeroLeft if x.is_nan() || x.abs() <= ZERO => f32::NEG_INFINITY.into(),
        // No comparison holds for NaN.
        Missing::ZeroRight if x.abs() <= ZERO => f32::NAN.into(),
        _ => value,
    }
}
