//! A fork-join pool: a region is a number of tasks, drawn one by one from a counter by the caller and its
//! threads. Which thread runs a task never matters for its result.
//!
//! Threads spin about 30 us after a region and then park, so that regions in a row cost under a microsecond
//! and an idle process nothing. A region does not wait for threads that never woke up: only those that
//! entered it are waited for, so a busy machine delays no one.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

const SPIN: Duration = Duration::from_micros(30);

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

type Task<'a> = dyn Fn(usize, &mut Scratch) + Sync + 'a;

/// The running region. Written by the caller while the gate is closed and nobody is inside.
struct Region {
    task: Cell<Option<*const Task<'static>>>,
    tasks: Cell<usize>,
}

struct Shared {
    /// Upper 32 bits: number of the region; bit 31: open; lower 31 bits: threads inside.
    gate: AtomicU64,
    region: Region,
    next: AtomicUsize,
    stopping: AtomicBool,
    waiting: AtomicBool,
    caller: Mutex<Option<Thread>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `region` is written only while the gate is closed with nobody inside, and read only inside.
unsafe impl Sync for Shared {}
unsafe impl Send for Shared {}

const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;

struct Worker {
    asleep: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
}

/// The caller of `run` and `threads - 1` workers.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    /// The caller's scratch; its lock also lets several queues share one pool, one region at a time.
    caller: Mutex<Scratch>,
}

thread_local! {
    static IN_REGION: Cell<bool> = const { Cell::new(false) };
}

impl Pool {
    /// A pool of `threads` in all (at least one, the caller). Panics if the system refuses a thread.
    pub fn new(threads: usize) -> Pool {
        Pool::try_new(threads).expect("the system refuses another thread")
    }

    /// As `new`, or the system's refusal.
    pub fn try_new(threads: usize) -> std::io::Result<Pool> {
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            region: Region {
                task: Cell::new(None),
                tasks: Cell::new(0),
            },
            next: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            caller: Mutex::new(None),
            panic: Mutex::new(None),
        });
        let mut pool = Pool {
            shared,
            workers: Vec::new(),
            caller: Mutex::new(Scratch::default()),
        };
        for index in 1..threads {
            // On a refusal the pool is dropped, which ends those that have started.
            pool.workers.push(spawn_worker(index, &pool.shared)?);
        }
        Ok(pool)
    }

    /// Threads that take part in a region, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task(i, scratch)` for each `i` in `0..tasks` once, on any thread; returns when all are done.
    /// A panic in a task is raised here after the region has ended. Not from within a task.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize, &mut Scratch) + Sync)) {
        if tasks == 0 {
            return;
        }
        assert!(!IN_REGION.get(), "a task must not start a region");
        let mut scratch = self.caller.lock().unwrap_or_else(PoisonError::into_inner);
        let float_mode = FloatMode::enter();
        IN_REGION.set(true);
        let mine = if self.workers.is_empty() || tasks == 1 {
            catch_unwind(AssertUnwindSafe(|| {
                for i in 0..tasks {
                    task(i, &mut scratch);
                }
            }))
            .err()
        } else {
            self.fork_join(tasks, task, &mut scratch)
        };
        IN_REGION.set(false);
        drop(float_mode);
        drop(scratch);
        if let Some(payload) = mine {
            resume_unwind(payload);
        }
    }

    fn fork_join(&self, tasks: usize, task: &Task, scratch: &mut Scratch) -> Option<Box<dyn Any + Send>> {
        let shared = &*self.shared;
        // SAFETY: the pointer is used only by threads inside the gate, and this function returns after the
        // last of them has left.
        let task: *const Task<'static> =
            unsafe { std::mem::transmute::<*const Task, *const Task<'static>>(task) };
        shared.region.task.set(Some(task));
        shared.region.tasks.set(tasks);
        shared.next.store(0, SeqCst);
        let number = (shared.gate.load(SeqCst) >> 32).wrapping_add(1);
        shared.gate.store((number << 32) | OPEN, SeqCst);
        for worker in self.workers.iter().take(tasks - 1) {
            if worker.asleep.load(SeqCst)
                && let Some(handle) = &worker.handle
            {
                handle.thread().unpark();
            }
        }
        shared.work(scratch);
        shared.gate.fetch_and(!OPEN, SeqCst);
        shared.wait_until_empty();
        shared.region.task.set(None);
        shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stopping.store(true, SeqCst);
        for worker in &mut self.workers {
            if let Some(handle) = worker.handle.take() {
                handle.thread().unpark();
                // A worker catches its tasks' panics; joining it cannot fail.
                let _ = handle.join();
            }
        }
    }
}

