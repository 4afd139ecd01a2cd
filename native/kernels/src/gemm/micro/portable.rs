//! The plain twin: the same chains, one row at a time, with `mul_add`.

use super::{ALayout, F32, MicroKernel, Out, PANEL, RUN, Step, TileShape, WIDENED};

pub fn kernel(step: Step, layout: ALayout, _rows: usize, _panels: usize) -> MicroKernel {
    widening_kernel!(tile, step, layout)
}

/// # Safety
/// As `MicroKernel`.
unsafe fn tile<const STEP: u8, const BY_ROWS: bool>(
    shape: TileShape,
    a: *const u32,
    b: *const u32,
    out: Out,
) {
    let TileShape {
        rows,
        panels,
        steps,
        panel_words,
        a_stride,
        b_stride,
        begun,
        ..
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
            if !begun.is_null() {
                // SAFETY: inside the tile.
                unsafe {
                    let begun = begun.add((row * panels + panel) * PANEL);
                    std::ptr::copy_nonoverlapping(begun, sums.as_mut_ptr(), PANEL);
                }
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
            let out = out.shift(row * out.stride + panel * PANEL);
            for (c, sum) in sums.into_iter().enumerate() {
                // SAFETY: inside the output and its addend.
                unsafe {
                    *out.to.add(c) = match out.addend.is_null() {
                        true => sum,
                        false => sum + *out.addend.add(c),
                    };
                }
            }
        }
    }
}
