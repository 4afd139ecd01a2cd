//! combine: y[t, :] = sum over expert groups of (sum over the group's slots of weight * x[row of slot]) + shared[t]
//!
//! contract   tensor/ops/combine.ts
//! layout     x [T * K, D] · slotRow, expertIds, weights [T, K] · shared, y [T, D]
//! dtype      x, shared, y f32 or bf16 each; sums f32; one rounding at the store
//! limits     slot rows outside x are refused before anything is written; -1 ends a token's slots; without expertIds all slots
//!            are one group; tokens behind `count` are neither read nor written
//! order      one FMA chain per group over its slots ascending, groups added ascending, then shared
//! tiling     about 20 us of tokens per task; 1024 columns at a time, so that the sums stay in the first cache
//! why so     up to four rows stream through one loop: each is read once and the sum is loaded once per group
//! measured   one thread of an AVX-512 Xeon, 2048 x 4 rows of 256, all bf16: 285 us, 22 GB/s
//! versions   v1 (this file)

use super::tokens_per_task;
use crate::args::{Args, Floats, FloatsMut};
use crate::bf16::Element;
use crate::error::KernelError;
use crate::ops::Ctx;
use crate::pointwise::rows::count_rows;
use crate::pool::{Disjoint, Scratch};
use crate::{by_isa, isa_twins, with_floats, with_floats_mut};

/// Columns summed at a time.
const BLOCK: usize = 1024;
/// Rows that one loop reads side by side.
const STREAMS: usize = 4;

struct Slots<'a> {
    rows: &'a [i32],
    ids: Option<&'a [i32]>,
    weights: Option<&'a [f32]>,
    top_k: usize,
    width: usize,
    group_size: usize,
}

/// The op: x, slotRow, expertIds?, weights?, shared?, y, count?; T, K, D, R, groupSize.
pub fn op(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (x, rows, ids) = (a.floats("x")?, a.i32s("slotRow")?, a.i32s_optional("expertIds")?);
    let (weights, shared) = (a.f32s_optional("weights")?, a.floats_optional("shared")?);
    let (y, count) = (a.floats("y")?, a.i32s_optional("count")?);
    let (tokens, k, d) = (a.usize("T")?, a.usize("K")?, a.usize("D")?);
    let x_rows = a.usize("R")?;
    let group_size = a.usize("groupSize")?;
    a.end()?;
    if group_size == 0 {
        return Err(KernelError::new(
            "groupSize",
            "is 0, a group has at least one expert",
        ));
    }
    let tokens = count_rows(count, tokens)?;
    let slots = Slots {
        rows: rows.i32s(tokens * k)?,
        ids: ids.map(|ids| ids.i32s(tokens * k)).transpose()?,
        weights: weights.map(|w| w.f32s(tokens * k)).transpose()?,
        top_k: k,
        width: d,
        group_size,
    };
    check_rows(slots.rows, x_rows)?;
    let shared = shared.map(|s| s.slice(tokens * d)).transpose()?;
    let y = y.slice_mut(tokens * d)?;
    with_floats!(x.slice(x_rows * d)?, |x| run(ctx, &slots, x, shared, y));
    Ok(())
}

/// Refuses rows that are neither -1 nor among the `count` of x.
fn check_rows(rows: &[i32], count: usize) -> Result<(), KernelError> {
    match rows
        .iter()
        .find(|row| **row < -1 || **row >= 0 && **row as usize >= count)
    {
        None => Ok(()),
        Some(bad) => Err(KernelError::new("slotRow", format!("{bad} is no row of {count}"))),
    }
}

fn run<X: Element>(ctx: &Ctx, slots: &Slots, x: &[X], shared: Option<Floats>, y: FloatsMut) {
    let d = slots.width;
    let tokens = y.len() / d.max(1);
    // One element of one row takes about a twentieth of a nanosecond, from memory twice that.
    let chunk = tokens_per_task((slots.top_k + 2) * d / 10 + 10);
    with_floats_mut!(y, |y| {
        let y = Disjoint::new(y);
        ctx.pool.run(tokens.div_ceil(chunk), &|task, scratch| {
            for t in task * chunk..tokens.min((task + 1) * chunk) {
                for from in (0..d).step_by(BLOCK) {
                    let len = BLOCK.min(d - from);
                    let total = sum_slots(ctx, slots, x, t, from, len, scratch);
                    // SAFETY: each token is in one task.
                    let y = unsafe { y.part(t * d + from, len) };
                    match shared {
                        None => by_isa!(ctx.isa, store(total, y)),
                        Some(shared) => with_floats!(shared.range(t * d + from, len), |shared| by_isa!(
                            ctx.isa,
                            add_store(total, shared, y)
                        )),
                    }
                }
            }
        });
    });
}

