//! The sizes of one attention command, and the sequences its packed rows fall into.

use crate::args::{Args, elements};
use crate::error::KernelError;

/// Sizes of the heads. A query head is `nope` channels, then `rope`; a kv head is `nope` key channels, then `value`.
#[derive(Clone, Copy)]
pub struct Heads {
    pub count: usize,
    pub nope: usize,
    pub rope: usize,
    pub value: usize,
    /// What scores are multiplied by before the softmax.
    pub scale: f32,
}

impl Heads {
    /// Refuses heads without channels, and sizes whose products would wrap around.
    pub fn check(&self, tokens: usize) -> Result<(), KernelError> {
        let Heads {
            count,
            nope,
            rope,
            value,
            ..
        } = *self;
        if count == 0 || self.key() == 0 || value == 0 {
            return Err(KernelError::command(format!(
                "{count} heads of {nope} + {rope} key channels and {value} value channels attend to nothing"
            )));
        }
        elements(&[tokens.max(1), count, nope + rope + value]).map(|_| ())
    }

    /// Channels over which a score is summed.
    pub fn key(&self) -> usize {
        self.nope + self.rope
    }

    /// Numbers per token in q.
    pub fn q_width(&self) -> usize {
        self.count * self.key()
    }

    /// Numbers per token and head in kv.
    pub fn kv(&self) -> usize {
        self.nope + self.value
    }

    pub fn kv_width(&self) -> usize {
        self.count * self.kv()
    }

    /// Numbers per token in o.
    pub fn o_width(&self) -> usize {
        self.count * self.value
    }
}

/// Tokens and heads of `attention` and `attentionBackward`, in the order of the table.
pub fn read_sizes(args: &mut Args) -> Result<(usize, Heads, usize), KernelError> {
    let tokens = args.usize("T")?;
    let count = args.usize("H")?;
    let nope = args.usize("N")?;
    let rope = args.usize("R")?;
    let value = args.usize("V")?;
    let sequences = args.usize("S")?;
    let scale = args.f32("scale")?;
    let heads = Heads {
        count,
        nope,
        rope,
        value,
        scale,
    };
    heads.check(tokens)?;
    Ok((tokens, heads, sequences))
}

/// Consecutive rows that attend to one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    pub start: usize,
    pub len: usize,
}

/// The sequences between `offsets`, empty ones left out.
pub fn sequences(offsets: &[i32], tokens: usize) -> Result<Vec<Sequence>, KernelError> {
    let ends = (offsets.first().copied(), offsets.last().map(|end| *end as i64));
    if ends != (Some(0), Some(tokens as i64)) || !offsets.is_sorted() {
        let message = format!("{offsets:?} does not rise from 0 to {tokens}");
        return Err(KernelError::new("seqOffsets", message));
    }
    let mut found = Vec::with_capacity(offsets.len());
    for pair in offsets.windows(2) {
        if pair[1] > pair[0] {
            found.push(Sequence {
                start: pair[0] as usize,
                len: (pair[1] - pair[0]) as usize,
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_sequences_are_left_out_and_the_others_keep_their_rows() {
        let found = sequences(&[0, 0, 3, 3, 7], 7).unwrap();
        assert_eq!(
            found,
            [Sequence { start: 0, len: 3 }, Sequence { start: 3, len: 4 }]
        );
        assert!(sequences(&[0, 0], 0).unwrap().is_empty());
    }

    #[test]
    fn heads_without_channels_and_sizes_that_wrap_around_are_refused() {
        let heads = Heads {
            count: 4,
            nope: 0,
            rope: 8,
            value: 8,
            scale: 1.0,
        };
        assert!(heads.check(0).is_ok());
        assert!(Heads { rope: 0, ..heads }.check(3).is_err());
        assert!(Heads { value: 0, ..heads }.check(3).is_err());
        assert!(Heads { count: 0, ..heads }.check(3).is_err());
        let vast = Heads {
            nope: 1 << 40,
            ..heads
        };
        assert!(vast.check(1 << 40).unwrap_err().message.contains("too large"));
    }

    #[test]
    fn offsets_that_do_not_cover_the_rows_in_order_are_refused() {
        for offsets in [&[0, 5][..], &[1, 7], &[0, 5, 3, 7], &[-1, 7], &[]] {
            let refused = sequences(offsets, 7).unwrap_err();
            assert_eq!(refused.param, Some("seqOffsets"), "{offsets:?}");
        }
    }
}
