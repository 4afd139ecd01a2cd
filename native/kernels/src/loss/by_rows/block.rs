//! One block: 128 tokens, from x to dx.

use super::{Block, Call, MOST_ROWS};
use crate::gemm::micro::{AMX_PAIRS, AMX_ROWS as ROWS, PANEL, RUN, amx};
use crate::gemm::output::{Addend, Place, Target, store};
use crate::gemm::pack::Rows;
use crate::gemm::{Panels, pack_tiles};
use crate::loss::linear_cross_entropy::Shape;
use crate::loss::softmax::RowLoss;
use crate::loss::tile_softmax::{Greatest, Logits, TILE, Turned};
use crate::pool::Scratch;
use crate::with_floats;

/// Up to 32 rows of a block.
#[derive(Clone, Copy)]
struct Tile {
    /// The first, counted from the block's first.
    row: usize,
    rows: usize,
    /// Rows of the packed form.
    height: usize,
}

/// Tile number `index` of a block of `rows` rows.
fn tile_at(index: usize, rows: usize) -> Tile {
    let row = index * ROWS;
    let rows = (rows - row).min(ROWS);
    Tile {
        row,
        rows,
        height: amx::packed_rows(rows),
    }
}

/// Multiplies one tile by a block of pairs, asking for its share of the next block.
///
/// # Safety
/// As `amx::accumulate`.
unsafe fn multiply(
    tile: Tile,
    pairs: usize,
    a: *const u32,
    b: *const u32,
    sums: *mut f32,
    fresh: bool,
    next: *const u32,
) {
    // SAFETY: by the contract.
    unsafe {
        if tile.rows > ROWS / 2 && tile.row < 4 * ROWS {
            // Each of the first four tiles asks for a quarter.
            let ask = next.wrapping_add(tile.row / ROWS * pairs * PANEL / 4);
            amx::accumulate_asking(pairs, a, b, sums, fresh, ask);
        } else {
            amx::accumulate(tile.rows, pairs, a, b, sums, fresh);
        }
    }
}

