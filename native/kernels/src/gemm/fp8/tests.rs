//! The four products against their definition, bit for bit, in memory whose every byte is NaN but for what is valid.

use super::decode::E4m3;
use crate::bf16::{self, Element};
use crate::gemm::panels_len;
use crate::gemm::tests::{ABSENT, BF16, Bench, F32};
use crate::isa::Isa;
use crate::pool::FloatMode;

const NAN_CODE: u8 = 0x7f;
/// Of an arena that holds any case: 4 MiB, filled anew for each of some thousands.
const WORDS: usize = 1 << 19;

struct Random(u32);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        (self.0 >> 4) as usize % limit
    }

    fn codes(&mut self, len: usize) -> Vec<u8> {
        // Every code but the two NaNs.
        (0..len)
            .map(|_| [0, 0x80][self.below(2)] | self.below(0x7f) as u8)
            .collect()
    }

    fn scales(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| (1 + self.below(4000)) as f32 * 1e-5).collect()
    }
}

/// One output by its definition.
fn sum(isa: Isa, promotion: usize, terms: &[(u8, u8)], scale: impl Fn(usize) -> f32) -> f32 {
    let mut acc = 0.0f32;
    for (block, terms) in terms.chunks(promotion).enumerate() {
        let at = |i: usize| {
            terms
                .get(i)
                .map_or((0.0, 0.0), |(x, w)| (E4m3(*x).to_f32(), E4m3(*w).to_f32()))
        };
        let mut partial = 0.0f32;
        if isa == Isa::Amx {
            for from in (0..terms.len()).step_by(32) {
                let chain = |first: usize| {
                    (from + first..(from + 32).min(terms.len()).next_multiple_of(2))
                        .step_by(2)
                        .fold(0.0f32, |sum, i| at(i).0.mul_add(at(i).1, sum))
                };
                partial += chain(0) + chain(1);
            }
        } else {
            for i in (0..terms.len()).step_by(2) {
                let (odd, even) = (at(i + 1), at(i));
                partial = even.0.mul_add(even.1, odd.0.mul_add(odd.1, partial));
            }
        }
        acc = partial.mul_add(scale(block * promotion / 128), acc);
    }
    acc
}

/// Panels of `batch` matrices [n, k]; padding is NaN.
fn panels(w: &[u8], (batch, n, k): (usize, usize, usize)) -> Vec<u8> {
    let mut out = vec![NAN_CODE; batch * panels_len(n, k)];
    for (e, out) in out.chunks_exact_mut(panels_len(n, k).max(1)).enumerate() {
        for i in 0..n {
            for j in 0..k {
                let line = i / 32 * k.next_multiple_of(2) / 2 + j / 2;
                out[line * 64 + i % 32 * 2 + j % 2] = w[(e * n + i) * k + j];
            }
        }
    }
    out
}

/// How a case is computed.
#[derive(Clone, Copy, Debug)]
struct How {
    isa: Isa,
    threads: usize,
    promotion: usize,
    transposed: bool,
    y: f64,
}

fn stored(sum: f32, dtype: f64) -> u32 {
    if dtype == BF16 {
        bf16::round(sum).to_bits()
    } else {
        sum.to_bits()
    }
}

/// The products of some experts over gathered rows; (expert count, rows of x, n, k).
fn check_product(how: How, offsets: &[i32], (tx, n, k): (usize, usize, usize), seed: u32) {
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
            .run("fp8Matmul", &[x_at, xs_at, w_at, ws_at, y_at], &numbers)
            .unwrap();
        assert!(
            bits(bench.get(y_at, r * n)) == expected,
            "plain: {r} rows, N {n}, K {k}, {how:?}"
        );
    }
}

