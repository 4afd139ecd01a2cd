//! fp8Matmul, fp8GroupedMatmul: y [M, N] = x [M, K] @ w^T, x with a scale per row and 128 columns, w per block of 128 x 128
//! (fp8Matmul plus an addend)
//!
//! contract   tensor/ops/fp8 (fp8Matmul)
//! layout     x [Tx, K] codes, its scales [Tx, ceil(K/128)]; w packed, its scales [ceil(N/128), ceil(K/128)] or, for the panels of
//!            a transpose, the same blocks the other way round
//! dtype      x and w E4M3, scales f32, y f32 or bf16
//! limits     M, N, K of any size; K = 0 gives zeros (plus the addend); nothing behind K or N, and no row that is not asked for, reaches y
//! tiling     tasks as matmul's; a panel is decoded once a task: in AMX registers some lines of the next one with every block
//!            of this one
//! why so     a code is decoded by a few vector steps, which the tile unit does not wait for
//! versions   v2: promotion between the products (overlap.rs); v1 promoted after each block

use super::chains::{self, PackedTile, Span};
use super::decode::{E4m3, decode_lines};
use super::operands::{BlockScales, gather};
use super::scaling::Factors;
#[cfg(target_arch = "x86_64")]
use super::tiles as amx_tiles;
use super::{Accumulation, TILE, codes_of, tensor_core};
use crate::args::{Args, elements};
use crate::error::KernelError;
use crate::gemm::grouped::{check_offsets, run_parts};
use crate::gemm::micro::{self, ALayout, Arithmetic, PANEL, TILE_FLOATS, TILE_ROWS};
use crate::gemm::output::{Addend, Place, Target, store};
use crate::gemm::pack::{Rows, pack_rows, packed_rows_words};
#[cfg(target_arch = "x86_64")]
use crate::gemm::pack_tiles;
use crate::gemm::panels::{panel_len, panels_len};
use crate::gemm::plan::{self, Cut};
use crate::gemm::product::{Part, as_words, tile_start};
#[cfg(target_arch = "x86_64")]
use crate::gemm::tiles::{Finished, PackedRows, ROWS, SUMS, packed_words};
use crate::isa::Isa;
use crate::ops::Ctx;
use crate::pool::Scratch;

/// One product.
struct Product<'a> {
    isa: Isa,
    x: &'a [E4m3],
    rows: Rows<'a>,
    x_scales: &'a [f32],
    scale_rows: Rows<'a>,
    panels: &'a [E4m3],
    blocks: BlockScales<'a>,
    n: usize,
    k: usize,
    accumulation: Accumulation,
    addend: Addend,
    y: Target,
}

impl Product<'_> {
    /// Codes of panel `panel`.
    fn panel(&self, panel: usize) -> &[E4m3] {
        &self.panels[panel * panel_len(self.k)..][..panel_len(self.k)]
    }

    /// The scales of a part's rows, [tile][row], written to `out`.
    fn factors<'s>(&'s self, part: &Part, out: &'s mut [f32]) -> PartFactors<'s> {
        let at = self.scale_rows.skip(part.row);
        let tiles = self.k.div_ceil(TILE);
        for row in 0..part.rows {
            let scales = &self.x_scales[at.start(row)..][..tiles];
            for (tile, scale) in scales.iter().enumerate() {
                out[tile * part.rows + row] = *scale;
            }
        }
        PartFactors {
            rows: out,
            height: part.rows,
            blocks: self.blocks,
            first_panel: part.panel,
        }
    }

    fn place(&self, row: usize, rows: usize, panel: usize) -> Place {
        let column = panel * PANEL;
        Place {
            row,
            rows,
            column,
            columns: (self.n - column).min(PANEL),
            width: PANEL,
        }
    }
}

struct PartFactors<'a> {
    rows: &'a [f32],
    height: usize,
    blocks: BlockScales<'a>,
    first_panel: usize,
}

