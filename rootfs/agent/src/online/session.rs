//! One look for an update, and what comes of it: the edge around [`offer`] and [`transfer`].

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use config::registry::Repository;
use config::{Proxy, Secret, Update};
use ondisk::boot_record::State as SlotState;
use ondisk::channel::Channel;
use ondisk::system::SIGNED_TIME;
use ondisk::trust_root::TrustRoot;
use serde_json::json;

use super::local;
use super::mirrors::Mirrored;
use super::offer::{self, Device, Verdict};
use super::registry::Registry;
use super::report::Report;
use super::roots;
use super::seen::Seen;
use super::signed_time;
use super::transfer::{self, Transfer, Transferred};
use super::web::{Http, Web};
use crate::apply::{Progress, Rules, Until};
use crate::own_config::{Report as Config, outside};
use crate::own_disk::OwnDisk;
use crate::slots::Slots;
use crate::time::now_s;
use crate::update::{Facts, Outcome};

/// Where things lie.
#[derive(Clone, Debug)]
pub struct Places {
    /// The configuration in force.
    pub config: PathBuf,
    /// The device's machine id.
    pub machine_id: PathBuf,
    /// Numbers of channels.
    pub seen: PathBuf,
    /// Trust roots that are newer than the system's.
    pub trust_roots: PathBuf,
    /// The newest time that a channel was signed at.
    pub signed_time: PathBuf,
    /// What came of the last look.
    pub report: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            config: Config::path().into(),
            machine_id: "/run/iota/machine-id".into(),
            seen: Seen::path(),
            trust_roots: roots::path(),
            signed_time: SIGNED_TIME.into(),
            report: Report::path(),
        }
    }
}

impl Places {
    /// What the owner wants.
    pub fn update(&self) -> Result<Update, String> {
        Config::read(&self.config).map(|report| report.config.update().clone())
    }

    /// Who is asked in place of the server.
    pub(super) fn proxy(&self) -> Result<Proxy, String> {
        Config::read(&self.config).map(|report| report.config.proxy().clone())
    }

    /// Who this device is; before it knows, it is nobody in particular.
    pub fn machine_id(&self) -> String {
        fs::read_to_string(&self.machine_id).unwrap_or_default().trim().to_owned()
    }
}

/// A look at the channel.
pub struct Look {
    /// Whom to ask for the rest.
    pub web: Box<dyn Web>,
    /// What it says.
    pub channel: Channel,
    /// What that means here.
    pub verdict: Verdict,
    /// In one clause.
    pub words: String,
}

/// The servers that the configuration names, for a channel of a board.
fn server(
    places: &Places,
    update: &Update,
    (board, channel): (&str, &str),
) -> Result<Box<dyn Web>, String> {
    let source = update.source().ok_or(
        "there is no server to ask\n\
         hint: `iota config set update.source http://…`, or name a bundle",
    )?;
    let (bundle, proxy) = (outside::bundle(), places.proxy()?);
    let at = |address: &str, login: Option<Secret>| -> Box<dyn Web> {
        match Repository::parse(address) {
            Some(repository) => {
                let tag = (channel, board);
                Box::new(Registry::new(&repository, tag, &bundle, &proxy).with_login(login))
            }
            None => Box::new(Http::new(address, &bundle, &proxy).with_login(login)),
        }
    };
    let own = at(source, update.authorization());
    if update.mirrors().is_empty() {
        return Ok(own);
    }
    // The owner's name and password are for the owner's server.
    let others = update.mirrors().iter().map(|address| at(address, None));
    Ok(Box::new(Mirrored::new([own].into_iter().chain(others).collect())))
}

/// Looks, keeps what has been seen, and reports it.
///
/// Errors: in one clause, and in the report.
pub fn look(facts: &Facts, update: &Update) -> Result<Look, String> {
    let places = &facts.online;
    let looked = look_now(facts, update).map_err(|message| with_server(message, update));
    let report = match &looked {
        Ok(look) => Report {
            looked_s: Some(now_s()),
            verdict: look.verdict.word().to_owned(),
            says: look.words.clone(),
            error: None,
            hint: None,
            number: look.channel.sequence,
            issued_s: look.channel.issued_s,
            version: Some(look.channel.version.clone()),
            critical: look.channel.conditions.critical,
            notes: look.channel.conditions.notes.clone(),
        },
        Err(message) => match message.split_once("\nhint: ") {
            Some((error, hint)) => failed(places, error, Some(hint)),
            None => failed(places, message, None),
        },
    };
    report.write(&places.report)?;
    looked
}

