//! `iota services`: brings the declared containers up and shows their output, for ever.
//!
//! One thread for each container goes round in turns:
//!
//! ```text
//!   ┌► wait until the engine answers                   (patient; says what it waits for)
//!   │  find the container ─ not there ───────────────► load the image if need be, create, start
//!   │                     ─ made from something else ► load, remove, create, start
//!   │                     ─ first meeting, stopped ──► start
//!   │                     ─ stopped later ───────────► leave it: restarts are the engine's work
//!   │  copy its output from where the last turn left off, until it stops or the engine goes
//!   └─ pause
//! ```
//!
//! A container that comes after others begins its first turn when they have been started.
//!
//! Guarantees: engine trouble of any kind ends a turn, never the program; a container that `iota`
//! did not make is never touched; no line of output comes twice within the life of the program.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ondisk::system::Container;

use crate::archive;
use crate::client;
use crate::console::Console;
use crate::engine::{Engine, Found, State};
use crate::led::StatusLed;
use crate::stream::{NoFrame, Output};
use crate::time::Moment;

/// Said once, when everything that the image declares has been started.
const READY: &str = "system ready";

/// So many refusals in a row are no passing state: an engine that starts gives ports back
/// meanwhile.
const REFUSALS: u32 = 5;

/// How long to wait between two tries: at first, and at most.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The first pause; each one is twice the one before.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Pace {
    /// For an engine that comes up in a second or two on a device that has little else to do.
    pub const DEVICE: Self =
        Self { first: Duration::from_millis(25), longest: Duration::from_secs(5) };

    fn longer(self, pause: Duration) -> Duration {
        (pause * 2).min(self.longest)
    }
}

/// The declared containers of an engine.
pub struct Services<'a> {
    engine: &'a dyn Engine,
    name: &'a str,
    console: &'a Console,
    led: &'a StatusLed,
    pace: Pace,
    /// Has the engine restarted.
    restart: &'a (dyn Fn() -> Result<(), String> + Sync),
    /// Whether that was done: once in the life of the program, since containers end with it.
    restarted: Mutex<bool>,
    /// Whether the engine answered when last asked. Held while waiting: one thread waits for all.
    up: Mutex<bool>,
    /// Held while loading: a slow disk does one thing at a time better than two.
    loading: Mutex<()>,
    /// How many containers have not run yet in this life of the program.
    awaited: Mutex<usize>,
    /// Those that have, by name, for those that come after them.
    ran: Mutex<BTreeSet<String>>,
    one_more: Condvar,
}

/// Work to be done once the engine answers, again and again until it succeeds.
pub struct Work<'a> {
    /// What it is for.
    pub name: String,
    /// Does it.
    pub run: Box<dyn Fn() -> Result<(), String> + Sync + 'a>,
}

/// What a thread remembers of its container from turn to turn.
#[derive(Default)]
struct Attendance {
    image: Option<String>,
    /// Whether the container was met or made in this life of the program.
    met: bool,
    /// The newest output that was shown.
    shown: Option<Moment>,
    /// The start whose end was reported.
    reported_end: Option<Moment>,
    /// The last failure that was reported.
    failure: String,
    /// How often in a row the engine refused a port that nobody uses.
    refusals: u32,
}

/// Why a turn failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Engine(client::Error),
    Archive(String, archive::Error),
    Stream(NoFrame),
    NotOurs,
    NotLoaded(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(formatter),
            Self::Archive(path, error) => write!(formatter, "{path}: {error}"),
            Self::Stream(error) => error.fmt(formatter),
            Self::NotOurs => formatter.write_str(
                "a container of this name was made by somebody else; remove or rename it",
            ),
            Self::NotLoaded(id) => {
                write!(formatter, "the engine loaded the image but does not know {id}")
            }
        }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        Self::Engine(error)
    }
}

impl<'a> Services<'a> {
    /// Nothing happens before [`Services::run`].
    pub fn new(
        engine: &'a dyn Engine,
        name: &'a str,
        console: &'a Console,
        led: &'a StatusLed,
        pace: Pace,
        restart: &'a (dyn Fn() -> Result<(), String> + Sync),
    ) -> Self {
        let (up, loading, awaited) = (Mutex::new(false), Mutex::new(()), Mutex::new(0));
        let restarted = Mutex::new(false);
        let (ran, one_more) = (Mutex::default(), Condvar::new());
        #[rustfmt::skip]
        let services = Self {
            engine, name, console, led, pace, restart, restarted, up, loading, awaited, ran,
            one_more,
        };
        services
    }

