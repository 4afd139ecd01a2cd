//! One thread's products in AMX registers: packed rows by panels, in an order that keeps a panel in the first
//! cache while rows stream by from the second.
//!
//! The sums of a tile leave the registers for memory, and are rounded from there while the next tile is
//! multiplied: the tile unit and the vector unit then work side by side.

use std::arch::x86_64::*;
use std::ops::Range;

use super::micro::{AMX_PAIRS, PANEL, RUN, amx};
use super::output::Place;
use super::product::Part;

pub use super::micro::AMX_ROWS as ROWS;
pub use super::micro::amx::SUMS;

/// Packed rows of A: tiles of `[pairs / 16][16 or 32 rows][16]` words.
#[derive(Clone, Copy)]
pub struct PackedRows<'a> {
    pub words: &'a [u32],
    pub rows: usize,
    pub pairs: usize,
}

/// Words that `rows` rows take when packed.
pub fn packed_words(rows: usize, pairs: usize) -> usize {
    amx::packed_rows(rows) * pairs.next_multiple_of(RUN)
}

/// Panels whose sums wait in memory for their next block of k: 512 KiB of a full part.
const WAITING_PANELS: usize = 16;

/// Floats that `multiply` needs for sums: two tiles that take turns, or all tiles that wait for their next block.
pub fn sums_floats(rows: usize, pairs: usize, panels: usize) -> usize {
    if pairs <= AMX_PAIRS {
        return 2 * SUMS;
    }
    rows.div_ceil(ROWS) * panels.min(WAITING_PANELS) * SUMS
}

/// A finished tile: `rows` rows from `row` on, by the columns of `panel`, both counted from the part's first.
#[derive(Clone, Copy)]
pub struct Finished {
    pub row: usize,
    pub rows: usize,
    pub panel: usize,
}

impl Finished {
    /// Where it goes in an output of `width` columns.
    pub fn place(&self, part: &Part, width: usize) -> Place {
        let column = (part.panel + self.panel) * PANEL;
        Place {
            row: part.row + self.row,
            rows: self.rows,
            column,
            columns: (width - column).min(PANEL),
            width: PANEL,
        }
    }
}

impl PackedRows<'_> {
    /// Tiles, first row and rows of each.
    pub fn tiles(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let rows = self.rows;
        (0..rows)
            .step_by(ROWS)
            .map(move |row| (row, (rows - row).min(ROWS)))
    }

    /// The words of the tile at `row` of `rows` rows, from pair `pair` on.
    pub fn tile(&self, row: usize, rows: usize, pair: usize) -> *const u32 {
        let height = amx::packed_rows(rows);
        let from = row * self.pairs.next_multiple_of(RUN);
        let words = &self.words[from..from + height * self.pairs.next_multiple_of(RUN)];
        words[pair * height..].as_ptr()
    }
}

/// The tile that was finished last, whose sums are handed out after the next one is under way.
struct Late<W: FnMut(Finished, &[f32])> {
    waiting: Option<(Finished, usize)>,
    write: W,
}

impl<W: FnMut(Finished, &[f32])> Late<W> {
    fn finish(&mut self, sums: &[f32], next: Option<(Finished, usize)>) {
        if let Some((tile, slot)) = std::mem::replace(&mut self.waiting, next) {
            (self.write)(tile, &sums[slot * SUMS..(slot + 1) * SUMS]);
        }
    }
}

/// What `block` goes through: one block of pairs of some panels.
struct Block {
    /// Of the part's.
    panels: Range<usize>,
    /// Words from one panel to the next.
    panel_words: usize,
    /// First pair of k.
    pair: usize,
    pairs: usize,
    /// Begins sums; else adds to them.
    fresh: bool,
    /// Tiles that the sums have room for, taken in turn.
    slots: usize,
}

