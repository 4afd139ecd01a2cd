// fill, copy, cast, add, axpy, scale, copyRow, addCounts: one number out of one or two numbers in
//
// contract   src/tensor/ops/elementwise.ts      (references)
// dtype      f32 or bf16, each operand on its own; arithmetic f32, one rounding at the store; copy and copyRow
//            take any dtype, addCounts i32
// limits     n = 0 is legal; add may write over its first operand if both have one dtype
// tiling     32768 numbers per task
// why so     nothing to save but passes over memory: one read per operand, one write
// versions   v1 (this file)

use super::rows::{Out, TASK, for_rows, require_apart};
use crate::args::{Args, Floats};
use crate::bf16::Element;
use crate::error::KernelError;
use crate::isa::Isa;
use crate::ops::Ctx;
use crate::pool::Disjoint;
use crate::{by_isa, isa_twins, with_floats, with_floats_mut};

pub fn fill(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let y = a.floats("y")?;
    let n = a.usize("n")?;
    let value = a.f32("value")?;
    a.end()?;
    let out = Out::new(y.slice_mut(n)?);
    for_rows(ctx.pool, n, 1, |from, to, _| {
        // SAFETY: tasks have ranges of their own.
        with_floats_mut!(unsafe { out.part(from, to - from) }, |y| fill_all(y, value));
    });
    Ok(())
}

fn fill_all<Y: Element>(y: &mut [Y], value: f32) {
    y.fill(Y::from_f32(value));
}

pub fn copy(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (x, y) = (a.any("x")?, a.any("y")?);
    let n = a.usize("n")?;
    a.end()?;
    if x.dtype() != y.dtype() {
        let message = format!("is {}, x is {}", y.dtype().name(), x.dtype().name());
        return Err(KernelError::new("y", message));
    }
    require_apart(&y, [&x])?;
    let (from, to) = (x.bytes(n)?, Disjoint::new(y.bytes_mut(n)?));
    let bytes = from.len();
    const CHUNK: usize = 4 * TASK;
    ctx.pool.run(bytes.div_ceil(CHUNK), &|task, _| {
        let start = task * CHUNK;
        let len = CHUNK.min(bytes - start);
        // SAFETY: tasks have ranges of their own.
        unsafe { to.part(start, len) }.copy_from_slice(&from[start..start + len]);
    });
    Ok(())
}

/// Into row `row` of a table whose rows have n numbers. A handful of them: no task of their own.
pub fn copy_row(_ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (x, table) = (a.any("x")?, a.any("table")?);
    let (n, row) = (a.usize("n")?, a.usize("row")?);
    a.end()?;
    if x.dtype() != table.dtype() {
        let message = format!("is {}, x is {}", table.dtype().name(), x.dtype().name());
        return Err(KernelError::new("table", message));
    }
    require_apart(&table, [&x])?;
    let end = row.checked_add(1).and_then(|rows| rows.checked_mul(n));
    let Some(end) = end else {
        return Err(KernelError::new("row", format!("{row} is no row")));
    };
    let (from, to) = (x.bytes(n)?, table.bytes_mut(end)?);
    let start = to.len() - from.len();
    to[start..].copy_from_slice(from);
    Ok(())
}

pub fn add_counts(_ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (x, y) = (a.i32s("x")?, a.i32s("y")?);
    let n = a.usize("n")?;
    a.end()?;
    require_apart(&y, [&x])?;
    for (y, x) in y.i32s_mut(n)?.iter_mut().zip(x.i32s(n)?) {
        *y = y.wrapping_add(*x);
    }
    Ok(())
}

pub fn cast(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (x, y) = (a.floats("x")?, a.floats("y")?);
    let n = a.usize("n")?;
    a.end()?;
    require_apart(&y, [&x])?;
    let (x, out) = (x.slice(n)?, Out::new(y.slice_mut(n)?));
    for_rows(ctx.pool, n, 1, |from, to, _| {
        let x = x.range(from, to - from);
        // SAFETY: tasks have ranges of their own.
        with_floats_mut!(unsafe { out.part(from, to - from) }, |y| with_floats!(x, |x| {
            by_isa!(ctx.isa, convert(x, y));
        }));
    });
    Ok(())
}

