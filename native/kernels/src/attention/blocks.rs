//! Blocks of 32 x 32 in AMX registers: what both passes of attention share where all that is multiplied is bf16.
//!
//! A block of a left factor is `[32 rows][16]` words, a block of a right factor `[16][32 columns]` words; a word is a
//! pair of neighbours along what is summed over. Blocks that are summed over lie one after another. Everything is
//! padded with zeros to whole blocks, so that the registers never change their shape.
//!
//! order      as `gemm::micro::amx`: per 32 of what is summed over, one chain over the even and one over the odd ones,
//!            then their sum to the total

use super::shape::Heads;
use crate::args::Floats;
use crate::isa::Isa;

pub mod lines;
pub mod pack;
pub mod registers;

/// Rows and columns of a block.
pub const SIDE: usize = 32;
/// Words of a factor's block.
pub const WORDS: usize = SIDE * SIDE / 2;
/// Floats of a block of sums.
pub const SUMS: usize = SIDE * SIDE;

/// Blocks that `n` rows or channels take.
pub fn blocks(n: usize) -> usize {
    n.div_ceil(SIDE)
}

/// The factors as bf16, if their products go through AMX registers.
pub fn factors<'a, const N: usize>(
    isa: Isa,
    heads: &Heads,
    operands: [Floats<'a>; N],
) -> Option<[&'a [u16]; N]> {
    // The greatest score is sought before scores are scaled.
    if isa != Isa::Amx || heads.scale.is_nan() || heads.scale <= 0.0 {
        return None;
    }
    let mut factors: [&[u16]; N] = [&[]; N];
    for (factor, operand) in factors.iter_mut().zip(operands) {
        let Floats::Bf16(x) = operand else { return None };
        *factor = x;
    }
    Some(factors)
}

#[cfg(test)]
mod plain;
#[cfg(test)]
mod tests;
