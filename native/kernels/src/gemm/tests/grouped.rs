//! Products and weight gradients of experts.

use super::*;

/// A routing with empty experts, one row, and many.
const OFFSETS: [i32; 7] = [0, 0, 1, 40, 40, 153, 160];
const EXPERTS: usize = 6;
const TOKENS: usize = 50;

fn token_rows() -> Vec<i32> {
    (0..160).map(|r| (r * 37 + 11) % TOKENS as i32).collect()
}

fn grouped(isa: Isa, threads: usize, dtype: f64, (n, k): (usize, usize)) -> Vec<f32> {
    let mut bench = Bench::new(isa, threads);
    let x = bench.put(&noise(TOKENS * k, 8), dtype);
    let rows = bench.put_i32(&token_rows());
    let offsets = bench.put_i32(&OFFSETS);
    let panels = bench.packed(&noise(EXPERTS * n * k, 9), (EXPERTS, n, k), dtype);
    let y = bench.garbage(160 * n, F32);
    let operands = [x, rows, offsets, panels, y];
    bench
        .run("groupedMatmul", &operands, &[160, n, k, EXPERTS])
        .unwrap();
    bench.get(y, 160 * n)
}

#[test]
fn grouped_rows_equal_a_plain_product_of_the_same_token_and_expert_bit_for_bit() {
    let (n, k) = (72, 35);
    for dtype in [F32, BF16] {
        let y = grouped(Isa::detect(), 2, dtype, (n, k));
        let (x, w) = (noise(TOKENS * k, 8), noise(EXPERTS * n * k, 9));
        for expert in 0..EXPERTS {
            let mut bench = Bench::new(Isa::detect(), 1);
            let panels = bench.packed(&w[expert * n * k..(expert + 1) * n * k], (1, n, k), dtype);
            for row in OFFSETS[expert] as usize..OFFSETS[expert + 1] as usize {
                let token = token_rows()[row] as usize;
                let x = bench.put(&x[token * k..(token + 1) * k], dtype);
                let one = bench.garbage(n, F32);
                bench
                    .run("matmul", &[x, panels, ABSENT, one], &[1, n, k])
                    .unwrap();
                assert_eq!(
                    bits(&bench.get(one, n)),
                    bits(&y[row * n..(row + 1) * n]),
                    "row {row}"
                );
            }
        }
    }
}

#[test]
fn grouped_products_have_the_same_bits_on_every_instruction_set_and_number_of_threads() {
    for dtype in [F32, BF16] {
        let expected = bits(&grouped(Isa::Portable, 1, dtype, (72, 35)));
        for isa in Isa::of_one_class() {
            for threads in [1, 2] {
                assert!(
                    bits(&grouped(isa, threads, dtype, (72, 35))) == expected,
                    "{dtype} {isa} {threads}"
                );
            }
        }
    }
}

#[test]
fn grouped_weight_gradients_equal_f64_loops_and_leave_empty_experts_alone() {
    // Several tiles of rows and several panels, each with a rest.
    let (n, k) = (70, 45);
    let (dy, x) = (noise(160 * n, 10), noise(160 * k, 8));
    let start = noise(EXPERTS * n * k, 11);
    for (compute, gathers) in [
        (0, [false, true]),
        (1, [false, true]),
        (0, [true, false]),
        (1, [true, false]),
        (1, [true, true]),
        (0, [false, false]),
    ] {
        let used = if compute == 1 { BF16 } else { F32 };
        let exact = grouped_gradient_f64(&stored(&dy, used), &stored(&x, used), &start, gathers, (n, k));
        let mut seen = None;
        for isa in Isa::usable() {
            for threads in [1, 2] {
                let dw = grouped_gradient(isa, threads, compute, [&dy, &x, &start], gathers, (n, k));
                assert_near(&dw, &exact, 1e-6, &format!("{isa} compute {compute}"));
                assert_eq!(bits(&dw[..n * k]), bits(&start[..n * k]), "expert 0 has no row");
                let is_other_class = isa == Isa::Amx && compute == 1;
                assert!(
                    is_other_class || *seen.get_or_insert(bits(&dw)) == bits(&dw),
                    "{isa} {threads} compute {compute}"
                );
            }
        }
    }
}

fn grouped_gradient(
    isa: Isa,
    threads: usize,
    compute: usize,
    [dy, x, start]: [&[f32]; 3],
    gathers: [bool; 2],
    (n, k): (usize, usize),
) -> Vec<f32> {
    let mut bench = Bench::new(isa, threads);
    let dy = bench.put(dy, F32);
    let x = bench.put(x, F32);
    let rows = bench.put_i32(&token_rows());
    let [dy_rows, x_rows] = gathers.map(|gathers| if gathers { rows } else { ABSENT });
    let offsets = bench.put_i32(&OFFSETS);
    let dw = bench.put(start, F32);
    let operands = [dy, dy_rows, x, x_rows, offsets, dw];
    bench
        .run(
            "groupedMatmulGradWeight",
            &operands,
            &[160, n, k, EXPERTS, compute],
        )
        .unwrap();
    bench.get(dw, EXPERTS * n * k)
}

fn grouped_gradient_f64(
    dy: &[f32],
    x: &[f32],
    start: &[f32],
    gathers: [bool; 2],
    (n, k): (usize, usize),
) -> Vec<f64> {
    let mut exact: Vec<f64> = start.iter().map(|v| *v as f64).collect();
    for expert in 0..EXPERTS {
        for r in OFFSETS[expert] as usize..OFFSETS[expert + 1] as usize {
            let [dy_row, x_row] = gathers.map(|gathers| if gathers { token_rows()[r] as usize } else { r });
            for i in 0..n {
                for j in 0..k {
                    exact[(expert * n + i) * k + j] += dy[dy_row * n + i] as f64 * x[x_row * k + j] as f64;
                }
            }
        }
    }
    exact
}

#[test]
fn rows_and_offsets_that_lie_are_refused_by_name() {
    let mut bench = Bench::new(Isa::detect(), 1);
    let x = bench.put(&noise(8, 1), F32);
    let panels = bench.packed(&noise(16, 1), (2, 4, 2), F32);
    let y = bench.garbage(16, F32);
    let bad_rows = bench.put_i32(&[0, -1, 0, 0]);
    let far_rows = bench.put_i32(&[0, i32::MAX, 0, 0]);
    let good = bench.put_i32(&[0, 2, 4]);
    let descending = bench.put_i32(&[0, 5, 4]);
    let long = bench.put_i32(&[0, 2, 5]);
    let param = |rows, offsets| {
        bench
            .run("groupedMatmul", &[x, rows, offsets, panels, y], &[4, 4, 2, 2])
            .unwrap_err()
            .param
    };
    assert_eq!(param(bad_rows, good), Some("rows"));
    assert_eq!(param(far_rows, good), Some("x"));
    assert_eq!(param(ABSENT, descending), Some("offsets"));
    assert_eq!(param(ABSENT, long), Some("offsets"));
}
