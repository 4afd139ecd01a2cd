//! Packing for AMX: rows, turned columns and token panels as pairs of bf16, by 512-bit registers. `pack.rs` is the
//! plain twin.
//!
//! f32 is rounded by `vcvtne2ps2bf16`, which takes denormals for zero, as the products do.

use std::arch::x86_64::*;

use super::micro::amx::packed_rows as slots;
use super::micro::{AMX_ROWS, PANEL, RUN};
use super::pack::Rows;
use super::tiles;
use crate::bf16::Element;

/// Elements of a line: sixteen pairs.
const LINE: usize = 2 * RUN;

/// Rows that are asked for ahead: gathered ones may lie anywhere.
const AHEAD: usize = 4;

/// An element of which 32 can be loaded as bf16.
pub trait Load: Element {
    /// The elements whose bits are set in `mask`, zeros for the others.
    ///
    /// # Safety
    /// The processor has AVX-512 with BF16; the masked elements can be read.
    unsafe fn load(from: *const Self, mask: u32) -> __m512i;
}

impl Load for u16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn load(from: *const u16, mask: u32) -> __m512i {
        // SAFETY: by the contract.
        unsafe { _mm512_maskz_loadu_epi16(mask, from.cast()) }
    }
}

impl Load for f32 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn load(from: *const f32, mask: u32) -> __m512i {
        // SAFETY: by the contract; masked loads touch nothing else.
        unsafe {
            let low = _mm512_maskz_loadu_ps(mask as u16, from);
            let high = _mm512_maskz_loadu_ps((mask >> 16) as u16, from.wrapping_add(16));
            std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
        }
    }
}

fn mask_of(elements: usize) -> u32 {
    if elements >= 32 {
        u32::MAX
    } else {
        (1 << elements) - 1
    }
}

/// Packs `rows` rows of `k` elements as tiles: `[tile][k / 32][16 or 32 rows][16]` words, zeros behind K.
///
/// # Safety
/// The processor has AVX-512 with BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn pack_rows<T: Load>(x: &[T], at: Rows, rows: usize, k: usize, out: &mut [u32]) {
    let runs = k.div_ceil(LINE);
    assert!(
        out.len() >= tiles::packed_words(rows, runs * RUN),
        "room for packed rows"
    );
    if runs == 0 {
        return;
    }
    for row in 0..rows {
        let first = row / AMX_ROWS * AMX_ROWS;
        let height = slots((rows - first).min(AMX_ROWS));
        let next = x.as_ptr().wrapping_add(at.start((row + AHEAD).min(rows - 1)));
        let x = &x[at.start(row)..at.start(row) + k];
        let to = &mut out[first * runs * RUN + (row - first) * RUN..];
        for run in 0..runs {
            // SAFETY: inside the row; inside `out` by the assertion.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(run * LINE).cast());
                let line = T::load(x.as_ptr().add(run * LINE), mask_of(k - run * LINE));
                _mm512_storeu_si512(to.as_mut_ptr().add(run * height * RUN).cast(), line);
            }
        }
    }
}

/// Packs `columns` columns over `tokens` rows as tiles, a column as a row of A; zeros behind the last token.
///
/// # Safety
/// As `pack_rows`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn pack_columns<T: Load>(x: &[T], at: Rows, tokens: usize, columns: usize, out: &mut [u32]) {
    let runs = tokens.div_ceil(LINE);
    assert!(
        out.len() >= tiles::packed_words(columns, runs * RUN),
        "room for packed columns"
    );
    // Tokens outside, so that rows are read from one end to the other.
    for run in 0..runs {
        for first in (0..columns).step_by(PANEL) {
            let width = (columns - first).min(PANEL);
            let to = out[first * runs * RUN + run * slots(width) * RUN..].as_mut_ptr();
            // SAFETY: rows are checked where they are read; the tile has `runs` times `slots(width)` lines.
            unsafe {
                let mut low = [_mm512_setzero_si512(); RUN];
                let mut high = low;
                for pair in 0..RUN {
                    let (even, odd) = load_pair(x, at.shift(first), run * RUN + pair, tokens, width);
                    low[pair] = _mm512_unpacklo_epi16(even, odd);
                    high[pair] = _mm512_unpackhi_epi16(even, odd);
                }
                // Interleaving works inside lanes of 128 bits: the low halves hold columns 0..4, 8..12, and so on.
                store_turned(turn(low), 0, width, to);
                store_turned(turn(high), 4, width, to);
            }
        }
    }
}

