//! What a task of the absorbed form keeps in scratch.

use super::{Absorbed, Group};
use crate::attention::shape::Heads;
use crate::attention::tile::{KEY_TILE, Parts, whole_vectors};
use crate::attention::vector::WIDTH;
use crate::math::LANES;

/// A group's pairs in scratch, head by head, and the cached tokens that they meet.
#[derive(Clone, Copy)]
pub struct Tiles {
    pub pairs: usize,
    /// Floats of a cached token, of a latent.
    pub row: usize,
    pub latent: usize,
    /// [pairs][row]: queries against cached tokens
    pub absorbed: *mut f32,
    /// [pairs][C]: weighted sums of latents
    pub mixed: *mut f32,
    /// [pairs][64]: scores, then exponentials
    pub scores: *mut f32,
    /// [pairs][64]: softmax sums by lane
    pub lanes: *mut f32,
    /// One vector a pair: greatest score so far; factor for earlier sums
    pub maxima: *mut f32,
    pub rescale: *mut f32,
    /// [64][row], and [row][64]
    pub cached: *mut f32,
    pub cached_t: *mut f32,
    /// [tokens][N + R] of one head, [tokens][V] of one head
    pub queries: *mut f32,
    pub outputs: *mut f32,
    /// One head's half of kvB, and its transpose
    pub weights: *mut f32,
    pub weights_t: *mut f32,
}

impl Tiles {
    pub fn of(buffer: &mut [f32], absorbed: &Absorbed, group: Group) -> Tiles {
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
