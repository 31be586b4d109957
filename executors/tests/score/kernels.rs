//! Every kernel that this processor has, and single rows, against the obvious walk: bit by bit, over made-up forests of
//! every kind of split and leaf.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int64Array, StringArray};
use featurectl_executors::score::{
    Body, Forest, Instructions, LinearLeaf, Link, Missing, Model, Precision, Scorer, Scratch, Split, Test, Tree,
};
use proptest::prelude::*;

const FEATURES: usize = 4;

/// Values that splits compare with, and that rows have: many are equal, and some are odd.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        12 => (-40i32..40).prop_map(|v| f64::from(v) / 4.0),
        4 => any::<f32>().prop_map(f64::from),
        1 => Just(1e-36),
        1 => Just(-1e-36),
        1 => Just(0.0),
        1 => Just(-0.0),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
        1 => Just(f64::from(f32::MIN_POSITIVE) / 4.0),
        2 => Just(f64::NAN),
    ]
}

fn cutoff() -> impl Strategy<Value = f64> {
    number().prop_map(|x| if x.is_nan() { 0.5 } else { x })
}

fn missing() -> impl Strategy<Value = Missing> {
    use Missing::*;
    prop::sample::select(vec![Left, Right, Zero, ZeroLeft, ZeroRight])
}

fn test(sets: bool) -> impl Strategy<Value = Test> {
    let edges = prop::collection::vec(cutoff(), 0..7).prop_map(|mut edges| {
        edges.iter_mut().for_each(|t| *t += 0.0);
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        Test::Within(edges.into())
    });
    prop_oneof![if sets { 4 } else { 1 } => cutoff().prop_map(Test::AtMost), u32::from(sets) => edges]
}

/// A tree of `size` splits, each put in the place of a leaf that is there.
fn tree(sets: bool, outputs: usize, size: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Tree> {
    let split = (0..FEATURES as u32, test(sets), missing(), any::<prop::sample::Index>());
    let leaf = (-1000i32..1000).prop_map(|v| f64::from(v) / 7.0);
    let kind = prop_oneof![3 => Just(0), 1 => Just(1), 1 => Just(2)];
    (prop::collection::vec(split, size), prop::collection::vec(leaf, 1024), kind, 0..outputs as u32).prop_map(
        move |(made, values, kind, output)| {
            let mut splits: Vec<Split> = Vec::new();
            // Where each leaf hangs: the split, and whether on its left.
            let mut leaves = vec![None];
            for (feature, test, missing, place) in made {
                let number = splits.len() as i32;
                let hangs = leaves.swap_remove(place.index(leaves.len()));
                if let Some((split, left)) = hangs {
                    let parent: &mut Split = &mut splits[split];
                    *(if left { &mut parent.left } else { &mut parent.right }) = number;
                }
                splits.push(Split { feature, test, missing, left: 0, right: 0 });
                leaves.extend([Some((number as usize, true)), Some((number as usize, false))]);
            }
            for (leaf, hangs) in leaves.iter().enumerate() {
                if let Some((split, left)) = *hangs {
                    let parent = &mut splits[split];
                    *(if left { &mut parent.left } else { &mut parent.right }) = !(leaf as i32);
                }
            }
            let count = leaves.len();
            let all = kind == 1 && sets;
            let linear = LinearLeaf { constant: 0.5, terms: vec![(0, 0.25), (3, -2.0)] };
            Tree {
                output: (!all).then_some(output),
                leaves: values.into_iter().cycle().take(if all { count * outputs } else { count }).collect(),
                linear: if kind == 2 && sets { vec![linear; count] } else { vec![] },
                covers: vec![],
                splits,
            }
        },
    )
}

fn forest(sets: bool, sizes: std::ops::Range<usize>, trees: std::ops::Range<usize>) -> impl Strategy<Value = Forest> {
    let precision = || prop::sample::select(vec![Precision::F32, Precision::F64]);
    (1usize..4).prop_flat_map(move |outputs| {
        let trees = prop::collection::vec(tree(sets, outputs, sizes.clone()), trees.clone());
        (trees, precision(), precision(), any::<bool>()).prop_map(move |(trees, input, sum, scaled)| {
            let mut forest = Forest::new(FEATURES, vec![0.1; outputs], input, sum);
            if scaled {
                (forest.scale, forest.divide, forest.bias) = (1.5, 3.0, vec![0.25; outputs]);
            }
            trees.into_iter().for_each(|t| forest.push(t).expect("a tree"));
            forest
        })
    })
}

fn model(forest: Forest) -> Model {
    Model {
        name: "m".into(),
        format: "made up".into(),
        objective: String::new(),
        features: (0..FEATURES).map(|f| format!("f{f}")).collect(),
        categories: vec![],
        classes: vec![],
        body: Body::Forest(vec![], forest),
        link: Link::Identity,
    }
}

/// Rows in columns of 64 bits, of 32 bits where the values are such, and with NULL for NaN.
fn columns(rows: &[[f64; FEATURES]]) -> Vec<ArrayRef> {
    let column = |f: usize| -> ArrayRef {
        let values = rows.iter().map(|row| row[f]);
        match f {
            0 => Arc::new(Float32Array::from_iter_values(values.map(|v| v as f32))),
            1 => Arc::new(values.map(|v| (!v.is_nan()).then_some(v)).collect::<Float64Array>()),
            2 => Arc::new(values.map(|v| (!v.is_nan()).then_some(v as f32)).collect::<Float32Array>()),
            _ => Arc::new(Float64Array::from_iter_values(values)),
        }
    };
    (0..FEATURES).map(column).collect()
}

/// What the columns hold.
fn held(row: &[f64; FEATURES]) -> Vec<f64> {
    row.iter().enumerate().map(|(f, v)| if f % 2 == 0 { f64::from(*v as f32) } else { *v }).collect()
}

fn check(forest: Forest, rows: &[[f64; FEATURES]]) -> Result<(), TestCaseError> {
    let model = model(forest);
    let wanted: Vec<Vec<f64>> = rows.iter().map(|row| model.margins(&held(row))).collect();
    let columns = columns(rows);
    for instructions in Instructions::all() {
        let scorer = Scorer::with_instructions(model.clone(), instructions);
        let found = scorer.margins(&columns).expect("numbers");
        let mut scratch = Scratch::default();
        for (row, wanted) in wanted.iter().enumerate() {
            for (output, wanted) in wanted.iter().enumerate() {
                let found = found[output][row];
                let same = found.to_bits() == wanted.to_bits() || found.is_nan() && wanted.is_nan();
                prop_assert!(same, "{instructions:?}, row {row} {:?}: {found} is not {wanted}", rows[row]);
            }
            let single = scorer.margins_of_row(&held(&rows[row]), &mut scratch);
            let same = single.iter().zip(wanted).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan());
            prop_assert!(same, "single row {row}: {single:?} is not {wanted:?}");
        }
    }
    Ok(())
}

