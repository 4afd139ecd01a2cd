//! attentionBackward: gradients of queries, keys, values and the shared rope key, probabilities computed anew.
//!
//! contract   src/tensor/ops/attention.ts                     (reference, tolerance)
//! layout     as attention; dq, dkv, dkRope as q, kv, kRope · workspace [H, T, R] rope-key partials, then [H, T] rowsum(do o)
//! dtype      do, q, kv, kRope, o, dq, dkv, dkRope each f32 or bf16; arithmetic f32
//! equations  p = exp(s - lse) · dv = p^T do · dp = do v^T · ds = p (dp - rowsum(do o)) · dq = scale ds k · dk = scale ds^T q
//! tiling     one task owns a (sequence, head) and with it dk and dv; panels of 32 queries, outer; 64 keys at a time, inner
//! order      dq: keys ascending, dk and dv: queries ascending, each one FMA chain over the sequence; dkRope: heads
//!            ascending. Nothing depends on what else is in the batch, nor on threads. Above the diagonal, squares of
//!            16 x 16 are not computed.

use super::shape::{Heads, Sequence, read_sizes, sequences};
use super::tile::{
    Before, KEY_TILE, Left, Output, PANEL, Parts, ROWS, Right, Sums, Target, fill, multiply,
    multiply_columns, narrow_rows, row_dot, store_block, transpose, whole_vectors, widen_rows,
};
use super::vector::{Vector, WIDTH, exp, vector_twins};
use crate::args::{Args, Floats};
use crate::error::KernelError;
use crate::ops::Ctx;
use crate::pool::Disjoint;
use crate::with_floats;

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
    ctx.pool.run(sequences.len() * heads.count, &|task, scratch| {
        let (sequence, head) = (sequences[task / heads.count], task % heads.count);
        let buffer = scratch.f32(scratch_len(&heads, sequence.len));
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

fn scratch_len(heads: &Heads, len: usize) -> usize {
    let (key, value) = (whole_vectors(heads.key()), whole_vectors(heads.value));
    let rows = len.next_multiple_of(WIDTH);
    2 * rows * (key + value) + PANEL * (3 * key + 2 * value + 2) + 2 * KEY_TILE * PANEL
}

/// One (sequence, head) in scratch; keys and values in rows up to a multiple of 16, padding zero.
#[derive(Clone, Copy)]
struct Tiles {
    key_stride: usize,
    value_stride: usize,
    /// [T][D] and [T][V]
    keys: *mut f32,
    values: *mut f32,
    d_keys: *mut f32,
    d_values: *mut f32,
    /// The panel's queries, scaled: [32][D], and [D][32]
    queries: *mut f32,
    queries_t: *mut f32,
    /// The gradients of its outputs: [32][V], and [V][32]
    d_outputs: *mut f32,
    d_outputs_t: *mut f32,
    /// [D][32]
    d_queries_t: *mut f32,
    /// [32]: its log-sum-exps, and rowsum(do o)
    lse: *mut f32,
    row_sums: *mut f32,
    /// [64][32]: probabilities, and score gradients
    probabilities: *mut f32,
    d_scores: *mut f32,
}

impl Tiles {
    fn of(buffer: &mut [f32], heads: &Heads, len: usize) -> Tiles {
        let (key_stride, value_stride) = (whole_vectors(heads.key()), whole_vectors(heads.value));
        let rows = len.next_multiple_of(WIDTH);
        let mut parts = Parts::of(buffer);
        Tiles {
            key_stride,
            value_stride,
            keys: parts.take(rows, key_stride),
            values: parts.take(rows, value_stride),
            d_keys: parts.take(rows, key_stride),
            d_values: parts.take(rows, value_stride),
            queries: parts.take(PANEL, key_stride),
            queries_t: parts.take(PANEL, key_stride),
            d_outputs: parts.take(PANEL, value_stride),
            d_outputs_t: parts.take(PANEL, value_stride),
            d_queries_t: parts.take(PANEL, key_stride),
            lse: parts.take(1, PANEL),
            row_sums: parts.take(1, PANEL),
            probabilities: parts.take(KEY_TILE, PANEL),
            d_scores: parts.take(KEY_TILE, PANEL),
        }
    }
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
                let met = Met {
                    first: tile,
                    count: KEY_TILE.min(first + count - tile),
                    queries: count,
                    ahead: tile as isize - first as isize,
                };
                meet::<V, M, N>(heads, tiles, met);
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
                row_sums[row] = row_dot::<V, _>(o.as_ptr().add(row * o_width), d_output, value);
            }
        });
        for lane in 0..PANEL {
            let token = head * backward.tokens + first + lane;
            *tiles.lse.add(lane) = if lane < count { backward.lse[token] } else { 0.0 };
            *tiles.row_sums.add(lane) = if lane < count { row_sums[lane] } else { 0.0 };
        }
    }
}

