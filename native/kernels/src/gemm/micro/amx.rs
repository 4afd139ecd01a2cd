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
//! versions   v1 (this file); inline assembly, because the intrinsics are not stable yet

use std::arch::asm;
use std::cell::Cell;
use std::sync::OnceLock;

use super::{PANEL, RUN};

/// Rows of a tile: two registers of sixteen.
pub const ROWS: usize = 32;
/// Floats of a tile.
pub const SUMS: usize = ROWS * PANEL;
const REGISTER_ROWS: usize = 16;
/// Bytes of a register's line.
const LINE: usize = 64;

/// The processor has AMX with bf16, the system saves its registers, and this process may use them.
pub fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| processor_has_tiles() && request_permission())
}

fn processor_has_tiles() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const TILE_STATE: u64 = 0b11 << 17;
    let (bf16, tile) = (1 << 22, 1 << 24);
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & (1 << 27) == 0 {
        return false;
    }
    let edx = __cpuid_count(7, 0).edx;
    edx & bf16 != 0 && edx & tile != 0 && enabled_states() & TILE_STATE == TILE_STATE
}

/// XCR0: which registers the system saves.
fn enabled_states() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller has seen OSXSAVE.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Linux hands out the large register state on request only, once for all threads of the process.
#[cfg(target_os = "linux")]
fn request_permission() -> bool {
    const ARCH_PRCTL: u64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XTILEDATA: u64 = 18;
    let result: i64;
    // SAFETY: a system call that takes two numbers and touches no memory of ours.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn request_permission() -> bool {
    false
}

/// What `ldtilecfg` reads: registers 0 to 3 are sums, 4 and 5 A, 6 and 7 B.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    line_bytes: [u16; 16],
    rows: [u8; 16],
}

thread_local! {
    /// Pairs a step that this thread's registers are configured for; 0 if they are released.
    static CONFIGURED: Cell<usize> = const { Cell::new(0) };
}

/// Sets the registers up for steps of `pairs` pairs, all of full height. What they held is lost.
fn configure(pairs: usize) {
    if CONFIGURED.get() == pairs {
        return;
    }
    let mut config = Config {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        line_bytes: [0; 16],
        rows: [0; 16],
    };
    for register in 0..8 {
        let (is_a, is_b) = ((4..6).contains(&register), register >= 6);
        config.rows[register] = if is_b { pairs } else { REGISTER_ROWS } as u8;
        config.line_bytes[register] = if is_a { 4 * pairs } else { LINE } as u16;
    }
    // SAFETY: the configuration is 64 bytes and legal; `Isa::Amx` in hand means the instructions may be used.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly)) };
    CONFIGURED.set(pairs);
}

/// Gives the registers back: a thread that holds them makes every task switch save eight kilobytes.
pub fn release() {
    if CONFIGURED.get() != 0 {
        // SAFETY: they were configured by this thread.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
        CONFIGURED.set(0);
    }
}

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
        if whole > 0 || fresh {
            configure(RUN);
            begin(tall, sums, fresh);
            multiply(tall, whole, a, b);
            store(tall, sums);
        }
        if rest > 0 {
            // The registers change their shape, which loses the sums: they wait in memory.
            configure(rest);
            begin(tall, sums, false);
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
    // SAFETY: by `accumulate`'s contract all that is loaded is there. The registers belong to this function's
    // callers; they are no operands that the compiler knows.
    unsafe {
        if tall {
            asm!(
                "2:",
                "tileloaddt1 tmm4, [{a} + {line} * 1]",
                "tileloadd tmm6, [{b} + {panel} * 1]",
                "tileloadd tmm7, [{b} + {panel} * 1 + 64]",
                "tileloaddt1 tmm5, [{a} + {line} * 1 + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 2048",
                "add {b}, 2048",
                "dec {left}",
                "jnz 2b",
                a = inout(reg) a => _,
                b = inout(reg) b => _,
                left = inout(reg) runs => _,
                line = in(reg) LINE,
                panel = in(reg) PANEL * 4,
                options(nostack)
            );
        } else {
            asm!(
                "2:",
                "tileloaddt1 tmm4, [{a} + {line} * 1]",
                "tileloadd tmm6, [{b} + {panel} * 1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {panel} * 1 + 64]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "add {a}, 1024",
                "add {b}, 2048",
                "dec {left}",
                "jnz 2b",
                a = inout(reg) a => _,
                b = inout(reg) b => _,
                left = inout(reg) runs => _,
                line = in(reg) LINE,
                panel = in(reg) PANEL * 4,
                options(nostack)
            );
        }
    }
}

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
mod tests {
    use super::*;
    use crate::bf16;
    use crate::pool::FloatMode;

