//! Packing for AMX: rows, turned columns and token panels as pairs of bf16, by 512-bit registers. `pack.rs` is the
//! plain twin.
//!
//! f32 is rounded by `vcvtne2ps2bf16`, which takes denormals for zero, as the products do.

use std::arch::x86_64::*;

use super::micro::amx::packed_rows as slots;
use super::micro::{AMX_ROWS, PANEL, RUN};
use super::pack::Rows;
use super::shuffle::{pairs, store_columns};
use super::tiles;
use crate::bf16::Element;

/// Elements of a line: sixteen pairs.
const LINE: usize = 2 * RUN;

/// Rows that are asked for ahead: gathered ones may lie anywhere.
const AHEAD: usize = 4;

/// An element of which 32 can be loaded as bf16.
pub trait Load: Element {
    /// The elements whose bits are set in `mask`, zeros for the others.
    ///
    /// # Safety
    /// The processor has AVX-512 with BF16; the masked elements can be read.
    unsafe fn load(from: *const Self, mask: u32) -> __m512i;
}

impl Load for u16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn load(from: *const u16, mask: u32) -> __m512i {
        // SAFETY: by the contract.
        unsafe { _mm512_maskz_loadu_epi16(mask, from.cast()) }
    }
}

impl Load for f32 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn load(from: *const f32, mask: u32) -> __m512i {
        // SAFETY: by the contract; masked loads touch nothing else.
        unsafe {
            let low = _mm512_maskz_loadu_ps(mask as u16, from);
            let high = _mm512_maskz_loadu_ps((mask >> 16) as u16, from.wrapping_add(16));
            std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
        }
    }
}

fn mask_of(elements: usize) -> u32 {
    if elements >= 32 {
        u32::MAX
    } else {
        (1 << elements) - 1
    }
}

/// Packs `rows` rows of `k` elements as tiles: `[tile][k / 32][16 or 32 rows][16]` words, zeros behind K.
///
/// # Safety
/// The processor has AVX-512 with BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn pack_rows<T: Load>(x: &[T], at: Rows, rows: usize, k: usize, out: &mut [u32]) {
    let runs = k.div_ceil(LINE);
    assert!(
        out.len() >= tiles::packed_words(rows, runs * RUN),
        "room for packed rows"
    );
    if runs == 0 {
        return;
    }
    for row in 0..rows {
        let first = row / AMX_ROWS * AMX_ROWS;
        let height = slots((rows - first).min(AMX_ROWS));
        let next = x.as_ptr().wrapping_add(at.start((row + AHEAD).min(rows - 1)));
        let x = &x[at.start(row)..at.start(row) + k];
        let to = &mut out[first * runs * RUN + (row - first) * RUN..];
        for run in 0..runs {
            // SAFETY: inside the row; inside `out` by the assertion.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(run * LINE).cast());
                let line = T::load(x.as_ptr().add(run * LINE), mask_of(k - run * LINE));
                _mm512_storeu_si512(to.as_mut_ptr().add(run * height * RUN).cast(), line);
            }
        }
    }
}

/// Packs `columns` columns over `tokens` rows as tiles, a column as a row of A; zeros behind the last token.
///
/// # Safety
/// As `pack_rows`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn pack_columns<T: Load>(x: &[T], at: Rows, tokens: usize, columns: usize, out: &mut [u32]) {
    let runs = tokens.div_ceil(LINE);
    assert!(
        out.len() >= tiles::packed_words(columns, runs * RUN),
        "room for packed columns"
    );
    // Tokens outside, so that rows are read from one end to the other.
    for run in 0..runs {
        for first in (0..columns).step_by(PANEL) {
            let width = (columns - first).min(PANEL);
            let to = out[first * runs * RUN + run * slots(width) * RUN..].as_mut_ptr();
            // SAFETY: rows are checked where they are read; the tile has `runs` times `slots(width)` lines.
            unsafe {
                let rows = |pair| load_pair(x, at.shift(first), run * RUN + pair, tokens, width);
                store_columns(rows, width, to);
            }
        }
    }
}

/// Packs `columns` columns over `tokens` rows as panels: `[panel][pair][32]` words, zeros behind the last token, up to
/// a multiple of 16 pairs.
///
/// # Safety
/// As `pack_rows`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn pack_panels<T: Load>(x: &[T], at: Rows, tokens: usize, columns: usize, out: &mut [u32]) {
    let count = tokens.div_ceil(LINE) * RUN;
    assert!(
        out.len() >= columns.div_ceil(PANEL) * count * PANEL,
        "room for packed panels"
    );
    for pair in 0..count {
        for first in (0..columns).step_by(PANEL) {
            // SAFETY: rows are checked where they are read; `out` has room by the assertion.
            unsafe {
                let (even, odd) = load_pair(x, at.shift(first), pair, tokens, (columns - first).min(PANEL));
                let to = out.as_mut_ptr().add(first * count + pair * PANEL);
                let [low, high] = pairs(even, odd);
                _mm512_storeu_si512(to.cast(), low);
                _mm512_storeu_si512(to.add(RUN).cast(), high);
            }
        }
    }
}

/// The first `columns` elements of tokens `2 * pair` and `2 * pair + 1`, zeros where there is no such token. Asks for
/// the same columns 32 tokens ahead: rows are longer than what is read of them, so the processor does not guess them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn load_pair<T: Load>(
    x: &[T],
    at: Rows,
    pair: usize,
    tokens: usize,
    columns: usize,
) -> (__m512i, __m512i) {
    let row = |token: usize| {
        if token >= tokens {
            return _mm512_setzero_si512();
        }
        if token + LINE < tokens {
            _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().wrapping_add(at.start(token + LINE)).cast());
        }
        let row = &x[at.start(token)..at.start(token) + columns];
        // SAFETY: `columns` elements are there.
        unsafe { T::load(row.as_ptr(), mask_of(columns)) }
    };
    (row(2 * pair), row(2 * pair + 1))
}

#[cfg(test)]
mod tests;
