//! combineBackward: dExpertOut[row of slot] = weight * dy[token]; dWeights[slot] = dy[token] . expertOut[row of slot]
//!
//! contract   tensor/ops/combine.ts
//! layout     dy [T, D] · expertOut, dExpertOut [T * K, D] · slotRow, weights, dWeights [T, K]
//! dtype      dy, expertOut, dExpertOut f32 or bf16 each; dot products f32 over 64 virtual lanes
//! limits     slotRow must be a permutation: checked, because tasks write the rows it names
//! tiling     about 20 us of tokens per task
//! why so     one loop per slot reads both rows, sums and writes: expertOut is read once, dy comes from the first cache
//! measured   one thread of an AVX-512 Xeon, 2048 x 4 rows of 256, all bf16: 500 us, of which rounding to
//!            bf16 in whole numbers is about half
//! versions   v1 (this file)

use super::tokens_per_task;
use crate::args::Args;
use crate::bf16::Element;
use crate::error::KernelError;
use crate::math::{LANES, Lanes};
use crate::ops::Ctx;
use crate::pool::Disjoint;
use crate::{by_isa, isa_twins, with_floats, with_floats_mut};

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
    let d_weights = d_weights.f32s_mut(tokens * k)?;
    let dy = dy.slice(tokens * d)?;
    let x = expert_out.slice(tokens * k * d)?;
    let dx = d_expert_out.slice_mut(tokens * k * d)?;
    with_floats!(dy, |dy| with_floats!(x, |x| with_floats_mut!(dx, |dx| run(
        ctx, &slots, dy, x, dx, d_weights
    ))));
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

fn run<G: Element, X: Element, Y: Element>(
    ctx: &Ctx,
    slots: &Slots,
    dy: &[G],
    x: &[X],
    dx: &mut [Y],
    d_weights: &mut [f32],
) {
    let (k, d) = (slots.top_k, slots.width);
    let tokens = slots.rows.len() / k.max(1);
    let chunk = tokens_per_task(k * (d / 6 + 10));
    let (dx, d_weights) = (Disjoint::new(dx), Disjoint::new(d_weights));
    ctx.pool.run(tokens.div_ceil(chunk), &|task, _| {
        for t in task * chunk..tokens.min((task + 1) * chunk) {
            let dy = &dy[t * d..(t + 1) * d];
            for slot in t * k..(t + 1) * k {
                let row = slots.rows[slot] as usize * d;
                // SAFETY: the rows are a permutation and each token is in one task: nobody else has this row or slot.
                let (dx, dw) = unsafe { (dx.part(row, d), d_weights.part(slot, 1)) };
                dw[0] = by_isa!(
                    ctx.isa,
                    slot_gradient(dy, &x[row..row + d], slots.weights[slot], dx)
                );
            }
        }
    });
}

isa_twins! {
    /// dx = weight * dy; returns dy . x, summed over virtual lanes.
    fn slot_gradient<G: Element, X: Element, Y: Element>(dy: &[G], x: &[X], weight: f32, dx: &mut [Y]) -> f32 {
        let mut lanes = Lanes::zero();
        let (mut dys, mut xs) = (dy.chunks_exact(LANES), x.chunks_exact(LANES));
        let mut dxs = dx.chunks_exact_mut(LANES);
        for ((dy, x), dx) in (&mut dys).zip(&mut xs).zip(&mut dxs) {
            for l in 0..LANES {
                let g = dy[l].to_f32();
                lanes.0[l] = g.mul_add(x[l].to_f32(), lanes.0[l]);
                dx[l] = Y::from_f32(weight * g);
            }
        }
        let rest = dys.remainder().iter().zip(xs.remainder()).zip(dxs.into_remainder());
        for (l, ((dy, x), dx)) in rest.enumerate() {
            let g = dy.to_f32();
            lanes.0[l] = g.mul_add(x.to_f32(), lanes.0[l]);
            *dx = Y::from_f32(weight * g);
        }
        lanes.sum()
    }
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
