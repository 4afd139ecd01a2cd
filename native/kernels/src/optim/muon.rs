//! muon: one Muon step of one parameter, and its packed copies
//!
//! ```text
//! g = grad * min(1, clip / (norm + 1e-6))    m = momentum m + g    u = g + momentum m
//! o = newtonSchulz(u / (|u| + 1e-7))         w = w (1 - learningRate weightDecay) - learningRate 0.2 sqrt(max(N, K)) o
//! ```
//!
//! contract   tensor/ops/optimizer/muon.ts; the gradient is zero afterwards, for the next step to add to
//! layout     w, grad, m [B, N, K] row-major, each of the B matrices a matrix of its own; workspace [B][room_floats];
//!            panels and panelsT as packWeight writes them
//! dtype      w, grad f32; m f32 or bf16; the products in the arithmetic of the panels, everything else f32
//! limits     any B, N, K, 0 included; a NaN norm makes every weight NaN; an update of zeros leaves the direction 0
//! tiling     a task a matrix where there are as many as threads or where it fits the cache, else matrix by matrix,
//!            products by the whole pool
//! why so     the products take most of the time and are the GEMM's own; where N > K the transpose is
//!            orthogonalized, because the square of the shorter side is the smaller matrix

use super::adamw::clip_factor;
use super::newton_schulz::{Hands, Room, alone, orthogonalize, room_floats};
use super::pack_rows::{Words, pack_matrix, pack_matrix_transposed};
use crate::args::{Args, FloatsMut, Operand};
use crate::bf16::Element;
use crate::error::KernelError;
use crate::gemm::{Arithmetic, panels_len};
use crate::isa::Isa;
use crate::loss::CHUNK;
use crate::math;
use crate::ops::Ctx;
use crate::pool::Disjoint;
use crate::{by_isa, isa_twins, with_floats_mut};

/// The numbers of one step.
#[derive(Clone, Copy)]
struct Step {
    grad_scale: f32,
    momentum: f32,
    /// learningRate * 0.2 * sqrt(max(N, K))
    rate: f32,
    /// 1 - learningRate * weightDecay
    keep: f32,
}

isa_twins! {
    fn momentum<M: Element>(u: &mut [f32], grad: &mut [f32], m: &mut [M], step: Step) {
        let n = u.len();
        let (grad, m) = (&mut grad[..n], &mut m[..n]);
        for i in 0..n {
            let g = grad[i] * step.grad_scale;
            grad[i] = 0.0;
            let m_new = step.momentum.mul_add(m[i].to_f32(), g);
            m[i] = M::from_f32(m_new);
            u[i] = step.momentum.mul_add(m_new, g);
        }
    }
}

isa_twins! {
    fn squares(x: &[f32]) -> f32 {
        math::sum_of_squares(x)
    }
}

isa_twins! {
    fn scale(x: &mut [f32], factor: f32) {
        for v in x.iter_mut() {
            *v *= factor;
        }
    }
}

isa_twins! {
    fn apply(w: &mut [f32], direction: &[f32], step: Step) {
        let direction = &direction[..w.len()];
        for i in 0..w.len() {
            w[i] = (-step.rate).mul_add(direction[i], w[i] * step.keep);
        }
    }
}

/// One matrix [n, k] of the parameter, all that its update touches.
struct Matrix<'a, M, P, Q> {
    n: usize,
    k: usize,
    w: &'a mut [f32],
    grad: &'a mut [f32],
    m: &'a mut [M],
    workspace: &'a mut [f32],
    panels: &'a mut [P],
    transposed: &'a mut [Q],
}

impl<M: Element, P: Words, Q: Words> Matrix<'_, M, P, Q> {
    fn update(&mut self, isa: Isa, mut hands: Hands, arithmetic: Arithmetic, step: Step) {
        let (n, k) = (self.n, self.k);
        let (short, long) = (n.min(k), n.max(k));
        let mut room = Room::cut(self.workspace, short, long);
        by_isa!(isa, momentum(room.x, self.grad, self.m, step));
        let sum: f64 = room
            .x
            .chunks(CHUNK)
            .map(|chunk| by_isa!(isa, squares(chunk)) as f64)
            .sum();
        by_isa!(isa, scale(room.x, (1.0 / (sum.sqrt() + 1e-7)) as f32));
        orthogonalize(&mut hands, arithmetic, &mut room, n, k);
        by_isa!(isa, apply(self.w, room.x, step));
        pack_matrix(isa, self.w, n, k, self.panels);
        if !self.transposed.is_empty() {
            pack_matrix_transposed(isa, self.w, n, k, self.transposed);
        }
    }
}

