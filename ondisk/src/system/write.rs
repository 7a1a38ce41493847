//! The one spelling of a system description.

use alloc::string::String;
use core::fmt::{self, Write};

use super::*;

impl System {
    pub(super) fn write(&self) -> String {
        let mut out = String::new();
        let text = &mut out;
        line(text, HEADER, "");
        line(text, "hostname ", &self.hostname);
        if let Some(engine) = &self.engine {
            line(text, "engine ", &engine.name);
            line(text, "  service ", &engine.service);
            line(text, "  api ", &engine.api);
            line(text, "  socket ", &engine.socket);
        }
        if let Some(health) = &self.health {
            line(text, "health ", &health.service);
            line(text, "  window-s ", health.window_s);
            line(text, "  limit-s ", health.limit_s);
        }
        if let Some(led) = &self.led {
            line(text, "led ", &led.name);
            for stage in Stage::ALL {
                line(text, "  ", format_args!("{} {}", stage.name(), led.pattern(stage)));
            }
        }
        self.modules.iter().for_each(|name| line(text, "module ", name));
        for Sysctl { name, value } in &self.sysctls {
            line(text, "sysctl ", format_args!("{name}={value}"));
        }
        self.write_mounts(text);
        self.services.iter().for_each(|service| service.write(text));
        self.containers.iter().for_each(|container| container.write(text));
        out
    }

    fn write_mounts(&self, text: &mut String) {
        for Tmpfs { path, mode, size } in &self.tmpfs {
            line(text, "tmpfs ", format_args!("{path} mode={mode:04o} size={size}"));
        }
        for Directory { path, mode, owner } in &self.directories {
            line(text, "directory ", format_args!("{path} mode={mode:04o} owner={owner}"));
        }
        for Bind { source, target } in &self.binds {
            line(text, "bind ", format_args!("{source} {target}"));
        }
        for Persistent { name, path, mode, owner, layers } in &self.persistent {
            let key = if layers.is_some() { " layers=" } else { "" };
            let layers = layers.as_deref().unwrap_or_default();
            let attributes =
                format_args!("{name} {path} mode={mode:04o} owner={owner}{key}{layers}");
            line(text, "persistent ", attributes);
        }
    }
}

impl Service {
    fn write(&self, text: &mut String) {
        line(text, "service ", &self.name);
        self.arguments.iter().for_each(|value| line(text, "  argument ", value));
        self.environment.iter().for_each(|value| line(text, "  environment ", value));
        line(text, "  user ", self.user);
        self.after.iter().for_each(|value| line(text, "  after ", value));
        line(text, "  ready ", &self.ready);
        line(text, "  restart ", self.restart);
        line(text, "  stop-timeout-ms ", self.stop_timeout_ms);
        line(text, "  leftovers ", self.leftovers);
        line(text, "  output ", self.output);
        line(text, "  oom-score-adjust ", self.oom_score_adjust);
        if self.cpu_weight != Self::CPU_WEIGHT {
            line(text, "  cpu-weight ", self.cpu_weight);
        }
        if self.skip_in_safe_mode {
            line(text, "  safe-mode ", "skip");
        }
    }
}

impl Container {
    fn write(&self, text: &mut String) {
        line(text, "container ", &self.name);
        line(text, "  image ", &self.image);
        self.arguments.iter().for_each(|value| line(text, "  argument ", value));
        self.environment.iter().for_each(|value| line(text, "  environment ", value));
        line(text, "  network ", &self.network);
        for Publish { host, container } in &self.publish {
            line(text, "  publish ", format_args!("{host}:{container}"));
        }
        self.after.iter().for_each(|value| line(text, "  after ", value));
        match self.again {
            Again::Always => {}
            Again::OnFailure => line(text, "  restart ", "on-failure"),
            Again::Never => line(text, "  restart ", "never"),
        }
        if self.on_demand {
            line(text, "  start ", "on-demand");
        }
    }
}

fn line(text: &mut String, key: &str, value: impl fmt::Display) {
    // OK to ignore: writing to a String cannot fail.
    let _ = writeln!(text, "{key}{value}");
}

impl fmt::Display for Owner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.user, self.group)
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => out.write_str("started"),
            Self::Exit => out.write_str("exit"),
            Self::Http { socket, path } => write!(out, "http {socket} {path}"),
        }
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (when, BackOff { first_ms, longest_ms }) = match self {
            Self::Never => return out.write_str("never"),
            Self::OnFailure(back_off) => ("on-failure", back_off),
            Self::Always(back_off) => ("always", back_off),
        };
        write!(out, "{when} first={first_ms} longest={longest_ms}")
    }
}

impl fmt::Display for Leftovers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Keep => "keep",
            Self::Kill => "kill",
        })
    }
}

impl fmt::Display for Output {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Console => "console",
            Self::Log => "log",
            Self::Verbatim => "verbatim",
        })
    }
}
