//! What attention in AMX registers computes, one number after another: the plain twin, bit for bit.

use super::lines::{EXP2, MAGIC};
use crate::attention::oracle::{Inputs, Problem};
use crate::bf16;
use crate::math::{self, Lanes};

/// Numbers a whole step of a tile register sums: 16 pairs.
const STEP: usize = 32;

/// What `tdpbf16ps` sums: per 32 numbers one chain over the even and one over the odd ones, then both to the total.
fn tile_sum(a: &[f32], b: &[f32]) -> f32 {
    let mut sum = 0.0;
    for (a, b) in a.chunks(STEP).zip(b.chunks(STEP)) {
        let mut halves = [0.0f32; 2];
        for (i, (x, y)) in a.iter().zip(b).enumerate() {
            halves[i % 2] = x.mul_add(*y, halves[i % 2]);
        }
        sum += halves[0] + halves[1];
    }
    sum
}

/// `lines::exp2_scaled` of one number.
pub fn exp2_scaled(x: f32, factor: f32, shift: f32) -> f32 {
    let y = x.mul_add(factor, shift);
    let n = (y + MAGIC) - MAGIC;
    let r = y - n;
    let polynomial = EXP2[..4]
        .iter()
        .rev()
        .fold(EXP2[4], |p, coefficient| p.mul_add(r, *coefficient));
    let scaled = (f64::from(polynomial.mul_add(r, 1.0)) * f64::from(n).exp2()) as f32;
    if scaled < f32::MIN_POSITIVE { 0.0 } else { scaled }
}

/// One head of one sequence: rows of q, k (nope, then rope) and v, and where they lie.
struct Head {
    q: Vec<Vec<f32>>,
    k: Vec<Vec<f32>>,
    v: Vec<Vec<f32>>,
    start: usize,
    head: usize,
}

fn row(values: &[f64], start: usize, width: usize) -> Vec<f32> {
    values[start..start + width].iter().map(|x| *x as f32).collect()
}

fn column(rows: &[Vec<f32>], channel: usize) -> Vec<f32> {
    rows.iter().map(|row| row[channel]).collect()
}

/// Every head of every sequence.
fn heads(problem: &Problem, inputs: &Inputs) -> Vec<Head> {
    let Problem {
        nope, rope, value, ..
    } = *problem;
    let mut heads = Vec::new();
    for head in 0..problem.heads {
        let mut start = 0;
        for &length in &problem.lengths {
            let tokens = start..start + length;
            let at = |token: usize, width: usize| (token * problem.heads + head) * width;
            let key = |token: usize| {
                let mut key = row(&inputs.kv, at(token, nope + value), nope);
                key.extend(row(&inputs.k_rope, token * rope, rope));
                key
            };
            let q = |token: usize| row(&inputs.q, at(token, nope + rope), nope + rope);
            let v = |token: usize| row(&inputs.kv, at(token, nope + value) + nope, value);
            heads.push(Head {
                q: tokens.clone().map(q).collect(),
                k: tokens.clone().map(key).collect(),
                v: tokens.map(v).collect(),
                start,
                head,
            });
            start += length;
        }
    }
    heads
}

fn factor(problem: &Problem) -> f32 {
    problem.scale as f32 * std::f32::consts::LOG2_E
}

/// o (before it is rounded for storage) and lse.
pub fn forward(problem: &Problem, inputs: &Inputs) -> (Vec<f32>, Vec<f32>) {
    let (tokens, factor) = (problem.tokens(), factor(problem));
    let mut o = vec![0.0; problem.sizes()[3]];
    let mut lse = vec![0.0; problem.heads * tokens];
    for Head { q, k, v, start, head } in heads(problem, inputs) {
        for (i, q) in q.iter().enumerate() {
            let scores: Vec<f32> = k[..=i].iter().map(|k| tile_sum(q, k)).collect();
            let shift = -(scores.iter().copied().fold(f32::NEG_INFINITY, f32::max) * factor);
            let mut lanes = Lanes::zero();
            let mut rounded = Vec::new();
            for (j, score) in scores.into_iter().enumerate() {
                let p = exp2_scaled(score, factor, shift);
                lanes.0[j % math::LANES] += p;
                rounded.push(bf16::round(p));
            }
            let sum = lanes.sum();
            for c in 0..problem.value {
                let at = ((start + i) * problem.heads + head) * problem.value + c;
                o[at] = tile_sum(&rounded, &column(&v[..=i], c)) * (1.0 / sum);
            }
            lse[head * tokens + start + i] = shift.mul_add(-std::f32::consts::LN_2, math::log(sum));
        }
    }
    (o, lse)
}

/// dq, dkv and dkRope, before they are rounded for storage, from o and lse as they were stored.
pub fn backward(problem: &Problem, inputs: &Inputs, d_o: &[f64], o: &[f64], lse: &[f64]) -> [Vec<f32>; 3] {
    let Problem {
        nope, rope, value, ..
    } = *problem;
    let scale = problem.scale as f32;
    let [q_size, kv_size, rope_size, _] = problem.sizes();
    let (mut dq, mut dkv, mut dk_rope) = (vec![0.0; q_size], vec![0.0; kv_size], vec![0.0; rope_size]);
    for Head { q, k, v, start, head } in heads(problem, inputs) {
        let at = |i: usize, width: usize| ((start + i) * problem.heads + head) * width;
        let d_os: Vec<Vec<f32>> = (0..q.len()).map(|i| row(d_o, at(i, value), value)).collect();
        // [query][key], zero above the diagonal.
        let (mut p, mut ds) = (
            vec![vec![0.0f32; q.len()]; q.len()],
            vec![vec![0.0f32; q.len()]; q.len()],
        );
        for i in 0..q.len() {
            let shift = -(lse[head * problem.tokens() + start + i] as f32) * std::f32::consts::LOG2_E;
            let mut lanes = Lanes::zero();
            for (c, (o, d_o)) in row(o, at(i, value), value).iter().zip(&d_os[i]).enumerate() {
                let lane = &mut lanes.0[c % math::LANES];
                *lane = o.mul_add(*d_o, *lane);
            }
            let row_sum = lanes.sum();
            for j in 0..=i {
                let exact = exp2_scaled(tile_sum(&q[i], &k[j]), factor(problem), shift);
                p[i][j] = bf16::round(exact);
                ds[i][j] = bf16::round(exact * (tile_sum(&v[j], &d_os[i]) - row_sum));
            }
        }
        for i in 0..q.len() {
            let (p, ds_of_key) = (column(&p, i), column(&ds, i));
            for c in 0..nope + rope {
                dq[at(i, nope + rope) + c] = tile_sum(&ds[i], &column(&k, c)) * scale;
                let dk = tile_sum(&ds_of_key, &column(&q, c)) * scale;
                if c < nope {
                    dkv[at(i, nope + value) + c] = dk;
                } else {
                    // Heads come in ascending order.
                    dk_rope[(start + i) * rope + c - nope] += dk;
                }
            }
            for c in 0..value {
                dkv[at(i, nope + value) + nope + c] = tile_sum(&p, &column(&d_os, c));
            }
        }
    }
    [dq, dkv, dk_rope]
}
