//! A service whose ports are held: its listening sockets, its connections, its container.

use std::io::{self, ErrorKind};
use std::mem;
use std::net::{IpAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::life::{Life, Load, Rules, Step};
use super::pair::{Pair, Stands};
use super::plan::{Port, Terms};

/// How many connections of one service are open at a time; more wait with the kernel. Each may
/// keep a piece of either way: 4 MiB in all.
pub const MAX_OPEN: usize = 128;

/// Before connections are taken again when the kernel could not give one.
const PAUSE: Duration = Duration::from_secs(1);

/// A container that runs.
#[derive(Debug)]
pub struct Running {
    /// Where its ports are.
    pub address: IpAddr,
    /// Readable once it has ended.
    pub process: OwnedFd,
}

/// Whoever starts and stops containers. Both calls take as long as they take.
pub trait Containers: Send + Sync {
    /// Starts the container of a service; one that runs goes on.
    fn start(&self, app: &str, service: &str) -> Result<Running, String>;

    /// Stops it as its Compose file says; one that does not run is fine.
    fn stop(&self, app: &str, service: &str) -> Result<(), String>;
}

/// What came of a start or a stop.
pub enum Done {
    /// Of a start, and how long it took.
    Started(Result<Running, String>, Duration),
    /// Of a stop.
    Stopped(Result<(), String>),
}

/// Where work is done that takes a while: in a thread of its own, one at a time for each service.
#[derive(Clone)]
pub struct Jobs {
    /// Who does it.
    pub containers: Arc<dyn Containers>,
    /// Where it is told what came of it, with the number of the service.
    pub done: Sender<(u64, Done)>,
    /// Rung then, so that the poll ends: an eventfd(2).
    pub bell: Arc<OwnedFd>,
}

/// A source of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The container's process.
    Process,
    /// A listening socket.
    Listener,
    /// The client of a pair.
    Client(usize),
    /// The other side of a pair.
    Target(usize),
}

/// A service whose ports are held.
pub struct Held {
    /// Its number, which no other one gets.
    pub id: u64,
    /// Its app.
    pub app: String,
    /// Its name.
    pub name: String,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Why its last start failed.
    pub trouble: Option<String>,
    /// When it has to be looked at again although nothing was heard.
    pub wakes: Option<Duration>,
    idle_s: u64,
    listeners: Vec<(TcpListener, u16)>,
    life: Life,
    running: Option<Running>,
    pairs: Vec<Pair>,
    /// Whether a connection waits that nobody has taken.
    knocks: bool,
    /// No connection is taken before.
    full_until: Option<Duration>,
}

/// A place where lines go.
pub type Say<'a> = &'a dyn Fn(&str);

impl Held {
    /// Holds the ports of a service; says which one cannot be held.
    pub fn new(
        id: u64,
        app: &str,
        name: &str,
        terms: &Terms,
        stays: bool,
        now: Duration,
    ) -> Result<Self, String> {
        let mut listeners = Vec::new();
        for port in &terms.ports {
            let listener = listen(port)
                .map_err(|error| format!("{name}: port {port} cannot be held: {error}"))?;
            listeners.push((listener, port.container));
        }
        Ok(Self {
            id,
            app: app.to_owned(),
            name: name.to_owned(),
            ports: terms.ports.clone(),
            trouble: None,
            // At once, to begin with.
            wakes: Some(now),
            idle_s: terms.idle_s,
            listeners,
            life: Life::new(rules(terms, stays), now),
            running: None,
            pairs: Vec::new(),
            knocks: false,
            full_until: None,
        })
    }

    /// The same ports on other terms.
    pub fn change(&mut self, terms: &Terms, stays: bool, now: Duration) {
        self.idle_s = terms.idle_s;
        self.trouble = None;
        self.life.change(rules(terms, stays), now);
    }

    /// What is to be waited for.
    pub fn sources(&self) -> Vec<(Source, PollFd<'_>)> {
        let mut sources = Vec::new();
        if let Some(running) = &self.running {
            sources.push((Source::Process, PollFd::new(&running.process, PollFlags::IN)));
        }
        if self.life.listens() && self.pairs.len() < MAX_OPEN && self.full_until.is_none() {
            for (listener, _) in &self.listeners {
                sources.push((Source::Listener, PollFd::new(listener, PollFlags::IN)));
            }
        }
        for (index, pair) in self.pairs.iter().enumerate() {
            let [client, target] = pair.interests();
            let of = |source, (stream, flags)| (source, PollFd::new(stream, flags));
            sources.extend(client.map(|it| of(Source::Client(index), it)));
            sources.extend(target.map(|it| of(Source::Target(index), it)));
        }
        sources
    }

    /// Takes in which sources had something. They are named by their places in lists, so this comes
    /// before anything that changes those.
    pub fn hear(&mut self, now: Duration, ready: &[Source], piece: &mut [u8], say: Say<'_>) {
        self.move_on(now, ready, piece, say);
        if ready.contains(&Source::Process) {
            self.note_end(now, say);
        }
        self.knocks = ready.contains(&Source::Listener);
    }

