// mtpInput: z = [RMSNorm(e) * eGain ; RMSNorm(h) * hGain]; and its gradient
//
// contract   src/tensor/ops/mtpInput.ts         (references, gradient, tolerance)
// layout     e, h [T, D] · z [T, 2D], the embedding first · rstd [T, 2]
// dtype      e, h, z f32 or bf16 each; gains, rstd and their gradients f32; arithmetic f32
// limits     any D, T = 0 legal; nothing in place
// tiling     tokens of about 32768 numbers per task; backward: chunks of 64 tokens, the unit of the gains' sums
// why so     both norms write straight into the row that the projection reads: no concatenation in memory
// versions   v1 (this file)

use super::norm::{self, Rows};
use super::rows::{Out, for_rows, require_apart};
use crate::args::{Args, Floats};
use crate::error::KernelError;
use crate::ops::Ctx;
use crate::pool::Disjoint;
use crate::{by_isa, isa_twins, with_floats, with_floats_mut};

struct Forward<'a> {
    inputs: [Floats<'a>; 2],
    gains: [&'a [f32]; 2],
    z: Out<'a>,
    rstd: Disjoint<'a, f32>,
    eps: f32,
}

pub fn forward(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (e, h) = (a.floats("e")?, a.floats("h")?);
    let (e_gain, h_gain) = (a.f32s("eGain")?, a.f32s("hGain")?);
    let (z, rstd) = (a.floats("z")?, a.f32s("rstd")?);
    let (t, d) = (a.usize("T")?, a.usize("D")?);
    let eps = a.f32("eps")?;
    a.end()?;
    for output in [&z, &rstd] {
        require_apart(output, [&e, &h, &e_gain, &h_gain])?;
    }
    let job = Forward {
        inputs: [e.slice(t * d)?, h.slice(t * d)?],
        gains: [e_gain.f32s(d)?, h_gain.f32s(d)?],
        z: Out::new(z.slice_mut(2 * t * d)?),
        rstd: Disjoint::new(rstd.f32s_mut(2 * t)?),
        eps,
    };
    for_rows(ctx.pool, t, 2 * d, |from, to, scratch| {
        by_isa!(ctx.isa, forward_rows(&job, from, to, scratch.f32(d)));
    });
    Ok(())
}

isa_twins! {
    fn forward_rows(job: &Forward<'_>, from: usize, to: usize, s: &mut [f32]) {
        let d = s.len();
        for t in from..to {
            for half in 0..2 {
                let squares = with_floats!(job.inputs[half].range(t * d, d), |x| norm::load(x, s));
                let r = norm::inverse_rms(squares, d, job.eps);
                // SAFETY: token t belongs to this task.
                unsafe {
                    job.rstd.part(2 * t + half, 1)[0] = r;
                    with_floats_mut!(job.z.part((2 * t + half) * d, d), |z| {
                        norm::apply(s, r, job.gains[half], z)
                    });
                }
            }
        }
    }
}

struct Backward<'a> {
    dz: Floats<'a>,
    inputs: [Floats<'a>; 2],
    gains: [&'a [f32]; 2],
    rstd: &'a [f32],
    grads: [Out<'a>; 2],
}

pub fn backward(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (dz, e, h) = (a.floats("dz")?, a.floats("e")?, a.floats("h")?);
    let (e_gain, h_gain, rstd) = (a.f32s("eGain")?, a.f32s("hGain")?, a.f32s("rstd")?);
    let (de, dh) = (a.floats("de")?, a.floats("dh")?);
    let (de_gain, dh_gain, workspace) = (a.f32s("deGain")?, a.f32s("dhGain")?, a.f32s("workspace")?);
    let (t, d) = (a.usize("T")?, a.usize("D")?);
    a.end()?;
    for output in [&de, &dh, &de_gain, &dh_gain, &workspace] {
        require_apart(output, [&dz, &e, &h, &e_gain, &h_gain, &rstd])?;
    }
    let job = Backward {
        dz: dz.slice(2 * t * d)?,
        inputs: [e.slice(t * d)?, h.slice(t * d)?],
        gains: [e_gain.f32s(d)?, h_gain.f32s(d)?],
        rstd: rstd.f32s(2 * t)?,
        grads: [Out::new(de.slice_mut(t * d)?), Out::new(dh.slice_mut(t * d)?)],
    };
    let (de_gain, dh_gain) = (de_gain.f32s_mut(d)?, dh_gain.f32s_mut(d)?);
    let workspace = workspace.f32s_mut(t.div_ceil(norm::CHUNK) * 2 * d)?;
    norm::for_chunks(ctx, t, 2 * d, 2 * d, workspace, |from, to, partial, scratch| {
        by_isa!(ctx.isa, backward_rows(&job, from, to, partial, scratch));
    });
    norm::add_partials(ctx, workspace, 2 * d, 0, de_gain);
    norm::add_partials(ctx, workspace, 2 * d, d, dh_gain);
    Ok(())
}

isa_twins! {
    fn backward_rows(job: &Backward<'_>, from: usize, to: usize, partial: &mut [f32], scratch: &mut [f32]) {
        let d = partial.len() / 2;
        let mut rows = Rows::split(scratch, d);
        for t in from..to {
            for half in 0..2 {
                let dz = job.dz.range((2 * t + half) * d, d);
                let (x, r) = (job.inputs[half].range(t * d, d), job.rstd[2 * t + half]);
                let partial = &mut partial[half * d..(half + 1) * d];
                let m = with_floats!(dz, |dz| with_floats!(x, |x| {
                    norm::backward_sums(dz, x, job.gains[half], r, partial, &mut rows)
                }));
                // SAFETY: token t belongs to this task.
                let dx = unsafe { job.grads[half].part(t * d, d) };
                with_floats_mut!(dx, |dx| norm::backward_apply(&rows, m, r, dx));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{Op, dtypes, norm_row, norm_row_grad, numbers, widen};

    const SIZES: [(usize, usize); 4] = [(0, 3), (1, 5), (66, 48), (4, 200)];
    const EPS: f64 = 1e-3;

    #[test]
    fn forward_puts_the_normed_embedding_before_the_normed_hidden_state() {
        for (t, d) in SIZES {
            let (e, h) = (numbers(t * d, 1), numbers(t * d, 2));
            let (e_gain, h_gain) = (numbers(d, 3), numbers(d, 4));
            let (mut z, mut rstd) = (Vec::new(), Vec::new());
            for t in 0..t {
                for (x, gain) in [(&e, &e_gain), (&h, &h_gain)] {
                    let (y, r) = norm_row(&widen(&x[t * d..(t + 1) * d]), gain, EPS);
                    z.extend(y);
                    rstd.push(r);
                }
            }
            for b in dtypes(3) {
                let op = Op::new("mtpInput").given(&e, b[0]).given(&h, b[1]);
                let op = op
                    .given(&e_gain, false)
                    .given(&h_gain, false)
                    .wanted(2 * t * d, b[2]);
                let op = op.wanted(2 * t, false).numbers(&[t as f64, d as f64, EPS]);
                op.check(&[z.clone(), rstd.clone()]);
            }
        }
    }

    #[test]
    fn backward_keeps_the_two_norms_apart() {
        for (t, d) in SIZES {
            let dz = numbers(2 * t * d, 5);
            let inputs = [numbers(t * d, 1), numbers(t * d, 2)];
            let gains = [numbers(d, 3), numbers(d, 4)];
            let rstd: Vec<f32> = numbers(2 * t, 6).iter().map(|v| 1.0 + 0.25 * v).collect();
            let before = [numbers(d, 7), numbers(d, 8)];
            let mut dgains = [widen(&before[0]), widen(&before[1])];
            let mut grads = [Vec::new(), Vec::new()];
            for t in 0..t {
                for half in 0..2 {
                    let dy = &dz[(2 * t + half) * d..(2 * t + half + 1) * d];
                    let x = &inputs[half][t * d..(t + 1) * d];
                    let r = rstd[2 * t + half];
                    grads[half].extend(norm_row_grad(dy, x, &gains[half], r, &mut dgains[half]));
                }
            }
            let expected: Vec<Vec<f64>> = grads.into_iter().chain(dgains).collect();
            for b in dtypes(5) {
                let op = Op::new("mtpInputBackward")
                    .given(&dz, b[0])
                    .given(&inputs[0], b[1]);
                let op = op
                    .given(&inputs[1], b[2])
                    .given(&gains[0], false)
                    .given(&gains[1], false);
                let op = op.given(&rstd, false).wanted(t * d, b[3]).wanted(t * d, b[4]);
                let op = op.changed(&before[0], false).changed(&before[1], false);
                let op = op.scratch(t.div_ceil(64) * 2 * d).numbers(&[t as f64, d as f64]);
                op.check(&expected);
            }
        }
    }
}
