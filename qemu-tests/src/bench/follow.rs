//! An update by differences as publisher and device do it: `iota publish` makes them, the agent's
//! code makes the slot of them, on a disk in memory so that no disk is what is measured.

use std::fs;
use std::path::Path;
use std::process::Command;

use agent::apply::{Place, Rules, Until};
use agent::online::offer;
use agent::online::web::Web;
use builder::error::{Context, Error, Result};
use builder::publish::release::Release;
use ondisk::layout::{Extent, PerSlot, RECORD_PARTITION_BYTES, Slot};
use ondisk::manifest::Profile;
use ondisk::trust_root::TrustRoot;
use rustix::time::{ClockId, clock_gettime};

use super::process::measure;
use super::table::{Goal, Row, Value};
use crate::image::BOARD;
use crate::site::{Server, files_of, transfer_to, write_record};
use crate::workspace;

/// Bytes of the image that one processor makes in a second, at least.
const RATE: f64 = 20e6;
/// Publishing a release with differences to one before may take a third of three minutes.
const SECONDS_EACH: f64 = 60.0;
const SLOT_BYTES: u64 = 512 << 20;
const PLACE: Place = Place {
    record: Extent { offset: 1 << 20, length: RECORD_PARTITION_BYTES },
    slots: PerSlot {
        a: Extent { offset: 16 << 20, length: SLOT_BYTES },
        b: Extent { offset: (16 << 20) + SLOT_BYTES, length: SLOT_BYTES },
    },
    running: Slot::A,
};

/// A release of the past and where its slot is.
pub struct Past<'a> {
    /// What the table calls it.
    pub name: &'a str,
    /// Its bundle.
    pub bundle: &'a Path,
    /// Its slot.
    pub slot: &'a Path,
    /// What is in its bundle.
    pub release: &'a Release,
}

/// Publishes the releases of the past and then this one, and has a device of each follow.
pub fn run(
    program: &Path,
    past: &[Past<'_>],
    (bundle, new): (&Path, &Release),
    trust: &TrustRoot,
    scratch: &Path,
) -> Result<Vec<Row>> {
    let site = scratch.join("site");
    let _ = fs::remove_dir_all(&site);
    let publish = |bundle: &Path| {
        let mut command = Command::new(program);
        command.current_dir(workspace()).arg("publish").arg(bundle).arg(&site);
        measure(&mut command)
    };
    for release in past {
        publish(release.bundle)?;
    }
    let cost = publish(bundle)?;
    let most = Value::Seconds(SECONDS_EACH * past.len() as f64);
    let what = format!("publish, differences to {} releases", past.len());
    let mut rows = vec![
        Row::new(format!("{what}: clock"), Value::Seconds(cost.seconds)).goal(Goal::AtMost(most)),
        Row::new(format!("{what}: peak memory"), Value::Mebibytes(cost.peak_bytes)),
    ];
    let failed = || format!("cannot read {}", site.display());
    let server = Server::good(files_of(&site).context(failed)?);
    for release in past {
        let seconds = follow(&server, release, new, trust)?;
        let megabytes = new.image.len() as f64 / 1e6;
        let most = Value::CpuSeconds(new.image.len() as f64 / RATE);
        let what = format!("{}: {megabytes:.0} MB made of differences", release.name);
        rows.push(Row::new(what, Value::CpuSeconds(seconds)).goal(Goal::AtMost(most)));
    }
    Ok(rows)
}

/// Processor seconds in which a device of the past comes to hold the new release.
fn follow(server: &Server, past: &Past<'_>, new: &Release, trust: &TrustRoot) -> Result<f64> {
    let failed = || format!("cannot read {}", past.slot.display());
    let slot = fs::read(past.slot).context(failed)?;
    let at = |extent: Extent| usize::try_from(extent.offset).unwrap_or_default();
    let (a, b) = (at(PLACE.slots.a), at(PLACE.slots.b));
    let mut disk = vec![0; b + slot.len()];
    disk[a..a + slot.len()].copy_from_slice(&slot);
    let old = &past.release.manifest;
    write_record(&mut disk, PLACE.record, &old.version, old.rollback_index)
        .context(|| "cannot write a record".to_owned())?;
    let channel = offer::fetch(server, "stable", BOARD, trust, &mut |_| {}).map_err(Error::new)?;
    let rules = Rules { board: BOARD, profile: Profile::Development, trust };
    let (to, from) = ((&rules, &PLACE), (server as &dyn Web, &channel));
    let before = processor_seconds();
    let done = transfer_to(to, Until::Staged, from, &mut disk, &mut |_| {});
    let seconds = processor_seconds() - before;
    let done = done.map_err(|_| Error::new(format!("{}: the update failed", past.name)))?;
    let is_right = disk[b..].starts_with(&new.image) && done.carrier.starts_with("the differences");
    if is_right {
        Ok(seconds)
    } else {
        Err(Error::new(format!("{}: came as {}", past.name, done.carrier)))
    }
}

/// Of this process, all threads together.
fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
