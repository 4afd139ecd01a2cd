//! Counter-based random numbers: `philox` for everyone, `randomNormal` for initial weights.

mod normal;
mod philox;

pub use philox::{block_words, philox};

use crate::ops::Kernel;

/// This family's ops, in the order of their codes.
pub const OPS: &[(&str, Kernel)] = &[("randomNormal", normal::random_normal)];
