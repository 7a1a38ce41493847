//! A file from servers of all kinds.
use std::cell::RefCell;
use std::io::Cursor;

use super::*;

/// What a request gets: from which byte on, of a file of which size, how much, and then an error
/// instead of an end.
type Reply = Result<(u64, Option<u64>, Vec<u8>, bool), Trouble>;

/// A server that answers each request by a rule of the test's.
struct Server<F>(RefCell<F>);

impl<F: FnMut(u64, u64) -> Reply> Web for Server<F> {
    fn get(&self, path: &str, range: Option<(u64, u64)>) -> Result<Answer, Trouble> {
        assert_eq!(path, "file");
        let (from, to) = range.unwrap();
        let (from, total, bytes, breaks) = (self.0.borrow_mut())(from, to)?;
        let bytes = Cursor::new(bytes);
        let body: Box<dyn Read + Send> =
            if breaks { Box::new(bytes.chain(Broken)) } else { Box::new(bytes) };
        Ok(Answer { from, total, body })
    }
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

const SIZE: u64 = 100_000;

fn file() -> Vec<u8> {
    (0..SIZE).map(|at| (at * 7 % 251) as u8).collect()
}

fn part(from: u64, to: u64) -> Vec<u8> {
    file()[from as usize..to as usize].to_vec()
}

struct Got {
    result: Result<Vec<u8>, String>,
    bytes: u64,
    requests: u64,
    slept: Duration,
}

/// Reads the bytes from 1000 to 90000.
fn get(budget: u64, rule: impl FnMut(u64, u64) -> Reply) -> Got {
    get_at(None, budget, rule)
}

fn get_at(rate: Option<u64>, budget: u64, rule: impl FnMut(u64, u64) -> Reply) -> Got {
    let server = Server(RefCell::new(rule));
    let mut slept = Duration::ZERO;
    let mut sleep = |time| slept += time;
    let mut meter =
        Meter { bytes: 0, requests: 0, budget, rate, say: &mut |_| {}, sleep: &mut sleep };
    let mut remote = Remote::new(&server, &mut meter, "file", SIZE, (1000, 90_000));
    let mut all = Vec::new();
    let result = remote.read_to_end(&mut all).map(|_| all).map_err(|error| error.to_string());
    let (bytes, requests) = (meter.bytes, meter.requests);
    Got { result, bytes, requests, slept }
}

#[test]
fn a_good_server_is_asked_once_and_for_no_byte_too_many() {
    let got = get(89_000, |from, to| Ok((from, Some(SIZE), part(from, to), false)));
    assert_eq!((got.result, got.bytes, got.requests), (Ok(part(1000, 90_000)), 89_000, 1));
}

#[test]
fn after_a_break_it_goes_on_at_the_same_byte() {
    for breaks in [true, false] {
        let got = get(89_000, |from, to| {
            Ok((from, Some(SIZE), part(from, to.min(from + 20_000)), breaks))
        });
        assert_eq!((got.result, got.bytes, got.requests), (Ok(part(1000, 90_000)), 89_000, 5));
        assert_eq!(got.slept, FIRST_WAIT * 4);
    }
}

#[test]
fn of_a_server_without_ranges_what_came_before_is_passed_over() {
    let mut first = true;
    let got = get(200_000, |_, _| {
        let end = if std::mem::take(&mut first) { 50_000 } else { SIZE };
        Ok((0, Some(SIZE), part(0, end), false))
    });
    assert_eq!((got.result, got.bytes, got.requests), (Ok(part(1000, 90_000)), 140_000, 2));
}

#[test]
fn a_server_that_gives_nothing_is_given_up_after_a_while() {
    let busy = |wait| move |_, _| Err(Trouble::Passing { why: "busy".to_owned(), wait });
    let got = get(89_000, busy(None));
    assert_eq!(got.result, Err("busy; given up after 8 tries".to_owned()));
    assert_eq!((got.requests, got.slept), (8, FIRST_WAIT * 127 - Duration::from_secs(2)));
    let got = get(89_000, busy(Some(Duration::from_secs(3))));
    assert_eq!((got.requests, got.slept), (8, Duration::from_secs(21)));
    let got = get(89_000, |from, _| Ok((from, None, Vec::new(), false)));
    assert_eq!((got.result.is_err(), got.requests), (true, 8));
    // Next to nothing, for ever: one byte a connection.
    let got = get(89_000, |from, _| Ok((from, None, part(from, from + 1), false)));
    assert_eq!((got.result.is_err(), got.requests), (true, 8));
    let got = get(89_000, |_, _| Err(Trouble::Lasting("the server answers 404".to_owned())));
    assert_eq!((got.result, got.requests), (Err("the server answers 404".to_owned()), 1));
}

#[test]
fn another_file_and_more_than_all_of_it_are_refused() {
    let got = get(89_000, |from, to| Ok((from, Some(SIZE + 1), part(from, to), false)));
    let why = "the server has a file of 100001 bytes, the signed length is 100000";
    assert_eq!((got.result, got.bytes), (Err(why.to_owned()), 0));
    // Sends more than was asked for: it is not read.
    let got = get(89_000, |from, _| Ok((from, None, part(from, SIZE), false)));
    assert_eq!((got.result, got.bytes), (Ok(part(1000, 90_000)), 89_000));
    // Breaks off late and starts at the beginning each time.
    let mut breaks = [30_000, 60_000, 80_000, 85_000].into_iter();
    let got = get(150_000, |_, _| Ok((0, None, part(0, breaks.next().unwrap_or(SIZE)), false)));
    let why = "given up after 150000 bytes, which is more than all of it should take";
    assert_eq!(got.result, Err(why.to_owned()));
    assert!(got.bytes <= 150_000 + 8192, "{}", got.bytes);
}

#[test]
fn a_transfer_takes_as_long_as_its_limit_says() {
    let good = |from, to| Ok((from, Some(SIZE), part(from, to), false));
    let got = get_at(Some(8900), 89_000, good);
    let seconds = got.slept.as_secs_f64();
    assert!(got.result.is_ok() && (9.9..10.1).contains(&seconds), "{seconds}");
}
