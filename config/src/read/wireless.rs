//! The tables of Wi-Fi networks.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;

use toml::de::DeTable;

use super::{Reader, Value};
use crate::keys;
use crate::wifi::{self, Wifi};

impl<'t> Reader<'t> {
    /// The networks to join, none of them twice.
    pub(super) fn wifi(&mut self, value: &Value<'t>) -> Vec<Wifi> {
        let mut all: Vec<Wifi> = Vec::new();
        for (table, span) in self.tables("network.wifi", value, "network") {
            let Some(one) = self.one_wifi(table, span.clone()) else { continue };
            if all.iter().any(|other| other.ssid == one.ssid) {
                self.add(span, format!("`{}` has a table already", one.ssid), None);
            }
            all.push(one);
        }
        all
    }

    fn one_wifi(&mut self, table: &DeTable<'t>, span: Range<usize>) -> Option<Wifi> {
        let (mut ssid, mut password, mut security) = (None, None, None);
        let (mut hidden, mut priority) = (false, 0);
        let mistakes = self.problems.len();
        for (name, value) in self.known("network.wifi", table) {
            match name {
                "ssid" => ssid = self.parsed("network.wifi.ssid", value, wifi::ssid),
                "password" => {
                    password = self.secret("network.wifi.password", value, wifi::password)
                }
                "security" => {
                    security = self.parsed("network.wifi.security", value, wifi::security);
                }
                "hidden" => hidden = self.switch("network.wifi.hidden", value),
                "priority" => {
                    priority = self.number(value, keys::WIFI_PRIORITY).unwrap_or_default();
                }
                _ => {}
            }
        }
        // What else is missing may be on the line that is wrong.
        if self.problems.len() > mistakes || !self.broken.is_empty() {
            return None;
        }
        let Some(ssid) = ssid else {
            self.wrong(span, "network.wifi.ssid", "a network without `ssid`".to_owned());
            return None;
        };
        if let Err(why) = wifi::fits(password.as_ref(), security) {
            let hint =
                "`password` is what its members know; `security = \"open\"` is for one without";
            self.add(span, why.to_owned(), Some(hint.to_owned()));
        }
        Some(Wifi { ssid, password, security, hidden, priority })
    }
}
