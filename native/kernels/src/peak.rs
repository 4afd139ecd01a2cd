//! The register peak of this machine: multiply-adds that touch no memory. It is the ceiling that kernels are
//! held against, measured beside them in the same run, because clock and neighbours change from run to run.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::isa::Isa;
use crate::pool::Pool;

/// What the multiply-adds are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// f32 FMA.
    F32,
    /// bf16 pairs: `tdpbf16ps` or `vdpbf16ps` where there is one, else what stands for it, one f32 FMA a product.
    Bf16,
}

impl Kind {
    pub fn from_name(name: &str) -> Option<Kind> {
        match name {
            "f32" => Some(Kind::F32),
            "bf16" => Some(Kind::Bf16),
            _ => None,
        }
    }
}

/// Rounds of one timed burst: some 100 us.
const BURST: usize = 20_000;

/// Runs one burst, returns its multiplications and additions.
pub fn burst(isa: Isa, kind: Kind) -> f64 {
    match (isa, kind) {
        // SAFETY: an `Isa` in hand is one that the processor has.
        #[cfg(target_arch = "x86_64")]
        (Isa::Amx | Isa::Avx512Bf16, Kind::F32) => unsafe { wide::avx512_f32(BURST) },
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512Bf16, Kind::Bf16) => unsafe { wide::avx512_bf16(BURST) },
        #[cfg(target_arch = "x86_64")]
        (Isa::Amx, Kind::Bf16) => unsafe { crate::gemm::micro::amx::peak(BURST) },
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, _) => unsafe { wide::avx2_f32(BURST) },
        _ => portable(BURST / 10),
    }
}

/// Multiplications and additions a second in one burst.
pub fn timed_burst(isa: Isa, kind: Kind) -> f64 {
    let before = Instant::now();
    let work = burst(isa, kind);
    work / before.elapsed().as_secs_f64()
}

/// Multiplications and additions per second: every thread's best burst within `time`, added up.
pub fn measure(pool: &Pool, isa: Isa, kind: Kind, threads: usize, time: Duration) -> f64 {
    let threads = threads.clamp(1, pool.threads());
    let best = Mutex::new(vec![0.0f64; threads]);
    let start = Instant::now();
    pool.run(threads, &|i, _| {
        let mut mine = 0.0f64;
        loop {
            mine = mine.max(timed_burst(isa, kind));
            if start.elapsed() >= time {
                break;
            }
        }
        best.lock().unwrap_or_else(|e| e.into_inner())[i] = mine;
    });
    best.into_inner().unwrap_or_else(|e| e.into_inner()).iter().sum()
}

fn portable(rounds: usize) -> f64 {
    let mut sums = [1.0f32; 8];
    let factor = std::hint::black_box(0.999_999f32);
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = sum.mul_add(factor, factor);
        }
    }
    std::hint::black_box(sums);
    (rounds * 8 * 2) as f64
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    const CHAINS: usize = 24;

    #[target_feature(enable = "avx512f")]
    pub unsafe fn avx512_f32(rounds: usize) -> f64 {
        let factor = _mm512_set1_ps(black_box(0.999_999));
        let mut sums = [factor; CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
        (rounds * CHAINS * 32) as f64
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub unsafe fn avx512_bf16(rounds: usize) -> f64 {
        let bits = _mm512_set1_epi32(black_box(0x3f80_3f80));
        // SAFETY: the same 64 bytes.
        let pairs = unsafe { std::mem::transmute::<__m512i, __m512bh>(bits) };
        let mut sums = [_mm512_castsi512_ps(bits); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, pairs, pairs);
            }
        }
        black_box(sums);
        (rounds * CHAINS * 64) as f64
    }

    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn avx2_f32(rounds: usize) -> f64 {
        let factor = _mm256_set1_ps(black_box(0.999_999));
        let mut sums = [factor; CHAINS / 2];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
        (rounds * CHAINS / 2 * 16) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_reports_a_plausible_peak() {
        let pool = Pool::new(2);
        for isa in Isa::usable() {
            for kind in [Kind::F32, Kind::Bf16] {
                let flops = measure(&pool, isa, kind, 1, Duration::from_millis(2));
                assert!(flops > 1e7 && flops < 1e13, "{isa} {kind:?}: {flops:e}");
            }
        }
    }
}
