//! What the attention kernels do with small f32 tiles: widen rows into them, transpose them, multiply them.
//!
//! Tiles live in a thread's scratch. Their strides are multiples of 16 floats, padding zero, so that no loop below ends
//! in the middle of a vector.

use super::vector::{Stored, Vector, WIDTH};
use crate::args::{Floats, FloatsMut};
use crate::math::{LANES, Lanes};
use crate::with_floats;

/// Queries side by side in a panel: the lanes of two vectors.
pub const PANEL: usize = 2 * WIDTH;
/// Keys of a tile, counted from the sequence's start. Part of the numbers' definition: sums of a softmax are
/// rescaled from tile to tile.
pub const KEY_TILE: usize = 64;

/// Rows of a product's largest block: channel counts are rounded up to it, so that odd heads run at full speed.
pub const ROWS: usize = 8;

/// Widest row, in floats, that is converted column by column.
const NARROW: usize = 64;

/// Hands out consecutive parts of a scratch buffer, each on a cache line of its own.
pub struct Parts<'a> {
    rest: &'a mut [f32],
}

impl<'a> Parts<'a> {
    pub fn of(buffer: &'a mut [f32]) -> Parts<'a> {
        Parts { rest: buffer }
    }

    /// `rows * stride` floats; `stride` is a multiple of 16.
    pub fn take(&mut self, rows: usize, stride: usize) -> *mut f32 {
        let (part, rest) = std::mem::take(&mut self.rest).split_at_mut(rows * stride);
        self.rest = rest;
        part.as_mut_ptr()
    }
}

/// `M x N` vectors of `acc + A B`, one FMA chain per element over `depth` in ascending order.
///
/// Element (m, k) of A lies at `a[m * a_row + k * a_step]` and is broadcast; row k of B is `N` vectors at
/// `b[k * b_step]`.
///
/// # Safety
/// A and B are as large as said.
#[inline(always)]
pub unsafe fn product<V: Vector, const M: usize, const N: usize>(
    mut acc: [[V; N]; M],
    a: *const f32,
    a_row: usize,
    a_step: usize,
    b: *const f32,
    b_step: usize,
    depth: usize,
) -> [[V; N]; M] {
    for k in 0..depth {
        let mut row = [V::zero(); N];
        for n in 0..N {
            row[n] = unsafe { V::load(b.add(k * b_step + n * WIDTH)) };
        }
        for m in 0..M {
            let x = V::splat(unsafe { *a.add(m * a_row + k * a_step) });
            for n in 0..N {
                acc[m][n] = x.mul_add(row[n], acc[m][n]);
            }
        }
    }
    acc
}

/// `M x N` vectors from rows at `from`.
///
/// # Safety
/// The rows lie there.
#[inline(always)]
pub unsafe fn load_block<V: Vector, const M: usize, const N: usize>(
    from: *const f32,
    stride: usize,
) -> [[V; N]; M] {
    let mut block = [[V::zero(); N]; M];
    for m in 0..M {
        for n in 0..N {
            block[m][n] = unsafe { V::load(from.add(m * stride + n * WIDTH)) };
        }
    }
    block
}

/// Stores `M x N` vectors as rows at `to`.
///
/// # Safety
/// The rows may be written.
#[inline(always)]
pub unsafe fn store_block<V: Vector, const M: usize, const N: usize>(
    block: [[V; N]; M],
    to: *mut f32,
    stride: usize,
) {
    for m in 0..M {
        for n in 0..N {
            unsafe { block[m][n].store(to.add(m * stride + n * WIDTH)) };
        }
    }
}

/// Where a product's sums begin and where they go, for blocks of any number of rows.
pub trait Sums<V: Vector, const N: usize> {
    /// # Safety
    /// Rows `row..row + M` exist.
    unsafe fn begin<const M: usize>(&mut self, row: usize) -> [[V; N]; M];
    /// # Safety
    /// Rows `row..row + M` exist.
    unsafe fn end<const M: usize>(&mut self, row: usize, acc: [[V; N]; M]);
}

/// A tile's factor A of a product: element (row, k) lies at `start[row * row_stride + k * step]`.
#[derive(Clone, Copy)]
pub struct Left {
    pub start: *const f32,
    pub row_stride: usize,
    pub step: usize,
}

/// A tile's factor B of a product: row k begins at `start[k * stride]`.
#[derive(Clone, Copy)]
pub struct Right {
    pub start: *const f32,
    pub stride: usize,
}

/// `rows x N` vectors of A B, in blocks of `M` rows while they last.
///
/// # Safety
/// A, B and what `sums` writes are as large as said.
#[inline(always)]
pub unsafe fn multiply<V: Vector, const M: usize, const N: usize>(
    a: Left,
    b: Right,
    rows: usize,
    depth: usize,
    sums: &mut impl Sums<V, N>,
) {
    let mut row = 0;
    unsafe {
        while row + M <= rows {
            multiply_block::<V, M, N>(a, b, row, depth, sums);
            row += M;
        }
        while row + 4 <= rows {
            multiply_block::<V, 4, N>(a, b, row, depth, sums);
            row += 4;
        }
        while row + 2 <= rows {
            multiply_block::<V, 2, N>(a, b, row, depth, sums);
            row += 2;
        }
        if row < rows {
            multiply_block::<V, 1, N>(a, b, row, depth, sums);
        }
    }
}

#[inline(always)]
unsafe fn multiply_block<V: Vector, const M: usize, const N: usize>(
    a: Left,
    b: Right,
    row: usize,
    depth: usize,
    sums: &mut impl Sums<V, N>,
) {
    unsafe {
        let acc = sums.begin::<M>(row);
        let rows = a.start.add(row * a.row_stride);
        let acc = product::<V, M, N>(acc, rows, a.row_stride, a.step, b.start, b.stride, depth);
        sums.end::<M>(row, acc);
    }
}

/// Rows in memory that a product is written to.
#[derive(Clone, Copy)]
pub struct Target {
    pub to: *mut f32,
    pub stride: usize,
    pub before: Before,
}

/// What a product is added to.
#[derive(Clone, Copy)]
pub enum Before {
    Nothing,
    /// What lies there.
    Sums,
    /// What lies there, each row times its own vector of these.
    Rescaled(*const f32),
}

impl<V: Vector, const N: usize> Sums<V, N> for Target {
    #[inline(always)]
    unsafe fn begin<const M: usize>(&mut self, row: usize) -> [[V; N]; M] {
        let rows = unsafe { self.to.add(row * self.stride) };
        match self.before {
            Before::Nothing => [[V::zero(); N]; M],
            Before::Sums => unsafe { load_block(rows, self.stride) },
            Before::Rescaled(factors) => {
                let mut block: [[V; N]; M] = unsafe { load_block(rows, self.stride) };
                for m in 0..M {
                    let factor = unsafe { V::load(factors.add((row + m) * WIDTH)) };
                    for n in 0..N {
                        block[m][n] = block[m][n].mul(factor);
                    }
                }
                block
            }
        }
    }
    #[inline(always)]
    unsafe fn end<const M: usize>(&mut self, row: usize, acc: [[V; N]; M]) {
        unsafe { store_block(acc, self.to.add(row * self.stride), self.stride) }
    }
}

/// `rows x columns` of A B, N vectors of columns at a time; `columns` is a multiple of 16.
///
/// # Safety
/// A, B and the target are as large as said.
#[inline(always)]
pub unsafe fn multiply_columns<V: Vector, const M: usize, const N: usize>(
    a: Left,
    b: Right,
    rows: usize,
    columns: usize,
    depth: usize,
    target: Target,
) {
    let mut column = 0;
    unsafe {
        while column < columns {
            let b = Right {
                start: b.start.add(column),
                stride: b.stride,
            };
            let mut sums = Target {
                to: target.to.add(column),
                ..target
            };
            if N == 2 && column + 2 * WIDTH <= columns {
                multiply::<V, M, 2>(a, b, rows, depth, &mut sums);
                column += 2 * WIDTH;
            } else {
                multiply::<V, M, 1>(a, b, rows, depth, &mut sums);
                column += WIDTH;
            }
        }
    }
}

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

/// Narrow rows go column by column, the inner loop being the longer one; wide rows go one by one, as memory likes it.
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
        if whole > NARROW {
            for r in 0..rows {
                let (from, to) = (from.add(r * from_stride), to.add(r * to_stride));
                let mut c = 0;
                while c < whole {
                    T::load::<V>(from.add(c)).mul(factors).store(to.add(c));
                    c += WIDTH;
                }
            }
        } else {
            let mut c = 0;
            while c < whole {
                for r in 0..rows {
                    let numbers: V = T::load(from.add(r * from_stride + c));
                    numbers.mul(factors).store(to.add(r * to_stride + c));
                }
                c += WIDTH;
            }
        }
        for c in whole..width {
            for r in 0..rows {
                *to.add(r * to_stride + c) = (*from.add(r * from_stride + c)).to_f32() * factor;
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
    let mut c = 0;
    unsafe {
        while c + WIDTH <= width {
            for r in 0..rows {
                let numbers = V::load(from.add(r * from_stride + c)).mul(V::splat(factor));
                T::store(numbers, to.add(r * to_stride + c));
            }
            c += WIDTH;
        }
        while c < width {
            for r in 0..rows {
                *to.add(r * to_stride + c) = T::from_f32(*from.add(r * from_stride + c) * factor);
            }
            c += 1;
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
pub unsafe fn row_dot<V: Vector, T: Stored>(a: *const T, b: *const f32, width: usize) -> f32 {
    const VECTORS: usize = LANES / WIDTH;
    let mut sums = [V::zero(); VECTORS];
    let mut lanes = Lanes::zero();
    let mut c = 0;
    unsafe {
        while c + LANES <= width {
            for n in 0..VECTORS {
                let at = c + n * WIDTH;
                sums[n] = T::load::<V>(a.add(at)).mul_add(V::load(b.add(at)), sums[n]);
            }
            c += LANES;
        }
        let rest = (width - c) / WIDTH;
        for n in 0..VECTORS {
            if n < rest {
                let at = c + n * WIDTH;
                sums[n] = T::load::<V>(a.add(at)).mul_add(V::load(b.add(at)), sums[n]);
            }
            sums[n].store(lanes.0.as_mut_ptr().add(n * WIDTH));
        }
        for i in c + rest * WIDTH..width {
            lanes.0[i % LANES] = (*a.add(i)).to_f32().mul_add(*b.add(i), lanes.0[i % LANES]);
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

/// The next multiple of a vector's width.
pub fn whole_vectors(n: usize) -> usize {
    n.next_multiple_of(WIDTH)
}
