//! A tile by blocks of 64 columns in 512-bit registers.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::{Job, Source, Tile};
use crate::fp8::codec::{Code, E5m6, TILE};
use crate::fp8::wide::{BLOCK, column_block, decode_e4m3, decode_e5m6};
use crate::with_floats;

impl Job<'_> {
    /// Columns `column..column + width` of a tile; false if the plain loops must do them.
    ///
    /// # Safety
    /// The processor has AVX-512, and no other thread touches these columns of the tile.
    pub unsafe fn by_blocks(&self, tile: &Tile, column: usize, width: usize, values: &mut [f32]) -> bool {
        (0..width)
            .step_by(BLOCK)
            // SAFETY: by the contract.
            .all(|at| unsafe { self.block(tile, column + at, BLOCK.min(width - at), values) })
    }

    /// At most 64 columns; false if the plain loops must do them.
    ///
    /// # Safety
    /// The processor has AVX-512, and no other thread touches these columns of the tile.
    unsafe fn block(&self, tile: &Tile, column: usize, width: usize, values: &mut [f32]) -> bool {
        let rows = tile.to - tile.from;
        let source = |r: usize| {
            self.rows
                .map_or(tile.from + r, |rows| rows[tile.from + r] as usize)
        };
        // SAFETY: by the contract.
        let scales = unsafe { self.scales.part(tile.scale_row * self.k + column, width) };
        // SAFETY: as above, row by row.
        let to = |r: usize| unsafe {
            self.codes
                .part((tile.from + r) * self.k + column, width)
                .as_mut_ptr()
        };
        let tiles = self.k.div_ceil(TILE);
        let scale = |scales: &[f32], r: usize| scales[source(r) * tiles + column / TILE];
        let room = |r: usize| r * BLOCK..(r + 1) * BLOCK;
        // The next columns of these rows are quantised next, or by another thread.
        let next = |r: usize| (source(r) * self.k + (column + BLOCK).min(self.k - 1)) & !1;
        let ask = |x: *const u8, start: usize, bytes: usize| {
            for line in (start..start + bytes).step_by(64) {
                prefetch(x.wrapping_add(line));
            }
        };
        match self.x {
            Source::Floats(x) => with_floats!(x, |x| {
                let from = |r: usize| x[source(r) * self.k + column..][..width].as_ptr();
                let size = size_of_val(x) / x.len();
                let ahead = |r: usize| ask(x.as_ptr().cast(), next(r) * size, BLOCK * size);
                // SAFETY: rows as wide as there are scales; the rest by the contract.
                unsafe { column_block(rows, from, to, ahead, self.rule, scales) }
            }),
            Source::E4m3(x, x_scales) => {
                for r in 0..rows {
                    let codes = &x[source(r) * self.k + column..][..width];
                    let to = values[room(r)].as_mut_ptr();
                    // SAFETY: as many codes, and room; the rest by the contract.
                    if !unsafe { decode_e4m3(codes.as_ptr(), width, scale(x_scales, r), to) } {
                        return false;
                    }
                }
                let from = |r: usize| values[room(r)].as_ptr();
                let ahead = |r: usize| ask(x.as_ptr(), next(r), BLOCK);
                // SAFETY: as above.
                unsafe { column_block(rows, from, to, ahead, self.rule, scales) }
            }
            Source::E5m6(x, x_scales) => {
                for r in 0..rows {
                    let start = source(r) * self.k + column;
                    let codes = &x[E5m6::bytes(start)..E5m6::bytes(start + width)];
                    let to = values[room(r)].as_mut_ptr();
                    // SAFETY: as above.
                    unsafe { decode_e5m6(codes.as_ptr(), width, scale(x_scales, r), to) };
                }
                let from = |r: usize| values[room(r)].as_ptr();
                let ahead = |r: usize| ask(x.as_ptr(), E5m6::bytes(next(r)), E5m6::bytes(BLOCK));
                // SAFETY: as above.
                unsafe { column_block(rows, from, to, ahead, self.rule, scales) }
            }
        }
    }
}

/// Asks for a line; of no effect where nothing lies.
#[inline(always)]
fn prefetch(line: *const u8) {
    // SAFETY: a hint.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}
