//! attentionBackward: gradients of queries, keys, values and the shared rope key, probabilities computed anew.
//!
//! contract   src/tensor/ops/attention.ts                     (reference, tolerance)
//! layout     as attention; dq, dkv, dkRope as q, kv, kRope · workspace [H, T, R] rope-key partials, then [H, T] rowsum(do o)
//! dtype      do, q, kv, kRope, o, dq, dkv, dkRope each f32 or bf16; arithmetic f32; with AMX and all of do, q, kv,
//!            kRope bf16: strips.rs
//! equations  p = exp(s - lse) · dv = p^T do · dp = do v^T · ds = p (dp - rowsum(do o)) · dq = scale ds k · dk = scale ds^T q
//! tiling     one task owns a (sequence, head) and with it dk and dv; panels of 32 queries, outer; 64 keys at a time, inner
//! order      dq: keys ascending, dk and dv: queries ascending, each one FMA chain over the sequence; dkRope: heads
//!            ascending. Nothing depends on what else is in the batch, nor on threads. Above the diagonal, squares of
//!            16 x 16 are not computed.
//! measured   as attention: 65 % of the f32 multiply-add peak at heads of 32 + 16 / 32 and 256 tokens, 61 % at 128 + 64 / 128
//!            and 512

#[cfg(target_arch = "x86_64")]
use super::blocks;
use super::convert::{Output, fill, narrow_rows, row_dot, transpose, widen_rows};
use super::shape::{Heads, Sequence, read_sizes, sequences};
use super::tile::{KEY_TILE, Meeting, PANEL};
use super::vector::{Vector, WIDTH, vector_twins};
use crate::args::{Args, Floats};
use crate::error::KernelError;
use crate::ops::Ctx;
use crate::pool::Disjoint;
use crate::with_floats;

mod meet;
#[cfg(target_arch = "x86_64")]
mod strips;
mod tiles;

use meet::{Met, meet};
use tiles::Tiles;

/// Rows of a task when partials of the rope key are summed over heads.
const SUM_ROWS: usize = 64;

struct Backward<'a> {
    heads: Heads,
    d_o: Floats<'a>,
    q: Floats<'a>,
    kv: Floats<'a>,
    k_rope: Floats<'a>,
    o: Floats<'a>,
    lse: &'a [f32],
    dq: Output,
    dkv: Output,
    dk_rope: Output,
    /// [H, T, R]
    rope_partials: Disjoint<'a, f32>,
    /// [H, T]: rowsum(do o), what the softmax takes off every dp of a query.
    row_sums: Disjoint<'a, f32>,
    tokens: usize,
}

/// The kernel behind `attentionBackward`.
pub fn attention_backward(ctx: &Ctx, args: &mut Args) -> Result<(), KernelError> {
    let d_o = args.floats("do")?;
    let q = args.floats("q")?;
    let kv = args.floats("kv")?;
    let k_rope = args.floats("kRope")?;
    let o = args.floats("o")?;
    let lse = args.f32s("lse")?;
    let offsets = args.i32s("seqOffsets")?;
    let dq = args.floats("dq")?;
    let dkv = args.floats("dkv")?;
    let dk_rope = args.floats("dkRope")?;
    let workspace = args.f32s("workspace")?;
    let (tokens, heads, count) = read_sizes(args)?;
    args.end()?;
    let mut sequences = sequences(offsets.i32s(count + 1)?, tokens)?;
    // The longest work first, so that no thread is left alone with it at the end.
    sequences.sort_by_key(|sequence| std::cmp::Reverse(sequence.len));
    let partials = heads.count * tokens * heads.rope;
    let workspace = workspace.f32s_mut(partials + heads.count * tokens)?;
    let (rope_partials, row_sums) = workspace.split_at_mut(partials);
    let backward = Backward {
        heads,
        d_o: d_o.slice(tokens * heads.o_width())?,
        q: q.slice(tokens * heads.q_width())?,
        kv: kv.slice(tokens * heads.kv_width())?,
        k_rope: k_rope.slice(tokens * heads.rope)?,
        o: o.slice(tokens * heads.o_width())?,
        lse: lse.f32s(heads.count * tokens)?,
        dq: Output::of(dq.slice_mut(tokens * heads.q_width())?),
        dkv: Output::of(dkv.slice_mut(tokens * heads.kv_width())?),
        dk_rope: Output::of(dk_rope.slice_mut(tokens * heads.rope)?),
        rope_partials: Disjoint::new(rope_partials),
        row_sums: Disjoint::new(row_sums),
        tokens,
    };
    #[cfg(target_arch = "x86_64")]
    let factors = {
        let Backward {
            d_o, q, kv, k_rope, ..
        } = backward;
        blocks::factors(ctx.isa, &heads, [d_o, q, kv, k_rope])
    };
    ctx.pool.run(sequences.len() * heads.count, &|task, scratch| {
        let (sequence, head) = (sequences[task / heads.count], task % heads.count);
        #[cfg(target_arch = "x86_64")]
        if let Some(factors) = factors {
            let buffer = scratch.f32(strips::len(&heads, sequence.len));
            // SAFETY: as below; `factors` has seen that the processor has AMX.
            unsafe { strips::backward_sequence(&backward, factors, sequence, head, buffer) };
            return;
        }
        let buffer = scratch.f32(Tiles::len(&heads, sequence.len));
        // SAFETY: every (sequence, head) is one task, so that what it writes is its own.
        unsafe { sequence_twins::call(ctx.isa, &backward, sequence, head, buffer) };
    });
    ctx.pool.run(tokens.div_ceil(SUM_ROWS), &|task, scratch| {
        let first = task * SUM_ROWS;
        let rows = SUM_ROWS.min(tokens - first);
        let buffer = scratch.f32(rows * heads.rope);
        // SAFETY: every row of dkRope is one task's; the partials are complete.
        unsafe { rope_twins::call(ctx.isa, &backward, first, rows, buffer) };
    });
    Ok(())
}

