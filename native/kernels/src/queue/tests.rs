//! Order, poisoning, panics, disposal, sleep.

use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::args::Args;
use crate::error::KernelError;

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
fn a_list_of_commands_runs_as_if_they_were_submitted_one_by_one() {
    let queue = queue();
    queue.write(0, &1.0f32.to_le_bytes().repeat(3)).unwrap();
    let list = [5.0, 0.0, 0.0, 0.0, 3.0, 2.0, 5.0, 0.0, 0.0, 0.0, 2.0, 0.5];
    queue.submit_list(&list).unwrap();
    queue.submit_list(&[]).unwrap();
    assert_eq!(floats(&read(&queue, 0, 12).unwrap()), [3.5, 3.5, 3.0]);
    queue.submit_list(&list).unwrap();
    assert_eq!(floats(&read(&queue, 0, 12).unwrap()), [6.0, 6.0, 5.0]);
}

#[test]
fn a_list_that_is_wrong_somewhere_is_refused_whole() {
    let queue = queue();
    let wrong: [&[f64]; 4] = [
        &[5.0, 0.0, 0.0, 0.0, 1.0, 2.0, 5.0, 0.0],
        &[5.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0],
        &[f64::NAN, 1.0],
        &[1e300, 1.0],
    ];
    for list in wrong {
        assert!(queue.submit_list(list).unwrap_err().contains("of the list"));
    }
    assert_eq!(floats(&read(&queue, 0, 4).unwrap()), [0.0]);
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
