//! Brings a release from a server into the slot, by the cheapest carrier that works.

use std::fmt;
use std::io::Read as _;
use std::time::Duration;

use ondisk::channel::{Channel, PackEntry, places};
use ondisk::device::WriteAt;
use ondisk::pack::Table;
use ondisk::spans::packer;

use super::local::{self, Found};
use super::pieces::Pieces;
use super::plan::{Plan, REQUEST_COST};
use super::remote::{Meter, Remote};
use super::web::Web;
use crate::apply::{
    self, Bytes, Cause, Error, Front, Installed, Left, Place, Progress, Rules, Source, Unpacked,
    Until,
};

/// How much a pack may cost, in parts of the whole stream, to be taken without looking for a
/// cheaper one: the other table has to be fetched for that.
const GOOD_PART: u64 = 4;

/// A transfer and what it needs from around it.
pub struct Transfer<'a> {
    /// The server.
    pub web: &'a dyn Web,
    /// What is offered.
    pub channel: &'a Channel,
    /// Most bytes to fetch in a second.
    pub rate: Option<u64>,
    /// How far to go.
    pub until: Until,
    /// What this device takes.
    pub rules: &'a Rules<'a>,
    /// Told what goes on, in one clause each time.
    pub say: &'a mut dyn FnMut(&str),
    /// Told how far it is.
    pub progress: &'a mut dyn FnMut(Progress),
    /// Waits.
    pub sleep: &'a mut dyn FnMut(Duration),
}

/// A transfer that came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transferred {
    /// What is in the slot now.
    pub installed: Installed,
    /// In which way it came.
    pub carrier: String,
    /// Bytes that were received.
    pub bytes: u64,
    /// Requests that were made.
    pub requests: u64,
}

/// A way to bring the release.
enum Carrier {
    Pack { entry: PackEntry, plan: Plan },
    Stream,
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pack { entry: PackEntry { base: Some(_), .. }, .. } => {
                f.write_str("the differences to the system that runs")
            }
            Self::Pack { .. } => f.write_str("the pieces that are missing here"),
            Self::Stream => f.write_str("all of it"),
        }
    }
}

type Ended<D> = Error<<D as ondisk::device::ReadAt>::Error>;

/// Installs what the channel offers, or only brings it. Like [`apply::install`]: what can be
/// refused is refused before the first write.
pub fn run<D: WriteAt>(
    transfer: &mut Transfer<'_>,
    disk: &mut D,
    place: &Place,
) -> Result<Transferred, Ended<D>> {
    let Transfer { web, channel, rate, until, rules, say, progress, sleep } = transfer;
    let budget = channel.bundle_bytes.saturating_mul(2).saturating_add(1 << 20);
    let (say, sleep) = (&mut **say, &mut **sleep);
    let mut meter = Meter { bytes: 0, requests: 0, budget, rate: *rate, say, sleep };
    let untouched = |cause| Error { cause, left: Left::Untouched };
    let front = read_front(*web, channel, rules, place, &mut meter).map_err(untouched)?;
    apply::check_device(disk, place, &front).map_err(untouched)?;
    let mut carriers = carriers(*web, channel, &front, disk, place, &mut meter);
    carriers.sort_by_key(|(cost, _)| *cost);
    let mut last = None;
    for (cost, carrier) in carriers {
        (meter.say)(&format!("fetching {carrier}: {} KB", cost / 1000));
        let result = match &carrier {
            Carrier::Pack { entry, plan } => {
                let base = place.slots[place.running].offset;
                let path = places::pack(&entry.table.sha256);
                let remote = Remote::new(*web, &mut meter, &path, entry.length, (0, 0));
                let pieces = Pieces::new(plan, remote, base);
                apply::install_groups(
                    disk,
                    place,
                    &front,
                    pieces,
                    (*until, &mut |step| progress(step)),
                )
            }
            Carrier::Stream => {
                let steps = &mut |step| progress(step);
                stream(*web, channel, &front, (disk, place), &mut meter, (*until, steps))
            }
        };
        match result {
            Ok(installed) => {
                let (bytes, requests) = (meter.bytes, meter.requests);
                return Ok(Transferred {
                    installed,
                    carrier: carrier.to_string(),
                    bytes,
                    requests,
                });
            }
            Err(error) if is_of_the_disk(&error.cause) => return Err(error),
            Err(error) => {
                // Not Display of D::Error: only causes of the source come here.
                (meter.say)(&format!("{carrier} did not do: {}", words(&error.cause)));
                last = Some(error);
            }
        }
    }
    // There always is the stream.
    Err(last.unwrap_or_else(|| untouched(Cause::Source(std::io::Error::other("no carrier")))))
}

/// Whether another carrier would meet the same.
fn is_of_the_disk<E>(cause: &Cause<E>) -> bool {
    !matches!(
        cause,
        Cause::Source(_)
            | Cause::Truncated(_)
            | Cause::Chunk(_)
            | Cause::Unpack(_)
            | Cause::UnpackedLength(_)
            | Cause::Group(_)
            | Cause::Read { .. }
    )
}

