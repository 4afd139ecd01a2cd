//! What a task of the backward pass keeps in scratch.

use crate::attention::blocks::{SIDE, SUMS, WORDS, blocks};
use crate::attention::shape::Heads;
use crate::attention::tile::Parts;

/// Strips of a group. It has no influence on bits.
pub const GROUP: usize = 8;

/// What a task keeps in scratch.
#[derive(Clone, Copy)]
pub struct Strips {
    /// Blocks of keys (and of queries), of key channels, of value channels.
    pub keys: usize,
    pub key: usize,
    pub value: usize,
    /// [keys][key] left factors, summed over channels
    pub packed_keys: *mut u32,
    /// [keys][value] left factors, summed over channels
    pub packed_values: *mut u32,
    /// [key][keys] left factors, summed over keys
    pub turned_keys: *mut u32,
    /// [group][key] and [group][value] right factors, summed over channels
    pub queries: *mut u32,
    pub d_outputs: *mut u32,
    /// [key][group] and [value][group] right factors, summed over queries
    pub query_pairs: *mut u32,
    pub d_output_pairs: *mut u32,
    /// [group][32] each; shifts are minus lse, in powers of two
    pub shifts: *mut f32,
    pub row_sums: *mut f32,
    /// Two blocks of sums, taking turns, of scores and of dp
    pub scores: *mut f32,
    pub d_probabilities: *mut f32,
    /// [group] left factors of one block of keys, summed over queries
    pub probabilities: *mut u32,
    pub d_scores: *mut u32,
    /// [group][keys] right factors, summed over keys; columns in the order of `unpacked`
    pub d_score_pairs: *mut u32,
    /// [keys][key] and [keys][value] blocks of sums
    pub d_keys: *mut f32,
    pub d_values: *mut f32,
}

/// Floats of scratch of a task.
pub fn len(heads: &Heads, length: usize) -> usize {
    let (keys, key, value) = (blocks(length), blocks(heads.key()), blocks(heads.value));
    let group = GROUP.min(keys);
    let words = keys * (2 * key + value) + group * (2 * key + 2 * value + 2 + keys);
    WORDS * words + SUMS * (4 + keys * (key + value)) + 2 * group * SIDE
}

impl Strips {
    pub fn of(buffer: &mut [f32], heads: &Heads, length: usize) -> Strips {
        let (keys, key, value) = (blocks(length), blocks(heads.key()), blocks(heads.value));
        let group = GROUP.min(keys);
        let mut parts = Parts::of(buffer);
        Strips {
            keys,
            key,
            value,
            packed_keys: parts.take(keys * key, WORDS).cast(),
            packed_values: parts.take(keys * value, WORDS).cast(),
            turned_keys: parts.take(key * keys, WORDS).cast(),
            queries: parts.take(group * key, WORDS).cast(),
            d_outputs: parts.take(group * value, WORDS).cast(),
            query_pairs: parts.take(key * group, WORDS).cast(),
            d_output_pairs: parts.take(value * group, WORDS).cast(),
            shifts: parts.take(group, SIDE),
            row_sums: parts.take(group, SIDE),
            scores: parts.take(2, SUMS),
            d_probabilities: parts.take(2, SUMS),
            probabilities: parts.take(group, WORDS).cast(),
            d_scores: parts.take(group, WORDS).cast(),
            d_score_pairs: parts.take(group * keys, WORDS).cast(),
            d_keys: parts.take(keys * key, SUMS),
            d_values: parts.take(keys * value, SUMS),
        }
    }

    /// Strips that a group's arrays have room for.
    pub fn group(&self) -> usize {
        GROUP.min(self.keys)
    }
}
