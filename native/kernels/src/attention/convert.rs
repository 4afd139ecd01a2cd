//! Between rows as they are stored and f32 tiles: widen, narrow, round, transpose.

use super::vector::{Stored, Vector, WIDTH};
use crate::args::{Floats, FloatsMut};
use crate::math::{LANES, Lanes};
use crate::with_floats;

/// Widest row, in floats, that goes column by column, the loop over rows being the longer one; wider rows go one by one.
const NARROW: usize = 64;
/// Rows at a time: few enough that their lines stay in the nearest cache from column to column.
const CHUNK: usize = 32;

/// Widens `rows` rows of `width` numbers, times `factor`.
///
/// # Safety
/// `rows * to_stride` floats may be written at `to`, less what the last stride goes beyond `width`.
#[inline(always)]
pub unsafe fn widen_rows<V: Vector>(
    from: Floats,
    first: usize,
    from_stride: usize,
    rows: usize,
    width: usize,
    factor: f32,
    to: *mut f32,
    to_stride: usize,
) {
    if rows == 0 || width == 0 {
        return;
    }
    let from = from.range(first, (rows - 1) * from_stride + width);
    // SAFETY: `range` checked the last row's end.
    with_floats!(from, |x| unsafe {
        widen::<V, _>(x.as_ptr(), from_stride, rows, width, factor, to, to_stride)
    });
}

#[inline(always)]
unsafe fn widen<V: Vector, T: Stored>(
    from: *const T,
    from_stride: usize,
    rows: usize,
    width: usize,
    factor: f32,
    to: *mut f32,
    to_stride: usize,
) {
    let whole = width / WIDTH * WIDTH;
    let factors = V::splat(factor);
    unsafe {
        for first in (0..rows).step_by(CHUNK) {
            let (from, to) = (from.add(first * from_stride), to.add(first * to_stride));
            let count = CHUNK.min(rows - first);
            if whole > NARROW {
                for r in 0..count {
                    for c in (0..whole).step_by(WIDTH) {
                        let numbers: V = T::load(from.add(r * from_stride + c));
                        numbers.mul(factors).store(to.add(r * to_stride + c));
                    }
                }
            } else {
                for c in (0..whole).step_by(WIDTH) {
                    for r in 0..count {
                        let numbers: V = T::load(from.add(r * from_stride + c));
                        numbers.mul(factors).store(to.add(r * to_stride + c));
                    }
                }
            }
            for c in whole..width {
                for r in 0..count {
                    *to.add(r * to_stride + c) = (*from.add(r * from_stride + c)).to_f32() * factor;
                }
            }
        }
    }
}

/// Rounds `count` floats to bf16 values; `count` is a multiple of 16.
///
/// # Safety
/// They may be written.
#[inline(always)]
pub unsafe fn round_to_bf16<V: Vector>(to: *mut f32, count: usize) {
    for i in (0..count).step_by(WIDTH) {
        unsafe { V::load(to.add(i)).round_to_bf16().store(to.add(i)) };
    }
}

/// Stores `rows` rows of `width` floats, times `factor`, rounded to the output's dtype, at element `first` on.
///
/// # Safety
/// No other task writes these elements; they exist.
#[inline(always)]
pub unsafe fn narrow_rows<V: Vector>(
    from: *const f32,
    from_stride: usize,
    rows: usize,
    width: usize,
    factor: f32,
    to: Output,
    first: usize,
    to_stride: usize,
) {
    unsafe {
        match to {
            Output::F32(y) => narrow::<V, _>(from, from_stride, rows, width, factor, y.add(first), to_stride),
            Output::Bf16(y) => {
                narrow::<V, _>(from, from_stride, rows, width, factor, y.add(first), to_stride)
            }
        }
    }
}

