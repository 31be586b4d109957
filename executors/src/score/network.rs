//! Layers of a network, in 32-bit floats: row by row as the yardstick, and by blocks of rows.
//!
//! A block keeps a column a value. A few of its rows make a tile that stays in the first cache, and each pass over a
//! tile makes a few outputs, so that the sums stay in registers:
//!
//! ```text
//!   columns            tile                      weights            sums (registers)
//!   x0 ├───────┤       x0 │16 rows│              w0 │2 outputs│     y0 │16 rows│
//!   x1 ├───────┤  ──▶  x1 │16 rows│      ×       w1 │2 outputs│  =  y1 │16 rows│      y = bias + x0 w0 + x1 w1 + …
//!   …                  …                         …                  …
//! ```
//! Both ways add the same terms in the same order, each rounded, so they give the same bits.

use super::model::{Layer, Norm};

/// The values that a row comes to, the obvious way; `row` has one value an input.
pub(super) fn run(layers: &[Layer], row: &[f64]) -> Vec<f64> {
    let mut values: Vec<f32> = row.iter().map(|x| *x as f32).collect();
    for layer in layers {
        match layer {
            Layer::Dense { weights, bias, .. } => values = dense_row(weights, bias, &values),
            Layer::Scale { offset, scale } => values
                .iter_mut()
                .zip(offset.iter().zip(scale))
                .for_each(|(x, (offset, scale))| *x = (*x - offset) * scale),
            other => in_place(other, &mut values),
        }
    }
    values.into_iter().map(f64::from).collect()
}

/// How many values the layers give for `inputs` values.
pub(super) fn outputs(layers: &[Layer], inputs: usize) -> usize {
    let bias = |layer: &Layer| match layer {
        Layer::Dense { bias, .. } => Some(bias.len()),
        _ => None,
    };
    layers.iter().rev().find_map(bias).unwrap_or(inputs)
}

/// The columns that a block of `rows` rows comes to, one an output; `columns` are one an input, each of `rows` values.
/// Gives the bits that [`run`] gives.
pub(super) fn run_block(layers: &[Layer], columns: &[&[f32]], rows: usize) -> Vec<Vec<f32>> {
    // As many sums as 128-bit registers hold.
    run_tiled::<16, 2>(layers, columns, rows)
}

/// Like [`run_block`], in tiles of `LANES` rows, of which a pass makes `OUTPUTS` outputs. Inlined, so that a caller
/// compiled for wider vectors gets them here too: 16 and 4 suit 256 bits, 32 and 4 suit 512.
#[inline(always)]
pub(super) fn run_tiled<const LANES: usize, const OUTPUTS: usize>(
    layers: &[Layer],
    columns: &[&[f32]],
    rows: usize,
) -> Vec<Vec<f32>> {
    // The input is copied only if the first layer does not make columns of its own.
    let mut owned: Option<Vec<Vec<f32>>> = None;
    for layer in layers {
        if let Layer::Dense { weights, bias, .. } = layer {
            owned = Some(match &owned {
                None => dense_block::<LANES, OUTPUTS>(weights, bias, columns, rows),
                Some(owned) => {
                    let columns: Vec<&[f32]> = owned.iter().map(Vec::as_slice).collect();
                    dense_block::<LANES, OUTPUTS>(weights, bias, &columns, rows)
                }
            });
            continue;
        }
        let values = owned.get_or_insert_with(|| columns.iter().map(|column| column.to_vec()).collect());
        match layer {
            Layer::Scale { offset, scale } => {
                for (column, (offset, scale)) in values.iter_mut().zip(offset.iter().zip(scale)) {
                    column.iter_mut().for_each(|x| *x = (*x - offset) * scale);
                }
            }
            Layer::Normalize(_) | Layer::Softmax => each_row(layer, values, rows),
            other => values.iter_mut().for_each(|column| in_place(other, column)),
        }
    }
    owned.unwrap_or_else(|| columns.iter().map(|column| column.to_vec()).collect())
}

