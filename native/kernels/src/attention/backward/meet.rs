//! One panel of queries meets one tile of keys: probabilities anew, then all gradients.

use super::tiles::Tiles;
use crate::attention::product::{Before, Left, Right, Sums, Target, multiply, multiply_columns, store_block};
use crate::attention::shape::Heads;
use crate::attention::tile::{Meeting, PANEL, ROWS};
use crate::attention::vector::{Vector, WIDTH, exp};

/// A panel of queries and a tile of keys.
#[derive(Clone, Copy)]
pub struct Met {
    /// First key, from the sequence's start.
    pub first: usize,
    /// Queries that are there.
    pub queries: usize,
    pub meeting: Meeting,
}

#[inline(always)]
pub unsafe fn meet<V: Vector, const M: usize, const N: usize>(heads: &Heads, tiles: Tiles, met: Met) {
    let full = met.meeting.seen_by_all();
    unsafe {
        let keys = Rows {
            first: 0,
            count: full,
            strip: 0,
            diagonal: NONE,
        };
        meet_rows::<V, M, N>(heads, tiles, met, keys);
        // The diagonal, in groups of 16 keys: strips before the group's own see none of it.
        let mut first = full;
        while first < met.meeting.seen_by(1) {
            let strip = met.meeting.strip_of(first);
            let keys = Rows {
                first,
                count: WIDTH,
                strip,
                diagonal: strip,
            };
            meet_rows::<V, M, N>(heads, tiles, met, keys);
            first += WIDTH;
        }
        add_d_queries::<V, M, N>(heads, tiles, met);
    }
}

/// Keys `first..first + count` of the tile, for the strips from `strip` on; in strip `diagonal` a query sees no later key.
#[derive(Clone, Copy)]
struct Rows {
    first: usize,
    count: usize,
    strip: usize,
    diagonal: usize,
}

/// No strip lies on the diagonal.
const NONE: usize = usize::MAX;

#[inline(always)]
unsafe fn meet_rows<V: Vector, const M: usize, const N: usize>(
    heads: &Heads,
    tiles: Tiles,
    met: Met,
    rows: Rows,
) {
    let queries = met.queries.saturating_sub(rows.strip * WIDTH);
    if rows.count == 0 || queries == 0 {
        return;
    }
    unsafe {
        let mut strip = rows.strip;
        while strip < 2 {
            if N == 2 && strip == 0 {
                score_gradients::<V, M, 2>(heads, tiles, met.first, rows, strip);
                strip = 2;
            } else {
                score_gradients::<V, M, 1>(heads, tiles, met.first, rows, strip);
                strip += 1;
            }
        }
        add_d_keys::<V, M, N>(tiles, met.first, rows, queries);
    }
}

/// Probabilities and score gradients of N strips from `strip` on.
#[inline(always)]
unsafe fn score_gradients<V: Vector, const M: usize, const N: usize>(
    heads: &Heads,
    tiles: Tiles,
    tile: usize,
    rows: Rows,
    strip: usize,
) {
    let Tiles {
        key_stride,
        value_stride,
        ..
    } = tiles;
    let (key, lanes) = (tile + rows.first, strip * WIDTH);
    unsafe {
        let at = rows.first * PANEL + lanes;
        let (probabilities, d_scores) = (tiles.probabilities.add(at), tiles.d_scores.add(at));
        let (mut lse, mut row_sums) = ([V::zero(); N], [V::zero(); N]);
        for n in 0..N {
            lse[n] = V::load(tiles.lse.add(lanes + n * WIDTH));
            row_sums[n] = V::load(tiles.row_sums.add(lanes + n * WIDTH));
        }
        let keys = Left {
            start: tiles.keys.add(key * key_stride),
            row_stride: key_stride,
            step: 1,
        };
        let queries = Right {
            start: tiles.queries_t.add(lanes),
            stride: PANEL,
        };
        let is_diagonal = strip == rows.diagonal;
        let mut sums = Probabilities {
            to: probabilities,
            lse,
            is_diagonal,
        };
        multiply::<V, M, N>(keys, queries, rows.count, heads.key(), &mut sums);
        let values = Left {
            start: tiles.values.add(key * value_stride),
            row_stride: value_stride,
            step: 1,
        };
        let d_outputs = Right {
            start: tiles.d_outputs_t.add(lanes),
            stride: PANEL,
        };
        let mut sums = ScoreGradients {
            to: d_scores,
            probabilities,
            row_sums,
        };
        multiply::<V, M, N>(values, d_outputs, rows.count, heads.value, &mut sums);
    }
}

/// dv += p do, dk += ds q, over `depth` queries.
#[inline(always)]
unsafe fn add_d_keys<V: Vector, const M: usize, const N: usize>(
    tiles: Tiles,
    tile: usize,
    rows: Rows,
    depth: usize,
) {
    let Tiles {
        key_stride,
        value_stride,
        ..
    } = tiles;
    let (key, lanes) = (tile + rows.first, rows.strip * WIDTH);
    let at = rows.first * PANEL + lanes;
    unsafe {
        let p = Left {
            start: tiles.probabilities.add(at),
            row_stride: PANEL,
            step: 1,
        };
        let d_outputs = Right {
            start: tiles.d_outputs.add(lanes * value_stride),
            stride: value_stride,
        };
        let to = tiles.d_values.add(key * value_stride);
        let sums = Target {
            to,
            stride: value_stride,
            before: Before::Sums,
        };
        multiply_columns::<V, M, N>(p, d_outputs, rows.count, value_stride, depth, sums);
        let ds = Left {
            start: tiles.d_scores.add(at),
            row_stride: PANEL,
            step: 1,
        };
        let queries = Right {
            start: tiles.queries.add(lanes * key_stride),
            stride: key_stride,
        };
        let to = tiles.d_keys.add(key * key_stride);
        let sums = Target {
            to,
            stride: key_stride,
            before: Before::Sums,
        };
        multiply_columns::<V, M, N>(ds, queries, rows.count, key_stride, depth, sums);
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
        let (first, second) = (met.meeting.seen_by(0), met.meeting.seen_by(1));
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
