//! absMax: y = max |x|, NaN if any number is NaN or infinite
//!
//! contract   src/tensor/ops/fp8/absMax.ts
//! dtype      x f32 or bf16; y f32
//! limits     n = 0 gives 0
//! tiling     32768 numbers per task, joined by an atomic maximum of bits: a maximum has no order
//! why so     bits of magnitudes order like the numbers, so that NaN is never passed over
//! versions   v1 (this file)

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::codec::greatest_bits;
use crate::args::Args;
use crate::bf16::Element;
use crate::error::KernelError;
use crate::ops::Ctx;
use crate::pointwise::rows::for_rows;
use crate::{by_isa, isa_twins, with_floats};

/// x, y; n
pub fn abs_max(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (x, y) = (a.floats("x")?, a.f32s("y")?);
    let n = a.usize("n")?;
    a.end()?;
    let (x, y) = (x.slice(n)?, y.f32s_mut(1)?);
    let greatest = AtomicU32::new(0);
    for_rows(ctx.pool, n, 1, |from, to, _| {
        with_floats!(x.range(from, to - from), |x| {
            greatest.fetch_max(by_isa!(ctx.isa, greatest_of(x)), Relaxed);
        });
    });
    let greatest = f32::from_bits(greatest.into_inner());
    y[0] = if greatest.is_finite() { greatest } else { f32::NAN };
    Ok(())
}

isa_twins! {
    fn greatest_of<T: Element>(x: &[T]) -> u32 {
        greatest_bits(x, 0)
    }
}
