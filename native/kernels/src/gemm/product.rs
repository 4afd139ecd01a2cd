//! One thread's part of `y = x @ w^T`: some rows by some panels. Packs A once, then goes panel by panel, so
//! that a panel is read from memory once and A stays in the second cache.

use super::micro::{self, ALayout, PANEL, TILE_FLOATS, TileShape};
use super::pack::{Rows, pack_rows, packed_rows_words};
use super::panels::Panels;
use crate::args::{Floats, FloatsMut};
use crate::bf16::Element;
use crate::isa::Isa;
use crate::pool::Scratch;
use crate::{by_isa, isa_twins, with_floats};

/// Where the outputs go: element (row, column) at `row * stride + column`.
#[derive(Clone, Copy)]
pub struct Target {
    start: Start,
    len: usize,
    stride: usize,
}

#[derive(Clone, Copy)]
enum Start {
    F32(*mut f32),
    Bf16(*mut u16),
}

// SAFETY: tasks write disjoint elements; `multiply` asks its caller for that.
unsafe impl Send for Target {}
unsafe impl Sync for Target {}

impl Target {
    pub fn new(y: FloatsMut, stride: usize) -> Target {
        match y {
            FloatsMut::F32(y) => Target {
                start: Start::F32(y.as_mut_ptr()),
                len: y.len(),
                stride,
            },
            FloatsMut::Bf16(y) => Target {
                start: Start::Bf16(y.as_mut_ptr()),
                len: y.len(),
                stride,
            },
        }
    }
}

/// A matrix that is read through a pointer, because it may be the very memory that is written.
#[derive(Clone, Copy)]
pub enum Addend {
    None,
    F32(*const f32),
    Bf16(*const u16),
}

// SAFETY: only read, and only the elements whose outputs the same task writes.
unsafe impl Send for Addend {}
unsafe impl Sync for Addend {}

impl Addend {
    pub fn new(addend: Option<Floats>) -> Addend {
        match addend {
            None => Addend::None,
            Some(Floats::F32(a)) => Addend::F32(a.as_ptr()),
            Some(Floats::Bf16(a)) => Addend::Bf16(a.as_ptr()),
        }
    }
}

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
pub fn tile_start(rows: usize, height: usize, tile: usize) -> usize {
    tile * rows / rows.div_ceil(height)
}

/// Computes one part.
///
/// # Safety
/// No other thread touches the part's elements of y; the addend is as large as y.
pub unsafe fn multiply(product: &Product, part: Part, scratch: &mut Scratch) {
    let (k, arithmetic) = (product.panels.k, product.panels.arithmetic());
    let form = arithmetic.a_form(product.isa);
    let height = micro::tile_height(product.isa, arithmetic);
    let tiles = part.rows.div_ceil(height);
    let row_words = packed_rows_words(form, 1, k);
    let scratch = scratch.f32(part.rows * row_words + TILE_FLOATS);
    let (packed, tile) = scratch.split_at_mut(part.rows * row_words);
    let packed = as_words(packed);
    for t in 0..tiles {
        let (from, to) = (
            tile_start(part.rows, height, t),
            tile_start(part.rows, height, t + 1),
        );
        let out = &mut packed[from * row_words..to * row_words];
        let at = product.rows.skip(part.row + from);
        with_floats!(product.x, |x| pack_rows(
            product.isa,
            form,
            x,
            at,
            to - from,
            k,
            out
        ));
    }
    let at_most = (0..tiles)
        .map(|t| tile_start(part.rows, height, t + 1) - tile_start(part.rows, height, t))
        .map(|rows| micro::panels_at_once(product.isa, arithmetic, rows))
        .max()
        .unwrap_or(1);
    let mut panel = part.panel;
    let last = part.panel + part.panels;
    while panel < last {
        let group = at_most.min(last - panel);
        for t in 0..tiles {
            let (from, to) = (
                tile_start(part.rows, height, t),
                tile_start(part.rows, height, t + 1),
            );
            let a = packed[from * row_words..].as_ptr();
            // SAFETY: A holds rows * row_words words; the rest by this function's contract.
            unsafe { tile_by_panels(product, a, part.row + from, to - from, panel, group, tile) };
        }
        panel += group;
    }
    micro::finish(product.isa, arithmetic);
}

