//! One part in AMX registers: blocks of products as they come out of the registers, scaled one block late, so that
//! the vector unit promotes one while the tile unit multiplies the next.

use std::ops::Range;

use super::TILE;
use super::scaling::{Factors, promote};
use crate::gemm::micro::{PANEL, RUN, amx};
use crate::gemm::tiles::{Finished, PackedRows, SUMS};
use crate::isa::Isa;

/// Floats beside the waiting sums: two tiles that take turns.
pub const TURNS: usize = 2 * SUMS;

/// What is multiplied at once: some pairs of k of some panels.
pub struct Block {
    /// Of the part's.
    pub panels: Range<usize>,
    /// First pair of A.
    pub pair: usize,
    pub pairs: usize,
    /// Tile of scales in which that pair lies, as its first.
    pub tile: usize,
    /// Products that are promoted at once.
    pub promotion: usize,
    /// Begins sums; else adds to them.
    pub fresh: bool,
    /// Ends them: `write` has them.
    pub last: bool,
}

/// A block of products that has left the registers.
#[derive(Clone, Copy)]
struct Waiting {
    tile: Finished,
    /// Of the scales.
    scales: usize,
    turn: usize,
    slot: usize,
    fresh: bool,
    finished: bool,
}

/// Multiplies all rows by the block's panels, `[panel][tile]`. `b` gives a panel's lines from the block's first pair on, zeros
/// behind its last up to a multiple of 16; `before` is told of every tile; `write` has the sums of finished ones. There are
/// `sums.len() / SUMS` sums that wait, taken in turn.
///
/// # Safety
/// The lines are there, A is packed up to a multiple of 16 pairs, and the processor has AMX.
#[allow(clippy::too_many_arguments)]
pub unsafe fn multiply(
    isa: Isa,
    a: PackedRows,
    block: &Block,
    b: impl Fn(usize) -> *const u32,
    mut before: impl FnMut(Finished),
    factors: &impl Factors,
    (turns, sums): (&mut [f32], &mut [f32]),
    mut write: impl FnMut(Finished, &[f32]),
) {
    let (step, slots) = (block.promotion / 2, sums.len() / SUMS);
    let mut waiting: Option<Waiting> = None;
    let (mut slot, mut turn) = (0, 0);
    let mut finish = |waiting: Waiting, turns: &[f32], sums: &mut [f32]| {
        let Waiting { tile, scales, .. } = waiting;
        let partial = &turns[waiting.turn * SUMS..(waiting.turn + 1) * SUMS];
        let sums = &mut sums[waiting.slot * SUMS..(waiting.slot + 1) * SUMS];
        let columns = factors.columns(scales, tile.panel);
        promote(
            isa,
            partial,
            sums,
            factors.rows(scales, tile.row, tile.rows),
            &columns,
            waiting.fresh,
        );
        if waiting.finished {
            write(tile, sums);
        }
    };
    for panel in block.panels.clone() {
        for (row, rows) in a.tiles() {
            let tile = Finished { row, rows, panel };
            before(tile);
            for pair in (0..block.pairs).step_by(step) {
                let steps = (block.pairs - pair).min(step).next_multiple_of(step.min(RUN));
                // SAFETY: by the contract; there are two turns.
                unsafe {
                    let to = turns.as_mut_ptr().add(turn * SUMS);
                    let from = b(panel).add(pair * PANEL);
                    // Blocks of 16 products begin in the middle of a line of A.
                    let line = (block.pair + pair) / RUN * RUN;
                    let words = a.tile(row, rows, line).add(block.pair + pair - line);
                    amx::accumulate(rows, steps, words, from, to, true);
                }
                let next = Waiting {
                    tile,
                    scales: block.tile + 2 * pair / TILE,
                    turn,
                    slot,
                    fresh: block.fresh && pair == 0,
                    finished: block.last && pair + step >= block.pairs,
                };
                if let Some(done) = waiting.replace(next) {
                    finish(done, turns, sums);
                }
                turn ^= 1;
            }
            slot = if slot + 1 == slots { 0 } else { slot + 1 };
        }
    }
    if let Some(done) = waiting {
        finish(done, turns, sums);
    }
}
