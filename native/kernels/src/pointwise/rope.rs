// rope: the pairs (2j, 2j + 1) of R channels of each head turn by the angles of the token's position
//
// contract   src/tensor/ops/rope.ts             (reference, gradient, tolerance)
// layout     x, y [T, heads * stride]; the rotary channels of a head begin at `offset`; cos, sin [P, R / 2]
// dtype      x, y f32 or bf16; cos, sin f32; arithmetic f32
// limits     R even, offset + R <= stride; y may lie on x if both have one dtype; direction 1 or -1
// tiling     tokens of about 32768 numbers per task
// why so     the plain loop over pairs: loads of both channels and a shuffle. Factors spread over both channels save
//            the shuffle in f32 and lose twice as much in bf16. In place, other channels are not touched at all
// versions   v1 factors spread over both channels, swapped neighbours · v2 pairs (this file)
// measured   2026-11-22, AVX-512, one thread of a busy machine, 2,048 tokens of nano; bytes a second against copy
//            in the same run (examples/pointwise_bench.rs): bf16 apart 0.8

use super::rows::{Out, for_rows, require_apart};
use crate::args::{Args, Floats, FloatsMut, Operand};
use crate::bf16::Element;
use crate::error::KernelError;
use crate::ops::Ctx;
use crate::{by_isa, isa_twins, with_floats, with_floats_mut};

/// Cosines and sines, looked up by the positions of the tokens.
#[derive(Clone, Copy)]
pub struct Angles<'a> {
    cos: &'a [f32],
    sin: &'a [f32],
    positions: &'a [i32],
    half: usize,
}

impl<'a> Angles<'a> {
    /// For `t` tokens and `r` rotary channels. The table's length is not on the wire: it must hold the
    /// greatest position, and lie inside the arena.
    pub fn new(
        cos: Operand<'a>,
        sin: Operand<'a>,
        positions: Operand<'a>,
        t: usize,
        r: usize,
    ) -> Result<Angles<'a>, KernelError> {
        if !r.is_multiple_of(2) {
            return Err(KernelError::new("R", format!("{r} channels do not make pairs")));
        }
        let positions = positions.i32s(t)?;
        if let Some(bad) = positions.iter().position(|p| *p < 0) {
            let message = format!("token {bad} stands at {}, before the first", positions[bad]);
            return Err(KernelError::new("positions", message));
        }
        let rows = positions.iter().max().map_or(0, |last| *last as usize + 1);
        let half = r / 2;
        Ok(Angles {
            cos: cos.f32s(rows * half)?,
            sin: sin.f32s(rows * half)?,
            positions,
            half,
        })
    }

    /// The row of the table for token `t`.
    #[inline(always)]
    fn row(&self, t: usize) -> (&'a [f32], &'a [f32]) {
        let start = self.positions[t] as usize * self.half;
        (
            &self.cos[start..start + self.half],
            &self.sin[start..start + self.half],
        )
    }

    /// y = x turned by `direction` times the angles of token `t`.
    #[inline(always)]
    pub fn turn(&self, t: usize, direction: f32, x: Floats, y: FloatsMut) {
        let (cos, sin) = self.row(t);
        with_floats!(x, |x| with_floats_mut!(y, |y| turn(x, cos, sin, direction, y)));
    }
}

#[inline(always)]
fn turn_pair(even: f32, odd: f32, cos: f32, sin: f32) -> (f32, f32) {
    (even * cos - odd * sin, odd * cos + even * sin)
}

#[inline(always)]
fn turn<X: Element, Y: Element>(x: &[X], cos: &[f32], sin: &[f32], direction: f32, y: &mut [Y]) {
    let half = cos.len();
    let (x, sin, y) = (&x[..2 * half], &sin[..half], &mut y[..2 * half]);
    for j in 0..half {
        let (even, odd) = (x[2 * j].to_f32(), x[2 * j + 1].to_f32());
        let (even, odd) = turn_pair(even, odd, cos[j], sin[j] * direction);
        y[2 * j] = Y::from_f32(even);
        y[2 * j + 1] = Y::from_f32(odd);
    }
}

#[inline(always)]
fn turn_in_place<X: Element>(x: &mut [X], cos: &[f32], sin: &[f32], direction: f32) {
    let half = cos.len();
    let (x, sin) = (&mut x[..2 * half], &sin[..half]);
    for j in 0..half {
        let (even, odd) = (x[2 * j].to_f32(), x[2 * j + 1].to_f32());
        let (even, odd) = turn_pair(even, odd, cos[j], sin[j] * direction);
        x[2 * j] = X::from_f32(even);
        x[2 * j + 1] = X::from_f32(odd);
    }
}