/// Whoever reads what went wrong, and nothing better to do about it, wants to know who was asked.
fn with_server(message: String, update: &Update) -> String {
    match update.source() {
        Some(source) if !message.contains("\nhint: ") => {
            format!("{message}\nhint: {source} was asked (`iota config get update.source`)")
        }
        _ => message,
    }
}

/// What is known stays known when a look or an installation fails.
fn failed(places: &Places, error: &str, hint: Option<&str>) -> Report {
    let before = Report::read(&places.report).unwrap_or_default();
    let error = error.lines().next().map(str::to_owned);
    Report { error, hint: hint.map(str::to_owned), ..before }
}

/// What a server says, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The newest trust root.
    pub root: TrustRoot,
    /// The channel.
    pub channel: Channel,
    /// The highest number of the channel that was seen before.
    pub seen: u64,
}

/// Asks a server for trust roots and then for a channel of a board, and keeps what has to be kept
/// of both.
pub fn ask(
    web: &dyn Web,
    (board, name): (&str, &str),
    known: TrustRoot,
    places: &Places,
    sleep: &mut dyn FnMut(Duration),
) -> Result<Answer, String> {
    let root = roots::catch_up(web, known, &places.trust_roots, sleep)?;
    let channel = offer::fetch(web, name, board, &root, sleep)?;
    let mut kept = Seen::read(&places.seen, &root.channel);
    let seen = kept.number(name);
    // Without a data partition it is not kept, which nobody can help.
    let _ = kept.rise(&places.seen, name, channel.sequence);
    let _ = signed_time::rise(&places.signed_time, channel.issued_s);
    Ok(Answer { root, channel, seen })
}

/// Most channels that one leads to another over.
const MOST_STEPS: usize = 8;

/// Who is asked for a channel.
pub type Servers<'a> = dyn Fn(&str) -> Result<Box<dyn Web>, String> + 'a;

/// The same for a system of this rollback index: where its channel offers what only newer ones can
/// be followed by, the channel is asked that brings it there.
///
/// Whom the last channel came from is part of the result.
pub fn ask_through(
    servers: &Servers<'_>,
    (board, name): (&str, &str),
    (mut known, running_index): (TrustRoot, u64),
    places: &Places,
    sleep: &mut dyn FnMut(Duration),
) -> Result<(Answer, Box<dyn Web>), String> {
    let mut channel = name.to_owned();
    for _ in 0..MOST_STEPS {
        let web = servers(&channel)?;
        let answer = ask(&*web, (board, &channel), known, places, sleep)?;
        let needs = answer.channel.conditions.needs.as_ref();
        match needs.and_then(|needs| needs.through.clone()) {
            Some(through) if !answer.channel.follows(running_index) => {
                (known, channel) = (answer.root, through);
            }
            _ => return Ok((answer, web)),
        }
    }
    Err(format!("channel {name}: {MOST_STEPS} others lead to it, and none ends"))
}

fn look_now(facts: &Facts, update: &Update) -> Result<Look, String> {
    let places = &facts.online;
    let trust = facts.trust()?;
    let disk = OwnDisk::open(&facts.devices, &facts.boot()?)?;
    let other = disk.place.target();
    let runs = disk.place.slots[disk.place.running];
    let running_index = local::rollback_index(&disk.device, runs).unwrap_or_default();
    let board = trust.board.as_str();
    let server = |channel: &str| server(places, update, (board, channel));
    let asked = (board, update.channel());
    let (answer, web) =
        ask_through(&server, asked, (trust.root, running_index), places, &mut thread::sleep)?;
    let Answer { root, channel, seen: number } = answer;
    let slots = Slots::read(&disk.device, &disk.place, &root);
    let other_state = slots.record.map_or(SlotState::Empty, |record| record.slots[other].state);
    let device = Device {
        board: &trust.board,
        machine_id: &places.machine_id(),
        trust: &root,
        running: local::release(&disk.device, runs),
        running_index,
        other: local::release(&disk.device, disk.place.slots[other]),
        other_state,
        failed: slots.failed_version(),
        seen: number,
        now_s: now_s(),
    };
    let verdict = Verdict::of(&channel, &device);
    let words = verdict.words(&channel, number);
    Ok(Look { web, channel, verdict, words })
}

