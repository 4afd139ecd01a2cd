//! RMSNorm of one row, forward and backward: what the three ops that contain a norm are made of.
//!
//! ```text
//! y_i = (s_i r) g_i,                 r = 1 / sqrt(mean(s^2) + eps)
//! ds_i = r (d_i - n_i m),            n_i = s_i r,  d_i = dy_i g_i,  m = mean_j(d_j n_j)
//! dg_i = sum over tokens dy_i n_i
//! ```
//!
//! Row sums run over 64 virtual lanes (`math.rs`). Gain gradients are summed over chunks of 64 tokens, token
//! by token, into one row of a workspace per chunk; the rows are then added in order.

use super::vectors::{put, put_stored, take, take_stored};
use crate::args::{Floats, FloatsMut};
use crate::attention::vector::{Vector, WIDTH};
use crate::math::LANES;
use crate::ops::Ctx;
use crate::pool::Disjoint;
use crate::{by_isa, isa_twins};

/// Tokens per chunk of a gain gradient; src/tensor/ops/norm.ts sizes workspaces by the same number.
pub const CHUNK: usize = 64;

/// Running sums of the 64 lanes, neighbours side by side.
type Sums<V> = [V; LANES / WIDTH];

/// Adds up the lanes in the order that `math.rs` fixes: lane l += lane l + 32, then + 16, ... + 1.
#[inline(always)]
unsafe fn total<V: Vector>(sums: Sums<V>) -> f32 {
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

/// s = x (+ delta); returns the sum of squares. (Lanes beyond the end get +0: that changes no sum which began
/// with +0.)
///
/// # Safety
/// As for all functions over `Vector`: the processor has its instructions.
#[inline(always)]
pub unsafe fn load<V: Vector>(x: Floats, delta: Option<Floats>, s: &mut [f32]) -> f32 {
    let mut sums = [V::zero(); LANES / WIDTH];
    let mut start = 0;
    while start < s.len() {
        for g in 0..LANES / WIDTH {
            let i = start + g * WIDTH;
            if i < s.len() {
                // SAFETY: by the caller's word.
                unsafe {
                    let mut v: V = take(&x, i);
                    if let Some(delta) = &delta {
                        v = v.add(take(delta, i));
                    }
                    put_stored(v, s, i);
                    sums[g] = sums[g].add(v.mul(v));
                }
            }
        }
        start += LANES;
    }
    // SAFETY: by the caller's word.
    unsafe { total(sums) }
}

#[inline(always)]
pub fn inverse_rms(squares: f32, width: usize, eps: f32) -> f32 {
    1.0 / (squares / width as f32 + eps).sqrt()
}

/// y = (s r) g, and s rounded to its storage dtype if `sum` is there.
///
/// # Safety
/// As `load`.
#[inline(always)]
pub unsafe fn apply<V: Vector>(
    s: &[f32],
    r: f32,
    gain: &[f32],
    mut sum: Option<FloatsMut>,
    mut y: FloatsMut,
) {
    let mut i = 0;
    while i < s.len() {
        // SAFETY: by the caller's word.
        unsafe {
            let v: V = take_stored(s, i);
            put(v.mul(V::splat(r)).mul(take_stored(gain, i)), &mut y, i);
            if let Some(sum) = &mut sum {
                put(v, sum, i);
            }
        }
        i += WIDTH;
    }
}

/// One row of a norm whose gradient is wanted.
pub struct Row<'a> {
    pub dy: Floats<'a>,
    pub s: Floats<'a>,
    pub gain: &'a [f32],
    pub r: f32,
    /// A gradient of s that comes from elsewhere.
    pub dsum: Option<Floats<'a>>,
}

