//! adamw: one AdamW step of one parameter, and its packed copies
//!
//! ```text
//! g = grad * min(1, clip / (norm + 1e-6))        m = beta1 m + (1 - beta1) g       v = beta2 v + (1 - beta2) g^2
//! w = w (1 - learningRate weightDecay) - learningRate / (1 - beta1^step) * m / (sqrt(v / (1 - beta2^step)) + eps)
//! ```
//!
//! contract   tensor/ops/optimizer/adamw.ts; the gradient is zero afterwards, for the next step to add to
//! layout     w, grad, m, v [B, N, K] row-major; panels and panelsT as packWeight writes them
//! dtype      w, grad f32; m, v f32 or bf16, each on its own; panels f32 or bf16; arithmetic f32
//! limits     any B, N, K, 0 included; a NaN norm makes every weight NaN, it is never read as "no clipping"
//! tiling     a task owns whole panels: it updates 32 rows, then packs them out of its cache
//! why so     32 bytes per weight go through memory whatever is computed; packing what is still in cache adds
//!            only the writes. Walking the rows in square tiles instead was 1.5 times slower: too many streams.
//!            The weights follow the moments before these are rounded for storage. The constants of a step are
//!            made from doubles once, so that all paths share their bits.

use super::pack_rows::{Words, pack_panel, pack_transposed};
use crate::args::{Args, FloatsMut, Operand};
use crate::bf16::Element;
use crate::error::KernelError;
use crate::gemm::micro::PANEL;
use crate::gemm::{panel_len, panels_len};
use crate::isa::Isa;
use crate::ops::Ctx;
use crate::pool::Disjoint;
use crate::{by_isa, isa_twins, with_floats_mut};

/// Weights per task, at the least: about 10 us.
const TASK: usize = 16_384;

/// The numbers of one step that all its weights share.
#[derive(Clone, Copy)]
struct Step {
    grad_scale: f32,
    beta1: f32,
    beta2: f32,
    one_minus_beta1: f32,
    one_minus_beta2: f32,
    /// 1 / sqrt(1 - beta2^step)
    v_scale: f32,
    eps: f32,
    /// learningRate / (1 - beta1^step)
    rate: f32,
    /// 1 - learningRate * weightDecay
    keep: f32,
}

isa_twins! {
    fn update<M: Element, V: Element>(w: &mut [f32], grad: &mut [f32], m: &mut [M], v: &mut [V], step: Step) {
        let n = w.len();
        let (grad, m, v) = (&mut grad[..n], &mut m[..n], &mut v[..n]);
        for i in 0..n {
            let g = grad[i] * step.grad_scale;
            grad[i] = 0.0;
            let m_new = step.beta1.mul_add(m[i].to_f32(), step.one_minus_beta1 * g);
            let v_new = step.beta2.mul_add(v[i].to_f32(), step.one_minus_beta2 * g * g);
            m[i] = M::from_f32(m_new);
            v[i] = V::from_f32(v_new);
            let direction = m_new / v_new.sqrt().mul_add(step.v_scale, step.eps);
            w[i] = (-step.rate).mul_add(direction, w[i] * step.keep);
        }
    }
}

/// The parameter as a batch of matrices, and where its tasks may write.
struct Work<'a, M, V> {
    n: usize,
    k: usize,
    w: Disjoint<'a, f32>,
    grad: Disjoint<'a, f32>,
    m: Disjoint<'a, M>,
    v: Disjoint<'a, V>,
    step: Step,
    isa: Isa,
}

impl<'a, M: Element, V: Element> Work<'a, M, V> {
    /// Updates weights `start..start + len` and returns them. Each belongs to one task.
    fn update(&self, start: usize, len: usize) -> &'a [f32] {
        // SAFETY: tasks own disjoint ranges.
        let (w, grad, m, v) = unsafe {
            (
                self.w.part(start, len),
                self.grad.part(start, len),
                self.m.part(start, len),
                self.v.part(start, len),
            )
        };
        by_isa!(self.isa, update(w, grad, m, v, self.step));
        w
    }

    /// Updates the rows of panel `panel` of matrix `matrix` and writes both packed forms of them.
    fn update_panel<P: Words, Q: Words>(
        &self,
        matrix: usize,
        panel: usize,
        panels: &Option<Disjoint<P>>,
        transposed: &Option<Disjoint<Q>>,
    ) {
        let (n, k) = (self.n, self.k);
        let rows = PANEL.min(n - panel * PANEL);
        let w = self.update((matrix * n + panel * PANEL) * k, rows * k);
        if let Some(panels) = panels {
            let len = panel_len(k);
            // SAFETY: a panel is written by the task that updates its rows.
            let out = unsafe { panels.part((matrix * n.div_ceil(PANEL) + panel) * len, len) };
            by_isa!(self.isa, pack_panel(w, k, out));
        }
        if let Some(transposed) = transposed {
            let columns = k.div_ceil(PANEL);
            for column in 0..columns {
                let first = (matrix * columns + column) * panel_len(n) + panel * PANEL * PANEL;
                // SAFETY: these rows of a transposed panel are this task's alone.
                let out = unsafe { transposed.part(first, panel_len(rows)) };
                by_isa!(self.isa, pack_transposed(w, k, column * PANEL, out));
            }
        }
    }
}

