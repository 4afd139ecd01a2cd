//! The float mode of the threads that compute: denormals are zero.

/// Denormal inputs and results count as zero while this lives, as `vdpbf16ps` treats them always: so the
/// AVX2 and portable paths keep its bits. The thread's own mode comes back on drop.
pub struct FloatMode {
    before: register::Value,
}

impl FloatMode {
    pub fn enter() -> FloatMode {
        let before = register::read();
        register::write(before | register::DENORMALS_ARE_ZERO);
        FloatMode { before }
    }
}

impl Drop for FloatMode {
    fn drop(&mut self) {
        register::write(self.before);
    }
}

#[cfg(target_arch = "x86_64")]
mod register {
    pub type Value = u32;
    /// MXCSR: denormal inputs (bit 6) and results (bit 15).
    pub const DENORMALS_ARE_ZERO: Value = (1 << 6) | (1 << 15);

    pub fn read() -> Value {
        let mut value = 0;
        // SAFETY: stores four bytes.
        unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut value, options(nostack)) };
        value
    }

    pub fn write(value: Value) {
        // SAFETY: `FloatMode` changes the denormal bits only; rounding and exception masks stay.
        unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &value, options(nostack)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod register {
    pub type Value = u64;
    /// FPCR.FZ: denormal inputs and results.
    pub const DENORMALS_ARE_ZERO: Value = 1 << 24;

    pub fn read() -> Value {
        let value: u64;
        // SAFETY: reads a register.
        unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) value, options(nostack)) };
        value
    }

    pub fn write(value: Value) {
        // SAFETY: `FloatMode` changes one bit only.
        unsafe { std::arch::asm!("msr fpcr, {}", in(reg) value, options(nostack)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod register {
    //! No such mode is known here: denormals stay what they are.
    pub type Value = u32;
    pub const DENORMALS_ARE_ZERO: Value = 0;

    pub fn read() -> Value {
        0
    }

    pub fn write(_value: Value) {}
}
