//! Messages between queues of one process: mailboxes under one lock, a sleeping place for each rank.
//!
//! A message is copied when it is posted and once more when it is awaited, both outside of the lock, so that sending
//! never waits and no rank touches another's memory. Its twin in TypeScript is backend/reference/hub.ts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Transport;
use super::link::{Link, Wires};

/// Messages of one sender, receiver and tag: the n-th that is sent goes to the n-th that is posted.
#[derive(Default)]
struct Channel {
    sent: u64,
    posted: u64,
    arrived: HashMap<u64, Message>,
}

struct Message {
    bytes: Vec<u8>,
    /// When a link would have delivered it.
    due: Instant,
}

#[derive(Default)]
struct State {
    wires: Wires,
    channels: HashMap<(u32, u32, u32), Channel>,
    failure: Option<String>,
}

/// See the head of this file.
pub struct Hub {
    timeout: Duration,
    /// What is imitated; messages are there at once without one.
    link: Option<Link>,
    state: Mutex<State>,
    /// Where each rank sleeps.
    arrivals: Vec<Condvar>,
}

impl Hub {
    /// For ranks `0..ranks`; `timeout` is how long a wait for one ticket may take. With a link messages take as long
    /// as it would need.
    pub fn new(ranks: usize, timeout: Duration, link: Option<Link>) -> Arc<Hub> {
        Arc::new(Hub {
            timeout,
            link,
            state: Mutex::default(),
            arrivals: (0..ranks).map(|_| Condvar::new()).collect(),
        })
    }

    pub fn ranks(&self) -> usize {
        self.arrivals.len()
    }

    /// What the queue of one rank is connected to.
    pub fn endpoint(self: &Arc<Hub>, rank: u32) -> Result<Endpoint, String> {
        if rank as usize >= self.ranks() {
            return Err(format!("there is no rank {rank}: {}", self.known()));
        }
        Ok(Endpoint {
            hub: Arc::clone(self),
            rank,
            is_taken: AtomicBool::new(false),
            receives: Mutex::default(),
        })
    }

    fn known(&self) -> String {
        match self.ranks() {
            1 => "there is rank 0 alone".to_owned(),
            ranks => format!("there are ranks 0 to {}", ranks - 1),
        }
    }

    /// The state, unless a rank has failed or there is no such peer.
    fn open(&self, rank: u32, verb: &str, peer: u32) -> Result<MutexGuard<'_, State>, String> {
        let state = lock(&self.state);
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        if peer as usize >= self.ranks() {
            return Err(format!("rank {rank} {verb} rank {peer}: {}", self.known()));
        }
        Ok(state)
    }

    /// Sleeps until the message is there.
    fn arrival(
        &self,
        receiver: u32,
        receive: &Receive,
        deadline: Option<Instant>,
    ) -> Result<Vec<u8>, String> {
        let Receive { peer, tag, index, .. } = *receive;
        let mut state = lock(&self.state);
        loop {
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            let channel = state.channels.entry((peer, receiver, tag)).or_default();
            let now = Instant::now();
            let due = channel.arrived.get(&index).map(|message| message.due);
            if due.is_some_and(|due| due <= now)
                && let Some(message) = channel.arrived.remove(&index)
            {
                return Ok(message.bytes);
            }
            let until = |at: Instant| at.saturating_duration_since(now);
            let left = deadline.map_or(Duration::MAX, until);
            if left.is_zero() {
                return Err(format!(
                    "rank {receiver} waited {} s for a message of rank {peer} (tag {tag})",
                    self.timeout.as_secs_f64()
                ));
            }
            state = self.arrivals[receiver as usize]
                .wait_timeout(state, due.map_or(left, |due| left.min(until(due))))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

struct Receive {
    peer: u32,
    tag: u32,
    index: u64,
    target: *mut u8,
    len: usize,
}

// SAFETY: the target is written by the thread that posted it only, which is its queue's.
unsafe impl Send for Receive {}

/// One rank of a hub.
pub struct Endpoint {
    hub: Arc<Hub>,
    rank: u32,
    is_taken: AtomicBool,
    /// Posted and not yet awaited, by tickets.
    receives: Mutex<HashMap<u64, Vec<Receive>>>,
}

impl Endpoint {
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// For the queue that is to be connected: two with one endpoint would take each other's messages.
    pub fn take(&self) -> Result<(), String> {
        match self.is_taken.swap(true, SeqCst) {
            false => Ok(()),
            true => Err(format!(
                "the endpoint of rank {} is connected to a queue already",
                self.rank
            )),
        }
    }
}

impl Transport for Endpoint {
    unsafe fn post_send(
        &self,
        _ticket: u64,
        peer: u32,
        tag: u32,
        bytes: *const u8,
        len: usize,
    ) -> Result<(), String> {
        // SAFETY: the caller's promise; an address of nothing may be any.
        let message = if len == 0 {
            Vec::new()
        } else {
            unsafe { std::slice::from_raw_parts(bytes, len) }.to_vec()
        };
        let mut state = self.hub.open(self.rank, "sends to", peer)?;
        let now = Instant::now();
        let State { wires, channels, .. } = &mut *state;
        let due = self
            .hub
            .link
            .map_or(now, |link| wires.arrival(link, (self.rank, peer), len, now));
        let channel = channels.entry((self.rank, peer, tag)).or_default();
        let bytes = message;
        channel.arrived.insert(channel.sent, Message { bytes, due });
        channel.sent += 1;
        drop(state);
        self.hub.arrivals[peer as usize].notify_all();
        Ok(())
    }

    unsafe fn post_receive(
        &self,
        ticket: u64,
        peer: u32,
        tag: u32,
        target: *mut u8,
        len: usize,
    ) -> Result<(), String> {
        let mut state = self.hub.open(self.rank, "receives from", peer)?;
        let channel = state.channels.entry((peer, self.rank, tag)).or_default();
        let index = channel.posted;
        channel.posted += 1;
        drop(state);
        let receive = Receive {
            peer,
            tag,
            index,
            target,
            len,
        };
        lock(&self.receives).entry(ticket).or_default().push(receive);
        Ok(())
    }

    fn wait(&self, ticket: u64) -> Result<(), String> {
        if let Some(failure) = &lock(&self.hub.state).failure {
            return Err(failure.clone());
        }
        let deadline = Instant::now().checked_add(self.hub.timeout);
        let receives = lock(&self.receives).remove(&ticket).unwrap_or_default();
        for receive in receives {
            let message = self.hub.arrival(self.rank, &receive, deadline)?;
            let Receive {
                peer,
                tag,
                target,
                len,
                ..
            } = receive;
            if message.len() != len {
                return Err(format!(
                    "rank {} got {} bytes from rank {peer} (tag {tag}) where {len} were awaited",
                    self.rank,
                    message.len()
                ));
            }
            // SAFETY: the promise of `post_receive`; the message is ours.
            unsafe { std::ptr::copy_nonoverlapping(message.as_ptr(), target, len) };
        }
        Ok(())
    }

    fn abort(&self, why: &str) {
        let mut state = lock(&self.hub.state);
        if state.failure.is_none() {
            state.failure = Some(format!("rank {} failed: {why}", self.rank));
        }
        drop(state);
        for arrival in &self.hub.arrivals {
            arrival.notify_all();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here panics between two changes that belong together.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