#[inline(always)]
unsafe fn narrow<V: Vector, T: Stored>(
    from: *const f32,
    from_stride: usize,
    rows: usize,
    width: usize,
    factor: f32,
    to: *mut T,
    to_stride: usize,
) {
    let whole = width / WIDTH * WIDTH;
    let factors = V::splat(factor);
    unsafe {
        for first in (0..rows).step_by(CHUNK) {
            let (from, to) = (from.add(first * from_stride), to.add(first * to_stride));
            let count = CHUNK.min(rows - first);
            if whole > NARROW {
                for r in 0..count {
                    for c in (0..whole).step_by(WIDTH) {
                        let numbers = V::load(from.add(r * from_stride + c)).mul(factors);
                        T::store(numbers, to.add(r * to_stride + c));
                    }
                }
            } else {
                for c in (0..whole).step_by(WIDTH) {
                    for r in 0..count {
                        let numbers = V::load(from.add(r * from_stride + c)).mul(factors);
                        T::store(numbers, to.add(r * to_stride + c));
                    }
                }
            }
            for c in whole..width {
                for r in 0..count {
                    *to.add(r * to_stride + c) = T::from_f32(*from.add(r * from_stride + c) * factor);
                }
            }
        }
    }
}

/// An output that tasks write in disjoint parts.
#[derive(Clone, Copy)]
pub enum Output {
    F32(*mut f32),
    Bf16(*mut u16),
}

// SAFETY: tasks write disjoint elements through it, which `narrow_rows` obliges its callers to.
unsafe impl Send for Output {}
unsafe impl Sync for Output {}

impl Output {
    pub fn of(slice: FloatsMut) -> Output {
        match slice {
            FloatsMut::F32(y) => Output::F32(y.as_mut_ptr()),
            FloatsMut::Bf16(y) => Output::Bf16(y.as_mut_ptr()),
        }
    }
}

/// Row c of `to` becomes column c of `from`, in squares of 16: `rows` and `columns` are rounded up to 16.
///
/// # Safety
/// Both tiles hold the rounded up number of rows and columns.
#[inline(always)]
pub unsafe fn transpose<V: Vector>(
    from: *const f32,
    from_stride: usize,
    rows: usize,
    columns: usize,
    to: *mut f32,
    to_stride: usize,
) {
    for r in (0..rows).step_by(WIDTH) {
        for c in (0..columns).step_by(WIDTH) {
            unsafe {
                V::transpose(
                    from.add(r * from_stride + c),
                    from_stride,
                    to.add(c * to_stride + r),
                    to_stride,
                )
            };
        }
    }
}

/// The inner product of two rows, by the 64 virtual lanes of `math::dot`.
///
/// # Safety
/// The rows lie there.
#[inline(always)]
pub unsafe fn row_dot<V: Vector, T: Stored, U: Stored>(a: *const T, b: *const U, width: usize) -> f32 {
    const VECTORS: usize = LANES / WIDTH;
    let mut sums = [V::zero(); VECTORS];
    let mut lanes = Lanes::zero();
    let mut c = 0;
    unsafe {
        while c + LANES <= width {
            for n in 0..VECTORS {
                let at = c + n * WIDTH;
                sums[n] = T::load::<V>(a.add(at)).mul_add(U::load(b.add(at)), sums[n]);
            }
            c += LANES;
        }
        let rest = (width - c) / WIDTH;
        for n in 0..VECTORS {
            if n < rest {
                let at = c + n * WIDTH;
                sums[n] = T::load::<V>(a.add(at)).mul_add(U::load(b.add(at)), sums[n]);
            }
            sums[n].store(lanes.0.as_mut_ptr().add(n * WIDTH));
        }
        for i in c + rest * WIDTH..width {
            lanes.0[i % LANES] = (*a.add(i))
                .to_f32()
                .mul_add((*b.add(i)).to_f32(), lanes.0[i % LANES]);
        }
    }
    lanes.sum()
}

/// Sets `count` floats to `value`.
///
/// # Safety
/// They may be written.
#[inline(always)]
pub unsafe fn fill(to: *mut f32, count: usize, value: f32) {
    for i in 0..count {
        unsafe { *to.add(i) = value };
    }
}
