//! The main loop of PID 1: services, zombies, devices, power key, watchdog, log readers.
//!
//! One thread waits for all of them and never blocks elsewhere. It ends only by switching the
//! machine off or restarting it.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use ondisk::system::{Leftovers, Service};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

use crate::clock::Clock;
use crate::led::StatusLed;
use crate::log::{self, note, now_ms, say};
use crate::module_loader::Work;
use crate::netlink::{EVENT_BYTES, Received, next_event};
use crate::plan::Step;
use crate::power::{self, End, PowerKey};
use crate::process::{self, OutputPipe};
use crate::services::{Action, Services, Verdict};
use crate::trial::{self, Trial};
use crate::uevent::Uevent;
use crate::watchdog::Watchdog;

/// Where the kept lines can be read: a connection gets all of them and is closed.
const LOG_SOCKET: &str = "/run/iota/log";
/// Readers of the log at one time; one that does not read is given up after [`READER_TIMEOUT`].
const LOG_READERS: usize = 4;
const READER_TIMEOUT: Duration = Duration::from_secs(5);
/// Services get this long to stop, all together, on top of their own timeouts for SIGKILL.
const STOP_DEADLINE_MS: u64 = 90_000;

/// Everything PID 1 watches.
pub(crate) struct Supervisor {
    services: Services,
    engine: Option<String>,
    children: Vec<(Pid, usize)>,
    pipes: Vec<OutputPipe>,
    keys: Vec<PowerKey>,
    watchdog: Option<Watchdog>,
    led: Option<StatusLed>,
    clock: Option<Clock>,
    work: Option<Sender<Work>>,
    events: Option<OwnedFd>,
    signals: Option<OwnedFd>,
    log_socket: Option<UnixListener>,
    /// The trial that this start is, until it is judged.
    trial: Option<Trial>,
    /// What the last service said last whose output has ended.
    last_words: Option<(usize, String)>,
    /// How the machine goes down, and when no service is waited for any more.
    ending: Option<(End, u64)>,
}

/// What the loop can be woken by.
#[derive(Clone, Copy)]
enum Source {
    Signals,
    Events,
    Console,
    LogReader,
    Key(usize),
    Pipe(usize),
}

impl Supervisor {
    /// A supervisor of services, one of which may run the engine, of a system that may be on trial.
    pub(crate) fn new(
        services: Vec<Service>,
        engine: Option<String>,
        trial: Option<Trial>,
        watchdog: Option<Watchdog>,
    ) -> Self {
        Self {
            services: Services::new(services),
            engine,
            children: Vec::new(),
            pipes: Vec::new(),
            keys: PowerKey::open_all(),
            watchdog: watchdog.or_else(|| Watchdog::open(now_ms())),
            led: None,
            clock: None,
            work: None,
            events: None,
            signals: None,
            log_socket: open_log_socket(),
            trial,
            last_words: None,
            ending: None,
        }
    }

    /// What shows how far the start is.
    pub(crate) fn shown_by(&mut self, led: StatusLed) {
        self.led = Some(led);
    }

    /// Where modules are loaded from now on, those of devices that are there first.
    pub(crate) fn modules_from(&mut self, work: Sender<Work>, settings: Vec<Step>) {
        self.work = Some(work);
        self.ask(Work::Settings(settings));
        self.ask(Work::AllDevices);
    }

    /// Where the kernel announces devices.
    pub(crate) fn events_from(&mut self, events: OwnedFd) {
        self.events = Some(events);
    }

    /// A clock that is kept from going back.
    pub(crate) fn keeps(&mut self, clock: Clock) {
        self.clock = Some(clock);
    }

    /// Where signals arrive.
    pub(crate) fn signals_from(&mut self, signals: OwnedFd) {
        self.signals = Some(signals);
    }

    /// Watches until the machine goes down.
    pub(crate) fn run(mut self) -> ! {
        loop {
            self.reap();
            self.start_services();
            let now = now_ms();
            if let Some((end, deadline)) = self.ending
                && (self.services.is_stopped() || now >= deadline)
            {
                power::finish(end, self.watchdog.take());
            }
            if self.trial.as_ref().is_some_and(|trial| trial.is_late(now)) {
                self.trial_failed("not found healthy in time");
            }
            if let Some(watchdog) = &mut self.watchdog {
                watchdog.feed(now);
            }
            if let Some(clock) = &mut self.clock {
                clock.keep_at(now);
            }
            for source in self.wait(now) {
                self.handle(source);
            }
        }
    }

