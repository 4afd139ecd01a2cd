//! Packing of both sides of a product, one thread's share at a time. Plain code: the compiler's vectors are
//! fast enough, because a packed word is used by hundreds of multiplications.

use super::micro::{AForm, Arithmetic, PANEL, RUN};
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
pub fn pack_columns<T: Element>(
    isa: Isa,
    form: AForm,
    x: &[T],
    at: Rows,
    tokens: usize,
    columns: usize,
    out: &mut [u32],
) {
    let units = form.units(tokens);
    let per_pair = if form == AForm::SwappedF32 { 2 } else { 1 };
    let out = &mut out[..units * columns];
    let zeros = [T::default(); PANEL];
    let row = |t: usize| match t < tokens {
        true => &x[at.start(t)..at.start(t) + columns],
        false => &zeros[..columns],
    };
    if form == AForm::F32 {
        for (t, words) in out.chunks_exact_mut(columns).enumerate() {
            by_isa!(isa, words_f32(row(t), words));
        }
        return;
    }
    for (p, words) in out.chunks_exact_mut(columns * per_pair).enumerate() {
        by_isa!(isa, words_bf16(form, row(2 * p), row(2 * p + 1), words));
    }
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
    let out = &mut out[..arithmetic.panel_words(tokens)];
    let zeros = [T::default(); PANEL];
    let row = |t: usize| match t < tokens {
        true => &x[at.start(t)..at.start(t) + columns],
        false => &zeros[..columns],
    };
    match arithmetic {
        Arithmetic::F32 => {
            for (t, words) in out.chunks_exact_mut(PANEL).enumerate() {
                words[columns..].fill(0);
                by_isa!(isa, words_f32(row(t), &mut words[..columns]));
            }
        }
        Arithmetic::Bf16 => {
            for (p, words) in out.chunks_exact_mut(PANEL).enumerate() {
                words[columns..].fill(0);
                by_isa!(
                    isa,
                    words_bf16(AForm::Pairs, row(2 * p), row(2 * p + 1), &mut words[..columns])
                );
            }
        }
    }
}

isa_twins! {
    fn words_f32<T: Element>(x: &[T], out: &mut [u32]) {
        for (word, value) in out.iter_mut().zip(x) {
            *word = value.to_f32().to_bits();
        }
    }
}

isa_twins! {
    fn words_bf16<T: Element>(form: AForm, even: &[T], odd: &[T], out: &mut [u32]) {
        if form == AForm::Pairs {
            for ((word, even), odd) in out.iter_mut().zip(even).zip(odd) {
                *word = pair(*even, *odd);
            }
        } else {
            let (first, second) = out.split_at_mut(odd.len());
            for (word, value) in first.iter_mut().zip(odd) {
                *word = widened(*value);
            }
            for (word, value) in second.iter_mut().zip(even) {
                *word = widened(*value);
            }
        }
    }
}
