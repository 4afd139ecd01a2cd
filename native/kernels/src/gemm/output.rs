//! Where the sums of a tile go: added to what is there or to a residual, rounded, written.

use super::micro::Out;
use crate::args::{Floats, FloatsMut};
use crate::bf16::Element;
use crate::isa::Isa;
use crate::{by_isa, isa_twins};

/// Where the outputs go: element (row, column) at `row * stride + column`.
#[derive(Clone, Copy)]
pub struct Target {
    start: Start,
    len: usize,
    stride: usize,
}

#[derive(Clone, Copy)]
enum Start {
    F32(*mut f32),
    Bf16(*mut u16),
}

// SAFETY: tasks write disjoint elements; `store` asks its caller for that.
unsafe impl Send for Target {}
unsafe impl Sync for Target {}

impl Target {
    pub fn new(y: FloatsMut, stride: usize) -> Target {
        match y {
            FloatsMut::F32(y) => Target {
                start: Start::F32(y.as_mut_ptr()),
                len: y.len(),
                stride,
            },
            FloatsMut::Bf16(y) => Target {
                start: Start::Bf16(y.as_mut_ptr()),
                len: y.len(),
                stride,
            },
        }
    }
}

impl Target {
    /// Where a micro-kernel can write a tile itself, the addend added: f32, whole panels.
    #[inline]
    pub fn direct(&self, addend: Addend, place: &Place) -> Option<Out> {
        let Start::F32(y) = self.start else { return None };
        let at = place.row * self.stride + place.column;
        let addend = match addend {
            Addend::None => std::ptr::null(),
            Addend::F32(addend) => addend.wrapping_add(at),
            Addend::Bf16(_) => return None,
        };
        assert!(
            at + (place.rows - 1) * self.stride + place.columns <= self.len,
            "a tile beyond y"
        );
        (place.columns == place.width).then_some(Out {
            to: y.wrapping_add(at),
            stride: self.stride,
            addend,
        })
    }
}

#[cfg(target_arch = "x86_64")]
impl Target {
    /// Asks for the lines of a tile that will be written soon.
    #[inline]
    pub fn prefetch(&self, place: &Place) {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        for row in place.row..place.row + place.rows {
            let at = row * self.stride + place.column;
            // SAFETY: hints, of no effect where nothing lies.
            unsafe {
                match self.start {
                    Start::F32(y) => {
                        _mm_prefetch::<_MM_HINT_ET0>(y.wrapping_add(at).cast());
                        _mm_prefetch::<_MM_HINT_ET0>(y.wrapping_add(at + 16).cast());
                    }
                    Start::Bf16(y) => _mm_prefetch::<_MM_HINT_ET0>(y.wrapping_add(at).cast()),
                }
            }
        }
    }
}

/// A matrix that is read through a pointer, because it may be the very memory that is written.
#[derive(Clone, Copy)]
pub enum Addend {
    None,
    F32(*const f32),
    Bf16(*const u16),
}

// SAFETY: only read, and only the elements whose outputs the same task writes.
unsafe impl Send for Addend {}
unsafe impl Sync for Addend {}

impl Addend {
    pub fn new(addend: Option<Floats>) -> Addend {
        match addend {
            None => Addend::None,
            Some(Floats::F32(a)) => Addend::F32(a.as_ptr()),
            Some(Floats::Bf16(a)) => Addend::Bf16(a.as_ptr()),
        }
    }
}

/// A tile's place in y, and its valid columns.
#[derive(Clone, Copy)]
pub struct Place {
    pub row: usize,
    pub rows: usize,
    pub column: usize,
    pub columns: usize,
    /// Floats from one row of the tile to the next.
    pub width: usize,
}

