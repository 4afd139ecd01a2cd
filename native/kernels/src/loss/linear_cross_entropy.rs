//! linearCrossEntropy: loss[t] = -log softmax(x[t] @ w^T)[target[t]], and its gradients in the same pass
//!
//! contract   tensor/ops/linearCrossEntropy.ts
//! layout     x, dx [T, D], dw [V, D] row-major; w packed, its transpose too; workspace [min(T, 512)][Vp] f32
//! dtype      arithmetic = dtype of the panels; x, dx f32 or bf16; logits and softmax f32; the gradient of the
//!            logits is rounded to bf16 where the panels are bf16; dw f32
//! limits     any V; target -1 is ignored: no loss, a zero row of dx, nothing in dw, even where x is NaN
//! tiling     512 tokens a chunk with the full vocabulary, so that [T, V] never exists; each chunk is one product
//!            for logits, one region of softmax rows (in place), one product for dx, one gradient for dw
//! why so     the three products are the GEMM's own; a chunk's ignored tokens are left out of all of them, so that
//!            masked prompts cost nothing; bf16 gradients of logits overwrite half of their own row, which saves
//!            the two products half of the reading
//! versions   v1 (this file)

use super::softmax::{RowLoss, row_loss, row_loss_and_gradient};
use crate::args::{Args, Floats, FloatsMut, Operand};
use crate::by_isa;
use crate::error::KernelError;
use crate::gemm::{Arithmetic, Matrix, Panels, matmul, matmul_grad_weight};
use crate::ops::Ctx;
use crate::pool::Disjoint;

/// Tokens whose logits exist at once; a constant of the format: dw adds chunk by chunk.
pub(super) const CHUNK: usize = 512;
/// Softmax rows per task, at the least this many logits: about 10 us.
const TASK_LOGITS: usize = 32_768;

struct Shape {
    d: usize,
    v: usize,
    /// Floats from one row of logits to the next.
    stride: usize,
    grad_scale: f32,
}

/// The operands of one call, outputs for all T tokens.
struct Job<'a> {
    x: Floats<'a>,
    panels: Panels<'a>,
    transposed: Option<Panels<'a>>,
    targets: &'a [i32],
    loss: &'a mut [f32],
    hits: &'a mut [i32],
    dx: Option<FloatsMut<'a>>,
    dw: Option<&'a mut [f32]>,
    workspace: &'a mut [f32],
    shape: Shape,
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
    let stride = v.next_multiple_of(32);
    Ok(Job {
        x: x.slice(t * d)?,
        panels: Panels::take(&panels, 1, v, d)?,
        transposed: transposed.map(|p| Panels::take(&p, 1, d, v)).transpose()?,
        targets: checked_targets(&targets, t, v)?,
        loss: loss.f32s_mut(t)?,
        hits: hits.i32s_mut(t)?,
        dx: dx.map(|dx| dx.slice_mut(t * d)).transpose()?,
        dw: dw.map(|dw| dw.f32s_mut(v * d)).transpose()?,
        workspace: workspace.f32s_mut(t.min(CHUNK) * stride)?,
        shape: Shape {
            d,
            v,
            stride,
            grad_scale,
        },
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
    let tokens = job.targets.len();
    let mut gathered = Gathered::default();
    for start in (0..tokens).step_by(CHUNK) {
        run_chunk(ctx, &mut job, start, CHUNK.min(tokens - start), &mut gathered);
    }
    Ok(())
}

/// Rows of x that count, one after another, where a chunk has some that do not.
#[derive(Default)]
struct Gathered {
    f32s: Vec<f32>,
    bf16s: Vec<u16>,
}

impl Gathered {
    fn rows<'a>(&'a mut self, x: Floats<'a>, rows: &[usize], d: usize) -> Floats<'a> {
        fn copy<'a, T: Copy>(into: &'a mut Vec<T>, x: &[T], rows: &[usize], d: usize) -> &'a [T] {
            into.clear();
            for row in rows {
                into.extend_from_slice(&x[row * d..(row + 1) * d]);
            }
            into
        }
        match x {
            Floats::F32(x) => Floats::F32(copy(&mut self.f32s, x, rows, d)),
            Floats::Bf16(x) => Floats::Bf16(copy(&mut self.bf16s, x, rows, d)),
        }
    }
}

