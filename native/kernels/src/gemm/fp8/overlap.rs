//! A block of products in AMX registers, and the promotion of the one before it in the vector unit, four rows after every two
//! products: so few steps lie between the products that the processor sees the next ones while the vector unit is busy.

use super::scaling::wide::Promotion;
use crate::gemm::micro::{AMX_ROWS, PANEL, RUN, amx};

/// Begins a tile of 32 rows, adds `runs` times 32 products, stores it at `to`, and promotes another one meanwhile; false, with
/// nothing done, if the rows cannot be shared out among so many runs.
///
/// # Safety
/// A is `[runs][32][16]` words, `b` `[runs][16][32]`, `to` 1,024 floats that are not the promoted ones; the processor has AMX.
pub unsafe fn multiply(runs: usize, a: *const u32, b: *const u32, to: *mut f32, done: &Promotion) -> bool {
    // SAFETY: by the contract.
    unsafe {
        match runs {
            1 => multiply_runs::<1>(a, b, to, done),
            2 => multiply_runs::<2>(a, b, to, done),
            4 => multiply_runs::<4>(a, b, to, done),
            _ => return false,
        }
    }
    true
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn multiply_runs<const RUNS: usize>(a: *const u32, b: *const u32, to: *mut f32, done: &Promotion) {
    let share = AMX_ROWS / (2 * RUNS);
    amx::hold();
    // SAFETY: by `multiply`'s contract.
    unsafe {
        amx::begin_fresh();
        for run in 0..RUNS {
            let (a, b) = (a.add(run * AMX_ROWS * RUN), b.add(run * RUN * PANEL));
            let row = 2 * run * share;
            amx::upper_half(a, b);
            done.promote(row..row + share);
            amx::lower_half(a);
            done.promote(row + share..row + 2 * share);
        }
        amx::end(to);
    }
}
