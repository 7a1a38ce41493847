//! What an engine cannot do. A build that asks for it is refused: no device shall fail for it.

use ondisk::system::Container;
use serde::Deserialize;

use super::{Engine, reason};
use crate::error::{Context, Error, Result};

/// What an engine cannot do, each with the reason; a build that asks for it is refused.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lacks {
    /// Compose, and images that are carried for it.
    #[serde(default)]
    pub apps: Option<String>,
    /// Networks of its own: a container has the host's or none.
    #[serde(default)]
    pub networks: Option<String>,
}

impl Lacks {
    pub(super) fn check(&self) -> Result<()> {
        for (what, why) in [("apps", &self.apps), ("networks", &self.networks)] {
            why.iter().try_for_each(|why| reason("lacks", what, why))?;
        }
        Ok(())
    }
}

impl Engine {
    /// A container as this engine runs it. Without networks of its own, what a container publishes
    /// is at the same port of the host, because its network is the host's.
    pub(super) fn place(&self, container: &Container) -> Result<Container> {
        let Some(reason) = &self.lacks.networks else { return Ok(container.clone()) };
        let place = || format!("container {}, engine {}: {reason}", container.name, self.name);
        let refused = |what: String| {
            Err(Error::new(what).hint("build with --engine docker or podman")).context(place)
        };
        if let Some(port) = container.publish.iter().find(|port| port.host != port.container) {
            let (host, inside) = (port.host, port.container);
            return refused(format!(
                "publish `{host}:{inside}`: its port {inside} is the host's port {inside}"
            ));
        }
        match &*container.network {
            "host" | "none" => Ok(container.clone()),
            "bridge" => Ok(Container {
                network: "host".to_owned(),
                publish: Vec::new(),
                ..container.clone()
            }),
            other => refused(format!("network `{other}`: there is `host` or `none`")),
        }
    }
}
