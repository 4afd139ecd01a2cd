//! Sixteen f32 lanes: one AVX-512 register, two AVX2 registers, or an array.
//!
//! The width is the same everywhere, and each operation is one correctly rounded IEEE operation per lane, so a
//! body written over `Vector` gives the same bits on every instruction set. Bodies are generic and
//! `#[inline(always)]`; `vector_twins!` compiles them once per set, inside a function that has its features.
//! Trap: no closures and no iterator chains in such bodies, they would lose the features.

use crate::bf16::{self, Element};

/// Lanes of a `Vector`.
pub const WIDTH: usize = 16;

/// Sixteen f32 lanes. Used only inside the twins of `vector_twins!`, which run only where the features exist:
/// that is what makes the safe methods safe.
pub trait Vector: Copy {
    fn splat(value: f32) -> Self;
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// `other` where it is greater, else `self`: a NaN in `other` is passed over.
    fn max(self, other: Self) -> Self;
    /// The lanes from `first` on, and `fill` below it.
    fn keep_from(self, first: usize, fill: f32) -> Self;
    /// The lanes below `end`, and `fill` from there on.
    fn keep_below(self, end: usize, fill: f32) -> Self;
    /// 0 where `x < limit`, else `self`.
    fn zero_where_below(self, x: Self, limit: f32) -> Self;
    /// `self * 2^n` by adding n to the exponent, where the bits of `shifted` are n plus a multiple of 512.
    fn scale_by_power(self, shifted: Self) -> Self;
    /// The nearest bf16 values, as `bf16::round` gives them.
    fn round_to_bf16(self) -> Self;

    /// # Safety
    /// Sixteen floats lie at `from`.
    unsafe fn load(from: *const f32) -> Self;
    /// # Safety
    /// Sixteen floats may be written at `to`.
    unsafe fn store(self, to: *mut f32);
    /// Sixteen bf16 numbers, widened.
    ///
    /// # Safety
    /// Sixteen codes lie at `from`.
    unsafe fn load_bf16(from: *const u16) -> Self;
    /// Rounded to bf16 as `bf16::from_f32` does it.
    ///
    /// # Safety
    /// Sixteen codes may be written at `to`.
    unsafe fn store_bf16(self, to: *mut u16);
    /// Column c of the 16 rows at `from` becomes row c at `to`; the strides are in floats.
    ///
    /// # Safety
    /// Sixteen rows of sixteen floats lie at `from` and may be written at `to`.
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize);

    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }
}

/// e^x for x < 88, with the bits of `math::exp` there. Softmax arguments are at most rounding above 0, so the
/// guard against overflow and the second half of the scaling can be left out.
#[inline(always)]
pub fn exp<V: Vector>(x: V) -> V {
    const MAGIC: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let magic = V::splat(MAGIC);
    let shifted = x.mul_add(V::splat(std::f32::consts::LOG2_E), magic);
    let n = shifted.sub(magic);
    let r = n.mul_add(V::splat(-LN2_HIGH), x);
    let r = n.mul_add(V::splat(-LN2_LOW), r);
    let p = V::splat(1.987_569_2e-4);
    let p = p.mul_add(r, V::splat(1.398_2e-3));
    let p = p.mul_add(r, V::splat(8.333_452e-3));
    let p = p.mul_add(r, V::splat(4.166_579_6e-2));
    let p = p.mul_add(r, V::splat(1.666_666_5e-1));
    let p = p.mul_add(r, V::splat(0.5));
    let p = p.mul_add(r.mul(r), r).add(V::splat(1.0));
    p.scale_by_power(shifted).zero_where_below(x, -87.336_54)
}

/// A stored float that vectors can read and write.
pub trait Stored: Element {
    /// # Safety
    /// As `Vector::load`.
    unsafe fn load<V: Vector>(from: *const Self) -> V;
    /// # Safety
    /// As `Vector::store`.
    unsafe fn store<V: Vector>(value: V, to: *mut Self);
}

impl Stored for f32 {
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const f32) -> V {
        unsafe { V::load(from) }
    }
    #[inline(always)]
    unsafe fn store<V: Vector>(value: V, to: *mut f32) {
        unsafe { value.store(to) }
    }
}

