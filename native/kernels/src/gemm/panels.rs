//! packWeight: master [B, N, K] -> panels [B][N / 32][K][32] and, on request, the panels of the transpose
//!
//! contract   tensor/ops (packWeight); the layout that every product reads
//! layout     f32 `[panel][Kp][32]`, bf16 `[panel][Kp / 2][32][2]`, Kp = K rounded up to even, padding zero
//! dtype      master f32 or bf16; panels f32 or bf16 (rounded to nearest even), each output on its own
//! limits     any N, K; N and K of 0 write nothing
//! tiling     one panel per task; the transposed panels are the panels of the same weight by other strides
//! why so     one layout serves training, prefill and decoding: a panel is one sequential stream
//! versions   v1 (this file): plain loops

use super::micro::{Arithmetic, PANEL};
use crate::args::{Args, Dtype, Floats, FloatsMut, Operand, elements};
use crate::bf16::Element;
use crate::error::KernelError;
use crate::isa::Isa;
use crate::ops::Ctx;
use crate::pool::Disjoint;
use crate::{by_isa, isa_twins, with_floats};

/// Elements of the panels of one matrix of `n` outputs and `k` inputs.
pub fn panels_len(n: usize, k: usize) -> usize {
    n.div_ceil(PANEL) * panel_len(k)
}

/// Elements of one panel.
pub fn panel_len(k: usize) -> usize {
    k.next_multiple_of(2) * PANEL
}

/// The packed form of a batch of matrices `[n outputs, k inputs]`.
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    pub data: Floats<'a>,
    pub n: usize,
    pub k: usize,
}

impl<'a> Panels<'a> {
    /// Takes `batch` matrices out of an operand.
    pub fn take(operand: &Operand<'a>, batch: usize, n: usize, k: usize) -> Result<Panels<'a>, KernelError> {
        elements(&[batch, n, k])?;
        let data = operand.slice(batch * panels_len(n, k))?;
        Ok(Panels { data, n, k })
    }

    pub fn arithmetic(&self) -> Arithmetic {
        match self.data {
            Floats::F32(_) => Arithmetic::F32,
            Floats::Bf16(_) => Arithmetic::Bf16,
        }
    }

    /// Panels of one matrix.
    pub fn count(&self) -> usize {
        self.n.div_ceil(PANEL)
    }

    /// Matrix number `index` of the batch.
    pub fn matrix(&self, index: usize) -> Panels<'a> {
        let len = panels_len(self.n, self.k);
        Panels {
            data: self.data.range(index * len, len),
            ..*self
        }
    }

    /// Words from panel `first` of the (first) matrix on.
    pub fn words(&self, first: usize) -> *const u32 {
        let start = first * panel_len(self.k);
        match self.data {
            Floats::F32(data) => data[start..].as_ptr().cast(),
            Floats::Bf16(data) => data[start..].as_ptr().cast(),
        }
    }
}

/// Strides of a stored matrix as the packer sees it: output `i`, input `j` lies at `i * output + j * input`.
#[derive(Clone, Copy)]
pub struct Strides {
    pub output: usize,
    pub input: usize,
}

impl Strides {
    /// Row-major `[n, k]`.
    pub fn plain(k: usize) -> Strides {
        Strides { output: k, input: 1 }
    }

    /// The transpose of a row-major `[n, k]`: its columns are the outputs.
    pub fn transposed(k: usize) -> Strides {
        Strides { output: 1, input: k }
    }
}

/// Writes panel `panel` of the matrix `[n, k]` that begins at `w[0]`, into `out` (`panel_len(k)` elements).
/// One thread; `O` is `f32` or `u16` for bf16 panels.
pub fn pack_panel<T: Element, O: PanelElement>(
    isa: Isa,
    w: &[T],
    strides: Strides,
    n: usize,
    k: usize,
    panel: usize,
    out: &mut [O],
) {
    let first = panel * PANEL;
    let columns = (n - first).min(PANEL);
    let w = &w[first * strides.output..];
    by_isa!(isa, fill_panel(w, strides, columns, k, &mut out[..panel_len(k)]));
}

