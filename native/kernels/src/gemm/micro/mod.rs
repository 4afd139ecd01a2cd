//! Micro-kernels: one tile of at most 12 rows by 32 columns a panel, all of K in registers.
//!
//! ```text
//! tile[r][32 q + c] = chain of fma over u of a[u, r] * panel_q[u][c]        r < rows, c < 32, q < panels
//! ```
//!
//! contract   one FMA chain per element over ascending k from 0; bf16 pairs odd element first, then even
//! layout     B: panels, `[unit][32]` words; A: by rows `[unit / 16][rows][16]` or by columns `[unit][rows]` words
//! dtype      a word of B is an f32 or a pair of bf16; a word of A is what `AForm` says
//! limits     1..=12 rows; 1 panel, or 2 to 4 for few rows (`panels_at_once`)
//! tiling     AVX-512 12 x 32, AVX2 6 x 16 inside the same tile, portable row by row
//! why so     24 accumulators + 2 of B + 1 of A fill 27 of 32 registers; for few rows more panels at once hide
//!            the latency of the chains; K is never cut, so that C is written once
//! versions   v1 this one; AMX can join as one more column of `kernel`: the pairs along k are its layout

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use crate::isa::Isa;

/// Outputs of a panel.
pub const PANEL: usize = 32;
/// Most rows of a tile.
pub const TILE_ROWS: usize = 12;
/// Units of A that lie together per row in the layout by rows: one cache line.
pub const RUN: usize = 16;
/// Floats that any tile needs: rows times panels times 32 never exceeds twelve rows of one panel.
pub const TILE_FLOATS: usize = TILE_ROWS * PANEL;

/// What the multiplications are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    F32,
    /// Both operands rounded to bf16, products and sums in f32.
    Bf16,
}

/// How A is packed for a micro-kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AForm {
    /// A word is one f32.
    F32,
    /// A word is two bf16, the even k in the lower half.
    Pairs,
    /// Two words a pair: the odd k as f32, then the even one, for machines that multiply bf16 by f32 FMA.
    SwappedF32,
}

/// In which order A's words lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ALayout {
    /// `[unit / 16][rows][16]`: made from row-major rows by copying whole lines.
    ByRows,
    /// `[unit][rows]`: made from tokens whose columns are the tile's rows.
    ByColumns,
}

/// `steps` k's (f32) or pairs (bf16); `a`, `b` and `tile` as in the file's head; `panel_words` from one panel to
/// the next.
pub type MicroKernel =
    unsafe fn(steps: usize, a: *const u32, b: *const u32, panel_words: usize, tile: *mut f32);

impl Arithmetic {
    /// The form of A that `isa` wants.
    pub fn a_form(self, isa: Isa) -> AForm {
        match (self, isa) {
            (Arithmetic::F32, _) => AForm::F32,
            (Arithmetic::Bf16, Isa::Avx512Bf16) => AForm::Pairs,
            (Arithmetic::Bf16, _) => AForm::SwappedF32,
        }
    }

    /// Steps of a chain over `k` elements.
    pub fn steps(self, k: usize) -> usize {
        match self {
            Arithmetic::F32 => k,
            Arithmetic::Bf16 => k.div_ceil(2),
        }
    }

    /// Words of one panel: K is rounded up to even in both formats.
    pub fn panel_words(self, k: usize) -> usize {
        match self {
            Arithmetic::F32 => k.next_multiple_of(2) * PANEL,
            Arithmetic::Bf16 => k.div_ceil(2) * PANEL,
        }
    }
}

impl AForm {
    /// Words of A per row for a chain over `k` elements.
    pub fn units(self, k: usize) -> usize {
        match self {
            AForm::F32 => k,
            AForm::Pairs => k.div_ceil(2),
            AForm::SwappedF32 => k.next_multiple_of(2),
        }
    }
}

/// Panels that `kernel` takes at once for a tile of `rows` rows packed by rows: few rows alone would wait for
/// the latency of their chains.
pub fn panels_at_once(rows: usize) -> usize {
    match rows {
        1 | 2 => 4,
        3..=6 => 2,
        _ => 1,
    }
}

/// The micro-kernel of `isa` for a tile of `rows` (1..=12) by `panels` (1, or `panels_at_once(rows)` by rows).
pub fn kernel(isa: Isa, arithmetic: Arithmetic, layout: ALayout, rows: usize, panels: usize) -> MicroKernel {
    assert!(
        (1..=TILE_ROWS).contains(&rows),
        "a tile has 1 to 12 rows, not {rows}"
    );
    assert!(
        panels == 1 || (layout == ALayout::ByRows && panels == panels_at_once(rows)),
        "{panels} panels at once for {rows} rows"
    );
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Bf16 => avx512::kernel(arithmetic, layout, rows, panels),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::kernel(arithmetic, layout, rows, panels),
        _ => portable::kernel(arithmetic, layout, rows, panels),
    }
}

/// Picks `$module::tile::<rows, panels, BF16, BY_ROWS>` from the table of all tiles.
macro_rules! choose {
    ($function:path, $arithmetic:expr, $layout:expr, $rows:expr, $panels:expr) => {
        match ($arithmetic, $layout) {
            (Arithmetic::F32, ALayout::ByRows) => choose!(@rows $function, $rows, $panels, false, true),
            (Arithmetic::Bf16, ALayout::ByRows) => choose!(@rows $function, $rows, $panels, true, true),
            (Arithmetic::F32, ALayout::ByColumns) => choose!(@single $function, $rows, false, false),
            (Arithmetic::Bf16, ALayout::ByColumns) => choose!(@single $function, $rows, true, false),
        }
    };
    (@rows $function:path, $rows:expr, $panels:expr, $bf16:literal, $by_rows:literal) => {{
        use $function as tile;
        match ($rows, $panels) {
            (1, 4) => tile::<1, 4, $bf16, $by_rows> as MicroKernel,
            (2, 4) => tile::<2, 4, $bf16, $by_rows>,
            (3, 2) => tile::<3, 2, $bf16, $by_rows>,
            (4, 2) => tile::<4, 2, $bf16, $by_rows>,
            (5, 2) => tile::<5, 2, $bf16, $by_rows>,
            (6, 2) => tile::<6, 2, $bf16, $by_rows>,
            _ => choose!(@single $function, $rows, $bf16, $by_rows),
        }
    }};
    (@single $function:path, $rows:expr, $bf16:literal, $by_rows:literal) => {{
        use $function as tile;
        match $rows {
            1 => tile::<1, 1, $bf16, $by_rows> as MicroKernel,
            2 => tile::<2, 1, $bf16, $by_rows>,
            3 => tile::<3, 1, $bf16, $by_rows>,
            4 => tile::<4, 1, $bf16, $by_rows>,
            5 => tile::<5, 1, $bf16, $by_rows>,
            6 => tile::<6, 1, $bf16, $by_rows>,
            7 => tile::<7, 1, $bf16, $by_rows>,
            8 => tile::<8, 1, $bf16, $by_rows>,
            9 => tile::<9, 1, $bf16, $by_rows>,
            10 => tile::<10, 1, $bf16, $by_rows>,
            11 => tile::<11, 1, $bf16, $by_rows>,
            _ => tile::<12, 1, $bf16, $by_rows>,
        }
    }};
}
use choose;
