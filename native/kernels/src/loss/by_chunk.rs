//! linearCrossEntropy chunk by chunk: one product for the logits of 512 tokens, one region of softmax rows (in place), one
//! product for dx, one gradient for dw. Every instruction set and shape can go this way; it is the plain twin of
//! `by_rows.rs`.

use super::linear_cross_entropy::{CHUNK, Job, Shape};
use super::softmax::{RowLoss, row_loss, row_loss_and_gradient};
use crate::args::{Floats, FloatsMut};
use crate::by_isa;
use crate::gemm::{Arithmetic, Matrix, matmul, matmul_grad_weight};
use crate::ops::Ctx;
use crate::pool::Disjoint;

/// Softmax rows per task, at the least this many logits: about 10 us.
const TASK_LOGITS: usize = 32_768;

pub fn run(ctx: &Ctx, job: &mut Job) {
    let tokens = job.targets.len();
    let mut gathered = Gathered::default();
    for start in (0..tokens).step_by(CHUNK) {
        run_chunk(ctx, job, start, CHUNK.min(tokens - start), &mut gathered);
    }
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
    let Shape { d, v, .. } = job.shape;
    let stride = job.shape.logits_stride();
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
    let Shape { v, grad_scale, .. } = job.shape;
    let stride = job.shape.logits_stride();
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
