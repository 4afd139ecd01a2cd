//! Codes of a 128x128 block from rows to panel lines, in both orders.
//!
//! ```text
//! of rows      32 rows n, all columns k        line k / 2:  [32 n][2 k]
//! of columns   32 columns k, all rows n        line n / 2:  [32 k][2 n]
//! ```

use super::codec::TILE;
use crate::gemm::micro::PANEL;

/// Codes of one block, row by row, 0 beyond the matrix.
#[repr(align(64))]
pub struct Block(pub [[u8; TILE]; TILE]);

/// Rows `first..first + 32`, as many lines as `lines` holds: a transposition of pairs.
#[inline(always)]
pub fn of_rows(block: &Block, first: usize, lines: &mut [u8]) {
    let (lines, _) = lines.as_chunks_mut::<{ 2 * PANEL }>();
    // Four rows at a time are interleaved as vectors, then stored as quads of pairs.
    for r in (0..PANEL).step_by(4) {
        let rows: &[[u8; TILE]; 4] = block.0[first + r..].first_chunk().expect("a block has 128 rows");
        let mut quads = [[0u16; 4]; TILE / 2];
        for k in 0..TILE / 2 {
            quads[k] = [
                pair(&rows[0], k),
                pair(&rows[1], k),
                pair(&rows[2], k),
                pair(&rows[3], k),
            ];
        }
        for (line, quad) in lines.iter_mut().zip(&quads) {
            let bits =
                quad[0] as u64 | (quad[1] as u64) << 16 | (quad[2] as u64) << 32 | (quad[3] as u64) << 48;
            line[2 * r..2 * r + 8].copy_from_slice(&bits.to_le_bytes());
        }
    }
}

#[inline(always)]
fn pair(row: &[u8; TILE], k: usize) -> u16 {
    u16::from_le_bytes([row[2 * k], row[2 * k + 1]])
}

/// Columns `first..first + 32`, as many lines as `lines` holds: rows are interleaved by twos.
#[inline(always)]
pub fn of_columns(block: &Block, first: usize, lines: &mut [u8]) {
    let (lines, _) = lines.as_chunks_mut::<{ 2 * PANEL }>();
    for i in 0..lines.len() {
        let (line, even, odd) = (&mut lines[i], &block.0[2 * i], &block.0[2 * i + 1]);
        let (even, odd) = (&even[first..first + PANEL], &odd[first..first + PANEL]);
        for j in 0..PANEL {
            line[2 * j] = even[j];
            line[2 * j + 1] = odd[j];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_lands_where_the_panel_layout_says() {
        let code = |n: usize, k: usize| (n * 31 + k * 7) as u8;
        let block = Block(std::array::from_fn(|n| std::array::from_fn(|k| code(n, k))));
        let (mut rows, mut columns) = (vec![0; 50 * 64], vec![0; 60 * 64]);
        of_rows(&block, 32, &mut rows);
        of_columns(&block, 96, &mut columns);
        for i in 0..32 {
            for k in 0..100 {
                assert_eq!(rows[k / 2 * 64 + 2 * i + k % 2], code(32 + i, k));
            }
            for n in 0..120 {
                assert_eq!(columns[n / 2 * 64 + 2 * i + n % 2], code(n, 96 + i));
            }
        }
    }
}