/// The same memory as words.
pub(super) fn as_words(floats: &mut [f32]) -> &mut [u32] {
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
    row: usize,
    rows: usize,
    panel: usize,
    group: usize,
    tile: &mut [f32],
) {
    let Panels { n, k, .. } = product.panels;
    let arithmetic = product.panels.arithmetic();
    let panel_words = arithmetic.panel_words(k);
    let steps = arithmetic.steps(k);
    let wide = micro::panels_at_once(product.isa, arithmetic, rows);
    let mut done = 0;
    while done < group {
        let panels = if group - done >= wide { wide } else { 1 };
        let run = micro::kernel(product.isa, arithmetic, ALayout::ByRows, rows, panels);
        let shape = TileShape {
            rows,
            panels,
            steps,
            panel_words,
        };
        let column = (panel + done) * PANEL;
        // SAFETY: the panels exist, the tile holds rows * panels * 32 <= TILE_FLOATS floats.
        unsafe {
            run(shape, a, product.panels.words(panel + done), tile.as_mut_ptr());
            let width = panels * PANEL;
            let columns = (n - column).min(width);
            let place = Place {
                row,
                rows,
                column,
                columns,
                width,
            };
            store(product.isa, &product.y, product.addend, &place, tile);
        }
        done += panels;
    }
}

/// A tile's place in y, and its valid columns.
pub(super) struct Place {
    pub row: usize,
    pub rows: usize,
    pub column: usize,
    pub columns: usize,
    /// Floats from one row of the tile to the next.
    pub width: usize,
}

/// Writes a tile's valid columns, the addend added.
///
/// # Safety
/// No other thread touches these elements of y; the addend is as large as y.
pub(super) unsafe fn store(isa: Isa, y: &Target, addend: Addend, place: &Place, tile: &[f32]) {
    let Place {
        row,
        rows,
        column,
        columns,
        width,
    } = *place;
    assert!(
        (row + rows - 1) * y.stride + column + columns <= y.len,
        "a tile beyond y"
    );
    for r in 0..rows {
        let at = (row + r) * y.stride + column;
        let sums = &tile[r * width..r * width + columns];
        // SAFETY: inside y (asserted) and inside the addend, which is as large.
        unsafe {
            match (y.start, addend) {
                (Start::F32(y), Addend::None) => by_isa!(isa, store_row(sums, y.add(at))),
                (Start::Bf16(y), Addend::None) => by_isa!(isa, store_row(sums, y.add(at))),
                (Start::F32(y), Addend::F32(a)) => by_isa!(isa, add_row(sums, a.add(at), y.add(at))),
                (Start::F32(y), Addend::Bf16(a)) => by_isa!(isa, add_row(sums, a.add(at), y.add(at))),
                (Start::Bf16(y), Addend::F32(a)) => by_isa!(isa, add_row(sums, a.add(at), y.add(at))),
                (Start::Bf16(y), Addend::Bf16(a)) => by_isa!(isa, add_row(sums, a.add(at), y.add(at))),
            }
        }
    }
}

isa_twins! {
    fn store_row<O: Element>(sums: &[f32], y: *mut O) {
        // SAFETY: `store` points at as many elements of y.
        let y = unsafe { std::slice::from_raw_parts_mut(y, sums.len()) };
        for (to, sum) in y.iter_mut().zip(sums) {
            *to = O::from_f32(*sum);
        }
    }
}

isa_twins! {
    fn add_row<A: Element, O: Element>(sums: &[f32], addend: *const A, y: *mut O) {
        for (i, sum) in sums.iter().enumerate() {
            // SAFETY: as above; read before written, so that both may be the same element.
            unsafe { *y.add(i) = O::from_f32(*sum + (*addend.add(i)).to_f32()) };
        }
    }
}