    /// What `tdpbf16ps` is documented to do, in f32 multiply-adds.
    fn by_definition(a: &[f32], b: &[f32], rows: usize, k: usize) -> Vec<f32> {
        let mut tile = vec![0.0f32; rows * PANEL];
        for (at, sum) in tile.iter_mut().enumerate() {
            let (row, column) = (at / PANEL, at % PANEL);
            for block in (0..k).step_by(2 * RUN) {
                let (mut even, mut odd) = (0.0f32, 0.0f32);
                for j in block..(block + 2 * RUN).min(k.next_multiple_of(2)) {
                    let (x, y) = if j < k {
                        (a[row * k + j], b[j * PANEL + column])
                    } else {
                        (0.0, 0.0)
                    };
                    let half = if j % 2 == 0 { &mut even } else { &mut odd };
                    *half = x.mul_add(y, *half);
                }
                *sum += even + odd;
            }
        }
        tile
    }

    #[test]
    fn a_tile_is_its_definition_bit_for_bit_for_every_height_and_rest() {
        if !available() {
            return;
        }
        let _flush = FloatMode::enter();
        let noise = |i: usize| bf16::round(((i * 7919) % 2003) as f32 / 701.5 - 1.4);
        for rows in 1..=ROWS {
            for (k, cut) in [
                (1, 0),
                (2, 0),
                (31, 0),
                (32, 0),
                (33, 32),
                (96, 0),
                (96, 64),
                (200, 64),
            ] {
                let a: Vec<f32> = (0..rows * k).map(noise).collect();
                let b: Vec<f32> = (0..k * PANEL).map(|i| noise(i + 5)).collect();
                let pairs = k.div_ceil(2);
                let word = |value: &dyn Fn(usize) -> f32, j: usize| {
                    let code = |j: usize| {
                        if j < k {
                            u32::from(bf16::from_f32(value(j)))
                        } else {
                            0
                        }
                    };
                    code(2 * j) | code(2 * j + 1) << 16
                };
                let (runs, slots) = (pairs.div_ceil(RUN), packed_rows(rows));
                let mut packed = vec![u32::MAX; runs * slots * RUN];
                for pair in 0..pairs {
                    for row in 0..rows {
                        packed[(pair / RUN * slots + row) * RUN + pair % RUN] =
                            word(&|j| a[row * k + j], pair);
                    }
                }
                let panel: Vec<u32> = (0..pairs * PANEL)
                    .map(|i| word(&|j| b[j * PANEL + i % PANEL], i / PANEL))
                    .collect();
                let mut sums = vec![f32::NAN; ROWS * PANEL];
                let first = if cut > 0 { cut / 2 } else { pairs };
                // SAFETY: packed as `accumulate` wants it; `cut` is a multiple of 32.
                unsafe {
                    accumulate(
                        rows,
                        first,
                        packed.as_ptr(),
                        panel.as_ptr(),
                        sums.as_mut_ptr(),
                        true,
                    );
                    if cut > 0 {
                        let a = packed.as_ptr().add(first * slots);
                        let b = panel.as_ptr().add(first * PANEL);
                        accumulate(rows, pairs - first, a, b, sums.as_mut_ptr(), false);
                    }
                }
                release();
                let right = by_definition(&a, &b, rows, k);
                let same = sums.iter().zip(&right).all(|(x, y)| x.to_bits() == y.to_bits());
                assert!(same, "{rows} rows, K {k}, cut at {cut}");
            }
        }
    }
}
