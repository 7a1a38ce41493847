//! Devices whose data partition was hit: each starts, has a network, and says how it stands.

use std::time::Duration;

use builder::host::qemu::Options;
use qemu_tests::bench::boot::{Candidate, payload};
use qemu_tests::damage::{BYTES, Kind, Original};
use qemu_tests::disk::Disk;
use qemu_tests::machine::Machine;
use qemu_tests::{image, scratch, slow_tests_wanted};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(400);
/// Starts: one for each kind of damage.
const STARTS: u64 = Kind::ALL.len() as u64;
/// Another number of them, for a run that has more time.
const STARTS_VARIABLE: &str = "IOTA_DAMAGED_STARTS";

#[test]
fn whatever_hit_its_data_a_device_has_a_network_and_says_how_it_stands() {
    if !slow_tests_wanted() {
        return;
    }
    let starts = std::env::var(STARTS_VARIABLE).map_or(STARTS, |text| text.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let originals =
        [Original::of_the_builder(directory.path()), Original::of_a_reset(directory.path())];
    let ours = Candidate { name: "damaged", disk: image::outputs().join("disk.img") };
    // The loader does not look at this partition: it would only take its time.
    let kernel = payload(&ours, &scratch()).unwrap_or_else(|error| panic!("{}", error.chain()));
    let disk = Disk::copy_of(&ours.disk, "damaged");
    let data = disk.table().data().unwrap().extent;
    // Of the file system that lies there, copies of the superblock are all over the partition.
    disk.overwrite(data.offset, &vec![0; usize::try_from(data.length).unwrap()]);
    let options = Options { kernel: Some(kernel.kernel), ..Options::new(disk.path()) };

    let mut counts = [0; 3];
    for seed in 0..starts {
        let kind = Kind::ALL[usize::try_from(seed % STARTS).unwrap()];
        let original = &originals[usize::try_from(seed / STARTS).unwrap() % 2];
        let path = directory.path().join("image");
        original.damaged(&path, kind, (seed << 32) + 1);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, BYTES);
        disk.overwrite(data.offset, &bytes);
        let mut machine = Machine::boot("damaged", &options);
        machine.expect("network eth0 10.0.2.", LONG);
        let status = machine.status();
        let what = &status["data"];
        eprintln!("    {seed}, {kind:?}: {}", what["state"]);
        counts[match what["state"].as_str() {
            Some("good") => 0,
            Some("repaired") => 1,
            Some("quarantined") => 2,
            _ => panic!("{seed}, {kind:?}: {what}"),
        }] += 1;
        // Who cannot use it says why; what is used has a size.
        let is_said = match quarantined(what) {
            true => what["why"].is_string(),
            false => what["bytes"].as_u64().is_some_and(|bytes| bytes > 0),
        };
        assert!(is_said, "{seed}, {kind:?}: {status}");
    }
    let [good, repaired, quarantined] = counts;
    eprintln!("    {good} good, {repaired} repaired, {quarantined} quarantined");
    assert!(quarantined > 0 && good + repaired > 0, "the cases are all of a kind");
}

fn quarantined(data: &Value) -> bool {
    data["state"] == "quarantined"
}
