//! router: affinity = sigmoid(logits); K experts of the topkGroup best groups by affinity + bias; weights from the
//! affinities alone
//!
//! contract   tensor/ops/route.ts
//! layout     logits, affinity [T, E] · bias [E] · expertIds, weights [T, K], ids ascending within a token
//! dtype      f32, expertIds i32
//! limits     E % G == 0, E / G >= 2 if G > 1, 1 <= K <= topkGroup * E / G; NaN ranks highest and stays in range
//! tiling     about 20 us of tokens per task, 64 tokens side by side
//! why so     which expert wins is a coin toss to the branch predictor: one token per vector lane needs no branch
//! measured   one thread of an AVX-512 Xeon, 2048 tokens, 16 experts, 4 of them in 2 of 4 groups: 104 us,
//!            v1 310 us; one token alone 1.1 us, v1 0.4 us
//! versions   v1 insertion, token by token · v2 (this file)

use super::select::{Marks, SIDE, Scores, close_groups, lay_out, mark_best, mark_words, marked};
use super::{AFFINITY_EPSILON, tokens_per_task};
use crate::args::Args;
use crate::error::KernelError;
use crate::math::sigmoid;
use crate::ops::Ctx;
use crate::pool::Disjoint;
use crate::{by_isa, isa_twins};

#[derive(Clone, Copy)]
struct Routing {
    experts: usize,
    top_k: usize,
    groups: usize,
    topk_group: usize,
    scale: f32,
    normalise: bool,
}

/// The op: logits, bias, affinity, expertIds, weights; T, E, K, G, topkGroup, scale, normalise.
pub fn op(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (logits, bias) = (a.f32s("logits")?, a.f32s("bias")?);
    let (affinity, ids, weights) = (a.f32s("affinity")?, a.i32s("expertIds")?, a.f32s("weights")?);
    let tokens = a.usize("T")?;
    let routing = Routing {
        experts: a.usize("E")?,
        top_k: a.usize("K")?,
        groups: a.usize("G")?,
        topk_group: a.usize("topkGroup")?,
        scale: a.f32("scale")?,
        normalise: a.flag("normalise")?,
    };
    a.end()?;
    check(&routing)?;
    let (e, k) = (routing.experts, routing.top_k);
    let (logits, bias) = (logits.f32s(tokens * e)?, bias.f32s(e)?);
    let affinity = Disjoint::new(affinity.f32s_mut(tokens * e)?);
    let ids = Disjoint::new(ids.i32s_mut(tokens * k)?);
    let weights = Disjoint::new(weights.f32s_mut(tokens * k)?);
    let chunk = tokens_per_task(2 * e + 5 * k).next_multiple_of(SIDE);
    ctx.pool.run(tokens.div_ceil(chunk), &|task, _| {
        let start = task * chunk;
        let n = chunk.min(tokens - start);
        // SAFETY: each task has tokens of its own.
        let (affinity, ids, weights) = unsafe {
            (
                affinity.part(start * e, n * e),
                ids.part(start * k, n * k),
                weights.part(start * k, n * k),
            )
        };
        by_isa!(ctx.isa, sigmoids(&logits[start * e..(start + n) * e], affinity));
        let mut work = Work::new(&routing);
        let rows = affinity.chunks(SIDE * e).zip(ids.chunks_mut(SIDE * k));
        for ((affinity, ids), weights) in rows.zip(weights.chunks_mut(SIDE * k)) {
            by_isa!(ctx.isa, choose(&routing, affinity, bias, &mut work, ids));
            for ((s, ids), weights) in affinity
                .chunks_exact(e)
                .zip(ids.chunks_exact(k))
                .zip(weights.chunks_exact_mut(k))
            {
                weigh(&routing, s, ids, weights);
            }
        }
    });
    Ok(())
}

fn check(r: &Routing) -> Result<(), KernelError> {
    let (e, g) = (r.experts, r.groups);
    if g == 0 || e % g != 0 || (g > 1 && e / g < 2) {
        return Err(KernelError::new(
            "G",
            format!("{e} experts cannot be cut into {g} groups"),
        ));
    }
    if r.topk_group == 0 || r.topk_group > g {
        let message = format!("{} of {g} groups cannot be open", r.topk_group);
        return Err(KernelError::new("topkGroup", message));
    }
    if r.top_k == 0 || r.top_k > r.topk_group * (e / g) {
        let open = r.topk_group * (e / g);
        let message = format!("{} experts cannot be chosen among {open} open ones", r.top_k);
        return Err(KernelError::new("K", message));
    }
    Ok(())
}

isa_twins! {
    fn sigmoids(x: &[f32], y: &mut [f32]) {
        for (x, y) in x.iter().zip(y) {
            *y = sigmoid(*x);
        }
    }
}

/// Working space for the choice of 64 tokens' experts.
struct Work {
    scores: Vec<Scores>,
    groups: Vec<Scores>,
    best: Vec<Scores>,
    marks: Vec<Marks>,
}

