//! 128x1 tiles: 64 columns side by side, whose maxima and factors stay in registers from the first row to the last.

use std::arch::x86_64::*;

use super::lanes::{BLOCK, Lanes};
use super::scales_of;
use super::tiles::cast_block;
use crate::fp8::codec::Rule;

/// Codes and scales of at most 64 columns of a tile's rows; false, and nothing of use written, if one of the scales is for
/// the plain loops. `from` and `to` give a row's first number and code; `ahead` is called while a row is cast, to ask for what
/// will be read next.
///
/// # Safety
/// Every row has as many numbers and codes as there are scales; the processor has AVX-512 as `Isa::Avx512Bf16` names it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
pub unsafe fn column_block<T: Lanes>(
    rows: usize,
    from: impl Fn(usize) -> *const T,
    to: impl Fn(usize) -> *mut u8,
    ahead: impl Fn(usize),
    rule: Rule,
    scales: &mut [f32],
) -> bool {
    // SAFETY: by the contract.
    unsafe {
        if scales.len() == BLOCK {
            block::<T, true>(rows, from, to, ahead, rule, u64::MAX, scales)
        } else {
            block::<T, false>(rows, from, to, ahead, rule, (1 << scales.len()) - 1, scales)
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
unsafe fn block<T: Lanes, const WHOLE: bool>(
    rows: usize,
    from: impl Fn(usize) -> *const T,
    to: impl Fn(usize) -> *mut u8,
    ahead: impl Fn(usize),
    rule: Rule,
    mask: u64,
    scales: &mut [f32],
) -> bool {
    // SAFETY: by `column_block`'s contract.
    unsafe {
        let mut maxima = T::least();
        for row in 0..rows {
            maxima = T::raise::<WHOLE>(maxima, from(row), mask);
            _mm_prefetch::<_MM_HINT_ET0>(to(row).cast());
        }
        let greatest = T::each(maxima);
        let (mut whole, mut high, mut low) = ([0.0; BLOCK], [0.0; BLOCK], [0.0; BLOCK]);
        let mut fitting = u16::MAX;
        for at in (0..BLOCK).step_by(16) {
            let made = scales_of(_mm512_loadu_si512(greatest.as_ptr().add(at).cast()), rule);
            _mm512_storeu_ps(whole.as_mut_ptr().add(at), made.scale);
            _mm512_storeu_ps(high.as_mut_ptr().add(at), made.high);
            _mm512_storeu_ps(low.as_mut_ptr().add(at), made.low);
            fitting &= made.fitting;
        }
        if fitting != u16::MAX {
            return false;
        }
        scales.copy_from_slice(&whole[..scales.len()]);
        let (high, low) = (in_lanes::<T>(&high), in_lanes::<T>(&low));
        for row in 0..rows {
            ahead(row);
            if rule.power_of_two {
                cast_block::<T, WHOLE>(from(row), mask, high, None, to(row));
            } else {
                cast_block::<T, WHOLE>(from(row), mask, high, Some(low), to(row));
            }
        }
        true
    }
}

/// Factors of 64 columns in the lanes that their numbers are loaded to.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
fn in_lanes<T: Lanes>(columns: &[f32; BLOCK]) -> [__m512; 4] {
    let mut registers = [_mm512_setzero_ps(); 4];
    for register in 0..4 {
        let lanes: [f32; 16] = std::array::from_fn(|lane| columns[T::neighbour(register, lane)]);
        // SAFETY: sixteen floats.
        registers[register] = unsafe { _mm512_loadu_ps(lanes.as_ptr()) };
    }
    registers
}

/// Numbers of at most 64 codes of E4M3 of one 1x128 tile, times its scale; false if one of them is NaN.
///
/// A code's magnitude is an f16's upper bits, 2^8 too small, denormals among them: converting those is not subject to flushing.
///
/// # Safety
/// There are `len` codes, and room for 64 floats; the processor has AVX-512 as `Isa::Avx512Bf16` names it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
pub unsafe fn decode_e4m3(codes: *const u8, len: usize, scale: f32, to: *mut f32) -> bool {
    let mask = if len == BLOCK { u64::MAX } else { (1 << len) - 1 };
    // SAFETY: by the contract; masked loads touch nothing else.
    unsafe {
        let codes = _mm512_maskz_loadu_epi8(mask, codes.cast());
        let magnitude = _mm512_set1_epi8(0x7f);
        let is_nan = _mm512_cmpeq_epi8_mask(_mm512_and_si512(codes, magnitude), magnitude);
        for half in 0..2 {
            let bytes = match half {
                0 => _mm512_castsi512_si256(codes),
                _ => _mm512_extracti64x4_epi64::<1>(codes),
            };
            // The sign, filled in from above, and clear below it.
            let words = _mm512_slli_epi16::<7>(_mm512_cvtepi8_epi16(bytes));
            let words = _mm512_and_si512(words, _mm512_set1_epi16(0xbfffu16 as i16));
            store_halves(words, scale * 256.0, to.add(32 * half));
        }
        is_nan == 0
    }
}

/// The same for E5M6: an f16 without its lowest four bits, two codes in three bytes. NaN stays NaN.
///
/// # Safety
/// As `decode_e4m3`; `len` is even.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
pub unsafe fn decode_e5m6(codes: *const u8, len: usize, scale: f32, to: *mut f32) {
    const SPREAD: [u8; 64] = {
        let mut spread = [0; 64];
        let mut word = 0;
        while word < 32 {
            let from = word / 2 * 3 + word % 2;
            (spread[2 * word], spread[2 * word + 1]) = (from as u8, from as u8 + 1);
            word += 1;
        }
        spread
    };
    // SAFETY: by the contract; masked loads touch nothing else.
    unsafe {
        let spread = _mm512_loadu_si512(SPREAD.as_ptr().cast());
        for (half, start) in (0..len).step_by(32).enumerate() {
            let bytes = (len - start).min(32) / 2 * 3;
            let codes = _mm512_maskz_loadu_epi8((1 << bytes) - 1, codes.add(48 * half).cast());
            let words = _mm512_permutexvar_epi8(spread, codes);
            // The first of a pair lies low in its sixteen bits, the second high.
            let words = _mm512_sllv_epi16(words, _mm512_set1_epi32(4));
            let words = _mm512_and_si512(words, _mm512_set1_epi16(0xfff0u16 as i16));
            store_halves(words, scale, to.add(32 * half));
        }
    }
}

/// 32 f16 times a scale, as f32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
unsafe fn store_halves(words: __m512i, scale: f32, to: *mut f32) {
    let scale = _mm512_set1_ps(scale);
    let low = _mm512_cvtph_ps(_mm512_castsi512_si256(words));
    let high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(words));
    // SAFETY: the caller has room for 32 floats.
    unsafe {
        _mm512_storeu_ps(to, _mm512_mul_ps(low, scale));
        _mm512_storeu_ps(to.add(16), _mm512_mul_ps(high, scale));
    }
}
