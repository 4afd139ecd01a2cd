//! How attention is cut up: panels of queries, tiles of keys, the scratch they live in.
//!
//! Tiles live in a thread's scratch. Their strides are multiples of 16 floats, padding zero, so that no loop over them
//! ends in the middle of a vector.

use super::vector::WIDTH;

/// Queries side by side in a panel: the lanes of two vectors.
pub const PANEL: usize = 2 * WIDTH;
/// Keys of a tile, counted from the sequence's start. Part of the numbers' definition: sums of a softmax are
/// rescaled from tile to tile.
pub const KEY_TILE: usize = 64;

/// Rows of a product's largest block: channel counts are rounded up to it, so that odd heads run at full speed.
pub const ROWS: usize = 8;

/// Hands out consecutive parts of a scratch buffer, each on a cache line of its own.
pub struct Parts<'a> {
    rest: &'a mut [f32],
}

impl<'a> Parts<'a> {
    pub fn of(buffer: &'a mut [f32]) -> Parts<'a> {
        Parts { rest: buffer }
    }

    /// `rows * stride` floats; `stride` is a multiple of 16.
    pub fn take(&mut self, rows: usize, stride: usize) -> *mut f32 {
        let (part, rest) = std::mem::take(&mut self.rest).split_at_mut(rows * stride);
        self.rest = rest;
        part.as_mut_ptr()
    }
}

/// A panel of queries meets consecutive keys of its sequence.
#[derive(Clone, Copy)]
pub struct Meeting {
    /// Keys that are there.
    pub count: usize,
    /// First key minus first query.
    pub ahead: isize,
}

impl Meeting {
    /// Keys that the last query of a strip of 16 sees.
    #[inline(always)]
    pub fn seen_by(&self, strip: usize) -> usize {
        let seen = ((strip + 1) * WIDTH) as isize - self.ahead;
        (seen.max(0) as usize).min(self.count)
    }

    /// Keys that all queries of the panel see.
    #[inline(always)]
    pub fn seen_by_all(&self) -> usize {
        ((-self.ahead).max(0) as usize).min(self.count)
    }

    /// The strip on whose diagonal a group of 16 keys lies.
    #[inline(always)]
    pub fn strip_of(&self, key: usize) -> usize {
        (key as isize + self.ahead) as usize / WIDTH
    }
}

/// The next multiple of a vector's width.
pub fn whole_vectors(n: usize) -> usize {
    n.next_multiple_of(WIDTH)
}