/// Writes a tile's valid columns, the addend added.
///
/// # Safety
/// No other thread touches these elements of y; the addend is as large as y.
pub unsafe fn store(isa: Isa, y: &Target, addend: Addend, place: &Place, tile: &[f32]) {
    let Place {
        row,
        rows,
        column,
        columns,
        width,
    } = *place;
    assert!(
        (row + rows - 1) * y.stride + column + columns <= y.len,
        "a tile beyond y"
    );
    let at = row * y.stride + column;
    let sums = Sums {
        first: tile.as_ptr(),
        rows,
        columns,
        width,
        stride: y.stride,
    };
    assert!(tile.len() >= (rows - 1) * width + columns, "a tile of that size");
    // SAFETY: inside the tile and y (asserted) and inside the addend, which is as large.
    unsafe {
        match (y.start, addend) {
            (Start::F32(y), Addend::None) => sums.store(isa, y.add(at)),
            (Start::Bf16(y), Addend::None) => sums.store(isa, y.add(at)),
            (Start::F32(y), Addend::F32(a)) => sums.add(isa, a.add(at), y.add(at)),
            (Start::F32(y), Addend::Bf16(a)) => sums.add(isa, a.add(at), y.add(at)),
            (Start::Bf16(y), Addend::F32(a)) => sums.add(isa, a.add(at), y.add(at)),
            (Start::Bf16(y), Addend::Bf16(a)) => sums.add(isa, a.add(at), y.add(at)),
        }
    }
}

/// Sums on their way: rows `width` floats apart here, `stride` elements apart there.
#[derive(Clone, Copy)]
struct Sums {
    first: *const f32,
    rows: usize,
    columns: usize,
    width: usize,
    stride: usize,
}

impl Sums {
    /// # Safety
    /// Both places are as large as the shape says.
    unsafe fn store<O: Store>(self, isa: Isa, y: *mut O) {
        #[cfg(target_arch = "x86_64")]
        if isa <= Isa::Avx512Bf16 {
            // SAFETY: the processor has the features.
            return unsafe { wide::store(self, y) };
        }
        by_isa!(isa, store_rows(self, y));
    }

    /// # Safety
    /// As `store`; the addend is as large as y and may be y.
    unsafe fn add<A: Store, O: Store>(self, isa: Isa, addend: *const A, y: *mut O) {
        #[cfg(target_arch = "x86_64")]
        if isa <= Isa::Avx512Bf16 {
            // SAFETY: the processor has the features.
            return unsafe { wide::add(self, addend, y) };
        }
        by_isa!(isa, add_rows(self, addend, y));
    }
}

isa_twins! {
    fn store_rows<O: Element>(sums: Sums, y: *mut O) {
        for row in 0..sums.rows {
            for i in 0..sums.columns {
                // SAFETY: inside both, by the callers' contracts.
                unsafe { *y.add(row * sums.stride + i) = O::from_f32(*sums.first.add(row * sums.width + i)) };
            }
        }
    }
}

