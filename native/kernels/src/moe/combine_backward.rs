//! combineBackward: dExpertOut[row of slot] = weight * dy[token]; dWeights[slot] = dy[token] . expertOut[row of slot]
//!
//! contract   tensor/ops/combine.ts
//! layout     dy [T, D] · expertOut, dExpertOut [T * K, D] · slotRow, weights, dWeights [T, K]
//! dtype      dy, expertOut, dExpertOut f32 or bf16 each; dot products f32 over 64 virtual lanes
//! limits     slotRow must be a permutation: checked, because tasks write the rows it names
//! tiling     about 20 us of tokens per task
//! why so     one loop per slot reads both rows, sums and writes: expertOut is read once, dy comes from the first cache
//! versions   v1 loops left to the compiler: half the time went into rounding to bf16 in whole numbers · v2 vectors
//!            (this file)

use super::tokens_per_task;
use crate::args::{Args, Floats};
use crate::attention::vector::{Stored, Vector, WIDTH, vector_twins};
use crate::error::KernelError;
use crate::math::LANES;
use crate::ops::Ctx;
use crate::pointwise::rows::Out;
use crate::pointwise::vectors::{Sums, put_at, take_at, total};
use crate::pool::Disjoint;
use crate::{with_floats, with_floats_mut};

struct Slots<'a> {
    rows: &'a [i32],
    weights: &'a [f32],
    top_k: usize,
    width: usize,
}

/// The op: dy, expertOut, slotRow, weights, dExpertOut, dWeights; T, K, D.
pub fn op(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (dy, expert_out) = (a.floats("dy")?, a.floats("expertOut")?);
    let (rows, weights) = (a.i32s("slotRow")?, a.f32s("weights")?);
    let (d_expert_out, d_weights) = (a.floats("dExpertOut")?, a.f32s("dWeights")?);
    let (tokens, k, d) = (a.usize("T")?, a.usize("K")?, a.usize("D")?);
    a.end()?;
    let slots = Slots {
        rows: rows.i32s(tokens * k)?,
        weights: weights.f32s(tokens * k)?,
        top_k: k,
        width: d,
    };
    check_permutation(slots.rows)?;
    let job = Job {
        slots,
        dy: dy.slice(tokens * d)?,
        x: expert_out.slice(tokens * k * d)?,
        dx: Out::new(d_expert_out.slice_mut(tokens * k * d)?),
        d_weights: Disjoint::new(d_weights.f32s_mut(tokens * k)?),
    };
    let chunk = tokens_per_task(k * (d / 6 + 10));
    ctx.pool.run(tokens.div_ceil(chunk), &|task, _| {
        let from = task * chunk;
        // SAFETY: the set is usable, and each token is in one task.
        unsafe { gradients_twins::call(ctx.isa, &job, from, tokens.min(from + chunk)) };
    });
    Ok(())
}

/// Refuses rows that are not 0..rows.len(), each once.
fn check_permutation(rows: &[i32]) -> Result<(), KernelError> {
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
    Ok(())
}

/// What all tasks share.
struct Job<'a> {
    slots: Slots<'a>,
    dy: Floats<'a>,
    x: Floats<'a>,
    dx: Out<'a>,
    d_weights: Disjoint<'a, f32>,
}

/// One slot: the row of dExpertOut that it writes, and the weight's gradient.
struct Slot<'a, G, X, Y> {
    dy: &'a [G],
    x: &'a [X],
    weight: f32,
    dx: &'a mut [Y],
    dw: &'a mut f32,
}

/// dx = weight * dy; dw = dy . x, summed over virtual lanes.
#[inline(always)]
unsafe fn slot_gradient<V: Vector, G: Stored, X: Stored, Y: Stored>(slot: &mut Slot<G, X, Y>) {
    let width = slot.dy.len();
    assert!(slot.x.len() == width && slot.dx.len() == width);
    let mut sums: Sums<V> = [V::zero(); LANES / WIDTH];
    let whole = width / LANES * LANES;
    // SAFETY: V is usable; rows are of one width, and vectors below `whole` lie in them.
    unsafe {
        for start in (0..whole).step_by(LANES) {
            for g in 0..LANES / WIDTH {
                slot_at::<V, G, X, Y, true>(slot, start + g * WIDTH, &mut sums[g]);
            }
        }
        for (g, i) in (whole..width).step_by(WIDTH).enumerate() {
            slot_at::<V, G, X, Y, false>(slot, i, &mut sums[g]);
        }
        *slot.dw = total(sums);
    }
}

#[inline(always)]
unsafe fn slot_at<V: Vector, G: Stored, X: Stored, Y: Stored, const WHOLE: bool>(
    slot: &mut Slot<G, X, Y>,
    i: usize,
    sum: &mut V,
) {
    // SAFETY: by the caller's word.
    unsafe {
        let g = take_at::<V, G, WHOLE>(slot.dy, i);
        *sum = g.mul_add(take_at::<V, X, WHOLE>(slot.x, i), *sum);
        put_at::<V, Y, WHOLE>(V::splat(slot.weight).mul(g), slot.dx, i);
    }
}

#[inline(always)]
unsafe fn gradients<V: Vector, const M: usize, const N: usize>(job: &Job, from: usize, to: usize) {
    let (k, d) = (job.slots.top_k, job.slots.width);
    for slot in from * k..to * k {
        let (token, row) = (slot / k * d, job.slots.rows[slot] as usize * d);
        let weight = job.slots.weights[slot];
        with_floats!(job.dy.range(token, d), |dy| with_floats!(
            job.x.range(row, d),
            |x| {
                // SAFETY: V is usable; rows are a permutation and each token is in one task: nobody else has this row
                // or slot.
                unsafe {
                    let dw = &mut job.d_weights.part(slot, 1)[0];
                    with_floats_mut!(job.dx.part(row, d), |dx| slot_gradient::<V, _, _, _>(&mut Slot {
                        dy,
                        x,
                        weight,
                        dx,
                        dw
                    }));
                }
            }
        ));
    }
}

