//! sumSquares: partial = sum of x^2        gradNorm: norm = sqrt(sum of partials)
//!
//! contract   tensor/ops/gradNorm.ts
//! layout     x a vector of n numbers; partials [P]; results one f32 each
//! dtype      x f32 or bf16; lanes f32, sums of chunks f64
//! limits     n = 0 and P = 0 give 0; NaN and infinity propagate, and so does a square beyond f32
//! why so     fixed chunks in index order (loss/reduce.rs): the norm decides the clipping of every weight, so
//!            one bit here would be seen in all of them

use crate::args::Args;
use crate::bf16::Element;
use crate::error::KernelError;
use crate::loss::chunked_sum;
use crate::ops::Ctx;
use crate::{by_isa, isa_twins, math, with_floats};

isa_twins! {
    fn squares<E: Element>(x: &[E]) -> f32 {
        math::dot_of(x.len(), |i| x[i].to_f32(), |i| x[i].to_f32())
    }
}

pub fn sum_squares(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let x = a.floats("x")?;
    let partial = a.f32s("partial")?;
    let n = a.usize("n")?;
    a.end()?;
    let (x, partial) = (x.slice(n)?, partial.f32s_mut(1)?);
    let sum = with_floats!(x, |x| chunked_sum(ctx.pool, n, &|start, len| {
        by_isa!(ctx.isa, squares(&x[start..start + len]))
    }));
    partial[0] = sum as f32;
    Ok(())
}

pub fn grad_norm(_ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let partials = a.f32s("partials")?;
    let norm = a.f32s("norm")?;
    let count = a.usize("P")?;
    a.end()?;
    let (partials, norm) = (partials.f32s(count)?, norm.f32s_mut(1)?);
    let sum = partials.iter().fold(0.0, |total, p| total + *p as f64);
    norm[0] = sum.sqrt() as f32;
    Ok(())
}
