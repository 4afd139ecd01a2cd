//! A queue: commands run one after another on a thread of their own, which is also the first of its pool.
//!
//! `submit`, `write`, `read`, `drain` and `call` only note down what is to be done and return. The first
//! command that fails poisons the queue: later commands and writes are skipped, and every read or drain, waiting or
//! new, ends with that one failure. An idle queue sleeps.

mod runner;
#[cfg(all(test, unix))]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::arena::Arena;
use crate::isa::Isa;
use crate::message::{Line, Transport};
use crate::ops::{Ctx, Kernel};
use crate::pool::{FloatMode, Pool};
use runner::Runner;

/// Why a queue is poisoned.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Name of the op, or `#code` if there is no such op; "dispose" if the queue was disposed.
    pub op: String,
    /// Operand or parameter that is wrong, if it is one.
    pub param: Option<&'static str>,
    pub message: String,
    /// Number of the failing command since the queue began, the first being 0.
    pub command: u64,
    /// The command as submitted.
    pub words: Vec<f64>,
}

impl Failure {
    /// One line for people: the op, its operand, what is wrong.
    pub fn text(&self) -> String {
        match self.param {
            Some(param) => format!("{} ({param}): {}", self.op, self.message),
            None => format!("{}: {}", self.op, self.message),
        }
    }
}

/// One executed command: op code, begin and end in nanoseconds since the trace was switched on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    pub code: usize,
    pub begin: u64,
    pub end: u64,
}

type ReadDone = Box<dyn FnOnce(Result<Vec<u8>, Arc<Failure>>) + Send>;
type DrainDone = Box<dyn FnOnce(Result<(), Arc<Failure>>) + Send>;
type HostCall = Box<dyn FnOnce(&Ctx) + Send>;

enum Job {
    /// The next `words` words of the mailbox.
    Command {
        words: usize,
    },
    Write {
        address: usize,
        bytes: Vec<u8>,
    },
    Read {
        address: usize,
        len: usize,
        done: ReadDone,
    },
    Drain {
        done: DrainDone,
    },
    Call {
        call: HostCall,
    },
    Connect {
        line: Arc<Line>,
    },
}

#[derive(Default)]
struct Mailbox {
    jobs: Vec<Job>,
    words: Vec<f64>,
}

struct Shared {
    mailbox: Mutex<Mailbox>,
    /// True while the mailbox holds jobs: what a waiting thread looks at without taking the lock.
    filled: AtomicBool,
    asleep: AtomicBool,
    closed: AtomicBool,
    tracing: AtomicBool,
    trace: Mutex<(Instant, Vec<Span>)>,
    arena: Arena,
    /// What the running commands' messages go through.
    line: Mutex<Option<Arc<Line>>>,
}

