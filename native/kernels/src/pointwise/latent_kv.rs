// latentKv: latent = RMSNorm(first C channels) * gain, kRope = last R channels, rotated; and its gradient
//
// contract   src/tensor/ops/latentKv.ts         (references, gradient, tolerance)
// layout     kvA [T, C + R] · latent [T, C] · kRope [T, R] · cos, sin [P, R / 2] · rstd [T]
// dtype      floats f32 or bf16 each; gain, rstd, cos, sin, dgain f32; arithmetic f32
// limits     R even, T = 0 legal; nothing in place
// tiling     tokens of about 32768 numbers per task; backward: chunks of 64 tokens, the unit of dgain's sum
// why so     both parts of a token's row are read once, where the projection left them
// versions   v1 (this file)

use super::norm::{self, Row};
use super::rope::Angles;
use super::rows::{Out, for_rows, require_apart};
use crate::args::{Args, Floats};
use crate::attention::vector::{Vector, vector_twins};
use crate::error::KernelError;
use crate::ops::Ctx;
use crate::pool::Disjoint;

struct Forward<'a> {
    kv_a: Floats<'a>,
    gain: &'a [f32],
    angles: Angles<'a>,
    latent: Out<'a>,
    k_rope: Out<'a>,
    rstd: Disjoint<'a, f32>,
    c: usize,
    r: usize,
    eps: f32,
}

