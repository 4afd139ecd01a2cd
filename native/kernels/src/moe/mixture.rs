//! What the mixture of experts asks of its hidden rows on the way back, row by row of the slots:
//! mixtureBackward: dWeights[slot] = dHidden[row] . hidden[row]; then dHidden[row] *= weight
//! weighRows:       y[row of slot] = weight * x[row]
//!
//! contract   tensor/ops/moe/mixture.ts
//! layout     hidden, x, y [T * K, F]; dHidden [T * K, F] unweighted, in place · slotRow, weights, dWeights [T, K]; without slotRow
//!            slots are rows, and those behind `count` are neither read nor written
//! dtype      rows f32 or bf16 each; dot products f32 over 64 virtual lanes
//! limits     slotRow must be a permutation: checked, because tasks write the rows it names
//! tiling     about 20 us of tokens per task
//! why so     dy . (W h) = (W^T dy) . h: the gate's gradient is taken where rows are F wide instead of D, and no expert's answer is
//!            kept for it or computed again
//! versions   v1 combineBackward: dy . answer, over kept or recomputed answers · v2 (this file)

use super::tokens_per_task;
use crate::args::{Args, Floats, Operand};
use crate::attention::vector::{Stored, Vector, WIDTH, vector_twins};
use crate::error::KernelError;
use crate::math::LANES;
use crate::ops::Ctx;
use crate::pointwise::rows::{Out, count_rows};
use crate::pointwise::vectors::{Sums, put_at, take_at, total};
use crate::pool::Disjoint;
use crate::{with_floats, with_floats_mut};

/// Which row belongs to each slot, and how much it counts.
struct Slots<'a> {
    /// None: the slots are the rows.
    rows: Option<&'a [i32]>,
    weights: &'a [f32],
    width: usize,
}

impl<'a> Slots<'a> {
    /// Takes slotRow and weights of `slots` slots; rows must be a permutation.
    fn take(
        rows: Option<Operand<'a>>,
        weights: &Operand<'a>,
        slots: usize,
        width: usize,
    ) -> Result<Slots<'a>, KernelError> {
        Ok(Slots {
            rows: rows.map(|rows| permutation(rows.i32s(slots)?)).transpose()?,
            weights: weights.f32s(slots)?,
            width,
        })
    }

    /// The first element of the row of a slot.
    #[inline(always)]
    fn start(&self, slot: usize) -> usize {
        self.rows.map_or(slot, |rows| rows[slot] as usize) * self.width
    }

    /// Calls `work(from, to)` for ranges that cover all slots, whole tokens of `top_k` slots each.
    fn run(&self, ctx: &Ctx, top_k: usize, work: impl Fn(usize, usize) + Sync) {
        let count = self.weights.len();
        let chunk = top_k.max(1) * tokens_per_task(top_k * (self.width / 6 + 10));
        ctx.pool.run(count.div_ceil(chunk), &|task, _| {
            work(task * chunk, count.min((task + 1) * chunk));
        });
    }
}

/// The op: dHidden, hidden, slotRow?, weights, dWeights, count?; T, K, F.
pub fn backward(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (d_hidden, hidden) = (a.floats("dHidden")?, a.floats("hidden")?);
    let (rows, weights, d_weights) = (
        a.i32s_optional("slotRow")?,
        a.f32s("weights")?,
        a.f32s("dWeights")?,
    );
    let count = a.i32s_optional("count")?;
    let (t, k, f) = (a.usize("T")?, a.usize("K")?, a.usize("F")?);
    a.end()?;
    let slots = count_rows(count, t * k)?;
    let job = Backward {
        slots: Slots::take(rows, &weights, slots, f)?,
        hidden: hidden.slice(slots * f)?,
        d_hidden: Out::new(d_hidden.slice_mut(slots * f)?),
        d_weights: Disjoint::new(d_weights.f32s_mut(slots)?),
    };
    job.slots.run(ctx, k, |from, to| {
        // SAFETY: the set is usable, and each slot is in one task.
        unsafe { backward_twins::call(ctx.isa, &job, from, to) };
    });
    Ok(())
}

/// The op: x, slotRow?, weights, y, count?; T, K, F.
pub fn weigh(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (x, rows, weights, y) = (
        a.floats("x")?,
        a.i32s_optional("slotRow")?,
        a.f32s("weights")?,
        a.floats("y")?,
    );
    let count = a.i32s_optional("count")?;
    let (t, k, f) = (a.usize("T")?, a.usize("K")?, a.usize("F")?);
    a.end()?;
    let slots = count_rows(count, t * k)?;
    let job = Weigh {
        slots: Slots::take(rows, &weights, slots, f)?,
        x: x.slice(slots * f)?,
        y: Out::new(y.slice_mut(slots * f)?),
    };
    job.slots.run(ctx, k, |from, to| {
        // SAFETY: the set is usable, and each slot is in one task.
        unsafe { weigh_twins::call(ctx.isa, &job, from, to) };
    });
    Ok(())
}

