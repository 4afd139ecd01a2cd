//! The AMX registers as a resource: whether this process may use them, the shape they are set up for, giving them
//! back. What is computed in them: ../amx.rs.

use std::arch::asm;
use std::cell::Cell;
use std::sync::OnceLock;

use super::{LINE, REGISTER_ROWS, RUN};

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
pub(super) fn configure(pairs: usize) {
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

/// Sets the registers up for whole steps of 16 pairs, for products written elsewhere; `release` ends it.
pub fn hold() {
    configure(RUN);
}

/// Gives the registers back: a thread that holds them makes every task switch save eight kilobytes.
pub fn release() {
    if CONFIGURED.get() != 0 {
        // SAFETY: they were configured by this thread.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
        CONFIGURED.set(0);
    }
}
