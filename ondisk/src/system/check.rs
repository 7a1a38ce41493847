//! What a valid system description says beyond what its types say.

use alloc::format;
use alloc::string::String;

use super::*;

impl System {
    pub(super) fn check(&self) -> Result<(), Error> {
        check_name("host name", &self.hostname)?;
        self.modules.iter().try_for_each(|name| check_word("module", name))?;
        for Sysctl { name, value } in &self.sysctls {
            check_word("sysctl", name)?;
            check_text("sysctl value", value)?;
            if name.contains(['/', '=']) || name.contains("..") || name.starts_with('.') {
                return Err(fault(format!("sysctl `{name}` is not a dotted name")));
            }
        }
        self.check_mounts()?;
        for (index, service) in self.services.iter().enumerate() {
            let earlier = self.services.get(..index).unwrap_or_default();
            service.check(earlier)?;
        }
        for (index, container) in self.containers.iter().enumerate() {
            let earlier = self.containers.get(..index).unwrap_or_default();
            container.check(earlier)?;
        }
        self.engine.as_ref().map_or(Ok(()), |engine| engine.check(self))?;
        self.health.as_ref().map_or(Ok(()), |health| health.check(self))?;
        self.led.as_ref().map_or(Ok(()), Led::check)
    }

    fn check_mounts(&self) -> Result<(), Error> {
        for Tmpfs { path, mode, size } in &self.tmpfs {
            check_path(path)?;
            check_mode(*mode)?;
            check_word("size", size)?;
            if size.contains(',') {
                return Err(fault(format!("size `{size}` holds a comma")));
            }
        }
        for Directory { path, mode, .. } in &self.directories {
            check_path(path)?;
            check_mode(*mode)?;
        }
        for Bind { source, target } in &self.binds {
            check_path(source)?;
            check_path(target)?;
        }
        for Persistent { name, path, mode, layers, .. } in &self.persistent {
            check_name("persistent directory", name)?;
            check_path(path)?;
            check_mode(*mode)?;
            if let Some(layers) = layers {
                check_path(&format!("/{layers}"))?;
            }
        }
        Ok(())
    }
}

impl Engine {
    fn check(&self, system: &System) -> Result<(), Error> {
        check_name("engine", &self.name)?;
        check_name("api", &self.api)?;
        check_path(&self.socket)?;
        match system.service(&self.service) {
            Some(_) => Ok(()),
            None => Err(fault(format!("engine: there is no service `{}`", self.service))),
        }
    }
}

impl Health {
    fn check(&self, system: &System) -> Result<(), Error> {
        let Some(service) = system.service(&self.service) else {
            return Err(fault(format!("health: there is no service `{}`", self.service)));
        };
        // It is asked once; what it says is the verdict.
        if service.ready != Ready::Exit || service.restart != Restart::Never {
            return Err(fault(format!("health: `{}` is not work to be done once", service.name)));
        }
        if self.window_s == 0 || self.window_s >= self.limit_s {
            return Err(fault("health: the window must be above 0 and below the limit"));
        }
        Ok(())
    }
}

impl Service {
    fn check(&self, earlier: &[Service]) -> Result<(), Error> {
        self.check_alone(earlier)
            .map_err(|error| fault(format!("service {}: {}", self.name, error.problem)))
    }

    fn check_alone(&self, earlier: &[Service]) -> Result<(), Error> {
        check_name("service", &self.name)?;
        let is_earlier = |name: &str| earlier.iter().any(|service| service.name == name);
        if is_earlier(&self.name) {
            return Err(fault("the name is taken"));
        }
        check_path(self.arguments.first().map_or("", String::as_str))?;
        self.arguments.iter().try_for_each(|value| check_text("argument", value))?;
        check_environment(&self.environment)?;
        if let Some(name) = self.after.iter().find(|name| !is_earlier(name)) {
            return Err(fault(format!("no service `{name}` comes before it")));
        }
        if let Ready::Http { socket, path } = &self.ready {
            check_path(socket)?;
            check_path(path)?;
        }
        if !(-1000..=1000).contains(&self.oom_score_adjust) {
            return Err(fault(format!(
                "oom-score-adjust {} is out of range",
                self.oom_score_adjust
            )));
        }
        if !(1..=10_000).contains(&self.cpu_weight) {
            return Err(fault(format!("cpu-weight {} is out of range", self.cpu_weight)));
        }
        if self.ready == Ready::Exit && matches!(self.restart, Restart::Always(_)) {
            return Err(fault("work that is done once cannot be restarted always"));
        }
        match self.restart {
            Restart::OnFailure(pause) | Restart::Always(pause)
                if pause.first_ms == 0 || pause.first_ms > pause.longest_ms =>
            {
                Err(fault("the first pause must be above 0 and not above the longest"))
            }
            _ => Ok(()),
        }
    }
}

impl Container {
    fn check(&self, earlier: &[Container]) -> Result<(), Error> {
        check_name("container", &self.name)?;
        if earlier.iter().any(|container| container.name == self.name) {
            return Err(fault(format!("container {}: the name is taken", self.name)));
        }
        let is_started = |name: &String| earlier.iter().any(|it| it.name == *name && !it.on_demand);
        if let Some(name) = self.after.iter().find(|name| !is_started(name)) {
            return Err(fault(format!("no container `{name}` is started before it")));
        }
        if self.on_demand && (!self.after.is_empty() || self.again != Again::Always) {
            return Err(fault("a container that waits for somebody has no order and no restart"));
        }
        check_path(&self.image)?;
        self.arguments.iter().try_for_each(|value| check_text("argument", value))?;
        check_environment(&self.environment)?;
        check_name("network", &self.network)
    }
}

fn check_environment(environment: &[String]) -> Result<(), Error> {
    for entry in environment {
        check_text("environment", entry)?;
        if entry.find('=').unwrap_or(0) == 0 {
            return Err(fault(format!("environment `{entry}` is not KEY=VALUE")));
        }
    }
    Ok(())
}

fn check_name(what: &str, name: &str) -> Result<(), Error> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = !name.is_empty() && name.len() <= 63 && name.bytes().all(plain);
    if good && !name.starts_with('-') {
        return Ok(());
    }
    Err(fault(format!("{what} `{name}` is not a name of lower case letters, digits and `-`")))
}

fn check_path(path: &str) -> Result<(), Error> {
    check_word("path", path)?;
    let up = path.split('/').any(|part| part == ".." || part == ".");
    if path.starts_with('/') && !up && !path.contains("//") {
        return Ok(());
    }
    Err(fault(format!("`{path}` is not a plain absolute path")))
}

fn check_mode(mode: u32) -> Result<(), Error> {
    if mode <= 0o1777 {
        Ok(())
    } else {
        Err(fault(format!("mode {mode:o} is not a directory mode")))
    }
}

fn check_word(what: &str, word: &str) -> Result<(), Error> {
    check_text(what, word)?;
    if word.is_empty() || word.contains(' ') {
        return Err(fault(format!("{what} `{word}` is empty or holds a blank")));
    }
    Ok(())
}

fn check_text(what: &str, text: &str) -> Result<(), Error> {
    match text.chars().find(|character| character.is_control()) {
        None => Ok(()),
        Some(found) => {
            Err(fault(format!("{what} holds the control character {}", found.escape_default())))
        }
    }
}