/// Packs `columns` columns over `tokens` rows as panels: `[panel][pair][32]` words, zeros behind the last token, up to
/// a multiple of 16 pairs.
///
/// # Safety
/// As `pack_rows`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn pack_panels<T: Load>(x: &[T], at: Rows, tokens: usize, columns: usize, out: &mut [u32]) {
    let pairs = tokens.div_ceil(LINE) * RUN;
    assert!(
        out.len() >= columns.div_ceil(PANEL) * pairs * PANEL,
        "room for packed panels"
    );
    let (low, high) = interleaving();
    for pair in 0..pairs {
        for first in (0..columns).step_by(PANEL) {
            // SAFETY: rows are checked where they are read; `out` has room by the assertion.
            unsafe {
                let (even, odd) = load_pair(x, at.shift(first), pair, tokens, (columns - first).min(PANEL));
                let to = out.as_mut_ptr().add(first * pairs + pair * PANEL);
                _mm512_storeu_si512(to.cast(), _mm512_permutex2var_epi16(even, low, odd));
                _mm512_storeu_si512(to.add(16).cast(), _mm512_permutex2var_epi16(even, high, odd));
            }
        }
    }
}

/// The first `columns` elements of tokens `2 * pair` and `2 * pair + 1`, zeros where there is no such token. Asks for
/// the same columns 32 tokens ahead: rows are longer than what is read of them, so the processor does not guess them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn load_pair<T: Load>(
    x: &[T],
    at: Rows,
    pair: usize,
    tokens: usize,
    columns: usize,
) -> (__m512i, __m512i) {
    let row = |token: usize| {
        if token >= tokens {
            return _mm512_setzero_si512();
        }
        if token + LINE < tokens {
            _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().wrapping_add(at.start(token + LINE)).cast());
        }
        let row = &x[at.start(token)..at.start(token) + columns];
        // SAFETY: `columns` elements are there.
        unsafe { T::load(row.as_ptr(), mask_of(columns)) }
    };
    (row(2 * pair), row(2 * pair + 1))
}

/// Writes 32 tokens' rows of 32 columns as `pack_columns` would: the columns as 32 rows of A.
///
/// # Safety
/// As `pack_rows`; `to` has room for 512 words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn store_columns(tokens: &[__m512i; LINE], to: *mut u32) {
    let mut low = [_mm512_setzero_si512(); RUN];
    let mut high = low;
    for pair in 0..RUN {
        low[pair] = _mm512_unpacklo_epi16(tokens[2 * pair], tokens[2 * pair + 1]);
        high[pair] = _mm512_unpackhi_epi16(tokens[2 * pair], tokens[2 * pair + 1]);
    }
    // SAFETY: by the contract.
    unsafe {
        store_turned(turn(low), 0, PANEL, to);
        store_turned(turn(high), 4, PANEL, to);
    }
}

/// Line `4 * lane + i` of `turned` belongs to column `8 * lane + i + shift`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn store_turned(turned: [__m512i; RUN], shift: usize, columns: usize, to: *mut u32) {
    for (line, words) in turned.into_iter().enumerate() {
        let column = line / 4 * 8 + line % 4 + shift;
        if column < columns {
            // SAFETY: every column has a line of 16 words.
            unsafe { _mm512_storeu_si512(to.add(column * RUN).cast(), words) };
        }
    }
}

/// Rounds a tile of 32 floats a row: a line of 16 pairs for each row that `out` has room for.
///
/// # Safety
/// The processor has AVX-512 with BF16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub fn round_rows(tile: &[f32], out: &mut [u32]) {
    let rows = out.len() / RUN;
    assert!(tile.len() >= rows * PANEL, "a tile of that size");
    for row in 0..rows {
        // SAFETY: inside the tile (asserted) and `out`.
        unsafe {
            let line = f32::load(tile.as_ptr().add(row * PANEL), u32::MAX);
            _mm512_storeu_si512(out.as_mut_ptr().add(row * RUN).cast(), line);
        }
    }
}

