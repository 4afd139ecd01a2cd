//! Token sampling.

use crate::ops::Kernel;

/// This family's ops, in the order of their codes.
pub const OPS: &[(&str, Kernel)] = &[];
