//! What leaves a task: dq strip by strip, dk and dv at its end.

use std::arch::x86_64::*;

use super::super::Backward;
use super::room::Strips;
use crate::attention::avx512::Zmm;
use crate::attention::blocks::lines::{self, load, times};
use crate::attention::blocks::pack::below;
use crate::attention::blocks::registers::Registers;
use crate::attention::blocks::{SIDE, SUMS, WORDS};
use crate::attention::convert::Output;
use crate::attention::shape::Sequence;
use crate::attention::vector::Vector;
use crate::gemm::shuffle::unpacked;

/// Asks for what will be written behind the products: dq of a strip as its group meets its own keys, dk and dv in
/// the last group. Rows lie far apart, so that nothing else fetches them early.
#[inline]
pub fn ask_for_rows(
    backward: &Backward,
    sequence: Sequence,
    head: usize,
    block: usize,
    group: usize,
    is_last: bool,
) {
    let heads = &backward.heads;
    for row in block * SIDE..((block + 1) * SIDE).min(sequence.len) {
        let token = sequence.start + row;
        if block >= group {
            let first = token * heads.q_width() + head * heads.key();
            lines::ask(backward.dq, first, heads.key());
        }
        if is_last {
            let first = token * heads.kv_width() + head * heads.kv();
            lines::ask(backward.dkv, first, heads.kv());
        }
    }
}

/// dq of a strip, the `at`th of its group: all its keys at once.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
pub unsafe fn store_d_queries(
    registers: &Registers,
    backward: &Backward,
    strips: Strips,
    sequence: Sequence,
    head: usize,
    strip: usize,
    at: usize,
) {
    let heads = &backward.heads;
    let scale = _mm512_set1_ps(heads.scale);
    let count = SIDE.min(sequence.len - strip * SIDE);
    // Scores and dp have been used; their place takes the sums, channels as rows, and then the turned ones.
    let (sums, turned) = (strips.scores, strips.d_probabilities);
    for channels in 0..strips.key {
        unsafe {
            let keys = strips.turned_keys.add(channels * strips.keys * WORDS);
            let pairs = strips.d_score_pairs.add(at * strips.keys * WORDS);
            registers.multiply(strip + 1, keys, pairs, sums, true);
            for (row, column) in [(0, 0), (0, 16), (16, 0), (16, 16)] {
                let from = sums.add(row * SIDE + column);
                Zmm::transpose(from, SIDE, turned.add(column * SIDE + row), SIDE);
            }
            for column in 0..SIDE {
                let query = unpacked(column % 16) + column / 16 * 4;
                if query < count {
                    let token = sequence.start + strip * SIDE + query;
                    let to = token * heads.q_width() + head * heads.key() + channels * SIDE;
                    let line = times(load(turned.add(column * SIDE)), scale);
                    lines::store(line, below(heads.key(), channels), backward.dq, to as isize);
                }
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
pub unsafe fn store_d_keys(backward: &Backward, strips: Strips, sequence: Sequence, head: usize) {
    let heads = &backward.heads;
    let Strips { key, value, .. } = strips;
    let scale = _mm512_set1_ps(heads.scale);
    let (start, width) = (
        sequence.start * heads.kv_width() + head * heads.kv(),
        heads.kv_width(),
    );
    let partials = (head * backward.tokens + sequence.start) * heads.rope;
    // SAFETY: (head, token) belongs to this task, for all the sequence's tokens.
    let partials = unsafe { backward.rope_partials.part(partials, sequence.len * heads.rope) };
    let partials = Output::F32(partials.as_mut_ptr());
    for block in 0..strips.keys {
        let (first, count) = (block * SIDE, SIDE.min(sequence.len - block * SIDE));
        for channels in 0..key {
            let sums = strips.d_keys.wrapping_add((block * key + channels) * SUMS);
            let plain = below(heads.nope, channels);
            let rotated = below(heads.key(), channels) & !plain;
            for row in 0..count {
                unsafe {
                    let line = times(load(sums.add(row * SIDE)), scale);
                    if plain != 0 {
                        let to = start + (first + row) * width + channels * SIDE;
                        lines::store(line, plain, backward.dkv, to as isize);
                    }
                    if rotated != 0 {
                        let to = ((first + row) * heads.rope + channels * SIDE) as isize;
                        lines::store(line, rotated, partials, to - heads.nope as isize);
                    }
                }
            }
        }
        for channels in 0..value {
            let sums = strips.d_values.wrapping_add((block * value + channels) * SUMS);
            let mask = below(heads.value, channels);
            for row in 0..count {
                let to = start + (first + row) * width + heads.nope + channels * SIDE;
                unsafe { lines::store(load(sums.add(row * SIDE)), mask, backward.dkv, to as isize) };
            }
        }
    }
}
