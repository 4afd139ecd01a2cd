//! The hub alone; a C table and queues beside it.

#[cfg(unix)]
mod queues;
mod table;

#[cfg(target_os = "linux")]
use std::ffi::c_int;
use std::thread;
use std::time::{Duration, Instant};

use super::*;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

fn endpoints(ranks: usize, timeout: Duration) -> Vec<Endpoint> {
    let hub = Hub::new(ranks, timeout, None);
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
    let hub = Hub::new(1, SHORT, None);
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
fn an_endpoint_is_one_queues_alone() {
    let ranks = endpoints(2, LONG);
    ranks[1].take().unwrap();
    assert_eq!(
        ranks[1].take().unwrap_err(),
        "the endpoint of rank 1 is connected to a queue already"
    );
    ranks[0].take().unwrap();
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