/// A panel of queries and a tile of keys.
#[derive(Clone, Copy)]
struct Met {
    /// First key, from the sequence's start.
    first: usize,
    /// Keys and queries that are there.
    count: usize,
    queries: usize,
    /// First key minus first query.
    ahead: isize,
}

impl Met {
    /// Keys that the last query of a strip sees.
    #[inline(always)]
    fn seen_by(&self, strip: usize) -> usize {
        let seen = ((strip + 1) * WIDTH) as isize - self.ahead;
        (seen.max(0) as usize).min(self.count)
    }

    /// Keys that all queries of the panel see.
    #[inline(always)]
    fn seen_by_all(&self) -> usize {
        ((-self.ahead).max(0) as usize).min(self.count)
    }
}

#[inline(always)]
unsafe fn meet<V: Vector, const M: usize, const N: usize>(heads: &Heads, tiles: Tiles, met: Met) {
    let full = met.seen_by_all();
    unsafe {
        meet_keys::<V, M, N>(heads, tiles, met, 0, full, 0, usize::MAX);
        // The diagonal, in groups of 16 keys: strips before the group's own see none of it.
        let mut group = full;
        while group < met.seen_by(1) {
            let own = (group as isize + met.ahead) as usize / WIDTH;
            meet_keys::<V, M, N>(heads, tiles, met, group, WIDTH, own, own);
            group += WIDTH;
        }
        add_d_queries::<V, M, N>(heads, tiles, met);
    }
}

/// Everything that belongs to keys `first..first + count` of the tile, for the strips from `strip` on; in strip
/// `diagonal` a query sees no later key.
#[inline(always)]
unsafe fn meet_keys<V: Vector, const M: usize, const N: usize>(
    heads: &Heads,
    tiles: Tiles,
    met: Met,
    first: usize,
    count: usize,
    strip: usize,
    diagonal: usize,
) {
    let lanes = strip * WIDTH;
    let seen = met.queries.saturating_sub(lanes);
    if count == 0 || seen == 0 {
        return;
    }
    let Tiles {
        key_stride,
        value_stride,
        ..
    } = tiles;
    unsafe {
        let keys = Left {
            start: tiles.keys.add((met.first + first) * key_stride),
            row_stride: key_stride,
            step: 1,
        };
        let values = Left {
            start: tiles.values.add((met.first + first) * value_stride),
            row_stride: value_stride,
            step: 1,
        };
        let mut strip = strip;
        while strip < 2 {
            let at = first * PANEL + strip * WIDTH;
            let (probabilities, d_scores) = (tiles.probabilities.add(at), tiles.d_scores.add(at));
            let queries = Right {
                start: tiles.queries_t.add(strip * WIDTH),
                stride: PANEL,
            };
            let d_outputs = Right {
                start: tiles.d_outputs_t.add(strip * WIDTH),
                stride: PANEL,
            };
            let (lse, row_sums) = (tiles.lse.add(strip * WIDTH), tiles.row_sums.add(strip * WIDTH));
            let is_diagonal = strip == diagonal;
            if N == 2 && strip == 0 {
                let lse = [V::load(lse), V::load(lse.add(WIDTH))];
                let mut sums = Probabilities {
                    to: probabilities,
                    lse,
                    is_diagonal,
                };
                multiply::<V, M, 2>(keys, queries, count, heads.key(), &mut sums);
                let row_sums = [V::load(row_sums), V::load(row_sums.add(WIDTH))];
                let mut sums = ScoreGradients {
                    to: d_scores,
                    probabilities,
                    row_sums,
                };
                multiply::<V, M, 2>(values, d_outputs, count, heads.value, &mut sums);
                strip = 2;
            } else {
                let mut sums = Probabilities {
                    to: probabilities,
                    lse: [V::load(lse)],
                    is_diagonal,
                };
                multiply::<V, M, 1>(keys, queries, count, heads.key(), &mut sums);
                let mut sums = ScoreGradients {
                    to: d_scores,
                    probabilities,
                    row_sums: [V::load(row_sums)],
                };
                multiply::<V, M, 1>(values, d_outputs, count, heads.value, &mut sums);
                strip += 1;
            }
        }
        let at = first * PANEL + lanes;
        let p = Left {
            start: tiles.probabilities.add(at),
            row_stride: PANEL,
            step: 1,
        };
        let d_outputs = Right {
            start: tiles.d_outputs.add(lanes * value_stride),
            stride: value_stride,
        };
        let to = tiles.d_values.add((met.first + first) * value_stride);
        let sums = Target {
            to,
            stride: value_stride,
            before: Before::Sums,
        };
        multiply_columns::<V, M, N>(p, d_outputs, count, value_stride, seen, sums);
        let ds = Left {
            start: tiles.d_scores.add(at),
            row_stride: PANEL,
            step: 1,
        };
        let queries = Right {
            start: tiles.queries.add(lanes * key_stride),
            stride: key_stride,
        };
        let to = tiles.d_keys.add((met.first + first) * key_stride);
        let sums = Target {
            to,
            stride: key_stride,
            before: Before::Sums,
        };
        multiply_columns::<V, M, N>(ds, queries, count, key_stride, seen, sums);
    }
}

