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

/// Seconds: far more than any link needs, and few enough that every sum of times is a time.
const LONGEST_LATENCY: f64 = 4.0 * 3600.0;

impl Link {
    /// Refuses what no link is, by the names under which it was asked for.
    pub fn new(latency_seconds: f64, bytes_per_second: f64) -> Result<Link, String> {
        if !(0.0..=LONGEST_LATENCY).contains(&latency_seconds) {
            return Err(format!(
                "latencySeconds = {latency_seconds}: a message travels for 0 to {LONGEST_LATENCY} seconds"
            ));
        }
        // A second for each byte is slow enough.
        if bytes_per_second.is_nan() || bytes_per_second < 1.0 {
            return Err(format!(
                "bytesPerSecond = {bytes_per_second}: a link carries one byte a second at least"
            ));
        }
        Ok(Link {
            latency: Duration::from_secs_f64(latency_seconds),
            bytes_per_second,
        })
    }
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
