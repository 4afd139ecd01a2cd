//! Fused linear and cross-entropy, loss reductions.

mod reduce;

pub use reduce::chunked_sum;

use crate::ops::Kernel;

/// This family's ops, in the order of their codes.
pub const OPS: &[(&str, Kernel)] = &[
    ("reduceSum", reduce::reduce_sum),
    ("countPositive", reduce::count_positive),
];
