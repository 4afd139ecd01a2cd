//! Up to 128 neighbours of a row between numbers and codes: what all quantisers do inside a tile.
//!
//! Codes of E5M6 are made as words first and then packed, two in three bytes.

use super::codec::{Code, E4m3, E5m6, LEAST_DIVISOR, TILE, quotient};
use crate::bf16::Element;

/// A format that segments of rows are written in and read from.
pub trait Stored: Code {
    /// Writes the codes of x times or through `by`. With `SMALL`, no quotient is greater than the format's greatest.
    fn write<T: Element, const SMALL: bool>(x: &[T], by: Scaling, codes: &mut [u8]);
    /// Reads as many numbers as `values` has places.
    fn read(codes: &[u8], values: &mut [f32]);
}

/// How numbers are scaled before they are cast.
#[derive(Clone, Copy)]
pub enum Scaling {
    DivideBy(f32),
    /// The same quotient by way of the reciprocal: quotients are no greater than the format's greatest.
    Corrected {
        scale: f32,
        reciprocal: f32,
    },
    /// The reciprocal of a power of two: exact, so that the product has the quotient's bits.
    Times(f32),
}

impl Scaling {
    #[inline(always)]
    pub fn of<const SMALL: bool>(scale: f32, power_of_two: bool) -> Scaling {
        let reciprocal = 1.0 / scale;
        if power_of_two {
            Scaling::Times(reciprocal)
        } else if SMALL && scale >= LEAST_DIVISOR {
            Scaling::Corrected { scale, reciprocal }
        } else {
            Scaling::DivideBy(scale)
        }
    }
}

#[inline(always)]
fn code_of<C: Code, const SMALL: bool>(quotient: f32) -> u32 {
    if SMALL {
        C::cast_small(quotient)
    } else {
        C::cast(quotient)
    }
}

impl Stored for E4m3 {
    #[inline(always)]
    fn write<T: Element, const SMALL: bool>(x: &[T], by: Scaling, codes: &mut [u8]) {
        let codes = &mut codes[..x.len()];
        match by {
            Scaling::DivideBy(scale) => {
                for i in 0..x.len() {
                    codes[i] = code_of::<E4m3, SMALL>(x[i].to_f32() / scale) as u8;
                }
            }
            Scaling::Corrected { scale, reciprocal } => {
                for i in 0..x.len() {
                    codes[i] = E4m3::cast_small(quotient(x[i].to_f32(), scale, reciprocal)) as u8;
                }
            }
            Scaling::Times(factor) => {
                for i in 0..x.len() {
                    codes[i] = code_of::<E4m3, SMALL>(x[i].to_f32() * factor) as u8;
                }
            }
        }
    }

    #[inline(always)]
    fn read(codes: &[u8], values: &mut [f32]) {
        let codes = &codes[..values.len()];
        for i in 0..values.len() {
            values[i] = E4m3::widen(codes[i] as u32);
        }
    }
}

impl Stored for E5m6 {
    #[inline(always)]
    fn write<T: Element, const SMALL: bool>(x: &[T], by: Scaling, codes: &mut [u8]) {
        let mut words = [0u16; TILE];
        let words = &mut words[..x.len()];
        match by {
            Scaling::DivideBy(scale) => {
                for i in 0..x.len() {
                    words[i] = code_of::<E5m6, SMALL>(x[i].to_f32() / scale) as u16;
                }
            }
            Scaling::Corrected { scale, reciprocal } => {
                for i in 0..x.len() {
                    words[i] = E5m6::cast_small(quotient(x[i].to_f32(), scale, reciprocal)) as u16;
                }
            }
            Scaling::Times(factor) => {
                for i in 0..x.len() {
                    words[i] = code_of::<E5m6, SMALL>(x[i].to_f32() * factor) as u16;
                }
            }
        }
        let codes = &mut codes[..E5m6::bytes(x.len())];
        for i in 0..x.len() / 2 {
            let (a, b) = (words[2 * i], words[2 * i + 1]);
            codes[3 * i] = a as u8;
            codes[3 * i + 1] = (a >> 8) as u8 | (b << 4) as u8;
            codes[3 * i + 2] = (b >> 4) as u8;
        }
    }

    #[inline(always)]
    fn read(codes: &[u8], values: &mut [f32]) {
        let mut words = [0u16; TILE];
        let words = &mut words[..values.len()];
        let codes = &codes[..E5m6::bytes(values.len())];
        for i in 0..values.len() / 2 {
            let (low, middle, high) = (codes[3 * i], codes[3 * i + 1], codes[3 * i + 2]);
            words[2 * i] = low as u16 | (middle as u16 & 15) << 8;
            words[2 * i + 1] = (middle >> 4) as u16 | (high as u16) << 4;
        }
        for i in 0..values.len() {
            values[i] = E5m6::widen(words[i] as u32);
        }
    }
}

/// x / scale for a segment, as codes: NaN throughout if the scale is.
#[inline(always)]
pub fn quantize<T: Element, C: Stored, const SMALL: bool>(
    x: &[T],
    scale: f32,
    power_of_two: bool,
    codes: &mut [u8],
) {
    if scale.is_nan() {
        C::write::<f32, false>(&[f32::NAN; TILE][..x.len()], Scaling::DivideBy(1.0), codes);
    } else {
        C::write::<T, SMALL>(x, Scaling::of::<SMALL>(scale, power_of_two), codes);
    }
}
