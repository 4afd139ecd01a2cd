//! fp8GradWeight, fp8GroupedGradWeight: dw [N, K] += dy^T [N, T] @ x [T, K], both with a scale per 128 tokens and column
//!
//! contract   tensor/ops/fp8 (fp8GradWeight)
//! layout     dy, x codes row-major by token; their scales a row per tile of 128 tokens, beginning with the group's first token;
//!            dw row-major
//! dtype      dy, x E4M3, scales and dw f32
//! limits     T = 0 and empty experts add nothing; a short last tile has fewer tokens
//! tiling     as matmulGradWeight: tasks of some rows of dw by a run of panels, 256 tokens at a time (512 in AMX registers),
//!            all sums of the task waiting in memory
//! why so     packing decodes: bytes become words as they are turned
//! versions   v1 (this file)

use super::chains::{self, PackedTile, Span};
use super::decode::E4m3;
use super::scaling::Factors;
#[cfg(target_arch = "x86_64")]
use super::tiles as amx_tiles;
use super::{Accumulation, TILE, codes_of, tensor_core};
use crate::args::{Args, FloatsMut, elements};
use crate::error::KernelError;
use crate::gemm::grouped::{check_offsets, run_parts};
use crate::gemm::micro::{self, ALayout, Arithmetic, PANEL, TILE_FLOATS, TILE_ROWS};
#[cfg(target_arch = "x86_64")]
use crate::gemm::micro::{AMX_PAIRS, AMX_ROWS, RUN};
use crate::gemm::output::{Addend, Place, Target, store};
use crate::gemm::pack::{Rows, pack_columns, pack_token_panels, packed_columns_words};
#[cfg(target_arch = "x86_64")]
use crate::gemm::pack_tiles;
use crate::gemm::plan::{self, Cut, FMA_TOKENS};
use crate::gemm::product::{Part, as_words};
#[cfg(target_arch = "x86_64")]
use crate::gemm::tiles::{PackedRows, SUMS, packed_words};
use crate::isa::Isa;
use crate::ops::Ctx;
use crate::pool::Scratch;

/// One gradient; tokens and tiles counted from the group's first.
#[derive(Clone, Copy)]
struct WeightGrad<'a> {
    isa: Isa,
    dy: &'a [E4m3],
    dy_scales: &'a [f32],
    x: &'a [E4m3],
    x_scales: &'a [f32],
    tokens: usize,
    n: usize,
    k: usize,
    accumulation: Accumulation,
    /// dw, and the same memory as addend.
    dw: Target,
    addend: Addend,
}

impl WeightGrad<'_> {
    fn place(&self, row: usize, rows: usize, panel: usize) -> Place {
        let column = panel * PANEL;
        Place {
            row,
            rows,
            column,
            columns: (self.k - column).min(PANEL),
            width: PANEL,
        }
    }

    /// # Safety
    /// No other thread touches these elements of dw.
    unsafe fn add(&self, place: Place, sums: &[f32]) {
        // SAFETY: by this function's contract.
        unsafe { store(self.isa, &self.dw, self.addend, &place, sums) };
    }
}

/// The scales of a part.
struct PartFactors<'a> {
    grad: &'a WeightGrad<'a>,
    part: Part,
}

impl Factors for PartFactors<'_> {
    #[inline(always)]
    fn rows(&self, tile: usize, row: usize, rows: usize) -> &[f32] {
        &self.grad.dy_scales[tile * self.grad.n + self.part.row + row..][..rows]
    }

    #[inline(always)]
    fn columns(&self, tile: usize, panel: usize) -> [f32; PANEL] {
        let column = (self.part.panel + panel) * PANEL;
        let scales = &self.grad.x_scales[tile * self.grad.k + column..(tile + 1) * self.grad.k];
        match scales.first_chunk() {
            Some(whole) => *whole,
            None => {
                let mut columns = [0.0; PANEL];
                columns[..scales.len()].copy_from_slice(scales);
                columns
            }
        }
    }
}

