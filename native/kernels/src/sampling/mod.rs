//! Choosing the next token.

mod filter;
mod sample;

#[cfg(test)]
mod tests;

use crate::ops::Kernel;

/// This family's ops, in the order of their codes.
pub const OPS: &[(&str, Kernel)] = &[("sample", sample::sample)];
