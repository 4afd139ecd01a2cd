//! The tiles against what the instruction is documented to do.

use super::*;
use crate::bf16;
use crate::pool::FloatMode;

/// What `tdpbf16ps` is documented to do, in f32 multiply-adds.
fn by_definition(a: &[f32], b: &[f32], rows: usize, k: usize) -> Vec<f32> {
    let mut tile = vec![0.0f32; rows * PANEL];
    for (at, sum) in tile.iter_mut().enumerate() {
        let (row, column) = (at / PANEL, at % PANEL);
        for block in (0..k).step_by(2 * RUN) {
            let (mut even, mut odd) = (0.0f32, 0.0f32);
            for j in block..(block + 2 * RUN).min(k.next_multiple_of(2)) {
                let (x, y) = if j < k {
                    (a[row * k + j], b[j * PANEL + column])
                } else {
                    (0.0, 0.0)
                };
                let half = if j % 2 == 0 { &mut even } else { &mut odd };
                *half = x.mul_add(y, *half);
            }
            *sum += even + odd;
        }
    }
    tile
}

#[test]
fn a_tile_is_its_definition_bit_for_bit_for_every_height_and_rest() {
    if !available() {
        println!("this processor has no AMX, or the system does not grant it: nothing to compare");
        return;
    }
    let _flush = FloatMode::enter();
    let noise = |i: usize| bf16::round(((i * 7919) % 2003) as f32 / 701.5 - 1.4);
    for rows in 1..=ROWS {
        for (k, cut) in [
            (1, 0),
            (2, 0),
            (31, 0),
            (32, 0),
            (33, 32),
            (96, 0),
            (96, 64),
            (200, 64),
        ] {
            let a: Vec<f32> = (0..rows * k).map(noise).collect();
            let b: Vec<f32> = (0..k * PANEL).map(|i| noise(i + 5)).collect();
            let pairs = k.div_ceil(2);
            let word = |value: &dyn Fn(usize) -> f32, j: usize| {
                let code = |j: usize| {
                    if j < k {
                        u32::from(bf16::from_f32(value(j)))
                    } else {
                        0
                    }
                };
                code(2 * j) | code(2 * j + 1) << 16
            };
            let (runs, slots) = (pairs.div_ceil(RUN), packed_rows(rows));
            let mut packed = vec![u32::MAX; runs * slots * RUN];
            for pair in 0..pairs {
                for row in 0..rows {
                    packed[(pair / RUN * slots + row) * RUN + pair % RUN] = word(&|j| a[row * k + j], pair);
                }
            }
            let panel: Vec<u32> = (0..pairs * PANEL)
                .map(|i| word(&|j| b[j * PANEL + i % PANEL], i / PANEL))
                .collect();
            let mut sums = vec![f32::NAN; ROWS * PANEL];
            let first = if cut > 0 { cut / 2 } else { pairs };
            // SAFETY: packed as `accumulate` wants it; `cut` is a multiple of 32.
            unsafe {
                accumulate(
                    rows,
                    first,
                    packed.as_ptr(),
                    panel.as_ptr(),
                    sums.as_mut_ptr(),
                    true,
                );
                if cut > 0 {
                    let a = packed.as_ptr().add(first * slots);
                    let b = panel.as_ptr().add(first * PANEL);
                    accumulate(rows, pairs - first, a, b, sums.as_mut_ptr(), false);
                }
            }
            release();
            let right = by_definition(&a, &b, rows, k);
            let same = sums.iter().zip(&right).all(|(x, y)| x.to_bits() == y.to_bits());
            assert!(same, "{rows} rows, K {k}, cut at {cut}");
        }
    }
}

#[test]
fn asking_ahead_changes_no_bit_of_a_tile() {
    if !available() {
        return;
    }
    let words = |seed: u32| move |i: u32| (0x3f80 + (i * 7919 + seed) % 120) * 0x1_0001;
    for pairs in [16u32, 48, 40] {
        let a: Vec<u32> = (0..pairs.div_ceil(16) * 16 * ROWS as u32).map(words(1)).collect();
        let b: Vec<u32> = (0..pairs * PANEL as u32).map(words(5)).collect();
        let tile = |asks: bool| {
            let mut sums = vec![0.0f32; SUMS];
            // SAFETY: A and B have `pairs` pairs, and the tile is of full height.
            unsafe {
                for fresh in [true, false] {
                    let (steps, to) = (pairs as usize, sums.as_mut_ptr());
                    match asks {
                        true => accumulate_asking(steps, a.as_ptr(), b.as_ptr(), to, fresh, std::ptr::null()),
                        false => accumulate(ROWS, steps, a.as_ptr(), b.as_ptr(), to, fresh),
                    }
                }
            }
            release();
            sums.iter().map(|sum| sum.to_bits()).collect::<Vec<u32>>()
        };
        assert!(tile(true) == tile(false), "{pairs} pairs");
    }
}
