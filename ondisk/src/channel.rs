//! A channel: which release the devices of a board should run, signed, in one small file that any
//! web server can hand out.
//!
//! ```text
//! iota-channel 1
//! name stable
//! board generic-aarch64
//! sequence 7
//! issued 1764341000
//! state open
//! share 65536
//! version 2026.11.1
//! rollback-index 3
//! slot-manifest length=1402 sha256=…
//! front length=98304
//! bundle length=48412345
//! pack base=none table-length=9213 table-sha256=… length=61234567
//! pack base=8a88… table-length=12345 table-sha256=… length=812345
//! ```
//! Text in one canonical form, as a manifest is. It names a release by the hash of its slot
//! manifest, which a release key signs: a channel can offer a release or withhold it, and say how
//! to carry it more cheaply, but not make one. `front` is where the bundle's stream starts.
//!
//! Between the bundle and the packs there may be [`conditions`].
//!
//! A device takes no channel whose sequence is below one that it has seen. It needs no clock:
//! `issued` is only shown, and what a share rises to by the clock is what a device waits for.
use alloc::borrow::ToOwned as _;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use crate::bundle::{self, Blob};
use crate::digest::Digest;
use crate::envelope::{self, Envelope, Role, Signers};
use crate::manifest::{MAX_BOARD_BYTES, MAX_VERSION_BYTES};
use crate::trust_root::TrustRoot;

pub mod conditions;
mod error;

pub use conditions::{Conditions, Needs};
pub use error::Error;

/// Longest file.
pub const MAX_BYTES: usize = 8 * 1024;
/// Longest name of a channel.
pub const MAX_NAME_BYTES: usize = 32;
/// Most packs that a channel lists.
pub const MAX_PACKS: usize = 16;
/// Longest table of a pack.
pub const MAX_TABLE_BYTES: u64 = 4 << 20;
/// The share of all devices.
pub const ALL: u32 = 1 << 16;

/// What is to be done with the release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Devices within the share install it.
    Open,
    /// Nobody installs it for now.
    Paused,
    /// Nobody installs it, and a device that has it staged gives it up.
    Withdrawn,
}

impl State {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Open, "open"), (Self::Paused, "paused"), (Self::Withdrawn, "withdrawn")];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(state, _)| state == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

/// A file with the pieces of a release ([`crate::pack`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackEntry {
    /// Hash of the slot manifest of the release that it needs; without one, it needs none.
    pub base: Option<Digest>,
    /// The table that starts the file.
    pub table: Blob,
    /// Number of bytes of the whole file.
    pub length: u64,
}

/// What a channel says, as the publisher puts it together: nothing is checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// `a-z`, `0-9`, `-`.
    pub name: String,
    /// The board it is for.
    pub board: String,
    /// Rises with every change.
    pub sequence: u64,
    /// When it was signed, in seconds since 1970 by the publisher's clock.
    pub issued_s: u64,
    /// What is to be done with the release.
    pub state: State,
    /// How many of [`ALL`] devices are to install it.
    pub share: u32,
    /// The release's version.
    pub version: String,
    /// The release's rollback index.
    pub rollback_index: u64,
    /// The release's slot manifest with its envelope: its identity.
    pub slot_manifest: Blob,
    /// Number of bytes of the bundle before its stream.
    pub front_bytes: u64,
    /// Number of bytes of the bundle.
    pub bundle_bytes: u64,
    /// What it asks of devices, and says to people.
    pub conditions: Conditions,
    /// Cheaper ways to carry it.
    pub packs: Vec<PackEntry>,
}

