//! Products of small f32 tiles, in blocks of sums that stay in registers.

use super::vector::{Vector, WIDTH};

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