/// The same tile as a block of a panel: a line of 32 pairs of each two rows, zeros behind the last of `rows`.
///
/// # Safety
/// The processor has AVX-512 with BF16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub fn pair_rows(tile: &[f32], rows: usize, out: &mut [u32]) {
    assert!(
        tile.len() >= rows * PANEL && out.len() == RUN * PANEL,
        "tiles of that size"
    );
    let (low, high) = interleaving();
    for pair in 0..RUN {
        // SAFETY: inside the tile and `out` (asserted).
        unsafe {
            let (even, odd) = (line_of(tile, 2 * pair, rows), line_of(tile, 2 * pair + 1, rows));
            let to = out.as_mut_ptr().add(pair * PANEL);
            _mm512_storeu_si512(to.cast(), _mm512_permutex2var_epi16(even, low, odd));
            _mm512_storeu_si512(to.add(RUN).cast(), _mm512_permutex2var_epi16(even, high, odd));
        }
    }
}

/// Its transpose as a block of a panel: of each two columns a line of 32 pairs, zeros behind the last of `rows`.
///
/// # Safety
/// The processor has AVX-512 with BF16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub fn pair_columns(tile: &[f32], rows: usize, out: &mut [u32]) {
    assert!(
        tile.len() >= rows * PANEL && out.len() == RUN * PANEL,
        "tiles of that size"
    );
    for half in [0, RUN] {
        let mut lines = [_mm512_setzero_si512(); RUN];
        for (i, line) in lines.iter_mut().enumerate() {
            // SAFETY: the tile has `rows` rows (asserted).
            *line = unsafe { line_of(tile, half + i, rows) };
        }
        for (pair, line) in turn(lines).into_iter().enumerate() {
            // SAFETY: sixteen lines of 32 words (asserted).
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(pair * PANEL + half).cast(), line) };
        }
    }
}

/// A row of a tile, rounded; zeros if it is behind the last.
///
/// # Safety
/// The tile has `rows` rows of 32 floats.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn line_of(tile: &[f32], row: usize, rows: usize) -> __m512i {
    if row >= rows {
        return _mm512_setzero_si512();
    }
    // SAFETY: by the contract.
    unsafe { f32::load(tile.as_ptr().add(row * PANEL), u32::MAX) }
}

