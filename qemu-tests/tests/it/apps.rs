//! An app in the image: its container runs at the first boot without a registry, is kept by the
//! rules of its Compose file, and keeps its data.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use builder::host::qemu::{Forward, Options};
use builder::oci::{self, Architecture};
use builder::tree::Content;
use qemu_tests::disk::Disk;
use qemu_tests::machine::Machine;
use qemu_tests::ssh::Person;
use qemu_tests::web_server::free_port;
use qemu_tests::{image, scratch, slow_tests_wanted};
use serde_json::Value;

use crate::push::{push, sends_only_what_is_missing};

const LONG: Duration = Duration::from_secs(400);

/// The first service is done before the second starts; the second counts its starts on a volume,
/// and so does the third, which a connection starts.
pub(crate) const COMPOSE: &str = r#"
services:
  setup:
    image: shop/web:1
    command: ["cp", "/conf/greeting", "/state/greeting"]
    volumes:
      - state:/state
      - ./conf:/conf:ro
  web:
    image: shop/web:1
    restart: unless-stopped
    init: true
    depends_on:
      setup: { condition: service_completed_successfully }
    ports: ["8080:80"]
    healthcheck:
      test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/starts"]
      interval: 2s
      timeout: 20s
      retries: 20
    volumes: [state:/state]
  lazy:
    image: shop/web:1
    x-iota: { on-demand: true, idle: 5s, start-within: 2m }
    command: ["/bin/sh", "-c", "echo lazy >> /state/lazy; exec httpd -f -p 80 -h /state"]
    stop_grace_period: 1s
    ports: ["8081:80"]
    volumes: [state:/state]
volumes:
  state:
"#;

#[test]
fn an_app_in_the_image_runs_without_a_registry_and_keeps_its_data() {
    if !slow_tests_wanted() {
        return;
    }
    let directory = scratch().join("apps");
    let out = build(&directory);
    let owner = Person::new("anna@mill", 1);
    let config = format!("[ssh]\nkeys = [\"{}\"]\n", owner.public_key());
    let disk = Disk::flashed_with_config(&out, "apps", &config);
    disk.enlarge(1 << 30);
    let (port, lazy, ssh) = (free_port(), free_port(), free_port());
    let forward = |host, guest| Forward { host, guest };
    let forwards = vec![forward(port, 8080), forward(lazy, 8081), forward(ssh, 22)];
    let options = Options { persist: true, forwards, ..Options::new(disk.path()) };

    let mut machine = Machine::boot("apps-first", &options);
    machine.expect_somewhere("image shop/web:1 loaded", LONG);
    machine.expect_somewhere("app shop ready", LONG);
    assert!(page(port, "starts").ends_with("started\n"));
    assert!(page(port, "greeting").ends_with("hello from the shop\n"));
    is_well(&mut machine);
    assert_eq!(runs_on_demand(&mut machine, lazy), 1);
    let (code, said) = machine.execute(&["app", "logs", "shop"], std::io::empty());
    assert!(code == 0 && said.contains("web is up"), "{said}");
    let (code, said) = machine.execute(&["app", "restart", "shop"], std::io::empty());
    assert_eq!((code, said.contains("app shop restarted")), (0, true), "{said}");
    assert!(page(port, "starts").ends_with("started\nstarted\n"));
    let (code, said) = machine.execute(&["app", "rm", "shop"], std::io::empty());
    assert!(code == 2 && said.contains("is part of this system"), "{said}");
    let (code, said) = machine.execute(&["app", "logs", "shap"], std::io::empty());
    assert!(code == 2 && said.contains("did you mean `shop`?"), "{said}");
    is_pushed_or_rolled_back(&mut machine, &owner.program(ssh), port, &directory);
    sends_only_what_is_missing(&mut machine, &owner, ssh, &directory);
    machine.power_off(LONG);
    drop(machine);

    let mut machine = Machine::boot("apps-second", &options);
    machine.expect_somewhere("app shop ready", LONG);
    assert!(page(port, "starts").ends_with("second\n"));
    is_well(&mut machine);
    let (_, said) = machine.execute(&["logs", "on-demand"], std::io::empty());
    assert_eq!(said, "", "nobody has connected");
    runs_on_demand(&mut machine, lazy);
    let (_, said) = machine.execute(&["logs", "on-demand"], std::io::empty());
    let stopped = "app shop: lazy stopped: no connection for 5 s\n";
    assert_eq!(said.matches(stopped).count(), 2, "{said}");
    let (code, said) = machine.execute(&["app", "rollback", "shop"], std::io::empty());
    assert_eq!((code, said.contains("release system is healthy")), (0, true), "{said}");
    assert!(page(port, "starts").ends_with("started\n"));
    let (_, text) = machine.execute(&["status"], std::io::empty());
    assert!(text.contains("app        shop (release system): setup done; web "), "{text}");
    let said = machine.console.log();
    assert!(!said.contains("shop/web:1 loaded"), "the image was not kept:\n{said}");
    an_engine_that_does_not_start_gets_a_new_store(&mut machine, &owner, ssh, port);
    what_a_card_garbled_is_repaired(&mut machine, &owner, ssh);
    machine.power_off(LONG);
}

