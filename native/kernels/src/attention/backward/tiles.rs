//! What a task of the backward pass keeps in scratch.

use crate::attention::shape::Heads;
use crate::attention::tile::{KEY_TILE, PANEL, Parts, whole_vectors};
use crate::attention::vector::WIDTH;

/// One (sequence, head) in scratch; keys and values in rows up to a multiple of 16, padding zero.
#[derive(Clone, Copy)]
pub struct Tiles {
    pub key_stride: usize,
    pub value_stride: usize,
    /// [T][D] and [T][V]
    pub keys: *mut f32,
    pub values: *mut f32,
    pub d_keys: *mut f32,
    pub d_values: *mut f32,
    /// The panel's queries, scaled: [32][D], and [D][32]
    pub queries: *mut f32,
    pub queries_t: *mut f32,
    /// The gradients of its outputs: [32][V], and [V][32]
    pub d_outputs: *mut f32,
    pub d_outputs_t: *mut f32,
    /// [D][32]
    pub d_queries_t: *mut f32,
    /// [32]: its log-sum-exps, and rowsum(do o)
    pub lse: *mut f32,
    pub row_sums: *mut f32,
    /// [64][32]: probabilities, and score gradients
    pub probabilities: *mut f32,
    pub d_scores: *mut f32,
}

impl Tiles {
    /// Floats of scratch that `of` takes for a sequence of `len` tokens.
    pub fn len(heads: &Heads, len: usize) -> usize {
        let (key, value) = (whole_vectors(heads.key()), whole_vectors(heads.value));
        let rows = len.next_multiple_of(WIDTH);
        2 * rows * (key + value) + PANEL * (3 * key + 2 * value + 2) + 2 * KEY_TILE * PANEL
    }

    pub fn of(buffer: &mut [f32], heads: &Heads, len: usize) -> Tiles {
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
