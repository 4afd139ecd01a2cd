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
mod tests {
    use super::super::testing::{Arena, Operand, Random, same_on_all_paths};
    use crate::bf16;
    use crate::math::dot;

    struct Problem {
        k: usize,
        f: usize,
        rows: Vec<i32>,
        weights: Vec<f32>,
        d_hidden: Vec<f32>,
        hidden: Vec<f32>,
    }

    /// bf16 values, so that both storages hold them exactly.
    fn problem(tokens: usize, k: usize, f: usize) -> Problem {
        let mut random = Random::new((tokens + 100 * f) as u64);
        let mut rows: Vec<i32> = (0..(tokens * k) as i32).collect();
        for i in (1..rows.len()).rev() {
            rows.swap(i, random.below(i + 1));
        }
        let mut values =
            |n: usize| -> Vec<f32> { random.normals(n, 1.0).into_iter().map(bf16::round).collect() };
        Problem {
            k,
            f,
            rows,
            weights: values(tokens * k),
            d_hidden: values(tokens * k * f),
            hidden: values(tokens * k * f),
        }
    }

    impl Problem {
        fn numbers(&self) -> [f64; 3] {
            [self.rows.len() / self.k, self.k, self.f].map(|n| n as f64)
        }
    }

    const SIZES: [(usize, usize, usize); 6] = [
        (1, 1, 1),
        (3, 2, 63),
        (100, 4, 64),
        (50, 8, 65),
        (7, 3, 1000),
        (0, 2, 8),
    ];

    fn float(arena: &mut Arena, x: &[f32], half: bool) -> Operand {
        if half { arena.put_bf16(x) } else { arena.put(x) }
    }

    fn rounded(x: f32, half: bool) -> f32 {
        if half { bf16::round(x) } else { x }
    }

    #[test]
    fn weights_get_the_dot_product_in_lane_order_and_rows_are_weighed_after_it() {
        for (tokens, k, f) in SIZES {
            let p = problem(tokens, k, f);
            for (half, half_hidden) in [(false, false), (true, true), (true, false), (false, true)] {
                let (d, dw) = same_on_all_paths(|ctx| {
                    let mut arena = Arena::new();
                    let d = float(&mut arena, &p.d_hidden, half);
                    let hidden = float(&mut arena, &p.hidden, half_hidden);
                    let (rows, weights) = (arena.put_i32(&p.rows), arena.put(&p.weights));
                    let dw = arena.garbage(p.rows.len());
                    arena
                        .run(
                            ctx,
                            super::backward,
                            &[d, hidden, rows, weights, dw, Arena::ABSENT],
                            &p.numbers(),
                        )
                        .unwrap();
                    (arena.f32s(d), arena.f32s(dw))
                });
                for slot in 0..tokens * k {
                    let row = p.rows[slot] as usize * f;
                    let (g, hidden) = (&p.d_hidden[row..row + f], &p.hidden[row..row + f]);
                    assert_eq!(dw[slot].to_bits(), dot(g, hidden).to_bits(), "dWeights {slot}");
                    let exact: f64 = g.iter().zip(hidden).map(|(a, b)| *a as f64 * *b as f64).sum();
                    let size: f64 = g
                        .iter()
                        .zip(hidden)
                        .map(|(a, b)| (*a as f64 * *b as f64).abs())
                        .sum();
                    assert!((dw[slot] as f64 - exact).abs() <= 1e-6 * size);
                    let weighed: Vec<f32> = g.iter().map(|g| rounded(p.weights[slot] * g, half)).collect();
                    assert_eq!(d[row..row + f], weighed, "dHidden of slot {slot}");
                }
            }
        }
    }

    #[test]
    fn rows_are_weighed_by_their_own_slot() {
        for (tokens, k, f) in SIZES {
            let p = problem(tokens, k, f);
            for (half, half_y) in [(false, false), (true, true), (true, false), (false, true)] {
                let y = same_on_all_paths(|ctx| {
                    let mut arena = Arena::new();
                    let x = float(&mut arena, &p.hidden, half);
                    let (rows, weights) = (arena.put_i32(&p.rows), arena.put(&p.weights));
                    let y = if half_y {
                        arena.garbage_bf16(p.hidden.len())
                    } else {
                        arena.garbage(p.hidden.len())
                    };
                    arena
                        .run(
                            ctx,
                            super::weigh,
                            &[x, rows, weights, y, Arena::ABSENT],
                            &p.numbers(),
                        )
                        .unwrap();
                    arena.f32s(y)
                });
                for slot in 0..tokens * k {
                    let row = p.rows[slot] as usize * f;
                    for i in row..row + f {
                        assert_eq!(y[i], rounded(p.weights[slot] * p.hidden[i], half_y));
                    }
                }
            }
        }
    }

    #[test]
    fn rows_that_are_no_permutation_are_refused_by_both() {
        for (rows, message) in [
            ([0, 0], "row 0 is named twice"),
            ([0, 2], "2 is no row of 2"),
            ([-1, 0], "-1 is no row of 2"),
        ] {
            let mut arena = Arena::new();
            let (d, hidden, w) = (arena.garbage(8), arena.garbage(8), arena.garbage(2));
            let (rows, dw) = (arena.put_i32(&rows), arena.garbage(2));
            let numbers = [1.0, 2.0, 4.0];
            let errors = same_on_all_paths(|ctx| {
                [
                    arena
                        .run(
                            ctx,
                            super::backward,
                            &[d, hidden, rows, w, dw, Arena::ABSENT],
                            &numbers,
                        )
                        .unwrap_err()
                        .message,
                    arena
                        .run(ctx, super::weigh, &[hidden, rows, w, d, Arena::ABSENT], &numbers)
                        .unwrap_err()
                        .message,
                ]
            });
            assert_eq!(errors, [message, message]);
        }
    }

    #[test]
    fn without_slots_rows_are_weighed_in_order_up_to_the_count() {
        let p = problem(5, 1, 33);
        let numbers = p.numbers();
        let (d, dw, y) = same_on_all_paths(|ctx| {
            let mut arena = Arena::new();
            let (d, hidden) = (arena.put(&p.d_hidden), arena.put(&p.hidden));
            let (weights, count) = (arena.put(&p.weights), arena.put_i32(&[3]));
            let (dw, y) = (arena.put(&[7.0; 5]), arena.put(&[7.0; 5 * 33]));
            let absent = Arena::ABSENT;
            let back = [d, hidden, absent, weights, dw, count];
            arena.run(ctx, super::backward, &back, &numbers).unwrap();
            let weigh = [hidden, absent, weights, y, count];
            arena.run(ctx, super::weigh, &weigh, &numbers).unwrap();
            (arena.f32s(d), arena.f32s(dw), arena.f32s(y))
        });
        for slot in 0..5 {
            let row = slot * 33..(slot + 1) * 33;
            let (g, hidden) = (&p.d_hidden[row.clone()], &p.hidden[row.clone()]);
            if slot < 3 {
                assert_eq!(dw[slot].to_bits(), dot(g, hidden).to_bits());
                assert!(
                    d[row.clone()]
                        .iter()
                        .zip(g)
                        .all(|(d, g)| *d == p.weights[slot] * g)
                );
                assert!(y[row].iter().zip(hidden).all(|(y, h)| *y == p.weights[slot] * h));
            } else {
                assert_eq!((dw[slot], &d[row.clone()], &y[row]), (7.0, g, &[7.0; 33][..]));
            }
        }
    }
}
