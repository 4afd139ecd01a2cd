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

use super::vectors::{Sums, put_at, take_at, total};
use crate::args::{Floats, FloatsMut};
use crate::attention::vector::{Stored, Vector, WIDTH};
use crate::math::LANES;
use crate::ops::Ctx;
use crate::pool::Disjoint;
use crate::{by_isa, isa_twins, with_floats, with_floats_mut};

/// Tokens per chunk of a gain gradient; src/tensor/ops/norm.ts sizes workspaces by the same number.
pub const CHUNK: usize = 64;

/// s = x (+ delta); returns the sum of squares. (Lanes beyond the end get +0: that changes no sum which began
/// with +0.)
///
/// # Safety
/// As for all functions over `Vector`: the processor has its instructions.
#[inline(always)]
pub unsafe fn load<V: Vector>(x: Floats, delta: Option<Floats>, s: &mut [f32]) -> f32 {
    // SAFETY: by the caller's word.
    unsafe {
        with_floats!(x, |x| match delta {
            None => load_row::<V, _, f32>(x, None, s),
            Some(delta) => with_floats!(delta, |delta| load_row::<V, _, _>(x, Some(delta), s)),
        })
    }
}

#[inline(always)]
unsafe fn load_row<V: Vector, X: Stored, D: Stored>(x: &[X], delta: Option<&[D]>, s: &mut [f32]) -> f32 {
    let width = s.len();
    assert!(x.len() == width && delta.is_none_or(|delta| delta.len() == width));
    let mut sums: Sums<V> = [V::zero(); LANES / WIDTH];
    let whole = width / LANES * LANES;
    // SAFETY: by the caller's word; rows are of one width, and vectors below `whole` lie in them.
    unsafe {
        for start in (0..whole).step_by(LANES) {
            for g in 0..LANES / WIDTH {
                load_at::<V, X, D, true>(x, delta, s, start + g * WIDTH, &mut sums[g]);
            }
        }
        for (g, i) in (whole..width).step_by(WIDTH).enumerate() {
            load_at::<V, X, D, false>(x, delta, s, i, &mut sums[g]);
        }
        total(sums)
    }
}