    /// Attends to the containers, and does the works until each has succeeded once, until the
    /// process is ended from outside.
    pub fn run(&self, containers: &[Container], works: &[Work<'_>]) -> ! {
        self.wait_for_engine();
        let containers: Vec<&Container> =
            containers.iter().filter(|container| !container.on_demand).collect();
        *lock(&self.awaited) = containers.len() + works.len();
        if containers.is_empty() && works.is_empty() {
            self.ready();
        }
        thread::scope(|scope| {
            for container in &containers {
                scope.spawn(move || self.attend(container));
            }
            for work in works {
                scope.spawn(move || self.complete(work));
            }
            loop {
                thread::park();
            }
        })
    }

    fn complete(&self, work: &Work<'_>) {
        let (mut pause, mut told) = (self.pace.first, String::new());
        while let Err(error) = (work.run)() {
            if error != told {
                self.console.say(&format!("{}: {error}", work.name));
                told = error;
            }
            // It starts programs and may ask the network: not as often as the engine is asked.
            pause = self.pace.longer(pause).max(self.pace.longest / 5);
            thread::sleep(pause);
            self.wait_for_engine();
        }
        self.console.say(&format!("{} ready", work.name));
        self.count_as_running();
    }

    /// Comes back when all of these have been started: the description has no circles.
    fn wait_for(&self, others: &[String]) {
        let missing = |ran: &mut BTreeSet<String>| !others.iter().all(|name| ran.contains(name));
        let waited = self.one_more.wait_while(lock(&self.ran), missing);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn attend(&self, declared: &Container) -> ! {
        self.wait_for(&declared.after);
        let mut attendance = Attendance::default();
        let mut pause = self.pace.first;
        loop {
            self.wait_for_engine();
            let shown = attendance.shown;
            if let Err(failure) = self.turn(declared, &mut attendance) {
                self.report(&declared.name, &failure, &mut attendance.failure);
                self.cure(&failure, &mut attendance.refusals);
            }
            pause = match attendance.shown == shown {
                true => self.pace.longer(pause),
                false => self.pace.first,
            };
            thread::sleep(pause);
        }
    }

    /// Each failure once, until another one takes its place.
    fn report(&self, name: &str, failure: &Failure, last: &mut String) {
        // The engine itself is gone: that is said once for all containers.
        if matches!(failure, Failure::Engine(client::Error::NoConnection(..))) {
            return;
        }
        let text = failure.to_string();
        if text != *last {
            self.console.say(&format!("container {name}: {text}"));
            *last = text;
        }
    }

    /// An engine that holds a port which nobody uses would refuse the container for ever.
    fn cure(&self, failure: &Failure, refusals: &mut u32) {
        let is_lost = match failure {
            // What the engine does not tell now, it tells at the next failure.
            Failure::Engine(error) => self.engine.holds_lost_port(error).unwrap_or(false),
            _ => false,
        };
        *refusals = if is_lost { refusals.saturating_add(1) } else { 0 };
        let mut restarted = lock(&self.restarted);
        if *refusals < REFUSALS || *restarted {
            return;
        }
        *restarted = true;
        let name = self.name;
        self.console.say(&format!("engine {name} holds a port that nobody uses, restarting it"));
        if let Err(error) = (self.restart)() {
            self.console.say(&format!("engine {name} cannot be restarted: {error}"));
        }
    }

    fn wait_for_engine(&self) {
        let mut up = lock(&self.up);
        let (began, mut next_line) = (Instant::now(), Duration::from_secs(5));
        let mut pause = self.pace.first;
        while let Err(error) = self.engine.ping() {
            if *up {
                *up = false;
                self.console.say(&format!("engine {} does not answer: {error}", self.name));
            } else if began.elapsed() >= next_line {
                let seconds = began.elapsed().as_secs();
                let name = self.name;
                self.console.say(&format!("waiting for engine {name} ({seconds} s): {error}"));
                next_line *= 2;
            }
            thread::sleep(pause);
            // Not the longest pause: nothing runs until the engine does.
            pause = self.pace.longer(pause).min(self.pace.longest / 10);
        }
        if !*up {
            *up = true;
            self.console.say(&format!("engine {} ready", self.name));
        }
    }

    fn turn(&self, declared: &Container, attendance: &mut Attendance) -> Result<(), Failure> {
        let met = attendance.met;
        let image = self.image_of(declared, attendance)?;
        let wanted = self.engine.declaration(declared, &image);
        match self.engine.find(&declared.name)? {
            None => self.make(declared, &image, attendance)?,
            Some(Found { declaration: None, .. }) => return Err(Failure::NotOurs),
            Some(found) if found.declaration.as_deref() != Some(&wanted) => {
                self.replace(declared, &image, &found, attendance)?;
            }
            Some(found) if !attendance.met => self.meet(declared, &found, attendance)?,
            Some(Found { state: State::Running, .. }) => {}
            Some(found) => {
                self.report_end(&declared.name, &found, attendance);
                return Ok(());
            }
        }
        if !met {
            lock(&self.ran).insert(declared.name.clone());
            self.one_more.notify_all();
            self.count_as_running();
        }
        self.show_output(&declared.name, attendance)
    }

    /// The last container that comes up makes the system ready.
    fn count_as_running(&self) {
        let mut awaited = lock(&self.awaited);
        *awaited = awaited.saturating_sub(1);
        if *awaited == 0 {
            self.ready();
        }
    }

    fn ready(&self) {
        self.console.say(READY);
        if let Err(error) = self.led.show_running() {
            self.console.say(&error);
        }
    }

    /// The image's id from its archive; the archive is part of the root and does not change.
    fn image_of(&self, declared: &Container, known: &mut Attendance) -> Result<String, Failure> {
        if let Some(id) = &known.image {
            return Ok(id.clone());
        }
        Ok(known.image.insert(image_id(&declared.image)?).clone())
    }

    fn make(
        &self,
        declared: &Container,
        image: &str,
        attendance: &mut Attendance,
    ) -> Result<(), Failure> {
        self.load(declared, image)?;
        self.engine.create(declared, image)?;
        self.start(declared)?;
        (attendance.met, attendance.shown) = (true, None);
        Ok(())
    }

    /// An older system image made this container. The new image is there before the old one goes,
    /// so that a fault in between leaves something that runs.
    fn replace(
        &self,
        declared: &Container,
        image: &str,
        old: &Found,
        attendance: &mut Attendance,
    ) -> Result<(), Failure> {
        let name = &declared.name;
        self.console.say(&format!("container {name} changed with the system image, replacing it"));
        self.load(declared, image)?;
        self.engine.remove(name)?;
        self.make(declared, image, attendance)?;
        if old.image != image {
            self.engine.remove_image(&old.image)?;
        }
        Ok(())
    }

    /// The container is there from an earlier boot, or from an earlier life of this program.
    fn meet(
        &self,
        declared: &Container,
        found: &Found,
        attendance: &mut Attendance,
    ) -> Result<(), Failure> {
        // What it wrote before it was last started is not news.
        if matches!(found.state, State::Running | State::Restarting) {
            attendance.shown = found.started;
            self.console.say(&format!("container {} running", declared.name));
        } else {
            attendance.shown = Some(Moment::now());
            self.start(declared)?;
        }
        attendance.met = true;
        Ok(())
    }

    fn start(&self, declared: &Container) -> Result<(), Failure> {
        self.engine.start(&declared.name)?;
        self.console.say(&format!("container {} started", declared.name));
        Ok(())
    }

    fn load(&self, declared: &Container, id: &str) -> Result<(), Failure> {
        let _guard = lock(&self.loading);
        if self.engine.has_image(id)? {
            return Ok(());
        }
        let began = Instant::now();
        let length = give(self.engine, &declared.image, id)?;
        let (path, kib, ms) = (&declared.image, length / 1024, began.elapsed().as_millis());
        self.console.say(&format!("image {path} loaded: {kib} KiB in {ms} ms"));
        Ok(())
    }

    fn report_end(&self, name: &str, found: &Found, attendance: &mut Attendance) {
        if found.started != attendance.reported_end {
            attendance.reported_end = found.started;
            let code = found.exit_code;
            self.console.say(&format!("container {name} ended with status {code}"));
        }
    }

    fn show_output(&self, name: &str, attendance: &mut Attendance) -> Result<(), Failure> {
        let mut stream = self.engine.output(name, attendance.shown)?;
        attendance.failure.clear();
        let mut output = Output::after(attendance.shown);
        let mut show = |line: &str| self.console.app(name, line);
        let mut buffer = [0; 8192];
        let mut result = Ok(());
        // The stream ends, or breaks off: either way the next turn finds out why.
        while let Ok(count @ 1..) = stream.read(&mut buffer)
            && result.is_ok()
        {
            result = output.take(&buffer[..count], &mut show).map_err(Failure::Stream);
            attendance.shown = output.last();
        }
        output.finish(&mut show);
        result
    }
}

/// The id of an image in the root.
pub(crate) fn image_id(path: &str) -> Result<String, Failure> {
    let failed = |error| Failure::Archive(path.to_owned(), error);
    let mut file = File::open(path).map_err(|error| failed(error.into()))?;
    archive::image_id(&mut file).map_err(failed)
}

/// Gives the engine an image of the root, which has that id; the archive's length in bytes.
pub(crate) fn give(engine: &dyn Engine, path: &str, id: &str) -> Result<u64, Failure> {
    let failed = |error: io::Error| Failure::Archive(path.to_owned(), error.into());
    let mut file = File::open(path).map_err(failed)?;
    let length = file.seek(io::SeekFrom::End(0)).map_err(failed)?;
    file.rewind().map_err(failed)?;
    engine.load_image(&mut file, length)?;
    match engine.has_image(id)? {
        true => Ok(length),
        false => Err(Failure::NotLoaded(id.to_owned())),
    }
}

/// A thread that panicked has ended the program, so no lock is ever found in a bad state.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
