//! matmul: y [M, N] = x [M, K] @ w^T, plus an addend
//!
//! contract   tensor/ops (matmul), and every product inside other fused kernels
//! layout     x, addend, y row-major with a stride; w packed (see panels.rs)
//! dtype      arithmetic = dtype of the panels; x is rounded or widened to it; y and addend f32 or bf16
//! limits     M, N, K of any size; K = 0 gives zeros (plus the addend)
//! tiling     tasks of eight tiles of rows (96, or 256 in AMX registers) by a run of panels, drawn from one counter;
//!            a few rows are split along N
//! why so     a panel is read once a task, A lies packed in the second cache; no barrier inside the region
//! versions   v1 (this file)
//! measured   Sapphire Rapids, AVX-512, one thread, best of many on a busy machine (examples/gemm_bench), as a
//!            share of the f32 FMA peak of 140: bf16 96x512x512 117 GFLOP/s (83 %), 256x512x512 115, 96x1024x1024
//!            115; f32 96x512x512 127 (90 %); bf16 by `vdpbf16ps` alone cannot pass its own peak of 70 there. AMX, of
//!            a peak of 2,400: 256x512x512 1,260, 96x512x512 1,230, 2048x2048x1024 770 (docs/log/2026-11-22-amx.md)

use super::output::{Addend, Target};
use super::panels::Panels;
use super::plan::{self, Cut};
use super::product::{Part, Product, multiply};
use crate::args::{Args, Floats, FloatsMut, elements};
use crate::error::KernelError;
use crate::gemm::pack::Rows;
use crate::isa::Isa;
use crate::ops::Ctx;
use crate::pool::Scratch;

/// A row-major matrix inside a slice: row `i` begins at `i * stride`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub data: Floats<'a>,
    pub stride: usize,
}

impl<'a> Matrix<'a> {
    pub fn new(data: Floats<'a>, stride: usize) -> Matrix<'a> {
        Matrix { data, stride }
    }

    pub(super) fn rows(&self) -> Rows<'a> {
        Rows::Even {
            start: 0,
            stride: self.stride,
        }
    }
}

/// The whole product as one region: `y[i, j] = sum over k of x[i, k] * w[j, k]` for `rows` rows and the panels'
/// `n` columns, rows of y `y_stride` apart. The addend, if any, is laid out as y and may be y's own memory.
pub fn matmul(
    ctx: &Ctx,
    x: Matrix,
    rows: usize,
    panels: Panels,
    addend: Option<Floats>,
    y: FloatsMut,
    y_stride: usize,
) {
    assert!(
        addend.is_none_or(|addend| addend.len() >= rows.saturating_sub(1) * y_stride + panels.n),
        "an addend as large as y"
    );
    let product = Product {
        isa: ctx.isa,
        x: x.data,
        rows: x.rows(),
        panels,
        addend: Addend::new(addend),
        y: Target::new(y, y_stride),
    };
    let cut = Cut::of(ctx.isa, panels.arithmetic());
    let parts = plan::parts(cut, rows, panels.count(), panels.k, ctx.pool.threads());
    run(ctx, &product, &parts);
}

/// `matmul` inside a task of another kernel: the same bits by one thread, y with rows next to each other.
pub fn matmul_alone(isa: Isa, scratch: &mut Scratch, x: Matrix, rows: usize, panels: Panels, y: &mut [f32]) {
    assert!(y.len() >= rows * panels.n, "room for the product");
    let product = Product {
        isa,
        x: x.data,
        rows: x.rows(),
        panels,
        addend: Addend::new(None),
        y: Target::new(FloatsMut::F32(y), panels.n),
    };
    let whole = Part {
        row: 0,
        rows,
        panel: 0,
        panels: panels.count(),
    };
    // SAFETY: y is this caller's alone.
    unsafe { multiply(&product, whole, scratch) };
}

fn run(ctx: &Ctx, product: &Product, parts: &[Part]) {
    ctx.pool.run(parts.len(), &|i, scratch| {
        // SAFETY: parts are disjoint.
        unsafe { multiply(product, parts[i], scratch) };
    });
}

/// The op: x, panels, addend?, y; M, N, K.
pub fn op(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let x = a.floats("x")?;
    let panels = a.floats("panels")?;
    let addend = a.floats_optional("addend")?;
    let y = a.floats("y")?;
    let (m, n, k) = (a.usize("M")?, a.usize("N")?, a.usize("K")?);
    a.end()?;
    let x = Matrix::new(x.slice(elements(&[m, k])?)?, k);
    let panels = Panels::take(&panels, 1, n, k)?;
    let outputs = elements(&[m, n])?;
    let addend = addend.map(|addend| addend.slice(outputs)).transpose()?;
    if outputs > 0 {
        matmul(ctx, x, m, panels, addend, y.slice_mut(outputs)?, n);
    }
    Ok(())
}
