//! A tile of sums as a factor of the next product, while it is still in the first cache: rounded, as rows of A, as a block
//! of a panel, or turned.
//!
//! Rounding is that of `pack_tiles`.

use std::arch::x86_64::*;

use super::micro::{PANEL, RUN};
use super::pack_tiles::Load;
use super::shuffle::{pairs, turn};

/// Rounds a tile of 32 floats a row: a line of 16 pairs for each row that `out` has room for.
///
/// # Safety
/// The processor has AVX-512 with BF16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub fn round_rows(tile: &[f32], out: &mut [u32]) {
    let rows = out.len() / RUN;
    assert!(tile.len() >= rows * PANEL, "a tile of that size");
    for row in 0..rows {
        // SAFETY: inside the tile (asserted) and `out`.
        unsafe {
            let line = f32::load(tile.as_ptr().add(row * PANEL), u32::MAX);
            _mm512_storeu_si512(out.as_mut_ptr().add(row * RUN).cast(), line);
        }
    }
}

/// The same tile as a block of a panel: a line of 32 pairs of each two rows, zeros behind the last of `rows`.
///
/// # Safety
/// The processor has AVX-512 with BF16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub fn pair_rows(tile: &[f32], rows: usize, out: &mut [u32]) {
    assert!(
        tile.len() >= rows * PANEL && out.len() == RUN * PANEL,
        "tiles of that size"
    );
    for pair in 0..RUN {
        // SAFETY: inside the tile and `out` (asserted).
        unsafe {
            let (even, odd) = (line_of(tile, 2 * pair, rows), line_of(tile, 2 * pair + 1, rows));
            let to = out.as_mut_ptr().add(pair * PANEL);
            let [low, high] = pairs(even, odd);
            _mm512_storeu_si512(to.cast(), low);
            _mm512_storeu_si512(to.add(RUN).cast(), high);
        }
    }
}

/// Its transpose as a block of a panel: of each two columns a line of 32 pairs, zeros behind the last of `rows`.
///
/// # Safety
/// The processor has AVX-512 with BF16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub fn pair_columns(tile: &[f32], rows: usize, out: &mut [u32]) {
    assert!(
        tile.len() >= rows * PANEL && out.len() == RUN * PANEL,
        "tiles of that size"
    );
    for half in [0, RUN] {
        let mut lines = [_mm512_setzero_si512(); RUN];
        for (i, line) in lines.iter_mut().enumerate() {
            // SAFETY: the tile has `rows` rows (asserted).
            *line = unsafe { line_of(tile, half + i, rows) };
        }
        for (pair, line) in turn(lines).into_iter().enumerate() {
            // SAFETY: sixteen lines of 32 words (asserted).
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(pair * PANEL + half).cast(), line) };
        }
    }
}

/// A row of a tile, rounded; zeros if it is behind the last.
///
/// # Safety
/// The tile has `rows` rows of 32 floats.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn line_of(tile: &[f32], row: usize, rows: usize) -> __m512i {
    if row >= rows {
        return _mm512_setzero_si512();
    }
    // SAFETY: by the contract.
    unsafe { f32::load(tile.as_ptr().add(row * PANEL), u32::MAX) }
}
