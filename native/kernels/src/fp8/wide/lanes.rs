//! 64 neighbours as magnitudes in four registers, and their maxima.

use std::arch::x86_64::*;

use crate::bf16::Element;

/// Neighbours that become codes together.
pub const BLOCK: usize = 64;

const MAGNITUDE: i32 = 0x7fff_ffff;

/// An element of which 64 can be loaded.
pub trait Lanes: Element {
    /// Registers of maxima.
    type Maxima: Copy;
    /// Which of the 64 neighbours lies in each lane of each register.
    fn neighbour(register: usize, lane: usize) -> usize;
    /// Where each neighbour's code is: four codes a lane, one of each register.
    const ORDER: [u8; BLOCK];

    /// No number is smaller.
    ///
    /// # Safety
    /// The processor has AVX-512 as `Isa::Avx512Bf16` names it: so for all that follows.
    unsafe fn least() -> Self::Maxima;
    /// Raises the maxima to the elements that `mask` has (all of them if `WHOLE`).
    ///
    /// # Safety
    /// The masked elements can be read.
    unsafe fn raise<const WHOLE: bool>(maxima: Self::Maxima, from: *const Self, mask: u64) -> Self::Maxima;
    /// The greatest magnitude of all, as bits of an f32.
    ///
    /// # Safety
    /// As `least`.
    unsafe fn greatest(maxima: Self::Maxima) -> u32;
    /// The greatest magnitude of each neighbour, as bits of an f32.
    ///
    /// # Safety
    /// As `least`.
    unsafe fn each(maxima: Self::Maxima) -> [u32; BLOCK];
    /// Magnitudes, and a mask of the negative ones in the neighbours' order.
    ///
    /// # Safety
    /// As `raise`.
    unsafe fn magnitudes<const WHOLE: bool>(from: *const Self, mask: u64) -> ([__m512; 4], u64);
}

const fn order(of_pairs: bool) -> [u8; BLOCK] {
    let mut order = [0; BLOCK];
    let mut at = 0;
    while at < BLOCK {
        let (register, lane) = if of_pairs {
            (at / 32 + at % 2 * 2, at % 32 / 2)
        } else {
            (at / 16, at % 16)
        };
        order[at] = (4 * lane + register) as u8;
        at += 1;
    }
    order
}

/// Registers 0 and 1 have the first elements of pairs, 2 and 3 the second ones: bf16 becomes f32 by a shift or a mask.
impl Lanes for u16 {
    type Maxima = [__m512i; 2];
    const ORDER: [u8; BLOCK] = order(true);

