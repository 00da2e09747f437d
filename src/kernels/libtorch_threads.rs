//! Work on LibTorch's own threads.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;

unsafe extern "C" {
    fn bitscope_parallel_for(
        count: i64,
        work: extern "C" fn(*mut c_void, i64, i64),
        context: *mut c_void,
    );
}

/// `f` of every item on LibTorch's threads, results in order.
pub(super) fn map<T: Send, R: Send>(items: Vec<T>, f: impl Fn(usize, T) -> R + Sync) -> Vec<R> {
    let count = items.len();
    let slots: Vec<Slot<T, R>> = items
        .into_iter()
        .map(|item| Slot(Mutex::new((Some(item), None))))
        .collect();
    let panic: Mutex<Option<Box<dyn Any + Send>>> = Mutex::new(None);
    let run = |i: usize| {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let item = slots[i].lock().0.take().expect("each item is taken once");
            let result = f(i, item);
            slots[i].lock().1 = Some(result);
        }));
        if let Err(payload) = outcome {
            *panic.lock().unwrap_or_else(|e| e.into_inner()) = Some(payload);
        }
    };
    let work: &(dyn Fn(usize) + Sync) = &run;
    // SAFETY: `call` is handed the pointer to `work` that it expects; both outlive the call, which
    // returns only when all parts are done. `work` is `Sync` and does not unwind.
    unsafe {
        bitscope_parallel_for(count as i64, call, (&raw const work).cast_mut().cast());
    }
    if let Some(payload) = panic.into_inner().unwrap_or_else(|e| e.into_inner()) {
        resume_unwind(payload);
    }
    slots
        .into_iter()
        .map(|slot| slot.into_result().expect("every item was worked on"))
        .collect()
}

/// An item before, a result after.
struct Slot<T, R>(Mutex<(Option<T>, Option<R>)>);

impl<T, R> Slot<T, R> {
    fn lock(&self) -> std::sync::MutexGuard<'_, (Option<T>, Option<R>)> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn into_result(self) -> Option<R> {
        self.0.into_inner().unwrap_or_else(|e| e.into_inner()).1
    }
}

extern "C" fn call(context: *mut c_void, begin: i64, end: i64) {
    // SAFETY: `map` passes a pointer to a `&(dyn Fn(usize) + Sync)` that lives during the call.
    let work: &(dyn Fn(usize) + Sync) = unsafe { *context.cast::<&(dyn Fn(usize) + Sync)>() };
    (begin..end).for_each(|i| work(i as usize));
}
