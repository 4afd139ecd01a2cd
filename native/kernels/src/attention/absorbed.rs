//! absorbedAttention: attention over the latent cache as it lies, the key and value projections folded into query and output.
//!
//! contract   src/tensor/ops/absorbedAttention.ts             (reference, tolerance)
//! layout     q [M, H, N + R] · kvB [H, N + V, C] row-major · cacheLatent [cap, C] · cacheRope [cap, R] · o [M, H, V]
//! dtype      q, kvB, caches, o each f32 or bf16; arithmetic f32; round 1 rounds kvB to bf16 first
//! equations  a = kvB_k^T q_nope · s_j = (a . latent_j + q_rope . kRope_j) scale · z = softmax(s) latents · o = kvB_v z
//! tiling     a task owns some heads of up to 16 tokens: their (head, token) pairs are rows that meet 64 cached tokens
//!            at a time, so that the cache is read once for all of them
//! why so     a cached token is one row for all heads: 64 of them, transposed once, are the lanes for every pair's scores
//! order      per pair, one FMA chain each: a over N; a score over C then R; z over the cache, rescaled from tile to tile
//!            of 64; o over C. A softmax sum: 64 lanes, then the tree of `math::Lanes`. So a token's result does not depend on
//!            the others that are asked with it, nor on threads.

use super::shape::Heads;
use super::tile::{
    Before, KEY_TILE, Left, Output, Parts, Right, Target, fill, multiply_columns, narrow_rows, round_to_bf16,
    transpose, whole_vectors, widen_rows,
};
use super::vector::{Vector, WIDTH, exp, vector_twins};
use crate::args::{Args, Floats};
use crate::error::KernelError;
use crate::math::{LANES, Lanes};
use crate::ops::Ctx;

/// Tokens of a task, and its (head, token) pairs, at most. Neither has influence on bits.
const TOKENS: usize = 16;
const PAIRS: usize = 64;
/// Commands below this many multiply-adds run as one task.
const SMALL: usize = 400_000;

struct Absorbed<'a> {
    heads: Heads,
    /// Channels of a latent.
    latent: usize,
    q: Floats<'a>,
    kv_b: Floats<'a>,
    cache_latent: Floats<'a>,
    cache_rope: Floats<'a>,
    o: Output,
    past: usize,
    is_rounded: bool,
}

/// Heads `head..head + heads` of tokens `token..token + tokens`.
#[derive(Clone, Copy)]
struct Group {
    head: usize,
    heads: usize,
    token: usize,
    tokens: usize,
}

/// The kernel behind `absorbedAttention`.
pub fn absorbed_attention(ctx: &Ctx, args: &mut Args) -> Result<(), KernelError> {
    let q = args.floats("q")?;
    let kv_b = args.floats("kvB")?;
    let cache_latent = args.floats("cacheLatent")?;
    let cache_rope = args.floats("cacheRope")?;
    let o = args.floats("o")?;
    let tokens = args.usize("M")?;
    let count = args.usize("H")?;
    let nope = args.usize("N")?;
    let rope = args.usize("R")?;
    let value = args.usize("V")?;
    let latent = args.usize("C")?;
    let past = args.usize("past")?;
    let scale = args.f32("scale")?;
    let is_rounded = args.flag("round")?;
    args.end()?;
    let heads = Heads {
        count,
        nope,
        rope,
        value,
        scale,
    };
    let absorbed = Absorbed {
        heads,
        latent,
        q: q.slice(tokens * heads.q_width())?,
        kv_b: kv_b.slice(heads.kv_width() * latent)?,
        cache_latent: cache_latent.slice((past + tokens) * latent)?,
        cache_rope: cache_rope.slice((past + tokens) * rope)?,
        o: Output::of(o.slice_mut(tokens * heads.o_width())?),
        past,
        is_rounded,
    };
    let work = tokens * count * ((past + tokens) * (2 * latent + rope) + (nope + value) * latent);
    let threads = if work < SMALL { 1 } else { ctx.pool.threads() };
    let groups = groups(tokens, count, threads);
    let chunk = if work < SMALL { groups.len().max(1) } else { 1 };
    ctx.pool.run(groups.len().div_ceil(chunk), &|index, scratch| {
        for group in &groups[index * chunk..groups.len().min((index + 1) * chunk)] {
            let buffer = scratch.f32(absorbed.scratch_len(*group));
            // SAFETY: every (head, token) is in one group, so that what a task writes is its own.
            unsafe { group_twins::call(ctx.isa, &absorbed, *group, buffer) };
        }
    });
    Ok(())
}

