// embedding: y[t] = table[ids[t]], rounded to bf16 if asked for; embeddingGrad: dtable[id] += sum of its dy[t]
//
// contract   src/tensor/ops/embedding.ts        (references, gradient, tolerance)
// layout     table, dtable [V, D] · y, dy [T, D] · ids [T], all below V
// dtype      table, y, dy f32 or bf16 each; dtable f32; sums f32
// limits     any D, T = 0 legal; nothing in place
// tiling     forward: tokens of about 32768 numbers per task; backward: 64 places in the list of tokens sorted
//            by id, where the task in whose range an id begins takes all its tokens
// why so     one task owns a row of dtable and adds its tokens in their order, then once to the row: no atomics,
//            and the same bits whatever the threads. The sort is a count over V and one pass over the tokens
// versions   v1 (this file)

use super::rows::{Out, for_rows, require_apart};
use crate::args::{Args, Floats};
use crate::bf16::{self, Element};
use crate::error::KernelError;
use crate::ops::Ctx;
use crate::pool::Disjoint;
use crate::{by_isa, isa_twins, with_floats, with_floats_mut};

fn check_ids(ids: &[i32], v: usize) -> Result<(), KernelError> {
    match ids.iter().position(|id| *id < 0 || *id as usize >= v) {
        None => Ok(()),
        Some(t) => {
            let message = format!("ids[{t}] is {}, the table has {v} rows", ids[t]);
            Err(KernelError::new("ids", message))
        }
    }
}

struct Forward<'a> {
    ids: &'a [i32],
    table: Floats<'a>,
    y: Out<'a>,
    d: usize,
    round: bool,
}

pub fn forward(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (ids, table, y) = (a.i32s("ids")?, a.floats("table")?, a.floats("y")?);
    let (t, d, v) = (a.usize("T")?, a.usize("D")?, a.usize("V")?);
    let round = a.flag("round")?;
    a.end()?;
    require_apart(&y, [&ids, &table])?;
    let job = Forward {
        ids: ids.i32s(t)?,
        table: table.slice(v * d)?,
        y: Out::new(y.slice_mut(t * d)?),
        d,
        round,
    };
    check_ids(job.ids, v)?;
    for_rows(ctx.pool, t, d, |from, to, _| {
        by_isa!(ctx.isa, forward_rows(&job, from, to));
    });
    Ok(())
}

isa_twins! {
    fn forward_rows(job: &Forward<'_>, from: usize, to: usize) {
        let d = job.d;
        for t in from..to {
            let row = job.table.range(job.ids[t] as usize * d, d);
            // SAFETY: token t belongs to this task.
            let y = unsafe { job.y.part(t * d, d) };
            with_floats!(row, |row| with_floats_mut!(y, |y| copy_row(row, job.round, y)));
        }
    }
}

#[inline(always)]
fn copy_row<X: Element, Y: Element>(row: &[X], round: bool, y: &mut [Y]) {
    if round {
        for (y, x) in y.iter_mut().zip(row) {
            *y = Y::from_f32(bf16::round(x.to_f32()));
        }
    } else {
        for (y, x) in y.iter_mut().zip(row) {
            *y = Y::from_f32(x.to_f32());
        }
    }
}

/// Places of the sorted list per task.
const PLACES: usize = 64;

struct Backward<'a> {
    ids: &'a [i32],
    dy: Floats<'a>,
    dtable: Disjoint<'a, f32>,
    /// Tokens in the order of their ids, and in their own order within an id.
    sorted: &'a [i32],
    d: usize,
}

pub fn backward(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (ids, dy) = (a.i32s("ids")?, a.floats("dy")?);
    let (dtable, workspace) = (a.f32s("dtable")?, a.i32s("workspace")?);
    let (t, d, v) = (a.usize("T")?, a.usize("D")?, a.usize("V")?);
    a.end()?;
    for output in [&dtable, &workspace] {
        require_apart(output, [&ids, &dy])?;
    }
    let ids = ids.i32s(t)?;
    check_ids(ids, v)?;
    let job = Backward {
        ids,
        dy: dy.slice(t * d)?,
        dtable: Disjoint::new(dtable.f32s_mut(v * d)?),
        sorted: sort_tokens(ids, v, workspace.i32s_mut(t + v + 1)?),
        d,
    };
    for_rows(
        ctx.pool,
        t.div_ceil(PLACES),
        PLACES * d,
        |first, last, scratch| {
            by_isa!(
                ctx.isa,
                backward_places(&job, first * PLACES, (last * PLACES).min(t), scratch.f32(d))
            );
        },
    );
    Ok(())
}

/// A stable counting sort: V + 1 counters, then the list.
fn sort_tokens<'a>(ids: &[i32], v: usize, workspace: &'a mut [i32]) -> &'a [i32] {
    let (next, sorted) = workspace.split_at_mut(v + 1);
    next.fill(0);
    for id in ids {
        next[*id as usize + 1] += 1;
    }
    for id in 1..=v {
        next[id] += next[id - 1];
    }
    for (t, id) in ids.iter().enumerate() {
        let place = &mut next[*id as usize];
        sorted[*place as usize] = t as i32;
        *place += 1;
    }
    sorted
}

