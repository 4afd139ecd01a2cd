//! What 512-bit registers of bf16 are put through on their way into the packed forms of products: neighbours in memory
//! become pairs, rows become columns.

use std::arch::x86_64::*;

use super::micro::{PANEL, RUN};

/// Turns a square of 16 x 16 words.
///
/// # Safety
/// The processor has AVX-512 with BF16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub fn turn(rows: [__m512i; RUN]) -> [__m512i; RUN] {
    let mut a = rows;
    for i in 0..8 {
        a[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    // Now a[4 g + 2 h + ...]: pairs of rows; next, quadruples: b[4 g + c] holds words c of each lane of rows 4 g ..
    let mut b = a;
    for g in 0..4 {
        b[4 * g] = _mm512_unpacklo_epi64(a[4 * g], a[4 * g + 2]);
        b[4 * g + 1] = _mm512_unpackhi_epi64(a[4 * g], a[4 * g + 2]);
        b[4 * g + 2] = _mm512_unpacklo_epi64(a[4 * g + 1], a[4 * g + 3]);
        b[4 * g + 3] = _mm512_unpackhi_epi64(a[4 * g + 1], a[4 * g + 3]);
    }
    // Lane l of b[4 g + c] is column 4 l + c of rows 4 g .. 4 g + 4: lanes are what is left to turn.
    let mut turned = b;
    for c in 0..4 {
        let (p, q, r, s) = (b[c], b[4 + c], b[8 + c], b[12 + c]);
        let even_low = _mm512_shuffle_i32x4::<0x88>(p, q);
        let odd_low = _mm512_shuffle_i32x4::<0xdd>(p, q);
        let even_high = _mm512_shuffle_i32x4::<0x88>(r, s);
        let odd_high = _mm512_shuffle_i32x4::<0xdd>(r, s);
        turned[c] = _mm512_shuffle_i32x4::<0x88>(even_low, even_high);
        turned[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd_low, odd_high);
        turned[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even_low, even_high);
        turned[12 + c] = _mm512_shuffle_i32x4::<0xdd>(odd_low, odd_high);
    }
    turned
}

/// Of an even and an odd row of 32 numbers the line of 32 pairs, as two halves.
///
/// # Safety
/// As `turn`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub fn pairs(even: __m512i, odd: __m512i) -> [__m512i; 2] {
    // Unpacking works inside lanes of 128 bits: a has lanes 0 2 4 6, b lanes 1 3 5 7 of the result.
    let a = _mm512_unpacklo_epi16(even, odd);
    let b = _mm512_unpackhi_epi16(even, odd);
    let low = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
    let high = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    [
        _mm512_permutex2var_epi64(a, low, b),
        _mm512_permutex2var_epi64(a, high, b),
    ]
}

/// Which of 32 numbers `unpacklo` brings to pair `word`; `unpackhi` brings the one four further.
pub const fn unpacked(word: usize) -> usize {
    word / 4 * 8 + word % 4
}

/// Sixteen pairs of rows of 32 numbers, turned: the first `columns` columns as lines of sixteen pairs, one after another.
///
/// # Safety
/// As `turn`; `to` has room for `columns` lines.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn store_columns(rows: impl Fn(usize) -> (__m512i, __m512i), columns: usize, to: *mut u32) {
    let mut low = [_mm512_setzero_si512(); RUN];
    let mut high = low;
    for pair in 0..RUN {
        let (even, odd) = rows(pair);
        low[pair] = _mm512_unpacklo_epi16(even, odd);
        high[pair] = _mm512_unpackhi_epi16(even, odd);
    }
    for (lines, shift) in [(turn(low), 0), (turn(high), 4)] {
        for (word, line) in lines.into_iter().enumerate() {
            let column = unpacked(word) + shift;
            if column < columns {
                debug_assert!(columns <= PANEL);
                // SAFETY: by the contract.
                unsafe { _mm512_storeu_si512(to.add(column * RUN).cast(), line) };
            }
        }
    }
}
