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
