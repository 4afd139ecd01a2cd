//! attention in AMX registers: strips of 32 queries meet all their keys at once.
//!
//! dtype      q, kv, kRope bf16; scores, softmax and sums f32; probabilities are rounded to bf16 before they meet the
//!            values, their sum and the log-sum-exp come from those that are not
//! tiling     a task packs a head's keys and values once for up to 256 queries; a strip's scores [keys, 32 x 32] stay in the
//!            second cache at the longest
//! why so     with all scores of a row at hand its greatest is known before the first exponential: nothing is rescaled,
//!            outputs leave the registers once
//! order      a score: channels as `blocks` says, nope then rope. A row's sum: 64 lanes, key j in lane j % 64, then the
//!            tree of `math::Lanes`. An output: keys as `blocks` says, counted from the sequence's start
//! measured   one thread beside a disturbed host: 2.4 times as fast as FMA at heads of 32 + 16 / 32 and 256 tokens, 3.0 at
//!            2,048, 4.5 at 128 + 64 / 128 (docs/log/2026-11-22-attention-amx.md)

use std::arch::x86_64::*;

use super::{Forward, QueryTile};
use crate::attention::blocks::lines::{self, exp2_scaled, load, masked, rounded, times};
use crate::attention::blocks::pack::{Rows, below, pack_left, pack_right, pack_row_pairs};
use crate::attention::blocks::registers::Registers;
use crate::attention::blocks::{SIDE, SUMS, WORDS, blocks};
use crate::attention::shape::Heads;
use crate::attention::tile::Parts;
use crate::math::{self, LANES};

/// What a task keeps in scratch.
#[derive(Clone, Copy)]
struct Strips {
    /// Blocks of keys, of key channels, of value channels.
    keys: usize,
    key: usize,
    value: usize,
    /// [keys][key] right factors, summed over channels
    packed_keys: *mut u32,
    /// [value][keys] right factors, summed over keys
    packed_values: *mut u32,
    /// [key] left factors
    queries: *mut u32,
    /// [keys] blocks of sums
    scores: *mut f32,
    /// [keys] left factors, summed over keys
    probabilities: *mut u32,
    /// [32][16]
    maxima: *mut f32,
    /// [32][64]
    lanes: *mut f32,
    /// A block of sums
    outputs: *mut f32,
}

/// Floats of scratch of a task.
pub fn len(heads: &Heads, tile: QueryTile) -> usize {
    let (keys, key, value) = sizes(heads, tile);
    WORDS * (keys * (key + value + 1) + key) + SUMS * (keys + 1) + SIDE * (16 + LANES)
}

fn sizes(heads: &Heads, tile: QueryTile) -> (usize, usize, usize) {
    (
        blocks(tile.first + tile.rows),
        blocks(heads.key()),
        blocks(heads.value),
    )
}

impl Strips {
    fn of(buffer: &mut [f32], heads: &Heads, tile: QueryTile) -> Strips {
        let (keys, key, value) = sizes(heads, tile);
        let mut parts = Parts::of(buffer);
        Strips {
            keys,
            key,
            value,
            packed_keys: parts.take(keys * key, WORDS).cast(),
            packed_values: parts.take(keys * value, WORDS).cast(),
            queries: parts.take(key, WORDS).cast(),
            scores: parts.take(keys, SUMS),
            probabilities: parts.take(keys, WORDS).cast(),
            maxima: parts.take(SIDE, 16),
            lanes: parts.take(SIDE, LANES),
            outputs: parts.take(1, SUMS),
        }
    }
}

/// Outputs and log-sum-exps of a query tile.
///
/// # Safety
/// The processor has AMX; no other task writes this tile's outputs. `buffer` has `len` floats.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
pub unsafe fn forward_tile(
    forward: &Forward,
    [q, kv, k_rope]: [&[u16]; 3],
    tile: QueryTile,
    head: usize,
    buffer: &mut [f32],
) {
    let heads = &forward.heads;
    let strips = Strips::of(buffer, heads, tile);
    let (token, end) = (tile.sequence.start, tile.first + tile.rows);
    let start = token * heads.kv_width() + head * heads.kv();
    let keys = Rows::of(kv, start, heads.kv_width(), heads.nope, end);
    let keys = keys.beside(k_rope, token * heads.rope, heads.rope, heads.rope);
    let values = Rows::of(kv, start + heads.nope, heads.kv_width(), heads.value, end);
    let start = token * heads.q_width() + head * heads.key();
    let queries = Rows::of(q, start, heads.q_width(), heads.key(), end);
    // Scores meet powers of two.
    let factor = heads.scale * std::f32::consts::LOG2_E;
    unsafe {
        let registers = Registers::hold();
        for block in 0..strips.keys {
            let (to_keys, to_values) = (
                strips.packed_keys.add(block * strips.key * WORDS),
                strips.packed_values.add(block * WORDS),
            );
            pack_right(&keys, block * SIDE, strips.key, to_keys);
            pack_row_pairs(
                &values,
                block * SIDE,
                strips.value,
                to_values,
                strips.keys * WORDS,
            );
        }
        for first in (tile.first..end).step_by(SIDE) {
            pack_left(&queries, first, strips.key, strips.queries);
            let shifts = scores(&registers, strips, first / SIDE, factor);
            exponentials(strips, first / SIDE, factor, &shifts);
            let sums = row_sums(strips);
            let place = Place {
                head,
                token: token + first,
                count: SIDE.min(end - first),
                blocks: first / SIDE + 1,
            };
            outputs(&registers, forward, strips, place, &sums);
            log_sums(forward, place, &shifts, &sums);
        }
    }
}