fn run_chunk(ctx: &Ctx, job: &mut Job, start: usize, len: usize, gathered: &mut Gathered) {
    let Shape { d, v, stride, .. } = job.shape;
    job.loss[start..start + len].fill(0.0);
    job.hits[start..start + len].fill(0);
    let counted: Vec<usize> = (start..start + len).filter(|t| job.targets[*t] >= 0).collect();
    let rows = counted.len();
    if rows > 0 {
        let x = match rows == len {
            true => job.x.range(start * d, len * d),
            false => gathered.rows(job.x, &counted, d),
        };
        let x = Matrix::new(x, d);
        let logits = FloatsMut::F32(&mut job.workspace[..rows * stride]);
        matmul(ctx, x, rows, job.panels, None, logits, stride);
        softmax_rows(ctx, job, &counted);
        let dlogits = gradient_of_logits(&job.workspace[..rows * stride], job.panels.arithmetic(), stride);
        if let (Some(dx), Some(transposed)) = (&mut job.dx, job.transposed) {
            matmul(
                ctx,
                dlogits,
                rows,
                transposed,
                None,
                part(dx, start * d, rows * d),
                d,
            );
        }
        if let Some(dw) = &mut job.dw {
            matmul_grad_weight(ctx, job.panels.arithmetic(), dlogits, x, (rows, v, d), dw);
        }
    }
    if let Some(dx) = &mut job.dx
        && rows < len
    {
        match part(dx, start * d, len * d) {
            FloatsMut::F32(dx) => spread(dx, &counted, start, d),
            FloatsMut::Bf16(dx) => spread(dx, &counted, start, d),
        }
    }
}

/// Losses and hits of the chunk's counted tokens; if gradients are wanted, their logits become these.
fn softmax_rows(ctx: &Ctx, job: &mut Job, counted: &[usize]) {
    let Shape {
        v,
        stride,
        grad_scale,
        ..
    } = job.shape;
    let wants_gradient = job.dx.is_some() || job.dw.is_some();
    let narrow = job.panels.arithmetic() == Arithmetic::Bf16;
    let targets = job.targets;
    let workspace = Disjoint::new(&mut *job.workspace);
    let (loss, hits) = (Disjoint::new(&mut *job.loss), Disjoint::new(&mut *job.hits));
    let per_task = (TASK_LOGITS / v).max(1);
    ctx.pool.run(counted.len().div_ceil(per_task), &|task, _| {
        for index in task * per_task..((task + 1) * per_task).min(counted.len()) {
            let token = counted[index];
            let target = targets[token] as usize;
            // SAFETY: each row and token belongs to one task.
            let (row, loss, hit) = unsafe {
                (
                    workspace.part(index * stride, v),
                    loss.part(token, 1),
                    hits.part(token, 1),
                )
            };
            let found: RowLoss = if wants_gradient {
                by_isa!(ctx.isa, row_loss_and_gradient(row, target, grad_scale, narrow))
            } else {
                by_isa!(ctx.isa, row_loss(row, target))
            };
            loss[0] = found.loss;
            hit[0] = i32::from(found.hit);
        }
    });
}

/// The workspace after `softmax_rows`: f32 rows, or bf16 in the front half of each row.
fn gradient_of_logits(workspace: &[f32], arithmetic: Arithmetic, stride: usize) -> Matrix<'_> {
    match arithmetic {
        Arithmetic::F32 => Matrix::new(Floats::F32(workspace), stride),
        Arithmetic::Bf16 => {
            // SAFETY: twice as many numbers of half the size; any bits are valid for both.
            let halves =
                unsafe { std::slice::from_raw_parts(workspace.as_ptr().cast(), 2 * workspace.len()) };
            Matrix::new(Floats::Bf16(halves), 2 * stride)
        }
    }
}

fn part<'a>(floats: &'a mut FloatsMut, start: usize, len: usize) -> FloatsMut<'a> {
    match floats {
        FloatsMut::F32(x) => FloatsMut::F32(&mut x[start..start + len]),
        FloatsMut::Bf16(x) => FloatsMut::Bf16(&mut x[start..start + len]),
    }
}

/// Moves the chunk's first rows to the tokens they belong to, last first, and zeroes the rows of the others.
fn spread<T: Copy + Default>(dx: &mut [T], counted: &[usize], start: usize, d: usize) {
    let mut left = counted.len();
    for token in (0..dx.len() / d.max(1)).rev() {
        if left > 0 && counted[left - 1] == start + token {
            left -= 1;
            dx.copy_within(left * d..(left + 1) * d, token * d);
        } else {
            dx[token * d..(token + 1) * d].fill(T::default());
        }
    }
}
