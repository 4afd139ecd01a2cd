//! What tasks write: memory of their own thread, and their part of a shared slice.

/// Memory of one thread, kept from region to region. What it holds at first is unspecified.
#[derive(Default)]
pub struct Scratch {
    lines: Vec<Line>,
}

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line(#[allow(dead_code)] [u8; 64]);

impl Scratch {
    /// `len` floats, 64-byte aligned. One buffer at a time: ask for the sum and split it.
    pub fn f32(&mut self, len: usize) -> &mut [f32] {
        let start = self.reserve(len * 4);
        // SAFETY: `reserve` gives that many initialised bytes at an aligned address, borrowed from self.
        unsafe { std::slice::from_raw_parts_mut(start.cast(), len) }
    }

    /// `len` bytes, 64-byte aligned.
    pub fn bytes(&mut self, len: usize) -> &mut [u8] {
        let start = self.reserve(len);
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    fn reserve(&mut self, bytes: usize) -> *mut u8 {
        let lines = bytes.div_ceil(64);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0; 64]));
        }
        self.lines.as_mut_ptr().cast()
    }
}

/// A slice that the tasks of one region write in disjoint parts.
#[derive(Clone, Copy)]
pub struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    lifetime: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: it only hands out parts, and `part` obliges its caller to keep them disjoint.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub fn new(slice: &'a mut [T]) -> Disjoint<'a, T> {
        Disjoint {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            lifetime: std::marker::PhantomData,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Elements `start..start + len`.
    ///
    /// # Safety
    /// No other part that overlaps this one is in use.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, start: usize, len: usize) -> &'a mut [T] {
        assert!(
            start <= self.len && len <= self.len - start,
            "part {start}..+{len} of {}",
            self.len
        );
        // SAFETY: inside the slice; disjoint by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }

    /// The address of element `index`, for kernels that write with strides.
    ///
    /// # Safety
    /// `index <= len`; what is written through it is disjoint from what other tasks touch.
    #[inline]
    pub unsafe fn pointer(&self, index: usize) -> *mut T {
        debug_assert!(index <= self.len);
        // SAFETY: by the caller's word.
        unsafe { self.start.add(index) }
    }
}