isa_twins! {
    /// Every id whose tokens begin at one of the places `from..to` of the sorted list.
    fn backward_places(job: &Backward<'_>, from: usize, to: usize, sum: &mut [f32]) {
        let d = job.d;
        let id_at = |place: usize| job.ids[job.sorted[place] as usize];
        let mut place = from;
        if from > 0 {
            while place < to && id_at(place) == id_at(from - 1) {
                place += 1;
            }
        }
        while place < to {
            let id = id_at(place);
            sum.fill(0.0);
            while place < job.sorted.len() && id_at(place) == id {
                let dy = job.dy.range(job.sorted[place] as usize * d, d);
                with_floats!(dy, |dy| add_row(dy, sum));
                place += 1;
            }
            // SAFETY: the id begins in this task's places and in no other's.
            let row = unsafe { job.dtable.part(id as usize * d, d) };
            add_row(sum, row);
        }
    }
}

#[inline(always)]
fn add_row<X: Element>(x: &[X], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x.to_f32();
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{Op, dtypes, numbers, widen};
    use crate::bf16;

    const SIZES: [(usize, usize, usize); 5] =
        [(0, 4, 3), (1, 1, 1), (50, 37, 20), (333, 64, 700), (2000, 33, 5)];

    /// Low ids come often, as common tokens do.
    fn ids(t: usize, v: usize) -> Vec<i32> {
        let spread = numbers(t, 1);
        spread
            .iter()
            .map(|u| ((u / 2.0).abs().powi(3) * v as f32).min(v as f32 - 1.0) as i32)
            .collect()
    }

    #[test]
    fn forward_gathers_rows_and_rounds_them_if_asked() {
        for (t, d, v) in SIZES {
            let (ids, table) = (ids(t, v), numbers(v * d, 2));
            let table: Vec<f32> = table.iter().map(|x| x * 1.003).collect();
            for b in dtypes(3) {
                let (round, in_bf16, out_bf16) = (b[0], b[1], b[2]);
                let value = |i: usize| {
                    if round || in_bf16 {
                        bf16::round(table[i])
                    } else {
                        table[i]
                    }
                };
                let y = ids
                    .iter()
                    .flat_map(|id| (0..d).map(move |i| value(*id as usize * d + i) as f64))
                    .collect();
                let op = Op::new("embedding")
                    .ids(&ids)
                    .given(&table, in_bf16)
                    .wanted(t * d, out_bf16);
                op.numbers(&[t as f64, d as f64, v as f64, round as u8 as f64])
                    .check(&[y]);
            }
        }
    }

    fn gradient(ids: &[i32], dy: &[f32], before: &[f32], is_bf16: bool, d: usize) -> Op {
        let (t, v) = (ids.len(), before.len() / d);
        let op = Op::new("embeddingGrad")
            .ids(ids)
            .given(dy, is_bf16)
            .changed(before, false);
        op.scratch_ids(t + v + 1).numbers(&[t as f64, d as f64, v as f64])
    }

    #[test]
    fn backward_adds_every_occurrence_to_its_row() {
        for (t, d, v) in SIZES {
            let (ids, dy, before) = (ids(t, v), numbers(t * d, 3), numbers(v * d, 4));
            let mut dtable = widen(&before);
            for t in 0..t {
                for i in 0..d {
                    dtable[ids[t] as usize * d + i] += dy[t * d + i] as f64;
                }
            }
            for is_bf16 in [false, true] {
                gradient(&ids, &dy, &before, is_bf16, d).check(std::slice::from_ref(&dtable));
            }
        }
    }

    #[test]
    fn a_row_is_summed_in_the_order_of_its_tokens_then_added_once() {
        let (t, d, v) = (700, 3, 4);
        let ids = ids(t, v);
        let dy: Vec<f32> = numbers(t * d, 5).iter().map(|x| x * 1.234_567).collect();
        let before = numbers(v * d, 6);
        let actual = &gradient(&ids, &dy, &before, false, d).same_everywhere()[0];
        for (place, value) in actual.iter().enumerate() {
            let mut sum = 0.0f32;
            for t in (0..t).filter(|t| ids[*t] as usize == place / d) {
                sum += dy[t * d + place % d];
            }
            assert_eq!(
                value.to_bits(),
                (before[place] + sum).to_bits(),
                "row {}",
                place / d
            );
        }
    }

    #[test]
    fn an_id_outside_the_table_is_named_and_nothing_is_written() {
        for bad in [-1, 5] {
            let ids = [0, bad];
            let forward = Op::new("embedding")
                .ids(&ids)
                .given(&[0.0; 10], false)
                .wanted(4, false);
            let refusal = forward.numbers(&[2.0, 2.0, 5.0, 0.0]).refusal();
            assert_eq!(
                refusal.to_string(),
                format!("ids: ids[1] is {bad}, the table has 5 rows")
            );
            let backward = gradient(&ids, &[0.0; 4], &[0.0; 10], false, 2).refusal();
            assert_eq!(backward.param, Some("ids"));
        }
    }
}
