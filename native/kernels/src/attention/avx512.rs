//! `Vector` as one AVX-512 register.

use std::arch::x86_64::*;

use super::vector::Vector;

#[derive(Clone, Copy)]
pub struct Zmm(pub(super) __m512);

// SAFETY of all bodies: values of this type exist only inside AVX-512 twins (see `vector.rs`).
impl Vector for Zmm {
    #[inline(always)]
    fn splat(value: f32) -> Zmm {
        Zmm(unsafe { _mm512_set1_ps(value) })
    }
    #[inline(always)]
    fn mul_add(self, factor: Zmm, addend: Zmm) -> Zmm {
        Zmm(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
    }
    #[inline(always)]
    fn add(self, other: Zmm) -> Zmm {
        Zmm(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Zmm) -> Zmm {
        Zmm(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul(self, other: Zmm) -> Zmm {
        Zmm(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn div(self, other: Zmm) -> Zmm {
        Zmm(unsafe { _mm512_div_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn max(self, other: Zmm) -> Zmm {
        // vmaxps gives its second operand unless the first is greater.
        Zmm(unsafe { _mm512_max_ps(other.0, self.0) })
    }
    #[inline(always)]
    fn keep_from(self, first: usize, fill: f32) -> Zmm {
        let kept = (0xffff_u32 << first.min(16)) as u16;
        Zmm(unsafe { _mm512_mask_mov_ps(_mm512_set1_ps(fill), kept, self.0) })
    }
    #[inline(always)]
    fn keep_below(self, end: usize, fill: f32) -> Zmm {
        let filled = (0xffff_u32 << end.min(16)) as u16;
        Zmm(unsafe { _mm512_mask_mov_ps(self.0, filled, _mm512_set1_ps(fill)) })
    }
    #[inline(always)]
    fn zero_where_below(self, x: Zmm, limit: f32) -> Zmm {
        unsafe {
            let kept = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x.0, _mm512_set1_ps(limit));
            Zmm(_mm512_maskz_mov_ps(kept, self.0))
        }
    }
    #[inline(always)]
    fn scale_by_power(self, shifted: Zmm) -> Zmm {
        unsafe {
            let power = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted.0));
            Zmm(_mm512_castsi512_ps(_mm512_add_epi32(
                _mm512_castps_si512(self.0),
                power,
            )))
        }
    }
    #[inline(always)]
    fn round_to_bf16(self) -> Zmm {
        unsafe {
            let bits = _mm512_castps_si512(self.0);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0);
            let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x0040_0000));
            let chosen = _mm512_mask_mov_epi32(rounded, is_nan, quiet);
            let upper = _mm512_and_si512(chosen, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            Zmm(_mm512_castsi512_ps(upper))
        }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Zmm {
        Zmm(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Zmm {
        unsafe {
            let codes = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            Zmm(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(codes)))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16) {
        unsafe {
            // Takes denormals for zero; results are never denormal, because tasks run with denormals flushed.
            let halves = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(self.0));
            _mm256_storeu_si256(to.cast(), halves);
        }
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        unsafe {
            let mut rows = [_mm512_setzero_ps(); 16];
            for r in 0..16 {
                rows[r] = _mm512_loadu_ps(from.add(r * from_stride));
            }
            // 4x4 blocks inside each 128-bit lane, then the lanes change places.
            let mut quads = [_mm512_setzero_ps(); 16];
            for g in 0..4 {
                let [a, b, c, d] = [rows[4 * g], rows[4 * g + 1], rows[4 * g + 2], rows[4 * g + 3]];
                let ab_low = _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
                let ab_high = _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
                let cd_low = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
                let cd_high = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
                quads[4 * g] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab_low, cd_low));
                quads[4 * g + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab_low, cd_low));
                quads[4 * g + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab_high, cd_high));
                quads[4 * g + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab_high, cd_high));
            }
            for c in 0..4 {
                let [a, b] = [quads[c], quads[4 + c]];
                let [d, e] = [quads[8 + c], quads[12 + c]];
                let ab_even = _mm512_shuffle_f32x4::<0x88>(a, b);
                let ab_odd = _mm512_shuffle_f32x4::<0xdd>(a, b);
                let de_even = _mm512_shuffle_f32x4::<0x88>(d, e);
                let de_odd = _mm512_shuffle_f32x4::<0xdd>(d, e);
                _mm512_storeu_ps(
                    to.add(c * to_stride),
                    _mm512_shuffle_f32x4::<0x88>(ab_even, de_even),
                );
                _mm512_storeu_ps(
                    to.add((4 + c) * to_stride),
                    _mm512_shuffle_f32x4::<0x88>(ab_odd, de_odd),
                );
                _mm512_storeu_ps(
                    to.add((8 + c) * to_stride),
                    _mm512_shuffle_f32x4::<0xdd>(ab_even, de_even),
                );
                _mm512_storeu_ps(
                    to.add((12 + c) * to_stride),
                    _mm512_shuffle_f32x4::<0xdd>(ab_odd, de_odd),
                );
            }
        }
    }
}
