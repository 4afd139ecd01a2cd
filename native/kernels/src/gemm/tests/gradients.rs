//! Weight gradients.

use super::*;
use crate::args::Floats;
use crate::gemm::{Arithmetic, Matrix, matmul_grad_weight};

pub(super) fn grad_weight(
    isa: Isa,
    threads: usize,
    (t, n, k): (usize, usize, usize),
    dtype: f64,
    compute: usize,
    start: &[f32],
) -> Vec<f32> {
    let mut bench = Bench::new(isa, threads);
    let dy = bench.put(&noise(t * n, 5), dtype);
    let x = bench.put(&noise(t * k, 6), dtype);
    let dw = bench.put(start, F32);
    bench
        .run("matmulGradWeight", &[dy, x, dw], &[t, n, k, compute])
        .unwrap();
    bench.get(dw, n * k)
}

#[test]
fn weight_gradients_equal_f64_loops_and_add_to_what_is_there() {
    for shape in [
        (1, 1, 1),
        (7, 13, 33),
        (64, 25, 100),
        (129, 97, 31),
        (300, 12, 64),
        // AMX: three blocks of tokens with a rest, several tiles with a rest, several panels with a rest.
        (1101, 150, 100),
        (1024, 70, 300),
    ] {
        let (t, n, k) = shape;
        for (dtype, compute) in [(F32, 0), (F32, 1), (BF16, 0), (BF16, 1)] {
            let used = if compute == 1 { BF16 } else { dtype };
            let (dy, x) = (stored(&noise(t * n, 5), used), stored(&noise(t * k, 6), used));
            let start = noise(n * k, 7);
            let mut exact = vec![0.0f64; n * k];
            for i in 0..n {
                for j in 0..k {
                    exact[i * k + j] = start[i * k + j] as f64
                        + (0..t)
                            .map(|s| dy[s * n + i] as f64 * x[s * k + j] as f64)
                            .sum::<f64>();
                }
            }
            let dw = grad_weight(Isa::detect(), 2, shape, dtype, compute, &start);
            assert_near(&dw, &exact, 1e-6, &format!("{shape:?} {dtype} {compute}"));
        }
    }
}

#[test]
fn weight_gradients_have_the_same_bits_on_every_instruction_set_and_number_of_threads() {
    for shape in [(7, 13, 33), (129, 97, 31), (64, 150, 260)] {
        let start = noise(shape.1 * shape.2, 7);
        for compute in [0, 1] {
            let expected = bits(&grad_weight(Isa::Portable, 1, shape, BF16, compute, &start));
            for isa in Isa::of_one_class() {
                for threads in [1, 2] {
                    let dw = bits(&grad_weight(isa, threads, shape, BF16, compute, &start));
                    assert!(dw == expected, "{shape:?} compute {compute} {isa} {threads}");
                }
            }
        }
    }
}

/// Rows of `columns` numbers, `stride` apart; the last ends where the slice ends.
fn apart(rows: &[f32], columns: usize, stride: usize) -> Vec<f32> {
    let mut x = vec![f32::NAN; (rows.len() / columns - 1) * stride + columns];
    for (i, row) in rows.chunks_exact(columns).enumerate() {
        x[i * stride..i * stride + columns].copy_from_slice(row);
    }
    x
}

#[test]
fn factors_read_in_place_give_the_bits_of_packed_ones_at_every_stride_up_to_the_last_element() {
    // One token, a block and one more, rests of tiles and panels; 512 words apart everything is packed, 528 nothing is.
    for (t, n, k) in [
        (1, 1, 1),
        (1, 40, 64),
        (5, 12, 32),
        (257, 25, 33),
        (300, 97, 130),
        (513, 13, 96),
    ] {
        let (dy, x) = (stored(&noise(t * n, 5), BF16), stored(&noise(t * k, 6), BF16));
        let (narrow_dy, narrow_x) = (narrow(&dy), narrow(&x));
        let start = noise(n * k, 7);
        for isa in Isa::usable() {
            let pool = Pool::new(2);
            let ctx = Ctx::new(&pool, isa);
            let gradient = |dy: Matrix, x: Matrix| {
                let mut dw = start.clone();
                matmul_grad_weight(&ctx, Arithmetic::F32, dy, x, (t, n, k), &mut dw);
                bits(&dw)
            };
            // bf16 is widened on the way, so it is packed.
            let packed_dy = Matrix::new(Floats::Bf16(&narrow_dy), n);
            let packed_x = Matrix::new(Floats::Bf16(&narrow_x), k);
            let expected = gradient(packed_dy, packed_x);
            for stride in [0, 3, 512, 528] {
                let (dy_stride, x_stride) = match stride {
                    0 | 3 => (n + stride, k + stride),
                    _ => (stride, stride),
                };
                let (dy, x) = (apart(&dy, n, dy_stride), apart(&x, k, x_stride));
                let dy = Matrix::new(Floats::F32(&dy), dy_stride);
                let x = Matrix::new(Floats::F32(&x), x_stride);
                for (dy, x) in [(dy, x), (dy, packed_x), (packed_dy, x)] {
                    assert!(gradient(dy, x) == expected, "{t} {n} {k} {isa}, {stride} apart");
                }
            }
        }
    }
}

fn narrow(x: &[f32]) -> Vec<u16> {
    x.iter().map(|v| bf16::from_f32(*v)).collect()
}
