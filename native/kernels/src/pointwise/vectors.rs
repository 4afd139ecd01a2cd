//! Sixteen numbers of a row at a time, in either storage dtype; the last ones of a row through a padded copy.
//!
//! The dtype is asked for at each vector, not compiled in: that branch is always predicted and costs less than
//! a loop for every combination of dtypes would cost in code.

use crate::args::{Floats, FloatsMut};
use crate::attention::vector::{Stored, Vector, WIDTH, exp};

/// Elements `at..at + 16`, zeros beyond the end.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
pub unsafe fn take<V: Vector>(x: &Floats, at: usize) -> V {
    // SAFETY: by the caller's word.
    unsafe {
        match x {
            Floats::F32(x) => take_stored(x, at),
            Floats::Bf16(x) => take_stored(x, at),
        }
    }
}

/// As `take`.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
pub unsafe fn take_stored<V: Vector, X: Stored>(x: &[X], at: usize) -> V {
    if at + WIDTH <= x.len() {
        // SAFETY: sixteen elements lie there.
        return unsafe { X::load(x.as_ptr().add(at)) };
    }
    let mut part = [X::default(); WIDTH];
    part[..x.len() - at].copy_from_slice(&x[at..]);
    // SAFETY: the array is as long.
    unsafe { X::load(part.as_ptr()) }
}

/// Writes elements `at..at + 16`, as far as the row goes.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
pub unsafe fn put<V: Vector>(v: V, y: &mut FloatsMut, at: usize) {
    // SAFETY: by the caller's word.
    unsafe {
        match y {
            FloatsMut::F32(y) => put_stored(v, y, at),
            FloatsMut::Bf16(y) => put_stored(v, y, at),
        }
    }
}

/// As `put`.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
pub unsafe fn put_stored<V: Vector, Y: Stored>(v: V, y: &mut [Y], at: usize) {
    if at + WIDTH <= y.len() {
        // SAFETY: sixteen elements lie there.
        return unsafe { Y::store(v, y.as_mut_ptr().add(at)) };
    }
    let mut part = [Y::default(); WIDTH];
    // SAFETY: the array is as long.
    unsafe { Y::store(v, part.as_mut_ptr()) };
    let rest = y.len() - at;
    y[at..].copy_from_slice(&part[..rest]);
}

/// The lowest argument of `sigmoid`: below it, e^-x would leave the range of the vector exp. There the sigmoid is
/// 2e-38 and x sigmoid(x) is 1e-36, so that an x below it may be taken for it.
pub const LOWEST: f32 = -87.0;

/// 1 / (1 + e^-x) for x >= `LOWEST`.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
pub unsafe fn sigmoid<V: Vector>(x: V) -> V {
    let one = V::splat(1.0);
    one.div(one.add(exp(V::zero().sub(x))))
}
