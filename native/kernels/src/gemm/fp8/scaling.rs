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

/// `sums = fma(partial, row * column, sums)`, the sums begun at 0 if `fresh`. Both tiles are as wide as `columns`.
pub fn promote(isa: Isa, partial: &[f32], sums: &mut [f32], rows: &[f32], columns: &[f32], fresh: bool) {
    let len = rows.len() * columns.len();
    let (partial, sums) = (&partial[..len], &mut sums[..len]);
    match <&[f32; PANEL]>::try_from(columns) {
        Ok(columns) => by_isa!(isa, promote_panel(partial, sums, rows, columns, fresh)),
        Err(_) => by_isa!(isa, promote_wide(partial, sums, rows, columns, fresh)),
    }
}

isa_twins! {
    fn promote_panel(partial: &[f32], sums: &mut [f32], rows: &[f32], columns: &[f32; PANEL], fresh: bool) {
        let lines = partial.chunks_exact(PANEL).zip(sums.chunks_exact_mut(PANEL)).zip(rows);
        if fresh {
            for ((partial, sums), row) in lines {
                for c in 0..PANEL {
                    sums[c] = partial[c].mul_add(row * columns[c], 0.0);
                }
            }
        } else {
            for ((partial, sums), row) in lines {
                for c in 0..PANEL {
                    sums[c] = partial[c].mul_add(row * columns[c], sums[c]);
                }
            }
        }
    }
}

isa_twins! {
    fn promote_wide(partial: &[f32], sums: &mut [f32], rows: &[f32], columns: &[f32], fresh: bool) {
        let width = columns.len();
        let lines = partial.chunks_exact(width).zip(sums.chunks_exact_mut(width)).zip(rows);
        for ((partial, sums), row) in lines {
            for c in 0..width {
                let before = if fresh { 0.0 } else { sums[c] };
                sums[c] = partial[c].mul_add(row * columns[c], before);
            }
        }
    }
}
