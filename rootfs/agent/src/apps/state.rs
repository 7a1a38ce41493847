//! How it stands with an app: what the engine says of its containers, judged. Pure.

use serde_json::{Value, json};

use super::App;
use crate::engine::Member;

/// How it stands with an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppState {
    /// Its name.
    pub name: String,
    /// Its release: a number, or `system`.
    pub release: String,
    /// Each of its services.
    pub services: Vec<ServiceState>,
}

/// How it stands with a service: with the worst of its containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceState {
    /// Its name.
    pub name: String,
    /// In words.
    pub state: String,
    /// Whether it does what it was declared to do.
    pub is_well: bool,
    /// How often the engine has started its containers again.
    pub restarts: u64,
}

/// What is known of services that run on demand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Those whose last start failed, with the reason.
    pub troubles: Vec<(String, String)>,
    /// Whether they have to run all the same, as while a release is on trial.
    pub must_run: bool,
}

/// Judges the containers of an app.
pub fn judge(app: &App, members: &[Member], demand: &Demand) -> AppState {
    let services = app.services.iter().map(|service| {
        let own: Vec<&Member> =
            members.iter().filter(|member| member.service == service.name).collect();
        let of = |member: &&Member| match service.on_demand {
            None => word(member),
            Some(_) => word_on_demand(member, demand),
        };
        let worst = own.iter().map(of).min_by_key(|(is_well, _)| *is_well);
        let (is_well, state) = worst.unwrap_or((false, "not there".to_owned()));
        let restarts = own.iter().map(|member| member.restarts).sum();
        ServiceState { name: service.name.clone(), state, is_well, restarts }
    });
    AppState {
        name: app.name.clone(),
        release: app.release.to_string(),
        services: services.collect(),
    }
}

/// One that does not run waits for a connection, with whatever it ended when it was stopped.
fn word_on_demand(member: &Member, demand: &Demand) -> (bool, String) {
    let (is_well, state) = word(member);
    let trouble = demand.troubles.iter().find(|(name, _)| *name == member.service);
    match (trouble, member.state.as_str()) {
        (Some((_, why)), _) => (false, format!("on demand, and failed: {why}")),
        (None, "created" | "exited") if !demand.must_run => (true, "on demand".to_owned()),
        // A health check that has not spoken yet is that of a container that just began.
        (None, "running") if member.health.as_deref() == Some("starting") => {
            (!demand.must_run, "on demand, starting".to_owned())
        }
        (None, now) => {
            let runs = now == "running" || !demand.must_run;
            (is_well && runs, format!("on demand, {state}"))
        }
    }
}

fn word(member: &Member) -> (bool, String) {
    let Member { state, health, exit_code, .. } = member;
    match (state.as_str(), health.as_deref()) {
        ("running", None) => (true, "running".to_owned()),
        ("running", Some("healthy")) => (true, "healthy".to_owned()),
        ("running", Some(health)) => (false, health.to_owned()),
        // Work that is done once, such as a migration of a database.
        ("exited", _) if *exit_code == 0 && !member.restarts_always => (true, "done".to_owned()),
        ("exited", _) => (false, format!("ended with status {exit_code}")),
        (state, _) => (false, state.to_owned()),
    }
}

impl AppState {
    /// Whether every service is as it should be.
    pub fn is_well(&self) -> bool {
        self.services.iter().all(|service| service.is_well)
    }

    /// What keeps it from being well.
    pub fn amiss(&self) -> Option<String> {
        let service = self.services.iter().find(|service| !service.is_well)?;
        Some(format!("app {}: {} is {}", self.name, service.name, service.state))
    }

    /// How often containers were started again: what grows is not well, however it looks.
    pub fn restarts(&self) -> u64 {
        self.services.iter().map(|service| service.restarts).sum()
    }

    /// A line for people.
    pub fn text(&self) -> String {
        let services = self.services.iter().map(|service| {
            let restarts = match service.restarts {
                0 => String::new(),
                count => format!(", restarted {count} times"),
            };
            format!("{} {}{restarts}", service.name, service.state)
        });
        let services: Vec<String> = services.collect();
        format!("{} (release {}): {}", self.name, self.release, services.join("; "))
    }

