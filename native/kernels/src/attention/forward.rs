//! attention: causal softmax attention inside each packed sequence, with separate nope and rope channels.
//!
//! contract   src/tensor/ops/attention.ts                     (reference, gradient, tolerance)
//! layout     q [T, H, N + R] · kv [T, H, N + V] · kRope [T, R], one for all heads · o [T, H, V] · lse [H, T]
//! dtype      q, kv, kRope, o each f32 or bf16; arithmetic and lse f32; with AMX and all of q, kv, kRope bf16: strips.rs
//! tiling     a task owns up to 256 queries of one (sequence, head); it meets 64 keys at a time, in panels of 32 queries
//! why so     queries are the lanes: scores, softmax and outputs of a panel are [keys | channels, 32 queries], so that no sum
//!            runs across lanes, keys and values are broadcast from rows as they lie, and every set of instructions does
//!            the same operations on the same numbers
//! order      a score: nope then rope channels ascending, one FMA chain. A row's maximum, sum and outputs: key tiles of
//!            64 counted from the sequence's start, ascending, keys ascending inside. Nothing depends on what else is in
//!            the batch, nor on threads. Above the diagonal, squares of 16 x 16 are not computed.
//! measured   Sapphire Rapids, one thread, AVX-512, bf16 in and out, beside busy neighbours, 2026-11 (examples/attention_bench):
//!            60 % of the f32 multiply-add peak at heads of 32 + 16 / 32 and 256 tokens, 72 % at 128 + 64 / 128 and 512

use std::cmp::Reverse;

#[cfg(target_arch = "x86_64")]
use super::blocks;
use super::convert::{Output, fill, narrow_rows, transpose, widen_rows};
use super::shape::{Heads, Sequence, read_sizes, sequences};
use super::tile::{KEY_TILE, Meeting, PANEL, whole_vectors};
use super::vector::{Vector, WIDTH, vector_twins};
use crate::args::{Args, Floats};
use crate::error::KernelError;
use crate::math;
use crate::ops::Ctx;
use crate::pool::Disjoint;

mod attend;
#[cfg(target_arch = "x86_64")]
mod strips;
mod tiles;

use attend::attend;
use tiles::{Panel, Tiles};

/// Queries of a task where there is work enough for every thread, and where there is not. Any multiple of a panel gives
/// the same bits; more of them share one packing of the keys.
const QUERY_TILES: [usize; 2] = [256, 64];
/// Commands below this many multiply-adds run as one task.
const SMALL: f64 = 200_000.0;

struct Forward<'a> {
    heads: Heads,
    q: Floats<'a>,
    kv: Floats<'a>,
    k_rope: Floats<'a>,
    o: Output,
    lse: Disjoint<'a, f32>,
    tokens: usize,
}

/// Queries `first..first + rows` of a sequence.
#[derive(Clone, Copy)]
struct QueryTile {
    sequence: Sequence,
    first: usize,
    rows: usize,
}

/// The kernel behind `attention`.
pub fn attention(ctx: &Ctx, args: &mut Args) -> Result<(), KernelError> {
    let q = args.floats("q")?;
    let kv = args.floats("kv")?;
    let k_rope = args.floats("kRope")?;
    let offsets = args.i32s("seqOffsets")?;
    let o = args.floats("o")?;
    let lse = args.f32s("lse")?;
    let (tokens, heads, count) = read_sizes(args)?;
    args.end()?;
    let sequences = sequences(offsets.i32s(count + 1)?, tokens)?;
    let forward = Forward {
        heads,
        q: q.slice(tokens * heads.q_width())?,
        kv: kv.slice(tokens * heads.kv_width())?,
        k_rope: k_rope.slice(tokens * heads.rope)?,
        o: Output::of(o.slice_mut(tokens * heads.o_width())?),
        lse: Disjoint::new(lse.f32s_mut(heads.count * tokens)?),
        tokens,
    };
    let tiles = query_tiles(&sequences, heads.count, ctx.pool.threads());
    let tasks = tiles.len() * heads.count;
    let pairs: f64 = sequences.iter().map(|s| (s.len as f64).powi(2) / 2.0).sum();
    let is_small = pairs * ((heads.key() + heads.value) * heads.count) as f64 <= SMALL;
    let chunk = if is_small { tasks } else { 1 };
    #[cfg(target_arch = "x86_64")]
    let factors = blocks::factors(ctx.isa, &heads, [forward.q, forward.kv, forward.k_rope]);
    ctx.pool.run(tasks.div_ceil(chunk.max(1)), &|index, scratch| {
        for task in index * chunk..tasks.min((index + 1) * chunk) {
            let (tile, head) = (tiles[task / heads.count], task % heads.count);
            #[cfg(target_arch = "x86_64")]
            if let Some(factors) = factors {
                let buffer = scratch.f32(strips::len(&heads, tile));
                // SAFETY: as below; `factors` has seen that the processor has AMX.
                unsafe { strips::forward_tile(&forward, factors, tile, head, buffer) };
                continue;
            }
            let buffer = scratch.f32(Tiles::len(&heads, tile.rows));
            // SAFETY: every (tile, head) is one task, so that what it writes is its own.
            unsafe { tile_twins::call(ctx.isa, &forward, tile, head, buffer) };
        }
    });
    Ok(())
}

