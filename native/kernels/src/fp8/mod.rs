//! What FP8 training stores: codes and the scales of their tiles, made from numbers as they are now.

mod abs_max;
pub mod codec;
mod columns;
mod panel_codes;
mod segment;
#[cfg(test)]
mod tests;
mod tiles;
mod weight;
#[cfg(target_arch = "x86_64")]
mod wide;

use crate::ops::Kernel;

/// This family's ops, in the order of their codes.
pub const OPS: &[(&str, Kernel)] = &[
    ("quantizeTiles", tiles::quantize_tiles),
    ("dequantizeTiles", tiles::dequantize_tiles),
    ("quantizeColumns", columns::quantize_columns),
    ("quantizeWeight", weight::quantize_weight),
    ("absMax", abs_max::abs_max),
];