/// As few groups as give every thread one, each small enough for a task.
fn groups(tokens: usize, heads: usize, threads: usize) -> Vec<Group> {
    let mut groups = Vec::new();
    let blocks = tokens.div_ceil(TOKENS).max(1);
    let wanted = threads.div_ceil(blocks);
    let most = PAIRS / tokens.clamp(1, TOKENS);
    let each = heads.div_ceil(wanted.max(1)).clamp(1, most);
    for token in (0..tokens).step_by(TOKENS) {
        for head in (0..heads).step_by(each) {
            groups.push(Group {
                head,
                heads: each.min(heads - head),
                token,
                tokens: TOKENS.min(tokens - token),
            });
        }
    }
    groups
}

impl Absorbed<'_> {
    /// Floats of a cached token in scratch: latent, then rope key, each up to a multiple of 16.
    fn row(&self) -> usize {
        whole_vectors(self.latent) + whole_vectors(self.heads.rope)
    }

    fn scratch_len(&self, group: Group) -> usize {
        let Heads {
            nope, rope, value, ..
        } = self.heads;
        let (row, latent) = (self.row(), whole_vectors(self.latent));
        let values = whole_vectors(value);
        let pairs = group.heads * group.tokens;
        let tokens = group.tokens;
        let weights = whole_vectors(nope.max(value));
        pairs * (row + latent + KEY_TILE + LANES + 2 * WIDTH)
            + 2 * KEY_TILE * row
            + tokens * (whole_vectors(nope + rope) + values)
            + 2 * weights * latent.max(values)
    }
}

/// A group's pairs in scratch, head by head, and the cached tokens that they meet.
#[derive(Clone, Copy)]
struct Tiles {
    pairs: usize,
    /// Floats of a cached token, of a latent.
    row: usize,
    latent: usize,
    /// [pairs][row]: queries against cached tokens
    absorbed: *mut f32,
    /// [pairs][C]: weighted sums of latents
    mixed: *mut f32,
    /// [pairs][64]: scores, then exponentials
    scores: *mut f32,
    /// [pairs][64]: softmax sums by lane
    lanes: *mut f32,
    /// One vector a pair: greatest score so far; factor for earlier sums
    maxima: *mut f32,
    rescale: *mut f32,
    /// [64][row], and [row][64]
    cached: *mut f32,
    cached_t: *mut f32,
    /// [tokens][N + R] of one head, [tokens][V] of one head
    queries: *mut f32,
    outputs: *mut f32,
    /// One head's half of kvB, and its transpose
    weights: *mut f32,
    weights_t: *mut f32,
}

impl Tiles {
    fn of(buffer: &mut [f32], absorbed: &Absorbed, group: Group) -> Tiles {
        let Heads {
            nope, rope, value, ..
        } = absorbed.heads;
        let (row, latent) = (absorbed.row(), whole_vectors(absorbed.latent));
        let pairs = group.heads * group.tokens;
        let tokens = group.tokens;
        let (rows, columns) = (whole_vectors(nope.max(value)), latent.max(whole_vectors(value)));
        let mut parts = Parts::of(buffer);
        Tiles {
            pairs,
            row,
            latent,
            absorbed: parts.take(pairs, row),
            mixed: parts.take(pairs, latent),
            scores: parts.take(pairs, KEY_TILE),
            lanes: parts.take(pairs, LANES),
            maxima: parts.take(pairs, WIDTH),
            rescale: parts.take(pairs, WIDTH),
            cached: parts.take(KEY_TILE, row),
            cached_t: parts.take(KEY_TILE, row),
            queries: parts.take(tokens, whole_vectors(nope + rope)),
            outputs: parts.take(tokens, whole_vectors(value)),
            weights: parts.take(rows, columns),
            weights_t: parts.take(rows, columns),
        }
    }
}

