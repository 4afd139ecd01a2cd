//! A transport behind a C table.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Mutex;

use crate::message::foreign::{Table, VERSION};
use crate::message::{Foreign, Transport};

/// A transport in C's clothes: it loops messages back, fails on tag 13, and remembers why it was aborted.
#[derive(Default)]
pub struct Loop {
    sent: Mutex<Vec<Vec<u8>>>,
    pub told: Mutex<Vec<String>>,
    pub aborted: Mutex<Vec<String>>,
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

unsafe extern "C" fn loop_fail(ctx: *mut c_void, why: *const c_char) {
    // SAFETY: the test's own table.
    let (this, why) = unsafe { (&*ctx.cast::<Loop>(), CStr::from_ptr(why)) };
    this.told.lock().unwrap().push(why.to_string_lossy().into_owned());
}

unsafe extern "C" fn loop_abort(ctx: *mut c_void, why: *const c_char) {
    // SAFETY: the test's own table.
    let (this, why) = unsafe { (&*ctx.cast::<Loop>(), CStr::from_ptr(why)) };
    this.aborted
        .lock()
        .unwrap()
        .push(why.to_string_lossy().into_owned());
}

pub fn table(ctx: &Loop) -> Table {
    Table {
        version: VERSION,
        ctx: std::ptr::from_ref(ctx).cast_mut().cast(),
        post_send: Some(loop_send),
        post_receive: Some(loop_receive),
        wait: Some(loop_wait),
        fail: Some(loop_fail),
        abort: Some(loop_abort),
    }
}

pub fn foreign(table: &Table) -> Result<Foreign, String> {
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
    transport.fail("nor\0this");
    assert_eq!(*ctx.told.lock().unwrap(), ["nor this"]);
}

#[test]
fn a_table_of_another_version_or_without_a_function_is_refused() {
    let ctx = Loop::default();
    let newer = Table {
        version: 3,
        ..table(&ctx)
    };
    let why = foreign(&newer).err().unwrap();
    assert_eq!(why, "the transport's table has version 3, this build knows 2");
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
