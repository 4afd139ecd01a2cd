//! Every task once, panics out, denormals flushed, memory aligned.

use super::*;

#[test]
fn every_task_runs_once_whatever_the_number_of_threads() {
    for threads in [1, 2, 4] {
        let pool = Pool::new(threads);
        assert_eq!(pool.threads(), threads);
        for tasks in [0, 1, 2, 3, 100] {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            pool.run(tasks, &|i, _| {
                counts[i].fetch_add(1, SeqCst);
            });
            assert!(counts.iter().all(|c| c.load(SeqCst) == 1));
        }
    }
}

#[test]
fn thousands_of_regions_in_a_row_lose_no_task() {
    let pool = Pool::new(3);
    let total = AtomicUsize::new(0);
    for round in 0..5000 {
        let tasks = round % 7;
        pool.run(tasks, &|_, _| {
            total.fetch_add(1, SeqCst);
        });
        if round % 1000 == 0 {
            thread::sleep(Duration::from_millis(2));
        }
    }
    assert_eq!(total.load(SeqCst), (0..5000).map(|r| r % 7).sum());
}

#[test]
fn a_panic_comes_out_after_the_region_and_the_pool_still_works() {
    let pool = Pool::new(2);
    let done = AtomicUsize::new(0);
    let result = catch_unwind(AssertUnwindSafe(|| {
        pool.run(16, &|i, _| {
            assert!(i != 3, "task three");
            done.fetch_add(1, SeqCst);
        });
    }));
    let payload = result.unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"task three"));
    assert_eq!(done.load(SeqCst), 15);
    pool.run(4, &|_, _| {
        done.fetch_add(1, SeqCst);
    });
    assert_eq!(done.load(SeqCst), 19);
}

#[test]
fn a_region_inside_a_task_is_refused_instead_of_hanging() {
    let pool = Pool::new(2);
    let nested = catch_unwind(AssertUnwindSafe(|| pool.run(2, &|_, _| pool.run(2, &|_, _| {}))));
    assert!(nested.is_err());
}

#[test]
fn several_threads_may_share_one_pool() {
    let pool = Pool::new(2);
    let total = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    pool.run(5, &|_, _| {
                        total.fetch_add(1, SeqCst);
                    });
                }
            });
        }
    });
    assert_eq!(total.load(SeqCst), 4000);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn tasks_flush_denormals_and_the_caller_gets_its_mode_back() {
    let tiny = std::hint::black_box(1e-40f32);
    let pool = Pool::new(2);
    let kept = AtomicUsize::new(0);
    pool.run(64, &|_, _| {
        if std::hint::black_box(tiny) * std::hint::black_box(1.0) != 0.0 {
            kept.fetch_add(1, SeqCst);
        }
    });
    assert_eq!(kept.load(SeqCst), 0);
    assert!(std::hint::black_box(tiny) * std::hint::black_box(1.0) != 0.0);
}

#[test]
fn scratch_is_aligned_and_grows() {
    let mut scratch = Scratch::default();
    for len in [1, 1000, 10] {
        assert_eq!(scratch.f32(len).len(), len);
        assert_eq!(scratch.f32(len).as_ptr() as usize % 64, 0);
        assert_eq!(scratch.bytes(len).len(), len);
    }
}

#[test]
fn parts_outside_the_slice_are_refused() {
    let mut data = [0u8; 8];
    let disjoint = Disjoint::new(&mut data);
    // SAFETY: one part at a time.
    unsafe {
        disjoint.part(6, 2)[1] = 7;
        assert!(catch_unwind(AssertUnwindSafe(|| disjoint.part(6, 3))).is_err());
    }
    assert_eq!(data[7], 7);
}
