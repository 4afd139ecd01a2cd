//! How a product is cut into tasks. Pure; the cut never changes a bit of the result.

use super::micro::{PANEL, TILE_ROWS};
use super::product::Part;

/// Rows of A that a task packs at once: eight tiles; with K of a few thousand they fill half a second cache.
const BLOCK_ROWS: usize = 8 * TILE_ROWS;
/// Words of packed columns that a task of a weight gradient keeps: 768 KiB.
const GRAD_BLOCK_WORDS: usize = 192 * 1024;
/// Work below this many nanoseconds (estimated) stays in one task.
const SMALL_NS: f64 = 20_000.0;
/// Rough speed of one thread: multiplications and additions a nanosecond, and bytes of panels a nanosecond.
const FLOPS_PER_NS: f64 = 150.0;
const BYTES_PER_NS: f64 = 30.0;

/// Estimated nanoseconds of `rows` x `panels` x `k`.
pub fn estimate_ns(rows: usize, panels: usize, k: usize) -> f64 {
    let words = (panels * PANEL * k) as f64;
    (2.0 * rows as f64 * words / FLOPS_PER_NS).max(2.0 * words / BYTES_PER_NS)
}

/// Into how many groups the panels of one block of rows are cut when there are `blocks` such blocks.
pub fn panel_groups(blocks: usize, panels: usize, threads: usize) -> usize {
    let mut groups = 1;
    // Two panels a group at least: packing A again for every group costs about 1 % at 8 panels, 4 % at 2.
    while blocks * groups < 4 * threads && panels / (groups * 2) >= 4 {
        groups *= 2;
    }
    while blocks * groups < 2 * threads && panels / (groups * 2) >= 2 {
        groups *= 2;
    }
    groups
}

/// Blocks of rows, as even as they can be: (first row, rows).
pub fn row_blocks(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let blocks = rows.div_ceil(BLOCK_ROWS);
    (0..blocks).map(move |b| {
        let (from, to) = (b * rows / blocks, (b + 1) * rows / blocks);
        (from, to - from)
    })
}

/// Number of blocks that `row_blocks` gives.
pub fn num_row_blocks(rows: usize) -> usize {
    rows.div_ceil(BLOCK_ROWS)
}

/// All parts of one product, longest runs of panels first in row order.
pub fn parts(rows: usize, panels: usize, k: usize, threads: usize) -> Vec<Part> {
    let threads = if estimate_ns(rows, panels, k) < SMALL_NS {
        1
    } else {
        threads
    };
    parts_of(
        0,
        rows,
        panels,
        panel_groups_for(num_row_blocks(rows), panels, threads),
    )
}

fn panel_groups_for(blocks: usize, panels: usize, threads: usize) -> usize {
    if threads == 1 {
        1
    } else {
        panel_groups(blocks, panels, threads)
    }
}

/// Parts of the rows `first..first + rows` with the panels cut into `groups`.
fn parts_of(first: usize, rows: usize, panels: usize, groups: usize) -> Vec<Part> {
    row_blocks(rows)
        .flat_map(|(row, rows)| {
            (0..groups).map(move |g| {
                let (from, to) = (g * panels / groups, (g + 1) * panels / groups);
                Part {
                    row: first + row,
                    rows,
                    panel: from,
                    panels: to - from,
                }
            })
        })
        .collect()
}

/// Parts of a grouped product: rows `offsets[e]..offsets[e + 1]` belong to matrix `e`; (matrix, part).
pub fn grouped_parts(offsets: &[i32], panels: usize, k: usize, threads: usize) -> Vec<(usize, Part)> {
    let rows_of = |pair: &[i32]| (pair[0] as usize, (pair[1] - pair[0]) as usize);
    let blocks: usize = offsets
        .windows(2)
        .map(|pair| num_row_blocks(rows_of(pair).1))
        .sum();
    let total: f64 = offsets
        .windows(2)
        .map(|pair| rows_of(pair).1)
        .filter(|rows| *rows > 0)
        .map(|rows| estimate_ns(rows, panels, k))
        .sum();
    let threads = if total < SMALL_NS { 1 } else { threads };
    let groups = panel_groups_for(blocks, panels, threads);
    offsets
        .windows(2)
        .enumerate()
        .flat_map(|(matrix, pair)| {
            let (first, rows) = rows_of(pair);
            parts_of(first, rows, panels, groups)
                .into_iter()
                .map(move |part| (matrix, part))
        })
        .collect()
}

