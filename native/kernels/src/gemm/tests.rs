//! The GEMM family against f64 loops, against itself on other instruction sets, threads and batches.

use crate::args::{Args, Ledger, Memory};
use crate::bf16;
use crate::error::KernelError;
use crate::gemm::OPS;
use crate::isa::Isa;
use crate::ops::Ctx;
use crate::pool::Pool;

const F32: f64 = 0.0;
const BF16: f64 = 1.0;
const I32: f64 = 3.0;

/// A little arena whose every byte is a NaN until something is placed, so that reading padding shows.
struct Bench {
    bytes: Vec<u64>,
    used: usize,
    isa: Isa,
    pool: Pool,
}

impl Bench {
    fn new(isa: Isa, threads: usize) -> Bench {
        Bench {
            bytes: vec![u64::MAX; 4 << 20],
            used: 0,
            isa,
            pool: Pool::new(threads),
        }
    }

    fn base(&self) -> usize {
        (self.bytes.as_ptr() as usize).next_multiple_of(64)
    }

    /// Reserves room and a NaN gap behind it.
    fn room(&mut self, bytes: usize) -> f64 {
        let address = self.used;
        self.used = (address + bytes + 64).next_multiple_of(64);
        assert!(self.used + 64 <= self.bytes.len() * 8);
        address as f64
    }

    fn put(&mut self, values: &[f32], dtype: f64) -> [f64; 2] {
        let size = if dtype == BF16 { 2 } else { 4 };
        let address = self.room(values.len() * size);
        let start = (self.base() + address as usize) as *mut u8;
        for (i, value) in values.iter().enumerate() {
            // SAFETY: `room` reserved it.
            unsafe {
                if dtype == BF16 {
                    start.cast::<u16>().add(i).write(bf16::from_f32(*value));
                } else {
                    start.cast::<f32>().add(i).write(*value);
                }
            }
        }
        [address, dtype]
    }

    fn put_i32(&mut self, values: &[i32]) -> [f64; 2] {
        let address = self.room(values.len() * 4);
        let start = (self.base() + address as usize) as *mut i32;
        for (i, value) in values.iter().enumerate() {
            // SAFETY: `room` reserved it.
            unsafe { start.add(i).write(*value) };
        }
        [address, I32]
    }

    fn garbage(&mut self, len: usize, dtype: f64) -> [f64; 2] {
        [self.room(len * 4), dtype]
    }

    fn get(&self, operand: [f64; 2], len: usize) -> Vec<f32> {
        let start = (self.base() + operand[0] as usize) as *const u8;
        (0..len)
            .map(|i| unsafe {
                if operand[1] == BF16 {
                    bf16::to_f32(*start.cast::<u16>().add(i))
                } else {
                    *start.cast::<f32>().add(i)
                }
            })
            .collect()
    }

    fn run(&self, name: &str, operands: &[[f64; 2]], numbers: &[usize]) -> Result<(), KernelError> {
        let words: Vec<f64> = operands
            .iter()
            .flatten()
            .copied()
            .chain(numbers.iter().map(|n| *n as f64))
            .collect();
        let (_, kernel) = OPS.iter().find(|(op, _)| *op == name).expect(name);
        let ctx = Ctx {
            pool: &self.pool,
            isa: self.isa,
        };
        // SAFETY: the bytes are ours, and only the kernel touches them while it runs.
        let memory = unsafe { Memory::from_raw(self.base() as *mut u8, self.bytes.len() * 8 - 64) };
        kernel(&ctx, &mut Args::new(&memory, &words, &Ledger::default()))
    }

    fn packed(&mut self, w: &[f32], (b, n, k): (usize, usize, usize), dtype: f64) -> [f64; 2] {
        let master = self.put(w, F32);
        let panels = self.garbage(b * super::panels_len(n, k), dtype);
        self.run("packWeight", &[master, panels, ABSENT], &[b, n, k])
            .unwrap();
        panels
    }
}

