//! linearCrossEntropy in AMX registers, some 128 tokens a task: their logits are written as tiles into the second cache,
//! become probabilities and packed gradients there, and are multiplied to dx before much of it leaves. What dw needs, the
//! gradient's columns and x as panels, goes to the workspace; a second region multiplies it.
//!
//! Two chunks of 512 tokens share one pair of regions, so that dw is read and written half as often; each is a sum of its
//! own. Bits are those of `by_chunk.rs`.

mod block;
mod weight_gradient;

use std::ops::Range;

use super::linear_cross_entropy::{CHUNK, Job, Shape};
use crate::args::{Floats, FloatsMut};
use crate::gemm::Panels;
use crate::gemm::micro::{self, AMX_ROWS as ROWS, RUN};
use crate::gemm::output::{Addend, Target};
use crate::isa::Isa;
use crate::ops::Ctx;
use crate::pool::Disjoint;

/// Chunks of one pair of regions: as bf16 two fill the workspace.
const SPAN: usize = 2 * CHUNK;
/// Floats of a task's logits: 2 MiB, a second cache of the processors that have AMX. Fewer rows would read the weight from
/// the third cache more often than the rest of the logits goes there.
const LOGITS: usize = 512 * 1024;
/// Rows of a task however many logits they have, as long as these are at most twice as many as `LOGITS`.
const LEAST_ROWS: usize = 4 * ROWS;
/// Most rows of a task.
const MOST_ROWS: usize = 256;
/// Tiles of 32 rows of dw in a task.
const GROUP: usize = 8;

/// Every task reads the whole weight, so it must lie in the third cache; and a thread keeps the logits of 128 rows.
pub fn suits(ctx: &Ctx, job: &Job) -> bool {
    let Shape { d, .. } = job.shape;
    micro::by_amx(ctx.isa, job.panels.arithmetic())
        && job.targets.len() >= ROWS
        && LEAST_ROWS * job.shape.padded_v() <= 2 * LOGITS
        && d <= 1024
}

/// Counted tokens of 512, and where in the workspace what dw needs of them lies.
struct Chunk {
    tokens: Vec<i32>,
    /// Pairs of tokens, up to whole runs.
    pairs: usize,
    /// First word of x as panels, `[D / 32][pairs][32]`.
    x: usize,
    /// First word of the gradient's columns, `[V / 32][pairs / 16][32][16]`.
    columns: usize,
}

/// What all tasks share.
struct Call<'a> {
    isa: Isa,
    shape: Shape,
    x: Floats<'a>,
    panels: Panels<'a>,
    transposed: Option<Panels<'a>>,
    targets: &'a [i32],
    loss: Disjoint<'a, f32>,
    hits: Disjoint<'a, i32>,
    dx: Option<Target>,
    dw: Option<(Addend, Target)>,
    workspace: Workspace,
}

/// The workspace as words. Blocks write their own parts of it, the weight gradient reads them in the next region.
struct Workspace {
    start: *mut u32,
    len: usize,
}

// SAFETY: tasks of one region write disjoint parts.
unsafe impl Send for Workspace {}
unsafe impl Sync for Workspace {}

impl Workspace {
    /// `len` words from `first` on, which are there.
    fn words(&self, first: usize, len: usize) -> *mut u32 {
        assert!(
            first <= self.len && len <= self.len - first,
            "words {first}..+{len} of {}",
            self.len
        );
        self.start.wrapping_add(first)
    }
}

/// Rows of one chunk that one task takes.
struct Block<'a> {
    chunk: &'a Chunk,
    rows: Range<usize>,
}

