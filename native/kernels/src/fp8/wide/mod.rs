//! E4M3 by 512-bit registers, 64 numbers at a time: the same codes as `codec.rs` gives, which is its plain twin.
//!
//! ```text
//! four registers of 16 magnitudes  ->  quotients  ->  codes in the low bytes  ->  one register of 64 codes, signs added
//! ```
//!
//! contract   the bits of `codec::E4m3::cast_small(x / scale)`: tiles have their own maximum, so that no quotient exceeds 448
//! limits     scales that `Factors::of` takes; where it refuses one (NaN, or near the ends of f32) the plain loops do the tile
//! why so     compilers narrow a register of 16 codes by itself, with its sign; four at once need a third of the steps

mod columns;
mod lanes;
mod tiles;
mod weight;

pub use columns::{column_block, decode_e4m3, decode_e5m6};
pub use lanes::BLOCK;
pub use tiles::tiles;
pub use weight::{block_codes, of_rows};

use std::arch::x86_64::*;

use super::codec::{Code, E4m3, LEAST_AMAX, Rule};

/// Bounds of the scales whose reciprocals have two parts that are no denormals.
const LEAST: f32 = f32::from_bits((127 - 64) << 23);
const GREATEST: f32 = f32::from_bits((127 + 64) << 23);

/// Sixteen scales and their reciprocals: `high` is one rounded, `low` what rounding took, 0 for powers of two.
///
/// x high + x low is within 2^-46 of x / scale before the last rounding. So the two rounded quotients differ only where x / scale
/// is that close to the middle of two floats, and codes only where one of those is the middle of two codes, which has five
/// significant bits: `quotients_by_two_parts_have_the_codes_of_a_division` looks at all of them.
struct Scales {
    scale: __m512,
    high: __m512,
    low: __m512,
    /// Those that numbers may be divided by in this way.
    fitting: u16,
}

/// `Rule::scale` for the bits of sixteen maxima.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
fn scales_of(greatest: __m512i, rule: Rule) -> Scales {
    let (amax, floor, one) = (
        _mm512_castsi512_ps(greatest),
        _mm512_set1_ps(rule.floor),
        _mm512_set1_ps(1.0),
    );
    let exceeds = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(amax, floor);
    let top = _mm512_mask_blend_ps(exceeds, floor, amax);
    let mut scale = _mm512_div_ps(top, _mm512_set1_ps(E4m3::GREATEST));
    if rule.power_of_two {
        let up = _mm512_add_epi32(_mm512_castps_si512(scale), _mm512_set1_epi32(0x7f_ffff));
        scale = _mm512_castsi512_ps(_mm512_and_si512(up, _mm512_set1_epi32(0x7f80_0000)));
    }
    let is_least = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(top, _mm512_set1_ps(LEAST_AMAX));
    let is_special = _mm512_cmpge_epu32_mask(greatest, _mm512_set1_epi32(0x7f80_0000));
    let scale = _mm512_mask_blend_ps(is_least, scale, one);
    let scale = _mm512_mask_blend_ps(is_special, scale, _mm512_set1_ps(f32::NAN));
    let high = _mm512_div_ps(one, scale);
    if rule.power_of_two {
        return Scales {
            scale,
            high,
            low: _mm512_setzero_ps(),
            fitting: !is_special,
        };
    }
    let low = _mm512_mul_ps(_mm512_fnmadd_ps(scale, high, one), high);
    let fitting = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(scale, _mm512_set1_ps(LEAST))
        & _mm512_cmp_ps_mask::<_CMP_LE_OQ>(scale, _mm512_set1_ps(GREATEST));
    Scales {
        scale,
        high,
        low,
        fitting,
    }
}

/// Codes of four registers of magnitudes: byte i of each lane is register i's.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
fn codes_of(magnitudes: [__m512; 4], high: [__m512; 4], low: Option<[__m512; 4]>) -> __m512i {
    let code = |i: usize| {
        code_of(match low {
            Some(low) => _mm512_fmadd_ps(magnitudes[i], high[i], _mm512_mul_ps(magnitudes[i], low[i])),
            None => _mm512_mul_ps(magnitudes[i], high[i]),
        })
    };
    // Not by `map`: what is called through the library loses the wide instructions.
    let [a, b, c, d] = [code(0), code(1), code(2), code(3)];
    let pick = |mask: i32, from: __m512i, other: __m512i| {
        _mm512_ternarylogic_epi32::<0xca>(_mm512_set1_epi32(mask), from, other)
    };
    let ab = pick(0xff, a, _mm512_slli_epi32::<8>(b));
    let cd = pick(0xff, c, _mm512_slli_epi32::<8>(d));
    pick(0xffff, ab, _mm512_slli_epi32::<16>(cd))
}

/// `codec::magnitude_code` for E4M3, in the low byte; what lies above it is garbage.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
fn code_of(quotient: __m512) -> __m512i {
    const LEAST: i32 = 127 - 6;
    // Its part above seven bits rides too, so that bit 7 is clear.
    const CONSTANT: i32 = -(LEAST << 3) & 0xff;
    let bits = _mm512_castps_si512(quotient);
    let exponent = _mm512_and_si512(
        _mm512_max_epi32(bits, _mm512_set1_epi32(LEAST << 23)),
        _mm512_set1_epi32(0x7f80_0000),
    );
    let power = _mm512_add_epi32(exponent, _mm512_set1_epi32((20 << 23) + CONSTANT));
    let sum = _mm512_castps_si512(_mm512_add_ps(quotient, _mm512_castsi512_ps(power)));
    _mm512_add_epi32(sum, _mm512_srli_epi32::<20>(exponent))
}

#[cfg(test)]
mod tests;