vector_twins! {
    mod sequence_twins = backward_sequence(
        backward: &Backward, sequence: Sequence, head: usize, buffer: &mut [f32],
    )
}

#[inline(always)]
unsafe fn backward_sequence<V: Vector, const M: usize, const N: usize>(
    backward: &Backward,
    sequence: Sequence,
    head: usize,
    buffer: &mut [f32],
) {
    let heads = &backward.heads;
    let tiles = Tiles::of(buffer, heads, sequence.len);
    unsafe {
        load_keys::<V>(backward, sequence, head, tiles);
        for first in (0..sequence.len).step_by(PANEL) {
            let count = PANEL.min(sequence.len - first);
            load_panel::<V>(backward, sequence.start + first, count, head, tiles);
            for tile in (0..first + count).step_by(KEY_TILE) {
                let meeting = Meeting {
                    count: KEY_TILE.min(first + count - tile),
                    ahead: tile as isize - first as isize,
                };
                meet::<V, M, N>(
                    heads,
                    tiles,
                    Met {
                        first: tile,
                        queries: count,
                        meeting,
                    },
                );
            }
            store_d_queries::<V>(backward, sequence.start + first, count, head, tiles);
        }
        store_d_keys::<V>(backward, sequence, head, tiles);
    }
}

/// Keys and values of the whole sequence; their gradients start from zero.
#[inline(always)]
unsafe fn load_keys<V: Vector>(backward: &Backward, sequence: Sequence, head: usize, tiles: Tiles) {
    let heads = &backward.heads;
    let Tiles {
        key_stride,
        value_stride,
        keys,
        values,
        ..
    } = tiles;
    let rows = sequence.len.next_multiple_of(WIDTH);
    let (start, width) = (
        sequence.start * heads.kv_width() + head * heads.kv(),
        heads.kv_width(),
    );
    let rope = sequence.start * heads.rope;
    unsafe {
        if rows > sequence.len || heads.key() < key_stride {
            fill(keys, rows * key_stride, 0.0);
        }
        if rows > sequence.len || heads.value < value_stride {
            fill(values, rows * value_stride, 0.0);
        }
        fill(tiles.d_keys, rows * key_stride, 0.0);
        fill(tiles.d_values, rows * value_stride, 0.0);
        widen_rows::<V>(
            backward.kv,
            start,
            width,
            sequence.len,
            heads.nope,
            1.0,
            keys,
            key_stride,
        );
        let rope_keys = keys.add(heads.nope);
        let (k_rope, step) = (backward.k_rope, heads.rope);
        widen_rows::<V>(
            k_rope,
            rope,
            step,
            sequence.len,
            heads.rope,
            1.0,
            rope_keys,
            key_stride,
        );
        let start = start + heads.nope;
        widen_rows::<V>(
            backward.kv,
            start,
            width,
            sequence.len,
            heads.value,
            1.0,
            values,
            value_stride,
        );
    }
}

