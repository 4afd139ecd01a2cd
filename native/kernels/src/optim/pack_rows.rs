//! From up to 32 rows of a weight to both panel forms: what AdamW writes while the new weights are still in cache.
//!
//! ```text
//! rows     w[n][k], 32 outputs n (fewer at the end of a matrix), all K columns
//! panels   one panel, whole:                             f32 [k][32 n]        bf16 [k/2][32 n][2 k]
//! panelsT  of each panel of 32 columns, these 32 rows:   f32 [n][32 k]        bf16 [n/2][32 k][2 n]
//! ```
//!
//! Both forms are made of 32-bit words: a float, or two bf16. packWeight writes the same layout, but walks one
//! form at a time, so that it would need a second pass over the weights.

use crate::bf16;
use crate::gemm::micro::PANEL;
use crate::gemm::panel_len;
use crate::gemm::panels::PanelElement;
use crate::isa::Isa;
use crate::{by_isa, isa_twins};

/// Panel elements as the 32-bit words that panels are made of, `TOGETHER` neighbours along the summed dimension each.
pub trait Words: PanelElement {
    /// Values as words; words beyond `PANEL / TOGETHER` stay zero.
    fn words(values: &[f32; PANEL]) -> [u32; PANEL];
    /// Two rows as words: one above the other where a word holds both, else only the first.
    fn words_of_rows(first: &[f32; PANEL], second: &[f32; PANEL]) -> [u32; PANEL];
}

impl Words for f32 {
    #[inline(always)]
    fn words(values: &[f32; PANEL]) -> [u32; PANEL] {
        let mut words = [0; PANEL];
        for i in 0..PANEL {
            words[i] = values[i].to_bits();
        }
        words
    }

    #[inline(always)]
    fn words_of_rows(first: &[f32; PANEL], _second: &[f32; PANEL]) -> [u32; PANEL] {
        Self::words(first)
    }
}

impl Words for u16 {
    #[inline(always)]
    fn words(values: &[f32; PANEL]) -> [u32; PANEL] {
        let mut words = [0; PANEL];
        for i in 0..PANEL / 2 {
            words[i] = pair(values[2 * i], values[2 * i + 1]);
        }
        words
    }

    #[inline(always)]
    fn words_of_rows(first: &[f32; PANEL], second: &[f32; PANEL]) -> [u32; PANEL] {
        let mut words = [0; PANEL];
        for i in 0..PANEL {
            words[i] = pair(first[i], second[i]);
        }
        words
    }
}

#[inline(always)]
fn pair(low: f32, high: f32) -> u32 {
    bf16::from_f32(low) as u32 | (bf16::from_f32(high) as u32) << 16
}

/// Columns `k..k + 32` of a row; zeros beyond the matrix.
#[inline(always)]
fn segment(w: &[f32], columns: usize, row: usize, k: usize) -> [f32; PANEL] {
    let start = row * columns + k;
    let mut values = [0.0; PANEL];
    if k + PANEL <= columns && start + PANEL <= w.len() {
        values.copy_from_slice(&w[start..start + PANEL]);
    } else if start < w.len() {
        let width = columns - k;
        values[..width].copy_from_slice(&w[start..start + width]);
    }
    values
}

isa_twins! {
    /// Writes one panel from rows of `columns` weights each.
    pub fn pack_panel<P: Words>(w: &[f32], columns: usize, out: &mut [P]) {
        let lines = as_lines(out);
        for (i, lines) in lines.chunks_mut(PANEL / P::TOGETHER).enumerate() {
            // Four rows at a time are interleaved as vectors, then stored as quads: single words would be four
            // times as many stores.
            for n in (0..PANEL).step_by(4) {
                let mut rows = [[0u32; PANEL]; 4];
                for r in 0..4 {
                    rows[r] = P::words(&segment(w, columns, n + r, i * PANEL));
                }
                let mut quads = [[0u32; 4]; PANEL];
                for j in 0..PANEL {
                    quads[j] = [rows[0][j], rows[1][j], rows[2][j], rows[3][j]];
                }
                for (line, quad) in lines.iter_mut().zip(&quads) {
                    line[n..n + 4].copy_from_slice(quad);
                }
            }
        }
    }
}

isa_twins! {
    /// Writes these rows' part of the transposed panel that begins at column `k`.
    pub fn pack_transposed<P: Words>(w: &[f32], columns: usize, k: usize, out: &mut [P]) {
        for (j, line) in as_lines(out).iter_mut().enumerate() {
            let first = segment(w, columns, j * P::TOGETHER, k);
            let second = segment(w, columns, j * P::TOGETHER + 1, k);
            *line = P::words_of_rows(&first, &second);
        }
    }
}

