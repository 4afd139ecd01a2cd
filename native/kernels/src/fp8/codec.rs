//! E4M3 and E5M6, and the scale of a tile: the integer steps that every quantiser shares.
//!
//! contract   src/tensor/fp8.ts: the same codes and scales, bit for bit
//! why so     E4M3 numbers below 2^-6 and E5M6 numbers below 2^-14 are denormal in their formats, but normal in f32:
//!            adding a power of two rounds them to their steps, and no denormal f32 is ever made, because the
//!            pool's threads flush those

/// Numbers along one side of a tile.
pub const TILE: usize = 128;

/// Below it a tile scales like zeros: its scale, or what is read with it, could be denormal.
pub const LEAST_AMAX: f32 = f32::from_bits((127 - 80) << 23);

/// How a small float is coded. `cast` and `widen` are loops' bodies: no branch, so that they become vector code.
pub trait Code: Copy + Send + Sync + 'static {
    const GREATEST: f32;
    /// Code of NaN, without its sign.
    const NAN: u32;
    const IS_E4M3: bool = false;
    /// Nearest code, ties to even, saturating; NaN and infinities become NaN.
    fn cast(value: f32) -> u32;
    /// The same for a number that is finite and rounds to no more than the greatest.
    fn cast_small(value: f32) -> u32;
    fn widen(code: u32) -> f32;
    /// Bytes of `len` numbers; `len` is even in formats that need it.
    fn bytes(len: usize) -> usize;
}

#[derive(Clone, Copy, Debug)]
pub struct E4m3;
#[derive(Clone, Copy, Debug)]
pub struct E5m6;

impl Code for E4m3 {
    const GREATEST: f32 = 448.0;
    const NAN: u32 = 0x7f;
    const IS_E4M3: bool = true;

    #[inline(always)]
    fn cast(value: f32) -> u32 {
        cast::<3, 7, 7>(value, Self::GREATEST, Self::NAN)
    }

    #[inline(always)]
    fn cast_small(value: f32) -> u32 {
        with_sign::<7>(value, magnitude_code::<3, 7, 7>(value.to_bits() & 0x7fff_ffff))
    }

    #[inline(always)]
    fn widen(code: u32) -> f32 {
        let magnitude = code & 0x7f;
        let value = widen::<3, 7>(magnitude);
        let bits = if magnitude == 0x7f { NAN_BITS } else { value };
        f32::from_bits(bits | (code & 0x80) << 24)
    }

    #[inline(always)]
    fn bytes(len: usize) -> usize {
        len
    }
}

impl Code for E5m6 {
    const GREATEST: f32 = 65024.0;
    const NAN: u32 = 0x7ff;

    #[inline(always)]
    fn cast(value: f32) -> u32 {
        cast::<6, 15, 11>(value, Self::GREATEST, Self::NAN)
    }

    #[inline(always)]
    fn cast_small(value: f32) -> u32 {
        with_sign::<11>(value, magnitude_code::<6, 15, 11>(value.to_bits() & 0x7fff_ffff))
    }

    #[inline(always)]
    fn widen(code: u32) -> f32 {
        let magnitude = code & 0x7ff;
        // Exponent 31: the fraction tells infinity from NaN, as in an f32.
        let special = 0x7f80_0000 | magnitude << 17;
        let bits = if magnitude >= 0x7c0 {
            special
        } else {
            widen::<6, 15>(magnitude)
        };
        f32::from_bits(bits | (code & 0x800) << 20)
    }

    #[inline(always)]
    fn bytes(len: usize) -> usize {
        len / 2 * 3
    }
}

const NAN_BITS: u32 = 0x7fc0_0000;
const INFINITY_BITS: u32 = 0x7f80_0000;

/// With `M` bits of mantissa, this bias, and `BITS` bits below the sign.
#[inline(always)]
fn cast<const M: u32, const BIAS: u32, const BITS: u32>(value: f32, greatest: f32, nan: u32) -> u32 {
    let magnitude = value.to_bits() & 0x7fff_ffff;
    let finite = magnitude_code::<M, BIAS, BITS>(magnitude.min(greatest.to_bits()));
    with_sign::<BITS>(value, if magnitude >= INFINITY_BITS { nan } else { finite })
}

