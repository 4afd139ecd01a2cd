use super::*;
use crate::gemm::micro::amx;

/// Rows that do not fill their blocks: 37 rows of 19 + 20 channels.
const COUNT: usize = 37;
const WIDTHS: [usize; 2] = [19, 20];
const STRIDES: [usize; 2] = [45, 23];

struct Given {
    x: Vec<u16>,
    y: Vec<u16>,
}

impl Given {
    fn new() -> Given {
        let codes = |seed: usize, len: usize| (0..len).map(|i| ((i + seed) * 7919 % 65521) as u16).collect();
        Given {
            x: codes(1, 3 + COUNT * STRIDES[0]),
            y: codes(5, 1 + COUNT * STRIDES[1]),
        }
    }

    fn rows(&self) -> Rows<'_> {
        Rows::of(&self.x, 3, STRIDES[0], WIDTHS[0], COUNT).beside(&self.y, 1, STRIDES[1], WIDTHS[1])
    }

    /// A channel of a row, zero where there is none.
    fn at(&self, row: usize, channel: usize) -> u32 {
        let code = match channel {
            _ if row >= COUNT => 0,
            c if c < WIDTHS[0] => self.x[3 + row * STRIDES[0] + c],
            c if c < WIDTHS[0] + WIDTHS[1] => self.y[1 + row * STRIDES[1] + c - WIDTHS[0]],
            _ => 0,
        };
        u32::from(code)
    }
}

/// Packs both blocks of channels of rows 0..32 and 32..64 and compares with `word(first row, block, line, column)`.
fn check(
    pack: impl Fn(&Rows, usize, *mut u32),
    columns: usize,
    word: impl Fn(usize, usize, usize, usize) -> u32,
) {
    if !amx::available() {
        return;
    }
    let given = Given::new();
    for first in [0, 32] {
        let mut packed = vec![u32::MAX; 2 * WORDS];
        pack(&given.rows(), first, packed.as_mut_ptr());
        for (i, actual) in packed.into_iter().enumerate() {
            let (block, line, column) = (i / WORDS, i % WORDS / columns, i % columns);
            let expected = word(first, block, line, column);
            assert_eq!(actual, expected, "rows {first}, block {block}, {line}, {column}");
        }
    }
}

#[test]
fn left_factors_are_rows_with_pairs_of_channels() {
    let given = Given::new();
    check(
        |rows, first, to| unsafe { pack_left(rows, first, 2, to) },
        16,
        |first, block, row, pair| {
            let channel = block * SIDE + 2 * pair;
            given.at(first + row, channel) | given.at(first + row, channel + 1) << 16
        },
    );
}

#[test]
fn right_factors_are_pairs_of_channels_with_rows_as_columns() {
    let given = Given::new();
    check(
        |rows, first, to| unsafe { pack_right(rows, first, 2, to) },
        SIDE,
        |first, block, pair, row| {
            let channel = block * SIDE + 2 * pair;
            given.at(first + row, channel) | given.at(first + row, channel + 1) << 16
        },
    );
}

#[test]
fn row_pairs_have_channels_as_columns() {
    let given = Given::new();
    check(
        |rows, first, to| unsafe { pack_row_pairs(rows, first, 2, to, WORDS) },
        SIDE,
        |first, block, pair, channel| {
            let (row, channel) = (first + 2 * pair, block * SIDE + channel);
            given.at(row, channel) | given.at(row + 1, channel) << 16
        },
    );
}

#[test]
fn turned_left_factors_are_channels_with_pairs_of_rows() {
    let given = Given::new();
    check(
        |rows, first, to| unsafe { pack_left_turned(rows, first, 2, to, WORDS) },
        16,
        |first, block, channel, pair| {
            let (row, channel) = (first + 2 * pair, block * SIDE + channel);
            given.at(row, channel) | given.at(row + 1, channel) << 16
        },
    );
}
