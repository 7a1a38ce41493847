//! `iota publish` and `iota release`: what devices find when they look for an update.

use ondisk::channel::conditions::{MAX_NOTE_BYTES, MAX_NOTES, is_note};
use ondisk::channel::{ALL, Channel, Conditions, Fields, Needs, State};

use crate::cli::{ChannelArgs, ChannelSigning, Common, Place, PublishArgs, ReleaseVerb};
use crate::error::{Error, Result};
use crate::host::now_s;
use crate::host::progress::{Progress, megabytes};
use crate::host::store::Store;
use crate::publish::bucket::Bucket;
use crate::publish::remote::Remote;
use crate::publish::{self, Destination, Offer, Site};
use crate::registry::{Client, credentials};
use crate::s3;
use crate::sign::{Key, Profile};
use crate::signer::Signer;

/// Publishes the release of a bundle and says what devices get.
pub fn run(arguments: &PublishArgs, common: &Common) -> Result<()> {
    let progress = Progress::new(common.quiet);
    let name = arguments.place.to.channel(arguments.channel.as_deref())?;
    let signer = signer(&arguments.signing, common)?;
    let now_s = now_s();
    let conditions = Conditions {
        open_by_s: open_by_s(now_s, arguments.share, arguments.over)?,
        critical: arguments.critical,
        needs: arguments.needs.map(|rollback_index| {
            let through = arguments.through.clone();
            Needs { rollback_index, through }
        }),
        notes: arguments.note.clone(),
    };
    check_notes(&conditions.notes)?;
    let channel = at(&arguments.place, common, &progress, |site| {
        let offer = Offer {
            site,
            channel: &name,
            share: share(arguments.share),
            bases: arguments.bases.into(),
            now_s,
            conditions: &conditions,
        };
        publish::publish(&arguments.bundle, &offer, &signer, &progress)
    })?;
    progress.line(line(&channel));
    progress.line(format!("  whole: {}", megabytes(channel.bundle_bytes)));
    for pack in &channel.packs {
        let from = match pack.base {
            Some(base) => format!("from {base:.12}"),
            None => "from any, at most".to_owned(),
        };
        progress.line(format!("  {from}: {}", megabytes(pack.length)));
    }
    Ok(())
}

/// Changes what a channel says.
pub fn change(verb: &ReleaseVerb, common: &Common) -> Result<()> {
    let (arguments, state, wanted) = match verb {
        ReleaseVerb::Promote { channel, share, over } => {
            (channel, State::Open, Some((*share, *over)))
        }
        ReleaseVerb::Pause(channel) => (channel, State::Paused, None),
        ReleaseVerb::Withdraw(channel) => (channel, State::Withdrawn, None),
    };
    let ChannelArgs { place, board, channel, signing } = arguments;
    let now_s = now_s();
    let wanted = wanted.map(|(percent, over)| {
        open_by_s(now_s, percent, over).map(|open_by_s| (share(percent), open_by_s))
    });
    let wanted = wanted.transpose()?;
    let apply = |fields: &mut Fields| {
        // What has been reached by the clock stays reached.
        fields.share = fields.share_at(now_s);
        fields.issued_s = now_s;
        fields.state = state;
        if let Some((share, open_by_s)) = wanted {
            fields.share = share;
            fields.conditions.open_by_s = open_by_s;
        }
    };
    let progress = Progress::new(common.quiet);
    let name = place.to.channel(channel.as_deref())?;
    let signer = signer(signing, common)?;
    let channel =
        at(place, common, &progress, |site| publish::change(site, &name, board, apply, &signer))?;
    progress.line(line(&channel));
    Ok(())
}

