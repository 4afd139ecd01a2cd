//! Products, their order of sums and their panels.

use super::*;
use crate::args::{Floats, FloatsMut};
use crate::gemm::{Matrix, Panels};

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

fn has_amx() -> bool {
    let has = Isa::Amx.available();
    if !has {
        println!("this processor has no AMX, or the system does not grant it: nothing to compare");
    }
    has
}

/// Several tiles of rows with a rest, two groups of waiting panels with a rest, three blocks of k with a rest.
const BLOCKED: (usize, usize, usize) = (75, 530, 1101);

/// What `tdpbf16ps` gives for one element, and what `tiles` must keep across blocks, tiles and panels.
fn by_amx_order(x: &[f32], w: &[f32]) -> f32 {
    let mut sum = 0.0f32;
    for (x, w) in x.chunks(32).zip(w.chunks(32)) {
        let chain = |first: usize| {
            let terms = x.iter().zip(w).skip(first).step_by(2);
            terms.fold(0.0f32, |chain, (x, w)| x.mul_add(*w, chain))
        };
        sum += chain(0) + chain(1);
    }
    sum
}

#[test]
fn amx_products_have_the_bits_of_their_order_in_every_tile_panel_and_block() {
    if !has_amx() {
        return;
    }
    let (_, n, _) = BLOCKED;
    for (m, k) in [(75, 1101), (75, 512), (75, 513), (33, 1024), (300, 90)] {
        let (x, w) = (noise(m * k, 1), noise(n * k, 2));
        let (xs, ws) = (stored(&x, BF16), stored(&w, BF16));
        let expected: Vec<u32> = (0..m * n)
            .map(|at| by_amx_order(&xs[at / n * k..][..k], &ws[at % n * k..][..k]).to_bits())
            .collect();
        for dtypes in [[F32, BF16, F32], [BF16, BF16, F32]] {
            for threads in [1, 2] {
                let y = bits(&matmul(Isa::Amx, threads, (m, n, k), dtypes, &x));
                assert!(y == expected, "{m} rows, K {k}, {dtypes:?}, {threads} threads");
            }
        }
    }
}

#[test]
fn amx_gives_the_same_bits_for_any_number_of_threads() {
    if !has_amx() {
        return;
    }
    for shape in SHAPES.into_iter().chain([BLOCKED]) {
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
    // K = 700: sums wait in memory for the second block of AMX products.
    let (n, k) = (200, 700);
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
    for (addend_dtype, y_dtype) in [(BF16, BF16), (BF16, F32), (F32, BF16)] {
        let operand = bench.put(&addend, addend_dtype);
        let y = bench.garbage(m * n, y_dtype);
        bench.run("matmul", &[x, panels, operand, y], &[m, n, k]).unwrap();
        let sums: Vec<f32> = plain
            .iter()
            .zip(stored(&addend, addend_dtype))
            .map(|(p, a)| p + a)
            .collect();
        assert_eq!(bits(&bench.get(y, m * n)), bits(&stored(&sums, y_dtype)));
    }
}

#[test]
#[should_panic(expected = "an addend as large as y")]
fn an_addend_that_is_too_short_is_refused_before_it_is_read() {
    let (x, w, short) = (
        noise(3 * 4, 1),
        vec![0.0f32; super::super::panels_len(5, 4)],
        [0.0f32; 14],
    );
    let panels = Panels {
        data: Floats::F32(&w),
        n: 5,
        k: 4,
    };
    let pool = Pool::new(1);
    let ctx = Ctx::new(&pool, Isa::detect());
    let x = Matrix::new(Floats::F32(&x), 4);
    let addend = Some(Floats::F32(&short));
    crate::gemm::matmul(&ctx, x, 3, panels, addend, FloatsMut::F32(&mut [0.0; 15]), 5);
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
            let (len, len_t) = (super::super::panels_len(n, k), super::super::panels_len(k, n));
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
