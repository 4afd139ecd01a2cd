//! Every form beside its plain twin.

use super::*;
use crate::bf16;
use crate::gemm::micro::{AForm, Arithmetic};
use crate::gemm::pack;
use crate::isa::Isa;

const PLAIN: Isa = Isa::Portable;

fn can_pack() -> bool {
    let can = Isa::Avx512Bf16.available();
    if !can {
        println!("this processor has no AVX-512 with BF16: nothing to compare");
    }
    can
}

fn noise(len: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i * 7919) % 2003) as f32 / 701.5 - 1.4)
        .collect()
}

/// Both dtypes of the same numbers, packed by `pack`, must be what `plain` packs.
fn check(
    len: usize,
    out: usize,
    plain: impl Fn(&[f32], &mut [u32]),
    f32s: impl Fn(&[f32], &mut [u32]),
    u16s: impl Fn(&[u16], &mut [u32]),
) {
    let x = noise(len);
    let narrow: Vec<u16> = x.iter().map(|v| bf16::from_f32(*v)).collect();
    let (mut right, mut from_f32, mut from_bf16) = (vec![0; out], vec![0; out], vec![0; out]);
    plain(&x, &mut right);
    f32s(&x, &mut from_f32);
    u16s(&narrow, &mut from_bf16);
    assert!(
        right == from_f32 && right == from_bf16,
        "{len} numbers into {out} words"
    );
}

#[test]
fn rows_are_packed_as_the_plain_twin_packs_whole_tiles() {
    if !can_pack() {
        return;
    }
    for (rows, k) in [(16, 1), (32, 40), (64, 96), (48, 33)] {
        let at = Rows::Even {
            start: 3,
            stride: k + 5,
        };
        let plain = |x: &[f32], out: &mut [u32]| {
            let words = pack::packed_rows_words(AForm::Pairs, 1, k);
            for first in (0..rows).step_by(AMX_ROWS) {
                let height = (rows - first).min(AMX_ROWS);
                pack::pack_rows(
                    PLAIN,
                    AForm::Pairs,
                    x,
                    at.skip(first),
                    height,
                    k,
                    &mut out[first * words..],
                );
            }
        };
        // SAFETY: the processor has AVX-512 with BF16.
        check(
            3 + rows * (k + 5),
            tiles::packed_words(rows, k.div_ceil(2)),
            plain,
            |x, out| unsafe { pack_rows(x, at, rows, k, out) },
            |x, out| unsafe { pack_rows(x, at, rows, k, out) },
        );
    }
}

#[test]
fn columns_are_packed_as_the_rows_of_the_transpose() {
    if !can_pack() {
        return;
    }
    for (tokens, columns) in [(1, 16), (31, 32), (64, 80), (33, 48)] {
        let stride = columns + 3;
        let at = Rows::Even { start: 2, stride };
        let plain = |x: &[f32], out: &mut [u32]| {
            let turned: Vec<f32> = (0..columns * tokens)
                .map(|i| x[2 + i % tokens * stride + i / tokens])
                .collect();
            let at = Rows::Even {
                start: 0,
                stride: tokens,
            };
            // SAFETY: the processor has AVX-512 with BF16.
            unsafe { pack_rows(&turned, at, columns, tokens, out) };
        };
        // SAFETY: the processor has AVX-512 with BF16.
        check(
            2 + tokens * stride,
            tiles::packed_words(columns, tokens.div_ceil(2)),
            plain,
            |x, out| unsafe { pack_columns(x, at, tokens, columns, out) },
            |x, out| unsafe { pack_columns(x, at, tokens, columns, out) },
        );
    }
}

#[test]
fn rows_in_registers_are_turned_as_the_columns_of_memory_are() {
    if !can_pack() {
        return;
    }
    let x: Vec<u16> = noise(LINE * PANEL).iter().map(|v| bf16::from_f32(*v)).collect();
    let at = Rows::Even {
        start: 0,
        stride: PANEL,
    };
    let (mut right, mut turned) = (vec![0; RUN * PANEL], vec![0; RUN * PANEL]);
    // SAFETY: the processor has AVX-512 with BF16; 32 rows of 32 numbers, as many words for their pairs.
    unsafe {
        pack_columns(&x, at, LINE, PANEL, &mut right);
        let mut lines = [_mm512_setzero_si512(); LINE];
        for (token, line) in lines.iter_mut().enumerate() {
            *line = _mm512_loadu_si512(x.as_ptr().add(token * PANEL).cast());
        }
        store_columns(
            |pair| (lines[2 * pair], lines[2 * pair + 1]),
            PANEL,
            turned.as_mut_ptr(),
        );
    }
    assert!(turned == right);
}

#[test]
fn panels_are_packed_as_the_plain_twin_packs_them_with_zeros_behind() {
    if !can_pack() {
        return;
    }
    for (tokens, columns) in [(1usize, 1usize), (31, 32), (64, 80), (33, 47)] {
        let at = Rows::Even {
            start: 1,
            stride: columns + 3,
        };
        let words = tokens.div_ceil(LINE) * RUN * PANEL;
        let plain = |x: &[f32], out: &mut [u32]| {
            for (panel, out) in out.chunks_exact_mut(words).enumerate() {
                let width = (columns - panel * PANEL).min(PANEL);
                pack::pack_token_panel(
                    PLAIN,
                    Arithmetic::Bf16,
                    x,
                    at.shift(panel * PANEL),
                    tokens,
                    width,
                    out,
                );
            }
        };
        // SAFETY: the processor has AVX-512 with BF16.
        check(
            1 + tokens * (columns + 3),
            columns.div_ceil(PANEL) * words,
            plain,
            |x, out| unsafe { pack_panels(x, at, tokens, columns, out) },
            |x, out| unsafe { pack_panels(x, at, tokens, columns, out) },
        );
    }
}
