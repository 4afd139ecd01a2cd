//! linearCrossEntropy: loss[t] = -log softmax(x[t] @ w^T)[target[t]], and its gradients in the same pass
//!
//! contract   tensor/ops/linearCrossEntropy.ts
//! layout     x, dx [T, D], dw [V, D] row-major; w packed, its transpose too; workspace [min(T, 512)][Vp + Dp] f32
//! dtype      arithmetic = dtype of the panels; x, dx f32 or bf16; logits and softmax f32; the gradient of the
//!            logits is rounded to bf16 where the panels are bf16; dw f32
//! limits     any V; target -1 is ignored: no loss, a zero row of dx, nothing in dw, even where x is NaN
//! tiling     dw adds sums over 512 tokens. By chunk (by_chunk.rs): 512 tokens with the full vocabulary, so that [T, V] never
//!            exists. In AMX registers (by_rows.rs): a task takes some 128 tokens from x to dx, its logits staying in the
//!            second cache
//! why so     by chunk, the three products are the GEMM's own; AMX multiplies so fast that logits which travel through
//!            the third cache cost more than their products. Ignored tokens are left out of all of them, so that masked
//!            prompts cost nothing
//! versions   v2 (this file); v1 had no rows path
//! measured   two threads, 2048 x 256 x 4096, bf16 in AMX registers: 10.4 ms where the registers' peak is 5,100 GFLOP/s, by chunk
//!            21.4 (examples/loss_bench.rs, docs/log/2026-11-22-loss-head.md)

use super::by_chunk;
#[cfg(target_arch = "x86_64")]
use super::by_rows;
use crate::args::{Args, Floats, FloatsMut, Operand};
use crate::error::KernelError;
use crate::gemm::Panels;
use crate::gemm::micro::PANEL;
use crate::ops::Ctx;

/// Tokens of one sum of dw; a constant of the format: dw adds chunk by chunk.
pub const CHUNK: usize = 512;

#[derive(Clone, Copy)]
pub struct Shape {
    pub d: usize,
    pub v: usize,
    pub grad_scale: f32,
}

impl Shape {
    /// Columns of logits, up to a whole panel.
    pub fn padded_v(&self) -> usize {
        self.v.next_multiple_of(PANEL)
    }

    pub fn padded_d(&self) -> usize {
        self.d.next_multiple_of(PANEL)
    }

    /// Floats from one row of logits to the next, where they lie in the workspace: an odd number of cache lines, because
    /// rows a power of two apart share cache sets.
    pub fn logits_stride(&self) -> usize {
        self.padded_v() + 16
    }
}

/// The operands of one call, outputs for all T tokens.
pub struct Job<'a> {
    pub x: Floats<'a>,
    pub panels: Panels<'a>,
    pub transposed: Option<Panels<'a>>,
    pub targets: &'a [i32],
    pub loss: &'a mut [f32],
    pub hits: &'a mut [i32],
    pub dx: Option<FloatsMut<'a>>,
    pub dw: Option<&'a mut [f32]>,
    pub workspace: &'a mut [f32],
    pub shape: Shape,
}

fn decode<'a>(a: &mut Args<'a>) -> Result<Job<'a>, KernelError> {
    let x = a.floats("x")?;
    let panels = a.floats("panels")?;
    let transposed = a.floats_optional("panelsT")?;
    let targets = a.i32s("targets")?;
    let loss = a.f32s("loss")?;
    let hits = a.i32s("hits")?;
    let dx = a.floats_optional("dx")?;
    let dw = a.f32s_optional("dw")?;
    let workspace = a.f32s("workspace")?;
    let (t, d, v) = (a.usize("T")?, a.usize("D")?, a.usize("V")?);
    let grad_scale = a.f32("gradScale")?;
    a.end()?;
    if dx.is_some() && transposed.is_none() {
        return Err(KernelError::new("panelsT", "is absent, dx needs it"));
    }
    let shape = Shape { d, v, grad_scale };
    Ok(Job {
        x: x.slice(t * d)?,
        panels: Panels::take(&panels, 1, v, d)?,
        transposed: transposed.map(|p| Panels::take(&p, 1, d, v)).transpose()?,
        targets: checked_targets(&targets, t, v)?,
        loss: loss.f32s_mut(t)?,
        hits: hits.i32s_mut(t)?,
        dx: dx.map(|dx| dx.slice_mut(t * d)).transpose()?,
        dw: dw.map(|dw| dw.f32s_mut(v * d)).transpose()?,
        workspace: workspace.f32s_mut(t.min(CHUNK) * (shape.padded_v() + shape.padded_d()))?,
        shape,
    })
}

fn checked_targets<'a>(targets: &Operand<'a>, t: usize, v: usize) -> Result<&'a [i32], KernelError> {
    let targets = targets.i32s(t)?;
    match targets.iter().position(|id| *id < -1 || *id >= v as i32) {
        None => Ok(targets),
        Some(at) => Err(KernelError::new(
            "targets",
            format!(
                "{} at token {at} is no token of a vocabulary of {v}, nor -1",
                targets[at]
            ),
        )),
    }
}

pub fn linear_cross_entropy(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let mut job = decode(a)?;
    #[cfg(target_arch = "x86_64")]
    if by_rows::suits(ctx, &job) {
        by_rows::run(ctx, &mut job);
        return Ok(());
    }
    by_chunk::run(ctx, &mut job);
    Ok(())
}

/// As `linear_cross_entropy`, always by chunk.
#[cfg(test)]
pub fn by_chunk_only(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    by_chunk::run(ctx, &mut decode(a)?);
    Ok(())
}
