//! groupedMatmul: y[r, :] = x[rows ? rows[r] : r, :] @ w[expert of r]^T       one product per expert over its rows
//!
//! contract   tensor/ops (groupedMatmul)
//! layout     x [Tx, K], y [R, N] row-major; w packed, [E] matrices one after another; offsets [E + 1] ascending
//! dtype      arithmetic = dtype of the panels; x and y f32 or bf16
//! limits     empty experts and R = 0 are legal; row indices are checked before anything is written; R is the room for rows:
//!            those behind the last expert's are neither read nor written
//! tiling     tasks of at most eight tiles of one expert's rows (96, or 256 in AMX registers) by a run of its panels
//! why so     the gather of token rows is part of packing A: the permuted rows are never written to memory
//! versions   v1 (this file)
//! measured   as matmul: 16 experts x 256 rows x 1024 x 512, bf16, 90 GFLOP/s with all rows gathered

use super::output::{Addend, Target};
use super::pack::Rows;
use super::panels::Panels;
use super::plan::{self, Cut};
use super::product::{Product, multiply};
use crate::args::{Args, Floats, Operand, elements};
use crate::error::KernelError;
use crate::ops::Ctx;
use crate::pool::Scratch;

/// Rows of x by output row, checked against x.
pub(super) struct Gather<'a> {
    pub x: Floats<'a>,
    pub rows: Rows<'a>,
}

/// Takes x [Tx, K] and rows? [R]: Tx is as many rows as the indices ask for, or R.
pub(super) fn gather<'a>(
    x: &Operand<'a>,
    rows: Option<Operand<'a>>,
    r: usize,
    k: usize,
) -> Result<Gather<'a>, KernelError> {
    let Some(rows) = rows else {
        return Ok(Gather {
            x: x.slice(elements(&[r, k])?)?,
            rows: Rows::Even { start: 0, stride: k },
        });
    };
    let index = rows.i32s(r)?;
    if let Some(bad) = index.iter().find(|i| **i < 0) {
        return Err(KernelError::new(
            rows.name(),
            format!("{bad} is no row of {}", x.name()),
        ));
    }
    let needed = index.iter().max().map_or(0, |max| *max as usize + 1);
    Ok(Gather {
        x: x.slice(elements(&[needed, k])?)?,
        rows: Rows::Gathered {
            index,
            start: 0,
            stride: k,
        },
    })
}

/// The number of rows: the last offset. Refuses offsets that do not ascend from 0 to at most R.
pub(crate) fn check_offsets(offsets: &[i32], r: usize) -> Result<usize, KernelError> {
    let ascending = offsets.windows(2).all(|pair| pair[0] <= pair[1]);
    if let (true, Some(0), Some(&last)) = (ascending, offsets.first(), offsets.last())
        && last as usize <= r
    {
        return Ok(last as usize);
    }
    let message = format!(
        "{} offsets from {} to {} do not ascend from 0 to at most R = {r}",
        offsets.len(),
        offsets.first().unwrap_or(&-1),
        offsets.last().unwrap_or(&-1)
    );
    Err(KernelError::new("offsets", message))
}

/// The op: x, rows?, offsets, panels, y; R, N, K, E.
pub fn op(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let x = a.floats("x")?;
    let rows = a.i32s_optional("rows")?;
    let offsets = a.i32s("offsets")?;
    let panels = a.floats("panels")?;
    let y = a.floats("y")?;
    let (r, n, k, e) = (a.usize("R")?, a.usize("N")?, a.usize("K")?, a.usize("E")?);
    a.end()?;
    let offsets = offsets.i32s(e + 1)?;
    let r = check_offsets(offsets, r)?;
    let Gather { x, rows } = gather(&x, rows, r, k)?;
    let panels = Panels::take(&panels, e, n, k)?;
    let y = Target::new(y.slice_mut(elements(&[r, n])?)?, n);
    let cut = Cut::of(ctx.isa, panels.arithmetic());
    let parts = plan::grouped_parts(cut, offsets, panels.count(), k, ctx.pool.threads());
    let ns = parts
        .iter()
        .map(|(_, p)| cut.estimate_ns(p.rows, p.panels, k))
        .sum();
    run_parts(ctx, &parts, ns, |(expert, part), scratch| {
        let product = Product {
            isa: ctx.isa,
            x,
            rows,
            panels: panels.matrix(*expert),
            addend: Addend::None,
            y,
        };
        // SAFETY: parts are disjoint.
        unsafe { multiply(&product, *part, scratch) };
    });
    Ok(())
}

/// Runs `work` for each part: a task for each, or one for all if `ns`, the estimate of all, is small.
pub(super) fn run_parts<P: Sync>(ctx: &Ctx, parts: &[P], ns: f64, work: impl Fn(&P, &mut Scratch) + Sync) {
    let per_task = if plan::is_small(ns) { parts.len().max(1) } else { 1 };
    ctx.pool.run(parts.len().div_ceil(per_task), &|task, scratch| {
        for part in &parts[task * per_task..((task + 1) * per_task).min(parts.len())] {
            work(part, scratch);
        }
    });
}
