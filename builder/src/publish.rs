//! Puts a release where any web server hands it out as files: bundle, packs, and the signed channel
//! that names them (`ondisk::channel` and `ondisk::pack` have the formats).
//!
//! ```text
//! DIR/channels/NAME/BOARD   the only file that changes, written last and in one step
//! DIR/files/…               named by hashes: a cache may keep them for ever
//! ```
//! Guarantees: a device that asks meanwhile sees the old release or the new one, whole; a channel's
//! sequence only rises; nothing is offered that its own key did not sign; whatever is interrupted
//! leaves the channel as it was.
//!
//! A container registry has the same files ([`remote`]), and so has a bucket ([`bucket`]).
//!
//! Reading order: [`release`] → [`windows`] → [`pieces`]; [`destination`] → [`remote`], [`bucket`].

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ondisk::bundle::Blob;
use ondisk::channel::{self, ALL, Channel, Conditions, Fields, PackEntry, State, places};
use ondisk::digest::Digest;
use ondisk::envelope::Role;
use ondisk::trust_root::{Quorum, TrustRoot};

use crate::error::{Context, Error, Result};
use crate::host::progress::{Progress, Unit, megabytes};
use crate::image::unfinished::{Unfinished, replace, with_room_hint};
use crate::signer::Signer;
use crate::trust_roots::TrustRoots;

pub mod bucket;
pub mod destination;
pub mod pieces;
pub mod release;
pub mod remote;
pub mod windows;

pub use destination::Destination;
use release::Release;

/// Where devices look: a directory that somebody hands out, or a registry or a bucket, with a copy
/// of it here.
pub trait Site {
    /// The directory in which all happens.
    fn directory(&self) -> &Path;

    /// Brings what is needed of a channel for a board into the directory, the bundles of earlier
    /// releases only if they are.
    fn fetch(&self, channel: &str, board: &str, bundles: bool) -> Result<()>;

    /// Sends these files of the directory to whom devices ask, those of `channel` last.
    fn send(&self, channel: &Channel, files: &[String]) -> Result<()>;
}

/// Removes the copy of a channel: what is no longer where devices look is no channel. Its path.
fn forget_channel(directory: &Path, channel: &str, board: &str) -> Result<String> {
    let own = places::channel(channel, board);
    match fs::remove_file(directory.join(&own)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::caused(format!("cannot remove {own}"), error))
        }
        _ => Ok(own),
    }
}

/// A directory is there, and whoever hands it out looks by itself.
impl Site for PathBuf {
    fn directory(&self) -> &Path {
        self
    }

    fn fetch(&self, _: &str, _: &str, _: bool) -> Result<()> {
        Ok(())
    }

    fn send(&self, _: &Channel, _: &[String]) -> Result<()> {
        Ok(())
    }
}

/// Where and how a release is offered.
#[derive(Clone, Copy)]
pub struct Offer<'a> {
    /// Where it is put.
    pub site: &'a dyn Site,
    /// Name of the channel.
    pub channel: &'a str,
    /// How many of [`ALL`] devices are to install it.
    pub share: u32,
    /// How many of the releases before get a pack of their own.
    pub bases: usize,
    /// What the publisher's clock says, in seconds since 1970.
    pub now_s: u64,
    /// What it asks of devices, and says to people.
    pub conditions: &'a Conditions,
}