/// Adds one part: rows of dw by panels of 32 of its columns.
///
/// # Safety
/// No other thread touches the part's elements of dw.
unsafe fn accumulate(grad: &WeightGrad, part: Part, scratch: &mut Scratch) {
    // SAFETY: by this function's contract.
    unsafe {
        match grad.accumulation {
            Accumulation::TensorCore { promotion } => {
                accumulate_by_tensor_core(grad, part, promotion, scratch)
            }
            #[cfg(target_arch = "x86_64")]
            Accumulation::F32 { promotion } if micro::by_amx(grad.isa, Arithmetic::Bf16) => {
                accumulate_by_amx(grad, part, promotion, scratch)
            }
            Accumulation::F32 { promotion } => accumulate_by_chains(grad, part, promotion, scratch),
        }
    }
}

/// By multiply-adds.
///
/// # Safety
/// As `accumulate`.
unsafe fn accumulate_by_chains(grad: &WeightGrad, part: Part, promotion: usize, scratch: &mut Scratch) {
    let isa = grad.isa;
    let form = Arithmetic::Bf16.a_form(isa);
    let tiles = part.rows.div_ceil(TILE_ROWS);
    let block = grad.tokens.min(FMA_TOKENS);
    let (column_words, panel_words) = (
        packed_columns_words(form, 1, block),
        Arithmetic::Bf16.panel_words(block),
    );
    let (a_words, b_words) = (part.rows * column_words, part.panels * panel_words);
    let buffer = scratch.f32(a_words + b_words + tiles * part.panels * TILE_FLOATS);
    let factors = PartFactors { grad, part };
    let columns = (grad.k - part.panel * PANEL).min(part.panels * PANEL);
    for token in (0..grad.tokens).step_by(FMA_TOKENS) {
        let tokens = (grad.tokens - token).min(FMA_TOKENS);
        let words = packed_columns_words(form, 1, tokens);
        let at = |stride: usize, column: usize| Rows::Even {
            start: token * stride + column,
            stride,
        };
        let tile_rows = |t: usize| (t * TILE_ROWS, ((t + 1) * TILE_ROWS).min(part.rows));
        for (from, to) in (0..tiles).map(tile_rows) {
            // Into what lies behind, too: the next tile or the panels are written later.
            let out = &mut as_words(buffer)[from * words..a_words + b_words];
            pack_columns(
                isa,
                form,
                grad.dy,
                at(grad.n, part.row + from),
                tokens,
                to - from,
                out,
            );
        }
        let (packed, rest) = buffer.split_at_mut(a_words);
        let (panels, sums) = rest.split_at_mut(b_words);
        let (packed, panels) = (as_words(packed), as_words(panels));
        let x_at = at(grad.k, part.panel * PANEL);
        pack_token_panels(
            isa,
            Arithmetic::Bf16,
            grad.x,
            x_at,
            tokens,
            columns,
            (panels, panel_words),
        );
        let span = Span {
            tile: token / TILE,
            k: tokens,
            promotion,
        };
        for panel in 0..part.panels {
            let b = &panels[panel * panel_words..(panel + 1) * panel_words];
            for (t, (from, to)) in (0..tiles).map(tile_rows).enumerate() {
                let a = PackedTile {
                    words: &packed[from * words..to * words],
                    form,
                    layout: ALayout::ByColumns,
                    row: from,
                    rows: to - from,
                };
                let sums = &mut sums[(panel * tiles + t) * TILE_FLOATS..][..TILE_FLOATS];
                chains::accumulate(isa, a, b, (panel, span), &factors, sums, token == 0);
                if token + tokens == grad.tokens {
                    // SAFETY: by this function's contract.
                    unsafe { grad.add(grad.place(part.row + from, to - from, part.panel + panel), sums) };
                }
            }
        }
    }
}

