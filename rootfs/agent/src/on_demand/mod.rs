//! Services of apps that run on demand: `iota on-demand` holds their ports, starts a container at
//! the first connection and stops it when none has been open for a while.
//!
//! ```text
//!            ┌ listening sockets ─┐          ┌ engine: start, stop (a thread for each)
//!   client ──┤   iota on-demand   ├── pair ──┴──► the container's own address and port
//!            └────────────────────┘
//! ```
//!
//! One thread polls everything and never waits for anybody else: not for the engine, not for a
//! slow client. While nothing happens it sleeps without a time limit. What is to be held is told
//! by files ([`plan`]), which also outlive this process: one that is started again goes on.
//!
//! Reading order: this file → [`plan`] → [`life`] (pure) → [`pair`] → [`held`] → [`compose`].

pub mod compose;
pub mod held;
pub mod life;
pub mod pair;
pub mod plan;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify;
use rustix::io::Errno;

use held::{Containers, Done, Held, Jobs, Source};
use plan::{Places, Plan, State};

/// Before ports that were taken when this process began are tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Holds the ports of all plans.
pub struct Holder<'a> {
    places: &'a Places,
    say: &'a dyn Fn(&str),
    began: Instant,
    /// Speaks when a plan has changed.
    watch: OwnedFd,
    jobs: Jobs,
    done: Receiver<(u64, Done)>,
    held: Vec<Held>,
    /// What was told of each app.
    told: BTreeMap<String, State>,
    /// When plans that are not held in full are tried again.
    again: Option<Duration>,
    next_id: u64,
    piece: Vec<u8>,
}

impl<'a> Holder<'a> {
    /// Begins with the plans that are there.
    pub fn new(
        places: &'a Places,
        containers: Arc<dyn Containers>,
        say: &'a dyn Fn(&str),
    ) -> io::Result<Self> {
        places.make()?;
        places.forget_answers()?;
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let events = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::DELETE;
        inotify::add_watch(&watch, places.plans(), events)?;
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (sender, done) = mpsc::channel();
        let mut holder = Self {
            places,
            say,
            began: Instant::now(),
            watch,
            jobs: Jobs { containers, done: sender, bell },
            done,
            held: Vec::new(),
            told: BTreeMap::new(),
            again: None,
            next_id: 0,
            piece: vec![0; pair::PIECE_BYTES],
        };
        holder.obey();
        Ok(holder)
    }

    /// Waits until something happens, and does what is to be done about it.
    pub fn turn(&mut self) -> io::Result<()> {
        let (woken, ready) = self.wait()?;
        let now = self.began.elapsed();
        for held in &mut self.held {
            let own = ready.iter().filter(|(id, _)| *id == held.id).map(|(_, source)| *source);
            let own: Vec<Source> = own.collect();
            held.hear(now, &own, &mut self.piece, self.say);
        }
        if woken {
            drain(&self.watch);
            drain(&self.jobs.bell);
        }
        if woken || self.again.is_some_and(|again| now >= again) {
            self.obey();
        }
        while let Ok((id, done)) = self.done.try_recv() {
            // One that is no longer held is nobody's business; if it is held anew, it is stopped
            // when nobody comes.
            if let Some(held) = self.held.iter_mut().find(|held| held.id == id) {
                held.note(now, done, self.say);
            }
        }
        for held in &mut self.held {
            held.attend(now, &self.jobs, &mut self.piece, self.say);
        }
        self.tell_troubles();
        Ok(())
    }

