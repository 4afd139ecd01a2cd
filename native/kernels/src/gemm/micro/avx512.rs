//! Tiles in 512-bit registers: bf16 by `vdpbf16ps`, which is two FMAs a pair, the odd element first, or by
//! those two FMAs themselves where they are faster.

use std::arch::x86_64::*;

use super::{ALayout, F32, MicroKernel, Out, PANEL, RUN, Step, TileShape, WIDENED};

const PAIR: u8 = Step::Pair as u8;

/// Picks `$function::<rows, panels, STEP, BY_ROWS>` from the table of all tiles.
macro_rules! choose {
    ($function:path, $step:expr, $layout:expr, $rows:expr, $panels:expr) => {
        match $layout {
            ALayout::ByRows => choose!(@rows $function, $rows, $panels, $step, true),
            ALayout::ByColumns => choose!(@single $function, $rows, $step, false),
        }
    };
    (@rows $function:path, $rows:expr, $panels:expr, $step:expr, $by_rows:literal) => {{
        use $function as tile;
        match ($rows, $panels) {
            (1, 4) => tile::<1, 4, $step, $by_rows> as MicroKernel,
            (2, 4) => tile::<2, 4, $step, $by_rows>,
            (3, 2) => tile::<3, 2, $step, $by_rows>,
            (4, 2) => tile::<4, 2, $step, $by_rows>,
            (5, 2) => tile::<5, 2, $step, $by_rows>,
            (6, 2) => tile::<6, 2, $step, $by_rows>,
            _ => choose!(@single $function, $rows, $step, $by_rows),
        }
    }};
    (@single $function:path, $rows:expr, $step:expr, $by_rows:literal) => {{
        use $function as tile;
        match $rows {
            1 => tile::<1, 1, $step, $by_rows> as MicroKernel,
            2 => tile::<2, 1, $step, $by_rows>,
            3 => tile::<3, 1, $step, $by_rows>,
            4 => tile::<4, 1, $step, $by_rows>,
            5 => tile::<5, 1, $step, $by_rows>,
            6 => tile::<6, 1, $step, $by_rows>,
            7 => tile::<7, 1, $step, $by_rows>,
            8 => tile::<8, 1, $step, $by_rows>,
            9 => tile::<9, 1, $step, $by_rows>,
            10 => tile::<10, 1, $step, $by_rows>,
            11 => tile::<11, 1, $step, $by_rows>,
            _ => tile::<12, 1, $step, $by_rows>,
        }
    }};
}

pub fn kernel(step: Step, layout: ALayout, rows: usize, panels: usize) -> MicroKernel {
    match step {
        Step::F32 => choose!(tile, F32, layout, rows, panels),
        Step::Pair => choose!(tile, PAIR, layout, rows, panels),
        Step::Widened => choose!(tile, WIDENED, layout, rows, panels),
    }
}

/// Steps that B is fetched ahead, and A where its lines may lie apart: 4 KiB of a panel. It pays where panels come from the third cache or memory.
const AHEAD: usize = 32;

/// Rows of the output that are asked for a run: all twelve are on their way after 96 of f32's steps.
const ROWS_ASKED: usize = 2;

