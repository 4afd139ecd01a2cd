//! Micro-kernels: one tile of at most 12 rows by 32 columns a panel, all of K in registers.
//!
//! ```text
//! tile[r][32 q + c] = chain of fma over u of a[u, r] * panel_q[u][c]        r < rows, c < 32, q < panels
//! ```
//!
//! contract   one FMA chain per element over ascending k from 0; bf16 pairs odd element first, then even
//! layout     B: lines of 32 words, `b_stride` apart; A: by rows `[unit / 16][rows][16]`, or by columns lines of `rows` words,
//!            `a_stride` apart: packed, or a row-major matrix itself (source.rs)
//! dtype      a word of B is an f32 or a pair of bf16; a word of A is what `AForm` says
//! limits     1..=12 rows; 1 panel, or 2 to 4 for few rows (`panels_at_once`)
//! tiling     AVX-512 12 x 32, AVX2 6 x 16 inside the same tile, portable row by row
//! why so     24 accumulators + 2 of B + 1 of A fill 27 of 32 registers; for few rows more panels at once hide
//!            the latency of the chains; K is never cut, so that C is written once
//! versions   v1 this one; bf16 in AMX registers goes another way (amx.rs, ../tiles.rs) over the same panels

/// `$tile::<STEP, BY_ROWS>` where bf16 is widened: no instruction for pairs, `AForm::Pairs` is never chosen.
macro_rules! widening_kernel {
    ($tile:ident, $step:expr, $layout:expr) => {
        match ($step, $layout) {
            (Step::F32, ALayout::ByRows) => $tile::<F32, true>,
            (Step::F32, ALayout::ByColumns) => $tile::<F32, false>,
            (_, ALayout::ByRows) => $tile::<WIDENED, true>,
            (_, ALayout::ByColumns) => $tile::<WIDENED, false>,
        }
    };
}

#[cfg(target_arch = "x86_64")]
pub mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod out;
mod portable;

pub use out::Out;

use crate::isa::{Isa, bf16_instruction_pays};

/// Outputs of a panel.
pub const PANEL: usize = 32;
/// Most rows of a tile of multiply-adds.
pub const TILE_ROWS: usize = 12;
/// Units of A that lie together per row in the layout by rows: one cache line.
pub const RUN: usize = 16;
/// Rows of a tile in AMX registers: two of sixteen.
pub const AMX_ROWS: usize = 32;
/// Pairs of k that AMX products take at once: 32 KiB of a panel, two thirds of the first cache.
pub const AMX_PAIRS: usize = 256;
/// Floats that any tile of multiply-adds needs.
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
    /// A line of `rows` words a unit: tokens whose columns are the tile's rows, packed or where they lie.
    ByColumns,
}

/// The size of a tile, and of what it is made from.
#[derive(Clone, Copy, Debug)]
pub struct TileShape {
    pub rows: usize,
    pub panels: usize,
    /// k's (f32) or pairs of k (bf16).
    pub steps: usize,
    /// Words from one panel to the next.
    pub panel_words: usize,
    /// Words from line to line of A by columns; by rows A is packed.
    pub a_stride: usize,
    /// Words from line to line of B: `PANEL` if it is packed.
    pub b_stride: usize,
    /// What the chains begin with, rows `panels * 32` floats apart; null: zeros.
    pub begun: *const f32,
    /// Rows whose lines are asked for while an f32 tile by rows is multiplied, a line of each a run of A; null: none.
    pub asks: *const [*const u32; RUN],
}

/// Shape (rows and panels those the kernel was asked for), then `a`, `b` and the tile's place as in the file's head.
pub type MicroKernel = unsafe fn(shape: TileShape, a: *const u32, b: *const u32, out: Out);

