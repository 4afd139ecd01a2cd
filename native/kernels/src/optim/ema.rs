//! ema: ema += (1 - decay) (w - ema)
//!
//! contract   tensor/ops/ema.ts
//! layout     two vectors of n numbers
//! dtype      each f32 or bf16; arithmetic f32
//! limits     n = 0 is legal
//! why so     written as a step towards w, so that weights that stand still are a fixed point exactly

use crate::args::{Args, Floats, FloatsMut};
use crate::bf16::Element;
use crate::error::KernelError;
use crate::ops::Ctx;
use crate::pool::Disjoint;
use crate::{by_isa, isa_twins, with_floats, with_floats_mut};

/// Numbers per task; about 10 us.
const CHUNK: usize = 32_768;

isa_twins! {
    fn approach<E: Element, W: Element>(ema: &mut [E], w: &[W], rate: f32) {
        for i in 0..ema.len() {
            let before = ema[i].to_f32();
            ema[i] = E::from_f32(rate.mul_add(w[i].to_f32() - before, before));
        }
    }
}

pub fn ema(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let ema = a.floats("ema")?;
    let w = a.floats("w")?;
    let n = a.usize("n")?;
    let decay = a.f64("decay")?;
    a.end()?;
    if !(0.0..=1.0).contains(&decay) {
        return Err(KernelError::new(
            "decay",
            format!("{decay} does not lie between 0 and 1"),
        ));
    }
    let (ema, w): (FloatsMut, Floats) = (ema.slice_mut(n)?, w.slice(n)?);
    let rate = (1.0 - decay) as f32;
    with_floats_mut!(ema, |ema| with_floats!(w, |w| {
        let ema = Disjoint::new(ema);
        ctx.pool.run(n.div_ceil(CHUNK), &|task, _| {
            let start = task * CHUNK;
            let len = CHUNK.min(n - start);
            // SAFETY: each task has a chunk of its own.
            let part = unsafe { ema.part(start, len) };
            by_isa!(ctx.isa, approach(part, &w[start..start + len], rate));
        });
    }));
    Ok(())
}
