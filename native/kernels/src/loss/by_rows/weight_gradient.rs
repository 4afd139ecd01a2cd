//! dw of some chunks, from what their blocks have left in the workspace.

use std::ops::Range;

use super::{Call, Chunk};
use crate::gemm::micro::{AMX_ROWS as ROWS, PANEL, amx};
use crate::gemm::output::{Addend, Place, Target, store};
use crate::loss::linear_cross_entropy::Shape;
use crate::loss::tile_softmax::TILE;
use crate::pool::Scratch;

impl Call<'_> {
    /// Adds the chunks' sums to some tiles of 32 rows of dw. `ahead` is the tile that this thread will probably go on with.
    ///
    /// # Safety
    /// No other task has these rows; all blocks of the chunks are done.
    pub unsafe fn weight_gradient(
        &self,
        (addend, dw): (Addend, Target),
        chunks: &[Chunk],
        group: Range<usize>,
        ahead: usize,
        scratch: &mut Scratch,
    ) {
        let Shape { d, v, .. } = self.shape;
        let sums = scratch.f32(2 * TILE);
        let place = |tile: usize, column: usize| Place {
            row: tile * ROWS,
            rows: (v - tile * ROWS).min(ROWS),
            column,
            columns: (d - column).min(PANEL),
            width: PANEL,
        };
        let (mut slot, mut late) = (0, None::<Place>);
        for (number, chunk) in chunks.iter().enumerate() {
            let x = self.workspace.words(chunk.x, chunk.pairs * self.shape.padded_d());
            let columns = self.columns(chunk);
            let mut ask = match chunks.get(number + 1) {
                Some(next) => self.columns(next).wrapping_add(group.start * next.pairs * ROWS),
                None => self
                    .columns(&chunks[0])
                    .wrapping_add(ahead * chunks[0].pairs * ROWS),
            };
            for column in (0..d).step_by(PANEL) {
                for index in group.clone() {
                    let next = place(index, column);
                    dw.prefetch(&next);
                    // SAFETY: a tile of columns and a panel of x have `pairs` pairs.
                    unsafe {
                        let a = columns.add(index * chunk.pairs * ROWS);
                        let b = x.add(column * chunk.pairs);
                        let to = sums.as_mut_ptr().add(slot * TILE);
                        // The last four panels ask for the tiles that come next, a quarter of a tile a call.
                        if column + 4 * PANEL >= d {
                            amx::accumulate_asking(chunk.pairs, a, b, to, true, ask);
                            ask = ask.wrapping_add(chunk.pairs * ROWS / 4);
                        } else {
                            amx::accumulate(ROWS, chunk.pairs, a, b, to, true);
                        }
                        slot = 1 - slot;
                        if let Some(place) = late.replace(next) {
                            store(self.isa, &dw, addend, &place, &sums[slot * TILE..]);
                        }
                    }
                }
            }
        }
        if let Some(place) = late {
            // SAFETY: as above.
            unsafe { store(self.isa, &dw, addend, &place, &sums[(1 - slot) * TILE..]) };
        }
        amx::release();
    }
}
