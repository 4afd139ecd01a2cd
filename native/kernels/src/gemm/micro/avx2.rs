//! Tiles in 256-bit registers: blocks of 6 rows by 16 columns inside the same tile. bf16 is widened and
//! multiplied by f32 FMA, odd element of a pair first: the bits of `vdpbf16ps`, with denormals flushed by the
//! thread's float mode.

use std::arch::x86_64::*;

use super::{ALayout, F32, MicroKernel, Out, PANEL, RUN, Step, TileShape, WIDENED};

pub fn kernel(step: Step, layout: ALayout, _rows: usize, _panels: usize) -> MicroKernel {
    widening_kernel!(tile, step, layout)
}

/// # Safety
/// As `MicroKernel`.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const STEP: u8, const BY_ROWS: bool>(
    shape: TileShape,
    a: *const u32,
    b: *const u32,
    out: Out,
) {
    let width = shape.panels * PANEL;
    let mut first = 0;
    while first < shape.rows {
        let rows = (shape.rows - first).min(6);
        // One or two rows take 32 columns at once: eight chains hide what four would wait for.
        for column in (0..width).step_by(if rows <= 2 { 32 } else { 16 }) {
            // SAFETY: inside A, B and the tile.
            unsafe {
                let a = a.add(first * if BY_ROWS { RUN } else { 1 });
                let b = b.add(column / PANEL * shape.panel_words + column % PANEL);
                let out = out.shift(first * out.stride + column);
                let mut shape = shape;
                if !shape.begun.is_null() {
                    shape.begun = shape.begun.add(first * width + column);
                }
                match rows {
                    1 => block::<1, 4, STEP, BY_ROWS>(shape, a, b, out),
                    2 => block::<2, 4, STEP, BY_ROWS>(shape, a, b, out),
                    3 => block::<3, 2, STEP, BY_ROWS>(shape, a, b, out),
                    4 => block::<4, 2, STEP, BY_ROWS>(shape, a, b, out),
                    5 => block::<5, 2, STEP, BY_ROWS>(shape, a, b, out),
                    _ => block::<6, 2, STEP, BY_ROWS>(shape, a, b, out),
                }
            }
        }
        first += rows;
    }
}

/// `N` of the tile's rows by `V` vectors of eight columns.
///
/// # Safety
/// `a`, `b`, `out` and `shape.begun` point at the block's first row and column.
#[target_feature(enable = "avx2,fma")]
unsafe fn block<const N: usize, const V: usize, const STEP: u8, const BY_ROWS: bool>(
    shape: TileShape,
    mut a: *const u32,
    mut b: *const u32,
    out: Out,
) {
    let row_stride = if BY_ROWS { RUN } else { 1 };
    let unit_stride = if BY_ROWS { 1 } else { shape.a_stride };
    let width = shape.panels * PANEL;
    let units = if STEP == WIDENED { 2 } else { 1 };
    let odd_half = _mm256_set1_epi32(0xffff_0000_u32 as i32);
    let mut sums = [[_mm256_setzero_ps(); V]; N];
    if !shape.begun.is_null() {
        for r in 0..N {
            for v in 0..V {
                // SAFETY: inside the tile.
                sums[r][v] = unsafe { _mm256_loadu_ps(shape.begun.add(r * width + v * 8)) };
            }
        }
    }
    let mut left = shape.steps;
    while left > 0 {
        let run = if BY_ROWS { left.min(RUN / units) } else { left };
        for _ in 0..run {
            // SAFETY: `steps` steps of A and B are there.
            unsafe {
                let mut words = [_mm256_setzero_si256(); V];
                for v in 0..V {
                    words[v] = _mm256_loadu_si256(b.add(v * 8).cast());
                }
                for unit in 0..units {
                    let mut columns = [_mm256_setzero_ps(); V];
                    for v in 0..V {
                        columns[v] = _mm256_castsi256_ps(match (STEP == WIDENED, unit) {
                            (false, _) => words[v],
                            (true, 0) => _mm256_and_si256(words[v], odd_half),
                            (true, _) => _mm256_slli_epi32(words[v], 16),
                        });
                    }
                    for r in 0..N {
                        let value = _mm256_set1_ps(f32::from_bits(*a.add(r * row_stride)));
                        for v in 0..V {
                            sums[r][v] = _mm256_fmadd_ps(value, columns[v], sums[r][v]);
                        }
                    }
                    // Wrapping: the line behind the last may lie outside, and is not read.
                    a = a.wrapping_add(unit_stride);
                }
                b = b.wrapping_add(shape.b_stride);
            }
        }
        if BY_ROWS {
            a = a.wrapping_add((shape.rows - 1) * RUN);
        }
        left -= run;
    }
    for r in 0..N {
        for v in 0..V {
            let at = r * out.stride + v * 8;
            let mut sum = sums[r][v];
            // SAFETY: inside the output and its addend.
            unsafe {
                if !out.addend.is_null() {
                    sum = _mm256_add_ps(sum, _mm256_loadu_ps(out.addend.add(at)));
                }
                _mm256_storeu_ps(out.to.add(at), sum);
            }
        }
    }
}