impl Fields {
    /// The text to sign.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let mut line = |args: fmt::Arguments<'_>| {
            text.push_str(&args.to_string());
            text.push('\n');
        };
        line(format_args!("iota-channel 1"));
        line(format_args!("name {}", self.name));
        line(format_args!("board {}", self.board));
        line(format_args!("sequence {}", self.sequence));
        line(format_args!("issued {}", self.issued_s));
        line(format_args!("state {}", self.state));
        line(format_args!("share {}", self.share));
        line(format_args!("version {}", self.version));
        line(format_args!("rollback-index {}", self.rollback_index));
        line(format_args!("slot-manifest {}", self.slot_manifest));
        line(format_args!("front length={}", self.front_bytes));
        line(format_args!("bundle length={}", self.bundle_bytes));
        text.push_str(&self.conditions.to_string());
        for PackEntry { base, table: Blob { length: table, sha256 }, length } in &self.packs {
            let base = base.map_or_else(|| "none".to_owned(), |base| base.to_string());
            text.push_str(&alloc::format!(
                "pack base={base} table-length={table} table-sha256={sha256} length={length}\n"
            ));
        }
        text
    }

    /// How many of [`ALL`] devices are to install it at a time, in seconds since 1970.
    pub fn share_at(&self, now_s: u64) -> u32 {
        self.conditions.share_at(self.share, self.issued_s, now_s)
    }

    fn decode(text: &str) -> Result<Self, Error> {
        let mut lines = text.lines().peekable();
        let mut value = |name: &'static str| {
            lines.next().and_then(|line| line.strip_prefix(name)).ok_or(Error::Line(name))
        };
        if value("iota-channel ")? != "1" {
            return Err(Error::Format);
        }
        let name = value("name ")?.to_owned();
        let board = value("board ")?.to_owned();
        let sequence = number(value("sequence ")?, "sequence")?;
        let issued_s = number(value("issued ")?, "issued")?;
        let state = value("state ")?;
        let state = State::ALL.iter().find(|(_, name)| *name == state).map(|(state, _)| *state);
        let share = number(value("share ")?, "share")?;
        let version = value("version ")?.to_owned();
        let rollback_index = number(value("rollback-index ")?, "rollback-index")?;
        let slot_manifest = Blob::parse(value("slot-manifest ")?);
        let front = value("front length=")?;
        let bundle = value("bundle length=")?;
        let fields = Self {
            name,
            board,
            sequence,
            issued_s,
            state: state.ok_or(Error::Value("state"))?,
            share: u32::try_from(share).map_err(|_| Error::Value("share"))?,
            version,
            rollback_index,
            slot_manifest: slot_manifest.ok_or(Error::Value("slot-manifest"))?,
            front_bytes: number(front, "front")?,
            bundle_bytes: number(bundle, "bundle")?,
            conditions: Conditions::read(&mut lines)?,
            packs: lines.map(read_pack).collect::<Result<_, _>>()?,
        };
        if fields.encode() == text { Ok(fields) } else { Err(Error::NotCanonical) }
    }
}

fn number(text: &str, name: &'static str) -> Result<u64, Error> {
    text.parse().map_err(|_| Error::Value(name))
}

fn read_pack(line: &str) -> Result<PackEntry, Error> {
    let line = line.strip_prefix("pack base=").ok_or(Error::Line("pack "))?;
    let mut words = line.split(' ');
    let mut value = |prefix| words.next().and_then(|word| word.strip_prefix(prefix));
    let read = || {
        let base = match value("")? {
            "none" => None,
            base => Some(Digest::from_hex(base)?),
        };
        let length = value("table-length=")?.parse().ok()?;
        let sha256 = Digest::from_hex(value("table-sha256=")?)?;
        let table = Blob { length, sha256 };
        Some(PackEntry { base, table, length: value("length=")?.parse().ok()? })
    };
    let entry = { read }();
    entry.ok_or(Error::Value("pack"))
}

/// A channel that makes sense.
///
/// Holding one proves: name, board and version are short plain words, every length is within the
/// limits of this module and of [`bundle`], and no pack is listed twice for one base. Whether
/// somebody trusted signed it is [`Unverified::verify`]'s result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel(Fields);

impl core::ops::Deref for Channel {
    type Target = Fields;

    fn deref(&self) -> &Fields {
        &self.0
    }
}

impl Channel {
    /// Checks the fields.
    pub fn new(fields: Fields) -> Result<Self, Error> {
        let limit = |name, value: u64, limit: u64| {
            if (1..=limit).contains(&value) {
                Ok(())
            } else {
                Err(Error::Limit { name, value, limit })
            }
        };
        if !is_name(&fields.name, MAX_NAME_BYTES) {
            return Err(Error::Value("name"));
        }
        if !is_name(&fields.board, MAX_BOARD_BYTES) {
            return Err(Error::Value("board"));
        }
        if !is_version(&fields.version) {
            return Err(Error::Value("version"));
        }
        if fields.share > ALL {
            return Err(Error::Value("share"));
        }
        fields.conditions.check(&fields.name)?;
        let most_front = bundle::MAX_SLOT_MANIFEST_BYTES.saturating_add(bundle::MAX_INDEX_BYTES);
        limit("slot manifest", fields.slot_manifest.length, bundle::MAX_SLOT_MANIFEST_BYTES)?;
        limit("front", fields.front_bytes, most_front.saturating_add(4096))?;
        limit("bundle", fields.bundle_bytes, u64::MAX)?;
        limit("front", fields.front_bytes, fields.bundle_bytes)?;
        if fields.packs.len() > MAX_PACKS {
            return Err(Error::TooManyPacks(fields.packs.len()));
        }
        for (number, pack) in fields.packs.iter().enumerate() {
            limit("table of a pack", pack.table.length, MAX_TABLE_BYTES)?;
            limit("table of a pack", pack.table.length, pack.length)?;
            if fields.packs.iter().take(number).any(|other| other.base == pack.base) {
                return Err(Error::PackTwice);
            }
        }
        Ok(Self(fields))
    }

