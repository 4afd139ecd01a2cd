//! quantizeWeight: master [B, N, K] -> panels, panels of the transpose, scales [B, N / 128, K / 128]
//!
//! contract   src/tensor/ops/fp8/quantizeWeight.ts: the same bits
//! layout     panels as packWeight writes bf16: [N / 32][Kp / 2][32][2], one byte each; the same codes in both
//! dtype      master f32 or bf16; panels f8e4m3, padding 0; scales f32
//! limits     any N and K; a block at an edge is a short one
//! tiling     a task is one block of 128x128: its codes lie in scratch memory while they are put in both orders
//! why so     a block fills whole lines of both panel forms, so that tasks write apart; the master is read once
//! versions   v1 (this file); v2 (wide/weight.rs) by 512-bit registers, two to three times as fast

use super::codec::{E4m3, Rule, TILE, greatest_bits};
use super::panel_codes::{Block, of_columns, of_rows};
use super::segment::quantize;
use super::tiles::given_amax;
#[cfg(target_arch = "x86_64")]
use super::wide;
use crate::args::{Args, Floats, elements};
use crate::bf16::Element;
use crate::error::KernelError;
use crate::gemm::micro::PANEL;
use crate::gemm::{panel_len, panels::panels_len};
#[cfg(target_arch = "x86_64")]
use crate::isa::Isa;
use crate::ops::Ctx;
use crate::pool::Disjoint;
use crate::{by_isa, isa_twins, with_floats};

struct Job<'a> {
    master: Floats<'a>,
    n: usize,
    k: usize,
    given: Option<f32>,
    rule: Rule,
    panels: Disjoint<'a, u8>,
    panels_t: Option<Disjoint<'a, u8>>,
}

/// master, amax?, panels, panelsT?, scales; B, N, K, powerOfTwo
pub fn quantize_weight(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (master, amax) = (a.floats("master")?, a.f32s_optional("amax")?);
    let (panels, panels_t) = (a.f8s("panels")?, a.f8s_optional("panelsT")?);
    let scales = a.f32s("scales")?;
    let (b, n, k) = (a.usize("B")?, a.usize("N")?, a.usize("K")?);
    let rule = Rule {
        power_of_two: a.flag("powerOfTwo")?,
        floor: 0.0,
    };
    a.end()?;
    let (rows, columns) = (n.div_ceil(TILE), k.div_ceil(TILE));
    let panels_t = panels_t
        .map(|panels| panels.bytes_mut(b * panels_len(k, n)))
        .transpose()?;
    let job = Job {
        master: master.slice(elements(&[b, n, k])?)?,
        n,
        k,
        given: given_amax(amax)?,
        rule,
        panels: Disjoint::new(panels.bytes_mut(b * panels_len(n, k))?),
        panels_t: panels_t.map(Disjoint::new),
    };
    let scales = Disjoint::new(scales.f32s_mut(b * rows * columns)?);
    ctx.pool.run(b * rows * columns, &|task, _| {
        let (matrix, row, column) = (task / (rows * columns), task / columns % rows, task % columns);
        // SAFETY: each block has one task.
        let scale = unsafe { scales.part(task, 1) };
        scale[0] = job.block(ctx, matrix, row * TILE, column * TILE);
    });
    Ok(())
}

impl Job<'_> {
    fn block(&self, ctx: &Ctx, matrix: usize, row: usize, column: usize) -> f32 {
        let (n, k) = (self.n, self.k);
        let (height, width) = (TILE.min(n - row), TILE.min(k - column));
        let start = (matrix * n + row) * k + column;
        let master = self.master.range(start, (height - 1) * k + width);
        let mut codes = Block([[0; TILE]; TILE]);
        let scale = self.codes_of(ctx, master, (height, width), &mut codes);
        // Both orders: panels of rows, of which two columns make a pair; panels of columns, two rows a pair.
        for first in (0..height).step_by(PANEL) {
            let at = matrix * panels_len(n, k) + (row + first) / PANEL * panel_len(k) + column * PANEL;
            // SAFETY: lines of this block in this panel belong to no other task.
            let lines = unsafe { self.panels.part(at, width.next_multiple_of(2) * PANEL) };
            #[cfg(target_arch = "x86_64")]
            if ctx.isa <= Isa::Avx512Bf16 {
                // SAFETY: the processor has it.
                unsafe { wide::of_rows(&codes, first, lines) };
                continue;
            }
            by_isa!(ctx.isa, panel_of_rows(&codes, first, lines));
        }
        if let Some(panels) = &self.panels_t {
            for first in (0..width).step_by(PANEL) {
                let at = matrix * panels_len(k, n) + (column + first) / PANEL * panel_len(n) + row * PANEL;
                // SAFETY: as above.
                let lines = unsafe { panels.part(at, height.next_multiple_of(2) * PANEL) };
                by_isa!(ctx.isa, panel_of_columns(&codes, first, lines));
            }
        }
        scale
    }

    /// Codes of a block, and its scale.
    fn codes_of(&self, ctx: &Ctx, master: Floats, (height, width): (usize, usize), codes: &mut Block) -> f32 {
        #[cfg(target_arch = "x86_64")]
        if ctx.isa <= Isa::Avx512Bf16 && self.given.is_none() {
            // SAFETY: the processor has it.
            let scale = with_floats!(master, |w| unsafe {
                wide::block_codes(w, self.k, (height, width), self.rule, codes)
            });
            if let Some(scale) = scale {
                return scale;
            }
        }
        with_floats!(master, |w| by_isa!(
            ctx.isa,
            block_codes(w, self.k, height, width, self.given, self.rule, codes)
        ))
    }
}

isa_twins! {
    /// Codes of a block whose rows lie `stride` apart, and its scale.
    fn block_codes<T: Element>(
        w: &[T], stride: usize, height: usize, width: usize, given: Option<f32>, rule: Rule, codes: &mut Block,
    ) -> f32 {
        let mut greatest = 0;
        for r in 0..height {
            greatest = greatest_bits(&w[r * stride..][..width], greatest);
        }
        let amax = match given {
            Some(amax) => amax,
            None => f32::from_bits(greatest),
        };
        let scale = rule.scale::<E4m3>(amax);
        for r in 0..height {
            let (w, codes) = (&w[r * stride..][..width], &mut codes.0[r]);
            match given {
                None if width == TILE => quantize::<T, E4m3, true>(&w[..TILE], scale, rule.power_of_two, codes),
                None => quantize::<T, E4m3, true>(w, scale, rule.power_of_two, codes),
                Some(_) => quantize::<T, E4m3, false>(w, scale, rule.power_of_two, codes),
            }
        }
        scale
    }
}

isa_twins! {
    fn panel_of_rows(codes: &Block, first: usize, lines: &mut [u8]) {
        of_rows(codes, first, lines);
    }
}

isa_twins! {
    fn panel_of_columns(codes: &Block, first: usize, lines: &mut [u8]) {
        of_columns(codes, first, lines);
    }
}
