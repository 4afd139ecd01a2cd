//! Which instructions the kernels may use, and how one body of code becomes three.
//!
//! Every path gives the same bits: the bodies fix the order of each sum and say `mul_add` where they mean
//! a fused multiply-add, and the compiler never reorders floats. So `isa_twins!` may compile the same body
//! for AVX-512, AVX2 and the baseline, and `by_isa!` may pick any of them.

use std::fmt;
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use crate::gemm::micro::amx;
use crate::peak::{self, Kind};

/// An instruction set that kernels are compiled for, widest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// AVX-512 as below, and bf16 products in AMX tile registers: their sums have an order of their own, so bf16
    /// products differ in the last bits from the other sets'.
    Amx,
    /// AVX-512 F/BW/VL/DQ/VBMI with BF16 dot products.
    Avx512Bf16,
    /// AVX2 with FMA.
    Avx2,
    /// Whatever the target always has; `mul_add` may be a slow library call, its bits are the same.
    Portable,
}

impl Isa {
    pub const ALL: [Isa; 4] = [Isa::Amx, Isa::Avx512Bf16, Isa::Avx2, Isa::Portable];

    /// The best this processor has.
    pub fn detect() -> Isa {
        Isa::ALL
            .into_iter()
            .find(|isa| isa.available())
            .unwrap_or(Isa::Portable)
    }

    /// `isa` if this processor has it; tests and comparisons force a lower one.
    pub fn force(isa: Isa) -> Option<Isa> {
        isa.available().then_some(isa)
    }

    /// Every set this processor has, best first.
    pub fn usable() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.available()).collect()
    }

    /// The usable sets that give equal bits throughout: all but AMX, whose bf16 sums have an order of their own.
    pub fn of_one_class() -> Vec<Isa> {
        Isa::usable().into_iter().filter(|isa| *isa != Isa::Amx).collect()
    }

    /// The name used on the wire and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Amx => "amx",
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Avx2 => "avx2",
            Isa::Portable => "portable",
        }
    }

    pub fn from_name(name: &str) -> Option<Isa> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name)
    }

    #[cfg(target_arch = "x86_64")]
    pub fn available(self) -> bool {
        use std::arch::is_x86_feature_detected as has;
        let avx2 = has!("avx2") && has!("fma");
        match self {
            Isa::Amx => Isa::Avx512Bf16.available() && amx::available(),
            Isa::Avx512Bf16 => {
                avx2 && has!("avx512f")
                    && has!("avx512bw")
                    && has!("avx512vl")
                    && has!("avx512dq")
                    && has!("avx512bf16")
                    && has!("avx512vbmi")
            }
            Isa::Avx2 => avx2,
            Isa::Portable => true,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub fn available(self) -> bool {
        self == Isa::Portable
    }
}

/// True if `isa` multiplies bf16 pairs faster by its own instruction than by two f32 FMAs, which give the same
/// bits. Processors differ: Zen 4 doubles the speed of f32 by `vdpbf16ps`, Sapphire Rapids halves it. Measured
/// once a process, in about a millisecond.
pub fn bf16_instruction_pays(isa: Isa) -> bool {
    static PAYS: OnceLock<bool> = OnceLock::new();
    isa == Isa::Avx512Bf16
        && *PAYS.get_or_init(|| {
            let best = |kind| (0..5).map(|_| peak::timed_burst(isa, kind)).fold(0.0, f64::max);
            // Widening costs the FMAs about a twelfth, so that equal peaks speak for the instruction.
            best(Kind::Bf16) > 0.9 * best(Kind::F32)
        })
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names of the processor features that decide speed here, those it has.
#[cfg(target_arch = "x86_64")]
pub fn cpu_features() -> Vec<&'static str> {
    use std::arch::is_x86_feature_detected as has;
    [
        ("avx2", has!("avx2")),
        ("fma", has!("fma")),
        ("avx512f", has!("avx512f")),
        ("avx512bw", has!("avx512bw")),
        ("avx512vl", has!("avx512vl")),
        ("avx512dq", has!("avx512dq")),
        ("avx512bf16", has!("avx512bf16")),
        ("avx512vbmi", has!("avx512vbmi")),
        ("avx512vnni", has!("avx512vnni")),
        ("amx-bf16", amx::available()),
    ]
    .into_iter()
    .filter_map(|(name, present)| present.then_some(name))
    .collect()
}

#[cfg(not(target_arch = "x86_64"))]
pub fn cpu_features() -> Vec<&'static str> {
    Vec::new()
}

