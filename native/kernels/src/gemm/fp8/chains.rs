//! One part by multiply-adds: tiles of at most twelve rows by one panel, block after block of products.

use super::TILE;
use super::scaling::{Factors, promote};
use crate::gemm::micro::{self, AForm, ALayout, Arithmetic, Out, PANEL, RUN, TILE_FLOATS, TileShape};
use crate::isa::Isa;

/// A tile of A, packed for `micro::kernel`.
#[derive(Clone, Copy)]
pub struct PackedTile<'a> {
    pub words: &'a [u32],
    pub form: AForm,
    pub layout: ALayout,
    /// First row, counted from the part's, and rows.
    pub row: usize,
    pub rows: usize,
}

impl PackedTile<'_> {
    /// Where pair `pair` begins.
    fn from(&self, pair: usize) -> *const u32 {
        let unit = if self.form == AForm::SwappedF32 {
            2 * pair
        } else {
            pair
        };
        let at = match self.layout {
            ALayout::ByRows => unit / RUN * RUN * self.rows + unit % RUN,
            ALayout::ByColumns => unit * self.rows,
        };
        self.words[at..].as_ptr()
    }
}

/// Which products are summed: `k` of them from tile `tile` on, in blocks of `promotion`.
#[derive(Clone, Copy)]
pub struct Span {
    pub tile: usize,
    pub k: usize,
    pub promotion: usize,
}

/// Adds a span to the sums of one tile and panel, or begins them: `b` are the panel's pairs of bf16, from the span's first.
pub fn accumulate(
    isa: Isa,
    a: PackedTile,
    b: &[u32],
    (panel, span): (usize, Span),
    factors: &impl Factors,
    sums: &mut [f32],
    fresh: bool,
) {
    assert!(b.len() >= span.k.div_ceil(2) * PANEL, "a panel of that length");
    let mut partial = [0.0; TILE_FLOATS];
    let run = micro::kernel(isa, Arithmetic::Bf16, a.layout, a.rows, 1);
    if span.k == 0 && fresh {
        sums[..a.rows * PANEL].fill(0.0);
    }
    for from in (0..span.k).step_by(span.promotion) {
        let count = (span.k - from).min(span.promotion);
        let shape = TileShape {
            rows: a.rows,
            panels: 1,
            steps: count.div_ceil(2),
            panel_words: 0,
            a_stride: a.rows,
            b_stride: PANEL,
            begun: std::ptr::null(),
            asks: std::ptr::null(),
        };
        // SAFETY: A and the panel hold the span (asserted for the panel); a partial tile has at most 12 x 32 floats.
        unsafe {
            run(
                shape,
                a.from(from / 2),
                b[from / 2 * PANEL..].as_ptr(),
                Out::waiting(&mut partial, 1),
            )
        };
        let tile = span.tile + from / TILE;
        let columns = factors.columns(tile, panel);
        let rows = factors.rows(tile, a.row, a.rows);
        promote(isa, &partial, sums, rows, &columns, fresh && from == 0);
    }
}
