//! What a running system has to do when another configuration comes into force, and what has to
//! wait for the next start. Pure.

use config::Config;

/// What a daemon is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// dhcpcd reads its file again and asks for the addresses that it has (SIGHUP).
    NetworkAgain,
    /// dhcpcd gives back all addresses, ends, and is started anew by PID 1 (SIGALRM): addresses
    /// that are left from before would stay beside the new ones, as its file says `persistent`.
    NetworkAnew,
    /// wpa_supplicant reads its file again, and leaves and joins networks (SIGHUP); while nothing
    /// was to be joined, the program that waits in its place ends and is started anew.
    WifiAgain,
    /// avahi-daemon ends and is started anew by PID 1 (SIGTERM): it answers to the name it finds.
    NamesAnew,
    /// chronyd ends and is started anew by PID 1 (SIGTERM): it reads its file only then.
    TimeAnew,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Effects {
    /// Keys that are in force at once.
    pub now: Vec<String>,
    /// Keys that are in force after a restart.
    pub later: Vec<String>,
    /// Whom to tell.
    pub daemons: Vec<Daemon>,
    /// Whether the running SSH server asks for other keys.
    pub keys: bool,
}

impl Effects {
    /// Of a change from one configuration to another.
    pub fn of(before: &Config, after: &Config) -> Self {
        let keys = before.differences(after);
        let touches = |start: &str| keys.iter().any(|key| key.starts_with(start));
        // Which network a radio is in, dhcpcd notices by itself.
        let is_wifi = |key: &String| key.starts_with("network.wifi");
        let addresses = |key: &String| key.starts_with("network.") && !is_wifi(key);
        let network = match () {
            () if keys.iter().any(addresses) => Some(Daemon::NetworkAnew),
            // The name is told to DHCP servers.
            () if touches("hostname") => Some(Daemon::NetworkAgain),
            () => None,
        };
        let names = touches("hostname").then_some(Daemon::NamesAnew);
        let time = touches("time.servers").then_some(Daemon::TimeAnew);
        let wifi = keys.iter().any(is_wifi).then_some(Daemon::WifiAgain);
        let daemons = network.into_iter().chain(wifi).chain(names).chain(time).collect();
        let (later, now): (_, Vec<String>) =
            keys.into_iter().partition(|key| waits(key, before, after));
        let keys = now.iter().any(|key| key == "ssh.keys");
        Self { now, later, daemons, keys }
    }
}

/// What is looked at once, when a device starts.
const AT_THE_NEXT_START: [&str; 8] =
    ["time.zone", "proxy.", "ca.", "watchdog.", "engine.", "reset.", "logs.", "memory."];

/// The window is that of the next trial, which begins with a start. What a setting of the kernel
/// was before somebody chose another is known to no one but a kernel that starts. A server that
/// had no keys at its start has ended; one that runs looks at them for each login. So it is with
/// whoever looks for updates or keeps the log, and starts are counted when they begin. Containers
/// and the engine get their environment when they start.
fn waits(key: &str, before: &Config, after: &Config) -> bool {
    key.starts_with("health.")
        || AT_THE_NEXT_START.iter().any(|start| key.starts_with(start))
        || key.starts_with("sysctl.") && after.value(key).is_empty()
        || key == "ssh.keys" && before.ssh_keys().is_empty()
        || key == "update.source" && before.update().source().is_none()
}

/// Whether two configurations mean the same network.
pub fn same_network(one: &Config, other: &Config) -> bool {
    !one.differences(other).iter().any(|key| key.starts_with("network."))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "hostname = \"a\"\n";
    const DNS: &str = "[network]\ndns = [\"10.0.0.1\"]\n";
    const WIFI: &str = "[[network.wifi]]\nssid = \"a\"\nsecurity = \"open\"\n";
    const TIME: &str = "[time]\nservers = [\"10.0.0.1\"]\n";
    const ZONE: &str = "[time]\nzone = \"UTC\"\n";
    const PROXY: &str = "[proxy]\nhttp = \"http://p\"\n";
    const HEALTH: &str = "[health]\nwindow-s = 90\n";
    const KERNEL: &str = "[sysctl]\nvm.swappiness = 1\n";
    const NOTHING: &str = "# nothing\n";

    fn config(text: &str) -> Config {
        Config::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn each_change_tells_those_who_have_to_know_and_says_what_waits() {
        let name = "hostname";
        let again = || vec![Daemon::NetworkAgain, Daemon::NamesAnew];
        let anew = || vec![Daemon::NetworkAnew, Daemon::NamesAnew];
        let dns = "network.dns";
        for (before, after, now, later, daemons) in [
            (NOTHING, HOST, vec![name], vec![], again()),
            (HOST, NOTHING, vec![name], vec![], again()),
            (NOTHING, DNS, vec![dns], vec![], vec![Daemon::NetworkAnew]),
            (HOST, DNS, vec![dns, name], vec![], anew()),
            (WIFI, NOTHING, vec!["network.wifi.a.security"], vec![], vec![Daemon::WifiAgain]),
            (TIME, NOTHING, vec!["time.servers"], vec![], vec![Daemon::TimeAnew]),
            (NOTHING, ZONE, vec![], vec!["time.zone"], vec![]),
            (NOTHING, PROXY, vec![], vec!["proxy.http"], vec![]),
            (NOTHING, HEALTH, vec![], vec!["health.window-s"], vec![]),
            (NOTHING, KERNEL, vec!["sysctl.vm.swappiness"], vec![], vec![]),
            (KERNEL, NOTHING, vec![], vec!["sysctl.vm.swappiness"], vec![]),
            (KERNEL, KERNEL, vec![], vec![], vec![]),
        ] {
            let effects = Effects::of(&config(before), &config(after));
            let expected = Effects {
                now: now.into_iter().map(str::to_owned).collect(),
                later: later.into_iter().map(str::to_owned).collect(),
                daemons,
                keys: false,
            };
            assert_eq!(effects, expected, "{before:?} {after:?}");
        }
    }

    #[test]
    fn keys_for_ssh_are_in_force_at_once_if_a_server_runs() {
        let key = |comment: &str| {
            let blob = "AAAAC3NzaC1lZDI1NTE5AAAAIAkFG14uhMzsA/P6XR4xFVZ7v5HlZmbImE7M3BxGSxtE";
            config(&format!("[ssh]\nkeys = [\"ssh-ed25519 {blob} {comment}\"]\n"))
        };
        let (none, key, other) = (config(NOTHING), key("anna"), key("eve"));
        for (before, after, now) in
            [(&none, &key, false), (&key, &other, true), (&key, &none, true)]
        {
            let effects = Effects::of(before, after);
            assert_eq!((effects.keys, effects.later.is_empty()), (now, now), "{before}{after}");
        }
    }

    #[test]
    fn only_keys_of_the_network_make_another_network() {
        assert!(same_network(&config(HOST), &config(TIME)));
        assert!(!same_network(&config(HOST), &config(DNS)));
        assert!(!same_network(&config(HOST), &config(WIFI)));
    }
}
