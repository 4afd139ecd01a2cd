//! Matrix products over packed weights: `packWeight`, `matmul`, `matmulGradWeight`, `groupedMatmul`,
//! `groupedMatmulGradWeight`.
//!
//! Reading order: `micro` (one tile in registers), `panels` and `pack` (the layouts), `source` (when nothing need be packed), `product` (one thread's
//! part), `output` (where its sums go), `plan` (the cut into tasks), then the ops. bf16 in AMX registers: `micro::amx`,
//! `tiles` (the order of one thread's tiles), `pack_tiles` (`pack` by 512-bit registers, `shuffle` inside them), `tile_factors` (a tile on
//! its way into the next product). E4M3 codes with scales: `fp8`. Other kernels use `matmul`
//! and `matmul_grad_weight` (whole regions) or `matmul_alone` (inside a task of theirs).

pub mod fp8;
pub mod grad_weight;
pub mod grouped;
pub mod matmul;
pub mod micro;
pub(crate) mod output;
pub mod pack;
#[cfg(target_arch = "x86_64")]
pub mod pack_tiles;
pub mod panels;
mod plan;
pub mod product;
#[cfg(target_arch = "x86_64")]
pub mod shuffle;
pub mod source;
#[cfg(target_arch = "x86_64")]
pub mod tile_factors;
#[cfg(target_arch = "x86_64")]
pub mod tiles;

#[cfg(test)]
mod tests;

pub use grad_weight::matmul_grad_weight;
pub use matmul::{Matrix, matmul, matmul_alone};
pub use micro::Arithmetic;
pub use panels::{Panels, pack_panel, panel_len, panels_len};

use crate::ops::Kernel;

/// This family's ops, in the order of their codes.
pub const OPS: &[(&str, Kernel)] = &[
    ("packWeight", panels::pack_weight),
    ("matmul", matmul::op),
    ("matmulGradWeight", grad_weight::op),
    ("groupedMatmul", grouped::op),
    ("groupedMatmulGradWeight", grad_weight::grouped_op),
];