isa_twins! {
    fn add_rows<A: Element, O: Element>(sums: Sums, addend: *const A, y: *mut O) {
        for row in 0..sums.rows {
            for i in 0..sums.columns {
                let at = row * sums.stride + i;
                // SAFETY: as above; read before written, so that both may be the same element.
                unsafe {
                    *y.add(at) = O::from_f32(*sums.first.add(row * sums.width + i) + (*addend.add(at)).to_f32());
                }
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
use Element as Store;
#[cfg(target_arch = "x86_64")]
use wide::Store;

/// The same in 512-bit registers. `vcvtneps2bf16` takes denormals for zero; sums are never denormal, because
/// tasks run with denormals flushed.
#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::*;

    use super::Sums;
    use crate::bf16::Element;

    /// An element that is read and written sixteen at a time.
    pub trait Store: Element {
        /// # Safety
        /// The masked elements are there.
        unsafe fn read(from: *const Self, mask: u16) -> __m512;
        /// # Safety
        /// As `read`.
        unsafe fn write(to: *mut Self, mask: u16, values: __m512);
    }

    impl Store for f32 {
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        unsafe fn read(from: *const f32, mask: u16) -> __m512 {
            // SAFETY: by the contract.
            unsafe { _mm512_maskz_loadu_ps(mask, from) }
        }
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        unsafe fn write(to: *mut f32, mask: u16, values: __m512) {
            // SAFETY: by the contract.
            unsafe { _mm512_mask_storeu_ps(to, mask, values) };
        }
    }

    impl Store for u16 {
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        unsafe fn read(from: *const u16, mask: u16) -> __m512 {
            // SAFETY: by the contract.
            let halves = unsafe { _mm256_maskz_loadu_epi16(mask, from.cast()) };
            _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))
        }
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        unsafe fn write(to: *mut u16, mask: u16, values: __m512) {
            // SAFETY: both are 32 bytes; by the contract.
            unsafe {
                let halves = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values));
                _mm256_mask_storeu_epi16(to.cast(), mask, halves);
            }
        }
    }

    /// # Safety
    /// As `Sums::store`; the processor has AVX-512 with BF16.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub unsafe fn store<O: Store>(sums: Sums, y: *mut O) {
        // SAFETY: by the contract.
        unsafe {
            each(sums, |from, at, mask| {
                O::write(y.add(at), mask, _mm512_maskz_loadu_ps(mask, from))
            });
        }
    }

    /// # Safety
    /// As `Sums::add`; the processor has AVX-512 with BF16.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub unsafe fn add<A: Store, O: Store>(sums: Sums, addend: *const A, y: *mut O) {
        // SAFETY: by the contract.
        unsafe {
            each(sums, |from, at, mask| {
                let sum = _mm512_maskz_loadu_ps(mask, from);
                O::write(y.add(at), mask, _mm512_add_ps(sum, A::read(addend.add(at), mask)));
            });
        }
    }

    /// Calls `step` with sixteen sums, where they go and which of them count.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn each(sums: Sums, step: impl Fn(*const f32, usize, u16)) {
        for row in 0..sums.rows {
            for i in (0..sums.columns).step_by(16) {
                let left = sums.columns - i;
                let mask = if left < 16 { (1 << left) - 1 } else { u16::MAX };
                // SAFETY: inside the tile.
                step(
                    unsafe { sums.first.add(row * sums.width + i) },
                    row * sums.stride + i,
                    mask,
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::FloatMode;

    fn written<O: Store>(isa: Isa, sums: &[f32], columns: usize, addend: Option<&[O]>) -> Vec<O> {
        let (rows, stride) = (3, 40);
        let mut y = vec![O::from_f32(-7.0); rows * stride];
        let shape = Sums {
            first: sums.as_ptr(),
            rows,
            columns,
            width: 32,
            stride,
        };
        // SAFETY: three rows of 40 hold three rows of at most 32.
        unsafe {
            match addend {
                None => shape.store(isa, y.as_mut_ptr()),
                Some(addend) => shape.add(isa, addend.as_ptr(), y.as_mut_ptr()),
            }
        }
        y
    }

    #[test]
    fn every_instruction_set_rounds_and_adds_to_the_same_bits_and_leaves_the_rest_alone() {
        let _flush = FloatMode::enter();
        let odd = [
            f32::NAN,
            f32::INFINITY,
            -0.0,
            3.4e38,
            -2e-38,
            1.003_906_2,
            1.011_718_8,
        ];
        let sums: Vec<f32> = (0..96)
            .map(|i| if i % 9 < 7 { odd[i % 9] } else { i as f32 * 0.37 })
            .collect();
        let addend: Vec<f32> = (0..120).map(|i| i as f32 * 0.11 - 3.0).collect();
        let narrow: Vec<u16> = addend.iter().map(|v| u16::from_f32(*v)).collect();
        for columns in [1, 15, 16, 31, 32] {
            let bits = |isa| {
                let wide = [None, Some(&addend[..])].map(|a| written::<f32>(isa, &sums, columns, a));
                let narrow = [None, Some(&narrow[..])].map(|a| written::<u16>(isa, &sums, columns, a));
                (
                    wide.map(|y| y.iter().map(|v| v.to_bits()).collect::<Vec<_>>()),
                    narrow,
                )
            };
            for isa in Isa::usable() {
                assert!(bits(isa) == bits(Isa::Portable), "{isa}, {columns} columns");
            }
        }
    }
}
