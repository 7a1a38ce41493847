//! Descriptions that are read, and damaged ones that are not.

use super::*;

const SAMPLE: &str = "\
iota-system 1
hostname iota
engine docker
  service docker
  api docker
  socket /run/docker.sock
health health
  window-s 60
  limit-s 600
led ACT
  starting timer delay_on=100 delay_off=100
  running heartbeat
  safe timer delay_on=1000 delay_off=1000
  stopping default-on
module br_netfilter
module overlay
sysctl net.ipv4.ip_forward=1
tmpfs /var mode=0755 size=25%
directory /var/log mode=0755 owner=0:0
bind /run/containerd /opt/containerd
persistent docker /var/lib/docker mode=0710 owner=0:0 layers=overlay2
service network
  argument /usr/sbin/dhcpcd
  user 0:0
  ready started
  restart always first=500 longest=30000
  stop-timeout-ms 2000
  leftovers kill
  output log
  oom-score-adjust 0
service docker
  argument /usr/sbin/dockerd
  argument --label=a value with blanks
  environment PATH=/usr/sbin:/usr/bin
  user 0:0
  after network
  ready http /run/docker.sock /_ping
  restart on-failure first=500 longest=30000
  stop-timeout-ms 20000
  leftovers keep
  output console
  oom-score-adjust -500
  cpu-weight 400
  safe-mode skip
service health
  argument /usr/bin/iota
  user 0:0
  ready exit
  restart never
  stop-timeout-ms 5000
  leftovers kill
  output verbatim
  oom-score-adjust 0
container hello
  image /usr/share/iota/images/hello.tar
  argument /bin/busybox
  environment TERM=dumb
  network none
  publish 8080:80
container report
  image /usr/share/iota/images/hello.tar
  network none
  after hello
  restart on-failure
container console
  image /usr/share/iota/images/hello.tar
  network host
  start on-demand
";

#[test]
fn an_environment_is_entries_and_nothing_else() {
    let text = "HTTP_PROXY=http://a:1\nnonsense\n=x\nPATH x=1\nNO_PROXY=a,b=c\nBAD=\0\n";
    let found: Vec<_> = environment(text).collect();
    assert_eq!(found, [("HTTP_PROXY", "http://a:1"), ("NO_PROXY", "a,b=c")]);
}

#[test]
fn a_description_survives_the_way_through_its_text() {
    let system = System::parse(SAMPLE).unwrap();
    assert_eq!(system.encode().unwrap(), SAMPLE);
    assert_eq!(system.service("docker").unwrap().arguments[1], "--label=a value with blanks");
    let skipped = |name: &str| system.service(name).unwrap().skip_in_safe_mode;
    assert!(skipped("docker") && !skipped("network"));
    assert_eq!(system.health.unwrap().limit_s, 600);
    assert_eq!(system.led.unwrap().safe.to_string(), "timer delay_on=1000 delay_off=1000");
    assert_eq!(system.engine.unwrap().socket, "/run/docker.sock");
    assert_eq!(system.containers[0].publish, [Publish { host: 8080, container: 80 }]);
    assert!(!system.containers[0].on_demand && system.containers[2].on_demand);
    assert_eq!(system.containers[1].after, ["hello"]);
    assert_eq!(system.containers[1].again, Again::OnFailure);
}

#[test]
fn an_image_without_engine_and_services_is_fine() {
    let text = "iota-system 1\nhostname bare\n";
    assert_eq!(System::parse(text).unwrap().encode().unwrap(), text);
}

#[test]
fn a_directory_that_survives_may_have_layers_of_images_in_it() {
    let text = "iota-system 1\nhostname bare\n\
        persistent iota /var/lib/iota mode=0700 owner=0:0\n\
        persistent box /var/lib/box mode=0711 owner=0:0 layers=storage/overlay\n";
    let system = System::parse(text).unwrap();
    assert_eq!(system.encode().unwrap(), text);
    let layers: Vec<_> = system.persistent.iter().map(|entry| entry.layers.as_deref()).collect();
    assert_eq!(layers, [None, Some("storage/overlay")]);
    refused("layers=overlay2", "layer=x", "line 21: expected `layers=…`, found `layer=x`");
    refused("layers=overlay2", "layers=x y", "line 21: `persistent` does not have that many words");
    refused("layers=overlay2", "layers=x/../y", "`/x/../y` is not a plain absolute path");
}

