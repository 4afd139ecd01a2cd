//! Newton-Schulz of a matrix that fits the second cache, in AMX registers: the same products in the same order as
//! `by_products`, to the bit, but every tile of sums goes straight into the packed forms that the next product reads.
//!
//! ```text
//! product      A (rows)     B (panels)          what its tiles become
//! G = X X^T    X rows       X pairs of columns  G: rows, pairs of rows, f32
//! P            G rows       G pairs of rows     a I + b G + c G^2: rows
//! X = P X      P rows       X pairs of rows     X: all three forms, or, the last time, f32
//! ```
//!
//! G is symmetric, so that its pairs of rows are its pairs of columns. Everything is padded with zeros to whole tiles
//! of 32; they stay zeros.

use std::arch::x86_64::*;

use super::{COEFFICIENTS, ITERATIONS};
use crate::gemm::micro::{PANEL, RUN};
use crate::gemm::shuffle::turn;
use crate::gemm::tile_factors::{pair_columns, pair_rows, round_rows};
use crate::gemm::tiles::{Finished, PackedRows, ROWS, SUMS, multiply, packed_words, sums_floats};
use crate::pool::Scratch;

/// Words of all packed forms that leave room in a second cache of 1 MiB for what streams by.
const MOST_WORDS: usize = 192 * 1024;

/// Words of 16 pairs by 32 columns, or of 32 rows by 16 pairs.
const BLOCK: usize = RUN * PANEL;

/// A matrix [n, k] in a row-major matrix of `stride` columns, or in its transpose.
#[derive(Clone, Copy)]
pub struct Place {
    pub n: usize,
    pub k: usize,
    pub turned: bool,
}

#[derive(Clone, Copy)]
struct Sizes {
    /// Rows of A: whole registers of 16.
    rows: usize,
    /// Tiles of 32 along n and k.
    n: usize,
    k: usize,
}

impl Sizes {
    fn of(place: Place) -> Sizes {
        Sizes {
            rows: place.n.next_multiple_of(RUN),
            n: place.n.div_ceil(PANEL),
            k: place.k.div_ceil(PANEL),
        }
    }

    fn rows_of(&self, columns: usize) -> usize {
        packed_words(self.rows, columns * RUN)
    }

    fn words(&self) -> usize {
        let panels = 3 * self.n * self.k + self.n * self.n;
        self.rows_of(self.k) + 2 * self.rows_of(self.n) + panels * BLOCK
    }

    fn floats(&self) -> usize {
        let sums = sums_floats(self.rows, self.n.max(self.k) * RUN, self.n.max(self.k));
        sums + self.n * self.n * SUMS
    }
}

/// Whether everything fits the cache of one thread.
pub fn fits(place: Place) -> bool {
    let sizes = Sizes::of(place);
    sizes.words() + sizes.floats() <= MOST_WORDS
}

/// A matrix as A: tiles of 32 rows (16 at the end, if that is all), each as blocks of 16 pairs.
struct Packed<'a> {
    words: &'a mut [u32],
    rows: usize,
    columns: usize,
}

impl Packed<'_> {
    fn operand(&self) -> PackedRows<'_> {
        PackedRows {
            words: self.words,
            rows: self.rows,
            pairs: self.columns * RUN,
        }
    }

    /// Where the lines of the tile in column `column` go that begins at `row`.
    fn block(&mut self, row: usize, column: usize) -> &mut [u32] {
        let height = (self.rows - row).min(ROWS);
        let from = row * self.columns * RUN + column * RUN * height;
        &mut self.words[from..from + height * RUN]
    }
}

/// A matrix as B: panels of 32 columns, `tiles` blocks of 16 pairs each.
struct Panels<'a> {
    words: &'a mut [u32],
    tiles: usize,
}

impl Panels<'_> {
    fn block(&mut self, panel: usize, tile: usize) -> &mut [u32] {
        let from = (panel * self.tiles + tile) * BLOCK;
        &mut self.words[from..from + BLOCK]
    }
}

