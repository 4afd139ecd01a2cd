//! reduceSum: y = scale * sum of x        countPositive: y = number of x above zero
//!
//! contract   tensor/ops/reduce.ts
//! layout     x a vector of n numbers, y one f32
//! dtype      reduceSum f32; countPositive i32
//! limits     n = 0 gives 0
//! why so     chunks of 4096 elements, 64 lanes each, and the chunks' sums added in index order as doubles:
//!            the result does not depend on who sums which chunk

use crate::args::Args;
use crate::error::KernelError;
use crate::ops::Ctx;
use crate::pool::{Disjoint, Pool};
use crate::{by_isa, isa_twins, math};

/// Elements of one chunk; a constant of the format, never tuned.
pub const CHUNK: usize = 4096;
/// Most chunks of a task: some 10 us where memory is what counts.
const CHUNKS_PER_TASK: usize = 8;
/// Tasks that a thread gets at the least of a short vector: two tasks for two threads end when the longer one does.
const SHARES: usize = 4;

/// Adds the partial sums of all chunks of `n` elements: `partial(start, len)` gives one chunk's.
pub fn chunked_sum(pool: &Pool, n: usize, partial: &(dyn Fn(usize, usize) -> f32 + Sync)) -> f64 {
    let chunks = n.div_ceil(CHUNK);
    let mut partials = vec![0.0f32; chunks];
    let parts = Disjoint::new(&mut partials);
    let per_task = (chunks / (SHARES * pool.threads())).clamp(1, CHUNKS_PER_TASK);
    pool.run(chunks.div_ceil(per_task), &|task, _| {
        let first = task * per_task;
        let count = per_task.min(chunks - first);
        // SAFETY: each task has chunks of its own.
        let mine = unsafe { parts.part(first, count) };
        for (i, sum) in mine.iter_mut().enumerate() {
            let start = (first + i) * CHUNK;
            *sum = partial(start, CHUNK.min(n - start));
        }
    });
    partials.iter().fold(0.0, |total, sum| total + *sum as f64)
}

isa_twins! {
    fn sum_chunk(x: &[f32]) -> f32 {
        math::sum(x)
    }
}

isa_twins! {
    fn count_chunk(x: &[i32]) -> f32 {
        let mut count = 0u32;
        for v in x {
            count += u32::from(*v > 0);
        }
        count as f32
    }
}

pub fn reduce_sum(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let x = a.f32s("x")?;
    let y = a.f32s("y")?;
    let n = a.usize("n")?;
    let scale = a.f64("scale")?;
    a.end()?;
    let (x, y) = (x.f32s(n)?, y.f32s_mut(1)?);
    let sum = chunked_sum(ctx.pool, n, &|start, len| {
        by_isa!(ctx.isa, sum_chunk(&x[start..start + len]))
    });
    y[0] = (scale * sum) as f32;
    Ok(())
}

pub fn count_positive(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let x = a.i32s("x")?;
    let y = a.f32s("y")?;
    let n = a.usize("n")?;
    a.end()?;
    let (x, y) = (x.i32s(n)?, y.f32s_mut(1)?);
    // At most 4096 a chunk: exact in f32.
    let count = chunked_sum(ctx.pool, n, &|start, len| {
        by_isa!(ctx.isa, count_chunk(&x[start..start + len]))
    });
    y[0] = count as f32;
    Ok(())
}
