//! Products in bf16 and f32 beside the peak probe: matmul, the gradient of its weights, and experts' products.

use minke_kernels::args::{Floats, FloatsMut};
use minke_kernels::gemm::{
    Arithmetic, Matrix, Panels, matmul, matmul_grad_weight, pack_panel, panel_len, panels,
    panels::PanelElement,
};
use minke_kernels::peak::Kind;

use crate::operands::{Arena, BF16, aligned, noise, to_bf16};
use crate::race::{Course, race, report};

pub fn bench_matmul(course: &Course, shape: (usize, usize, usize), kind: Kind) {
    let (m, n, k) = shape;
    let (x, w) = (noise(m * k), noise(n * k));
    let name = format!("matmul {kind:?} {m}x{n}x{k}");
    let result = match kind {
        Kind::Bf16 => race_matmul(
            course,
            shape,
            kind,
            &to_bf16(&x),
            &w,
            |x| Floats::Bf16(x),
            |y| FloatsMut::Bf16(y),
        ),
        Kind::F32 => race_matmul(
            course,
            shape,
            kind,
            &x,
            &w,
            |x| Floats::F32(x),
            |y| FloatsMut::F32(y),
        ),
    };
    report(&name, &course.ctx, result);
}

fn race_matmul<T: PanelElement>(
    course: &Course,
    (m, n, k): (usize, usize, usize),
    kind: Kind,
    x: &[T],
    w: &[f32],
    read: fn(&[T]) -> Floats,
    write: fn(&mut [T]) -> FloatsMut,
) -> (f64, f64) {
    let (ctx, count) = (&course.ctx, n.div_ceil(32));
    let (mut packed, start) = aligned(&vec![T::default(); count * panel_len(k)]);
    for (p, out) in packed[start..].chunks_mut(panel_len(k)).take(count).enumerate() {
        pack_panel(ctx.isa, w, panels::Strides::plain(k), n, k, p, out);
    }
    let (x, x_start) = aligned(x);
    let (mut y, y_start) = aligned(&vec![T::default(); m * n]);
    race(course, 2.0 * (m * n * k) as f64, kind, || {
        let data = read(&packed[start..]);
        let x = Matrix::new(read(&x[x_start..]), k);
        matmul(
            ctx,
            x,
            m,
            Panels { data, n, k },
            None,
            write(&mut y[y_start..]),
            n,
        );
    })
}

pub fn bench_grad(course: &Course, (t, n, k): (usize, usize, usize), kind: Kind) {
    let (dy, x) = (noise(t * n), noise(t * k));
    let (narrow_dy, dy_at) = aligned(&to_bf16(&dy));
    let (narrow_x, x_at) = aligned(&to_bf16(&x));
    let ((wide_dy, wide_dy_at), (wide_x, wide_x_at)) = (aligned(&dy), aligned(&x));
    let (mut dw, dw_start) = aligned(&vec![0f32; n * k]);
    let flops = 2.0 * (t * n * k) as f64;
    let ctx = &course.ctx;
    let (dy, x, arithmetic) = match kind {
        Kind::Bf16 => (
            Floats::Bf16(&narrow_dy[dy_at..]),
            Floats::Bf16(&narrow_x[x_at..]),
            Arithmetic::Bf16,
        ),
        Kind::F32 => (
            Floats::F32(&wide_dy[wide_dy_at..]),
            Floats::F32(&wide_x[wide_x_at..]),
            Arithmetic::F32,
        ),
    };
    let result = race(course, flops, kind, || {
        let (dy, x) = (Matrix::new(dy, n), Matrix::new(x, k));
        matmul_grad_weight(ctx, arithmetic, dy, x, (t, n, k), &mut dw[dw_start..]);
    });
    report(&format!("gradWeight {kind:?} {n}x{k} over {t}"), ctx, result);
}

/// groupedMatmul as the op table runs it: `tokens` with `top` experts each of `experts`.
pub fn bench_grouped(course: &Course, (tokens, top, experts): (usize, usize, usize), (n, k): (usize, usize)) {
    let r = tokens * top;
    let panels = experts * n.next_multiple_of(32) * k;
    let mut arena = Arena::zeros(2 * (tokens * k + panels + r * n) + 4 * (r + experts + 1) + 1024);
    let x = arena.place(tokens * k, BF16);
    let rows = arena.put_i32((0..r).map(|i| (i * 13) % tokens));
    let offsets = arena.put_i32((0..experts + 1).map(|e| e * r / experts));
    let (w, y) = (arena.place(panels, BF16), arena.place(r * n, BF16));
    let flops = 2.0 * (r * n * k) as f64;
    let ctx = &course.ctx;
    let result = race(course, flops, Kind::Bf16, || {
        arena.run(
            ctx,
            "groupedMatmul",
            &[x, rows, offsets, w, y],
            &[r, n, k, experts],
        );
    });
    report(
        &format!("grouped {experts} experts x {} x {n} x {k}", r / experts),
        ctx,
        result,
    );
}
