//! The products of rows, plain and grouped: against the definition; with NaN in them, in fourteen bits, and refused.

use super::{How, NAN_CODE, Random, WORDS, panels, stored, sum};
use crate::gemm::tests::{ABSENT, Bench, F32};
use crate::isa::Isa;
use crate::pool::FloatMode;

/// The products of some experts over gathered rows; (expert count, rows of x, n, k).
pub(super) fn check_product(how: How, offsets: &[i32], (tx, n, k): (usize, usize, usize), seed: u32) {
    let mut random = Random(seed);
    let How {
        promotion,
        transposed,
        ..
    } = how;
    let (e, r) = (offsets.len() - 1, offsets[offsets.len() - 1] as usize);
    let (tiles, blocks) = (k.div_ceil(128), n.div_ceil(128));
    let (mut x, mut x_scales) = (random.codes(tx * k), random.scales(tx * tiles));
    let index: Vec<i32> = (0..r).map(|_| random.below(tx) as i32).collect();
    // Rows that nobody asks for are NaN.
    for row in (0..tx).filter(|row| !index.contains(&(*row as i32))) {
        x[row * k..(row + 1) * k].fill(NAN_CODE);
        x_scales[row * tiles..(row + 1) * tiles].fill(f32::NAN);
    }
    let (w, w_scales) = (random.codes(e * n * k), random.scales(e * blocks * tiles));
    let mut bench = Bench::of(WORDS, how.isa, how.threads);
    let operands = (
        (bench.put_codes(&x), bench.put(&x_scales, F32)),
        (bench.put_i32(&index), bench.put_i32(offsets)),
        (bench.put_codes(&panels(&w, (e, n, k))), bench.put(&w_scales, F32)),
        bench.garbage(r * n, how.y),
    );
    let ((x_at, xs_at), (rows_at, offsets_at), (w_at, ws_at), y_at) = operands;
    let flags = [transposed as usize, promotion, 0];
    let grouped = [x_at, xs_at, rows_at, offsets_at, w_at, ws_at, y_at];
    let numbers = [&[r, n, k, e][..], &flags].concat();
    bench.run("fp8GroupedMatmul", &grouped, &numbers).unwrap();
    let _flush = FloatMode::enter();
    let expected: Vec<u32> = (0..r * n)
        .map(|at| {
            let (row, column) = (at / n, at % n);
            let expert = offsets.iter().rposition(|o| *o as usize <= row).unwrap();
            let from = index[row] as usize;
            let terms: Vec<_> = (0..k)
                .map(|j| (x[from * k + j], w[(expert * n + column) * k + j]))
                .collect();
            let scale = |tile: usize| {
                let block = column / 128;
                let at = if transposed {
                    tile * blocks + block
                } else {
                    block * tiles + tile
                };
                x_scales[from * tiles + tile] * w_scales[expert * blocks * tiles + at]
            };
            stored(sum(how.isa, promotion, &terms, scale), how.y)
        })
        .collect();
    let bits = |y: Vec<f32>| y.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let y = bits(bench.get(y_at, r * n));
    assert!(y == expected, "{offsets:?} of {tx} rows, N {n}, K {k}, {how:?}");
    if e == 1 {
        // The plain product of the same rows in order.
        let gathered: Vec<u8> = index
            .iter()
            .flat_map(|i| x[*i as usize * k..][..k].to_vec())
            .collect();
        let scales: Vec<f32> = index
            .iter()
            .flat_map(|i| x_scales[*i as usize * tiles..][..tiles].to_vec())
            .collect();
        let (x_at, xs_at) = (bench.put_codes(&gathered), bench.put(&scales, F32));
        let y_at = bench.garbage(r * n, how.y);
        let numbers = [&[r, n, k][..], &flags].concat();
        bench
            .run("fp8Matmul", &[x_at, xs_at, w_at, ws_at, ABSENT, y_at], &numbers)
            .unwrap();
        assert!(
            bits(bench.get(y_at, r * n)) == expected,
            "plain: {r} rows, N {n}, K {k}, {how:?}"
        );
    }
}