/// Multiplies all rows by one block of pairs of each panel, `[panel][tile]`; `before` is told of every tile, `late`, if
/// the block is the last of k, has its sums.
///
/// # Safety
/// `b` begins the part's panels, which are there; the sums have room for `slots` tiles; the processor has AMX.
#[inline(always)]
unsafe fn block<W: FnMut(Finished, &[f32])>(
    a: PackedRows,
    b: *const u32,
    block: Block,
    sums: &mut [f32],
    before: impl Fn(Finished),
    mut late: Option<&mut Late<W>>,
) {
    let mut slot = 0;
    for panel in block.panels {
        for (row, rows) in a.tiles() {
            let tile = Finished { row, rows, panel };
            before(tile);
            // SAFETY: by the contract.
            unsafe {
                let b = b.add(panel * block.panel_words + block.pair * PANEL);
                let to = sums.as_mut_ptr().add(slot * SUMS);
                let a = a.tile(row, rows, block.pair);
                amx::accumulate(rows, block.pairs, a, b, to, block.fresh);
            }
            if let Some(late) = &mut late {
                late.finish(sums, Some((tile, slot)));
            }
            slot = if slot + 1 == block.slots { 0 } else { slot + 1 };
        }
    }
}

/// Multiplies all rows by `panels` panels that begin at `b`, `panel_words` apart; `ask` is told of every tile before it
/// is finished, and `write` is handed its sums (32 floats a row) after.
///
/// # Safety
/// The panels are there, and the processor has AMX.
pub unsafe fn multiply(
    a: PackedRows,
    b: *const u32,
    (panels, panel_words): (usize, usize),
    sums: &mut [f32],
    ask: impl Fn(Finished),
    write: impl FnMut(Finished, &[f32]),
) {
    assert!(
        sums.len() >= sums_floats(a.rows, a.pairs, panels),
        "room for sums"
    );
    let in_blocks = a.pairs > AMX_PAIRS;
    let group = if in_blocks { WAITING_PANELS } else { panels.max(1) };
    let mut late = Late { waiting: None, write };
    for first in (0..panels).step_by(group) {
        for pair in (0..a.pairs.max(1)).step_by(AMX_PAIRS) {
            let pairs = (a.pairs - pair).min(AMX_PAIRS);
            let is_last = pair + pairs == a.pairs;
            let before = |tile: Finished| {
                let ahead = b.wrapping_add((tile.panel + 1) * panel_words + pair * PANEL);
                prefetch_share(ahead, pairs * PANEL, tile.row, a.rows);
                if is_last {
                    ask(tile);
                }
            };
            let share = Block {
                panels: first..(first + group).min(panels),
                panel_words,
                pair,
                pairs,
                fresh: pair == 0,
                slots: if in_blocks { sums.len() / SUMS } else { 2 },
            };
            // SAFETY: the sums have that room (asserted); the rest by this function's contract.
            unsafe { block(a, b, share, sums, before, is_last.then_some(&mut late)) };
        }
        late.finish(sums, None);
    }
}

/// Asks the second cache for this tile's share of the next panel.
#[inline]
fn prefetch_share(panel: *const u32, words: usize, row: usize, rows: usize) {
    let lines = words / RUN;
    let share = |row: usize| row.min(rows) * lines / rows;
    for line in share(row)..share(row + ROWS) {
        // SAFETY: a hint, of no effect where nothing lies.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(panel.wrapping_add(line * RUN).cast()) };
    }
}

/// Adds the products of one block of pairs to the sums of all tiles, `[panel][tile]`, or begins them; `panels` panels
/// lie one after another. Every tile is handed to `write`.
///
/// # Safety
/// As `multiply`.
pub unsafe fn accumulate(
    a: PackedRows,
    b: *const u32,
    panels: usize,
    sums: &mut [f32],
    fresh: bool,
    write: impl FnMut(Finished, &[f32]),
) {
    let slots = panels * a.rows.div_ceil(ROWS);
    assert!(sums.len() >= slots * SUMS, "room for sums");
    let mut late = Late { waiting: None, write };
    let whole = Block {
        panels: 0..panels,
        panel_words: a.pairs * PANEL,
        pair: 0,
        pairs: a.pairs,
        fresh,
        slots,
    };
    // SAFETY: the sums have that room (asserted); the rest by this function's contract.
    unsafe { block(a, b, whole, sums, |_| (), Some(&mut late)) };
    late.finish(sums, None);
}
