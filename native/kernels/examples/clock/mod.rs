//! The clocks of the benchmarks; no example by itself.
#![allow(dead_code, reason = "not every benchmark reads both")]

use std::sync::OnceLock;
use std::time::Instant;

/// Seconds of this thread's own work: other programs' time slices drop out. Off Unix, of the wall.
#[cfg(unix)]
pub fn cpu_seconds() -> f64 {
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: i64,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
    }
    const THREAD_CPU: i32 = if cfg!(target_os = "macos") { 16 } else { 3 };
    let mut time = Timespec {
        seconds: 0,
        nanoseconds: 0,
    };
    // SAFETY: fills one timespec.
    unsafe { clock_gettime(THREAD_CPU, &mut time) };
    time.seconds as f64 + time.nanoseconds as f64 * 1e-9
}

#[cfg(not(unix))]
pub fn cpu_seconds() -> f64 {
    wall_seconds()
}

/// Seconds since the first call.
pub fn wall_seconds() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}
