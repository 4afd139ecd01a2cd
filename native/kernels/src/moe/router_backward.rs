//! routerBackward: dlogits = (dAffinity + what flows back through the weights of the chosen) * s * (1 - s)
//!
//! contract   tensor/ops/route.ts
//! layout     dWeights, expertIds [T, K] · dAffinity?, affinity, dlogits [T, E]
//! dtype      f32; dlogits f32 or bf16
//! limits     expert ids outside 0..E are refused by panic of the task
//! tiling     about 20 us of tokens per task; a row as one vector loop, then its K chosen entries again
//! versions   v1 (this file)

use super::{AFFINITY_EPSILON, tokens_per_task};
use crate::args::Args;
use crate::bf16::Element;
use crate::error::KernelError;
use crate::ops::Ctx;
use crate::pool::Disjoint;
use crate::{by_isa, isa_twins, with_floats_mut};

struct Inputs<'a> {
    d_weights: &'a [f32],
    d_affinity: Option<&'a [f32]>,
    affinity: &'a [f32],
    ids: &'a [i32],
    experts: usize,
    top_k: usize,
    scale: f32,
    normalise: bool,
}

/// The op: dWeights, dAffinity?, affinity, expertIds, dlogits; T, E, K, scale, normalise.
pub fn op(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (d_weights, d_affinity) = (a.f32s("dWeights")?, a.f32s_optional("dAffinity")?);
    let (affinity, ids, dlogits) = (a.f32s("affinity")?, a.i32s("expertIds")?, a.floats("dlogits")?);
    let (tokens, e, k) = (a.usize("T")?, a.usize("E")?, a.usize("K")?);
    let (scale, normalise) = (a.f32("scale")?, a.flag("normalise")?);
    a.end()?;
    let inputs = Inputs {
        d_weights: d_weights.f32s(tokens * k)?,
        d_affinity: d_affinity.map(|x| x.f32s(tokens * e)).transpose()?,
        affinity: affinity.f32s(tokens * e)?,
        ids: ids.i32s(tokens * k)?,
        experts: e,
        top_k: k,
        scale,
        normalise,
    };
    with_floats_mut!(dlogits.slice_mut(tokens * e)?, |y| run(ctx, &inputs, tokens, y));
    Ok(())
}

fn run<Y: Element>(ctx: &Ctx, inputs: &Inputs, tokens: usize, dlogits: &mut [Y]) {
    let e = inputs.experts;
    let chunk = tokens_per_task(e + 5 * inputs.top_k);
    let dlogits = Disjoint::new(dlogits);
    ctx.pool.run(tokens.div_ceil(chunk), &|task, _| {
        for t in task * chunk..tokens.min((task + 1) * chunk) {
            // SAFETY: each token is in one task.
            let row = unsafe { dlogits.part(t * e, e) };
            let s = &inputs.affinity[t * e..(t + 1) * e];
            match inputs.d_affinity {
                Some(ds) => by_isa!(ctx.isa, through_sigmoid(&ds[t * e..(t + 1) * e], s, row)),
                None => row.fill(Y::default()),
            }
            chosen(inputs, t, s, row);
        }
    });
}

isa_twins! {
    fn through_sigmoid<Y: Element>(ds: &[f32], s: &[f32], dlogits: &mut [Y]) {
        for ((ds, s), y) in ds.iter().zip(s).zip(dlogits) {
            *y = Y::from_f32(*ds * (*s * (1.0 - *s)));
        }
    }
}