/// Code of a magnitude that rounds to no more than the greatest, given as bits of an f32.
///
/// Adding 2^(e + 23 - M) to a number of exponent e leaves M bits of its fraction, rounded to nearest even: the sum's
/// low bits are the number in steps of its binade, 2^M to 2^(M + 1). Numbers below the least normal one take
/// that one's exponent, which makes them subnormal. Adding (e - least) 2^M gives the code; its constant part
/// is even and rides on the power of two, and what the sum has above the code is cut off.
#[inline(always)]
fn magnitude_code<const M: u32, const BIAS: u32, const BITS: u32>(magnitude: u32) -> u32 {
    let least = 128 - BIAS;
    let exponent = magnitude.max(least << 23) & INFINITY_BITS;
    let mask = (1 << BITS) - 1;
    let constant = (least << M).wrapping_neg() & mask;
    let power = exponent + ((23 - M) << 23) + constant;
    let sum = f32::from_bits(magnitude) + f32::from_bits(power);
    sum.to_bits().wrapping_add(exponent >> (23 - M)) & mask
}

#[inline(always)]
fn with_sign<const BITS: u32>(value: f32, code: u32) -> u32 {
    code | (value.to_bits() >> (31 - BITS)) & (1 << BITS)
}

/// Bits of the f32 with this magnitude, special codes apart.
#[inline(always)]
fn widen<const M: u32, const BIAS: u32>(magnitude: u32) -> u32 {
    let normal = (magnitude << (23 - M)) + ((127 - BIAS) << 23);
    let step = f32::from_bits((128 - BIAS - M) << 23);
    let subnormal = (magnitude as i32 as f32 * step).to_bits();
    if magnitude < 1 << M { subnormal } else { normal }
}

/// How a scale is made.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub power_of_two: bool,
    pub floor: f32,
}

impl Rule {
    /// What a tile's numbers are divided by; NaN for a tile with NaN or infinity.
    #[inline(always)]
    pub fn scale<C: Code>(self, amax: f32) -> f32 {
        let top = if amax > self.floor { amax } else { self.floor };
        if amax.to_bits() & 0x7fff_ffff >= INFINITY_BITS {
            f32::NAN
        } else if top < LEAST_AMAX {
            1.0
        } else if self.power_of_two {
            power_of_two_ceil(top / C::GREATEST)
        } else {
            top / C::GREATEST
        }
    }
}

/// 2^ceil(log2 of a positive number), on its bits.
#[inline(always)]
pub fn power_of_two_ceil(scale: f32) -> f32 {
    f32::from_bits((scale.to_bits() + 0x7f_ffff) & 0x7f80_0000)
}

/// Least scale for `quotient`: below it remainders could be denormal, which are flushed.
pub const LEAST_DIVISOR: f32 = f32::from_bits((127 - 64) << 23);

/// x / scale to the bit, without a division: a product with the reciprocal is within two units in the last place, the first
/// correction within one, and from there the second gives the nearest number (Markstein, "Computation of elementary
/// functions on the IBM RISC System/6000 processor" (1990), theorem 8). A vector division takes three times as long.
///
/// `reciprocal` is 1 / scale rounded, scale at least `LEAST_DIVISOR`, x finite, and the quotient no more than 2^120.
#[inline(always)]
pub fn quotient(x: f32, scale: f32, reciprocal: f32) -> f32 {
    let near = x * reciprocal;
    let nearer = (-near).mul_add(scale, x).mul_add(reciprocal, near);
    let nearest = (-nearer).mul_add(scale, x).mul_add(reciprocal, nearer);
    // A remainder of zero would make -0 positive.
    nearest.copysign(x)
}