/// Compiles one plain function three times, as `name::avx512`, `name::avx2` and `name::portable`.
///
/// ```text
/// isa_twins! {
///     fn scale_row(y: &mut [f32], alpha: f32) {
///         for v in y { *v *= alpha; }
///     }
/// }
/// by_isa!(ctx.isa, scale_row(row, 2.0));
/// ```
///
/// Type parameters are allowed (`fn f<T: Element>(x: &[T])`) where an argument fixes them. Trap: only what is
/// inlined into the body gets the wide instructions. Mark the functions it calls `#[inline(always)]`, and
/// prefer loops to iterator chains whose closures are large.
#[macro_export]
macro_rules! isa_twins {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$($generic:ident : $bound:path),+ $(,)?>)? (
        $($arg:ident : $type:ty),* $(,)?
    ) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis mod $name {
            #[allow(unused_imports)]
            use super::*;

            #[inline(always)]
            fn body $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $ret)? $body

            /// # Safety
            /// The processor has every feature of `Isa::Avx512Bf16`.
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
            pub unsafe fn avx512 $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $ret)? {
                body($($arg),*)
            }

            /// # Safety
            /// The processor has every feature of `Isa::Avx2`.
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            pub unsafe fn avx2 $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $ret)? {
                body($($arg),*)
            }

            /// # Safety
            /// Always safe to call; unsafe only to look like its twins.
            pub unsafe fn portable $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $ret)? {
                body($($arg),*)
            }

            /// Calls the twin for `isa`, which must be one that this processor has.
            pub fn call $(<$($generic: $bound),+>)? (
                isa: $crate::isa::Isa, $($arg: $type),*
            ) $(-> $ret)? {
                match isa {
                    // SAFETY: `Isa::detect`, `force` and `usable` give only what the processor has.
                    #[cfg(target_arch = "x86_64")]
                    $crate::isa::Isa::Amx | $crate::isa::Isa::Avx512Bf16 => unsafe { avx512($($arg),*) },
                    #[cfg(target_arch = "x86_64")]
                    $crate::isa::Isa::Avx2 => unsafe { avx2($($arg),*) },
                    _ => unsafe { portable($($arg),*) },
                }
            }
        }
    };
}

/// Calls the twin of an `isa_twins!` function that fits: `by_isa!(isa, path::name(args...))`.
#[macro_export]
macro_rules! by_isa {
    ($isa:expr, $name:ident $(:: $rest:ident)* ( $($arg:expr),* $(,)? )) => {
        $name $(:: $rest)* ::call($isa, $($arg),*)
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16::Element;

    isa_twins! {
        fn weighted_sum<T: Element>(x: &[T], weight: f32) -> f32 {
            let mut sum = 0.0;
            for v in x {
                sum = v.to_f32().mul_add(weight, sum);
            }
            sum
        }
    }

    #[test]
    fn the_twins_of_a_function_give_the_same_bits() {
        let x: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).fract() - 0.5).collect();
        let expected = by_isa!(Isa::Portable, weighted_sum(&x[..], 0.1)).to_bits();
        for isa in Isa::usable() {
            assert_eq!(
                by_isa!(isa, weighted_sum(&x[..], 0.1)).to_bits(),
                expected,
                "{isa}"
            );
        }
    }

    #[test]
    fn names_read_back_to_the_same_set() {
        for isa in Isa::ALL {
            assert_eq!(Isa::from_name(isa.name()), Some(isa));
        }
        assert_eq!(Isa::from_name("sse9"), None);
        assert!(Isa::detect().available());
    }
}
