//! How a product is cut into tasks. Pure; the cut never changes a bit of the result.

use super::micro::{AMX_PAIRS, AMX_ROWS, Arithmetic, PANEL, TILE_ROWS, by_amx};
use super::product::Part;
use crate::isa::Isa;

/// Tiles of rows that a task packs at once; with K of a few thousand they fill half a second cache.
const BLOCK_TILES: usize = 8;
/// Words of packed columns that a task of a weight gradient keeps: 768 KiB.
const GRAD_BLOCK_WORDS: usize = 192 * 1024;
/// Tokens of a weight gradient that are packed at once where FMAs multiply: 32 KiB of a panel, two thirds of the
/// first cache. Even: pairs of bf16 are not torn apart.
pub const FMA_TOKENS: usize = 256;
/// Work below this many nanoseconds (estimated) stays in one task.
const SMALL_NS: f64 = 20_000.0;
/// Rough speed of one thread: bytes of panels a nanosecond.
const BYTES_PER_NS: f64 = 30.0;

/// What the cut must know of the arithmetic.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Rows of a tile.
    tile: usize,
    /// Elements of a column that one packed word holds.
    per_word: usize,
    /// Tokens of a weight gradient that are packed at once.
    tokens: usize,
    /// Tiles of rows of a weight gradient that a task takes at most, and tasks that a thread should get at least.
    grad_tiles: usize,
    shares: usize,
    /// Rough speed of one thread: multiplications and additions a nanosecond.
    flops_per_ns: f64,
}

impl Cut {
    pub fn of(isa: Isa, arithmetic: Arithmetic) -> Cut {
        match by_amx(isa, arithmetic) {
            true => Cut {
                tile: AMX_ROWS,
                per_word: 2,
                tokens: 2 * AMX_PAIRS,
                grad_tiles: BLOCK_TILES,
                shares: 2,
                flops_per_ns: 800.0,
            },
            false => Cut {
                tile: TILE_ROWS,
                per_word: 1,
                tokens: FMA_TOKENS,
                // Every block of rows packs all of x again: few and large ones.
                grad_tiles: 12,
                shares: 1,
                flops_per_ns: 150.0,
            },
        }
    }

    /// Estimated nanoseconds of `rows` x `panels` x `k`.
    pub fn estimate_ns(&self, rows: usize, panels: usize, k: usize) -> f64 {
        let words = (panels * PANEL * k) as f64;
        (2.0 * rows as f64 * words / self.flops_per_ns).max(2.0 * words / BYTES_PER_NS)
    }

    /// Blocks of at most `most` whole tiles, as even as they can be: (first row, rows).
    fn row_blocks(&self, rows: usize, most: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let tiles = rows.div_ceil(self.tile);
        let (blocks, tile) = (tiles.div_ceil(most), self.tile);
        (0..blocks).map(move |b| {
            let row_of = |block: usize| (block * tiles / blocks * tile).min(rows);
            (row_of(b), row_of(b + 1) - row_of(b))
        })
    }

    fn num_row_blocks(&self, rows: usize) -> usize {
        rows.div_ceil(self.tile).div_ceil(BLOCK_TILES)
    }
}

/// Into how many groups the panels of one block of rows are cut when there are `blocks` such blocks: at the `least`
/// so many panels a group, half of that if threads would stand idle.
fn panel_groups(blocks: usize, panels: usize, threads: usize, least: usize) -> usize {
    if threads == 1 {
        return 1;
    }
    let mut groups = 1;
    // A is packed again for every group.
    while blocks * groups < 4 * threads && panels / (groups * 2) >= least {
        groups *= 2;
    }
    while blocks * groups < 2 * threads && panels / (groups * 2) >= least / 2 {
        groups *= 2;
    }
    groups
}

/// All parts of one product, in row order.
pub fn parts(cut: Cut, rows: usize, panels: usize, k: usize, threads: usize) -> Vec<Part> {
    let threads = if cut.estimate_ns(rows, panels, k) < SMALL_NS {
        1
    } else {
        threads
    };
    let groups = panel_groups(cut.num_row_blocks(rows), panels, threads, 4);
    parts_of(cut, BLOCK_TILES, (0, rows), panels, groups)
}

