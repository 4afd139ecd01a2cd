//! bf16 is the upper half of an f32. Rounding is to nearest even, the same integer steps on every
//! instruction set (the `vcvtneps2bf16` instruction would flush denormals, these steps keep them).

/// A stored float: `f32`, or `u16` holding bf16 bits.
pub trait Element: Copy + Send + Sync + Default + 'static {
    fn to_f32(self) -> f32;
    fn from_f32(value: f32) -> Self;
    /// bf16 bits, rounded if this is f32.
    fn to_bf16(self) -> u16;
}

impl Element for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn from_f32(value: f32) -> f32 {
        value
    }
    #[inline(always)]
    fn to_bf16(self) -> u16 {
        from_f32(self)
    }
}

impl Element for u16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        to_f32(self)
    }
    #[inline(always)]
    fn from_f32(value: f32) -> u16 {
        from_f32(value)
    }
    #[inline(always)]
    fn to_bf16(self) -> u16 {
        self
    }
}

/// Widens bf16 bits; exact.
#[inline(always)]
pub fn to_f32(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// Rounds to bf16 bits, to nearest even; NaN stays NaN (quiet, payload cut), overflow becomes infinity.
#[inline(always)]
pub fn from_f32(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet = (bits >> 16) | 0x40;
    (if value.is_nan() { quiet } else { rounded }) as u16
}

/// The nearest bf16 value, as f32.
#[inline(always)]
pub fn round(value: f32) -> f32 {
    to_f32(from_f32(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widening_then_rounding_gives_the_same_bits_for_every_bf16_that_is_no_nan() {
        for bits in 0..=u16::MAX {
            let value = to_f32(bits);
            if value.is_nan() {
                assert!(to_f32(from_f32(value)).is_nan());
            } else {
                assert_eq!(from_f32(value), bits);
            }
        }
    }

    #[test]
    fn ties_go_to_the_even_neighbour_and_everything_else_to_the_nearer_one() {
        // 1 + 2^-8 lies halfway between 1 (even) and 1 + 2^-7; 1 + 3 * 2^-8 between 1 + 2^-7 and 1 + 2^-6 (even).
        assert_eq!(round(1.0 + 2f32.powi(-8)), 1.0);
        assert_eq!(round(1.0 + 3.0 * 2f32.powi(-8)), 1.0 + 2f32.powi(-6));
        assert_eq!(round(1.0 + 2f32.powi(-8) + 2f32.powi(-20)), 1.0 + 2f32.powi(-7));
        assert_eq!(round(f32::MAX), f32::INFINITY);
        assert_eq!(round(f32::NEG_INFINITY), f32::NEG_INFINITY);
    }
}
