//! A connection of a client and the one that leads on to the container: bytes both ways, and each
//! way ends by itself, as TCP has it.
//!
//! Nothing here waits. A pair that has nothing in hand holds no memory but its own few words: what
//! one side does not take at once is kept, and nothing more is read from the other meanwhile.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::mem;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

/// What is read at once, and so the most that is kept of one way.
pub const PIECE_BYTES: usize = 16 * 1024;

/// Before the next try to reach a port that nobody listens at yet: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// One way of a connection.
#[derive(Debug, Default)]
struct Flow {
    /// What was read and not taken yet, from `taken` on.
    rest: Vec<u8>,
    taken: usize,
    /// Whether the source has ended.
    has_ended: bool,
    /// Whether the target was told so.
    is_over: bool,
}

impl Flow {
    fn wants_to_read(&self) -> bool {
        !self.has_ended && self.rest.is_empty()
    }

    /// Moves on what can be moved now, no more than a piece: others want their turn.
    fn pump(&mut self, from: &TcpStream, to: &TcpStream, piece: &mut [u8]) -> io::Result<()> {
        if !self.rest.is_empty() {
            self.taken += write(to, self.rest.get(self.taken..).unwrap_or_default())?;
            if self.taken < self.rest.len() {
                return Ok(());
            }
            // Not only emptied: who waits for the next byte shall hold no memory.
            drop(mem::take(&mut self.rest));
            self.taken = 0;
        }
        if !self.has_ended {
            let Some(length) = read(from, piece)? else { return Ok(()) };
            self.has_ended = length == 0;
            let read = piece.get(..length).unwrap_or_default();
            let taken = write(to, read)?;
            self.rest.extend_from_slice(read.get(taken..).unwrap_or_default());
        }
        if self.has_ended && self.rest.is_empty() && !self.is_over {
            self.is_over = true;
            match to.shutdown(Shutdown::Write) {
                // It has gone already: the other way will hear of it.
                Err(error) if error.kind() == ErrorKind::NotConnected => {}
                other => other?,
            }
        }
        Ok(())
    }
}

/// The bytes that were read, 0 at the end; `None` if there are none yet.
fn read(mut from: &TcpStream, piece: &mut [u8]) -> io::Result<Option<usize>> {
    match from.read(piece) {
        Err(error) if is_later(&error) => Ok(None),
        other => other.map(Some),
    }
}

/// How many bytes were taken.
fn write(mut to: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    match to.write(bytes) {
        Err(error) if is_later(&error) => Ok(0),
        other => other,
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Where the way to the container stands.
#[derive(Debug)]
enum Target {
    /// Nobody listened; the next try is then, after a pause of that length.
    Absent(Duration, Duration),
    /// It is being tried.
    Tried(TcpStream, Duration),
    /// It is there.
    There(TcpStream),
}

/// A client, and the way on to its container.
#[derive(Debug)]
pub struct Pair {
    client: TcpStream,
    target: Target,
    /// The container's port.
    port: u16,
    /// Until when it waits for the container.
    deadline: Duration,
    up: Flow,
    down: Flow,
}

/// How it stands with a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    /// It goes on.
    Open,
    /// It goes on, and the container has just taken it.
    Answered,
    /// Both ways have ended, or one has failed.
    Over,
    /// The container did not take it in time.
    Late,
}

impl Pair {
    /// A client that wants to get to a port of the container before the deadline.
    pub fn new(
        client: TcpStream,
        port: u16,
        now: Duration,
        deadline: Duration,
    ) -> io::Result<Self> {
        client.set_nonblocking(true)?;
        client.set_nodelay(true)?;
        watch_over(&client)?;
        let target = Target::Absent(now, FIRST_PAUSE);
        Ok(Self { client, target, port, deadline, up: Flow::default(), down: Flow::default() })
    }

    /// The container's port that it leads to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the container has taken it.
    pub fn is_there(&self) -> bool {
        matches!(self.target, Target::There(_))
    }

    /// What it waits for: of the client, of the way on.
    pub fn interests(&self) -> [Option<(&TcpStream, PollFlags)>; 2] {
        let target = match &self.target {
            Target::Absent(..) => return [None, None],
            Target::Tried(target, _) => return [None, Some((target, PollFlags::OUT))],
            Target::There(target) => target,
        };
        let flags = |read: &Flow, write: &Flow| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, read.wants_to_read());
            flags.set(PollFlags::OUT, !write.rest.is_empty());
            flags
        };
        // A side that nothing is wanted of is left out: its end would be told again and again.
        let of = |stream, flags: PollFlags| (!flags.is_empty()).then_some((stream, flags));
        [of(&self.client, flags(&self.up, &self.down)), of(target, flags(&self.down, &self.up))]
    }

    /// When it has to be looked at although nothing was heard.
    pub fn wakes(&self) -> Option<Duration> {
        match self.target {
            Target::Absent(again, _) => Some(again.min(self.deadline)),
            Target::Tried(..) => Some(self.deadline),
            Target::There(_) => None,
        }
    }

    /// Does what can be done now; `ready` says what was heard of both sides, `container` where it
    /// is, if it runs.
    pub fn attend(
        &mut self,
        now: Duration,
        ready: [bool; 2],
        container: Option<IpAddr>,
        piece: &mut [u8],
    ) -> Stands {
        if let Target::There(target) = &self.target {
            let [client_ready, target_ready] = ready;
            if !client_ready && !target_ready {
                return Stands::Open;
            }
            let up = self.up.pump(&self.client, target, piece);
            let moved = up.and_then(|()| self.down.pump(target, &self.client, piece));
            let is_over = moved.is_err() || self.up.is_over && self.down.is_over;
            return if is_over { Stands::Over } else { Stands::Open };
        }
        self.reach(now, ready[1], container);
        match &self.target {
            Target::There(_) => Stands::Answered,
            _ if now >= self.deadline => Stands::Late,
            _ => Stands::Open,
        }
    }

    /// Tries to get to the container.
    fn reach(&mut self, now: Duration, ready: bool, container: Option<IpAddr>) {
        let target = mem::replace(&mut self.target, Target::Absent(now, FIRST_PAUSE));
        self.target = match target {
            Target::Absent(again, pause) if now >= again => {
                let started = container.map(|address| begin(SocketAddr::new(address, self.port)));
                match started {
                    Some(Ok(socket)) => Target::Tried(socket, pause),
                    _ => later(now, pause),
                }
            }
            Target::Tried(socket, pause) if ready => match sockopt::socket_error(&socket) {
                Ok(Ok(())) => Target::There(socket),
                _ => later(now, pause),
            },
            other => other,
        };
    }
}

fn later(now: Duration, pause: Duration) -> Target {
    Target::Absent(now + pause, (pause * 2).min(LONGEST_PAUSE))
}

/// Begins a connection; a poll for writing ends when there is one or none.
fn begin(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let socket = TcpStream::from(socket);
    socket.set_nodelay(true)?;
    watch_over(&socket)?;
    Ok(socket)
}

/// The kernel asks a side that is silent whether it is still there: one that lost its power would
/// keep the container running for ever.
fn watch_over(socket: &TcpStream) -> io::Result<()> {
    sockopt::set_tcp_keepidle(socket, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(socket, Duration::from_secs(15))?;
    sockopt::set_tcp_keepcnt(socket, 4)?;
    Ok(sockopt::set_socket_keepalive(socket, true)?)
}