#[inline(always)]
unsafe fn load_at<V: Vector, X: Stored, D: Stored, const WHOLE: bool>(
    x: &[X],
    delta: Option<&[D]>,
    s: &mut [f32],
    i: usize,
    sum: &mut V,
) {
    // SAFETY: by the caller's word.
    unsafe {
        let mut v = take_at::<V, X, WHOLE>(x, i);
        if let Some(delta) = delta {
            v = v.add(take_at::<V, D, WHOLE>(delta, i));
        }
        put_at::<V, f32, WHOLE>(v, s, i);
        *sum = sum.add(v.mul(v));
    }
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
pub unsafe fn apply<V: Vector>(s: &[f32], r: f32, gain: &[f32], sum: Option<FloatsMut>, y: FloatsMut) {
    // SAFETY: by the caller's word.
    unsafe {
        with_floats_mut!(y, |y| match sum {
            None => apply_row::<V, _, f32>(s, r, gain, None, y),
            Some(sum) => with_floats_mut!(sum, |sum| apply_row::<V, _, _>(s, r, gain, Some(sum), y)),
        })
    }
}

#[inline(always)]
unsafe fn apply_row<V: Vector, Y: Stored, S: Stored>(
    s: &[f32],
    r: f32,
    gain: &[f32],
    mut sum: Option<&mut [S]>,
    y: &mut [Y],
) {
    let width = s.len();
    assert!(gain.len() == width && y.len() == width && sum.as_ref().is_none_or(|sum| sum.len() == width));
    let (r, whole) = (V::splat(r), width / WIDTH * WIDTH);
    // SAFETY: by the caller's word; rows are of one width, and vectors below `whole` lie in them.
    unsafe {
        for i in (0..whole).step_by(WIDTH) {
            apply_at::<V, Y, S, true>(s, r, gain, sum.as_deref_mut(), y, i);
        }
        if whole < width {
            apply_at::<V, Y, S, false>(s, r, gain, sum, y, whole);
        }
    }
}

#[inline(always)]
unsafe fn apply_at<V: Vector, Y: Stored, S: Stored, const WHOLE: bool>(
    s: &[f32],
    r: V,
    gain: &[f32],
    sum: Option<&mut [S]>,
    y: &mut [Y],
    i: usize,
) {
    // SAFETY: by the caller's word.
    unsafe {
        let v = take_at::<V, f32, WHOLE>(s, i);
        let gain = take_at::<V, f32, WHOLE>(gain, i);
        put_at::<V, Y, WHOLE>(v.mul(r).mul(gain), y, i);
        if let Some(sum) = sum {
            put_at::<V, S, WHOLE>(v, sum, i);
        }
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
pub unsafe fn backward<V: Vector>(row: Row, partial: &mut [f32], scratch: &mut [f32], dx: FloatsMut) {
    let width = partial.len();
    let (scaled, normed) = scratch.split_at_mut(width);
    let normed = &mut normed[..width];
    let r = V::splat(row.r);
    // SAFETY: by the caller's word.
    unsafe {
        let sum = with_floats!(row.dy, |dy| with_floats!(row.s, |s| {
            scale_row::<V, _, _>((dy, s, row.gain), r, partial, (scaled, normed))
        }));
        let rows = (&*scaled, &*normed);
        let (r, mean) = (r, V::splat(sum / width as f32));
        with_floats_mut!(dx, |dx| match row.dsum {
            None => project_row::<V, f32, _>(rows, (r, mean), None, dx),
            Some(dsum) => with_floats!(dsum, |dsum| project_row::<V, _, _>(
                rows,
                (r, mean),
                Some(dsum),
                dx
            )),
        });
    }
}

/// d = dy g and n = s r, partial += dy n; returns the sum of d n.
#[inline(always)]
unsafe fn scale_row<V: Vector, G: Stored, S: Stored>(
    (dy, s, gain): (&[G], &[S], &[f32]),
    r: V,
    partial: &mut [f32],
    (scaled, normed): (&mut [f32], &mut [f32]),
) -> f32 {
    let width = partial.len();
    assert!([dy.len(), s.len(), gain.len(), scaled.len(), normed.len()] == [width; 5]);
    let mut sums: Sums<V> = [V::zero(); LANES / WIDTH];
    let whole = width / LANES * LANES;
    // SAFETY: by the caller's word; rows are of one width, and vectors below `whole` lie in them.
    unsafe {
        for start in (0..whole).step_by(LANES) {
            for g in 0..LANES / WIDTH {
                let i = start + g * WIDTH;
                let product = scale_at::<V, G, S, true>((dy, s, gain), r, partial, (scaled, normed), i);
                sums[g] = sums[g].add(product);
            }
        }
        for (g, i) in (whole..width).step_by(WIDTH).enumerate() {
            let product = scale_at::<V, G, S, false>((dy, s, gain), r, partial, (scaled, normed), i);
            sums[g] = sums[g].add(product);
        }
        total(sums)
    }
}

#[inline(always)]
unsafe fn scale_at<V: Vector, G: Stored, S: Stored, const WHOLE: bool>(
    (dy, s, gain): (&[G], &[S], &[f32]),
    r: V,
    partial: &mut [f32],
    (scaled, normed): (&mut [f32], &mut [f32]),
    i: usize,
) -> V {
    // SAFETY: by the caller's word.
    unsafe {
        let dy = take_at::<V, G, WHOLE>(dy, i);
        let n = take_at::<V, S, WHOLE>(s, i).mul(r);
        let d = dy.mul(take_at::<V, f32, WHOLE>(gain, i));
        put_at::<V, f32, WHOLE>(n, normed, i);
        put_at::<V, f32, WHOLE>(d, scaled, i);
        let share = take_at::<V, f32, WHOLE>(partial, i).add(dy.mul(n));
        put_at::<V, f32, WHOLE>(share, partial, i);
        d.mul(n)
    }
}

/// dx = r (d - n m) (+ dsum)
#[inline(always)]
unsafe fn project_row<V: Vector, D: Stored, Y: Stored>(
    rows: (&[f32], &[f32]),
    factors: (V, V),
    dsum: Option<&[D]>,
    dx: &mut [Y],
) {
    let width = dx.len();
    assert!([rows.0.len(), rows.1.len()] == [width; 2] && dsum.is_none_or(|dsum| dsum.len() == width));
    let whole = width / WIDTH * WIDTH;
    // SAFETY: by the caller's word; rows are of one width, and vectors below `whole` lie in them.
    unsafe {
        for i in (0..whole).step_by(WIDTH) {
            project_at::<V, D, Y, true>(rows, factors, dsum, dx, i);
        }
        if whole < width {
            project_at::<V, D, Y, false>(rows, factors, dsum, dx, whole);
        }
    }
}

#[inline(always)]
unsafe fn project_at<V: Vector, D: Stored, Y: Stored, const WHOLE: bool>(
    (scaled, normed): (&[f32], &[f32]),
    (r, mean): (V, V),
    dsum: Option<&[D]>,
    dx: &mut [Y],
    i: usize,
) {
    // SAFETY: by the caller's word.
    unsafe {
        let d = take_at::<V, f32, WHOLE>(scaled, i);
        let n = take_at::<V, f32, WHOLE>(normed, i);
        let mut v = d.sub(n.mul(mean)).mul(r);
        if let Some(dsum) = dsum {
            v = v.add(take_at::<V, D, WHOLE>(dsum, i));
        }
        put_at::<V, Y, WHOLE>(v, dx, i);
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