/// What containerd knows about everything becomes noise. There is no network to fetch anything
/// from.
fn an_engine_that_does_not_start_gets_a_new_store(
    machine: &mut Machine,
    owner: &Person,
    ssh: u16,
    port: u16,
) {
    let body = |page: String| page.split_once("\r\n\r\n").unwrap().1.to_owned();
    let before = body(page(port, "starts"));
    let metadata = "/var/lib/docker/containerd/daemon/io.containerd.metadata.v1.bolt/meta.db";
    owner.spoils(ssh, metadata, 64);
    machine.restart(LONG);
    machine.expect("engine docker ended again and again: its store is put aside, in", LONG);
    machine.expect("engine docker ready", LONG);
    machine.expect_somewhere("image shop/web:1 loaded", LONG);
    machine.expect("app shop ready", LONG);
    is_well(machine);
    // Its volume has been there all the time.
    assert_eq!(body(page(port, "starts")), format!("{before}started\n"));
    let (_, text) = machine.execute(&["status"], std::io::empty());
    let place = "the old one is in /var/lib/docker/aside for a week";
    assert!(text.contains("it could not open its store on 20") && text.contains(place), "{text}");
    assert!(machine.status()["engine-store-put-aside-s"].is_u64());
}

/// A byte of each layer becomes another one in the engine's store; there is no network to fetch
/// anything from.
fn what_a_card_garbled_is_repaired(machine: &mut Machine, owner: &Person, ssh: u16) {
    let (code, said) = machine.execute(&["app", "verify"], std::io::empty());
    assert_eq!((code, &*said), (0, "image hello: whole\nimage shop/web:1: whole\n"));
    let line = "for file in /host/var/lib/docker/overlay2/*/diff/etc/passwd; do \
        printf X | dd of=$file bs=1 conv=notrunc || exit 1; done; sync";
    let output = owner.runs(ssh, &[line], "");
    assert!(output.status.success(), "{}", qemu_tests::tools::text_of(&output));
    let (code, said) = machine.execute(&["app", "verify"], std::io::empty());
    assert_eq!((code, said.matches(": damaged: ").count()), (1, 2), "{said}");
    // In this store no image that was pushed shares a layer with the system's.
    let (code, said) = machine.execute(&["app", "repair"], std::io::empty());
    assert_eq!((code, said.matches("; repaired").count()), (0, 2), "{said}");
    is_well(machine);
}

/// Builds an image with the app and the image that it names.
fn build(directory: &Path) -> PathBuf {
    build_with(directory, COMPOSE, "docker")
}

/// The same with another Compose file and another engine.
pub(crate) fn build_with(directory: &Path, compose: &str, engine: &str) -> PathBuf {
    let app = directory.join("shop");
    std::fs::create_dir_all(app.join("conf")).unwrap();
    std::fs::write(app.join("compose.yaml"), compose).unwrap();
    std::fs::write(app.join("conf/greeting"), "hello from the shop\n").unwrap();
    let archive = directory.join("web.tar");
    std::fs::write(&archive, web_image("1", "started")).unwrap();
    let source = format!("docker-archive:{}", archive.display());
    let words = ["--engine", engine, "--with-image", &source, "--app"].map(OsStr::new);
    let options: Vec<&OsStr> = words.into_iter().chain([app.as_os_str()]).collect();
    let built = image::try_to_build(&directory.join("out"), &options);
    built.unwrap_or_else(|error| panic!("{}", error.chain()))
}