/// Parts of a weight gradient over `tokens`: rows of dw in blocks of whole tiles whose packed columns fit half a
/// second cache.
pub fn grad_parts(rows: usize, panels: usize, tokens: usize, threads: usize) -> Vec<Part> {
    let threads = if estimate_ns(rows, panels, tokens) < SMALL_NS {
        1
    } else {
        threads
    };
    let fitting = (GRAD_BLOCK_WORDS / tokens.max(1)).clamp(4 * TILE_ROWS, BLOCK_ROWS) / TILE_ROWS;
    let tiles = rows.div_ceil(TILE_ROWS);
    let blocks = tiles.div_ceil(fitting);
    let groups = panel_groups_for(blocks, panels, threads);
    (0..blocks)
        .flat_map(|b| {
            let row_of = |block: usize| (block * tiles / blocks * TILE_ROWS).min(rows);
            parts_of(row_of(b), row_of(b + 1) - row_of(b), panels, groups)
        })
        .collect()
}

/// True if a region's whole work is not worth a second thread.
pub fn is_small(ns: f64) -> bool {
    ns < SMALL_NS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers_once(parts: &[Part], rows: usize, panels: usize) {
        let mut seen = vec![0u8; rows * panels];
        for part in parts {
            assert!(
                part.rows > 0 && part.panels > 0 && part.rows <= BLOCK_ROWS,
                "{part:?}"
            );
            for row in part.row..part.row + part.rows {
                for panel in part.panel..part.panel + part.panels {
                    seen[row * panels + panel] += 1;
                }
            }
        }
        assert!(seen.iter().all(|count| *count == 1));
    }

    #[test]
    fn parts_cover_every_row_and_panel_once() {
        for rows in [1, 11, 12, 13, 96, 97, 517, 2048] {
            for panels in [1, 2, 3, 16, 61] {
                for threads in [1, 2, 7] {
                    covers_once(&parts(rows, panels, 1024, threads), rows, panels);
                }
            }
        }
        assert!(parts(0, 4, 64, 2).is_empty());
    }

    #[test]
    fn grouped_parts_cover_each_matrix_own_rows_once_and_skip_empty_ones() {
        let offsets = [0, 0, 5, 5, 205, 206];
        let parts = grouped_parts(&offsets, 4, 512, 2);
        let flat: Vec<Part> = parts.iter().map(|(_, part)| *part).collect();
        covers_once(&flat, 206, 4);
        for (matrix, part) in &parts {
            assert!(offsets[*matrix] as usize <= part.row);
            assert!(part.row + part.rows <= offsets[matrix + 1] as usize);
        }
    }

    #[test]
    fn parts_of_a_weight_gradient_cover_it_once_and_begin_at_whole_tiles() {
        for (rows, panels, tokens) in [(1, 1, 1), (97, 8, 2048), (256, 8, 100_000), (704, 9, 300)] {
            let parts = grad_parts(rows, panels, tokens, 2);
            covers_once(&parts, rows, panels);
            assert!(parts.iter().all(|part| part.row % TILE_ROWS == 0));
        }
    }

    #[test]
    fn few_rows_are_split_by_panels_among_threads() {
        assert!(parts(64, 16, 512, 2).len() >= 4);
        assert_eq!(parts(64, 16, 512, 1).len(), 1);
        assert_eq!(parts(1, 2, 64, 8).len(), 1, "too small to share");
    }
}