const ABSENT: [f64; 2] = [-1.0, 0.0];

fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn stored(x: &[f32], dtype: f64) -> Vec<f32> {
    x.iter()
        .map(|v| if dtype == BF16 { bf16::round(*v) } else { *v })
        .collect()
}

/// y = x @ w^T in f64.
fn product_f64(x: &[f32], w: &[f32], (m, n, k): (usize, usize, usize)) -> Vec<f64> {
    let mut y = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            y[i * n + j] = (0..k).map(|c| x[i * k + c] as f64 * w[j * k + c] as f64).sum();
        }
    }
    y
}

fn assert_near(actual: &[f32], exact: &[f64], tolerance: f64, what: &str) {
    assert_eq!(actual.len(), exact.len());
    let scale = exact.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-30);
    let error = actual
        .iter()
        .zip(exact)
        .map(|(a, e)| (*a as f64 - e).powi(2))
        .sum::<f64>()
        .sqrt();
    assert!(
        error / scale < tolerance,
        "{what}: relative error {:e}",
        error / scale
    );
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// matmul of given storage, on given hardware; returns y and the stored operands.
fn matmul(
    isa: Isa,
    threads: usize,
    (m, n, k): (usize, usize, usize),
    [x_dtype, panel_dtype, y_dtype]: [f64; 3],
    x: &[f32],
) -> Vec<f32> {
    let mut bench = Bench::new(isa, threads);
    let w = noise(n * k, 2);
    let x = bench.put(x, x_dtype);
    let panels = bench.packed(&w, (1, n, k), panel_dtype);
    let y = bench.garbage(m * n, y_dtype);
    bench.run("matmul", &[x, panels, ABSENT, y], &[m, n, k]).unwrap();
    bench.get(y, m * n)
}

const SHAPES: [(usize, usize, usize); 9] = [
    (1, 1, 1),
    (1, 130, 33),
    (2, 257, 64),
    (5, 31, 7),
    (12, 32, 16),
    (13, 33, 17),
    (30, 96, 127),
    (97, 65, 40),
    (200, 40, 300),
];

#[test]
fn products_equal_f64_loops_for_ragged_shapes_and_every_storage() {
    for shape in SHAPES {
        let (m, n, k) = shape;
        let (x, w) = (noise(m * k, 1), noise(n * k, 2));
        for dtypes in [
            [F32, F32, F32],
            [BF16, F32, F32],
            [F32, BF16, F32],
            [BF16, BF16, BF16],
        ] {
            let y = matmul(Isa::detect(), 2, shape, dtypes, &x);
            let operand = if dtypes[1] == BF16 { BF16 } else { dtypes[0] };
            let exact = product_f64(&stored(&x, operand), &stored(&w, dtypes[1]), shape);
            let tolerance = if dtypes[2] == BF16 { 4e-3 } else { 1e-6 };
            assert_near(&y, &exact, tolerance, &format!("{shape:?} {dtypes:?}"));
        }
    }
}

#[test]
fn every_instruction_set_and_number_of_threads_gives_the_same_bits() {
    for shape in SHAPES {
        let (m, _, k) = shape;
        let x = noise(m * k, 1);
        for dtypes in [[F32, F32, F32], [F32, BF16, F32], [BF16, BF16, F32]] {
            let expected = bits(&matmul(Isa::Portable, 1, shape, dtypes, &x));
            for isa in Isa::of_one_class() {
                for threads in [1, 2, 3] {
                    let y = bits(&matmul(isa, threads, shape, dtypes, &x));
                    assert!(y == expected, "{shape:?} {dtypes:?} {isa} with {threads} threads");
                }
            }
        }
    }
}

