//! Tiles in 256-bit registers: blocks of 6 rows by 16 columns inside the same tile. bf16 is widened and
//! multiplied by f32 FMA, odd element of a pair first: the bits of `vdpbf16ps`, with denormals flushed by the
//! thread's float mode.

use std::arch::x86_64::*;

use super::{ALayout, F32, MicroKernel, PANEL, RUN, Step, WIDENED, choose};

pub fn kernel(step: Step, layout: ALayout, rows: usize, panels: usize) -> MicroKernel {
    match step {
        Step::F32 => choose!(tile, F32, layout, rows, panels),
        // No instruction for pairs: `AForm::Pairs` is never chosen here.
        Step::Pair | Step::Widened => choose!(tile, WIDENED, layout, rows, panels),
    }
}

/// # Safety
/// As `MicroKernel`.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const ROWS: usize, const PANELS: usize, const STEP: u8, const BY_ROWS: bool>(
    steps: usize,
    a: *const u32,
    b: *const u32,
    panel_words: usize,
    tile: *mut f32,
) {
    let row_stride = if BY_ROWS { RUN } else { 1 };
    let mut first = 0;
    while first < ROWS {
        let rows = (ROWS - first).min(6);
        for column in (0..PANELS * PANEL).step_by(16) {
            // SAFETY: inside A, B and the tile.
            unsafe {
                let a = a.add(first * row_stride);
                let b = b.add(column / PANEL * panel_words + column % PANEL);
                let tile = tile.add(first * PANELS * PANEL + column);
                let width = PANELS * PANEL;
                match rows {
                    1 => block::<1, ROWS, STEP, BY_ROWS>(steps, a, b, tile, width),
                    2 => block::<2, ROWS, STEP, BY_ROWS>(steps, a, b, tile, width),
                    3 => block::<3, ROWS, STEP, BY_ROWS>(steps, a, b, tile, width),
                    4 => block::<4, ROWS, STEP, BY_ROWS>(steps, a, b, tile, width),
                    5 => block::<5, ROWS, STEP, BY_ROWS>(steps, a, b, tile, width),
                    _ => block::<6, ROWS, STEP, BY_ROWS>(steps, a, b, tile, width),
                }
            }
        }
        first += rows;
    }
}

/// `N` of the tile's `ROWS` rows by 16 columns.
///
/// # Safety
/// `a`, `b` and `tile` point at the block's first row and column.
#[target_feature(enable = "avx2,fma")]
unsafe fn block<const N: usize, const ROWS: usize, const STEP: u8, const BY_ROWS: bool>(
    steps: usize,
    mut a: *const u32,
    mut b: *const u32,
    tile: *mut f32,
    width: usize,
) {
    let row_stride = if BY_ROWS { RUN } else { 1 };
    let unit_stride = if BY_ROWS { 1 } else { ROWS };
    let units = if STEP == WIDENED { 2 } else { 1 };
    let odd_half = _mm256_set1_epi32(0xffff_0000_u32 as i32);
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    let mut left = steps;
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
            a = a.wrapping_add((ROWS - 1) * RUN);
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
