//! Norms, activations, rotary positions, embedding and element-wise ops: what costs memory traffic, not
//! arithmetic. Each kernel reads and writes its operands once; what it needs twice stays in the first cache.
//!
//! Outside of exp, products and sums are separate steps, never fused: a memory-bound loop gains nothing from the
//! fused instruction, and processors without it would have to call a library for the same bits.

mod add_rms_norm;
mod elementwise;
mod embedding;
#[cfg(test)]
mod harness;
mod latent_kv;
mod mtp_input;
mod norm;
mod rope;
pub mod rows;
mod swiglu;
pub mod vectors;

use crate::ops::Kernel;

/// This family's ops, in the order of their codes.
pub const OPS: &[(&str, Kernel)] = &[
    ("fill", elementwise::fill),
    ("copy", elementwise::copy),
    ("cast", elementwise::cast),
    ("add", elementwise::add),
    ("axpy", elementwise::axpy),
    ("scale", elementwise::scale),
    ("copyRow", elementwise::copy_row),
    ("addCounts", elementwise::add_counts),
    ("addRmsNorm", add_rms_norm::forward),
    ("addRmsNormBackward", add_rms_norm::backward),
    ("swiglu", swiglu::forward),
    ("swigluBackward", swiglu::backward),
    ("rope", rope::rope),
    ("latentKv", latent_kv::forward),
    ("latentKvBackward", latent_kv::backward),
    ("embedding", embedding::forward),
    ("embeddingGrad", embedding::backward),
    ("mtpInput", mtp_input::forward),
    ("mtpInputBackward", mtp_input::backward),
];