/// An element of a panel; it knows how many inputs of one output lie together.
pub trait PanelElement: Element {
    const TOGETHER: usize;
}

impl PanelElement for f32 {
    const TOGETHER: usize = 1;
}

impl PanelElement for u16 {
    const TOGETHER: usize = 2;
}

isa_twins! {
    fn fill_panel<T: Element, O: PanelElement>(
        w: &[T], strides: Strides, columns: usize, k: usize, out: &mut [O],
    ) {
        let line = PANEL * O::TOGETHER;
        if columns < PANEL || k % 2 == 1 {
            out.fill(O::default());
        }
        if strides.output == 1 {
            // Inputs are rows: whole lines are read and written in order.
            for j in 0..k {
                let row = &w[j * strides.input..j * strides.input + columns];
                let to = &mut out[j / O::TOGETHER * line..(j / O::TOGETHER + 1) * line];
                for c in 0..columns {
                    to[c * O::TOGETHER + j % O::TOGETHER] = O::from_f32(row[c].to_f32());
                }
            }
            return;
        }
        // Outputs are rows: squares of 32 by 32, so that what is written stays in the first cache.
        for j0 in (0..k).step_by(PANEL) {
            let j1 = (j0 + PANEL).min(k);
            for c in 0..columns {
                let row = &w[c * strides.output..c * strides.output + k];
                for j in j0..j1 {
                    out[j / O::TOGETHER * line + c * O::TOGETHER + j % O::TOGETHER] =
                        O::from_f32(row[j].to_f32());
                }
            }
        }
    }
}

/// packWeight: master, panels, panelsT?; B, N, K.
pub fn pack_weight(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let master = a.floats("master")?;
    let panels = a.floats("panels")?;
    let panels_t = a.floats_optional("panelsT")?;
    let (b, n, k) = (a.usize("B")?, a.usize("N")?, a.usize("K")?);
    a.end()?;
    let master = master.slice(elements(&[b, n, k])?)?;
    pack_batch(ctx, master, Strides::plain(k), (b, n, k), n * k, &panels)?;
    if let Some(panels_t) = panels_t {
        pack_batch(ctx, master, Strides::transposed(k), (b, k, n), n * k, &panels_t)?;
    }
    Ok(())
}

fn pack_batch(
    ctx: &Ctx,
    master: Floats,
    strides: Strides,
    (batch, n, k): (usize, usize, usize),
    matrix: usize,
    out: &Operand,
) -> Result<(), KernelError> {
    let out_len = batch * panels_len(n, k);
    with_floats!(master, |w| match out.dtype() {
        Dtype::Bf16 => {
            if let FloatsMut::Bf16(out) = out.slice_mut(out_len)? {
                pack_all(ctx, w, strides, (batch, n, k), matrix, out);
            }
        }
        _ => pack_all(ctx, w, strides, (batch, n, k), matrix, out.f32s_mut(out_len)?),
    });
    Ok(())
}

fn pack_all<T: Element, O: PanelElement>(
    ctx: &Ctx,
    w: &[T],
    strides: Strides,
    (batch, n, k): (usize, usize, usize),
    matrix: usize,
    out: &mut [O],
) {
    let panels = n.div_ceil(PANEL);
    let (len, total) = (panel_len(k), batch * panels);
    // Sixteen thousand elements take some ten microseconds: less is not worth another thread.
    let group = (16_384 / len.max(1)).max(1);
    let out = Disjoint::new(out);
    ctx.pool.run(total.div_ceil(group), &|task, _| {
        for index in task * group..((task + 1) * group).min(total) {
            let w = &w[index / panels * matrix..(index / panels + 1) * matrix];
            // SAFETY: each panel is written by one task.
            let out = unsafe { out.part(index * len, len) };
            pack_panel(ctx.isa, w, strides, n, k, index % panels, out);
        }
    });
}
