//! Up to 128 neighbours of a row between numbers and codes: what all quantisers do inside a tile.
//!
//! Codes of E5M6 are made as words first and then packed, two in three bytes.

use super::codec::{Code, E4m3, E5m6, TILE};
use crate::bf16::Element;

/// A format that segments of rows are written in and read from.
pub trait Stored: Code {
    /// Writes the codes of `quotients`.
    fn write(quotients: &[f32], codes: &mut [u8]);
    /// Reads as many numbers as `values` has places.
    fn read(codes: &[u8], values: &mut [f32]);
}

impl Stored for E4m3 {
    #[inline(always)]
    fn write(quotients: &[f32], codes: &mut [u8]) {
        for (code, q) in codes[..quotients.len()].iter_mut().zip(quotients) {
            *code = E4m3::cast(*q) as u8;
        }
    }

    #[inline(always)]
    fn read(codes: &[u8], values: &mut [f32]) {
        for (value, code) in values.iter_mut().zip(codes) {
            *value = E4m3::widen(*code as u32);
        }
    }
}

impl Stored for E5m6 {
    #[inline(always)]
    fn write(quotients: &[f32], codes: &mut [u8]) {
        let mut words = [0u32; TILE];
        for (word, q) in words.iter_mut().zip(quotients) {
            *word = E5m6::cast(*q);
        }
        for (pair, three) in words.chunks_exact(2).zip(codes.chunks_exact_mut(3)) {
            let bytes = (pair[0] | pair[1] << 12).to_le_bytes();
            three.copy_from_slice(&bytes[..3]);
        }
    }

    #[inline(always)]
    fn read(codes: &[u8], values: &mut [f32]) {
        let mut words = [0u32; TILE];
        for (pair, three) in words.chunks_exact_mut(2).zip(codes.chunks_exact(3)) {
            let word = u32::from_le_bytes([three[0], three[1], three[2], 0]);
            pair[0] = word & 0xfff;
            pair[1] = word >> 12;
        }
        for (value, word) in values.iter_mut().zip(&words) {
            *value = E5m6::widen(*word);
        }
    }
}

/// x / scale for a segment, as codes. The reciprocal of a power of two is exact, so that it may multiply instead.
#[inline(always)]
pub fn quantize<T: Element, C: Stored>(x: &[T], scale: f32, power_of_two: bool, codes: &mut [u8]) {
    let mut quotients = [0f32; TILE];
    let quotients = &mut quotients[..x.len()];
    if power_of_two {
        let inverse = 1.0 / scale;
        for (q, v) in quotients.iter_mut().zip(x) {
            *q = v.to_f32() * inverse;
        }
    } else {
        for (q, v) in quotients.iter_mut().zip(x) {
            *q = v.to_f32() / scale;
        }
    }
    C::write(quotients, codes);
}

/// A segment of a tile whose scale is NaN.
#[inline(always)]
pub fn all_nan<C: Stored>(len: usize, codes: &mut [u8]) {
    C::write(&[f32::NAN; TILE][..len], codes);
}
