//! Ports are held with real sockets; containers are threads of the test.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::held::{MAX_OPEN, Running};
use super::plan::Terms;
use super::plan::tests::terms;
use super::*;

/// What a container of the test does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It listens after so many milliseconds and answers each request, which the client's end
    /// ends, with the request itself.
    Echo(u64),
    /// It runs and never listens.
    Deaf,
    /// It ends before it listens.
    EndsAtOnce,
    /// The engine says no.
    Refused,
}

struct Fake {
    port: u16,
    kind: Mutex<Kind>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    starts: usize,
    stops: usize,
    life: Option<Alive>,
}

/// A container that runs.
struct Alive {
    ended: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
    _process: io::PipeWriter,
}

impl Fake {
    /// As with a container, its port is free before its process has ended.
    fn end(&self) {
        if let Some(mut alive) = self.inner.lock().unwrap().life.take() {
            alive.ended.store(true, Ordering::SeqCst);
            alive.server.take().map(JoinHandle::join);
        }
    }

    fn counts(&self) -> (usize, usize) {
        let inner = self.inner.lock().unwrap();
        (inner.starts, inner.stops)
    }
}

impl Containers for Fake {
    fn start(&self, _: &str, _: &str) -> Result<Running, String> {
        let kind = *self.kind.lock().unwrap();
        let mut inner = self.inner.lock().unwrap();
        inner.starts += 1;
        if kind == Kind::Refused {
            return Err("no such image".to_owned());
        }
        let (process, alive) = io::pipe().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let server = match kind {
            Kind::Echo(after_ms) => {
                let (port, ended) = (self.port, ended.clone());
                Some(thread::spawn(move || serve(port, after_ms, &ended)))
            }
            _ => None,
        };
        if kind != Kind::EndsAtOnce {
            inner.life = Some(Alive { ended, server, _process: alive });
        }
        Ok(Running { address: Ipv4Addr::LOCALHOST.into(), process: process.into() })
    }

    fn stop(&self, _: &str, _: &str) -> Result<(), String> {
        self.inner.lock().unwrap().stops += 1;
        self.end();
        Ok(())
    }
}

fn serve(port: u16, after_ms: u64, ended: &AtomicBool) {
    thread::sleep(Duration::from_millis(after_ms));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    listener.set_nonblocking(true).unwrap();
    while !ended.load(Ordering::SeqCst) {
        let Ok((mut client, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(2));
            continue;
        };
        thread::spawn(move || {
            client.set_nonblocking(false).unwrap();
            let mut request = Vec::new();
            if client.read_to_end(&mut request).is_ok() {
                let _ = client.write_all(&request);
            }
        });
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

struct World {
    _directory: tempfile::TempDir,
    places: Places,
    fake: Arc<Fake>,
    host: u16,
    terms: Terms,
    end: Arc<AtomicBool>,
    /// What the holder has said since it began.
    said: Arc<Mutex<Vec<String>>>,
    holder: Option<JoinHandle<()>>,
}

impl World {
    fn new(kind: Kind) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let places = Places { root: directory.path().join("on-demand") };
        let (host, port) = (free_port(), free_port());
        let (kind, inner) = (Mutex::new(kind), Mutex::default());
        let fake = Arc::new(Fake { port, kind, inner });
        let end = Arc::new(AtomicBool::new(false));
        let terms = terms(&[(host, port)]);
        let (_directory, holder, said) = (directory, None, Arc::default());
        let mut world = Self { _directory, places, fake, host, terms, end, said, holder };
        world.begin();
        world.want(false).unwrap();
        world
    }

    fn want(&self, stays: bool) -> Result<(), String> {
        self.places.want("shop", stays, vec![("web".to_owned(), self.terms.clone())])
    }

    fn begin(&mut self) {
        self.end.store(false, Ordering::SeqCst);
        let (places, fake, end) = (self.places.clone(), self.fake.clone(), self.end.clone());
        self.said = Arc::default();
        let said = Arc::clone(&self.said);
        self.holder = Some(thread::spawn(move || {
            let say = |line: &str| said.lock().unwrap().push(line.to_owned());
            let mut holder = Holder::new(&places, fake, &say).unwrap();
            while !end.load(Ordering::SeqCst) {
                holder.turn().unwrap();
            }
        }));
    }

    /// The holder ends as by a crash.
    fn crash(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        // Wakes it up.
        let path = self.places.plans().join("wake");
        std::fs::write(path.with_extension("new"), "").unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
        self.holder.take().unwrap().join().unwrap();
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.host)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn ask(&self, request: &[u8]) -> Vec<u8> {
        self.try_to_ask(request).unwrap()
    }

    fn try_to_ask(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = self.connect();
        stream.write_all(request)?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    }

    /// The connection is closed, and nothing came.
    fn is_turned_away(&self) {
        let mut answer = Vec::new();
        // An end, or a reset if the holder has never read what was sent.
        let _ = self.connect().read_to_end(&mut answer);
        assert_eq!(answer, b"");
    }

    fn trouble(&self) -> Option<String> {
        let (_, why) = self.places.answer("shop")?.troubles.pop()?;
        Some(why)
    }

    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < Duration::from_secs(20), "{what}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.holder.is_some() && !thread::panicking() {
            self.crash();
        }
    }
}