/// The longest work first, so that no thread is left alone with it at the end.
fn query_tiles(sequences: &[Sequence], heads: usize, threads: usize) -> Vec<QueryTile> {
    let large: usize = sequences
        .iter()
        .map(|sequence| sequence.len.div_ceil(QUERY_TILES[0]))
        .sum();
    let size = QUERY_TILES[if large * heads >= 2 * threads { 0 } else { 1 }];
    let mut tiles = Vec::new();
    for &sequence in sequences {
        for first in (0..sequence.len).step_by(size) {
            let rows = size.min(sequence.len - first);
            tiles.push(QueryTile {
                sequence,
                first,
                rows,
            });
        }
    }
    tiles.sort_by_key(|tile| Reverse(tile.first + tile.rows));
    tiles
}

vector_twins! {
    mod tile_twins = forward_tile(forward: &Forward, tile: QueryTile, head: usize, buffer: &mut [f32])
}

#[inline(always)]
unsafe fn forward_tile<V: Vector, const M: usize, const N: usize>(
    forward: &Forward,
    tile: QueryTile,
    head: usize,
    buffer: &mut [f32],
) {
    let heads = &forward.heads;
    let tiles = Tiles::of(buffer, heads, tile.rows);
    unsafe {
        for i in 0..tiles.panels {
            let first = tile.sequence.start + tile.first + i * PANEL;
            let count = PANEL.min(tile.rows - i * PANEL);
            let panel = tiles.panel(i);
            load_queries::<V>(forward, head, first, count, tiles.rows, panel.queries);
            fill(panel.outputs, PANEL * tiles.value_stride, 0.0);
            fill(panel.maxima, PANEL, f32::NEG_INFINITY);
            fill(panel.sums, PANEL, 0.0);
        }
        let end = tile.first + tile.rows;
        for first in (0..end).step_by(KEY_TILE) {
            let count = KEY_TILE.min(end - first);
            load_keys::<V>(forward, head, tile.sequence.start + first, count, tiles);
            for i in 0..tiles.panels {
                let ahead = first as isize - (tile.first + i * PANEL) as isize;
                if ahead < PANEL as isize {
                    attend::<V, M, N>(heads, tiles, tiles.panel(i), Meeting { count, ahead });
                }
            }
        }
        for i in 0..tiles.panels {
            let first = tile.sequence.start + tile.first + i * PANEL;
            let count = PANEL.min(tile.rows - i * PANEL);
            store_panel::<V>(forward, head, first, count, tiles.panel(i), tiles.rows);
        }
    }
}

/// The panel's queries, transposed and scaled; lanes behind the last query are zero.
#[inline(always)]
unsafe fn load_queries<V: Vector>(
    forward: &Forward,
    head: usize,
    first: usize,
    count: usize,
    rows: *mut f32,
    to: *mut f32,
) {
    let heads = &forward.heads;
    let (key, stride) = (heads.key(), whole_vectors(heads.key()));
    let (width, start) = (heads.q_width(), first * heads.q_width() + head * key);
    unsafe {
        if count < PANEL || key < stride {
            fill(rows, PANEL * stride, 0.0);
        }
        widen_rows::<V>(forward.q, start, width, count, key, heads.scale, rows, stride);
        transpose::<V>(rows, stride, PANEL, key, to, PANEL);
    }
}

/// Keys and values of a tile, one row per token; the rows up to a multiple of 16 are zero.
#[inline(always)]
unsafe fn load_keys<V: Vector>(forward: &Forward, head: usize, first: usize, count: usize, tiles: Tiles) {
    let heads = &forward.heads;
    let Tiles {
        keys,
        key_stride,
        values,
        value_stride,
        ..
    } = tiles;
    let (width, start) = (heads.kv_width(), first * heads.kv_width() + head * heads.kv());
    let rope = first * heads.rope;
    unsafe {
        let padding = count.next_multiple_of(WIDTH) - count;
        fill(keys.add(count * key_stride), padding * key_stride, 0.0);
        widen_rows::<V>(forward.kv, start, width, count, heads.nope, 1.0, keys, key_stride);
        let rope_keys = keys.add(heads.nope);
        widen_rows::<V>(
            forward.k_rope,
            rope,
            heads.rope,
            count,
            heads.rope,
            1.0,
            rope_keys,
            key_stride,
        );
        if heads.value < value_stride {
            fill(values, count * value_stride, 0.0);
        }
        let start = start + heads.nope;
        widen_rows::<V>(
            forward.kv,
            start,
            width,
            count,
            heads.value,
            1.0,
            values,
            value_stride,
        );
    }
}

/// Divides by the sums and writes the panel's outputs and log-sum-exps.
#[inline(always)]
unsafe fn store_panel<V: Vector>(
    forward: &Forward,
    head: usize,
    first: usize,
    count: usize,
    panel: Panel,
    rows: *mut f32,
) {
    let heads = &forward.heads;
    let stride = whole_vectors(heads.value);
    unsafe {
        for strip in 0..2 {
            let reciprocal = V::splat(1.0).div(V::load(panel.sums.add(strip * WIDTH)));
            for channel in 0..heads.value {
                let at = panel.outputs.add(channel * PANEL + strip * WIDTH);
                V::load(at).mul(reciprocal).store(at);
            }
        }
        transpose::<V>(panel.outputs, PANEL, heads.value, PANEL, rows, stride);
        let (width, start) = (heads.o_width(), first * heads.o_width() + head * heads.value);
        narrow_rows::<V>(rows, stride, count, heads.value, 1.0, forward.o, start, width);
        let lse = forward.lse.part(head * forward.tokens + first, count);
        for (lane, lse) in lse.iter_mut().enumerate() {
            *lse = *panel.maxima.add(lane) + math::log(*panel.sums.add(lane));
        }
    }
}

#[cfg(test)]
mod tests;
