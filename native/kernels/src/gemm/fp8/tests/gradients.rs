//! The gradients of weights, plain and grouped, against the definition; rows of scales that no tile owns are NaN.

use super::{How, Random, WORDS, sum};
use crate::gemm::tests::{Bench, F32};
use crate::pool::FloatMode;

pub(super) fn check_gradient(how: How, offsets: &[i32], (n, k): (usize, usize), seed: u32) {
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
