//! What the kernels of this folder share: how rows become tasks, outputs that tasks write in parts, and the
//! check that an output does not lie on an input.

use crate::args::{FloatsMut, Operand};
use crate::error::KernelError;
use crate::pool::{Disjoint, Pool, Scratch};

/// Numbers that one task handles: about 10 us, below which waking another thread costs more than it gives.
pub const TASK: usize = 1 << 15;

/// Calls `work(from, to, scratch)` for ranges that cover `0..rows`. Which rows share a task depends on the
/// width alone and never shows in a result.
pub fn for_rows(pool: &Pool, rows: usize, width: usize, work: impl Fn(usize, usize, &mut Scratch) + Sync) {
    let per_task = (TASK / width.max(1)).max(1);
    pool.run(rows.div_ceil(per_task), &|task, scratch| {
        let from = task * per_task;
        work(from, (from + per_task).min(rows), scratch);
    });
}

/// How many of `room` rows there are: what `count` [1] says when the op runs; all of them where it is absent.
pub fn count_rows(count: Option<Operand>, room: usize) -> Result<usize, KernelError> {
    let Some(count) = count else { return Ok(room) };
    let rows = count.i32s(1)?[0];
    match usize::try_from(rows) {
        Ok(rows) if rows <= room => Ok(rows),
        _ => {
            let message = format!("is {rows}, there is room for {room} rows");
            Err(KernelError::new(count.name(), message))
        }
    }
}

/// A float output whose tasks write disjoint parts.
#[derive(Clone, Copy)]
pub enum Out<'a> {
    F32(Disjoint<'a, f32>),
    Bf16(Disjoint<'a, u16>),
}

impl<'a> Out<'a> {
    pub fn new(floats: FloatsMut<'a>) -> Out<'a> {
        match floats {
            FloatsMut::F32(y) => Out::F32(Disjoint::new(y)),
            FloatsMut::Bf16(y) => Out::Bf16(Disjoint::new(y)),
        }
    }

    /// Elements `start..start + len`.
    ///
    /// # Safety
    /// No other part that overlaps this one is in use.
    #[inline(always)]
    pub unsafe fn part(&self, start: usize, len: usize) -> FloatsMut<'a> {
        // SAFETY: by the caller's word.
        unsafe {
            match self {
                Out::F32(y) => FloatsMut::F32(y.part(start, len)),
                Out::Bf16(y) => FloatsMut::Bf16(y.part(start, len)),
            }
        }
    }
}

/// Refuses an output that begins where one of `inputs` begins. (Partial overlaps are the decoder's to find.)
pub fn require_apart<'a: 'b, 'b>(
    output: &Operand<'a>,
    inputs: impl IntoIterator<Item = &'b Operand<'a>>,
) -> Result<(), KernelError> {
    for input in inputs {
        if output.aliases(input) {
            let message = format!("lies on {}, the op cannot run in place", input.name());
            return Err(KernelError::new(output.name(), message));
        }
    }
    Ok(())
}