impl Call<'_> {
    /// # Safety
    /// No other task has these tokens.
    pub unsafe fn block(&self, block: &Block, scratch: &mut Scratch) {
        let Shape { d, .. } = self.shape;
        let rows = block.rows.len();
        let tiles = rows.div_ceil(ROWS);
        let logits_floats = tiles * ROWS * self.shape.padded_v();
        let packed_words = tiles * ROWS * d.div_ceil(2).next_multiple_of(RUN);
        let sums_floats = tiles * ROWS * self.shape.padded_d();
        let buffer = scratch.f32(logits_floats + packed_words + sums_floats);
        let (logits, rest) = buffer.split_at_mut(logits_floats);
        let (packed, sums) = rest.split_at_mut(packed_words);
        // SAFETY: the buffers have the sizes the parts ask for; the rest by this function's contract.
        unsafe {
            let packed = std::slice::from_raw_parts_mut(packed.as_mut_ptr().cast::<u32>(), packed.len());
            self.pack(block, packed);
            let logits = logits.as_mut_ptr();
            let mut greatest = [Greatest::none(); MOST_ROWS / ROWS];
            self.logits(rows, packed, logits, &mut greatest);
            for (index, greatest) in greatest[..tiles].iter().enumerate() {
                self.softmax(block, tile_at(index, rows), logits, greatest);
            }
            if let (Some(dx), Some(transposed)) = (&self.dx, self.transposed) {
                self.input_gradient(block, logits, transposed, dx, sums);
            }
        }
        amx::release();
    }

    /// x's rows as a left operand and, where dw is wanted, as panels.
    unsafe fn pack(&self, block: &Block, packed: &mut [u32]) {
        let Shape { d, .. } = self.shape;
        let chunk = block.chunk;
        let at = Rows::Gathered {
            index: &chunk.tokens[block.rows.clone()],
            start: 0,
            stride: d,
        };
        // SAFETY: AMX comes with AVX-512 and BF16; each block has its own pairs of each panel.
        unsafe {
            with_floats!(self.x, |x| pack_tiles::pack_rows(
                x,
                at,
                block.rows.len(),
                d,
                packed
            ));
            if self.dw.is_none() {
                return;
            }
            let words = block.rows.len().div_ceil(ROWS) * RUN * PANEL;
            for column in (0..d).step_by(PANEL) {
                let first = chunk.x + column * chunk.pairs + block.rows.start / 2 * PANEL;
                let out = std::slice::from_raw_parts_mut(self.workspace.words(first, words), words);
                let (at, columns) = (at.shift(column), (d - column).min(PANEL));
                with_floats!(self.x, |x| pack_tiles::pack_panels(
                    x,
                    at,
                    block.rows.len(),
                    columns,
                    out
                ));
            }
        }
    }

    /// Writes the logits, `[row tile][panel]` tiles, and looks for the greatest of each row, a tile late.
    unsafe fn logits(&self, rows: usize, packed: &[u32], logits: *mut f32, greatest: &mut [Greatest]) {
        let Shape { d, v, .. } = self.shape;
        let (pairs, panels) = (d.div_ceil(2), v.div_ceil(PANEL));
        let row_words = pairs.next_multiple_of(RUN);
        let weight = self.panels.words(0);
        let mut see = |index: usize, panel: usize| {
            let tile = tile_at(index, rows);
            let start = logits.wrapping_add(index * panels * TILE);
            let whole = Logits {
                start,
                rows: tile.rows,
                height: tile.height,
                columns: v,
            };
            // SAFETY: this tile has been written.
            unsafe {
                if panel + 1 == panels {
                    whole.mask_rest();
                }
                greatest[index].see(start.add(panel * TILE), tile.rows);
            }
        };
        let mut late: Option<(usize, usize)> = None;
        for panel in 0..panels {
            for pair in (0..pairs).step_by(AMX_PAIRS) {
                let steps = (pairs - pair).min(AMX_PAIRS);
                // Panels lie one behind the other, so that the next block is what comes next.
                let b = weight.wrapping_add((panel * pairs + pair) * PANEL);
                for index in 0..rows.div_ceil(ROWS) {
                    let tile = tile_at(index, rows);
                    // SAFETY: packed and logits have room for all tiles, the weight has all panels.
                    unsafe {
                        let a = packed.as_ptr().add(tile.row * row_words + pair * tile.height);
                        let sums = logits.add((index * panels + panel) * TILE);
                        multiply(tile, steps, a, b, sums, pair == 0, b.wrapping_add(steps * PANEL));
                    }
                    if pair + steps == pairs
                        && let Some((index, panel)) = late.replace((index, panel))
                    {
                        see(index, panel);
                    }
                }
            }
        }
        if let Some((index, panel)) = late {
            see(index, panel);
        }
    }

    /// Losses of one tile of rows; where gradients are wanted, its logits become these, packed.
    unsafe fn softmax(&self, block: &Block, tile: Tile, logits: *mut f32, greatest: &Greatest) {
        let first = block.rows.start + tile.row;
        let tokens = &block.chunk.tokens[first..first + tile.rows];
        let mut targets = [0; ROWS];
        for (target, token) in targets.iter_mut().zip(tokens) {
            *target = self.targets[*token as usize] as usize;
        }
        let found = |row: usize, found: RowLoss| {
            let token = tokens[row] as usize;
            // SAFETY: the token is this task's.
            unsafe {
                self.loss.part(token, 1)[0] = found.loss;
                self.hits.part(token, 1)[0] = i32::from(found.hit);
            }
        };
        // SAFETY: all tiles of these rows have been written and seen; the workspace has room for the columns.
        unsafe {
            let own = Logits {
                start: logits.add(tile.row * self.shape.padded_v()),
                rows: tile.rows,
                height: tile.height,
                columns: self.shape.v,
            };
            if self.dx.is_none() && self.dw.is_none() {
                return own.losses(greatest, &targets, found);
            }
            let turned = self.dw.map(|_| Turned {
                start: self.columns(block.chunk).add(first / ROWS * RUN * ROWS),
                stride: block.chunk.pairs * ROWS,
            });
            own.gradients(greatest, &targets, self.shape.grad_scale, turned, found);
        }
    }

    /// dx of the block's tokens from the packed gradient that lies in the logits' place.
    unsafe fn input_gradient(
        &self,
        block: &Block,
        logits: *const f32,
        transposed: Panels,
        dx: &Target,
        sums: &mut [f32],
    ) {
        let Shape { d, v, .. } = self.shape;
        let rows = block.rows.len();
        let tokens = &block.chunk.tokens[block.rows.clone()];
        let (pairs, panels, tiles) = (v.div_ceil(2), d.div_ceil(PANEL), rows.div_ceil(ROWS));
        let weight = transposed.words(0);
        let mut late: Option<(usize, usize)> = None;
        for pair in (0..pairs).step_by(AMX_PAIRS) {
            let steps = (pairs - pair).min(AMX_PAIRS);
            for panel in 0..panels {
                let b = weight.wrapping_add((panel * pairs + pair) * PANEL);
                let next = match panel + 1 < panels {
                    true => b.wrapping_add(pairs * PANEL),
                    false => weight.wrapping_add((pair + steps) * PANEL),
                };
                for index in 0..tiles {
                    let tile = tile_at(index, rows);
                    // SAFETY: the packed gradient of each tile lies where its logits began; sums have room.
                    unsafe {
                        let a = logits.add(tile.row * self.shape.padded_v()).cast::<u32>();
                        let a = a.add(pair * tile.height);
                        let sums = sums.as_mut_ptr().add((panel * tiles + index) * TILE);
                        multiply(tile, steps, a, b, sums, pair == 0, next);
                    }
                    if pair + steps == pairs
                        && let Some((panel, index)) = late.replace((panel, index))
                    {
                        let sums = &sums[(panel * tiles + index) * TILE..][..TILE];
                        // SAFETY: these tokens are this task's.
                        unsafe { self.store_rows(dx, tokens, tile_at(index, rows), panel, sums) };
                    }
                }
            }
        }
        if let Some((panel, index)) = late {
            let sums = &sums[(panel * tiles + index) * TILE..][..TILE];
            // SAFETY: as above.
            unsafe { self.store_rows(dx, tokens, tile_at(index, rows), panel, sums) };
        }
    }

    /// Rounds and writes one tile of dx, at once where its tokens follow one another.
    unsafe fn store_rows(&self, dx: &Target, tokens: &[i32], tile: Tile, panel: usize, sums: &[f32]) {
        let tokens = &tokens[tile.row..tile.row + tile.rows];
        let follows = tokens[tile.rows - 1] as usize == tokens[0] as usize + tile.rows - 1;
        let together = if follows { tile.rows } else { 1 };
        for row in (0..tile.rows).step_by(together) {
            let place = Place {
                row: tokens[row] as usize,
                rows: together,
                column: panel * PANEL,
                columns: (self.shape.d - panel * PANEL).min(PANEL),
                width: PANEL,
            };
            // SAFETY: by the callers' contracts.
            unsafe { store(self.isa, dx, Addend::None, &place, &sums[row * PANEL..]) };
        }
    }
}
