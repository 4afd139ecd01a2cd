//! matmulGradWeight, groupedMatmulGradWeight: dw [N, K] += dy^T [N, T] @ x [T, K]
//!
//! contract   tensor/ops (matmul's and groupedMatmul's weight part)
//! layout     dy, x row-major by token, the rows of both optionally gathered; dw row-major
//! dtype      dy, x f32 or bf16, rounded or widened to `compute`; dw f32
//! limits     T = 0 and empty experts add nothing; odd T is padded with a zero token
//! tiling     tasks of some rows of dw (outputs) by a run of 32-column panels (inputs), 256 tokens at a time (512 in AMX
//!            registers), all sums of the task waiting in memory
//! why so     a token's row is already a line of A and of B: f32 is read where it lies (source.rs), what else there is is
//!            packed by its task; pairs run along tokens. AMX wants A by columns of dy, so that packing turns 16 x 16
//!            words (pack_tiles.rs); in blocks, what is read again stays in the second cache, packed panels in the first
//! versions   v1 all tokens in one chain, panels as long as T · v2 blocks · v3 f32 in place (this file)
//! measured   v3 in turn with v2 in one process, AVX-512, one thread, time: 256x128 over 512 tokens 0.86, 256x256 0.93,
//!            256x704 over 2,048 0.92, 192x96 0.73, 4096x256 over 512 (logits) 0.92 (docs/log/2026-11-22-step.md)

use super::grouped::{check_offsets, gather, run_parts};
use super::matmul::Matrix;
use super::micro::{self, ALayout, Arithmetic, Out, PANEL, RUN, TILE_FLOATS, TILE_ROWS, TileShape};
#[cfg(target_arch = "x86_64")]
use super::micro::{AMX_PAIRS, AMX_ROWS};
use super::output::{Addend, Place, Target, store};
use super::pack::{Rows, pack_columns, pack_token_panels, packed_columns_words};
#[cfg(target_arch = "x86_64")]
use super::pack_tiles;
use super::plan::{self, Cut, FMA_TOKENS};
use super::product::{Part, as_words};
use super::source::{Lines, Source};
#[cfg(target_arch = "x86_64")]
use super::tiles::{self, PackedRows};
use crate::args::{Args, Floats, FloatsMut, elements};
use crate::error::KernelError;
use crate::isa::Isa;
use crate::ops::Ctx;
use crate::pool::Scratch;
use crate::with_floats;

/// One gradient: tokens `0..tokens` of dy and x.
struct WeightGrad<'a> {
    isa: Isa,
    arithmetic: Arithmetic,
    dy: Floats<'a>,
    dy_rows: Rows<'a>,
    x: Floats<'a>,
    x_rows: Rows<'a>,
    tokens: usize,
    k: usize,
    /// dw, and the same memory as addend.
    dw: Target,
    addend: Addend,
}

