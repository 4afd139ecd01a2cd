//! The native kernels of Minke: about forty fused ops over one arena, run in order by a queue thread.
//!
//! A command is an op's name, its operands (byte offset and dtype) and its numbers. Reading order: `ops`
//! (the table), `args` (how a command is decoded), `pool` (how its tasks run), `isa` (how one body becomes
//! three), `math` (the arithmetic all bodies share), then one module per kernel family.

pub mod arena;
pub mod args;
pub mod bf16;
pub mod error;
pub mod isa;
pub mod math;
pub mod ops;
pub mod peak;
pub mod pool;
pub mod queue;

pub mod attention;
pub mod fp8;
pub mod gemm;
pub mod loss;
pub mod message;
pub mod moe;
pub mod optim;
pub mod pointwise;
pub mod random;
pub mod sampling;