    #[inline(always)]
    fn neighbour(register: usize, lane: usize) -> usize {
        register % 2 * 32 + 2 * lane + register / 2
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
    unsafe fn least() -> [__m512i; 2] {
        [_mm512_setzero_si512(); 2]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
    unsafe fn raise<const WHOLE: bool>(maxima: [__m512i; 2], from: *const u16, mask: u64) -> [__m512i; 2] {
        // SAFETY: by the contract.
        let words = unsafe { words::<WHOLE>(from, mask) };
        let magnitude = _mm512_set1_epi16(0x7fff);
        let raised = |i: usize| _mm512_max_epu16(maxima[i], _mm512_and_si512(words[i], magnitude));
        [raised(0), raised(1)]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
    unsafe fn greatest(maxima: [__m512i; 2]) -> u32 {
        let all = _mm512_max_epu16(maxima[0], maxima[1]);
        let half = _mm256_max_epu16(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64::<1>(all));
        let quarter = _mm_max_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
        let rest = _mm_minpos_epu16(_mm_xor_si128(quarter, _mm_set1_epi16(-1)));
        u32::from(!(_mm_extract_epi16::<0>(rest) as u16)) << 16
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
    unsafe fn each(maxima: [__m512i; 2]) -> [u32; BLOCK] {
        let mut each = [0; BLOCK];
        for i in 0..4 {
            let words = match i % 2 {
                0 => _mm512_castsi512_si256(maxima[i / 2]),
                _ => _mm512_extracti64x4_epi64::<1>(maxima[i / 2]),
            };
            let bits = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(words));
            // SAFETY: sixteen of the 64.
            unsafe { _mm512_storeu_si512(each.as_mut_ptr().add(16 * i).cast(), bits) };
        }
        each
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
    unsafe fn magnitudes<const WHOLE: bool>(from: *const u16, mask: u64) -> ([__m512; 4], u64) {
        // SAFETY: by the contract.
        let words = unsafe { words::<WHOLE>(from, mask) };
        let float =
            |bits: __m512i, mask: i32| _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(mask)));
        let even = |words: __m512i| float(_mm512_slli_epi32::<16>(words), MAGNITUDE);
        let odd = |words: __m512i| float(words, 0x7fff_0000);
        let [a, b] = words;
        let (low, high) = (_mm512_movepi16_mask(a), _mm512_movepi16_mask(b));
        (
            [even(a), even(b), odd(a), odd(b)],
            u64::from(low) | u64::from(high) << 32,
        )
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
unsafe fn words<const WHOLE: bool>(from: *const u16, mask: u64) -> [__m512i; 2] {
    // SAFETY: by `Lanes`' contract; masked loads touch nothing else.
    unsafe {
        if WHOLE {
            return [
                _mm512_loadu_si512(from.cast()),
                _mm512_loadu_si512(from.add(32).cast()),
            ];
        }
        [
            _mm512_maskz_loadu_epi16(mask as u32, from.cast()),
            _mm512_maskz_loadu_epi16((mask >> 32) as u32, from.wrapping_add(32).cast()),
        ]
    }
}

impl Lanes for f32 {
    type Maxima = [__m512i; 4];
    const ORDER: [u8; BLOCK] = order(false);

    #[inline(always)]
    fn neighbour(register: usize, lane: usize) -> usize {
        16 * register + lane
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
    unsafe fn least() -> [__m512i; 4] {
        [_mm512_setzero_si512(); 4]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
    unsafe fn raise<const WHOLE: bool>(maxima: [__m512i; 4], from: *const f32, mask: u64) -> [__m512i; 4] {
        // SAFETY: by the contract.
        let bits = unsafe { bits::<WHOLE>(from, mask) };
        let magnitude = _mm512_set1_epi32(MAGNITUDE);
        let raised = |i: usize| _mm512_max_epi32(maxima[i], _mm512_and_si512(bits[i], magnitude));
        [raised(0), raised(1), raised(2), raised(3)]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
    unsafe fn greatest([a, b, c, d]: [__m512i; 4]) -> u32 {
        _mm512_reduce_max_epi32(_mm512_max_epi32(_mm512_max_epi32(a, b), _mm512_max_epi32(c, d))) as u32
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
    unsafe fn each(maxima: [__m512i; 4]) -> [u32; BLOCK] {
        let mut each = [0; BLOCK];
        for i in 0..4 {
            // SAFETY: sixteen of the 64.
            unsafe { _mm512_storeu_si512(each.as_mut_ptr().add(16 * i).cast(), maxima[i]) };
        }
        each
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
    unsafe fn magnitudes<const WHOLE: bool>(from: *const f32, mask: u64) -> ([__m512; 4], u64) {
        // SAFETY: by the contract.
        let bits = unsafe { bits::<WHOLE>(from, mask) };
        let negative = |i: usize| u64::from(_mm512_movepi32_mask(bits[i])) << (16 * i);
        let magnitude = _mm512_set1_epi32(MAGNITUDE);
        let float = |i: usize| _mm512_castsi512_ps(_mm512_and_si512(bits[i], magnitude));
        (
            [float(0), float(1), float(2), float(3)],
            negative(0) | negative(1) | negative(2) | negative(3),
        )
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
unsafe fn bits<const WHOLE: bool>(from: *const f32, mask: u64) -> [__m512i; 4] {
    // SAFETY: as `words`.
    let load = |i: usize| unsafe {
        let from = from.wrapping_add(16 * i);
        if WHOLE {
            _mm512_loadu_si512(from.cast())
        } else {
            _mm512_maskz_loadu_epi32((mask >> (16 * i)) as u16, from.cast())
        }
    };
    [load(0), load(1), load(2), load(3)]
}
