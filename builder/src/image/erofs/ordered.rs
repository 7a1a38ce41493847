//! Work on all cores, results in order: what makes an image independent of the number of threads.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::Result;

/// Runs `work` for every job on `threads` threads and hands the results to `take` in the order
/// of the jobs, on the calling thread.
///
/// At most two jobs a thread are ahead of `take`, which bounds the memory they hold. The first
/// error in job order, or of `take`, ends everything.
pub(super) fn in_order<Job: Sync, Done: Send, State>(
    jobs: &[Job],
    threads: usize,
    state: impl Fn() -> Result<State> + Sync,
    work: impl Fn(&mut State, &Job) -> Result<Done> + Sync,
    mut take: impl FnMut(&Job, Done) -> Result<()>,
) -> Result<()> {
    let desk = Desk { shared: Mutex::default(), changed: Condvar::new(), ahead: 2 * threads };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let _stop = StopOnPanic(&desk);
                match state() {
                    Ok(mut state) => {
                        while let Some(index) = desk.next(jobs.len()) {
                            desk.put(index, work(&mut state, &jobs[index]));
                        }
                    }
                    // One job fails with this, which ends the run.
                    Err(error) => {
                        let index = desk.next(jobs.len());
                        if let Some(index) = index {
                            desk.put(index, Err(error));
                        }
                    }
                }
            });
        }
        let taken = jobs.iter().enumerate().try_for_each(|(index, job)| match desk.take(index) {
            Some(done) => take(job, done?),
            // A worker panicked: the scope passes that on.
            None => Ok(()),
        });
        desk.stop();
        taken
    })
}

/// Where workers fetch jobs and leave results.
struct Desk<Done> {
    shared: Mutex<Shared<Done>>,
    changed: Condvar,
    ahead: usize,
}

struct Shared<Done> {
    next: usize,
    taken: usize,
    done: BTreeMap<usize, Result<Done>>,
    stopped: bool,
}

impl<Done> Default for Shared<Done> {
    fn default() -> Self {
        Self { next: 0, taken: 0, done: BTreeMap::new(), stopped: false }
    }
}

impl<Done> Desk<Done> {
    fn lock(&self) -> MutexGuard<'_, Shared<Done>> {
        // The lock is never held while foreign code runs, so the state is whole.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, count: usize) -> Option<usize> {
        let mut shared = self.lock();
        while shared.next < count && shared.next >= shared.taken + self.ahead && !shared.stopped {
            shared = self.changed.wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
        let index = shared.next;
        shared.next += 1;
        (index < count && !shared.stopped).then_some(index)
    }

    fn put(&self, index: usize, result: Result<Done>) {
        self.lock().done.insert(index, result);
        self.changed.notify_all();
    }

    fn take(&self, index: usize) -> Option<Result<Done>> {
        let mut shared = self.lock();
        loop {
            if let Some(done) = shared.done.remove(&index) {
                shared.taken = index + 1;
                self.changed.notify_all();
                return Some(done);
            }
            if shared.stopped {
                return None;
            }
            shared = self.changed.wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }
}

/// Keeps the caller from waiting for a worker that is gone.
struct StopOnPanic<'a, Done>(&'a Desk<Done>);

impl<Done> Drop for StopOnPanic<'_, Done> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn run(threads: usize, fail_at: u32) -> (Result<()>, Vec<u32>) {
        let jobs: Vec<u32> = (0..200).collect();
        let mut taken = Vec::new();
        let work = |_: &mut (), job: &u32| {
            if *job >= fail_at { Err(Error::new(format!("job {job}"))) } else { Ok(job * 2) }
        };
        let result = in_order(
            &jobs,
            threads,
            || Ok(()),
            work,
            |_, done| {
                taken.push(done);
                Ok(())
            },
        );
        (result, taken)
    }

    #[test]
    fn results_arrive_in_order_for_any_number_of_threads() {
        let expected: Vec<u32> = (0..200).map(|job| job * 2).collect();
        for threads in [1, 2, 7] {
            let (result, taken) = run(threads, u32::MAX);
            assert!(result.is_ok());
            assert_eq!(taken, expected);
        }
    }

    #[test]
    fn the_first_error_in_order_ends_the_run() {
        let (result, taken) = run(3, 50);
        assert_eq!(result.unwrap_err().to_string(), "job 50");
        assert_eq!(taken.len(), 50);
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panicking_worker_does_not_hang_the_caller() {
        let work = |_: &mut (), job: &u32| if *job == 3 { panic!("three") } else { Ok(()) };
        let _ = in_order(&[1, 2, 3, 4, 5, 6, 7, 8], 2, || Ok(()), work, |_, ()| Ok(()));
    }
}