/// Adds one part of the gradient: rows of dw by panels of 32 of its columns.
///
/// # Safety
/// No other thread touches the part's elements of dw.
unsafe fn accumulate(grad: &WeightGrad, part: Part, scratch: &mut Scratch) {
    #[cfg(target_arch = "x86_64")]
    if micro::by_amx(grad.isa, grad.arithmetic) {
        // SAFETY: by this function's contract.
        return unsafe { accumulate_by_amx(grad, part, scratch) };
    }
    let (isa, arithmetic) = (grad.isa, grad.arithmetic);
    let form = arithmetic.a_form(isa);
    let (dy_rows, x_rows) = (
        grad.dy_rows.shift(part.row),
        grad.x_rows.shift(part.panel * PANEL),
    );
    let dy = Source::of(arithmetic, grad.dy, dy_rows);
    let x = Source::of(arithmetic, grad.x, x_rows);
    let columns = (grad.k - part.panel * PANEL).min(part.panels * PANEL);
    // The lines of a ragged last panel would be read beyond their end: it is packed.
    let in_place = match x {
        Source::InPlace { .. } => columns / PANEL,
        Source::Packed => 0,
    };
    let tiles = part.rows.div_ceil(TILE_ROWS);
    // Full tiles and a rest, not even ones: lines of twelve are packed by constant loops.
    let tile_rows = |t: usize| (t * TILE_ROWS, ((t + 1) * TILE_ROWS).min(part.rows));
    let block = grad.tokens.min(FMA_TOKENS);
    let panel_words = arithmetic.panel_words(block);
    // Packing columns may write up to a run behind them.
    let column_words = match dy {
        Source::InPlace { .. } => 0,
        Source::Packed => packed_columns_words(form, part.rows, block) + RUN,
    };
    let panels_words = (part.panels - in_place) * panel_words;
    // Sums wait in memory for the next block: their chains go on there, to the bit as if they had never stopped.
    let slots = if block == grad.tokens {
        1
    } else {
        tiles * part.panels
    };
    let buffer = scratch.f32(column_words + panels_words + slots * TILE_FLOATS);
    let (packed, rest) = buffer.split_at_mut(column_words);
    let (panels, sums) = rest.split_at_mut(panels_words);
    let (packed, panels) = (as_words(packed), as_words(panels));
    for token in (0..grad.tokens).step_by(FMA_TOKENS) {
        let tokens = (grad.tokens - token).min(FMA_TOKENS);
        let words = packed_columns_words(form, 1, tokens);
        if matches!(dy, Source::Packed) {
            for (from, to) in (0..tiles).map(tile_rows) {
                let (at, out) = (dy_rows.skip(token).shift(from), &mut packed[from * words..]);
                with_floats!(grad.dy, |dy| pack_columns(
                    isa,
                    form,
                    dy,
                    at,
                    tokens,
                    to - from,
                    out
                ));
            }
        }
        let at = x_rows.skip(token).shift(in_place * PANEL);
        with_floats!(grad.x, |x| pack_token_panels(
            isa,
            arithmetic,
            x,
            at,
            tokens,
            columns - in_place * PANEL,
            (&mut *panels, panel_words)
        ));
        for panel in 0..part.panels {
            let column = (part.panel + panel) * PANEL;
            let b = match panel < in_place {
                true => x.lines((token, tokens), (panel * PANEL, PANEL)),
                false => None,
            };
            let b = b.unwrap_or_else(|| Lines::packed(&panels[(panel - in_place) * panel_words..], PANEL));
            for t in 0..tiles {
                let (from, to) = tile_rows(t);
                let run = micro::kernel(isa, arithmetic, ALayout::ByColumns, to - from, 1);
                let a = dy.lines((token, tokens), (from, to - from));
                let a = a.unwrap_or_else(|| Lines::packed(&packed[from * words..], to - from));
                let slot = if slots == 1 { 0 } else { panel * tiles + t };
                let tile = &mut sums[slot * TILE_FLOATS..(slot + 1) * TILE_FLOATS];
                let waiting = Out::waiting(tile, 1);
                let shape = TileShape {
                    rows: to - from,
                    panels: 1,
                    steps: arithmetic.steps(tokens),
                    panel_words,
                    a_stride: a.stride,
                    b_stride: b.stride,
                    begun: match token {
                        0 => std::ptr::null(),
                        _ => waiting.to,
                    },
                    asks: std::ptr::null(),
                };
                let place = Place {
                    row: part.row + from,
                    rows: to - from,
                    column,
                    columns: (grad.k - column).min(PANEL),
                    width: PANEL,
                };
                let last = token + tokens == grad.tokens;
                let direct = last.then(|| grad.dw.direct(grad.addend, &place)).flatten();
                // SAFETY: both sides are there for `tokens`; the rest by this function's contract.
                unsafe {
                    run(shape, a.first, b.first, direct.unwrap_or(waiting));
                    if last && direct.is_none() {
                        store(isa, &grad.dw, grad.addend, &place, tile);
                    }
                }
            }
        }
    }
}

/// The same in AMX registers, 512 tokens at a time: dy's columns become rows of A, x's become panels, and the
/// part's sums wait in memory between the blocks.
///
/// # Safety
/// As `accumulate`; the processor has AMX.
#[cfg(target_arch = "x86_64")]
unsafe fn accumulate_by_amx(grad: &WeightGrad, part: Part, scratch: &mut Scratch) {
    const BLOCK: usize = 2 * AMX_PAIRS;
    let column = part.panel * PANEL;
    let columns = (grad.k - column).min(part.panels * PANEL);
    let pairs = grad.tokens.min(BLOCK).div_ceil(2 * RUN) * RUN;
    let (words, panel_words) = (tiles::packed_words(part.rows, pairs), part.panels * pairs * PANEL);
    let tiles = part.panels * part.rows.div_ceil(AMX_ROWS);
    let buffer = scratch.f32(words + panel_words + tiles * tiles::SUMS);
    let (packed, rest) = buffer.split_at_mut(words);
    let (panels, sums) = rest.split_at_mut(panel_words);
    let (packed, panels) = (as_words(packed), as_words(panels));
    for token in (0..grad.tokens).step_by(BLOCK) {
        let tokens = (grad.tokens - token).min(BLOCK);
        let (dy_at, x_at) = (
            grad.dy_rows.skip(token).shift(part.row),
            grad.x_rows.skip(token).shift(column),
        );
        // SAFETY: AMX comes with AVX-512 and BF16; both sides are packed as they are read; the rest by the contract.
        unsafe {
            with_floats!(grad.dy, |dy| pack_tiles::pack_columns(
                dy, dy_at, tokens, part.rows, packed
            ));
            with_floats!(grad.x, |x| pack_tiles::pack_panels(
                x, x_at, tokens, columns, panels
            ));
            let a = PackedRows {
                words: packed,
                rows: part.rows,
                pairs: tokens.div_ceil(2 * RUN) * RUN,
            };
            let last = token + tokens == grad.tokens;
            tiles::accumulate(a, panels.as_ptr(), part.panels, sums, token == 0, |done, sums| {
                if last {
                    store(grad.isa, &grad.dw, grad.addend, &done.place(&part, grad.k), sums);
                }
            });
        }
    }
    micro::amx::release();
}

