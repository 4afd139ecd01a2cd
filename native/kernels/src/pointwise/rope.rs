// rope: the pairs (2j, 2j + 1) of R channels of each head turn by the angles of the token's position
//
// contract   src/tensor/ops/rope.ts             (reference, gradient, tolerance)
// layout     x, y [T, heads * stride]; the rotary channels of a head begin at `offset`; cos, sin [P, R / 2]
// dtype      x, y f32 or bf16; cos, sin f32; arithmetic f32
// limits     R even, offset + R <= stride; y may lie on x if both have one dtype; direction 1 or -1
// tiling     tokens of about 32768 numbers per task
// why so     y = x * c + swap(x) * s with c, s spread over both channels of a pair once per token: then a head
//            is two products and a sum of whole vectors. In place, other channels are not touched at all
// versions   v1 (this file)

use super::rows::{Out, for_rows, require_apart};
use crate::args::{Args, Floats, Operand};
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
        if r % 2 != 0 {
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

    /// The factors of token `t` for both channels of each pair: `cos` twice, and `-sin, sin` times `direction`.
    #[inline(always)]
    pub fn spread(&self, t: usize, direction: f32, c: &mut [f32], s: &mut [f32]) {
        let start = self.positions[t] as usize * self.half;
        let cos = &self.cos[start..start + self.half];
        let sin = &self.sin[start..start + self.half];
        for (j, (cos, sin)) in cos.iter().zip(sin).enumerate() {
            c[2 * j] = *cos;
            c[2 * j + 1] = *cos;
            s[2 * j] = -(sin * direction);
            s[2 * j + 1] = sin * direction;
        }
    }
}

/// Channels that turn in one vector step.
const STEP: usize = 16;

/// y = x * c + swap(x) * s, where swap exchanges the two channels of each pair.
#[inline(always)]
pub fn turn<X: Element, Y: Element>(x: &[X], c: &[f32], s: &[f32], y: &mut [Y]) {
    let n = x.len();
    let (c, s, y) = (&c[..n], &s[..n], &mut y[..n]);
    let mut i = 0;
    while i + STEP <= n {
        let mut part = [0.0; STEP];
        for l in 0..STEP {
            part[l] = x[i + l].to_f32();
        }
        turn_step(&mut part, &c[i..i + STEP], &s[i..i + STEP]);
        for l in 0..STEP {
            y[i + l] = Y::from_f32(part[l]);
        }
        i += STEP;
    }
    while i < n {
        let (even, odd) = (x[i].to_f32(), x[i + 1].to_f32());
        y[i] = Y::from_f32(even * c[i] + odd * s[i]);
        y[i + 1] = Y::from_f32(odd * c[i + 1] + even * s[i + 1]);
        i += 2;
    }
}

/// As `turn`, over itself.
#[inline(always)]
fn turn_in_place<X: Element>(x: &mut [X], c: &[f32], s: &[f32]) {
    let n = x.len();
    let (c, s) = (&c[..n], &s[..n]);
    let mut i = 0;
    while i + STEP <= n {
        let mut part = [0.0; STEP];
        for l in 0..STEP {
            part[l] = x[i + l].to_f32();
        }
        turn_step(&mut part, &c[i..i + STEP], &s[i..i + STEP]);
        for l in 0..STEP {
            x[i + l] = X::from_f32(part[l]);
        }
        i += STEP;
    }
    while i < n {
        let (even, odd) = (x[i].to_f32(), x[i + 1].to_f32());
        x[i] = X::from_f32(even * c[i] + odd * s[i]);
        x[i + 1] = X::from_f32(odd * c[i + 1] + even * s[i + 1]);
        i += 2;
    }
}

#[inline(always)]
fn turn_step(x: &mut [f32; STEP], c: &[f32], s: &[f32]) {
    let mut swapped = [0.0; STEP];
    for l in 0..STEP {
        swapped[l] = x[l ^ 1];
    }
    for l in 0..STEP {
        x[l] = x[l] * c[l] + swapped[l] * s[l];
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
    for_rows(ctx.pool, t, width, |from, to, scratch| {
        by_isa!(ctx.isa, turn_tokens(&job, from, to, scratch.f32(2 * r)));
    });
    Ok(())
}

isa_twins! {
    fn turn_tokens(job: &Job<'_>, from: usize, to: usize, scratch: &mut [f32]) {
        let (c, s) = scratch.split_at_mut(job.r);
        let width = job.heads * job.stride;
        for t in from..to {
            job.angles.spread(t, job.direction, c, s);
            // SAFETY: row t belongs to this task.
            let y = unsafe { job.y.part(t * width, width) };
            match &job.x {
                None => with_floats_mut!(y, |y| for head in y.chunks_exact_mut(job.stride) {
                    turn_in_place(&mut head[job.offset..job.offset + job.r], c, s);
                }),
                Some(x) => with_floats!(x.range(t * width, width), |x| with_floats_mut!(y, |y| {
                    turn_heads(x, c, s, job, y);
                })),
            }
        }
    }
}

/// One token's heads from x to y: rotary channels turned, the others copied.
#[inline(always)]
fn turn_heads<X: Element, Y: Element>(x: &[X], c: &[f32], s: &[f32], job: &Job, y: &mut [Y]) {
    let (first, last) = (job.offset, job.offset + job.r);
    for (x, y) in x.chunks_exact(job.stride).zip(y.chunks_exact_mut(job.stride)) {
        for i in 0..first {
            y[i] = Y::from_f32(x[i].to_f32());
        }
        turn(&x[first..last], c, s, &mut y[first..last]);
        for i in last..job.stride {
            y[i] = Y::from_f32(x[i].to_f32());
        }
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
                        .check(&[y.clone()]);
                }
                for is_bf16 in [false, true] {
                    let op = Op::new("rope")
                        .changed(&x, is_bf16)
                        .given(&cos, false)
                        .given(&sin, false);
                    op.ids(&positions)
                        .on_first(is_bf16)
                        .numbers(&numbers)
                        .check(&[y.clone()]);
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