/// Refuses rows that are not 0..rows.len(), each once.
fn permutation(rows: &[i32]) -> Result<&[i32], KernelError> {
    let mut seen = vec![false; rows.len()];
    for row in rows {
        match seen.get_mut(*row as u32 as usize) {
            Some(seen) if !*seen => *seen = true,
            Some(_) => return Err(KernelError::new("slotRow", format!("row {row} is named twice"))),
            None => {
                return Err(KernelError::new(
                    "slotRow",
                    format!("{row} is no row of {}", rows.len()),
                ));
            }
        }
    }
    Ok(rows)
}

struct Backward<'a> {
    slots: Slots<'a>,
    hidden: Floats<'a>,
    d_hidden: Out<'a>,
    d_weights: Disjoint<'a, f32>,
}

#[inline(always)]
unsafe fn backward_rows<V: Vector, const M: usize, const N: usize>(job: &Backward, from: usize, to: usize) {
    let f = job.slots.width;
    for slot in from..to {
        let row = job.slots.start(slot);
        let weight = job.slots.weights[slot];
        with_floats!(job.hidden.range(row, f), |hidden| {
            // SAFETY: V is usable; rows are a permutation and each slot is in one task: nobody else has this row.
            unsafe {
                let dot = with_floats_mut!(job.d_hidden.part(row, f), |d| dot_and_weigh::<V, _, _>(
                    d, hidden, weight
                ));
                job.d_weights.part(slot, 1)[0] = dot;
            }
        });
    }
}

/// The dot product of d and hidden, summed over virtual lanes; d *= weight.
#[inline(always)]
unsafe fn dot_and_weigh<V: Vector, D: Stored, H: Stored>(d: &mut [D], hidden: &[H], weight: f32) -> f32 {
    let width = d.len();
    assert!(hidden.len() == width);
    let mut sums: Sums<V> = [V::zero(); LANES / WIDTH];
    let whole = width / LANES * LANES;
    // SAFETY: V is usable; rows are of one width, and vectors below `whole` lie in them.
    unsafe {
        for start in (0..whole).step_by(LANES) {
            for g in 0..LANES / WIDTH {
                dot_at::<V, D, H, true>(d, hidden, weight, start + g * WIDTH, &mut sums[g]);
            }
        }
        for (g, i) in (whole..width).step_by(WIDTH).enumerate() {
            dot_at::<V, D, H, false>(d, hidden, weight, i, &mut sums[g]);
        }
        total(sums)
    }
}

#[inline(always)]
unsafe fn dot_at<V: Vector, D: Stored, H: Stored, const WHOLE: bool>(
    d: &mut [D],
    hidden: &[H],
    weight: f32,
    i: usize,
    sum: &mut V,
) {
    // SAFETY: by the caller's word.
    unsafe {
        let g = take_at::<V, D, WHOLE>(d, i);
        *sum = g.mul_add(take_at::<V, H, WHOLE>(hidden, i), *sum);
        put_at::<V, D, WHOLE>(V::splat(weight).mul(g), d, i);
    }
}

struct Weigh<'a> {
    slots: Slots<'a>,
    x: Floats<'a>,
    y: Out<'a>,
}

#[inline(always)]
unsafe fn weigh_rows<V: Vector, const M: usize, const N: usize>(job: &Weigh, from: usize, to: usize) {
    let f = job.slots.width;
    for slot in from..to {
        let row = job.slots.start(slot);
        let weight = job.slots.weights[slot];
        with_floats!(job.x.range(row, f), |x| {
            // SAFETY: as in `backward_rows`.
            unsafe { with_floats_mut!(job.y.part(row, f), |y| weigh_row::<V, _, _>(x, weight, y)) }
        });
    }
}

#[inline(always)]
unsafe fn weigh_row<V: Vector, X: Stored, Y: Stored>(x: &[X], weight: f32, y: &mut [Y]) {
    assert!(x.len() == y.len());
    let whole = y.len() / WIDTH * WIDTH;
    // SAFETY: V is usable; rows are of one width, and whole vectors lie in them.
    unsafe {
        for i in (0..whole).step_by(WIDTH) {
            put_at::<V, Y, true>(V::splat(weight).mul(take_at::<V, X, true>(x, i)), y, i);
        }
        if whole < y.len() {
            put_at::<V, Y, false>(V::splat(weight).mul(take_at::<V, X, false>(x, whole)), y, whole);
        }
    }
}

vector_twins! {
    mod backward_twins = backward_rows(job: &Backward<'_>, from: usize, to: usize)
}

vector_twins! {
    mod weigh_twins = weigh_rows(job: &Weigh<'_>, from: usize, to: usize)
}

#[cfg(test)]
mod tests;
