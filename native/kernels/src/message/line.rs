//! What a queue knows of its transport: whether messages are open, so that peers can be told when it ends.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Transport;

/// A queue's connection to other ranks.
pub struct Line {
    transport: Arc<dyn Transport>,
    /// Tickets that were posted and whose wait has not ended.
    open: Mutex<HashSet<u64>>,
}

impl Line {
    pub fn new(transport: Arc<dyn Transport>) -> Line {
        Line {
            transport,
            open: Mutex::default(),
        }
    }

    pub fn is_open(&self) -> bool {
        !self.open().is_empty()
    }

    /// # Safety
    /// As `Transport::post_send`.
    pub unsafe fn post_send(
        &self,
        ticket: u64,
        peer: u32,
        tag: u32,
        bytes: *const u8,
        len: usize,
    ) -> Result<(), String> {
        self.open().insert(ticket);
        // SAFETY: the caller's promise.
        unsafe { self.transport.post_send(ticket, peer, tag, bytes, len) }
    }

    /// # Safety
    /// As `Transport::post_receive`.
    pub unsafe fn post_receive(
        &self,
        ticket: u64,
        peer: u32,
        tag: u32,
        bytes: *mut u8,
        len: usize,
    ) -> Result<(), String> {
        self.open().insert(ticket);
        // SAFETY: the caller's promise.
        unsafe { self.transport.post_receive(ticket, peer, tag, bytes, len) }
    }

    pub fn wait(&self, ticket: u64) -> Result<(), String> {
        self.transport.wait(ticket)?;
        self.open().remove(&ticket);
        Ok(())
    }

    pub fn fail(&self, why: &str) {
        self.transport.fail(why);
    }

    pub fn abort(&self, why: &str) {
        self.transport.abort(why);
    }

    fn open(&self) -> MutexGuard<'_, HashSet<u64>> {
        // One insertion or removal at a time: a panic cannot leave the set half changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
