//! Lines of 32 floats: what the vector unit does to a block between two products.

use std::arch::x86_64::*;

use super::SIDE;
use crate::attention::convert::Output;

/// A line of a block of sums.
pub type Line = [__m512; 2];

/// # Safety
/// 32 floats lie at `from`; the processor has AVX-512.
#[inline]
#[target_feature(enable = "avx512f")]
pub unsafe fn load(from: *const f32) -> Line {
    unsafe { [_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16))] }
}

/// 2^(x * factor + shift), to 1.7e-7 of itself; denormal results are zero. What is taken is finite.
///
/// A softmax in powers of two needs no product by log2(e), and `vscalefps` no guard against underflow.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn exp2_scaled(x: __m512, factor: __m512, shift: __m512) -> __m512 {
    let magic = _mm512_set1_ps(MAGIC);
    let y = _mm512_fmadd_ps(x, factor, shift);
    let n = _mm512_sub_ps(_mm512_add_ps(y, magic), magic);
    let r = _mm512_sub_ps(y, n);
    let mut p = _mm512_set1_ps(EXP2[4]);
    for k in (0..4).rev() {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP2[k]));
    }
    _mm512_scalef_ps(_mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0)), n)
}

/// Added and taken off again, it leaves the nearest integer.
pub const MAGIC: f32 = 12_582_912.0;
/// 2^r = 1 + r (c0 + r (c1 + ...)) for |r| <= 1/2, fitted to the least greatest relative error: 9.7e-8.
#[allow(clippy::approx_constant)] // fitted: it is not ln 2
pub const EXP2: [f32; 5] = [
    0.693_147,
    0.240_222_44,
    0.055_506_755,
    0.009_671_572,
    0.001_328_294,
];

/// Rounded to nearest even, denormals to zero: a line of a left factor, its pairs neighbours in the line.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub fn rounded(line: Line) -> __m512i {
    // SAFETY: both are 64 bytes.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(line[1], line[0])) }
}

/// The numbers of a line whose bits are set, and `others` in place of the rest.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn masked(line: Line, mask: u32, others: __m512) -> Line {
    [
        _mm512_mask_mov_ps(others, mask as u16, line[0]),
        _mm512_mask_mov_ps(others, (mask >> 16) as u16, line[1]),
    ]
}

/// Stores the numbers whose bits are set, the first of them all at element `first`, in the output's dtype.
///
/// # Safety
/// No other task writes these elements; those whose bits are set exist.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn store(line: Line, mask: u32, to: Output, first: isize) {
    unsafe {
        match to {
            Output::F32(y) => {
                let y = y.wrapping_offset(first);
                _mm512_mask_storeu_ps(y, mask as u16, line[0]);
                _mm512_mask_storeu_ps(y.wrapping_add(SIDE / 2), (mask >> 16) as u16, line[1]);
            }
            Output::Bf16(y) => {
                _mm512_mask_storeu_epi16(y.wrapping_offset(first).cast(), mask, rounded(line));
            }
        }
    }
}

/// Asks for `width` numbers at element `first`, which will be written soon.
#[inline]
pub fn ask(to: Output, first: usize, width: usize) {
    let (start, bytes) = match to {
        Output::F32(y) => (y.wrapping_add(first).cast::<u8>(), 4 * width),
        Output::Bf16(y) => (y.wrapping_add(first).cast::<u8>(), 2 * width),
    };
    for byte in (0..bytes).step_by(64) {
        // SAFETY: a hint, of no effect where nothing lies.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(start.wrapping_add(byte).cast_const().cast()) };
    }
}

/// The line times a factor.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn times(line: Line, factor: __m512) -> Line {
    [_mm512_mul_ps(line[0], factor), _mm512_mul_ps(line[1], factor)]
}

/// The sum of 64 lanes, by the tree of `math::Lanes`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub fn sum(lanes: [__m512; 4]) -> f32 {
    let [a, b, c, d] = lanes;
    let all = _mm512_add_ps(_mm512_add_ps(a, c), _mm512_add_ps(b, d));
    let eight = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps::<1>(all));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}