/// `bias + Σ x · weights`, input by input.
fn dense_row(weights: &[f32], bias: &[f32], row: &[f32]) -> Vec<f32> {
    let mut sums = bias.to_vec();
    for (x, weights) in row.iter().zip(weights.chunks(bias.len().max(1))) {
        sums.iter_mut().zip(weights).for_each(|(sum, w)| *sum += x * w);
    }
    sums
}

/// Like [`dense_row`] for `rows` rows; `columns` are one an input.
#[inline(always)]
fn dense_block<const LANES: usize, const OUTPUTS: usize>(
    weights: &[f32],
    bias: &[f32],
    columns: &[&[f32]],
    rows: usize,
) -> Vec<Vec<f32>> {
    let groups = grouped::<OUTPUTS>(weights, bias.len(), columns.len());
    let mut outputs = vec![vec![0f32; rows]; bias.len()];
    let mut tile = vec![[0f32; LANES]; columns.len()];
    for start in (0..rows).step_by(LANES) {
        let count = LANES.min(rows - start);
        for (lanes, column) in tile.iter_mut().zip(columns) {
            lanes[..count].copy_from_slice(&column[start..start + count]);
        }
        for (group, weights) in groups.iter().enumerate() {
            let first = group * OUTPUTS;
            let sums = tile_sums(&bias[first..bias.len().min(first + OUTPUTS)], weights, &tile);
            for (output, lanes) in outputs[first..].iter_mut().zip(&sums) {
                output[start..start + count].copy_from_slice(&lanes[..count]);
            }
        }
    }
    outputs
}

/// The weights of each `OUTPUTS` outputs side by side, input by input; the last group is filled up with zeros.
fn grouped<const OUTPUTS: usize>(weights: &[f32], outputs: usize, inputs: usize) -> Vec<Vec<[f32; OUTPUTS]>> {
    let row = |first: usize, weights: &[f32]| {
        let mut group = [0f32; OUTPUTS];
        group.iter_mut().zip(&weights[first..]).for_each(|(to, w)| *to = *w);
        group
    };
    let rows = || weights.chunks(outputs.max(1)).take(inputs);
    (0..outputs).step_by(OUTPUTS).map(|first| rows().map(|weights| row(first, weights)).collect()).collect()
}

/// The sums of up to `OUTPUTS` outputs for the rows of a tile.
#[inline(always)]
fn tile_sums<const LANES: usize, const OUTPUTS: usize>(
    bias: &[f32],
    weights: &[[f32; OUTPUTS]],
    tile: &[[f32; LANES]],
) -> [[f32; LANES]; OUTPUTS] {
    let mut sums = [[0f32; LANES]; OUTPUTS];
    sums.iter_mut().zip(bias).for_each(|(sum, bias)| *sum = [*bias; LANES]);
    for (x, w) in tile.iter().zip(weights) {
        for (sum, w) in sums.iter_mut().zip(w) {
            for (sum, x) in sum.iter_mut().zip(x) {
                *sum += x * w;
            }
        }
    }
    sums
}

/// Does a layer of whole rows to rows that lie across columns.
fn each_row(layer: &Layer, columns: &mut [Vec<f32>], rows: usize) {
    let mut row = vec![0f32; columns.len()];
    for number in 0..rows {
        row.iter_mut().zip(&*columns).for_each(|(x, column)| *x = column[number]);
        in_place(layer, &mut row);
        columns.iter_mut().zip(&row).for_each(|(column, x)| column[number] = *x);
    }
}

/// Does a layer that keeps the shape: to a row, or, if it treats each value by itself, to any values.
fn in_place(layer: &Layer, values: &mut [f32]) {
    let mut each = |f: &dyn Fn(f32) -> f32| values.iter_mut().for_each(|x| *x = f(*x));
    match layer {
        // Done above, where it is known which value is which.
        Layer::Dense { .. } | Layer::Scale { .. } => {}
        // Written so that NaN stays NaN.
        Layer::Relu => values.iter_mut().for_each(|x| *x = if *x < 0.0 { 0.0 } else { *x }),
        Layer::LeakyRelu { slope } => values.iter_mut().for_each(|x| *x = if *x < 0.0 { slope * *x } else { *x }),
        Layer::Sigmoid => each(&|x| 1.0 / (1.0 + (-x).exp())),
        Layer::Tanh => each(&f32::tanh),
        Layer::Softmax => softmax(values),
        Layer::Normalize(norm) => normalize(*norm, values),
    }
}

