//! 128x128 blocks of a weight: their codes, and the panel lines of their rows.

use std::arch::x86_64::*;

use super::lanes::{BLOCK, Lanes};
use super::scales_of;
use super::tiles::{cast, raise_all};
use crate::fp8::codec::Rule;
use crate::fp8::panel_codes::Block;
use crate::gemm::micro::{PANEL, RUN};
use crate::gemm::shuffle::turn;

/// Codes of a block whose rows lie `stride` apart, and its scale; None if that is one for the plain loops.
///
/// # Safety
/// The processor has AVX-512 as `Isa::Avx512Bf16` names it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
pub unsafe fn block_codes<T: Lanes>(
    w: &[T],
    stride: usize,
    (height, width): (usize, usize),
    rule: Rule,
    codes: &mut Block,
) -> Option<f32> {
    // SAFETY: the processor by this function's contract.
    unsafe {
        let mut maxima = T::least();
        for r in 0..height {
            maxima = raise_all(maxima, &w[r * stride..][..width]);
        }
        let made = scales_of(_mm512_set1_epi32(T::greatest(maxima) as i32), rule);
        if made.fitting & 1 == 0 {
            return None;
        }
        let low = (!rule.power_of_two).then_some(_mm512_cvtss_f32(made.low));
        for r in 0..height {
            cast(
                &w[r * stride..][..width],
                _mm512_cvtss_f32(made.high),
                low,
                &mut codes.0[r],
            );
        }
        Some(_mm512_cvtss_f32(made.scale))
    }
}

/// `panel_codes::of_rows`: rows `first..first + 32` of a block, a pair of columns a line.
///
/// # Safety
/// As `block_codes`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
pub unsafe fn of_rows(block: &Block, first: usize, lines: &mut [u8]) {
    let rows = &block.0[first..first + PANEL];
    let (lines, _) = lines.as_chunks_mut::<{ 2 * PANEL }>();
    // Of sixteen rows' words of four codes the lower halves, then the upper ones, and of the other sixteen's.
    let halves = |odd: i16| -> [i16; 32] { std::array::from_fn(|i| 2 * i as i16 + odd) };
    // SAFETY: a row has two times 64 codes.
    unsafe {
        let even = _mm512_loadu_si512(halves(0).as_ptr().cast());
        let odd = _mm512_loadu_si512(halves(1).as_ptr().cast());
        for (from, lines) in (0..2 * BLOCK).step_by(BLOCK).zip(lines.chunks_mut(2 * RUN)) {
            let (mut low, mut high) = ([_mm512_setzero_si512(); RUN], [_mm512_setzero_si512(); RUN]);
            for r in 0..RUN {
                low[r] = _mm512_loadu_si512(rows[r].as_ptr().add(from).cast());
                high[r] = _mm512_loadu_si512(rows[RUN + r].as_ptr().add(from).cast());
            }
            let (low, high) = (turn(low), turn(high));
            for at in 0..lines.len() {
                let order = if at % 2 == 0 { even } else { odd };
                let line = _mm512_permutex2var_epi16(low[at / 2], order, high[at / 2]);
                _mm512_storeu_si512(lines[at].as_mut_ptr().cast(), line);
            }
        }
    }
}