fn rows(count: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<[f64; FEATURES]>> {
    prop::collection::vec(prop::array::uniform4(number()), count)
}

/// `PROPTEST_CASES`, if it is set.
fn cases(default: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(48), ..ProptestConfig::default() })]

    #[test]
    fn all_kinds_of_splits_and_leaves(forest in forest(true, 0..40, 0..8), rows in rows(1..700)) {
        check(forest, &rows)?;
    }

    #[test]
    fn plain_splits(forest in forest(false, 0..40, 1..40), rows in rows(1..200)) {
        check(forest, &rows)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(6), ..ProptestConfig::default() })]

    #[test]
    fn trees_of_many_leaves(forest in forest(true, 100..900, 1..4), rows in rows(500..600)) {
        check(forest, &rows)?;
    }

    #[test]
    fn more_rows_than_a_block(forest in forest(false, 5..12, 1..4), rows in rows(5_000..5_100)) {
        check(forest, &rows)?;
    }
}

/// A sum of 300 trees, each of 255 leaves over cutoffs of its own: more than a page of codes, and many conditions. Then a sum of
/// 16 of them, whose cutoffs are few enough for guards: of ordered rows, a block is in some large parts of a tree, not in all.
#[test]
fn features_of_thousands_of_cutoffs() {
    let mut forest = Forest::new(FEATURES, vec![0.0], Precision::F64, Precision::F64);
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(1u32 << 31)
    };
    for _ in 0..300 {
        // A balanced tree by number: split i has the children 2i + 1 and 2i + 2.
        let child = |i: i32| if i < 254 { i } else { !(i - 254) };
        let splits = (0..254).map(|i| Split {
            feature: i as u32 % FEATURES as u32,
            test: Test::AtMost(next()),
            missing: Missing::Left,
            left: child(2 * i + 1),
            right: child(2 * i + 2),
        });
        let splits: Vec<_> = splits.collect();
        let leaves = (0..255).map(|_| next()).collect();
        forest.push(Tree { output: Some(0), splits, leaves, linear: vec![], covers: vec![] }).expect("a tree");
    }
    let mut rows: Vec<[f64; FEATURES]> = (0..5_000).map(|_| std::array::from_fn(|_| next())).collect();
    check(forest.clone(), &rows[..1_000]).expect("equal");
    let mut few = Forest::new(FEATURES, vec![0.0], Precision::F64, Precision::F64);
    forest.trees()[..16].iter().for_each(|tree| few.push(tree.clone()).expect("a tree"));
    rows.sort_by(|a, b| a[0].total_cmp(&b[0]));
    check(few, &rows).expect("equal");
}