impl Stored for u16 {
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const u16) -> V {
        unsafe { V::load_bf16(from) }
    }
    #[inline(always)]
    unsafe fn store<V: Vector>(value: V, to: *mut u16) {
        unsafe { value.store_bf16(to) }
    }
}

/// The lanes as a plain array, for processors without AVX2; a compiler may still use what it has.
#[derive(Clone, Copy)]
pub struct Array([f32; WIDTH]);

macro_rules! lanewise {
    ($l:ident => $value:expr) => {{
        let mut out = [0.0f32; WIDTH];
        for $l in 0..WIDTH {
            out[$l] = $value;
        }
        Array(out)
    }};
}

impl Vector for Array {
    #[inline(always)]
    fn splat(value: f32) -> Array {
        Array([value; WIDTH])
    }
    #[inline(always)]
    fn mul_add(self, factor: Array, addend: Array) -> Array {
        lanewise!(l => self.0[l].mul_add(factor.0[l], addend.0[l]))
    }
    #[inline(always)]
    fn add(self, other: Array) -> Array {
        lanewise!(l => self.0[l] + other.0[l])
    }
    #[inline(always)]
    fn sub(self, other: Array) -> Array {
        lanewise!(l => self.0[l] - other.0[l])
    }
    #[inline(always)]
    fn mul(self, other: Array) -> Array {
        lanewise!(l => self.0[l] * other.0[l])
    }
    #[inline(always)]
    fn div(self, other: Array) -> Array {
        lanewise!(l => self.0[l] / other.0[l])
    }
    #[inline(always)]
    fn max(self, other: Array) -> Array {
        lanewise!(l => if other.0[l] > self.0[l] { other.0[l] } else { self.0[l] })
    }
    #[inline(always)]
    fn keep_from(self, first: usize, fill: f32) -> Array {
        lanewise!(l => if l >= first { self.0[l] } else { fill })
    }
    #[inline(always)]
    fn keep_below(self, end: usize, fill: f32) -> Array {
        lanewise!(l => if l < end { self.0[l] } else { fill })
    }
    #[inline(always)]
    fn zero_where_below(self, x: Array, limit: f32) -> Array {
        lanewise!(l => if x.0[l] < limit { 0.0 } else { self.0[l] })
    }
    #[inline(always)]
    fn scale_by_power(self, shifted: Array) -> Array {
        lanewise!(l => f32::from_bits(self.0[l].to_bits().wrapping_add(shifted.0[l].to_bits() << 23)))
    }
    #[inline(always)]
    fn round_to_bf16(self) -> Array {
        lanewise!(l => bf16::round(self.0[l]))
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Array {
        lanewise!(l => unsafe { *from.add(l) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        for l in 0..WIDTH {
            unsafe { *to.add(l) = self.0[l] };
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Array {
        lanewise!(l => bf16::to_f32(unsafe { *from.add(l) }))
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16) {
        for l in 0..WIDTH {
            unsafe { *to.add(l) = bf16::from_f32(self.0[l]) };
        }
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for r in 0..WIDTH {
            for c in 0..WIDTH {
                unsafe { *to.add(c * to_stride + r) = *from.add(r * from_stride + c) };
            }
        }
    }
}

/// Compiles a generic body for each instruction set, as `name::call(isa, args...)`.
///
/// The body is an `#[inline(always)] unsafe fn body<V: Vector, const M: usize, const N: usize>`; `M` rows times `N`
/// vectors is the block of sums that the set's registers hold.
macro_rules! vector_twins {
    ($vis:vis mod $name:ident = $body:ident ( $($arg:ident : $type:ty),* $(,)? )) => {
        $vis mod $name {
            #[allow(unused_imports)]
            use super::*;

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,avx2,fma")]
            unsafe fn avx512($($arg: $type),*) {
                unsafe { $body::<$crate::attention::avx512::Zmm, 8, 2>($($arg),*) }
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2($($arg: $type),*) {
                unsafe { $body::<$crate::attention::avx2::YmmPair, 6, 1>($($arg),*) }
            }

            unsafe fn portable($($arg: $type),*) {
                unsafe { $body::<$crate::attention::vector::Array, 4, 1>($($arg),*) }
            }

            /// # Safety
            /// As the body's.
            pub unsafe fn call(isa: $crate::isa::Isa, $($arg: $type),*) {
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
pub(crate) use vector_twins;

#[cfg(test)]
mod tests;
