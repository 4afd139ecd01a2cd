//! Latent attention, forward and backward, expanded and absorbed.

use crate::ops::Kernel;

/// This family's ops, in the order of their codes.
pub const OPS: &[(&str, Kernel)] = &[];