fn decode_step(a: &mut Args, norm: Option<Operand>, longest: usize) -> Result<Step, KernelError> {
    let learning_rate = a.f64("learningRate")?;
    let momentum = a.f32("momentum")?;
    let weight_decay = a.f64("weightDecay")?;
    let clip = a.f64("clip")?;
    a.end()?;
    let grad_scale = match norm {
        Some(norm) => clip_factor(clip, norm.f32s(1)?[0]),
        None => 1.0,
    };
    Ok(Step {
        grad_scale,
        momentum,
        rate: (learning_rate * 0.2 * (longest as f64).sqrt()) as f32,
        keep: (1.0 - learning_rate * weight_decay) as f32,
    })
}

pub fn muon(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let w = a.f32s("w")?;
    let grad = a.f32s("grad")?;
    let m = a.floats("m")?;
    let norm = a.f32s_optional("norm")?;
    let panels = a.floats("panels")?;
    let transposed = a.floats_optional("panelsT")?;
    let workspace = a.f32s("workspace")?;
    let (b, n, k) = (a.usize("B")?, a.usize("N")?, a.usize("K")?);
    let step = decode_step(a, norm, n.max(k))?;
    let size = b * n * k;
    if size == 0 {
        return Ok(());
    }
    let room = room_floats(n.min(k), n.max(k));
    let shape = (b, n, k);
    let w = Disjoint::new(w.f32s_mut(size)?);
    let grad = Disjoint::new(grad.f32s_mut(size)?);
    let workspace = Disjoint::new(workspace.f32s_mut(b * room)?);
    let mut panels = panels.slice_mut(b * panels_len(n, k))?;
    let arithmetic = match panels {
        FloatsMut::F32(_) => Arithmetic::F32,
        FloatsMut::Bf16(_) => Arithmetic::Bf16,
    };
    let mut transposed = transposed
        .map(|p| p.slice_mut(b * panels_len(k, n)))
        .transpose()?;
    with_floats_mut!(m.slice_mut(size)?, |m| {
        let work = Work {
            shape,
            w,
            grad,
            m: Disjoint::new(m),
            workspace,
            arithmetic,
            step,
        };
        with_floats_mut!(&mut panels, |p| {
            let p = Disjoint::new(p);
            match &mut transposed {
                Some(FloatsMut::Bf16(t)) => run(ctx, &work, p, Disjoint::new(t)),
                Some(FloatsMut::F32(t)) => run(ctx, &work, p, Disjoint::new(t)),
                None => run::<_, _, u16>(ctx, &work, p, Disjoint::new(&mut [])),
            }
        })
    });
    Ok(())
}

/// The parameter as a batch of matrices.
struct Work<'a, M> {
    shape: (usize, usize, usize),
    w: Disjoint<'a, f32>,
    grad: Disjoint<'a, f32>,
    m: Disjoint<'a, M>,
    workspace: Disjoint<'a, f32>,
    arithmetic: Arithmetic,
    step: Step,
}

fn run<M: Element, P: Words, Q: Words>(
    ctx: &Ctx,
    work: &Work<M>,
    panels: Disjoint<P>,
    transposed: Disjoint<Q>,
) {
    let (b, n, k) = work.shape;
    let (size, room) = (n * k, room_floats(n.min(k), n.max(k)));
    let transposed_len = if transposed.is_empty() {
        0
    } else {
        panels_len(k, n)
    };
    let matrix = |i: usize| {
        // SAFETY: each matrix is updated once, by one caller.
        unsafe {
            Matrix {
                n,
                k,
                w: work.w.part(i * size, size),
                grad: work.grad.part(i * size, size),
                m: work.m.part(i * size, size),
                workspace: work.workspace.part(i * room, room),
                panels: panels.part(i * panels_len(n, k), panels_len(n, k)),
                transposed: transposed.part(i * transposed_len, transposed_len),
            }
        }
    };
    if b >= ctx.pool.threads() || alone(ctx.isa, work.arithmetic, n, k) {
        ctx.pool.run(b, &|i, scratch| {
            matrix(i).update(ctx.isa, Hands::Task(ctx.isa, scratch), work.arithmetic, work.step);
        });
        return;
    }
    for i in 0..b {
        matrix(i).update(ctx.isa, Hands::Pool(ctx), work.arithmetic, work.step);
    }
}
