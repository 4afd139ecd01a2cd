//! Tiles in 256-bit registers: blocks of 6 rows by 16 columns inside the same tile. bf16 is widened and
//! multiplied by f32 FMA, odd element of a pair first: the bits of `vdpbf16ps`, with denormals flushed by the
//! thread's float mode.

use std::arch::x86_64::*;

use super::{ALayout, F32, MicroKernel, PANEL, RUN, Step, TileShape, WIDENED};

pub fn kernel(step: Step, layout: ALayout) -> MicroKernel {
    match (step, layout) {
        (Step::F32, ALayout::ByRows) => tile::<F32, true>,
        (Step::F32, ALayout::ByColumns) => tile::<F32, false>,
        // No instruction for pairs here: `AForm::Pairs` is never chosen.
        (_, ALayout::ByRows) => tile::<WIDENED, true>,
        (_, ALayout::ByColumns) => tile::<WIDENED, false>,
    }
}

/// # Safety
/// As `MicroKernel`.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const STEP: u8, const BY_ROWS: bool>(
    shape: TileShape,
    a: *const u32,
    b: *const u32,
    tile: *mut f32,
) {
    let width = shape.panels * PANEL;
    let mut first = 0;
    while first < shape.rows {
        let rows = (shape.rows - first).min(6);
        for column in (0..width).step_by(16) {
            // SAFETY: inside A, B and the tile.
            unsafe {
                let a = a.add(first * if BY_ROWS { RUN } else { 1 });
                let b = b.add(column / PANEL * shape.panel_words + column % PANEL);
                let tile = tile.add(first * width + column);
                match rows {
                    1 => block::<1, STEP, BY_ROWS>(shape, a, b, tile),
                    2 => block::<2, STEP, BY_ROWS>(shape, a, b, tile),
                    3 => block::<3, STEP, BY_ROWS>(shape, a, b, tile),
                    4 => block::<4, STEP, BY_ROWS>(shape, a, b, tile),
                    5 => block::<5, STEP, BY_ROWS>(shape, a, b, tile),
                    _ => block::<6, STEP, BY_ROWS>(shape, a, b, tile),
                }
            }
        }
        first += rows;
    }
}

/// `N` of the tile's rows by 16 columns.
///
/// # Safety
/// `a`, `b` and `tile` point at the block's first row and column.
#[target_feature(enable = "avx2,fma")]
unsafe fn block<const N: usize, const STEP: u8, const BY_ROWS: bool>(
    shape: TileShape,
    mut a: *const u32,
    mut b: *const u32,
    tile: *mut f32,
) {
    let row_stride = if BY_ROWS { RUN } else { 1 };
    let unit_stride = if BY_ROWS { 1 } else { shape.rows };
    let width = shape.panels * PANEL;
    let units = if STEP == WIDENED { 2 } else { 1 };
    let odd_half = _mm256_set1_epi32(0xffff_0000_u32 as i32);
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    let mut left = shape.steps;
    while left > 0 {
        let run = if BY_ROWS { left.min(RUN / units) } else { left };
        for _ in 0..run {
            // SAFETY: `steps` steps of A and B are there.
            unsafe {
                let words = [_mm256_loadu_si256(b.cast()), _mm256_loadu_si256(b.add(8).cast())];
                for unit in 0..units {
                    let columns = match (STEP == WIDENED, unit) {
                        (false, _) => words,
                        (true, 0) => [
                            _mm256_and_si256(words[0], odd_half),
                            _mm256_and_si256(words[1], odd_half),
                        ],
                        (true, _) => [_mm256_slli_epi32(words[0], 16), _mm256_slli_epi32(words[1], 16)],
                    };
                    for r in 0..N {
                        let value = _mm256_set1_ps(f32::from_bits(*a.add(r * row_stride)));
                        for half in 0..2 {
                            sums[r][half] =
                                _mm256_fmadd_ps(value, _mm256_castsi256_ps(columns[half]), sums[r][half]);
                        }
                    }
                    a = a.add(unit_stride);
                }
                b = b.add(PANEL);
            }
        }
        if BY_ROWS {
            a = a.wrapping_add((shape.rows - 1) * RUN);
        }
        left -= run;
    }
    for r in 0..N {
        for half in 0..2 {
            // SAFETY: inside the tile.
            unsafe { _mm256_storeu_ps(tile.add(r * width + half * 8), sums[r][half]) };
        }
    }
}
