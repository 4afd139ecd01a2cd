//! attention: causal softmax attention inside each packed sequence, with separate nope and rope channels.
//!
//! contract   src/tensor/ops/attention.ts                     (reference, gradient, tolerance)
//! layout     q [T, H, N + R] · kv [T, H, N + V] · kRope [T, R], one for all heads · o [T, H, V] · lse [H, T]
//! dtype      q, kv, kRope, o each f32 or bf16; arithmetic and lse f32
//! tiling     a task owns up to 256 queries of one (sequence, head); it meets 64 keys at a time, in panels of 32 queries
//! why so     queries are the lanes: scores, softmax and outputs of a panel are [keys | channels, 32 queries], so that no sum
//!            runs across lanes, keys and values are broadcast from rows as they lie, and every set of instructions does
//!            the same operations on the same numbers
//! order      a score: nope then rope channels ascending, one FMA chain. A row's maximum, sum and outputs: key tiles of
//!            64 counted from the sequence's start, ascending, keys ascending inside. Nothing depends on what else is in
//!            the batch, nor on threads. Above the diagonal, squares of 16 x 16 are not computed.

use std::cmp::Reverse;

use super::shape::{Heads, Sequence, read_sizes, sequences};
use super::tile::{
    Before, KEY_TILE, Left, Output, PANEL, Parts, ROWS, Right, Sums, Target, fill, load_block, multiply,
    narrow_rows, store_block, transpose, whole_vectors, widen_rows,
};
use super::vector::{Vector, WIDTH, exp, vector_twins};
use crate::args::{Args, Floats};
use crate::error::KernelError;
use crate::math;
use crate::ops::Ctx;
use crate::pool::Disjoint;

