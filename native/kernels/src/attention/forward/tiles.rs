//! What a task of the forward pass keeps in scratch.

use crate::attention::shape::Heads;
use crate::attention::tile::{KEY_TILE, PANEL, Parts, whole_vectors};

/// All panels of a query tile, and one tile of keys and values.
#[derive(Clone, Copy)]
pub struct Tiles {
    pub panels: usize,
    pub key_stride: usize,
    pub value_stride: usize,
    queries: *mut f32,
    outputs: *mut f32,
    statistics: *mut f32,
    /// [64][D], zero rows up to a multiple of 16 behind the last key
    pub keys: *mut f32,
    /// [64][V]
    pub values: *mut f32,
    /// [64][32]: a panel's scores, then its exponentials
    pub scores: *mut f32,
    /// [32][D or V]: queries on their way in, outputs on their way out
    pub rows: *mut f32,
}

/// One panel of queries between key tiles.
#[derive(Clone, Copy)]
pub struct Panel {
    /// [D][32], scaled
    pub queries: *mut f32,
    /// [V][32], not yet divided by the sums
    pub outputs: *mut f32,
    /// [32], greatest score so far
    pub maxima: *mut f32,
    /// [32], sum of exp(score - maximum) so far
    pub sums: *mut f32,
}

impl Tiles {
    /// Floats of scratch that `of` takes for so many queries.
    pub fn len(heads: &Heads, queries: usize) -> usize {
        let (key, value) = (whole_vectors(heads.key()), whole_vectors(heads.value));
        let panels = queries.div_ceil(PANEL);
        panels * PANEL * (key + value + 2) + KEY_TILE * (key + value + PANEL) + PANEL * key.max(value)
    }

    pub fn of(buffer: &mut [f32], heads: &Heads, queries: usize) -> Tiles {
        let (key_stride, value_stride) = (whole_vectors(heads.key()), whole_vectors(heads.value));
        let panels = queries.div_ceil(PANEL);
        let mut parts = Parts::of(buffer);
        Tiles {
            panels,
            key_stride,
            value_stride,
            queries: parts.take(panels * PANEL, key_stride),
            outputs: parts.take(panels * PANEL, value_stride),
            statistics: parts.take(panels * 2, PANEL),
            keys: parts.take(KEY_TILE, key_stride),
            values: parts.take(KEY_TILE, value_stride),
            scores: parts.take(KEY_TILE, PANEL),
            rows: parts.take(PANEL, key_stride.max(value_stride)),
        }
    }

    /// # Safety
    /// `index < self.panels`.
    #[inline(always)]
    pub unsafe fn panel(&self, index: usize) -> Panel {
        unsafe {
            Panel {
                queries: self.queries.add(index * PANEL * self.key_stride),
                outputs: self.outputs.add(index * PANEL * self.value_stride),
                maxima: self.statistics.add(index * 2 * PANEL),
                sums: self.statistics.add((index * 2 + 1) * PANEL),
            }
        }
    }
}