/// The same memory as lines of 32 words. Panels begin at multiples of 64 bytes and are made of whole lines.
#[inline(always)]
fn as_lines<P: Words>(out: &mut [P]) -> &mut [[u32; PANEL]] {
    let line = PANEL * P::TOGETHER;
    assert!(out.as_ptr().cast::<u32>().is_aligned() && out.len().is_multiple_of(line));
    // SAFETY: aligned and of that length, as just checked; every bit pattern is a value of either type.
    unsafe { std::slice::from_raw_parts_mut(out.as_mut_ptr().cast(), out.len() / line) }
}

/// All panels of a matrix [n, k], by one thread.
pub fn pack_matrix<P: Words>(isa: Isa, w: &[f32], n: usize, k: usize, out: &mut [P]) {
    for (rows, panel) in w[..n * k]
        .chunks(PANEL * k.max(1))
        .zip(out.chunks_mut(panel_len(k).max(1)))
    {
        by_isa!(isa, pack_panel(rows, k, panel));
    }
}

/// All panels of its transpose.
pub fn pack_matrix_transposed<P: Words>(isa: Isa, w: &[f32], n: usize, k: usize, out: &mut [P]) {
    for (i, rows) in w[..n * k].chunks(PANEL * k.max(1)).enumerate() {
        for column in 0..k.div_ceil(PANEL) {
            let first = column * panel_len(n) + i * PANEL * PANEL;
            let len = panel_len(rows.len() / k);
            by_isa!(
                isa,
                pack_transposed(rows, k, column * PANEL, &mut out[first..first + len])
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::by_isa;
    use crate::isa::Isa;
    use crate::optim::test_arena::noise;

    #[repr(align(64))]
    struct Panels<P>([P; 4096]);

    #[test]
    fn every_weight_lands_where_the_panel_layout_says() {
        for (rows, columns) in [(32, 64), (32, 33), (31, 62), (5, 31), (1, 1)] {
            let w = noise(rows * columns, 1);
            let at = |n: usize, k: usize| {
                if n < rows && k < columns {
                    w[n * columns + k]
                } else {
                    0.0
                }
            };
            for isa in Isa::usable() {
                let pairs = columns.div_ceil(2);
                let mut narrow = Box::new(Panels([9u16; 4096]));
                by_isa!(isa, pack_panel(&w, columns, &mut narrow.0[..pairs * 64]));
                let mut wide = Box::new(Panels([9f32; 4096]));
                by_isa!(isa, pack_panel(&w, columns, &mut wide.0[..2 * pairs * 32]));
                for n in 0..32 {
                    for k in 0..2 * pairs {
                        let stored = narrow.0[k / 2 * 64 + n * 2 + k % 2];
                        assert_eq!(
                            stored,
                            bf16::from_f32(at(n, k)),
                            "{isa} {rows}x{columns}: {n} {k}"
                        );
                        assert_eq!(wide.0[k * 32 + n], at(n, k), "{isa} {rows}x{columns}: {n} {k}");
                    }
                }
                assert_eq!(
                    (narrow.0[pairs * 64], wide.0[pairs * 64]),
                    (9, 9.0),
                    "nothing beyond the panel"
                );
            }
        }
    }

    #[test]
    fn the_transposed_panel_pairs_rows_instead_of_columns() {
        for (rows, columns, k) in [(32, 64, 32), (31, 33, 0), (31, 33, 32), (7, 5, 0)] {
            let w = noise(rows * columns, 2);
            let at = |n: usize, k: usize| {
                if n < rows && k < columns {
                    w[n * columns + k]
                } else {
                    0.0
                }
            };
            for isa in Isa::usable() {
                let pairs = rows.div_ceil(2);
                let mut narrow = Box::new(Panels([9u16; 4096]));
                by_isa!(isa, pack_transposed(&w, columns, k, &mut narrow.0[..pairs * 64]));
                let mut wide = Box::new(Panels([9f32; 4096]));
                by_isa!(
                    isa,
                    pack_transposed(&w, columns, k, &mut wide.0[..2 * pairs * 32])
                );
                for n in 0..2 * pairs {
                    for i in 0..32 {
                        let stored = narrow.0[n / 2 * 64 + i * 2 + n % 2];
                        assert_eq!(
                            stored,
                            bf16::from_f32(at(n, k + i)),
                            "{isa} {rows}x{columns}: {n} {i}"
                        );
                        assert_eq!(
                            wide.0[n * 32 + i],
                            at(n, k + i),
                            "{isa} {rows}x{columns}: {n} {i}"
                        );
                    }
                }
            }
        }
    }
}
