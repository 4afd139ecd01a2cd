// swiglu: y[r, i] = silu(x[r, i]) * x[r, F + i]; and its gradient
//
// contract   src/tensor/ops/swiglu.ts           (references, gradient, tolerance)
// layout     x [R, 2F]: F gates, then F values; y [R, F]
// dtype      f32 or bf16 each; arithmetic f32, exp as in math.rs, true division
// limits     any F, R = 0 legal; nothing in place
// tiling     rows of about 32768 numbers per task
// why so     the backward pass computes the sigmoid anew: cheaper than a third array through memory
// versions   v1 (this file)

use super::rows::{Out, for_rows, require_apart};
use crate::args::{Args, Floats};
use crate::bf16::Element;
use crate::error::KernelError;
use crate::math::{sigmoid, silu};
use crate::ops::Ctx;
use crate::{by_isa, isa_twins, with_floats, with_floats_mut};

struct Forward<'a> {
    x: Floats<'a>,
    y: Out<'a>,
    f: usize,
}

pub fn forward(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (x, y) = (a.floats("x")?, a.floats("y")?);
    let (r, f) = (a.usize("R")?, a.usize("F")?);
    a.end()?;
    require_apart(&y, [&x])?;
    let job = Forward {
        x: x.slice(2 * r * f)?,
        y: Out::new(y.slice_mut(r * f)?),
        f,
    };
    for_rows(ctx.pool, r, 2 * f, |from, to, _| {
        by_isa!(ctx.isa, forward_rows(&job, from, to));
    });
    Ok(())
}

isa_twins! {
    fn forward_rows(job: &Forward<'_>, from: usize, to: usize) {
        let f = job.f;
        for r in from..to {
            // SAFETY: row r belongs to this task.
            let y = unsafe { job.y.part(r * f, f) };
            with_floats!(job.x.range(2 * r * f, 2 * f), |x| with_floats_mut!(y, |y| gate_row(x, y)));
        }
    }
}

#[inline(always)]
fn gate_row<X: Element, Y: Element>(x: &[X], y: &mut [Y]) {
    let f = y.len();
    let (gate, up) = x.split_at(f);
    let up = &up[..f];
    for i in 0..f {
        y[i] = Y::from_f32(silu(gate[i].to_f32()) * up[i].to_f32());
    }
}

struct Backward<'a> {
    dy: Floats<'a>,
    x: Floats<'a>,
    dx: Out<'a>,
    f: usize,
}

pub fn backward(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (dy, x, dx) = (a.floats("dy")?, a.floats("x")?, a.floats("dx")?);
    let (r, f) = (a.usize("R")?, a.usize("F")?);
    a.end()?;
    require_apart(&dx, [&dy, &x])?;
    let job = Backward {
        dy: dy.slice(r * f)?,
        x: x.slice(2 * r * f)?,
        dx: Out::new(dx.slice_mut(2 * r * f)?),
        f,
    };
    for_rows(ctx.pool, r, 2 * f, |from, to, _| {
        by_isa!(ctx.isa, backward_rows(&job, from, to));
    });
    Ok(())
}

isa_twins! {
    fn backward_rows(job: &Backward<'_>, from: usize, to: usize) {
        let f = job.f;
        for r in from..to {
            let (dy, x) = (job.dy.range(r * f, f), job.x.range(2 * r * f, 2 * f));
            // SAFETY: row r belongs to this task.
            let dx = unsafe { job.dx.part(2 * r * f, 2 * f) };
            with_floats!(dy, |dy| with_floats!(x, |x| with_floats_mut!(dx, |dx| gate_row_grad(dy, x, dx))));
        }
    }
}

#[inline(always)]
fn gate_row_grad<G: Element, X: Element, D: Element>(dy: &[G], x: &[X], dx: &mut [D]) {
    let f = dy.len();
    let (gate, up) = x.split_at(f);
    let (dgate, dup) = dx.split_at_mut(f);
    let (up, dup) = (&up[..f], &mut dup[..f]);
    for i in 0..f {
        let (dy, gate) = (dy[i].to_f32(), gate[i].to_f32());
        let s = sigmoid(gate);
        // silu' = s + gate s (1 - s)
        dgate[i] = D::from_f32(dy * up[i].to_f32() * (s * (1.0 + gate * (1.0 - s))));
        dup[i] = D::from_f32(dy * (gate * s));
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{Op, dtypes, numbers};

    const SIZES: [(usize, usize); 5] = [(0, 3), (1, 1), (7, 40), (5, 129), (300, 96)];

    /// Gates between -16 and 16, where the sigmoid saturates on both sides.
    fn inputs(r: usize, f: usize) -> Vec<f32> {
        let x = numbers(2 * r * f, 1);
        x.iter()
            .enumerate()
            .map(|(i, v)| if i / f.max(1) % 2 == 0 { 8.0 * v } else { *v })
            .collect()
    }

    fn sigmoid(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    #[test]
    fn forward_equals_silu_of_the_gate_times_the_value() {
        for (r, f) in SIZES {
            let x = inputs(r, f);
            let at = |row: usize, i: usize| x[row * 2 * f + i] as f64;
            let y: Vec<f64> = (0..r * f)
                .map(|i| (i / f, i % f))
                .map(|(row, i)| at(row, i) * sigmoid(at(row, i)) * at(row, f + i))
                .collect();
            for b in dtypes(2) {
                let op = Op::new("swiglu").given(&x, b[0]).wanted(r * f, b[1]);
                op.numbers(&[r as f64, f as f64]).check(&[y.clone()]);
            }
        }
    }

    #[test]
    fn backward_equals_the_derivatives_of_both_factors() {
        for (r, f) in SIZES {
            let (x, dy) = (inputs(r, f), numbers(r * f, 2));
            let dx: Vec<f64> = (0..2 * r * f)
                .map(|i| (i / (2 * f), i % (2 * f)))
                .map(|(row, i)| {
                    let (gate, up) = (x[row * 2 * f + i % f] as f64, x[row * 2 * f + f + i % f] as f64);
                    let (g, s) = (dy[row * f + i % f] as f64, sigmoid(gate));
                    if i < f {
                        g * up * (s + gate * s * (1.0 - s))
                    } else {
                        g * gate * s
                    }
                })
                .collect();
            for b in dtypes(3) {
                let op = Op::new("swigluBackward")
                    .given(&dy, b[0])
                    .given(&x, b[1])
                    .wanted(2 * r * f, b[2]);
                op.numbers(&[r as f64, f as f64]).check(&[dx.clone()]);
            }
        }
    }

    #[test]
    fn gates_of_any_size_give_finite_results() {
        let x = [
            -1e30, -200.0, -88.0, 0.0, 88.0, 200.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0,
        ];
        let y = &Op::new("swiglu")
            .given(&x, false)
            .wanted(6, false)
            .numbers(&[1.0, 6.0])
            .same_everywhere()[0];
        assert_eq!(y[..2], [0.0, 0.0]);
        assert_eq!(y[3..], [0.0, 88.0, 200.0]);
        let op = Op::new("swigluBackward")
            .given(&[1.0; 6], false)
            .given(&x, false)
            .wanted(12, false);
        let dx = &op.numbers(&[1.0, 6.0]).same_everywhere()[0];
        assert!(dx.iter().all(|v| v.is_finite()));
        assert_eq!((dx[0], dx[5], dx[3]), (0.0, 1.0, 0.5));
    }
}