pub fn forward(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (kv_a, gain) = (a.floats("kvA")?, a.f32s("gain")?);
    let (cos, sin, positions) = (a.f32s("cos")?, a.f32s("sin")?, a.i32s("positions")?);
    let (latent, k_rope, rstd) = (a.floats("latent")?, a.floats("kRope")?, a.f32s("rstd")?);
    let (t, c, r) = (a.usize("T")?, a.usize("C")?, a.usize("R")?);
    let eps = a.f32("eps")?;
    a.end()?;
    for output in [&latent, &k_rope, &rstd] {
        require_apart(output, [&kv_a, &gain, &cos, &sin, &positions])?;
    }
    let job = Forward {
        kv_a: kv_a.slice(t * (c + r))?,
        gain: gain.f32s(c)?,
        angles: Angles::new(cos, sin, positions, t, r)?,
        latent: Out::new(latent.slice_mut(t * c)?),
        k_rope: Out::new(k_rope.slice_mut(t * r)?),
        rstd: Disjoint::new(rstd.f32s_mut(t)?),
        c,
        r,
        eps,
    };
    for_rows(ctx.pool, t, c + r, |from, to, scratch| {
        // SAFETY: the set is usable, and tasks have rows of their own.
        unsafe { forward_rows_twins::call(ctx.isa, &job, from, to, scratch.f32(c)) };
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
    let (c, r) = (job.c, job.r);
    for t in from..to {
        let start = t * (c + r);
        // SAFETY: V is usable, and token t belongs to this task.
        unsafe {
            let squares = norm::load::<V>(job.kv_a.range(start, c), None, s);
            let rstd = norm::inverse_rms(squares, c, job.eps);
            job.rstd.part(t, 1)[0] = rstd;
            norm::apply::<V>(s, rstd, job.gain, None, job.latent.part(t * c, c));
            job.angles
                .turn(t, 1.0, job.kv_a.range(start + c, r), job.k_rope.part(t * r, r));
        }
    }
}

vector_twins! {
    mod forward_rows_twins = forward_rows(job: &Forward<'_>, from: usize, to: usize, scratch: &mut [f32])
}

struct Backward<'a> {
    d_latent: Floats<'a>,
    dk_rope: Floats<'a>,
    kv_a: Floats<'a>,
    gain: &'a [f32],
    rstd: &'a [f32],
    angles: Angles<'a>,
    dkv_a: Out<'a>,
    c: usize,
    r: usize,
}

pub fn backward(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (d_latent, dk_rope) = (a.floats("dLatent")?, a.floats("dkRope")?);
    let (kv_a, gain, rstd) = (a.floats("kvA")?, a.f32s("gain")?, a.f32s("rstd")?);
    let (cos, sin, positions) = (a.f32s("cos")?, a.f32s("sin")?, a.i32s("positions")?);
    let (dkv_a, dgain, workspace) = (a.floats("dkvA")?, a.f32s("dgain")?, a.f32s("workspace")?);
    let (t, c, r) = (a.usize("T")?, a.usize("C")?, a.usize("R")?);
    a.end()?;
    for output in [&dkv_a, &dgain, &workspace] {
        let inputs = [&d_latent, &dk_rope, &kv_a, &gain, &rstd, &cos, &sin, &positions];
        require_apart(output, inputs)?;
    }
    let job = Backward {
        d_latent: d_latent.slice(t * c)?,
        dk_rope: dk_rope.slice(t * r)?,
        kv_a: kv_a.slice(t * (c + r))?,
        gain: gain.f32s(c)?,
        rstd: rstd.f32s(t)?,
        angles: Angles::new(cos, sin, positions, t, r)?,
        dkv_a: Out::new(dkv_a.slice_mut(t * (c + r))?),
        c,
        r,
    };
    let (dgain, workspace) = (
        dgain.f32s_mut(c)?,
        workspace.f32s_mut(t.div_ceil(norm::CHUNK) * c)?,
    );
    norm::for_chunks(ctx, t, c, 2 * c, workspace, |from, to, partial, scratch| {
        // SAFETY: the set is usable, and tasks have rows of their own.
        unsafe { backward_rows_twins::call(ctx.isa, &job, from, to, partial, scratch) };
    });
    norm::add_partials(ctx, workspace, c, 0, dgain);
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
    let (c, r) = (job.c, job.r);
    for t in from..to {
        let start = t * (c + r);
        let row = Row {
            dy: job.d_latent.range(t * c, c),
            s: job.kv_a.range(start, c),
            gain: job.gain,
            r: job.rstd[t],
            dsum: None,
        };
        // SAFETY: V is usable; token t belongs to this task, and its two parts follow one another.
        unsafe {
            norm::backward::<V>(row, partial, scratch, job.dkv_a.part(start, c));
            job.angles
                .turn(t, -1.0, job.dk_rope.range(t * r, r), job.dkv_a.part(start + c, r));
        }
    }
}

vector_twins! {
    mod backward_rows_twins = backward_rows(job: &Backward<'_>, from: usize, to: usize, partial: &mut [f32], scratch: &mut [f32])
}

#[cfg(test)]
mod tests {
    use super::super::harness::{Op, dtypes, norm_row, norm_row_grad, numbers, table, turned, widen};

    /// tokens, latent channels, rotary channels
    const SHAPES: [[usize; 3]; 5] = [[0, 4, 2], [1, 3, 2], [67, 32, 8], [129, 70, 18], [3, 64, 16]];
    const EPS: f64 = 1e-3;

    fn positions(t: usize) -> Vec<i32> {
        (0..t as i32).map(|t| t * 7 % 50).collect()
    }

    #[test]
    fn forward_is_a_norm_on_the_latent_and_a_rotation_of_the_key() {
        for [t, c, r] in SHAPES {
            let (kv_a, gain, positions) = (numbers(t * (c + r), 1), numbers(c, 2), positions(t));
            let (cos, sin) = table(50, r / 2);
            let (mut latent, mut k_rope, mut rstd) = (Vec::new(), Vec::new(), Vec::new());
            for (row, position) in kv_a.chunks(c + r).zip(&positions) {
                let (y, scale) = norm_row(&widen(&row[..c]), &gain, EPS);
                latent.extend(y);
                rstd.push(scale);
                let at = *position as usize * (r / 2);
                k_rope.extend(turned(&row[c..], &cos[at..at + r / 2], &sin[at..at + r / 2], 1.0));
            }
            for b in dtypes(3) {
                let op = Op::new("latentKv")
                    .given(&kv_a, b[0])
                    .given(&gain, false)
                    .given(&cos, false);
                let op = op
                    .given(&sin, false)
                    .ids(&positions)
                    .wanted(t * c, b[1])
                    .wanted(t * r, b[2]);
                let op = op.wanted(t, false).numbers(&[t as f64, c as f64, r as f64, EPS]);
                op.check(&[latent.clone(), k_rope.clone(), rstd.clone()]);
            }
        }
    }

    #[test]
    fn backward_is_the_norms_jacobian_and_the_rotation_back() {
        for [t, c, r] in SHAPES {
            let (d_latent, dk_rope) = (numbers(t * c, 3), numbers(t * r, 4));
            let (kv_a, gain, positions) = (numbers(t * (c + r), 1), numbers(c, 2), positions(t));
            let rstd: Vec<f32> = numbers(t, 5).iter().map(|v| 1.0 + 0.25 * v).collect();
            let dgain_before = numbers(c, 6);
            let (cos, sin) = table(50, r / 2);
            let (mut dkv_a, mut dgain) = (Vec::new(), widen(&dgain_before));
            for t in 0..t {
                let (dy, s) = (&d_latent[t * c..(t + 1) * c], &kv_a[t * (c + r)..t * (c + r) + c]);
                dkv_a.extend(norm_row_grad(dy, s, &gain, rstd[t], &mut dgain));
                let at = positions[t] as usize * (r / 2);
                let (cos, sin) = (&cos[at..at + r / 2], &sin[at..at + r / 2]);
                dkv_a.extend(turned(&dk_rope[t * r..(t + 1) * r], cos, sin, -1.0));
            }
            for b in dtypes(4) {
                let op = Op::new("latentKvBackward")
                    .given(&d_latent, b[0])
                    .given(&dk_rope, b[1]);
                let op = op.given(&kv_a, b[2]).given(&gain, false).given(&rstd, false);
                let op = op.given(&cos, false).given(&sin, false).ids(&positions);
                let op = op.wanted(t * (c + r), b[3]).changed(&dgain_before, false);
                let op = op
                    .scratch(t.div_ceil(64) * c)
                    .numbers(&[t as f64, c as f64, r as f64]);
                op.check(&[dkv_a.clone(), dgain.clone()]);
            }
        }
    }
}
