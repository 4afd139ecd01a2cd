//! RMSNorm of one row, forward and backward: what the three ops that contain a norm are made of.
//!
//! ```text
//! y_i = (s_i r) g_i,                 r = 1 / sqrt(mean(s^2) + eps)
//! ds_i = r (d_i - n_i m),            n_i = s_i r,  d_i = dy_i g_i,  m = mean_j(d_j n_j)
//! dg_i = sum over tokens dy_i n_i
//! ```
//!
//! Row sums run over 64 virtual lanes (`math.rs`). Gain gradients are summed over chunks of 64 tokens, token
//! by token, into one row of a workspace per chunk; the rows are then added in order. The row functions read
//! any storage dtype and hand f32 to each other through scratch rows that never leave the first cache: so each
//! dtype costs one loop at the edge instead of one kernel for every combination.

use crate::bf16::Element;
use crate::math::{LANES, Lanes};
use crate::ops::Ctx;
use crate::pool::Disjoint;
use crate::{by_isa, isa_twins};

/// Tokens per chunk of a gain gradient; src/tensor/ops/norm.ts sizes workspaces by the same number.
pub const CHUNK: usize = 64;

/// Adds up `term(i, &mut lane)` over 64 virtual lanes; whole groups of lanes are one vector loop.
#[inline(always)]
fn over_lanes(n: usize, mut term: impl FnMut(usize, &mut f32)) -> f32 {
    let mut lanes = Lanes::zero();
    let full = n / LANES * LANES;
    let mut start = 0;
    while start < full {
        for l in 0..LANES {
            term(start + l, &mut lanes.0[l]);
        }
        start += LANES;
    }
    for i in full..n {
        term(i, &mut lanes.0[i - full]);
    }
    lanes.sum()
}

/// s = x; returns the sum of squares.
#[inline(always)]
pub fn load<X: Element>(x: &[X], s: &mut [f32]) -> f32 {
    let n = x.len();
    let s = &mut s[..n];
    over_lanes(n, |i, lane| {
        s[i] = x[i].to_f32();
        *lane += s[i] * s[i];
    })
}

/// s = x + delta; returns the sum of squares.
#[inline(always)]
pub fn load_sum<X: Element, D: Element>(x: &[X], delta: &[D], s: &mut [f32]) -> f32 {
    let n = x.len();
    let (s, delta) = (&mut s[..n], &delta[..n]);
    over_lanes(n, |i, lane| {
        s[i] = x[i].to_f32() + delta[i].to_f32();
        *lane += s[i] * s[i];
    })
}

#[inline(always)]
pub fn inverse_rms(squares: f32, width: usize, eps: f32) -> f32 {
    1.0 / (squares / width as f32 + eps).sqrt()
}

/// y = (s r) g
#[inline(always)]
pub fn apply<Y: Element>(s: &[f32], r: f32, gain: &[f32], y: &mut [Y]) {
    let n = y.len();
    let (s, gain) = (&s[..n], &gain[..n]);
    for i in 0..n {
        y[i] = Y::from_f32(s[i] * r * gain[i]);
    }
}

/// Rounds a row to its storage dtype.
#[inline(always)]
pub fn store<Y: Element>(s: &[f32], y: &mut [Y]) {
    for (y, s) in y.iter_mut().zip(s) {
        *y = Y::from_f32(*s);
    }
}

/// Two scratch rows: d = dy g and n = s r.
pub struct Rows<'a> {
    pub d: &'a mut [f32],
    pub n: &'a mut [f32],
}

impl<'a> Rows<'a> {
    /// From `2 * width` floats.
    #[inline(always)]
    pub fn split(scratch: &'a mut [f32], width: usize) -> Rows<'a> {
        let (d, n) = scratch.split_at_mut(width);
        Rows {
            d,
            n: &mut n[..width],
        }
    }
}

/// Fills `rows`, adds the token's share to the gain gradient and returns m.
#[inline(always)]
pub fn backward_sums<G: Element, S: Element>(
    dy: &[G],
    s: &[S],
    gain: &[f32],
    r: f32,
    partial: &mut [f32],
    rows: &mut Rows,
) -> f32 {
    let width = dy.len();
    let (s, gain, partial) = (&s[..width], &gain[..width], &mut partial[..width]);
    let (d, n) = (&mut rows.d[..width], &mut rows.n[..width]);
    let sum = over_lanes(width, |i, lane| {
        let dy = dy[i].to_f32();
        n[i] = s[i].to_f32() * r;
        d[i] = dy * gain[i];
        partial[i] += dy * n[i];
        *lane += d[i] * n[i];
    });
    sum / width as f32
}

/// dx = r (d - n m)
#[inline(always)]
pub fn backward_apply<X: Element>(rows: &Rows, m: f32, r: f32, dx: &mut [X]) {
    let width = dx.len();
    let (d, n) = (&rows.d[..width], &rows.n[..width]);
    for i in 0..width {
        dx[i] = X::from_f32(r * (d[i] - n[i] * m));
    }
}

/// dx = r (d - n m) + dsum
#[inline(always)]
pub fn backward_apply_sum<D: Element, X: Element>(rows: &Rows, m: f32, r: f32, dsum: &[D], dx: &mut [X]) {
    let width = dx.len();
    let (d, n, dsum) = (&rows.d[..width], &rows.n[..width], &dsum[..width]);
    for i in 0..width {
        dx[i] = X::from_f32(r * (d[i] - n[i] * m) + dsum[i].to_f32());
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