pub fn add(ctx: &Ctx, args: &mut Args) -> Result<(), KernelError> {
    let (a, b, y) = (args.floats("a")?, args.floats("b")?, args.floats("y")?);
    let n = args.usize("n")?;
    args.end()?;
    require_apart(&y, [&b])?;
    if y.aliases(&a) {
        if y.dtype() != a.dtype() {
            let message = format!(
                "lies on a, but is {} and a is {}",
                y.dtype().name(),
                a.dtype().name()
            );
            return Err(KernelError::new("y", message));
        }
        add_scaled(ctx, b.slice(n)?, 1.0, Out::new(y.slice_mut(n)?), n);
        return Ok(());
    }
    let (a, b, out) = (a.slice(n)?, b.slice(n)?, Out::new(y.slice_mut(n)?));
    for_rows(ctx.pool, n, 1, |from, to, _| {
        let len = to - from;
        // SAFETY: tasks have ranges of their own.
        with_floats_mut!(unsafe { out.part(from, len) }, |y| {
            add_into(ctx.isa, a.range(from, len), b.range(from, len), y);
        });
    });
    Ok(())
}

fn add_into<Y: Element>(isa: Isa, a: Floats, b: Floats, y: &mut [Y]) {
    with_floats!(a, |a| with_floats!(b, |b| by_isa!(isa, sum(a, b, y))));
}

pub fn axpy(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (x, y) = (a.floats("x")?, a.floats("y")?);
    let n = a.usize("n")?;
    let alpha = a.f32("alpha")?;
    a.end()?;
    require_apart(&y, [&x])?;
    add_scaled(ctx, x.slice(n)?, alpha, Out::new(y.slice_mut(n)?), n);
    Ok(())
}

/// y += alpha x
fn add_scaled(ctx: &Ctx, x: Floats, alpha: f32, out: Out, n: usize) {
    for_rows(ctx.pool, n, 1, |from, to, _| {
        let x = x.range(from, to - from);
        // SAFETY: tasks have ranges of their own.
        with_floats_mut!(unsafe { out.part(from, to - from) }, |y| with_floats!(x, |x| {
            by_isa!(ctx.isa, accumulate(x, alpha, y));
        }));
    });
}

pub fn scale(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let y = a.floats("y")?;
    let n = a.usize("n")?;
    let alpha = a.f32("alpha")?;
    a.end()?;
    let out = Out::new(y.slice_mut(n)?);
    for_rows(ctx.pool, n, 1, |from, to, _| {
        // SAFETY: tasks have ranges of their own.
        with_floats_mut!(unsafe { out.part(from, to - from) }, |y| {
            by_isa!(ctx.isa, multiply(y, alpha));
        });
    });
    Ok(())
}

isa_twins! {
    fn convert<X: Element, Y: Element>(x: &[X], y: &mut [Y]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = Y::from_f32(x.to_f32());
        }
    }
}

isa_twins! {
    fn sum<A: Element, B: Element, Y: Element>(a: &[A], b: &[B], y: &mut [Y]) {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = Y::from_f32(a.to_f32() + b.to_f32());
        }
    }
}

isa_twins! {
    fn accumulate<X: Element, Y: Element>(x: &[X], alpha: f32, y: &mut [Y]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = Y::from_f32(y.to_f32() + alpha * x.to_f32());
        }
    }
}

