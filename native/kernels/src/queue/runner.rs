//! The queue's thread: takes batches of jobs out of the mailbox and runs them in order.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use super::{DISPOSED_WITH_MESSAGES, Failure, Job, Mailbox, Shared, Span, lock};
use crate::args::{Args, Ledger, Memory};
use crate::error::KernelError;
use crate::message::{self, Line};
use crate::ops::{Ctx, Kernel};

/// How long an idle queue looks for work before it sleeps.
const SPIN: Duration = Duration::from_micros(30);

/// The queue's thread.
pub(super) struct Runner<'a> {
    shared: &'a Shared,
    ops: &'a [(&'static str, Kernel)],
    ctx: Ctx<'a>,
    failure: Option<Arc<Failure>>,
    command: u64,
    ledger: Ledger,
    /// A message that peers may count on was skipped because the queue was disposed.
    abandoned_message: bool,
}

impl<'a> Runner<'a> {
    pub(super) fn new(shared: &'a Shared, ops: &'a [(&'static str, Kernel)], ctx: Ctx<'a>) -> Runner<'a> {
        Runner {
            shared,
            ops,
            ctx,
            failure: None,
            command: 0,
            ledger: Ledger::default(),
            abandoned_message: false,
        }
    }

    /// Returns when the queue is closed.
    pub(super) fn run(mut self) {
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
        if let Some(line) = &self.ctx.transport
            && (line.is_open() || self.abandoned_message)
        {
            line.abort(DISPOSED_WITH_MESSAGES);
        }
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
                Job::Connect { line } => self.connect(line),
            }
        }
    }

    /// Runs a callback. It is the host's; if it panics, the queue goes on.
    fn settle(&mut self, callback: impl FnOnce(&mut Self)) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| callback(self))) {
            eprintln!("minke: a queue callback panicked: {}", panic_message(&*payload));
        }
    }

    fn connect(&mut self, line: Arc<Line>) {
        *lock(&self.shared.line) = Some(Arc::clone(&line));
        if let Some(failure) = self.failure.as_ref().filter(|_| !self.shared.closed.load(SeqCst)) {
            line.fail(&failure.text());
        }
        self.ctx.transport = Some(line);
    }

    fn poisoned(&self) -> Result<(), Arc<Failure>> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn run_command(&mut self, words: &[f64]) {
        let command = self.command;
        self.command += 1;
        let code = words.first().map_or(usize::MAX, |code| *code as usize);
        if self.failure.is_some() {
            let is_message = |(name, _): &(&str, Kernel)| message::OPS.iter().any(|(one, _)| one == name);
            self.abandoned_message |= self.ops.get(code).is_some_and(is_message);
            return;
        }
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
            self.poison(Failure {
                op,
                param,
                message,
                command,
                words: words.to_vec(),
            });
        }
    }

    /// Skips what follows, and tells the ranks that may wait for it. What fails while the queue is being disposed
    /// is no failure of its own; whether peers are told then is decided when all is abandoned.
    fn poison(&mut self, failure: Failure) {
        if self.shared.closed.load(SeqCst) {
            self.failure = Some(Arc::new(disposed()));
            return;
        }
        if let Some(line) = &self.ctx.transport {
            line.fail(&failure.text());
        }
        self.failure = Some(Arc::new(failure));
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