vector_twins! {
    mod group_twins = attend_group(absorbed: &Absorbed, group: Group, buffer: &mut [f32])
}

#[inline(always)]
unsafe fn attend_group<V: Vector, const M: usize, const N: usize>(
    absorbed: &Absorbed,
    group: Group,
    buffer: &mut [f32],
) {
    let tiles = Tiles::of(buffer, absorbed, group);
    unsafe {
        absorb::<V, M, N>(absorbed, group, tiles);
        fill(tiles.mixed, tiles.pairs * tiles.latent, 0.0);
        fill(tiles.lanes, tiles.pairs * LANES, 0.0);
        fill(tiles.maxima, tiles.pairs * WIDTH, f32::NEG_INFINITY);
        let end = absorbed.past + group.token + group.tokens;
        for first in (0..end).step_by(KEY_TILE) {
            let count = KEY_TILE.min(end - first);
            load_cached::<V>(absorbed, first, count, tiles);
            meet::<V, M, N>(absorbed, group, tiles, first, count);
        }
        store_outputs::<V, M, N>(absorbed, group, tiles);
    }
}

/// One head's rows of kvB from `first` on, widened.
#[inline(always)]
unsafe fn load_weights<V: Vector>(absorbed: &Absorbed, head: usize, first: usize, rows: usize, tiles: Tiles) {
    let start = (head * absorbed.heads.kv() + first) * absorbed.latent;
    let (width, stride) = (absorbed.latent, tiles.latent);
    unsafe {
        if width < stride || rows % WIDTH != 0 {
            fill(tiles.weights, whole_vectors(rows) * stride, 0.0);
        }
        widen_rows::<V>(
            absorbed.kv_b,
            start,
            width,
            rows,
            width,
            1.0,
            tiles.weights,
            stride,
        );
        if absorbed.is_rounded {
            round_to_bf16::<V>(tiles.weights, rows * stride);
        }
    }
}

/// Queries against cached tokens: the nope part through kvB, the rope part as it is, both scaled.
#[inline(always)]
unsafe fn absorb<V: Vector, const M: usize, const N: usize>(absorbed: &Absorbed, group: Group, tiles: Tiles) {
    let Heads {
        nope, rope, scale, ..
    } = absorbed.heads;
    let (width, key) = (absorbed.heads.q_width(), nope + rope);
    let stride = whole_vectors(key);
    unsafe {
        for head in 0..group.heads {
            let start = group.token * width + (group.head + head) * key;
            widen_rows::<V>(
                absorbed.q,
                start,
                width,
                group.tokens,
                key,
                scale,
                tiles.queries,
                stride,
            );
            load_weights::<V>(absorbed, group.head + head, 0, nope, tiles);
            let to = tiles.absorbed.add(head * group.tokens * tiles.row);
            let queries = Left {
                start: tiles.queries,
                row_stride: stride,
                step: 1,
            };
            let weights = Right {
                start: tiles.weights,
                stride: tiles.latent,
            };
            let sums = Target {
                to,
                stride: tiles.row,
                before: Before::Nothing,
            };
            multiply_columns::<V, M, N>(queries, weights, group.tokens, tiles.latent, nope, sums);
            for token in 0..group.tokens {
                let rope_part = to.add(token * tiles.row + tiles.latent);
                fill(rope_part, tiles.row - tiles.latent, 0.0);
                for r in 0..rope {
                    *rope_part.add(r) = *tiles.queries.add(token * stride + nope + r);
                }
            }
        }
    }
}

