//! FP8 products beside bf16 products of the same shape.

use minke_kernels::gemm::panel_len;

use crate::operands::{ABSENT, Arena, BF16, F8, F32};
use crate::race::{Course, duel};

pub fn bench_fp8(course: &Course, (m, n, k): (usize, usize, usize)) {
    let (tiles, blocks, panels) = (k.div_ceil(128), n.div_ceil(128), n.div_ceil(32) * panel_len(k));
    let mut arena = Arena::small_numbers(4 * (m * k + panels + m * n + m * tiles + blocks * tiles) + 1024);
    let (x, x8, x_scales) = (
        arena.place(m * k, BF16),
        arena.place(m * k, F8),
        arena.place(m * tiles, F32),
    );
    let (w, w8, w_scales) = (
        arena.place(panels, BF16),
        arena.place(panels, F8),
        arena.place(blocks * tiles, F32),
    );
    let y = arena.place(m * n, BF16);
    let flops = 2.0 * (m * n * k) as f64;
    for promotion in [128, 16] {
        duel(
            course,
            &format!("fp8 {m}x{n}x{k}, every {promotion}"),
            flops,
            || arena.run(&course.ctx, "matmul", &[x, w, ABSENT, y], &[m, n, k]),
            || {
                let operands = [x8, x_scales, w8, w_scales, ABSENT, y];
                arena.run(&course.ctx, "fp8Matmul", &operands, &[m, n, k, 0, promotion, 0]);
            },
        );
    }
}

pub fn bench_fp8_grad(course: &Course, (t, n, k): (usize, usize, usize)) {
    let tiles = t.div_ceil(128);
    let mut arena = Arena::small_numbers(4 * (t * (n + k) + n * k + tiles * (n + k)) + 1024);
    let (dy, dy8, dy_scales) = (
        arena.place(t * n, BF16),
        arena.place(t * n, F8),
        arena.place(tiles * n, F32),
    );
    let (x, x8, x_scales) = (
        arena.place(t * k, BF16),
        arena.place(t * k, F8),
        arena.place(tiles * k, F32),
    );
    let dw = arena.place(n * k, F32);
    duel(
        course,
        &format!("fp8 grad {n}x{k}, {t} tokens"),
        2.0 * (t * n * k) as f64,
        || arena.run(&course.ctx, "matmulGradWeight", &[dy, x, dw], &[t, n, k, 1]),
        || {
            let operands = [dy8, dy_scales, x8, x_scales, dw];
            arena.run(&course.ctx, "fp8GradWeight", &operands, &[t, n, k, 128, 0]);
        },
    );
}
