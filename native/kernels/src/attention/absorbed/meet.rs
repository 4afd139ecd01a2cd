//! A group's pairs meet a tile of cached tokens: scores, softmax update, sums of latents.

use super::tiles::Tiles;
use super::{Absorbed, Group};
use crate::attention::product::{Before, Left, Right, Target, multiply_columns};
use crate::attention::tile::{KEY_TILE, whole_vectors};
use crate::attention::vector::{Vector, WIDTH, exp};
use crate::math::LANES;

/// All pairs meet a tile of cached tokens: scores, softmax update, sums of latents.
#[inline(always)]
pub unsafe fn meet<V: Vector, const M: usize, const N: usize>(
    absorbed: &Absorbed,
    group: Group,
    tiles: Tiles,
    first: usize,
    count: usize,
) {
    let Tiles { pairs, row, .. } = tiles;
    unsafe {
        let queries = Left {
            start: tiles.absorbed,
            row_stride: row,
            step: 1,
        };
        let cached = Right {
            start: tiles.cached_t,
            stride: KEY_TILE,
        };
        let sums = Target {
            to: tiles.scores,
            stride: KEY_TILE,
            before: Before::Nothing,
        };
        multiply_columns::<V, M, N>(queries, cached, pairs, whole_vectors(count), row, sums);
        for pair in 0..pairs {
            let position = absorbed.past + group.token + pair % group.tokens;
            let seen = (position + 1).saturating_sub(first).min(count);
            update_softmax::<V>(tiles, pair, seen);
        }
        let weights = Left {
            start: tiles.scores,
            row_stride: KEY_TILE,
            step: 1,
        };
        let cached = Right {
            start: tiles.cached,
            stride: row,
        };
        let before = Before::Rescaled(tiles.rescale);
        let sums = Target {
            to: tiles.mixed,
            stride: tiles.latent,
            before,
        };
        multiply_columns::<V, M, N>(weights, cached, pairs, tiles.latent, count, sums);
    }
}

/// Turns a pair's scores into exponentials, 0 for the tokens that it does not see, and updates its statistics.
#[inline(always)]
unsafe fn update_softmax<V: Vector>(tiles: Tiles, pair: usize, seen: usize) {
    const VECTORS: usize = KEY_TILE / WIDTH;
    unsafe {
        let (scores, lanes) = (tiles.scores.add(pair * KEY_TILE), tiles.lanes.add(pair * LANES));
        let mut masked = [V::zero(); VECTORS];
        let mut best = V::splat(f32::NEG_INFINITY);
        for n in 0..VECTORS {
            let own = seen.saturating_sub(n * WIDTH);
            masked[n] = V::load(scores.add(n * WIDTH)).keep_below(own, f32::NEG_INFINITY);
            best = best.max(masked[n]);
        }
        let before = V::load(tiles.maxima.add(pair * WIDTH));
        let maximum = before.max(V::splat(greatest_lane(best)));
        let rescale = exp(before.sub(maximum));
        for n in 0..VECTORS {
            let p = exp(masked[n].sub(maximum));
            p.store(scores.add(n * WIDTH));
            let lane = lanes.add(n * WIDTH);
            V::load(lane).mul_add(rescale, p).store(lane);
        }
        maximum.store(tiles.maxima.add(pair * WIDTH));
        rescale.store(tiles.rescale.add(pair * WIDTH));
    }
}

#[inline(always)]
fn greatest_lane<V: Vector>(vector: V) -> f32 {
    let mut lanes = [0.0f32; WIDTH];
    // SAFETY: as many floats as a vector has.
    unsafe { vector.store(lanes.as_mut_ptr()) };
    let mut width = WIDTH / 2;
    while width > 0 {
        for l in 0..width {
            lanes[l] = if lanes[l + width] > lanes[l] {
                lanes[l + width]
            } else {
                lanes[l]
            };
        }
        width /= 2;
    }
    lanes[0]
}