/// Parts of the rows `first..first + rows` in blocks of at most `most` tiles, the panels cut into `groups`.
fn parts_of(cut: Cut, most: usize, (first, rows): (usize, usize), panels: usize, groups: usize) -> Vec<Part> {
    cut.row_blocks(rows, most)
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
pub fn grouped_parts(
    cut: Cut,
    offsets: &[i32],
    panels: usize,
    k: usize,
    threads: usize,
) -> Vec<(usize, Part)> {
    let rows_of = |pair: &[i32]| (pair[0] as usize, (pair[1] - pair[0]) as usize);
    let (mut blocks, mut work) = (0, 0.0);
    for (_, rows) in offsets.windows(2).map(rows_of).filter(|(_, rows)| *rows > 0) {
        blocks += cut.num_row_blocks(rows);
        work += cut.estimate_ns(rows, panels, k);
    }
    let groups = panel_groups(blocks, panels, if work < SMALL_NS { 1 } else { threads }, 4);
    offsets
        .windows(2)
        .enumerate()
        .flat_map(|(matrix, pair)| {
            parts_of(cut, BLOCK_TILES, rows_of(pair), panels, groups)
                .into_iter()
                .map(move |part| (matrix, part))
        })
        .collect()
}

/// Parts of a weight gradient over `tokens`: rows of dw in blocks whose packed columns fit half a second cache.
pub fn grad_parts(cut: Cut, rows: usize, panels: usize, tokens: usize, threads: usize) -> Vec<Part> {
    let threads = if cut.estimate_ns(rows, panels, tokens) < SMALL_NS {
        1
    } else {
        threads
    };
    // Columns become rows of A, which is the dearer packing: rows of dw are shared out before panels are.
    let fitting = GRAD_BLOCK_WORDS * cut.per_word / tokens.clamp(1, cut.tokens) / cut.tile;
    let fair = rows.div_ceil(cut.tile).div_ceil(cut.shares * threads);
    let most = fitting.min(fair).clamp(2, cut.grad_tiles);
    let blocks = rows.div_ceil(cut.tile).div_ceil(most);
    let groups = panel_groups(blocks, panels, threads, 8);
    parts_of(cut, most, (0, rows), panels, groups)
}

/// True if a region's whole work is not worth a second thread.
pub fn is_small(ns: f64) -> bool {
    ns < SMALL_NS
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMX: (Isa, Arithmetic) = (Isa::Amx, Arithmetic::Bf16);
    const FMA: (Isa, Arithmetic) = (Isa::Portable, Arithmetic::F32);

    fn cuts() -> [Cut; 2] {
        [AMX, FMA].map(|(isa, arithmetic)| Cut::of(isa, arithmetic))
    }

    fn covers_once(cut: Cut, parts: &[Part], rows: usize, panels: usize) {
        let mut seen = vec![0u8; rows * panels];
        for part in parts {
            assert!(
                part.rows > 0 && part.panels > 0 && part.rows <= BLOCK_TILES.max(cut.grad_tiles) * cut.tile,
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
        for cut in cuts() {
            for rows in [1, 11, 12, 13, 96, 97, 257, 517, 2048] {
                for panels in [1, 2, 3, 16, 61] {
                    for threads in [1, 2, 7] {
                        covers_once(cut, &parts(cut, rows, panels, 1024, threads), rows, panels);
                    }
                }
            }
            assert!(parts(cut, 0, 4, 64, 2).is_empty());
        }
    }

    #[test]
    fn grouped_parts_cover_each_matrix_own_rows_once_and_skip_empty_ones() {
        let offsets = [0, 0, 5, 5, 505, 506];
        for cut in cuts() {
            let parts = grouped_parts(cut, &offsets, 4, 512, 2);
            let flat: Vec<Part> = parts.iter().map(|(_, part)| *part).collect();
            covers_once(cut, &flat, 506, 4);
            for (matrix, part) in &parts {
                assert!(offsets[*matrix] as usize <= part.row);
                assert!(part.row + part.rows <= offsets[matrix + 1] as usize);
            }
        }
    }

    #[test]
    fn parts_of_a_weight_gradient_cover_it_once_and_begin_at_whole_tiles() {
        for cut in cuts() {
            for (rows, panels, tokens) in [(1, 1, 1), (97, 8, 2048), (256, 8, 100_000), (704, 9, 300)] {
                let parts = grad_parts(cut, rows, panels, tokens, 2);
                covers_once(cut, &parts, rows, panels);
                assert!(parts.iter().all(|part| part.row % cut.tile == 0));
            }
        }
    }

    #[test]
    fn few_rows_are_split_by_panels_among_threads() {
        let cut = Cut::of(Isa::Portable, Arithmetic::F32);
        assert!(parts(cut, 64, 16, 512, 2).len() >= 4);
        assert_eq!(parts(cut, 64, 16, 512, 1).len(), 1);
        assert_eq!(parts(cut, 1, 2, 64, 8).len(), 1, "too small to share");
    }
}