/// One change of the sample and the error it must give.
fn refused(from: &str, to: &str, expected: &str) {
    assert!(SAMPLE.contains(from), "the sample has no {from:?}");
    let error = System::parse(&SAMPLE.replacen(from, to, 1)).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_damaged_description_is_refused_with_its_line() {
    for (from, to, expected) in [
        ("iota-system 1", "iota-system 2", "line 1: not a description: expected `iota-system 1`"),
        ("hostname iota", "hostname", "line 2: `hostname` has no value"),
        ("module overlay", "modul overlay", "line 16: unknown word `modul`"),
        ("  api docker", "  app docker", "line 5: `app` does not belong here"),
        ("running heartbeat", "ready heartbeat", "line 12: `ready` does not belong here"),
        ("running heartbeat", "running heartbeat x", "line 12: `x` has no `=`"),
        ("module overlay", "  module overlay", "line 16: `module` does not belong here"),
        ("mode=0755", "mode=0759", "line 18: `0759` is not a mode"),
        ("user 0:0", "user 0", "line 24: `0` has no `:`"),
        ("stop-timeout-ms 2000", "stop-timeout-ms -1", "line 27: `-1` is not a number in range"),
        (
            "output log",
            "output syslog",
            "line 29: output goes to console, log or verbatim, not `syslog`",
        ),
        ("start on-demand", "start later", "line 68: `start` does not belong here"),
        ("publish 8080:80", "publish 8080:65536", "line 59: `65536` is not a number in range"),
    ] {
        refused(from, to, expected);
    }
}

#[test]
fn a_description_that_makes_no_sense_is_refused() {
    for (from, to, expected) in [
        (
            "service network",
            "service N",
            "service N: service `N` is not a name of lower case letters, digits and `-`",
        ),
        ("after network", "after docker", "service docker: no service `docker` comes before it"),
        ("/usr/sbin/dhcpcd", "dhcpcd", "service network: `dhcpcd` is not a plain absolute path"),
        ("tmpfs /var", "tmpfs /var/../etc", "`/var/../etc` is not a plain absolute path"),
        ("service docker\n  api", "service moby\n  api", "engine: there is no service `moby`"),
        (
            "first=500 longest=30000",
            "first=0 longest=30000",
            "service network: the first pause must be above 0 and not above the longest",
        ),
        (
            "ready started",
            "ready exit",
            "service network: work that is done once cannot be restarted always",
        ),
        ("adjust -500", "adjust -1001", "service docker: oom-score-adjust -1001 is out of range"),
        ("weight 400", "weight 0", "service docker: cpu-weight 0 is out of range"),
        ("weight 400", "weight 10001", "service docker: cpu-weight 10001 is out of range"),
        ("PATH=", "=", "service docker: environment `=/usr/sbin:/usr/bin` is not KEY=VALUE"),
        ("health health", "health nobody", "health: there is no service `nobody`"),
        ("health health", "health docker", "health: `docker` is not work to be done once"),
        ("window-s 60", "window-s 600", "health: the window must be above 0 and below the limit"),
        ("window-s 60", "window-s 0", "health: the window must be above 0 and below the limit"),
        ("  running heartbeat\n", "", "led ACT: the stage `running` is missing"),
        (
            "led ACT",
            "led ../ACT",
            "led ../ACT: LED `../ACT` is not a name of letters, digits, `-`, `_` and `:`",
        ),
        ("net.ipv4", "../ipv4", "sysctl `../ipv4.ip_forward` is not a dotted name"),
    ] {
        refused(from, to, expected);
    }
}

#[test]
fn only_the_spelling_of_the_writer_is_read() {
    let why = |line: &str| format!("`{line}` is out of order, repeated or spelt differently");
    for (from, to, number, line) in [
        ("mode=0755", "mode=755", 18, "tmpfs /var mode=755 size=25%"),
        ("first=500", "first=0500", 26, "  restart always first=0500 longest=30000"),
        ("hostname iota\n", "hostname iota\nhostname iota\n", 3, "hostname iota"),
        ("  output log\n", "", 29, "  oom-score-adjust 0"),
        ("\n  output log", "\r\n  output log", 28, "  leftovers kill\r"),
    ] {
        refused(from, to, &format!("line {number}: {}", why(line)));
    }
    assert!(System::parse(SAMPLE.trim_end()).is_err(), "the last line must end");
    assert!(System::parse(&format!("{SAMPLE}\n")).is_err(), "nothing may follow");
}

#[test]
fn the_writer_refuses_what_the_reader_would_refuse() {
    let mut system = System::parse(SAMPLE).unwrap();
    system.services[1].arguments.push("two\nlines".into());
    let error = system.encode().unwrap_err();
    assert_eq!(error.problem, "service docker: argument holds the control character \\n");
}