/// dq^T += k^T ds^T.
#[inline(always)]
unsafe fn add_d_queries<V: Vector, const M: usize, const N: usize>(heads: &Heads, tiles: Tiles, met: Met) {
    let Tiles { key_stride, .. } = tiles;
    let channels = heads.key().next_multiple_of(ROWS);
    unsafe {
        let keys = |key: usize| Left {
            start: tiles.keys.add((met.first + key) * key_stride),
            row_stride: 1,
            step: key_stride,
        };
        let d_scores = |key: usize, strip: usize| Right {
            start: tiles.d_scores.add(key * PANEL + strip * WIDTH),
            stride: PANEL,
        };
        let (first, second) = (met.seen_by(0), met.seen_by(1));
        // A strip without queries has no score gradients either.
        let second = if met.queries > WIDTH { second } else { 0 };
        let shared = if N == 2 { first.min(second) } else { 0 };
        if N == 2 && shared > 0 {
            let mut sums = Target {
                to: tiles.d_queries_t,
                stride: PANEL,
                before: Before::Sums,
            };
            multiply::<V, M, 2>(keys(0), d_scores(0, 0), channels, shared, &mut sums);
        }
        for (strip, seen) in [first, second].into_iter().enumerate() {
            if seen > shared {
                let mut sums = Target {
                    to: tiles.d_queries_t.add(strip * WIDTH),
                    stride: PANEL,
                    before: Before::Sums,
                };
                let (a, b) = (keys(shared), d_scores(shared, strip));
                multiply::<V, M, 1>(a, b, channels, seen - shared, &mut sums);
            }
        }
    }
}

/// p = exp(s - lse), 0 above the diagonal.
struct Probabilities<V, const N: usize> {
    to: *mut f32,
    lse: [V; N],
    /// Whether the first strip lies on the diagonal: lane l sees rows up to l.
    is_diagonal: bool,
}

impl<V: Vector, const N: usize> Sums<V, N> for Probabilities<V, N> {
    #[inline(always)]
    unsafe fn begin<const M: usize>(&mut self, _row: usize) -> [[V; N]; M] {
        [[V::zero(); N]; M]
    }
    #[inline(always)]
    unsafe fn end<const M: usize>(&mut self, row: usize, mut acc: [[V; N]; M]) {
        for m in 0..M {
            for n in 0..N {
                acc[m][n] = exp(acc[m][n].sub(self.lse[n]));
            }
            if self.is_diagonal {
                acc[m][0] = acc[m][0].keep_from(row + m, 0.0);
            }
        }
        unsafe { store_block(acc, self.to.add(row * PANEL), PANEL) };
    }
}

/// ds = p (dp - rowsum(do o)).
struct ScoreGradients<V, const N: usize> {
    to: *mut f32,
    probabilities: *const f32,
    row_sums: [V; N],
}

