//! One part in AMX registers: blocks of products as they come out of the registers, scaled one block late, so that
//! the vector unit promotes one while the tile unit multiplies the next.

use std::arch::x86_64::*;
use std::ops::Range;

use super::scaling::wide::Promotion;
use super::scaling::{Factors, promote};
use super::{TILE, overlap};
use crate::gemm::micro::{PANEL, RUN, amx};
use crate::gemm::tiles::{Finished, PackedRows, ROWS, SUMS};
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
/// behind its last up to a multiple of 16; `before` is told of every tile's next pairs, counted from the block's first; `write`
/// has the sums of finished tiles. There are `sums.len() / SUMS` sums that wait, taken in turn.
///
/// # Safety
/// The lines are there, A is packed up to a multiple of 16 pairs, and the processor has AMX.
#[allow(clippy::too_many_arguments)]
pub unsafe fn multiply(
    isa: Isa,
    a: PackedRows,
    block: &Block,
    b: impl Fn(usize) -> *const u32,
    mut before: impl FnMut(Finished, Range<usize>),
    factors: &impl Factors,
    (turns, sums): (&mut [f32], &mut [f32]),
    mut write: impl FnMut(Finished, &[f32]),
) {
    let (step, slots) = (block.promotion / 2, sums.len() / SUMS);
    let mut waiting: Option<Waiting> = None;
    let (mut slot, mut turn) = (0, 0);
    for panel in block.panels.clone() {
        for (row, rows) in a.tiles() {
            let tile = Finished { row, rows, panel };
            for pair in (0..block.pairs).step_by(step) {
                before(tile, pair..block.pairs.min(pair + step));
                let steps = (block.pairs - pair).min(step).next_multiple_of(step.min(RUN));
                // Blocks of 16 products begin in the middle of a line of A.
                let line = (block.pair + pair) / RUN * RUN;
                let words = a.tile(row, rows, line).wrapping_add(block.pair + pair - line);
                let next = Waiting {
                    tile,
                    scales: block.tile + 2 * pair / TILE,
                    turn,
                    slot,
                    fresh: block.fresh && pair == 0,
                    finished: block.last && pair + step >= block.pairs,
                };
                let done = waiting.replace(next);
                let is_tall = |tile: Finished| tile.rows == ROWS;
                // SAFETY: by the contract; there are two turns.
                unsafe {
                    let to = turns.as_mut_ptr().add(turn * SUMS);
                    let from = b(panel).add(pair * PANEL);
                    let promotes = done.is_some_and(|done| {
                        let both = is_tall(tile) && is_tall(done.tile) && steps.is_multiple_of(RUN);
                        both && {
                            let promotion = done.promotion(factors, turns, sums);
                            overlap::multiply(steps / RUN, words, from, to, &promotion)
                        }
                    });
                    if !promotes {
                        amx::accumulate(rows, steps, words, from, to, true);
                    }
                    if let Some(done) = done {
                        done.finish(isa, factors, turns, sums, !promotes, &mut write);
                    }
                }
                turn ^= 1;
            }
            slot = if slot + 1 == slots { 0 } else { slot + 1 };
        }
    }
    if let Some(done) = waiting {
        done.finish(isa, factors, turns, sums, true, &mut write);
    }
}

impl Waiting {
    /// All of it, to be done beside other work. A tile of 32 rows.
    ///
    /// # Safety
    /// The processor has AVX-512.
    #[target_feature(enable = "avx512f")]
    unsafe fn promotion(&self, factors: &impl Factors, turns: &[f32], sums: &mut [f32]) -> Promotion {
        let columns = factors.columns(self.scales, self.tile.panel);
        // SAFETY: sixteen floats each.
        let columns = unsafe {
            [
                _mm512_loadu_ps(columns.as_ptr()),
                _mm512_loadu_ps(columns[16..].as_ptr()),
            ]
        };
        Promotion {
            partial: turns[self.turn * SUMS..(self.turn + 1) * SUMS].as_ptr(),
            sums: sums[self.slot * SUMS..(self.slot + 1) * SUMS].as_mut_ptr(),
            rows: factors.rows(self.scales, self.tile.row, ROWS)[..ROWS].as_ptr(),
            columns,
            before: if self.fresh { 0 } else { u16::MAX },
        }
    }

    /// Promotes it, if that is not done yet, and hands out finished sums.
    fn finish(
        &self,
        isa: Isa,
        factors: &impl Factors,
        turns: &[f32],
        sums: &mut [f32],
        promotes: bool,
        write: &mut impl FnMut(Finished, &[f32]),
    ) {
        let sums = &mut sums[self.slot * SUMS..(self.slot + 1) * SUMS];
        if promotes {
            let partial = &turns[self.turn * SUMS..(self.turn + 1) * SUMS];
            let columns = factors.columns(self.scales, self.tile.panel);
            let rows = factors.rows(self.scales, self.tile.row, self.tile.rows);
            promote(isa, partial, sums, rows, &columns, self.fresh);
        }
        if self.finished {
            write(self.tile, sums);
        }
    }
}
