//! How scales come in: the sums of a block are multiplied by their scales as they join the f32 sums that wait.

use crate::gemm::micro::PANEL;
use crate::isa::Isa;
use crate::{by_isa, isa_twins};

/// The scales of one part of a product: `sx * sw` of an output is the factor of its row times that of its column.
pub trait Factors {
    /// Of `rows` rows from `row` (of the part) on, in tile `tile` of the summed dimension.
    fn rows(&self, tile: usize, row: usize, rows: usize) -> &[f32];

    /// Of the columns of panel `panel` (of the part); columns that do not exist may have any.
    fn columns(&self, tile: usize, panel: usize) -> [f32; PANEL];
}

/// `sums = fma(partial, row * column, sums)` for each row that has a factor, the sums begun at 0 if `fresh`.
#[inline]
pub fn promote(
    isa: Isa,
    partial: &[f32],
    sums: &mut [f32],
    rows: &[f32],
    columns: &[f32; PANEL],
    fresh: bool,
) {
    let len = rows.len() * PANEL;
    let (partial, sums) = (&partial[..len], &mut sums[..len]);
    #[cfg(target_arch = "x86_64")]
    if isa <= Isa::Avx512Bf16 {
        // SAFETY: the processor has AVX-512; both tiles have a line for each row.
        return unsafe { wide::promote(partial.as_ptr(), sums.as_mut_ptr(), rows, columns, fresh) };
    }
    by_isa!(isa, promote_lines(partial, sums, rows, columns, fresh));
}

isa_twins! {
    fn promote_lines(partial: &[f32], sums: &mut [f32], rows: &[f32], columns: &[f32; PANEL], fresh: bool) {
        for row in 0..rows.len() {
            let partial = &partial[row * PANEL..(row + 1) * PANEL];
            let sums = &mut sums[row * PANEL..(row + 1) * PANEL];
            // A line of its own, so that the compiler knows that nothing overlaps.
            let mut line = [0.0; PANEL];
            if !fresh {
                line.copy_from_slice(sums);
            }
            for c in 0..PANEL {
                line[c] = partial[c].mul_add(rows[row] * columns[c], line[c]);
            }
            sums.copy_from_slice(&line);
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub mod wide {
    use std::arch::x86_64::*;

    use super::PANEL;

    /// A tile of 32 rows that is promoted some rows at a time.
    pub struct Promotion {
        pub partial: *const f32,
        pub sums: *mut f32,
        /// 32 of them.
        pub rows: *const f32,
        pub columns: [__m512; 2],
        /// Which of 16 sums there are: none if they begin at 0, else all.
        pub before: __mmask16,
    }

    impl Promotion {
        /// # Safety
        /// The processor has AVX-512; the tiles and the factors have these rows.
        #[inline]
        #[target_feature(enable = "avx512f")]
        pub unsafe fn promote(&self, rows: std::ops::Range<usize>) {
            // SAFETY: by the contract.
            unsafe {
                for row in rows {
                    let factor = _mm512_set1_ps(*self.rows.add(row));
                    for half in 0..2 {
                        let at = row * PANEL + half * 16;
                        let before = _mm512_maskz_loadu_ps(self.before, self.sums.add(at));
                        let scale = _mm512_mul_ps(factor, self.columns[half]);
                        let sum = _mm512_fmadd_ps(_mm512_loadu_ps(self.partial.add(at)), scale, before);
                        _mm512_storeu_ps(self.sums.add(at), sum);
                    }
                }
            }
        }
    }

    /// # Safety
    /// The processor has AVX-512; both tiles have 32 floats for each row.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn promote(
        partial: *const f32,
        sums: *mut f32,
        rows: &[f32],
        columns: &[f32; PANEL],
        fresh: bool,
    ) {
        // SAFETY: by the contract.
        unsafe {
            let columns = [
                _mm512_loadu_ps(columns.as_ptr()),
                _mm512_loadu_ps(columns.as_ptr().add(16)),
            ];
            for row in 0..rows.len() {
                let factor = _mm512_set1_ps(*rows.get_unchecked(row));
                for half in 0..2 {
                    let at = row * PANEL + half * 16;
                    let before = if fresh {
                        _mm512_setzero_ps()
                    } else {
                        _mm512_loadu_ps(sums.add(at))
                    };
                    let scale = _mm512_mul_ps(factor, columns[half]);
                    let sum = _mm512_fmadd_ps(_mm512_loadu_ps(partial.add(at)), scale, before);
                    _mm512_storeu_ps(sums.add(at), sum);
                }
            }
        }
    }
}
