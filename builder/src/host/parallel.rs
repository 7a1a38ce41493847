//! A few threads over a list of jobs.

use std::panic;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::error::Result;

/// Processors this process may use.
pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Runs `job` on every item with up to `workers` threads, items handed out in order; results in
/// the order of the items. The first error stops handing out items and is returned.
pub fn map<T: Sync, R: Send>(
    items: &[T],
    workers: usize,
    job: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let results: Mutex<Vec<Option<Result<R>>>> = Mutex::new(items.iter().map(|_| None).collect());
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            let result = job(item);
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            if let Ok(mut results) = results.lock() {
                results[at] = Some(result);
            }
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (1..workers.min(items.len())).map(|_| scope.spawn(work)).collect();
        work();
        for thread in threads {
            thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
        }
    });
    let results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Errors first: items after one may have been left undone.
    let mut done = Vec::with_capacity(items.len());
    let mut first_error = None;
    for result in results.into_iter().flatten() {
        match result {
            Ok(value) => done.push(value),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    first_error.map_or(Ok(done), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn results_keep_the_order_and_the_first_error_wins() {
        let items: Vec<usize> = (0..100).collect();
        let doubled = map(&items, 4, |item| Ok(item * 2)).unwrap();
        assert_eq!(doubled, items.iter().map(|item| item * 2).collect::<Vec<_>>());
        let error = map(&items, 1, |item| match item {
            3 | 5 => Err(Error::new(format!("item {item}"))),
            _ => Ok(()),
        });
        assert_eq!(error.unwrap_err().to_string(), "item 3");
        assert!(map(&[] as &[u8], 4, |_| Ok(())).unwrap().is_empty());
    }
}
