//! Latent attention, forward and backward, expanded and absorbed.

mod absorbed;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
mod backward;
#[cfg(target_arch = "x86_64")]
mod blocks;
mod cache;
mod convert;
mod forward;
#[cfg(test)]
mod oracle;
mod product;
mod shape;
mod tile;
pub(crate) mod vector;

use crate::ops::Kernel;

/// This family's ops, in the order of their codes.
pub const OPS: &[(&str, Kernel)] = &[
    ("attention", forward::attention),
    ("attentionBackward", backward::attention_backward),
    ("absorbedAttention", absorbed::absorbed_attention),
    ("cacheAppend", cache::cache_append),
];
