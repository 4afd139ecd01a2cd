//! What the quantisers refuse, before they write anything. Their numbers are held to the reference by
//! test/parity/quantize.test.ts, on every instruction set.

use super::*;
use crate::args::{Args, Ledger, Memory};
use crate::error::KernelError;
use crate::isa::Isa;
use crate::ops::Ctx;
use crate::pool::Pool;

#[repr(align(64))]
struct Page([u8; 4096]);

/// Runs a kernel on a page of zeros; `operands` are addresses and dtype codes.
fn run(name: &str, operands: &[(f64, f64)], numbers: &[f64]) -> Result<(), KernelError> {
    let words: Vec<f64> = operands
        .iter()
        .flat_map(|(at, code)| [*at, *code])
        .chain(numbers.iter().copied())
        .collect();
    let mut page = Page([0; 4096]);
    // Words at 2048: row indices 3, -1 and offsets 0, 4, 2.
    for (i, word) in [3i32, -1, 0, 4, 2].iter().enumerate() {
        page.0[2048 + 4 * i..][..4].copy_from_slice(&word.to_le_bytes());
    }
    let memory = Memory::new(&mut page.0);
    let (ledger, pool) = (Ledger::default(), Pool::new(1));
    let (_, kernel) = OPS.iter().find(|(known, _)| *known == name).expect(name);
    let ctx = Ctx::new(&pool, Isa::detect());
    kernel(&ctx, &mut Args::new(&memory, &words, &ledger))
}

const ABSENT: (f64, f64) = (-1.0, 0.0);
const X: (f64, f64) = (0.0, 0.0);
const CODES: (f64, f64) = (1024.0, 2.0);
const SCALES: (f64, f64) = (3072.0, 0.0);

#[test]
fn tiles_refuse_odd_rows_of_twelve_bit_codes_and_codes_that_lie_on_x() {
    let tiles = |codes, k: f64| {
        run(
            "quantizeTiles",
            &[X, ABSENT, codes, SCALES, ABSENT],
            &[2.0, k, 0.0, 1e-4, 1.0],
        )
    };
    assert!(tiles(CODES, 5.0).is_ok() && tiles((1024.0, 5.0), 6.0).is_ok());
    let odd = tiles((1024.0, 5.0), 5.0).unwrap_err();
    assert!(odd.message.contains("rows of 5 numbers"), "{odd}");
    assert!(tiles((0.0, 2.0), 6.0).unwrap_err().message.contains("lies on x"));
    assert_eq!(tiles((1024.0, 1.0), 6.0).unwrap_err().param, Some("codes"));
}