/// Publishes the release of a bundle; what the channel says now.
///
/// Errors: a bundle that is damaged, revoked or that no release key signed, a channel of unknown
/// keys or of a higher rollback index, a directory that cannot be written.
pub fn publish(
    bundle: &Path,
    offer: &Offer<'_>,
    signer: &Signer,
    progress: &Progress,
) -> Result<Channel> {
    let (roots, trust) = (signer.roots(), signer.trust());
    let new = Release::read(bundle, trust)?;
    if trust.revokes(&new.slot_manifest.sha256) {
        return Err(Error::new(format!(
            "{} is revoked by trust root {}: no device installs it",
            new.manifest.version, trust.number
        )));
    }
    let directory = offer.site.directory();
    offer.site.fetch(offer.channel, &new.manifest.board, true)?;
    let before = read_channel(directory, offer.channel, &new.manifest.board, roots)?;
    let sequence = before.as_ref().map_or(1, |before| next_sequence(before, trust));
    let before = before.map(|before| before.channel);
    if let Some(before) = &before {
        check_successor(before, &new)?;
    }
    fs::create_dir_all(directory.join("files"))
        .context(|| format!("cannot make {}/files", directory.display()))?;
    put_bundle(bundle, directory, &new)?;
    let mut packs = vec![put_pack(directory, &new, None, progress)?];
    for base in bases(before.as_ref(), &new).into_iter().take(offer.bases) {
        let path = directory.join(places::bundle(&base));
        if !path.exists() {
            progress.warn(format!("no pack from {base:.12}: {} is gone", path.display()));
            continue;
        }
        let old = Release::read_older(&path, roots)?;
        packs.push(put_pack(directory, &new, Some(&old), progress)?);
    }
    let fields = Fields {
        name: offer.channel.to_owned(),
        board: new.manifest.board.clone(),
        sequence,
        issued_s: offer.now_s,
        state: State::Open,
        share: offer.share.min(ALL),
        version: new.manifest.version.clone(),
        rollback_index: new.manifest.rollback_index,
        slot_manifest: new.slot_manifest,
        front_bytes: new.front_bytes,
        bundle_bytes: new.bundle_bytes,
        conditions: offer.conditions.clone(),
        packs,
    };
    put_trust_roots(directory, roots)?;
    finish(offer.site, fields, signer)
}

/// Changes who is to install the release that a channel offers; what it says now.
///
/// Errors: no such channel, or one of another key.
pub fn change(
    site: &dyn Site,
    name: &str,
    board: &str,
    change: impl FnOnce(&mut Fields),
    signer: &Signer,
) -> Result<Channel> {
    let directory = site.directory();
    site.fetch(name, board, false)?;
    let before = read_channel(directory, name, board, signer.roots())?.ok_or_else(|| {
        let path = directory.join(places::channel(name, board));
        Error::new(format!("there is no channel {name} for {board}: no {}", path.display()))
            .hint("`iota publish` makes it with its first release")
    })?;
    let mut fields = Fields::clone(&before.channel);
    fields.sequence = next_sequence(&before, signer.trust());
    change(&mut fields);
    put_trust_roots(directory, signer.roots())?;
    finish(site, fields, signer)
}

/// From now on devices that ask find it.
fn finish(site: &dyn Site, fields: Fields, signer: &Signer) -> Result<Channel> {
    let channel = write_channel(site.directory(), fields, signer)?;
    site.send(&channel, &files(&channel, signer.roots()))?;
    Ok(channel)
}

/// What devices may ask for, and bundles that the next release's packs are made from; the channel
/// is the last.
fn files(channel: &Channel, roots: &TrustRoots) -> Vec<String> {
    let packs = channel.packs.iter().map(|pack| places::pack(&pack.table.sha256));
    let bases = channel.packs.iter().filter_map(|pack| pack.base);
    let releases = std::iter::once(channel.slot_manifest.sha256).chain(bases);
    let bundles = releases.map(|release| places::bundle(&release));
    let trust_roots = roots.files().map(|(number, _)| places::trust_root(number));
    let last = places::channel(&channel.name, &channel.board);
    bundles.chain(packs).chain(trust_roots).chain([last]).collect()
}

/// Devices find those that are newer than their own. They come before the channel, which the
/// newest one's keys sign.
fn put_trust_roots(directory: &Path, roots: &TrustRoots) -> Result<()> {
    for (number, file) in roots.files() {
        let path = directory.join(places::trust_root(number));
        let parent = path.parent().unwrap_or(directory);
        fs::create_dir_all(parent).context(|| format!("cannot make {}", parent.display()))?;
        match fs::read(&path) {
            Ok(present) if present == file => {}
            Ok(_) => {
                return Err(Error::new(format!("{} is another trust root", path.display())).hint(
                    "devices that have it could not follow: is --trust the right directory?",
                ));
            }
            Err(_) => replace(&path, file).map_err(|error| {
                with_room_hint(format!("cannot write {}", path.display()), error)
            })?,
        }
    }
    Ok(())
}

/// A channel as it is.
struct Before {
    channel: Channel,
    /// Who signs such a channel by the trust root that it was found good with.
    keys: Quorum,
}

