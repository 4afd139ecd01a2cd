//! E4M3 and E5M6, and the scale of a tile: the integer steps that every quantiser shares.
//!
//! contract   src/tensor/fp8.ts: the same codes and scales, bit for bit
//! why so     E4M3 numbers below 2^-6 and E5M6 numbers below 2^-14 are denormal in their formats, but normal in f32:
//!            adding a power of two rounds them to their steps, and no denormal f32 is ever made, because the
//!            pool's threads flush those

/// Numbers along one side of a tile.
pub const TILE: usize = 128;

/// Below it a tile scales like zeros: its scale, or what is read with it, could be denormal.
const LEAST_AMAX: f32 = f32::from_bits((127 - 80) << 23);

/// How a small float is coded. `cast` and `widen` are loops' bodies: no branch, so that they become vector code.
pub trait Code: Copy + Send + Sync + 'static {
    const GREATEST: f32;
    /// Code of NaN, without its sign.
    const NAN: u32;
    /// Nearest code, ties to even, saturating; NaN and infinities become NaN.
    fn cast(value: f32) -> u32;
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

    #[inline(always)]
    fn cast(value: f32) -> u32 {
        cast::<3, 7>(value, 0x7e, Self::NAN)
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
        cast::<6, 15>(value, 0x7bf, Self::NAN)
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

/// With `M` bits of mantissa and this bias; the sign goes above them.
#[inline(always)]
fn cast<const M: u32, const BIAS: u32>(value: f32, greatest: u32, nan: u32) -> u32 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let cut = 23 - M;
    let half = (1 << (cut - 1)) - 1;
    let rounded = magnitude.wrapping_add(half + ((magnitude >> cut) & 1)) >> cut;
    let normal = rounded.wrapping_sub((127 - BIAS) << M).min(greatest);
    // The ulp of this power of two is the step of the subnormals.
    let magic = (127 + 24 - BIAS - M) << 23;
    let subnormal = (f32::from_bits(magnitude) + f32::from_bits(magic))
        .to_bits()
        .wrapping_sub(magic);
    let finite = if magnitude < (128 - BIAS) << 23 {
        subnormal
    } else {
        normal
    };
    let code = if magnitude >= INFINITY_BITS { nan } else { finite };
    code | bits >> 31 << (nan.count_ones())
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

/// Greatest magnitude as bits: they order like the numbers, infinity and NaN above all, and denormals are not flushed.
#[inline(always)]
pub fn greatest_bits<T: crate::bf16::Element>(x: &[T], mut greatest: u32) -> u32 {
    for v in x {
        greatest = greatest.max(v.to_f32().to_bits() & 0x7fff_ffff);
    }
    greatest
}
