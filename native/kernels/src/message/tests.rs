//! The hub alone, a C table, and both under queues.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::foreign::{Table, VERSION};
use super::*;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

fn endpoints(ranks: usize, timeout: Duration) -> Vec<Endpoint> {
    let hub = Hub::new(ranks, timeout);
    (0..ranks as u32)
        .map(|rank| hub.endpoint(rank).unwrap())
        .collect()
}

fn send(from: &Endpoint, to: u32, tag: u32, bytes: &[u8]) -> Result<(), String> {
    // SAFETY: the hub copies at once.
    unsafe { from.post_send(0, to, tag, bytes.as_ptr(), bytes.len()) }
}

fn receive(at: &Endpoint, ticket: u64, from: u32, tag: u32, target: &mut [u8]) -> Result<(), String> {
    // SAFETY: every test keeps the target until it has waited, or never waits.
    unsafe { at.post_receive(ticket, from, tag, target.as_mut_ptr(), target.len()) }
}

#[test]
fn messages_of_one_tag_arrive_in_the_order_of_their_posts_whichever_ticket_is_awaited_first() {
    let ranks = endpoints(2, LONG);
    let (mut first, mut second, mut other) = ([0; 2], [0; 3], [0; 1]);
    receive(&ranks[1], 1, 0, 7, &mut first).unwrap();
    receive(&ranks[1], 2, 0, 7, &mut second).unwrap();
    receive(&ranks[1], 3, 0, 8, &mut other).unwrap();
    send(&ranks[0], 1, 8, &[9]).unwrap();
    send(&ranks[0], 1, 7, &[1, 2]).unwrap();
    send(&ranks[0], 1, 7, &[3, 4, 5]).unwrap();
    for ticket in [2, 3, 1] {
        ranks[1].wait(ticket).unwrap();
    }
    assert_eq!((first, second, other), ([1, 2], [3, 4, 5], [9]));
}

#[test]
fn a_ticket_is_free_again_after_its_wait_and_one_without_posts_is_done() {
    let ranks = endpoints(1, LONG);
    ranks[0].wait(5).unwrap();
    let mut target = [0; 1];
    for round in 0..3 {
        receive(&ranks[0], 5, 0, 0, &mut target).unwrap();
        send(&ranks[0], 0, 0, &[round]).unwrap();
        ranks[0].wait(5).unwrap();
        assert_eq!(target, [round]);
    }
}

#[test]
fn a_message_of_no_bytes_is_a_message() {
    let ranks = endpoints(2, SHORT);
    let mut target = [0; 1];
    receive(&ranks[1], 0, 0, 0, &mut []).unwrap();
    receive(&ranks[1], 1, 0, 0, &mut target).unwrap();
    send(&ranks[0], 1, 0, &[]).unwrap();
    ranks[1].wait(0).unwrap();
    send(&ranks[0], 1, 0, &[4]).unwrap();
    ranks[1].wait(1).unwrap();
    assert_eq!(target, [4]);
}

#[test]
fn a_wait_sleeps_until_the_message_is_there() {
    let ranks = endpoints(2, LONG);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(200));
            send(&ranks[0], 1, 0, &[1]).unwrap();
        });
        let mut target = [0; 1];
        receive(&ranks[1], 0, 0, 0, &mut target).unwrap();
        let before = cpu_time();
        ranks[1].wait(0).unwrap();
        assert_eq!(target, [1]);
        assert!(
            cpu_time() - before < Duration::from_millis(50),
            "{:?}",
            cpu_time() - before
        );
    });
}

/// What this thread has computed so far.
fn cpu_time() -> Duration {
    #[cfg(target_os = "linux")]
    {
        unsafe extern "C" {
            fn clock_gettime(clock: c_int, time: *mut [i64; 2]) -> c_int;
        }
        const THREAD_CPUTIME: c_int = 3;
        let mut time = [0; 2];
        // SAFETY: two words, as the C library writes them on 64 bits.
        assert_eq!(unsafe { clock_gettime(THREAD_CPUTIME, &mut time) }, 0);
        Duration::new(time[0] as u64, time[1] as u32)
    }
    #[cfg(not(target_os = "linux"))]
    Duration::ZERO
}