fn words<E>(cause: &Cause<E>) -> String {
    match cause {
        Cause::Source(error) => error.to_string(),
        Cause::Unpack(error) => error.clone(),
        Cause::Group(number) => format!("group {number} is not the one listed"),
        Cause::Read { .. } => "the system that runs cannot be read".to_owned(),
        _ => "it is cut short or damaged".to_owned(),
    }
}

fn bundle_path(channel: &Channel) -> String {
    places::bundle(&channel.slot_manifest.sha256)
}

fn read_front<E>(
    web: &dyn Web,
    channel: &Channel,
    rules: &Rules<'_>,
    place: &Place,
    meter: &mut Meter<'_>,
) -> Result<Front, Cause<E>> {
    let (path, total) = (bundle_path(channel), channel.bundle_bytes);
    let bytes = Remote::new(web, meter, &path, total, (0, channel.front_bytes));
    let (front, rest) = Front::read(Source { bytes, length: Some(total) }, rules, place)?;
    let same = front.release() == channel.slot_manifest.sha256
        && rest.position() == channel.front_bytes
        && front.manifest().version == channel.version;
    if same {
        Ok(front)
    } else {
        Err(Cause::Source(std::io::Error::other("the bundle is not the one of the channel")))
    }
}

/// The ways there are, with their costs in bytes. A pack that cannot be had is no way.
fn carriers<D: WriteAt>(
    web: &dyn Web,
    channel: &Channel,
    front: &Front,
    disk: &D,
    place: &Place,
    meter: &mut Meter<'_>,
) -> Vec<(u64, Carrier)> {
    let whole = channel.bundle_bytes - channel.front_bytes + REQUEST_COST;
    let mut found = local::in_place(disk, place.target_extent(), front.groups());
    let mut all = vec![(whole, Carrier::Stream)];
    let running = place.slots[place.running];
    let base = local::release(disk, running);
    let mut add = |entry: Option<&PackEntry>, found: &[Found], meter: &mut Meter<'_>| {
        let entry = *entry?;
        let starts = (place.target_extent().offset, running.offset);
        match read_table(web, channel, &entry, front, meter) {
            Ok(table) => {
                let plan = Plan::new(&table, entry.table.length, front.groups(), found, starts);
                let cost = plan.cost();
                all.push((cost, Carrier::Pack { entry, plan }));
                Some(cost)
            }
            Err(why) => {
                (meter.say)(&format!("a pack cannot be used: {why}"));
                None
            }
        }
    };
    let with_base = base.and_then(|base| channel.pack_for(Some(&base)));
    let cost = add(with_base, &found, meter);
    if cost.is_none_or(|cost| cost > whole / GOOD_PART) {
        local::find_in(disk, running, front.groups(), &mut found);
        add(channel.pack_for(None), &found, meter);
    }
    all
}

fn read_table(
    web: &dyn Web,
    channel: &Channel,
    entry: &PackEntry,
    front: &Front,
    meter: &mut Meter<'_>,
) -> Result<Table, String> {
    let path = places::pack(&entry.table.sha256);
    let mut remote = Remote::new(web, meter, &path, entry.length, (0, entry.table.length));
    // A Channel limits it to a few MiB.
    let mut bytes = vec![0; usize::try_from(entry.table.length).unwrap_or_default()];
    remote.read_exact(&mut bytes).map_err(|error| error.to_string())?;
    entry.table.check("table", &bytes).map_err(|_| "its table is damaged".to_owned())?;
    let table = Table::decode(&bytes, front.groups()).map_err(|error| error.to_string())?;
    if let Some(wanted) = table.libzstd.filter(|wanted| *wanted != packer::version()) {
        return Err(format!("it is for libzstd {wanted}, and {} is here", packer::version()));
    }
    if table.release != channel.slot_manifest.sha256 || table.base != entry.base {
        return Err("its table is of another release".to_owned());
    }
    let end = table.offsets(front.groups()).last().copied().unwrap_or_default();
    if end.checked_add(entry.table.length) != Some(entry.length) {
        return Err("its table describes a file of another length".to_owned());
    }
    Ok(table)
}

fn stream<D: WriteAt>(
    web: &dyn Web,
    channel: &Channel,
    front: &Front,
    (disk, place): (&mut D, &Place),
    meter: &mut Meter<'_>,
    steps: (Until, &mut dyn FnMut(Progress)),
) -> Result<Installed, Ended<D>> {
    let (path, total) = (bundle_path(channel), channel.bundle_bytes);
    let remote = Remote::new(web, meter, &path, total, (channel.front_bytes, total));
    let unpacked = Unpacked::new(remote.chunks(front.chunks()), front.header());
    let unpacked = unpacked.map_err(|cause| Error { cause, left: Left::Untouched })?;
    apply::install_groups(disk, place, front, unpacked, steps)
}

impl Bytes for Remote<'_, '_> {}
