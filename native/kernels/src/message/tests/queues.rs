//! Messages as commands of queues.

use std::sync::{Arc, mpsc};

use super::table::{Loop, foreign, table};
use super::*;
use crate::isa::Isa;
use crate::ops;
use crate::pool::Pool;
use crate::queue::{Failure, Queue};

const F32: f64 = 0.0;
const I32: f64 = 3.0;

/// Queues over one pool and one hub.
fn queues(ranks: usize, timeout: Duration) -> Vec<Queue> {
    let pool = Arc::new(Pool::new(2));
    endpoints(ranks, timeout)
        .into_iter()
        .map(|endpoint| {
            let queue = Queue::with_pool(ops::table(), Arc::clone(&pool), Isa::detect(), 1 << 30).unwrap();
            queue.connect(Arc::new(endpoint));
            queue
        })
        .collect()
}

fn code(name: &str) -> f64 {
    ops::table().iter().position(|(op, _)| *op == name).unwrap() as f64
}

/// `operands`: addresses of x or y and of the offsets; `numbers`: ticket, peer, tag, rows, width, begin, end.
fn post(queue: &Queue, name: &str, address: usize, offsets: Option<usize>, numbers: [f64; 7]) {
    let offsets = offsets.map_or([-1.0, 0.0], |address| [address as f64, I32]);
    queue.submit(&[&[code(name), address as f64, F32][..], &offsets, &numbers].concat());
}

/// Two floats at address 0, to or from a peer.
fn post_pair(queue: &Queue, name: &str, peer: u32) {
    post(
        queue,
        name,
        0,
        None,
        [0.0, f64::from(peer), 0.0, 1.0, 2.0, 0.0, 1.0],
    );
}

fn wait(queue: &Queue, ticket: usize) {
    queue.submit(&[code("awaitMessages"), ticket as f64]);
}