/// `exp(x) / Σ exp(x)`, shifted so that nothing overflows.
fn softmax(row: &mut [f32]) {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|x| *x = (*x - most).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|x| *x /= sum);
}

/// Divides by a norm, unless it is 0.
fn normalize(norm: Norm, row: &mut [f32]) {
    let sum = match norm {
        Norm::Max => row.iter().fold(0f32, |most, x| if x.abs() <= most { most } else { x.abs() }),
        Norm::L1 => row.iter().map(|x| x.abs()).sum(),
        Norm::L2 => row.iter().map(|x| x * x).sum(),
    };
    if sum == 0.0 {
        return;
    }
    match norm {
        Norm::Max | Norm::L1 => row.iter_mut().for_each(|x| *x /= sum),
        // The root comes last, since ONNX runtimes round this way.
        Norm::L2 => row.iter_mut().for_each(|x| *x = (*x * *x / sum).sqrt().copysign(*x)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers without a pattern, from a linear congruence.
    fn noise(count: usize) -> Vec<f32> {
        let mut state = 42u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn dense(inputs: usize, outputs: usize) -> Layer {
        Layer::Dense { inputs, weights: noise(inputs * outputs), bias: noise(outputs) }
    }

    /// Runs `layers` over 77 rows of 5 columns both ways and expects the same bits.
    fn check(layers: &[Layer]) {
        let rows = 77;
        let mut values = noise(5 * rows);
        for (at, x) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-40, 3e38].iter().enumerate() {
            values[at * 53] = *x;
        }
        let columns: Vec<&[f32]> = values.chunks(rows).collect();
        let block = run_block(layers, &columns, rows);
        let same = |other: &[Vec<f32>]| {
            // Which of its many patterns a NaN has is the processor's choice.
            let bit = |x: &f32| if x.is_nan() { u32::MAX } else { x.to_bits() };
            let bits = |block: &[Vec<f32>]| block.concat().iter().map(bit).collect::<Vec<_>>();
            bits(&block) == bits(other)
        };
        assert!(same(&run_tiled::<16, 4>(layers, &columns, rows)) && same(&run_tiled::<32, 4>(layers, &columns, rows)));
        for row in 0..rows {
            let values: Vec<f64> = columns.iter().map(|column| f64::from(column[row])).collect();
            let bits = |x: f64| if x.is_nan() { u64::MAX } else { x.to_bits() };
            let one: Vec<u64> = run(layers, &values).into_iter().map(bits).collect();
            let same: Vec<u64> = block.iter().map(|column| bits(f64::from(column[row]))).collect();
            assert_eq!(one, same, "row {row} of {layers:?}");
        }
    }

    #[test]
    fn a_block_gives_the_bits_of_its_rows() {
        check(&[]);
        check(&[dense(5, 1)]);
        check(&[dense(5, 7), Layer::Relu, dense(7, 4), Layer::Tanh, dense(4, 3), Layer::Softmax]);
        check(&[Layer::Scale { offset: noise(5), scale: noise(5) }, dense(5, 9), Layer::Sigmoid]);
        check(&[Layer::LeakyRelu { slope: 0.1 }, Layer::Normalize(Norm::L2), dense(5, 2)]);
        check(&[Layer::Normalize(Norm::L1), Layer::Normalize(Norm::Max)]);
    }

    #[test]
    fn a_norm_of_zero_leaves_the_row_as_it_is() {
        for norm in [Norm::Max, Norm::L1, Norm::L2] {
            assert_eq!(run(&[Layer::Normalize(norm)], &[0.0, -0.0]), [0.0, -0.0]);
        }
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        for layer in [Layer::Relu, Layer::LeakyRelu { slope: 0.5 }, Layer::Sigmoid, Layer::Tanh, dense(1, 1)] {
            assert!(run(&[layer], &[f64::NAN])[0].is_nan());
        }
    }
}