/// All iterations on the matrix in `x`, which holds the result afterwards.
///
/// # Safety
/// The processor has AMX.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn orthogonalize(scratch: &mut Scratch, x: &mut [f32], place: Place) {
    let sizes = Sizes::of(place);
    let memory = scratch.f32(sizes.words() + sizes.floats());
    let (sums, memory) = memory.split_at_mut(sizes.floats() - sizes.n * sizes.n * SUMS);
    let (gram, memory) = memory.split_at_mut(sizes.n * sizes.n * SUMS);
    let mut words = crate::gemm::product::as_words(memory);
    let mut take = |len: usize| {
        let (part, rest) = std::mem::take(&mut words).split_at_mut(len);
        words = rest;
        part
    };
    let mut packed = |columns: usize| Packed {
        words: take(sizes.rows_of(columns)),
        rows: sizes.rows,
        columns,
    };
    let (mut x_rows, mut gram_rows, mut polynomial) = (packed(sizes.k), packed(sizes.n), packed(sizes.n));
    let mut panels = |count: usize, tiles: usize| Panels {
        words: take(count * tiles * BLOCK),
        tiles,
    };
    let mut x_columns = panels(sizes.n, sizes.k);
    let (mut x_pairs, mut next_pairs) = (panels(sizes.k, sizes.n), panels(sizes.k, sizes.n));
    let mut gram_pairs = panels(sizes.n, sizes.n);
    // SAFETY: the processor has the features; panels are as large as their counts say.
    unsafe {
        for row in 0..sizes.n {
            for column in 0..sizes.k {
                let tile = read(x, place, row, column);
                round_rows(&tile, x_rows.block(row * ROWS, column));
                pair_columns(&tile, ROWS, x_columns.block(row, column));
                pair_rows(&tile, ROWS, x_pairs.block(column, row));
            }
        }
        for iteration in 1..=ITERATIONS {
            let (b, count) = (x_columns.words.as_ptr(), (sizes.n, sizes.k * BLOCK));
            multiply(
                x_rows.operand(),
                b,
                count,
                sums,
                |_| (),
                |done, tile| {
                    round_rows(tile, gram_rows.block(done.row, done.panel));
                    pair_rows(tile, done.rows, gram_pairs.block(done.panel, done.row / ROWS));
                    let at = slot(&done, sizes.n);
                    gram[at..at + done.rows * PANEL].copy_from_slice(&tile[..done.rows * PANEL]);
                },
            );
            let (b, count) = (gram_pairs.words.as_ptr(), (sizes.n, sizes.n * BLOCK));
            multiply(
                gram_rows.operand(),
                b,
                count,
                sums,
                |_| (),
                |done, square| {
                    let gram = &gram[slot(&done, sizes.n)..];
                    let tile = to_polynomial(square, gram, &done, place.n);
                    round_rows(&tile, polynomial.block(done.row, done.panel));
                },
            );
            let (b, count) = (x_pairs.words.as_ptr(), (sizes.k, sizes.n * BLOCK));
            multiply(
                polynomial.operand(),
                b,
                count,
                sums,
                |_| (),
                |done, tile| {
                    let row = done.row / ROWS;
                    if iteration == ITERATIONS {
                        return write(tile, x, place, row, done.panel);
                    }
                    round_rows(tile, x_rows.block(done.row, done.panel));
                    pair_columns(tile, done.rows, x_columns.block(row, done.panel));
                    pair_rows(tile, done.rows, next_pairs.block(done.panel, row));
                },
            );
            std::mem::swap(&mut x_pairs, &mut next_pairs);
        }
    }
    crate::gemm::micro::amx::release();
}

fn slot(tile: &Finished, columns: usize) -> usize {
    (tile.row / ROWS * columns + tile.panel) * SUMS
}

/// a I + b G + c G^2; the identity ends with the matrix, so that the padding stays zero.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn to_polynomial(square: &[f32], gram: &[f32], done: &Finished, n: usize) -> [f32; SUMS] {
    let [a, b, c] = COEFFICIENTS;
    let mut tile = [0.0; SUMS];
    let len = done.rows * PANEL;
    let (square, gram) = (&square[..len], &gram[..len]);
    for i in 0..len {
        tile[i] = c.mul_add(square[i], b * gram[i]);
    }
    if done.row / ROWS == done.panel {
        for i in 0..done.rows.min(n - done.row) {
            tile[i * PANEL + i] += a;
        }
    }
    tile
}

/// A square of 32 by 32 numbers, turned.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn turned(tile: &[f32; SUMS]) -> [f32; SUMS] {
    let mut out = [0.0; SUMS];
    for (row, column) in [(0, 0), (0, RUN), (RUN, 0), (RUN, RUN)] {
        // SAFETY: inside squares of 32 by 32.
        unsafe {
            let square = turn(std::array::from_fn(|i| {
                _mm512_loadu_si512(tile.as_ptr().add((row + i) * PANEL + column).cast())
            }));
            for (i, line) in square.into_iter().enumerate() {
                _mm512_storeu_si512(out.as_mut_ptr().add((column + i) * PANEL + row).cast(), line);
            }
        }
    }
    out
}

/// Rows and columns of a row-major matrix that a tile covers: (row, column, rows, columns, width of the matrix).
fn bounds(place: Place, row: usize, column: usize) -> (usize, usize, usize, usize, usize) {
    let Place { n, k, turned } = place;
    let (row, column) = (row * ROWS, column * PANEL);
    let (rows, columns) = ((n - row).min(ROWS), (k - column).min(PANEL));
    if turned {
        (column, row, columns, rows, n)
    } else {
        (row, column, rows, columns, k)
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn read(x: &[f32], place: Place, row: usize, column: usize) -> [f32; SUMS] {
    let (first, from, rows, columns, width) = bounds(place, row, column);
    let mut tile = [0.0; SUMS];
    for i in 0..rows {
        let start = (first + i) * width + from;
        tile[i * PANEL..i * PANEL + columns].copy_from_slice(&x[start..start + columns]);
    }
    if place.turned { turned(&tile) } else { tile }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn write(tile: &[f32], x: &mut [f32], place: Place, row: usize, column: usize) {
    let (first, to, rows, columns, width) = bounds(place, row, column);
    let mut square = [0.0; SUMS];
    if place.turned {
        square = turned(tile[..SUMS].try_into().expect("a whole tile"));
    }
    let tile = if place.turned { &square[..] } else { tile };
    for i in 0..rows {
        let start = (first + i) * width + to;
        x[start..start + columns].copy_from_slice(&tile[i * PANEL..i * PANEL + columns]);
    }
}