    /// Does what is to be done now.
    pub fn attend(&mut self, now: Duration, jobs: &Jobs, piece: &mut [u8], say: Say<'_>) {
        if self.full_until.is_some_and(|until| now >= until) {
            self.full_until = None;
        }
        let knocks = mem::take(&mut self.knocks);
        let waits = knocks || self.pairs.iter().any(|pair| !pair.is_there());
        let rests = loop {
            let load = Load { waits, open: self.pairs.len() };
            match self.life.step(now, load) {
                Step::Start => self.begin(jobs, true),
                Step::Stop => self.begin(jobs, false),
                Step::TurnAway => {
                    self.fail("the engine does not answer".to_owned(), say);
                    self.turn_away();
                }
                Step::Rest(until) => break until,
            }
        };
        if knocks && self.life.runs() {
            self.take_in(now, piece, say);
        }
        let pairs = self.pairs.iter().filter_map(Pair::wakes);
        self.wakes = pairs.chain(rests).chain(self.full_until).min();
    }

    /// Takes note of what came of a start or a stop.
    pub fn note(&mut self, now: Duration, done: Done, say: Say<'_>) {
        let (app, name) = (&self.app, &self.name);
        match done {
            Done::Started(Ok(running), took) => {
                say(&format!("app {app}: {name} started in {} ms", took.as_millis()));
                self.running = Some(running);
                self.life.started(now);
            }
            Done::Started(Err(why), _) => {
                self.fail(why, say);
                self.life.failed(now);
                self.turn_away();
            }
            Done::Stopped(Ok(())) => {
                let idle_s = self.idle_s;
                say(&format!("app {app}: {name} stopped: no connection for {idle_s} s"));
                self.running = None;
                self.life.stopped(now, true);
            }
            Done::Stopped(Err(why)) => {
                say(&format!("app {app}: {name} cannot be stopped: {why}"));
                self.life.stopped(now, false);
            }
        }
    }

    fn note_end(&mut self, now: Duration, say: Say<'_>) {
        self.running = None;
        if !self.life.ended(now) {
            self.fail("it ended before it took a connection".to_owned(), say);
            self.turn_away();
        }
    }

    fn fail(&mut self, why: String, say: Say<'_>) {
        say(&format!("app {}: {} does not serve: {why}", self.app, self.name));
        self.trouble = Some(why);
    }

    /// Closes every connection that waits for the container.
    fn turn_away(&mut self) {
        self.pairs.retain(Pair::is_there);
        for (listener, _) in &self.listeners {
            while listener.accept().is_ok() {}
        }
    }

    fn begin(&self, jobs: &Jobs, start: bool) {
        let (jobs, id) = (jobs.clone(), self.id);
        let (app, name) = (self.app.clone(), self.name.clone());
        thread::spawn(move || {
            let began = Instant::now();
            let done = match start {
                true => Done::Started(jobs.containers.start(&app, &name), began.elapsed()),
                false => Done::Stopped(jobs.containers.stop(&app, &name)),
            };
            // Who is gone need not be told.
            let _ = jobs.done.send((id, done));
            let _ = rustix::io::write(&*jobs.bell, &1_u64.to_ne_bytes());
        });
    }

    /// Moves what the pairs can move, and removes those that are over.
    fn move_on(&mut self, now: Duration, ready: &[Source], piece: &mut [u8], say: Say<'_>) {
        let address = self.running.as_ref().map(|running| running.address);
        let has = |source: Source| ready.contains(&source);
        let mut late = None;
        let mut index = 0;
        let life = &mut self.life;
        let trouble = &mut self.trouble;
        self.pairs.retain_mut(|pair| {
            let heard = [has(Source::Client(index)), has(Source::Target(index))];
            index += 1;
            match pair.attend(now, heard, address, piece) {
                Stands::Open => true,
                Stands::Answered => {
                    life.answered();
                    *trouble = None;
                    true
                }
                Stands::Over => false,
                Stands::Late => {
                    late = Some(pair.port());
                    false
                }
            }
        });
        if let Some(port) = late {
            self.life.did_not_answer(now);
            self.fail(format!("its port {port} takes no connection"), say);
        }
    }

    /// Takes the connections that wait, as long as there is room.
    fn take_in(&mut self, now: Duration, piece: &mut [u8], say: Say<'_>) {
        let first = self.pairs.len();
        let deadline = self.life.deadline(now);
        for (listener, port) in &self.listeners {
            while self.pairs.len() < MAX_OPEN {
                match listener.accept() {
                    // A client that has gone meanwhile has nothing to be told.
                    Ok((client, _)) => {
                        self.pairs.extend(Pair::new(client, *port, now, deadline));
                    }
                    Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => {
                        say(&format!("app {}: {}: no connection: {error}", self.app, self.name));
                        self.full_until = Some(now + PAUSE);
                        break;
                    }
                }
            }
        }
        let address = self.running.as_ref().map(|running| running.address);
        for pair in self.pairs.iter_mut().skip(first) {
            // To begin with: what comes of it is heard later.
            pair.attend(now, [false, false], address, piece);
        }
    }
}

fn rules(terms: &Terms, stays: bool) -> Rules {
    Rules {
        idle: (!stays).then_some(Duration::from_secs(terms.idle_s)),
        start_within: Duration::from_secs(terms.start_within_s),
    }
}

fn listen(port: &Port) -> io::Result<TcpListener> {
    let listener = match (TcpListener::bind(port.socket()), port.socket_without_ipv6()) {
        (Err(error), Some(other)) if error.kind() != ErrorKind::AddrInUse => {
            TcpListener::bind(other)?
        }
        (bound, _) => bound?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}
