//! Products of blocks by `tdpbf16ps`: two by two registers, each 16 lines of 16 words.
//!
//! why so     what is multiplied here lies in the first two caches and is used again soon, so that no load says it streams,
//!            as those of long products do

use std::arch::asm;

use super::SIDE;
use crate::gemm::micro::{AMX_ROWS, amx};

/// Bytes of a line of a left factor's block.
const LEFT: usize = 64;
/// Bytes of a line of a right factor's block and of a block of sums.
const RIGHT: usize = 128;

/// This thread's registers, set up for whole blocks. Nothing else may use them in between.
pub struct Registers;

impl Registers {
    /// # Safety
    /// The processor has AMX.
    pub unsafe fn hold() -> Registers {
        const { assert!(AMX_ROWS == SIDE) };
        amx::hold();
        Registers
    }

    /// Writes the sums of `runs` blocks of A times as many of B, or adds them to what is there.
    ///
    /// # Safety
    /// The blocks and the sums are there; `runs` is at least 1.
    #[inline]
    pub unsafe fn multiply(&self, runs: usize, a: *const u32, b: *const u32, sums: *mut f32, fresh: bool) {
        unsafe {
            if fresh {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    options(nostack, nomem)
                );
            } else {
                asm!(
                    "tileloadd tmm0, [{s} + {right} * 1]",
                    "tileloadd tmm1, [{s} + {right} * 1 + 64]",
                    "tileloadd tmm2, [{s} + {right} * 1 + 2048]",
                    "tileloadd tmm3, [{s} + {right} * 1 + 2112]",
                    s = in(reg) sums, right = in(reg) RIGHT, options(nostack, readonly)
                );
            }
            asm!(
                "2:",
                "tileloadd tmm4, [{a} + {left} * 1]",
                "tileloadd tmm6, [{b} + {right} * 1]",
                "tileloadd tmm7, [{b} + {right} * 1 + 64]",
                "tileloadd tmm5, [{a} + {left} * 1 + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 2048",
                "add {b}, 2048",
                "dec {runs}",
                "jnz 2b",
                "tilestored [{s} + {right} * 1], tmm0",
                "tilestored [{s} + {right} * 1 + 64], tmm1",
                "tilestored [{s} + {right} * 1 + 2048], tmm2",
                "tilestored [{s} + {right} * 1 + 2112], tmm3",
                a = inout(reg) a => _, b = inout(reg) b => _, runs = inout(reg) runs => _, s = in(reg) sums,
                left = in(reg) LEFT, right = in(reg) RIGHT, options(nostack)
            );
        }
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        amx::release();
    }
}
