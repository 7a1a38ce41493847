//! Three stacks as people write them, all on one device, with each engine that has apps.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use builder::host::qemu::{Forward, Options};
use qemu_tests::disk::Disk;
use qemu_tests::machine::Machine;
use qemu_tests::tools::with_host;
use qemu_tests::web_server::free_port;
use qemu_tests::{image, scratch, slow_tests_wanted, stacks, workspace};
use serde_json::Value;

use crate::apps::page;
use crate::data::{debugfs, listed};

const LONG: Duration = Duration::from_secs(400);

#[test]
fn a_database_a_broker_and_a_cron_job_run_on_docker_and_come_back_after_a_power_cut() {
    if slow_tests_wanted() {
        run_and_come_back("docker");
    }
}

#[test]
fn a_database_a_broker_and_a_cron_job_run_on_podman_and_come_back_after_a_power_cut() {
    if slow_tests_wanted() {
        run_and_come_back("podman");
    }
}

fn run_and_come_back(engine: &str) {
    let name = format!("stacks-{engine}");
    let out = build(&scratch().join(&name), engine);
    let disk = Disk::flashed(&out, &name);
    disk.enlarge(1 << 30);
    let web = free_port();
    let forwards = vec![Forward { host: web, guest: 7379 }];
    let options = Options { persist: true, forwards, ..Options::new(disk.path()) };

    let mut machine = Machine::boot(&format!("{name}-first"), &options);
    all_are_well(&mut machine);
    let answers = |words: &str, answer: &str| {
        let page = page(web, words);
        assert!(page.contains(answer), "{words}: {page}");
    };
    answers("GET/milk", r#"{"GET":null}"#);
    answers("SET/milk/two", r#"{"SET":[true,"OK"]}"#);
    says_more(&mut machine, "sensors", "sensors/kitchen 21.5");
    let runs = runs_again(&mut machine, 0);
    // The database promises what is a second old.
    std::thread::sleep(Duration::from_secs(3));
    drop(machine);

    let cut = cut_output(&disk, engine);
    let mut machine = Machine::boot(&format!("{name}-second"), &options);
    all_are_well(&mut machine);
    answers("GET/milk", r#"{"GET":"two"}"#);
    says_more(&mut machine, "sensors", "sensors/kitchen 21.5");
    runs_again(&mut machine, runs);
    let (_, said) = machine.execute(&["logs", "agent"], std::io::empty());
    assert!(said.matches("the power cut took the last").count() >= cut, "{said}");
    machine.power_off(LONG);
}

/// An image that carries the stacks.
fn build(directory: &Path, engine: &str) -> PathBuf {
    let archives = with_host(|host| stacks::save_images(host, &directory.join("images")));
    let archives = archives.unwrap_or_else(|error| panic!("{}", error.chain()));
    let sources: Vec<String> =
        archives.iter().map(|path| format!("docker-archive:{}", path.display())).collect();
    let mut options: Vec<&OsStr> = vec!["--engine".as_ref(), engine.as_ref()];
    for source in &sources {
        options.extend(["--with-image".as_ref(), OsStr::new(source)]);
    }
    let apps = stacks::apps(&workspace());
    for app in &apps {
        options.extend(["--app".as_ref(), app.as_os_str()]);
    }
    let built = image::try_to_build(&directory.join("out"), &options);
    built.unwrap_or_else(|error| panic!("{}", error.chain()))
}

/// Leaves zeros at the end of each container's output, as a power cut does: the journal has the new
/// length of a file, and its last block is still the old one. Gives how many files there are.
fn cut_output(disk: &Disk, engine: &str) -> usize {
    let (containers, log) = match engine {
        "docker" => ("/docker/containers", "local-logs/container.log"),
        _ => ("/containers/storage/overlay-containers", "userdata/ctr.log"),
    };
    debugfs(disk, "journal_run\n");
    let ids = listed(disk, containers).into_iter().filter(|name| name.len() == 64);
    let paths: Vec<String> = ids.map(|id| format!("{containers}/{id}/{log}")).collect();
    let mut commands = String::new();
    for path in &paths {
        let told = debugfs(disk, &format!("stat {path}\n"));
        let size = told.split_once("Size: ").and_then(|(_, rest)| rest.split_whitespace().next());
        let size: u64 = size.and_then(|size| size.parse().ok()).unwrap_or_else(|| panic!("{told}"));
        commands += &format!("set_inode_field {path} size {}\n", size + 99);
    }
    // Whoever runs the journal takes the mark of an end that was no orderly one away.
    debugfs(disk, &format!("{commands}feature needs_recovery\n"));
    paths.len()
}

/// Each service of each stack runs, and is healthy if it says how to find out.
fn all_are_well(machine: &mut Machine) {
    let deadline = Instant::now() + LONG;
    loop {
        let (code, text) = machine.execute(&["app", "list", "--json"], std::io::empty());
        let document: Value = serde_json::from_str(text.trim()).unwrap_or_default();
        let apps = document["apps"].as_array().map_or(0, Vec::len);
        if (code, apps, &document["well"]) == (0, stacks::COUNT, &Value::Bool(true)) {
            return;
        }
        let mut logs = || machine.execute(&["logs"], std::io::empty()).1;
        assert!(Instant::now() < deadline, "{text}\n{}", logs());
        std::thread::sleep(Duration::from_secs(3));
    }
}

/// A stack says something once more than it has said it until now.
fn says_more(machine: &mut Machine, app: &str, what: &str) {
    let mut count = || logs(machine, app).matches(what).count();
    let (before, deadline) = (count(), Instant::now() + LONG);
    while count() <= before {
        assert!(Instant::now() < deadline, "{app} does not say `{what}` again");
        std::thread::sleep(Duration::from_secs(3));
    }
}

/// The job runs once more than its volume and its output have it, and more often than `least`.
fn runs_again(machine: &mut Machine, least: u32) -> u32 {
    let mut last = || {
        let said = logs(machine, "ticks");
        let runs = said.lines().filter_map(|line| line.rsplit_once("run ")?.1.parse().ok());
        runs.max().unwrap_or(0)
    };
    let (before, deadline) = (last().max(least), Instant::now() + LONG);
    loop {
        match last() {
            now if now > before => return now,
            now => assert!(Instant::now() < deadline, "after run {before} there is only {now}"),
        }
        std::thread::sleep(Duration::from_secs(3));
    }
}

fn logs(machine: &mut Machine, app: &str) -> String {
    machine.execute(&["app", "logs", app], std::io::empty()).1
}