impl Shared {
    /// Draws and runs tasks until none is left. The first panic of the region is kept, later ones dropped.
    fn work(&self, scratch: &mut Scratch) {
        let tasks = self.region.tasks.get();
        let Some(task) = self.region.task.get() else {
            return;
        };
        // SAFETY: we are inside the region, `fork_join` keeps the task alive until we have left.
        let task = unsafe { &*task };
        loop {
            let index = self.next.fetch_add(1, SeqCst);
            if index >= tasks {
                return;
            }
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| task(index, scratch))) {
                self.panic
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(payload);
            }
        }
    }

    /// Enters the region if it is open; true if entered.
    fn enter(&self, seen: u64) -> bool {
        let mut gate = self.gate.load(SeqCst);
        loop {
            if gate & OPEN == 0 || gate >> 32 == seen {
                return false;
            }
            match self.gate.compare_exchange_weak(gate, gate + 1, SeqCst, SeqCst) {
                Ok(_) => return true,
                Err(actual) => gate = actual,
            }
        }
    }

    fn leave(&self) {
        let before = self.gate.fetch_sub(1, SeqCst);
        if before & INSIDE == 1
            && self.waiting.load(SeqCst)
            && let Some(caller) = &*self.caller.lock().unwrap_or_else(PoisonError::into_inner)
        {
            caller.unpark();
        }
    }

    fn wait_until_empty(&self) {
        let empty = || self.gate.load(SeqCst) & INSIDE == 0;
        if spin_until(empty) {
            return;
        }
        *self.caller.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current());
        self.waiting.store(true, SeqCst);
        while !empty() {
            thread::park();
        }
        self.waiting.store(false, SeqCst);
    }
}

fn spawn_worker(index: usize, shared: &Arc<Shared>) -> std::io::Result<Worker> {
    let asleep = Arc::new(AtomicBool::new(false));
    let (shared, flag) = (Arc::clone(shared), Arc::clone(&asleep));
    let handle = thread::Builder::new()
        .name(format!("minke-{index}"))
        .spawn(move || worker_loop(&shared, &flag))?;
    Ok(Worker {
        asleep,
        handle: Some(handle),
    })
}

fn worker_loop(shared: &Shared, asleep: &AtomicBool) {
    let _float_mode = FloatMode::enter();
    IN_REGION.set(true);
    let mut scratch = Scratch::default();
    let mut seen = 0;
    loop {
        let due = || {
            let gate = shared.gate.load(SeqCst);
            (gate & OPEN != 0 && gate >> 32 != seen) || shared.stopping.load(SeqCst)
        };
        if !spin_until(due) {
            asleep.store(true, SeqCst);
            while !due() {
                thread::park();
            }
            asleep.store(false, SeqCst);
        }
        if shared.stopping.load(SeqCst) {
            return;
        }
        if shared.enter(seen) {
            seen = shared.gate.load(SeqCst) >> 32;
            shared.work(&mut scratch);
            shared.leave();
        }
    }
}

/// Spins for at most `SPIN`; true if the condition came true.
fn spin_until(condition: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..64 {
            if condition() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() > SPIN {
            return false;
        }
    }
}

/// Denormal inputs and results count as zero while this lives, as `vdpbf16ps` treats them always: so the
/// AVX2 and portable paths keep its bits. The thread's own mode comes back on drop.
pub struct FloatMode {
    before: float_mode::Register,
}

impl FloatMode {
    pub fn enter() -> FloatMode {
        let before = float_mode::read();
        float_mode::write(before | float_mode::DENORMALS_ARE_ZERO);
        FloatMode { before }
    }
}

impl Drop for FloatMode {
    fn drop(&mut self) {
        float_mode::write(self.before);
    }
}

#[cfg(target_arch = "x86_64")]
mod float_mode {
    pub type Register = u32;
    /// MXCSR: denormal inputs (bit 6) and results (bit 15).
    pub const DENORMALS_ARE_ZERO: Register = (1 << 6) | (1 << 15);

