//! One thread's part of `y = x @ w^T`: some rows by some panels. Packs A once, then goes panel by panel, so
//! that a panel is read from memory once and A stays in the second cache.

use std::ops::Range;

use super::micro::{self, ALayout, Out, PANEL, RUN, TILE_FLOATS, TILE_ROWS, TileShape};
use super::output::{Addend, Place, Target, store};
use super::pack::{Rows, pack_rows, packed_rows_words};
#[cfg(target_arch = "x86_64")]
use super::pack_tiles;
use super::panels::Panels;
#[cfg(target_arch = "x86_64")]
use super::tiles::{self, Finished, PackedRows};
use crate::args::Floats;
use crate::isa::Isa;
use crate::pool::Scratch;
use crate::with_floats;

/// What all parts of one product share.
pub struct Product<'a> {
    pub isa: Isa,
    pub x: Floats<'a>,
    /// Where x's rows begin, by output row.
    pub rows: Rows<'a>,
    pub panels: Panels<'a>,
    pub y: Target,
    /// Laid out as y.
    pub addend: Addend,
}

/// Some rows by some panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub row: usize,
    pub rows: usize,
    pub panel: usize,
    pub panels: usize,
}

/// Row where tile `tile` of `rows` rows begins, tiles being as even as they can: 13 rows are 7 + 6, not 12 + 1.
pub fn tile_start(rows: usize, tile: usize) -> usize {
    tile * rows / rows.div_ceil(TILE_ROWS)
}

/// Computes one part.
///
/// # Safety
/// No other thread touches the part's elements of y; the addend is as large as y.
pub unsafe fn multiply(product: &Product, part: Part, scratch: &mut Scratch) {
    #[cfg(target_arch = "x86_64")]
    if micro::by_amx(product.isa, product.panels.arithmetic()) {
        // SAFETY: by this function's contract.
        return unsafe { multiply_by_amx(product, part, scratch) };
    }
    let (k, arithmetic) = (product.panels.k, product.panels.arithmetic());
    let form = arithmetic.a_form(product.isa);
    let tiles = part.rows.div_ceil(TILE_ROWS);
    let row_words = packed_rows_words(form, 1, k);
    let scratch = scratch.f32(part.rows * row_words + TILE_FLOATS);
    let (packed, tile) = scratch.split_at_mut(part.rows * row_words);
    let packed = as_words(packed);
    let at_most = (0..tiles)
        .map(|t| tile_start(part.rows, t + 1) - tile_start(part.rows, t))
        .map(micro::panels_at_once)
        .max()
        .unwrap_or(1);
    let mut panel = part.panel;
    let last = part.panel + part.panels;
    while panel < last {
        let group = at_most.min(last - panel);
        for t in 0..tiles {
            let (from, to) = (tile_start(part.rows, t), tile_start(part.rows, t + 1));
            let a = &mut packed[from * row_words..to * row_words];
            let mut asks = None;
            if panel == part.panel {
                let at = product.rows.skip(part.row + from);
                with_floats!(product.x, |x| pack_rows(
                    product.isa,
                    form,
                    x,
                    at,
                    to - from,
                    k,
                    a
                ));
                // While this tile meets its first panel, the next one's rows come from afar.
                if t + 1 < tiles {
                    asks = lines_of(product, part.row + to..part.row + tile_start(part.rows, t + 2));
                }
            }
            let rows = part.row + from..part.row + to;
            // SAFETY: A holds rows * row_words words; the rest by this function's contract.
            unsafe { tile_by_panels(product, a.as_ptr(), rows, (panel, group), asks, tile) };
        }
        panel += group;
    }
}

