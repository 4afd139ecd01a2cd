//! The table of ops: each family's list, one after another. A command's op code is an index into it, and
//! JavaScript learns the names from it, so that the order is free.

use std::sync::Arc;

use crate::args::Args;
use crate::error::KernelError;
use crate::isa::Isa;
use crate::message::Line;
use crate::pool::Pool;
use crate::{attention, fp8, gemm, loss, message, moe, optim, pointwise, random, sampling};

/// What a kernel runs with.
pub struct Ctx<'a> {
    pub pool: &'a Pool,
    pub isa: Isa,
    /// How messages reach other ranks; none in a queue that was not connected.
    pub transport: Option<Arc<Line>>,
}

impl<'a> Ctx<'a> {
    /// Without other ranks.
    pub fn new(pool: &'a Pool, isa: Isa) -> Ctx<'a> {
        Ctx {
            pool,
            isa,
            transport: None,
        }
    }
}

/// Decodes its operands, then its numbers, checks them, and computes. It reads nothing but its arguments.
pub type Kernel = fn(&Ctx, &mut Args) -> Result<(), KernelError>;

/// Every op, in code order.
pub fn table() -> Vec<(&'static str, Kernel)> {
    [
        gemm::OPS,
        gemm::fp8::OPS,
        fp8::OPS,
        pointwise::OPS,
        attention::OPS,
        moe::OPS,
        loss::OPS,
        optim::OPS,
        random::OPS,
        sampling::OPS,
        message::OPS,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_ops_share_a_name() {
        let names: Vec<_> = table().iter().map(|(name, _)| *name).collect();
        let unique: HashSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len(), "{names:?}");
    }
}