/// # Safety
/// As `MicroKernel`: A, B and the tile have the sizes that the parameters imply; the processor has the features.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn tile<const ROWS: usize, const PANELS: usize, const STEP: u8, const BY_ROWS: bool>(
    shape: TileShape,
    mut a: *const u32,
    mut b: *const u32,
    out: Out,
) {
    let row_stride = if BY_ROWS { RUN } else { 1 };
    let unit_stride = if BY_ROWS { 1 } else { shape.a_stride };
    let units = if STEP == WIDENED { 2 } else { 1 };
    let odd_half = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    let mut sums = [[[_mm512_setzero_ps(); 2]; PANELS]; ROWS];
    if !shape.begun.is_null() {
        for r in 0..ROWS {
            for q in 0..PANELS {
                for half in 0..2 {
                    // SAFETY: the tile has ROWS * PANELS * 32 floats.
                    sums[r][q][half] =
                        unsafe { _mm512_loadu_ps(shape.begun.add((r * PANELS + q) * PANEL + half * 16)) };
                }
            }
        }
    }
    // Without a branch in the loop: who asks for nothing asks for its own lines.
    let own = [a; RUN];
    let asks = if shape.asks.is_null() {
        &raw const own
    } else {
        shape.asks
    };
    let (mut line, mut expected) = (0, 0);
    let mut left = shape.steps;
    while left > 0 {
        let run = left.min(RUN / units);
        // A few outputs at a time: all at once they would fill the line buffers, and the products wait.
        for r in expected..(expected + ROWS_ASKED).min(ROWS) {
            for half in 0..2 * PANELS {
                let line = out.to.wrapping_add(r * out.stride + half * 16);
                _mm_prefetch::<_MM_HINT_ET0>(line.cast());
            }
        }
        expected += ROWS_ASKED;
        for step in 0..run {
            if BY_ROWS && STEP == F32 {
                // SAFETY: `step` is less than RUN, and the pointers are there; what is asked for need not be.
                unsafe { _mm_prefetch::<_MM_HINT_T0>((*asks)[step].wrapping_add(line).cast()) };
            }
            for unit in 0..units {
                // SAFETY: `steps` steps per row of A and `steps` lines of 32 words per panel are there.
                unsafe {
                    let mut columns = [[_mm512_setzero_si512(); 2]; PANELS];
                    for q in 0..PANELS {
                        for half in 0..2 {
                            let words = _mm512_loadu_si512(b.add(q * shape.panel_words + half * 16).cast());
                            columns[q][half] = match (STEP == WIDENED, unit) {
                                (false, _) => words,
                                (true, 0) => _mm512_and_si512(words, odd_half),
                                (true, _) => _mm512_slli_epi32(words, 16),
                            };
                        }
                    }
                    for r in 0..ROWS {
                        let word = _mm512_set1_epi32(*a.add(r * row_stride) as i32);
                        for q in 0..PANELS {
                            for half in 0..2 {
                                sums[r][q][half] =
                                    multiply_add::<STEP>(word, columns[q][half], sums[r][q][half]);
                            }
                        }
                    }
                    if !BY_ROWS {
                        // Lines in place are far apart, which the processor does not guess; a tile's twelve words lie in
                        // two cache lines at most.
                        let ahead = a.wrapping_add(AHEAD * unit_stride);
                        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(ROWS - 1).cast());
                    }
                    // Wrapping: the line behind the last may lie outside, and is not read.
                    a = a.wrapping_add(unit_stride);
                }
            }
            for q in 0..PANELS {
                for half in 0..2 {
                    let ahead = b.wrapping_add(q * shape.panel_words + half * 16 + AHEAD * shape.b_stride);
                    _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                }
            }
            b = b.wrapping_add(shape.b_stride);
        }
        if BY_ROWS {
            // The next run of sixteen units lies behind the other rows' runs (wrapping: past the last run this
            // may point beyond A, and is not read).
            a = a.wrapping_add((ROWS - 1) * RUN);
        }
        line += RUN;
        left -= run;
    }
    for r in 0..ROWS {
        for half in 0..2 * PANELS {
            let at = r * out.stride + half * 16;
            let mut sum = sums[r][half / 2][half % 2];
            // SAFETY: output and addend have ROWS rows of PANELS * 32 floats.
            unsafe {
                if !out.addend.is_null() {
                    sum = _mm512_add_ps(sum, _mm512_loadu_ps(out.addend.add(at)));
                }
                _mm512_storeu_ps(out.to.add(at), sum);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn multiply_add<const STEP: u8>(a: __m512i, b: __m512i, sum: __m512) -> __m512 {
    if STEP == PAIR {
        // SAFETY: __m512bh and __m512i are the same 64 bytes.
        let (a, b) = unsafe {
            (
                std::mem::transmute::<__m512i, __m512bh>(a),
                std::mem::transmute::<__m512i, __m512bh>(b),
            )
        };
        _mm512_dpbf16_ps(sum, a, b)
    } else {
        _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum)
    }
}
