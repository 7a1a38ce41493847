//! What `iota status` learns from an engine.

use agent::engine;
use agent::status::Status;
use ondisk::boot_args::BootArgs;
use ondisk::system::{Again, Container, Engine, System};

use crate::fake::{Answer, Fake};
use Answer::Recorded;

fn system(fake: &Fake) -> System {
    System {
        engine: Some(Engine {
            name: "docker".to_owned(),
            service: "docker".to_owned(),
            api: "docker".to_owned(),
            socket: fake.socket.to_str().unwrap().to_owned(),
        }),
        containers: vec![Container {
            name: "hello".to_owned(),
            image: "/usr/share/iota/images/hello.tar".to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            network: "none".to_owned(),
            publish: Vec::new(),
            after: Vec::new(),
            again: Again::Always,
            on_demand: false,
        }],
        ..System::default()
    }
}

fn status(fake: &Fake) -> Status {
    let engine = engine::open("docker", &fake.socket).unwrap();
    let boot = BootArgs::parse("quiet").map_err(|error| error.to_string());
    let slots = Err("not asked".to_owned());
    let status = Status::collect(boot, slots, &system(fake), Some(&*engine));
    Status { hostname: "kiosk-7".to_owned(), ..status }
}

#[test]
fn an_engine_that_answers_shows_its_version_and_its_containers() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::new(
        directory.path(),
        &[
            ("GET /version", &[Recorded("version")]),
            ("GET /containers/json?all=1", &[Recorded("list")]),
        ],
    );
    fake.start();
    let status = status(&fake);
    let expected = "slot       unknown: kernel command line has no iota.slot=\n\
        host name  kiosk-7\nconfig     unknown: not looked at\n\
        data       unknown: not looked at\n\
        engine     docker 26.1.5+dfsg1, ready\n\
        container  hello (e87ea8b11c2e): Up 4 seconds\n";
    assert_eq!(status.text(), expected);
    assert!(status.is_well());
}

#[test]
fn an_engine_that_is_down_is_told_with_its_socket() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::new(directory.path(), &[]);
    let status = status(&fake);
    assert!(status.text().contains("engine     docker: cannot connect to /"));
    assert!(!status.is_well());
}