#[test]
fn what_cannot_be_says_which_rank_peer_and_tag() {
    let ranks = endpoints(3, SHORT);
    let mut target = [0; 4];
    assert_eq!(
        send(&ranks[1], 7, 0, &[1]).unwrap_err(),
        "rank 1 sends to rank 7: there are ranks 0 to 2"
    );
    assert_eq!(
        receive(&ranks[1], 0, 3, 0, &mut target).unwrap_err(),
        "rank 1 receives from rank 3: there are ranks 0 to 2"
    );
    send(&ranks[0], 1, 4, &[1, 2, 3]).unwrap();
    receive(&ranks[1], 0, 0, 4, &mut target).unwrap();
    assert_eq!(
        ranks[1].wait(0).unwrap_err(),
        "rank 1 got 3 bytes from rank 0 (tag 4) where 4 were awaited"
    );
    receive(&ranks[1], 1, 2, 9, &mut target).unwrap();
    assert_eq!(
        ranks[1].wait(1).unwrap_err(),
        "rank 1 waited 0.05 s for a message of rank 2 (tag 9)"
    );
    let hub = Hub::new(1, SHORT);
    assert_eq!(
        hub.endpoint(1).err().unwrap(),
        "there is no rank 1: there is rank 0 alone"
    );
}

#[test]
fn an_abort_ends_waits_posts_and_later_waits_with_the_first_reason() {
    let ranks = endpoints(3, LONG);
    let mut target = [0; 1];
    receive(&ranks[1], 0, 0, 0, &mut target).unwrap();
    let started = Instant::now();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| ranks[1].wait(0));
        thread::sleep(Duration::from_millis(20));
        ranks[2].abort("it lost its mind");
        ranks[0].abort("so did I");
        assert_eq!(
            waiting.join().unwrap().unwrap_err(),
            "rank 2 failed: it lost its mind"
        );
    });
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(
        send(&ranks[0], 1, 0, &[1]).unwrap_err(),
        "rank 2 failed: it lost its mind"
    );
    assert_eq!(ranks[2].wait(8).unwrap_err(), "rank 2 failed: it lost its mind");
}

#[test]
fn many_ranks_exchange_many_messages_at_once() {
    const RANKS: usize = 5;
    const ROUNDS: usize = 400;
    let ranks = endpoints(RANKS, LONG);
    // What `from` sends to `to` in a round: its length and bytes follow from the three.
    let message = |from: usize, to: usize, round: usize| -> Vec<u8> {
        let length = (from * 31 + to * 17 + round * 7) % 97;
        (0..length)
            .map(|i| (from * 3 + to * 5 + round + i) as u8)
            .collect()
    };
    thread::scope(|scope| {
        for (me, rank) in ranks.iter().enumerate() {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let mut targets: Vec<Vec<u8>> = (0..RANKS)
                        .map(|from| vec![0; message(from, me, round).len()])
                        .collect();
                    for (from, target) in targets.iter_mut().enumerate() {
                        receive(rank, round as u64 % 3, from as u32, round as u32 % 2, target).unwrap();
                    }
                    for to in 0..RANKS {
                        send(rank, to as u32, round as u32 % 2, &message(me, to, round)).unwrap();
                    }
                    rank.wait(round as u64 % 3).unwrap();
                    for (from, target) in targets.iter().enumerate() {
                        assert_eq!(*target, message(from, me, round));
                    }
                }
            });
        }
    });
}

/// A transport in C's clothes: it loops messages back, fails on tag 13, and remembers why it was aborted.
#[derive(Default)]
struct Loop {
    sent: Mutex<Vec<Vec<u8>>>,
    aborted: Mutex<Vec<String>>,
    failed: Mutex<bool>,
}