#[test]
fn columns_refuse_groups_and_rows_that_are_none_and_scales_that_do_not_fit() {
    let numbers = |g: f64, columns: f64| [2.0, 6.0, g, 0.0, 0.0, columns];
    let columns = |x, scales, rows, offsets, numbers: &[f64]| {
        run(
            "quantizeColumns",
            &[x, scales, rows, offsets, ABSENT, CODES, SCALES],
            numbers,
        )
    };
    let one = numbers(1.0, 1.0);
    assert!(columns(X, ABSENT, ABSENT, ABSENT, &one).is_ok());
    assert!(columns((0.0, 2.0), (512.0, 0.0), ABSENT, ABSENT, &one).is_ok());
    let param = |result: Result<(), KernelError>| result.unwrap_err().param;
    let (rows, offsets) = ((2048.0, 3.0), (2056.0, 3.0));
    assert_eq!(param(columns(X, ABSENT, rows, ABSENT, &one)), Some("rows"));
    assert_eq!(
        param(columns(X, ABSENT, ABSENT, offsets, &numbers(2.0, 1.0))),
        Some("offsets")
    );
    assert_eq!(
        param(columns(X, ABSENT, ABSENT, ABSENT, &numbers(2.0, 1.0))),
        Some("offsets")
    );
    assert_eq!(
        param(columns((0.0, 2.0), ABSENT, ABSENT, ABSENT, &one)),
        Some("xScales")
    );
    assert_eq!(
        param(columns(X, (512.0, 0.0), ABSENT, ABSENT, &one)),
        Some("xScales")
    );
    assert_eq!(
        param(columns(X, ABSENT, ABSENT, ABSENT, &numbers(1.0, 2.0))),
        Some("columnsPerTile")
    );
}

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line(#[allow(dead_code)] [u8; 64]);

fn bytes_of(lines: &mut [Line]) -> &mut [u8] {
    // SAFETY: lines are bytes.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * 64) }
}

/// Codes and scales of 300 gathered rows in three groups, of 90 rows of 150 numbers.
fn gathered_columns(isa: Isa, dtype: f64, power_of_two: f64) -> Vec<u8> {
    let mut lines = vec![Line([0; 64]); 2304];
    let memory = bytes_of(&mut lines);
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    // Two numbers a word, none of them NaN: of bf16 and f32 exponents near 1, of codes all but the greatest.
    for pair in 0..90 * 150 / 2 {
        let (a, b) = (next(), next());
        match dtype as u32 {
            0 => [a, b].iter().enumerate().for_each(|(i, v)| {
                let bits = ((v & 1) << 31) | (0x3800_0000 + ((v << 3) & 0x7ff_ffff));
                memory[8 * pair + 4 * i..][..4].copy_from_slice(&bits.to_le_bytes());
            }),
            1 => [a, b].iter().enumerate().for_each(|(i, v)| {
                let bits = ((v & 1) << 15) | (0x3800 + ((v >> 8) & 0x7ff));
                memory[4 * pair + 2 * i..][..2].copy_from_slice(&(bits as u16).to_le_bytes());
            }),
            2 => memory[2 * pair..][..2].copy_from_slice(&[a as u8 & 0xfe, b as u8 & 0xfe]),
            _ => {
                let bits = (a & 0xbff) | ((b & 0xbff) << 12);
                memory[3 * pair..][..3].copy_from_slice(&bits.to_le_bytes()[..3]);
            }
        }
    }
    let mut put = |at: usize, words: Vec<u32>| {
        for (i, word) in words.into_iter().enumerate() {
            memory[at + 4 * i..][..4].copy_from_slice(&word.to_le_bytes());
        }
    };
    put(
        65_536,
        (0..180).map(|i| (0.5 + i as f32 * 0.01).to_bits()).collect(),
    );
    put(69_632, (0..300).map(|i| i * 7 % 90).collect());
    put(73_728, vec![0, 100, 100, 300]);
    let scales = if dtype < 2.0 { [-1.0, 0.0] } else { [65_536.0, 0.0] };
    let operands = [
        0.0, dtype, scales[0], scales[1], 69_632.0, 3.0, 73_728.0, 3.0, -1.0, 0.0,
    ];
    let results = [81_920.0, 2.0, 131_072.0, 0.0];
    let numbers = [300.0, 150.0, 3.0, power_of_two, 0.0, 1.0];
    let words = [&operands[..], &results, &numbers].concat();
    let (ledger, pool) = (Ledger::default(), Pool::new(1));
    let ctx = Ctx::new(&pool, isa);
    columns::quantize_columns(&ctx, &mut Args::new(&Memory::new(memory), &words, &ledger)).unwrap();
    bytes_of(&mut lines)[81_920..].to_vec()
}

#[test]
fn columns_of_gathered_groups_have_the_same_bits_on_every_instruction_set() {
    for dtype in [0.0, 1.0, 2.0, 5.0] {
        for power_of_two in [0.0, 1.0] {
            let expected = gathered_columns(Isa::Portable, dtype, power_of_two);
            assert!(expected[..45_000].contains(&0x7e));
            for isa in Isa::usable() {
                let actual = gathered_columns(isa, dtype, power_of_two);
                assert!(actual == expected, "{isa}, dtype {dtype}, {power_of_two}");
            }
        }
    }
}
