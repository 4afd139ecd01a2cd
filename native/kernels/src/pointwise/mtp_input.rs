// mtpInput: z = [RMSNorm(e) * eGain ; RMSNorm(h) * hGain]; and its gradient
//
// contract   src/tensor/ops/mtpInput.ts         (references, gradient, tolerance)
// layout     e, h [T, D] · z [T, 2D], the embedding first · rstd [T, 2]
// dtype      e, h, z f32 or bf16 each; gains, rstd and their gradients f32; arithmetic f32
// limits     any D, T = 0 legal; nothing in place
// tiling     tokens of about 32768 numbers per task; backward: chunks of 64 tokens, the unit of the gains' sums
// why so     both norms write straight into the row that the projection reads: no concatenation in memory
// versions   v1 (this file)

use super::norm::{self, Row};
use super::rows::{Out, for_rows, require_apart};
use crate::args::{Args, Floats};
use crate::attention::vector::{Vector, vector_twins};
use crate::error::KernelError;
use crate::ops::Ctx;
use crate::pool::Disjoint;

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
        // SAFETY: the set is usable, and tasks have rows of their own.
        unsafe { forward_rows_twins::call(ctx.isa, &job, from, to, scratch.f32(d)) };
    });
    Ok(())
}

#[inline(always)]
unsafe fn forward_rows<V: Vector, const M: usize, const N: usize>(
    job: &Forward,
    from: usize,
    to: usize,
    s: &mut [f32],
) {
    let d = s.len();
    for row in 2 * from..2 * to {
        let (t, half) = (row / 2, row % 2);
        // SAFETY: V is usable, and token t belongs to this task.
        unsafe {
            let squares = norm::load::<V>(job.inputs[half].range(t * d, d), None, s);
            let r = norm::inverse_rms(squares, d, job.eps);
            job.rstd.part(row, 1)[0] = r;
            norm::apply::<V>(s, r, job.gains[half], None, job.z.part(row * d, d));
        }
    }
}

vector_twins! {
    mod forward_rows_twins = forward_rows(job: &Forward<'_>, from: usize, to: usize, s: &mut [f32])
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
        // SAFETY: the set is usable, and tasks have rows of their own.
        unsafe { backward_rows_twins::call(ctx.isa, &job, from, to, partial, scratch) };
    });
    norm::add_partials(ctx, workspace, 2 * d, 0, de_gain);
    norm::add_partials(ctx, workspace, 2 * d, d, dh_gain);
    Ok(())
}

#[inline(always)]
unsafe fn backward_rows<V: Vector, const M: usize, const N: usize>(
    job: &Backward,
    from: usize,
    to: usize,
    partial: &mut [f32],
    scratch: &mut [f32],
) {
    let d = partial.len() / 2;
    for i in 2 * from..2 * to {
        let (t, half) = (i / 2, i % 2);
        let row = Row {
            dy: job.dz.range(i * d, d),
            s: job.inputs[half].range(t * d, d),
            gain: job.gains[half],
            r: job.rstd[i],
            dsum: None,
        };
        let partial = &mut partial[half * d..(half + 1) * d];
        // SAFETY: V is usable, and token t belongs to this task.
        unsafe { norm::backward::<V>(row, partial, scratch, job.grads[half].part(t * d, d)) };
    }
}

vector_twins! {
    mod backward_rows_twins = backward_rows(job: &Backward<'_>, from: usize, to: usize, partial: &mut [f32], scratch: &mut [f32])
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