/// Values that are cutoffs, and those next to them: above and below evenly spread cutoffs, clusters of them, numbers just
/// above 0, and the numbers before round ones, as `<` makes them.
#[test]
fn values_beside_cutoffs() {
    let even = |step: f32| (0..200).map(move |i| i as f32 * step - 7.0);
    let clusters = (0..60).map(|i| (i / 4) as f32 * 10.0 + (i % 4) as f32 * 0.001);
    let of: [Vec<f32>; FEATURES] = [
        even(0.5).collect(),
        even(1.0).map(f32::next_down).collect(),
        clusters.collect(),
        [1e-35, 0.5, 1.5, 300.25, 301.5, 1e4].to_vec(),
    ];
    for missing in [Missing::Left, Missing::Right, Missing::Zero, Missing::ZeroLeft] {
        let mut forest = Forest::new(FEATURES, vec![0.0], Precision::F64, Precision::F64);
        for (feature, cutoffs) in of.iter().enumerate().flat_map(|(f, of)| of.chunks(5).map(move |five| (f, five))) {
            // A path to the right: split i has leaf i on its left.
            let split = |(i, t): (usize, &f32)| Split {
                feature: feature as u32,
                test: Test::AtMost(f64::from(*t)),
                missing,
                left: !(i as i32),
                right: if i + 1 < cutoffs.len() { i as i32 + 1 } else { !(i as i32 + 1) },
            };
            let splits = cutoffs.iter().enumerate().map(split).collect();
            let leaves = (0..=cutoffs.len()).map(|i| (i as f64 + 0.1) / 3.0).collect();
            forest.push(Tree { output: Some(0), splits, leaves, linear: vec![], covers: vec![] }).expect("a tree");
        }
        let beside = |t: f32| [t.next_down(), t, t.next_up(), -t, t + 0.25, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        let values = of.each_ref().map(|of| of.iter().flat_map(|t| beside(*t)).collect::<Vec<_>>());
        let row = |i: usize| std::array::from_fn(|f| f64::from(values[f][i % values[f].len()]));
        check(forest, &(0..1_700).map(row).collect::<Vec<_>>()).expect("equal");
    }
}

fn small() -> Scorer {
    let mut forest = Forest::new(FEATURES, vec![0.0], Precision::F64, Precision::F64);
    let split =
        |feature, t, left, right| Split { feature, test: Test::AtMost(t), missing: Missing::Right, left, right };
    let splits = vec![split(0, 0.5, 1, !2), split(1, 2.0, !0, !1)];
    forest
        .push(Tree { output: Some(0), splits, leaves: vec![1.0, 2.0, 4.0], linear: vec![], covers: vec![] })
        .expect("a tree");
    Scorer::new(Model { categories: vec![None, Some(vec!["x".into(), "y".into(), "zz".into()])], ..model(forest) })
}

#[test]
fn columns_of_any_type_are_numbers_and_null_is_missing() {
    let scorer = small();
    let other = || Arc::new(Int64Array::from(vec![0; 4])) as ArrayRef;
    let a: ArrayRef = Arc::new(BooleanArray::from(vec![Some(false), Some(true), None, Some(false)]));
    let b: ArrayRef = Arc::new(Int64Array::from(vec![Some(2), Some(2), Some(2), None]));
    assert_eq!(scorer.margins(&[Arc::clone(&a), b, other(), other()]).unwrap(), [[1.0, 4.0, 4.0, 2.0]]);
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("zz"), Some("x"), None, Some("never seen")]));
    let zeros: ArrayRef = Arc::new(Float64Array::from(vec![0.0; 4]));
    assert_eq!(scorer.margins(&[Arc::clone(&zeros), text, other(), other()]).unwrap(), [[1.0, 1.0, 2.0, 1.0]]);
    let sliced = |c: &ArrayRef| c.slice(1, 2);
    let b: ArrayRef = Arc::new(Int64Array::from(vec![9, 1, 3, 9]));
    let columns = [sliced(&zeros), sliced(&b), sliced(&other()), sliced(&other())];
    assert_eq!(scorer.margins(&columns).unwrap(), [[1.0, 2.0]], "a slice begins where it begins");
    assert_eq!(scorer.leaves(&columns).unwrap().len(), 2);
}

#[test]
fn wrong_columns_are_refused() {
    let scorer = small();
    let numbers = |n| Arc::new(Int64Array::from(vec![0; n])) as ArrayRef;
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    for (columns, message) in [
        (vec![numbers(1)], "takes 4 features, not 1"),
        (vec![numbers(1), numbers(2), numbers(1), numbers(1)], "different numbers of rows"),
        (vec![text, numbers(1), numbers(1), numbers(1)], "feature `f0` of model `m` is Utf8"),
    ] {
        let e = scorer.margins(&columns).unwrap_err();
        assert!(e.to_string().contains(message), "{e}");
    }
}