/// The whole gradient as one region: `dw[i, j] += sum over t of dy[t, i] * x[t, j]`, rows of dw `k` apart.
pub fn matmul_grad_weight(
    ctx: &Ctx,
    arithmetic: Arithmetic,
    dy: Matrix,
    x: Matrix,
    (tokens, n, k): (usize, usize, usize),
    dw: &mut [f32],
) {
    assert!(dw.len() >= n * k, "dw has {} elements, not {n} x {k}", dw.len());
    if tokens == 0 {
        return;
    }
    let (addend, dw) = whole(dw, k);
    let grad = WeightGrad {
        isa: ctx.isa,
        arithmetic,
        dy: dy.data,
        dy_rows: dy.rows(),
        x: x.data,
        x_rows: x.rows(),
        tokens,
        k,
        dw,
        addend,
    };
    let cut = Cut::of(ctx.isa, arithmetic);
    let parts = plan::grad_parts(cut, n, k.div_ceil(PANEL), tokens, ctx.pool.threads());
    ctx.pool.run(parts.len(), &|i, scratch| {
        // SAFETY: parts are disjoint.
        unsafe { accumulate(&grad, parts[i], scratch) };
    });
}

/// dw as what is added to and what is written.
fn whole(dw: &mut [f32], k: usize) -> (Addend, Target) {
    let start: *const f32 = dw.as_mut_ptr();
    (Addend::F32(start), Target::new(FloatsMut::F32(dw), k))
}

fn arithmetic_of(compute: bool) -> Arithmetic {
    if compute {
        Arithmetic::Bf16
    } else {
        Arithmetic::F32
    }
}

/// The op: dy, x, dw; T, N, K, compute.
pub fn op(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let dy = a.floats("dy")?;
    let x = a.floats("x")?;
    let dw = a.f32s("dw")?;
    let (t, n, k) = (a.usize("T")?, a.usize("N")?, a.usize("K")?);
    let arithmetic = arithmetic_of(a.flag("compute")?);
    a.end()?;
    let dy = Matrix::new(dy.slice(elements(&[t, n])?)?, n);
    let x = Matrix::new(x.slice(elements(&[t, k])?)?, k);
    matmul_grad_weight(
        ctx,
        arithmetic,
        dy,
        x,
        (t, n, k),
        dw.f32s_mut(elements(&[n, k])?)?,
    );
    Ok(())
}

/// The op: dy, dyRows?, x, xRows?, offsets, dw; R, N, K, E, compute.
pub fn grouped_op(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (dy, dy_rows) = (a.floats("dy")?, a.i32s_optional("dyRows")?);
    let (x, x_rows) = (a.floats("x")?, a.i32s_optional("xRows")?);
    let offsets = a.i32s("offsets")?;
    let dw = a.f32s("dw")?;
    let (r, n, k, e) = (a.usize("R")?, a.usize("N")?, a.usize("K")?, a.usize("E")?);
    let arithmetic = arithmetic_of(a.flag("compute")?);
    a.end()?;
    let offsets = offsets.i32s(e + 1)?;
    let r = check_offsets(offsets, r)?;
    let (dy, x) = (gather(&dy, dy_rows, r, n)?, gather(&x, x_rows, r, k)?);
    let dw = dw.f32s_mut(elements(&[e, n, k])?)?;
    let (threads, panels) = (ctx.pool.threads(), k.div_ceil(PANEL));
    let cut = Cut::of(ctx.isa, arithmetic);
    let mut tasks: Vec<(WeightGrad, Part)> = Vec::new();
    for (expert, dw) in dw.chunks_exact_mut((n * k).max(1)).enumerate() {
        let (first, last) = (offsets[expert] as usize, offsets[expert + 1] as usize);
        if first == last {
            continue;
        }
        let (addend, dw) = whole(dw, k);
        for part in plan::grad_parts(
            cut,
            n,
            panels,
            last - first,
            if e >= 4 * threads { 1 } else { threads },
        ) {
            let grad = WeightGrad {
                isa: ctx.isa,
                arithmetic,
                dy: dy.x,
                dy_rows: dy.rows.skip(first),
                x: x.x,
                x_rows: x.rows.skip(first),
                tokens: last - first,
                k,
                dw,
                addend,
            };
            tasks.push((grad, part));
        }
    }
    let ns = tasks
        .iter()
        .map(|(grad, p)| cut.estimate_ns(p.rows, p.panels, grad.tokens))
        .sum();
    run_parts(ctx, &tasks, ns, |(grad, part), scratch| {
        // SAFETY: parts are disjoint.
        unsafe { accumulate(grad, *part, scratch) };
    });
    Ok(())
}