/// The channel as it is, if there is one.
fn read_channel(
    directory: &Path,
    name: &str,
    board: &str,
    roots: &TrustRoots,
) -> Result<Option<Before>> {
    if !channel::is_name(name, channel::MAX_NAME_BYTES) {
        return Err(Error::new(format!("`{name}` is no name of a channel"))
            .hint("lower-case letters, digits and `-`, such as stable or beta"));
    }
    let path = directory.join(places::channel(name, board));
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::caused(format!("cannot read {}", path.display()), error)),
    };
    let mut why = None;
    for trust in roots.newest_first() {
        let found = channel::Unverified::parse(&bytes).and_then(|found| found.verify(trust));
        match found {
            Ok((channel, _)) => return Ok(Some(Before { channel, keys: trust.channel.clone() })),
            Err(error) => why = why.or(Some(error)),
        }
    }
    let why = why.map_or_else(String::new, |error| error.to_string());
    Err(Error::new(format!("{}: {why}", path.display())).hint(
        "a channel is continued with the key that signed it, or with a later trust root: --key, \
         --trust",
    ))
}

/// Numbers rise as long as the keys stay. Devices begin anew with other keys: whoever had the old
/// ones may have used up all numbers.
fn next_sequence(before: &Before, trust: &TrustRoot) -> u64 {
    if before.keys == trust.channel { before.channel.sequence.saturating_add(1) } else { 1 }
}

fn check_successor(before: &Channel, new: &Release) -> Result<()> {
    if new.manifest.rollback_index < before.rollback_index {
        return Err(Error::new(format!(
            "{} has rollback index {}, the channel is at {}: devices would refuse it",
            new.manifest.version, new.manifest.rollback_index, before.rollback_index
        ))
        .hint("`iota bundle --rollback-index N` with the channel's number or a higher one"));
    }
    Ok(())
}

/// The releases that devices may run now: the one before, and those that it had packs for.
fn bases(before: Option<&Channel>, new: &Release) -> Vec<Digest> {
    let Some(before) = before else { return Vec::new() };
    let older = before.packs.iter().filter_map(|pack| pack.base);
    let all = std::iter::once(before.slot_manifest.sha256).chain(older);
    all.filter(|base| *base != new.slot_manifest.sha256).collect()
}

/// Copies the bundle unless it is there.
fn put_bundle(bundle: &Path, directory: &Path, new: &Release) -> Result<()> {
    let target = directory.join(places::bundle(&new.slot_manifest.sha256));
    let is_there = fs::metadata(&target).is_ok_and(|data| data.len() == new.bundle_bytes);
    if is_there {
        return Ok(());
    }
    let mut file =
        fs::File::open(bundle).context(|| format!("cannot read {}", bundle.display()))?;
    let mut output = Unfinished::create(&target)?;
    io::copy(&mut file, &mut output)
        .map_err(|error| with_room_hint(format!("cannot write {}", target.display()), error))?;
    output.finish()
}

/// Writes the pack of a release, for devices that run `base` or any.
fn put_pack(
    directory: &Path,
    new: &Release,
    base: Option<&Release>,
    progress: &Progress,
) -> Result<PackEntry> {
    let name = match base {
        Some(base) => format!("pack from {}", base.manifest.version),
        None => "pack".to_owned(),
    };
    let task = progress.task(name.clone(), Unit::Bytes, new.image.len() as u64);
    let pack = pieces::make(new, base, &|bytes| task.add(bytes))?;
    let table = pack.table.encode();
    let entry = PackEntry {
        base: pack.table.base,
        table: Blob::of(&table),
        length: (table.len() + pack.frames.len()) as u64,
    };
    let target = directory.join(places::pack(&entry.table.sha256));
    let mut output = Unfinished::create(&target)?;
    output
        .write_all(&table)
        .and_then(|()| output.write_all(&pack.frames))
        .map_err(|error| with_room_hint(format!("cannot write {}", target.display()), error))?;
    output.finish()?;
    task.finish(format!("{name}: {}", megabytes(entry.length)));
    Ok(entry)
}

fn write_channel(directory: &Path, fields: Fields, signer: &Signer) -> Result<Channel> {
    let channel = Channel::new(fields)
        .map_err(|error| Error::new(format!("cannot publish this release: {error}")))?;
    let payload = channel.encode();
    let file = signer.envelope(Role::CHANNEL, payload.as_bytes(), "the channel")?;
    let path: PathBuf = directory.join(places::channel(&channel.name, &channel.board));
    let parent = path.parent().unwrap_or(directory);
    fs::create_dir_all(parent).context(|| format!("cannot make {}", parent.display()))?;
    replace(&path, &file)
        .map_err(|error| with_room_hint(format!("cannot write {}", path.display()), error))?;
    Ok(channel)
}

#[cfg(test)]
mod tests;
