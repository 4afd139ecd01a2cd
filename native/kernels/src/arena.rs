//! The memory of a queue: one range of address space, reserved at once, its pages committed when first
//! touched. Addresses on the wire are byte offsets from its start. Who may use which range is planned in
//! TypeScript; here is only the memory and its bounds.

/// A reserved range. Zero where nothing was written.
pub struct Arena {
    /// What the system gave, to give it back.
    mapping: *mut u8,
    mapped: usize,
    base: *mut u8,
    size: usize,
}

// SAFETY: plain memory; who reads and writes when is the queue's order.
unsafe impl Send for Arena {}
unsafe impl Sync for Arena {}

/// Alignment of the base: a huge page, so that the system can use them from the first byte.
const ALIGNMENT: usize = 2 << 20;

impl Arena {
    /// Reserves `size` bytes of address space.
    pub fn reserve(size: usize) -> Result<Arena, String> {
        let mapped = size
            .max(1)
            .checked_next_multiple_of(ALIGNMENT)
            .and_then(|size| size.checked_add(ALIGNMENT))
            .ok_or_else(|| format!("cannot reserve {size} bytes: no address space is that large"))?;
        let mapping = system::map(mapped).map_err(|why| format!("cannot reserve {size} bytes: {why}"))?;
        let skipped = (mapping as usize).next_multiple_of(ALIGNMENT) - mapping as usize;
        // SAFETY: `mapped` has room for the skipped bytes and the size.
        let base = unsafe { mapping.add(skipped) };
        Ok(Arena {
            mapping,
            mapped,
            base,
            size,
        })
    }

    pub fn size(&self) -> usize {
        self.size
    }

    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// The address of `len` bytes at offset `address`, if they lie inside.
    pub fn range(&self, address: usize, len: usize) -> Result<*mut u8, String> {
        match address.checked_add(len) {
            // SAFETY: inside the reservation.
            Some(end) if end <= self.size => Ok(unsafe { self.base.add(address) }),
            _ => Err(format!(
                "bytes {address}..+{len} lie outside an arena of {} bytes",
                self.size
            )),
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        system::unmap(self.mapping, self.mapped);
    }
}

#[cfg(unix)]
mod system {
    use std::ffi::{c_int, c_void};

    unsafe extern "C" {
        fn mmap(
            address: *mut c_void,
            length: usize,
            protection: c_int,
            flags: c_int,
            file: c_int,
            offset: i64,
        ) -> *mut c_void;
        fn munmap(address: *mut c_void, length: usize) -> c_int;
        #[cfg(target_os = "linux")]
        fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
    }

    const READ_WRITE: c_int = 1 | 2;
    #[cfg(target_os = "linux")]
    const PRIVATE_ANONYMOUS_NORESERVE: c_int = 0x02 | 0x20 | 0x4000;
    #[cfg(not(target_os = "linux"))]
    const PRIVATE_ANONYMOUS_NORESERVE: c_int = 0x02 | 0x1000 | 0x40;

    pub fn map(length: usize) -> Result<*mut u8, String> {
        // SAFETY: a fresh anonymous mapping touches nobody's memory.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                READ_WRITE,
                PRIVATE_ANONYMOUS_NORESERVE,
                -1,
                0,
            )
        };
        if start as isize == -1 {
            return Err(std::io::Error::last_os_error().to_string());
        }
        #[cfg(target_os = "linux")]
        {
            const HUGE_PAGES: c_int = 14;
            // Measured on Sapphire Rapids over 512 MiB, 2026-11: first touch 0.22 s instead of 0.34 s, random
            // reads 20 ns instead of 27 ns.
            // SAFETY: our mapping. A refusal costs a little speed and is no error.
            unsafe { madvise(start, length, HUGE_PAGES) };
        }
        Ok(start.cast())
    }

    pub fn unmap(start: *mut u8, length: usize) {
        // SAFETY: what `map` gave. It cannot fail for a whole mapping.
        unsafe { munmap(start.cast(), length) };
    }
}

#[cfg(not(unix))]
mod system {
    pub fn map(_length: usize) -> Result<*mut u8, String> {
        Err("unsupported platform: the native arena needs mmap (Linux or macOS)".to_owned())
    }

    pub fn unmap(_start: *mut u8, _length: usize) {}
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn far_more_address_space_than_memory_can_be_reserved_and_reads_as_zero() {
        let arena = Arena::reserve(1 << 40).unwrap();
        assert_eq!(arena.size(), 1 << 40);
        assert_eq!(arena.base() as usize % 64, 0);
        let last = arena.range((1 << 40) - 8, 8).unwrap().cast::<u64>();
        // SAFETY: inside the arena.
        unsafe {
            assert_eq!(last.read(), 0);
            last.write(7);
            assert_eq!(last.read(), 7);
        }
    }

    #[test]
    fn ranges_beyond_the_end_are_refused_even_if_the_sum_overflows() {
        let arena = Arena::reserve(4096).unwrap();
        assert!(arena.range(4096, 0).is_ok());
        assert!(arena.range(4000, 97).unwrap_err().contains("4000..+97"));
        assert!(arena.range(8, usize::MAX).is_err());
        assert!(Arena::reserve(usize::MAX).is_err());
    }
}