    /// Starts and stops whatever is due.
    pub(crate) fn start_services(&mut self) {
        loop {
            let actions = self.services.due(now_ms());
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.act(action);
            }
        }
    }

    fn act(&mut self, action: Action) {
        let (Action::Start(index) | Action::Terminate(index) | Action::Kill(index)) = action;
        let Some(service) = self.services.get(index) else { return };
        match action {
            Action::Start(_) => self.start(index),
            Action::Terminate(_) => {
                note(&format!("service {}: SIGTERM", service.name));
                self.processes_of(index).for_each(process::terminate);
            }
            Action::Kill(_) => {
                say(&format!("service {} does not stop: SIGKILL", service.name));
                process::kill_group(&service.name);
            }
        }
    }

    fn processes_of(&self, index: usize) -> impl Iterator<Item = Pid> {
        self.children.iter().filter(move |child| child.1 == index).map(|child| child.0)
    }

    fn start(&mut self, index: usize) {
        let Some(service) = self.services.get(index) else { return };
        if self.engine.as_deref() == Some(&service.name) {
            say(&format!("engine {} starting", service.name));
            if let Some(trial) = &mut self.trial {
                trial.reached("engine started");
            }
        } else {
            note(&format!("service {} starting", service.name));
        }
        match process::start(index, service) {
            Ok((pid, pipe)) => {
                self.children.push((pid, index));
                self.pipes.push(pipe);
            }
            Err(failure) => self.ended(index, false, &failure.to_string()),
        }
    }

    /// Collects every process that ended: those of services, and orphans that came to PID 1.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let Some(at) = self.children.iter().position(|child| child.0 == pid) else { continue };
            let (_, index) = self.children.swap_remove(at);
            self.ended(index, status.exit_status() == Some(0), &describe(status));
        }
    }

    fn ended(&mut self, index: usize, success: bool, how: &str) {
        // Its last words come before the news of its end.
        self.pipes.iter_mut().filter(|pipe| pipe.index == index).for_each(|pipe| {
            pipe.read();
        });
        let stopping = self.ending.is_some();
        let verdict = self.services.ended(index, success, now_ms());
        let Some(service) = self.services.get(index) else { return };
        if stopping || service.leftovers == Leftovers::Kill {
            process::kill_group(&service.name);
        }
        let name = &service.name;
        let judged = match &self.trial {
            Some(trial) if !stopping => trial.after(name, success),
            _ => trial::Verdict::Open,
        };
        let last_words = match judged {
            trial::Verdict::Failed => self.last_words(index, how),
            _ => String::new(),
        };
        match verdict {
            Verdict::Restart { after_ms } => {
                say(&format!("service {name} {how}; again in {after_ms} ms"));
            }
            Verdict::GivenUp => say(&format!("service {name} {how}; not started again")),
            Verdict::Done | Verdict::Stopped => note(&format!("service {name} {how}")),
        }
        match judged {
            trial::Verdict::Open => {}
            trial::Verdict::Passed => self.trial = None,
            trial::Verdict::Failed => self.trial_failed(&last_words),
        }
    }

    /// What a service said last, or else how it ended.
    fn last_words(&self, index: usize, how: &str) -> String {
        let open = self.pipes.iter().find(|pipe| pipe.index == index).map(OutputPipe::last);
        // Its output may have ended before it did.
        let ended = self.last_words.as_ref().filter(|(of, _)| *of == index);
        let last = open.or(ended.map(|(_, line)| line.as_str()));
        last.filter(|line| !line.is_empty()).unwrap_or(how).to_owned()
    }

    /// Keeps why and restarts: the loader tries again, or takes the other slot.
    fn trial_failed(&mut self, cause: &str) {
        if let Some(mut trial) = self.trial.take() {
            trial.failed(cause);
            self.shut_down(End::Restart, "the trial has failed");
        }
    }

    fn sources(&self) -> Vec<(Source, PollFd<'_>)> {
        let mut list = Vec::new();
        let input = |source, fd| (source, PollFd::from_borrowed_fd(fd, PollFlags::IN));
        list.extend(self.signals.iter().map(|fd| input(Source::Signals, fd.as_fd())));
        list.extend(self.events.iter().map(|fd| input(Source::Events, fd.as_fd())));
        list.extend(self.log_socket.iter().map(|fd| input(Source::LogReader, fd.as_fd())));
        let console = log::waiting_console();
        list.extend(
            console.map(|fd| (Source::Console, PollFd::from_borrowed_fd(fd, PollFlags::OUT))),
        );
        let keys = self.keys.iter().enumerate();
        list.extend(keys.map(|(index, key)| input(Source::Key(index), key.0.as_fd())));
        let pipes = self.pipes.iter().enumerate();
        list.extend(pipes.map(|(index, pipe)| input(Source::Pipe(index), pipe.as_fd())));
        list
    }

    /// Waits for something to happen; the highest numbered sources first, so that they can be
    /// removed while the list is worked off.
    fn wait(&self, now: u64) -> Vec<Source> {
        let (sources, mut fds): (Vec<Source>, Vec<PollFd<'_>>) = self.sources().into_iter().unzip();
        let timeout = self.next_wake().map(|at| {
            let pause = at.saturating_sub(now);
            let nanoseconds = i64::try_from(pause % 1000).unwrap_or(0) * 1_000_000;
            Timespec { tv_sec: i64::try_from(pause / 1000).unwrap_or(1), tv_nsec: nanoseconds }
        });
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return Vec::new();
        }
        let ready = sources.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        let mut ready: Vec<Source> = ready.map(|(source, _)| source).collect();
        ready.reverse();
        ready
    }

    fn next_wake(&self) -> Option<u64> {
        let watchdog = self.watchdog.as_ref().map(Watchdog::next_ms);
        let ending = self.ending.map(|(_, deadline)| deadline);
        // Without signals nobody would wake the loop for a child that ended.
        let blind = self.signals.is_none().then(|| now_ms().saturating_add(200));
        let trial = self.trial.as_ref().map(Trial::deadline_ms);
        [self.services.next_due(), watchdog, trial, ending, blind].into_iter().flatten().min()
    }

    fn handle(&mut self, source: Source) {
        match source {
            Source::Signals => self.take_signals(),
            Source::Events => self.take_events(),
            Source::Console => log::flush(),
            Source::LogReader => self.serve_log_reader(),
            Source::Key(index) => match self.keys.get_mut(index).map(PowerKey::pressed) {
                Some(Some(true)) => self.shut_down(End::PowerOff, "power key"),
                Some(None) => drop(self.keys.swap_remove(index)),
                _ => {}
            },
            Source::Pipe(index) => {
                if self.pipes.get_mut(index).is_some_and(|pipe| !pipe.read()) {
                    let pipe = self.pipes.swap_remove(index);
                    self.last_words = Some((pipe.index, pipe.last().to_owned()));
                }
            }
        }
    }

    fn take_signals(&mut self) {
        /// Bytes of `struct signalfd_siginfo`; the signal's number comes first.
        const SIGNAL_BYTES: usize = 128;
        let mut bytes = [0; SIGNAL_BYTES * 8];
        let Some(signals) = &self.signals else { return };
        let length = rustix::io::read(signals, &mut bytes[..]).unwrap_or(0);
        let messages = bytes.get(..length).unwrap_or_default().chunks_exact(SIGNAL_BYTES);
        for number in messages.filter_map(|message| message.first_chunk()) {
            if let Some((end, reason)) = power::asked_by(i32::from_ne_bytes(*number)) {
                self.shut_down(end, reason);
            }
        }
    }

    fn shut_down(&mut self, end: End, reason: &str) {
        if self.ending.is_none() {
            say(&format!("shutting down ({reason})"));
            self.led.iter().for_each(StatusLed::stopping);
            self.ending = Some((end, now_ms().saturating_add(STOP_DEADLINE_MS)));
            self.services.stop();
        }
    }

    fn take_events(&mut self) {
        let mut buffer = [0; EVENT_BYTES];
        loop {
            let Some(events) = &self.events else { return };
            match next_event(events, &mut buffer) {
                Received::Nothing => return,
                Received::Foreign => {}
                Received::Lost => {
                    note("events of devices were lost; looking at all devices again");
                    self.ask(Work::AllDevices);
                    self.keys = PowerKey::open_all();
                    self.led.iter().for_each(StatusLed::show_again);
                }
                Received::Message(message) => {
                    if let Some(event) = Uevent::parse(message) {
                        self.device_event(&event);
                    }
                }
            }
        }
    }

    fn device_event(&mut self, event: &Uevent<'_>) {
        if event.action != "add" {
            return;
        }
        if !event.modalias.is_empty() {
            self.ask(Work::Device(event.modalias.to_owned()));
        }
        self.led.iter().for_each(|led| led.device_added(event));
        match event.subsystem {
            "input" => self.keys.extend(PowerKey::open(event.node)),
            "watchdog" if self.watchdog.is_none() => self.watchdog = Watchdog::open(now_ms()),
            _ => {}
        }
    }

    fn ask(&self, work: Work) {
        // A thread that is gone said so; the devices that are there keep working.
        let _ = self.work.as_ref().map(|sender| sender.send(work));
    }

    fn serve_log_reader(&self) {
        static READERS: AtomicUsize = AtomicUsize::new(0);
        let Some(Ok((stream, _))) = self.log_socket.as_ref().map(UnixListener::accept) else {
            return;
        };
        if READERS.fetch_add(1, Ordering::Relaxed) >= LOG_READERS {
            READERS.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let send = move || {
            // A reader that goes away or does not read has chosen so.
            let _ = send_log(stream);
            READERS.fetch_sub(1, Ordering::Relaxed);
        };
        if std::thread::Builder::new().name("log reader".into()).spawn(send).is_err() {
            READERS.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn send_log(mut stream: UnixStream) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(READER_TIMEOUT))?;
    stream.write_all(&log::kept())
}

fn open_log_socket() -> Option<UnixListener> {
    // Left by nobody: /run is new at every start.
    let listener = UnixListener::bind(LOG_SOCKET).ok()?;
    listener.set_nonblocking(true).ok()?;
    // What services say may hold secrets: for root only.
    fs::set_permissions(LOG_SOCKET, Permissions::from_mode(0o600)).ok()?;
    Some(listener)
}

fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (_, Some(signal)) => format!("was killed by signal {signal}"),
        _ => "ended".to_owned(),
    }
}
