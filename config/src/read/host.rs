//! The tables about the device itself: console, health, watchdog, reset, log and memory.

use alloc::borrow::ToOwned as _;
use alloc::string::String;

use super::{Reader, Value};
use crate::{Config, keys};

impl<'t> Reader<'t> {
    pub(super) fn console(&mut self, value: &Value<'t>, config: &mut Config) {
        let Some(table) = self.table("console", value) else { return };
        for (name, value) in self.known("console", table) {
            match name {
                "image" => config.console_image = self.parsed("console.image", value, image_name),
                "serial" => config.serial_shell = self.switch("console.serial", value),
                _ => {}
            }
        }
    }

    pub(super) fn health(&mut self, value: &Value<'t>) -> Option<u32> {
        let table = self.table("health", value)?;
        let known = self.known("health", table);
        let (_, window) = known.into_iter().find(|(name, _)| *name == "window-s")?;
        self.number(window, keys::HEALTH_WINDOW_S)
    }

    pub(super) fn watchdog(&mut self, value: &Value<'t>, config: &mut Config) {
        let Some(table) = self.table("watchdog", value) else { return };
        for (name, value) in self.known("watchdog", table) {
            let minutes = self.number(value, keys::WATCHDOG_LIMITS_MIN);
            match name {
                "engine-min" => config.watchdog.engine_min = minutes,
                "network-min" => config.watchdog.network_min = minutes,
                _ => {}
            }
        }
    }

    pub(super) fn reset(&mut self, value: &Value<'t>) -> bool {
        let Some(table) = self.table("reset", value) else { return false };
        let known = self.known("reset", table);
        let found = known.into_iter().find(|(name, _)| *name == "power-cycles");
        found.is_some_and(|(_, value)| self.switch("reset.power-cycles", value))
    }

    pub(super) fn logs(&mut self, value: &Value<'t>, config: &mut Config) {
        let Some(table) = self.table("logs", value) else { return };
        for (name, value) in self.known("logs", table) {
            match name {
                "persistent" => config.keeps_logs = self.switch("logs.persistent", value),
                "most-mb" => config.most_log_mb = self.number(value, keys::LOG_LIMITS_MB),
                _ => {}
            }
        }
    }

    pub(super) fn memory(&mut self, value: &Value<'t>) -> Option<u32> {
        let table = self.table("memory", value)?;
        let known = self.known("memory", table);
        let (_, percent) = known.into_iter().find(|(name, _)| *name == "zram-percent")?;
        self.number(percent, keys::ZRAM_LIMITS_PERCENT)
    }
}

fn image_name(name: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"./:@_-".contains(&byte);
    let good = (1..=255).contains(&name.len()) && name.bytes().all(plain);
    match good && name.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        true => Ok(name.to_owned()),
        false => Err("no name of an image".to_owned()),
    }
}