/// The orders that make, of an even and an odd row, the first and the second half of a line of pairs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn interleaving() -> (__m512i, __m512i) {
    let order = |half: i16| {
        let index: [i16; 32] = std::array::from_fn(|i| half * 16 + (i / 2) as i16 + 32 * (i % 2) as i16);
        // SAFETY: 64 bytes each.
        unsafe { std::mem::transmute::<[i16; 32], __m512i>(index) }
    };
    (order(0), order(1))
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16;
    use crate::gemm::micro::{AForm, Arithmetic};
    use crate::gemm::pack;
    use crate::isa::Isa;

    const PLAIN: Isa = Isa::Portable;

    fn can_pack() -> bool {
        let can = Isa::Avx512Bf16.available();
        if !can {
            println!("this processor has no AVX-512 with BF16: nothing to compare");
        }
        can
    }

    fn noise(len: usize) -> Vec<f32> {
        (0..len)
            .map(|i| ((i * 7919) % 2003) as f32 / 701.5 - 1.4)
            .collect()
    }

    /// Both dtypes of the same numbers, packed by `pack`, must be what `plain` packs.
    fn check(
        len: usize,
        out: usize,
        plain: impl Fn(&[f32], &mut [u32]),
        f32s: impl Fn(&[f32], &mut [u32]),
        u16s: impl Fn(&[u16], &mut [u32]),
    ) {
        let x = noise(len);
        let narrow: Vec<u16> = x.iter().map(|v| bf16::from_f32(*v)).collect();
        let (mut right, mut from_f32, mut from_bf16) = (vec![0; out], vec![0; out], vec![0; out]);
        plain(&x, &mut right);
        f32s(&x, &mut from_f32);
        u16s(&narrow, &mut from_bf16);
        assert!(
            right == from_f32 && right == from_bf16,
            "{len} numbers into {out} words"
        );
    }

    #[test]
    fn rows_are_packed_as_the_plain_twin_packs_whole_tiles() {
        if !can_pack() {
            return;
        }
        for (rows, k) in [(16, 1), (32, 40), (64, 96), (48, 33)] {
            let at = Rows::Even {
                start: 3,
                stride: k + 5,
            };
            let plain = |x: &[f32], out: &mut [u32]| {
                let words = pack::packed_rows_words(AForm::Pairs, 1, k);
                for first in (0..rows).step_by(AMX_ROWS) {
                    let height = (rows - first).min(AMX_ROWS);
                    pack::pack_rows(
                        PLAIN,
                        AForm::Pairs,
                        x,
                        at.skip(first),
                        height,
                        k,
                        &mut out[first * words..],
                    );
                }
            };
            // SAFETY: the processor has AVX-512 with BF16.
            check(
                3 + rows * (k + 5),
                tiles::packed_words(rows, k.div_ceil(2)),
                plain,
                |x, out| unsafe { pack_rows(x, at, rows, k, out) },
                |x, out| unsafe { pack_rows(x, at, rows, k, out) },
            );
        }
    }

    #[test]
    fn columns_are_packed_as_the_rows_of_the_transpose() {
        if !can_pack() {
            return;
        }
        for (tokens, columns) in [(1, 16), (31, 32), (64, 80), (33, 48)] {
            let stride = columns + 3;
            let at = Rows::Even { start: 2, stride };
            let plain = |x: &[f32], out: &mut [u32]| {
                let turned: Vec<f32> = (0..columns * tokens)
                    .map(|i| x[2 + i % tokens * stride + i / tokens])
                    .collect();
                let at = Rows::Even {
                    start: 0,
                    stride: tokens,
                };
                // SAFETY: the processor has AVX-512 with BF16.
                unsafe { pack_rows(&turned, at, columns, tokens, out) };
            };
            // SAFETY: the processor has AVX-512 with BF16.
            check(
                2 + tokens * stride,
                tiles::packed_words(columns, tokens.div_ceil(2)),
                plain,
                |x, out| unsafe { pack_columns(x, at, tokens, columns, out) },
                |x, out| unsafe { pack_columns(x, at, tokens, columns, out) },
            );
        }
    }

    #[test]
    fn rows_in_registers_are_turned_as_the_columns_of_memory_are() {
        if !can_pack() {
            return;
        }
        let x: Vec<u16> = noise(LINE * PANEL).iter().map(|v| bf16::from_f32(*v)).collect();
        let at = Rows::Even {
            start: 0,
            stride: PANEL,
        };
        let (mut right, mut turned) = (vec![0; RUN * PANEL], vec![0; RUN * PANEL]);
        // SAFETY: the processor has AVX-512 with BF16; 32 rows of 32 numbers, as many words for their pairs.
        unsafe {
            pack_columns(&x, at, LINE, PANEL, &mut right);
            let mut lines = [_mm512_setzero_si512(); LINE];
            for (token, line) in lines.iter_mut().enumerate() {
                *line = _mm512_loadu_si512(x.as_ptr().add(token * PANEL).cast());
            }
            store_columns(&lines, turned.as_mut_ptr());
        }
        assert!(turned == right);
    }

    #[test]
    fn panels_are_packed_as_the_plain_twin_packs_them_with_zeros_behind() {
        if !can_pack() {
            return;
        }
        for (tokens, columns) in [(1usize, 1usize), (31, 32), (64, 80), (33, 47)] {
            let at = Rows::Even {
                start: 1,
                stride: columns + 3,
            };
            let words = tokens.div_ceil(LINE) * RUN * PANEL;
            let plain = |x: &[f32], out: &mut [u32]| {
                for (panel, out) in out.chunks_exact_mut(words).enumerate() {
                    let width = (columns - panel * PANEL).min(PANEL);
                    pack::pack_token_panel(
                        PLAIN,
                        Arithmetic::Bf16,
                        x,
                        at.shift(panel * PANEL),
                        tokens,
                        width,
                        out,
                    );
                }
            };
            // SAFETY: the processor has AVX-512 with BF16.
            check(
                1 + tokens * (columns + 3),
                columns.div_ceil(PANEL) * words,
                plain,
                |x, out| unsafe { pack_panels(x, at, tokens, columns, out) },
                |x, out| unsafe { pack_panels(x, at, tokens, columns, out) },
            );
        }
    }
}