impl Factors for PartFactors<'_> {
    #[inline(always)]
    fn rows(&self, tile: usize, row: usize, rows: usize) -> &[f32] {
        &self.rows[tile * self.height + row..][..rows]
    }

    #[inline(always)]
    fn columns(&self, tile: usize, panel: usize) -> [f32; PANEL] {
        // Panels of 32 do not cross blocks of 128.
        let block = (self.first_panel + panel) * PANEL / TILE;
        [self.blocks.at(block, tile); PANEL]
    }
}

/// Computes one part.
///
/// # Safety
/// No other thread touches the part's elements of y.
unsafe fn multiply(product: &Product, part: Part, scratch: &mut Scratch) {
    // SAFETY: by this function's contract.
    unsafe {
        match product.accumulation {
            Accumulation::TensorCore { promotion } => {
                multiply_by_tensor_core(product, part, promotion, scratch)
            }
            #[cfg(target_arch = "x86_64")]
            Accumulation::F32 { promotion }
                if product.k > 0 && micro::by_amx(product.isa, Arithmetic::Bf16) =>
            {
                multiply_by_amx(product, part, promotion, scratch)
            }
            Accumulation::F32 { promotion } => multiply_by_chains(product, part, promotion, scratch),
        }
    }
}

/// By multiply-adds: A packed once, panel by panel.
///
/// # Safety
/// As `multiply`.
unsafe fn multiply_by_chains(product: &Product, part: Part, promotion: usize, scratch: &mut Scratch) {
    let (isa, k) = (product.isa, product.k);
    let form = Arithmetic::Bf16.a_form(isa);
    let row_words = packed_rows_words(form, 1, k);
    let (a_words, panel_words) = (part.rows * row_words, Arithmetic::Bf16.panel_words(k));
    let buffer = scratch.f32(a_words + panel_words + TILE_FLOATS + part.rows * k.div_ceil(TILE));
    let (packed, rest) = buffer.split_at_mut(a_words);
    let (panel, rest) = rest.split_at_mut(panel_words);
    let (sums, factors) = rest.split_at_mut(TILE_FLOATS);
    let (packed, words) = (as_words(packed), as_words(panel));
    let factors = product.factors(&part, factors);
    let tiles = part.rows.div_ceil(TILE_ROWS);
    let tile_rows = |t: usize| (tile_start(part.rows, t), tile_start(part.rows, t + 1));
    for (from, to) in (0..tiles).map(tile_rows) {
        let out = &mut packed[from * row_words..to * row_words];
        pack_rows(
            isa,
            form,
            product.x,
            product.rows.skip(part.row + from),
            to - from,
            k,
            out,
        );
    }
    let span = Span {
        tile: 0,
        k,
        promotion,
    };
    for panel in 0..part.panels {
        decode_lines(isa, product.panel(part.panel + panel), k, 0, words);
        for (from, to) in (0..tiles).map(tile_rows) {
            let a = PackedTile {
                words: &packed[from * row_words..to * row_words],
                form,
                layout: ALayout::ByRows,
                row: from,
                rows: to - from,
            };
            chains::accumulate(isa, a, words, (panel, span), &factors, sums, true);
            let place = product.place(part.row + from, to - from, part.panel + panel);
            // SAFETY: by this function's contract.
            unsafe { store(isa, &product.y, product.addend, &place, sums) };
        }
    }
}

/// Pairs of k that are multiplied at once in AMX registers: 32 KiB of a panel.
#[cfg(target_arch = "x86_64")]
const BLOCK_PAIRS: usize = 256;
/// Panels whose sums wait in memory for their next pairs.
#[cfg(target_arch = "x86_64")]
const WAITING_PANELS: usize = 16;

