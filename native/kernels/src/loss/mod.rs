//! Fused linear and cross-entropy, loss reductions.

mod by_chunk;
#[cfg(target_arch = "x86_64")]
mod by_rows;
mod linear_cross_entropy;
mod reduce;
mod softmax;
#[cfg(target_arch = "x86_64")]
mod tile_softmax;

#[cfg(test)]
mod tests;

pub use reduce::{CHUNK, chunked_sum};

use crate::ops::Kernel;

/// This family's ops, in the order of their codes.
pub const OPS: &[(&str, Kernel)] = &[
    ("linearCrossEntropy", linear_cross_entropy::linear_cross_entropy),
    ("reduceSum", reduce::reduce_sum),
    ("countPositive", reduce::count_positive),
];
