//! E4M3 codes as bf16, which holds each of them exactly: 1-4-3 with bias 7, subnormals in steps of 2^-9, NaN 0x7f, no infinity.
//!
//! Subnormal codes become normal numbers: nothing here depends on denormals, which the pool's threads flush.

use crate::bf16::{self, Element};
use crate::fp8::codec::{self, Code};
#[cfg(target_arch = "x86_64")]
use crate::gemm::pack_tiles::Load;
use crate::isa::Isa;
use crate::{by_isa, isa_twins};

use super::super::micro::PANEL;

/// A stored E4M3 number; packers read it as they read bf16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct E4m3(pub u8);

impl E4m3 {
    /// The same bytes as codes.
    pub fn of(bytes: &[u8]) -> &[E4m3] {
        // SAFETY: the same size and alignment; every byte is a code.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
    }
}

impl Element for E4m3 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        bf16::to_f32(self.to_bf16())
    }

    #[inline(always)]
    fn from_f32(value: f32) -> E4m3 {
        E4m3(codec::E4m3::cast(value) as u8)
    }

    #[inline(always)]
    fn to_bf16(self) -> u16 {
        bf16_of(self.0)
    }
}

/// The bf16 bits of a code: exact, so that the lower half of its f32 is zero.
#[inline(always)]
fn bf16_of(code: u8) -> u16 {
    (codec::E4m3::widen(u32::from(code)).to_bits() >> 16) as u16
}

/// Writes lines `from..from + out / 32` of a panel of `k` inputs as pairs of bf16; zeros behind k, whatever lies there.
pub fn decode_lines(isa: Isa, panel: &[E4m3], k: usize, from: usize, out: &mut [u32]) {
    let lines = out.len() / PANEL;
    // Whole pairs; an odd k leaves half a pair, whose other half is padding.
    let whole = (k / 2).saturating_sub(from).min(lines);
    let (written, rest) = out.split_at_mut(whole * PANEL);
    let at = from * 2 * PANEL;
    let codes = &panel[at.min(panel.len())..];
    let codes = &codes[..whole * 2 * PANEL];
    #[cfg(target_arch = "x86_64")]
    if isa <= Isa::Avx512Bf16 {
        // SAFETY: the processor has the features.
        unsafe { wide::decode(codes, written) };
    } else {
        by_isa!(isa, decode_all(codes, written));
    }
    #[cfg(not(target_arch = "x86_64"))]
    by_isa!(isa, decode_all(codes, written));
    rest.fill(0);
    if k % 2 == 1 && (from..from + lines).contains(&(k / 2)) {
        let line = &panel[k / 2 * 2 * PANEL..][..2 * PANEL];
        for (word, pair) in rest.iter_mut().zip(line.chunks_exact(2)) {
            *word = u32::from(pair[0].to_bf16());
        }
    }
}

isa_twins! {
    fn decode_all(codes: &[E4m3], out: &mut [u32]) {
        for i in 0..out.len() {
            out[i] = u32::from(bf16_of(codes[2 * i].0)) | u32::from(bf16_of(codes[2 * i + 1].0)) << 16;
        }
    }
}