/// A release that works is pushed and becomes current; one that does not is rolled back.
pub(crate) fn is_pushed_or_rolled_back(
    machine: &mut Machine,
    ssh: &Path,
    port: u16,
    directory: &Path,
) {
    let second = directory.join("second");
    std::fs::create_dir_all(second.join("conf")).unwrap();
    std::fs::write(second.join("conf/greeting"), "hello again\n").unwrap();
    let archive = directory.join("second.tar");
    std::fs::write(&archive, web_image("2", "second")).unwrap();
    let push = |compose: &str, within: &str| {
        std::fs::write(second.join("compose.yaml"), compose).unwrap();
        push("shop", &second, &archive, ssh, within)
    };
    let good = COMPOSE.replace("shop/web:1", "shop/web:2");
    assert_eq!(push(&good, "300"), ExitCode::SUCCESS);
    assert!(page(port, "starts").ends_with("started\nsecond\n"));
    assert!(page(port, "greeting").ends_with("hello again\n"));
    let bad = good.replace("    init: true\n", "    command: [\"false\"]\n");
    assert_eq!(push(&bad, "20"), ExitCode::from(2));
    assert!(page(port, "starts").ends_with("second\nsecond\n"));
    let (code, said) = machine.execute(&["app", "history", "shop"], std::io::empty());
    assert!(code == 0 && said.starts_with("1  pushed") && said.contains("current"), "{said}");
    assert!(said.contains("system  carried by the system"), "{said}");
}

pub(crate) fn web_image(tag: &str, word: &str) -> Vec<u8> {
    let applets = ["sh", "cp", "false", "httpd", "wget"];
    let tree = oci::busybox_tree(Content::bytes(image::busybox()), &applets).unwrap();
    let line =
        format!("echo {word} >> /state/starts; echo web is up; exec httpd -f -p 80 -h /state");
    let path = ("PATH".to_owned(), "/bin".to_owned());
    let image = oci::Image {
        name: "shop/web",
        tag,
        architecture: Architecture::Arm64,
        tree: &tree,
        command: &["/bin/sh", "-c", &line],
        environment: &BTreeMap::from([path]),
    };
    image.build().unwrap().bytes
}

/// Each service is as it should be, before long.
pub(crate) fn is_well(machine: &mut Machine) {
    let deadline = Instant::now() + LONG;
    loop {
        let (code, text) = machine.execute(&["app", "list", "--json"], std::io::empty());
        let document: Value = serde_json::from_str(text.trim()).unwrap();
        if code == 0 && document["well"] == true {
            assert_eq!(document["apps"][0]["services"][0]["state"], "done", "{text}");
            assert_eq!(document["apps"][0]["services"][1]["state"], "healthy", "{text}");
            return;
        }
        assert!(Instant::now() < deadline, "{text}");
        std::thread::sleep(Duration::from_secs(2));
    }
}

/// The service on demand waits, answers the first connection, stops when nobody is connected, and
/// answers again. Gives which start the first one was.
pub(crate) fn runs_on_demand(machine: &mut Machine, port: u16) -> usize {
    let starts = [(); 2].map(|()| {
        is_lazy(machine, "on demand");
        let page = get_within(port, "lazy", LONG).unwrap();
        assert!(page.contains("200 OK"), "{page}");
        let silent = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        std::thread::sleep(Duration::from_secs(6));
        is_lazy(machine, "on demand, running");
        drop(silent);
        page.matches("lazy\n").count()
    });
    is_lazy(machine, "on demand");
    assert_eq!(starts[1], starts[0] + 1);
    starts[0]
}

/// The service on demand gets there before long, and the app is well.
fn is_lazy(machine: &mut Machine, state: &str) {
    let deadline = Instant::now() + LONG;
    loop {
        let (code, text) = machine.execute(&["app", "list", "--json"], std::io::empty());
        let document: Value = serde_json::from_str(text.trim()).unwrap();
        if code == 0 && document["apps"][0]["services"][2]["state"] == state {
            return;
        }
        assert!(Instant::now() < deadline, "not {state}: {text}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// A page of the app, once it answers.
pub(crate) fn page(port: u16, name: &str) -> String {
    let deadline = Instant::now() + LONG;
    loop {
        match get(port, name) {
            Ok(page) if page.contains("200 OK") => return page,
            outcome => assert!(Instant::now() < deadline, "port {port}: {outcome:?}"),
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn get(port: u16, name: &str) -> std::io::Result<String> {
    get_within(port, name, Duration::from_secs(10))
}

fn get_within(port: u16, name: &str, patience: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET /{name} HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
