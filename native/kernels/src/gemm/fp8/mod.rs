//! Products of E4M3 codes with a scale per tile: `fp8Matmul`, `fp8GroupedMatmul`, `fp8GradWeight`, `fp8GroupedGradWeight`.
//!
//! ```text
//! per block of at most `promotion` products:  partial = their f32 sum, begun at 0;  acc = fma(partial, sx * sw, acc)
//! ```
//!
//! contract   tensor/ops/fp8; scales are constant along 128 products, and no block crosses such a tile
//! layout     codes and panels as bf16's, a byte each; scales of x [rows][tiles of k], of w [tiles of n][tiles of k]
//! dtype      E4M3 is exact in bf16: codes become bf16 while they are packed and run through the products of bf16, so
//!            there are two numeric classes, as there: multiply-adds, and AMX
//! why so     no processor here multiplies E4M3; the codes save memory, not multiplications
//! versions   v1 this one
//!
//! Reading order: `decode`, `scaling` (how scales come in), `chains` (multiply-adds), `tiles` and `overlap` (AMX), `tensor_core` (14-bit
//! sums, plain), then the ops in `product` and `grad_weight`.

mod chains;
mod decode;
mod grad_weight;
mod operands;
#[cfg(target_arch = "x86_64")]
mod overlap;
mod product;
mod scaling;
mod tensor_core;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tiles;

use crate::args::{Args, Operand};
use crate::error::KernelError;
use crate::fp8::codec::TILE;
use crate::ops::Kernel;

use decode::E4m3;

/// This family's ops, in the order of their codes.
pub const OPS: &[(&str, Kernel)] = &[
    ("fp8Matmul", product::op),
    ("fp8GroupedMatmul", product::grouped_op),
    ("fp8GradWeight", grad_weight::op),
    ("fp8GroupedGradWeight", grad_weight::grouped_op),
];

/// Fraction bits that the accumulator of an H800's tensor core keeps.
const TENSOR_CORE_BITS: usize = 14;

/// How a product sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accumulation {
    /// In f32; blocks of so many products.
    F32 { promotion: usize },
    /// As the tensor cores of an H800; 0: never promoted.
    TensorCore { promotion: usize },
}

impl Accumulation {
    /// Takes promotion and accumulatorBits.
    fn take(a: &mut Args) -> Result<Accumulation, KernelError> {
        let promotion = a.usize("promotion")?;
        let bits = a.usize("accumulatorBits")?;
        let known = matches!(promotion, 16 | 32 | 64 | 128);
        match bits {
            0 if known => Ok(Accumulation::F32 { promotion }),
            TENSOR_CORE_BITS if known || promotion == 0 => Ok(Accumulation::TensorCore { promotion }),
            0 | TENSOR_CORE_BITS => Err(KernelError::new(
                "promotion",
                format!("{promotion} products a block; 16, 32, 64 and 128 are known, and with 14 bits 0"),
            )),
            _ => Err(KernelError::new(
                "accumulatorBits",
                format!("{bits} bits; 0 (f32) and 14 are known"),
            )),
        }
    }
}

/// The first `len` codes of an operand.
fn codes_of<'a>(operand: &Operand<'a>, len: usize) -> Result<&'a [E4m3], KernelError> {
    Ok(E4m3::of(operand.bytes(len)?))
}