    /// Whether plans or jobs have something, and which sources of which service.
    fn wait(&self) -> io::Result<(bool, Vec<(u64, Source)>)> {
        let now = self.began.elapsed();
        let wakes = self.held.iter().filter_map(|held| held.wakes).chain(self.again).min();
        let left = wakes.map(|wakes| wakes.saturating_sub(now));
        let limit = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        let mut polled = vec![
            PollFd::new(&self.watch, PollFlags::IN),
            PollFd::new(&*self.jobs.bell, PollFlags::IN),
        ];
        let mut sources = Vec::new();
        for held in &self.held {
            for (source, poll) in held.sources() {
                sources.push((held.id, source));
                polled.push(poll);
            }
        }
        match poll(&mut polled, limit.as_ref()) {
            Err(Errno::INTR) | Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let (own, others) = polled.split_at(2);
        let woken = own.iter().any(|it| !it.revents().is_empty());
        let ready = sources.into_iter().zip(others).filter(|(_, it)| !it.revents().is_empty());
        Ok((woken, ready.map(|(source, _)| source).collect()))
    }

    /// Holds what the plans say, and no more.
    fn obey(&mut self) {
        let plans = self.places.all();
        let now = self.began.elapsed();
        // First, since one may want what another one gives up.
        self.held.retain(|held| plans.iter().any(|plan| wants(plan, held)));
        self.again = None;
        let gone = self.told.keys().filter(|app| plans.iter().all(|plan| plan.app != **app));
        for app in gone.cloned().collect::<Vec<String>>() {
            self.told.remove(&app);
            self.tell(&app);
        }
        for plan in &plans {
            let told = self.told.get(&plan.app);
            let is_news = told.is_none_or(|told| told.serial != plan.serial);
            if is_news || told.is_some_and(|told| told.unheld.is_some()) {
                self.hold(plan, is_news, now);
            }
        }
    }

    fn hold(&mut self, plan: &Plan, is_news: bool, now: Duration) {
        let mut unheld = None;
        for (name, terms) in &plan.services {
            let mut held = self.held.iter_mut();
            match held.find(|held| held.app == plan.app && held.name == *name) {
                Some(held) if is_news => held.change(terms, plan.stays, now),
                Some(_) => {}
                None => {
                    self.next_id += 1;
                    match Held::new(self.next_id, &plan.app, name, terms, plan.stays, now) {
                        Ok(held) => self.held.push(held),
                        Err(why) => unheld = Some(why),
                    }
                }
            }
        }
        let before = self.told.get(&plan.app).and_then(|told| told.unheld.clone());
        if let Some(why) = &unheld {
            self.again = Some(now + AGAIN);
            if before.as_ref() != Some(why) {
                (self.say)(&format!("app {}: {why}", plan.app));
            }
        }
        let state = State { serial: plan.serial, unheld, troubles: self.troubles(&plan.app) };
        self.told.insert(plan.app.clone(), state);
        self.tell(&plan.app);
    }

    fn troubles(&self, app: &str) -> Vec<(String, String)> {
        let own = self.held.iter().filter(|held| held.app == app);
        own.filter_map(|held| Some((held.name.clone(), held.trouble.clone()?))).collect()
    }

    fn tell_troubles(&mut self) {
        let apps: Vec<String> = self.told.keys().cloned().collect();
        for app in apps {
            let troubles = self.troubles(&app);
            if let Some(told) = self.told.get_mut(&app)
                && told.troubles != troubles
            {
                told.troubles = troubles;
                self.tell(&app);
            }
        }
    }

    fn tell(&self, app: &str) {
        if let Err(error) = self.places.tell(app, self.told.get(app)) {
            (self.say)(&format!("app {app}: the state of its ports cannot be kept: {error}"));
        }
    }
}

/// Whether a plan has this service with just these ports.
fn wants(plan: &Plan, held: &Held) -> bool {
    let mut services = plan.services.iter();
    plan.app == held.app
        && services.any(|(name, terms)| *name == held.name && terms.ports == held.ports)
}

/// Reads what is there; what it says is looked up elsewhere.
fn drain(source: &OwnedFd) {
    let mut bytes = [0; 4096];
    while rustix::io::read(source, &mut bytes[..]).is_ok_and(|length| length > 0) {}
}

#[cfg(test)]
mod tests;