impl<V: Vector, const N: usize> Sums<V, N> for ScoreGradients<V, N> {
    #[inline(always)]
    unsafe fn begin<const M: usize>(&mut self, _row: usize) -> [[V; N]; M] {
        [[V::zero(); N]; M]
    }
    #[inline(always)]
    unsafe fn end<const M: usize>(&mut self, row: usize, mut acc: [[V; N]; M]) {
        for m in 0..M {
            for n in 0..N {
                let p = unsafe { V::load(self.probabilities.add((row + m) * PANEL + n * WIDTH)) };
                acc[m][n] = acc[m][n].sub(self.row_sums[n]).mul(p);
            }
        }
        unsafe { store_block(acc, self.to.add(row * PANEL), PANEL) };
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
mod tests {
    use super::*;
    use crate::args::Dtype::{self, Bf16, F32, I32};
    use crate::attention::oracle::{Command, Inputs, Problem, assert_close, bound, numbers};
    use crate::isa::Isa;

    fn run(
        problem: &Problem,
        inputs: &Inputs,
        d_o: &[f64],
        dtype: Dtype,
        isa: Isa,
        threads: usize,
    ) -> [Vec<f64>; 3] {
        let (o, lse) = problem.forward(inputs);
        let [q, kv, k_rope, _] = problem.sizes();
        let mut command = Command::new();
        command
            .operand(d_o, dtype)
            .operand(&inputs.q, dtype)
            .operand(&inputs.kv, dtype)
            .operand(&inputs.k_rope, dtype)
            .operand(&o, dtype)
            .operand(&lse, F32)
            .operand(&problem.offsets(), I32)
            .output(q, dtype)
            .output(kv, dtype)
            .output(k_rope, dtype)
            .output(problem.heads * problem.tokens() * (problem.rope + 1), F32)
            .params(&problem.params());
        command.run(attention_backward, isa, threads).unwrap();
        [7, 8, 9].map(|operand| command.read(operand))
    }

    fn problems() -> Vec<Problem> {
        vec![
            Problem::new(&[1], 1, 2, 2, 1),
            Problem::new(&[5, 0, 17, 1], 2, 16, 8, 16),
            Problem::new(&[64], 1, 6, 4, 5),
            Problem::new(&[31, 33, 65], 3, 32, 16, 32),
            Problem::new(&[200, 129], 2, 24, 0, 40),
            Problem::new(&[177], 1, 0, 18, 20),
            Problem::new(&[150, 2], 1, 128, 64, 128),
        ]
    }

    #[test]
    fn gradients_equal_f64_loops() {
        for (seed, problem) in problems().iter().enumerate() {
            for dtype in [F32, Bf16] {
                let inputs = Inputs::random(problem, dtype, seed as u64);
                let d_o = numbers(problem.sizes()[3], dtype, 100 + seed as u64);
                let expected = problem.backward(&inputs, &d_o);
                // A stored o of bf16 moves rowsum(do o), and with it every ds of the row.
                let bound = if dtype == Bf16 {
                    2.0 * bound(dtype)
                } else {
                    bound(dtype)
                };
                for isa in Isa::usable() {
                    let actual = run(problem, &inputs, &d_o, dtype, isa, 2);
                    for (name, (a, e)) in ["dq", "dkv", "dkRope"].iter().zip(actual.iter().zip(&expected)) {
                        assert_close(a, e, bound, &format!("{name} of {:?} {isa}", problem.lengths));
                    }
                }
            }
        }
    }

    #[test]
    fn instruction_sets_and_thread_counts_give_the_same_bits() {
        for problem in problems() {
            for dtype in [F32, Bf16] {
                let inputs = Inputs::random(&problem, dtype, 7);
                let d_o = numbers(problem.sizes()[3], dtype, 8);
                let expected = run(&problem, &inputs, &d_o, dtype, Isa::Portable, 1);
                for isa in Isa::usable() {
                    for threads in [1, 3] {
                        let actual = run(&problem, &inputs, &d_o, dtype, isa, threads);
                        assert!(
                            actual == expected,
                            "{:?} {isa} {threads} threads",
                            problem.lengths
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_sequence_has_the_same_gradients_alone_and_between_others() {
        let batch = Problem::new(&[70, 131, 9], 2, 32, 16, 32);
        let alone = Problem::new(&[131], 2, 32, 16, 32);
        let inputs = Inputs::random(&batch, F32, 3);
        let d_o = numbers(batch.sizes()[3], F32, 4);
        let part = |values: &[f64]| {
            let width = values.len() / batch.tokens();
            values[70 * width..201 * width].to_vec()
        };
        let own = Inputs {
            q: part(&inputs.q),
            kv: part(&inputs.kv),
            k_rope: part(&inputs.k_rope),
        };
        let in_batch = run(&batch, &inputs, &d_o, F32, Isa::detect(), 2);
        let by_itself = run(&alone, &own, &part(&d_o), F32, Isa::detect(), 1);
        for (batched, single) in in_batch.iter().zip(&by_itself) {
            assert_eq!(part(batched), *single);
        }
    }
}
