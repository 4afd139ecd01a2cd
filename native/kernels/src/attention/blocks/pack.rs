//! Packing rows of bf16 as blocks of factors: as they lie, in pairs of rows, and both turned.

use std::arch::x86_64::*;

use super::{SIDE, WORDS};
use crate::gemm::shuffle::{pairs, store_columns, turn};

/// One head's share of packed tokens: a range of channels, or two ranges side by side. Rows behind the last count as
/// zero, and so do channels.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    parts: [Part<'a>; 2],
    count: usize,
}

#[derive(Clone, Copy)]
struct Part<'a> {
    /// From the first row's first channel on.
    x: &'a [u16],
    stride: usize,
    width: usize,
}

impl<'a> Part<'a> {
    fn of(x: &'a [u16], start: usize, stride: usize, width: usize, count: usize) -> Part<'a> {
        let end = start + (count.max(1) - 1) * stride + width;
        Part {
            x: if count > 0 { &x[start..end] } else { &[] },
            stride,
            width,
        }
    }
}

impl<'a> Rows<'a> {
    /// `width` channels of `count` rows, the first at `start`, `stride` apart.
    pub fn of(x: &'a [u16], start: usize, stride: usize, width: usize, count: usize) -> Rows<'a> {
        Rows {
            parts: [
                Part::of(x, start, stride, width, count),
                Part::of(&[], 0, 0, 0, 1),
            ],
            count,
        }
    }

    /// With `width` channels of `x` behind the others.
    pub fn beside(self, x: &'a [u16], start: usize, stride: usize, width: usize) -> Rows<'a> {
        Rows {
            parts: [self.parts[0], Part::of(x, start, stride, width, self.count)],
            ..self
        }
    }

    /// Which channels of block `block` lie in the one part and in the other.
    fn masks(&self, block: usize) -> [u32; 2] {
        let first = below(self.parts[0].width, block);
        [
            first,
            below(self.parts[0].width + self.parts[1].width, block) & !first,
        ]
    }

    /// The channels of block `block` of a row.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn line(&self, row: usize, block: usize, masks: [u32; 2]) -> __m512i {
        if row >= self.count {
            return _mm512_setzero_si512();
        }
        let [first, second] = self.parts;
        let at = first.x.as_ptr().wrapping_add(row * first.stride + block * SIDE);
        // SAFETY: the masked channels are the row's, and `Part::of` has seen the last row's; nothing else is touched.
        unsafe {
            let line = _mm512_maskz_loadu_epi16(masks[0], at.cast());
            if masks[1] == 0 {
                return line;
            }
            let at = second.x.as_ptr().wrapping_add(row * second.stride + block * SIDE);
            _mm512_mask_loadu_epi16(line, masks[1], at.wrapping_sub(first.width).cast())
        }
    }
}

/// The channels of a block that lie below `width`.
pub fn below(width: usize, block: usize) -> u32 {
    match width.saturating_sub(block * SIDE) {
        rest if rest >= SIDE => u32::MAX,
        rest => (1 << rest) - 1,
    }
}

/// Rows `first..first + 32` as left factors that are summed over channels: `[blocks][32 rows][16 pairs of channels]`.
///
/// # Safety
/// The processor has AVX-512; `to` has room for `blocks` blocks.
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn pack_left(rows: &Rows, first: usize, blocks: usize, to: *mut u32) {
    for block in 0..blocks {
        let masks = rows.masks(block);
        for row in 0..SIDE {
            let line = rows.line(first + row, block, masks);
            unsafe { _mm512_storeu_si512(to.add(block * WORDS + row * 16).cast(), line) };
        }
    }
}

/// Rows `first..first + 32` as right factors that are summed over channels: `[blocks][16 pairs of channels][32 rows]`.
///
/// # Safety
/// As `pack_left`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn pack_right(rows: &Rows, first: usize, blocks: usize, to: *mut u32) {
    for block in 0..blocks {
        let masks = rows.masks(block);
        for half in 0..2 {
            let mut lines = [_mm512_setzero_si512(); 16];
            for row in 0..16 {
                lines[row] = rows.line(first + half * 16 + row, block, masks);
            }
            let turned = turn(lines);
            let to = to.wrapping_add(block * WORDS + half * 16);
            for pair in 0..16 {
                unsafe { _mm512_storeu_si512(to.add(pair * SIDE).cast(), turned[pair]) };
            }
        }
    }
}

/// Rows `first..first + 32` as right factors that are summed over rows: `[16 pairs of rows][32 channels]`, a block of
/// channels `apart` words behind the one before.
///
/// # Safety
/// As `pack_left`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn pack_row_pairs(rows: &Rows, first: usize, blocks: usize, to: *mut u32, apart: usize) {
    for block in 0..blocks {
        let masks = rows.masks(block);
        let to = to.wrapping_add(block * apart);
        for pair in 0..16 {
            let even = rows.line(first + 2 * pair, block, masks);
            let odd = rows.line(first + 2 * pair + 1, block, masks);
            let [low, high] = pairs(even, odd);
            unsafe {
                _mm512_storeu_si512(to.add(pair * SIDE).cast(), low);
                _mm512_storeu_si512(to.add(pair * SIDE + 16).cast(), high);
            }
        }
    }
}

/// Rows `first..first + 32` as left factors that are summed over rows: `[32 channels][16 pairs of rows]`, a block of
/// channels `apart` words behind the one before.
///
/// # Safety
/// As `pack_left`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn pack_left_turned(rows: &Rows, first: usize, blocks: usize, to: *mut u32, apart: usize) {
    for block in 0..blocks {
        let masks = rows.masks(block);
        let pair = |pair| {
            let even = rows.line(first + 2 * pair, block, masks);
            (even, rows.line(first + 2 * pair + 1, block, masks))
        };
        // SAFETY: a block has 32 lines of sixteen words.
        unsafe { store_columns(pair, SIDE, to.wrapping_add(block * apart)) };
    }
}

#[cfg(test)]
mod tests;