#[test]
fn nan_stays_in_its_row_column_or_block() {
    for isa in Isa::usable() {
        let mut bench = Bench::new(isa, 1);
        let (m, n, k) = (40, 200, 300);
        let (mut x, mut w) = (vec![0x38u8; m * k], vec![0x38u8; n * k]);
        let mut scales = vec![1.0f32; 2 * 3];
        let mut x_scales = vec![1.0f32; m * 3];
        x[7 * k + 5] = 0xff;
        w[33 * k + 299] = NAN_CODE;
        x_scales[9 * 3 + 1] = f32::NAN;
        scales[3 + 2] = f32::NAN;
        let operands = [
            bench.put_codes(&x),
            bench.put(&x_scales, F32),
            bench.put_codes(&panels(&w, (1, n, k))),
            bench.put(&scales, F32),
            ABSENT,
            bench.garbage(m * n, F32),
        ];
        bench.run("fp8Matmul", &operands, &[m, n, k, 0, 128, 0]).unwrap();
        for (at, y) in bench.get(operands[5], m * n).into_iter().enumerate() {
            let (row, column) = (at / n, at % n);
            let spoilt = row == 7 || row == 9 || column == 33 || column >= 128;
            assert!(
                if spoilt { y.is_nan() } else { y == 300.0 },
                "({row}, {column}) is {y} on {isa}"
            );
        }
    }
}

#[test]
fn sums_in_fourteen_bits_are_the_same_on_every_instruction_set_and_cut_below_the_largest() {
    let (m, n, k) = (5, 40, 200);
    let mut random = Random(77);
    let (x, w) = (random.codes(m * k), random.codes(n * k));
    let (x_scales, w_scales) = (random.scales(m * 2), random.scales(2));
    for promotion in [0, 16, 128] {
        let mut first: Option<Vec<u32>> = None;
        for isa in Isa::usable() {
            let mut bench = Bench::new(isa, 2);
            let operands = [
                bench.put_codes(&x),
                bench.put(&x_scales, F32),
                bench.put_codes(&panels(&w, (1, n, k))),
                bench.put(&w_scales, F32),
                ABSENT,
                bench.garbage(m * n, F32),
            ];
            bench
                .run("fp8Matmul", &operands, &[m, n, k, 0, promotion, 14])
                .unwrap();
            let y: Vec<u32> = bench
                .get(operands[5], m * n)
                .iter()
                .map(|v| v.to_bits())
                .collect();
            assert!(
                *first.get_or_insert(y.clone()) == y,
                "{isa}, blocks of {promotion}"
            );
        }
    }
    // 448 * 448 and a product 2^17 times smaller: gone, and below zero one unit too much.
    for (small, expected) in [(0x38u8, 200_704.0f32), (0xb8, 200_704.0 - 8.0)] {
        let mut bench = Bench::new(Isa::detect(), 1);
        let operands = [
            bench.put_codes(&[0x7e, 0x38]),
            bench.put(&[1.0], F32),
            bench.put_codes(&panels(&[0x7e, small], (1, 1, 2))),
            bench.put(&[1.0], F32),
            ABSENT,
            bench.garbage(1, F32),
        ];
        bench.run("fp8Matmul", &operands, &[1, 1, 2, 0, 128, 14]).unwrap();
        assert_eq!(bench.get(operands[5], 1), [expected]);
    }
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let mut bench = Bench::new(Isa::detect(), 1);
    let operands = [
        bench.put_codes(&[0x38; 64]),
        bench.put(&[1.0], F32),
        bench.put_codes(&[0x38; 64]),
        bench.put(&[1.0], F32),
        ABSENT,
        bench.garbage(1, F32),
    ];
    let run =
        |operands: &[[f64; 2]], numbers: &[usize]| bench.run("fp8Matmul", operands, numbers).unwrap_err();
    assert_eq!(run(&operands, &[1, 1, 1, 0, 24, 0]).param, Some("promotion"));
    assert_eq!(run(&operands, &[1, 1, 1, 0, 0, 0]).param, Some("promotion"));
    assert_eq!(
        run(&operands, &[1, 1, 1, 0, 128, 13]).param,
        Some("accumulatorBits")
    );
    let mut wrong = operands;
    wrong[0] = operands[1];
    assert_eq!(run(&wrong, &[1, 1, 1, 0, 128, 0]).param, Some("x"));
    let grouped = [
        operands[0],
        operands[1],
        ABSENT,
        ABSENT,
        operands[2],
        operands[3],
        operands[5],
    ];
    let missing = bench.run("fp8GroupedMatmul", &grouped, &[1, 1, 1, 1, 0, 128, 0]);
    assert_eq!(missing.unwrap_err().param, Some("offsets"));
}