/// In AMX registers: dy's columns become rows of A, x's become panels.
///
/// # Safety
/// As `accumulate`; the processor has AMX.
#[cfg(target_arch = "x86_64")]
unsafe fn accumulate_by_amx(grad: &WeightGrad, part: Part, promotion: usize, scratch: &mut Scratch) {
    const BLOCK: usize = 2 * AMX_PAIRS;
    let column = part.panel * PANEL;
    let columns = (grad.k - column).min(part.panels * PANEL);
    let pairs = grad.tokens.min(BLOCK).div_ceil(2 * RUN) * RUN;
    let (a_words, b_words) = (packed_words(part.rows, pairs), part.panels * pairs * PANEL);
    let slots = part.panels * part.rows.div_ceil(AMX_ROWS);
    let buffer = scratch.f32(a_words + b_words + amx_tiles::TURNS + slots * SUMS);
    let (packed, rest) = buffer.split_at_mut(a_words);
    let (panels, rest) = rest.split_at_mut(b_words);
    let (turns, sums) = rest.split_at_mut(amx_tiles::TURNS);
    let (packed, panels) = (as_words(packed), as_words(panels));
    let factors = PartFactors { grad, part };
    for token in (0..grad.tokens).step_by(BLOCK) {
        let tokens = (grad.tokens - token).min(BLOCK);
        let at = |stride: usize, column: usize| Rows::Even {
            start: token * stride + column,
            stride,
        };
        let lines = tokens.div_ceil(2 * RUN) * RUN;
        let block = amx_tiles::Block {
            panels: 0..part.panels,
            pair: 0,
            pairs: tokens.div_ceil(2),
            tile: token / TILE,
            promotion,
            fresh: token == 0,
            last: token + tokens == grad.tokens,
        };
        // SAFETY: AMX comes with AVX-512 and BF16; both sides are packed as they are read; the rest by the contract.
        unsafe {
            pack_tiles::pack_columns(grad.dy, at(grad.n, part.row), tokens, part.rows, packed);
            pack_tiles::pack_panels(grad.x, at(grad.k, column), tokens, columns, panels);
            let a = PackedRows {
                words: packed,
                rows: part.rows,
                pairs: lines,
            };
            let b: *const u32 = panels.as_ptr();
            amx_tiles::multiply(
                grad.isa,
                a,
                &block,
                |panel| b.add(panel * lines * PANEL),
                |_, _| (),
                &factors,
                (turns, sums),
                |done, sums| grad.add(done.place(&part, grad.k), sums),
            );
        }
    }
    micro::amx::release();
}

/// As the tensor cores of an H800.
///
/// # Safety
/// As `accumulate`.
unsafe fn accumulate_by_tensor_core(grad: &WeightGrad, part: Part, promotion: usize, scratch: &mut Scratch) {
    let tokens = grad.tokens;
    let buffer = scratch.f32((part.rows + PANEL) * tokens);
    let (a, b) = buffer.split_at_mut(part.rows * tokens);
    let factors = PartFactors { grad, part };
    for row in 0..part.rows {
        let codes = &grad.dy[part.row + row..];
        tensor_core::decode(codes, grad.n, &mut a[row * tokens..(row + 1) * tokens]);
    }
    for panel in 0..part.panels {
        let column = (part.panel + panel) * PANEL;
        let columns = (grad.k - column).min(PANEL);
        for (token, line) in b.chunks_exact_mut(PANEL).enumerate() {
            tensor_core::decode(&grad.x[token * grad.k + column..], 1, &mut line[..columns]);
            line[columns..].fill(0.0);
        }
        for row in 0..part.rows {
            let a = &a[row * tokens..(row + 1) * tokens];
            let sums = tensor_core::row(grad.isa, (a, b), (row, panel), promotion, &factors);
            // SAFETY: by this function's contract.
            unsafe { grad.add(grad.place(part.row + row, 1, part.panel + panel), &sums) };
        }
    }
}

/// dw as what is written and what is added to.
fn whole(dw: &mut [f32], k: usize) -> (Target, Addend) {
    let start: *const f32 = dw.as_mut_ptr();
    (Target::new(FloatsMut::F32(dw), k), Addend::F32(start))
}

