use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{Hub, Transport};
use super::{Link, Wires};

const LINK: Link = Link {
    latency: Duration::from_millis(5),
    bytes_per_second: 1000.0,
};

fn send(from: &impl Transport, peer: u32, bytes: &[u8]) {
    // SAFETY: a hub copies the bytes at once.
    unsafe { from.post_send(0, peer, 0, bytes.as_ptr(), bytes.len()) }.unwrap();
}

fn receive(at: &impl Transport, peer: u32, bytes: &mut [u8]) {
    // SAFETY: nobody touches the bytes before the wait.
    unsafe { at.post_receive(0, peer, 0, bytes.as_mut_ptr(), bytes.len()) }.unwrap();
    at.wait(0).unwrap();
}

#[test]
fn a_wire_carries_one_message_after_another() {
    let (mut wires, now) = (Wires::default(), Instant::now());
    let at = |milliseconds| now + Duration::from_millis(milliseconds);
    assert_eq!(wires.arrival(LINK, (0, 1), 10, now), at(15));
    assert_eq!(wires.arrival(LINK, (0, 1), 20, now), at(35));
    // Another wire is free, and so is the first one when all is through.
    assert_eq!(wires.arrival(LINK, (1, 0), 10, now), at(15));
    assert_eq!(wires.arrival(LINK, (0, 1), 10, at(100)), at(115));
}

#[test]
fn a_message_to_oneself_needs_no_wire() {
    let now = Instant::now();
    assert_eq!(Wires::default().arrival(LINK, (2, 2), 1000, now), now);
}

#[test]
fn a_message_over_a_slow_link_is_there_when_its_time_has_come() {
    let hub = Hub::new(2, Duration::from_secs(10), Some(LINK));
    let (sender, receiver) = (hub.endpoint(0).unwrap(), hub.endpoint(1).unwrap());
    let begin = Instant::now();
    send(&sender, 1, &[7; 30]);
    assert!(
        begin.elapsed() < Duration::from_millis(35),
        "sending does not wait"
    );
    let mut bytes = [0; 30];
    receive(&receiver, 0, &mut bytes);
    assert_eq!(bytes, [7; 30]);
    assert!(begin.elapsed() >= Duration::from_millis(35));
}

#[test]
fn a_wait_over_a_slow_link_ends_at_its_time_out() {
    let hub: Arc<Hub> = Hub::new(2, Duration::from_millis(1), Some(LINK));
    let (sender, receiver) = (hub.endpoint(0).unwrap(), hub.endpoint(1).unwrap());
    send(&sender, 1, &[7; 1000]);
    let mut bytes = [0; 1000];
    // SAFETY: as in `receive`.
    unsafe { receiver.post_receive(0, 0, 0, bytes.as_mut_ptr(), bytes.len()) }.unwrap();
    let why = receiver.wait(0).unwrap_err();
    assert!(why.contains("waited 0.001 s for a message of rank 0"), "{why}");
}

#[test]
fn what_is_no_link_is_refused_by_name() {
    let refused = |latency, bytes| Link::new(latency, bytes).unwrap_err();
    for latency in [-1.0, f64::NAN, f64::INFINITY, 14_401.0, 1e300] {
        assert_eq!(
            refused(latency, 1.0),
            format!("latencySeconds = {latency}: a message travels for 0 to 14400 seconds")
        );
    }
    for bytes in [0.0, 0.5, -3.0, f64::NAN] {
        assert_eq!(
            refused(0.0, bytes),
            format!("bytesPerSecond = {bytes}: a link carries one byte a second at least")
        );
    }
    // The slowest that is allowed still gives times.
    let slowest = Link::new(14_400.0, 1.0).unwrap();
    let now = Instant::now();
    assert!(Wires::default().arrival(slowest, (0, 1), 1 << 40, now) > now);
    assert_eq!(Link::new(0.005, 1000.0).unwrap(), LINK);
}