/// Works where the channels are.
fn at(
    place: &Place,
    common: &Common,
    progress: &Progress,
    work: impl FnOnce(&dyn Site) -> Result<Channel>,
) -> Result<Channel> {
    match &place.to {
        Destination::Directory(directory) => work(directory),
        Destination::Registry { repository, .. } => {
            let store = Store::open(common.cache.as_deref())?;
            let client = Client::new(repository, true, credentials::of(&repository.host)?);
            work(&Remote::new(repository, client, &store, progress)?)
        }
        Destination::Bucket(bucket) => {
            let store = Store::open(common.cache.as_deref())?;
            let variable = |name: &str| std::env::var(name).ok();
            let access = s3::Access::of(place.endpoint.as_deref(), variable)?;
            work(&Bucket::new(s3::Client::new(bucket, &access)?, &store, progress)?)
        }
    }
}

fn line(channel: &Channel) -> String {
    let Fields { name, board, sequence, version, .. } = &**channel;
    let who = match channel.state {
        State::Open => {
            let more = channel.conditions.open_by_s.map_or("", |_| " and more by the hour");
            format!("{} % of the devices{more} install it", percent(channel.share))
        }
        State::Paused => "paused: no device installs it for now".to_owned(),
        State::Withdrawn => "withdrawn: no device installs it".to_owned(),
    };
    format!("channel {name} of {board}, number {sequence}: {version}; {who}")
}

/// When a release is open to all that is opened over so many hours.
fn open_by_s(now_s: u64, percent: u8, hours: Option<u16>) -> Result<Option<u64>> {
    if percent == 100 && hours.is_some() {
        return Err(Error::new("--over has nothing to do: all devices install it at once")
            .hint("name the share that begins, such as `--share 10 --over 48`"));
    }
    Ok(hours.map(|hours| now_s + u64::from(hours) * 3600))
}

fn check_notes(notes: &[String]) -> Result<()> {
    match notes.iter().find(|note| !is_note(note)) {
        Some(note) => Err(Error::new(format!("--note {note:?} is no line of a note")).hint(
            format!("a note is one line of at most {MAX_NOTE_BYTES} bytes; --note may be repeated"),
        )),
        None if notes.len() > MAX_NOTES => {
            Err(Error::new(format!("{} notes, there may be {MAX_NOTES}", notes.len())))
        }
        None => Ok(()),
    }
}

fn share(percent: u8) -> u32 {
    (u32::from(percent) * ALL).div_ceil(100)
}

fn percent(share: u32) -> u32 {
    share * 100 / ALL
}

fn signer(signing: &ChannelSigning, common: &Common) -> Result<Signer> {
    let keys = super::workspace(common)?.join("keys");
    if signing.key.is_empty() && signing.trust.is_none() {
        let key = Key::load(&keys.join("development.secret")).map_err(|error| {
            error.hint("`iota bundle` makes this key, or name another with --key")
        });
        return Ok(key?.into());
    }
    // A channel offers what others have made: it is for both kinds of devices.
    let named = signing.trust.as_deref();
    Ok(Signer::for_build(&signing.key, named, &keys, Profile::Development)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_share_and_all_are_exact_and_one_percent_is_someone() {
        assert_eq!([0, 1, 50, 100].map(share), [0, 656, 32_768, ALL]);
        assert!((0..=100).all(|number| percent(share(number)) == u32::from(number)));
    }

    #[test]
    fn hours_count_from_now_and_are_of_no_use_to_a_share_of_all() {
        assert_eq!(open_by_s(1000, 10, Some(48)).unwrap(), Some(1000 + 48 * 3600));
        assert_eq!(open_by_s(1000, 10, None).unwrap(), None);
        assert_eq!(open_by_s(1000, 100, None).unwrap(), None);
        let error = open_by_s(1000, 100, Some(1)).unwrap_err().chain();
        assert!(error.starts_with("--over has nothing to do"), "{error}");
    }

    #[test]
    fn a_note_is_a_line_and_there_are_few() {
        let notes = |note: &str, count| check_notes(&vec![note.to_owned(); count]);
        assert!(notes("Closes a hole.", MAX_NOTES).is_ok());
        for (note, count) in
            [("two\nlines", 1), ("", 1), (" x", 1), ("\u{1b}[2J", 1), ("x", MAX_NOTES + 1)]
        {
            assert!(notes(note, count).is_err(), "{note:?}");
        }
    }
}
