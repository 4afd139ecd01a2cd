//! Tiles in AMX registers: up to 32 rows by 32 columns, bf16 pairs, by `tdpbf16ps`.
//!
//! ```text
//! per 32 k's:  even = chain of fma over even k,  odd = chain of fma over odd k,  sum += even + odd
//! ```
//!
//! contract   one fixed order per element, as above; a numeric class of its own: other instruction sets chain
//!            every product into one sum and differ in the last bits
//! layout     A by rows `[pair / 16][16 or 32 rows][16]` words: a line of a register is 16 pairs of one row;
//!            B panels `[pair][32]` words as everywhere: a line of a tile register is one pair of 16 columns
//! dtype      words are pairs of bf16; sums f32; denormals flushed by the instruction itself
//! limits     1..=32 rows, one panel; K may be cut at multiples of 32 without a change of bits
//! tiling     2 x 2 registers of sums, 2 of A, 2 of B: four independent chains cover the latency of 52 cycles
//! why so     on the processors that have it, it multiplies bf16 seven times faster than FMA does
//! versions   v1 (this file); inline assembly, because the intrinsics are not stable yet; the registers' setting up
//!            is amx/registers.rs

mod registers;

use std::arch::asm;

use registers::configure;
pub use registers::{available, hold, release};

use super::{AMX_ROWS as ROWS, PANEL, RUN};

/// Floats of a tile.
pub const SUMS: usize = ROWS * PANEL;
const REGISTER_ROWS: usize = ROWS / 2;
/// Bytes of a register's line.
const LINE: usize = 64;

/// Rows that a tile of `rows` rows takes in its packed form: whole registers. What lies in the rows behind the
/// last is multiplied and left alone.
pub fn packed_rows(rows: usize) -> usize {
    rows.next_multiple_of(REGISTER_ROWS)
}

/// Adds `steps` pairs of k to a tile of sums, or begins one.
///
/// # Safety
/// `a` is `[steps / 16][packed_rows(rows)][16]` words, `b` `[steps][32]`, `sums` 1,024 floats.
pub unsafe fn accumulate(
    rows: usize,
    steps: usize,
    a: *const u32,
    b: *const u32,
    sums: *mut f32,
    fresh: bool,
) {
    let (whole, rest) = (steps / RUN, steps % RUN);
    let tall = rows > REGISTER_ROWS;
    // SAFETY: A has `whole` runs and one more for the rest; B has `steps` lines.
    unsafe {
        if whole > 0 || (fresh && rest == 0) {
            configure(RUN);
            begin(tall, sums, fresh);
            multiply(tall, whole, a, b);
            store(tall, sums);
        }
        if rest > 0 {
            // The registers change their shape, which loses the sums: they wait in memory.
            configure(rest);
            begin(tall, sums, fresh && whole == 0);
            multiply(
                tall,
                1,
                a.add(whole * packed_rows(rows) * RUN),
                b.add(whole * RUN * PANEL),
            );
            store(tall, sums);
        }
    }
}

/// As `accumulate` for a tile of more than 16 rows, and asks for memory that will be read next, 512 bytes a step: where a panel
/// comes from the third cache, it comes while the one before is multiplied.
///
/// # Safety
/// As `accumulate`; `ask` may point anywhere.
pub unsafe fn accumulate_asking(
    steps: usize,
    a: *const u32,
    b: *const u32,
    sums: *mut f32,
    fresh: bool,
    ask: *const u32,
) {
    if !steps.is_multiple_of(RUN) || steps == 0 {
        // SAFETY: by the contract.
        return unsafe { accumulate(ROWS, steps, a, b, sums, fresh) };
    }
    configure(RUN);
    // SAFETY: by the contract.
    unsafe {
        begin(true, sums, fresh);
        multiply_asking(steps / RUN, a, b, ask);
        store(true, sums);
    }
}

/// `multiply` for a tall tile, with eight lines of `ask` asked for at every step.
unsafe fn multiply_asking(runs: usize, a: *const u32, b: *const u32, ask: *const u32) {
    // SAFETY: as `multiply`; asking has no effect where nothing lies.
    unsafe {
        asm!(
            "2:",
            "tileloaddt1 tmm4, [{a} + {line} * 1]",
            "tileloadd tmm6, [{b} + {panel} * 1]",
            "tileloadd tmm7, [{b} + {panel} * 1 + 64]",
            "tileloaddt1 tmm5, [{a} + {line} * 1 + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "prefetcht1 [{ask}]",
            "prefetcht1 [{ask} + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "prefetcht1 [{ask} + 128]",
            "prefetcht1 [{ask} + 192]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "prefetcht1 [{ask} + 256]",
            "prefetcht1 [{ask} + 320]",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "prefetcht1 [{ask} + 384]",
            "prefetcht1 [{ask} + 448]",
            "add {a}, 2048",
            "add {b}, 2048",
            "add {ask}, 512",
            "dec {left}",
            "jnz 2b",
            a = inout(reg) a => _,
            b = inout(reg) b => _,
            ask = inout(reg) ask => _,
            left = inout(reg) runs => _,
            line = in(reg) LINE,
            panel = in(reg) PANEL * 4,
            options(nostack)
        );
    }
}

/// The first half of a step of 16 pairs in registers that `hold` has set up, for products between which other work is done: both
/// registers of B, rows 0 to 15 of A.
///
/// # Safety
/// A has 32 lines of 16 words, B sixteen lines of 32; the processor has AMX.
#[inline(always)]
pub unsafe fn upper_half(a: *const u32, b: *const u32) {
    // SAFETY: by the contract.
    unsafe {
        asm!(
            "tileloaddt1 tmm4, [{a} + {line} * 1]",
            "tileloadd tmm6, [{b} + {panel} * 1]",
            "tileloadd tmm7, [{b} + {panel} * 1 + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            a = in(reg) a, b = in(reg) b, line = in(reg) LINE, panel = in(reg) PANEL * 4, options(nostack, readonly)
        );
    }
}