/// The op: dy, dyScales, x, xScales, dw; T, N, K, promotion, accumulatorBits.
pub fn op(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (dy, dy_scales) = (a.f8s("dy")?, a.f32s("dyScales")?);
    let (x, x_scales) = (a.f8s("x")?, a.f32s("xScales")?);
    let dw = a.f32s("dw")?;
    let (t, n, k) = (a.usize("T")?, a.usize("N")?, a.usize("K")?);
    let accumulation = Accumulation::take(a)?;
    a.end()?;
    let tiles = t.div_ceil(TILE);
    let (dw, addend) = whole(dw.f32s_mut(elements(&[n, k])?)?, k);
    let grad = WeightGrad {
        isa: ctx.isa,
        dy: codes_of(&dy, elements(&[t, n])?)?,
        dy_scales: dy_scales.f32s(elements(&[tiles, n])?)?,
        x: codes_of(&x, elements(&[t, k])?)?,
        x_scales: x_scales.f32s(elements(&[tiles, k])?)?,
        tokens: t,
        n,
        k,
        accumulation,
        dw,
        addend,
    };
    if t == 0 {
        return Ok(());
    }
    let cut = Cut::of(ctx.isa, Arithmetic::Bf16);
    let parts = plan::grad_parts(cut, n, k.div_ceil(PANEL), t, ctx.pool.threads());
    ctx.pool.run(parts.len(), &|i, scratch| {
        // SAFETY: parts are disjoint.
        unsafe { accumulate(&grad, parts[i], scratch) };
    });
    Ok(())
}

/// The op: dy, dyScales, x, xScales, offsets, dw; R, N, K, E, promotion, accumulatorBits.
pub fn grouped_op(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (dy, dy_scales) = (a.f8s("dy")?, a.f32s("dyScales")?);
    let (x, x_scales) = (a.f8s("x")?, a.f32s("xScales")?);
    let offsets = a.i32s("offsets")?;
    let dw = a.f32s("dw")?;
    let (r, n, k, e) = (a.usize("R")?, a.usize("N")?, a.usize("K")?, a.usize("E")?);
    let accumulation = Accumulation::take(a)?;
    a.end()?;
    let offsets = offsets.i32s(e + 1)?;
    let r = check_offsets(offsets, r)?;
    // Rows of scales as quantizeColumns counts them: a group may begin a tile early.
    let tiles = r / TILE + e;
    let (dy, x) = (
        codes_of(&dy, elements(&[r, n])?)?,
        codes_of(&x, elements(&[r, k])?)?,
    );
    let dy_scales = dy_scales.f32s(elements(&[tiles, n])?)?;
    let x_scales = x_scales.f32s(elements(&[tiles, k])?)?;
    let dw = dw.f32s_mut(elements(&[e, n, k])?)?;
    let (threads, panels) = (ctx.pool.threads(), k.div_ceil(PANEL));
    let cut = Cut::of(ctx.isa, Arithmetic::Bf16);
    let mut tasks: Vec<(WeightGrad, Part)> = Vec::new();
    for (expert, dw) in dw.chunks_exact_mut((n * k).max(1)).enumerate() {
        let (first, last) = (offsets[expert] as usize, offsets[expert + 1] as usize);
        if first == last {
            continue;
        }
        let scale_row = first / TILE + expert;
        let (dw, addend) = whole(dw, k);
        let grad = WeightGrad {
            isa: ctx.isa,
            dy: &dy[first * n..last * n],
            dy_scales: &dy_scales[scale_row * n..],
            x: &x[first * k..last * k],
            x_scales: &x_scales[scale_row * k..],
            tokens: last - first,
            n,
            k,
            accumulation,
            dw,
            addend,
        };
        let threads = if e >= 4 * threads { 1 } else { threads };
        let parts = plan::grad_parts(cut, n, panels, last - first, threads);
        tasks.extend(parts.into_iter().map(|part| (grad, part)));
    }
    let estimate = |(grad, p): &(WeightGrad, Part)| cut.estimate_ns(p.rows, p.panels, grad.tokens);
    let ns = tasks.iter().map(estimate).sum();
    run_parts(ctx, &tasks, ns, |(grad, part), scratch| {
        // SAFETY: parts are disjoint.
        unsafe { accumulate(grad, *part, scratch) };
    });
    Ok(())
}