unsafe extern "C" fn loop_send(
    ctx: *mut c_void,
    _ticket: u64,
    _peer: u32,
    tag: u32,
    bytes: *const c_void,
    length: u64,
) -> c_int {
    // SAFETY: the test's own table.
    let this = unsafe { &*ctx.cast::<Loop>() };
    if tag == 13 {
        *this.failed.lock().unwrap() = true;
        return 2;
    }
    // SAFETY: as the table's rules say.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length as usize) };
    this.sent.lock().unwrap().push(bytes.to_vec());
    0
}

unsafe extern "C" fn loop_receive(
    ctx: *mut c_void,
    _ticket: u64,
    _peer: u32,
    _tag: u32,
    bytes: *mut c_void,
    length: u64,
) -> c_int {
    // SAFETY: the test's own table.
    let message = unsafe { &*ctx.cast::<Loop>() }.sent.lock().unwrap().remove(0);
    // SAFETY: as the table's rules say.
    unsafe { std::ptr::copy_nonoverlapping(message.as_ptr(), bytes.cast(), length as usize) };
    0
}

unsafe extern "C" fn loop_wait(ctx: *mut c_void, _ticket: u64, message: *mut c_char, capacity: u64) -> c_int {
    // SAFETY: the test's own table.
    if !*unsafe { &*ctx.cast::<Loop>() }.failed.lock().unwrap() {
        return 0;
    }
    let text = c"tag 13 is unlucky".to_bytes_with_nul();
    assert!(text.len() <= capacity as usize);
    // SAFETY: room was checked.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr().cast(), message, text.len()) };
    1
}

unsafe extern "C" fn loop_abort(ctx: *mut c_void, why: *const c_char) {
    // SAFETY: the test's own table.
    let (this, why) = unsafe { (&*ctx.cast::<Loop>(), CStr::from_ptr(why)) };
    this.aborted
        .lock()
        .unwrap()
        .push(why.to_string_lossy().into_owned());
}

fn table(ctx: &Loop) -> Table {
    Table {
        version: VERSION,
        ctx: std::ptr::from_ref(ctx).cast_mut().cast(),
        post_send: Some(loop_send),
        post_receive: Some(loop_receive),
        wait: Some(loop_wait),
        abort: Some(loop_abort),
    }
}

fn foreign(table: &Table) -> Result<Foreign, String> {
    // SAFETY: the caller keeps the table.
    unsafe { Foreign::from_address(std::ptr::from_ref(table) as usize) }
}

#[test]
fn a_foreign_table_carries_messages_and_says_why_it_does_not() {
    let ctx = Loop::default();
    let table = table(&ctx);
    let transport = foreign(&table).unwrap();
    let (bytes, mut target) = ([1u8, 2, 3], [0u8; 3]);
    // SAFETY: both arrays outlive the calls, after which the loop holds nothing of them.
    unsafe {
        transport.post_send(1, 0, 5, bytes.as_ptr(), 3).unwrap();
        transport.post_receive(1, 0, 5, target.as_mut_ptr(), 3).unwrap();
    }
    transport.wait(1).unwrap();
    assert_eq!(target, bytes);
    // SAFETY: as above.
    let refused = unsafe { transport.post_send(1, 0, 13, bytes.as_ptr(), 3) };
    assert_eq!(refused.unwrap_err(), "tag 13 is unlucky");
    transport.abort("no\0more");
    assert_eq!(*ctx.aborted.lock().unwrap(), ["no more"]);
}