/// `iota update check`.
pub fn check(facts: &Facts) -> Outcome {
    match facts.online.update().and_then(|update| look(facts, &update)) {
        Ok(look) => {
            let conditions = &look.channel.conditions;
            let facts = json!({
                "verdict": look.verdict.word(),
                "version": look.channel.version,
                "number": look.channel.sequence,
                "bundle-bytes": look.channel.bundle_bytes,
                "critical": conditions.critical,
                "notes": conditions.notes,
            });
            match look.verdict {
                Verdict::Install => {
                    let notes = conditions.notes.iter().map(|note| format!("\n  {note}"));
                    Outcome::Done(look.words + &notes.collect::<String>(), facts)
                }
                _ => Outcome::Nothing(look.words),
            }
        }
        Err(message) => message.into(),
    }
}

/// `iota update install` without a file, or `iota update download`: looks, then brings what there
/// is into the slot, and has it started next or not.
pub fn install(
    facts: &Facts,
    disk: &mut OwnDisk,
    until: Until,
    progress: &mut dyn FnMut(Progress),
    say: &mut dyn FnMut(&str),
) -> Outcome {
    let update = match facts.online.update() {
        Ok(update) => update,
        Err(message) => return message.into(),
    };
    let look = match look(facts, &update) {
        Ok(look) => look,
        Err(message) => return message.into(),
    };
    if !look.verdict.can_be_overruled() {
        return Outcome::Nothing(look.words);
    }
    let rate = update.most_kb_s().map(|most| u64::from(most) * 1000);
    let outcome = transfer(facts, &*look.web, (&look.channel, rate, until), disk, progress, say);
    let report = match &outcome {
        Outcome::Done(..) if until == Until::Written => return outcome,
        Outcome::Failed { error, hint, .. } => failed(&facts.online, error, hint.as_deref()),
        _ => Report {
            verdict: Verdict::Staged.word().to_owned(),
            says: Verdict::Staged.words(&look.channel, 0),
            error: None,
            hint: None,
            ..Report::read(&facts.online.report).unwrap_or_default()
        },
    };
    if let Err(error) = report.write(&facts.online.report) {
        say(&error);
    }
    outcome
}

fn transfer(
    facts: &Facts,
    web: &dyn Web,
    (channel, rate, until): (&Channel, Option<u64>, Until),
    disk: &mut OwnDisk,
    progress: &mut dyn FnMut(Progress),
    say: &mut dyn FnMut(&str),
) -> Outcome {
    let trust = match facts.trust() {
        Ok(trust) => trust,
        Err(message) => return message.into(),
    };
    let rules = Rules { board: &trust.board, profile: trust.profile, trust: &trust.root };
    let sleep: &mut dyn FnMut(Duration) = &mut thread::sleep;
    let mut transfer = Transfer { web, channel, rate, until, rules: &rules, say, progress, sleep };
    match transfer::run(&mut transfer, &mut disk.device, &disk.place) {
        Ok(Transferred { installed, carrier, bytes, requests }) => {
            let (version, slot) = (&installed.version, installed.slot);
            let what = match until {
                Until::Staged => {
                    format!("{version} is installed in slot {slot} and is started next, on trial")
                }
                Until::Written => format!(
                    "{version} is in slot {slot}; `iota update install` has it started next"
                ),
            };
            let text = format!("{what}; {} KB in {requests} requests ({carrier})", bytes / 1000);
            let facts = json!({
                "slot": installed.slot.letter(),
                "version": version,
                "image-bytes": installed.image_bytes,
                "kept-bytes": installed.kept_bytes,
                "fetched-bytes": bytes,
                "requests": requests,
                "carrier": carrier,
                "staged": until == Until::Staged,
            });
            Outcome::Done(text, facts)
        }
        Err(error) => Outcome::of(&error),
    }
}