impl Work {
    fn new(routing: &Routing) -> Work {
        Work {
            scores: vec![[0.0; SIDE]; routing.experts],
            groups: vec![[0.0; SIDE]; routing.groups],
            best: vec![[0.0; SIDE]; routing.top_k],
            marks: vec![[0; SIDE]; mark_words(routing.experts)],
        }
    }
}

isa_twins! {
    /// Expert ids of up to 64 tokens, ascending. Lanes without a token keep old scores and are not read.
    fn choose(routing: &Routing, affinity: &[f32], bias: &[f32], work: &mut Work, ids: &mut [i32]) {
        lay_out(affinity, bias, &mut work.scores);
        if routing.groups > 1 {
            close_groups(&mut work.scores, &mut work.groups, routing.topk_group);
        }
        mark_best(&work.scores, &mut work.best, &mut work.marks);
        for (l, ids) in ids.chunks_exact_mut(routing.top_k).enumerate() {
            marked(&work.marks, l, ids);
        }
    }
}

/// weights = affinity / (sum + epsilon) * scale, summed in ascending order of expert.
fn weigh(routing: &Routing, affinity: &[f32], ids: &[i32], weights: &mut [f32]) {
    let mut sum = 0.0;
    for (id, weight) in ids.iter().zip(weights.iter_mut()) {
        *weight = affinity[*id as usize];
        sum += *weight;
    }
    let divisor = if routing.normalise {
        sum + AFFINITY_EPSILON
    } else {
        1.0
    };
    for weight in weights {
        *weight = *weight / divisor * routing.scale;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Arena, Random, same_on_all_paths};
    use super::*;

    struct Problem {
        tokens: usize,
        routing: Routing,
        logits: Vec<f32>,
        bias: Vec<f32>,
    }

    fn problem(tokens: usize, e: usize, k: usize, g: usize, topk_group: usize) -> Problem {
        let mut random = Random::new((tokens * 31 + e * 7 + k) as u64);
        Problem {
            tokens,
            routing: Routing {
                experts: e,
                top_k: k,
                groups: g,
                topk_group,
                scale: 2.5,
                normalise: true,
            },
            logits: random.normals(tokens * e, 2.0),
            bias: random.normals(e, 0.3),
        }
    }

    fn run(p: &Problem) -> (Vec<f32>, Vec<i32>, Vec<f32>) {
        let r = p.routing;
        same_on_all_paths(|ctx| {
            let mut arena = Arena::new();
            let logits = arena.put(&p.logits);
            let bias = arena.put(&p.bias);
            let affinity = arena.garbage(p.tokens * r.experts);
            let ids = arena.garbage_i32(p.tokens * r.top_k);
            let weights = arena.garbage(p.tokens * r.top_k);
            let numbers = [p.tokens, r.experts, r.top_k, r.groups, r.topk_group].map(|n| n as f64);
            let flags = [r.scale as f64, r.normalise as u8 as f64];
            let operands = [logits, bias, affinity, ids, weights];
            arena
                .run(ctx, op, &operands, &[&numbers[..], &flags].concat())
                .unwrap();
            (arena.f32s(affinity), arena.i32s(ids), arena.f32s(weights))
        })
    }

    /// Who is chosen, by counting who beats whom, in f64.
    fn oracle(p: &Problem, t: usize) -> (Vec<i32>, Vec<f64>) {
        let Routing {
            experts: e,
            top_k: k,
            groups: g,
            topk_group,
            scale,
            normalise,
        } = p.routing;
        let s: Vec<f64> = (0..e)
            .map(|i| 1.0 / (1.0 + (-p.logits[t * e + i] as f64).exp()))
            .collect();
        let c: Vec<f64> = (0..e).map(|i| s[i] + p.bias[i] as f64).collect();
        let size = e / g;
        let group: Vec<f64> = c
            .chunks(size)
            .map(|m| {
                let pairs = (0..m.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
                pairs.map(|(i, j)| m[i] + m[j]).fold(f64::NEG_INFINITY, f64::max)
            })
            .collect();
        let beaten = |v: &[f64], among: &[usize], i: usize| {
            among
                .iter()
                .filter(|j| v[**j] > v[i] || (v[**j] == v[i] && **j < i))
                .count()
        };
        let all: Vec<usize> = (0..g).collect();
        let open = |i: usize| g == 1 || beaten(&group, &all, i / size) < topk_group;
        let candidates: Vec<usize> = (0..e).filter(|i| open(*i)).collect();
        let ids: Vec<usize> = candidates
            .iter()
            .copied()
            .filter(|i| beaten(&c, &candidates, *i) < k)
            .collect();
        let sum: f64 = if normalise {
            ids.iter().map(|i| s[*i]).sum()
        } else {
            1.0
        };
        let weights = ids.iter().map(|i| s[*i] / sum * scale as f64).collect();
        (ids.iter().map(|i| *i as i32).collect(), weights)
    }

    #[test]
    fn choices_and_weights_equal_the_f64_oracle() {
        let shapes = [
            (1, 2, 1, 1, 1),
            (300, 16, 4, 4, 2),
            (70, 12, 3, 4, 1),
            (33, 30, 7, 5, 2),
            (9, 256, 8, 8, 4),
        ];
        for (tokens, e, k, g, open) in
            shapes
                .into_iter()
                .chain([(3, 512, 16, 1, 1), (5, 64, 6, 1, 1), (4, 8, 4, 4, 4)])
        {
            let mut p = problem(tokens, e, k, g, open);
            for normalise in [true, false] {
                p.routing.normalise = normalise;
                let (_, ids, weights) = run(&p);
                for t in 0..tokens {
                    let (expected, exact) = oracle(&p, t);
                    assert_eq!(&ids[t * k..(t + 1) * k], expected, "E {e}, token {t}");
                    for (w, x) in weights[t * k..].iter().zip(exact) {
                        assert!((*w as f64 - x).abs() <= 2e-6 * x.abs(), "E {e}: {w} is not {x}");
                    }
                }
            }
        }
    }

    #[test]
    fn closed_groups_supply_nobody_however_negative_the_open_scores_are() {
        let mut p = problem(1, 8, 2, 2, 1);
        p.logits = vec![0.4, -0.3, 1.2, 0.1, 0.5, 0.7, -1.0, 2.0];
        p.bias = vec![-0.9, -0.8, -0.85, -0.95, -1.2, -1.3, -1.1, -1.4];
        let (affinity, ids, weights) = run(&p);
        assert_eq!(ids, [0, 2]);
        assert!((weights[0] - 1.094723).abs() < 1e-6 && (weights[1] - 1.405277).abs() < 1e-6);
        assert!((affinity[7] - 0.880797).abs() < 1e-6);
    }

    #[test]
    fn ties_go_to_the_lowest_index_among_experts_and_groups() {
        let mut p = problem(2, 12, 3, 4, 2);
        p.logits.fill(0.0);
        p.bias.fill(0.0);
        assert_eq!(run(&p).1, [0, 1, 2, 0, 1, 2]);
        p.bias[10] = 1.0;
        assert_eq!(run(&p).1[..3], [0, 1, 10]);
    }

    #[test]
    fn nan_and_infinity_neither_hang_nor_leave_the_range() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut p = problem(40, 16, 4, 4, 2);
            p.logits.fill(value);
            let (_, ids, weights) = run(&p);
            for row in ids.chunks(4) {
                assert!(row.windows(2).all(|pair| pair[0] < pair[1]) && row[0] >= 0 && row[3] < 16);
            }
            assert_eq!(weights[0].is_nan(), value.is_nan());
        }
        let mut p = problem(1, 8, 2, 2, 1);
        p.logits = vec![3.0, 3.0, 3.0, 3.0, 0.0, 0.0, f32::NAN, 0.0];
        p.bias.fill(0.0);
        let (_, ids, weights) = run(&p);
        assert_eq!(ids, [4, 6]);
        assert!(weights.iter().all(|w| w.is_nan()));
    }

    #[test]
    fn a_token_routes_alike_alone_and_in_a_batch() {
        let p = problem(300, 16, 4, 4, 2);
        let (affinity, ids, weights) = run(&p);
        for t in [0, 7, 299] {
            let mut one = problem(1, 16, 4, 4, 2);
            one.logits = p.logits[t * 16..(t + 1) * 16].to_vec();
            one.bias = p.bias.clone();
            let (a, i, w) = run(&one);
            assert_eq!(
                (&a[..], &i[..]),
                (&affinity[t * 16..(t + 1) * 16], &ids[t * 4..(t + 1) * 4])
            );
            assert_eq!(w, weights[t * 4..(t + 1) * 4]);
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused_by_name() {
        let refused = |e: usize, k: usize, g: usize, open: usize| {
            let mut arena = Arena::new();
            let operands: Vec<_> = (0..5)
                .map(|i| {
                    if i == 3 {
                        arena.garbage_i32(64)
                    } else {
                        arena.garbage(64)
                    }
                })
                .collect();
            let numbers = [1, e, k, g, open, 1, 1].map(|n| n as f64);
            same_on_all_paths(|ctx| arena.run(ctx, op, &operands, &numbers).unwrap_err().param)
        };
        assert_eq!(refused(8, 2, 3, 1), Some("G"));
        assert_eq!(refused(8, 2, 8, 1), Some("G"));
        assert_eq!(refused(8, 2, 0, 1), Some("G"));
        assert_eq!(refused(8, 2, 4, 5), Some("topkGroup"));
        assert_eq!(refused(8, 3, 4, 1), Some("K"));
        assert_eq!(refused(8, 0, 4, 1), Some("K"));
    }
}
