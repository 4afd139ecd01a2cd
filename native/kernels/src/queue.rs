//! A queue: commands run one after another on a thread of their own, which is also the first of its pool.
//!
//! `submit`, `write`, `read`, `drain` and `call` only note down what is to be done and return. The first
//! command that fails poisons the queue: later commands and writes are skipped, and every read or drain, waiting or
//! new, ends with that one failure. An idle queue sleeps.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::arena::Arena;
use crate::args::{Args, Ledger, Memory};
use crate::error::KernelError;
use crate::isa::Isa;
use crate::ops::{Ctx, Kernel};
use crate::pool::{FloatMode, Pool};

/// How long an idle queue looks for work before it sleeps.
const SPIN: Duration = Duration::from_micros(30);

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
}

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
        let shared = Arc::new(Shared {
            mailbox: Mutex::default(),
            filled: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            tracing: AtomicBool::new(false),
            trace: Mutex::new((Instant::now(), Vec::new())),
            arena: Arena::reserve(reserve_bytes)?,
        });
        let pool = Pool::try_new(threads).map_err(|why| format!("cannot start {threads} threads: {why}"))?;
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("minke-queue".to_owned())
            .spawn(move || {
                let _float_mode = FloatMode::enter();
                Runner {
                    shared: &theirs,
                    ops: &ops,
                    ctx: Ctx { pool: &pool, isa },
                    failure: None,
                    command: 0,
                    ledger: Ledger::default(),
                }
                .run();
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
    /// abandoned: reads and drains fail with op "dispose".
    pub fn close(&self) {
        self.shared.closed.store(true, SeqCst);
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

impl Drop for Queue {
    fn drop(&mut self) {
        self.close();
        if let Some(thread) = self.thread.take() {
            // Every job's panic is caught; a failed join would only repeat one.
            let _ = thread.join();
        }
    }
}

/// The queue's thread.
struct Runner<'a> {
    shared: &'a Shared,
    ops: &'a [(&'static str, Kernel)],
    ctx: Ctx<'a>,
    failure: Option<Arc<Failure>>,
    command: u64,
    ledger: Ledger,
}

impl Runner<'_> {
    fn run(mut self) {
        let mut batch = Mailbox::default();
        while !self.shared.closed.load(SeqCst) {
            if !self.wait() {
                continue;
            }
            self.take(&mut batch);
            self.run_batch(&mut batch);
        }
        // What came after closing: nothing runs any more, but nobody waits for ever.
        self.take(&mut batch);
        self.run_batch(&mut batch);
    }

    /// Spins a little, then sleeps; true if there are jobs.
    fn wait(&self) -> bool {
        let filled = || self.shared.filled.load(SeqCst);
        let closed = || self.shared.closed.load(SeqCst);
        let start = Instant::now();
        while start.elapsed() < SPIN {
            for _ in 0..64 {
                if filled() || closed() {
                    return filled();
                }
                std::hint::spin_loop();
            }
        }
        self.shared.asleep.store(true, SeqCst);
        while !filled() && !closed() {
            thread::park();
        }
        self.shared.asleep.store(false, SeqCst);
        filled()
    }

    /// Swaps the mailbox for an empty one that keeps its memory.
    fn take(&self, batch: &mut Mailbox) {
        batch.words.clear();
        let mut mailbox = lock(&self.shared.mailbox);
        std::mem::swap(&mut *mailbox, batch);
        self.shared.filled.store(false, SeqCst);
    }

    fn run_batch(&mut self, batch: &mut Mailbox) {
        let mut next = 0;
        for job in batch.jobs.drain(..) {
            if self.shared.closed.load(SeqCst) && self.failure.is_none() {
                self.failure = Some(Arc::new(disposed()));
            }
            match job {
                Job::Command { words } => {
                    self.run_command(&batch.words[next..next + words]);
                    next += words;
                }
                Job::Write { address, bytes } => self.write(address, &bytes),
                Job::Read { address, len, done } => self.settle(|runner| {
                    let result = runner.poisoned();
                    done(result.map(|()| runner.copy(address, len)));
                }),
                Job::Drain { done } => self.settle(|runner| done(runner.poisoned())),
                Job::Call { call } => self.settle(|runner| call(&runner.ctx)),
            }
        }
    }

    /// Runs a callback. It is the host's; if it panics, the queue goes on.
    fn settle(&mut self, callback: impl FnOnce(&mut Self)) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| callback(self))) {
            eprintln!("minke: a queue callback panicked: {}", panic_message(&*payload));
        }
    }

    fn poisoned(&self) -> Result<(), Arc<Failure>> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn run_command(&mut self, words: &[f64]) {
        let command = self.command;
        self.command += 1;
        if self.failure.is_some() {
            return;
        }
        let code = words.first().map_or(usize::MAX, |code| *code as usize);
        let tracing = self.shared.tracing.load(SeqCst);
        let begin = tracing.then(Instant::now);
        let result = match self.ops.get(code) {
            Some((_, kernel)) => self.run_kernel(*kernel, &words[1..]),
            None => Err(KernelError::command("there is no op with this code")),
        };
        if let Some(begin) = begin {
            self.note_span(code, begin);
        }
        if let Err(KernelError { param, message }) = result {
            let op = self
                .ops
                .get(code)
                .map_or_else(|| format!("#{code}"), |(name, _)| (*name).to_owned());
            self.failure = Some(Arc::new(Failure {
                op,
                param,
                message,
                command,
                words: words.to_vec(),
            }));
        }
    }

    fn run_kernel(&self, kernel: Kernel, words: &[f64]) -> Result<(), KernelError> {
        let arena = &self.shared.arena;
        // SAFETY: the arena lives as long as the queue, and only this thread's commands touch it.
        let memory = unsafe { Memory::from_raw(arena.base(), arena.size()) };
        let mut args = Args::new(&memory, words, &self.ledger);
        catch_unwind(AssertUnwindSafe(|| kernel(&self.ctx, &mut args))).unwrap_or_else(|payload| {
            Err(KernelError::command(format!(
                "panicked: {}",
                panic_message(&*payload)
            )))
        })
    }

    fn note_span(&self, code: usize, begin: Instant) {
        let mut trace = lock(&self.shared.trace);
        let since = |at: Instant| at.saturating_duration_since(trace.0).as_nanos() as u64;
        let span = Span {
            code,
            begin: since(begin),
            end: since(Instant::now()),
        };
        trace.1.push(span);
    }

    fn write(&self, address: usize, bytes: &[u8]) {
        if self.failure.is_some() {
            return;
        }
        if let Ok(to) = self.shared.arena.range(address, bytes.len()) {
            // SAFETY: inside the arena; no command runs now.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        }
    }

    fn copy(&self, address: usize, len: usize) -> Vec<u8> {
        match self.shared.arena.range(address, len) {
            // SAFETY: inside the arena (checked when the read was noted down); no command runs now.
            Ok(from) => unsafe { std::slice::from_raw_parts(from, len).to_vec() },
            Err(_) => Vec::new(),
        }
    }
}