#[test]
fn the_first_connections_start_it_all_are_answered_and_it_stops_when_idle() {
    let mut world = World::new(Kind::Echo(300));
    thread::sleep(Duration::from_millis(100));
    assert_eq!(world.fake.counts(), (0, 0), "nobody came yet");
    for round in 1..=2 {
        thread::scope(|scope| {
            for number in 0..20 {
                let world = &world;
                scope.spawn(move || {
                    let request = format!("{round} {number}");
                    assert_eq!(world.ask(request.as_bytes()), request.as_bytes());
                });
            }
        });
        assert_eq!(world.fake.counts(), (round, round - 1), "started once");
        world.until("it stops", || world.fake.counts() == (round, round));
    }
    // It says so once the engine has answered, which is after what the engine counts.
    world.until("it says that it stopped", || world.said.lock().unwrap().len() >= 4);
    world.crash();
    let said = world.said.lock().unwrap();
    assert!(said[0].starts_with("app shop: web started in "), "{said:?}");
    assert_eq!(said[1], "app shop: web stopped: no connection for 1 s");
    assert_eq!(said.len(), 4, "{said:?}");
}

#[test]
fn a_connection_that_is_open_keeps_it_however_silent() {
    let world = World::new(Kind::Echo(0));
    let mut silent = world.connect();
    thread::sleep(Duration::from_millis(1_800));
    assert_eq!(world.fake.counts(), (1, 0));
    silent.write_all(b"at last").unwrap();
    silent.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    silent.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "at last");
    world.until("it stops", || world.fake.counts() == (1, 1));
}

#[test]
fn clients_that_do_not_read_keep_nobody_else_waiting() {
    let world = World::new(Kind::Echo(0));
    let large = vec![7; 8 << 20];
    // More than the kernel keeps for them on the way back; they never read it.
    let slow: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut slow = world.connect();
            slow.write_all(&large).unwrap();
            slow.shutdown(Shutdown::Write).unwrap();
            slow
        })
        .collect();
    thread::scope(|scope| {
        for number in 0..8_u8 {
            let world = &world;
            scope.spawn(move || {
                let request = vec![number; 3 << 20];
                assert!(world.ask(&request) == request, "{number}");
            });
        }
    });
    let mut answer = Vec::new();
    let mut first = slow.into_iter().next().unwrap();
    first.read_to_end(&mut answer).unwrap();
    assert!(answer == large, "what was kept for it is whole");
}

#[test]
fn more_connections_than_it_takes_wait_until_others_end() {
    let world = World::new(Kind::Echo(0));
    let open: Vec<TcpStream> = (0..MAX_OPEN).map(|_| world.connect()).collect();
    thread::scope(|scope| {
        let world = &world;
        let late = scope.spawn(move || world.ask(b"late"));
        thread::sleep(Duration::from_millis(300));
        assert!(!late.is_finished(), "one more than it takes");
        drop(open);
        assert_eq!(late.join().unwrap(), b"late");
    });
}