/// In AMX registers.
///
/// # Safety
/// As `multiply`; the processor has AMX, and K is not 0.
#[cfg(target_arch = "x86_64")]
unsafe fn multiply_by_amx(product: &Product, part: Part, promotion: usize, scratch: &mut Scratch) {
    const BLOCK_WORDS: usize = BLOCK_PAIRS * PANEL;
    let (isa, k) = (product.isa, product.k);
    let pairs = k.div_ceil(2);
    let a_words = packed_words(part.rows, pairs);
    let in_blocks = pairs > BLOCK_PAIRS;
    let group = if in_blocks { WAITING_PANELS } else { part.panels };
    let slots = if in_blocks {
        group.min(part.panels) * part.rows.div_ceil(ROWS)
    } else {
        1
    };
    let floats = a_words + 2 * BLOCK_WORDS + amx_tiles::TURNS + slots * SUMS + part.rows * k.div_ceil(TILE);
    let buffer = scratch.f32(floats);
    let (packed, rest) = buffer.split_at_mut(a_words);
    let (lines, rest) = rest.split_at_mut(2 * BLOCK_WORDS);
    let (turns, rest) = rest.split_at_mut(amx_tiles::TURNS);
    let (sums, factors) = rest.split_at_mut(slots * SUMS);
    let packed = as_words(packed);
    let factors = product.factors(&part, factors);
    // SAFETY: AMX comes with AVX-512 and BF16; the rest by this function's contract.
    unsafe { pack_tiles::pack_rows(product.x, product.rows.skip(part.row), part.rows, k, packed) };
    let a = PackedRows {
        words: packed,
        rows: part.rows,
        pairs,
    };
    // Two panels' lines take turns: one is multiplied, the next one is decoded.
    let lines: *mut u32 = as_words(lines).as_mut_ptr();
    for first in (0..part.panels).step_by(group) {
        let last = (first + group).min(part.panels);
        for pair in (0..pairs).step_by(BLOCK_PAIRS) {
            let block = amx_tiles::Block {
                panels: first..last,
                pair,
                pairs: (pairs - pair).min(BLOCK_PAIRS),
                tile: 2 * pair / TILE,
                promotion,
                fresh: pair == 0,
                last: pair + BLOCK_PAIRS >= pairs,
            };
            let count = block.pairs.next_multiple_of(micro::RUN);
            let decode = |panel: usize, from: usize, to: usize| {
                let at = panel % 2 * BLOCK_WORDS + from * PANEL;
                // SAFETY: inside one half; the other one is being read.
                let out = unsafe { std::slice::from_raw_parts_mut(lines.add(at), (to - from) * PANEL) };
                decode_lines(isa, product.panel(part.panel + panel), k, pair + from, out);
            };
            decode(first, 0, count);
            let share = |row: usize| row.min(part.rows) * count / part.rows;
            let before = |tile: Finished, next: std::ops::Range<usize>| {
                if tile.panel + 1 < last {
                    let (from, to) = (share(tile.row), share(tile.row + ROWS));
                    let line = |pair: usize| from + (to - from) * pair / block.pairs;
                    decode(tile.panel + 1, line(next.start), line(next.end));
                }
                if block.last && next.start == 0 {
                    product.y.prefetch(&tile.place(&part, product.n));
                }
            };
            // SAFETY: the lines are decoded, zeros behind the last; the rest by this function's contract.
            unsafe {
                amx_tiles::multiply(
                    isa,
                    a,
                    &block,
                    |panel| lines.add(panel % 2 * BLOCK_WORDS),
                    before,
                    &factors,
                    (turns, sums),
                    |done, sums| {
                        store(
                            isa,
                            &product.y,
                            product.addend,
                            &done.place(&part, product.n),
                            sums,
                        )
                    },
                );
            }
        }
    }
    micro::amx::release();
}

/// As the tensor cores of an H800.
///
/// # Safety
/// As `multiply`.
unsafe fn multiply_by_tensor_core(product: &Product, part: Part, promotion: usize, scratch: &mut Scratch) {
    let k = product.k;
    let buffer = scratch.f32((part.rows + PANEL) * k + part.rows * k.div_ceil(TILE));
    let (a, rest) = buffer.split_at_mut(part.rows * k);
    let (b, factors) = rest.split_at_mut(PANEL * k);
    let factors = product.factors(&part, factors);
    for row in 0..part.rows {
        let codes = &product.x[product.rows.start(part.row + row)..];
        tensor_core::decode(codes, 1, &mut a[row * k..(row + 1) * k]);
    }
    for panel in 0..part.panels {
        let codes = product.panel(part.panel + panel);
        for (j, line) in b.chunks_exact_mut(PANEL).enumerate() {
            tensor_core::decode(&codes[j / 2 * 2 * PANEL + j % 2..], 2, line);
        }
        for row in 0..part.rows {
            let a = &a[row * k..(row + 1) * k];
            let sums = tensor_core::row(product.isa, (a, b), (row, panel), promotion, &factors);
            let place = product.place(part.row + row, 1, part.panel + panel);
            // SAFETY: by this function's contract.
            unsafe { store(product.isa, &product.y, product.addend, &place, &sums) };
        }
    }
}