fn disposed() -> Failure {
    Failure {
        op: "dispose".to_owned(),
        param: None,
        message: "the queue was disposed before this ran".to_owned(),
        command: 0,
        words: Vec::new(),
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// y += alpha over n numbers, on the pool.
    fn shift(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
        let y = a.f32s("y")?;
        let (n, alpha) = (a.usize("n")?, a.f32("alpha")?);
        a.end()?;
        let y = crate::pool::Disjoint::new(y.f32s_mut(n)?);
        ctx.pool.run(n, &|i, _| {
            // SAFETY: one element a task.
            unsafe { y.part(i, 1)[0] += alpha };
        });
        Ok(())
    }

    fn explode(ctx: &Ctx, _: &mut Args) -> Result<(), KernelError> {
        ctx.pool.run(4, &|i, _| assert!(i != 2, "task {i} gives up"));
        Ok(())
    }

    fn slow(_: &Ctx, _: &mut Args) -> Result<(), KernelError> {
        thread::sleep(Duration::from_millis(30));
        Ok(())
    }

    fn queue() -> Queue {
        let ops: Vec<(&'static str, Kernel)> = vec![("shift", shift), ("explode", explode), ("slow", slow)];
        Queue::new(ops, 2, Isa::detect(), 1 << 30).unwrap()
    }

    fn read(queue: &Queue, address: usize, len: usize) -> Result<Vec<u8>, Arc<Failure>> {
        let (sender, receiver) = mpsc::channel();
        queue
            .read(address, len, move |result| sender.send(result).unwrap())
            .unwrap();
        receiver.recv().unwrap()
    }

    fn drain(queue: &Queue) -> Result<(), Arc<Failure>> {
        let (sender, receiver) = mpsc::channel();
        queue.drain(move |result| sender.send(result).unwrap());
        receiver.recv().unwrap()
    }

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    }

    #[test]
    fn writes_commands_and_reads_happen_in_the_order_of_their_submission() {
        let queue = queue();
        let mut bytes = 1.0f32.to_le_bytes().repeat(3);
        queue.write(64, &bytes).unwrap();
        bytes.fill(255);
        queue.submit(&[0.0, 64.0, 0.0, 3.0, 2.0]);
        let (sender, receiver) = mpsc::channel();
        queue
            .read(64, 12, move |result| sender.send(result).unwrap())
            .unwrap();
        queue.submit(&[0.0, 64.0, 0.0, 2.0, 0.5]);
        assert_eq!(floats(&receiver.recv().unwrap().unwrap()), [3.0, 3.0, 3.0]);
        assert_eq!(floats(&read(&queue, 64, 12).unwrap()), [3.5, 3.5, 3.0]);
    }

    #[test]
    fn the_first_failure_poisons_the_queue_and_reaches_every_waiter() {
        let queue = queue();
        queue.write(0, &1.0f32.to_le_bytes()).unwrap();
        queue.submit(&[0.0, 0.0, 0.0, 1.0, 1.0]);
        assert!(drain(&queue).is_ok());
        queue.submit(&[0.0, 0.0, 0.0, 4e9, 1.0]);
        queue.submit(&[1.0]);
        let failure = read(&queue, 0, 4).unwrap_err();
        assert_eq!(
            (failure.op.as_str(), failure.param, failure.command),
            ("shift", Some("y"), 1)
        );
        assert_eq!(failure.words, [0.0, 0.0, 0.0, 4e9, 1.0]);
        assert_eq!(drain(&queue).unwrap_err(), failure);
    }

    #[test]
    fn a_panic_in_a_task_becomes_the_failure_of_its_command() {
        let queue = queue();
        queue.submit(&[1.0]);
        let failure = drain(&queue).unwrap_err();
        assert_eq!(failure.op, "explode");
        assert_eq!(failure.message, "panicked: task 2 gives up");
    }

    #[test]
    fn an_unknown_op_code_is_a_failure_that_names_it() {
        for word in [7.0, f64::NAN, -3.0] {
            let queue = queue();
            queue.submit(&[word, 1.0]);
            let result = drain(&queue);
            if word == 7.0 {
                assert_eq!(result.unwrap_err().op, "#7");
            } else {
                // NaN and negatives convert to code 0, whose arguments are then short.
                assert_eq!(result.unwrap_err().op, "shift");
            }
        }
    }

    #[test]
    fn ranges_outside_the_arena_are_refused_at_once() {
        let queue = queue();
        assert!(queue.write((1 << 30) - 2, &[0; 4]).is_err());
        assert!(queue.read(1 << 30, 1, |_| ()).is_err());
        assert!(drain(&queue).is_ok());
    }

    #[test]
    fn submitting_never_waits_for_the_work() {
        let queue = queue();
        let start = Instant::now();
        queue.submit(&[2.0]);
        queue.submit(&[2.0]);
        assert!(start.elapsed() < Duration::from_millis(20));
        assert!(drain(&queue).is_ok());
        assert!(start.elapsed() >= Duration::from_millis(60));
    }

    #[test]
    fn dropping_a_busy_queue_ends_it_soon_and_rejects_who_waits() {
        let queue = queue();
        for _ in 0..100 {
            queue.submit(&[2.0]);
        }
        let (sender, receiver) = mpsc::channel();
        queue.drain(move |result| sender.send(result).unwrap());
        let start = Instant::now();
        drop(queue);
        assert!(start.elapsed() < Duration::from_millis(1000));
        assert_eq!(receiver.recv().unwrap().unwrap_err().op, "dispose");
    }

    #[test]
    fn calls_run_in_order_with_the_queues_own_pool_even_when_poisoned() {
        let queue = queue();
        queue.submit(&[1.0]);
        let (sender, receiver) = mpsc::channel();
        queue.call(move |ctx| sender.send(ctx.pool.threads()).unwrap());
        assert_eq!(receiver.recv().unwrap(), 2);
    }

    #[test]
    fn the_trace_holds_one_span_a_command_while_it_is_on() {
        let queue = queue();
        queue.submit(&[2.0]);
        assert!(drain(&queue).is_ok());
        queue.set_trace(true);
        queue.submit(&[2.0]);
        queue.submit(&[0.0, 0.0, 0.0, 8.0, 1.0]);
        assert!(drain(&queue).is_ok());
        queue.set_trace(false);
        queue.submit(&[2.0]);
        assert!(drain(&queue).is_ok());
        let spans = queue.take_trace();
        assert_eq!(spans.iter().map(|span| span.code).collect::<Vec<_>>(), [2, 0]);
        assert!(spans[0].end - spans[0].begin >= 30_000_000 && spans[1].begin >= spans[0].end);
        assert!(queue.take_trace().is_empty());
    }

    #[test]
    fn several_queues_live_side_by_side() {
        let queues: Vec<Queue> = (0..4).map(|_| queue()).collect();
        for (i, queue) in queues.iter().enumerate() {
            queue.write(0, &(i as f32).to_le_bytes()).unwrap();
            queue.submit(&[0.0, 0.0, 0.0, 1.0, 10.0]);
        }
        for (i, queue) in queues.iter().enumerate() {
            assert_eq!(floats(&read(queue, 0, 4).unwrap()), [i as f32 + 10.0]);
        }
    }

    #[test]
    fn an_idle_queue_uses_no_processor_time() {
        let queue = queue();
        queue.submit(&[0.0, 0.0, 0.0, 64.0, 1.0]);
        assert!(drain(&queue).is_ok());
        thread::sleep(Duration::from_millis(20));
        assert!(queue.shared.asleep.load(SeqCst), "the queue's thread sleeps");
    }
}