    /// The pack that needs this base.
    pub fn pack_for(&self, base: Option<&Digest>) -> Option<&PackEntry> {
        self.packs.iter().find(|pack| pack.base.as_ref() == base)
    }

    /// Whether a device is among those that install the release.
    ///
    /// The order of devices is another one for each release, so that not always the same ones are
    /// first; it needs no server that counts, and a clock only for a share that rises by itself.
    pub fn admits(&self, machine_id: &str, now_s: u64) -> bool {
        let wave = wave(&self.slot_manifest.sha256, machine_id);
        self.state == State::Open && wave < self.share_at(now_s)
    }

    /// Whether a system of this rollback index can be followed by the release.
    pub fn follows(&self, rollback_index: u64) -> bool {
        let needs = self.conditions.needs.as_ref();
        needs.is_none_or(|needs| rollback_index >= needs.rollback_index)
    }
}

/// The place of a device among all, from 0 to 65535, for the release of this slot manifest.
pub fn wave(release: &Digest, machine_id: &str) -> u32 {
    let parts: [&[u8]; 4] = [b"iota-wave-v1\0", release.as_bytes(), b"\0", machine_id.as_bytes()];
    let digest = Digest::of(&parts.concat());
    let [first, second, ..] = *digest.as_bytes();
    u32::from(u16::from_be_bytes([first, second]))
}

/// Whether a word can name a channel or a board: also what is safe in a path and an address.
pub fn is_name(text: &str, longest: usize) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= longest && text.bytes().all(fits)
}

fn is_version(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_graphic();
    !text.is_empty() && text.len() <= MAX_VERSION_BYTES && text.bytes().all(fits)
}

/// A channel file: well-formed, but from anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unverified<'a> {
    envelope: Envelope<'a>,
}

impl<'a> Unverified<'a> {
    /// Reads a whole file.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_BYTES {
            return Err(Error::TooLong(bytes.len()));
        }
        Ok(Self { envelope: Envelope::parse(bytes).map_err(Error::Envelope)? })
    }

    /// The channel, if enough trusted keys signed it; with the keys.
    pub fn verify(self, trust: &TrustRoot) -> Result<(Channel, Signers), Error> {
        let (payload, signer) =
            self.envelope.open(Role::CHANNEL, &trust.channel).map_err(Error::Envelope)?;
        Ok((read(payload)?, signer))
    }

    /// The contents without a check of signatures: for tools that show what is there.
    pub fn channel_unverified(&self) -> Result<Channel, Error> {
        if self.envelope.role() != Role::CHANNEL {
            let (found, wanted) = (self.envelope.role(), Role::CHANNEL);
            return Err(Error::Envelope(envelope::Error::Role { found, wanted }));
        }
        read(self.envelope.payload_unverified())
    }
}

fn read(payload: &[u8]) -> Result<Channel, Error> {
    let text = core::str::from_utf8(payload).map_err(|_| Error::NotText)?;
    Channel::new(Fields::decode(text)?)
}

/// Where a publisher puts files and devices look for them, below the address of the source.
pub mod places {
    use alloc::string::String;

    use crate::digest::Digest;

    /// The channel's file, the only one that changes.
    pub fn channel(name: &str, board: &str) -> String {
        alloc::format!("channels/{name}/{board}")
    }

    /// In a container registry, the tag of the manifest that lists all of these files.
    pub fn tag(name: &str, board: &str) -> String {
        alloc::format!("{name}-{board}")
    }

    /// The trust root of a number.
    pub fn trust_root(number: u64) -> String {
        alloc::format!("trust/{number}")
    }

    /// The bundle of a release, named by the hash of its slot manifest.
    pub fn bundle(release: &Digest) -> String {
        alloc::format!("files/{release}.bundle")
    }

    /// A pack, named by the hash of its table.
    pub fn pack(table: &Digest) -> String {
        alloc::format!("files/{table}.pack")
    }
}

#[cfg(test)]
mod tests;
