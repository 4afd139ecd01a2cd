//! One panel of queries meets one tile of keys: scores, softmax update, outputs.

use super::tiles::{Panel, Tiles};
use crate::attention::product::{Before, Left, Right, Sums, Target, load_block, multiply, store_block};
use crate::attention::shape::Heads;
use crate::attention::tile::{Meeting, PANEL, ROWS};
use crate::attention::vector::{Vector, WIDTH, exp};

/// One panel meets one key tile: scores, softmax update, outputs.
#[inline(always)]
pub unsafe fn attend<V: Vector, const M: usize, const N: usize>(
    heads: &Heads,
    tiles: Tiles,
    panel: Panel,
    met: Meeting,
) {
    unsafe {
        let best = scores::<V, M, N>(heads, tiles, panel, met);
        let rescale = [
            update_softmax(tiles, panel, met, 0, best[0]),
            update_softmax(tiles, panel, met, 1, best[1]),
        ];
        add_values::<V, M, N>(heads, tiles, panel, met, rescale);
    }
}

/// Writes the panel's scores; returns each query's greatest.
#[inline(always)]
unsafe fn scores<V: Vector, const M: usize, const N: usize>(
    heads: &Heads,
    tiles: Tiles,
    panel: Panel,
    met: Meeting,
) -> [V; 2] {
    let mut best = [V::splat(f32::NEG_INFINITY); 2];
    let full = met.seen_by_all();
    unsafe {
        score_rows::<V, M, N>(heads, tiles, panel, 0, full, 0, usize::MAX, &mut best);
        // The diagonal, in groups of 16 keys: strips before the group's own see none of it.
        let mut group = full;
        while group < met.seen_by(1) {
            let own = met.strip_of(group);
            score_rows::<V, M, N>(heads, tiles, panel, group, WIDTH, own, own, &mut best);
            group += WIDTH;
        }
    }
    best
}

/// Scores of `count` keys from `first` on for the strips from `strip` on; in strip `diagonal` a query sees no later key.
#[inline(always)]
unsafe fn score_rows<V: Vector, const M: usize, const N: usize>(
    heads: &Heads,
    tiles: Tiles,
    panel: Panel,
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
                start: tiles.keys.add(first * tiles.key_stride),
                row_stride: tiles.key_stride,
                step: 1,
            };
            let b = Right {
                start: panel.queries.add(strip * WIDTH),
                stride: PANEL,
            };
            let to = tiles.scores.add(first * PANEL + strip * WIDTH);
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
unsafe fn update_softmax<V: Vector>(tiles: Tiles, panel: Panel, met: Meeting, strip: usize, best: V) -> V {
    let lanes = strip * WIDTH;
    unsafe {
        let before = V::load(panel.maxima.add(lanes));
        let maximum = before.max(best);
        let rescale = exp(before.sub(maximum));
        let mut sum = V::zero();
        for key in 0..met.seen_by(strip) {
            let at = tiles.scores.add(key * PANEL + lanes);
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
    tiles: Tiles,
    panel: Panel,
    met: Meeting,
    rescale: [V; 2],
) {
    // The channels behind the last are zero.
    let channels = heads.value.next_multiple_of(ROWS);
    unsafe {
        let a = |key: usize| Left {
            start: tiles.values.add(key * tiles.value_stride),
            row_stride: 1,
            step: tiles.value_stride,
        };
        let b = |key: usize, strip: usize| Right {
            start: tiles.scores.add(key * PANEL + strip * WIDTH),
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