#[test]
fn amx_gives_the_same_bits_for_any_number_of_threads() {
    if !Isa::Amx.available() {
        return;
    }
    for shape in SHAPES {
        let (m, n, k) = shape;
        let x = noise(m * k, 1);
        let once = bits(&matmul(Isa::Amx, 1, shape, [BF16, BF16, F32], &x));
        let start = noise(n * k, 7);
        let grad = bits(&grad_weight(Isa::Amx, 1, shape, BF16, 1, &start));
        for threads in [2, 3] {
            assert!(
                bits(&matmul(Isa::Amx, threads, shape, [BF16, BF16, F32], &x)) == once,
                "{shape:?}"
            );
            assert!(
                bits(&grad_weight(Isa::Amx, threads, shape, BF16, 1, &start)) == grad,
                "{shape:?}"
            );
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_in_seven_and_in_517() {
    let (n, k) = (200, 301);
    let x = noise(517 * k, 1);
    for dtypes in [[F32, F32, F32], [BF16, BF16, F32]] {
        for isa in [Isa::detect(), Isa::force(Isa::Avx2).unwrap_or(Isa::Portable)] {
            let all = bits(&matmul(isa, 2, (517, n, k), dtypes, &x));
            let seven = bits(&matmul(isa, 2, (7, n, k), dtypes, &x[..7 * k]));
            assert!(seven == all[..7 * n]);
            for row in [0, 6, 100, 516] {
                let one = bits(&matmul(isa, 2, (1, n, k), dtypes, &x[row * k..(row + 1) * k]));
                assert!(one == all[row * n..(row + 1) * n], "row {row}, {isa}");
            }
        }
    }
}

#[test]
fn the_order_is_one_chain_of_fma_with_the_odd_element_of_a_bf16_pair_first() {
    let (m, n, k) = (3, 5, 11);
    let (x, w) = (stored(&noise(m * k, 1), BF16), stored(&noise(n * k, 2), BF16));
    let plain = matmul(Isa::of_one_class()[0], 1, (m, n, k), [F32, F32, F32], &x);
    let pairs = matmul(Isa::of_one_class()[0], 1, (m, n, k), [F32, BF16, F32], &x);
    let w_f32 = noise(n * k, 2);
    for i in 0..m {
        for j in 0..n {
            let ascending = (0..k).fold(0.0f32, |sum, c| x[i * k + c].mul_add(w_f32[j * k + c], sum));
            assert_eq!(plain[i * n + j].to_bits(), ascending.to_bits());
            let at = |c: usize| {
                if c < k {
                    (x[i * k + c], w[j * k + c])
                } else {
                    (0.0, 0.0)
                }
            };
            let swapped = (0..k.div_ceil(2)).fold(0.0f32, |sum, p| {
                let (odd, even) = (at(2 * p + 1), at(2 * p));
                even.0.mul_add(even.1, odd.0.mul_add(odd.1, sum))
            });
            assert_eq!(pairs[i * n + j].to_bits(), swapped.to_bits());
        }
    }
}

#[test]
fn an_addend_is_added_once_after_the_chain_and_may_be_the_output_itself() {
    let (m, n, k) = (29, 70, 50);
    let x = noise(m * k, 1);
    let plain = matmul(Isa::detect(), 2, (m, n, k), [F32, BF16, F32], &x);
    let addend = noise(m * n, 3);
    let mut bench = Bench::new(Isa::detect(), 2);
    let x = bench.put(&x, F32);
    let panels = bench.packed(&noise(n * k, 2), (1, n, k), BF16);
    let expected: Vec<f32> = plain.iter().zip(&addend).map(|(p, a)| p + a).collect();
    let apart = bench.put(&addend, F32);
    let y = bench.garbage(m * n, F32);
    bench.run("matmul", &[x, panels, apart, y], &[m, n, k]).unwrap();
    assert_eq!(bits(&bench.get(y, m * n)), bits(&expected));
    bench
        .run("matmul", &[x, panels, apart, apart], &[m, n, k])
        .unwrap();
    assert_eq!(bits(&bench.get(apart, m * n)), bits(&expected));
    let rounded = bench.put(&addend, BF16);
    let y = bench.garbage(m * n, BF16);
    bench.run("matmul", &[x, panels, rounded, y], &[m, n, k]).unwrap();
    let expected: Vec<f32> = plain
        .iter()
        .zip(stored(&addend, BF16))
        .map(|(p, a)| bf16::round(p + a))
        .collect();
    assert_eq!(bits(&bench.get(y, m * n)), bits(&expected));
}

#[test]
fn empty_products_are_legal_and_an_empty_k_gives_zeros() {
    let mut bench = Bench::new(Isa::detect(), 2);
    let x = bench.put(&[], F32);
    let panels = bench.packed(&[], (1, 40, 0), BF16);
    let y = bench.garbage(3 * 40, F32);
    bench.run("matmul", &[x, panels, ABSENT, y], &[3, 40, 0]).unwrap();
    assert_eq!(bench.get(y, 120), vec![0.0; 120]);
    bench.run("matmul", &[x, panels, ABSENT, y], &[0, 40, 0]).unwrap();
    let wrong = bench.run("matmul", &[x, panels, ABSENT, y], &[1 << 40, 40, 3]);
    assert_eq!(wrong.unwrap_err().param, Some("x"));
}

#[test]
fn panels_hold_each_weight_once_in_pairs_along_k_and_zeros_elsewhere() {
    for (b, n, k) in [(1, 5, 3), (2, 33, 7), (3, 64, 64)] {
        let w = stored(&noise(b * n * k, 4), BF16);
        let at = |panel: usize, c: usize, j: usize, n: usize, k: usize, e: usize, transposed: bool| {
            let (output, stride) = (panel * 32 + c, if transposed { (1, n) } else { (k, 1) });
            if output < n && j < k {
                w[e * n * k + output * stride.0 + j * stride.1]
            } else {
                0.0
            }
        };
        for dtype in [F32, BF16] {
            let together = if dtype == BF16 { 2 } else { 1 };
            let mut bench = Bench::new(Isa::detect(), 2);
            let master = bench.put(&w, F32);
            let (len, len_t) = (super::panels_len(n, k), super::panels_len(k, n));
            let panels = bench.garbage(b * len, dtype);
            let panels_t = bench.garbage(b * len_t, dtype);
            bench
                .run("packWeight", &[master, panels, panels_t], &[b, n, k])
                .unwrap();
            for (operand, n, k, transposed) in [(panels, n, k, false), (panels_t, k, n, true)] {
                let mut expected = Vec::new();
                for e in 0..b {
                    for panel in 0..n.div_ceil(32) {
                        for j0 in (0..k.next_multiple_of(2)).step_by(together) {
                            for c in 0..32 {
                                for j in j0..j0 + together {
                                    expected.push(at(panel, c, j, n, k, e, transposed));
                                }
                            }
                        }
                    }
                }
                assert_eq!(
                    bench.get(operand, expected.len()),
                    expected,
                    "{b} {n} {k} {dtype} {transposed}"
                );
            }
        }
    }
}

fn grad_weight(
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
    let (n, k) = (20, 45);
    let (dy, x) = (noise(160 * n, 10), noise(TOKENS * k, 8));
    let start = noise(EXPERTS * n * k, 11);
    let mut exact: Vec<f64> = start.iter().map(|v| *v as f64).collect();
    for expert in 0..EXPERTS {
        for r in OFFSETS[expert] as usize..OFFSETS[expert + 1] as usize {
            let token = token_rows()[r] as usize;
            for i in 0..n {
                for j in 0..k {
                    exact[(expert * n + i) * k + j] += dy[r * n + i] as f64 * x[token * k + j] as f64;
                }
            }
        }
    }
    let mut seen = None;
    for (isa, threads) in Isa::of_one_class()
        .into_iter()
        .flat_map(|isa| [(isa, 1), (isa, 2)])
    {
        let mut bench = Bench::new(isa, threads);
        let dy = bench.put(&dy, F32);
        let x = bench.put(&x, F32);
        let rows = bench.put_i32(&token_rows());
        let offsets = bench.put_i32(&OFFSETS);
        let dw = bench.put(&start, F32);
        let operands = [dy, x, rows, offsets, dw];
        bench
            .run("groupedMatmulGradWeight", &operands, &[160, n, k, EXPERTS, 0])
            .unwrap();
        let dw = bench.get(dw, EXPERTS * n * k);
        assert_near(&dw, &exact, 1e-6, isa.name());
        assert_eq!(bits(&dw[..n * k]), bits(&start[..n * k]), "expert 0 has no row");
        assert!(*seen.get_or_insert(bits(&dw)) == bits(&dw), "{isa} {threads}");
    }
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
    let short = bench.put_i32(&[0, 2, 3]);
    let param = |rows, offsets| {
        bench
            .run("groupedMatmul", &[x, rows, offsets, panels, y], &[4, 4, 2, 2])
            .unwrap_err()
            .param
    };
    assert_eq!(param(bad_rows, good), Some("rows"));
    assert_eq!(param(far_rows, good), Some("x"));
    assert_eq!(param(ABSENT, descending), Some("offsets"));
    assert_eq!(param(ABSENT, short), Some("offsets"));
}

/// kernels.md 8.3 in small: the instruction is two FMAs, odd first, denormals as zero on both sides.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_bf16_instruction_is_two_fmas_odd_element_first_with_denormals_flushed() {
    if !Isa::Avx512Bf16.available() {
        println!("this processor has no AVX512-BF16: nothing to compare");
        return;
    }
    let _flush = crate::pool::FloatMode::enter();
    let mut state = 0x1234_5678_9abc_def0u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut different = 0u64;
    for round in 0..(10_000_000 / 16) {
        let (mut a, mut b, mut c) = ([0u32; 16], [0u32; 16], [0f32; 16]);
        for lane in 0..16 {
            let (r, s) = (next(), next());
            (a[lane], b[lane], c[lane]) = (r as u32, s as u32, f32::from_bits((r >> 32) as u32));
            if round % 2 == 0 {
                // Half of the cases: exponents near 1, so that the sums cancel and round in earnest.
                let near_one = |w: u32| (w & 0x83ff_83ff) | 0x3c00_3c00;
                (a[lane], b[lane]) = (near_one(a[lane]), near_one(b[lane]));
                c[lane] = f32::from_bits((c[lane].to_bits() & 0x83ff_ffff) | 0x3c00_0000);
            }
        }
        // SAFETY: available, see above.
        let dots = unsafe { dot_pairs(&a, &b, &c) };
        for lane in 0..16 {
            let half = |w: u32, odd: bool| f32::from_bits(if odd { w & 0xffff_0000 } else { w << 16 });
            let first = half(a[lane], true).mul_add(half(b[lane], true), c[lane]);
            let both = half(a[lane], false).mul_add(half(b[lane], false), first);
            let same = dots[lane].to_bits() == both.to_bits() || (dots[lane].is_nan() && both.is_nan());
            different += !same as u64;
        }
    }
    assert_eq!(different, 0, "cases that differ");
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn dot_pairs(a: &[u32; 16], b: &[u32; 16], c: &[f32; 16]) -> [f32; 16] {
    use std::arch::x86_64::*;
    let mut out = [0.0; 16];
    // SAFETY: sixteen words each; the bf16 vector is the same 64 bytes.
    unsafe {
        let a = std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(a.as_ptr().cast()));
        let b = std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(b.as_ptr().cast()));
        _mm512_storeu_ps(
            out.as_mut_ptr(),
            _mm512_dpbf16_ps(_mm512_loadu_ps(c.as_ptr()), a, b),
        );
    }
    out
}