    /// The same facts for programs.
    pub fn json(&self) -> Value {
        let services = self.services.iter().map(|service| {
            json!({
                "name": service.name,
                "state": service.state,
                "well": service.is_well,
                "restarts": service.restarts,
            })
        });
        json!({
            "name": self.name,
            "release": self.release,
            "well": self.is_well(),
            "services": services.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::{Release, Service};
    use super::*;
    use crate::on_demand::plan::tests::terms;

    pub(crate) fn member(service: &str, state: &str, health: Option<&str>) -> Member {
        Member {
            service: service.to_owned(),
            state: state.to_owned(),
            health: health.map(str::to_owned),
            exit_code: 0,
            restarts: 0,
            restarts_always: true,
        }
    }

    fn app() -> App {
        let service = |name: &str| Service {
            name: name.to_owned(),
            image: "x:1".to_owned(),
            on_demand: None,
        };
        App {
            name: "shop".to_owned(),
            release: Release::Pushed(3),
            services: vec![service("web"), service("db")],
            images: Vec::new(),
            directory: "/".into(),
        }
    }

    #[test]
    fn an_app_is_well_when_each_service_runs_or_is_healthy_or_is_done() {
        let once = Member { restarts_always: false, ..member("db", "exited", None) };
        let failed = Member { exit_code: 3, ..once.clone() };
        let cases = [
            (member("db", "running", None), None),
            (member("db", "running", Some("healthy")), None),
            (member("db", "running", Some("starting")), Some("app shop: db is starting")),
            (member("db", "running", Some("unhealthy")), Some("app shop: db is unhealthy")),
            (member("db", "restarting", None), Some("app shop: db is restarting")),
            (member("db", "exited", None), Some("app shop: db is ended with status 0")),
            (once, None),
            (failed, Some("app shop: db is ended with status 3")),
            (member("other", "running", None), Some("app shop: db is not there")),
        ];
        for (db, expected) in cases {
            let state = judge(&app(), &[member("web", "running", None), db], &Demand::default());
            assert_eq!(state.amiss().as_deref(), expected);
            assert_eq!(state.is_well(), expected.is_none());
        }
    }

    #[test]
    fn a_service_on_demand_is_well_while_it_waits_but_not_on_trial() {
        let mut app = app();
        app.services.remove(0);
        app.services[0].on_demand = Some(terms(&[(80, 80)]));
        let stopped = Member { exit_code: 143, ..member("db", "exited", None) };
        let once = Member { restarts_always: false, ..member("db", "exited", None) };
        let ill = member("db", "running", Some("unhealthy"));
        for (db, waits, on_trial) in [
            (member("db", "created", None), (true, "on demand"), (false, "on demand, created")),
            (stopped, (true, "on demand"), (false, "on demand, ended with status 143")),
            (once, (true, "on demand"), (false, "on demand, done")),
            (
                member("db", "running", None),
                (true, "on demand, running"),
                (true, "on demand, running"),
            ),
            (
                member("db", "running", Some("starting")),
                (true, "on demand, starting"),
                (false, "on demand, starting"),
            ),
            (ill, (false, "on demand, unhealthy"), (false, "on demand, unhealthy")),
        ] {
            for (must_run, expected) in [(false, waits), (true, on_trial)] {
                let demand = Demand { must_run, ..Demand::default() };
                let state = judge(&app, std::slice::from_ref(&db), &demand);
                let service = &state.services[0];
                assert_eq!((service.is_well, service.state.as_str()), expected, "{db:?}");
            }
        }
        assert!(!judge(&app, &[], &Demand::default()).is_well(), "it has to be there");
        let troubles = vec![("db".to_owned(), "it ended with status 3".to_owned())];
        let demand = Demand { troubles, must_run: false };
        let state = judge(&app, &[member("db", "created", None)], &demand);
        let expected = "app shop: db is on demand, and failed: it ended with status 3";
        assert_eq!(state.amiss().as_deref(), Some(expected));
    }

    #[test]
    fn the_worst_container_of_a_service_counts() {
        let one = Member { restarts: 2, ..member("web", "running", None) };
        let members = [one, member("web", "created", None)];
        let state = judge(&app(), &members, &Demand::default());
        assert_eq!(state.text(), "shop (release 3): web created, restarted 2 times; db not there");
        assert_eq!(state.json()["services"][0]["well"], false);
        assert_eq!(state.restarts(), 2);
    }
}