/// Queries of a task where there is work enough for every thread, and where there is not. Any multiple of a panel gives
/// the same bits; more of them share one packing of the keys.
const QUERY_TILES: [usize; 2] = [256, 64];
/// Commands below this many multiply-adds run as one task.
const SMALL: usize = 200_000;

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
    let pairs: usize = sequences.iter().map(|s| s.len * s.len / 2).sum();
    let tasks = tiles.len() * heads.count;
    let is_small = pairs * heads.count * (heads.key() + heads.value) < SMALL;
    let chunk = if is_small { tasks } else { 1 };
    ctx.pool.run(tasks.div_ceil(chunk.max(1)), &|index, scratch| {
        for task in index * chunk..tasks.min((index + 1) * chunk) {
            let (tile, head) = (tiles[task / heads.count], task % heads.count);
            let buffer = scratch.f32(forward.scratch_len(tile.rows));
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

impl Forward<'_> {
    fn scratch_len(&self, rows: usize) -> usize {
        let (key, value) = (whole_vectors(self.heads.key()), whole_vectors(self.heads.value));
        let panels = rows.div_ceil(PANEL);
        panels * PANEL * (key + value + 2) + KEY_TILE * (key + value + PANEL) + PANEL * key.max(value)
    }
}

/// One panel of queries between key tiles.
#[derive(Clone, Copy)]
struct Panel {
    /// [D][32], scaled
    queries: *const f32,
    /// [V][32], not yet divided by the sums
    outputs: *mut f32,
    /// [32], greatest score so far
    maxima: *mut f32,
    /// [32], sum of exp(score - maximum) so far
    sums: *mut f32,
}

/// The keys and values that a panel meets.
#[derive(Clone, Copy)]
struct Keys {
    /// [64][D], zero rows up to a multiple of 16 behind the last key
    keys: *const f32,
    key_stride: usize,
    /// [64][V]
    values: *const f32,
    value_stride: usize,
    /// [64][32]: the panel's scores, then its exponentials
    scores: *mut f32,
    count: usize,
    /// First key minus the panel's first query.
    ahead: isize,
}

impl Keys {
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
    let (key_stride, value_stride) = (whole_vectors(heads.key()), whole_vectors(heads.value));
    let mut parts = Parts::of(buffer);
    let panel_count = tile.rows.div_ceil(PANEL);
    let queries = parts.take(panel_count * PANEL, key_stride);
    let outputs = parts.take(panel_count * PANEL, value_stride);
    let statistics = parts.take(panel_count * 2, PANEL);
    let keys = parts.take(KEY_TILE, key_stride);
    let values = parts.take(KEY_TILE, value_stride);
    let scores = parts.take(KEY_TILE, PANEL);
    let rows = parts.take(PANEL, key_stride.max(value_stride));
    let panel_at = |i: usize| unsafe {
        Panel {
            queries: queries.add(i * PANEL * key_stride),
            outputs: outputs.add(i * PANEL * value_stride),
            maxima: statistics.add(i * 2 * PANEL),
            sums: statistics.add((i * 2 + 1) * PANEL),
        }
    };
    unsafe {
        for i in 0..panel_count {
            let first = tile.sequence.start + tile.first + i * PANEL;
            let count = PANEL.min(tile.rows - i * PANEL);
            load_queries::<V>(forward, head, first, count, rows, panel_at(i).queries.cast_mut());
        }
        fill(outputs, panel_count * PANEL * value_stride, 0.0);
        for i in 0..panel_count {
            fill(panel_at(i).maxima, PANEL, f32::NEG_INFINITY);
            fill(panel_at(i).sums, PANEL, 0.0);
        }
        let end = tile.first + tile.rows;
        for first in (0..end).step_by(KEY_TILE) {
            let count = KEY_TILE.min(end - first);
            load_keys::<V>(forward, head, tile.sequence.start + first, count, keys, values);
            for i in 0..panel_count {
                let ahead = first as isize - (tile.first + i * PANEL) as isize;
                if ahead >= PANEL as isize {
                    continue;
                }
                let met = Keys {
                    keys,
                    key_stride,
                    values,
                    value_stride,
                    scores,
                    count,
                    ahead,
                };
                attend::<V, M, N>(heads, panel_at(i), met);
            }
        }
        for i in 0..panel_count {
            let first = tile.sequence.start + tile.first + i * PANEL;
            let count = PANEL.min(tile.rows - i * PANEL);
            store_panel::<V>(forward, head, first, count, panel_at(i), rows);
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
unsafe fn load_keys<V: Vector>(
    forward: &Forward,
    head: usize,
    first: usize,
    count: usize,
    keys: *mut f32,
    values: *mut f32,
) {
    let heads = &forward.heads;
    let (key_stride, value_stride) = (whole_vectors(heads.key()), whole_vectors(heads.value));
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

/// One panel meets one key tile: scores, softmax update, outputs.
#[inline(always)]
unsafe fn attend<V: Vector, const M: usize, const N: usize>(heads: &Heads, panel: Panel, met: Keys) {
    unsafe {
        let best = scores::<V, M, N>(heads, panel, met);
        let rescale = [
            update_softmax(panel, met, 0, best[0]),
            update_softmax(panel, met, 1, best[1]),
        ];
        add_values::<V, M, N>(heads, panel, met, rescale);
    }
}

/// Writes the panel's scores; returns each query's greatest.
#[inline(always)]
unsafe fn scores<V: Vector, const M: usize, const N: usize>(
    heads: &Heads,
    panel: Panel,
    met: Keys,
) -> [V; 2] {
    let mut best = [V::splat(f32::NEG_INFINITY); 2];
    let full = met.seen_by_all();
    unsafe {
        score_rows::<V, M, N>(heads, panel, met, 0, full, 0, usize::MAX, &mut best);
        // The diagonal, in groups of 16 keys: strips before the group's own see none of it.
        let mut group = full;
        while group < met.seen_by(1) {
            let own = (group as isize + met.ahead) as usize / WIDTH;
            score_rows::<V, M, N>(heads, panel, met, group, WIDTH, own, own, &mut best);
            group += WIDTH;
        }
    }
    best
}

/// Scores of `count` keys from `first` on for the strips from `strip` on; in strip `diagonal` a query sees no later key.
#[inline(always)]
unsafe fn score_rows<V: Vector, const M: usize, const N: usize>(
    heads: &Heads,
    panel: Panel,
    met: Keys,
    first: usize,
    count: usize,
    strip: usize,
    diagonal: usize,
    best: &mut [V; 2],
) {
    let mut strip = strip;
    while strip < 2 {
        unsafe {
            let a = Left {
                start: met.keys.add(first * met.key_stride),
                row_stride: met.key_stride,
                step: 1,
            };
            let b = Right {
                start: panel.queries.add(strip * WIDTH),
                stride: PANEL,
            };
            let to = met.scores.add(first * PANEL + strip * WIDTH);
            if N == 2 && strip == 0 {
                let mut sums = Scores {
                    to,
                    best: [best[0], best[1]],
                    diagonal: diagonal == 0,
                };
                multiply::<V, M, 2>(a, b, count, heads.key(), &mut sums);
                *best = sums.best;
                strip = 2;
            } else {
                let mut sums = Scores {
                    to,
                    best: [best[strip]],
                    diagonal: diagonal == strip,
                };
                multiply::<V, M, 1>(a, b, count, heads.key(), &mut sums);
                best[strip] = sums.best[0];
                strip += 1;
            }
        }
    }
}

/// Masks scores, remembers the greatest, stores them.
struct Scores<V, const N: usize> {
    to: *mut f32,
    best: [V; N],
    /// Whether the first strip lies on the diagonal: lane l sees rows up to l.
    diagonal: bool,
}

impl<V: Vector, const N: usize> Sums<V, N> for Scores<V, N> {
    #[inline(always)]
    unsafe fn begin<const M: usize>(&mut self, _row: usize) -> [[V; N]; M] {
        [[V::zero(); N]; M]
    }
    #[inline(always)]
    unsafe fn end<const M: usize>(&mut self, row: usize, mut acc: [[V; N]; M]) {
        if self.diagonal {
            for m in 0..M {
                acc[m][0] = acc[m][0].keep_from(row + m, f32::NEG_INFINITY);
            }
        }
        for n in 0..N {
            for m in 0..M {
                self.best[n] = self.best[n].max(acc[m][n]);
            }
        }
        unsafe { store_block(acc, self.to.add(row * PANEL), PANEL) };
    }
}

/// Turns a strip's scores into exponentials and updates its statistics; returns what earlier sums are multiplied by.
#[inline(always)]
unsafe fn update_softmax<V: Vector>(panel: Panel, met: Keys, strip: usize, best: V) -> V {
    let lanes = strip * WIDTH;
    unsafe {
        let before = V::load(panel.maxima.add(lanes));
        let maximum = before.max(best);
        let rescale = exp(before.sub(maximum));
        let mut sum = V::zero();
        for key in 0..met.seen_by(strip) {
            let at = met.scores.add(key * PANEL + lanes);
            let p = exp(V::load(at).sub(maximum));
            sum = sum.add(p);
            p.store(at);
        }
        maximum.store(panel.maxima.add(lanes));
        let sums = panel.sums.add(lanes);
        V::load(sums).mul_add(rescale, sum).store(sums);
        rescale
    }
}

/// outputs = outputs * rescale + values^T exponentials.
#[inline(always)]
unsafe fn add_values<V: Vector, const M: usize, const N: usize>(
    heads: &Heads,
    panel: Panel,
    met: Keys,
    rescale: [V; 2],
) {
    // The channels behind the last are zero.
    let channels = heads.value.next_multiple_of(ROWS);
    unsafe {
        let a = |key: usize| Left {
            start: met.values.add(key * met.value_stride),
            row_stride: 1,
            step: met.value_stride,
        };
        let b = |key: usize, strip: usize| Right {
            start: met.scores.add(key * PANEL + strip * WIDTH),
            stride: PANEL,
        };
        let (first, second) = (met.seen_by(0), met.seen_by(1));
        if N == 2 {
            let mut sums = Rescaled {
                to: panel.outputs,
                rescale,
            };
            multiply::<V, M, 2>(a(0), b(0, 0), channels, first, &mut sums);
            if second > first {
                // On the diagonal the second strip sees more keys; its chain simply goes on.
                let mut sums = Target {
                    to: panel.outputs.add(WIDTH),
                    stride: PANEL,
                    before: Before::Sums,
                };
                multiply::<V, M, 1>(a(first), b(first, 1), channels, second - first, &mut sums);
            }
        } else {
            for (strip, seen) in [first, second].into_iter().enumerate() {
                let to = panel.outputs.add(strip * WIDTH);
                let mut sums = Rescaled {
                    to,
                    rescale: [rescale[strip]],
                };
                multiply::<V, M, 1>(a(0), b(0, strip), channels, seen, &mut sums);
            }
        }
    }
}

/// Multiplies what is there before it adds.
struct Rescaled<V, const N: usize> {
    to: *mut f32,
    rescale: [V; N],
}

impl<V: Vector, const N: usize> Sums<V, N> for Rescaled<V, N> {
    #[inline(always)]
    unsafe fn begin<const M: usize>(&mut self, row: usize) -> [[V; N]; M] {
        let mut block: [[V; N]; M] = unsafe { load_block(self.to.add(row * PANEL), PANEL) };
        for m in 0..M {
            for n in 0..N {
                block[m][n] = block[m][n].mul(self.rescale[n]);
            }
        }
        block
    }
    #[inline(always)]
    unsafe fn end<const M: usize>(&mut self, row: usize, acc: [[V; N]; M]) {
        unsafe { store_block(acc, self.to.add(row * PANEL), PANEL) };
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
mod tests {
    use super::*;
    use crate::args::Dtype::{self, Bf16, F32, I32};
    use crate::attention::oracle::{Command, Inputs, Problem, assert_close, bound};
    use crate::isa::Isa;

    fn command(problem: &Problem, inputs: &Inputs, dtype: Dtype) -> Command {
        let mut command = Command::new();
        command
            .operand(&inputs.q, dtype)
            .operand(&inputs.kv, dtype)
            .operand(&inputs.k_rope, dtype)
            .operand(&problem.offsets(), I32)
            .output(problem.sizes()[3], dtype)
            .output(problem.heads * problem.tokens(), F32)
            .params(&problem.params());
        command
    }

    fn run(
        problem: &Problem,
        inputs: &Inputs,
        dtype: Dtype,
        isa: Isa,
        threads: usize,
    ) -> (Vec<f64>, Vec<f64>) {
        let mut command = command(problem, inputs, dtype);
        command.run(attention, isa, threads).unwrap();
        (command.read(4), command.read(5))
    }

    fn problems() -> Vec<Problem> {
        vec![
            Problem::new(&[1], 1, 2, 2, 1),
            Problem::new(&[5, 0, 17, 1], 2, 16, 8, 16),
            Problem::new(&[64], 1, 6, 4, 5),
            Problem::new(&[31, 33, 65], 3, 32, 16, 32),
            Problem::new(&[200, 129], 2, 24, 0, 40),
            Problem::new(&[300], 1, 0, 18, 20),
            Problem::new(&[150, 2], 1, 128, 64, 128),
        ]
    }

    #[test]
    fn outputs_and_log_sums_equal_f64_loops() {
        for (seed, problem) in problems().iter().enumerate() {
            for dtype in [F32, Bf16] {
                let inputs = Inputs::random(problem, dtype, seed as u64);
                let (o, lse) = problem.forward(&inputs);
                for isa in Isa::usable() {
                    let (actual_o, actual_lse) = run(problem, &inputs, dtype, isa, 2);
                    assert_close(
                        &actual_o,
                        &o,
                        bound(dtype),
                        &format!("o of {:?} {isa}", problem.lengths),
                    );
                    assert_close(
                        &actual_lse,
                        &lse,
                        1e-6,
                        &format!("lse of {:?} {isa}", problem.lengths),
                    );
                }
            }
        }
    }

    #[test]
    fn instruction_sets_and_thread_counts_give_the_same_bits() {
        for problem in problems() {
            for dtype in [F32, Bf16] {
                let inputs = Inputs::random(&problem, dtype, 7);
                let expected = run(&problem, &inputs, dtype, Isa::Portable, 1);
                for isa in Isa::usable() {
                    for threads in [1, 2, 3] {
                        let actual = run(&problem, &inputs, dtype, isa, threads);
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
    fn a_sequence_has_the_same_bits_alone_and_between_others() {
        let batch = Problem::new(&[70, 131, 9], 2, 32, 16, 32);
        let alone = Problem::new(&[131], 2, 32, 16, 32);
        let inputs = Inputs::random(&batch, F32, 3);
        let part = |values: &[f64]| {
            let width = values.len() / batch.tokens();
            values[70 * width..201 * width].to_vec()
        };
        let own = Inputs {
            q: part(&inputs.q),
            kv: part(&inputs.kv),
            k_rope: part(&inputs.k_rope),
        };
        let (o, lse) = run(&batch, &inputs, F32, Isa::detect(), 2);
        let (own_o, own_lse) = run(&alone, &own, F32, Isa::detect(), 2);
        assert_eq!(part(&o), own_o);
        for head in 0..2 {
            let start = head * batch.tokens() + 70;
            assert_eq!(lse[start..start + 131], own_lse[head * 131..(head + 1) * 131]);
        }
    }

    #[test]
    fn a_query_has_the_same_bits_whatever_follows_it() {
        let whole = Problem::new(&[150], 1, 16, 8, 16);
        let inputs = Inputs::random(&whole, F32, 5);
        let (o, _) = run(&whole, &inputs, F32, Isa::detect(), 1);
        for length in [1, 15, 16, 33, 64, 100, 149] {
            let prefix = Problem::new(&[length], 1, 16, 8, 16);
            let own = Inputs {
                q: inputs.q[..length * 24].to_vec(),
                kv: inputs.kv[..length * 32].to_vec(),
                k_rope: inputs.k_rope[..length * 8].to_vec(),
            };
            assert_eq!(
                run(&prefix, &own, F32, Isa::detect(), 1).0,
                o[..length * 16],
                "{length}"
            );
        }
    }

    #[test]
    fn scores_far_apart_overflow_nothing() {
        let problem = Problem {
            scale: 300.0,
            ..Problem::new(&[90], 1, 8, 8, 8)
        };
        let inputs = Inputs::random(&problem, F32, 11);
        let (o, _) = run(&problem, &inputs, F32, Isa::detect(), 1);
        assert!(o.iter().all(|v| v.is_finite() && v.abs() < 6.0));
    }

    #[test]
    fn offsets_that_do_not_fit_the_rows_are_refused_by_name() {
        let problem = Problem::new(&[5], 1, 4, 4, 4);
        let wrong = Problem {
            lengths: vec![6],
            ..problem.clone()
        };
        let inputs = Inputs::random(&problem, F32, 1);
        let mut command = Command::new();
        command
            .operand(&inputs.q, F32)
            .operand(&inputs.kv, F32)
            .operand(&inputs.k_rope, F32)
            .operand(&wrong.offsets(), I32)
            .output(20, F32)
            .output(5, F32)
            .params(&problem.params());
        let refused = command.run(attention, Isa::detect(), 1).unwrap_err();
        assert_eq!(refused.param, Some("seqOffsets"));
    }
}
