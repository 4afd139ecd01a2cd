//! Where the multiply-adds of a weight gradient read a factor from: from the matrix itself where packing would only copy
//! it, else packed.
//!
//! A token's row is a line of A and of B already. What is left to pack: bf16, which is paired or widened; gathered rows,
//! whose distances differ; and rows a multiple of 2 KiB apart. Those meet in two of the first cache's 64 sets, where lines
//! that were asked for push each other out before they are used: 2048x1024 over 2,048 tokens took 1.6 times as long in
//! place (one round), 1024x512 and 512x1024 1.05 times; 256x256 over 512 tokens, rows 1 KiB apart, 0.93 times.

use super::micro::Arithmetic;
use super::pack::Rows;
use crate::args::Floats;

/// Rows whose distance is a multiple of this many words crowd into two sets of the first cache.
const CROWDED: usize = 512;

/// One factor of one part.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// Rows in memory are lines as the micro-kernels read them: row `i` begins at `start + i * stride`.
    InPlace {
        words: &'a [f32],
        start: usize,
        stride: usize,
    },
    /// The task packs it.
    Packed,
}

/// Lines of words, `stride` apart.
#[derive(Clone, Copy)]
pub struct Lines {
    pub first: *const u32,
    pub stride: usize,
}

impl Lines {
    /// Packed ones, `stride` words each.
    pub fn packed(words: &[u32], stride: usize) -> Lines {
        Lines {
            first: words.as_ptr(),
            stride,
        }
    }
}

impl<'a> Source<'a> {
    pub fn of(arithmetic: Arithmetic, x: Floats<'a>, rows: Rows) -> Source<'a> {
        match (arithmetic, x, rows) {
            (Arithmetic::F32, Floats::F32(words), Rows::Even { start, stride })
                if !stride.is_multiple_of(CROWDED) =>
            {
                Source::InPlace { words, start, stride }
            }
            _ => Source::Packed,
        }
    }

    /// `columns` words from column `column` on of `tokens` rows from row `token` on, if they are read in place.
    pub fn lines(&self, (token, tokens): (usize, usize), (column, columns): (usize, usize)) -> Option<Lines> {
        let Source::InPlace { words, start, stride } = *self else {
            return None;
        };
        let first = start + token * stride + column;
        let end = first + tokens.saturating_sub(1) * stride + columns;
        Some(Lines {
            first: words[first..end].as_ptr().cast(),
            stride,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVEN: Rows = Rows::Even { start: 3, stride: 40 };

    #[test]
    fn only_f32_rows_at_even_distances_that_do_not_crowd_a_cache_are_read_in_place() {
        let (wide, narrow) = ([0.0f32; 256], [0u16; 256]);
        let (wide, narrow) = (Floats::F32(&wide), Floats::Bf16(&narrow));
        let in_place =
            |arithmetic, x, rows| matches!(Source::of(arithmetic, x, rows), Source::InPlace { .. });
        assert!(in_place(Arithmetic::F32, wide, EVEN));
        assert!(!in_place(Arithmetic::Bf16, wide, EVEN), "rounded on the way");
        assert!(!in_place(Arithmetic::F32, narrow, EVEN), "widened on the way");
        let gathered = Rows::Gathered {
            index: &[1, 0],
            start: 0,
            stride: 40,
        };
        assert!(!in_place(Arithmetic::F32, wide, gathered));
        for (stride, expected) in [
            (256, true),
            (512, false),
            (704, true),
            (1024, false),
            (4112, true),
        ] {
            let rows = Rows::Even { start: 0, stride };
            assert_eq!(
                in_place(Arithmetic::F32, wide, rows),
                expected,
                "{stride} words apart"
            );
        }
    }

    #[test]
    fn lines_begin_at_their_column_and_may_end_where_the_matrix_ends() {
        let x: Vec<f32> = (0..3 + 40 * 5).map(|i| i as f32).collect();
        let source = Source::of(Arithmetic::F32, Floats::F32(&x), EVEN);
        let lines = source.lines((2, 3), (8, 32)).expect("read in place");
        assert_eq!(
            (lines.first, lines.stride),
            (x[3 + 2 * 40 + 8..].as_ptr().cast(), 40)
        );
    }

    #[test]
    #[should_panic(expected = "out of range")]
    fn lines_beyond_the_end_of_the_matrix_are_refused() {
        let x = [0.0f32; 3 + 40 * 5];
        let source = Source::of(Arithmetic::F32, Floats::F32(&x), EVEN);
        source.lines((2, 3), (9, 32));
    }
}
