//! Weight gradients.

use super::*;

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