fn words(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn read(queue: &Queue, address: usize, len: usize) -> Result<Vec<u8>, Arc<Failure>> {
    let (sender, receiver) = mpsc::channel();
    queue
        .read(address, len, move |result| sender.send(result).unwrap())
        .unwrap();
    receiver.recv().unwrap()
}

#[test]
fn rows_between_two_offsets_travel_and_land_where_the_receivers_offsets_say() {
    let queues = queues(2, LONG);
    queues[0].write(0, &words(&[10, 11, 20, 21, 30, 31])).unwrap();
    queues[0].write(1024, &words(&[0, 1, 3])).unwrap();
    queues[1].write(1024, &words(&[2, 4])).unwrap();
    queues[1].write(0, &words(&[7; 8])).unwrap();
    // Rows 1 and 2 of three become rows 2 and 3 of four.
    post(
        &queues[1],
        "postReceive",
        0,
        Some(1024),
        [0.0, 0.0, 1.0, 4.0, 2.0, 0.0, 1.0],
    );
    post(
        &queues[0],
        "postSend",
        0,
        Some(1024),
        [0.0, 1.0, 1.0, 3.0, 2.0, 1.0, 2.0],
    );
    wait(&queues[0], 0);
    wait(&queues[1], 0);
    let found = read(&queues[1], 0, 32).unwrap();
    assert_eq!(found, words(&[7, 7, 7, 7, 20, 21, 30, 31]));
}

#[test]
fn offsets_that_are_no_range_of_the_rows_are_refused() {
    for (entries, message) in [
        ([0, 5], "rows 0 to 5 are no range of 3 rows"),
        ([2, 1], "rows 2 to 1 are no range of 3 rows"),
        ([-1, 1], "rows -1 to 1 are no range of 3 rows"),
    ] {
        let queues = queues(1, LONG);
        queues[0].write(1024, &words(&entries)).unwrap();
        post(
            &queues[0],
            "postSend",
            0,
            Some(1024),
            [0.0, 0.0, 0.0, 3.0, 2.0, 0.0, 1.0],
        );
        let failure = read(&queues[0], 0, 4).unwrap_err();
        assert_eq!(
            (failure.op.as_str(), failure.message.as_str()),
            ("postSend", message)
        );
    }
}

#[test]
fn one_queue_waits_while_another_of_the_same_pool_computes() {
    let queues = queues(2, LONG);
    post_pair(&queues[1], "postReceive", 0);
    wait(&queues[1], 0);
    let n = 1_000_000;
    for round in 0..20 {
        queues[0].submit(&[code("fill"), 0.0, F32, f64::from(n), f64::from(round)]);
    }
    assert_eq!(read(&queues[0], 0, 4).unwrap(), 19f32.to_le_bytes());
    post_pair(&queues[0], "postSend", 1);
    wait(&queues[0], 0);
    assert_eq!(read(&queues[1], 0, 8).unwrap(), 19f32.to_le_bytes().repeat(2));
}

#[test]
fn a_queue_without_a_connection_says_so() {
    let queue = Queue::new(ops::table(), 1, Isa::detect(), 1 << 20).unwrap();
    wait(&queue, 0);
    let failure = read(&queue, 0, 4).unwrap_err();
    assert_eq!(
        failure.text(),
        "awaitMessages: the queue is not connected to other ranks"
    );
}

#[test]
fn a_poisoned_queue_ends_the_waits_of_the_others_with_its_reason() {
    let queues = queues(3, LONG);
    post_pair(&queues[1], "postReceive", 0);
    wait(&queues[1], 0);
    queues[0].submit(&[code("fill"), 0.0, F32, f64::from(1 << 30), 0.0]);
    let own = read(&queues[0], 0, 4).unwrap_err();
    let echo = read(&queues[1], 0, 4).unwrap_err();
    assert_eq!(own.op, "fill");
    // Rank 1 posts before or after the failure, and is told either way.
    assert_eq!(echo.message, format!("rank 0 failed: {}", own.text()));
    // A rank that comes later meets the same.
    post_pair(&queues[2], "postSend", 0);
    assert_eq!(read(&queues[2], 0, 4).unwrap_err().message, echo.message);
}

#[test]
fn disposing_a_queue_ends_its_own_wait_and_tells_the_others() {
    let mut queues = queues(2, LONG);
    let started = Instant::now();
    post_pair(&queues[0], "postReceive", 1);
    wait(&queues[0], 0);
    post_pair(&queues[1], "postReceive", 0);
    wait(&queues[1], 0);
    thread::sleep(Duration::from_millis(20));
    let (sender, receiver) = mpsc::channel();
    queues[0].drain(move |result| sender.send(result).unwrap());
    drop(queues.remove(0));
    assert_eq!(receiver.recv().unwrap().unwrap_err().op, "dispose");
    let failure = read(&queues[0], 0, 4).unwrap_err();
    assert_eq!(
        failure.message,
        "rank 0 failed: its queue was disposed with messages open"
    );
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_message_that_was_abandoned_in_the_queue_counts_as_open() {
    let mut queues = queues(2, LONG);
    // The wait ends by the disposal; what is enqueued behind it never begins.
    let busy = f64::from(50_000_000);
    for round in 0..4 {
        queues[0].submit(&[code("fill"), 0.0, F32, busy, f64::from(round)]);
    }
    post_pair(&queues[0], "postSend", 1);
    post_pair(&queues[1], "postReceive", 0);
    wait(&queues[1], 0);
    drop(queues.remove(0));
    let failure = read(&queues[0], 0, 4).unwrap_err();
    assert_eq!(
        failure.message,
        "rank 0 failed: its queue was disposed with messages open"
    );
}

#[test]
fn a_queue_whose_messages_are_done_leaves_in_silence() {
    let mut queues = queues(2, LONG);
    post_pair(&queues[0], "postSend", 1);
    wait(&queues[0], 0);
    read(&queues[0], 0, 4).unwrap();
    drop(queues.remove(0));
    post_pair(&queues[0], "postReceive", 0);
    wait(&queues[0], 0);
    read(&queues[0], 0, 4).unwrap();
}

#[test]
fn a_foreign_transport_is_told_of_a_failure_and_of_memory_that_goes_with_messages_open() {
    let ctx = Loop::default();
    let table = table(&ctx);
    let queue = Queue::new(ops::table(), 1, Isa::detect(), 1 << 20).unwrap();
    queue.connect(Arc::new(foreign(&table).unwrap()));
    queue.submit(&[code("fill"), 0.0, F32, f64::from(1 << 30), 0.0]);
    let failure = read(&queue, 0, 4).unwrap_err();
    assert_eq!(*ctx.told.lock().unwrap(), [failure.text()]);
    drop(queue);
    // No message was open: nothing of the queue's memory is the transport's.
    assert!(ctx.aborted.lock().unwrap().is_empty());

    let queue = Queue::new(ops::table(), 1, Isa::detect(), 1 << 20).unwrap();
    queue.connect(Arc::new(foreign(&table).unwrap()));
    post_pair(&queue, "postSend", 0);
    queue.submit(&[code("fill"), 0.0, F32, f64::from(1 << 30), 0.0]);
    read(&queue, 0, 4).unwrap_err();
    assert_eq!(ctx.told.lock().unwrap().len(), 2);
    drop(queue);
    assert!(!ctx.aborted.lock().unwrap().is_empty());
}