/// Cached tokens as rows, and transposed; rows behind the last are zero.
#[inline(always)]
unsafe fn load_cached<V: Vector>(absorbed: &Absorbed, first: usize, count: usize, tiles: Tiles) {
    let (latent, rope) = (absorbed.latent, absorbed.heads.rope);
    let Tiles { row, cached, .. } = tiles;
    unsafe {
        if count < KEY_TILE || latent + rope < row {
            fill(cached, KEY_TILE * row, 0.0);
        }
        let from = absorbed.cache_latent;
        widen_rows::<V>(from, first * latent, latent, count, latent, 1.0, cached, row);
        let (from, to) = (absorbed.cache_rope, cached.add(tiles.latent));
        widen_rows::<V>(from, first * rope, rope, count, rope, 1.0, to, row);
        transpose::<V>(cached, row, count, row, tiles.cached_t, KEY_TILE);
    }
}

/// All pairs meet a tile of cached tokens: scores, softmax update, sums of latents.
#[inline(always)]
unsafe fn meet<V: Vector, const M: usize, const N: usize>(
    absorbed: &Absorbed,
    group: Group,
    tiles: Tiles,
    first: usize,
    count: usize,
) {
    let Tiles { pairs, row, .. } = tiles;
    unsafe {
        let queries = Left {
            start: tiles.absorbed,
            row_stride: row,
            step: 1,
        };
        let cached = Right {
            start: tiles.cached_t,
            stride: KEY_TILE,
        };
        let sums = Target {
            to: tiles.scores,
            stride: KEY_TILE,
            before: Before::Nothing,
        };
        multiply_columns::<V, M, N>(queries, cached, pairs, whole_vectors(count), row, sums);
        for pair in 0..pairs {
            let position = absorbed.past + group.token + pair % group.tokens;
            let seen = (position + 1).saturating_sub(first).min(count);
            update_softmax::<V>(tiles, pair, seen);
        }
        let weights = Left {
            start: tiles.scores,
            row_stride: KEY_TILE,
            step: 1,
        };
        let cached = Right {
            start: tiles.cached,
            stride: row,
        };
        let before = Before::Rescaled(tiles.rescale);
        let sums = Target {
            to: tiles.mixed,
            stride: tiles.latent,
            before,
        };
        multiply_columns::<V, M, N>(weights, cached, pairs, tiles.latent, count, sums);
    }
}

/// Turns a pair's scores into exponentials, 0 for the tokens that it does not see, and updates its statistics.
#[inline(always)]
unsafe fn update_softmax<V: Vector>(tiles: Tiles, pair: usize, seen: usize) {
    const VECTORS: usize = KEY_TILE / WIDTH;
    unsafe {
        let (scores, lanes) = (tiles.scores.add(pair * KEY_TILE), tiles.lanes.add(pair * LANES));
        let mut masked = [V::zero(); VECTORS];
        let mut best = V::splat(f32::NEG_INFINITY);
        for n in 0..VECTORS {
            let own = seen.saturating_sub(n * WIDTH);
            masked[n] = V::load(scores.add(n * WIDTH)).keep_below(own, f32::NEG_INFINITY);
            best = best.max(masked[n]);
        }
        let before = V::load(tiles.maxima.add(pair * WIDTH));
        let maximum = before.max(V::splat(greatest_lane(best)));
        let rescale = exp(before.sub(maximum));
        for n in 0..VECTORS {
            let p = exp(masked[n].sub(maximum));
            p.store(scores.add(n * WIDTH));
            let lane = lanes.add(n * WIDTH);
            V::load(lane).mul_add(rescale, p).store(lane);
        }
        maximum.store(tiles.maxima.add(pair * WIDTH));
        rescale.store(tiles.rescale.add(pair * WIDTH));
    }
}

#[inline(always)]
fn greatest_lane<V: Vector>(vector: V) -> f32 {
    let mut lanes = [0.0f32; WIDTH];
    // SAFETY: as many floats as a vector has.
    unsafe { vector.store(lanes.as_mut_ptr()) };
    let mut width = WIDTH / 2;
    while width > 0 {
        for l in 0..width {
            lanes[l] = if lanes[l + width] > lanes[l] {
                lanes[l + width]
            } else {
                lanes[l]
            };
        }
        width /= 2;
    }
    lanes[0]
}