struct Job<'a> {
    /// None: y holds x.
    x: Option<Floats<'a>>,
    y: Out<'a>,
    angles: Angles<'a>,
    heads: usize,
    stride: usize,
    offset: usize,
    r: usize,
    direction: f32,
}

pub fn rope(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (x, cos, sin) = (a.floats("x")?, a.f32s("cos")?, a.f32s("sin")?);
    let (positions, y) = (a.i32s("positions")?, a.floats("y")?);
    let (t, heads, stride) = (a.usize("T")?, a.usize("heads")?, a.usize("stride")?);
    let (offset, r, direction) = (a.usize("offset")?, a.usize("R")?, a.i64("direction")?);
    a.end()?;
    if offset + r > stride {
        let message = format!("{r} channels from {offset} do not fit a head of {stride}");
        return Err(KernelError::new("R", message));
    }
    if direction.abs() != 1 {
        return Err(KernelError::new(
            "direction",
            format!("{direction} is neither 1 nor -1"),
        ));
    }
    require_apart(&y, [&cos, &sin, &positions])?;
    let in_place = y.aliases(&x);
    if in_place && x.dtype() != y.dtype() {
        let message = format!(
            "lies on x, but is {} and x is {}",
            y.dtype().name(),
            x.dtype().name()
        );
        return Err(KernelError::new("y", message));
    }
    let width = heads * stride;
    let job = Job {
        x: if in_place { None } else { Some(x.slice(t * width)?) },
        angles: Angles::new(cos, sin, positions, t, r)?,
        y: Out::new(y.slice_mut(t * width)?),
        heads,
        stride,
        offset,
        r,
        direction: direction as f32,
    };
    for_rows(ctx.pool, t, width, |from, to, _| {
        by_isa!(ctx.isa, turn_tokens(&job, from, to));
    });
    Ok(())
}

isa_twins! {
    fn turn_tokens(job: &Job<'_>, from: usize, to: usize) {
        let width = job.heads * job.stride;
        for t in from..to {
            // SAFETY: row t belongs to this task.
            let y = unsafe { job.y.part(t * width, width) };
            match (job.x.map(|x| x.range(t * width, width)), y) {
                (None, FloatsMut::F32(y)) => turn_heads_in_place(job, t, y),
                (None, FloatsMut::Bf16(y)) => turn_heads_in_place(job, t, y),
                (Some(Floats::F32(x)), FloatsMut::F32(y)) => {
                    y.copy_from_slice(x);
                    turn_heads_in_place(job, t, y);
                }
                (Some(Floats::Bf16(x)), FloatsMut::Bf16(y)) => {
                    y.copy_from_slice(x);
                    turn_heads_in_place(job, t, y);
                }
                (Some(Floats::F32(x)), FloatsMut::Bf16(y)) => turn_heads(job, t, x, y),
                (Some(Floats::Bf16(x)), FloatsMut::F32(y)) => turn_heads(job, t, x, y),
            }
        }
    }
}

#[inline(always)]
fn turn_heads_in_place<X: Element>(job: &Job, t: usize, x: &mut [X]) {
    let (cos, sin) = job.angles.row(t);
    for head in x.chunks_exact_mut(job.stride) {
        turn_in_place(&mut head[job.offset..job.offset + job.r], cos, sin, job.direction);
    }
}

