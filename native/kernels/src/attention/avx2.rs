//! `Vector` as two AVX2 registers.

use std::arch::x86_64::*;

use super::vector::Vector;

#[derive(Clone, Copy)]
pub struct YmmPair([__m256; 2]);

/// The same operation on both halves.
macro_rules! halves {
    ($h:ident => $value:expr) => {{
        let low = {
            let $h = 0;
            $value
        };
        let high = {
            let $h = 1;
            $value
        };
        YmmPair([low, high])
    }};
}

/// All ones in the lanes of half `half` that lie below `end`.
#[inline(always)]
unsafe fn below(half: usize, end: usize) -> __m256 {
    unsafe {
        let first = 8 * half as i32;
        let lane = _mm256_add_epi32(
            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
            _mm256_set1_epi32(first),
        );
        _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(end.min(16) as i32), lane))
    }
}

// SAFETY of all bodies: values of this type exist only inside AVX2 twins (see `vector.rs`).
impl Vector for YmmPair {
    #[inline(always)]
    fn splat(value: f32) -> YmmPair {
        YmmPair([unsafe { _mm256_set1_ps(value) }; 2])
    }
    #[inline(always)]
    fn mul_add(self, factor: YmmPair, addend: YmmPair) -> YmmPair {
        halves!(h => unsafe { _mm256_fmadd_ps(self.0[h], factor.0[h], addend.0[h]) })
    }
    #[inline(always)]
    fn add(self, other: YmmPair) -> YmmPair {
        halves!(h => unsafe { _mm256_add_ps(self.0[h], other.0[h]) })
    }
    #[inline(always)]
    fn sub(self, other: YmmPair) -> YmmPair {
        halves!(h => unsafe { _mm256_sub_ps(self.0[h], other.0[h]) })
    }
    #[inline(always)]
    fn mul(self, other: YmmPair) -> YmmPair {
        halves!(h => unsafe { _mm256_mul_ps(self.0[h], other.0[h]) })
    }
    #[inline(always)]
    fn div(self, other: YmmPair) -> YmmPair {
        halves!(h => unsafe { _mm256_div_ps(self.0[h], other.0[h]) })
    }
    #[inline(always)]
    fn max(self, other: YmmPair) -> YmmPair {
        // vmaxps gives its second operand unless the first is greater.
        halves!(h => unsafe { _mm256_max_ps(other.0[h], self.0[h]) })
    }
    #[inline(always)]
    fn keep_from(self, first: usize, fill: f32) -> YmmPair {
        halves!(h => unsafe { _mm256_blendv_ps(self.0[h], _mm256_set1_ps(fill), below(h, first)) })
    }
    #[inline(always)]
    fn keep_below(self, end: usize, fill: f32) -> YmmPair {
        halves!(h => unsafe { _mm256_blendv_ps(_mm256_set1_ps(fill), self.0[h], below(h, end)) })
    }
    #[inline(always)]
    fn zero_where_below(self, x: YmmPair, limit: f32) -> YmmPair {
        halves!(h => unsafe {
            _mm256_and_ps(self.0[h], _mm256_cmp_ps::<_CMP_NLT_UQ>(x.0[h], _mm256_set1_ps(limit)))
        })
    }
    #[inline(always)]
    fn scale_by_power(self, shifted: YmmPair) -> YmmPair {
        halves!(h => unsafe {
            let power = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted.0[h]));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(self.0[h]), power))
        })
    }
    #[inline(always)]
    fn round_to_bf16(self) -> YmmPair {
        halves!(h => unsafe {
            let bits = _mm256_castps_si256(self.0[h]);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            let is_nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(self.0[h], self.0[h]));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
            let chosen = _mm256_blendv_epi8(rounded, quiet, is_nan);
            let upper = _mm256_and_si256(chosen, _mm256_set1_epi32(0xffff_0000_u32 as i32));
            _mm256_castsi256_ps(upper)
        })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> YmmPair {
        halves!(h => unsafe { _mm256_loadu_ps(from.add(8 * h)) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe {
            _mm256_storeu_ps(to, self.0[0]);
            _mm256_storeu_ps(to.add(8), self.0[1]);
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> YmmPair {
        halves!(h => unsafe {
            let codes = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(8 * h).cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(codes))
        })
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16) {
        unsafe {
            let rounded = self.round_to_bf16().0;
            let low = _mm256_srli_epi32::<16>(_mm256_castps_si256(rounded[0]));
            let high = _mm256_srli_epi32::<16>(_mm256_castps_si256(rounded[1]));
            // The pack interleaves the 128-bit lanes of both halves; the permutation undoes it.
            let packed = _mm256_packus_epi32(low, high);
            _mm256_storeu_si256(to.cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
        }
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        unsafe {
            for r in 0..2 {
                for c in 0..2 {
                    let block = from.add(8 * r * from_stride + 8 * c);
                    transpose_eighths(block, from_stride, to.add(8 * c * to_stride + 8 * r), to_stride);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn transpose_eighths(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    unsafe {
        let mut quads = [_mm256_setzero_ps(); 8];
        for g in 0..2 {
            let a = _mm256_loadu_ps(from.add(4 * g * from_stride));
            let b = _mm256_loadu_ps(from.add((4 * g + 1) * from_stride));
            let c = _mm256_loadu_ps(from.add((4 * g + 2) * from_stride));
            let d = _mm256_loadu_ps(from.add((4 * g + 3) * from_stride));
            let ab_low = _mm256_castps_pd(_mm256_unpacklo_ps(a, b));
            let ab_high = _mm256_castps_pd(_mm256_unpackhi_ps(a, b));
            let cd_low = _mm256_castps_pd(_mm256_unpacklo_ps(c, d));
            let cd_high = _mm256_castps_pd(_mm256_unpackhi_ps(c, d));
            quads[4 * g] = _mm256_castpd_ps(_mm256_unpacklo_pd(ab_low, cd_low));
            quads[4 * g + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(ab_low, cd_low));
            quads[4 * g + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(ab_high, cd_high));
            quads[4 * g + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(ab_high, cd_high));
        }
        for c in 0..4 {
            let (first, second) = (quads[c], quads[4 + c]);
            _mm256_storeu_ps(
                to.add(c * to_stride),
                _mm256_permute2f128_ps::<0x20>(first, second),
            );
            _mm256_storeu_ps(
                to.add((4 + c) * to_stride),
                _mm256_permute2f128_ps::<0x31>(first, second),
            );
        }
    }
}