/// What peers are told of a queue that ends too early.
const DISPOSED_WITH_MESSAGES: &str = "its queue was disposed with messages open";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Jobs run outside of every lock, so a panic cannot leave one half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the head of this file. Dropping it abandons what has not begun, and joins the thread.
pub struct Queue {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Queue {
    /// Starts a queue over `reserve_bytes` of address space with `threads` threads in all.
    pub fn new(
        ops: Vec<(&'static str, Kernel)>,
        threads: usize,
        isa: Isa,
        reserve_bytes: usize,
    ) -> Result<Queue, String> {
        let pool = Pool::try_new(threads).map_err(|why| format!("cannot start {threads} threads: {why}"))?;
        Queue::with_pool(ops, Arc::new(pool), isa, reserve_bytes)
    }

    /// As `new`, over threads that other queues may use too: their regions take turns.
    pub fn with_pool(
        ops: Vec<(&'static str, Kernel)>,
        pool: Arc<Pool>,
        isa: Isa,
        reserve_bytes: usize,
    ) -> Result<Queue, String> {
        let shared = Arc::new(Shared {
            mailbox: Mutex::default(),
            filled: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            tracing: AtomicBool::new(false),
            trace: Mutex::new((Instant::now(), Vec::new())),
            arena: Arena::reserve(reserve_bytes)?,
            line: Mutex::default(),
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("minke-queue".to_owned())
            .spawn(move || {
                let _float_mode = FloatMode::enter();
                Runner::new(&theirs, &ops, Ctx::new(&pool, isa)).run();
            })
            .map_err(|why| format!("cannot start the queue's thread: {why}"))?;
        Ok(Queue {
            shared,
            thread: Some(thread),
        })
    }

    /// Bytes of the arena.
    pub fn size(&self) -> usize {
        self.shared.arena.size()
    }

    /// Refuses bytes outside the arena.
    pub fn check_range(&self, address: usize, len: usize) -> Result<(), String> {
        self.shared.arena.range(address, len).map(|_| ())
    }

    /// Notes down one command: op code, operands (address, dtype), numbers.
    pub fn submit(&self, words: &[f64]) {
        self.push_with(|mailbox| {
            mailbox.words.extend_from_slice(words);
            mailbox.jobs.push(Job::Command { words: words.len() });
        });
    }

    /// Notes down commands one after another, each behind the number of its words.
    pub fn submit_list(&self, list: &[f64]) -> Result<(), String> {
        let commands = split(list)?;
        self.push_with(|mailbox| {
            for words in commands {
                mailbox.words.extend_from_slice(words);
                mailbox.jobs.push(Job::Command { words: words.len() });
            }
        });
        Ok(())
    }

    /// Where messages go from here on.
    pub fn connect(&self, transport: Arc<dyn Transport>) {
        let line = Arc::new(Line::new(transport));
        self.push_with(|mailbox| mailbox.jobs.push(Job::Connect { line }));
    }

    /// Copies `bytes` now, and into the arena when the queue gets there.
    pub fn write(&self, address: usize, bytes: &[u8]) -> Result<(), String> {
        self.check_range(address, bytes.len())?;
        let bytes = bytes.to_vec();
        self.push_with(|mailbox| mailbox.jobs.push(Job::Write { address, bytes }));
        Ok(())
    }

    /// Calls `done`, on the queue's thread, with a copy of the bytes as they are when the queue gets there.
    pub fn read(
        &self,
        address: usize,
        len: usize,
        done: impl FnOnce(Result<Vec<u8>, Arc<Failure>>) + Send + 'static,
    ) -> Result<(), String> {
        self.check_range(address, len)?;
        let done = Box::new(done);
        self.push_with(|mailbox| mailbox.jobs.push(Job::Read { address, len, done }));
        Ok(())
    }

    /// Calls `done`, on the queue's thread, when everything before has run.
    pub fn drain(&self, done: impl FnOnce(Result<(), Arc<Failure>>) + Send + 'static) {
        let done = Box::new(done);
        self.push_with(|mailbox| mailbox.jobs.push(Job::Drain { done }));
    }

    /// Runs `call` in order on the queue's thread, even if the queue is poisoned, with the queue's pool.
    pub fn call(&self, call: impl FnOnce(&Ctx) + Send + 'static) {
        let call = Box::new(call);
        self.push_with(|mailbox| mailbox.jobs.push(Job::Call { call }));
    }

    /// Switches the trace on (and empties it) or off.
    pub fn set_trace(&self, on: bool) {
        if on {
            *lock(&self.shared.trace) = (Instant::now(), Vec::new());
        }
        self.shared.tracing.store(on, SeqCst);
    }

    /// Spans since the last call.
    pub fn take_trace(&self) -> Vec<Span> {
        std::mem::take(&mut lock(&self.shared.trace).1)
    }

    /// Lets the thread end after the command that runs now, without waiting for it. What has not begun is
    /// abandoned: reads and drains fail with op "dispose". If messages are open, the other ranks are told, which
    /// also ends a command that waits for them.
    pub fn close(&self) {
        self.shared.closed.store(true, SeqCst);
        let line = lock(&self.shared.line).clone();
        if let Some(line) = line.filter(|line| line.is_open()) {
            line.abort(DISPOSED_WITH_MESSAGES);
        }
        self.wake();
    }

    fn push_with(&self, push: impl FnOnce(&mut Mailbox)) {
        let mut mailbox = lock(&self.shared.mailbox);
        push(&mut mailbox);
        self.shared.filled.store(true, SeqCst);
        drop(mailbox);
        if self.shared.asleep.load(SeqCst) {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

/// The commands of a list; nothing of a list that is wrong somewhere.
fn split(list: &[f64]) -> Result<Vec<&[f64]>, String> {
    let mut commands = Vec::new();
    let mut rest = list;
    while let [length, behind @ ..] = rest {
        let length = *length as usize;
        if length == 0 || length > behind.len() {
            return Err(format!(
                "command {} of the list has {length} words of {}",
                commands.len(),
                behind.len()
            ));
        }
        let (words, next) = behind.split_at(length);
        commands.push(words);
        rest = next;
    }
    Ok(commands)
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.close();
        if let Some(thread) = self.thread.take() {
            // Every job's panic is caught; a failed join would only repeat one.
            let _ = thread.join();
        }
    }
}
