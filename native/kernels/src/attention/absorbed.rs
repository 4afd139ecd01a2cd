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
//! measured   as attention: 11 us for 4 heads of 32 + 16 / 32 over 256 cached latents of 64, f32 kvB rounded on the way

use super::convert::{Output, fill, narrow_rows, round_to_bf16, transpose, widen_rows};
use super::product::{Before, Left, Right, Target, multiply_columns};
use super::shape::Heads;
use super::tile::{KEY_TILE, whole_vectors};
use super::vector::{Vector, WIDTH, vector_twins};
use crate::args::{Args, Floats, elements};
use crate::error::KernelError;
use crate::math::{LANES, Lanes};
use crate::ops::Ctx;

mod meet;
mod tiles;

use meet::meet;
use tiles::Tiles;

/// Tokens of a task, and its (head, token) pairs, at most. Neither has influence on bits.
const TOKENS: usize = 16;
const PAIRS: usize = 64;
/// Commands below this many multiply-adds run as one task.
const SMALL: f64 = 400_000.0;

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
    heads.check(tokens)?;
    elements(&[count, nope + value, latent.max(1)])?;
    elements(&[(past + tokens).max(1), latent + rope])?;
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
    let per_head = (past + tokens) as f64 * (2 * latent + rope) as f64 + ((nope + value) * latent) as f64;
    let is_small = (tokens * count) as f64 * per_head <= SMALL;
    let threads = if is_small { 1 } else { ctx.pool.threads() };
    let groups = groups(tokens, count, threads);
    let chunk = if is_small { groups.len().max(1) } else { 1 };
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
        if width < stride || !rows.is_multiple_of(WIDTH) {
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
mod tests;
