//! The plain twin: the same chains, one row at a time, with `mul_add`.

use super::{ALayout, F32, MicroKernel, PANEL, RUN, Step, TileShape, WIDENED};

pub fn kernel(step: Step, layout: ALayout, _rows: usize, _panels: usize) -> MicroKernel {
    widening_kernel!(tile, step, layout)
}

/// # Safety
/// As `MicroKernel`.
unsafe fn tile<const STEP: u8, const BY_ROWS: bool>(
    shape: TileShape,
    a: *const u32,
    b: *const u32,
    tile: *mut f32,
) {
    let TileShape {
        rows,
        panels,
        steps,
        panel_words,
        a_stride,
        b_stride,
        fresh,
    } = shape;
    let unit_of = |row: usize, unit: usize| {
        let index = if BY_ROWS {
            unit / RUN * rows * RUN + row * RUN + unit % RUN
        } else {
            unit * a_stride + row
        };
        // SAFETY: inside A.
        f32::from_bits(unsafe { *a.add(index) })
    };
    for row in 0..rows {
        for panel in 0..panels {
            let mut sums = [0.0f32; PANEL];
            // SAFETY: inside the tile.
            let place = unsafe { tile.add((row * panels + panel) * PANEL) };
            if !fresh {
                // SAFETY: as above.
                unsafe { std::ptr::copy_nonoverlapping(place, sums.as_mut_ptr(), PANEL) };
            }
            for step in 0..steps {
                for (c, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: inside B.
                    let word = unsafe { *b.add(panel * panel_words + step * b_stride + c) };
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
            // SAFETY: as above.
            unsafe { std::ptr::copy_nonoverlapping(sums.as_ptr(), place, PANEL) };
        }
    }
}