#[test]
fn a_port_that_never_answers_is_told_and_its_clients_are_let_go() {
    let world = World::new(Kind::Deaf);
    let began = Instant::now();
    world.is_turned_away();
    let took = began.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(8)).contains(&took), "{took:?}");
    let port = world.fake.port;
    world.until("it is told", || world.trouble().is_some());
    assert_eq!(world.trouble().unwrap(), format!("its port {port} takes no connection"));
    world.until("it is stopped as any", || world.fake.counts() == (1, 1));
}

#[test]
fn a_start_that_fails_is_told_and_tried_again_after_a_pause() {
    let world = World::new(Kind::Refused);
    world.is_turned_away();
    world.until("it is told", || world.trouble().as_deref() == Some("no such image"));
    let began = Instant::now();
    world.is_turned_away();
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(700), "again after {took:?}");
    *world.fake.kind.lock().unwrap() = Kind::Echo(0);
    // Whoever comes while the second failure is being told is turned away with it.
    world.until("the third start serves", || {
        world.try_to_ask(b"third time lucky").is_ok_and(|answer| answer == b"third time lucky")
    });
    assert_eq!(world.fake.counts().0, 3);
    world.until("the trouble is over", || world.trouble().is_none());
}

#[test]
fn one_that_ends_before_it_listens_has_failed() {
    let world = World::new(Kind::EndsAtOnce);
    world.is_turned_away();
    world.until("it is told", || {
        world.trouble().as_deref() == Some("it ended before it took a connection")
    });
}

#[test]
fn one_that_somebody_stopped_is_started_by_the_next_connection() {
    let world = World::new(Kind::Echo(0));
    assert_eq!(world.ask(b"one"), b"one");
    world.fake.end();
    assert_eq!(world.ask(b"two"), b"two");
    assert_eq!(world.fake.counts().0, 2);
}

#[test]
fn a_holder_that_is_started_again_holds_what_was_held() {
    let mut world = World::new(Kind::Echo(0));
    assert_eq!(world.ask(b"one"), b"one");
    world.crash();
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, world.host)).is_err());
    // What is there now is of the one that ended.
    world.places.forget_answers().unwrap();
    world.begin();
    world.until("it is held", || world.places.answer("shop").is_some());
    world.fake.end();
    assert_eq!(world.ask(b"two"), b"two");
}

#[test]
fn what_is_withdrawn_is_free_and_what_is_taken_is_told() {
    let world = World::new(Kind::Echo(0));
    let other = vec![("db".to_owned(), world.terms.clone())];
    let refused = world.places.want("other", false, other.clone()).unwrap_err();
    assert!(refused.starts_with(&format!("db: port 127.0.0.1:{} cannot", world.host)), "{refused}");
    assert!(refused.contains("in use"), "{refused}");
    world.places.withdraw("other").unwrap();
    let client = world.connect();
    world.places.withdraw("shop").unwrap();
    let mine = TcpListener::bind((Ipv4Addr::LOCALHOST, world.host)).unwrap();
    drop((mine, client));
    world.places.want("other", false, other).unwrap();
    assert_eq!(world.ask(b"db"), b"db");
}

#[test]
fn on_trial_it_is_not_stopped_and_its_connections_outlive_the_end_of_the_trial() {
    let world = World::new(Kind::Echo(0));
    world.want(true).unwrap();
    let mut open = world.connect();
    assert_eq!(world.ask(b"one"), b"one");
    thread::sleep(Duration::from_millis(1_500));
    world.want(false).unwrap();
    open.write_all(b"two").unwrap();
    open.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    open.read_to_string(&mut answer).unwrap();
    assert_eq!((answer.as_str(), world.fake.counts()), ("two", (1, 0)));
    world.until("it stops", || world.fake.counts() == (1, 1));
}
