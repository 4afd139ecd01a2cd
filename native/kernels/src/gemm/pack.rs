//! Packing of both sides of a product, one thread's share at a time. Plain code: the compiler's vectors are
//! fast enough, because a packed word is used by hundreds of multiplications.

use super::micro::{AForm, Arithmetic, PANEL, RUN, TILE_ROWS};
use crate::bf16::{self, Element};
use crate::isa::Isa;
use crate::{by_isa, isa_twins};

/// Where the rows of a row-major matrix begin, in elements.
#[derive(Clone, Copy)]
pub enum Rows<'a> {
    /// Row `i` begins at `start + i * stride`.
    Even { start: usize, stride: usize },
    /// Row `i` begins at `start + index[i] * stride`.
    Gathered {
        index: &'a [i32],
        start: usize,
        stride: usize,
    },
}

impl<'a> Rows<'a> {
    #[inline(always)]
    pub fn start(&self, row: usize) -> usize {
        match self {
            Rows::Even { start, stride } => start + row * stride,
            Rows::Gathered { index, start, stride } => start + index[row] as usize * stride,
        }
    }

    /// The same rows from number `first` on.
    pub fn skip(self, first: usize) -> Rows<'a> {
        match self {
            Rows::Even { start, stride } => Rows::Even {
                start: start + first * stride,
                stride,
            },
            Rows::Gathered { index, start, stride } => Rows::Gathered {
                index: &index[first..],
                start,
                stride,
            },
        }
    }

    /// The same rows, `columns` elements further right.
    pub fn shift(self, columns: usize) -> Rows<'a> {
        match self {
            Rows::Even { start, stride } => Rows::Even {
                start: start + columns,
                stride,
            },
            Rows::Gathered { index, start, stride } => Rows::Gathered {
                index,
                start: start + columns,
                stride,
            },
        }
    }
}

/// Words that `pack_rows` writes for `rows` rows of `k` elements.
pub fn packed_rows_words(form: AForm, rows: usize, k: usize) -> usize {
    form.units(k).next_multiple_of(RUN) * rows
}

/// Words that `pack_columns` writes for `columns` columns over `tokens` rows.
pub fn packed_columns_words(form: AForm, columns: usize, tokens: usize) -> usize {
    form.units(tokens) * columns
}

/// Packs `rows` rows of `k` elements for a tile, layout by rows: `[unit / 16][rows][16]`, zeros behind K.
pub fn pack_rows<T: Element>(
    isa: Isa,
    form: AForm,
    x: &[T],
    at: Rows,
    rows: usize,
    k: usize,
    out: &mut [u32],
) {
    assert!(
        out.len() >= packed_rows_words(form, rows, k),
        "room for packed rows"
    );
    for row in 0..rows {
        let start = at.start(row);
        by_isa!(isa, pack_row(form, &x[start..start + k], row, rows, out));
    }
}

isa_twins! {
    fn pack_row<T: Element>(form: AForm, x: &[T], row: usize, rows: usize, out: &mut [u32]) {
        let elements = if form == AForm::Pairs { 2 * RUN } else { RUN };
        let full = x.len() / elements;
        for run in 0..full {
            let to = (run * rows + row) * RUN;
            run_of(form, &x[run * elements..(run + 1) * elements], &mut out[to..to + RUN]);
        }
        let rest = &x[full * elements..];
        if !rest.is_empty() {
            let mut padded = [T::default(); 2 * RUN];
            padded[..rest.len()].copy_from_slice(rest);
            let to = (full * rows + row) * RUN;
            run_of(form, &padded[..elements], &mut out[to..to + RUN]);
        }
    }
}

/// Sixteen words of one row.
#[inline(always)]
fn run_of<T: Element>(form: AForm, x: &[T], out: &mut [u32]) {
    match form {
        AForm::F32 => {
            for i in 0..RUN {
                out[i] = x[i].to_f32().to_bits();
            }
        }
        AForm::Pairs => {
            for i in 0..RUN {
                out[i] = pair(x[2 * i], x[2 * i + 1]);
            }
        }
        AForm::SwappedF32 => {
            for i in 0..RUN / 2 {
                out[2 * i] = widened(x[2 * i + 1]);
                out[2 * i + 1] = widened(x[2 * i]);
            }
        }
    }
}

#[inline(always)]
fn pair<T: Element>(even: T, odd: T) -> u32 {
    even.to_bf16() as u32 | (odd.to_bf16() as u32) << 16
}

#[inline(always)]
fn widened<T: Element>(value: T) -> u32 {
    bf16::to_f32(value.to_bf16()).to_bits()
}