/// Between two dtypes: rotary channels turned, the others converted, each rounded once.
#[inline(always)]
fn turn_heads<X: Element, Y: Element>(job: &Job, t: usize, x: &[X], y: &mut [Y]) {
    let (cos, sin) = job.angles.row(t);
    let rotary = job.offset..job.offset + job.r;
    for (x, y) in x.chunks_exact(job.stride).zip(y.chunks_exact_mut(job.stride)) {
        for i in 0..job.stride {
            y[i] = Y::from_f32(x[i].to_f32());
        }
        turn(
            &x[rotary.clone()],
            cos,
            sin,
            job.direction,
            &mut y[rotary.clone()],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{Op, dtypes, numbers, table, turned};

    /// tokens, heads, stride, offset, rotary channels
    const SHAPES: [[usize; 5]; 6] = [
        [0, 1, 4, 0, 4],
        [1, 1, 2, 0, 2],
        [9, 3, 24, 16, 8],
        [70, 4, 48, 32, 16],
        [5, 2, 75, 3, 70],
        [2, 2, 5, 1, 0],
    ];

    fn expected(x: &[f32], positions: &[i32], shape: [usize; 5], direction: f64) -> Vec<f64> {
        let [_, heads, stride, offset, r] = shape;
        let (cos, sin) = table(40, r / 2);
        x.chunks(stride)
            .enumerate()
            .flat_map(|(i, head)| {
                let row = positions[i / heads] as usize * (r / 2);
                let middle = &head[offset..offset + r];
                let middle = turned(middle, &cos[row..row + r / 2], &sin[row..row + r / 2], direction);
                let mut y: Vec<f64> = head.iter().map(|v| *v as f64).collect();
                y[offset..offset + r].copy_from_slice(&middle);
                y
            })
            .collect()
    }

    #[test]
    fn pairs_turn_by_their_angles_forwards_and_backwards_in_place_and_apart() {
        for shape in SHAPES {
            let [t, heads, stride, offset, r] = shape;
            let n = t * heads * stride;
            let x = numbers(n, 1);
            let positions: Vec<i32> = (0..t as i32).map(|t| t * 17 % 40).collect();
            let (cos, sin) = table(40, r / 2);
            for direction in [1.0, -1.0] {
                let y = expected(&x, &positions, shape, direction);
                let sizes = [t, heads, stride, offset, r].map(|v| v as f64);
                let numbers: Vec<f64> = sizes.into_iter().chain([direction]).collect();
                for b in dtypes(2) {
                    let op = Op::new("rope")
                        .given(&x, b[0])
                        .given(&cos, false)
                        .given(&sin, false);
                    op.ids(&positions)
                        .wanted(n, b[1])
                        .numbers(&numbers)
                        .check(std::slice::from_ref(&y));
                }
                for is_bf16 in [false, true] {
                    let op = Op::new("rope")
                        .changed(&x, is_bf16)
                        .given(&cos, false)
                        .given(&sin, false);
                    op.ids(&positions)
                        .on_first(is_bf16)
                        .numbers(&numbers)
                        .check(std::slice::from_ref(&y));
                }
            }
        }
    }

    #[test]
    fn the_golden_vector_of_interleaved_pairs() {
        let x = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8];
        let angles = [3.0f64, 0.3, 0.03, 0.003];
        let (cos, sin) = (angles.map(|a| a.cos() as f32), angles.map(|a| a.sin() as f32));
        let op = Op::new("rope")
            .given(&x, false)
            .given(&cos, false)
            .given(&sin, false)
            .ids(&[0]);
        let op = op.wanted(8, false).numbers(&[1.0, 1.0, 8.0, 0.0, 8.0, 1.0]);
        let y = [
            -0.1272233, -0.1838865, 0.1683929, 0.4707907, 0.4817777, 0.6147278, 0.6975969, 0.8020964,
        ];
        for (actual, expected) in op.same_everywhere()[0].iter().zip(y) {
            assert!((*actual as f64 - expected).abs() < 1e-7);
        }
    }

    #[test]
    fn wrong_layouts_positions_and_directions_are_refused_by_name() {
        let refusal = |positions: &[i32], numbers: &[f64]| {
            let op = Op::new("rope")
                .given(&[0.0; 8], false)
                .given(&[0.0; 4], false)
                .given(&[0.0; 4], false);
            op.ids(positions)
                .wanted(8, false)
                .numbers(numbers)
                .refusal()
                .to_string()
        };
        let head = [1.0, 1.0, 8.0, 0.0, 8.0, 1.0];
        assert_eq!(
            refusal(&[-1], &head),
            "positions: token 0 stands at -1, before the first"
        );
        assert!(refusal(&[1 << 20], &head).contains("do not fit an arena"));
        assert_eq!(
            refusal(&[0], &[1.0, 1.0, 8.0, 1.0, 8.0, 1.0]),
            "R: 8 channels from 1 do not fit a head of 8"
        );
        assert_eq!(
            refusal(&[0], &[1.0, 1.0, 8.0, 0.0, 7.0, 1.0]),
            "R: 7 channels do not make pairs"
        );
        assert_eq!(
            refusal(&[0], &[1.0, 1.0, 8.0, 0.0, 8.0, 2.0]),
            "direction: 2 is neither 1 nor -1"
        );
    }
}
