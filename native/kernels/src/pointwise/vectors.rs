//! Sixteen numbers of a row at a time, in either storage dtype; the last ones of a row through a padded copy.
//!
//! A loop is compiled for each dtype, and the end of the row is asked for once: to ask at each vector took as long as
//! the arithmetic.

use crate::attention::vector::{Stored, Vector, WIDTH, exp};
use crate::math::LANES;

/// Running sums of the 64 lanes, neighbours side by side.
pub type Sums<V> = [V; LANES / WIDTH];

/// Adds up the lanes in the order that `math.rs` fixes: lane l += lane l + 32, then + 16, ... + 1.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
pub unsafe fn total<V: Vector>(sums: Sums<V>) -> f32 {
    let v = sums[0].add(sums[2]).add(sums[1].add(sums[3]));
    let mut lanes = [0.0; WIDTH];
    // SAFETY: the array is as long as the vector.
    unsafe { v.store(lanes.as_mut_ptr()) };
    let mut width = WIDTH / 2;
    while width > 0 {
        for l in 0..width {
            lanes[l] += lanes[l + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Elements `at..at + 16`, zeros beyond the end.
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

/// As `take_stored`; with `WHOLE` the row is known to go so far.
///
/// # Safety
/// The processor has the instructions of `V`; with `WHOLE`, `at + 16 <= x.len()`.
#[inline(always)]
pub unsafe fn take_at<V: Vector, X: Stored, const WHOLE: bool>(x: &[X], at: usize) -> V {
    debug_assert!(!WHOLE || at + WIDTH <= x.len());
    // SAFETY: by the caller's word.
    unsafe {
        if WHOLE {
            X::load(x.as_ptr().add(at))
        } else {
            take_stored(x, at)
        }
    }
}

/// Writes elements `at..at + 16`, as far as the row goes.
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

/// As `put_stored`; with `WHOLE` the row is known to go so far.
///
/// # Safety
/// As `take_at`.
#[inline(always)]
pub unsafe fn put_at<V: Vector, Y: Stored, const WHOLE: bool>(v: V, y: &mut [Y], at: usize) {
    debug_assert!(!WHOLE || at + WIDTH <= y.len());
    // SAFETY: by the caller's word.
    unsafe {
        if WHOLE {
            Y::store(v, y.as_mut_ptr().add(at));
        } else {
            put_stored(v, y, at);
        }
    }
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