impl Arithmetic {
    /// The form of A that `isa` wants.
    pub fn a_form(self, isa: Isa) -> AForm {
        match (self, isa) {
            (Arithmetic::F32, _) => AForm::F32,
            (Arithmetic::Bf16, isa) if bf16_instruction_pays(isa) => AForm::Pairs,
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

/// Whether products go through AMX registers.
pub fn by_amx(isa: Isa, arithmetic: Arithmetic) -> bool {
    isa == Isa::Amx && arithmetic == Arithmetic::Bf16
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

/// How one step of a micro-kernel multiplies; as a number, a constant parameter of the tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Step {
    /// One f32 FMA: A is `AForm::F32`.
    F32,
    /// A pair by one instruction: A is `AForm::Pairs`.
    Pair,
    /// A pair by two f32 FMAs, odd element first: A is `AForm::SwappedF32`.
    Widened,
}

const F32: u8 = Step::F32 as u8;
const WIDENED: u8 = Step::Widened as u8;

/// The micro-kernel of multiply-adds for a tile of `rows` (1..=12) by `panels` (1, or `panels_at_once(rows)` by rows).
pub fn kernel(isa: Isa, arithmetic: Arithmetic, layout: ALayout, rows: usize, panels: usize) -> MicroKernel {
    assert!((1..=TILE_ROWS).contains(&rows), "no tile has {rows} rows");
    assert!(
        panels == 1 || (layout == ALayout::ByRows && panels == panels_at_once(rows)),
        "{panels} panels at once for {rows} rows"
    );
    let step = match arithmetic.a_form(isa) {
        AForm::F32 => Step::F32,
        AForm::Pairs => Step::Pair,
        AForm::SwappedF32 => Step::Widened,
    };
    kernel_by(isa, step, layout, rows, panels)
}

/// The kernel of one instruction set; only AVX-512 has one made for every number of rows and panels.
fn kernel_by(isa: Isa, step: Step, layout: ALayout, rows: usize, panels: usize) -> MicroKernel {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx | Isa::Avx512Bf16 => avx512::kernel(step, layout, rows, panels),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::kernel(step, layout, rows, panels),
        _ => portable::kernel(step, layout, rows, panels),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16;
    use crate::gemm::pack::{Rows, pack_columns, pack_rows, pack_token_panel, packed_rows_words};
    use crate::pool::FloatMode;

    fn noise(len: usize, seed: usize) -> Vec<f32> {
        (0..len)
            .map(|i| bf16::round((((i + seed) * 7919) % 2003) as f32 / 1001.5 - 1.0))
            .collect()
    }

    /// The tile by its definition, as bits.
    fn expected(step: Step, a: &[f32], b: &[Vec<f32>], rows: usize, k: usize) -> Vec<u32> {
        let mut tile = Vec::new();
        for row in 0..rows {
            for panel in b {
                for c in 0..PANEL {
                    let term = |j: usize, sum: f32| {
                        if j < k {
                            a[row * k + j].mul_add(panel[j * PANEL + c], sum)
                        } else {
                            0.0f32.mul_add(0.0, sum)
                        }
                    };
                    let sum = match step {
                        Step::F32 => (0..k).fold(0.0, |sum, j| term(j, sum)),
                        _ => (0..k.div_ceil(2)).fold(0.0, |sum, p| term(2 * p, term(2 * p + 1, sum))),
                    };
                    tile.push(sum.to_bits());
                }
            }
        }
        tile
    }

    /// Lines of `width` words, `gap` NaNs after each but the last.
    fn spread(words: &[u32], width: usize, gap: usize) -> Vec<u32> {
        let mut apart = Vec::new();
        for line in words.chunks_exact(width) {
            apart.extend_from_slice(line);
            apart.extend(std::iter::repeat_n(f32::NAN.to_bits(), gap));
        }
        apart.truncate(apart.len() - gap);
        apart
    }

    fn computed(
        isa: Isa,
        step: Step,
        layout: ALayout,
        a: &[f32],
        b: &[Vec<f32>],
        rows: usize,
        k: usize,
    ) -> Vec<u32> {
        let (arithmetic, form) = match step {
            Step::F32 => (Arithmetic::F32, AForm::F32),
            Step::Pair => (Arithmetic::Bf16, AForm::Pairs),
            Step::Widened => (Arithmetic::Bf16, AForm::SwappedF32),
        };
        let mut packed = vec![0u32; packed_rows_words(form, rows, k)];
        if layout == ALayout::ByRows {
            pack_rows(
                isa,
                form,
                a,
                Rows::Even { start: 0, stride: k },
                rows,
                k,
                &mut packed,
            );
        } else {
            let by_token: Vec<f32> = (0..k * rows).map(|i| a[i % rows * k + i / rows]).collect();
            let at = Rows::Even {
                start: 0,
                stride: rows,
            };
            pack_columns(isa, form, &by_token, at, k, rows, &mut packed);
        }
        let words = arithmetic.panel_words(k);
        let mut panels = vec![0u32; words * b.len()];
        for (panel, out) in b.iter().zip(panels.chunks_exact_mut(words)) {
            let at = Rows::Even {
                start: 0,
                stride: PANEL,
            };
            pack_token_panel(isa, arithmetic, panel, at, k, PANEL, out);
        }
        // By columns lines may lie apart.
        let (a_gap, b_gap) = match layout == ALayout::ByColumns {
            true => (5, 8),
            false => (0, 0),
        };
        if layout == ALayout::ByColumns {
            packed.truncate(form.units(k) * rows);
            packed = spread(&packed, rows, a_gap);
            panels = spread(&panels, PANEL, b_gap);
        }
        let mut tile = vec![f32::NAN; rows * b.len() * PANEL];
        let run = kernel_by(isa, step, layout, rows, b.len());
        let whole = TileShape {
            rows,
            panels: b.len(),
            steps: arithmetic.steps(k),
            panel_words: words,
            a_stride: rows + a_gap,
            b_stride: PANEL + b_gap,
            begun: std::ptr::null(),
            asks: std::ptr::null(),
        };
        // By columns a chain may stop anywhere and go on.
        let cut = if layout == ALayout::ByColumns {
            whole.steps / 3
        } else {
            0
        };
        let units = if step == Step::Widened { 2 * cut } else { cut };
        // SAFETY: packed as the kernel wants it.
        unsafe {
            if cut > 0 {
                let first = TileShape { steps: cut, ..whole };
                run(
                    first,
                    packed.as_ptr(),
                    panels.as_ptr(),
                    Out::waiting(&mut tile, b.len()),
                );
            }
            let rest = TileShape {
                steps: whole.steps - cut,
                begun: match cut {
                    0 => std::ptr::null(),
                    _ => tile.as_ptr(),
                },
                ..whole
            };
            let a = packed[units * whole.a_stride..].as_ptr();
            let b = panels[cut * whole.b_stride..].as_ptr();
            run(rest, a, b, Out::waiting(&mut tile, whole.panels));
        }
        tile.iter().map(|v| v.to_bits()).collect()
    }

    #[test]
    fn every_tile_of_every_instruction_set_is_its_definition_bit_for_bit() {
        let _flush = FloatMode::enter();
        for rows in 1..=TILE_ROWS {
            for (k, panels, layout) in [
                (37, 1, ALayout::ByRows),
                (37, 1, ALayout::ByColumns),
                (64, panels_at_once(rows), ALayout::ByRows),
                (1, panels_at_once(rows), ALayout::ByRows),
            ] {
                let a = noise(rows * k, 1);
                let b: Vec<Vec<f32>> = (0..panels).map(|q| noise(k * PANEL, 100 + q)).collect();
                for step in [Step::F32, Step::Pair, Step::Widened] {
                    let right = expected(step, &a, &b, rows, k);
                    for isa in Isa::usable() {
                        if step == Step::Pair && isa > Isa::Avx512Bf16 {
                            continue;
                        }
                        let tile = computed(isa, step, layout, &a, &b, rows, k);
                        assert!(
                            tile == right,
                            "{isa} {step:?} {layout:?} {rows} rows, {panels} panels, K {k}"
                        );
                    }
                }
            }
        }
    }
}
