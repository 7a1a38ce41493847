//! The tables about what is around a device: time, proxies, authorities, registries; and modules.

use alloc::format;
use alloc::vec::Vec;

use super::{Reader, Value};
use crate::certificate::{self, Certificate};
use crate::engine::{self, Engine};
use crate::modules::{self, MODULES};
use crate::proxy::{self, Proxy};
use crate::{Config, time, zone};

impl<'t> Reader<'t> {
    pub(super) fn time(&mut self, value: &Value<'t>, config: &mut Config) {
        let Some(table) = self.table("time", value) else { return };
        for (name, value) in self.known("time", table) {
            match name {
                "zone" => config.time_zone = self.parsed("time.zone", value, zone::zone),
                "servers" => {
                    config.time_servers = self.servers("time.servers", value, 8, time::server);
                }
                _ => {}
            }
        }
    }

    pub(super) fn proxy(&mut self, value: &Value<'t>, to: &mut Proxy) {
        let Some(table) = self.table("proxy", value) else { return };
        for (name, value) in self.known("proxy", table) {
            match name {
                "http" => to.http = self.parsed("proxy.http", value, proxy::address),
                "https" => to.https = self.parsed("proxy.https", value, proxy::address),
                "no-proxy" => {
                    to.no_proxy = self.servers("proxy.no-proxy", value, 32, proxy::exception);
                }
                _ => {}
            }
        }
    }

    pub(super) fn engine(&mut self, value: &Value<'t>, to: &mut Engine) {
        let Some(table) = self.table("engine", value) else { return };
        for (name, value) in self.known("engine", table) {
            let path = format!("engine.{name}");
            match name {
                "registry-mirrors" => {
                    to.mirrors = self.servers(&path, value, 4, engine::mirror);
                }
                "insecure-registries" => {
                    to.insecure =
                        self.different(&path, value, (16, "registries"), engine::registry);
                }
                _ => {}
            }
        }
    }

    pub(super) fn kernel(&mut self, value: &Value<'t>) -> Vec<&'static str> {
        let Some(table) = self.table("kernel", value) else { return Vec::new() };
        let known = self.known("kernel", table);
        let Some((_, value)) = known.into_iter().next() else { return Vec::new() };
        self.different("kernel.modules", value, (MODULES.len(), "names"), modules::module)
    }

    pub(super) fn certificates(&mut self, value: &Value<'t>) -> Vec<Certificate> {
        const PATH: &str = "ca.certificates";
        let Some(table) = self.table("ca", value) else { return Vec::new() };
        let known = self.known("ca", table);
        let Some((_, value)) = known.into_iter().next() else { return Vec::new() };
        let Some(list) = self.list(PATH, value, 16, "certificates") else { return Vec::new() };
        let mut all: Vec<Certificate> = Vec::new();
        for value in list {
            let read = self.parsed(PATH, value, certificate::certificate);
            let Some(certificate) = read else { continue };
            if all.contains(&certificate) {
                self.wrong(value.span(), PATH, "this certificate is there twice".into());
            }
            all.push(certificate);
        }
        all
    }
}