/// Greatest magnitude as bits: they order like the numbers, infinity and NaN above all, and denormals are not flushed.
#[inline(always)]
pub fn greatest_bits<T: crate::bf16::Element>(x: &[T], mut greatest: u32) -> u32 {
    for i in 0..x.len() {
        greatest = greatest.max(x[i].to_f32().to_bits() & 0x7fff_ffff);
    }
    greatest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::FloatMode;

    /// By its definition, in f64: the nearest multiple of the binade's step, ties to even.
    fn plain<C: Code>(value: f32, mantissa: i32, least: i32) -> f64 {
        let magnitude = (value as f64).abs();
        let exponent = (magnitude.log2().floor() as i32).max(least);
        let step = 2f64.powi(exponent - mantissa);
        let steps = magnitude / step + 2f64.powi(52) - 2f64.powi(52);
        (steps * step).min(C::GREATEST as f64).copysign(value as f64)
    }

    fn check<C: Code>(mantissa: i32, least: i32, sign: u32) {
        let _mode = FloatMode::enter();
        // A prime stride meets every exponent and every pattern of the bits that decide.
        for bits in (0..=u32::MAX).step_by(40_961) {
            let value = f32::from_bits(bits);
            let code = C::cast(value);
            if !value.is_finite() {
                assert_eq!(code, C::NAN + (bits >> 31) * sign, "{bits:x}");
                assert!(C::widen(code).is_nan());
                continue;
            }
            let wanted = plain::<C>(value, mantissa, least);
            assert_eq!(C::widen(code) as f64, wanted, "{value:e}");
            assert_eq!(C::widen(code).is_sign_negative(), bits >> 31 == 1);
            if value.abs() <= C::GREATEST {
                assert_eq!(C::cast_small(value), code, "{value:e}");
            }
        }
        for code in 0..2 * sign {
            let value = C::widen(code);
            assert!(!value.is_finite() || C::cast(value) == code, "{code:x}");
        }
    }

    #[test]
    fn casts_give_the_nearest_number_whatever_the_float_mode() {
        check::<E4m3>(3, -6, 0x80);
        check::<E5m6>(6, -14, 0x800);
    }

    #[test]
    fn quotients_without_a_division_have_its_bits() {
        let _mode = FloatMode::enter();
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state
        };
        for round in 0..4_000_000 {
            // Any fraction, all ones among them; the quotient runs from below half of the least code to the greatest.
            let scale_bits = if round % 64 == 0 { 0x7f_ffff } else { next() >> 9 };
            let scale = f32::from_bits((63 + next() % 128) << 23 | scale_bits).max(LEAST_DIVISOR);
            let exact = f32::from_bits(
                (127 - 12 + next() % 21) << 23
                    | if round % 3 == 0 {
                        (next() & 15) << 19
                    } else {
                        next() >> 9
                    },
            );
            // Products with a tie and their neighbours: where a last bit decides about a code.
            let x = f32::from_bits((exact * scale).to_bits().wrapping_add(next() % 5).wrapping_sub(2));
            let x = if round % 2 == 0 { x } else { -x };
            assert_eq!(
                quotient(x, scale, 1.0 / scale).to_bits(),
                (x / scale).to_bits(),
                "{x:e} / {scale:e}"
            );
        }
        assert_eq!(quotient(-0.0, 3.0, 1.0 / 3.0).to_bits(), (-0.0f32).to_bits());
    }

    #[test]
    fn numbers_halfway_between_two_codes_go_to_the_even_one() {
        for code in 0..0x7e {
            let middle = (E4m3::widen(code) + E4m3::widen(code + 1)) / 2.0;
            assert_eq!(E4m3::cast(middle), code + code % 2);
        }
        for code in 0..0x7bf {
            let middle = (E5m6::widen(code) + E5m6::widen(code + 1)) / 2.0;
            assert_eq!(E5m6::cast(middle), code + code % 2);
        }
    }

    #[test]
    fn a_scale_is_the_greatest_over_the_formats_greatest_or_the_next_power_of_two() {
        let rule = |power_of_two, floor| Rule { power_of_two, floor };
        assert_eq!(rule(false, 0.0).scale::<E4m3>(7.0), 7.0 / 448.0);
        assert_eq!(rule(true, 0.0).scale::<E4m3>(7.0), 2f32.powi(-6));
        assert_eq!(rule(true, 0.0).scale::<E4m3>(7.000_000_5), 2f32.powi(-5));
        assert_eq!(rule(false, 1e-4).scale::<E5m6>(0.0), 1e-4 / 65024.0);
        assert_eq!(rule(false, 0.0).scale::<E4m3>(1e-30), 1.0);
        assert!(rule(false, 1e-4).scale::<E4m3>(f32::NAN).is_nan());
        assert!(rule(true, 1e-4).scale::<E4m3>(f32::INFINITY).is_nan());
    }
}
