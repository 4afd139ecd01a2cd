//! 1x128 tiles: sixteen of them at a time, so that maxima, scales and reciprocals of one do not wait for each other.

use std::arch::x86_64::*;

use super::lanes::{BLOCK, Lanes};
use super::{codes_of, scales_of};
use crate::fp8::codec::{E4m3, Rule, TILE};
use crate::fp8::segment::quantize;

/// Tiles whose scales are made together.
const BATCH: usize = 16;

/// Rows of `k` numbers to codes, a scale for each 128 of them.
///
/// # Safety
/// The processor has AVX-512 as `Isa::Avx512Bf16` names it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
pub unsafe fn tiles<T: Lanes>(x: &[T], k: usize, rule: Rule, codes: &mut [u8], scales: &mut [f32]) {
    assert!(x.len() == codes.len(), "a code for each number");
    let (mut start, mut column) = (0, 0);
    for scales in scales.chunks_mut(BATCH) {
        let mut spans = [(0, 0); BATCH];
        let mut greatest = [0; BATCH];
        for t in 0..scales.len() {
            let width = TILE.min(k - column);
            spans[t] = (start, width);
            // SAFETY: the slice is the tile; the processor by this function's contract.
            greatest[t] = unsafe { greatest_of(&x[start..start + width]) };
            start += width;
            column = if column + width == k { 0 } else { column + width };
        }
        // SAFETY: sixteen each.
        let made = scales_of(unsafe { _mm512_loadu_si512(greatest.as_ptr().cast()) }, rule);
        let (mut whole, mut high, mut low) = ([0f32; BATCH], [0f32; BATCH], [0f32; BATCH]);
        // SAFETY: as above.
        unsafe {
            _mm512_storeu_ps(whole.as_mut_ptr(), made.scale);
            _mm512_storeu_ps(high.as_mut_ptr(), made.high);
            _mm512_storeu_ps(low.as_mut_ptr(), made.low);
        }
        for t in 0..scales.len() {
            let (start, width) = spans[t];
            let (x, codes) = (&x[start..start + width], &mut codes[start..start + width]);
            scales[t] = whole[t];
            if made.fitting >> t & 1 == 0 {
                quantize::<T, E4m3, true>(x, whole[t], rule.power_of_two, codes);
                continue;
            }
            let low = (!rule.power_of_two).then_some(low[t]);
            // SAFETY: as above.
            unsafe { cast(x, high[t], low, codes) };
        }
    }
}

/// # Safety
/// As `tiles`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
unsafe fn greatest_of<T: Lanes>(x: &[T]) -> u32 {
    // SAFETY: by the contract.
    unsafe { T::greatest(raise_all(T::least(), x)) }
}

/// Maxima raised to all of x.
///
/// # Safety
/// As `tiles`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
pub unsafe fn raise_all<T: Lanes>(mut maxima: T::Maxima, x: &[T]) -> T::Maxima {
    let mut at = 0;
    // SAFETY: blocks lie in the slice.
    unsafe {
        while at + BLOCK <= x.len() {
            maxima = T::raise::<true>(maxima, x.as_ptr().add(at), 0);
            at += BLOCK;
        }
        if at < x.len() {
            maxima = T::raise::<false>(maxima, x.as_ptr().add(at), (1 << (x.len() - at)) - 1);
        }
    }
    maxima
}

/// Codes of x, all of it times the same reciprocal, in one part or two.
///
/// # Safety
/// As `tiles`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
pub unsafe fn cast<T: Lanes>(x: &[T], high: f32, low: Option<f32>, codes: &mut [u8]) {
    assert!(codes.len() >= x.len(), "a code for each number");
    let high = [_mm512_set1_ps(high); 4];
    // SAFETY: blocks lie in both slices.
    unsafe {
        match low {
            None => cast_blocks(x, high, None, codes),
            Some(low) => cast_blocks(x, high, Some([_mm512_set1_ps(low); 4]), codes),
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
unsafe fn cast_blocks<T: Lanes>(x: &[T], high: [__m512; 4], low: Option<[__m512; 4]>, codes: &mut [u8]) {
    let mut at = 0;
    // SAFETY: as `cast`.
    unsafe {
        while at + BLOCK <= x.len() {
            cast_block::<T, true>(x.as_ptr().add(at), 0, high, low, codes.as_mut_ptr().add(at));
            at += BLOCK;
        }
        if at < x.len() {
            let mask = (1 << (x.len() - at)) - 1;
            cast_block::<T, false>(x.as_ptr().add(at), mask, high, low, codes.as_mut_ptr().add(at));
        }
    }
}

/// Codes of 64 neighbours, or of those that `mask` has.
///
/// # Safety
/// As `tiles`; what the mask has can be read and written.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
pub unsafe fn cast_block<T: Lanes, const WHOLE: bool>(
    from: *const T,
    mask: u64,
    high: [__m512; 4],
    low: Option<[__m512; 4]>,
    to: *mut u8,
) {
    // SAFETY: by the contract; the order has 64 bytes.
    unsafe {
        let (magnitudes, negative) = T::magnitudes::<WHOLE>(from, mask);
        let order = _mm512_loadu_si512(T::ORDER.as_ptr().cast());
        let codes = _mm512_permutexvar_epi8(order, codes_of(magnitudes, high, low));
        let codes = _mm512_mask_add_epi8(codes, negative, codes, _mm512_set1_epi8(i8::MIN));
        if WHOLE {
            _mm512_storeu_si512(to.cast(), codes);
        } else {
            _mm512_mask_storeu_epi8(to.cast(), mask, codes);
        }
    }
}