/// A strip's queries in the whole, and the blocks of keys that they see.
#[derive(Clone, Copy)]
struct Place {
    head: usize,
    token: usize,
    count: usize,
    blocks: usize,
}

/// Writes the scores of blocks `0..=last`; returns what is added to each row's scores times `factor`: minus the greatest.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
unsafe fn scores(registers: &Registers, strips: Strips, last: usize, factor: f32) -> [f32; SIDE] {
    let mut shifts = [0.0; SIDE];
    unsafe {
        for row in 0..SIDE {
            _mm512_storeu_ps(strips.maxima.add(row * 16), _mm512_set1_ps(f32::NEG_INFINITY));
        }
        for block in 0..=last {
            let keys = strips.packed_keys.add(block * strips.key * WORDS);
            let sums = strips.scores.add(block * SUMS);
            registers.multiply(strips.key, strips.queries, keys, sums, true);
            // A block late, so that the tile unit and the vector unit work side by side.
            if block > 0 {
                raise_maxima(strips, block - 1, false);
            }
        }
        raise_maxima(strips, last, true);
        for row in 0..SIDE {
            let maximum = _mm512_reduce_max_ps(_mm512_loadu_ps(strips.maxima.add(row * 16)));
            shifts[row] = -(maximum * factor);
        }
    }
    shifts
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn raise_maxima(strips: Strips, block: usize, diagonal: bool) {
    let nothing = _mm512_set1_ps(f32::NEG_INFINITY);
    unsafe {
        for row in 0..SIDE {
            let mut line = load(strips.scores.add(block * SUMS + row * SIDE));
            if diagonal {
                line = masked(line, seen(row), nothing);
            }
            let at = strips.maxima.add(row * 16);
            let maximum = _mm512_max_ps(line[0], _mm512_max_ps(line[1], _mm512_loadu_ps(at)));
            _mm512_storeu_ps(at, maximum);
        }
    }
}

/// The keys of its own block that a row sees.
fn seen(row: usize) -> u32 {
    u32::MAX >> (SIDE - 1 - row)
}

/// Turns scores into probabilities times their row's sum, rounded; adds them up in lanes before they are rounded.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
unsafe fn exponentials(strips: Strips, last: usize, factor: f32, shifts: &[f32; SIDE]) {
    let (zero, factor) = (_mm512_setzero_ps(), _mm512_set1_ps(factor));
    unsafe {
        if last == 0 {
            for row in 0..SIDE {
                _mm512_storeu_ps(strips.lanes.add(row * LANES + SIDE), zero);
                _mm512_storeu_ps(strips.lanes.add(row * LANES + SIDE + 16), zero);
            }
        }
        for block in 0..=last {
            for row in 0..SIDE {
                let shift = _mm512_set1_ps(shifts[row]);
                let line = load(strips.scores.add(block * SUMS + row * SIDE));
                let mut line = [
                    exp2_scaled(line[0], factor, shift),
                    exp2_scaled(line[1], factor, shift),
                ];
                if block == last {
                    line = masked(line, seen(row), zero);
                }
                let lanes = strips.lanes.add(row * LANES + block % 2 * SIDE);
                let before = if block < 2 { [zero; 2] } else { load(lanes) };
                _mm512_storeu_ps(lanes, _mm512_add_ps(before[0], line[0]));
                _mm512_storeu_ps(lanes.add(16), _mm512_add_ps(before[1], line[1]));
                let to = strips.probabilities.add(block * WORDS + row * 16);
                _mm512_storeu_si512(to.cast(), rounded(line));
            }
        }
    }
}

/// The sums of the rows' lanes, by the tree of `math::Lanes`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
unsafe fn row_sums(strips: Strips) -> [f32; SIDE] {
    let mut sums = [0.0; SIDE];
    for row in 0..SIDE {
        unsafe {
            let (a, b) = (
                load(strips.lanes.add(row * LANES)),
                load(strips.lanes.add(row * LANES + SIDE)),
            );
            sums[row] = lines::sum([a[0], a[1], b[0], b[1]]);
        }
    }
    sums
}

/// Multiplies probabilities by values, divides by the sums and writes the strip's outputs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
unsafe fn outputs(
    registers: &Registers,
    forward: &Forward,
    strips: Strips,
    place: Place,
    sums: &[f32; SIDE],
) {
    let heads = &forward.heads;
    for block in 0..strips.value {
        unsafe {
            let values = strips.packed_values.add(block * strips.keys * WORDS);
            registers.multiply(place.blocks, strips.probabilities, values, strips.outputs, true);
            for row in 0..place.count {
                let line = load(strips.outputs.add(row * SIDE));
                let line = times(line, _mm512_set1_ps(1.0 / sums[row]));
                let at = (place.token + row) * heads.o_width() + place.head * heads.value + block * SIDE;
                lines::store(line, below(heads.value, block), forward.o, at as isize);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
unsafe fn log_sums(forward: &Forward, place: Place, shifts: &[f32; SIDE], sums: &[f32; SIDE]) {
    let mut logs = [0.0; SIDE];
    for row in 0..SIDE {
        logs[row] = shifts[row].mul_add(-std::f32::consts::LN_2, math::log(sums[row]));
    }
    // SAFETY: the strip's rows are this task's.
    let lse = unsafe {
        forward
            .lse
            .part(place.head * forward.tokens + place.token, place.count)
    };
    lse.copy_from_slice(&logs[..place.count]);
}