/// The same by tables in registers, looked up by the seven bits of the magnitude.
#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::*;

    use super::{E4m3, Load, PANEL};

    #[repr(align(64))]
    struct Table<T>(T);

    static WORDS: Table<[u16; 128]> = words();
    static LOW: Table<[u8; 128]> = bytes(0);
    static HIGH: Table<[u8; 128]> = bytes(8);

    const fn words() -> Table<[u16; 128]> {
        let mut table = [0; 128];
        let mut magnitude: u32 = 0;
        while magnitude < 128 {
            table[magnitude as usize] = match magnitude {
                0 => 0,
                1..8 => {
                    let highest = magnitude.ilog2();
                    (118 + highest) << 7 | (magnitude << (7 - highest) & 0x7f)
                }
                0x7f => 0x7fc0,
                _ => (magnitude << 4) + 0x3c00,
            } as u16;
            magnitude += 1;
        }
        Table(table)
    }

    const fn bytes(shift: u32) -> Table<[u8; 128]> {
        let words = words().0;
        let mut table = [0; 128];
        let mut magnitude = 0;
        while magnitude < 128 {
            table[magnitude] = (words[magnitude] >> shift) as u8;
            magnitude += 1;
        }
        Table(table)
    }

    /// # Safety
    /// The processor has AVX-512 with VBMI.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
    pub unsafe fn decode(codes: &[E4m3], out: &mut [u32]) {
        assert!(codes.len() >= 2 * out.len(), "two codes a word");
        // SAFETY: tables of 128 bytes; 64 codes become 64 bf16.
        unsafe {
            let table = |bytes: &Table<[u8; 128]>| {
                let at = bytes.0.as_ptr();
                (_mm512_load_si512(at.cast()), _mm512_load_si512(at.add(64).cast()))
            };
            let (lows, highs) = (table(&LOW), table(&HIGH));
            let sign = _mm512_set1_epi8(-128);
            // Unpacking works inside lanes of 128 bits: lane l takes codes 8 l .. 8 l + 8 and 32 + 8 l .. 32 + 8 l + 8.
            let spread = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
            for line in 0..out.len() / PANEL {
                let codes = _mm512_loadu_si512(codes.as_ptr().add(line * 2 * PANEL).cast());
                let codes = _mm512_permutexvar_epi64(spread, codes);
                let low = _mm512_permutex2var_epi8(lows.0, codes, lows.1);
                let high = _mm512_permutex2var_epi8(highs.0, codes, highs.1);
                // high | (codes & sign)
                let high = _mm512_ternarylogic_epi64::<0xf8>(high, codes, sign);
                let to = out.as_mut_ptr().add(line * PANEL);
                _mm512_storeu_si512(to.cast(), _mm512_unpacklo_epi8(low, high));
                _mm512_storeu_si512(to.add(PANEL / 2).cast(), _mm512_unpackhi_epi8(low, high));
            }
        }
    }

    impl Load for E4m3 {
        // Without VBMI, which the packers' other elements do not ask for.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        unsafe fn load(from: *const E4m3, mask: u32) -> __m512i {
            // SAFETY: by the contract; masked loads touch nothing else. The table has 128 words.
            unsafe {
                let words = |at: usize| _mm512_load_si512(WORDS.0.as_ptr().add(at).cast());
                let codes = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(mask, from.cast()));
                let below_two = _mm512_permutex2var_epi16(words(0), codes, words(32));
                let above = _mm512_permutex2var_epi16(words(64), codes, words(96));
                let is_above = _mm512_test_epi16_mask(codes, _mm512_set1_epi16(0x40));
                let magnitude = _mm512_mask_blend_epi16(is_above, below_two, above);
                let sign = _mm512_set1_epi16(i16::MIN);
                // magnitude | (codes << 8 & sign)
                _mm512_ternarylogic_epi64::<0xf8>(magnitude, _mm512_slli_epi16::<8>(codes), sign)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::FloatMode;

    /// By the definition of the format.
    fn value(code: u8) -> f64 {
        let (exponent, mantissa) = (i32::from(code >> 3 & 15), f64::from(code & 7));
        let magnitude = match (code & 0x7f, exponent) {
            (0x7f, _) => f64::NAN,
            (_, 0) => mantissa * 2f64.powi(-9),
            _ => (8.0 + mantissa) * 2f64.powi(exponent - 10),
        };
        if code & 0x80 != 0 { -magnitude } else { magnitude }
    }

    #[test]
    fn every_code_is_its_value_on_every_instruction_set_denormals_flushed() {
        let _flush = FloatMode::enter();
        let codes: Vec<E4m3> = (0..=255).map(E4m3).collect();
        for isa in Isa::usable() {
            let mut words = [0; 128];
            decode_lines(isa, &codes, 8, 0, &mut words);
            for (code, half) in words
                .iter()
                .flat_map(|word| [*word as u16, (*word >> 16) as u16])
                .enumerate()
            {
                let (actual, wanted) = (f64::from(bf16::to_f32(half)), value(code as u8));
                assert!(
                    actual.to_bits() == wanted.to_bits() || (actual.is_nan() && wanted.is_nan()),
                    "code {code} is {actual} on {isa}"
                );
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_packers_load_the_same_values() {
        if !Isa::Avx512Bf16.available() {
            return;
        }
        for code in (0..=255u8).step_by(32) {
            let codes: Vec<E4m3> = (code..=code + 31).map(E4m3).collect();
            for count in [32, 17, 0] {
                let mask = ((1u64 << count) - 1) as u32;
                // SAFETY: the processor has the features.
                let line = unsafe { E4m3::load(codes.as_ptr(), mask) };
                let loaded = unsafe { std::mem::transmute::<std::arch::x86_64::__m512i, [u16; 32]>(line) };
                for (i, value) in loaded.iter().enumerate() {
                    assert_eq!(*value, if i < count { codes[i].to_bf16() } else { 0 });
                }
            }
        }
    }

    #[test]
    fn lines_behind_k_and_the_half_pair_of_an_odd_k_are_zeros_whatever_lies_there() {
        for isa in Isa::usable() {
            for k in [1, 2, 5, 8] {
                let panel = vec![E4m3(0x7f); usize::next_multiple_of(k, 2) * PANEL];
                let mut words = vec![1; 16 * PANEL];
                decode_lines(isa, &panel, k, 0, &mut words);
                for (i, word) in words.iter().enumerate() {
                    let pair = i / PANEL;
                    let half = |there: bool| if there { 0x7fc0 } else { 0 };
                    assert_eq!(
                        *word,
                        half(2 * pair < k) | half(2 * pair + 1 < k) << 16,
                        "K {k}, {isa}"
                    );
                }
                decode_lines(isa, &panel, k, 8, &mut words);
                assert!(words.iter().all(|word| *word == 0));
            }
        }
    }
}
