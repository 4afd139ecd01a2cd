//! The plain twin: the same chains, one row at a time, with `mul_add`.

use super::{ALayout, F32, MicroKernel, PANEL, RUN, Step, WIDENED, choose};

pub fn kernel(step: Step, layout: ALayout, rows: usize, panels: usize) -> MicroKernel {
    match step {
        Step::F32 => choose!(tile, F32, layout, rows, panels),
        Step::Pair | Step::Widened => choose!(tile, WIDENED, layout, rows, panels),
    }
}

/// # Safety
/// As `MicroKernel`.
unsafe fn tile<const ROWS: usize, const PANELS: usize, const STEP: u8, const BY_ROWS: bool>(
    steps: usize,
    a: *const u32,
    b: *const u32,
    panel_words: usize,
    tile: *mut f32,
) {
    let unit_of = |row: usize, unit: usize| {
        let index = if BY_ROWS {
            unit / RUN * ROWS * RUN + row * RUN + unit % RUN
        } else {
            unit * ROWS + row
        };
        // SAFETY: inside A.
        f32::from_bits(unsafe { *a.add(index) })
    };
    for row in 0..ROWS {
        for panel in 0..PANELS {
            let mut sums = [0.0f32; PANEL];
            for step in 0..steps {
                for (c, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: inside the panel.
                    let word = unsafe { *b.add(panel * panel_words + step * PANEL + c) };
                    *sum = if STEP == WIDENED {
                        let odd = f32::from_bits(word & 0xffff_0000);
                        let even = f32::from_bits(word << 16);
                        let first = unit_of(row, 2 * step).mul_add(odd, *sum);
                        unit_of(row, 2 * step + 1).mul_add(even, first)
                    } else {
                        unit_of(row, step).mul_add(f32::from_bits(word), *sum)
                    };
                }
            }
            // SAFETY: inside the tile.
            unsafe {
                std::ptr::copy_nonoverlapping(sums.as_ptr(), tile.add((row * PANELS + panel) * PANEL), PANEL)
            };
        }
    }
}
