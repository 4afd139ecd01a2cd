//! Where a micro-kernel leaves its tile: in a buffer, to go on later, or in the output itself, the addend added.

use super::PANEL;

/// Where a tile goes.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    pub to: *mut f32,
    /// Floats from row to row, of the addend too.
    pub stride: usize,
    /// Added after the chains, and may be `to`; null: nothing.
    pub addend: *const f32,
}

impl Out {
    /// Where sums wait: rows of `panels` panels one after another.
    pub fn waiting(tile: &mut [f32], panels: usize) -> Out {
        Out {
            to: tile.as_mut_ptr(),
            stride: panels * PANEL,
            addend: std::ptr::null(),
        }
    }

    /// The same, `floats` further.
    pub(super) fn shift(self, floats: usize) -> Out {
        Out {
            to: self.to.wrapping_add(floats),
            addend: match self.addend.is_null() {
                true => self.addend,
                false => self.addend.wrapping_add(floats),
            },
            ..self
        }
    }
}