isa_twins! {
    fn multiply<Y: Element>(y: &mut [Y], alpha: f32) {
        for y in y {
            *y = Y::from_f32(y.to_f32() * alpha);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{Op, dtypes, numbers, widen};
    use crate::bf16;

    const N: usize = super::TASK + 77;

    #[test]
    fn add_and_axpy_equal_their_formulas_in_every_mixture_of_dtypes() {
        for n in [0, 1, 33, N] {
            let (a, b) = (numbers(n, 1), numbers(n, 2));
            let both = |alpha: f64| {
                (0..n)
                    .map(|i| a[i] as f64 + alpha * b[i] as f64)
                    .collect::<Vec<_>>()
            };
            for d in dtypes(3) {
                let op = Op::new("add").given(&a, d[0]).given(&b, d[1]).wanted(n, d[2]);
                op.numbers(&[n as f64]).check(&[both(1.0)]);
            }
            for d in dtypes(2) {
                let op = Op::new("axpy").given(&b, d[0]).changed(&a, d[1]);
                op.numbers(&[n as f64, 0.375]).check(&[both(0.375)]);
            }
        }
    }

    #[test]
    fn fill_cast_scale_and_copy_equal_their_formulas() {
        for n in [0, 1, 33, N] {
            let x: Vec<f32> = numbers(n, 3).iter().map(|v| v * 1.001).collect();
            for d in dtypes(2) {
                let stored: Vec<f32> = if d[0] {
                    x.iter().map(|v| bf16::round(*v)).collect()
                } else {
                    x.clone()
                };
                let size = n as f64;
                Op::new("cast")
                    .given(&x, d[0])
                    .wanted(n, d[1])
                    .numbers(&[size])
                    .check(&[widen(&stored)]);
                Op::new("copy")
                    .given(&x, d[0])
                    .wanted(n, d[0])
                    .numbers(&[size])
                    .check(&[widen(&stored)]);
                let scaled = stored.iter().map(|v| *v as f64 * -0.5).collect();
                Op::new("scale")
                    .changed(&x, d[0])
                    .numbers(&[size, -0.5])
                    .check(&[scaled]);
                Op::new("fill")
                    .wanted(n, d[1])
                    .numbers(&[size, 0.1])
                    .check(&[vec![0.1; n]]);
            }
        }
    }

    #[test]
    fn a_cast_to_bf16_rounds_to_nearest_even() {
        let x: Vec<f32> = (0..5000)
            .map(|i| f32::from_bits(0x3f80_0000 + i * 0x1001))
            .collect();
        let y = &Op::new("cast")
            .given(&x, false)
            .wanted(5000, true)
            .numbers(&[5000.0])
            .same_everywhere()[0];
        for (x, y) in x.iter().zip(y) {
            assert_eq!(bf16::round(*x), *y);
        }
    }

    #[test]
    fn add_may_write_over_its_first_operand() {
        let (a, b) = (numbers(N, 4), numbers(N, 5));
        for d in dtypes(2) {
            let size = N as f64;
            let apart = Op::new("add")
                .given(&a, d[0])
                .given(&b, d[1])
                .wanted(N, d[0])
                .numbers(&[size]);
            let over = Op::new("add")
                .changed(&a, d[0])
                .given(&b, d[1])
                .on_first(d[0])
                .numbers(&[size]);
            assert_eq!(over.same_everywhere(), apart.same_everywhere());
        }
    }

    #[test]
    fn outputs_on_the_wrong_operand_or_of_the_wrong_dtype_are_refused_by_name() {
        let x = numbers(8, 6);
        let mixed = Op::new("add")
            .given(&x, false)
            .given(&x, false)
            .on_first(true)
            .numbers(&[8.0])
            .refusal();
        assert_eq!(mixed.to_string(), "y: lies on a, but is bf16 and a is f32");
        let cast = Op::new("cast")
            .given(&x, false)
            .on_first(true)
            .numbers(&[8.0])
            .refusal();
        assert_eq!(cast.to_string(), "y: lies on x, the op cannot run in place");
        let copy = Op::new("copy")
            .given(&x, false)
            .wanted(8, true)
            .numbers(&[8.0])
            .refusal();
        assert_eq!(copy.to_string(), "y: is bf16, x is f32");
    }
}
