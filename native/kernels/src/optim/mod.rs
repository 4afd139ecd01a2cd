//! What happens to parameters between two steps: gradient norm, AdamW, Muon, moving average.

mod adamw;
mod ema;
mod muon;
mod newton_schulz;
mod norm;
mod pack_rows;

#[cfg(test)]
pub mod test_arena;
#[cfg(test)]
mod tests;

use crate::ops::Kernel;

/// This family's ops, in the order of their codes.
pub const OPS: &[(&str, Kernel)] = &[
    ("sumSquares", norm::sum_squares),
    ("gradNorm", norm::grad_norm),
    ("adamw", adamw::adamw),
    ("muon", muon::muon),
    ("ema", ema::ema),
];
