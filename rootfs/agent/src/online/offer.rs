//! What a channel offers this device.

use std::io::Read as _;
use std::time::Duration;

use ondisk::boot_record::State as SlotState;
use ondisk::channel::{self, Channel, State, places};
use ondisk::digest::Digest;
use ondisk::trust_root::TrustRoot;

use super::web::{Trouble, Web};

/// What of a device matters for an offer.
#[derive(Clone, Debug)]
pub struct Device<'a> {
    /// Name of its board.
    pub board: &'a str,
    /// Its machine id.
    pub machine_id: &'a str,
    /// Whose signatures count.
    pub trust: &'a TrustRoot,
    /// The system that runs.
    pub running: Option<Digest>,
    /// Its rollback index.
    pub running_index: u64,
    /// The system in the other slot.
    pub other: Option<Digest>,
    /// What the record says about that slot.
    pub other_state: SlotState,
    /// The version that failed its trials last.
    pub failed: Option<&'a str>,
    /// The number of the channel that was seen last.
    pub seen: u64,
    /// What its clock says, in seconds since 1970.
    pub now_s: u64,
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Install it.
    Install,
    /// It runs already.
    Runs,
    /// It waits for the next start already.
    Staged,
    /// It failed here, and the same again would fail again.
    Failed,
    /// Other devices come first.
    NotYet,
    /// It can only follow a newer system than the one that runs.
    NeedsAnother,
    /// The publisher has paused it.
    Paused,
    /// The publisher has taken it back.
    Withdrawn,
    /// The publisher has taken it back for good, as one that was signed with a stolen key.
    Revoked,
    /// The server lags behind what this device has seen.
    Older,
}

impl Verdict {
    /// Decides.
    pub fn of(channel: &Channel, device: &Device<'_>) -> Self {
        let release = Some(channel.slot_manifest.sha256);
        let staged = matches!(device.other_state, SlotState::Unproven { tries: 1.. });
        match () {
            () if channel.sequence < device.seen => Self::Older,
            () if release == device.running => Self::Runs,
            () if device.trust.revokes(&channel.slot_manifest.sha256) => Self::Revoked,
            () if channel.state == State::Withdrawn => Self::Withdrawn,
            () if staged && release == device.other => Self::Staged,
            () if device.failed == Some(channel.version.as_str()) => Self::Failed,
            () if channel.state == State::Paused => Self::Paused,
            () if !channel.follows(device.running_index) => Self::NeedsAnother,
            () if !channel.admits(device.machine_id, device.now_s) => Self::NotYet,
            () => Self::Install,
        }
    }

    /// Whether somebody who asks for it by hand gets it all the same.
    pub fn can_be_overruled(&self) -> bool {
        matches!(self, Self::Install | Self::Failed | Self::NotYet)
    }

    /// In one word, for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Runs => "runs",
            Self::Staged => "staged",
            Self::Failed => "failed",
            Self::NotYet => "not-yet",
            Self::NeedsAnother => "needs-another",
            Self::Paused => "paused",
            Self::Withdrawn => "withdrawn",
            Self::Revoked => "revoked",
            Self::Older => "older",
        }
    }

    /// In one clause.
    pub fn words(&self, channel: &Channel, seen: u64) -> String {
        let version = &channel.version;
        match self {
            Self::Install => format!("{version} is there"),
            Self::Runs => format!("{version} runs already"),
            Self::Staged => format!("{version} waits for the next start already"),
            Self::Failed => format!("{version} failed here and is not tried again by itself"),
            Self::NotYet => format!("{version} is there; other devices come first"),
            Self::NeedsAnother => {
                let needs = channel.conditions.needs.as_ref();
                let index = needs.map_or(0, |needs| needs.rollback_index);
                format!("{version} is there for systems of rollback index {index} and above")
            }
            Self::Paused => format!("{version} is paused by its publisher"),
            Self::Withdrawn => format!("{version} was withdrawn by its publisher"),
            Self::Revoked => format!("{version} was revoked by its publisher"),
            Self::Older => format!(
                "the server has number {} of the channel, this device has seen {seen}",
                channel.sequence
            ),
        }
    }
}

/// Tries to get the channel's file.
const TRIES: u32 = 3;
const WAIT: Duration = Duration::from_secs(2);

/// Fetches a channel and checks that it is the one that was asked for, signed by a trusted key.
///
/// Errors: in one clause, with what to do in a second line if that is known.
pub fn fetch(
    web: &dyn Web,
    name: &str,
    board: &str,
    trust: &TrustRoot,
    sleep: &mut dyn FnMut(Duration),
) -> Result<Channel, String> {
    let bytes = get(web, &places::channel(name, board), channel::MAX_BYTES, sleep)
        .map_err(|trouble| format!("channel {name}: {}", trouble.why()))?;
    let found = channel::Unverified::parse(&bytes).and_then(|found| found.verify(trust));
    let (channel, _) = found.map_err(|error| {
        let hint = match error {
            channel::Error::Envelope(ondisk::envelope::Error::Magic) => {
                "is it the right address, and does the network ask for a login?"
            }
            channel::Error::Envelope(_) => "`iota status` shows the keys that this device trusts",
            _ => "the publisher may need a newer system on this device first",
        };
        format!("channel {name}: {error}\nhint: {hint}")
    })?;
    if channel.name != name || channel.board != board {
        return Err(format!(
            "channel {name} of {board}: the server sends {} of {}",
            channel.name, channel.board
        ));
    }
    Ok(channel)
}

/// A small file, of one byte more than `most` if it is a larger one.
pub(super) fn get(
    web: &dyn Web,
    path: &str,
    most: usize,
    sleep: &mut dyn FnMut(Duration),
) -> Result<Vec<u8>, Trouble> {
    let most = most as u64 + 1;
    let mut tries = 0;
    loop {
        tries += 1;
        let answer = web.get(path, None).and_then(|answer| {
            let mut bytes = Vec::new();
            let read = answer.body.take(most).read_to_end(&mut bytes);
            read.map_err(|error| Trouble::Passing { why: error.to_string(), wait: None })?;
            match answer.total {
                Some(total) if total < most && total != bytes.len() as u64 => {
                    Err(Trouble::Passing { why: "the connection broke off".to_owned(), wait: None })
                }
                _ => Ok(bytes),
            }
        });
        match answer {
            Ok(bytes) => return Ok(bytes),
            Err(Trouble::Passing { wait, .. }) if tries < TRIES => sleep(wait.unwrap_or(WAIT)),
            Err(trouble) => return Err(trouble),
        }
    }
}