    pub fn read() -> Register {
        let mut value = 0;
        // SAFETY: stores four bytes.
        unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut value, options(nostack)) };
        value
    }

    pub fn write(value: Register) {
        // SAFETY: `FloatMode` changes the denormal bits only; rounding and exception masks stay.
        unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &value, options(nostack)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod float_mode {
    pub type Register = u64;
    /// FPCR.FZ: denormal inputs and results.
    pub const DENORMALS_ARE_ZERO: Register = 1 << 24;

    pub fn read() -> Register {
        let value: u64;
        // SAFETY: reads a register.
        unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) value, options(nostack)) };
        value
    }

    pub fn write(value: Register) {
        // SAFETY: `FloatMode` changes one bit only.
        unsafe { std::arch::asm!("msr fpcr, {}", in(reg) value, options(nostack)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod float_mode {
    //! No such mode is known here: denormals stay what they are.
    pub type Register = u32;
    pub const DENORMALS_ARE_ZERO: Register = 0;

    pub fn read() -> Register {
        0
    }

    pub fn write(_value: Register) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_whatever_the_number_of_threads() {
        for threads in [1, 2, 4] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            for tasks in [0, 1, 2, 3, 100] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|i, _| {
                    counts[i].fetch_add(1, SeqCst);
                });
                assert!(counts.iter().all(|c| c.load(SeqCst) == 1));
            }
        }
    }

    #[test]
    fn thousands_of_regions_in_a_row_lose_no_task() {
        let pool = Pool::new(3);
        let total = AtomicUsize::new(0);
        for round in 0..5000 {
            let tasks = round % 7;
            pool.run(tasks, &|_, _| {
                total.fetch_add(1, SeqCst);
            });
            if round % 1000 == 0 {
                thread::sleep(Duration::from_millis(2));
            }
        }
        assert_eq!(total.load(SeqCst), (0..5000).map(|r| r % 7).sum());
    }

    #[test]
    fn a_panic_comes_out_after_the_region_and_the_pool_still_works() {
        let pool = Pool::new(2);
        let done = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(16, &|i, _| {
                assert!(i != 3, "task three");
                done.fetch_add(1, SeqCst);
            });
        }));
        let payload = result.unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"task three"));
        assert_eq!(done.load(SeqCst), 15);
        pool.run(4, &|_, _| {
            done.fetch_add(1, SeqCst);
        });
        assert_eq!(done.load(SeqCst), 19);
    }

    #[test]
    fn a_region_inside_a_task_is_refused_instead_of_hanging() {
        let pool = Pool::new(2);
        let nested = catch_unwind(AssertUnwindSafe(|| pool.run(2, &|_, _| pool.run(2, &|_, _| {}))));
        assert!(nested.is_err());
    }

    #[test]
    fn several_threads_may_share_one_pool() {
        let pool = Pool::new(2);
        let total = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        pool.run(5, &|_, _| {
                            total.fetch_add(1, SeqCst);
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(SeqCst), 4000);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn tasks_flush_denormals_and_the_caller_gets_its_mode_back() {
        let tiny = std::hint::black_box(1e-40f32);
        let pool = Pool::new(2);
        let kept = AtomicUsize::new(0);
        pool.run(64, &|_, _| {
            if std::hint::black_box(tiny) * std::hint::black_box(1.0) != 0.0 {
                kept.fetch_add(1, SeqCst);
            }
        });
        assert_eq!(kept.load(SeqCst), 0);
        assert!(std::hint::black_box(tiny) * std::hint::black_box(1.0) != 0.0);
    }

    #[test]
    fn scratch_is_aligned_and_grows() {
        let mut scratch = Scratch::default();
        for len in [1, 1000, 10] {
            assert_eq!(scratch.f32(len).len(), len);
            assert_eq!(scratch.f32(len).as_ptr() as usize % 64, 0);
            assert_eq!(scratch.bytes(len).len(), len);
        }
    }

    #[test]
    fn parts_outside_the_slice_are_refused() {
        let mut data = [0u8; 8];
        let disjoint = Disjoint::new(&mut data);
        // SAFETY: one part at a time.
        unsafe {
            disjoint.part(6, 2)[1] = 7;
            assert!(catch_unwind(AssertUnwindSafe(|| disjoint.part(6, 3))).is_err());
        }
        assert_eq!(data[7], 7);
    }
}