/// The panel's queries and output gradients, both ways round; lanes behind the last query are zero.
#[inline(always)]
unsafe fn load_panel<V: Vector>(backward: &Backward, first: usize, count: usize, head: usize, tiles: Tiles) {
    let heads = &backward.heads;
    let Tiles {
        key_stride,
        value_stride,
        queries,
        d_outputs,
        ..
    } = tiles;
    let (key, value) = (heads.key(), heads.value);
    let (q, q_width) = (first * heads.q_width() + head * key, heads.q_width());
    let (o, o_width) = (first * heads.o_width() + head * value, heads.o_width());
    unsafe {
        if count < PANEL || key < key_stride {
            fill(queries, PANEL * key_stride, 0.0);
        }
        if count < PANEL || value < value_stride {
            fill(d_outputs, PANEL * value_stride, 0.0);
        }
        widen_rows::<V>(
            backward.q,
            q,
            q_width,
            count,
            key,
            heads.scale,
            queries,
            key_stride,
        );
        widen_rows::<V>(
            backward.d_o,
            o,
            o_width,
            count,
            value,
            1.0,
            d_outputs,
            value_stride,
        );
        transpose::<V>(queries, key_stride, PANEL, key, tiles.queries_t, PANEL);
        transpose::<V>(d_outputs, value_stride, PANEL, value, tiles.d_outputs_t, PANEL);
        fill(tiles.d_queries_t, PANEL * key_stride, 0.0);
        let row_sums = backward.row_sums.part(head * backward.tokens + first, count);
        with_floats!(backward.o.range(o, (count - 1) * o_width + value), |o| {
            for row in 0..count {
                let d_output = d_outputs.add(row * value_stride);
                row_sums[row] = row_dot::<V, _, _>(o.as_ptr().add(row * o_width), d_output, value);
            }
        });
        for lane in 0..PANEL {
            let token = head * backward.tokens + first + lane;
            *tiles.lse.add(lane) = if lane < count { backward.lse[token] } else { 0.0 };
            *tiles.row_sums.add(lane) = if lane < count { row_sums[lane] } else { 0.0 };
        }
    }
}

#[inline(always)]
unsafe fn store_d_queries<V: Vector>(
    backward: &Backward,
    first: usize,
    count: usize,
    head: usize,
    tiles: Tiles,
) {
    let heads = &backward.heads;
    let (key, stride) = (heads.key(), tiles.key_stride);
    let (start, width) = (first * heads.q_width() + head * key, heads.q_width());
    unsafe {
        // The panel's queries have been used; their place takes the gradients.
        let rows = tiles.queries;
        transpose::<V>(tiles.d_queries_t, PANEL, key, PANEL, rows, stride);
        narrow_rows::<V>(rows, stride, count, key, heads.scale, backward.dq, start, width);
    }
}

#[inline(always)]
unsafe fn store_d_keys<V: Vector>(backward: &Backward, sequence: Sequence, head: usize, tiles: Tiles) {
    let heads = &backward.heads;
    let Tiles {
        key_stride,
        value_stride,
        d_keys,
        d_values,
        ..
    } = tiles;
    let Sequence { start: token, len } = sequence;
    let (start, width) = (token * heads.kv_width() + head * heads.kv(), heads.kv_width());
    unsafe {
        narrow_rows::<V>(
            d_keys,
            key_stride,
            len,
            heads.nope,
            1.0,
            backward.dkv,
            start,
            width,
        );
        let values = start + heads.nope;
        narrow_rows::<V>(
            d_values,
            value_stride,
            len,
            heads.value,
            1.0,
            backward.dkv,
            values,
            width,
        );
        let at = (head * backward.tokens + token) * heads.rope;
        let partials = Output::F32(backward.rope_partials.part(at, len * heads.rope).as_mut_ptr());
        let rope = d_keys.add(heads.nope);
        narrow_rows::<V>(rope, key_stride, len, heads.rope, 1.0, partials, 0, heads.rope);
    }
}

vector_twins! {
    mod rope_twins = sum_rope(backward: &Backward, first: usize, rows: usize, buffer: &mut [f32])
}

/// dkRope of some rows: the heads' partials, ascending.
#[inline(always)]
unsafe fn sum_rope<V: Vector, const M: usize, const N: usize>(
    backward: &Backward,
    first: usize,
    rows: usize,
    buffer: &mut [f32],
) {
    let rope = backward.heads.rope;
    for head in 0..backward.heads.count {
        // SAFETY: nobody writes partials any more.
        let partials = unsafe {
            backward
                .rope_partials
                .part((head * backward.tokens + first) * rope, rows * rope)
        };
        for i in 0..rows * rope {
            buffer[i] = if head == 0 {
                partials[i]
            } else {
                buffer[i] + partials[i]
            };
        }
    }
    let sums = buffer.as_ptr();
    unsafe { narrow_rows::<V>(sums, rope, rows, rope, 1.0, backward.dk_rope, first * rope, rope) };
}

#[cfg(test)]
mod tests;
