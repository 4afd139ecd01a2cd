//! What the products take, checked: rows of codes with their scales, and the scales of weights.

use super::decode::E4m3;
use super::{TILE, codes_of};
use crate::args::{Operand, elements};
use crate::error::KernelError;
use crate::gemm::pack::Rows;

/// The scales of a batch of weights, a block of 128 outputs by 128 inputs each.
#[derive(Clone, Copy)]
pub struct BlockScales<'a> {
    data: &'a [f32],
    /// Blocks of one weight.
    per_weight: usize,
    /// From one block of outputs to the next, and from one tile of inputs.
    per_block: usize,
    per_tile: usize,
}

impl<'a> BlockScales<'a> {
    /// Those of `batch` weights [n, k]; transposed, they lie as those of [k, n].
    pub fn take(
        operand: &Operand<'a>,
        batch: usize,
        (n, k): (usize, usize),
        transposed: bool,
    ) -> Result<BlockScales<'a>, KernelError> {
        let (blocks, tiles) = (n.div_ceil(TILE), k.div_ceil(TILE));
        let data = operand.f32s(elements(&[batch, blocks, tiles])?)?;
        let (per_block, per_tile) = if transposed { (1, blocks) } else { (tiles, 1) };
        Ok(BlockScales {
            data,
            per_weight: blocks * tiles,
            per_block,
            per_tile,
        })
    }

    /// Those of weight `index` of the batch.
    pub fn weight(&self, index: usize) -> BlockScales<'a> {
        BlockScales {
            data: &self.data[index * self.per_weight..][..self.per_weight],
            ..*self
        }
    }

    #[inline(always)]
    pub fn at(&self, block: usize, tile: usize) -> f32 {
        self.data[block * self.per_block + tile * self.per_tile]
    }
}

/// Rows of x and of its scales by output row, checked: (x, rows, scales, their rows).
pub type Gathered<'a> = (&'a [E4m3], Rows<'a>, &'a [f32], Rows<'a>);

pub fn gather<'a>(
    x: &Operand<'a>,
    x_scales: &Operand<'a>,
    rows: Option<Operand<'a>>,
    r: usize,
    k: usize,
) -> Result<Gathered<'a>, KernelError> {
    let tiles = k.div_ceil(TILE);
    let index = rows.as_ref().map(|rows| rows.i32s(r)).transpose()?;
    if let (Some(rows), Some(bad)) = (&rows, index.and_then(|index| index.iter().find(|i| **i < 0))) {
        return Err(KernelError::new(
            rows.name(),
            format!("{bad} is no row of {}", x.name()),
        ));
    }
    let count = index.map_or(r, |index| index.iter().max().map_or(0, |max| *max as usize + 1));
    let at = |stride: usize| match index {
        None => Rows::Even { start: 0, stride },
        Some(index) => Rows::Gathered {
            index,
            start: 0,
            stride,
        },
    };
    let (len, scales) = (elements(&[count, k])?, elements(&[count, tiles])?);
    Ok((codes_of(x, len)?, at(k), x_scales.f32s(scales)?, at(tiles)))
}