#[test]
fn a_table_of_another_version_or_without_a_function_is_refused() {
    let ctx = Loop::default();
    let newer = Table {
        version: 2,
        ..table(&ctx)
    };
    let why = foreign(&newer).err().unwrap();
    assert_eq!(why, "the transport's table has version 2, this build knows 1");
    let lacking = Table {
        wait: None,
        ..table(&ctx)
    };
    let why = foreign(&lacking).err().unwrap();
    assert_eq!(why, "the transport's table lacks a function");
    // SAFETY: no address at all, and one between two words.
    let nowhere = unsafe { [Foreign::from_address(0), Foreign::from_address(3)] };
    assert!(nowhere.into_iter().all(|found| found.is_err()));
}

#[cfg(unix)]
mod queues {
    use std::sync::Arc;

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
                let queue =
                    Queue::with_pool(ops::table(), Arc::clone(&pool), Isa::detect(), 1 << 30).unwrap();
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
        post(
            &queues[1],
            "postReceive",
            0,
            None,
            [0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 1.0],
        );
        wait(&queues[1], 0);
        let n = 1_000_000;
        for round in 0..20 {
            queues[0].submit(&[code("fill"), 0.0, F32, f64::from(n), f64::from(round)]);
        }
        assert_eq!(read(&queues[0], 0, 4).unwrap(), 19f32.to_le_bytes());
        post(
            &queues[0],
            "postSend",
            0,
            None,
            [0.0, 1.0, 0.0, 1.0, 2.0, 0.0, 1.0],
        );
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
        post(
            &queues[1],
            "postReceive",
            0,
            None,
            [0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 1.0],
        );
        wait(&queues[1], 0);
        queues[0].submit(&[code("fill"), 0.0, F32, f64::from(1 << 30), 0.0]);
        let own = read(&queues[0], 0, 4).unwrap_err();
        let echo = read(&queues[1], 0, 4).unwrap_err();
        assert_eq!(own.op, "fill");
        // Rank 1 posts before or after the failure, and is told either way.
        assert_eq!(echo.message, format!("rank 0 failed: {}", own.text()));
        // A rank that comes later meets the same.
        post(
            &queues[2],
            "postSend",
            0,
            None,
            [0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 1.0],
        );
        assert_eq!(read(&queues[2], 0, 4).unwrap_err().message, echo.message);
    }

    #[test]
    fn disposing_a_queue_ends_its_own_wait_and_tells_the_others() {
        let mut queues = queues(2, LONG);
        let started = Instant::now();
        post(
            &queues[0],
            "postReceive",
            0,
            None,
            [0.0, 1.0, 0.0, 1.0, 2.0, 0.0, 1.0],
        );
        wait(&queues[0], 0);
        post(
            &queues[1],
            "postReceive",
            0,
            None,
            [0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 1.0],
        );
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
        post(
            &queues[0],
            "postSend",
            0,
            None,
            [0.0, 1.0, 0.0, 1.0, 2.0, 0.0, 1.0],
        );
        post(
            &queues[1],
            "postReceive",
            0,
            None,
            [0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 1.0],
        );
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
        post(
            &queues[0],
            "postSend",
            0,
            None,
            [0.0, 1.0, 0.0, 1.0, 2.0, 0.0, 1.0],
        );
        wait(&queues[0], 0);
        read(&queues[0], 0, 4).unwrap();
        drop(queues.remove(0));
        post(
            &queues[0],
            "postReceive",
            0,
            None,
            [0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 1.0],
        );
        wait(&queues[0], 0);
        read(&queues[0], 0, 4).unwrap();
    }

    #[test]
    fn a_foreign_transport_is_told_of_a_failure() {
        let ctx = Loop::default();
        let table = table(&ctx);
        let queue = Queue::new(ops::table(), 1, Isa::detect(), 1 << 20).unwrap();
        queue.connect(Arc::new(foreign(&table).unwrap()));
        queue.submit(&[code("fill"), 0.0, F32, f64::from(1 << 30), 0.0]);
        let failure = read(&queue, 0, 4).unwrap_err();
        drop(queue);
        assert_eq!(*ctx.aborted.lock().unwrap(), [failure.text()]);
    }
}