/// Writes the row's gradient and adds its share of the gain's to `partial`. `scratch` holds two rows.
///
/// # Safety
/// As `load`.
#[inline(always)]
pub unsafe fn backward<V: Vector>(row: Row, partial: &mut [f32], scratch: &mut [f32], mut dx: FloatsMut) {
    let width = partial.len();
    let (d, n) = scratch.split_at_mut(width);
    let n = &mut n[..width];
    let r = V::splat(row.r);
    let mut sums = [V::zero(); LANES / WIDTH];
    let mut start = 0;
    while start < width {
        for g in 0..LANES / WIDTH {
            let i = start + g * WIDTH;
            if i < width {
                // SAFETY: by the caller's word.
                unsafe {
                    let dy: V = take(&row.dy, i);
                    let normed = take::<V>(&row.s, i).mul(r);
                    let scaled = dy.mul(take_stored(row.gain, i));
                    put_stored(normed, n, i);
                    put_stored(scaled, d, i);
                    put_stored(take_stored::<V, f32>(partial, i).add(dy.mul(normed)), partial, i);
                    sums[g] = sums[g].add(scaled.mul(normed));
                }
            }
        }
        start += LANES;
    }
    // SAFETY: by the caller's word.
    let m = V::splat(unsafe { total(sums) } / width as f32);
    let mut i = 0;
    while i < width {
        // SAFETY: by the caller's word.
        unsafe {
            let mut v = take_stored::<V, f32>(d, i)
                .sub(take_stored::<V, f32>(n, i).mul(m))
                .mul(r);
            if let Some(dsum) = &row.dsum {
                v = v.add(take(dsum, i));
            }
            put(v, &mut dx, i);
        }
        i += WIDTH;
    }
}

/// Calls `work(from, to, partial, scratch)` for each chunk of 64 tokens with its row of the workspace, `width`
/// zeros, to which it adds its share of the gain gradients, and `scratch_len` floats of scratch.
pub fn for_chunks(
    ctx: &Ctx,
    tokens: usize,
    width: usize,
    scratch_len: usize,
    workspace: &mut [f32],
    work: impl Fn(usize, usize, &mut [f32], &mut [f32]) + Sync,
) {
    let rows = Disjoint::new(workspace);
    super::rows::for_rows(
        ctx.pool,
        tokens.div_ceil(CHUNK),
        CHUNK * width,
        |first, last, scratch| {
            for chunk in first..last {
                // SAFETY: each chunk belongs to one task.
                let partial = unsafe { rows.part(chunk * width, width) };
                partial.fill(0.0);
                let from = chunk * CHUNK;
                work(
                    from,
                    (from + CHUNK).min(tokens),
                    partial,
                    scratch.f32(scratch_len),
                );
            }
        },
    );
}

/// dgain += the sum of its columns of the workspace, `stride` wide, from column `first`: rows in order, then
/// one addition.
pub fn add_partials(ctx: &Ctx, workspace: &[f32], stride: usize, first: usize, dgain: &mut [f32]) {
    const COLUMNS: usize = 1024;
    if workspace.is_empty() {
        return;
    }
    let width = dgain.len();
    let out = Disjoint::new(dgain);
    ctx.pool.run(width.div_ceil(COLUMNS), &|task, scratch| {
        let from = task * COLUMNS;
        let len = COLUMNS.min(width - from);
        // SAFETY: tasks have columns of their own.
        let dgain = unsafe { out.part(from, len) };
        by_isa!(
            ctx.isa,
            add_columns(workspace, stride, first + from, scratch.f32(len), dgain)
        );
    });
}

isa_twins! {
    fn add_columns(workspace: &[f32], stride: usize, first: usize, sum: &mut [f32], dgain: &mut [f32]) {
        sum.fill(0.0);
        for row in workspace.chunks_exact(stride) {
            for (sum, value) in sum.iter_mut().zip(&row[first..]) {
                *sum += value;
            }
        }
        for (dgain, sum) in dgain.iter_mut().zip(sum) {
            *dgain += *sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::numbers;
    use super::*;
    use crate::attention::vector::Array;
    use crate::math;

    #[test]
    fn row_sums_keep_the_order_of_the_64_lanes() {
        for n in [0, 1, 15, 16, 63, 64, 65, 81, 128, 517] {
            let x: Vec<f32> = numbers(n, 1).iter().map(|v| v * 1.000_1).collect();
            let mut s = vec![0.0; n];
            let expected = math::sum_of(n, |i| x[i] * x[i]);
            // SAFETY: arrays need no instructions of their own.
            let squares = unsafe { load::<Array>(Floats::F32(&x), None, &mut s) };
            assert_eq!(squares.to_bits(), expected.to_bits(), "n = {n}");
            assert_eq!(s, x);
        }
    }
}
