//! A fork-join pool: a region is a number of tasks, drawn one by one from a counter by the caller and its
//! threads. Which thread runs a task never matters for its result.
//!
//! Threads spin about 30 us after a region and then park, so that regions in a row cost under a microsecond
//! and an idle process nothing. A region does not wait for threads that never woke up: only those that
//! entered it are waited for, so a busy machine delays no one.

mod float_mode;
mod scratch;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

pub use float_mode::FloatMode;
pub use scratch::{Disjoint, Scratch};

const SPIN: Duration = Duration::from_micros(30);

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