fn check_gradient(how: How, offsets: &[i32], (n, k): (usize, usize), seed: u32) {
    let mut random = Random(seed);
    let (e, r) = (offsets.len() - 1, offsets[offsets.len() - 1] as usize);
    let scale_rows = r / 128 + e;
    let (dy, x) = (random.codes(r * n), random.codes(r * k));
    let (mut dy_scales, mut x_scales) = (vec![f32::NAN; scale_rows * n], vec![f32::NAN; scale_rows * k]);
    // Rows of scales that no tile owns stay NaN.
    for (expert, pair) in offsets.windows(2).enumerate() {
        let first = pair[0] as usize / 128 + expert;
        let last = first + (pair[1] - pair[0]).max(0).unsigned_abs().div_ceil(128) as usize;
        dy_scales[first * n..last * n].copy_from_slice(&random.scales((last - first) * n));
        x_scales[first * k..last * k].copy_from_slice(&random.scales((last - first) * k));
    }
    let before: Vec<f32> = (0..e * n * k).map(|i| i as f32 * 0.01 - 1.0).collect();
    let mut bench = Bench::of(WORDS, how.isa, how.threads);
    let factors = [
        bench.put_codes(&dy),
        bench.put(&dy_scales, F32),
        bench.put_codes(&x),
        bench.put(&x_scales, F32),
    ];
    let (offsets_at, dw) = (bench.put_i32(offsets), bench.put(&before, F32));
    let operands = [&factors[..], &[offsets_at, dw]].concat();
    bench
        .run("fp8GroupedGradWeight", &operands, &[r, n, k, e, how.promotion, 0])
        .unwrap();
    let _flush = FloatMode::enter();
    let expected: Vec<u32> = (0..e * n * k)
        .map(|at| {
            let (expert, row, column) = (at / (n * k), at / k % n, at % k);
            let (from, to) = (offsets[expert] as usize, offsets[expert + 1] as usize);
            let first = from / 128 + expert;
            let terms: Vec<_> = (from..to).map(|t| (dy[t * n + row], x[t * k + column])).collect();
            let scale =
                |tile: usize| dy_scales[(first + tile) * n + row] * x_scales[(first + tile) * k + column];
            (before[at] + sum(how.isa, how.promotion, &terms, scale)).to_bits()
        })
        .collect();
    let bits = |y: Vec<f32>| y.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert!(
        bits(bench.get(dw, e * n * k)) == expected,
        "{offsets:?}, N {n}, K {k}, {how:?}"
    );
    if e == 1 {
        let dw = bench.put(&before, F32);
        let operands = [&factors[..], &[dw]].concat();
        bench
            .run("fp8GradWeight", &operands, &[r, n, k, how.promotion, 0])
            .unwrap();
        assert!(
            bits(bench.get(dw, n * k)) == expected,
            "plain: {r} tokens, N {n}, K {k}, {how:?}"
        );
    }
}

fn ascending(random: &mut Random, experts: usize, most: usize) -> Vec<i32> {
    let mut offsets = vec![0];
    for _ in 0..experts {
        let rows = if random.below(4) == 0 {
            0
        } else {
            random.below(most + 1)
        };
        offsets.push(offsets[offsets.len() - 1] + rows as i32);
    }
    offsets
}

#[test]
fn in_a_thousand_random_shapes_nothing_invalid_reaches_a_valid_output_and_all_bits_are_right() {
    let mut random = Random(0x1234_5677);
    let isas = Isa::usable();
    for round in 0..1000 {
        let how = How {
            isa: isas[round % isas.len()],
            threads: 1 + random.below(2),
            promotion: [16, 32, 64, 128][random.below(4)],
            transposed: random.below(2) == 1,
            y: [F32, BF16][random.below(2)],
        };
        let experts = [1, 1, 1 + random.below(4)][random.below(3)];
        let most = [3, 20, 40][random.below(3)];
        let offsets = ascending(&mut random, experts, most);
        let k = [1 + random.below(9), 1 + random.below(300)][random.below(2)];
        let n = [1 + random.below(5), 1 + random.below(70), 120 + random.below(20)][random.below(3)];
        check_product(how, &offsets, (1 + random.below(30), n, k), round as u32 * 2 + 1);
        let most = [3, 140, 300][random.below(3)];
        let offsets = ascending(&mut random, experts, most);
        let (n, k) = (1 + random.below(40), 1 + random.below(40));
        check_gradient(how, &offsets, (n, k), round as u32 * 2 + 1);
    }
}

#[test]
fn several_tasks_tiles_panels_and_blocks_of_k_have_the_bits_of_their_definition() {
    for isa in Isa::usable() {
        for (threads, promotion, transposed) in [(1, 128, false), (2, 32, true)] {
            let how = How {
                isa,
                threads,
                promotion,
                transposed,
                y: F32,
            };
            check_product(how, &[0, 75], (80, 610, 1101), 3);
            check_product(how, &[0, 0, 300, 333], (300, 70, 530), 5);
            check_gradient(how, &[0, 1200], (75, 130), 7);
            check_gradient(how, &[0, 130, 130, 700], (300, 40), 9);
        }
    }
}

#[test]
fn nothing_to_sum_gives_zeros_and_adds_nothing() {
    for isa in Isa::usable() {
        let how = How {
            isa,
            threads: 2,
            promotion: 128,
            transposed: false,
            y: F32,
        };
        check_product(how, &[0, 3], (4, 40, 0), 1);
        check_product(how, &[0, 0], (4, 40, 8), 1);
        check_gradient(how, &[0, 0], (5, 6), 1);
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
            bench.garbage(m * n, F32),
        ];
        bench.run("fp8Matmul", &operands, &[m, n, k, 0, 128, 0]).unwrap();
        for (at, y) in bench.get(operands[4], m * n).into_iter().enumerate() {
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
                bench.garbage(m * n, F32),
            ];
            bench
                .run("fp8Matmul", &operands, &[m, n, k, 0, promotion, 14])
                .unwrap();
            let y: Vec<u32> = bench
                .get(operands[4], m * n)
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
            bench.garbage(1, F32),
        ];
        bench.run("fp8Matmul", &operands, &[1, 1, 2, 0, 128, 14]).unwrap();
        assert_eq!(bench.get(operands[4], 1), [expected]);
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
        operands[4],
    ];
    let missing = bench.run("fp8GroupedMatmul", &grouped, &[1, 1, 1, 1, 0, 128, 0]);
    assert_eq!(missing.unwrap_err().param, Some("offsets"));
}
