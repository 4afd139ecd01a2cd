//! How long a message travels, where it is not the machine's memory that carries it but a link that is to be imitated.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// One wire from each rank to each other one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    pub latency: Duration,
    pub bytes_per_second: f64,
}

/// When the wires are free again: a wire carries one message after another.
#[derive(Default)]
pub struct Wires {
    free: HashMap<(u32, u32), Instant>,
}

impl Wires {
    /// When a message that is sent now will be there. One to oneself needs no wire.
    pub fn arrival(
        &mut self,
        link: Link,
        (sender, receiver): (u32, u32),
        len: usize,
        now: Instant,
    ) -> Instant {
        if sender == receiver {
            return now;
        }
        let free = self.free.entry((sender, receiver)).or_insert(now);
        *free = now.max(*free) + Duration::from_secs_f64(len as f64 / link.bytes_per_second);
        *free + link.latency
    }
}