vector_twins! {
    mod gradients_twins = gradients(job: &Job<'_>, from: usize, to: usize)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Arena, Random, assert_close, same_on_all_paths};
    use super::*;
    use crate::bf16;
    use crate::math::dot;

    struct Gradients {
        dx: Vec<f32>,
        dw: Vec<f32>,
    }

    fn run(p: &Problem, half: bool) -> Gradients {
        let (dx, dw) = same_on_all_paths(|ctx| {
            let mut arena = Arena::new();
            let float = |arena: &mut Arena, x: &[f32]| if half { arena.put_bf16(x) } else { arena.put(x) };
            let (dy, x) = (float(&mut arena, &p.dy), float(&mut arena, &p.x));
            let (rows, weights) = (arena.put_i32(&p.rows), arena.put(&p.weights));
            let n = p.x.len();
            let dx = if half {
                arena.garbage_bf16(n)
            } else {
                arena.garbage(n)
            };
            let dw = arena.garbage(p.rows.len());
            let numbers = [(p.rows.len() / p.k) as f64, p.k as f64, p.d as f64];
            arena
                .run(ctx, op, &[dy, x, rows, weights, dx, dw], &numbers)
                .unwrap();
            (arena.f32s(dx), arena.f32s(dw))
        });
        Gradients { dx, dw }
    }

    struct Problem {
        k: usize,
        d: usize,
        rows: Vec<i32>,
        weights: Vec<f32>,
        dy: Vec<f32>,
        x: Vec<f32>,
    }

    fn problem(tokens: usize, k: usize, d: usize) -> Problem {
        let mut random = Random::new((tokens + 100 * d) as u64);
        let mut rows: Vec<i32> = (0..(tokens * k) as i32).collect();
        for i in (1..rows.len()).rev() {
            rows.swap(i, random.below(i + 1));
        }
        Problem {
            k,
            d,
            rows,
            weights: random.normals(tokens * k, 1.0),
            dy: random.normals(tokens * d, 1.0),
            x: random.normals(tokens * k * d, 1.0),
        }
    }

    #[test]
    fn gradients_equal_the_formula_and_dots_the_lane_order_to_the_bit() {
        for (tokens, k, d) in [(1, 1, 1), (3, 2, 63), (100, 4, 64), (50, 8, 65), (7, 3, 1000)] {
            let p = problem(tokens, k, d);
            for half in [false, true] {
                let stored = |x: &[f32]| -> Vec<f32> {
                    x.iter()
                        .map(|v| if half { bf16::round(*v) } else { *v })
                        .collect()
                };
                let (dy, x) = (stored(&p.dy), stored(&p.x));
                let found = run(&p, half);
                for slot in 0..tokens * k {
                    let (token, row) = (slot / k * d, p.rows[slot] as usize * d);
                    let (dy, x) = (&dy[token..token + d], &x[row..row + d]);
                    assert_eq!(found.dw[slot].to_bits(), dot(dy, x).to_bits(), "dWeights {slot}");
                    let exact: f64 = dy.iter().zip(x).map(|(a, b)| *a as f64 * *b as f64).sum();
                    let size: f64 = dy.iter().zip(x).map(|(a, b)| (*a as f64 * *b as f64).abs()).sum();
                    assert!((found.dw[slot] as f64 - exact).abs() <= 1e-6 * size);
                    let expected = stored(&dy.iter().map(|g| p.weights[slot] * g).collect::<Vec<_>>());
                    assert_eq!(found.dx[row..row + d], expected, "dExpertOut of slot {slot}");
                }
            }
        }
    }

    #[test]
    fn it_is_the_transpose_of_combine() {
        // <dy, combine(x, w)> is bilinear in x and w: so <dExpertOut, x> = <dWeights, w> = <dy, y>.
        let p = problem(40, 4, 96);
        let found = run(&p, false);
        let inner =
            |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| *a as f64 * *b as f64).sum() };
        let mut y = vec![0.0f32; 40 * 96];
        for slot in 0..160 {
            for d in 0..96 {
                y[slot / 4 * 96 + d] += p.weights[slot] * p.x[p.rows[slot] as usize * 96 + d];
            }
        }
        let expected = inner(&p.dy, &y);
        assert_close(&[inner(&found.dx, &p.x) as f32], &[expected], 1e-5);
        assert_close(&[inner(&found.dw, &p.weights) as f32], &[expected], 1e-5);
    }

    #[test]
    fn rows_that_are_no_permutation_are_refused() {
        for (rows, message) in [
            ([0, 0], "row 0 is named twice"),
            ([0, 2], "2 is no row of 2"),
            ([-1, 0], "-1 is no row of 2"),
        ] {
            let mut arena = Arena::new();
            let (dy, x, w) = (arena.garbage(4), arena.garbage(8), arena.garbage(2));
            let operands = [dy, x, arena.put_i32(&rows), w, arena.garbage(8), arena.garbage(2)];
            let error = same_on_all_paths(|ctx| arena.run(ctx, op, &operands, &[1.0, 2.0, 4.0]).unwrap_err());
            assert_eq!(error.message, message);
        }
    }
}