/// The op: x, xScales, panels, wScales, addend?, y; M, N, K, transposed, promotion, accumulatorBits.
pub fn op(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (x, x_scales) = (a.f8s("x")?, a.f32s("xScales")?);
    let (panels, w_scales) = (a.f8s("panels")?, a.f32s("wScales")?);
    let addend = a.floats_optional("addend")?;
    let y = a.floats("y")?;
    let (m, n, k) = (a.usize("M")?, a.usize("N")?, a.usize("K")?);
    let transposed = a.flag("transposed")?;
    let accumulation = Accumulation::take(a)?;
    a.end()?;
    let (x, rows, x_scales, scale_rows) = gather(&x, &x_scales, None, m, k)?;
    elements(&[n, k])?;
    let outputs = elements(&[m, n])?;
    let product = Product {
        isa: ctx.isa,
        x,
        rows,
        x_scales,
        scale_rows,
        panels: codes_of(&panels, panels_len(n, k))?,
        blocks: BlockScales::take(&w_scales, 1, (n, k), transposed)?,
        n,
        k,
        accumulation,
        addend: Addend::new(addend.map(|addend| addend.slice(outputs)).transpose()?),
        y: Target::new(y.slice_mut(outputs)?, n),
    };
    let cut = Cut::of(ctx.isa, Arithmetic::Bf16);
    let parts = plan::parts(cut, m, n.div_ceil(PANEL), k, ctx.pool.threads());
    ctx.pool.run(parts.len(), &|i, scratch| {
        // SAFETY: parts are disjoint.
        unsafe { multiply(&product, parts[i], scratch) };
    });
    Ok(())
}

/// The op: x, xScales, rows?, offsets, panels, wScales, y; R, N, K, E, transposed, promotion, accumulatorBits.
pub fn grouped_op(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (x, x_scales) = (a.f8s("x")?, a.f32s("xScales")?);
    let rows = a.i32s_optional("rows")?;
    let offsets = a.i32s("offsets")?;
    let (panels, w_scales) = (a.f8s("panels")?, a.f32s("wScales")?);
    let y = a.floats("y")?;
    let (r, n, k, e) = (a.usize("R")?, a.usize("N")?, a.usize("K")?, a.usize("E")?);
    let transposed = a.flag("transposed")?;
    let accumulation = Accumulation::take(a)?;
    a.end()?;
    let offsets = offsets.i32s(e + 1)?;
    let r = check_offsets(offsets, r)?;
    let (x, rows, x_scales, scale_rows) = gather(&x, &x_scales, rows, r, k)?;
    elements(&[e, n, k])?;
    let panels = codes_of(&panels, e * panels_len(n, k))?;
    let blocks = BlockScales::take(&w_scales, e, (n, k), transposed)?;
    let y = Target::new(y.slice_mut(elements(&[r, n])?)?, n);
    let cut = Cut::of(ctx.isa, Arithmetic::Bf16);
    let parts = plan::grouped_parts(cut, offsets, n.div_ceil(PANEL), k, ctx.pool.threads());
    let ns = parts
        .iter()
        .map(|(_, p)| cut.estimate_ns(p.rows, p.panels, k))
        .sum();
    run_parts(ctx, &parts, ns, |(expert, part), scratch| {
        let product = Product {
            isa: ctx.isa,
            x,
            rows,
            x_scales,
            scale_rows,
            panels: &panels[expert * panels_len(n, k)..][..panels_len(n, k)],
            blocks: blocks.weight(*expert),
            n,
            k,
            accumulation,
            addend: Addend::None,
            y,
        };
        // SAFETY: parts are disjoint.
        unsafe { multiply(&product, *part, scratch) };
    });
    Ok(())
}