/// Packs `columns` columns over `tokens` rows as A of a weight gradient, layout by columns: `[unit][columns]`.
/// Up to 16 words behind the packed ones may be overwritten.
pub fn pack_columns<T: Element>(
    isa: Isa,
    form: AForm,
    x: &[T],
    at: Rows,
    tokens: usize,
    columns: usize,
    out: &mut [u32],
) {
    // A full tile reads sixteen columns where sixteen are there, and writes sixteen words over the next line's
    // first four, which that line then overwrites: one vector instead of two.
    let enough = tokens > 0
        && columns == TILE_ROWS
        && matches!(at, Rows::Even { .. })
        && at.start(tokens - 1) + RUN <= x.len()
        && out.len() >= packed_columns_words(form, columns, tokens) + RUN;
    let read = if enough { RUN } else { columns };
    by_isa!(isa, fill_columns(form, x, at, tokens, read, columns, out));
}

/// Packs one panel as B of a weight gradient: `columns` (at most 32) columns over `tokens` rows, `[step][32]`.
pub fn pack_token_panel<T: Element>(
    isa: Isa,
    arithmetic: Arithmetic,
    x: &[T],
    at: Rows,
    tokens: usize,
    columns: usize,
    out: &mut [u32],
) {
    let form = match arithmetic {
        Arithmetic::F32 => AForm::F32,
        Arithmetic::Bf16 => AForm::Pairs,
    };
    by_isa!(isa, fill_columns(form, x, at, tokens, columns, PANEL, out));
    if arithmetic == Arithmetic::F32 && tokens % 2 == 1 {
        out[tokens * PANEL..(tokens + 1) * PANEL].fill(0);
    }
}

/// Packs all panels of `columns` columns, `panel_words` apart, some tokens at a time: rows are read from one end to the
/// other, as memory likes it.
pub fn pack_token_panels<T: Element>(
    isa: Isa,
    arithmetic: Arithmetic,
    x: &[T],
    at: Rows,
    tokens: usize,
    columns: usize,
    (out, panel_words): (&mut [u32], usize),
) {
    // Even, so that pairs stay whole.
    const TOKENS: usize = 16;
    for token in (0..tokens).step_by(TOKENS) {
        let count = (tokens - token).min(TOKENS);
        for panel in 0..columns.div_ceil(PANEL) {
            let width = (columns - panel * PANEL).min(PANEL);
            let from = panel * panel_words + arithmetic.panel_words(token);
            let out = &mut out[from..from + arithmetic.panel_words(count)];
            pack_token_panel(
                isa,
                arithmetic,
                x,
                at.skip(token).shift(panel * PANEL),
                count,
                width,
                out,
            );
        }
    }
}

isa_twins! {
    fn fill_columns<T: Element>(
        form: AForm, x: &[T], at: Rows, tokens: usize, columns: usize, line: usize, out: &mut [u32],
    ) {
        // The common widths as constants, so that their loops become a few vector instructions.
        match (columns, line) {
            (16, 12) => lines::<16, 12, T>(form, x, at, tokens, columns, line, out),
            (12, 12) => lines::<12, 12, T>(form, x, at, tokens, columns, line, out),
            (32, 32) => lines::<32, 32, T>(form, x, at, tokens, columns, line, out),
            _ => lines::<0, 0, T>(form, x, at, tokens, columns, line, out),
        }
    }
}

/// Lines of `line` words made of `columns` columns: what is missing is zero, what is too much lies in the next
/// line until that is written. `C` and `L` are the same numbers where they are known, else 0.
#[inline(always)]
fn lines<const C: usize, const L: usize, T: Element>(
    form: AForm,
    x: &[T],
    at: Rows,
    tokens: usize,
    columns: usize,
    line: usize,
    out: &mut [u32],
) {
    let columns = if C > 0 { C } else { columns };
    let line = if L > 0 { L } else { line };
    let row = |t: usize| &x[at.start(t)..at.start(t) + columns];
    if form == AForm::F32 {
        for t in 0..tokens {
            let (from, to) = (row(t), &mut out[t * line..t * line + line.max(columns)]);
            for c in 0..columns {
                to[c] = from[c].to_f32().to_bits();
            }
            to[columns..].fill(0);
        }
        return;
    }
    let zeros = [T::default(); PANEL];
    let pairs = tokens.div_ceil(2);
    for p in 0..pairs {
        let even = row(2 * p);
        let odd = if 2 * p + 1 < tokens {
            row(2 * p + 1)
        } else {
            &zeros[..columns]
        };
        if form == AForm::Pairs {
            let to = &mut out[p * line..p * line + line.max(columns)];
            for c in 0..columns {
                to[c] = pair(even[c], odd[c]);
            }
            to[columns..].fill(0);
        } else {
            for (half, from) in [odd, even].into_iter().enumerate() {
                let at = (2 * p + half) * line;
                let to = &mut out[at..at + line.max(columns)];
                for c in 0..columns {
                    to[c] = widened(from[c]);
                }
            }
        }
    }
}