/// The second half: rows 16 to 31 of A, by the same registers of B.
///
/// # Safety
/// As `upper_half`, which has run.
#[inline(always)]
pub unsafe fn lower_half(a: *const u32) {
    // SAFETY: by the contract.
    unsafe {
        asm!(
            "tileloaddt1 tmm5, [{a} + {line} * 1 + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            a = in(reg) a, line = in(reg) LINE, options(nostack, readonly)
        );
    }
}

/// Begins a tall tile at zero.
///
/// # Safety
/// `hold` has set the registers up.
#[inline(always)]
pub unsafe fn begin_fresh() {
    // SAFETY: by the contract; nothing is read.
    unsafe { begin(true, std::ptr::null(), true) };
}

/// Stores a tall tile.
///
/// # Safety
/// `sums` has room for 1,024 floats, and `hold` has set the registers up.
#[inline(always)]
pub unsafe fn end(sums: *mut f32) {
    // SAFETY: by the contract.
    unsafe { store(true, sums) };
}

#[inline(always)]
unsafe fn begin(tall: bool, sums: *const f32, fresh: bool) {
    if !fresh {
        // SAFETY: by `accumulate`'s contract.
        return unsafe { load(tall, sums) };
    }
    // SAFETY: the registers are configured.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            options(nostack, nomem)
        )
    };
}

/// `runs` steps of 16 pairs: per step one or two registers of A, two of B, two or four products.
unsafe fn multiply(tall: bool, runs: usize, a: *const u32, b: *const u32) {
    if runs == 0 {
        return;
    }
    // One step as lines of assembly; A advances by `$a_bytes`, B by sixteen lines.
    macro_rules! steps {
        ($a_bytes:literal, $($line:literal),+ $(,)?) => {
            asm!(
                "2:",
                $($line,)+
                concat!("add {a}, ", $a_bytes),
                "add {b}, 2048",
                "dec {left}",
                "jnz 2b",
                a = inout(reg) a => _,
                b = inout(reg) b => _,
                left = inout(reg) runs => _,
                line = in(reg) LINE,
                panel = in(reg) PANEL * 4,
                options(nostack)
            )
        };
    }
    // SAFETY: by `accumulate`'s contract all that is loaded is there. The registers belong to this function's
    // callers; they are no operands that the compiler knows.
    unsafe {
        if tall {
            steps!(
                2048,
                "tileloaddt1 tmm4, [{a} + {line} * 1]",
                "tileloadd tmm6, [{b} + {panel} * 1]",
                "tileloadd tmm7, [{b} + {panel} * 1 + 64]",
                "tileloaddt1 tmm5, [{a} + {line} * 1 + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
            );
        } else {
            steps!(
                1024,
                "tileloaddt1 tmm4, [{a} + {line} * 1]",
                "tileloadd tmm6, [{b} + {panel} * 1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {panel} * 1 + 64]",
                "tdpbf16ps tmm1, tmm4, tmm7",
            );
        }
    }
}

#[inline(always)]
unsafe fn store(tall: bool, sums: *mut f32) {
    // SAFETY: lines of 128 bytes, 32 of them.
    unsafe {
        asm!(
            "tilestored [{t} + {line} * 1], tmm0",
            "tilestored [{t} + {line} * 1 + 64], tmm1",
            t = in(reg) sums, line = in(reg) PANEL * 4, options(nostack)
        );
        if tall {
            asm!(
                "tilestored [{t} + {line} * 1], tmm2",
                "tilestored [{t} + {line} * 1 + 64], tmm3",
                t = in(reg) sums.add(REGISTER_ROWS * PANEL), line = in(reg) PANEL * 4, options(nostack)
            );
        }
    }
}

unsafe fn load(tall: bool, sums: *const f32) {
    // SAFETY: as `store`.
    unsafe {
        asm!(
            "tileloadd tmm0, [{t} + {line} * 1]",
            "tileloadd tmm1, [{t} + {line} * 1 + 64]",
            t = in(reg) sums, line = in(reg) PANEL * 4, options(nostack, readonly)
        );
        if tall {
            asm!(
                "tileloadd tmm2, [{t} + {line} * 1]",
                "tileloadd tmm3, [{t} + {line} * 1 + 64]",
                t = in(reg) sums.add(REGISTER_ROWS * PANEL), line = in(reg) PANEL * 4, options(nostack, readonly)
            );
        }
    }
}

/// Multiplications and additions of `rounds` products of whole registers, from registers alone.
///
/// # Safety
/// `available()` is true.
pub unsafe fn peak(rounds: usize) -> f64 {
    configure(RUN);
    let zeros = [0u32; REGISTER_ROWS * RUN];
    // SAFETY: the lines loaded are those of `zeros`.
    unsafe {
        begin(true, std::ptr::null(), true);
        asm!(
            "tileloadd tmm4, [{z} + {line} * 1]",
            "tileloadd tmm5, [{z} + {line} * 1]",
            "tileloadd tmm6, [{z} + {line} * 1]",
            "tileloadd tmm7, [{z} + {line} * 1]",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "dec {left}",
            "jnz 2b",
            z = in(reg) zeros.as_ptr(), line = in(reg) LINE, left = inout(reg) rounds.max(1) => _, options(nostack)
        );
    }
    release();
    (rounds.max(1) * 4 * REGISTER_ROWS * REGISTER_ROWS * RUN * 4) as f64
}

#[cfg(test)]
mod tests;