/// Brings the sums of latents back to value channels, divided by the softmax sums.
#[inline(always)]
unsafe fn store_outputs<V: Vector, const M: usize, const N: usize>(
    absorbed: &Absorbed,
    group: Group,
    tiles: Tiles,
) {
    let Heads { nope, value, .. } = absorbed.heads;
    let (width, stride) = (absorbed.heads.o_width(), whole_vectors(value));
    unsafe {
        for head in 0..group.heads {
            load_weights::<V>(absorbed, group.head + head, nope, value, tiles);
            transpose::<V>(
                tiles.weights,
                tiles.latent,
                value,
                tiles.latent,
                tiles.weights_t,
                stride,
            );
            let first = head * group.tokens;
            let mixed = Left {
                start: tiles.mixed.add(first * tiles.latent),
                row_stride: tiles.latent,
                step: 1,
            };
            let weights = Right {
                start: tiles.weights_t,
                stride,
            };
            let sums = Target {
                to: tiles.outputs,
                stride,
                before: Before::Nothing,
            };
            multiply_columns::<V, M, N>(mixed, weights, group.tokens, stride, absorbed.latent, sums);
            for token in 0..group.tokens {
                let mut lanes = Lanes::zero();
                let from = tiles.lanes.add((first + token) * LANES);
                for l in 0..LANES {
                    lanes.0[l] = *from.add(l);
                }
                let start = (group.token + token) * width + (group.head + head) * value;
                let row = tiles.outputs.add(token * stride);
                narrow_rows::<V>(row, stride, 1, value, 1.0 / lanes.sum(), absorbed.o, start, width);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Dtype::{self, Bf16, F32};
    use crate::attention::oracle::{Command, Problem, assert_close, bound, latent_inputs, numbers};
    use crate::bf16;
    use crate::isa::Isa;

    /// Sizes of one decode step.
    #[derive(Clone, Copy, Debug)]
    struct Step {
        tokens: usize,
        past: usize,
        heads: usize,
        nope: usize,
        rope: usize,
        value: usize,
        latent: usize,
    }

    struct Operands {
        q: Vec<f64>,
        kv_b: Vec<f64>,
        latents: Vec<f64>,
        k_rope: Vec<f64>,
    }

    fn operands(step: Step, dtype: Dtype) -> Operands {
        let Step {
            tokens,
            past,
            heads,
            nope,
            rope,
            value,
            latent,
        } = step;
        let weights = numbers(heads * (nope + value) * latent, dtype, 2);
        let small = (latent as f64).log2().round() as i32 / 2;
        Operands {
            q: numbers(tokens * heads * (nope + rope), dtype, 1),
            kv_b: weights.iter().map(|w| w * 2f64.powi(-small)).collect(),
            latents: numbers((past + tokens) * latent, dtype, 3),
            k_rope: numbers((past + tokens) * rope, dtype, 4),
        }
    }

    fn run(step: Step, x: &Operands, dtype: Dtype, round: bool, isa: Isa, threads: usize) -> Vec<f64> {
        let Step {
            tokens,
            past,
            heads,
            nope,
            rope,
            value,
            latent,
        } = step;
        let counts = [tokens, heads, nope, rope, value, latent, past].map(|n| n as f64);
        let scale = 1.0 / ((nope + rope) as f64).sqrt();
        let mut command = Command::new();
        command
            .operand(&x.q, dtype)
            .operand(&x.kv_b, dtype)
            .operand(&x.latents, dtype)
            .operand(&x.k_rope, dtype)
            .output(tokens * heads * value, dtype)
            .params(&counts)
            .params(&[scale, round as u8 as f64]);
        command.run(absorbed_attention, isa, threads).unwrap();
        command.read(4)
    }

    /// The expanded form in f64: keys and values of every cached token made from its latent.
    fn expanded(step: Step, x: &Operands, round: bool) -> Vec<f64> {
        let Step {
            tokens,
            past,
            heads,
            nope,
            rope,
            value,
            latent,
        } = step;
        let problem = Problem::new(&[past + tokens], heads, nope, rope, value);
        let round = |w: &f64| if round { bf16::round(*w as f32) as f64 } else { *w };
        let kv_b: Vec<f64> = x.kv_b.iter().map(round).collect();
        let inputs = latent_inputs(&problem, &x.q, &kv_b, &x.latents, &x.k_rope, latent);
        problem.forward(&inputs).0[past * heads * value..].to_vec()
    }

    fn steps() -> Vec<Step> {
        let nano = Step {
            tokens: 1,
            past: 0,
            heads: 4,
            nope: 32,
            rope: 16,
            value: 32,
            latent: 64,
        };
        vec![
            nano,
            Step { past: 100, ..nano },
            Step {
                tokens: 3,
                past: 61,
                ..nano
            },
            Step {
                tokens: 35,
                past: 20,
                heads: 3,
                nope: 6,
                rope: 4,
                value: 5,
                latent: 20,
            },
            Step {
                tokens: 2,
                past: 127,
                heads: 5,
                nope: 8,
                rope: 0,
                value: 40,
                latent: 48,
            },
            Step {
                tokens: 1,
                past: 200,
                heads: 9,
                nope: 128,
                rope: 64,
                value: 128,
                latent: 512,
            },
        ]
    }

    #[test]
    fn the_absorbed_form_equals_the_expanded_one() {
        for step in steps() {
            for (dtype, round) in [(F32, false), (F32, true), (Bf16, true)] {
                let x = operands(step, dtype);
                let expected = expanded(step, &x, round);
                // Three products, one behind the other.
                let bound = 5.0 * bound(F32).max(bound(dtype) / 5.0);
                for isa in Isa::usable() {
                    let actual = run(step, &x, dtype, round, isa, 2);
                    assert_close(&actual, &expected, bound, &format!("{step:?} {isa}"));
                }
            }
        }
    }

    #[test]
    fn instruction_sets_and_thread_counts_give_the_same_bits() {
        for step in steps() {
            for (dtype, round) in [(F32, true), (Bf16, false)] {
                let x = operands(step, dtype);
                let expected = run(step, &x, dtype, round, Isa::Portable, 1);
                for isa in Isa::usable() {
                    for threads in [1, 2, 5] {
                        assert!(
                            run(step, &x, dtype, round, isa, threads) == expected,
                            "{step:?} {isa} {threads}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_token_has_the_same_bits_alone_and_asked_with_others() {
        let step = Step {
            tokens: 37,
            past: 50,
            heads: 3,
            nope: 16,
            rope: 8,
            value: 16,
            latent: 32,
        };
        let x = operands(step, F32);
        let together = run(step, &x, F32, false, Isa::detect(), 2);
        for token in [0, 1, 15, 16, 36] {
            let past = step.past + token;
            let own = Operands {
                q: x.q[token * 72..(token + 1) * 72].to_vec(),
                kv_b: x.kv_b.clone(),
                latents: x.latents[..(past + 1) * 32].to_vec(),
                k_rope: x.k_rope[..(past + 1) * 8].to_vec(),
            };
            let alone = run(
                Step {
                    tokens: 1,
                    past,
                    ..step
                },
                &own,
                F32,
                false,
                Isa::detect(),
                1,
            );
            assert_eq!(alone, together[token * 48..(token + 1) * 48], "token {token}");
        }
    }

    #[test]
    fn a_cache_shorter_than_the_past_is_refused_by_name() {
        let step = steps()[1];
        let x = operands(step, F32);
        let mut command = Command::new();
        command
            .operand(&x.q, F32)
            .operand(&x.kv_b, F32)
            .operand(&x.latents, F32)
            .operand(&x.k_rope, F32);
        command
            .output(128, F32)
            .params(&[1.0, 4.0, 32.0, 16.0, 32.0, 64.0, 1e6, 0.1, 0.0]);
        let refused = command.run(absorbed_attention, Isa::detect(), 1).unwrap_err();
        assert_eq!(refused.param, Some("cacheLatent"));
    }
}