/// Writes the chosen experts' entries, which also get what flows through the weights.
fn chosen<Y: Element>(inputs: &Inputs, t: usize, s: &[f32], row: &mut [Y]) {
    let slots = t * inputs.top_k..(t + 1) * inputs.top_k;
    let (ids, dw) = (&inputs.ids[slots.clone()], &inputs.d_weights[slots]);
    let mut sum = 0.0;
    for id in ids {
        sum += s[*id as usize];
    }
    sum += AFFINITY_EPSILON;
    // w_k = scale * p_k with p_k = s_k / sum: each chosen affinity also lowers the share of the others.
    let mut shared = 0.0;
    for (id, dw) in ids.iter().zip(dw) {
        shared += dw * (s[*id as usize] / sum);
    }
    for (id, dw) in ids.iter().zip(dw) {
        let e = *id as usize;
        let through_weight = if inputs.normalise {
            inputs.scale / sum * (dw - shared)
        } else {
            inputs.scale * dw
        };
        let ds = inputs.d_affinity.map_or(0.0, |d| d[t * s.len() + e]) + through_weight;
        row[e] = Y::from_f32(ds * (s[e] * (1.0 - s[e])));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Arena, Random, assert_close, same_on_all_paths};
    use super::*;

    /// d logits in f64 by the quotient rule, expert by expert.
    fn oracle(
        s: &[f32],
        ids: &[i32],
        dw: &[f32],
        da: Option<&[f32]>,
        scale: f64,
        normalise: bool,
    ) -> Vec<f64> {
        let sum: f64 = ids.iter().map(|i| s[*i as usize] as f64).sum();
        (0..s.len())
            .map(|e| {
                let mut ds = da.map_or(0.0, |da| da[e] as f64);
                if ids.contains(&(e as i32)) {
                    for (i, dw) in ids.iter().zip(dw) {
                        let own = if *i as usize == e { 1.0 } else { 0.0 };
                        let slope = if normalise {
                            scale * (own * sum - s[*i as usize] as f64) / (sum * sum)
                        } else {
                            scale * own
                        };
                        ds += *dw as f64 * slope;
                    }
                }
                ds * s[e] as f64 * (1.0 - s[e] as f64)
            })
            .collect()
    }

    #[test]
    fn gradients_equal_the_quotient_rule_in_f64() {
        let mut random = Random::new(3);
        for (tokens, e, k) in [(1, 2, 1), (5, 12, 3), (200, 16, 4), (3, 100, 16)] {
            let s: Vec<f32> = random
                .normals(tokens * e, 1.0)
                .iter()
                .map(|x| 1.0 / (1.0 + (-x).exp()))
                .collect();
            let ids: Vec<i32> = (0..tokens)
                .flat_map(|t| (0..k).map(move |i| ((i * e + t % e) / k) as i32))
                .collect();
            let (dw, da) = (random.normals(tokens * k, 1.0), random.normals(tokens * e, 0.1));
            for (has_da, normalise) in [(true, true), (false, true), (true, false), (false, false)] {
                let (f32s, halves) = same_on_all_paths(|ctx| {
                    let mut arena = Arena::new();
                    let mut operands = vec![arena.put(&dw)];
                    operands.push(if has_da { arena.put(&da) } else { Arena::ABSENT });
                    operands.extend([arena.put(&s), arena.put_i32(&ids)]);
                    let (y, half) = (arena.garbage(tokens * e), arena.garbage_bf16(tokens * e));
                    let numbers = [tokens as f64, e as f64, k as f64, 2.5, normalise as u8 as f64];
                    for out in [y, half] {
                        let operands = [&operands[..], &[out]].concat();
                        arena.run(ctx, op, &operands, &numbers).unwrap();
                    }
                    (arena.f32s(y), arena.f32s(half))
                });
                for t in 0..tokens {
                    let (row, slots) = (t * e..(t + 1) * e, t * k..(t + 1) * k);
                    let da = has_da.then_some(&da[row.clone()]);
                    let exact = oracle(
                        &s[row.clone()],
                        &ids[slots.clone()],
                        &dw[slots],
                        da,
                        2.5,
                        normalise,
                    );
                    assert_close(&f32s[row.clone()], &exact, 3e-6);
                    assert_close(&halves[row], &exact, 5e-3);
                }
            }
        }
    }
}