/// Columns `from..from + len` of token `t`, summed over its slots in the law's order.
fn sum_slots<'s, X: Element>(
    ctx: &Ctx,
    slots: &Slots,
    x: &[X],
    t: usize,
    from: usize,
    len: usize,
    scratch: &'s mut Scratch,
) -> &'s [f32] {
    let (total, sum) = scratch.f32(2 * BLOCK).split_at_mut(BLOCK);
    let (total, sum) = (&mut total[..len], &mut sum[..len]);
    let group_of = |slot: usize| slots.ids.map_or(0, |ids| ids[slot] as usize / slots.group_size);
    let mut slot = t * slots.top_k;
    let own = &slots.rows[slot..slot + slots.top_k];
    let end = slot + own.iter().position(|row| *row < 0).unwrap_or(slots.top_k);
    if slot == end {
        total.fill(0.0);
    }
    while slot < end {
        let group = group_of(slot);
        let first = slot == t * slots.top_k;
        let mut next = slot + 1;
        while next < end && group_of(next) == group {
            next += 1;
        }
        // A short group goes straight onto the total, a long one through a sum of its own.
        let direct = !first && next - slot <= STREAMS;
        let into = if first || direct { &mut *total } else { &mut *sum };
        let mut mode = if direct { Mode::Add } else { Mode::Start };
        while slot < next {
            let n = STREAMS.min(next - slot);
            let mut rows: [&[X]; STREAMS] = [&[]; STREAMS];
            let mut weights = [1.0; STREAMS];
            for i in 0..n {
                let start = slots.rows[slot + i] as usize * slots.width + from;
                rows[i] = &x[start..start + len];
                weights[i] = slots.weights.map_or(1.0, |w| w[slot + i]);
            }
            by_isa!(ctx.isa, add_rows(&rows[..n], &weights[..n], mode, into));
            mode = Mode::Continue;
            slot += n;
        }
        if !first && !direct {
            by_isa!(ctx.isa, add_sum(sum, total));
        }
    }
    total
}

/// What a chain of rows does with the sum it is given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// sum = chain
    Start,
    /// The chain begins with the sum.
    Continue,
    /// sum += chain
    Add,
}

isa_twins! {
    fn add_rows<X: Element>(rows: &[&[X]], weights: &[f32], mode: Mode, sum: &mut [f32]) {
        match (rows.len(), mode) {
            (1, Mode::Start) => chain::<X, 1, START>(rows, weights, sum),
            (2, Mode::Start) => chain::<X, 2, START>(rows, weights, sum),
            (3, Mode::Start) => chain::<X, 3, START>(rows, weights, sum),
            (4, Mode::Start) => chain::<X, 4, START>(rows, weights, sum),
            (1, Mode::Continue) => chain::<X, 1, CONTINUE>(rows, weights, sum),
            (2, Mode::Continue) => chain::<X, 2, CONTINUE>(rows, weights, sum),
            (3, Mode::Continue) => chain::<X, 3, CONTINUE>(rows, weights, sum),
            (4, Mode::Continue) => chain::<X, 4, CONTINUE>(rows, weights, sum),
            (1, Mode::Add) => chain::<X, 1, ADD>(rows, weights, sum),
            (2, Mode::Add) => chain::<X, 2, ADD>(rows, weights, sum),
            (3, Mode::Add) => chain::<X, 3, ADD>(rows, weights, sum),
            (4, Mode::Add) => chain::<X, 4, ADD>(rows, weights, sum),
            (rows, _) => unreachable!("{rows} rows at once"),
        }
    }
}

const START: u8 = 0;
const CONTINUE: u8 = 1;
const ADD: u8 = 2;

#[inline(always)]
fn chain<X: Element, const N: usize, const MODE: u8>(rows: &[&[X]], weights: &[f32], sum: &mut [f32]) {
    let len = sum.len();
    let mut streams: [&[X]; N] = [&[]; N];
    let mut w = [0.0; N];
    for i in 0..N {
        streams[i] = &rows[i][..len];
        w[i] = weights[i];
    }
    for d in 0..len {
        let mut value = if MODE == CONTINUE { sum[d] } else { 0.0 };
        for i in 0..N {
            value = streams[i][d].to_f32().mul_add(w[i], value);
        }
        sum[d] = if MODE == ADD { sum[d] + value } else { value };
    }
}

isa_twins! {
    fn add_sum(x: &[f32], sum: &mut [f32]) {
        for (x, sum) in x.iter().zip(sum) {
            *sum += *x;
        }
    }
}

isa_twins! {
    fn store<Y: Element>(x: &[f32], y: &mut [Y]) {
        for (x, y) in x.iter().zip(y) {
            *y = Y::from_f32(*x);
        }
    }
}

isa_twins! {
    fn add_store<S: Element, Y: Element>(x: &[f32], shared: &[S], y: &mut [Y]) {
        for ((x, shared), y) in x.iter().zip(shared).zip(y) {
            *y = Y::from_f32(*x + shared.to_f32());
        }
    }
}

#[cfg(test)]
mod tests;