/// The same in AMX registers.
///
/// # Safety
/// As `multiply`; the processor has AMX.
#[cfg(target_arch = "x86_64")]
unsafe fn multiply_by_amx(product: &Product, part: Part, scratch: &mut Scratch) {
    let Panels { n, k, .. } = product.panels;
    let arithmetic = product.panels.arithmetic();
    let pairs = arithmetic.steps(k);
    let words = tiles::packed_words(part.rows, pairs);
    let scratch = scratch.f32(words + tiles::sums_floats(part.rows, pairs, part.panels));
    let (packed, sums) = scratch.split_at_mut(words);
    let packed = as_words(packed);
    let at = product.rows.skip(part.row);
    // SAFETY: AMX comes with AVX-512 and BF16; the rest by this function's contract.
    unsafe {
        with_floats!(product.x, |x| pack_tiles::pack_rows(x, at, part.rows, k, packed));
        let a = PackedRows {
            words: packed,
            rows: part.rows,
            pairs,
        };
        let panels = (part.panels, arithmetic.panel_words(k));
        let ask = |tile: Finished| product.y.prefetch(&tile.place(&part, n));
        tiles::multiply(
            a,
            product.panels.words(part.panel),
            panels,
            sums,
            ask,
            |done, sums| {
                let place = done.place(&part, n);
                store(product.isa, &product.y, product.addend, &place, sums);
            },
        );
    }
    micro::amx::release();
}

/// Where rows begin that will be packed, if they are f32; what stands for a row too few is the first one.
fn lines_of(product: &Product, rows: Range<usize>) -> Option<[*const u32; RUN]> {
    let Floats::F32(x) = product.x else { return None };
    let start = |row: usize| x.as_ptr().wrapping_add(product.rows.start(row)).cast();
    let mut lines = [start(rows.start); RUN];
    for (line, row) in lines.iter_mut().zip(rows) {
        *line = start(row);
    }
    Some(lines)
}

/// The same memory as words.
pub fn as_words(floats: &mut [f32]) -> &mut [u32] {
    // SAFETY: equal size and alignment, and any bits are valid for both.
    unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), floats.len()) }
}

/// One tile of rows by `group` panels, as many at once as the tile's height asks for.
///
/// # Safety
/// As `multiply`; `a` is the tile packed by rows.
unsafe fn tile_by_panels(
    product: &Product,
    a: *const u32,
    rows: Range<usize>,
    (panel, group): (usize, usize),
    asks: Option<[*const u32; RUN]>,
    tile: &mut [f32],
) {
    let (row, rows) = (rows.start, rows.len());
    let mut asks = asks.as_ref().map_or(std::ptr::null(), |asks| asks);
    let Panels { n, k, .. } = product.panels;
    let arithmetic = product.panels.arithmetic();
    let panel_words = arithmetic.panel_words(k);
    let steps = arithmetic.steps(k);
    let wide = micro::panels_at_once(rows);
    let mut done = 0;
    while done < group {
        let panels = if group - done >= wide { wide } else { 1 };
        let run = micro::kernel(product.isa, arithmetic, ALayout::ByRows, rows, panels);
        let shape = TileShape {
            rows,
            panels,
            steps,
            panel_words,
            a_stride: RUN,
            b_stride: PANEL,
            begun: std::ptr::null(),
            asks,
        };
        asks = std::ptr::null();
        let column = (panel + done) * PANEL;
        // SAFETY: the panels exist, the tile holds rows * panels * 32 <= TILE_FLOATS floats.
        unsafe {
            let width = panels * PANEL;
            let columns = (n - column).min(width);
            let place = Place {
                row,
                rows,
                column,
                columns,
                width,
            };
            let b = product.panels.words(panel + done);
            if let Some(out) = product.y.direct(product.addend, &place) {
                run(shape, a, b, out);
            } else {
                // Rows of a large output come from far: they come while the tile is multiplied.
                #[cfg(target_arch = "x86_64")]
                product.y.prefetch(&place);
                run(shape, a, b, Out::waiting(tile, panels));
                store(product.isa, &product.y, product.addend, &place, tile);
            }
        }
        done += panels;
    }
}