/// x^n by squaring; the same bits everywhere, unlike a library's pow.
fn power(x: f64, n: u64) -> f64 {
    let (mut result, mut factor, mut left) = (1.0, x, n);
    while left > 0 {
        if left & 1 == 1 {
            result *= factor;
        }
        factor *= factor;
        left >>= 1;
    }
    result
}

/// The factor on gradients. A NaN norm stays NaN.
pub(super) fn clip_factor(clip: f64, norm: f32) -> f32 {
    let factor = clip / (norm as f64 + 1e-6);
    if factor >= 1.0 { 1.0 } else { factor as f32 }
}

fn decode_step(a: &mut Args, norm: Option<Operand>) -> Result<Step, KernelError> {
    let learning_rate = a.f64("learningRate")?;
    let (beta1, beta2) = (a.f64("beta1")?, a.f64("beta2")?);
    let (eps, weight_decay) = (a.f64("eps")?, a.f64("weightDecay")?);
    let step = a.usize("step")?;
    let clip = a.f64("clip")?;
    a.end()?;
    if step == 0 {
        return Err(KernelError::new("step", "is 0; the first step is 1"));
    }
    let grad_scale = match norm {
        Some(norm) => clip_factor(clip, norm.f32s(1)?[0]),
        None => 1.0,
    };
    Ok(Step {
        grad_scale,
        beta1: beta1 as f32,
        beta2: beta2 as f32,
        one_minus_beta1: (1.0 - beta1) as f32,
        one_minus_beta2: (1.0 - beta2) as f32,
        v_scale: (1.0 / (1.0 - power(beta2, step as u64)).sqrt()) as f32,
        eps: eps as f32,
        rate: (learning_rate / (1.0 - power(beta1, step as u64))) as f32,
        keep: (1.0 - learning_rate * weight_decay) as f32,
    })
}

pub fn adamw(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let w = a.f32s("w")?;
    let grad = a.f32s("grad")?;
    let (m, v) = (a.floats("m")?, a.floats("v")?);
    let norm = a.f32s_optional("norm")?;
    let panels = a.floats_optional("panels")?;
    let transposed = a.floats_optional("panelsT")?;
    let (b, n, k) = (a.usize("B")?, a.usize("N")?, a.usize("K")?);
    let step = decode_step(a, norm)?;
    let size = b * n * k;
    let w = Disjoint::new(w.f32s_mut(size)?);
    let grad = Disjoint::new(grad.f32s_mut(size)?);
    let panel_size = b * panels_len(n, k);
    let transposed_size = b * panels_len(k, n);
    let mut panels = panels.map(|p| p.slice_mut(panel_size)).transpose()?;
    let mut transposed = transposed.map(|p| p.slice_mut(transposed_size)).transpose()?;
    let isa = ctx.isa;
    with_floats_mut!(m.slice_mut(size)?, |m| with_floats_mut!(
        v.slice_mut(size)?,
        |v| {
            let (m, v) = (Disjoint::new(m), Disjoint::new(v));
            let work = Work {
                n,
                k,
                w,
                grad,
                m,
                v,
                step,
                isa,
            };
            run(ctx, &work, b, &mut panels, &mut transposed);
        }
    ));
    Ok(())
}

fn run<M: Element, V: Element>(
    ctx: &Ctx,
    work: &Work<M, V>,
    matrices: usize,
    panels: &mut Option<FloatsMut>,
    transposed: &mut Option<FloatsMut>,
) {
    if panels.is_none() && transposed.is_none() {
        let size = work.grad.len();
        ctx.pool.run(size.div_ceil(TASK), &|task, _| {
            let start = task * TASK;
            work.update(start, TASK.min(size - start));
        });
        return;
    }
    match panels {
        Some(FloatsMut::Bf16(p)) => run_into(ctx, work, matrices, Some(Disjoint::new(p)), transposed),
        Some(FloatsMut::F32(p)) => run_into(ctx, work, matrices, Some(Disjoint::new(p)), transposed),
        None => run_into::<M, V, u16>(ctx, work, matrices, None, transposed),
    }
}

fn run_into<M: Element, V: Element, P: Words>(
    ctx: &Ctx,
    work: &Work<M, V>,
    matrices: usize,
    panels: Option<Disjoint<P>>,
    transposed: &mut Option<FloatsMut>,
) {
    match transposed {
        Some(FloatsMut::Bf16(t)) => run_panels(ctx, work, matrices, &panels, &Some(Disjoint::new(t))),
        Some(FloatsMut::F32(t)) => run_panels(ctx, work, matrices, &panels, &Some(Disjoint::new(t))),
        None => run_panels::<M, V, P, u16>(ctx, work, matrices, &panels, &None),
    }
}

fn run_panels<M: Element, V: Element, P: Words, Q: Words>(
    ctx: &Ctx,
    work: &Work<M, V>,
    matrices: usize,
    panels: &Option<Disjoint<P>>,
    transposed: &Option<Disjoint<Q>>,
) {
    let per_matrix = work.n.div_ceil(PANEL);
    let total = matrices * per_matrix;
    let per_task = (TASK / (PANEL * work.k).max(1)).max(1);
    ctx.pool.run(total.div_ceil(per_task), &|task, _| {
        for index in task * per_task..((task + 1) * per_task).min(total) {
            work.update_panel(index / per_matrix, index % per_matrix, panels, transposed);
        }
    });
}