pub fn run(ctx: &Ctx, job: &mut Job) {
    let (shape, targets) = (job.shape, job.targets);
    clear(job);
    let call = Call {
        isa: ctx.isa,
        shape,
        x: job.x,
        panels: job.panels,
        transposed: job.transposed,
        targets,
        loss: Disjoint::new(&mut *job.loss),
        hits: Disjoint::new(&mut *job.hits),
        dx: job.dx.as_mut().map(|dx| match dx {
            FloatsMut::F32(dx) => Target::new(FloatsMut::F32(dx), shape.d),
            FloatsMut::Bf16(dx) => Target::new(FloatsMut::Bf16(dx), shape.d),
        }),
        dw: job.dw.as_mut().map(|dw| {
            let start: *const f32 = dw.as_mut_ptr();
            (Addend::F32(start), Target::new(FloatsMut::F32(dw), shape.d))
        }),
        workspace: Workspace {
            start: job.workspace.as_mut_ptr().cast(),
            len: job.workspace.len(),
        },
    };
    for start in (0..targets.len()).step_by(SPAN) {
        let chunks = chunks(targets, start..(start + SPAN).min(targets.len()), shape);
        let blocks = blocks(&chunks, shape, ctx.pool.threads());
        ctx.pool.run(blocks.len(), &|i, scratch| {
            // SAFETY: blocks have no token in common; the processor has AMX (`suits`).
            unsafe { call.block(&blocks[i], scratch) };
        });
        if let (Some(dw), false) = (call.dw, blocks.is_empty()) {
            let tiles = shape.v.div_ceil(ROWS);
            ctx.pool.run(tiles.div_ceil(GROUP), &|i, scratch| {
                let group = i * GROUP..((i + 1) * GROUP).min(tiles);
                let ahead = (group.start + ctx.pool.threads() * GROUP).min(tiles);
                // SAFETY: groups have no row of dw in common.
                unsafe { call.weight_gradient(dw, &chunks, group, ahead, scratch) };
            });
        }
    }
}

/// What ignored tokens are to read.
fn clear(job: &mut Job) {
    job.loss.fill(0.0);
    job.hits.fill(0);
    let d = job.shape.d;
    for (token, _) in job.targets.iter().enumerate().filter(|(_, id)| **id < 0) {
        let row = token * d..(token + 1) * d;
        match &mut job.dx {
            Some(FloatsMut::F32(dx)) => dx[row].fill(0.0),
            Some(FloatsMut::Bf16(dx)) => dx[row].fill(0),
            None => {}
        }
    }
}

/// The chunks of some tokens that have a counted one.
fn chunks(targets: &[i32], span: Range<usize>, shape: Shape) -> Vec<Chunk> {
    let mut words = 0;
    let mut chunks = Vec::new();
    for start in span.clone().step_by(CHUNK) {
        let tokens: Vec<i32> = (start..(start + CHUNK).min(span.end))
            .filter(|t| targets[*t] >= 0)
            .map(|t| t as i32)
            .collect();
        if tokens.is_empty() {
            continue;
        }
        let pairs = tokens.len().div_ceil(ROWS) * RUN;
        let columns = words + pairs * shape.padded_d();
        chunks.push(Chunk {
            tokens,
            pairs,
            x: words,
            columns,
        });
        words = columns + pairs * shape.padded_v();
    }
    chunks
}

/// Blocks of whole tiles whose logits fill a second cache, smaller where threads would stand idle.
fn blocks(chunks: &[Chunk], shape: Shape, threads: usize) -> Vec<Block<'_>> {
    let counted: usize = chunks.iter().map(|chunk| chunk.tokens.len()).sum();
    let fitting = (LOGITS / shape.padded_v() / ROWS * ROWS).clamp(LEAST_ROWS, MOST_ROWS);
    let rows = fitting.min(counted.div_ceil(2 * threads)).next_multiple_of(ROWS);
    chunks
        .iter()
        .flat_map(|chunk| {
            let len = chunk.tokens.len();
            (0..len).step_by(rows).map(move |row| Block {
                chunk,
                rows: row..(row + rows).min(len),
            })
        })
        .collect()
}

impl Call<'_> {
    /// The columns of a chunk's gradient.
    fn columns(&self, chunk: &Chunk) -> *mut u32 {
        self.workspace
            .words(chunk.columns, chunk.pairs * self.shape.padded_v())
    }
}
